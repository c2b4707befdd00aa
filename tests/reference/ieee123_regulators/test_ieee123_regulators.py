"""The feeder ieee123 reproduces power, losses, taps and voltages of OpenDSS's own model; see README.md."""

import csv
from pathlib import Path

import numpy as np
import pytest

from cosim.grid.batch import BatchPowerFlow
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.scenario.schema import GridConfig

HERE = Path(__file__).parent
HALF_A_WATT_KW, TOLERANCE_PU, TAP_PU = 0.00051, 1e-5, 0.00625


def rows_of(name):
    with (HERE / name).open(newline="") as lines:
        return list(csv.DictReader(lines))


CASES = {
    row["case"]: row | given for row, given in zip(rows_of("expected.csv"), rows_of("input_cases.csv"), strict=True)
}
TAPS = {row["regulator"]: row for row in rows_of("expected_taps.csv")}
AUTOMATIC = [case for case, row in CASES.items() if row["regulators"] == "automatic"]
FIXED = [case for case, row in CASES.items() if row["regulators"] == "fixed"]


def expected_taps(case):
    column = case.removesuffix("_default_tolerance")
    return {regulator: int(row[column]) for regulator, row in TAPS.items()}


def require_powers(case, source_kw, source_kvar=None, loss_kw=None):
    expected = CASES[case]
    assert source_kw == pytest.approx(float(expected["source_kw"]), abs=HALF_A_WATT_KW, rel=0)
    if loss_kw is not None:
        assert loss_kw == pytest.approx(float(expected["loss_kw"]), abs=HALF_A_WATT_KW, rel=0)
    if source_kvar is not None and expected["source_kvar"]:
        assert source_kvar == pytest.approx(float(expected["source_kvar"]), abs=HALF_A_WATT_KW, rel=0)


def require_extremes(case, nodes, vm_pu):
    expected = CASES[case]
    assert len(nodes) == 274
    for extreme, at in (("lowest", int(np.argmin(vm_pu))), ("highest", int(np.argmax(vm_pu)))):
        assert nodes[at].lower() == expected[f"{extreme}_node"]
        assert vm_pu[at] == pytest.approx(float(expected[f"{extreme}_pu"]), abs=TOLERANCE_PU, rel=0)


def spot_powers(feeder):
    return feeder.powers(feeder.profile_columns, np.ones(len(feeder.profile_columns)))


@pytest.fixture
def engine_at(feeders):
    """Engines at a convergence tolerance."""
    feeder, engines = load_feeder(feeders / "ieee123"), []

    def make(tolerance_pu):
        engines.append(Engine(feeder, GridConfig(tolerance_pu=tolerance_pu)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.mark.parametrize("case", AUTOMATIC)
def test_automatic_regulators(case, engine_at):
    engine = engine_at(float(CASES[case]["tolerance_pu"]))
    state = engine.solve(*spot_powers(engine.feeder))
    require_powers(case, state.head_p_kw, loss_kw=state.loss_kw)
    require_extremes(case, engine.layout.nodes, state.vm_pu)
    taps = {name: round((ratios[1] - 1.0) / TAP_PU) for name, ratios in engine.controls()["taps"].items()}
    assert taps == expected_taps(case)


@pytest.mark.parametrize("case", AUTOMATIC)
def test_automatic_regulators_in_the_scripts_alone(case, opendss):
    dss = opendss(
        "ieee123",
        "Redirect Master.dss",
        f"Set mode=snapshot controlmode=static maxcontroliter=30 tolerance={CASES[case]['tolerance_pu']}",
        "Solve",
    )
    require_solved(dss, case)


def test_the_run_script(opendss):
    require_solved(opendss("ieee123"), "automatic")


@pytest.mark.parametrize("case", FIXED)
def test_published_taps_in_the_scripts_alone(case, opendss):
    dss = opendss(
        "ieee123",
        "Redirect Master.dss",
        "Redirect PublishedTaps.dss",
        f"Set mode=snapshot tolerance={CASES[case]['tolerance_pu']}",
        "Solve",
    )
    require_solved(dss, case)


def require_solved(dss, case):
    circuit = dss.ActiveCircuit
    assert circuit.Solution.Converged
    source_kw, source_kvar = -np.asarray(circuit.TotalPower)
    require_powers(case, source_kw, source_kvar, circuit.Losses[0] / 1000.0)
    require_extremes(case, circuit.AllNodeNames, np.asarray(circuit.AllBusVmagPu))
    assert {control.Transformer: control.TapNumber for control in circuit.RegControls} == expected_taps(case)


def test_loads_are_as_published(opendss):
    """Also what does not show in the cases: limits that no voltage reaches there."""
    laws = {"constant_power": 1, "constant_impedance": 2, "constant_current": 5}
    circuit = opendss("ieee123", "Redirect Master.dss").ActiveCircuit
    expected = {row["load"]: row for row in rows_of("input_loads.csv")}
    assert {load.Name for load in circuit.Loads} == set(expected)
    for load in circuit.Loads:
        row = expected[load.Name]
        nodes = [] if row["phase_nodes"] == "ABC" else [str("ABC".index(phase) + 1) for phase in row["phase_nodes"]]
        assert circuit.ActiveCktElement.BusNames[0] == ".".join([row["bus"], *nodes])
        assert load.Phases == int(row["phase_count"])
        assert load.IsDelta == (row["connection"] == "delta")
        assert load.Model == laws[row["voltage_law"]]
        assert [load.kV, load.kW, load.kvar] == pytest.approx([float(row[key]) for key in ("kv", "kw", "kvar")])
        assert [load.Vminpu, load.Vmaxpu] == [0.95, 1.05]


def test_regulators_are_set_as_published(opendss):
    circuit = opendss("ieee123", "Redirect Master.dss").ActiveCircuit
    rows = rows_of("input_regulators.csv")
    assert [control.Transformer for control in circuit.RegControls] == [row["regulator"] for row in rows]
    for control, row in zip(circuit.RegControls, rows, strict=True):
        line_drop = (control.CTPrimary, control.ForwardR, control.ForwardX)
        found = (control.ForwardVreg, control.ForwardBand, control.PTratio, *line_drop, control.Delay)
        assert found == tuple(float(value) for key, value in row.items() if key != "regulator")
        assert control.Winding == 2
        assert control.MaxTapChange == 1


def test_the_unloaded_transformer_turns_no_angle(opendss):
    """Delta-delta: 610 is in phase with 61s."""
    circuit = opendss("ieee123").ActiveCircuit
    angles = []
    for bus in ("61s", "610"):
        circuit.SetActiveBus(bus)
        angles.append(np.angle(np.asarray(circuit.ActiveBus.VLL).view(np.complex128), deg=True))
    np.testing.assert_allclose(angles[1], angles[0], rtol=0, atol=0.01)


def test_published_taps(engine_at):
    """The engine's regulators are automatic; its batch power flow holds them where it is told."""
    engine = engine_at(1e-8)
    engine.restore_controls(
        {"taps": {name: [1.0, 1.0 + TAP_PU * tap] for name, tap in expected_taps("published_taps").items()}}
        | {"capacitors": {}}
    )
    flow = BatchPowerFlow(engine.unloaded(engine.controls()), engine.layout.nodes, [engine.feeder.head_terminal])
    p_kw, q_kvar = spot_powers(engine.feeder)
    solution = flow.solve(p_kw[None], q_kvar[None]).require_converged()
    require_powers("published_taps", float(solution.p_kw[0, 0]))
    require_extremes("published_taps", engine.layout.nodes, solution.vm_pu[0])
