"""Networks of stages: direct current, joined at interfaces, reactive twins."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cosim.coordination.grid import (
    COUNTERPART,
    Line,
    dc_grid,
    held_in_kvar,
    joined,
    reactive,
    shifted,
    unconnected,
    with_counterpart,
    with_reactive_pods,
    with_voltages,
    without_limits,
)
from cosim.errors import BidError
from cosim.market.uncertainty import Protection, Uncertainty, box, budget, ellipsoid, factor_set

sys.path.insert(0, str(Path(__file__).parents[2] / "property"))
from random_coordination import ac_area, dc_area

RING = (Line("ab", ("A", "B"), 0.1, np.inf), Line("bc", ("B", "C"), 0.2, 50.0), Line("ac", ("A", "C"), 0.1, np.inf))


def test_a_ring_by_hand():
    """40 kW at B, all from A: by the two ways as 3 to 1."""
    grid = dc_grid("", RING, "A", {"B": 40.0})
    np.testing.assert_allclose(grid.rows.i_a, [30.0, -10.0, 10.0])
    assert np.isnan(grid.rows.i_max_a[0])
    assert grid.rows.i_max_a[1] == 50.0
    assert (grid.import_kw, grid.unit) == (40.0, "kW")
    np.testing.assert_allclose(grid.rows.at(np.array([0.0, 0.0, 20.0]), np.zeros(3)), [35.0, -5.0, 25.0])
    np.testing.assert_allclose(shifted(grid, {"C": 20.0}).rows.i_a, [35.0, -5.0, 25.0])


def test_the_slack_does_not_matter_for_what_is_balanced():
    one, other = dc_grid("", RING, "A", {"B": 40.0}), dc_grid("", RING, "C", {"B": 40.0, "A": -40.0})
    np.testing.assert_allclose(one.rows.i_a, other.rows.i_a)


def test_what_no_line_reaches():
    assert unconnected([*RING, Line("xy", ("X", "Y"), 1.0, 1.0)], "A", ["A", "B", "X", "Y"]) == ("X", "Y")


def test_joined_networks_are_one_network():
    """An area without losses below a ring is the same as one network of all lines."""
    area_lines = (Line("cd", ("C", "D"), 0.3, 10.0), Line("de", ("D", "E"), 0.1, 10.0))
    upper, lower = dc_grid("", RING, "A", {"B": 40.0, "C": 15.0}), dc_grid("x/", area_lines, "C", {"D": 10.0, "E": 5.0})
    whole = dc_grid("", (*RING, *area_lines), "A", {"B": 40.0, "D": 10.0, "E": 5.0})
    both = joined(upper, [("C", lower)]).rows
    np.testing.assert_allclose(both.i_a, whole.rows.i_a)
    for pod, bus in (("B", "B"), ("x/D", "D"), ("x/E", "E"), ("x/C", "C")):
        np.testing.assert_allclose(
            both.by_p[:, both.pods.index(pod)], whole.rows.by_p[:, whole.rows.pods.index(bus)], atol=1e-12
        )
    assert both.conductors == ("ab", "bc", "ac", "x/cd", "x/de")
    np.testing.assert_allclose(both.head_by_p, 1.0)


@pytest.mark.parametrize("make", [dc_area, lambda *args: ac_area(*args, None, 0.0)])
def test_an_area_acts_above_by_what_it_imports(make):
    area = make("north", 4, 0.9)
    upper = with_voltages(dc_grid("", RING, "A", {"B": 40.0}), RING, 100.0, {"C": 0.99}, (0.9, 1.1))
    both = joined(upper, [("C", area)]).rows
    rng = np.random.default_rng(0)
    p_kw, q_kvar = np.zeros(len(both.pods)), np.zeros(len(both.pods))
    own = slice(len(upper.rows.pods), None)
    p_kw[own], q_kvar[own] = rng.normal(size=(2, len(area.rows.pods)))
    import_kw = p_kw[own] @ area.rows.head_by_p + q_kvar[own] @ area.rows.head_by_q
    import_kvar = p_kw[own] @ area.q_head_by_p + q_kvar[own] @ area.q_head_by_q
    at = both.at(p_kw, q_kvar)
    above = upper.rows.at(import_kw * (np.arange(3) == 2), import_kvar * (np.arange(3) == 2))
    n, m = len(upper.rows.conductors), len(both.conductors)
    np.testing.assert_allclose(at[:n], above[:n])
    np.testing.assert_allclose(at[m : m + 2], above[n:])
    np.testing.assert_allclose(at[n:m], area.rows.at(p_kw[own], q_kvar[own])[: m - n])


def test_forecast_errors_of_an_area_stay_in_it():
    area = ac_area("north", 4, 0.9, None, 0.1)
    both = joined(dc_grid("", RING, "A", {"B": 40.0}), [("C", area)])
    half = both.uncertainty.half_p_kw
    assert len(half) == len(both.rows.pods)
    effect = np.abs(both.rows.by_p) @ half
    assert effect[:3].max() == 0.0
    np.testing.assert_allclose(effect[3:], np.abs(area.rows.by_p) @ area.uncertainty.half_p_kw)
    assert (half[[both.rows.pods.index(pod) for pod in area.rows.pods]] == 0.0).all()


def test_errors_that_cannot_be_joined():
    upper = dc_grid("", RING, "A", {})
    one, two = ac_area("north", 4, 0.9, None, 0.1), ac_area("south", 5, 0.9, None, 0.1)
    other = replace(two, uncertainty=replace(two.uncertainty, set=budget(1.0)))
    with pytest.raises(BidError, match="forecast errors of one kind"):
        joined(upper, [("B", one), ("C", other)])
    residual = replace(one, uncertainty=replace(one.uncertainty, base="residual"))
    with pytest.raises(BidError, match="allowed: a box or a budget on the baseline"):
        joined(upper, [("B", residual)])


def test_a_reactive_twin_does_what_reactive_power_does():
    area = ac_area("north", 4, 0.9, 0.06, 0.1)
    pod = area.rows.pods[1]
    twin = with_reactive_pods(area, [pod, pod])
    k, t = twin.rows.pods.index(pod), twin.rows.pods.index(reactive(pod))
    np.testing.assert_array_equal(twin.rows.by_p[:, t], area.rows.by_q[:, k])
    assert twin.rows.head_by_p[t] == area.rows.head_by_q[k]
    assert twin.q_head_by_p[t] == area.q_head_by_q[k]
    assert twin.uncertainty.half_p_kw[t] == 0.0
    assert len(twin.rows.pods) == len(area.rows.pods) + 1


def test_a_counterpart_changes_the_balance_alone():
    grid = with_counterpart(ac_area("north", 4, 0.9, 0.06, 0.1))
    k = grid.rows.pods.index(COUNTERPART)
    assert not grid.rows.by_p[:, k].any()
    assert grid.rows.head_by_p[k] == 1.0
    assert len(grid.uncertainty.half_p_kw) == len(grid.rows.pods)


@pytest.mark.parametrize("reactive_errors", ["with_active", "independent"])
@pytest.mark.parametrize("kind", ["ellipsoid", "factors"])
def test_a_counterpart_has_no_part_in_errors_in_common(kind, reactive_errors):
    area = ac_area("north", 4, 0.9, 0.06, 0.1)
    n = len(area.rows.pods) * (2 if reactive_errors == "independent" else 1)
    common = ellipsoid(0.5 * np.eye(n) + 0.5, 2.0) if kind == "ellipsoid" else factor_set(np.ones((n, 1)), np.ones(n))
    band = replace(area.uncertainty, set=common, reactive=reactive_errors)
    wide = with_counterpart(replace(area, uncertainty=band))
    before, after = Protection(area.rows, band), Protection(wide.rows, wide.uncertainty)
    np.testing.assert_allclose(after.reach(ceiling=True), before.reach(ceiling=True), rtol=1e-12)


def test_without_limits_nothing_is_limited():
    grid = without_limits(ac_area("north", 4, 0.9, 0.06, 0.0))
    assert grid.rows.names == ()
    assert grid.rows.by_p.shape == (0, len(grid.rows.pods))
    assert grid.rows.head_by_p.any()


def test_counted_in_kvar_active_power_is_held_at_a_change():
    """Both sides are at their limit where the import has changed by what is wanted, forecast errors not counted."""
    area = ac_area("north", 4, 0.9, None, 0.1)
    held = held_in_kvar(area, 3.0)
    n = len(area.rows.pods)
    np.testing.assert_array_equal(held.rows.head_by_p[:n], area.q_head_by_p)
    sides = [k for k, name in enumerate(held.rows.conductors) if name.startswith("interface")]
    delta = np.zeros(len(held.rows.pods))
    delta[1] = 3.0 / area.rows.head_by_p[1]
    at = held.rows.at(delta, np.zeros(len(delta)))
    np.testing.assert_allclose(at[sides], held.rows.i_max_a[sides])
    errors = np.abs(held.rows.by_p) @ held.uncertainty.half_p_kw
    assert errors[sides].max() == 0.0
    assert errors.max() > 0.0


def test_an_uncertain_area_and_a_certain_one_join():
    upper = dc_grid("", RING, "A", {})
    certain, uncertain = dc_area("south", 2, 1.1), ac_area("north", 4, 0.9, None, 0.1)
    both = joined(upper, [("B", certain), ("C", uncertain)])
    assert isinstance(both.uncertainty, Uncertainty)
    assert both.uncertainty.set == box()
    assert len(both.uncertainty.half_p_kw) == len(both.rows.pods)
