"""Laws of an aggregator: what it offers it can deliver, what it is awarded it divides at least cost."""

from dataclasses import replace
from itertools import product as combinations

import numpy as np
import pytest
from device_strategies import MTU_S, course, devices, directions, forecasts, shares, situations, storing
from hypothesis import given
from hypothesis import strategies as st

from cosim.domain.market import Award, Product, Resource
from cosim.flexibility.band import departure_kwh, flexibility_band, room_kwh
from cosim.flexibility.disaggregation import divide, divide_awards
from cosim.flexibility.offers import Member, Reliability, Terms, offers

DELIVERED_KW = 1e-5
"""The solver keeps rows to 1e-7 kWh; over an MTU of a quarter of an hour that is some 1e-6 kW at the device."""


@st.composite
def portfolios(draw, kinds=devices, most_mtus=6):
    """Members of two perimeters by id, each with its device, state and forecast over the same MTUs."""
    n = draw(st.integers(1, most_mtus))
    fleet = {}
    for k in range(draw(st.integers(1, 4))):
        device = draw(kinds)
        forecast = draw(forecasts(device, n).filter(lambda f, n=n: len(f) == n))
        state = device.start()
        band = flexibility_band(device, state, forecast, MTU_S, 300)
        name = f"R{k}"
        resource = Resource(
            id=name,
            pod=name,
            kind=type(device).__name__,
            aggregator="A",
            up_kw=draw(st.sampled_from([1000.0, 4.0])),
            down_kw=draw(st.sampled_from([1000.0, 4.0])),
            perimeter=draw(st.sampled_from(["P1", "P2"])),
        )
        prices = draw(st.tuples(st.floats(-0.1, 0.5), st.floats(-0.1, 0.5)))
        fleet[name] = (Member(resource, band, *prices), device, state, forecast)
    return fleet


@st.composite
def products(draw):
    return Product(
        id="p",
        direction=draw(directions),
        min_kw=draw(st.sampled_from([0.0, 1.0])),
        step_kw=draw(st.sampled_from([0.0, 0.5])),
        max_kw=draw(st.sampled_from([None, 7.0])),
        duration_min_mtu=draw(st.sampled_from([1, 1, 2])),
    )


deliveries = st.sampled_from(["single", "fixed_shares", "any_split"])


def award_of(bid, accepted):
    """An award of these shares of a bid; blocks take the same share in all MTUs."""
    taken = [accepted[0]] * len(bid.quantity_kw) if bid.block else accepted
    quantity_kw = tuple(share * kw for share, kw in zip(taken, bid.quantity_kw, strict=True))
    zeros = (0.0,) * len(quantity_kw)
    return Award(bid.id, "lfm", "dso", bid.t_s, quantity_kw, zeros, zeros)


@given(fleet=portfolios(), product=products(), delivery=deliveries, data=st.data())
def test_whatever_part_of_an_offer_is_awarded_is_delivered(fleet, product, delivery, data):
    members = {name: member for name, (member, *_) in fleet.items()}
    bids = offers(list(members.values()), product, Terms("A", 0, delivery, per_perimeter=data.draw(st.booleans())))
    n = len(next(iter(members.values())).band.baseline_kw)
    awards = [award_of(bid, data.draw(st.lists(shares, min_size=n, max_size=n))) for bid in bids]
    changes, missing = divide_awards(bids, awards, members)
    assert missing == {}
    awarded_kw = product.direction.delta_p_kw(np.sum([award.quantity_kw for award in awards] or [np.zeros(n)], axis=0))
    np.testing.assert_allclose(sum(changes.values(), np.zeros(n)), awarded_kw, atol=DELIVERED_KW)
    for name, change_kw in changes.items():
        member, device, state, forecast = fleet[name]
        departed_kw, _ = course(device, state, forecast, change_kw, member.band.baseline_kw, 300)
        np.testing.assert_allclose(departed_kw, change_kw, rtol=0.0, atol=DELIVERED_KW)


@given(fleet=portfolios(), product=products(), delivery=deliveries, margin_kw=st.floats(0.0, 5.0))
def test_bids_keep_the_sizes_of_the_product_and_the_capability_of_members(fleet, product, delivery, margin_kw):
    members = [member for member, *_ in fleet.values()]
    first = members[0].resource.id
    reliability = Reliability(0.05, {first: np.full(40, margin_kw)})
    bids = offers(members, product, Terms("A", 0, delivery), reliability)
    for bid in bids:
        able = [member for member in members if member.resource.id in bid.members]
        assert len({member.resource.perimeter for member in able}) == 1
        kept_kw = margin_kw if first in bid.members else 0.0
        most_kw = np.sum([member.sustained_kw(product.direction) for member in able], axis=0) - kept_kw
        for kw, most in zip(bid.quantity_kw, most_kw, strict=True):
            assert kw == 0.0 or product.min_kw <= kw <= min(most + 1e-9, product.max_kw or np.inf)
            if product.step_kw:
                assert kw / product.step_kw == pytest.approx(round(kw / product.step_kw), abs=1e-6)
        prices = [step.price_eur_per_kwh for step in bid.steps]
        assert prices == sorted(prices)
        assert sum(step.quantity_kw for step in bid.steps) == pytest.approx(max(bid.quantity_kw))
        if bid.shares:
            assert sum(share for _, share in bid.shares) == pytest.approx(1.0, abs=1e-9)
        if bid.block:
            assert len({kw for kw in bid.quantity_kw if kw > 0.0}) == 1


@given(situation=situations(storing, most=3), direction=directions, wish=st.lists(st.floats(0.0, 1.5), min_size=3))
def test_a_division_uses_all_that_a_store_has_and_no_more(situation, direction, wish):
    """One member: what is missing could not be delivered at any MTU, given what is delivered."""
    device, state, forecast = situation
    band = flexibility_band(device, state, forecast, MTU_S, MTU_S)
    member = Member(Resource("R", "R", "x", "A", 1000.0, 1000.0), band, 0.1, 0.2)
    award_kw = np.array(wish[: len(forecast)]) * band.rated_kw(direction)
    division = divide([member], direction, award_kw)
    used_kw = division.quantity_kw[0]
    np.testing.assert_allclose(used_kw + division.missing_kw, award_kw, atol=DELIVERED_KW)
    assert (used_kw <= band.rated_kw(direction) + 1e-9).all()
    if len(award_kw) > 1:
        room = room_kwh(band.store, direction)
        assert (departure_kwh(band.store, direction, used_kw) <= room + 1e-6).all()
        for k in np.flatnonzero(division.missing_kw > 1e-4):
            more_kw = used_kw.copy()
            more_kw[k] += 1e-4
            too_much = (departure_kwh(band.store, direction, more_kw) > room).any()
            assert too_much or more_kw[k] > band.rated_kw(direction)[k]


@given(fleet=portfolios(most_mtus=1), direction=directions, accepted=shares)
def test_one_mtu_is_divided_at_the_least_cost(fleet, direction, accepted):
    """No split of the same award over corners of the members' limits is cheaper than the merit order."""
    members = [member for member, *_ in fleet.values()]
    caps_kw = np.array([member.sustained_kw(direction)[0] for member in members])
    prices = np.array([member.price_eur_per_kwh(direction) for member in members])
    award_kw = accepted * caps_kw.sum()
    division = divide(members, direction, np.array([award_kw]))
    cost = float(prices @ division.quantity_kw[:, 0])
    assert division.quantity_kw.sum() == pytest.approx(award_kw, abs=1e-9)
    for corner in combinations([False, True], repeat=len(members)):
        for last in range(len(members)):  # a vertex: all members but one at a limit, that one takes what is left
            kw = np.where(corner, caps_kw, 0.0)
            kw[last] = award_kw - (kw.sum() - kw[last])
            if 0.0 <= kw[last] <= caps_kw[last]:
                assert cost <= prices @ kw + 1e-9


@given(fleet=portfolios(), product=products(), delivery=deliveries)
def test_the_order_of_members_changes_no_quantity_or_price(fleet, product, delivery):
    """But for equal prices of those that deliver in any split."""
    members = [member for member, *_ in fleet.values()]
    there = offers(members, product, Terms("A", 0, delivery))
    back = offers(members[::-1], product, Terms("A", 0, delivery))
    for bid, other in zip(sorted(there, key=lambda b: b.id), sorted(back, key=lambda b: b.id), strict=True):
        assert set(bid.members) == set(other.members)
        assert bid.quantity_kw == pytest.approx(other.quantity_kw)
        assert bid.id == other.id
        assert bid.direction is product.direction
        assert replace(bid, any_of=(), shares=(), quantity_kw=(), steps=()) == replace(
            other, any_of=(), shares=(), quantity_kw=(), steps=()
        )
