import numpy as np
import pytest

from cosim.errors import ProfileError
from cosim.estimation.history import WIDENING, history_window, noisy_history
from cosim.rng import rng_for


def test_mean_and_bounds_of_the_samples_widened_on_both_sides():
    window = history_window(np.array([[0.0, 10.0], [10.0, 30.0], [5.0, 20.0]]))
    np.testing.assert_allclose(window.mean, [5.0, 20.0])
    np.testing.assert_allclose(window.lower, [-10.0 * WIDENING, 10.0 - 20.0 * WIDENING])
    np.testing.assert_allclose(window.upper, [10.0 + 10.0 * WIDENING, 30.0 + 20.0 * WIDENING])


def test_covariance_of_many_samples_is_that_of_the_source():
    true = np.array([[400.0, 150.0], [150.0, 100.0]])
    samples = rng_for(1, "samples").multivariate_normal([100.0, 20.0], true, size=20_000)
    np.testing.assert_allclose(history_window(samples).covariance, true, rtol=0.03)


def test_covariance_is_invertible_for_constant_power_factor_idle_sites_and_few_days():
    p_kw = rng_for(1, "samples").uniform(50.0, 150.0, (4, 2))
    samples = np.hstack([p_kw, np.zeros((4, 1)), 0.33 * p_kw, np.zeros((4, 1))])
    covariance = history_window(samples).covariance
    assert np.linalg.eigvalsh(covariance).min() > 0.0
    correlation = covariance[0, 3] / np.sqrt(covariance[0, 0] * covariance[3, 3])
    assert correlation > 0.999


def independent_days(n_site, days=28, per_day=5, seed=1):
    """Sites of constant power factor with nothing in common; the rows of a day are nearly the same."""
    rng = rng_for(seed, "days")
    of_day = rng.normal(100.0, 20.0, (days, 1, n_site))
    p_kw = (of_day + rng.normal(0.0, 2.0, (days, per_day, n_site))).reshape(-1, n_site)
    return np.hstack([p_kw, 0.4 * p_kw])


def test_fewer_days_than_sites_do_not_make_sums_and_differences_certain():
    """60 independent sites, 28 days: a further day is as far off, in standard deviations, as it should be."""
    samples = independent_days(60)
    further = independent_days(60, days=40, per_day=1, seed=2)
    window = history_window(samples, per_day=5)
    plain = np.cov(samples, rowvar=False) + 1e-4 * np.diag(samples.var(axis=0)) + 0.05**2 * np.eye(120)
    size, naive = (
        np.mean([d @ np.linalg.solve(c, d) for d in further - window.mean]) / 60 for c in (window.covariance, plain)
    )
    assert 0.5 < size < 1.5
    assert naive > 10.0


def test_the_correlation_of_p_and_q_and_of_sites_with_one_profile_is_kept():
    samples = independent_days(60)
    samples[:, 1], samples[:, 61] = 2.0 * samples[:, 0], samples[:, 60]
    covariance = history_window(samples, per_day=5).covariance
    sigma = np.sqrt(np.diagonal(covariance))
    correlation = covariance / np.outer(sigma, sigma)
    for pair in ((0, 60), (7, 67), (0, 1), (1, 60), (0, 61)):
        assert correlation[pair] > 0.999, pair
    assert np.abs(correlation[2, 3:60]).max() < 0.1


def test_p_and_q_of_one_site_stay_together_however_loosely_they_are_coupled():
    rng = rng_for(1, "loose")
    p_kw = rng.normal(0.0, 10.0, (28, 20))
    samples = np.hstack([p_kw, p_kw + rng.normal(0.0, 10.0, p_kw.shape)])
    covariance, sample = history_window(samples).covariance, np.cov(samples, rowvar=False)
    own, other = covariance[:20, 20:] / sample[:20, 20:], covariance[:20, :20] / sample[:20, :20]
    np.testing.assert_allclose(np.diagonal(own), 29.0 / 28.0, rtol=1e-9)
    assert (np.abs(other[~np.eye(20, dtype=bool)]) < 0.5).all()


def test_correlations_that_the_days_do_show_are_kept():
    """Of two sites that follow one cause half and half: correlation 0.5, which 300 days show beyond doubt."""
    rng = rng_for(1, "common")
    p_kw = rng.normal(0.0, 10.0, (300, 1)) + rng.normal(0.0, 10.0, (300, 2))
    covariance = history_window(np.hstack([p_kw, 0.3 * p_kw])).covariance
    sample = np.cov(p_kw, rowvar=False)
    assert covariance[0, 1] == pytest.approx(sample[0, 1], rel=0.03)


def test_rows_of_one_day_count_as_one_draw():
    """Each day twice is no more evidence than once."""
    samples = independent_days(5, per_day=1)
    once, twice = history_window(samples), history_window(np.repeat(samples, 2, axis=0), per_day=2)
    np.testing.assert_allclose(twice.covariance, once.covariance, rtol=1e-12)
    taken_for_more = history_window(np.repeat(samples, 2, axis=0)).covariance
    assert np.abs(taken_for_more[0, 1]) > np.abs(once.covariance[0, 1])


def test_a_further_day_is_farther_off_than_the_days_are_from_their_mean():
    window = history_window(np.array([[0.0, 10.0], [10.0, 30.0]]))
    assert window.covariance[0, 0] == pytest.approx(25.0 * 3.0 + (0.01**2) * 75.0)


def test_result_is_read_only():
    window = history_window(np.eye(4))
    with pytest.raises(ValueError, match="read-only"):
        window.mean[0] = 1.0


def test_faulty_samples_are_refused_naming_the_rows():
    samples = np.ones((5, 4))
    samples[3, 1] = np.nan
    with pytest.raises(ProfileError, match=r"not finite in 1 rows, first row 3"):
        history_window(samples)
    with pytest.raises(ProfileError, match=r"whole days; got 1 samples; allowed: 1 a day, of 2 days at least"):
        history_window(np.ones((1, 4)))
    with pytest.raises(ProfileError, match=r"got 7 samples; allowed: 3 a day"):
        history_window(np.ones((7, 4)), per_day=3)
    with pytest.raises(ProfileError, match=r"shape .*; got \(5, 3\)"):
        history_window(np.ones((5, 3)))


def test_stated_error_is_a_share_of_each_value():
    values = np.tile([100.0, -2000.0, 0.0], (20_000, 1))
    noisy = noisy_history(values, 5.0, rng_for(1, "history"))
    np.testing.assert_allclose(noisy.std(axis=0), [5.0, 100.0, 0.0], rtol=0.03)
    np.testing.assert_allclose(noisy.mean(axis=0), values[0], rtol=2e-3)
    np.testing.assert_array_equal(noisy, noisy_history(values, 5.0, rng_for(1, "history")))
    np.testing.assert_array_equal(noisy_history(values, 0.0, rng_for(1, "history")), values)
