"""Laws of the power flow, for random radial feeders with unbalanced loads of all connections and laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_feeders import NARROW, WIDE, engine_of, feeders

from cosim.grid.batch import BatchPowerFlow


@settings(max_examples=40)
@given(feeders(limits=(WIDE, NARROW)))
def test_batch_flow_equals_the_engine(feeder):
    script, yaml, (p_kw, q_kvar) = feeder
    engine = engine_of(script, yaml)
    states = [engine.solve(p, q) for p, q in zip(p_kw, q_kvar, strict=True)]
    network = engine.unloaded()
    engine.close()
    flow = BatchPowerFlow(network, network.layout.nodes, network.layout.terminals)
    batch = flow.solve(p_kw, q_kvar).require_converged()
    np.testing.assert_allclose(batch.vm_pu, [state.vm_pu for state in states], rtol=0, atol=1e-8)
    np.testing.assert_allclose(batch.p_kw, [state.terminal_p_kw for state in states], rtol=0, atol=1e-3)
    np.testing.assert_allclose(batch.q_kvar, [state.terminal_q_kvar for state in states], rtol=0, atol=1e-3)
    np.testing.assert_allclose(batch.conductor_i_a, [s.conductor_i_a for s in states], rtol=1e-5, atol=1e-3)


@settings(max_examples=40)
@given(feeders())
def test_energy_is_conserved(feeder):
    """What enters at the head and at generators is what leaves at loads and as losses."""
    script, yaml, (p_kw, q_kvar) = feeder
    engine = engine_of(script, yaml)
    for p, q in zip(p_kw, q_kvar, strict=True):
        state = engine.solve(p, q)
        assert state.head_p_kw == pytest.approx(state.loss_kw + state.pod_p_kw.sum(), abs=1e-4)
        assert state.loss_kw > 0.0
        lost_kw = np.add.reduceat(state.terminal_p_kw, engine.layout.branch_start)
        assert lost_kw.sum() == pytest.approx(state.loss_kw, abs=1e-4)
        assert (lost_kw > -1e-6).all()
    engine.close()


@settings(max_examples=20)
@given(feeders(), st.permutations(range(4)))
def test_a_state_does_not_depend_on_those_before(feeder, order):
    script, yaml, (p_kw, q_kvar) = feeder
    engine, other = engine_of(script, yaml), engine_of(script, yaml)
    expected = {k: engine.solve(p_kw[k], q_kvar[k]) for k in range(4)}
    for k in order:
        state = other.solve(p_kw[k], q_kvar[k])
        assert state.vm_pu.tobytes() == expected[k].vm_pu.tobytes()
        assert state.terminal_i_a.tobytes() == expected[k].terminal_i_a.tobytes()
    engine.close()
    other.close()
