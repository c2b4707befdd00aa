import numpy as np
import pytest
from small_market import DOWN, bid, case, kw, network

from cosim.domain.market import Bid, Direction, Need, PriceStep
from cosim.market.case import HOLD
from cosim.market.clearing import clear
from cosim.market.pricing import awards, bid_prices, location_prices, unit_prices

NET = network([80.0, 40.0], effect=[1.0, 0.5], i_max_a=60.0)  # 40 A too much
BIDS = [bid("P0 a", 30.0, 1.0), bid("P1 b", 50.0, 0.7), bid("P1 dear", 50.0, 3.0)]


def table(cleared, values):
    return {b.id: float(values[0, k]) for k, b in enumerate(cleared.bids)}


def test_location_prices_pay_the_effect():
    cleared = clear(case(BIDS, NET))
    assert kw(cleared) == pytest.approx({"P0 a": 30.0, "P1 b": 20.0, "P1 dear": 0.0})
    assert table(cleared, location_prices(cleared)) == pytest.approx({"P0 a": 1.4, "P1 b": 0.7, "P1 dear": 0.7})


def test_what_all_are_paid_is_what_relief_is_worth():
    cleared = clear(case(BIDS, NET))
    paid = (location_prices(cleared) * cleared.awarded_kw).sum()
    dual = cleared.solution.row_dual
    rows = cleared.program.rows
    before = rows.matrix(cleared.program.n_column) @ np.zeros(cleared.program.n_column)
    worth = (dual * (rows.upper - before)).sum()
    assert paid == pytest.approx(worth) == pytest.approx(1.4 * 40.0)


def test_uniform_is_the_highest_accepted_price_by_direction():
    cleared = clear(case(BIDS, NET))
    assert table(cleared, unit_prices(cleared, "pay_as_clear_uniform")) == pytest.approx(
        {"P0 a": 1.0, "P1 b": 1.0, "P1 dear": 1.0}
    )


def test_pay_as_bid_is_the_mean_of_the_steps_taken():
    stepped = Bid("s", "A", "P", Direction.UP, 0, (60.0,), (PriceStep(10.0, 1.0), PriceStep(50.0, 2.0)), resource="P0")
    cleared = clear(case([stepped], network([80.0, 40.0])))
    assert table(cleared, bid_prices(cleared)) == pytest.approx({"s": (10.0 * 1.0 + 10.0 * 2.0) / 20.0})


def test_what_an_earlier_stage_awarded_is_not_bought_again():
    steps = (PriceStep(10.0, 1.0), PriceStep(50.0, 2.0))
    stepped = Bid("s", "A", "P", Direction.UP, 0, (60.0,), steps, resource="P0")
    cleared = clear(case([stepped], network([80.0, 50.0]), locked={"s": (8.0,)}))
    (found,) = awards(cleared, "pay_as_bid", "second", "DSO")
    assert found.quantity_kw == (pytest.approx(22.0),)
    assert found.price_eur_per_kwh == (pytest.approx((2.0 * 1.0 + 20.0 * 2.0) / 22.0),)
    settled = clear(case([stepped], network([80.0, 10.0]), locked={"s": (8.0,)}))
    assert awards(settled, "pay_as_bid", "second", "DSO") == ()


def test_prices_of_blocks_by_mtu():
    day = [network([80.0, 40.0]), network([60.0, 40.0])]
    block = bid("P0 block", [40.0, 40.0], 1.0, block=True)
    cleared = clear(case([block], day))
    prices = location_prices(cleared)[:, 0]
    assert prices == pytest.approx([2.0, 0.0])
    assert (prices * cleared.awarded_kw[:, 0]).sum() == pytest.approx(cleared.cost_eur)


def test_interface_price_goes_the_other_way_for_the_other_direction():
    net = network([120.0, 0.0], effect=[1.0, 0.0])
    bids = [bid("P0 a", 50.0, 1.0), bid("P1 d", 50.0, 0.5, DOWN)]
    cleared = clear(case(bids, net, settings={"interface_kw": HOLD}))
    assert table(cleared, location_prices(cleared)) == pytest.approx({"P0 a": 1.0, "P1 d": 0.5})
    assert table(cleared, location_prices(cleared, ("interface",))) == pytest.approx({"P0 a": -0.5, "P1 d": 0.5})


@pytest.mark.parametrize("rule", ["pay_as_bid", "pay_as_clear", "pay_as_clear_uniform"])
def test_accepted_bids_are_paid_at_least_what_they_ask(rule):
    cleared = clear(case(BIDS, NET))
    taken = cleared.awarded_kw > 1e-9
    assert (unit_prices(cleared, rule)[taken] >= bid_prices(cleared)[taken] - 1e-9).all()


def test_awards_of_one_buyer():
    found = awards(clear(case(BIDS, NET)), "pay_as_clear", "local", "DSO")
    assert [(a.bid, a.buyer, a.stage) for a in found] == [("P1 b", "DSO", "local"), ("P0 a", "DSO", "local")]
    assert found[1].quantity_kw == (pytest.approx(30.0),)
    assert found[1].price_eur_per_kwh == (pytest.approx(1.4),)
    assert found[1].bid_price_eur_per_kwh == (pytest.approx(1.0),)


def test_a_buyer_pays_the_share_that_is_worth_to_him():
    """The network needs 10 kW, the BRP 30: the price is that of the dearer bid, and the network's rows are slack."""
    need = Need("n", "BRP", 0, (30.0,), max_price_eur_per_kwh=5.0)
    cleared = clear(case([bid("P0 a", 25.0, 1.0), bid("P1 b", 50.0, 2.0)], network([80.0, 30.0]), needs=(need,)))
    found = awards(cleared, "pay_as_clear", "local", "DSO")
    assert {a.buyer for a in found} == {"BRP"}
    assert sum(a.quantity_kw[0] for a in found) == pytest.approx(30.0)


def test_a_buyer_whose_need_is_met_anyway_pays_nothing():
    need = Need("n", "BRP", 0, (5.0,), max_price_eur_per_kwh=5.0)
    cleared = clear(case([bid("P0 a", 25.0, 1.0)], network([80.0, 30.0]), needs=(need,)))
    assert {a.buyer for a in awards(cleared, "pay_as_bid", "local", "DSO")} == {"DSO"}
