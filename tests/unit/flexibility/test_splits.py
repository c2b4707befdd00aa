import numpy as np
import pytest

from cosim.domain.frames import frozen
from cosim.domain.market import Award, Bid, Direction, PriceStep, Resource
from cosim.flexibility.band import FlexibilityBand
from cosim.flexibility.disaggregation import divide_awards
from cosim.flexibility.offers import Member
from cosim.flexibility.session import Session
from cosim.flexibility.splits import call_of, netted, splits
from cosim.market.delivery import check_calls

MTU_S = 900
UP, DOWN = Direction.UP, Direction.DOWN
POD_OF = {"cheap": "P1", "dear": "P2", "third": "P1"}


def member(name, kw, price):
    band = FlexibilityBand(MTU_S, frozen(np.zeros(2)), frozen([kw, kw]), frozen([kw, kw]), None)
    return Member(Resource(name, POD_OF[name], "load", "agg", 1000.0, 1000.0), band, price, price)


MEMBERS = {"cheap": member("cheap", 6.0, 0.1), "dear": member("dear", 10.0, 0.3), "third": member("third", 5.0, 0.2)}


def bid(name, direction=UP, **who):
    return Bid(name, "agg", direction.value, direction, MTU_S, (16.0, 16.0), (PriceStep(16.0, 0.1),), **who)


def award(name, *kw, stage="local", buyer="dso"):
    return Award(name, stage, buyer, MTU_S, kw, (0.1,) * len(kw), (0.1,) * len(kw))


def session(*bids):
    return Session(MTU_S, 0, MTU_S, 2, bids, (), MEMBERS, {})


def ordered(split):
    return {name: kw.tolist() for name, kw in split.ordered_kw.items()}


def test_one_resource_delivers_all_of_its_bid():
    (split,) = splits([session(bid("one", resource="dear"))], [award("one", 3.0, 0.0), award("of another", 1.0, 1.0)])
    assert ordered(split) == {"dear": [3.0, 0.0]}
    assert (split.seller, split.direction, split.gate_s) == ("agg", UP, 0)
    assert list(split.rows()) == [(MTU_S, "dear", 3.0)]


def test_fixed_shares_divide_every_award():
    (split,) = splits([session(bid("both", DOWN, shares=(("cheap", 0.25), ("dear", 0.75))))], [award("both", 8.0, 4.0)])
    assert ordered(split) == {"cheap": [2.0, 1.0], "dear": [6.0, 3.0]}


def test_of_awards_that_are_divided_together_each_has_its_part_of_every_member():
    """10 kW in all: 6 by the cheap one, 4 by the dear one, so each award gets three fifths from the cheap one."""
    pool = {"any_of": ("cheap", "dear")}
    session_of_two = session(bid("first", **pool), bid("second", **pool))
    awards = [award("first", 2.0, 0.0), award("second", 8.0, 1.0)]
    first, second = splits([session_of_two], awards)
    np.testing.assert_allclose(ordered(first)["cheap"], [1.2, 0.0])
    np.testing.assert_allclose(ordered(second)["cheap"], [4.8, 1.0])
    np.testing.assert_allclose(ordered(second)["dear"], [3.2, 0.0])
    changes, _ = divide_awards(session_of_two.bids, awards, MEMBERS)
    for name in pool["any_of"]:
        np.testing.assert_allclose(-first.ordered_kw[name] - second.ordered_kw[name], changes[name])


def test_orders_are_the_award_also_where_members_cannot_deliver_it():
    (split,) = splits([session(bid("any", any_of=("cheap", "dear")))], [award("any", 20.0, 1.0)])
    np.testing.assert_allclose(sum(split.ordered_kw.values()), [20.0, 1.0])
    np.testing.assert_allclose(split.ordered_kw["cheap"], [20.0 * 6.0 / 16.0, 1.0])
    check_calls([call_of(split, POD_OF)])


def test_a_call_is_by_meter():
    (split,) = splits(
        [session(bid("all", shares=(("cheap", 0.5), ("dear", 0.2), ("third", 0.3))))], [award("all", 10.0, 0.0)]
    )
    call = call_of(split, POD_OF)
    assert [meter for meter, _ in call.ordered_kw] == ["P1", "P2"]
    np.testing.assert_allclose([kw for _, kw in call.ordered_kw], [[8.0, 0.0], [2.0, 0.0]])
    assert (call.award, call.seller, call.direction) == (split.award, "agg", UP)
    check_calls([call])


def test_what_a_later_stage_gives_back_is_taken_off_the_last_award_first():
    awards = [
        award("b", 4.0, 4.0, stage="first", buyer="DSO"),
        award("b", 3.0, 0.0, stage="second", buyer="TSO"),
        award("other", 1.0, 1.0),
        award("b", -5.0, -4.0, stage="third", buyer="TSO"),
    ]
    kept = {(each.bid, each.stage): each.quantity_kw for each in netted(awards)}
    assert kept == {("b", "first"): (2.0, 0.0), ("other", "local"): (1.0, 1.0)}
    (split,) = splits([session(bid("b", resource="dear"))], awards)
    assert ordered(split) == {"dear": [2.0, 0.0]}


def test_an_award_that_is_not_given_back_is_left_as_it_is():
    awards = [award("b", 0.1, 0.3), award("b", 0.0, 0.0)]
    assert netted(awards) == awards[:1]


def test_no_award_no_split():
    assert splits([session(bid("one", resource="dear"))], []) == ()
    assert splits([], [award("one", 1.0, 1.0)]) == ()


@pytest.mark.parametrize("n", [1, 3])
def test_gates_of_one_mtu_do_not_mix(n):
    """Two sessions of the same MTU have bids of their own ids."""
    early, late = session(bid("x@0", resource="cheap")), session(bid("x@900", resource="cheap"))
    found = splits([early, late][:n], [award("x@900", 1.0, 0.0), award("x@0", 2.0, 0.0)])
    expected = {"x@0": [2.0, 0.0], "x@900": [1.0, 0.0]} if n > 1 else {"x@0": [2.0, 0.0]}
    assert {split.award.bid: ordered(split)["cheap"] for split in found} == expected
