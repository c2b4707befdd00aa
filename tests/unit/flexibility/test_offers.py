import numpy as np
import pytest

from cosim.domain.flexibility import StorageUnit
from cosim.domain.frames import frozen
from cosim.domain.market import Direction, EnergyBand, PriceStep, Product, Resource, StorageLimit
from cosim.errors import BidError
from cosim.flexibility.band import FlexibilityBand, flexibility_band
from cosim.flexibility.battery import Battery
from cosim.flexibility.heat_pump import HeatPump
from cosim.flexibility.load import Load
from cosim.flexibility.offers import Member, Reliability, Terms, coupling, offers, shortfall_kw
from cosim.flexibility.resources import Conditions

UP = Product("up", Direction.UP)


def member(name, offers_up_kw, price, perimeter="P", offers_down_kw=0.0, **registered):
    n = len(offers_up_kw)
    band = FlexibilityBand(900, frozen(np.zeros(n)), frozen(offers_up_kw), frozen(np.full(n, offers_down_kw)), None)
    capability = {"up_kw": 1000.0, "down_kw": 1000.0} | registered
    return Member(Resource(name, name, "load", "A", perimeter=perimeter, **capability), band, price, 2.0 * price)


TRIO = (member("A1", [10.0], 0.3), member("A2", [5.0], 0.1, "Q"), member("A3", [20.0], 0.2))


def test_single_bids():
    first, second, third = offers(TRIO, UP, Terms("agg", 900, "single", submitted_s=840))
    assert (first.id, first.seller, first.product, first.t_s) == ("agg/up/A1/900@840", "agg", "up", 900)
    assert (first.resource, first.quantity_kw, first.steps) == ("A1", (10.0,), (PriceStep(10.0, 0.3),))
    assert (second.resource, third.resource, third.submitted_s) == ("A2", "A3", 840)


def test_any_split_in_merit_order():
    (bid,) = offers(TRIO, UP, Terms("agg", 0, "any_split", per_perimeter=False))
    assert bid.any_of == ("A1", "A2", "A3")
    assert bid.steps == (PriceStep(5.0, 0.1), PriceStep(20.0, 0.2), PriceStep(10.0, 0.3))
    assert bid.quantity_kw == (35.0,)


def test_fixed_shares_at_the_mean_price():
    (bid,) = offers(TRIO, UP, Terms("agg", 0, "fixed_shares", per_perimeter=False))
    assert bid.shares == (("A1", 10 / 35), ("A2", 5 / 35), ("A3", 20 / 35))
    assert bid.steps == (PriceStep(35.0, pytest.approx((10 * 0.3 + 5 * 0.1 + 20 * 0.2) / 35)),)


def test_perimeters_bid_for_themselves():
    of_p, of_q = offers(TRIO, UP, Terms("agg", 0, "any_split"))
    assert (of_p.id, of_p.any_of, of_p.quantity_kw) == ("agg/up/P/0@0", ("A1", "A3"), (30.0,))
    assert (of_q.id, of_q.any_of, of_q.quantity_kw) == ("agg/up/Q/0@0", ("A2",), (5.0,))


def test_sizes_of_the_product():
    sized = Product("up", Direction.UP, min_kw=6.0, step_kw=4.0, max_kw=15.0)
    bids = offers(TRIO, sized, Terms("agg", 0, "single"))
    assert [(bid.resource, bid.quantity_kw) for bid in bids] == [("A1", (8.0,)), ("A3", (12.0,))]


def test_a_multiple_of_the_step_is_not_lost_to_rounding():
    third = Product("up", Direction.UP, step_kw=0.1)
    (bid,) = offers([member("A1", [0.1 + 0.2], 0.3)], third, Terms("agg", 0, "single"))
    assert bid.quantity_kw == pytest.approx((0.3,))


def test_what_is_registered_bounds_what_is_offered():
    (bid,) = offers([member("A1", [10.0], 0.3, up_kw=4.0)], UP, Terms("agg", 0, "single"))
    assert bid.quantity_kw == (4.0,)


def test_direction_takes_its_own_price_and_capability():
    down = Product("down", Direction.DOWN)
    (bid,) = offers([member("A1", [10.0], 0.3, offers_down_kw=7.0)], down, Terms("agg", 0, "single"))
    assert (bid.direction, bid.quantity_kw, bid.steps) == (Direction.DOWN, (7.0,), (PriceStep(7.0, 0.6),))


def test_the_margin_takes_the_dearest_away():
    """The quantile is of the sum: errors that cancel out need no margin."""
    up_and_down = np.tile([6.0, -6.0], 50)
    apart = Reliability(0.05, {"A1": up_and_down, "A3": -up_and_down})
    (whole,) = offers(TRIO, UP, Terms("agg", 0, "any_split", per_perimeter=False), apart)
    assert whole.quantity_kw == (35.0,)
    together = Reliability(0.05, {"A1": up_and_down, "A3": up_and_down})
    (less,) = offers(TRIO, UP, Terms("agg", 0, "any_split", per_perimeter=False), together)
    assert less.quantity_kw == (23.0,)
    assert less.steps == (PriceStep(5.0, 0.1), PriceStep(18.0, 0.2))


def test_margin_is_a_quantile_that_is_kept():
    errors_kw = np.arange(100.0)
    assert Reliability(0.05, {"R": errors_kw}).margin_kw(["R"]) == 95.0
    assert Reliability(0.05, {"R": -errors_kw}).margin_kw(["R"]) == 0.0
    assert Reliability(0.05, {"R": errors_kw}).margin_kw(["other"]) == 0.0


def test_shortfall_of_a_share():
    """Less load than forecast leaves less to shed; less generation (a rise of consumption) less to curtail."""
    error_kw = np.array([-10.0, 4.0])
    np.testing.assert_array_equal(shortfall_kw(0.5, Direction.UP, error_kw), [5.0, -2.0])
    np.testing.assert_array_equal(shortfall_kw(0.5, Direction.DOWN, error_kw), [-5.0, 2.0])


def test_each_mtu_of_a_portfolio_has_its_own_merit_order():
    cheap, dear = member("A1", [0.0, 5.0], 0.1), member("A2", [10.0, 10.0], 0.2)
    early, late = offers([cheap, dear], UP, Terms("agg", 1800, "any_split"))
    assert (early.id, early.quantity_kw, early.steps) == ("agg/up/P/1800@0", (10.0, 0.0), (PriceStep(10.0, 0.2),))
    assert (late.id, late.quantity_kw) == ("agg/up/P/2700@0", (0.0, 15.0))
    assert late.steps == (PriceStep(5.0, 0.1), PriceStep(10.0, 0.2))
    assert early.any_of == late.any_of == ("A1", "A2")


def test_a_product_of_two_mtus_is_offered_in_blocks_of_constant_power():
    blocks = Product("up", Direction.UP, duration_min_mtu=2, duration_max_mtu=2, divisible=False)
    bids = offers([member("A1", [4.0, 6.0, 8.0, 7.0, 9.0], 0.1)], blocks, Terms("agg", 0, "single"))
    assert [bid.quantity_kw for bid in bids] == [(4.0, 4.0, 0.0, 0.0, 0.0), (0.0, 0.0, 7.0, 7.0, 0.0)]
    assert all(bid.block and bid.min_accept == 1.0 and bid.resource == "A1" for bid in bids)
    assert len({bid.id for bid in bids}) == 2


def test_a_coupled_battery_offers_its_rated_power():
    unit = StorageUnit("S", 50.0, 100.0, 10.0, 0.9, 0.8)
    battery = Battery(unit, 60.0)
    forecast = [Conditions(0), Conditions(3600)]
    band = flexibility_band(battery, battery.start(), forecast, 3600, 3600)
    alone = Member(Resource("B", "B", "battery", "A", 50.0, 50.0), band, 0.1, 0.1)
    (held,) = offers([alone], UP, Terms("agg", 0, "single"))
    (rated,) = offers([alone], UP, Terms("agg", 0, "single", coupled=True))
    assert held.quantity_kw == pytest.approx((20.0, 20.0))
    assert rated.quantity_kw == (50.0, 50.0)
    assert isinstance(coupling("B", battery, battery.start(), band), StorageLimit)


def test_what_couples_the_mtus_of_other_kinds():
    pump, load = HeatPump(5.0, 3.0, 2.0, 4.0), Load(0.5, 900)
    two = [Conditions(0), Conditions(900)]
    of_pump, of_load = (flexibility_band(each, each.start(), two, 900, 900) for each in (pump, load))
    assert isinstance(coupling("H", pump, pump.start(), of_pump), EnergyBand)
    assert coupling("L", load, load.start(), of_load) is None
    alone = flexibility_band(pump, pump.start(), two[:1], 900, 900)
    assert coupling("H", pump, pump.start(), alone) is None, "a single MTU"


def test_all_faults_at_once():
    wrong = (
        member("A1", [1.0], float("nan")),
        member("A1", [1.0, 2.0], 0.1, up_kw=-3.0),
        Member(Resource("A4", "A4", "load", "A", 1.0, 1.0, rebound=(1.0,)), TRIO[0].band, 0.1, 0.1),
    )
    with pytest.raises(BidError) as caught:
        offers(wrong, UP, Terms("agg", 0, "any_split", coupled=True))
    text = str(caught.value)
    assert "resource A1: up_eur_per_kwh: price is not a number; got nan" in text
    assert "resource A1: up_kw: registered capability is negative or no number; got -3.0" in text
    assert "resource A1: is a member twice" in text
    assert "members' bands differ in (MTU [s], number of MTUs); got [(900, 1), (900, 2)]" in text
    assert "resource A4: pays back later, so that it cannot be in a bid of any split" in text
    assert "delivery: a coupled offer is for a single resource; got any_split" in text


def test_nothing_to_offer_is_no_bid():
    assert offers([member("A1", [0.0], 0.1)], UP, Terms("agg", 0, "single")) == ()
    assert offers([], UP, Terms("agg", 0)) == ()
