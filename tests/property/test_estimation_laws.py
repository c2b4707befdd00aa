"""Laws that hold for every feeder: random sensitivities, a little curvature, random history."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse.csgraph
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.domain.frames import frozen
from cosim.domain.measurement import Channel, Place, Quality, Snapshot
from cosim.estimation import genetic, wls
from cosim.estimation.baddata import screen
from cosim.estimation.history import _groups, history_window
from cosim.estimation.observability import observe
from cosim.estimation.problem import EstimationProblem
from cosim.estimation.quality import error_statistics
from cosim.rng import rng_for
from cosim.scenario.schema import Genetic

SMALL_SEARCH = Genetic(population=12, generations=6, patience=3, parents=5)
seeds = st.integers(0, 2**31)


@dataclass(frozen=True)
class CurvedFlow:
    """Readings ``x A + curvature * (x B)^2`` of ``x = [p, q]``; columns of A, B are channels."""

    sites: tuple[str, ...]
    a: np.ndarray
    b: np.ndarray
    curvature: float

    def predict(self, p_kw, q_kvar):
        x = np.hstack([p_kw, q_kvar])
        return x @ self.a + self.curvature * (x @ self.b) ** 2

    def linearised(self, p_kw, q_kvar):
        x = np.concatenate([p_kw, q_kvar])
        slope = self.a.T + 2.0 * self.curvature * (x @ self.b)[:, np.newaxis] * self.b.T
        return self.predict(p_kw[np.newaxis], q_kvar[np.newaxis])[0], slope

    def voltage_slope(self, p_kw, q_kvar):
        return np.zeros((0, len(self.a)))


def draw_problem(seed, n_channel, *, curvature=1e-4, n_site=3):
    """A problem whose first channels read sites' own P, the others the head's, all with errors; some do not arrive."""
    rng = rng_for(seed, "problem")
    sites = tuple(f"S{k}" for k in range(n_site))
    samples = rng.normal(0.0, 100.0, 2 * n_site) + rng.normal(0.0, 20.0, (40, 2 * n_site)) @ rng.normal(
        0.0, 1.0, (2 * n_site, 2 * n_site)
    )
    a, b = rng.normal(0.0, 1.0, (2, 2 * n_site, n_channel))
    places = []
    for k in range(n_channel):
        if k < n_site - 1:
            a[:, k], b[:, k] = np.eye(2 * n_site)[k], 0.0
            places.append(Place(bus=sites[k]))
        else:
            places.append(Place(branch="L1", end="MV0"))
    channels = tuple(Channel("m", f"m/{k}/p_kw", "p_kw", p, rng.uniform(0.5, 5.0)) for k, p in enumerate(places))
    flow = CurvedFlow(sites, a, b, curvature)
    truth = samples[0]
    value = flow.predict(truth[np.newaxis, :n_site], truth[np.newaxis, n_site:])[0] + rng.normal(0.0, 1.0, n_channel)
    lost = rng.random(n_channel) < 0.2
    snapshot = Snapshot(
        frozen(np.where(lost, np.nan, value)), frozen(np.where(lost, Quality.MISSING, Quality.GOOD), np.int8)
    )
    return EstimationProblem(
        flow, channels, snapshot, history_window(samples), frozen(rng.normal(0.0, 10.0, 2 * n_site))
    )


def with_channels(case, order):
    """The problem with its channels reduced to, or put into, ``order``."""
    order = np.asarray(order, dtype=int)
    flow = dataclasses.replace(case.flow, a=case.flow.a[:, order], b=case.flow.b[:, order])
    return dataclasses.replace(
        case,
        flow=flow,
        channels=tuple(case.channels[k] for k in order),
        snapshot=Snapshot(case.snapshot.value[order], case.snapshot.quality[order]),
    )


def with_sites(case, order):
    """The problem with its sites put into ``order``."""
    order = np.asarray(order, dtype=int)
    both = np.concatenate([order, len(order) + order])
    flow = dataclasses.replace(
        case.flow,
        sites=tuple(case.flow.sites[k] for k in order),
        a=case.flow.a[both],
        b=case.flow.b[both],
    )
    history = dataclasses.replace(
        case.history,
        lower=case.history.lower[both],
        upper=case.history.upper[both],
        mean=case.history.mean[both],
        covariance=case.history.covariance[np.ix_(both, both)],
    )
    return dataclasses.replace(case, flow=flow, history=history, ordered=case.ordered[both]), both


def deviation(case, x, other):
    """Largest difference in standard deviations of the history."""
    return np.max(np.abs(x - other) / np.sqrt(np.diagonal(case.history.covariance)))


@given(seeds, st.integers(0, 8))
def test_wls_without_measurements_returns_the_prior(seed, n_channel):
    case = draw_problem(seed, n_channel)
    silent = Snapshot(frozen(np.full(n_channel, np.nan)), frozen(np.full(n_channel, Quality.MISSING), np.int8))
    found = wls.solve(dataclasses.replace(case, snapshot=silent))
    np.testing.assert_array_equal(found.x, case.history.mean)
    np.testing.assert_allclose(found.covariance, case.history.covariance, rtol=1e-9, atol=1e-9)


@given(seeds, st.integers(1, 8), st.floats(1e-3, 10.0))
def test_a_further_measurement_never_raises_a_variance(seed, n_channel, sigma):
    case = draw_problem(seed, n_channel, curvature=0.0)
    last = dataclasses.replace(case.channels[-1], sigma=sigma)
    case = dataclasses.replace(case, channels=(*case.channels[:-1], last))
    before = np.diagonal(wls.solve(with_channels(case, range(n_channel - 1))).covariance)
    after = np.diagonal(wls.solve(case).covariance)
    assert (after <= before * (1.0 + 1e-9)).all()


@given(seeds, st.integers(1, 8), st.randoms(use_true_random=False))
def test_the_order_of_channels_changes_nothing(seed, n_channel, shuffler):
    case = draw_problem(seed, n_channel)
    order = list(range(n_channel))
    shuffler.shuffle(order)
    one, other = wls.solve(case), wls.solve(with_channels(case, order))
    assert one.converged == other.converged
    assert deviation(case, one.x, other.x) < 1e-6
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=1e-5, atol=1e-6)


@given(seeds, st.integers(0, 8), st.permutations(range(3)))
def test_the_order_of_sites_changes_nothing(seed, n_channel, order):
    case = draw_problem(seed, n_channel)
    shuffled, both = with_sites(case, order)
    one, other = wls.solve(case), wls.solve(shuffled)
    assert one.converged == other.converged
    assert deviation(shuffled, one.x[both], other.x) < 1e-6
    np.testing.assert_allclose(one.covariance[np.ix_(both, both)], other.covariance, rtol=1e-5, atol=1e-6)
    first, second = screen(case), screen(shuffled)
    assert [r.channel for r in first.rejected] == [r.channel for r in second.rejected]
    assert set(first.unusual) == set(second.unusual)
    seen, again = observe(case), observe(shuffled)
    assert set(seen.observable) == set(again.observable)
    assert {frozenset(island) for island in seen.islands} == {frozenset(island) for island in again.islands}


@given(seeds, st.integers(1, 8), st.randoms(use_true_random=False))
def test_the_order_of_channels_rejects_the_same(seed, n_channel, shuffler):
    case = draw_problem(seed, n_channel)
    value = case.snapshot.value + np.where(np.arange(n_channel) == n_channel // 2, 1000.0, 0.0)
    case = dataclasses.replace(case, snapshot=Snapshot(frozen(value), case.snapshot.quality))
    order = list(range(n_channel))
    shuffler.shuffle(order)
    one, other = screen(case), screen(with_channels(case, order))
    assert {r.channel for r in one.rejected} == {order[r.channel] for r in other.rejected}
    assert one.chi_square == pytest.approx(other.chi_square, rel=1e-6, nan_ok=True)


@given(seeds, st.integers(1, 8))
def test_in_a_linear_feeder_rejecting_lowers_chi_square_by_the_squared_normalised_residual(seed, n_channel):
    case = draw_problem(seed, n_channel, curvature=0.0)
    value = case.snapshot.value + np.where(np.arange(n_channel) == n_channel - 1, 1000.0, 0.0)
    case = dataclasses.replace(case, snapshot=Snapshot(frozen(value), case.snapshot.quality))
    found = screen(case)
    fallen = found.chi_square - found.fit.chi_square
    assert fallen == pytest.approx(sum(r.normalised**2 for r in found.rejected), rel=1e-5, abs=1e-5)


@given(seeds, st.integers(1, 8), st.floats(0.1, 10.0))
def test_scaling_all_uncertainties_alike_leaves_the_estimate(seed, n_channel, factor):
    case = draw_problem(seed, n_channel, curvature=0.0)
    scaled = dataclasses.replace(
        case,
        channels=tuple(dataclasses.replace(c, sigma=factor * c.sigma) for c in case.channels),
        history=dataclasses.replace(case.history, covariance=factor**2 * case.history.covariance),
    )
    one, other = wls.solve(case), wls.solve(scaled)
    assert deviation(case, one.x, other.x) < 1e-6
    assert other.chi_square == pytest.approx(one.chi_square / factor**2, rel=1e-6, abs=1e-9)


@given(seeds, st.integers(0, 8))
def test_wls_solves_a_linear_feeder_in_closed_form(seed, n_channel):
    case = draw_problem(seed, n_channel, curvature=0.0)
    found = wls.solve(case)
    good = case.snapshot.quality == Quality.GOOD
    slope = case.flow.a[:, good].T
    noise = np.diag([c.sigma**2 for c, g in zip(case.channels, good, strict=True) if g])
    prior = case.history.covariance
    order = case.ordered
    innovation = case.snapshot.value[good] - slope @ (case.history.mean + order)
    gain = prior @ slope.T @ np.linalg.inv(slope @ prior @ slope.T + noise) if good.any() else np.zeros((6, 0))
    assert deviation(case, found.x, case.history.mean + gain @ innovation) < 1e-5
    np.testing.assert_allclose(found.covariance, prior - gain @ slope @ prior, rtol=1e-4, atol=1e-4)
    assert found.converged


@settings(max_examples=30)
@given(seeds, st.integers(1, 8), st.booleans())
def test_the_search_never_leaves_its_bounds_and_never_loses_the_mean(seed, n_channel, with_prior):
    case = draw_problem(seed, n_channel)
    found = genetic.solve(case, SMALL_SEARCH, with_prior=with_prior, seed=seed, step=0)
    cost = genetic._Cost(case, with_prior)
    assert (found.x[cost.genes] >= case.history.lower[cost.genes]).all()
    assert (found.x[cost.genes] <= case.history.upper[cost.genes]).all()
    mean = np.clip(cost.start[cost.genes], case.history.lower[cost.genes], case.history.upper[cost.genes])
    assert found.objective <= cost.of(cost.with_genes(mean[np.newaxis]))[0] * (1.0 + 1e-12)


@settings(max_examples=20)
@given(seeds, st.integers(1, 8), st.integers(0, 1000))
def test_same_seed_and_step_give_the_same_bytes(seed, n_channel, step):
    case = draw_problem(seed, n_channel)
    one, other = (genetic.solve(case, SMALL_SEARCH, with_prior=False, seed=seed, step=step) for _ in range(2))
    assert one.x.tobytes() == other.x.tobytes()
    assert (one.objective, one.generations) == (other.objective, other.generations)


@given(seeds, st.integers(2, 30), st.integers(1, 5), st.integers(1, 40))
def test_history_holds_its_samples_and_can_be_inverted(seed, days, per_day, n_site):
    rng = rng_for(seed, "samples")
    samples = rng.normal(0.0, 100.0, (days * per_day, 2 * n_site)) * (rng.random(2 * n_site) < 0.7)
    window = history_window(samples, per_day)
    assert (window.lower <= samples).all()
    assert (window.upper >= samples).all()
    assert ((window.lower <= window.mean + 1e-9) & (window.mean <= window.upper + 1e-9)).all()
    assert np.linalg.eigvalsh(window.covariance).min() > 0.0


@given(seeds, st.integers(1, 30))
def test_groups_of_a_history_are_those_of_single_linkage(seed, n_site):
    """Long chains too: what is next to each other is correlated, in any order."""
    rng = rng_for(seed, "links")
    size, order = 2 * n_site, rng.permutation(2 * n_site)
    linked = np.diag(np.full(size, 1.0)) + np.diag(rng.random(size - 1), 1) ** 0.05
    linked = np.where(np.eye(size, k=1), linked, np.eye(size))
    correlation = np.maximum(linked, linked.T)[np.ix_(order, order)]
    together = correlation >= 0.9
    together[np.arange(n_site), n_site + np.arange(n_site)] = True
    label = scipy.sparse.csgraph.connected_components(scipy.sparse.csr_array(together), directed=False)[1]
    first_member = np.unique(label, return_index=True)[1]
    np.testing.assert_array_equal(_groups(correlation, 28), first_member[label])


@given(seeds, st.integers(2, 30), st.integers(1, 5), st.permutations(range(4)))
def test_history_does_not_depend_on_the_order_of_sites(seed, days, per_day, order):
    rng = rng_for(seed, "samples")
    samples = 200.0 + rng.normal(0.0, 100.0, (days * per_day, 8)) @ rng.normal(0.0, 1.0, (8, 8))
    both = np.concatenate([order, 4 + np.array(order)])
    one, other = history_window(samples, per_day), history_window(samples[:, both], per_day)
    np.testing.assert_allclose(other.covariance, one.covariance[np.ix_(both, both)], rtol=1e-9, atol=1e-6)


@given(seeds, st.integers(1, 30))
def test_error_measures_are_ordered(seed, n_time):
    rng = rng_for(seed, "errors")
    found = error_statistics(rng.normal(size=(n_time, 3)), rng.normal(size=(n_time, 3)))
    slack = 1.0 + 1e-12
    assert (np.abs(found.bias) <= found.mean_absolute * slack).all()
    assert (found.mean_absolute <= found.root_mean_square * slack).all()
    assert (found.root_mean_square <= found.maximum * slack).all()
