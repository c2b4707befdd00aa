"""Laws of the linear model, for random radial feeders with unbalanced loads of all connections and laws."""

import numpy as np
from hypothesis import given, settings
from random_feeders import engine_of, feeders

from cosim.grid.linear import LinearNetwork

HEAD = "Line.HEAD@SRC"


def complex_state(network, state):
    """Node voltages [V], conductor currents [A] and head power [kVA] of a state of the engine."""
    v = state.vm_pu * network.v_base * np.exp(1j * np.radians(state.va_deg))
    s_kva = state.conductor_p_kw + 1j * state.conductor_q_kvar
    return v, (1000.0 * s_kva / v[network.layout.conductor_node]).conj(), state.head_p_kw + 1j * state.head_q_kvar


def central_differences(engine, network, p_kw, q_kvar, step):
    """Of `complex_state` by p, then q, of each POD: (2, n_pod) of triples."""

    def difference(dp, dq):
        up, down = (complex_state(network, engine.solve(p_kw + s * dp, q_kvar + s * dq)) for s in (1.0, -1.0))
        return [(a - b) / (2.0 * step) for a, b in zip(up, down, strict=True)]

    one = step * np.eye(len(p_kw))
    return [[difference(d, 0.0 * d) for d in one], [difference(0.0 * d, d) for d in one]]


def assert_slopes(linear, differences, rtol=1e-4):
    for of_pods, by_v, by_i, by_head in (
        (differences[0], linear.v_by_p, linear.i_by_p, linear.head_by_p),
        (differences[1], linear.v_by_q, linear.i_by_q, linear.head_by_q),
    ):
        for k, (dv, di, d_head) in enumerate(of_pods):
            np.testing.assert_allclose(by_v[:, k], dv, rtol=0, atol=rtol * np.abs(dv).max())
            np.testing.assert_allclose(by_i[:, k], di, rtol=0, atol=rtol * np.abs(di).max())
            np.testing.assert_allclose(by_head[k], d_head, rtol=0, atol=rtol * max(1.0, abs(d_head)))


@settings(max_examples=25)
@given(feeders())
def test_sensitivities_equal_those_of_the_engine(feeder):
    script, yaml, (p_kw, q_kvar) = feeder
    engine, other = engine_of(script, yaml), engine_of(script, yaml)
    network = other.unloaded()
    other.close()
    model, none = LinearNetwork(network, HEAD), np.zeros(len(network.pods))
    assert_slopes(model.fixed_voltages(none, none), central_differences(engine, network, none, none, 0.5))
    p, q = 0.3 * p_kw[0], 0.3 * q_kvar[0]
    assert_slopes(model.exact(p, q), central_differences(engine, network, p, q, 0.5))
    engine.close()


@settings(max_examples=25)
@given(feeders())
def test_the_order_of_columns_is_that_of_pods_and_phase_branches_add_up(feeder):
    script, yaml, (p_kw, q_kvar) = feeder
    engine = engine_of(script, yaml)
    network = engine.unloaded()
    engine.close()
    of_branch = np.array([branch.pod for branch in network.pod_branches])
    share = np.array([branch.share for branch in network.pod_branches])
    by_pod = LinearNetwork(network, HEAD).exact(p_kw[0], q_kvar[0])
    by_branch = LinearNetwork(network, HEAD, by="branch").exact(
        share * p_kw[0][of_branch], share * q_kvar[0][of_branch]
    )
    for pod in range(len(network.pods)):
        own = of_branch == pod
        for name in ("v_by_p", "v_by_q", "i_by_p", "i_by_q"):
            total = (getattr(by_branch, name)[:, own] * share[own]).sum(axis=1)
            np.testing.assert_allclose(total, getattr(by_pod, name)[:, pod], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(by_branch.state.v, by_pod.state.v, rtol=1e-9)
