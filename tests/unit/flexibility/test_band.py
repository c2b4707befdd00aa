import numpy as np
import pytest

from cosim.domain.flexibility import StorageUnit
from cosim.domain.market import Direction
from cosim.flexibility.band import departure_kwh, energy_band, flexibility_band
from cosim.flexibility.battery import Battery
from cosim.flexibility.electric_vehicle import ElectricVehicle, Session
from cosim.flexibility.heat_pump import HeatPump
from cosim.flexibility.load import Load
from cosim.flexibility.resources import Conditions

QUARTER_S, HOUR_S = 900, 3600
UNIT = StorageUnit(
    "S", p_max_kw=50.0, e_max_kwh=100.0, reserve_kwh=10.0, charge_efficiency=0.9, discharge_efficiency=0.8
)


def test_a_battery_holds_for_two_hours_what_its_energy_allows():
    """min(P_max, energy available * efficiency / duration), and the room over the efficiency on the way in."""
    battery = Battery(UNIT, 60.0)
    band = flexibility_band(battery, battery.start(), [Conditions(0), Conditions(HOUR_S)], HOUR_S, HOUR_S)
    np.testing.assert_allclose(band.up_kw, [40.0, 40.0])
    np.testing.assert_allclose(band.sustained_kw(Direction.UP), [20.0, 20.0])
    np.testing.assert_allclose(band.sustained_kw(Direction.DOWN), [40.0 / 0.9 / 2] * 2)
    np.testing.assert_allclose(band.rated_kw(Direction.UP), 50.0)


def test_what_stores_nothing_holds_in_all_mtus_what_it_can_in_each():
    load = Load(0.5, QUARTER_S)
    forecast = [Conditions(k * QUARTER_S, p_kw) for k, p_kw in enumerate((10.0, 4.0))]
    band = flexibility_band(load, load.start(), forecast, QUARTER_S, 300)
    np.testing.assert_allclose(band.sustained_kw(Direction.UP), [5.0, 2.0])
    np.testing.assert_allclose(band.down_kw, 0.0)
    assert band.store is None


def test_payback_of_what_was_shed_is_in_the_baseline():
    load = Load(0.5, QUARTER_S, rebound=(0.5,))
    state = load.after(load.start(), 6.0, Conditions(0, 10.0), QUARTER_S)
    band = flexibility_band(load, state, [Conditions(QUARTER_S, 10.0), Conditions(2 * QUARTER_S, 10.0)], QUARTER_S, 300)
    np.testing.assert_allclose(band.baseline_kw, [12.0, 10.0])


def test_departure_forgets_what_leaks():
    pump = HeatPump(5.0, 3.0, 2.0, 4.0)
    forecast = [Conditions(k * HOUR_S, temperature_c=0.0) for k in range(3)]
    store = flexibility_band(pump, pump.start(), forecast, HOUR_S, HOUR_S).store
    departed = departure_kwh(store, Direction.DOWN, np.array([1.0, 0.0, 0.0]))
    rate = 4.0 * 2.0 * 3.0 * (1.0 - np.exp(-1.0 / 8.0))
    np.testing.assert_allclose(departed, rate * np.exp(-np.arange(3) / 8.0))


def test_energy_band_of_a_vehicle_is_its_charging_corridor():
    car = ElectricVehicle(10.0, (Session(0, 4 * HOUR_S, 18.0),), efficiency=0.9)
    band = flexibility_band(car, car.start(), [Conditions(k * HOUR_S) for k in range(4)], HOUR_S, HOUR_S)
    bounds = energy_band("EV", band)
    assert bounds.low_kwh == pytest.approx((0.0, 0.0, 10.0, 20.0))
    assert bounds.high_kwh == pytest.approx((20.0, 20.0, 20.0, 20.0))
    assert bounds.baseline_p_kw == pytest.approx((10.0, 10.0, 0.0, 0.0))


def test_energy_band_of_a_leaky_store_is_taken_in():
    pump = HeatPump(5.0, 3.0, 2.0, 4.0, comfort_k=1.0)
    forecast = [Conditions(k * HOUR_S, temperature_c=0.0) for k in range(3)]
    band = flexibility_band(pump, pump.start(), forecast, HOUR_S, HOUR_S)
    bounds = energy_band("HP", band)
    drawn = np.cumsum(band.baseline_kw)
    room_kwh = 2.0 * 1.0 / band.store.up_kwh_per_kw[0]
    forgotten = 1.0 - np.exp(-2.0 / 8.0)
    np.testing.assert_allclose(drawn - bounds.low_kwh, room_kwh / (1.0 + forgotten))
    np.testing.assert_allclose(bounds.high_kwh - drawn, room_kwh / (1.0 + forgotten))


def test_energy_band_needs_a_store():
    load = Load(0.5, QUARTER_S)
    band = flexibility_band(load, load.start(), [Conditions(0, 10.0)], QUARTER_S, QUARTER_S)
    with pytest.raises(ValueError, match="resource L stores no energy"):
        energy_band("L", band)
