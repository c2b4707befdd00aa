import numpy as np
import pytest
from feeder_folders import MV5, engine_in

from cosim.domain.measurement import Channel, Place
from cosim.domain.site import site_sums
from cosim.errors import InputError, PowerFlowError
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.grid.site_flow import SiteFlow
from cosim.scenario.schema import GridConfig
from cosim.sensing.truth import TruthReader, metered_conductors

FEEDER = load_feeder(MV5)
TIGHT = GridConfig(tolerance_pu=1e-12)
SITES = ("LV1", "LV2", "LV3", "LV4", "LV5")
P_KW = np.array([[300.0, 150.0, -80.0, -400.0, 60.0], [100.0, 80.0, 90.0, 5.0, 70.0]])
Q_KVAR = 0.3 * np.abs(P_KW)

UNBALANCED = """\
Clear
New Circuit.unbalanced bus1=SRC basekV=4.16 pu=1.0 phases=3 MVAsc3=80 MVAsc1=60
New Line.L1 bus1=SRC bus2=A phases=3 R1=0.3 X1=0.6 R0=0.7 X0=1.8 C1=10 C0=5 Length=1 Units=km
New Line.L2 bus1=A bus2=B phases=3 R1=0.3 X1=0.6 R0=0.7 X0=1.8 C1=10 C0=5 Length=1 Units=km
New Line.L3 bus1=A.1.3 bus2=C.1.3 phases=2 Rmatrix=[0.5 | 0.1 0.5] Xmatrix=[0.6 | 0.2 0.6] Cmatrix=[9 | -1 9]
New Load.A1 bus1=A.1 phases=1 kV=2.4 kW=100 kvar=30 model=1 Vminpu=0.97 Vmaxpu=1.05
New Load.A3 bus1=A.3 phases=1 kV=2.4 kW=80 kvar=30 model=2
New Load.A3more bus1=A.3 phases=1 kV=2.4 kW=40 kvar=10 model=5 Vminpu=0.5
New Load.B12 bus1=B.1.2 phases=1 kV=4.16 conn=delta kW=90 kvar=40 model=2
New Load.B bus1=B phases=3 kV=4.16 kW=150 kvar=50 model=1 Vminpu=0.5
New Generator.C3 bus1=C.3 phases=1 kV=2.4 kW=60 kvar=0 model=1 Vminpu=0.5
Set VoltageBases=[4.16]
CalcVoltageBases
"""
PODS = {"A1": 100, "A3": 80, "A3more": 40, "B12": 90, "B": 150}
UNBALANCED_YAML = "\n".join(
    [
        "name: unbalanced",
        "head: {branch: Line.L1, end: SRC}",
        "pods:",
        *(f"  {pod}: {{element: Load.{pod}, kind: load, kw: {kw}, profile: constant}}" for pod, kw in PODS.items()),
        "  C3: {element: Generator.C3, kind: generator, kw: 60, profile: constant}",
        "ratings:",
        "  Line.L1: {i_a: 200}",
        "",
    ]
)
UNBALANCED_SITES = ("A.1", "A.3", "B.1.2", "B", "C.3")


def channel(quantity, **place):
    return Channel("m", f"m/{quantity}/{place}", quantity, Place(**place), 1.0)


CHANNELS = (
    channel("vm_pu", bus="LV3"),
    channel("p_kw", branch="Line.L01", end="MV0"),
    channel("q_kvar", branch="Line.L23", end="MV3"),
    channel("i_a", branch="Transformer.T4", end="LV4"),
    channel("vm_pu", branch="Line.L01", end="MV0"),
    channel("e_kwh", storage="SS3.battery"),
    channel("p_kw", storage="SS3.battery"),
    channel("p_kw", bus="LV1"),
    channel("q_kvar", bus="LV5"),
    channel("p_kw", bus="MV2"),
)
PHASES = (
    *(channel(q, branch="Line.L1", end="SRC", phase=k) for q in ("p_kw", "q_kvar", "i_a", "vm_pu") for k in (1, 2, 3)),
    *(channel(q, branch="Line.L1", end="A") for q in ("p_kw", "q_kvar", "i_a", "vm_pu")),
    *(channel(q, branch="Line.L3", end="C", phase=3) for q in ("p_kw", "q_kvar", "i_a")),
    *(channel(q, bus="A", phase=k) for q in ("p_kw", "q_kvar", "vm_pu") for k in (1, 2, 3)),
    *(channel(q, bus="B") for q in ("p_kw", "q_kvar", "vm_pu")),
    channel("vm_pu", bus="C", phase=3),
    channel("vm_pu", bus="C"),
)


@pytest.fixture(scope="module")
def engine():
    made = Engine(FEEDER, TIGHT)
    yield made
    made.close()


def site_flow(channels, feeder=FEEDER):
    engine = Engine(feeder, GridConfig())
    flow = SiteFlow(engine.unloaded(), feeder, engine.pod_sites, channels)
    engine.close()
    return flow


@pytest.fixture(scope="module")
def flow():
    return site_flow(CHANNELS)


@pytest.fixture(scope="module")
def unbalanced(tmp_path_factory):
    made = engine_in(tmp_path_factory.mktemp("unbalanced"), UNBALANCED, UNBALANCED_YAML, TIGHT)
    yield made
    made.close()


def engine_states(engine):
    """What the engine says with each site's power drawn by its one load."""
    states = []
    for p_kw, q_kvar in zip(P_KW, Q_KVAR, strict=True):
        pods = np.zeros((2, len(engine.pods)))
        for k, pod in enumerate(FEEDER.pods.values()):
            if pod.kind == "load":
                site = SITES.index(engine.pod_buses[k])
                pods[:, k] = p_kw[site], q_kvar[site]
        states.append(engine.solve(*pods))
    return states


def perfect_readings(engine, channels, state):
    conductors = [engine.layout.conductors.index(name) for name in metered_conductors(channels)]
    attributes = {
        ("bus", "vm_pu"): state.vm_pu,
        ("pod", "p_kw"): state.pod_p_kw,
        ("pod", "q_kvar"): state.pod_q_kvar,
    }
    for quantity in ("p_kw", "q_kvar", "i_a"):
        attributes["terminal", quantity] = getattr(state, f"terminal_{quantity}")
        attributes["conductor", quantity] = getattr(state, f"conductor_{quantity}")[conductors]
    return TruthReader(channels, engine.layout, engine.pod_sites, ()).read(attributes)


def differences(function, p_kw, q_kvar, step):
    """Central differences of what ``function`` gives (n_case, n) by p, then q of all sites: (n, 2 n_site)."""
    n_site = len(p_kw)
    one = step * np.eye(2 * n_site)
    up, down = (function(p_kw + s * one[:, :n_site], q_kvar + s * one[:, n_site:]) for s in (1.0, -1.0))
    return (up - down).T / (2.0 * step)


def test_sites_are_those_of_the_pods(flow, unbalanced):
    assert flow.sites == SITES
    assert site_flow((), unbalanced.feeder).sites == UNBALANCED_SITES


def test_predicts_what_meters_read_in_the_engines_state(engine, flow):
    layout = engine.layout
    for row, state, p_kw, q_kvar in zip(flow.predict(P_KW, Q_KVAR), engine_states(engine), P_KW, Q_KVAR, strict=True):
        assert row[0] == pytest.approx(state.vm_pu[[k for k, n in enumerate(layout.nodes) if n[:3] == "LV3"]].mean())
        assert row[1] == pytest.approx(state.head_p_kw, abs=1e-4)
        assert row[2] == pytest.approx(state.terminal_q_kvar[layout.terminals.index("Line.L23@MV3")], abs=1e-4)
        assert row[3] == pytest.approx(state.terminal_i_a[layout.terminals.index("Transformer.T4@LV4")], abs=1e-4)
        assert row[4] == pytest.approx(state.vm_pu[[k for k, n in enumerate(layout.nodes) if n[:3] == "MV0"]].mean())
        assert np.isnan(row[5:7]).all()
        assert tuple(row[7:]) == (p_kw[0], q_kvar[4], 0.0)


@pytest.mark.parametrize("share", [0.5, 1.0, 2.0])
def test_predicts_meters_of_single_phases_whatever_the_loads_laws(unbalanced, share):
    """From what the sites draw, not from what was set."""
    set_kw = share * np.array([100.0, 80.0, 40.0, 90.0, 150.0, -60.0])
    state = unbalanced.solve(set_kw, 0.4 * set_kw)
    assert np.abs(state.pod_p_kw - set_kw).max() > 1.0
    sums = site_sums(unbalanced.pod_sites)
    p_kw, q_kvar = state.pod_p_kw @ sums, state.pod_q_kvar @ sums
    flow = site_flow(PHASES, unbalanced.feeder)
    expected = perfect_readings(unbalanced, PHASES, state)
    np.testing.assert_allclose(flow.predict(p_kw[None], q_kvar[None])[0], expected, rtol=1e-7, atol=1e-5)
    states = flow.states(p_kw[None], q_kvar[None])
    np.testing.assert_allclose(states.vm_pu[0], state.vm_pu, rtol=0, atol=1e-8)
    np.testing.assert_allclose(states.loading_pu[0], state.loading_pu, rtol=1e-7)
    assert np.isnan(states.loading_pu[0]).sum() == 2


def test_slopes_of_single_phase_meters(unbalanced):
    flow = site_flow(PHASES, unbalanced.feeder)
    p_kw, q_kvar = np.array([100.0, 120.0, 90.0, 150.0, -60.0]), np.array([30.0, 40.0, 40.0, 50.0, 0.0])
    reading, slope = flow.linearised(p_kw, q_kvar)
    np.testing.assert_allclose(reading, flow.predict(p_kw[None], q_kvar[None])[0], rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(slope, differences(flow.predict, p_kw, q_kvar, 0.05), rtol=0, atol=1e-6)
    expected = differences(lambda p, q: flow.states(p, q).vm_pu, p_kw, q_kvar, 0.05)
    np.testing.assert_allclose(flow.voltage_slope(p_kw, q_kvar), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "step_kw"), [("ieee123", 0.5), ("european_lv", 0.02)])
def test_slopes_on_large_feeders(name, step_kw):
    """Currents phase by phase: that of the highest-loaded one has a corner where two are as high."""
    feeder = load_feeder(MV5.parent / name)
    engine = Engine(feeder, GridConfig())
    columns = feeder.profile_columns
    state = engine.solve(*feeder.powers(columns, np.ones(len(columns))))
    layout, sums = engine.layout, site_sums(engine.pod_sites)
    terminals = [terminal.split("@") for terminal in layout.terminals[4 :: len(layout.terminals) // 7]]
    conductors = [conductor.split("@") for conductor in layout.conductors[1 :: len(layout.conductors) // 7]]
    channels = [
        *(channel(q, branch=branch, end=end) for branch, end in terminals for q in ("p_kw", "q_kvar")),
        *(channel("i_a", branch=branch, end=node[:-2], phase=int(node[-1])) for branch, node in conductors),
        *(channel("vm_pu", bus=bus) for bus in layout.buses[:: len(layout.buses) // 7]),
        *(channel(q, bus=bus) for bus in engine.pod_buses[::10] for q in ("p_kw", "q_kvar")),
    ]
    flow = SiteFlow(engine.unloaded(), feeder, engine.pod_sites, channels)
    engine.close()
    p_kw, q_kvar = state.pod_p_kw @ sums, state.pod_q_kvar @ sums
    reading, slope = flow.linearised(p_kw, q_kvar)
    np.testing.assert_allclose(reading, flow.predict(p_kw[None], q_kvar[None])[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(slope, differences(flow.predict, p_kw, q_kvar, step_kw), rtol=0, atol=1e-4)
    expected = differences(lambda p, q: flow.states(p, q).vm_pu, p_kw, q_kvar, 0.05)
    np.testing.assert_allclose(flow.voltage_slope(p_kw, q_kvar), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_linearised_where_meters_do_not_look_at_the_flow(flow):
    _, slope = flow.linearised(P_KW[0], Q_KVAR[0])
    assert np.isnan(slope[5:7]).all()
    expected = np.zeros((3, 10))
    expected[0, 0] = expected[1, 9] = 1.0
    np.testing.assert_array_equal(slope[7:], expected)


def test_a_branch_without_current_has_no_slope_of_it(unbalanced):
    """Where the size of a current has a corner, 0 is as good as any."""
    flow = site_flow((channel("i_a", branch="Line.L2", end="B"),), unbalanced.feeder)
    reading, slope = flow.linearised(np.zeros(5), np.zeros(5))
    assert reading[0] < 0.1
    assert np.isfinite(slope).all()


def test_at_another_position_of_taps_it_is_the_flow_made_there():
    feeder = load_feeder(MV5.parent / "ieee123")
    engine = Engine(feeder, GridConfig())
    channels = [channel("vm_pu", bus=bus) for bus in engine.layout.buses[::9]]
    branch, end = engine.layout.terminals[4].split("@")
    channels += [channel(q, branch=branch, end=end) for q in ("p_kw", "q_kvar", "i_a")]
    values = engine.control_values(engine.controls())
    first = SiteFlow(engine.unloaded(), feeder, engine.pod_sites, channels)
    network = engine.unloaded(engine.controls_at(np.where(values == values[0], values[0] + 0.0125, values)))
    there, moved = SiteFlow(network, feeder, engine.pod_sites, channels), first.at(network)
    engine.close()
    power = np.linspace(5.0, 30.0, len(first.sites)), np.linspace(2.0, 9.0, len(first.sites))
    before = first.linearised(*power)
    for one, other in zip(moved.linearised(*power), there.linearised(*power), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(there.linearised(*power)[0] - before[0]).max() > 1e-3
    np.testing.assert_array_equal(first.linearised(*power)[0], before[0])


def test_a_single_case_is_settled_to_the_last_digits(flow):
    """Twice the same power, at once and in a batch of two: the batch may stop 1e-8 pu earlier."""
    alone, batch = flow.predict(P_KW[:1], Q_KVAR[:1]), flow.predict(P_KW, Q_KVAR)
    np.testing.assert_allclose(alone[0], batch[0], rtol=1e-8, atol=1e-5)
    again, _ = flow.linearised(P_KW[0], Q_KVAR[0])
    np.testing.assert_array_equal(alone[0], again)


def test_states_are_the_engines(engine, flow):
    states = flow.states(P_KW, Q_KVAR)
    for k, state in enumerate(engine_states(engine)):
        np.testing.assert_allclose(states.vm_pu[k], state.vm_pu, rtol=0, atol=1e-8)
        np.testing.assert_allclose(states.loading_pu[k], state.loading_pu, rtol=1e-6, atol=1e-8)
        assert states.head_p_kw[k] == pytest.approx(state.head_p_kw, abs=1e-4)
        assert states.head_q_kvar[k] == pytest.approx(state.head_q_kvar, abs=1e-4)


def test_a_hopeless_case_is_nan_in_predictions_and_slopes_and_an_error_in_states(flow):
    p_kw = np.vstack([P_KW, np.full((1, 5), 1e6)])
    q_kvar = np.vstack([Q_KVAR, np.zeros((1, 5))])
    readings = flow.predict(p_kw, q_kvar)
    assert np.isnan(readings[2]).all()
    np.testing.assert_allclose(readings[:2], flow.predict(P_KW, Q_KVAR), rtol=1e-9)
    for part in (*flow.linearised(p_kw[2], q_kvar[2]), flow.voltage_slope(p_kw[2], q_kvar[2])):
        assert np.isnan(part).all()
    with pytest.raises(PowerFlowError, match=r"case 2: not converged in 100 iterations; largest power .* at POD SS\d"):
        flow.states(p_kw, q_kvar)


def test_without_channels_nothing_is_predicted():
    flow = site_flow(())
    assert flow.predict(P_KW, Q_KVAR).shape == (2, 0)
    assert flow.linearised(P_KW[0], Q_KVAR[0])[1].shape == (0, 10)


def test_meters_where_the_grid_has_no_such_place_are_refused(unbalanced):
    channels = (
        channel("vm_pu", bus="C", phase=2),
        channel("p_kw", branch="Line.L3", end="C", phase=2),
        channel("i_a", branch="Line.L3", end="B"),
        channel("vm_pu", bus="D"),
    )
    with pytest.raises(InputError) as caught:
        site_flow(channels, unbalanced.feeder)
    assert [str(fault) for fault in caught.value.faults] == [
        "meters.m: the grid has no such place; got C.2; allowed: C.1, C.3",
        "meters.m: the grid has no such place; got Line.L3@C.2; allowed: Line.L3@C.1, Line.L3@C.3",
        "meters.m: the grid has no such place; got Line.L3@B",
        "meters.m: the grid has no such place; got D",
    ]


def test_one_phase_of_what_no_meter_could_tell_apart_is_refused(unbalanced):
    with pytest.raises(InputError) as caught:
        site_flow((channel("p_kw", bus="B", phase=1),), unbalanced.feeder)
    assert [str(fault) for fault in caught.value.faults] == [
        f"meters.m: the power of one phase is metered, but POD {pod} is not between a phase and ground; "
        "got bus B, phase 1"
        for pod in ("B12", "B")
    ]
