import json

import numpy as np
import pytest
from feeder_folders import CONFIG, LINE, MV5, REGULATED, REGULATED_YAML, engine_in

from cosim.errors import FeederError, PowerFlowError
from cosim.grid.circuit import solve_flat
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.rng import rng_for
from cosim.scenario.schema import GridConfig

IEEE123 = MV5.parent / "ieee123"
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
    engine._setter.set(np.array([1000.0]), np.array([400.0]))
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
    problem = "a control with a memory that a restart cannot restore; allowed: RegControl, CapControl, or enabled=no"
    assert [str(fault).rpartition("/")[2] for fault in caught.value.faults] == [
        f"Master.dss:10: Fuse.f1: {problem}",
        f"Master.dss:11: Relay.r1: {problem}",
    ]


def test_positions_as_numbers_and_back(tmp_path):
    engine = regulated_in(tmp_path / "a")
    assert engine.control_names == ("Transformer.REG", "Capacitor.C1")
    seen = set()
    for p_kw in STEPS_KW:
        positions = solved(engine, p_kw)[1]
        values = engine.control_values(positions)
        assert engine.controls_at(values) == positions
        assert values[0] == positions["taps"]["reg"][1]
        seen.add(float(values[1]))
    engine.close()
    assert seen == {0.0, 0.5, 1.0}


def test_two_controlled_windings_have_names_of_their_own(tmp_path):
    script = REGULATED.replace(
        "New Line.L2", "New RegControl.R1 transformer=REG winding=1 vreg=120 band=8 ptratio=96.225\nNew Line.L2"
    )
    engine = regulated_in(tmp_path / "a", script)
    assert engine.control_names == ("Transformer.REG.1", "Transformer.REG.2", "Capacitor.C1")
    engine.close()


def test_positions_known_are_those_of_the_circuit(tmp_path):
    """They are not read again where no control has moved."""
    engine = regulated_in(tmp_path / "a")
    still = 0
    for p_kw in rng_for(5, "course").uniform(-4000.0, 5000.0, 60):
        known = solved(engine, p_kw)[1]
        still += not engine._controls.moved
        engine._controls._positions = None
        assert engine.controls() == known
    engine.close()
    assert 0 < still < 60


def test_networks_without_pods_at_any_positions(tmp_path):
    engine, fresh = regulated_in(tmp_path / "a"), regulated_in(tmp_path / "a")
    first, second = (solved(engine, p_kw)[1] for p_kw in (4000.0, -3000.0))
    at_first, at_second, again = (engine.unloaded(positions) for positions in (first, second, first))
    alone = fresh.unloaded(first)
    np.testing.assert_array_equal(again.y.toarray(), at_first.y.toarray())
    np.testing.assert_array_equal(alone.y.toarray(), at_first.y.toarray())
    np.testing.assert_array_equal(again.v, at_first.v)
    ratio = np.abs(at_second.v).mean() / np.abs(at_first.v).mean()
    assert ratio < 0.98  # a lower tap, and no capacitor
    engine.close()
    fresh.close()


def test_ieee123_goes_on_to_the_last_bit():
    feeder = load_feeder(IEEE123)
    p_spot = np.array([pod.p_per_profile_kw for pod in feeder.pods.values()])
    q_spot = np.array([pod.q_per_profile_kvar for pod in feeder.pods.values()])
    shares = rng_for(7, "course").uniform(0.2, 1.1, (16, len(p_spot)))
    whole = Engine(feeder, CONFIG)
    steps = [(whole.solve(share * p_spot, share * q_spot), whole.controls()) for share in shares]
    whole.close()
    assert len({json.dumps(positions["taps"]) for _, positions in steps}) > 3
    for cut in (3, 7, 8, 12):
        resumed = Engine(feeder, CONFIG)
        resumed.restore_controls(json.loads(json.dumps(steps[cut - 1][1])))
        for share, (state, positions) in zip(shares[cut:], steps[cut:], strict=True):
            other = resumed.solve(share * p_spot, share * q_spot)
            assert other.vm_pu.tobytes() == state.vm_pu.tobytes()
            assert other.conductor_i_a.tobytes() == state.conductor_i_a.tobytes()
            assert resumed.controls() == positions
        resumed.close()


@pytest.mark.parametrize(
    "off", ["New Fuse.F1 MonitoredObj=Line.L2 enabled=no", "New InvControl.I\nDisable InvControl.I"]
)
def test_controls_out_of_service_do_not_matter(tmp_path, off):
    plain = regulated_in(tmp_path / "plain", REGULATED)
    engine = regulated_in(tmp_path / "off", REGULATED.replace("Set Volt", f"{off}\nSet Volt"))
    assert solved(engine, 1000.0) == solved(plain, 1000.0)
    for each in (plain, engine):
        each.close()


@pytest.mark.parametrize("kind", ["Time", "Follow"])
def test_a_control_by_the_clock_is_refused(tmp_path, kind):
    script = REGULATED.replace(
        "Set Volt",
        "New Capacitor.C9 bus1=B kV=20 kvar=300\n"
        f"New CapControl.C9 capacitor=C9 element=Line.L1 type={kind} onsetting=8 offsetting=20\nSet Volt",
    )
    with pytest.raises(FeederError) as caught:
        regulated_in(tmp_path / "a", script)
    assert str(caught.value.faults[0]).rpartition("/")[2] == (
        f"Master.dss:11: CapControl.c9: a control by the time of day, which a solve does not know; got type={kind}; "
        "allowed: current, voltage, kvar, PF"
    )
