import numpy as np
import pytest
from small_feeder import (
    HEAD,
    MEAN,
    METER_A,
    METER_B,
    METER_C,
    SPREAD,
    TRUTH,
    channel,
    draws,
    history,
    misread,
    problem,
)

from cosim.estimation import wls
from cosim.estimation.problem import evidence, residuals
from cosim.rng import rng_for

EXACT = (
    *(channel("head", q, 1e-3) for q in ("p_kw", "q_kvar")),
    *(channel("A", q, 1e-3) for q in ("p_kw", "q_kvar")),
    *(channel(site, "vm_pu", 1e-7) for site in ("B", "C")),
)


def test_an_exactly_determined_noise_free_case_is_recovered():
    case = problem((*EXACT, channel("B", "p_kw", 1e-3)), window=history(spread=10.0 * SPREAD))
    found = wls.solve(case)
    np.testing.assert_allclose(found.x, TRUTH, atol=1e-4)
    assert found.converged
    assert found.chi_square == pytest.approx(np.sum(((TRUTH - MEAN) / (10.0 * SPREAD)) ** 2), rel=1e-3)


def test_orders_are_taken_out_of_the_estimate():
    channels = (*EXACT, channel("B", "p_kw", 1e-3))
    found = wls.solve(problem(channels, ordered=(0.0, 35.0, -60.0), window=history(spread=10.0 * SPREAD)))
    np.testing.assert_allclose(found.x, TRUTH, atol=1e-4)


def test_it_is_the_minimum_of_what_it_claims_to_minimise():
    case = problem((*HEAD, *METER_A), missing={"m/A/p_kw"}, window=history(correlation=0.5))
    found = wls.solve(case)
    precision = np.linalg.inv(case.history.covariance)

    def cost(x):
        error = (case.snapshot.value - case.flow.predict(x[np.newaxis, :3], x[np.newaxis, 3:])[0]) / [3, 3, 1, 1, 1e-3]
        return np.nansum(error**2) + (x - MEAN) @ precision @ (x - MEAN)

    assert found.chi_square == pytest.approx(cost(found.x), rel=1e-9)
    shifts = 0.01 * SPREAD * rng_for(1, "shifts").standard_normal((50, 6))
    assert min(cost(found.x + shift) for shift in shifts) > found.chi_square


def test_without_measurements_the_history_stands():
    case = problem((*HEAD, *METER_A), missing={c.topic for c in (*HEAD, *METER_A)})
    found = wls.solve(case)
    np.testing.assert_array_equal(found.x, case.history.mean)
    np.testing.assert_allclose(found.covariance, case.history.covariance, rtol=1e-12)
    assert (found.chi_square, found.converged) == (0.0, True)


def test_a_correlated_site_is_corrected_by_its_neighbours_meter():
    alone = wls.solve(problem(METER_A[:1], window=history()))
    together = wls.solve(problem(METER_A[:1], window=history(correlation=0.9)))
    assert alone.x[2] == pytest.approx(MEAN[2], abs=1e-6)
    expected_shift = 0.9 * (TRUTH[0] - MEAN[0]) / SPREAD[0] * SPREAD[2]
    assert together.x[2] - MEAN[2] == pytest.approx(expected_shift, rel=0.01)
    assert together.covariance[2, 2] < 0.25 * alone.covariance[2, 2]


ALL_METERS = (*HEAD, *METER_A, *METER_B, *METER_C)


@pytest.fixture(scope="module")
def found_of_draws():
    """800 estimates of drawn truths with readings of drawn errors: (truth, solution)."""
    channels = (*HEAD, *METER_A, *METER_C[2:])
    return [(truth, wls.solve(case)) for truth, case in draws(800, channels, history(correlation=0.4))]


def test_bands_are_as_wide_as_errors_are(found_of_draws):
    """The standard deviation of 800 normal values lies within 10 % (4 standard deviations of its own) of 1."""
    scaled = [(found.x - truth) / np.sqrt(np.diagonal(found.covariance)) for truth, found in found_of_draws]
    np.testing.assert_allclose(np.std(scaled, axis=0), 1.0, atol=0.1)


def test_the_whole_covariance_is_that_of_the_errors(found_of_draws):
    """``(x - truth)^T P^-1 (x - truth)`` has a chi-square distribution with 6 degrees of freedom: mean 6, variance 12,
    and 5 % above 12.59. Margins: 4 standard deviations of the mean, and of a share, of 800 draws."""
    size = np.array([e @ np.linalg.solve(f.covariance, e) for e, f in ((f.x - t, f) for t, f in found_of_draws)])
    assert size.mean() == pytest.approx(6.0, abs=4.0 * np.sqrt(12.0 / 800))
    assert np.mean(size > 12.59) == pytest.approx(0.05, abs=4.0 * np.sqrt(0.05 * 0.95 / 800))


def test_chi_square_has_as_many_degrees_of_freedom_as_there_are_measurements(found_of_draws):
    size = np.array([found.chi_square for _, found in found_of_draws])
    assert size.mean() == pytest.approx(6.0, abs=4.0 * np.sqrt(12.0 / 800))
    assert np.mean(size > 12.59) == pytest.approx(0.05, abs=4.0 * np.sqrt(0.05 * 0.95 / 800))


def test_residuals_vary_as_omega_says(found_of_draws):
    scaled = [found.residual / np.sqrt(np.diagonal(found.omega)) for _, found in found_of_draws]
    np.testing.assert_allclose(np.std(scaled, axis=0), 1.0, atol=0.1)
    rows = np.array([found.residual for _, found in found_of_draws])
    expected = np.mean([found.omega for _, found in found_of_draws], axis=0)
    np.testing.assert_allclose(np.cov(rows, rowvar=False), expected, atol=4.0 * np.sqrt(2.0 / 800))


def test_residuals_are_readings_less_calculated_values_and_their_slope_the_feeders():
    case = misread(problem(ALL_METERS, missing={"m/A/p_kw"}), {"m/B/p_kw": 2.0, "m/head/p_kw": -1.0})
    found = wls.solve(case)
    seen = evidence(case)
    np.testing.assert_array_equal(found.row, seen.row)
    np.testing.assert_allclose(found.residual, residuals(case, seen, found.x[np.newaxis])[0], atol=1e-6)
    _, slope = case.flow.linearised(found.x[:3], found.x[3:])
    np.testing.assert_allclose(found.slope, slope[seen.row] / seen.sigma[:, np.newaxis], rtol=1e-3, atol=1e-9)


def test_the_covariance_is_that_of_the_information_form():
    found = wls.solve(problem(ALL_METERS, window=history(correlation=0.5)))
    information = np.linalg.inv(history(correlation=0.5).covariance) + found.slope.T @ found.slope
    np.testing.assert_allclose(found.covariance, np.linalg.inv(information), rtol=1e-7, atol=1e-12)


def test_meters_far_better_than_the_history_leave_a_covariance_that_is_true():
    """Ratio of standard deviations 1e6: the plain difference of covariances would be all rounding error."""
    exact = [channel(site, q, 1e-4) for site in ("A", "B", "C") for q in ("p_kw", "q_kvar")]
    found = wls.solve(problem(exact, window=history(spread=np.full(6, 100.0))))
    np.testing.assert_allclose(found.covariance, 1e-8 * np.eye(6), rtol=1e-4, atol=1e-13)


def test_a_well_behaved_case_takes_one_linearisation_a_step_and_no_other_load_flow():
    case = problem(HEAD)
    found = wls.solve(case)
    assert (case.flow.slopes, case.flow.cases) == (found.iterations, [])
    assert found.iterations <= 4


def test_what_is_left_when_it_ends_is_negligible():
    case = problem(ALL_METERS[:5], window=history(correlation=0.5))
    found = wls.solve(case)
    gradient = found.slope.T @ residuals(case, evidence(case), found.x[np.newaxis])[0]
    away = np.linalg.solve(case.history.covariance, found.x - MEAN) - gradient
    assert (np.abs(found.covariance @ away) < 1e-6).all()


def test_a_far_start_on_a_curved_feeder_converges():
    far = TRUTH + np.array([600.0, -600.0, 800.0, 200.0, 300.0, -200.0])
    case = problem((*HEAD, *METER_A, *METER_C), window=history(spread=20.0 * SPREAD, mean=far))
    found = wls.solve(case)
    assert found.converged
    np.testing.assert_allclose(found.x, TRUTH, atol=5.0)


def test_a_step_that_leads_upwards_is_shortened():
    """From far below, the parabola of losses seems flat and the full step overshoots."""
    start = np.array([-9000.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    case = problem(HEAD[:1], truth=10.0 * np.ones(6), window=history(spread=np.full(6, 8000.0), mean=start))
    found = wls.solve(case)
    assert case.flow.cases == [len(wls.SHORTER)] * len(case.flow.cases) != []
    assert found.converged


def test_a_load_flow_that_does_not_converge_gives_the_history_unconverged():
    found = wls.solve(problem(HEAD, limit_kw=1.0))
    np.testing.assert_array_equal(found.x, MEAN)
    assert not found.converged
    assert np.isnan(found.chi_square)


def test_it_does_not_step_to_where_the_load_flow_fails():
    limit_kw = MEAN[2] + 0.01 * SPREAD[2]
    case = problem(HEAD, limit_kw=limit_kw)
    found = wls.solve(case)
    assert not found.converged
    assert MEAN[2] < found.x[2] <= limit_kw
    assert np.isfinite(found.covariance).all()
