"""The estimate over sites against one over node voltages with Kirchhoff's law as constraint, on unbalanced feeders."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
from node_voltage_wls import Network, NodeVoltageFlow, estimate

from cosim.domain.frames import frozen
from cosim.domain.measurement import Channel, Place, Quality, Snapshot
from cosim.estimation import wls
from cosim.estimation.baddata import screen
from cosim.estimation.history import HistoryWindow
from cosim.estimation.methods import voltage_band
from cosim.estimation.observability import observe
from cosim.estimation.problem import EstimationProblem
from cosim.rng import rng_for

V_PHASE = 2401.8
SITES = ("2.1", "2.2.3", "4", "4.3", "5.2")
LOADS = (  # bus 3 is without load, bus 5 has phase 2 only
    (0, None, 0, 1.0),
    (1, 2, 1, 1.0),
    *((6 + k, None, 2, 1.0 / 3.0) for k in range(3)),
    (8, None, 3, 1.0),
    (9, None, 4, 1.0),
)
MEAN = np.array([150.0, 200.0, 300.0, 80.0, 60.0, 60.0, 90.0, 120.0, 30.0, -20.0])
SPREAD = np.array([40.0, 50.0, 60.0, 30.0, 20.0, 15.0, 20.0, 30.0, 12.0, 10.0])


def unbalanced_network(readings):
    """Source behind 1 ohm, buses 2-3-4 with three phases coupled, a single-phase lateral from 3.2 to 5. ``readings``
    is given the three conductors of the branch 2-3 at bus 2."""
    series = np.linalg.inv((0.35 + 0.9j) * np.eye(3) + (0.15 + 0.4j) * (1.0 - np.eye(3)))
    series[0, 0] *= 1.3  # no symmetry to hide behind
    y = np.zeros((10, 10), dtype=complex)
    y[:3, :3] += np.linalg.inv((0.2 + 1.0j) * np.eye(3))
    for a, b in ((0, 3), (3, 6)):
        for rows, columns, sign in ((a, a, 1), (b, b, 1), (a, b, -1), (b, a, -1)):
            y[rows : rows + 3, columns : columns + 3] += sign * series
    y[np.ix_([4, 9], [4, 9])] += np.array([[1, -1], [-1, 1]]) / (0.6 + 0.6j)
    source = np.linalg.inv((0.2 + 1.0j) * np.eye(3)) @ (1.03 * V_PHASE * np.exp(-2j * np.pi / 3 * np.arange(3)))
    v0 = np.linalg.solve(y, np.concatenate([source, np.zeros(7)]))
    branch = [(k, sp.csr_matrix(np.hstack([series[k], -series[k], np.zeros(4)]))) for k in range(3)]
    return Network(sp.csc_matrix(y), v0, np.full(10, V_PHASE), LOADS, 5, readings(branch))


def meters(branch):
    """The branch by phase, its total and current; the power of two sites; voltages of a bus and of one node."""
    return (
        *(("p", [conductor]) for conductor in branch),
        *(("q", [conductor]) for conductor in branch),
        ("p", branch),
        ("i", branch),
        ("site", 0),
        ("site", 7),
        ("v", [6, 7, 8]),
        ("v", [9]),
    )


SIGMA = np.array([2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 3.0, 0.5, 1.0, 1.0, 2e-3, 1e-3])


def drawn(seed):
    """A problem whose truth and errors are drawn, and the network that it is about."""
    rng = rng_for(seed, "node voltages")
    network = unbalanced_network(meters)
    flow = NodeVoltageFlow(network, SITES)
    mixing = np.linalg.cholesky(0.6 * np.eye(10) + 0.4)
    covariance = (SPREAD[:, np.newaxis] * mixing) @ (SPREAD[:, np.newaxis] * mixing).T
    truth = MEAN + np.linalg.cholesky(covariance) @ rng.standard_normal(10)
    value = flow.linearised(truth[:5], truth[5:])[0] + SIGMA * rng.standard_normal(len(SIGMA))
    sites = (Place(bus="2", phase=1), Place(bus="4"), Place(bus="4"), Place(bus="5"))
    places = [Place(branch="L", end="2")] * 8 + [*sites]
    quantities = ["p_kw"] * 3 + ["q_kvar"] * 3 + ["p_kw", "i_a", "p_kw", "q_kvar", "vm_pu", "vm_pu"]
    channels = tuple(
        Channel("m", f"m/{k}/{q}", q, place, float(s))
        for k, (q, place, s) in enumerate(zip(quantities, places, SIGMA, strict=True))
    )
    window = HistoryWindow(MEAN - 4.0 * SPREAD, MEAN + 4.0 * SPREAD, MEAN, covariance)
    snapshot = Snapshot(frozen(value), frozen(np.zeros(len(SIGMA)), np.int8))
    return EstimationProblem(flow, channels, snapshot, window, frozen(np.zeros(10))), network, truth


@pytest.mark.parametrize("seed", range(5))
def test_both_ways_give_one_estimate_and_one_covariance(seed):
    case, network, _ = drawn(seed)
    found = wls.solve(case)
    x, covariance = estimate(network, case.snapshot.value, SIGMA, MEAN, case.history.covariance)
    assert found.converged
    np.testing.assert_allclose(found.x, x, rtol=0.0, atol=1e-6)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-4, atol=1e-3)


def test_the_estimate_is_better_than_the_history_and_its_bands_hold():
    errors, before, inside, volts = [], [], [], []
    for seed in range(25):
        case, _, truth = drawn(seed)
        found = wls.solve(case)
        errors.append(found.x - truth)
        before.append(MEAN - truth)
        inside.append(np.abs(found.x - truth) < 1.96 * np.sqrt(np.diagonal(found.covariance)))
        slope = case.flow.voltage_slope(found.x[:5], found.x[5:])
        volts.append(np.abs(slope @ (found.x - truth)) < 1.96 * voltage_band(slope, found.root))
    assert np.std(errors) < 0.7 * np.std(before)
    margin = 4.0 * np.sqrt(0.05 * 0.95 / 25)  # as if all sites of a draw were one
    assert np.mean(inside) == pytest.approx(0.95, abs=margin)
    assert np.mean(volts) == pytest.approx(0.95, abs=margin)


def test_a_gross_error_in_one_phase_of_the_branch_is_found():
    case, _, _ = drawn(1)
    value = case.snapshot.value + np.where(np.arange(len(SIGMA)) == 1, 20.0 * SIGMA, 0.0)
    found = screen(dataclasses.replace(case, snapshot=Snapshot(frozen(value), case.snapshot.quality)))
    assert [each.topic for each in found.rejected] == ["m/1/p_kw"]


def test_a_branch_metered_by_phase_determines_the_phases_behind_it_and_nothing_before_it():
    case, _, _ = drawn(1)
    quality = case.snapshot.quality.copy()
    quality[6:] = Quality.MISSING
    found = observe(dataclasses.replace(case, snapshot=Snapshot(case.snapshot.value, frozen(quality, np.int8))))
    assert found.observable == ("4", "4.3", "5.2")
    assert found.islands == (("2.1",), ("2.2.3",))
