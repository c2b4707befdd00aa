import dataclasses

import numpy as np
import pytest
from small_feeder import HEAD, MEAN, METER_A, METER_C, SPREAD, TRUTH, channel, history, problem

from cosim.domain.measurement import Snapshot
from cosim.estimation import wls
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


def test_bands_and_chi_square_are_as_large_as_the_errors_are():
    rng = rng_for(1, "draws")
    channels = (*HEAD, *METER_A, *METER_C[2:])
    window = history(correlation=0.4)
    root, sigma = np.linalg.cholesky(window.covariance), np.array([c.sigma for c in channels])
    scaled, chi_square = [], []
    for _ in range(300):
        truth = MEAN + root @ rng.standard_normal(6)
        case = problem(channels, truth=truth, window=window)
        value = case.snapshot.value + sigma * rng.standard_normal(len(sigma))
        found = wls.solve(dataclasses.replace(case, snapshot=Snapshot(value, case.snapshot.quality)))
        scaled.append((found.x - truth) / np.sqrt(np.diagonal(found.covariance)))
        chi_square.append(found.chi_square)
    np.testing.assert_allclose(np.std(scaled, axis=0), 1.0, atol=0.13)
    assert np.mean(chi_square) == pytest.approx(len(channels), abs=4.0 * np.sqrt(2.0 * len(channels) / 300))


def test_the_jacobian_takes_one_load_flow_call():
    case = problem(HEAD)
    found = wls.solve(case)
    assert case.flow.cases == [1, *[12, len(wls.STEP_LENGTHS)] * found.iterations]


def test_a_far_start_on_a_curved_feeder_converges():
    far = TRUTH + np.array([600.0, -600.0, 800.0, 200.0, 300.0, -200.0])
    case = problem((*HEAD, *METER_A, *METER_C), window=history(spread=20.0 * SPREAD, mean=far))
    found = wls.solve(case)
    assert found.converged
    np.testing.assert_allclose(found.x, TRUTH, atol=5.0)


def test_a_load_flow_that_does_not_converge_gives_the_history_unconverged():
    found = wls.solve(problem(HEAD, limit_kw=1.0))
    np.testing.assert_array_equal(found.x, MEAN)
    assert not found.converged


def test_a_load_flow_that_fails_beside_the_history_gives_the_history_unconverged():
    found = wls.solve(problem(HEAD, limit_kw=MEAN[2] + 0.01 * SPREAD[2]))
    np.testing.assert_array_equal(found.x, MEAN)
    assert not found.converged
