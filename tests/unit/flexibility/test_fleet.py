"""Offers, orders, declarations and deliveries of an aggregator's units, MTU by MTU."""

import numpy as np
import pytest
from fleet_runs import BATTERY, MTU_S, P_KW, Course, award_of, bids_of, fleet_of

from cosim.domain.market import Direction, PriceStep
from cosim.flexibility.disaggregation import divide_awards

UP, DOWN = Direction.UP, Direction.DOWN
LOAD = {"pods": ["A"], "load": {"curtailable": 0.5}}
PV = {"pods": ["C"], "pv": {}}
CAR = {
    "pods": ["B"],
    "vehicle": {
        "p_max_kw": 20,
        "stays": [{"arrive": "01:00", "depart": "05:00", "need_kwh": 36.8}],
        "spread": "1s",
        "charging": "evenly",
    },
}
PUMP = {"pods": ["B"], "heat_pump": {"p_max_kw": 9, "capacity_kwh_per_k": 6, "resistance_k_per_kw": 2, "cop": 3}}
ALWAYS_OUT = {"between_outages": "1s", "outage": "1000d"}


def test_of_a_profile_the_lower_edge_of_the_band_is_offered():
    course = Course(fleet_of(load=LOAD, sun=PV), half=0.2)
    session = course.mtu()
    assert bids_of(session, UP) == {"load": pytest.approx(0.5 * 0.8 * 120.0)}
    assert bids_of(session, DOWN) == {"sun": pytest.approx(0.8 * 50.0)}
    assert (session.t_s, session.n_mtu) == (MTU_S, 1)
    assert {bid.submitted_s for bid in session.bids} == {0}


def test_an_award_is_delivered_in_its_mtu_around_what_the_profile_turns_out_to_be():
    course = Course(fleet_of(load=LOAD, sun=PV), half=0.2)
    up, down = course.mtu().bids
    course.award(award_of(up, 30.0), award_of(down, 20.0))
    course.mtu(P_KW * 1.1)
    assert course.drawn("load") == [pytest.approx(1.1 * 120.0 - 30.0)]
    assert course.drawn("sun") == [pytest.approx(-1.1 * 50.0 + 20.0)]
    assert course.free_kw[-1] == pytest.approx([132.0, -55.0])
    course.mtu()
    assert course.drawn_kw[-1] == pytest.approx([120.0, -50.0])


def test_what_is_declared_and_sold_is_over_the_profile_with_its_reactive_power():
    course = Course(fleet_of(load=LOAD, car=CAR), half=0.2)
    session = course.mtu()
    declared = course.fleet.declared(course.memory, [session], 4)[0]
    assert not declared["p_kw"].any()
    course.award(award_of(session.bids[0], 30.0))
    course.mtu()
    p_kw, q_kvar = course.planned[-1]
    assert p_kw == pytest.approx([-30.0, 0.0, 0.0, 0.0])
    assert q_kvar == pytest.approx([-10.0, 0.0, 0.0, 0.0])
    added = course.fleet.added(course.drawn_kw[-1], P_KW)
    assert added[0] == pytest.approx(p_kw)
    assert added[1] == pytest.approx(q_kvar)


def test_rebound_is_declared_for_the_mtus_in_which_it_comes():
    """Half of 40 kW in the next MTU, a quarter in the one after it; then nothing."""
    course = Course(fleet_of(load={"pods": ["A"], "load": {"curtailable": 0.5, "rebound": [0.5, 0.25]}}))
    course.award(award_of(course.mtu().bids[0], 40.0))
    planned, drawn, declared = [], [], []
    for _ in range(4):
        session = course.mtu()
        declared.append(course.fleet.declared(course.memory, [session], 4)[0]["p_kw"][0, 0])
        planned.append(course.planned[-1][0][0])
        drawn += course.drawn("load")
    assert planned == pytest.approx([-40.0, 20.0, 10.0, 0.0])
    assert drawn == pytest.approx([80.0, 140.0, 130.0, 120.0])
    assert declared == pytest.approx([20.0, 10.0, 0.0, 0.0])
    assert np.concatenate(course.free_kw) == pytest.approx(120.0), "never activated, it never pays back"


def test_a_battery_declares_how_it_returns_to_rest():
    """From 100 kWh, 25 kWh are given at 80 %: 31.25 kWh are missing, and come back at 30 kW."""
    course = Course(fleet_of(battery=BATTERY))
    course.award(award_of(course.mtu().bids[0], 100.0))
    session = course.mtu()
    assert course.drawn("battery") == [-100.0]
    declared = course.fleet.declared(course.memory, [session], 4)[0]
    assert declared["p_kw"][0] == pytest.approx([0.0, 0.0, 0.0, 30.0])
    assert (bids_of(session, UP), bids_of(session, DOWN)) == ({"battery": 130.0}, {"battery": 70.0})
    course.mtu()
    assert course.drawn("battery") == [30.0]
    assert course.planned[-1][0][3] == 30.0
    assert course.one("battery").free.e_kwh == 100.0


def test_a_battery_offers_from_its_baseline_to_its_limits():
    session = Course(fleet_of(battery=BATTERY)).mtu()
    assert bids_of(session, UP) == {"battery": 100.0}
    assert bids_of(session, DOWN) == {"battery": 100.0}
    small = {"pods": ["B"], "battery": {"p_max_kw": 50, "e_max_kwh": 20, "efficiency": 1.0, "reserve_kwh": 8}}
    session = Course(fleet_of(battery=small)).mtu()
    assert bids_of(session, UP) == {"battery": pytest.approx(8.0)}, "2 kWh above the reserve in a quarter of an hour"
    assert bids_of(session, DOWN) == {"battery": pytest.approx(40.0)}


def test_a_vehicle_and_a_heat_pump_are_declared_beside_the_profile():
    """36.8 kWh at 92 % in four hours are 10 kW; a heat pump holds 20 degrees at 5 outdoors with 15 / 2 / 3 kW."""
    course = Course(fleet_of(car=CAR, pump=PUMP))
    course.mtus(8)
    assert course.planned[-1][0] == pytest.approx([0.0, 10.0 + 2.5, 0.0, 0.0])
    assert course.drawn_kw[-1] == pytest.approx([10.0, 2.5])
    assert course.drawn_kw[2] == pytest.approx([0.0, 2.5]), "not there before one o'clock"
    session = course.sessions[-1]
    assert bids_of(session, UP)["car"] == pytest.approx(10.0)
    assert bids_of(session, DOWN)["car"] == pytest.approx(10.0)
    course.award(*(award_of(bid) for bid in session.bids if bid.direction is UP))
    course.mtu()
    assert course.drawn("car") == [0.0]
    assert course.drawn("pump")[0] < 2.5
    course.mtu()
    assert course.drawn("car")[0] > 10.0, "the energy put off is made up for"
    assert course.planned[-1][0][1] == pytest.approx(sum(course.drawn_kw[-1]))


@pytest.mark.parametrize("step_s", [60, 300, 900])
def test_steps_within_an_mtu_hold_the_order(step_s):
    course = Course(fleet_of(step_s=step_s, battery=BATTERY, load=LOAD, pump=PUMP))
    session = course.mtu()
    course.award(*(award_of(bid) for bid in session.bids if bid.direction is UP))
    course.mtu()
    steps = MTU_S // step_s
    for name, power in (("battery", -100.0), ("load", 60.0)):
        assert course.drawn(name, steps) == pytest.approx([power] * steps)
    assert np.ptp(course.drawn("pump", steps)) < 1e-9
    assert course.one("battery").state.e_kwh == pytest.approx(100.0 - 25.0 / 0.8)


def test_a_unit_out_of_reach_offers_nothing_and_delivers_nothing():
    course = Course(fleet_of(load=LOAD | {"delivery": ALWAYS_OUT}, sun=PV))
    session = course.mtu()
    assert bids_of(session) == {"sun": 50.0}
    assert (course.one("load").unreached, course.one("sun").unreached) == (True, False)
    course.plan("load", {1: -30.0})
    course.mtu()
    assert course.drawn("load") == [120.0]
    assert course.planned[-1][0][0] == -30.0, "what was sold is what everyone else goes by"


def test_a_shortfall_takes_a_share_of_each_order():
    course = Course(fleet_of(load=LOAD | {"delivery": {"shortfall": 0.4}}))
    shares = []
    for _ in range(300):
        course.award(award_of(course.mtu().bids[0], 50.0))
        course.mtu()
        shares.append((120.0 - course.drawn("load")[0]) / 50.0)
    assert (min(shares), max(shares)) == (pytest.approx(0.6, abs=0.01), pytest.approx(1.0, abs=0.01))
    assert np.mean(shares) == pytest.approx(0.8, abs=0.02)


def test_another_resource_changes_no_draw():
    risky = {"delivery": {"shortfall": 0.5, "between_outages": "4h", "outage": "1h"}}
    load, others = LOAD | risky, {"sun": PV | risky, "battery": BATTERY | risky}

    def history(**resources):
        course, found = Course(fleet_of(**resources)), []
        for _ in range(100):
            session = course.mtu()
            found.append((course.drawn("load"), course.one("load").unreached))
            course.award(*(award_of(bid) for bid in session.bids if bid.resource == "load"))
        return found

    alone = history(load=load)
    assert {unreached for _, unreached in alone} == {True, False}
    assert len({power for (power,), _ in alone}) > 30
    assert history(load=load, **others) == alone
    assert history(**others, load=load) == alone
    assert history(load=load | {"aggregator": "another"}) != alone


THREE = {
    "a": LOAD | {"up_eur_per_kwh": 0.3, "aggregator": "one"},
    "b": {"pods": ["B"], "load": {"curtailable": 0.5}, "up_eur_per_kwh": 0.2, "aggregator": "one"},
    "c": PV | {"down_eur_per_kwh": 0.1, "aggregator": "two"},
    "d": BATTERY | {"up_eur_per_kwh": 0.5, "down_eur_per_kwh": 0.5, "aggregator": "two"},
}


def test_each_aggregator_offers_in_its_own_way():
    sellers = {"one": {"delivery": "any_split", "step_kw": 15, "min_accept": 0.5}, "default": {"min_kw": 80}}
    session = Course(fleet_of(sellers, **THREE)).mtu()
    split, up, down = session.bids
    assert (split.seller, split.any_of, split.quantity_kw, split.min_accept) == ("one", ("a", "b"), (90.0,), 0.5)
    assert split.steps == (PriceStep(40.0, 0.2), PriceStep(50.0, 0.3))
    assert [(bid.seller, bid.resource, bid.direction, bid.quantity_kw) for bid in (up, down)] == [
        ("two", "d", UP, (100.0,)),
        ("two", "d", DOWN, (100.0,)),
    ], "50 kW of the sun are less than is traded"
    assert up.min_accept == 0.0


def test_fixed_shares_are_those_of_what_is_offered():
    session = Course(fleet_of({"one": {"delivery": "fixed_shares"}}, **THREE)).mtu()
    bid = session.bids[0]
    assert (bid.shares, bid.quantity_kw) == ((("a", pytest.approx(0.6)), ("b", pytest.approx(0.4))), (100.0,))
    assert bid.steps[0].price_eur_per_kwh == pytest.approx(0.6 * 0.3 + 0.4 * 0.2)


@pytest.mark.parametrize(("delivery", "expected_kw"), [("any_split", (-10.0, -40.0)), ("fixed_shares", (-30.0, -20.0))])
def test_an_award_is_divided_among_the_aggregators_own_units(delivery, expected_kw):
    course = Course(fleet_of({"one": {"delivery": delivery}}, **THREE))
    session = course.mtu()
    course.award(award_of(session.bids[0], 50.0), award_of(session.bids[-1], 60.0))
    plans = [course.one(name).plan_kw for name in "abcd"]
    assert [plan.get(1, 0.0) for plan in plans] == pytest.approx([*expected_kw, 0.0, 60.0])
    changes, missing = divide_awards(session.bids, [award_of(session.bids[0], 50.0)], session.members)
    assert sum(kw[0] for kw in changes.values()) == pytest.approx(-50.0)
    assert missing == {}


def test_resources_of_a_seller_bid_by_perimeter():
    entries = {name: given | {"perimeter": f"P{name}"} for name, given in THREE.items() if name in "ab"}
    session = Course(fleet_of({"one": {"delivery": "any_split"}}, **entries)).mtu()
    assert [bid.any_of for bid in session.bids] == [("a",), ("b",)]
    assert len({bid.id for bid in session.bids}) == 2


# --- a day ahead ------------------------------------------------------------------------------------------------

NOON, MIDNIGHT, DAY = 48, 96, 96
TOMORROW = ((MIDNIGHT * MTU_S, DAY),)


def at_noon(sellers=None, **resources):
    """After 48 MTUs, with a session for all of the next day, and one for the next MTU."""
    course = Course(fleet_of(sellers, **resources))
    course.mtus(NOON - 1)
    course.mtu(ahead=TOMORROW)
    return course


def test_a_day_ahead_is_offered_by_mtu_with_what_couples_them():
    course = at_noon(load=LOAD, battery=BATTERY, car=CAR, pump=PUMP, sun=PV)
    day, _ = course.sessions
    up = bids_of(day, UP)
    assert {name: len(kw) for name, kw in up.items()} == dict.fromkeys(("load", "battery", "car", "pump"), DAY)
    assert up["load"] == pytest.approx((60.0,) * DAY)
    assert up["battery"] == pytest.approx((100.0,) * DAY), "the rated power: energy is told apart"
    assert np.flatnonzero(up["car"]).tolist() == list(range(4, 20)), "from one to five"
    kinds = {coupling.resource: type(coupling).__name__ for coupling in day.couplings}
    assert kinds == {"battery": "StorageLimit", "car": "EnergyBand", "pump": "EnergyBand"}
    assert day.over_profile_kw.shape == (DAY, 5)


def test_a_bid_in_shares_offers_a_day_ahead_what_is_held_in_all_mtus_together():
    """80 kWh above the reserve at 80 %: 64 kWh for 24 hours. One bid for each MTU, since their prices may differ."""
    day = at_noon({"default": {"delivery": "any_split"}}, battery=BATTERY).sessions[0]
    bids = [bid for bid in day.bids if bid.direction is UP]
    assert [np.flatnonzero(bid.quantity_kw).tolist() for bid in bids] == [[k] for k in range(DAY)]
    assert np.sum([bid.quantity_kw for bid in bids], axis=0) == pytest.approx(np.full(DAY, 64.0 / 24.0))


def test_the_baseline_of_a_unit_that_sold_a_course_is_fixed():
    """The battery gives 50 kW from 00:30 to 01:00, takes it back from 02:00 to 02:45, and stays at that all day; it
    does not return to rest by itself meanwhile."""
    course = at_noon(battery=BATTERY, load=LOAD)
    up, down = (
        next(b for b in course.sessions[0].bids if (b.resource, b.direction) == ("battery", d)) for d in (UP, DOWN)
    )
    given, taken = np.zeros(DAY), np.zeros(DAY)
    given[2:4], taken[8:11] = 50.0, 46.0
    course.award(award_of(up, *given), award_of(down, *taken))
    assert course.one("battery").fixed_kw == dict.fromkeys(range(MIDNIGHT, MIDNIGHT + DAY), 0.0)
    course.mtus(NOON)
    assert course.drawn("battery", NOON) == [0.0] * NOON
    course.mtus(DAY)
    assert course.drawn("battery", DAY) == pytest.approx((taken - given).tolist())
    assert [p[0][3] for p in course.planned[-DAY:]] == pytest.approx((taken - given).tolist())
    assert course.one("load").fixed_kw == {}, "a profile is what it is"
    course.mtus(1)
    assert course.one("battery").plan_kw == {}
    assert course.one("battery").fixed_kw == {}


def test_the_energy_of_a_course_that_is_sold_is_not_offered_again():
    course = at_noon(battery=BATTERY, sun=PV)
    bid = next(b for b in course.sessions[0].bids if b.resource == "battery")
    course.award(award_of(bid, *[0.0] * 20, 10.0, *[0.0] * 75))
    for mtu in range(NOON, MIDNIGHT + DAY - 1):
        assert set(bids_of(course.mtu())) == {"sun"}, mtu
    assert set(bids_of(course.mtu())) == {"sun", "battery"}, "for the first MTU after it"


def test_the_energy_of_a_course_that_is_offered_is_not_offered_beside_it():
    course = at_noon(battery=BATTERY, sun=PV, load=LOAD)
    day, now = course.sessions
    assert day.courses == {"battery"}
    assert set(bids_of(now)) == {"sun", "load"}
    assert set(bids_of(course.mtu())) == {"battery", "sun", "load"}, "nobody bought it"


def test_what_was_sold_of_a_profile_is_not_sold_again_nor_bought_back():
    course = at_noon(load=LOAD, sun=PV)
    for bid in course.sessions[0].bids:
        course.award(award_of(bid, *[25.0] * 4, *[0.0] * 92))
    course.mtus(NOON - 1)
    session = course.mtu()
    assert bids_of(session, UP) == {"load": pytest.approx(35.0)}
    assert bids_of(session, DOWN) == {"sun": pytest.approx(25.0)}
    declared = course.fleet.declared(course.memory, [session], 4)[0]["p_kw"]
    assert declared[0] == pytest.approx([-25.0, 0.0, 25.0, 0.0])
    course.award(*(award_of(bid, 10.0) for bid in session.bids))
    course.mtu()
    assert course.drawn_kw[-1] == pytest.approx([120.0 - 35.0, -50.0 + 35.0])


def test_the_state_at_midnight_is_that_after_the_course_of_today():
    """At noon of the second day the battery still has to give 40 kWh until midnight."""
    course = at_noon(battery=BATTERY)
    up = course.sessions[0].bids[0]
    assert up.direction is UP
    given = np.zeros(DAY)
    given[60:64] = 40.0
    course.award(award_of(up, *given))
    course.mtus(DAY - 1)
    course.mtu(ahead=((2 * MIDNIGHT * MTU_S, 8),))
    (limit,) = course.sessions[0].couplings
    course.mtus(NOON)
    assert course.one("battery").state.e_kwh == pytest.approx(100.0 - 40.0 / 0.8)
    assert limit.energy_kwh == pytest.approx(course.one("battery").state.e_kwh)


def test_an_award_for_a_course_is_delivered_whole():
    """Most of the sustained power of a battery and a heat pump in every MTU, together in one bid; 5 kW of the vehicle
    put off for an hour."""
    course = at_noon(
        {"two": {"delivery": "any_split"}},
        battery=BATTERY | {"aggregator": "two"},
        car=CAR,
        pump=PUMP | {"aggregator": "two"},
    )
    day = course.sessions[0]
    later = {(b.resource, b.direction): b for b in day.bids}
    course.award(
        *(award_of(b, *(0.95 * kw for kw in b.quantity_kw)) for b in day.bids if b.any_of and b.direction is UP),
        award_of(later["car", UP], *[0.0] * 8, *[5.0] * 4, *[0.0] * 84),
        award_of(later["car", DOWN], *[0.0] * 12, *[5.0] * 4, *[0.0] * 80),
    )
    course.mtus(NOON)
    plans = [course.one(name).plan_kw for name in course.names]
    course.mtus(DAY)
    for name, plan in zip(course.names, plans, strict=True):
        ordered = np.array([plan.get(MIDNIGHT + t, 0.0) for t in range(DAY)])
        assert ordered.any(), name
        assert course.drawn(name, DAY) == pytest.approx(
            day.over_profile_kw[:, course.names.index(name)] + ordered, abs=1e-6
        ), name
