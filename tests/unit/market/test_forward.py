from dataclasses import replace
from datetime import date, time

import numpy as np
import pytest
from small_market import DOWN, UP, case, network, resources

from cosim.domain.market import ForwardBid, ReliefNeed, Window
from cosim.errors import BidError, MarketError
from cosim.market.forward import AuctionTerms, forward_auction, relief_needs
from cosim.market.highs import Highs
from cosim.market.reference import Reference
from cosim.market.uncertainty import Uncertainty, box, budget

WINTER = Window(date(2026, 1, 1), date(2026, 1, 31), time(17), time(20), weekdays=(0, 1, 2, 3, 4))  # 22 days, 66 h
TERMS = AuctionTerms("DSO", WINTER, expected_h=20.0)
OWN = resources(3)


def offer(name, kw, availability, utilisation, direction=UP, **more):
    """Delivered by the resource that its name begins with."""
    more.setdefault("shares", ((name.split()[0], 1.0),))
    return ForwardBid(name, "A", "F", direction, kw, availability, utilisation, **more)


def need(kw, name="peak", **ratio):
    return ReliefNeed(name, kw, tuple(ratio.items()) or (("P0", 1.0), ("P1", 1.0), ("P2", 1.0)))


def auction(bids, *needs, solver=None, **terms):
    return forward_auction(bids, needs, OWN, replace(TERMS, **terms), solver)


SOLVERS = pytest.mark.parametrize(
    "solver", [Highs(), Reference("cbc"), Reference("highs")], ids=["fast", "cbc", "highs"]
)
A = offer("P0 a", 60.0, 4.0, 0.20)  # 4 + 20 * 0.20 = 8 EUR/kW
B = offer("P1 b", 80.0, 1.0, 0.50)  # 1 + 20 * 0.50 = 11 EUR/kW
C = offer("P2 c", 50.0, 9.0, 0.00)  # 9 EUR/kW


@SOLVERS
def test_the_cheapest_by_availability_and_expected_utilisation(solver):
    result = auction([B, A, C], need(130.0), solver=solver)
    assert result.committed_kw == pytest.approx({"P0 a": 60.0, "P1 b": 20.0, "P2 c": 50.0}, abs=1e-5)
    assert result.cost_eur == pytest.approx(60 * 8 + 50 * 9 + 20 * 11, abs=1e-4)
    assert [contract.id for contract in result.contracts] == ["P0 a", "P2 c", "P1 b"]
    assert not result.program.columns.integer.any()
    assert result.require_met().missing_kw == {}


def test_more_expected_hours_favour_cheap_utilisation():
    assert auction([A, B, C], need(50.0), expected_h=0.0).committed_kw["P1 b"] == pytest.approx(50.0)
    assert auction([A, B, C], need(50.0), expected_h=66.0).committed_kw["P2 c"] == pytest.approx(50.0)


def test_relief_counts_not_capacity():
    """Of 40 kW relief P0 gives 0.25 a kW, so 32 EUR/kW of relief; P1 gives 0.5, so 22."""
    result = auction([A, B], need(40.0, P0=0.25, P1=0.5))
    assert result.committed_kw == pytest.approx({"P0 a": 0.0, "P1 b": 80.0})
    result = auction([A, B], need(45.0, P0=0.25, P1=0.5))
    assert result.committed_kw == pytest.approx({"P0 a": 20.0, "P1 b": 80.0})


def test_two_needs_share_what_relieves_both():
    """P0 relieves the feeder and the line, P1 the feeder only: 30 on the line must come from P0."""
    result = auction(
        [A, offer("P1 b", 80.0, 1.0, 0.0)], need(50.0, "feeder", P0=1.0, P1=1.0), need(30.0, "line", P0=1.0)
    )
    assert result.committed_kw == pytest.approx({"P0 a": 30.0, "P1 b": 20.0})


def test_a_bid_that_would_aggravate_another_need_need_not_be_called_there():
    up, down = offer("P0 up", 60.0, 1.0, 0.0), offer("P1 down", 60.0, 2.0, 0.0, DOWN)
    result = auction([up, down], need(40.0, "evening", P0=1.0, P1=1.0), need(25.0, "noon", P0=-1.0, P1=-1.0))
    assert result.committed_kw == pytest.approx({"P0 up": 40.0, "P1 down": 25.0})


def test_shares_weigh_the_relief():
    both = offer("both", 80.0, 1.0, 0.0, shares=(("P0", 0.25), ("P1", 0.75)))
    assert auction([both], need(25.0, P0=1.0)).missing_kw == {"peak": pytest.approx(5.0)}
    assert auction([both], need(25.0, P0=1.0, P1=0.2)).committed_kw == {"both": pytest.approx(25.0 / 0.4)}


@SOLVERS
def test_least_acceptance_takes_integers(solver):
    """10 kW: all of the cheaper 60 cost 480 EUR, ten of the dearer 110; half of 60 would do for 70 kW with 40 of B."""
    whole = replace(A, min_accept=1.0)
    result = auction([whole, B], need(10.0), solver=solver)
    assert result.committed_kw == pytest.approx({"P0 a": 0.0, "P1 b": 10.0}, abs=1e-5)
    assert result.program.columns.integer.sum() == 1
    result = auction([whole, B], need(70.0), solver=solver)
    assert result.committed_kw == pytest.approx({"P0 a": 60.0, "P1 b": 10.0}, abs=1e-5)
    half = replace(B, min_accept=0.5)
    result = auction([A, half], need(70.0), solver=solver)
    assert result.committed_kw == pytest.approx({"P0 a": 30.0, "P1 b": 40.0}, abs=1e-5)


def test_above_a_cap_is_left_out():
    result = auction([A, B, C], need(130.0), utilisation_cap_eur_per_kwh=0.4, availability_cap_eur_per_kw=5.0)
    assert result.above_cap == ("P2 c", "P1 b")
    assert result.committed_kw == pytest.approx({"P0 a": 60.0, "P1 b": 0.0, "P2 c": 0.0})
    assert result.missing_kw == {"peak": pytest.approx(70.0)}
    with pytest.raises(MarketError, match="need peak: 70 kW short"):
        result.require_met()


def test_a_hard_need_beyond_all_bids_is_named_with_what_there_is():
    needs = need(70.0, "line", P0=1.0), need(10.0, "bus", P1=0.1), need(70.0, "feeder")
    with pytest.raises(MarketError) as error:
        auction([A, B], *needs, slack_eur_per_kw=None)
    assert str(error.value).splitlines() == [
        "need line: 70 kW, all bids within the caps give 60 kW",
        "need bus: 10 kW, all bids within the caps give 8 kW",
    ]
    assert auction([A, B], needs[2], slack_eur_per_kw=None).committed_kw["P1 b"] == pytest.approx(10.0)


def test_what_is_dearer_than_the_slack_is_not_bought():
    assert auction([A], need(10.0), slack_eur_per_kw=7.9).missing_kw == {"peak": pytest.approx(10.0)}
    assert auction([A], need(10.0), slack_eur_per_kw=8.1).missing_kw == {}


@pytest.mark.parametrize("bids", [[], [A], [offer("P0 pays", 10.0, 0.0, -1.0)]])
def test_without_a_need_nothing_is_bought(bids):
    for needs in ((), (need(0.0),)):
        result = auction(bids, *needs)
        assert result.contracts == ()
        assert result.cost_eur == 0.0


@SOLVERS
def test_of_equal_bids_the_first_submitted_then_by_id(solver):
    early = replace(A, id="P0 z", submitted_s=-5)
    later = replace(A, id="P1 y", shares=(("P1", 1.0),))
    last = replace(A, id="P2 z", shares=(("P2", 1.0),))
    for order in ([early, later, last], [last, later, early]):
        found = auction(order, need(70.0), solver=solver).committed_kw
        assert found == pytest.approx({"P0 z": 60.0, "P1 y": 10.0, "P2 z": 0.0}, abs=1e-5)


def test_what_the_contract_says():
    result = auction([A], need(45.0), max_activations=12, availability_full=0.8, availability_zero=0.3, signed_s=-9)
    (contract,) = result.contracts
    assert contract.committed_kw == pytest.approx(45.0)
    assert (contract.availability_eur_per_kw, contract.strike_eur_per_kwh) == (4.0, 0.20)
    assert (contract.seller, contract.buyer, contract.product, contract.direction) == ("A", "DSO", "F", UP)
    assert (contract.window, contract.shares) == (WINTER, (("P0", 1.0),))
    assert (contract.max_activations, contract.signed_s) == (12, -9)
    assert (contract.availability_full, contract.availability_zero) == (0.8, 0.3)


@pytest.mark.parametrize(("wrong", "words"), [
    ({"capacity_kw": -5.0}, "a capacity must be a number above 0 kW; got -5.0"),
    ({"capacity_kw": float("nan")}, "a capacity must be a number above 0 kW; got nan"),
    ({"availability_eur_per_kw": -1.0}, "a price of availability must be a number of 0 or more; got -1.0"),
    ({"utilisation_eur_per_kwh": float("nan")}, "a price of utilisation must be a number; got nan"),
    ({"min_accept": 1.1}, "min_accept must be in [0, 1]; got 1.1"),
    ({"shares": ()}, "shares must add up to 1"),
    ({"shares": (("P7", 1.0),)}, "no resource of that name; got P7; allowed: P0, P1, P2"),
    ({"capacity_kw": 1001.0}, "offer more up than is registered; got 1001 kW; allowed: 1000 kW"),
])  # fmt: skip
def test_wrong_bids(wrong, words):
    with pytest.raises(BidError) as error:
        auction([replace(A, **wrong)], need(1.0))
    assert any(words in str(fault) for fault in error.value.faults)


def test_all_faults_at_once():
    closed = replace(WINTER, last_day=date(2025, 12, 31))
    with pytest.raises(BidError) as error:
        auction(
            [replace(A, capacity_kw=-1.0), A],
            need(-1.0, P9=float("inf")),
            window=closed, expected_h=-1.0, max_activations=0, availability_full=0.2, slack_eur_per_kw=0.0,
        )  # fmt: skip
    assert [str(fault) for fault in error.value.faults] == [
        "terms of the auction: its window ends before it begins; got 2026-01-01..2025-12-31",
        "terms of the auction: shares must be 0 <= availability_zero <= availability_full <= 1, full above 0; "
        "got availability_zero 0.5, availability_full 0.2",
        "terms of the auction: max_activations must be 1 or more, or none; got 0",
        "terms of the auction: expected_h out of range; got -1 h; allowed: 0..inf h, those of the window",
        "terms of the auction: slack_eur_per_kw must be a number above 0, or none; got 0.0",
        "bid P0 a: more than one bid of that id",
        "bid P0 a: a capacity must be a number above 0 kW; got -1.0",
        "need peak: a relief must be a number of 0 or more kW; got -1.0",
        "need peak: no resource of that name; got P9; allowed: P0, P1, P2",
        "need peak: relief_per_kw of P9 must be a number; got inf",
    ]


def test_no_more_hours_expected_than_the_window_has():
    with pytest.raises(BidError, match=r"got 66.5 h; allowed: 0..66 h"):
        auction([A], need(1.0), expected_h=66.5)


NET = network([80.0, 60.0, -20.0], effect=[1.0, 0.5, 1.0], i_max_a=60.0)  # 90 A


def test_needs_of_a_network_in_kw_of_what_relieves_most():
    """30 A too much, the flat of 64 planes is met at a vertex: 60 cos(pi / 64) / cos(pi / 64)."""
    (found,) = relief_needs(case([], NET))
    assert found.id == "i_max of L@A.1 in MTU 0"
    assert found.relief_kw == pytest.approx(30.0, rel=2e-3)
    assert dict(found.relief_per_kw) == pytest.approx({"P0": 1.0, "P1": 0.5, "P2": 1.0}, rel=2e-3)


def test_needs_include_forecast_errors_and_what_may_not_be_delivered():
    errors = Uncertainty(np.array([8.0, 6.0, 0.0]), np.zeros(3), box())
    (found,) = relief_needs(case([], NET, resources(3, delivery_risk=0.25), uncertainty=(errors,)))
    assert found.relief_kw == pytest.approx(30.0 + 8.0 + 3.0, rel=2e-3)
    assert dict(found.relief_per_kw) == pytest.approx({"P0": 0.75, "P1": 0.375, "P2": 0.75}, rel=2e-3)


def test_needs_of_several_mtus_and_kinds():
    """At noon generation lifts the voltage and DOWN relieves; in the evening load is too much."""
    drop = [2e-3, 1e-3, 0.0]
    noon = network([-60.0, -30.0, 0.0], v_drop_pu=drop)
    evening = network([30.0, 20.0, 0.0], i_max_a=40.0, v_drop_pu=drop)
    needs = {each.id: each for each in relief_needs(case([], [noon, evening]))}
    assert set(needs) == {"v_max of B.1 in MTU 0", "i_max of L@A.1 in MTU 1"}
    lift = needs["v_max of B.1 in MTU 0"]
    assert lift.relief_kw == pytest.approx((1.15 - 1.1 * np.cos(np.pi / 180.0)) / 2e-3)
    assert dict(lift.relief_per_kw) == pytest.approx({"P0": -1.0, "P1": -0.5})
    assert dict(needs["i_max of L@A.1 in MTU 1"].relief_per_kw)["P0"] > 0.0


def test_no_need_where_all_limits_hold():
    assert relief_needs(case([], network([30.0, 10.0]))) == ()


def test_a_contract_bought_for_a_networks_needs_is_enough():
    needs = relief_needs(case([], NET))
    result = forward_auction([A, B], needs, OWN, TERMS).require_met()
    relief = result.committed_kw["P0 a"] + 0.5 * result.committed_kw["P1 b"]
    assert relief == pytest.approx(30.0, rel=2e-3)


def test_a_budget_on_the_residual_load_has_no_needs_by_resource():
    errors = Uncertainty(np.array([8.0, 6.0, 0.0]), np.zeros(3), budget(1.0), base="residual")
    small = {name: replace(unit, up_kw=10.0, down_kw=10.0) for name, unit in OWN.items()}
    with pytest.raises(BidError, match="budget of errors on the residual load has no headroom"):
        relief_needs(case([], NET, small, uncertainty=(errors,)))
