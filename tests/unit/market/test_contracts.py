from dataclasses import replace
from datetime import UTC, date, datetime, time

import numpy as np
import pytest
from scipy.optimize import linprog
from small_market import DOWN, UP, bid, case, kw, network, resources

from cosim.clock import Clock
from cosim.domain.market import Award, Bid, Contract, PriceStep, Window
from cosim.errors import BidError
from cosim.market.book import check_case
from cosim.market.clearing import clear
from cosim.market.contracts import (
    activation_limits,
    availability_eur,
    availability_factor,
    calls,
    check_contracts,
    contracts_as_bids,
    in_window,
    obligations,
    window_h,
)
from cosim.market.highs import Highs
from cosim.market.pricing import awards
from cosim.market.reference import Reference

MONDAY = Clock(datetime(2026, 1, 5, tzinfo=UTC), 3600, 24 * 7, 3600)
ALWAYS = Window(date(2026, 1, 5), date(2026, 1, 11))
NET = network([80.0, 40.0, 30.0], i_max_a=120.0)  # 30 A too much


def contract(name, committed_kw, strike, window=ALWAYS, **more):
    """Of the resource that its name begins with."""
    more.setdefault("shares", ((name.split()[0], 1.0),))
    return Contract(name, "A", "DSO", "P", UP, committed_kw, 10.0, strike, window, **more)


def award(name, *quantity):
    zeros = (0.0,) * len(quantity)
    return Award(name, "local", "DSO", 0, quantity, zeros, zeros)


def owed(contracts, free=(), n_mtu=1, t_s=0, **more):
    return obligations(contracts, MONDAY, t_s, n_mtu, free, **more)


def book(contracts, free=(), **more):
    return (*contracts_as_bids(owed(contracts, free, **more)), *free)


def offered(contracts, free=(), **more):
    return {each.id: each.quantity_kw for each in contracts_as_bids(owed(contracts, free, **more))}


CALENDAR = Window(date(2026, 1, 5), date(2026, 1, 8), time(17), time(20), weekdays=(0, 2, 3))  # Mon, Wed, Thu


def hours_of(window, clock=MONDAY, n_mtu=24 * 7):
    return np.flatnonzero(in_window(window, clock, 0, n_mtu)).tolist()


def test_a_window_holds_hours_of_weekdays_between_dates():
    assert hours_of(CALENDAR) == [24 * day + hour for day in (0, 2, 3) for hour in (17, 18, 19)]
    assert window_h(CALENDAR) == 9.0
    assert in_window(CALENDAR, MONDAY, 18 * 3600, 3).tolist() == [True, True, False]


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins():
    night = replace(CALENDAR, begin=time(22), end=time(2), first_day=date(2026, 1, 4), last_day=date(2026, 1, 5))
    assert hours_of(replace(night, weekdays=(6,))) == [0, 1]
    assert hours_of(replace(night, weekdays=(0,))) == [22, 23, 24, 25]
    assert window_h(replace(night, weekdays=(0, 6))) == 8.0


def test_a_window_is_in_local_time():
    assert hours_of(replace(CALENDAR, weekdays=(0,), utc_offset_s=3600)) == [16, 17, 18]
    assert hours_of(replace(CALENDAR, weekdays=(2,), begin=time(0), end=time(2), utc_offset_s=3600)) == [47, 48]


def test_all_day():
    assert hours_of(ALWAYS) == list(range(24 * 7))
    assert window_h(ALWAYS) == 24.0 * 7.0


def test_an_obligatory_bid_in_the_window():
    made = contract("P0 c", 25.0, 0.3, CALENDAR, signed_s=-86400)
    (found,) = contracts_as_bids(owed([made], t_s=16 * 3600, n_mtu=3))
    assert found == Bid(
        "contract P0 c", "A", "P", UP, 16 * 3600, (0.0, 25.0, 25.0), (PriceStep(25.0, 0.3),),
        shares=(("P0", 1.0),), submitted_s=-86400,
    )  # fmt: skip
    assert contracts_as_bids(owed([made], t_s=0, n_mtu=16)) == ()


@pytest.mark.parametrize(("own", "rest_kw"), [
    (bid("P0 own", 25.0, 0.3), None),
    (bid("P0 own", 40.0, 0.1), None),
    (bid("P0 own", 10.0, 0.3), 15.0),
    (bid("P0 own", 25.0, 0.31), 25.0),
    (bid("P1 own", 25.0, 0.1), 25.0),
    (bid("P0 own", 25.0, 0.1, DOWN), 25.0),
    (replace(bid("P0 own", 25.0, 0.1), seller="B"), 25.0),
    (bid("P0 own", 25.0, 0.1, min_accept=0.5), 25.0),
    (bid("P0 own", 25.0, 0.1, block=True), 25.0),
    (bid("P0 own", 25.0, 0.1, exclusive_group="g"), 25.0),
    (bid("P0 own", 25.0, 0.1, resource=None, shares=(("P0", 1.0),)), None),
    (replace(bid("P0 own", 30.0, 0.1), steps=(PriceStep(8.0, 0.1), PriceStep(7.0, 0.3), PriceStep(15.0, 0.4))), 10.0),
])  # fmt: skip
def test_what_the_seller_offers_itself_at_the_strike_or_less_is_not_inserted(own, rest_kw):
    found = offered([contract("P0 c", 25.0, 0.3)], [own])
    assert found == ({} if rest_kw is None else {"contract P0 c": (rest_kw,)})


def test_an_own_offer_counts_by_mtu_and_for_one_contract_only():
    """The dearer contract gets what the cheaper one does not need: 30 - 20 in the first hour."""
    two = [contract("P0 dear", 25.0, 0.5), contract("P0 cheap", 20.0, 0.3)]
    own = [bid("P0 own", [30.0, 0.0], 0.2), bid("P0 more", [0.0, 5.0], 0.4)]
    assert offered(two, own, n_mtu=2) == {"contract P0 cheap": (0.0, 20.0), "contract P0 dear": (15.0, 20.0)}
    assert [each.own_kw.tolist() for each in owed(two, own, n_mtu=2)] == [[20.0, 0.0], [10.0, 5.0]]


def test_no_more_than_the_seller_declared_to_have():
    made = [contract("P0 c", 25.0, 0.3)]
    declared = {"P0 c": (25.0, 10.0, 0.0, 99.0)}
    assert offered(made, n_mtu=4, available_kw=declared) == {"contract P0 c": (25.0, 10.0, 0.0, 25.0)}
    (one,) = owed(made, n_mtu=4, available_kw=declared)
    assert one.offered_kw.tolist() == [25.0, 10.0, 0.0, 25.0]
    (with_own,) = owed(made, [bid("P0 own", [0.0, 12.0, 12.0, 12.0], 0.3)], n_mtu=4, available_kw=declared)
    assert with_own.offered_kw.tolist() == [25.0, 12.0, 12.0, 25.0]


def test_a_contract_that_was_called_its_most_times_owes_nothing_and_counts_as_offered():
    made = [contract("P0 c", 25.0, 0.3, max_activations=3)]
    assert offered(made, activated={"P0 c": 2}) == {"contract P0 c": (25.0,)}
    assert offered(made, activated={"P0 c": 3}) == {}
    (spent,) = owed(made, n_mtu=2, activated={"P0 c": 3})
    assert spent.offered_kw.tolist() == [25.0, 25.0]


def test_calls_left_limit_a_longer_clearing():
    made = [contract("P0 c", 50.0, 0.3, max_activations=3), contract("P1 d", 40.0, 5.0)]
    due = owed(made, n_mtu=3, activated={"P0 c": 1})
    asked = case(contracts_as_bids(due), [NET] * 3, couplings=activation_limits(due))
    cleared = clear(asked).require_solved()
    found = kw(cleared)
    assert sorted(found["contract P0 c"]) == pytest.approx([0.0, 30.0, 30.0])
    assert sum(found["contract P1 d"]) == pytest.approx(30.0)
    bought = awards(cleared, "pay_as_bid", "local", "DSO")
    assert [calls(each, (), bought) for each in due] == [2, 1]
    assert activation_limits(owed(made, n_mtu=2, activated={"P0 c": 1})) == ()


def test_a_call_is_an_mtu_in_which_the_contract_or_what_replaces_it_is_bought():
    (due,) = owed([contract("P0 c", 50.0, 0.3)], own := [bid("P0 own", [0.0, 50.0], 0.2)], n_mtu=2)
    cleared = clear(case([*contracts_as_bids([due]), *own, bid("P1 b", [9.0, 9.0], 0.1)], [NET, NET]))
    assert calls(due, own, awards(cleared, "pay_as_bid", "local", "DSO")) == 2
    (evening,) = owed([contract("P0 c", 50.0, 0.3, CALENDAR)], own, n_mtu=2, t_s=16 * 3600)
    assert calls(evening, own, [award("P0 own", 50.0, 50.0)]) == 1
    nothing = clear(case([*contracts_as_bids([due]), *own], [network([1.0, 1.0])] * 2))
    assert calls(due, own, awards(nothing, "pay_as_bid", "local", "DSO")) == 0


CONTRACTS = [contract("P0 c", 25.0, 0.3), contract("P1 c", 20.0, 0.2)]
FREE = [bid("P2 a", 10.0, 0.1), bid("P2 b", 10.0, 0.25), bid("P2 c", 10.0, 0.9)]


def test_without_free_bids_the_dso_calls_contracts_by_strike():
    """Forward only: the cheapest strikes that keep the limit, 30 of 20 + 25 kW."""
    by_hand = linprog([0.2, 0.3], A_ub=[[-1.0, -1.0]], b_ub=[-30.0], bounds=[(0, 20), (0, 25)])
    cleared = clear(case(book(CONTRACTS), NET)).require_solved()
    assert kw(cleared) == pytest.approx({"contract P1 c": by_hand.x[0], "contract P0 c": by_hand.x[1]})
    assert cleared.cost_eur == pytest.approx(by_hand.fun) == pytest.approx(20 * 0.2 + 10 * 0.3)


def test_without_contracts_the_book_is_the_free_bids():
    assert book([], FREE) == tuple(FREE)


@pytest.mark.parametrize("solver", [Highs(), Reference("cbc"), Reference("highs")], ids=["fast", "cbc", "highs"])
def test_an_empty_book(solver):
    empty = clear(case(book([]), network([1.0, 1.0])), solver)
    assert empty.awarded_kw.shape == (1, 0)
    assert clear(case(book([]), NET), solver).unsolved[0].excess == pytest.approx(30.0)


def test_free_bids_compete_with_contracts_in_one_clearing():
    cleared = clear(case(book(CONTRACTS, FREE), NET))
    assert kw(cleared) == pytest.approx(
        {"P2 a": 10.0, "contract P1 c": 20.0, "P2 b": 0.0, "contract P0 c": 0.0, "P2 c": 0.0}
    )
    assert cleared.cost_eur == pytest.approx(10 * 0.1 + 20 * 0.2)


def test_contract_and_free_bid_beyond_the_capability_of_one_pod():
    small = resources(3) | {"P0": replace(resources(1)["P0"], up_kw=30.0)}
    with pytest.raises(BidError, match="bids contract P0 c, P0 free offer more up than is registered, in MTU 0"):
        check_case(case(book(CONTRACTS, [bid("P0 free", 6.0, 0.4)]), NET, small))
    check_case(case(book(CONTRACTS, [bid("P0 free", 5.0, 0.4)]), NET, small))
    check_case(case(book(CONTRACTS, [bid("P0 own", 30.0, 0.3)]), NET, small))


EVENING = contract("P0 c", 100.0, 0.3, CALENDAR, availability_full=0.9, availability_zero=0.5)  # 9 h, 10 EUR/kW


@pytest.mark.parametrize(("kw_of_hours", "factor", "eur"), [
    ([100.0] * 9, 1.0, 1000.0),
    ([100.0] * 8 + [10.0], 0.9, 1000.0),
    ([100.0] * 8 + [0.0], 8 / 9, 1000.0 * 8 / 9 / 0.9),
    ([90.0] * 9, 0.9, 1000.0),
    ([45.0] * 9, 0.45, 0.0),
    ([50.0] * 9, 0.5, 1000.0 * 0.5 / 0.9),
    ([900.0] * 4 + [0.0] * 5, 4 / 9, 0.0),
    ([0.0] * 9, 0.0, 0.0),
    ([100.0] * 3, 1.0, 1000.0 / 3.0),
    ([], 1.0, 0.0),
])  # fmt: skip
def test_availability_payment(kw_of_hours, factor, eur):
    given = np.array(kw_of_hours)
    assert availability_factor(EVENING, given) == pytest.approx(factor)
    assert availability_eur(EVENING, given, 3600) == pytest.approx(eur)


def test_availability_of_more_than_the_window():
    with pytest.raises(ValueError, match="10 MTUs of 3600 s are more than its window has"):
        availability_eur(EVENING, np.full(10, 100.0), 3600)
    assert availability_eur(EVENING, np.full(36, 100.0), 900) == pytest.approx(1000.0)


@pytest.mark.parametrize("load_kw", [10.0, 80.0])
def test_availability_is_paid_whether_or_not_a_contract_is_called(load_kw):
    due = owed([EVENING], n_mtu=24 * 4)
    day = [network([load_kw, 40.0], i_max_a=100.0)] * (24 * 4)
    cleared = clear(case(contracts_as_bids(due), day))
    assert bool(cleared.awarded_kw.any()) is (load_kw > 60.0)
    assert availability_eur(EVENING, due[0].offered_kw, 3600) == pytest.approx(1000.0)


@pytest.mark.parametrize(("wrong", "words"), [
    ({"committed_kw": -1.0}, "a commitment must be a number above 0 kW; got -1.0"),
    ({"committed_kw": float("nan")}, "a commitment must be a number above 0 kW; got nan"),
    ({"committed_kw": 1000.1}, "more up of P0 than is registered; got 1000.1 kW; allowed: 1000 kW"),
    ({"strike_eur_per_kwh": float("nan")}, "a price of utilisation must be a number; got nan"),
    ({"availability_eur_per_kw": float("inf")}, "a price of availability must be a number of 0 or more; got inf"),
    ({"shares": (("P0", 0.5), ("P0", 0.5))}, "shares must add up to 1, each resource once"),
    ({"shares": (("P0", 1.5), ("P1", -0.5))}, "the share of P1 must be above 0; got -0.5"),
    ({"availability_zero": 0.95}, "got availability_zero 0.95, availability_full 0.9"),
    ({"availability_full": 0.0, "availability_zero": 0.0}, "full above 0"),
    ({"max_activations": 0}, "max_activations must be 1 or more, or none; got 0"),
    ({"window": replace(ALWAYS, last_day=date(2026, 1, 4))}, "its window ends before it begins"),
    ({"window": replace(ALWAYS, weekdays=())}, "its window has no day; got weekdays [] from 2026-01-05 to 2026-01-11"),
    ({"window": replace(ALWAYS, weekdays=(0,), first_day=date(2026, 1, 6))}, "its window has no day; got weekdays [0]"),
    ({"window": replace(ALWAYS, weekdays=(1, 7))}, "a weekday must be in 0 (Monday)..6; got [7]"),
    ({"window": replace(ALWAYS, begin=time(17, 15), end=time(19))},
     "begin of its window lies within an MTU; got 17:15:00"),
])  # fmt: skip
def test_wrong_contracts(wrong, words):
    with pytest.raises(BidError) as error:
        check_contracts([replace(contract("P0 c", 25.0, 0.3), **wrong)], resources(2), MONDAY)
    assert [words in str(fault) for fault in error.value.faults] == [True]


def test_all_faults_of_all_contracts():
    bad = contract("P0 c", -1.0, float("nan"), replace(ALWAYS, weekdays=()))
    with pytest.raises(BidError) as error:
        check_contracts([bad, contract("P9 c", 1.0, 0.3), bad], resources(2), MONDAY)
    assert len(error.value.faults) == 1 + 3 + 1 + 3
    check_contracts(CONTRACTS, resources(2), MONDAY)


def test_a_window_begins_with_an_mtu_of_the_run():
    late = Clock(datetime(2026, 1, 5, 0, 15, tzinfo=UTC), 900, 96, 3600)
    with pytest.raises(BidError) as error:
        check_contracts([replace(CONTRACTS[0], window=CALENDAR)], resources(1), late)
    assert len(error.value.faults) == 2
    quarter = replace(CALENDAR, begin=time(17, 15), end=time(19, 15))
    check_contracts([replace(CONTRACTS[0], window=quarter)], resources(1), late)
    assert hours_of(replace(quarter, weekdays=(0,)), late, 24) == [17, 18]
