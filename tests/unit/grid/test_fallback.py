import logging

import numpy as np
import pytest
from feeder_folders import LINE, REGULATED, REGULATED_YAML, engine_in

from cosim.errors import PowerFlowError
from cosim.grid import fallback
from cosim.grid.fallback import EngineFlow, batch_flow
from cosim.scenario.schema import GridConfig

TIGHT = GridConfig(tolerance_pu=1e-12)
P_KW = np.array([[900.0, 400.0, -100.0], [0.0, 0.0, 0.0], [-500.0, 100.0, 50.0]])


def both_ways(tmp_path, monkeypatch, spread=None):
    """The matrix and the engine as batch flows over everything."""
    flows = []
    for name, branches in (("matrix", 1000), ("engine", 8)):
        monkeypatch.setattr(fallback, "MATRIX_BRANCHES", branches)
        engine = engine_in(tmp_path / name, config=TIGHT)
        flows.append(batch_flow(engine, engine.layout.nodes, engine.layout.terminals[::-1], spread))
        assert flows[-1].way == name
    return flows


def assert_same(a, b):
    np.testing.assert_allclose(a.v, b.v, rtol=1e-9)
    np.testing.assert_allclose(a.vm_pu, b.vm_pu, rtol=0, atol=1e-9)
    for name in ("p_kw", "q_kvar", "i_a", "s_kva", "conductor_i_a"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-6, atol=1e-4)


def test_both_ways_give_the_same(tmp_path, monkeypatch):
    matrix, engine = both_ways(tmp_path, monkeypatch)
    assert_same(matrix.solve(P_KW, 0.2 * P_KW), engine.solve(P_KW, 0.2 * P_KW))


def test_both_ways_spread_the_same(tmp_path, monkeypatch):
    matrix, engine = both_ways(tmp_path, monkeypatch, np.array([[0.75, 0.0], [0.25, 0.0], [0.0, 1.0]]))
    assert_same(matrix.solve(P_KW[:, :2], P_KW[:, 1:]), engine.solve(P_KW[:, :2], P_KW[:, 1:]))


def test_both_ways_answer_no_case_and_nothing_observed(tmp_path, monkeypatch):
    for flow in both_ways(tmp_path, monkeypatch):
        state = flow.solve(P_KW[:0], P_KW[:0])
        assert state.vm_pu.shape == (0, 9)
        assert state.p_kw.shape == (0, 4)


def test_the_choice_is_logged(tmp_path, monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        both_ways(tmp_path, monkeypatch)
    assert [record.message for record in caplog.records if record.name == "cosim.grid.fallback"] == [
        "feeder line: batch power flow by the matrix: 9 branches <= 1000",
        "feeder line: batch power flow by the engine: 9 branches > 8",
    ]


def test_the_engine_answers_for_load_laws_that_the_matrix_does_not_know(tmp_path, caplog):
    engine = engine_in(
        tmp_path / "line", LINE.replace("kW=500 PF=0.95 model=1", "kW=500 PF=0.95 model=4"), config=TIGHT
    )
    expected = engine_in(
        tmp_path / "other", LINE.replace("kW=500 PF=0.95 model=1", "kW=500 PF=0.95 model=4"), config=TIGHT
    )
    with caplog.at_level(logging.INFO):
        flow = batch_flow(engine, engine.layout.nodes, [])
    assert flow.way == "engine"
    assert "as load.b has a load law of its own" in caplog.text
    states = [expected.solve(p, 0.1 * p) for p in P_KW]
    np.testing.assert_allclose(flow.solve(P_KW, 0.1 * P_KW).vm_pu, [s.vm_pu for s in states], rtol=0, atol=1e-11)
    expected.close()


@pytest.mark.parametrize("branches", [0, 1000])
def test_controls_stay_where_they_are_put(tmp_path, monkeypatch, branches):
    monkeypatch.setattr(fallback, "MATRIX_BRANCHES", branches)
    positions = {"taps": {"reg": [1.0, 1.0]}, "capacitors": {"c1": [True, [0, 0]]}}
    engine = engine_in(tmp_path / "a", REGULATED, REGULATED_YAML, TIGHT)
    nodes = engine.layout.nodes
    flow = batch_flow(engine, nodes, [], positions=positions)
    held = engine_in(
        tmp_path / "b",
        REGULATED.replace("New RegControl.RC", "!").replace("New CapControl.CC", "!") + "Capacitor.C1.states=[0 0]\n",
        REGULATED_YAML,
        TIGHT,
    )
    p_kw = np.array([[3000.0], [-2000.0], [0.0]])
    state = flow.solve(p_kw, 0.3 * p_kw).require_converged()
    np.testing.assert_allclose(state.vm_pu, [held.solve(p, 0.3 * p).vm_pu for p in p_kw], rtol=0, atol=1e-8)
    held.close()


def test_a_case_without_answer_is_a_row_of_nan_and_controls_are_still_held(tmp_path):
    engine = engine_in(tmp_path / "a", REGULATED, REGULATED_YAML, TIGHT)
    engine.solve(np.array([1000.0]), np.array([300.0]))
    flow = EngineFlow(engine, engine.layout.nodes, engine.layout.terminals)
    alone = flow.solve(np.array([[3000.0]]), np.array([[900.0]]))
    state = flow.solve(np.array([[3000.0], [1e9], [3000.0]]), np.array([[900.0], [0.0], [900.0]]))
    assert list(state.failures) == [1]
    for name in ("vm_pu", "p_kw", "q_kvar", "i_a"):
        rows = getattr(state, name)
        assert np.isnan(rows[1]).all()
        np.testing.assert_allclose(rows[[0, 2]], getattr(alone, name)[[0, 0]], rtol=1e-9, atol=1e-6)
    with pytest.raises(PowerFlowError, match="batch power flow: case 1: feeder regulated: power flow did not converge"):
        state.require_converged()
