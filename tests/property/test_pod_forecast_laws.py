"""Laws of forecasts of PODs: coverage of half-bands, errors that are known, and sites that add up."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.flexibility.forecast import corrected, half_band_kw, held
from cosim.flexibility.pod_forecast import PodForecast, pods_of_sites
from cosim.scenario.market import ForecastConfig

seeds = st.integers(0, 2**31)
coverages = st.sampled_from([0.5, 0.8, 0.9, 0.95])
few = settings(max_examples=25)


def days(seed, n_day, n_pod):
    """An MTU and the one before it on ``n_day`` days (2, n_day, n_pod): levels of the day, skewed, and noise."""
    rng = np.random.default_rng(seed)
    level, spread = rng.uniform(-50.0, 50.0), rng.uniform(0.0, 10.0)
    of_day = level + spread * rng.exponential(size=(1, n_day, n_pod))
    return of_day + rng.uniform(0.1, 5.0) * rng.standard_t(3, size=(2, n_day, n_pod))


def least_share(n, coverage):
    """Below it the share of 4000 PODs covered by chance is once in millions."""
    expected = min(np.ceil((n + 1) * coverage), n) / (n + 1)
    return expected - 5.0 * np.sqrt(expected * (1.0 - expected) / 4000)


@few
@given(seed=seeds, n_day=st.integers(8, 60), coverage=coverages)
def test_bands_of_a_held_value_cover_the_next_as_often_as_asked(seed, n_day, coverage):
    then, now = days(seed, n_day + 1, 4000)
    found = held(then[:-1], now[:-1], coverage).of(now[-1])
    covered = (np.abs(then[-1] - found.p_kw[0]) <= found.half_band_kw[0]).mean()
    assert covered >= least_share(n_day, coverage)


@few
@given(seed=seeds, n_day=st.integers(8, 60), coverage=coverages)
def test_bands_of_the_corrected_mean_cover_the_next_as_often_as_asked(seed, n_day, coverage):
    then, now = days(seed, n_day + 1, 4000)
    found = corrected(then[:-1], now[:-1], coverage).of(now[-1])
    covered = (np.abs(then[-1] - found.p_kw[0]) <= found.half_band_kw[0]).mean()
    assert covered >= least_share(n_day, coverage)


@few
@given(seed=seeds, n_day=st.integers(3, 30), coverage=coverages, shift=st.floats(-100.0, 100.0))
def test_a_correction_moves_the_forecast_with_the_present_and_not_the_band(seed, n_day, coverage, shift):
    then, now = days(seed, n_day, 5)
    one = corrected(then, now, coverage).of(now[-1])
    other = corrected(then, now, coverage).of(now[-1] + shift)
    np.testing.assert_allclose(other.p_kw, one.p_kw + shift, atol=1e-9)
    np.testing.assert_array_equal(other.half_band_kw, one.half_band_kw)


@few
@given(seed=seeds, n=st.integers(2, 40), low=coverages, high=coverages)
def test_more_coverage_never_makes_a_band_narrower(seed, n, low, high):
    error_kw = np.random.default_rng(seed).normal(size=(n, 6))
    narrow, wide = (half_band_kw(error_kw, share) for share in sorted((low, high)))
    assert (narrow <= wide).all()
    assert (wide <= np.abs(error_kw).max(axis=0)).all()


@few
@given(
    seed=seeds,
    half=st.floats(0.01, 0.9),
    correlation=st.floats(0.0, 1.0),
    beyond=st.floats(0.0, 1.0),
    n_mtu=st.integers(1, 6),
)
def test_the_truth_is_as_far_off_a_known_forecast_as_asked_for(seed, half, correlation, beyond, n_mtu):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-100.0, 100.0, (2, n_mtu, 5)) * (rng.random((2, n_mtu, 5)) < 0.9)
    config = ForecastConfig(method="perfect", half_share=half, correlation=correlation, beyond=beyond)
    found = PodForecast(config, seed, lambda mtu: (truth, truth), lambda mtu: (truth[0, mtu], truth[1, mtu]))
    ahead = found.ahead(0, n_mtu)
    for expected, band, true in (
        (ahead.p_kw, ahead.half_p_kw, truth[0]),
        (ahead.q_kvar, ahead.half_q_kvar, truth[1]),
    ):
        np.testing.assert_allclose(band, half * np.abs(expected))
        assert (np.abs(true - expected) <= beyond * band * (1.0 + 1e-9) + 1e-12).all()
        assert (np.sign(expected) == np.sign(true)).all()
    for mtu in range(n_mtu):
        np.testing.assert_array_equal(found.next(mtu, (truth[0], truth[1])).p_kw[0], ahead.p_kw[mtu])


@few
@given(seed=seeds, n_pod=st.integers(1, 9), n_site=st.integers(1, 4))
def test_pods_add_up_to_their_sites(seed, n_pod, n_site):
    """However wide the bands are, also where all PODs of a site are known exactly; no POD goes the other way."""
    rng = np.random.default_rng(seed)
    site_of_pod = np.concatenate([np.arange(n_site), rng.integers(0, n_site, n_pod)])
    sums = np.eye(n_site)[site_of_pod]
    expected = rng.uniform(-500.0, 500.0, (2, len(sums)))
    half = rng.uniform(0.0, 50.0, (2, len(sums))) * (rng.random((2, len(sums))) < 0.6)
    sites = rng.uniform(-900.0, 900.0, (2, n_site))
    found = np.array(pods_of_sites(tuple(sites), tuple(expected), tuple(half), sums))
    np.testing.assert_allclose(found @ sums, sites, rtol=0.0, atol=1e-9)
    missing = (sites - expected @ sums)[:, site_of_pod]
    assert ((found - expected) * missing >= 0.0).all()
