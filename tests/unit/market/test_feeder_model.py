"""Clearing with the outer loop on an unbalanced feeder with delta and voltage-dependent loads."""

from pathlib import Path

import numpy as np
import pytest

from cosim.domain.market import Bid, Direction, PriceStep, Resource
from cosim.grid.batch import BatchPowerFlow
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.market.ac_loop import EXCESS_PU, clear_with_ac
from cosim.market.case import ClearingCase
from cosim.market.feeder_model import FeederModel
from cosim.market.uncertainty import Uncertainty, box
from cosim.scenario.schema import GridConfig

V_MIN = 0.94
HALF_BAND = 0.1


@pytest.fixture(scope="module")
def feeder():
    return load_feeder(Path(__file__).parents[3] / "dss_models" / "ieee123")


@pytest.fixture(scope="module")
def network(feeder):
    engine = Engine(feeder, GridConfig())
    unloaded = engine.unloaded()
    engine.close()
    return unloaded


@pytest.fixture(scope="module")
def base(feeder):
    pods = feeder.pods.values()
    return np.array([pod.kw for pod in pods]), np.array([pod.kvar or 0.0 for pod in pods])


@pytest.fixture(scope="module")
def model(feeder, network, base):
    """What flows at the head now is its limit; every node at 0.94 pu or more."""
    layout = network.layout
    state = BatchPowerFlow(network, [], [feeder.head_terminal]).solve(base[0][None], base[1][None])
    i_max = np.full(len(layout.conductors), np.nan)
    i_max[layout.conductor_terminal == layout.terminals.index(feeder.head_terminal)] = state.conductor_i_a[0]
    n_node = len(layout.nodes)
    return FeederModel(network, feeder.head_terminal, i_max, np.full(n_node, V_MIN), np.full(n_node, np.nan))


@pytest.fixture(scope="module")
def case(model, base):
    p_kw, q_kvar = base
    rows = model.linearise(0, p_kw, q_kvar)
    resources = {
        pod: Resource(pod, pod, "load", "A", p, 0.0, kvar_per_kw=q / p)
        for pod, p, q in zip(rows.pods, p_kw, q_kvar, strict=True)
    }
    bids = tuple(
        Bid(pod, "A", "P", Direction.UP, 0, (p,), (PriceStep(p, 0.1 + 0.001 * k),), resource=pod)
        for k, (pod, p) in enumerate(zip(rows.pods, p_kw.tolist(), strict=True))
    )
    band = Uncertainty(HALF_BAND * p_kw, HALF_BAND * q_kvar, box())
    return ClearingCase(bids, resources, (rows,), 0, 900, uncertainty=(band,))


def test_linear_model_and_power_flow_agree_at_the_point(model, base, case):
    np.testing.assert_allclose(np.abs(case.networks[0].base), model.magnitudes(0, base[0][None], base[1][None])[0])


def test_the_loop_closes_on_an_unbalanced_feeder(model, case):
    """One clearing on the linear model is not enough; the loop leaves neither voltages nor currents beyond their limit,
    at the schedule and in 500 corners of the box."""
    found = clear_with_ac(case, model.linearise, model.magnitudes)
    assert found.largest_pu[0] > EXCESS_PU
    assert found.excess == ()
    assert 2 <= found.rounds <= 4
    assert found.clearing.unsolved == ()
    network = found.clearing.networks[0]
    p_kw, q_kvar = network.powers(network.state(found.clearing.solution.x))
    xi = np.sign(np.random.default_rng(0).uniform(-1.0, 1.0, (500, len(p_kw))))
    xi[0], xi[1] = 1.0, -1.0
    band = case.uncertainty[0]
    size = model.magnitudes(0, p_kw + xi * band.half_p_kw, q_kvar + xi * band.half_q_kvar)
    rows = case.networks[0]
    n = len(rows.conductors)
    assert (size[:, :n] <= rows.i_max_a * (1.0 + EXCESS_PU)).all()
    assert (size[:, n:] >= V_MIN * (1.0 - EXCESS_PU)).all()
