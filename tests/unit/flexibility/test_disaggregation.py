import numpy as np
import pytest

from cosim.domain.flexibility import StorageUnit
from cosim.domain.frames import frozen
from cosim.domain.market import Award, Bid, Direction, PriceStep, Resource
from cosim.errors import BidError
from cosim.flexibility.band import FlexibilityBand, flexibility_band
from cosim.flexibility.battery import Battery
from cosim.flexibility.disaggregation import divide, divide_awards
from cosim.flexibility.offers import Member
from cosim.flexibility.resources import Conditions

HOUR_S = 3600


def simple(name, up_kw, price):
    n = len(up_kw)
    band = FlexibilityBand(HOUR_S, frozen(np.zeros(n)), frozen(up_kw), frozen(up_kw), None)
    return Member(Resource(name, name, "load", "A", 1000.0, 1000.0), band, price, price)


def battery(name, e_kwh, price, n):
    device = Battery(StorageUnit(name, 50.0, 100.0, 0.0, 1.0, 0.8), e_kwh)
    forecast = [Conditions(k * HOUR_S) for k in range(n)]
    band = flexibility_band(device, device.start(), forecast, HOUR_S, HOUR_S)
    return Member(Resource(name, name, "battery", "A", 1000.0, 1000.0), band, price, price)


def bid(name, direction=Direction.UP, n=1, **who):
    return Bid(name, "A", "p", direction, 0, (10.0,) * n, (PriceStep(10.0, 0.1),), **who)


def award(name, *kw):
    return Award(name, "lfm", "dso", 0, kw, (0.1,) * len(kw), (0.1,) * len(kw))


def test_merit_order_in_every_mtu():
    members = [simple("A1", [10.0, 1.0], 0.3), simple("A2", [5.0, 1.0], 0.1), simple("A3", [5.0, 1.0], 0.1)]
    division = divide(members, Direction.UP, np.array([12.0, 5.0]))
    np.testing.assert_allclose(division.quantity_kw, [[2.0, 1.0], [5.0, 1.0], [5.0, 1.0]])
    np.testing.assert_allclose(division.missing_kw, [0.0, 2.0])


def test_energy_goes_where_nothing_else_is_there():
    """The cheap battery holds 40 kWh; the load cannot help in the second hour, so the battery waits for it."""
    members = [battery("B", 50.0, 0.1, 2), simple("L", [100.0, 0.0], 0.5)]
    division = divide(members, Direction.UP, np.array([30.0, 30.0]))
    np.testing.assert_allclose(division.quantity_kw, [[10.0, 30.0], [20.0, 0.0]], atol=1e-6)
    assert not division.missing_kw.any()


def test_what_cannot_be_delivered_is_missing_not_forgotten():
    division = divide([battery("B", 50.0, 0.1, 2)], Direction.UP, np.array([30.0, 30.0]))
    assert division.missing_kw.sum() == pytest.approx(20.0)
    assert division.quantity_kw.sum() == pytest.approx(40.0)


def test_among_equals_the_first_comes_first_over_several_mtus_too():
    members = [battery("B1", 50.0, 0.1, 2), battery("B2", 50.0, 0.1, 2)]
    division = divide(members, Direction.UP, np.array([15.0, 15.0]))
    np.testing.assert_allclose(division.quantity_kw, [[15.0, 15.0], [0.0, 0.0]], atol=1e-6)


def test_changes_of_all_awards_with_their_signs():
    members = {m.resource.id: m for m in (simple("A1", [10.0], 0.3), simple("A2", [5.0], 0.1))}
    bids = [
        bid("any", any_of=("A1", "A2")),
        bid("one", Direction.DOWN, resource="A3"),
        bid("shared", shares=(("A4", 0.25), ("A5", 0.75))),
    ]
    changes, missing = divide_awards(bids, [award("any", 7.0), award("one", 4.0), award("shared", 8.0)], members)
    assert {name: float(kw[0]) for name, kw in changes.items()} == {
        "A1": -2.0,
        "A2": -5.0,
        "A3": 4.0,
        "A4": -2.0,
        "A5": -6.0,
    }
    assert missing == {}


def test_awards_to_the_same_members_share_their_energy():
    """Each hour's award alone could come from the battery; both cannot."""
    members = {m.resource.id: m for m in (battery("B", 50.0, 0.1, 2), simple("L", [100.0, 100.0], 0.5))}
    bids = [bid("first", n=2, any_of=("B", "L")), bid("second", n=2, any_of=("B", "L"))]
    changes, missing = divide_awards(bids, [award("first", 40.0, 0.0), award("second", 0.0, 40.0)], members)
    assert changes["B"].sum() == pytest.approx(-40.0)
    assert changes["L"].sum() == pytest.approx(-40.0)
    assert missing == {}


def test_missing_is_told_by_award():
    members = {m.resource.id: m for m in (simple("A1", [2.0, 9.0], 0.3), simple("A2", [1.0, 0.0], 0.1))}
    bids = [bid("early", n=2, any_of=("A1", "A2")), bid("late", n=2, any_of=("A1", "A2"))]
    _, missing = divide_awards(bids, [award("early", 5.0, 0.0), award("late", 0.0, 9.0)], members)
    assert list(missing) == ["early"]
    np.testing.assert_allclose(missing["early"], [2.0, 0.0])


def test_foreign_awards_are_refused_all_at_once():
    with pytest.raises(BidError) as caught:
        divide_awards([bid("mine", resource="A1")], [award("yours", 1.0), award("mine", 1.0, 2.0)], {})
    assert "award of a bid that was not made; got yours; allowed: mine" in str(caught.value)
    assert "award for other market time units than the bid; got mine" in str(caught.value)
