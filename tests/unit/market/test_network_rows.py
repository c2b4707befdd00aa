"""The network of a clearing from a linearisation of a real feeder."""

from pathlib import Path

import numpy as np
import pytest

from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.grid.linear import LinearNetwork
from cosim.market.network import network_rows
from cosim.scenario.schema import GridConfig

FOLDER = Path(__file__).parents[3] / "dss_models" / "lfm12"


@pytest.fixture(scope="module")
def model():
    feeder = load_feeder(FOLDER)
    engine = Engine(feeder, GridConfig())
    network = engine.unloaded()
    engine.close()
    p_kw = np.array([pod.kw for pod in feeder.pods.values()])
    q_kvar = np.array([pod.kvar for pod in feeder.pods.values()])
    return feeder, network, LinearNetwork(network, feeder.head_terminal).exact(p_kw, q_kvar)


@pytest.fixture(scope="module")
def rows(model):
    feeder, network, linear = model
    i_max = np.where([name.startswith("Line.2-3@2.") for name in network.layout.conductors], 117.0, np.nan)
    low = np.where([node.startswith("12.") for node in network.layout.nodes], 0.95, np.nan)
    return network_rows(linear, tuple(feeder.pods), network.v_base, i_max, low, np.full(len(low), np.nan))


def test_only_what_is_limited_is_kept(rows):
    assert rows.conductors == ("Line.2-3@2.1", "Line.2-3@2.2", "Line.2-3@2.3")
    assert rows.nodes == ("12.1", "12.2", "12.3")
    assert rows.by_p.shape == (6, 7)
    assert rows.names == (*rows.conductors, *rows.nodes)


def test_state_is_that_of_the_feeder(rows):
    assert rows.i_a[0] == pytest.approx(95.673032 - 53.209672j, abs=1e-5)
    assert np.abs(rows.base[3:]) == pytest.approx(np.full(3, 0.996319), abs=1e-6)


def test_prediction_is_that_of_the_linearisation(model, rows):
    _, network, linear = model
    change_p, change_q = np.linspace(-5.0, 5.0, 7), np.linspace(2.0, -2.0, 7)
    predicted = linear.predict(linear.p_kw + change_p, linear.q_kvar + change_q)
    found = rows.at(change_p, change_q)
    assert found[0] == pytest.approx(predicted.i_a[network.layout.conductors.index("Line.2-3@2.1")])
    node = network.layout.nodes.index("12.2")
    assert found[4] == pytest.approx(predicted.v[node] / network.v_base[node])
    head_kw = rows.head_by_p @ change_p + rows.head_by_q @ change_q
    assert head_kw == pytest.approx((predicted.head_kva - linear.state.head_kva).real)


def test_consumption_raises_the_current_and_lowers_the_voltage(rows):
    change = (rows.by_p * rows.base.conj()[:, None]).real
    assert (change[:3] > 0.0).all()
    assert (change[3:] < 0.0).all()
    assert (rows.head_by_p > 1.0).all()
