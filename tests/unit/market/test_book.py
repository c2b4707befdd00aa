import math

import pytest
from small_market import bid, case, network, resources

from cosim.domain.market import ActivationLimit, Bid, Direction, EnergyBand, Need, PriceStep, RampLimit, StorageLimit
from cosim.errors import BidError
from cosim.market.book import check_case
from cosim.market.case import HOLD

NET = network([50.0, 50.0])
GOOD = bid("P0 a", 20.0, 1.0)


def faults(bids=(GOOD,), own=None, gate=None, **more):
    with pytest.raises(BidError) as error:
        check_case(case(bids, NET, own, **more), gate)
    return [str(fault) for fault in error.value.faults]


def test_a_good_case_passes():
    check_case(case([GOOD, bid("P1 b", [20.0], 2.0, block=True, min_accept=1.0)], NET), gate_closure_s=0)


@pytest.mark.parametrize(("wrong", "words"), [
    (bid("P0 a", 20.0, math.nan), "a price must be a number; got nan"),
    (Bid("P0 a", "A", "P", Direction.UP, 0, (1.0,), (), resource="P0"), "no price"),
    (bid("P0 a", -1.0, 1.0), "a quantity must be a number of 0 or more kW; got -1.0"),
    (bid("P9 a", 1.0, 1.0), "no resource of that name; got P9; allowed: P0, P1"),
    (bid("P0 a", [1.0, 1.0], 1.0), "of other MTUs; got 2 MTUs from 0 s; allowed: 1 MTUs from 0 s"),
    (bid("s", 1.0, 1.0, shares=(("P0", 0.5), ("P1", 0.4))), "shares must add up to 1"),
    (bid("s", 1.0, 1.0, resource="P0", any_of=("P1",)), "must name who delivers once"),
    (bid("P0 a", 1.0, 1.0, min_accept=1.5), "min_accept must be in [0, 1]; got 1.5"),
    (bid("P0 a", 1.0, 1.0, parent="x"), "no bid to be linked to; got x"),
    (Bid("b", "A", "P", Direction.UP, 0, (2.0,), (PriceStep(1.0, 2.0), PriceStep(1.0, 1.0)), resource="P0"),
     "prices of steps must increase"),
    (Bid("b", "A", "P", Direction.UP, 0, (2.0,), (PriceStep(1.0, 2.0),), resource="P0"), "without a price; got 2 kW"),
    (Bid("b", "A", "P", Direction.UP, 0, (2.0,), (PriceStep(1.0, 1.0), PriceStep(1.0, 2.0)), resource="P0", block=True),
     "a block has one price"),
])  # fmt: skip
def test_one_wrong_bid(wrong, words):
    assert any(words in fault for fault in faults([wrong]))


def test_all_faults_at_once():
    found = faults([bid("P0 a", -1.0, math.nan), bid("P7 b", 1.0, 1.0)], needs=(Need("n", "B", 0, (1.0,), ("mars",)),))
    assert len(found) == 4
    assert "need n: no perimeter or BRP of that name; got mars; allowed: system" in found


def test_gate_closure():
    late = bid("P0 late", 1.0, 1.0, submitted_s=61)
    assert faults([late], gate=60) == ["bid P0 late: submitted after gate closure; got 61 s; allowed: 60 s"]


def test_two_bids_beyond_what_is_registered():
    two = [bid("P0 a", 700.0, 1.0), bid("P0 b", 400.0, 2.0)]
    (found,) = faults(two)
    assert found == (
        "resource P0: bids P0 a, P0 b offer more up than is registered, in MTU 0; got 1100 kW; allowed: 1000 kW"
    )
    check_case(case([bid("P0 a", 700.0, 1.0, exclusive_group="g"), bid("P0 b", 400.0, 1.0, exclusive_group="g")], NET))


def test_the_same_id_twice():
    assert faults([GOOD, GOOD])[0] == "bid P0 a: more than one bid of that id"


def test_links_need_blocks():
    two = [bid("P0 p", 1.0, 1.0), bid("P1 c", 1.0, 1.0, parent="P0 p")]
    assert faults(two) == ["bid P1 c: linked bids must be blocks; got P0 p"]


def test_any_split_has_no_certain_effect_on_the_interface():
    (found,) = faults([bid("s", 1.0, 1.0, any_of=("P0", "P1"))], settings={"interface_kw": HOLD})
    assert "give shares" in found


def test_any_split_of_a_resource_tied_over_time():
    own = resources(2, rebound=(0.5,))
    assert len(faults([bid("s", 1.0, 1.0, any_of=("P0", "P1"))], own)) == 2


@pytest.mark.parametrize(("coupling", "words"), [
    (RampLimit("P9", (0.0,), 1.0), "no resource"),
    (RampLimit("P0", (0.0, 0.0), 1.0), "of other MTUs"),
    (RampLimit("P0", (0.0,), -1.0), "ramp_kw must be 0 or more"),
    (StorageLimit("P0", (0.0,), 5.0, 0.0, 4.0, 0.0, 0.9, 0.9), "outside its limits; got 5 kWh; allowed: 0..4 kWh"),
    (StorageLimit("P0", (0.0,), 3.0, 0.0, 4.0, 0.0, 0.0, 1.1), "charge_efficiency must be in (0, 1]"),
    (StorageLimit("P0", (-2.0,), 3.0, 0.0, 4.0, 1.0, 0.9, 0.8, unused_too=True),
     "its schedule alone leaves the limits by the end of MTU 0; got 0.5 kWh; allowed: 1..4 kWh"),
    (StorageLimit("P0", (2.0,), 3.0, 0.0, 4.0, 1.0, 0.9, 0.8, unused_too=True), "got 4.8 kWh; allowed: 1..4 kWh"),
    (ActivationLimit("P0", -1), "activations_max must be 0 or more; got -1"),
    (ActivationLimit("P0", rest_mtu=-2, rested_mtu=-1), "rested_mtu must be 0 or more; got -1"),
    (ActivationLimit("P9", 1), "no resource of that name"),
    (EnergyBand("P0", (0.0,), (2.0,), (1.0,)), "must not be empty"),
    (EnergyBand("P0", (0.0,), (2.0, 1.0), (1.0,)), "must have all MTUs"),
])  # fmt: skip
def test_wrong_couplings(coupling, words):
    assert any(words in fault for fault in faults(couplings=(coupling,)))


def test_couplings_without_fault():
    at_the_edge = StorageLimit("P0", (-1.6,), 3.0, 0.0, 4.0, 1.0, 0.9, 0.8, unused_too=True)
    check_case(case([GOOD], NET, couplings=(at_the_edge, ActivationLimit("P0", 0, 0, 0))))


def test_wrong_resources_and_needs():
    own = resources(2) | {"P1": resources(2, delivery_risk=1.5)["P1"]}
    needs = (Need("n", "B", 900, (math.inf,), max_price_eur_per_kwh=math.nan),)
    found = faults(own=own, needs=needs)
    assert len(found) == 4
    assert "resource P1: delivery_risk must be in [0, 1]; got 1.5" in found


def test_locked_beyond_the_offer():
    assert "more was awarded before" in faults(locked={"P0 a": (21.0,)})[0]
