"""Memories and open sessions of an aggregator as JSON: exact, and a run goes on from them as if never cut."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from fleet_runs import BATTERY, MTU_S, Course, award_of, fleet_of

from cosim.domain.market import Direction
from cosim.flexibility.fleet_memory import memory_from_json, memory_to_json
from cosim.flexibility.session_json import session_from_json, session_to_json

VEHICLE = {"p_max_kw": 7.3, "stays": [{"arrive": "01:00", "depart": "06:30", "need_kwh": 11.7}], "charging": "evenly"}
RISK = {"delivery": {"shortfall": 0.31, "between_outages": "3h", "outage": "40min"}}
ALL = {
    "load": {"pods": ["A"], "load": {"curtailable": 0.37, "rebound": [0.41, 0.13]}, "aggregator": "one"} | RISK,
    "sun": {"pods": ["C"], "pv": {}, "aggregator": "one"} | RISK,
    "battery": BATTERY | RISK,
    "car": {"pods": ["B"], "vehicle": VEHICLE} | RISK,
    "pump": {
        "pods": ["B"],
        "heat_pump": {"p_max_kw": 9.1, "capacity_kwh_per_k": 6.3, "resistance_k_per_kw": 2.1},
        "power_factor": 0.9,
    }
    | RISK,
}
SELLERS = {"one": {"delivery": "fixed_shares"}}
AHEAD = ((12 * MTU_S, 20),)


def through_json(fleet, course):
    """The same course with memory and sessions written, read, and written again."""
    text = json.dumps(
        [memory_to_json(fleet.groups, course.memory), *map(session_to_json, course.sessions)], allow_nan=False
    )
    saved, *sessions = json.loads(text)
    other = Course(fleet, course.half)
    other.memory, other.t_s = memory_from_json(fleet.groups, saved), course.t_s
    other.sessions = [session_from_json(fleet.units, session) for session in sessions]
    assert json.dumps([memory_to_json(fleet.groups, other.memory), *map(session_to_json, other.sessions)]) == text
    return other


def awards_at(course, k):
    """Of some offers a third or all, by turns."""
    bids = [bid for session in course.sessions for bid in session.bids]
    wanted = [bid for n, bid in enumerate(bids) if (n + k) % 3 == 0]
    return [award_of(bid, *(kw * (1.0, 1.0 / 3.0)[k % 2] for kw in bid.quantity_kw)) for bid in wanted]


def advance(course, k):
    course.mtu(ahead=AHEAD if k == 6 else ())
    return course.drawn_kw[-1], course.free_kw[-1], *course.planned[-1]


def test_a_run_goes_on_bit_for_bit_from_every_gate():
    """Cut between the offers and their awards, with a day-ahead session open after the seventh MTU."""
    fleet = fleet_of(SELLERS, **ALL)
    course, restored = Course(fleet, 0.1), []
    for k in range(30):
        found = advance(course, k)
        for other in restored:
            np.testing.assert_array_equal(np.concatenate(advance(other, k)), np.concatenate(found))
        restored = [*restored[-2:], through_json(fleet, course)]
        for each in (course, *restored):
            each.award(*awards_at(each, k))
    last = [memory_to_json(fleet.groups, each.memory) for each in (course, *restored)]
    assert all(saved == last[0] for saved in last)
    assert {len(course.one(name).fixed_kw) > 0 for name in ALL} == {True, False}


def test_a_session_keeps_all_but_what_couples_its_mtus():
    always = {name: {key: of for key, of in given.items() if key != "delivery"} for name, given in ALL.items()}
    course = Course(fleet_of(SELLERS, **always))
    course.mtu(ahead=AHEAD)
    session = course.sessions[0]
    assert session.couplings
    kept = session_from_json(course.fleet.units, json.loads(json.dumps(session_to_json(session))))
    assert kept.couplings == ()
    assert kept.courses == session.courses == {"battery", "car", "pump"}
    for name in ("t_s", "mtu_s", "n_mtu", "bids"):
        assert getattr(kept, name) == getattr(session, name)
    assert list(kept.members) == list(session.members)
    np.testing.assert_array_equal(kept.over_profile_kw, session.over_profile_kw)
    for name, member in session.members.items():
        assert replace(kept.members[name], band=member.band) == member
        for direction in Direction:
            np.testing.assert_array_equal(kept.members[name].sustained_kw(direction), member.sustained_kw(direction))
        if member.band.store is not None:
            for field in fields(member.band.store):
                np.testing.assert_array_equal(
                    getattr(kept.members[name].band.store, field.name), getattr(member.band.store, field.name)
                )


def test_arrays_given_back_cannot_be_written():
    course = Course(fleet_of(**ALL))
    course.mtu()
    kept = session_from_json(course.fleet.units, session_to_json(course.sessions[0]))
    with pytest.raises(ValueError, match="read-only"):
        kept.members["load"].band.up_kw[0] = 1.0


def test_before_the_first_mtu_nothing_is_known():
    fleet = fleet_of(**ALL)
    document = json.loads(json.dumps(memory_to_json(fleet.groups, fleet.start())))
    assert memory_to_json(fleet.groups, memory_from_json(fleet.groups, document)) == document
    assert (document["unreached"], document["held"], document["plan_kw"]) == (None, None, {})
