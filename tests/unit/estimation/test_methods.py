from typing import get_args

import numpy as np
import pytest
from small_feeder import HEAD, MEAN, METER_A, METER_C, SPREAD, TRUTH, draws, history, problem

from cosim.estimation import wls
from cosim.estimation.methods import estimate, voltage_band
from cosim.estimation.problem import squared_error
from cosim.scenario.schema import Genetic, Method

METHODS = get_args(Method)
ORDERED = (0.0, 15.0, -40.0)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_complete_read_only_arrays_and_the_common_objective(method):
    case = problem((*HEAD, *METER_A), ordered=ORDERED)
    found = estimate(method, case, Genetic(), 1, 0)
    assert found.method == method
    assert np.isfinite([found.p_kw, found.q_kvar]).all()
    assert not any(array.flags.writeable for array in (found.p_kw, found.q_kvar, found.sigma_p_kw))
    x = np.concatenate([found.p_kw - ORDERED, found.q_kvar])
    assert found.objective == pytest.approx(squared_error(case, x), rel=1e-6)
    assert found.converged


@pytest.mark.parametrize("method", METHODS)
def test_orders_are_part_of_the_estimate(method):
    case = problem((*HEAD, *METER_A, *METER_C), truth=MEAN, ordered=ORDERED)
    found = estimate(method, case, Genetic(), 1, 0)
    np.testing.assert_allclose(found.p_kw, MEAN[:3] + ORDERED, atol=3.0)


@pytest.mark.parametrize("method", METHODS)
def test_without_any_measurement_every_method_gives_history_plus_order(method):
    case = problem(HEAD, missing={c.topic for c in HEAD}, ordered=ORDERED)
    found = estimate(method, case, Genetic(), 1, 0)
    np.testing.assert_allclose(found.p_kw, MEAN[:3] + ORDERED, atol=1e-9)
    np.testing.assert_allclose(found.q_kvar, MEAN[3:], atol=1e-9)
    assert found.objective == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_a_result_depends_on_seed_and_step_alone(method):
    case = problem((*HEAD, *METER_A))
    first, second = (estimate(method, case, Genetic(), 1, 7) for _ in range(2))
    assert first.p_kw.tobytes() == second.p_kw.tobytes()
    assert first.q_kvar.tobytes() == second.q_kvar.tobytes()


def test_history_takes_the_meter_where_there_is_one():
    found = estimate("history", problem((*HEAD, *METER_A)), Genetic(), 1, 0)
    np.testing.assert_allclose(found.p_kw, [TRUTH[0], MEAN[1], MEAN[2]])
    np.testing.assert_allclose(found.sigma_p_kw, [1.0, SPREAD[1], SPREAD[2]])


def test_bands_come_from_wls_and_history_only():
    case = problem((*HEAD, *METER_A))
    assert estimate("genetic", case, Genetic(), 1, 0).root is None
    sigma = {method: estimate(method, case, Genetic(), 1, 0).sigma_p_kw for method in METHODS}
    assert np.isnan([sigma["genetic"], sigma["genetic_prior"]]).all()
    assert (sigma["wls"][1:] < sigma["history"][1:]).all()


def test_the_covariance_of_the_history_method_knows_no_correlation_of_meters_with_the_rest():
    case = problem((*HEAD, *METER_A), window=history(correlation=0.5))
    root = estimate("history", case, Genetic(), 1, 0).root
    covariance = root @ root.T
    rest = [1, 2, 4, 5]
    expected = case.history.covariance[np.ix_(rest, rest)]
    np.testing.assert_allclose(covariance[np.ix_(rest, rest)], expected, rtol=1e-14)
    np.testing.assert_array_equal(covariance[0], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0])


def test_a_known_least_squares_solution_is_not_sought_again():
    case = problem((*HEAD, *METER_A))
    fit = wls.solve(case)
    slopes = case.flow.slopes
    found = estimate("wls", case, Genetic(), 1, 0, fit)
    assert case.flow.slopes == slopes
    np.testing.assert_array_equal(found.p_kw, estimate("wls", case, Genetic(), 1, 0).p_kw)
    assert found.root is fit.root


def test_the_band_of_voltages_holds_the_share_of_truths_that_it_should():
    """Within 1.96 standard deviations lie 95 % of 400 truths; margin: 4 standard deviations of that share."""
    inside = []
    for truth, case in draws(400, (*HEAD, *METER_A), history(correlation=0.4)):
        found = estimate("wls", case, Genetic(), 1, 0)
        slope = case.flow.voltage_slope(found.p_kw, found.q_kvar)
        error = slope @ (np.concatenate([found.p_kw, found.q_kvar]) - truth)
        inside.append(np.abs(error) < 1.96 * voltage_band(slope, found.root))
    np.testing.assert_allclose(np.mean(inside, axis=0), 0.95, atol=4.0 * np.sqrt(0.05 * 0.95 / 400))


def test_the_band_of_a_node_that_nothing_moves_is_zero():
    band = voltage_band(np.array([[0.0, 0.0], [1e-3, 2e-3]]), np.diag([2.0, 3.0]))
    np.testing.assert_allclose(band, [0.0, np.hypot(2e-3, 6e-3)])
