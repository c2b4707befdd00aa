"""Bids as offers, awards as orders, offers as bids."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from uftp_records import AWARDS, GATE_S, NAMES, ROWS

from cosim.domain.market import Bid, Direction, PriceStep
from cosim.errors import BidError
from cosim.uftp.element import message, part
from cosim.uftp.offers import bids_from, offers_of, orders_of

UP, DOWN = Direction.UP, Direction.DOWN


def row(**changed):
    return {**ROWS[0], "t_s": 3_600, "bid": "b", **changed}


def offered(*rows):
    return offers_of(rows, NAMES)


def back(*rows, **options):
    return bids_from((offer.message for offer in offers_of(rows, NAMES)), NAMES, {"AGG_1": ("a", "b")}, **options)


def test_up_is_less_consumption_at_a_price_for_the_whole_option():
    (one,) = offered(row(quantity_kw=8.0, price_eur_per_kwh=0.1))
    (option,) = one.message.children
    assert (option["Price"], option["MinActivationFactor"]) == (Decimal("0.2"), Decimal("0.01"))
    assert dict(option.children[0].values) == {"Power": -8000, "Start": 1, "Duration": 1}
    assert one.message["ExpirationDateTime"] == NAMES.at(3_600)
    assert offered(row(direction="down"))[0].message.children[0].children[0]["Power"] == 12_500


def test_a_block_is_one_offer_and_other_bids_are_one_each_mtu():
    rows = [row(t_s=3_600 + 900 * k, quantity_kw=1.0 + k) for k in range(3)]
    assert len(offered(*rows)) == 3
    (block,) = offered(*({**each, "block": True} for each in rows))
    assert [isp["Power"] for isp in block.message.children[0].children] == [-1000, -2000, -3000]


def test_the_bids_come_back():
    assert back(*ROWS) == (
        Bid("evening", "AGG_1", "up", UP, 2_700, (12.5, 10.0), (PriceStep(12.5, 0.12),), "battery", submitted_s=GATE_S),
        Bid(
            *("heat pump", "AGG_1", "down", DOWN, 3_600, (4.0,), (PriceStep(4.0, -0.05),)),
            any_of=("a", "b"),
            min_accept=0.5,
            submitted_s=GATE_S,
        ),
        Bid(
            *("night", "AGG_1", "up", UP, 3_600, (6.0, 6.0), (PriceStep(6.0, 0.2),)),
            any_of=("a", "b"),
            min_accept=1.0,
            block=True,
            submitted_s=GATE_S,
        ),
    )


def test_price_steps_come_back():
    (bid,) = back(row(quantity_kw=5.0), row(quantity_kw=3.0, price_eur_per_kwh=0.3), row(t_s=4_500, quantity_kw=5.0))
    assert (bid.quantity_kw, bid.steps) == ((8.0, 5.0), (PriceStep(5.0, 0.12), PriceStep(3.0, 0.3)))


def test_mtus_with_a_gap_are_two_bids():
    first, second = back(row(), row(t_s=5_400))
    assert (first.id, second.id, first.t_s, second.t_s) == ("b", "b", 3_600, 5_400)


def test_a_least_share_is_never_less_than_the_seller_said():
    (one,) = offered(row(min_accept=0.333))
    assert one.message.children[0]["MinActivationFactor"] == Decimal("0.34")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([row(quantity_kw=float("nan"))], "b: is no number; got quantity_kw nan"),
        ([row(t_s=3_601)], "b: begins within an ISP; got 3601 s"),
        ([row(direction="left")], "b: has no direction; got left; allowed: up or down"),
        ([row(), row()], "b: offers an MTU twice at one price"),
        ([row(), row(t_s=4_500, direction="down")], "b: differs among the rows of a bid; got direction"),
        (
            [row(min_accept=0.5), row(min_accept=0.5, price_eur_per_kwh=0.3)],
            "b: has price steps and a least share, which no offer can say",
        ),
        ([row(block=True), row(t_s=4_500, price_eur_per_kwh=0.3, block=True)], "b: is a block of several prices"),
        ([row(block=True), row(t_s=2_700, block=True)], "b: is a block of several days, which no offer can say"),
    ],
)
def test_what_no_offer_can_say_is_refused(rows, problem):
    with pytest.raises(BidError, match=problem):
        offered(*rows)


def test_orders_have_the_power_that_was_bought():
    orders = orders_of(AWARDS, offers_of(ROWS, NAMES), NAMES)
    said = [
        (o["OptionReference"], o["ActivationFactor"], [isp["Power"] for isp in o.children], o["Price"])
        for o, _ in orders
    ]
    assert said == [
        ("evening", Decimal("1.00"), [-12_500], Decimal("0.3750")),
        ("evening", Decimal("0.33"), [-3_334], Decimal("0.1000")),
        ("heat pump", Decimal("0.75"), [3_000], Decimal("-0.0375")),
        ("night", Decimal("1.00"), [-6_000], Decimal("0.6000")),
    ]
    assert sum((kwh for _, kwh in orders), Fraction(0)) == Fraction("30.8337") / 4


def test_an_award_takes_the_cheap_step_first():
    rows = (row(quantity_kw=5.0, price_eur_per_kwh=0.3), row(quantity_kw=5.0, price_eur_per_kwh=0.1))
    award = {**row(), "quantity_kw": 7.0, "price_eur_per_kwh": 0.3}
    orders = [order for order, _ in orders_of([award], offers_of(rows, NAMES), NAMES)]
    assert {(o.children[0]["Power"], o["OrderReference"]) for o in orders} == {
        (-5_000, "b@2024-03-30T23:00:00Z"),
        (-2_000, "b@2024-03-30T23:00:00Z#2"),
    }


@pytest.mark.parametrize(
    ("award", "problem"),
    [
        (row(price_eur_per_kwh=float("inf")), "b: is no number; got price_eur_per_kwh inf"),
        (row(quantity_kw=20.0), "b: was awarded more than it offers; got 7.5 kW more"),
        (row(bid="c"), "c: was awarded more"),
    ],
)
def test_awards_of_what_was_not_offered_are_refused(award, problem):
    with pytest.raises(BidError, match=problem):
        orders_of([award], offered(row()), NAMES)


def of_another(*options, **changed):
    """An offer as others may write it."""
    said = dict(offered(row())[0].message.values) | {"BaselineReference": None, "SenderDomain": "agr.nl"} | changed
    return message("FlexOffer", said, *options)


def option(name, *powers_w, start=1, price="1.0"):
    isp_list = [part("FlexOffer/OfferOption/ISP", {"Power": p, "Start": start + k}) for k, p in enumerate(powers_w)]
    return part("FlexOffer/OfferOption", {"OptionReference": name, "Price": Decimal(price)}, *isp_list)


def test_options_of_others_are_blocks_that_exclude_each_other():
    one = of_another(option("a", -1000, 0, -3000), option("b", -2000, start=2))
    first, second = bids_from([one], NAMES, {"agr.nl": ("x",)}, {UP: "more", DOWN: "less"})
    assert (first.quantity_kw, first.block, first.min_accept, first.product) == ((1.0, 0.0, 3.0), True, 1.0, "more")
    assert first.steps == (PriceStep(3.0, 1.0),)
    assert (second.t_s, second.block, second.resource, second.seller) == (4_500, False, "x", "agr.nl")
    assert first.exclusive_group == second.exclusive_group == one["MessageID"]


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        (of_another(option("a", -1000, 1000)), "has both directions, which no bid has"),
        (of_another(option("a", 0)), "offers nothing"),
        (of_another(option("a", -1000), SenderDomain="no.nl"), "names no resource and its seller has none; got no.nl"),
        (
            of_another(option("a", -1000), **{"ISP-Duration": 30}),
            "has ISPs of another length; got 30 minutes; allowed: 15",
        ),
    ],
)
def test_what_cannot_be_a_bid_is_refused(one, problem):
    with pytest.raises(BidError, match=problem):
        bids_from([one], NAMES, {"agr.nl": ("x",)})


def test_messages_that_are_no_offers_are_passed_over():
    orders = orders_of(AWARDS, offers_of(ROWS, NAMES), NAMES)
    assert bids_from((order for order, _ in orders), NAMES) == ()


def test_offers_of_another_gate_are_other_bids():
    first, second = back(row(), row(gate_s=2_700))
    assert (first.submitted_s, second.submitted_s) == (1_800, 2_700)
    assert replace(first, submitted_s=2_700) == second
