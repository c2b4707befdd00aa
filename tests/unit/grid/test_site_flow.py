import numpy as np
import pytest
from feeder_folders import MV5

from cosim.domain.measurement import Channel, Place
from cosim.errors import PowerFlowError
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.grid.site_flow import SiteFlow, site_sums, sites_of
from cosim.scenario.schema import GridConfig

FEEDER = load_feeder(MV5)
SITES = ("LV1", "LV2", "LV3", "LV4", "LV5")
P_KW = np.array([[300.0, 150.0, -80.0, -400.0, 60.0], [100.0, 80.0, 90.0, 5.0, 70.0]])
Q_KVAR = 0.3 * np.abs(P_KW)


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


@pytest.fixture(scope="module")
def engine():
    made = Engine(FEEDER, GridConfig(tolerance_pu=1e-12))
    yield made
    made.close()


def site_flow(channels):
    engine = Engine(FEEDER, GridConfig())
    flow = SiteFlow(engine.unloaded(), FEEDER, engine.pod_buses, channels)
    engine.close()
    return flow


@pytest.fixture(scope="module")
def flow():
    return site_flow(CHANNELS)


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


def test_sites_are_buses_with_pods(engine, flow):
    assert flow.sites == sites_of(engine.pod_buses) == SITES
    sums = site_sums(engine.pod_buses)
    assert sums.sum() == len(engine.pods)
    np.testing.assert_array_equal(sums.sum(axis=0), [2, 2, 3, 2, 2])


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


def test_states_are_the_engines(engine, flow):
    states = flow.states(P_KW, Q_KVAR)
    for k, state in enumerate(engine_states(engine)):
        np.testing.assert_allclose(states.vm_pu[k], state.vm_pu, rtol=0, atol=1e-8)
        np.testing.assert_allclose(states.loading_pu[k], state.loading_pu, rtol=1e-6, atol=1e-8)
        assert states.head_p_kw[k] == pytest.approx(state.head_p_kw, abs=1e-4)
        assert states.head_q_kvar[k] == pytest.approx(state.head_q_kvar, abs=1e-4)


def test_a_hopeless_case_is_a_row_of_nan_in_predictions_and_an_error_in_states(flow):
    p_kw = np.vstack([P_KW, np.full((1, 5), 1e6)])
    q_kvar = np.vstack([Q_KVAR, np.zeros((1, 5))])
    readings = flow.predict(p_kw, q_kvar)
    assert np.isnan(readings[2]).all()
    np.testing.assert_allclose(readings[:2], flow.predict(P_KW, Q_KVAR), rtol=1e-9)
    with pytest.raises(PowerFlowError, match=r"case 2: .* pu at POD SS\d\.\w+, outside the band 0\.8\.\.1\.2 pu"):
        flow.states(p_kw, q_kvar)


def test_without_channels_nothing_is_predicted():
    assert site_flow(()).predict(P_KW, Q_KVAR).shape == (2, 0)
