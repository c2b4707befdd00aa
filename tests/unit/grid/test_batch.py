import math

import numpy as np
import pytest
from feeder_folders import CONFIG, LINE, LINE_YAML, MV5, REGULATED, REGULATED_YAML, engine_in

from cosim.errors import FeederError, PowerFlowError
from cosim.grid.batch import BatchPowerFlow
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.rng import rng_for
from cosim.scenario.schema import GridConfig

TIGHT = GridConfig(tolerance_pu=1e-12)


def whole_flow(engine, spread=None):
    """The batch flow of all nodes and terminals; closes the engine."""
    network = engine.unloaded()
    engine.close()
    return BatchPowerFlow(network, network.layout.nodes, network.layout.terminals, spread)


@pytest.fixture
def line_flow(tmp_path):
    return whole_flow(engine_in(tmp_path / "line"))


def assert_equal_states(batch, states):
    for name, of_engine in (("vm_pu", "vm_pu"), ("p_kw", "terminal_p_kw"), ("q_kvar", "terminal_q_kvar")):
        expected = np.array([getattr(state, of_engine) for state in states])
        atol = 1e-8 if name == "vm_pu" else 1e-4
        np.testing.assert_allclose(getattr(batch, name), expected, rtol=0, atol=atol)
    np.testing.assert_allclose(batch.i_a, [state.terminal_i_a for state in states], rtol=1e-6, atol=1e-5)


def test_equals_the_engine_on_mv5():
    feeder = load_feeder(MV5)
    p_kw = rng_for(1, "powers").uniform(-400.0, 400.0, (30, len(feeder.pods)))
    q_kvar = rng_for(2, "powers").uniform(-100.0, 100.0, p_kw.shape)
    engine = Engine(feeder, TIGHT)
    states = [engine.solve(p, q) for p, q in zip(p_kw, q_kvar, strict=True)]
    assert_equal_states(whole_flow(engine).solve(p_kw, q_kvar), states)


def test_equals_the_engine_at_any_fixed_tap(tmp_path):
    """Taps moved by controls before the PODs are taken out stay where they are."""
    script = (
        REGULATED.replace("New RegControl.RC", "!")
        .replace("New CapControl.CC", "!")
        .replace("New Load", "Transformer.REG.wdg=2 tap=1.05\nNew Load")
    )
    engine = engine_in(tmp_path / "a", script, REGULATED_YAML, TIGHT)
    p_kw = np.array([[-2000.0], [0.0], [3000.0]])
    states = [engine.solve(p, 0.3 * p) for p in p_kw]
    assert_equal_states(whole_flow(engine).solve(p_kw, 0.3 * p_kw), states)
    assert states[1].vm_pu[-1] > 1.04


def test_spread_turns_inputs_into_pod_powers(tmp_path, line_flow):
    spread = np.array([[0.75, 0.0], [0.25, 0.0], [0.0, 1.0]])
    spreading = whole_flow(engine_in(tmp_path / "line"), spread)
    p_kw, q_kvar = np.array([[400.0, 100.0], [800.0, -50.0]]), np.array([[10.0, 0.0], [20.0, 5.0]])
    direct = line_flow.solve(p_kw @ spread.T, q_kvar @ spread.T)
    np.testing.assert_allclose(spreading.solve(p_kw, q_kvar).vm_pu, direct.vm_pu, rtol=0, atol=1e-12)


def test_a_case_without_answer_is_a_row_of_nan_beside_the_others(line_flow):
    p_kw = np.array([[900.0, 400.0, 0.0], [1e9, 0.0, 0.0], [0.0, 45_000.0, 0.0], [100.0, 0.0, 0.0], [math.nan] * 3])
    state = line_flow.solve(p_kw, np.zeros_like(p_kw))
    alone = line_flow.solve(p_kw[[0, 3]], np.zeros((2, 3)))
    for name in ("vm_pu", "p_kw", "q_kvar", "i_a"):
        rows = getattr(state, name)
        assert np.isnan(rows[[1, 2, 4]]).all()
        np.testing.assert_allclose(rows[[0, 3]], getattr(alone, name), rtol=1e-9, atol=1e-9)
    assert sorted(state.failures) == [1, 2, 4]
    assert alone.failures == {}
    assert alone.require_converged() is alone


def test_the_cause_is_named_for_whom_needs_an_answer(tmp_path):
    flow = whole_flow(engine_in(tmp_path / "line", LINE.replace("New Load.B", "New Load.B Vlowpu=0.5")))
    p_kw = np.array([[0.0, 0.0, 0.0], [0.0, 40_000.0, 0.0], [1e9, 0.0, 0.0]])
    state = flow.solve(p_kw, np.zeros_like(p_kw))
    with pytest.raises(PowerFlowError) as caught:
        state.require_converged()
    v_pu = float(str(caught.value).partition("case 1: ")[2][:5])
    assert 0.3 < v_pu < 0.8
    assert str(caught.value) == (
        f"batch power flow: case 1: {v_pu:.3f} pu at POD B.load, outside the band 0.8..1.2 pu in which it draws "
        "constant power (and 1 more cases)"
    )


def test_the_narrowest_band_at_a_bus_counts(tmp_path):
    script = LINE.replace("New Load.B", "New Load.B2 bus1=B phases=3 kV=20 kW=1 Vminpu=0.995 Vmaxpu=1.05\nNew Load.B")
    yaml = LINE_YAML.replace(
        "ratings:", "  B.second: {element: Load.B2, kind: load, kw: 1, profile: constant}\nratings:"
    )
    flow = whole_flow(engine_in(tmp_path / "line", script, yaml))
    p_kw = np.array([[0.0, 100.0, 0.0, 0.0], [0.0, 3000.0, 0.0, 0.0]])
    state = flow.solve(p_kw, np.zeros_like(p_kw))
    assert list(state.failures) == [1]
    assert "at POD B.second, outside the band 0.995..1.05 pu" in state.failures[1]


def test_nothing_observed_and_no_case(tmp_path):
    engine = engine_in(tmp_path / "line")
    flow = BatchPowerFlow(engine.unloaded(), [], [])
    engine.close()
    assert flow.solve(np.zeros((2, 3)), np.zeros((2, 3))).vm_pu.shape == (2, 0)
    assert flow.solve(np.zeros((0, 3)), np.zeros((0, 3))).p_kw.shape == (0, 0)


def test_load_models_other_than_constant_power_are_refused_by_name(tmp_path):
    script = LINE.replace("kW=1000 PF=0.95 model=1", "kW=1000 PF=0.95 model=2").replace(
        "kW=500 PF=0.95 model=1", "kW=500 PF=0.95 model=5"
    )
    engine = engine_in(tmp_path / "line", script)
    engine.solve(np.zeros(3), np.zeros(3))
    with pytest.raises(FeederError) as caught:
        engine.unloaded()
    engine.close()
    assert [str(fault).replace(f"{tmp_path}/line/", "") for fault in caught.value.faults] == [
        f"feeder.yaml:{line}: pods.{pod}.load.element: Load.{pod} is not of constant power, as the batch power flow "
        f"needs it; got model={model}; allowed: model=1"
        for line, pod, model in ((4, "A", 2), (5, "B", 5))
    ]


def test_a_load_that_is_no_pod_is_refused(tmp_path):
    engine = engine_in(tmp_path / "line", LINE + "New Load.Extra bus1=A phases=3 kV=20 kW=10\n")
    with pytest.raises(FeederError, match=r"pods: Load\.extra is no POD and not linear.*allowed: list it under pods"):
        engine.unloaded()
    engine.close()


def test_an_engine_closed_after_unloading_serves_the_next(tmp_path):
    first = engine_in(tmp_path / "line", config=CONFIG)
    before = first.solve(np.full(3, 100.0), np.zeros(3)).vm_pu
    whole_flow(first)
    second = engine_in(tmp_path / "line", config=CONFIG)
    np.testing.assert_array_equal(second.solve(np.full(3, 100.0), np.zeros(3)).vm_pu, before)
    second.close()
