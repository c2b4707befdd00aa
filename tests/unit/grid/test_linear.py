import numpy as np
import pytest
from feeder_folders import MV5, engine_in

from cosim.errors import PowerFlowError
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.grid.linear import LinearNetwork, gap_to_loads, linearise, operating_point, relinearised
from cosim.scenario.schema import GridConfig

TIGHT = GridConfig(tolerance_pu=1e-13, max_iterations=300)
FEEDERS = ("mv5", "lfm12", "ieee123", "european_lv")

DELTA = """\
Clear
New Circuit.delta bus1=SRC basekV=0.4 pu=1.0 phases=3 R1=1e-6 X1=1e-6 R0=1e-6 X0=1e-6
New Line.L bus1=SRC bus2=A phases=3 R1=0.1 X1=0 R0=0.1 X0=0 C1=0 C0=0 Length=1 Units=km
New Load.D bus1=A.1.2 phases=1 kV=0.4 conn=delta kW=1 model=1 Vminpu=0.5 Vmaxpu=1.5
New Load.W bus1=A.3 phases=1 kV=0.23094 kW=1 model=1 Vminpu=0.5 Vmaxpu=1.5
Set VoltageBases=[0.4]
CalcVoltageBases
"""
DELTA_YAML = """\
name: delta
head: {branch: Line.L, end: SRC}
pods:
  D: {element: Load.D, kind: load, kw: 1, profile: constant}
  W: {element: Load.W, kind: load, kw: 1, profile: constant}
"""


class Case:
    """A feeder with its controls held where full load leaves them, and an engine to compare with."""

    def __init__(self, name):
        self.feeder = load_feeder(MV5.parent / name)
        columns = self.feeder.profile_columns
        self.base = self.feeder.powers(columns, np.ones(len(columns)))
        self.engine, other = Engine(self.feeder, TIGHT), Engine(self.feeder, GridConfig())
        other.solve(*self.base)
        positions = other.controls()
        self.network = other.unloaded(positions)
        other.close()
        self.engine.restore_controls(positions)
        self.engine._dss.Text.Command = "Set controlmode=off"
        self.none = np.zeros(len(self.network.pods))
        self.model = LinearNetwork(self.network, self.feeder.head_terminal)

    def state(self, p_kw, q_kvar):
        """Node voltages [V], conductor currents [A], head power [kVA] by the engine."""
        state, network = self.engine.solve(p_kw, q_kvar), self.network
        v = state.vm_pu * network.v_base * np.exp(1j * np.radians(state.va_deg))
        s_kva = state.conductor_p_kw + 1j * state.conductor_q_kvar
        return v, (1000.0 * s_kva / v[network.layout.conductor_node]).conj(), state.head_p_kw + 1j * state.head_q_kvar

    def differences(self, p_kw, q_kvar, pod, step):
        """Central differences of `state` by p, then by q of a POD."""
        one = np.zeros(len(p_kw))
        one[pod] = step
        for dp, dq in ((one, 0.0 * one), (0.0 * one, one)):
            up, down = self.state(p_kw + dp, q_kvar + dq), self.state(p_kw - dp, q_kvar - dq)
            yield [(a - b) / (2.0 * step) for a, b in zip(up, down, strict=True)]


@pytest.fixture(scope="module", params=FEEDERS)
def case(request):
    made = Case(request.param)
    yield made
    made.engine.close()


def assert_slopes_of(case, linear, p_kw, q_kvar):
    """Of every fifth POD (all on the small feeders)."""
    every = 5 if len(case.none) > 20 else 1
    for pod in range(0, len(case.none), every):
        step = 0.02 * max(1.0, abs(case.base[0][pod]))
        by_p = linear.v_by_p[:, pod], linear.i_by_p[:, pod], linear.head_by_p[pod]
        by_q = linear.v_by_q[:, pod], linear.i_by_q[:, pod], linear.head_by_q[pod]
        for expected, found in zip(case.differences(p_kw, q_kvar, pod, step), (by_p, by_q), strict=True):
            for true, ours in zip(expected, found, strict=True):
                np.testing.assert_allclose(ours, true, rtol=0, atol=1e-4 * np.abs(true).max())


def test_fixed_voltages_at_no_load_give_the_derivatives_with_all_other_loads_out_of_service(case):
    linear = case.model.fixed_voltages(case.none, case.none)
    np.testing.assert_allclose(linear.state.v, case.network.v, rtol=1e-12)
    assert_slopes_of(case, linear, case.none, case.none)


def test_exact_derivatives_are_those_of_the_engine_at_full_load(case):
    assert_slopes_of(case, case.model.exact(*case.base), *case.base)


def test_state_at_full_load_is_the_engines(case):
    linear, (v, i_a, head_kva) = case.model.exact(*case.base), case.state(*case.base)
    np.testing.assert_allclose(linear.state.v / case.network.v_base, v / case.network.v_base, rtol=0, atol=1e-8)
    np.testing.assert_allclose(linear.state.i_a, i_a, rtol=0, atol=1e-6 * np.abs(i_a).max())
    assert linear.state.head_kva == pytest.approx(head_kva, abs=1e-4)


def test_fixed_voltages_of_the_operating_point_give_its_state(case):
    """Then both kinds agree on the state, and differ in slopes."""
    v = operating_point(case.network, *case.base)
    fixed, exact = case.model.fixed_voltages(*case.base, v), case.model.exact(*case.base, v)
    np.testing.assert_allclose(fixed.state.v, exact.state.v, rtol=1e-8)
    np.testing.assert_allclose(fixed.state.v, v, rtol=1e-8)
    assert np.abs(fixed.v_by_p - exact.v_by_p).max() > 1e-4 * np.abs(exact.v_by_p).max()


def test_prediction_is_affine_and_of_second_order(case):
    linear, p, q = case.model.exact(*case.base), 0.01 * case.base[0], 0.01 * case.base[1]
    there = linear.predict(case.base[0] + p, case.base[1] + q)
    back = linear.predict(case.base[0] - p, case.base[1] - q)
    np.testing.assert_allclose(there.v + back.v, 2.0 * linear.state.v, rtol=1e-12)
    np.testing.assert_allclose(there.i_a + back.i_a, 2.0 * linear.state.i_a, rtol=1e-9, atol=1e-9)
    v, _, head_kva = case.state(case.base[0] + p, case.base[1] + q)
    moved = np.abs(v - linear.state.v).max()
    assert np.abs(there.v - v).max() < 0.01 * moved
    assert there.head_kva == pytest.approx(head_kva, abs=0.01 * abs(head_kva - linear.state.head_kva))


def test_many_predictions_at_once(case):
    linear = case.model.fixed_voltages(case.none, case.none)
    p_kw = np.stack([case.none, case.base[0]])
    both = linear.predict(p_kw, 0.0 * p_kw)
    np.testing.assert_array_equal(both.v[0], linear.state.v)
    np.testing.assert_allclose(both.v[1], linear.predict(p_kw[1], case.none).v, rtol=1e-12)
    assert both.head_kva.shape == (2,)


def test_consumption_lowers_the_voltage_and_raises_import(case):
    """A load's own voltage falls, and what it draws comes in at the head with its losses."""
    linear = case.model.fixed_voltages(case.none, case.none)
    for branch in case.network.pod_branches:
        if not branch.nodes[1]:
            node = branch.nodes[0] - 1
            assert (linear.v_by_p[node, branch.pod] / case.network.v[node]).real < 0.0
    assert (linear.head_by_p.real > 0.9).all()
    assert (linear.head_by_q.imag > 0.9).all()


def test_chosen_rows_are_those_of_everything(case):
    layout = case.network.layout
    nodes, conductors = layout.nodes[3:9:2], layout.conductors[8:2:-3]
    some = LinearNetwork(case.network, case.feeder.head_terminal, nodes, conductors).exact(*case.base)
    whole = case.model.exact(*case.base)
    np.testing.assert_allclose(some.v_by_q, whole.v_by_q[3:9:2], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(some.i_by_p, whole.i_by_p[8:2:-3], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(some.head_by_p, whole.head_by_p, rtol=1e-9)


def test_gap_to_loads(case):
    none, full = gap_to_loads(case.model, case.none, case.none), gap_to_loads(case.model, *case.base)
    assert max(none.v_slope_largest, none.i_slope_largest, none.v_largest) < 1e-9
    assert 1e-3 < full.v_slope_largest < 1.0
    assert full.v_slope_mean < full.v_slope_largest
    assert full.i_slope_mean < full.i_slope_largest
    assert 1e-6 < full.v_largest < 0.05


def test_delta_and_wye_by_hand(tmp_path):
    """1 kW between phases 1 and 2 of a line of 0.1 ohm a phase draws 2.5 A: out by phase 1, back by phase 2."""
    engine = engine_in(tmp_path / "delta", DELTA, DELTA_YAML)
    network = engine.unloaded()
    engine.close()
    linear = linearise(network, np.zeros(2), np.zeros(2), "Line.L@SRC")
    v = dict(zip(network.layout.nodes, network.v, strict=True))
    dv = {node: linear.v_by_p[k] for k, node in enumerate(linear.nodes)}
    i_delta = 1000.0 / (v["A.1"] - v["A.2"]).conj()
    assert abs(i_delta) == pytest.approx(2.5, rel=1e-4)
    assert [dv[f"A.{k}"][0] for k in (1, 2, 3)] == pytest.approx([-0.1 * i_delta, 0.1 * i_delta, 0.0], abs=1e-4)
    i_wye = 1000.0 / v["A.3"].conj()
    assert [dv[f"A.{k}"][1] for k in (1, 2, 3)] == pytest.approx([0.0, 0.0, -0.1 * i_wye], abs=1e-4)
    of_line = {name: linear.i_by_p[k] for k, name in enumerate(linear.conductors)}
    assert of_line["Line.L@SRC.1"][0] == pytest.approx(i_delta, rel=1e-5)
    assert of_line["Line.L@A.2"][0] == pytest.approx(i_delta, rel=1e-5)
    assert of_line["Line.L@A.3"][1] == pytest.approx(-i_wye, rel=1e-5)


@pytest.mark.parametrize("kind", ["exact", "fixed voltages"])
def test_the_outer_loop_closes_the_gap(case, kind):
    """All loads are cut by one share so that the weakest of the feeder's voltages rises by a hundredth of its drop:
    the share comes from the linear model, what comes of it from the power flow."""
    model, (p_base, q_base) = case.model, case.base
    at_base = np.abs(model.exact(p_base, q_base).state.v)
    weakest = int(np.argmin(at_base / np.abs(case.network.v)))
    target = at_base[weakest] + 0.3 * (np.abs(case.network.v[weakest]) - at_base[weakest])

    def linearise_at(p_kw, q_kvar):
        if kind == "exact":
            return model.exact(p_kw, q_kvar)
        return model.fixed_voltages(p_kw, q_kvar, operating_point(case.network, p_kw, q_kvar))

    def respond(linear):
        """The share that the model at hand says is needed."""
        share = linear.p_kw[0] / p_base[0]
        for _ in range(20):
            v = linear.predict(share * p_base, share * q_base).v[weakest]
            slope = (linear.v_by_p[weakest] @ p_base + linear.v_by_q[weakest] @ q_base) * v.conj() / abs(v)
            share += (target - abs(v)) / slope.real
        return share * p_base, share * q_base

    closed, rounds = relinearised(linearise_at, respond, case.base)
    v, _, _ = case.state(closed.p_kw, closed.q_kvar)
    np.testing.assert_allclose(closed.state.v / case.network.v_base, v / case.network.v_base, rtol=0, atol=1e-8)
    assert abs(v[weakest]) / at_base[weakest] == pytest.approx(target / at_base[weakest], abs=2e-8)
    assert 1 < rounds < 20


def test_an_outer_loop_that_does_not_close_says_so():
    case, shares = Case("lfm12"), iter(50 * [0.1, 1.0])

    def respond(_):
        share = next(shares)
        return share * case.base[0], share * case.base[1]

    with pytest.raises(PowerFlowError, match=r"linear model and power flow are still .*e-.. pu apart after 50 rounds"):
        relinearised(case.model.exact, respond, case.base)
    case.engine.close()


def test_no_operating_point(case):
    with pytest.raises(PowerFlowError, match="no operating point to linearise at"):
        case.model.exact(np.full(len(case.none), 1e7), case.none)
