import json
from datetime import date, time

import numpy as np
import pytest
from pydantic import ValidationError

from cosim.domain.market import (
    TRANSITIONS,
    Award,
    Bid,
    BidState,
    Contract,
    Direction,
    EnergyBand,
    ForwardBid,
    Need,
    PriceStep,
    Product,
    RampLimit,
    ReliefNeed,
    Resource,
    StorageLimit,
    Window,
    advance,
    from_json,
    to_json,
)

BID = Bid(
    "b1", "AGG", "UP15", Direction.UP, 900, (1.0, 0.1 + 0.2), (PriceStep(2.0, 0.1), PriceStep(3.0, 0.3)),
    shares=(("r1", 0.25), ("r2", 0.75)), exclusive_group="g", submitted_s=5,
)  # fmt: skip
RECORDS = [
    BID,
    Product("UP15", Direction.UP, min_kw=1.0, max_kw=None),
    Resource("r1", "POD1", "load", "AGG", 10.0, 0.0, kvar_per_kw=0.3, rebound=(0.5, 0.25)),
    StorageLimit("r1", (1.0, -2.0), 5.0, 0.0, 10.0, 4.0, 0.95, 0.9),
    EnergyBand("r1", (1.0,), (0.0,), (2.0,)),
    RampLimit("r1", (1.0,), 2.0),
    Need("n", "BRP1", 900, (5.0, -5.0), ("system",), 0.2),
    Award("b1", "local", "DSO", 900, (1.0, 0.0), (0.1, 0.0), (0.1, 0.0)),
    ForwardBid("f1", "AGG", "UP15", Direction.UP, 100.0, 4.0, 0.1 + 0.2, (("r1", 1.0),), min_accept=0.5),
    ReliefNeed("i_max of L in MTU 3", 30.0, (("r1", 0.1 + 0.2), ("r2", -1.0))),
    Contract(
        "f1",
        "AGG",
        "DSO",
        "UP15",
        Direction.DOWN,
        0.1 + 0.2,
        4.0,
        0.3,
        Window(date(2026, 1, 1), date(2026, 3, 31), time(17, 15), time(0), (0, 1, 4), 3600),
        (("r1", 0.25), ("r2", 0.75)),
        max_activations=20,
    ),
]


def test_up_lowers_consumption_and_down_raises_it():
    assert Direction.UP.delta_p_kw(3.0) == -3.0
    assert Direction.DOWN.delta_p_kw(3.0) == 3.0
    np.testing.assert_array_equal(Direction.UP.delta_p_kw(np.array([1.0, 2.0])), [-1.0, -2.0])
    assert Direction.UP.opposite is Direction.DOWN
    assert Direction.DOWN.opposite is Direction.UP


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_json_and_back_is_the_same(record):
    assert from_json(type(record), json.loads(json.dumps(to_json(record)))) == record


def test_reading_json_reports_all_that_is_wrong():
    document = to_json(BID) | {"t_s": "soon", "colour": "red", "direction": "sideways"}
    with pytest.raises(ValidationError) as error:
        from_json(Bid, document)
    assert {fault["loc"][0] for fault in error.value.errors()} == {"t_s", "colour", "direction"}


def test_who_may_deliver():
    assert BID.members == ("r1", "r2")
    assert Bid("b", "A", "P", Direction.UP, 0, (1.0,), (PriceStep(1.0, 1.0),), resource="r").members == ("r",)
    assert Bid("b", "A", "P", Direction.UP, 0, (1.0,), (PriceStep(1.0, 1.0),), any_of=("r", "s")).members == ("r", "s")


def test_life_of_a_bid_from_submission_to_settlement():
    state = BidState.SUBMITTED
    for then in ("validated", "awarded", "activated", "measured", "settled"):
        state = advance(state, BidState(then))
    assert state is BidState.SETTLED
    state = BidState.VALIDATED
    for then in ("residual", "forwarded", "awarded"):
        state = advance(state, BidState(then))


def test_a_step_that_is_not_in_the_table_is_refused():
    with pytest.raises(ValueError, match=r"validated cannot become settled; allowed: awarded, expired, residual"):
        advance(BidState.VALIDATED, BidState.SETTLED)
    with pytest.raises(ValueError, match="allowed: nothing"):
        advance(BidState.REJECTED, BidState.VALIDATED)


def test_every_state_is_in_the_table_and_can_be_reached():
    assert set(TRANSITIONS) == set(BidState)
    reached = {BidState.SUBMITTED}
    while more := {then for now in reached for then in TRANSITIONS[now]} - reached:
        reached |= more
    assert reached == set(BidState)


def test_a_bid_at_another_time_is_the_same_but_for_that() -> None:
    later = BID.at(1800)
    assert (BID.t_s, later.t_s) == (900, 1800)
    assert to_json(later) == {**to_json(BID), "t_s": 1800}
    assert later.at(900) == BID
