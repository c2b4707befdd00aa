import numpy as np
import pytest

from cosim.domain.flexibility import StorageUnit
from cosim.flexibility.storage import feasible_kw, limits_kw, stored_kwh

UNIT = StorageUnit(
    "S", p_max_kw=250.0, e_max_kwh=500.0, reserve_kwh=50.0, charge_efficiency=0.95, discharge_efficiency=0.9
)
QUARTER_S = 900.0


@pytest.mark.parametrize(
    ("wanted_kw", "e_kwh", "possible_kw"),
    [
        (100.0, 200.0, 100.0),
        (400.0, 200.0, 250.0),
        (-400.0, 300.0, -250.0),
        (250.0, 490.5, 9.5 * 4 / 0.95),
        (250.0, 500.0, 0.0),
        (-250.0, 60.0, -10.0 * 4 * 0.9),
        (-250.0, 50.0, 0.0),
        (-250.0, 20.0, 0.0),
        (250.0, 20.0, 250.0),
        (0.0, 20.0, 0.0),
    ],
)
def test_power_is_cut_to_rating_room_and_stock(wanted_kw, e_kwh, possible_kw):
    assert feasible_kw(UNIT, wanted_kw, e_kwh, QUARTER_S) == pytest.approx(possible_kw)


@pytest.mark.parametrize(
    ("e_kwh", "low_kw", "high_kw"),
    [(200.0, -250.0, 250.0), (500.0, -250.0, 0.0), (490.5, -250.0, 9.5 * 4 / 0.95), (60.0, -36.0, 250.0)],
)
def test_limits_are_the_most_that_is_possible(e_kwh, low_kw, high_kw):
    found = limits_kw(UNIT, np.array(e_kwh), QUARTER_S)
    assert found == pytest.approx((low_kw, high_kw))
    assert feasible_kw(UNIT, np.array([-1e9, 1e9]), np.array(e_kwh), QUARTER_S).tolist() == [float(x) for x in found]


def test_charging_stores_less_than_it_takes_and_discharging_takes_more_than_it_gives():
    assert stored_kwh(UNIT, 100.0, 200.0, 3600.0) == pytest.approx(295.0)
    assert stored_kwh(UNIT, -90.0, 200.0, 3600.0) == pytest.approx(100.0)
    assert stored_kwh(UNIT, 0.0, 200.0, 3600.0) == 200.0


def test_idling_drains_the_store_and_stops_at_empty():
    idling = StorageUnit("S", 250.0, 500.0, 50.0, 0.95, 0.9, idling_kw=4.0)
    assert stored_kwh(idling, 0.0, 200.0, QUARTER_S) == pytest.approx(199.0)
    assert stored_kwh(idling, 100.0, 200.0, 3600.0) == pytest.approx(291.0)
    assert stored_kwh(idling, 0.0, 0.5, QUARTER_S) == 0.0


def test_arrays_elementwise():
    e_kwh = np.array([[50.0, 500.0], [200.0, 200.0]])
    np.testing.assert_allclose(
        feasible_kw(UNIT, np.array([[-9.0, 9.0], [-9.0, 9.0]]), e_kwh, QUARTER_S), [[0, 0], [-9, 9]]
    )
