import math
from datetime import time

import numpy as np
import pytest

from cosim.domain.flexibility import StorageUnit
from cosim.flexibility.thresholds import after, decide, in_window
from cosim.scenario.schema import Discharge

NOON, NIGHT = time(12, 0), time(23, 0)
NIGHTLY = Discharge(start=time(18, 0), end=time(6, 0), power_kw=100.0, keep_import_kw=20.0)


def unit(pod="S", p_max_kw=250.0, e_max_kwh=500.0):
    return StorageUnit(pod, p_max_kw, e_max_kwh, reserve_kwh=50.0, charge_efficiency=0.95, discharge_efficiency=0.95)


def orders(head_idle_kw, *, thresholds_kw=(-300.0,), e_kwh=(300.0,), at=NOON, units=None, discharge=NIGHTLY):
    units = units or [unit(f"S{k}") for k in range(len(thresholds_kw))]
    return decide(units, np.array(thresholds_kw), discharge, np.array(head_idle_kw), np.array(e_kwh), at, 900.0)


def test_charges_by_what_the_head_lacks_to_the_threshold():
    assert orders(-420.0) == [120.0]
    assert orders(-300.0) == [0.0]
    assert orders(-100.0) == [0.0]
    assert orders(-800.0) == [250.0]
    assert orders(-800.0, e_kwh=(490.5,)) == pytest.approx(9.5 * 4 / 0.95)


def test_it_never_reacts_to_its_own_orders():
    """The head without orders stays the same while the order is in force, so the order stays the same: fed with the
    head that contains it, activation would swing between 120 and 0 from one MTU to the next."""
    e_kwh, course = np.array([100.0]), []
    for _ in range(6):
        p_kw = orders(-420.0, e_kwh=e_kwh)
        e_kwh = after([unit()], p_kw, e_kwh, 900.0)
        course.append(float(p_kw[0]))
    assert course == [120.0] * 6
    np.testing.assert_allclose(e_kwh, 100.0 + 6 * 0.95 * 30.0)


def test_where_the_head_is_not_known_nothing_is_ordered():
    assert orders(math.nan) == [0.0]
    assert orders(math.nan, at=NIGHT) == [0.0]
    known, unknown = orders([-420.0, math.nan], e_kwh=((300.0,), (300.0,)))
    assert (known, unknown) == ([120.0], [0.0])


def test_units_act_in_turn_each_counting_on_those_before():
    two = {"thresholds_kw": (-300.0, -300.0), "e_kwh": (300.0, 300.0)}
    np.testing.assert_allclose(orders(-400.0, **two), [100.0, 0.0])
    np.testing.assert_allclose(orders(-600.0, **two), [250.0, 50.0])
    np.testing.assert_allclose(orders(-600.0, thresholds_kw=(-500.0, -300.0), e_kwh=(300.0, 300.0)), [100.0, 200.0])
    np.testing.assert_allclose(orders(-600.0, thresholds_kw=(-300.0, -300.0), e_kwh=(500.0, 300.0)), [0.0, 250.0])
    np.testing.assert_allclose(orders(150.0, at=NIGHT, **two), [-100.0, -30.0])


def test_discharges_in_the_window_down_to_the_import_kept_and_to_the_reserve():
    assert orders(500.0, at=NIGHT) == [-100.0]
    assert orders(70.0, at=NIGHT) == [-50.0]
    assert orders(10.0, at=NIGHT) == [0.0]
    assert orders(500.0, at=NIGHT, e_kwh=(60.0,)) == pytest.approx(-10.0 * 4 * 0.95)
    assert orders(500.0, at=NOON) == [0.0]
    assert orders(-420.0, at=NIGHT) == [120.0]


def test_a_threshold_of_minus_infinity_never_charges():
    assert orders(-5000.0, thresholds_kw=(-math.inf,)) == [0.0]
    assert orders(500.0, thresholds_kw=(-math.inf,), at=NIGHT) == [-100.0]


@pytest.mark.parametrize(
    ("start", "end", "inside", "outside"),
    [
        ((18, 0), (6, 0), [(18, 0), (23, 59), (0, 0), (5, 59)], [(6, 0), (12, 0), (17, 59)]),
        ((10, 0), (14, 30), [(10, 0), (14, 29)], [(14, 30), (9, 59), (0, 0)]),
        ((0, 0), (6, 0), [(0, 0), (5, 45)], [(6, 0), (23, 0)]),
        ((9, 0), (9, 0), [], [(9, 0), (0, 0), (8, 59)]),
    ],
    ids=["over midnight", "by day", "from midnight", "empty"],
)
def test_the_discharge_window(start, end, inside, outside):
    window = Discharge(start=time(*start), end=time(*end))
    assert all(in_window(time(*at), window) for at in inside)
    assert not any(in_window(time(*at), window) for at in outside)
