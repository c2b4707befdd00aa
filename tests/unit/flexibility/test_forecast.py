import numpy as np
import pytest

from cosim.errors import ProfileError
from cosim.flexibility.forecast import disturbed, half_band_kw, perfect, persistence, profile, schedule

RNG = np.random.default_rng(3)


def test_persistence_repeats_the_last_value_and_widens_with_time():
    past_kw = np.cumsum(RNG.normal(size=(400, 2)), axis=0)
    forecast = persistence(past_kw, 4, 0.9)
    np.testing.assert_array_equal(forecast.p_kw, np.tile(past_kw[-1], (4, 1)))
    assert (np.diff(forecast.half_band_kw, axis=0) > 0.0).all()
    np.testing.assert_allclose(forecast.half_band_kw[0], 1.645, rtol=0.2)


def test_profile_is_the_mean_of_days_with_the_errors_of_leaving_one_out():
    days_kw = np.array([1.0, 2.0, 6.0]).reshape(3, 1, 1)
    forecast = profile(days_kw, 0.5)
    assert forecast.p_kw[0, 0] == 3.0
    assert forecast.half_band_kw[0, 0] == pytest.approx(3.0)  # errors: 1 - 4, 2 - 3.5, 6 - 1.5; the second of three


def test_schedule_is_taken_as_declared():
    declared_kw = np.array([[1.0, -2.0], [3.0, -4.0]])
    forecast = schedule(declared_kw, np.array([[0.1, -0.5], [-0.3, 0.2], [0.2, 0.1]]), 0.75)
    np.testing.assert_array_equal(forecast.p_kw, declared_kw)
    np.testing.assert_allclose(forecast.half_band_kw, [[0.3, 0.5], [0.3, 0.5]])


def test_perfect_has_no_band():
    truth_kw = np.array([[1.0, -2.0]])
    assert (perfect(truth_kw).half_band_kw == 0.0).all()
    np.testing.assert_array_equal(perfect(truth_kw).p_kw, truth_kw)


def test_disturbed_has_exactly_the_error_asked_for():
    """xi above 0: more consumption or less generation than forecast."""
    truth_kw, xi = np.array([[10.0, -10.0, 0.0]]), np.array([[1.0, 1.0, -0.5]])
    forecast = disturbed(truth_kw, 0.25, xi)
    np.testing.assert_allclose(forecast.p_kw, [[8.0, -40.0 / 3.0, 0.0]])
    np.testing.assert_allclose(forecast.p_kw + xi * forecast.half_band_kw, truth_kw)


def test_half_band_covers_the_next_error_as_often_as_asked():
    """Twenty errors and the one after them, often: 90 % coverage means the nineteenth smallest of twenty."""
    errors_kw = RNG.exponential(size=(21, 4000)) * RNG.choice([-1.0, 1.0], size=(21, 4000))
    band_kw = half_band_kw(errors_kw[:20], 0.9)
    assert np.mean(np.abs(errors_kw[20]) <= band_kw) == pytest.approx(19.0 / 21.0, abs=0.02)


def test_too_little_past_is_refused():
    with pytest.raises(ProfileError, match="persistence over 3 market time units needs a past of 4; got 3"):
        persistence(np.zeros((3, 1)), 3, 0.9)
    with pytest.raises(ProfileError, match="two days or more; got 1 days"):
        profile(np.zeros((1, 4, 1)), 0.9)
