import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from feeder_folders import CONFIG, LINE, LINE_YAML, MV5, engine_in, feeder_in

from cosim.errors import FeederError, PowerFlowError
from cosim.grid import circuit
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.rng import rng_for
from cosim.scenario.schema import GridConfig

P_KW, Q_KVAR = np.array([900.0, -300.0, 50.0]), np.array([200.0, 10.0, 0.0])
BREAKING_KW = 200_000.0


@pytest.fixture
def engine(tmp_path):
    made = engine_in(tmp_path / "line")
    yield made
    made.close()


def bytes_of(state):
    return b"".join(
        np.asarray(part).tobytes()
        for part in (state.vm_pu, state.va_deg, state.terminal_p_kw, state.terminal_q_kvar, state.terminal_i_a)
    )


def refusals(tmp_path, script=LINE, yaml=LINE_YAML):
    with pytest.raises(FeederError) as caught:
        engine_in(tmp_path / "wrong", script, yaml)
    return [str(fault).replace(f"{tmp_path}/wrong/", "") for fault in caught.value.faults]


# --- state ------------------------------------------------------------------------------------------------------


def test_layout_and_storage_come_from_the_circuit(engine):
    assert engine.layout.nodes == tuple(f"{bus}.{phase}" for bus in ("SRC", "A", "B") for phase in (1, 2, 3))
    assert engine.layout.branches == ("Line.L1", "Line.L2")
    assert engine.layout.terminals == ("Line.L1@SRC", "Line.L1@A", "Line.L2@A", "Line.L2@B")
    np.testing.assert_array_equal(engine.layout.rated_a, [100.0, 100.0, math.nan, math.nan])
    assert engine.pod_buses == ("A", "B", "B")
    (unit,) = engine.storage
    assert (unit.pod, unit.p_max_kw, unit.e_max_kwh, unit.reserve_kwh) == ("B.battery", 300.0, 600.0, 120.0)
    assert (unit.charge_efficiency, unit.discharge_efficiency, unit.idling_kw) == (0.9, 0.8, 3.0)


def test_power_balance_of_one_state(engine):
    state = engine.solve(P_KW, Q_KVAR)
    assert state.converged
    assert state.iterations > 1
    assert state.head_p_kw == pytest.approx(P_KW.sum() + state.loss_kw, abs=1e-3)
    assert state.terminal_p_kw[0] == state.head_p_kw
    assert state.terminal_p_kw[2] == pytest.approx(-state.terminal_p_kw[1] - P_KW[0], abs=1e-3)
    assert state.terminal_p_kw[3] == pytest.approx(250.0, abs=1e-3)  # B injects 250 kW into the branch
    assert state.loading_pu[0] == pytest.approx(state.terminal_i_a[:2].max() / 100.0)
    assert math.isnan(state.loading_pu[1])
    assert not state.vm_pu.flags.writeable


def test_single_phase_transformers_are_rated_by_their_own_voltage(tmp_path):
    script = LINE.replace(
        "New Storage.S",
        "New Transformer.P phases=1 windings=2 buses=[B.1 C.1] kVs=[11.547 0.23] kVAs=[50 50]\n"
        "New Transformer.D phases=1 windings=2 buses=[B.1.2 D.1] kVs=[20 0.23] kVAs=[50 50]\nNew Storage.S",
    )
    script = script.replace("[20]", "[20, 0.4]")
    yaml = LINE_YAML + "  Transformer.P: {s_kva: 50}\n  Transformer.D: {s_kva: 50}\n"
    engine = engine_in(tmp_path / "phases", script, yaml)
    rated = dict(zip(engine.layout.terminals, engine.layout.rated_a, strict=True))
    engine.close()
    assert rated["Transformer.P@B"] == pytest.approx(50.0 * math.sqrt(3.0) / 20.0, rel=1e-6)
    assert rated["Transformer.D@B"] == pytest.approx(50.0 / 20.0, rel=1e-6)
    assert rated["Transformer.P@C"] == pytest.approx(50.0 / 0.23, rel=1e-6)


def test_a_step_not_solved_is_recorded_as_missing(engine):
    solved, missing = engine.solve(P_KW, Q_KVAR), engine.diverged()
    for name in ("vm_pu", "va_deg", "terminal_p_kw", "terminal_q_kvar", "terminal_i_a", "loading_pu"):
        assert getattr(missing, name).shape == getattr(solved, name).shape
        assert np.isnan(getattr(missing, name)).all()
    assert math.isnan(missing.head_p_kw)
    assert math.isnan(missing.head_q_kvar)
    assert math.isnan(missing.loss_kw)
    assert (missing.converged, missing.iterations) == (False, CONFIG.max_iterations)


# --- a state depends on powers and controls only -----------------------------------------------------------------


def test_same_powers_same_bytes_whatever_was_solved_before(engine):
    first = bytes_of(engine.solve(P_KW, Q_KVAR))
    for factor in (-3.0, 0.0, 2.5):
        engine.solve(factor * P_KW, Q_KVAR)
    assert bytes_of(engine.solve(P_KW, Q_KVAR)) == first
    with pytest.raises(PowerFlowError):
        engine.solve(np.array([BREAKING_KW, 0.0, 0.0]), Q_KVAR)
    assert bytes_of(engine.solve(P_KW, Q_KVAR)) == first


def test_a_recompiled_circuit_goes_on_to_the_last_bit():
    """OpenDSS would keep the admittances of loads at the powers of its first solve."""
    steps = rng_for(1, "steps").uniform(-300.0, 300.0, (6, 11))
    whole, resumed = (Engine(load_feeder(MV5), CONFIG) for _ in range(2))
    expected = [bytes_of(whole.solve(p_kw, 0.1 * p_kw)) for p_kw in steps]
    assert [bytes_of(resumed.solve(p_kw, 0.1 * p_kw)) for p_kw in steps[3:]] == expected[3:]
    whole.close()
    resumed.close()


def test_two_engines_at_once_do_not_disturb_each_other(engine):
    alone = bytes_of(engine.solve(P_KW, Q_KVAR))
    other = Engine(load_feeder(MV5), GridConfig(tolerance_pu=1e-4))
    other.solve(np.full(len(other.pods), 20.0), np.zeros(len(other.pods)))
    assert bytes_of(engine.solve(P_KW, Q_KVAR)) == alone
    other.close()
    assert bytes_of(engine.solve(P_KW, Q_KVAR)) == alone


def test_a_closed_engine_leaves_nothing_to_the_next(tmp_path, monkeypatch):
    """mv5 sets a base frequency of 50 Hz, which an OpenDSS context keeps over Clear; this script relies on 60 Hz."""
    monkeypatch.setattr(circuit, "_spare_contexts", [])
    feeder = feeder_in(tmp_path / "line")
    states, contexts = [], []
    for _ in range(3):
        engine = Engine(feeder, CONFIG)
        states.append(bytes_of(engine.solve(P_KW, Q_KVAR)))
        engine.close()
        between = Engine(load_feeder(MV5), GridConfig(tolerance_pu=1e-3, max_iterations=9))
        between.close()
        contexts.append(len(circuit._spare_contexts))
    assert states[0] == states[1] == states[2]
    assert contexts == [1, 1, 1]


def test_a_refused_circuit_gives_its_context_back(tmp_path):
    feeder = feeder_in(tmp_path / "wrong", LINE.replace("New Load.A", "New Loda.A"))
    Engine(load_feeder(MV5), CONFIG).close()
    before = len(circuit._spare_contexts)
    for _ in range(3):
        with pytest.raises(FeederError):
            Engine(feeder, CONFIG)
    assert len(circuit._spare_contexts) == before


def test_the_working_directory_stays(tmp_path):
    """In a process of its own: the first OpenDSS context of a process goes to where OpenDSS was imported."""
    feeder_in(tmp_path / "line")
    script = """
import os, sys
from pathlib import Path
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.scenario.schema import GridConfig
os.chdir(sys.argv[1])
engine = Engine(load_feeder(Path("line")), GridConfig())
engine.close()
print(os.getcwd())
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["Master.dss", "feeder.yaml", "line"]


# --- errors -----------------------------------------------------------------------------------------------------


def test_a_broken_line_is_named_with_its_file(tmp_path):
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "Loads.dss").write_text("New Load.A bus1=A phases=3 kV=20 kW=1000\n\nNew Load.B buss1=B\n")
    script = "\n".join(line for line in LINE.splitlines() if not line.startswith("New Load"))
    (fault,) = refusals(tmp_path, script.replace("New Storage", "Redirect Loads.dss\nNew Storage"))
    assert fault == (
        'Loads.dss:3: OpenDSS refuses the circuit: (#110) Unknown parameter "buss1" (value "B") for object "Load.b"'
    )


def test_a_missing_master(tmp_path):
    feeder = feeder_in(tmp_path / "line")
    feeder.master.unlink()
    with pytest.raises(FeederError, match=r"line/Master\.dss: no such file"):
        Engine(feeder, CONFIG)


def test_a_script_without_circuit(tmp_path):
    assert refusals(tmp_path, "Clear\n") == [
        "Master.dss: the script defines no circuit; allowed: New Circuit.<name> ..."
    ]


def test_buses_without_base_voltage_are_all_named(tmp_path):
    (fault,) = refusals(tmp_path, LINE.replace("Set VoltageBases=[20]\nCalcVoltageBases\n", ""))
    assert fault == ("Master.dss: buses without base voltage; add Set VoltageBases and CalcVoltageBases; got SRC, A, B")


def test_unfit_elements_are_all_named_with_their_line(tmp_path):
    script = LINE + "New Load.Off bus1=B phases=3 kV=20 kW=1 enabled=no\n"
    yaml = (
        LINE_YAML.replace("Load.A", "Load.AA")
        .replace("Load.B", "Line.L1")
        .replace(
            "ratings:",
            "  Off: {element: Load.Off, kind: load, kw: 1, profile: constant}\n"
            "  Twice: {element: storage.s, kind: storage}\n"
            "  Wrong: {element: Load.B, kind: storage}\n"
            "ratings:",
        )
    )
    assert refusals(tmp_path, script, yaml) == [
        "feeder.yaml:4: pods.A.load.element: no such element; got Load.AA; allowed: Load.a, Load.b, Load.off",
        "feeder.yaml:5: pods.B.load.element: not an element for a POD of kind load; got Line.L1; "
        "allowed: Load.a, Load.b, Load.off",
        "feeder.yaml:7: pods.Off.element: the element is out of service (enabled=no); got Load.Off",
        "feeder.yaml:8: pods.Twice.element: the element already belongs to POD B.battery; got storage.s",
        "feeder.yaml:9: pods.Wrong.element: not an element for a POD of kind storage; got Load.B; allowed: Storage.s",
    ]


def test_unknown_head_and_rated_branch(tmp_path):
    yaml = LINE_YAML.replace("end: SRC", "end: B").replace("  Line.L1: {", "  Line.L9: {")
    assert refusals(tmp_path, yaml=yaml) == [
        "feeder.yaml:8: ratings.Line.L9: no such branch; got Line.L9; allowed: Line.L1, Line.L2",
        "feeder.yaml:2: head: no such end of a branch; got Line.L1@B; "
        "allowed: Line.L1@SRC, Line.L1@A, Line.L2@A, Line.L2@B",
    ]


def test_divergence_names_the_weakest_node_and_the_largest_pod(tmp_path):
    engine = engine_in(tmp_path / "line")
    with pytest.raises(PowerFlowError) as caught:
        engine.solve(np.array([0.0, BREAKING_KW, 0.0]), np.zeros(3))
    engine.close()
    assert str(caught.value).replace("B.2", "B.1").replace("B.3", "B.1") == (
        "feeder line: power flow did not converge in 100 iterations; "
        "weakest node B.1, largest POD B.load with 200000.0 kW, 0.0 kvar"
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_power_that_is_not_finite_is_refused_and_does_no_harm(engine, bad):
    before = bytes_of(engine.solve(P_KW, Q_KVAR))
    with pytest.raises(PowerFlowError, match=rf"POD B\.battery has a power of 50\.0 kW, {bad} kvar"):
        engine.solve(P_KW, np.array([0.0, 0.0, bad]))
    assert bytes_of(engine.solve(P_KW, Q_KVAR)) == before
