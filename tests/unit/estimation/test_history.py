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


def test_result_is_read_only():
    window = history_window(np.eye(4))
    with pytest.raises(ValueError, match="read-only"):
        window.mean[0] = 1.0


def test_faulty_samples_are_refused_naming_the_rows():
    samples = np.ones((5, 4))
    samples[3, 1] = np.nan
    with pytest.raises(ProfileError, match=r"not finite in 1 rows, first row 3"):
        history_window(samples)
    with pytest.raises(ProfileError, match=r"at least 2 samples; got 1"):
        history_window(np.ones((1, 4)))
    with pytest.raises(ProfileError, match=r"shape .*; got \(5, 3\)"):
        history_window(np.ones((5, 3)))


def test_stated_error_is_a_share_of_each_value():
    values = np.tile([100.0, -2000.0, 0.0], (20_000, 1))
    noisy = noisy_history(values, 5.0, rng_for(1, "history"))
    np.testing.assert_allclose(noisy.std(axis=0), [5.0, 100.0, 0.0], rtol=0.03)
    np.testing.assert_allclose(noisy.mean(axis=0), values[0], rtol=2e-3)
    np.testing.assert_array_equal(noisy, noisy_history(values, 5.0, rng_for(1, "history")))
    np.testing.assert_array_equal(noisy_history(values, 0.0, rng_for(1, "history")), values)
