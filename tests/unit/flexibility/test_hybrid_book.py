"""Contracts and free offers of a fleet in one book: together never more than what a resource can do."""

from datetime import date, time

import numpy as np
import pytest
from fleet_runs import BATTERY, MTU_S, START, Course, award_of, bids_of, expected, fleet_of

from cosim.clock import Clock
from cosim.domain.market import ActivationLimit, Contract, Direction, Window
from cosim.market.hybrid import HybridBook, merged

UP, DOWN = Direction.UP, Direction.DOWN
CLOCK = Clock(START, MTU_S, 96 * 3, MTU_S)
ALWAYS = Window(date(2016, 1, 20), date(2016, 1, 22))
LOADS = {"pods": ["A", "B"], "load": {"curtailable": 0.5}}


def contract(
    name="c", resource="loads:A", direction=UP, kw=25.0, strike=0.1, window=ALWAYS, seller="aggregator", **more
):
    return Contract(
        id=name,
        seller=seller,
        buyer="dso",
        product=direction.value,
        direction=direction,
        committed_kw=kw,
        availability_eur_per_kw=0.0,
        strike_eur_per_kwh=strike,
        window=window,
        shares=((resource, 1.0),),
        **more,
    )


def book_of(course, *contracts, spot=True, called=None, n_mtu=1, t_s=MTU_S):
    def offered(reserved):
        return course.fleet.offered(course.memory, t_s, expected(n_mtu), 0, (), reserved)

    return HybridBook(contracts, CLOCK, spot).session(offered, called or {})


def offered_kw(session):
    return {bid.id: bid.quantity_kw[0] for bid in session.bids}


@pytest.fixture
def course():
    return Course(fleet_of(loads=LOADS))


def test_without_contracts_the_book_is_what_is_offered_freely(course):
    session, commitments = book_of(course)
    assert offered_kw(session) == {
        "aggregator/up/loads:A/900@0": pytest.approx(60.0),
        "aggregator/up/loads:B/900@0": pytest.approx(40.0),
    }
    assert commitments == ()
    assert book_of(course, spot=False)[0].bids == ()


def test_what_a_contract_takes_is_not_offered_freely(course):
    session, (commitment,) = book_of(course, contract(kw=25.0))
    assert offered_kw(session) == {
        "aggregator/up/loads:A/c@900@0": 25.0,
        "aggregator/up/loads:A/900@0": pytest.approx(35.0),
        "aggregator/up/loads:B/900@0": pytest.approx(40.0),
    }
    assert (commitment.window, commitment.own_kw, commitment.offered_kw) == ((True,), (0.0,), (25.0,))
    forward, (same,) = book_of(course, contract(kw=25.0), spot=False)
    assert offered_kw(forward) == {"aggregator/up/loads:A/c@900@0": 25.0}
    assert same == commitment


@pytest.mark.parametrize("delivery", ["fixed_shares", "any_split"])
def test_a_member_of_a_group_offers_its_rest_with_the_group(delivery):
    course = Course(fleet_of(sellers={"aggregator": {"delivery": delivery}}, loads=LOADS))
    session, _ = book_of(course, contract(kw=25.0))
    assert offered_kw(session) == {
        "aggregator/up/loads:A/c@900@0": 25.0,
        "aggregator/up/feeder/900@0": pytest.approx(75.0),
    }
    obliged, group = session.bids
    memory = course.fleet.ordered(course.memory, [session], [award_of(obliged), award_of(group)])
    assert memory.plan_kw[1] == pytest.approx([-60.0, -40.0])


def test_a_contract_of_more_than_there_is_gets_what_there_is(course):
    session, (commitment,) = book_of(course, contract(kw=75.0))
    assert offered_kw(session)["aggregator/up/loads:A/c@900@0"] == pytest.approx(60.0)
    assert "aggregator/up/loads:A/900@0" not in offered_kw(session)
    assert commitment.offered_kw == (pytest.approx(60.0),)


def test_contracts_of_one_resource_share_it_from_the_lowest_strike_price_on(course):
    cheap, dear = contract("z", kw=45.0, strike=0.05), contract("a", kw=45.0, strike=0.1)
    session, commitments = book_of(course, dear, cheap)
    assert {each.contract: each.offered_kw[0] for each in commitments} == pytest.approx({"z": 45.0, "a": 15.0})
    assert sum(kw for bid, kw in offered_kw(session).items() if "loads:A" in bid) == pytest.approx(60.0)


def test_an_own_offer_below_the_strike_price_is_the_contract(course):
    session, (commitment,) = book_of(course, contract(kw=25.0, strike=0.3))
    assert offered_kw(session)["aggregator/up/loads:A/900@0"] == pytest.approx(60.0)
    assert (commitment.own_kw, commitment.offered_kw) == ((25.0,), (25.0,))
    hybrid = HybridBook((contract(kw=25.0, strike=0.3),), CLOCK)
    own = next(bid for bid in session.bids if "loads:A" in bid.id)
    assert hybrid.called(session, (commitment,), [award_of(own, 40.0)]) == {"c": {1: 25.0}}
    assert hybrid.called(session, (commitment,), [award_of(own, 0.0)]) == {}


def test_out_of_its_window_nothing_is_owed(course):
    late = Window(date(2016, 1, 20), date(2016, 1, 20), time(12), time(13))
    session, (commitment,) = book_of(course, contract(window=late))
    assert all("/c@" not in bid for bid in offered_kw(session))
    assert (commitment.window, commitment.offered_kw) == ((False,), (0.0,))


def test_what_was_called_before_is_not_owed_again(course):
    """20 of 25 kW a day ahead; the call is no second one for the number agreed."""
    once = contract(kw=25.0, max_activations=1)
    session, (commitment,) = book_of(course, once, called={"c": {1: 20.0}})
    assert offered_kw(session)["aggregator/up/loads:A/c@900@0"] == pytest.approx(5.0)
    assert commitment.offered_kw == (25.0,)
    session, (commitment,) = book_of(course, once, called={"c": {0: 20.0}})
    assert "aggregator/up/loads:A/c@900@0" not in offered_kw(session)
    assert commitment.offered_kw == (25.0,), "nothing is left to be owed"


def test_calls_of_a_contract_are_what_was_bought_of_its_bid(course):
    book = HybridBook((contract(kw=25.0),), CLOCK)
    session, commitments = book_of(course, *book.contracts)
    obliged, free = session.bids[:2]
    called = book.called(session, commitments, [award_of(obliged, 10.0), award_of(obliged, 5.0), award_of(free, 7.0)])
    assert called == {"c": {1: 15.0}}
    assert merged({"c": {0: 2.0, 1: 1.0}, "d": {4: 1.0}}, called) == {"c": {0: 2.0, 1: 16.0}, "d": {4: 1.0}}


def test_of_a_battery_power_and_energy_are_kept_over_a_day():
    course = Course(fleet_of(cell=BATTERY))
    night = contract("n", "cell", UP, 60.0, window=Window(ALWAYS.first_day, ALWAYS.last_day, time(1), time(2)))
    seldom = contract("s", "cell", DOWN, 30.0, max_activations=2)
    session, commitments = book_of(course, night, seldom, n_mtu=8, t_s=0)
    kw = {bid.id: np.array(bid.quantity_kw) for bid in session.bids}
    free = {bid.direction: np.array(bid.quantity_kw) for bid in book_of(course, n_mtu=8, t_s=0)[0].bids}
    assert kw["aggregator/up/cell/n@0@0"].tolist() == [0.0] * 4 + [60.0] * 4
    for direction, name in ((UP, "n"), (DOWN, "s")):
        both = kw[f"aggregator/{direction.value}/cell/{name}@0@0"] + kw[f"aggregator/{direction.value}/cell/0@0"]
        assert both == pytest.approx(free[direction])
    assert [each for each in session.couplings if isinstance(each, ActivationLimit)] == [
        ActivationLimit("cell", activations_max=2)
    ]
    assert len(session.couplings) == 2
    assert {each.contract: sum(each.window) for each in commitments} == {"n": 4, "s": 8}


def test_a_course_sold_by_contract_is_around_the_schedule_of_the_gate():
    course = Course(fleet_of(cell=BATTERY))
    session, _ = book_of(course, contract("n", "cell", UP, 60.0), n_mtu=4, t_s=MTU_S, spot=False)
    assert session.courses == {"cell"}
    course.memory = course.fleet.ordered(course.memory, [session], [award_of(session.bids[0], 0.0, 20.0, 0.0, 0.0)])
    assert course.one("cell").plan_kw == {2: -20.0}
    assert set(course.one("cell").fixed_kw) == {1, 2, 3, 4}
    assert bids_of(course.fleet.offered(course.memory, MTU_S, expected(), 0), UP) == {}
