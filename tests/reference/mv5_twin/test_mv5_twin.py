"""The feeder mv5_twin agrees with pandapower on the same design, and its feeder A with mv5; see README.md."""

import csv
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from mv5_twin_network import BUSES, solve

from cosim.grid.batch import BatchPowerFlow
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.io.profiles import read_simbench
from cosim.scenario.schema import GridConfig

HERE = Path(__file__).parent
FEEDER = load_feeder(HERE.parents[2] / "dss_models" / "mv5_twin")
MV5 = load_feeder(HERE.parents[2] / "dss_models" / "mv5")
CET = timezone(timedelta(hours=1))
TOLERANCE_KW, TOLERANCE_KVAR, TOLERANCE_PU = 1e-3, 0.03, 1e-6
MV5_KW, MV5_PU = 0.02, 5e-5
FLOWS = {
    "interface": ("Transformer.TR0@HV0", 1.0),
    "busbar": ("Transformer.TR0@MV0", -1.0),
    "head_a": ("Line.AL01@MV0", 1.0),
    "head_b": ("Line.BL01@MV0", 1.0),
}


def rows_of(folder, name):
    with (folder / name).open(newline="") as lines:
        return list(csv.DictReader(lines))


def figures(row):
    return {key: float(value) for key, value in row.items() if key not in ("case", "time")}


CASES = [
    (row["case"], figures(row), figures(expected))
    for row, expected in zip(rows_of(HERE, "input.csv"), rows_of(HERE, "expected.csv"), strict=True)
]


@pytest.fixture(scope="module")
def engine():
    engine = Engine(FEEDER, GridConfig())
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def profiles():
    return read_simbench("1-complete_data-mixed-all-1-sw", FEEDER.profile_columns)


def powers(case):
    factor = {"load": case["load"], "pv": case["pv"], "storage": 0.0}
    p_kw, q_kvar = (
        np.array([factor[pod.kind] * getattr(pod, per) for pod in FEEDER.pods.values()])
        for per in ("p_per_profile_kw", "q_per_profile_kvar")
    )
    for feeder, battery in (("a", "A.SS3.battery"), ("b", "B.SS2.battery")):
        p_kw[list(FEEDER.pods).index(battery)] = case[f"battery_{feeder}_kw"]
    return p_kw, q_kvar


def flow(engine, state, name):
    terminal, sign = FLOWS[name]
    k = engine.layout.terminals.index(terminal)
    return sign * state.terminal_p_kw[k], sign * state.terminal_q_kvar[k]


def vm_pu(engine, state, bus):
    return state.vm_pu[[engine.layout.nodes.index(f"{bus}.{phase}") for phase in (1, 2, 3)]]


@pytest.mark.parametrize(("case", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_agrees_with_pandapower(engine, case, expected):
    state = engine.solve(*powers(case))
    for name in FLOWS:
        p_kw, q_kvar = flow(engine, state, name)
        assert p_kw == pytest.approx(expected[f"{name}_p_kw"], abs=TOLERANCE_KW), name
        assert q_kvar == pytest.approx(expected[f"{name}_q_kvar"], abs=TOLERANCE_KVAR), name
    for bus in BUSES:
        np.testing.assert_allclose(vm_pu(engine, state, bus), expected[f"{bus.lower()}_pu"], atol=TOLERANCE_PU, rtol=0)
    assert {bus.upper() for bus in BUSES} == set(engine.layout.buses)


@pytest.mark.parametrize(("case", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_expected_values_are_those_of_pandapower(case, expected):
    found = solve(case)
    assert list(found) == list(expected)
    for key, value in found.items():
        assert value == pytest.approx(expected[key], abs=1e-8 if key.endswith("_pu") else 1e-5), key


@pytest.mark.parametrize("case", [case[1] for case in CASES], ids=[case[0] for case in CASES])
def test_the_heads_are_the_interface_less_the_losses_of_the_transformer(engine, case):
    """Losses from the transformer's name plate: 20 kW at rated voltage, 100 kW at rated current."""
    state = engine.solve(*powers(case))
    (interface_kw, interface_kvar), *heads = (flow(engine, state, name) for name in ("interface", "head_a", "head_b"))
    high_pu, low_pu = (float(vm_pu(engine, state, bus)[0]) for bus in ("HV0", "MV0"))
    loss_kw = 20.0 * (low_pu / 1.02) ** 2 + 100.0 * (np.hypot(interface_kw, interface_kvar) / 25000.0 / high_pu) ** 2
    assert interface_kw - sum(p_kw for p_kw, _ in heads) == pytest.approx(loss_kw, abs=TOLERANCE_KW)
    assert state.head_p_kw == pytest.approx(interface_kw, abs=1e-9)


def test_pods_and_ratings_of_feeder_a_are_those_of_mv5():
    assert {f"A.{name}": pod.model_dump(exclude={"element"}) for name, pod in MV5.pods.items()} == {
        name: pod.model_dump(exclude={"element"}) for name, pod in FEEDER.pods.items() if name.startswith("A.")
    }
    for branch, rating in MV5.file.ratings.items():
        kind, _, name = branch.partition(".")
        assert FEEDER.rating(f"{kind}.{name if name == 'TR0' else f'A{name}'}") == rating


@pytest.mark.parametrize(
    "expected", rows_of(HERE.parent / "mv5_check_points", "expected.csv"), ids=lambda row: row["time"]
)
def test_feeder_a_at_the_check_points_of_mv5(engine, profiles, expected):
    """Voltages are compared by their difference to the busbar's, which is another one with B's power behind it."""
    begin = datetime.fromisoformat(expected["time"]).replace(tzinfo=CET)
    state = engine.solve(*FEEDER.powers(profiles.names, profiles.rows(begin)))
    assert flow(engine, state, "head_a")[0] == pytest.approx(float(expected["head_p_kw"]), abs=MV5_KW)
    busbar_pu = vm_pu(engine, state, "MV0")
    for bus in ("LV1", "LV2", "LV3", "LV4", "LV5"):
        rise_pu = float(expected[f"{bus.lower()}_pu"]) - float(expected["mv0_pu"])
        np.testing.assert_allclose(vm_pu(engine, state, f"A{bus}") - busbar_pu, rise_pu, atol=MV5_PU, rtol=0)


def test_the_two_feeders_have_their_extremes_at_different_times(engine, profiles):
    flows = BatchPowerFlow(engine.unloaded(), [], ["Line.AL01@MV0", "Line.BL01@MV0"])
    p_kw = flows.solve(*FEEDER.powers(profiles.names, profiles.values)).require_converged().p_kw
    begins = [
        tuple(
            (profiles.start + timedelta(seconds=profiles.step_s * int(k))).astimezone(CET).strftime("%m-%d %H:%M")
            for k in found
        )
        for found in (p_kw.argmax(axis=0), p_kw.argmin(axis=0))
    ]
    assert begins == [("01-22 08:00", "01-22 10:00"), ("07-23 11:45", "05-26 12:15")]
    np.testing.assert_allclose(p_kw.max(axis=0), [1006.3, 778.3], atol=0.05)
    np.testing.assert_allclose(p_kw.min(axis=0), [-863.0, -1033.7], atol=0.05)


def test_no_profile_is_in_both_feeders():
    a, b = ({pod.profile for name, pod in FEEDER.pods.items() if name.startswith(feeder)} for feeder in "AB")
    assert not (a & b) - {None}


def test_ratings_and_pods_are_those_of_the_opendss_scripts(opendss):
    """feeder.yaml repeats what the scripts say: they must not drift apart."""
    circuit = opendss("mv5_twin", "Redirect Master.dss").ActiveCircuit
    rated = {f"line.{line.Name}": line.NormAmps for line in circuit.Lines}
    rated |= {f"transformer.{transformer.Name}": transformer.kVA for transformer in circuit.Transformers}
    assert {branch.lower(): r.i_a or r.s_kva for branch, r in FEEDER.file.ratings.items()} == rated
    powers_kw = {f"load.{load.Name}": (load.kW, load.PF) for load in circuit.Loads}
    powers_kw |= {f"generator.{plant.Name}": (plant.kW, 1.0) for plant in circuit.Generators}
    pods = [pod for pod in FEEDER.pods.values() if pod.kind != "storage"]
    assert {pod.element.lower() for pod in pods} == set(powers_kw)
    for pod in pods:
        assert (pod.kw, pod.power_factor) == pytest.approx(powers_kw[pod.element.lower()], rel=1e-12)


def test_the_scripts_alone(opendss):
    """Run.dss, all loads and plants at their full power."""
    circuit = opendss("mv5_twin").ActiveCircuit

    def entering_kw(name):
        circuit.SetActiveElement(name)
        return np.asarray(circuit.ActiveCktElement.Powers)[:6:2].sum()

    expected = solve({"load": 1.0, "pv": 1.0, "battery_a_kw": 0.0, "battery_b_kw": 0.0})
    names = {"Transformer.TR0": "interface", "Line.AL01": "head_a", "Line.BL01": "head_b"}
    for element, name in names.items():
        assert entering_kw(element) == pytest.approx(expected[f"{name}_p_kw"], abs=TOLERANCE_KW)
