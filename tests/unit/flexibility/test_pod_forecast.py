"""What is expected of all PODs by each method, known errors, and sites divided among their PODs."""

import numpy as np
import pytest

from cosim.flexibility.forecast import corrected, held, profile
from cosim.flexibility.pod_forecast import PodForecast, PowerForecast, pods_of_sites, widened
from cosim.scenario.market import ForecastConfig

RNG = np.random.default_rng(5)
N_POD, N_DAY, N_MTU = 4, 12, 8
PAST_KW, PAST_KVAR = RNG.normal(10.0, 3.0, (2, N_MTU, N_DAY, N_POD)) * [1.0, 1.0, -1.0, -1.0]
TRUE_KW, TRUE_KVAR = RNG.normal(10.0, 3.0, (2, N_MTU, N_POD)) * [1.0, 1.0, -1.0, 0.0]
NOW = (np.array([9.0, 12.0, -8.0, -11.0]), np.array([1.0, 2.0, -3.0, 4.0]))


def forecaster(seed=1, past=lambda mtu: (PAST_KW[mtu], PAST_KVAR[mtu]), **config):
    return PodForecast(ForecastConfig(**config), seed, past, lambda mtu: (TRUE_KW[mtu], TRUE_KVAR[mtu]))


def same(found, active, reactive):
    for name, expected in (
        ("p_kw", active.p_kw),
        ("q_kvar", reactive.p_kw),
        ("half_p_kw", active.half_band_kw),
        ("half_q_kvar", reactive.half_band_kw),
    ):
        np.testing.assert_array_equal(getattr(found, name), expected)


@pytest.mark.parametrize(("method", "function"), [("corrected", corrected), ("persistence", held)])
def test_the_next_mtu_takes_the_present_into_account(method, function):
    """Of the days looked back the MTU itself and the one before it are compared."""
    found = forecaster(method=method, coverage=0.8).next(5, NOW)
    same(found, *(function(past[5], past[4], 0.8).of(now) for past, now in zip((PAST_KW, PAST_KVAR), NOW, strict=True)))
    assert found.p_kw.shape == (1, N_POD)


def test_a_profile_forecast_does_not_look_at_the_present():
    found = forecaster(method="profile", coverage=0.8).next(5, NOW)
    same(found, *(profile(past[5][:, None], 0.8) for past in (PAST_KW, PAST_KVAR)))


@pytest.mark.parametrize("method", ["corrected", "persistence", "profile"])
def test_far_ahead_all_methods_know_similar_days_only(method):
    found = forecaster(method=method, coverage=0.8).ahead(2, 3)
    same(found, *(profile(past[2:5].transpose(1, 0, 2), 0.8) for past in (PAST_KW, PAST_KVAR)))
    assert found.p_kw.shape == (3, N_POD)


@pytest.mark.parametrize("config", [{"method": "corrected"}, {"method": "perfect", "half_share": 0.2}])
def test_the_total_is_that_of_all_pods(config):
    known = forecaster(**config)
    assert known.total_kw(4) == float(known.ahead(4, 1).p_kw.sum())


def test_the_perfect_forecast_is_the_truth_without_a_band():
    known = forecaster(method="perfect")
    for found, mtus in ((known.next(3, NOW), slice(3, 4)), (known.ahead(1, 4), slice(1, 5))):
        np.testing.assert_array_equal(found.p_kw, TRUE_KW[mtus])
        np.testing.assert_array_equal(found.q_kvar, TRUE_KVAR[mtus])
        assert not found.half_p_kw.any()
        assert not found.half_q_kvar.any()


def xi_of(found, mtus=slice(0, N_MTU)):
    """Errors in half-bands [1], above 0 where more is consumed than expected, of PODs with power."""
    return (TRUE_KW[mtus, :3] - found.p_kw[:, :3]) / found.half_p_kw[:, :3]


def test_a_known_error_stays_within_the_band_and_takes_the_reactive_power_along():
    found = forecaster(method="perfect", half_share=0.2).ahead(0, N_MTU)
    np.testing.assert_allclose(found.half_p_kw, 0.2 * np.abs(found.p_kw))
    np.testing.assert_allclose(found.half_q_kvar, 0.2 * np.abs(found.q_kvar))
    xi = xi_of(found)
    assert np.abs(xi).max() <= 1.0 + 1e-12
    assert np.abs(xi).max() > 0.8
    assert (np.abs(TRUE_KVAR - found.q_kvar) <= found.half_q_kvar * (1.0 + 1e-12)).all()
    moved = TRUE_KVAR[:, :3] / found.q_kvar[:, :3]
    np.testing.assert_allclose(moved, TRUE_KW[:, :3] / found.p_kw[:, :3])
    assert not found.p_kw[:, 3].any(), "nothing stays nothing"
    np.testing.assert_array_equal(found.q_kvar[:, 3], TRUE_KVAR[:, 3])


def test_errors_are_of_the_mtu_whoever_asks_and_when():
    """DSO and aggregator, the next MTU or a day ahead: one error; another seed, another one."""
    dso, aggregator = (forecaster(method="perfect", half_share=0.2) for _ in range(2))
    np.testing.assert_array_equal(dso.next(4, NOW).p_kw, aggregator.ahead(2, 5).p_kw[2:3])
    other = forecaster(seed=2, method="perfect", half_share=0.2)
    assert (other.next(4, NOW).p_kw[0, :3] != dso.next(4, NOW).p_kw[0, :3]).all()


def test_errors_of_full_correlation_are_one():
    xi = xi_of(forecaster(method="perfect", half_share=0.2, correlation=1.0).ahead(0, N_MTU))
    np.testing.assert_allclose(xi, np.broadcast_to(xi[:, :1], xi.shape))
    assert np.ptp(xi[:, 0]) > 0.5


def test_errors_reach_as_far_beyond_the_band_as_asked():
    xi = xi_of(forecaster(method="perfect", half_share=0.2, beyond=3.0).ahead(0, N_MTU))
    inside = xi_of(forecaster(method="perfect", half_share=0.2).ahead(0, N_MTU))
    np.testing.assert_allclose(xi, 3.0 * inside)
    assert np.abs(xi).max() > 2.0


SUMS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])


def test_what_a_site_draws_beyond_what_is_expected_goes_where_the_bands_are_wide():
    sites, expected = (np.array([20.0, 7.0]), np.array([0.0, 1.0])), (np.array([4.0, 9.0, -2.0, 10.0]), np.zeros(4))
    p_kw, q_kvar = pods_of_sites(sites, expected, (np.array([1.0, 2.0, 3.0, 0.0]), np.zeros(4)), SUMS)
    np.testing.assert_allclose(p_kw, [4.0 + 2.0, 7.0, -2.0 + 6.0, 10.0], atol=1e-4)
    np.testing.assert_allclose(q_kvar, [0.0, 1.0, 0.0, 0.0], atol=1e-12)


def test_sites_that_are_as_expected_change_nothing():
    expected = (np.array([4.0, 9.0, -2.0, 10.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    half = (np.ones(4), np.ones(4))
    found = pods_of_sites((expected[0] @ SUMS, expected[1] @ SUMS), expected, half, SUMS)
    np.testing.assert_array_equal(found, expected)


def test_what_the_estimate_is_unsure_of_widens_the_bands_of_its_sites():
    """A normal error stays below 1.96 standard deviations with 95 %: 4 kW and nothing known."""
    half_kw = np.array([[1.0, 2.0, 3.0, 0.0]])
    forecast = PowerForecast(np.ones((1, 4)), np.ones((1, 4)), half_kw, 0.5 * half_kw)
    found = widened(forecast, np.array([4.0, np.nan]), SUMS, 0.95)
    more_kw = found.half_p_kw - half_kw
    np.testing.assert_allclose(more_kw @ SUMS, [[1.959964 * 4.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(more_kw[0], 1.959964 * np.array([1.0, 0.0, 3.0, 0.0]), atol=1e-5)
    np.testing.assert_allclose(found.half_q_kvar, 0.5 * found.half_p_kw, atol=1e-5)
    np.testing.assert_array_equal(found.p_kw, forecast.p_kw)
    np.testing.assert_array_equal(found.q_kvar, forecast.q_kvar)


def test_a_site_of_which_all_is_known_is_as_unsure_as_its_estimate():
    nothing = np.zeros((1, 4))
    found = widened(PowerForecast(nothing, nothing, nothing, nothing), np.array([3.0, 1.0]), SUMS, 0.6827)
    np.testing.assert_allclose(found.half_p_kw, [[1.0, 1.0, 1.0, 1.0]], rtol=1e-3)
    assert not found.half_q_kvar.any()
