import numpy as np
import pytest

from cosim.domain.flexibility import StorageUnit
from cosim.flexibility.battery import Battery, BatteryState
from cosim.flexibility.resources import Conditions, step

QUARTER_S = 900
UNIT = StorageUnit(
    "S", p_max_kw=50.0, e_max_kwh=100.0, reserve_kwh=10.0, charge_efficiency=0.9, discharge_efficiency=0.8
)


def test_free_it_follows_its_schedule_as_far_as_it_can():
    battery = Battery(UNIT, 98.2)
    assert battery.free_kw(battery.start(), Conditions(0, p_kw=3.0), QUARTER_S) == 3.0
    assert battery.free_kw(battery.start(), Conditions(0, p_kw=30.0), QUARTER_S) == pytest.approx(8.0)


@pytest.mark.parametrize(("e_kwh", "p_kw"), [(40.0, 5.0), (49.1, 4.0), (50.0, 0.0), (51.25, -4.0), (80.0, -5.0)])
def test_free_it_returns_to_rest_no_faster_than_stated(e_kwh, p_kw):
    battery = Battery(UNIT, e_kwh, rest_kwh=50.0, rest_kw=5.0)
    assert battery.free_kw(battery.start(), Conditions(0), QUARTER_S) == pytest.approx(p_kw)


def test_idling_is_kept_back_from_discharging_and_makes_room_for_charging():
    idling = StorageUnit("S", 50.0, 100.0, 10.0, 0.9, 0.8, idling_kw=2.0)
    battery = Battery(idling, 15.0)
    assert battery.limits_kw(BatteryState(15.0), Conditions(0), 3600.0) == pytest.approx((-2.4, 50.0))
    assert battery.limits_kw(BatteryState(97.3), Conditions(0), 3600.0) == pytest.approx((-50.0, 4.7 / 0.9))
    assert step(battery, BatteryState(15.0), -9.0, Conditions(0), 3600.0)[0].e_kwh == pytest.approx(10.0)


def test_store_around_a_schedule():
    battery = Battery(UNIT, 50.0)
    states = [BatteryState(50.0), BatteryState(54.5), BatteryState(29.5)]
    store = battery.store(states, [], np.array([20.0, -80.0]), 900)
    np.testing.assert_allclose(store.up_room_kwh, [44.5, 19.5])
    np.testing.assert_allclose(store.down_room_kwh, [45.5, 70.5])
    np.testing.assert_allclose(store.up_max_kw, [70.0, 0.0])
    np.testing.assert_allclose(store.down_max_kw, [30.0, 130.0])
    np.testing.assert_allclose(store.up_kwh_per_kw, 0.25 / 0.8)
    np.testing.assert_allclose(store.down_kwh_per_kw, [0.25 * 0.9, 0.25 / 0.8])


def test_limit_for_the_clearing():
    battery = Battery(UNIT, 50.0)
    limit = battery.storage_limit("B", BatteryState(50.0), np.array([20.0, -16.0]), 900)
    assert (limit.energy_kwh, limit.energy_min_kwh, limit.energy_max_kwh, limit.end_min_kwh) == (
        50.0,
        10.0,
        100.0,
        10.0,
    )
    assert limit.baseline_p_kw == (20.0, -16.0)
    assert (limit.charge_efficiency, limit.discharge_efficiency) == (0.9, 0.8)


def test_limit_for_the_clearing_always_holds_the_baseline():
    """The clearing knows no idling: a full battery that is topped up has more in its eyes than it can hold."""
    idling = StorageUnit("S", 50.0, 100.0, 10.0, 1.0, 1.0, idling_kw=2.0)
    topped_up = Battery(idling, 100.0).storage_limit("B", BatteryState(100.0), np.array([2.0, 2.0]), 3600)
    assert (topped_up.energy_min_kwh, topped_up.energy_max_kwh) == (14.0, 104.0)
    emptied = Battery(idling, 13.0).storage_limit("B", BatteryState(13.0), np.array([-1.0, 0.0]), 3600)
    assert emptied.energy_min_kwh == emptied.end_min_kwh == 12.0
