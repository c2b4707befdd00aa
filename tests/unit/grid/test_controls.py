import json

import numpy as np
import pytest
from feeder_folders import CONFIG, LINE, REGULATED, REGULATED_YAML, engine_in

from cosim.errors import FeederError, PowerFlowError
from cosim.grid.circuit import solve_flat
from cosim.rng import rng_for
from cosim.scenario.schema import GridConfig

STEPS_KW = (1000.0, 2500.0, 4000.0, 500.0, -3000.0, 800.0, 3500.0, -500.0)
HUNTING = REGULATED.replace("onsetting=300 offsetting=-200", "onsetting=300 offsetting=250")


def regulated_in(folder, script=REGULATED, config=CONFIG):
    return engine_in(folder, script, REGULATED_YAML, config)


def solved(engine, p_kw):
    state = engine.solve(np.array([p_kw]), np.array([0.4 * p_kw]))
    return state.vm_pu.tobytes() + state.va_deg.tobytes() + state.terminal_i_a.tobytes(), engine.controls()


def test_taps_and_capacitors_move_and_last(tmp_path):
    engine = regulated_in(tmp_path / "a")
    positions = [solved(engine, p_kw)[1] for p_kw in STEPS_KW]
    engine.close()
    assert len({json.dumps(each["taps"]) for each in positions}) > 3
    assert len({json.dumps(each["capacitors"]) for each in positions}) == 3
    assert positions[2]["taps"]["reg"][1] > 1.0 > positions[4]["taps"]["reg"][1]
    assert positions[4]["capacitors"]["c1"] == [True, [0, 0]]


@pytest.mark.parametrize("cut", range(1, len(STEPS_KW)))
def test_a_restored_circuit_goes_on_to_the_last_bit(tmp_path, cut):
    whole = regulated_in(tmp_path / "a")
    steps = [solved(whole, p_kw) for p_kw in STEPS_KW]
    whole.close()
    resumed = regulated_in(tmp_path / "a")
    solved(resumed, 1700.0)  # what the circuit did before does not matter
    resumed.restore_controls(json.loads(json.dumps(steps[cut - 1][1])))
    assert resumed.controls() == steps[cut - 1][1]
    assert [solved(resumed, p_kw) for p_kw in STEPS_KW[cut:]] == steps[cut:]
    resumed.close()


def test_a_long_random_course_is_restored_to_the_last_bit(tmp_path):
    course_kw = rng_for(3, "course").uniform(-4000.0, 5000.0, 60)
    whole = regulated_in(tmp_path / "a")
    steps = [solved(whole, p_kw) for p_kw in course_kw]
    whole.close()
    for cut in range(1, len(steps)):
        resumed = regulated_in(tmp_path / "a")
        resumed.restore_controls(steps[cut - 1][1])
        assert solved(resumed, course_kw[cut]) == steps[cut], f"step {cut}"
        resumed.close()


def test_a_circuit_without_controls_has_no_positions(tmp_path):
    engine = engine_in(
        tmp_path / "line", LINE + "New Transformer.T buses=[B C] kVs=[20 0.4] kVAs=[400 400]\nCalcVoltageBases\n"
    )
    assert engine.controls() == {"taps": {}, "capacitors": {}}
    engine.close()


def test_hunting_controls_are_named(tmp_path):
    engine = regulated_in(tmp_path / "a", HUNTING, GridConfig(max_control_iterations=12))
    with pytest.raises(PowerFlowError) as caught:
        solved(engine, 1000.0)
    engine.close()
    assert str(caught.value).startswith(
        "feeder regulated: controls do not settle in 12 iterations; still moving: Capacitor.c1. OpenDSS: (#485) Warning"
    )


def test_after_hunting_the_engine_solves_on(tmp_path):
    """OpenDSS refuses every solve after an aborted one, until the next command."""
    engine, fresh = regulated_in(tmp_path / "a", HUNTING), regulated_in(tmp_path / "a", HUNTING)
    for _ in range(2):
        with pytest.raises(PowerFlowError, match=r"still moving: Capacitor\.c1"):
            solved(engine, 1000.0)
    fresh.restore_controls(engine.controls())
    assert solved(engine, -2000.0) == solved(fresh, -2000.0)
    engine.close()
    fresh.close()


def test_a_failed_solve_does_not_abort_the_next(tmp_path):
    engine = regulated_in(tmp_path / "a", HUNTING)
    for _ in range(2):
        with pytest.raises(PowerFlowError, match="#485"):
            solve_flat(engine._dss, rebuild=True)
    engine.close()


def test_controls_that_could_not_be_restored_are_refused(tmp_path):
    script = REGULATED.replace(
        "Set Volt", "New Fuse.F1 MonitoredObj=Line.L2\nNew Relay.R1 MonitoredObj=Line.L1\nSet Volt"
    )
    with pytest.raises(FeederError) as caught:
        regulated_in(tmp_path / "a", script)
    problem = "a control with a memory that a restart cannot restore"
    assert [str(fault).rpartition("/")[2] for fault in caught.value.faults] == [
        f"Master.dss: {problem}; got {name}; allowed: RegControl, CapControl" for name in ("Fuse.f1", "Relay.r1")
    ]
