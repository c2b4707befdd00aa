"""Limits on how often a resource is activated, against trying out every set of MTUs in which it may be."""

import itertools

import numpy as np
import pytest
from small_market import DOWN, bid, case, kw, network

from cosim.domain.market import ActivationLimit, from_json, to_json
from cosim.errors import MarketError
from cosim.market.clearing import clear
from cosim.market.highs import Highs
from cosim.market.reference import Reference

SOLVERS = pytest.mark.parametrize(
    "solver", [Highs(), Reference("cbc"), Reference("highs")], ids=["fast", "cbc", "highs"]
)
OVER_KW = [5.0, 20.0, 10.0, 15.0]  # too much in each MTU
DAY = [network([60.0, 40.0 + more]) for more in OVER_KW]
BIDS = [bid("P0 cheap", [30.0] * 4, 1.0), bid("P1 dear", [30.0] * 4, 3.0)]


def awarded(*limits, bids=BIDS, day=DAY, solver=None, **more):
    cleared = clear(case(bids, day, couplings=limits, **more), solver)
    assert not cleared.unsolved
    return kw(cleared)


@SOLVERS
def test_at_most_so_many_are_where_they_save_most(solver):
    found = awarded(ActivationLimit("P0", 2), solver=solver)
    assert found["P0 cheap"] == pytest.approx([0.0, 20.0, 0.0, 15.0], abs=1e-5)
    assert found["P1 dear"] == pytest.approx([5.0, 0.0, 10.0, 0.0], abs=1e-5)


@SOLVERS
def test_rest_between_two(solver):
    """20 and 15 kW are one MTU apart, 5 and 15 two; 20 alone saves as much as both."""
    assert awarded(ActivationLimit("P0", rest_mtu=1), solver=solver)["P0 cheap"] == pytest.approx(
        [0.0, 20.0, 0.0, 15.0], abs=1e-5
    )
    day = [network([60.0, 40.0 + more]) for more in (6.0, 20.0, 10.0, 15.0)]
    assert awarded(ActivationLimit("P0", rest_mtu=2), day=day, solver=solver)["P0 cheap"] == pytest.approx(
        [6.0, 0.0, 0.0, 15.0], abs=1e-5
    )


@pytest.mark.parametrize(("rested", "first"), [(0, 3), (1, 2), (3, 0), (None, 0), (9, 0)])
def test_rest_since_the_last_before(rested, first):
    limit = ActivationLimit("P0", 1, 3, rested)
    day = [network([60.0, 60.0 - k]) for k in range(4)]  # the earlier the more
    found = awarded(limit, day=day)["P0 cheap"]
    assert np.flatnonzero(found).tolist() == [first]


def test_none_at_all():
    assert awarded(ActivationLimit("P0", 0))["P0 cheap"] == [0.0] * 4


def test_both_directions_of_a_resource_count():
    day = [network([80.0, 40.0]), network([-60.0, -60.0])]
    bids = [bid("P0 up", [30.0] * 2, 1.0), bid("P0 down", [30.0] * 2, 1.0, DOWN), bid("P1 down", [30.0] * 2, 1.5, DOWN)]
    found = awarded(ActivationLimit("P0", 1), bids=bids, day=day)
    assert found["P0 up"] == pytest.approx([20.0, 0.0])
    assert found["P0 down"] == [0.0, 0.0]
    assert found["P1 down"] == pytest.approx([0.0, 20.0])


def test_shares_of_a_bid_count_for_each_of_its_resources():
    bids = [bid("s", [40.0] * 4, 1.0, shares=(("P0", 0.5), ("P1", 0.5))), bid("P1 dear", [30.0] * 4, 3.0)]
    found = awarded(ActivationLimit("P0", 1), bids=bids)
    assert found["s"] == pytest.approx([0.0, 20.0, 0.0, 0.0])


def test_an_award_of_an_earlier_stage_is_an_activation():
    found = awarded(ActivationLimit("P0", 1), locked={"P0 cheap": (1.0, 0.0, 0.0, 0.0)})
    assert found["P0 cheap"] == pytest.approx([5.0, 0.0, 0.0, 0.0])
    with pytest.raises(MarketError, match=r"activations? of P0"):
        awarded(ActivationLimit("P0", 1), locked={"P0 cheap": (1.0, 1.0, 0.0, 0.0)})


@pytest.mark.parametrize(
    "limit", [ActivationLimit("P0"), ActivationLimit("P0", 4), ActivationLimit("P0", 9), ActivationLimit("P9", 1)]
)
def test_no_decision_where_nothing_can_be_too_often(limit):
    assert not clear(case(BIDS, DAY, couplings=(limit,))).program.columns.integer.any()


def test_of_json():
    limit = ActivationLimit("P0", 3, 1, 0)
    assert from_json(ActivationLimit, to_json(limit)) == limit


def allowed_sets(limit, n):
    """Every set of MTUs (n,) in which a limit lets a resource be activated."""
    for chosen in itertools.product((False, True), repeat=n):
        at = np.flatnonzero(chosen)
        few = limit.activations_max is None or len(at) <= limit.activations_max
        waits = 0 if limit.rested_mtu is None else limit.rest_mtu - limit.rested_mtu
        if few and (np.diff(at) > limit.rest_mtu).all() and (at >= waits).all():
            yield np.array(chosen)


@pytest.mark.parametrize("seed", range(6))
def test_no_set_of_mtus_costs_less(seed):
    rng = np.random.default_rng(seed)
    n = 4
    day = [network([60.0, 40.0 + more, 0.0]) for more in rng.uniform(-10.0, 50.0, n)]
    always = bid("P2 always", [50.0] * n, 9.0)
    offers = [(name, rng.uniform(5.0, 40.0, n), rng.uniform(1.0, 4.0)) for name in ("P0 a", "P0 b", "P1 c")]
    limits = [
        ActivationLimit(name, int(rng.integers(1, 4)), int(rng.integers(0, 3)), [None, 0, 1][rng.integers(3)])
        for name in ("P0", "P1")
    ]

    def cost(masks, couplings=()):
        bids = [bid(name, (quantity * masks[name[:2]]).tolist(), price) for name, quantity, price in offers]
        return clear(case([*bids, always], day, couplings=couplings)).require_solved().objective_eur

    sets = itertools.product(*(allowed_sets(limit, n) for limit in limits))
    least = min(cost({"P0": first, "P1": second}) for first, second in sets)
    assert cost({"P0": 1.0, "P1": 1.0}, tuple(limits)) == pytest.approx(least, rel=1e-7)
