import numpy as np
import pytest

from cosim.flexibility.band import flexibility_band
from cosim.flexibility.electric_vehicle import ElectricVehicle, Session, VehicleState, on_steps
from cosim.flexibility.resources import Conditions, step

HOUR_S = 3600
STAY = Session(HOUR_S, 5 * HOUR_S, need_kwh=18.0)
CAR = ElectricVehicle(p_max_kw=10.0, sessions=(STAY,), efficiency=0.9)
EVENLY = ElectricVehicle(p_max_kw=10.0, sessions=(STAY,), efficiency=0.9, charging="evenly")


def run(car, wishes):
    state, powers = car.start(), []
    for k, wish in enumerate(wishes):
        state, p_kw = step(car, state, wish, Conditions(k * HOUR_S), HOUR_S)
        powers.append(p_kw)
    return powers


def test_free_it_charges_at_once_or_evenly():
    assert run(CAR, [None] * 6) == pytest.approx([0.0, 10.0, 10.0, 0.0, 0.0, 0.0])
    assert run(EVENLY, [None] * 6) == pytest.approx([0.0, 5.0, 5.0, 5.0, 5.0, 0.0])


def test_it_can_wait_until_the_need_is_only_just_met():
    assert run(CAR, [0.0] * 6) == pytest.approx([0.0, 0.0, 0.0, 10.0, 10.0, 0.0])


def test_it_makes_up_for_what_was_put_off():
    assert run(CAR, [None, 0.0, 4.0, None, None, None]) == pytest.approx([0.0, 0.0, 4.0, 10.0, 6.0, 0.0])
    assert run(EVENLY, [None, 0.0, None, None, None, None]) == pytest.approx([0.0, 0.0, 20 / 3, 20 / 3, 20 / 3, 0.0])


def test_a_stay_too_short_for_the_need_leaves_no_choice():
    hasty = ElectricVehicle(10.0, (Session(0, HOUR_S, 18.0),))
    assert hasty.limits_kw(hasty.start(), Conditions(0), HOUR_S) == (10.0, 10.0)
    assert run(hasty, [0.0, 5.0]) == [10.0, 0.0]


def test_a_time_in_which_it_comes_or_goes_is_one_without_it():
    assert CAR.limits_kw(CAR.start(), Conditions(HOUR_S - 900), 1800) is None
    assert CAR.free_kw(CAR.start(), Conditions(5 * HOUR_S - 900), 1800) == 0.0
    assert CAR.after(VehicleState(0, 3.0), 0.0, Conditions(5 * HOUR_S), HOUR_S) == VehicleState(0, 3.0)


def test_the_next_session_begins_empty():
    two = ElectricVehicle(10.0, (Session(0, HOUR_S, 5.0), Session(2 * HOUR_S, 3 * HOUR_S, 7.0)))
    assert run(two, [None, None, None]) == [5.0, 0.0, 7.0]


def test_band_of_a_stay():
    """Up: what is not due yet. Down: nothing while it charges at once, all of it again once it has waited."""
    forecast = [Conditions(k * HOUR_S) for k in range(6)]
    band = flexibility_band(CAR, CAR.start(), forecast, HOUR_S, 900)
    np.testing.assert_allclose(band.baseline_kw, [0, 10, 10, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(band.up_kw, [0, 10, 10, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(band.down_kw, 0.0, atol=1e-12)
    np.testing.assert_allclose(band.store.up_room_kwh, [0, 18, 18, 9, 0, 0], atol=1e-12)
    waited = flexibility_band(EVENLY, VehicleState(0, 0.0), forecast[3:], HOUR_S, 900)
    np.testing.assert_allclose(waited.baseline_kw, [10, 10, 0])
    np.testing.assert_allclose(waited.up_kw, 0.0, atol=1e-12)


def test_sessions_on_steps():
    raw = (Session(100, 4000, 5.0), Session(4100, 4300, 1.0), Session(7200, 9000, 2.0))
    assert on_steps(raw, 900) == (Session(900, 3600, 5.0), Session(7200, 9000, 2.0))
