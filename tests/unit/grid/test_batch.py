import math

import numpy as np
import pytest
from feeder_folders import LINE, LINE_YAML, MV5, REGULATED, REGULATED_YAML, engine_in

from cosim.errors import PowerFlowError
from cosim.grid.batch import BatchPowerFlow
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.rng import rng_for
from cosim.scenario.schema import GridConfig

TIGHT = GridConfig(tolerance_pu=1e-12, max_iterations=200)
LAWS = """\
Clear
New Circuit.laws bus1=SRC basekV=4.16 pu=1.0 phases=3 MVAsc3=80 MVAsc1=60
New Line.L1 bus1=SRC bus2=A phases=3 R1=0.3 X1=0.6 R0=0.7 X0=1.8 C1=10 C0=5 Length=1 Units=km
New Load.P bus1=A.1 phases=1 kV=2.4 kW=100 model=1 Vminpu=0.95 Vmaxpu=1.05
New Load.Z bus1=A.1.2 phases=1 kV=4.16 conn=delta kW=100 model=2
New Load.I bus1=A phases=3 kV=4.16 kW=100 model=5 Vminpu=0.95 Vmaxpu=1.05
New Load.P2 bus1=A phases=3 kV=4.16 conn=delta kW=100 model=1 Vminpu=0.9 Vmaxpu=1.02
New Generator.G bus1=A.3 phases=1 kV=2.4 kW=100 kvar=0 model=1 Vminpu=0.97 Vmaxpu=1.03
Set VoltageBases=[4.16]
CalcVoltageBases
"""
LAWS_YAML = """\
name: laws
head: {branch: Line.L1, end: SRC}
pods:
  P: {element: Load.P, kind: load, kw: 1, profile: constant}
  Z: {element: Load.Z, kind: load, kw: 1, profile: constant}
  I: {element: Load.I, kind: load, kw: 1, profile: constant}
  P2: {element: Load.P2, kind: load, kw: 1, profile: constant}
  G: {element: Generator.G, kind: generator, kw: 1, profile: constant}
"""


def whole_flow(engine, spread=None):
    """The batch flow of all nodes and terminals; closes the engine."""
    network = engine.unloaded()
    engine.close()
    return BatchPowerFlow(network, network.layout.nodes, network.layout.terminals, spread)


@pytest.fixture
def line_flow(tmp_path):
    return whole_flow(engine_in(tmp_path / "line"))


def assert_equal_states(batch, states):
    def of_engine(name):
        return np.array([getattr(state, name) for state in states])

    batch.require_converged()
    np.testing.assert_allclose(batch.vm_pu, of_engine("vm_pu"), rtol=0, atol=1e-8)
    np.testing.assert_allclose(batch.p_kw, of_engine("terminal_p_kw"), rtol=0, atol=1e-4)
    np.testing.assert_allclose(batch.q_kvar, of_engine("terminal_q_kvar"), rtol=0, atol=1e-4)
    np.testing.assert_allclose(batch.i_a, of_engine("terminal_i_a"), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(batch.conductor_i_a, of_engine("conductor_i_a"), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(batch.s_kva.real, of_engine("conductor_p_kw"), rtol=0, atol=1e-4)
    np.testing.assert_allclose(batch.s_kva.imag, of_engine("conductor_q_kvar"), rtol=0, atol=1e-4)
    turned = np.angle(batch.v * np.exp(-1j * np.radians(of_engine("va_deg"))))
    np.testing.assert_allclose(turned, 0.0, atol=1e-7)


@pytest.mark.parametrize("name", ["mv5", "lfm12", "ieee123", "european_lv"])
def test_equals_the_engine_at_fixed_taps(name):
    """Powers from a tenth to the double of those in feeder.yaml, each POD on its own; on ieee123 in part far below the
    limits of the loads' models."""
    feeder = load_feeder(MV5.parent / name)
    columns = feeder.profile_columns
    p_kw, q_kvar = feeder.powers(columns, np.ones(len(columns)))
    factor = rng_for(1, "powers", name).uniform(0.1, 2.0, (8, len(p_kw)))
    engine = Engine(feeder, TIGHT)
    engine.solve(p_kw, q_kvar)
    positions = engine.controls()
    engine._dss.Text.Command = "Set controlmode=off"
    states = [engine.solve(p, q) for p, q in zip(factor * p_kw, factor * q_kvar, strict=True)]
    network = engine.unloaded(positions)
    engine.close()
    flow = BatchPowerFlow(network, network.layout.nodes, network.layout.terminals)
    assert_equal_states(flow.solve(factor * p_kw, factor * q_kvar), states)


def test_every_load_law_beyond_its_limits(tmp_path):
    p_kw = np.outer(np.linspace(-6.0, 6.0, 25), [100.0, 80.0, 120.0, 150.0, -90.0])
    engine = engine_in(tmp_path / "laws", LAWS, LAWS_YAML, TIGHT)
    states = [engine.solve(p, 0.3 * p) for p in p_kw]
    assert_equal_states(whole_flow(engine).solve(p_kw, 0.3 * p_kw), states)
    v_pu = np.array([state.vm_pu[-3:] for state in states])
    assert v_pu.min() < 0.85
    assert v_pu.max() > 1.1


def test_loads_that_differ_in_their_limits_alone(tmp_path):
    """They are taken together as long as no limit is passed: here in the first two cases."""
    script = LINE.replace("New Load.B", "New Load.B2 bus1=B phases=3 kV=20 kW=1 Vminpu=0.98 Vmaxpu=1.01\nNew Load.B")
    yaml = LINE_YAML.replace(
        "ratings:", "  B.second: {element: Load.B2, kind: load, kw: 1, profile: constant}\nratings:"
    )
    p_kw = np.outer([0.05, 1.0, 3.0, -3.0], [900.0, 1500.0, 0.0, 800.0])
    engine = engine_in(tmp_path / "line", script, yaml, TIGHT)
    states = [engine.solve(p, 0.3 * p) for p in p_kw]
    assert_equal_states(whole_flow(engine).solve(p_kw, 0.3 * p_kw), states)
    drawn_kw = np.array([state.pod_p_kw[3] for state in states])
    assert (np.abs(drawn_kw - p_kw[:, 3]) > 1.0).tolist() == [False, False, True, True]


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


def test_what_is_observed_changes_nothing(tmp_path, line_flow):
    network = engine_in(tmp_path / "other").unloaded()
    layout = network.layout
    p_kw = np.array([[400.0, 100.0, -50.0], [800.0, -50.0, 0.0]])
    whole = line_flow.solve(p_kw, 0.2 * p_kw)
    nodes, terminals = [layout.nodes[7], layout.nodes[1]], [layout.terminals[2], layout.terminals[0]]
    some = BatchPowerFlow(network, nodes, terminals).solve(p_kw, 0.2 * p_kw)
    np.testing.assert_allclose(some.vm_pu, whole.vm_pu[:, [7, 1]], rtol=0, atol=1e-12)
    np.testing.assert_allclose(some.p_kw, whole.p_kw[:, [2, 0]], rtol=0, atol=1e-6)
    np.testing.assert_allclose(some.i_a, whole.i_a[:, [2, 0]], rtol=0, atol=1e-6)


def test_many_cases_are_those_alone(line_flow):
    """More cases than are worked on at once."""
    p_kw = rng_for(1, "many").uniform(-2000.0, 2000.0, (9000, 3))
    many = line_flow.solve(p_kw, 0.1 * p_kw).require_converged()
    some = line_flow.solve(p_kw[::1000], 0.1 * p_kw[::1000])
    np.testing.assert_allclose(many.vm_pu[::1000], some.vm_pu, rtol=0, atol=1e-10)
    np.testing.assert_allclose(many.p_kw[::1000], some.p_kw, rtol=0, atol=1e-4)


def test_a_case_without_answer_is_a_row_of_nan_beside_the_others(line_flow):
    p_kw = np.array([[900.0, 400.0, 0.0], [1e9, 0.0, 0.0], [0.0, 45_000.0, 0.0], [100.0, 0.0, 0.0], [math.nan] * 3])
    state = line_flow.solve(p_kw, np.zeros_like(p_kw))
    alone = line_flow.solve(p_kw[[0, 3]], np.zeros((2, 3)))
    assert sorted(state.failures) == [1, 2, 4]
    for name in ("vm_pu", "p_kw", "q_kvar", "i_a", "v", "s_kva"):
        rows = getattr(state, name)
        assert np.isnan(rows[[1, 2, 4]]).all()
        np.testing.assert_allclose(rows[[0, 3]], getattr(alone, name), rtol=1e-9, atol=1e-9)
    assert alone.failures == {}
    assert alone.require_converged() is alone


@pytest.mark.parametrize("hopeless", [1, 9])
@pytest.mark.parametrize("power_kw", [1e9, 45_000.0])
def test_hopeless_cases_in_any_number_do_not_spoil_the_rest(line_flow, hopeless, power_kw):
    """Some run to infinity, some up and down for ever."""
    p_kw = np.tile([0.0, power_kw, 0.0], (10, 1))
    p_kw[hopeless:] = 100.0
    assert sorted(line_flow.solve(p_kw, 0.0 * p_kw).failures) == list(range(hopeless))


def test_the_cause_is_named_for_whom_needs_an_answer(line_flow):
    p_kw = np.array([[0.0, 0.0, 0.0], [0.0, 45_000.0, 0.0], [1e9, 0.0, 0.0]])
    state = line_flow.solve(p_kw, 0.1 * p_kw)
    with pytest.raises(PowerFlowError) as caught:
        state.require_converged()
    assert str(caught.value) == (
        "batch power flow: case 1: not converged in 100 iterations; largest power in a phase 15000.0 kW, 1500.0 kvar "
        "at POD B.load (and 1 more cases)"
    )


def test_nothing_observed_and_no_case(tmp_path):
    engine = engine_in(tmp_path / "line")
    flow = BatchPowerFlow(engine.unloaded(), [], [])
    engine.close()
    assert flow.solve(np.zeros((2, 3)), np.zeros((2, 3))).vm_pu.shape == (2, 0)
    empty = flow.solve(np.zeros((0, 3)), np.zeros((0, 3)))
    assert empty.p_kw.shape == empty.i_a.shape == (0, 0)
