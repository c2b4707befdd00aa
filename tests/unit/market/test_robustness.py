"""Plans judged by sampled forecast errors and at the worst one."""

import itertools

import numpy as np
import pytest
from small_market import bid, case, network

from cosim.errors import BidError
from cosim.market.clearing import clear
from cosim.market.planes import LimitSettings
from cosim.market.robustness import ERRORS, HALF_BAND_SIGMA, forecast_errors, violation_rate, worst_corner
from cosim.market.uncertainty import Uncertainty, box, budget, ellipsoid

TEN = np.full(2, 10.0)
TRUTH = Uncertainty(TEN, np.zeros(2), box())


def power_flow(extra_a=0.0, drop_pu=None):
    """Of `small_market.network`: 1 A for each kW and ``extra_a`` more, and the voltage behind it."""

    def magnitudes(_, p_kw, q_kvar):
        i_a = np.abs(p_kw.sum(axis=1) - 1j * q_kvar.sum(axis=1))[:, None] + extra_a
        return i_a if drop_pu is None else np.hstack([i_a, 1.0 - (p_kw @ drop_pu)[:, None]])

    return magnitudes


def plan(p_kw=(45.0, 45.0), uncertain=None, **more):
    """Two loads behind a conductor of 100 A; the first may be reduced."""
    asked = case([bid("P0", 40.0, 1.0)], network(p_kw, **more), settings={"limits": LimitSettings(planes=4096)})
    if uncertain is not None:
        asked = type(asked)(**{**vars(asked), "uncertainty": (uncertain,)})
    return clear(asked)


@pytest.mark.parametrize("errors", ERRORS)
def test_errors_are_repeatable_and_centred(errors):
    xi = forecast_errors(3, 20_000, 4, errors)
    np.testing.assert_array_equal(xi, forecast_errors(3, 20_000, 4, errors))
    assert not np.array_equal(xi, forecast_errors(4, 20_000, 4, errors))
    assert np.abs(xi.mean(axis=0)).max() < 5.0 / np.sqrt(20_000)
    off_diagonal = np.corrcoef(xi.T)[~np.eye(4, dtype=bool)]
    assert np.abs(off_diagonal).max() < 5.0 / np.sqrt(20_000)


def test_what_the_kinds_of_errors_are():
    uniform, normal, corners = (forecast_errors(1, 40_000, 3, errors) for errors in ERRORS)
    assert np.abs(uniform).max() <= 1.0
    assert (uniform**2).mean() == pytest.approx(1.0 / 3.0, rel=0.01)
    assert (np.abs(normal) > 1.0).mean() == pytest.approx(0.05, abs=0.002)
    assert normal.std() == pytest.approx(1.0 / HALF_BAND_SIGMA, rel=0.01)
    assert set(np.unique(corners)) == {-1.0, 1.0}


@pytest.mark.parametrize("rho", [0.5, 1.0])
def test_correlated_errors(rho):
    correlation = np.full((3, 3), rho) + (1.0 - rho) * np.eye(3)
    xi = forecast_errors(1, 40_000, 3, "normal", correlation)
    np.testing.assert_allclose(np.corrcoef(xi.T), correlation, atol=0.02)
    assert xi.std() == pytest.approx(1.0 / HALF_BAND_SIGMA, rel=0.01)


def test_only_normal_errors_have_a_correlation():
    with pytest.raises(BidError, match="only normal errors can be drawn with a correlation; got uniform"):
        forecast_errors(1, 10, 2, "uniform", np.eye(2))


def test_rates_are_counted():
    """90 A at the schedule and up to 20 A more: of nine errors one is above 100 A; by a power flow with 0.5 A more also
    the two of exactly 100 A."""
    xi = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=2)))
    rate = violation_rate(plan(), TRUTH, xi, power_flow(0.5))
    assert rate.samples == 9
    assert rate.linear == pytest.approx(1 / 9)
    assert rate.ac == pytest.approx(3 / 9)
    assert rate.linear_highest_pu == pytest.approx(0.10)
    assert rate.ac_highest_pu == pytest.approx(0.105)


def test_a_slight_excess_is_within_the_tolerance():
    xi = np.array([[0.5, 0.5]])
    assert violation_rate(plan(), TRUTH, xi, power_flow(0.009)).ac == 0.0
    assert violation_rate(plan(), TRUTH, xi, power_flow(0.009), tolerance_pu=0.0).ac == 1.0


def test_a_robust_plan_is_judged_with_its_awards():
    found = plan(uncertain=TRUTH)
    assert found.awarded_kw.sum() == pytest.approx(10.0, abs=1e-3)
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=2)))
    rate = violation_rate(found, TRUTH, corners, power_flow())
    assert (rate.linear, rate.ac) == (0.0, 0.0)
    assert rate.ac_highest_pu == pytest.approx(0.0, abs=1e-5)
    wider = Uncertainty(2.0 * TEN, np.zeros(2), box())
    assert violation_rate(found, wider, corners, power_flow()).linear == 0.25


def test_a_band_on_the_residual_shrinks_with_the_awards():
    """Of 45 kW 10 are bought, so its half-band of 9 kW is 7 then."""
    residual = Uncertainty(np.array([9.0, 10.0]), np.zeros(2), box(), base="residual")
    found = plan(uncertain=TRUTH)
    kw = float(found.awarded_kw.sum())
    at = worst_corner(found, residual, power_flow())
    assert at.linear == pytest.approx(90.0 - kw + 9.0 * (1.0 - kw / 45.0) + 10.0, abs=1e-9)


def test_errors_of_p_and_q_apart():
    apart = Uncertainty(TEN, TEN, box(), reactive="independent")
    at = worst_corner(plan(), apart, power_flow())
    assert at.xi.shape == (4,)
    assert at.linear == pytest.approx(abs(110.0 - 20.0j))
    assert at.ac == pytest.approx(at.linear)


@pytest.mark.parametrize(
    ("kind", "current_a"),
    [
        (box(), 110.0),
        (budget(0.0), 90.0),
        (budget(1.5), 105.0),
        (ellipsoid(np.eye(2), 1.0), 90.0 + 10.0 * np.sqrt(2.0)),
        (ellipsoid(np.ones((2, 2)), 1.0), 110.0),
    ],
)
def test_worst_corner_of_a_set(kind, current_a):
    at = worst_corner(plan(), Uncertainty(TEN, np.zeros(2), kind), power_flow(0.25))
    assert (at.element, at.limit) == ("L@A.1", 100.0)
    assert at.linear == pytest.approx(current_a, abs=1e-6)
    assert at.ac == pytest.approx(current_a + 0.25, abs=1e-6)


def test_the_limit_with_the_highest_excess_is_named():
    """A voltage 0.3 % below its limit, while the current is at half of its own."""
    drop = np.array([0.002 / 2.0, 0.002 / 2.0])
    found = plan((40.0, 40.0), v_drop_pu=drop, v_limits=(0.903, 1.1), i_max_a=200.0)
    at = worst_corner(found, TRUTH, power_flow(drop_pu=drop))
    assert (at.element, at.limit) == ("B.1", 0.903)
    assert at.linear == pytest.approx(0.9)
    rate = violation_rate(found, TRUTH, np.ones((1, 2)), power_flow(drop_pu=drop))
    assert rate.ac_highest_pu == pytest.approx(0.003 / 0.903)
    assert rate.ac == 1.0


def test_upper_voltages_and_missing_limits():
    found = plan((-40.0, -40.0), v_drop_pu=np.full(2, 0.001), v_limits=(np.nan, 1.09), i_max_a=np.nan)
    at = worst_corner(found, TRUTH, power_flow(drop_pu=np.full(2, 0.001)))
    assert (at.element, at.limit) == ("B.1", 1.09)
    assert at.linear == pytest.approx(1.1)
    np.testing.assert_array_equal(at.xi, [-1.0, -1.0])
