import math
from dataclasses import replace

import pytest
from small_market import DOWN, UP, bid, case, network, resources

from cosim.domain.market import Product
from cosim.market.admission import product_bid_faults, rejections
from cosim.market.book import check_case

NET = network([50.0, 50.0])
PRODUCTS = {
    "P": Product("P", UP, min_kw=5.0, step_kw=0.5, max_kw=100.0),
    "block": Product("block", UP, duration_min_mtu=2, duration_max_mtu=3, divisible=False),
}


def rejected(*bids, own=None, gate=None, products=None, networks=NET):
    """Problems by bid; the rest of the book is faultless."""
    asked = case(bids, networks, own)
    found = rejections(asked, products, gate)
    check_case(replace(asked, bids=tuple(b for b in bids if b.id not in found)), gate)
    return {name: [str(fault) for fault in faults] for name, faults in found.items()}


def test_good_bids_are_taken():
    assert rejected(bid("P0 a", 600.0, 1.0), bid("P0 b", 400.0, 2.0), bid("P0 c", 1000.0, 1.0, DOWN)) == {}


def test_a_wrong_bid_does_not_stop_the_others():
    found = rejected(
        bid("P0 nan", 5.0, math.nan), bid("P1 good", 5.0, 1.0), bid("P0 late", 5.0, 1.0, submitted_s=9), gate=8
    )
    assert found == {
        "P0 nan": ["bid P0 nan: a price must be a number; got nan"],
        "P0 late": ["bid P0 late: submitted after gate closure; got 9 s; allowed: 8 s"],
    }


def test_what_does_not_fit_in_the_order_of_submission():
    bids = [
        bid("P0 a", 700.0, 1.0, submitted_s=2),
        bid("P0 b", 400.0, 9.0, submitted_s=1),
        bid("P0 c", 600.0, 5.0, submitted_s=2),
    ]
    problem = "with bids before it offers more up of P0 than is registered; got 1100 kW; allowed: 1000 kW"
    assert rejected(*bids) == {"P0 a": [f"bid P0 a: {problem}"]}
    assert rejected(*reversed(bids)) == rejected(*bids)


def test_shares_take_of_every_resource():
    shared = bid("s", 800.0, 1.0, shares=(("P0", 0.25), ("P1", 0.75)), submitted_s=-1)
    own = resources(2)
    assert set(rejected(shared, bid("P0 a", 800.0, 1.0), bid("P1 b", 401.0, 1.0), own=own)) == {"P1 b"}


def test_of_an_exclusive_group_the_largest_counts():
    group = [bid("P0 a", 700.0, 1.0, exclusive_group="g"), bid("P0 b", 900.0, 1.0, exclusive_group="g")]
    assert rejected(*group, bid("P0 c", 100.0, 1.0)) == {}
    assert set(rejected(*group, bid("P0 c", 101.0, 1.0))) == {"P0 c"}


def test_a_linked_bid_goes_with_its_parent():
    parent = bid("P0 parent", 1001.0, 1.0, block=True)
    assert set(rejected(parent, bid("P1 child", 5.0, 1.0, block=True, parent="P0 parent"))) == {"P0 parent", "P1 child"}


@pytest.mark.parametrize(("wrong", "words"), [
    (bid("P0 a", 5.0, 1.0, DOWN), "of another direction than its product; got down"),
    (bid("P0 a", 4.5, 1.0), "a quantity that its product does not allow; got 4.5 kW; allowed: 5..100 kW"),
    (bid("P0 a", [0.0, 100.5], 1.0), "a quantity that its product does not allow; got 100.5 kW"),
    (bid("P0 a", 5.7, 1.0), "not a multiple of its product's step; got 5.7 kW; allowed: 0.5"),
    (replace(bid("P0 a", 5.0, 1.0), product="Q"), "no product of that name; got Q; allowed: P, block"),
    (replace(bid("P0 a", [5.0, 5.0], 1.0, block=True), product="block"), "indivisible: min_accept must be 1; got 0.0"),
    (replace(bid("P0 a", [5.0, 5.0], 1.0, min_accept=1.0), product="block"), "may be accepted in single MTUs"),
    (replace(bid("P0 a", [5.0, 0.0, 5.0, 5.0], 1.0, min_accept=1.0, block=True), product="block"),
     "of a duration that its product does not allow; got 1 MTUs; allowed: 2..3 MTUs"),
    (replace(bid("P0 a", [5.0] * 4, 1.0, min_accept=1.0, block=True), product="block"), "got 4 MTUs"),
])  # fmt: skip
def test_bids_that_are_not_of_their_product(wrong, words):
    (found,) = product_bid_faults(wrong, PRODUCTS)
    assert words in str(found)


@pytest.mark.parametrize("good", [
    bid("P0 a", [0.0, 5.0, 100.0, 7.5], 1.0),
    replace(bid("P0 a", [0.0, 5.0, 5.0, 0.0], 1.0, min_accept=1.0, block=True), product="block"),
    bid("P0 a", 0.1 * 3 + 5.2, 1.0),
])  # fmt: skip
def test_bids_of_their_product(good):
    assert list(product_bid_faults(good, PRODUCTS)) == []


def test_products_are_checked_only_where_there_is_a_catalogue():
    assert set(rejected(bid("P0 a", 1.0, 1.0), bid("P1 b", 6.0, 1.0), products=PRODUCTS)) == {"P0 a"}
    assert rejected(bid("P0 a", 1.0, 1.0)) == {}
