from dataclasses import replace

import pytest
from small_market import bid, case, kw, network

from cosim.domain.market import Award, BidState
from cosim.errors import BidError, Fault
from cosim.market.clearing import clear
from cosim.market.ledger import (
    capped,
    carried,
    cleared,
    locked_kw,
    progressed,
    stage_bids,
    submitted,
    validated,
)
from cosim.market.pricing import awards

S = BidState
BIDS = [bid("P0 a", 30.0, 0.1), bid("P1 b", 20.0, 0.2), bid("P1 c", 20.0, 0.3)]


def award(name, *quantity, stage="local", buyer="DSO"):
    zeros = (0.0,) * len(quantity)
    return Award(name, stage, buyer, 0, quantity, zeros, zeros)


def valid(*bids):
    return validated(submitted(bids or BIDS), {})


def states(ledger):
    return {name: entry.state for name, entry in ledger.items()}


def test_bids_are_rejected_for_their_faults():
    ledger = validated(submitted(BIDS), {"P1 b": [Fault("no")], "P1 c": []})
    assert states(ledger) == {"P0 a": S.VALIDATED, "P1 b": S.REJECTED, "P1 c": S.VALIDATED}
    assert ledger["P1 b"].faults == (Fault("no"),)
    assert [each.id for each in stage_bids(ledger)] == ["P0 a", "P1 c"]
    assert states(validated(ledger, {"P0 a": [Fault("late")]})) == states(ledger)


def test_the_same_id_twice():
    with pytest.raises(BidError, match="bid P0 a: more than one bid of that id"):
        submitted([*BIDS, BIDS[0]])


def test_a_clearing_parts_bids_into_what_is_awarded_and_what_is_left():
    ledger = cleared(valid(), [b.id for b in BIDS], [award("P0 a", 30.0), award("P1 b", 5.0)])
    assert states(ledger) == {"P0 a": S.AWARDED, "P1 b": S.RESIDUAL, "P1 c": S.RESIDUAL}
    assert [entry.rest_kw for entry in ledger.values()] == [(0.0,), (15.0,), (20.0,)]
    assert [part.state for part in ledger["P1 b"].parts] == [S.AWARDED]
    assert locked_kw(ledger) == {"P0 a": (30.0,), "P1 b": (5.0,)}


def test_bids_outside_a_stage_stay_as_they_are():
    ledger = cleared(valid(), ["P0 a"], [])
    assert states(ledger) == {"P0 a": S.RESIDUAL, "P1 b": S.VALIDATED, "P1 c": S.VALIDATED}


def test_two_buyers_of_one_bid():
    ledger = cleared(valid(), ["P0 a"], [award("P0 a", 10.0), award("P0 a", 15.0, buyer="BRP")])
    assert ledger["P0 a"].awarded_kw == (25.0,)
    assert ledger["P0 a"].rest_kw == (5.0,)
    assert len(ledger["P0 a"].parts) == 2


def test_nothing_is_sold_twice():
    offers = valid(bid("P0 a", [30.0, 10.0], 0.1), BIDS[1])
    with pytest.raises(BidError) as error:
        cleared(offers, ["P0 a", "P1 b"], [award("P0 a", 20.0, 5.0), award("P0 a", 10.1, 5.1), award("P1 b", -1.0)])
    assert [str(fault) for fault in error.value.faults] == [
        "bid P0 a: stage local awards what is not on offer in MTU 0; got 30.1 kW; allowed: 0..30 kW",
        "bid P0 a: stage local awards what is not on offer in MTU 1; got 10.1 kW; allowed: 0..10 kW",
        "bid P1 b: stage local awards what is not on offer in MTU 0; got -1 kW; allowed: 0..20 kW",
    ]
    assert cleared(offers, ["P0 a"], [award("P0 a", 20.0, 5.0), award("P0 a", 10.0, 5.0)])["P0 a"].state is S.AWARDED


@pytest.mark.parametrize("stray", [award("P1 c", 1.0), award("P0 a", 1.0, 1.0), replace(award("P0 a", 1.0), t_s=900)])
def test_awards_of_bids_that_are_not_on_offer(stray):
    ledger = validated(submitted(BIDS), {"P1 c": [Fault("no")]})
    with pytest.raises(
        BidError, match=f"stage local: awarded a bid that is not on offer in these MTUs; got {stray.bid}"
    ):
        cleared(ledger, ["P0 a", "P1 c"], [stray])


def test_what_is_left_is_forwarded_capped_excluded_or_expires():
    ledger = cleared(valid(), [b.id for b in BIDS], [award("P0 a", 10.0)])
    with pytest.raises(BidError, match="awarded a bid that is not on offer"):
        cleared(ledger, ["P0 a"], [award("P0 a", 1.0, stage="global")])
    ledger = carried(capped(ledger, {"P0 a": [12.5]}), S.FORWARDED, ["P1 b"])
    ledger = carried(ledger, S.EXCLUDED, ["P1 c"])
    assert states(ledger) == {"P0 a": S.CAPPED, "P1 b": S.FORWARDED, "P1 c": S.EXCLUDED}
    assert {each.id: each.quantity_kw for each in stage_bids(ledger)} == {"P0 a": (22.5,), "P1 b": (20.0,)}
    ledger = cleared(ledger, ["P0 a", "P1 b"], [award("P0 a", 12.5, stage="global")])
    assert states(ledger) == {"P0 a": S.AWARDED, "P1 b": S.RESIDUAL, "P1 c": S.EXCLUDED}
    assert states(carried(ledger, S.EXPIRED, ["P1 b"]))["P1 b"] is S.EXPIRED


def test_what_is_awarded_stays_in_the_plan_though_the_rest_is_excluded():
    ledger = carried(cleared(valid(), ["P0 a"], [award("P0 a", 10.0)]), S.EXCLUDED, ["P0 a"])
    assert [each.quantity_kw for each in stage_bids(ledger) if each.id == "P0 a"] == [(10.0,)]
    assert locked_kw(ledger) == {"P0 a": (10.0,)}


def test_caps_keep_the_shape_of_a_block_and_do_not_cut_what_is_whole():
    block, whole = bid("P0 block", [40.0, 20.0], 0.1, block=True), bid("P1 all", [10.0, 10.0], 0.1, min_accept=1.0)
    ledger = cleared(valid(block, whole), ["P0 block", "P1 all"], [])
    ledger = capped(ledger, {"P0 block": [30.0, 10.0], "P1 all": [10.0, 9.9]})
    assert ledger["P0 block"].rest_kw == (20.0, 10.0)
    assert states(ledger) == {"P0 block": S.CAPPED, "P1 all": S.EXCLUDED}
    again = capped(cleared(valid(whole), ["P1 all"], []), {"P1 all": [10.0, 10.0]})
    assert states(again) == {"P1 all": S.CAPPED}


def test_parts_are_activated_measured_and_settled_one_by_one():
    first, second = award("P0 a", 10.0), award("P0 a", 5.0, buyer="BRP")
    ledger = cleared(valid(), ["P0 a"], [first, second])
    for then in (S.ACTIVATED, S.MEASURED, S.SETTLED):
        ledger = progressed(ledger, then, [first])
    ledger = progressed(ledger, S.EXPIRED, [second])
    assert [part.state for part in ledger["P0 a"].parts] == [S.SETTLED, S.EXPIRED]
    assert ledger["P0 a"].awarded_kw == (15.0,)
    with pytest.raises(ValueError, match="settled cannot become activated"):
        progressed(ledger, S.ACTIVATED, [first])


def test_steps_that_the_life_cycle_does_not_allow():
    with pytest.raises(ValueError, match="validated cannot become forwarded"):
        carried(valid(), S.FORWARDED, ["P0 a"])
    with pytest.raises(ValueError, match="rejected cannot become expired"):
        carried(validated(submitted(BIDS), {"P0 a": [Fault("no")]}), S.EXPIRED, ["P0 a"])


def test_a_ledger_is_not_changed():
    ledger = valid()
    cleared(ledger, ["P0 a"], [award("P0 a", 10.0)])
    assert ledger["P0 a"].state is S.VALIDATED
    assert ledger["P0 a"].parts == ()


def test_a_second_clearing_buys_in_addition_and_pays_the_dearer_steps():
    """20 kW, then 35 in all: 15 more, of the second and the third bid."""
    stages = [("local", network([70.0, 50.0])), ("redispatch", network([85.0, 50.0]))]
    ledger, paid = valid(), {}
    for stage, net in stages:
        ledger = carried(ledger, S.FORWARDED, [n for n, e in ledger.items() if e.state is S.RESIDUAL])
        found = clear(case(stage_bids(ledger), net, locked=locked_kw(ledger)))
        bought = awards(found, "pay_as_bid", stage, "DSO")
        ledger = cleared(ledger, [each.id for each in found.bids], bought)
        paid[stage] = {each.bid: (each.quantity_kw[0], each.price_eur_per_kwh[0]) for each in bought}
    assert paid["local"] == {"P0 a": pytest.approx((20.0, 0.1))}
    assert paid["redispatch"] == {"P0 a": pytest.approx((10.0, 0.1)), "P1 b": pytest.approx((5.0, 0.2))}
    assert kw(found) == pytest.approx({"P0 a": 30.0, "P1 b": 5.0, "P1 c": 0.0})
    assert states(ledger) == {"P0 a": S.AWARDED, "P1 b": S.RESIDUAL, "P1 c": S.RESIDUAL}
