"""Laws of procurement: forward auction, contracts and free bids in one book, static limits of the grid, the ledger."""

from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_market import random_case, with_currents_up_to

from cosim.clock import Clock
from cosim.domain.market import Award, Bid, BidState, Contract, Direction, ForwardBid, PriceStep, Window
from cosim.errors import BidError
from cosim.market.admission import rejections
from cosim.market.book import check_case
from cosim.market.clearing import clear
from cosim.market.contracts import availability_eur, contracts_as_bids, obligations
from cosim.market.forward import AuctionTerms, forward_auction, relief_needs
from cosim.market.highs import Highs
from cosim.market.ledger import capped, carried, cleared, locked_kw, stage_bids, submitted, validated
from cosim.market.prequalification import grid_capabilities
from cosim.market.pricing import awards
from cosim.market.reference import Reference

seeds = st.integers(0, 10_000)
meshed = st.booleans()
shares = st.floats(0.6, 1.2)
SOLVER = Highs()
EUR = 1e-7
few = settings(max_examples=40)
fewer = settings(max_examples=10)

CLOCK = Clock(datetime(2026, 1, 5, tzinfo=UTC), 900, 96, 900)
WINDOW = Window(date(2026, 1, 5), date(2026, 1, 5))
TERMS = AuctionTerms("DSO", WINDOW, expected_h=3.0)


def contract_of(bid, share=1.0, dearer=0.0):
    """What a bid offers as a contract, of the same seller and product."""
    price = bid.steps[0].price_eur_per_kwh + dearer
    kw = share * bid.quantity_kw[0]
    return Contract(
        bid.id, bid.seller, "DSO", bid.product, bid.direction, kw, 1.0, price, WINDOW, ((bid.resource, 1.0),)
    )


def offer(name, kw, price):
    """Of P0."""
    return Bid(name, "A", "P", Direction.UP, 0, (kw,), (PriceStep(max(kw, 1.0), price),), resource="P0")


def halves(case, seed):
    """Bids under contract, and free ones."""
    under = np.random.default_rng([seed, 2]).random(len(case.bids)) < 0.5
    return [bid for bid, c in zip(case.bids, under, strict=True) if c], [
        bid for bid, c in zip(case.bids, under, strict=True) if not c
    ]


def cleared_with(case, contracts, free=()):
    due = obligations(contracts, CLOCK, 0, 1, free)
    asked = replace(case, bids=(*contracts_as_bids(due), *free))
    check_case(asked)
    return clear(asked, SOLVER), due


@few
@given(seed=seeds, loop=meshed, share=shares)
def test_contracts_alone_are_called_as_bids_at_their_strikes_would_be(seed, loop, share):
    case = random_case(seed, share, 0.05, loop, drop_pu=0.05)
    spot = clear(case, SOLVER)
    forward, _ = cleared_with(case, [contract_of(bid) for bid in case.bids])
    assert forward.objective_eur == pytest.approx(spot.objective_eur, abs=EUR, rel=1e-9)
    for bid in case.bids:
        np.testing.assert_allclose(forward.of(f"contract {bid.id}"), spot.of(bid.id), atol=1e-7)


@few
@given(seed=seeds, loop=meshed, share=shares)
def test_free_bids_never_raise_the_cost_of_utilisation_nor_change_that_of_availability(seed, loop, share):
    case = random_case(seed, share, 0.05, loop)
    under, free = halves(case, seed)
    contracts = [contract_of(bid, 0.8, dearer=0.2) for bid in under]
    own = [replace(bid, quantity_kw=(0.5 * bid.quantity_kw[0],)) for bid in under]
    alone, due = cleared_with(case, contracts)
    assume(not alone.unsolved)
    for more in (free, own, [*own, *free]):
        both, later = cleared_with(case, contracts, more)
        assert not both.unsolved
        assert both.cost_eur <= alone.cost_eur + EUR * (1.0 + alone.cost_eur)
        assert [availability_eur(each.contract, each.offered_kw, 900) for each in later] == [
            pytest.approx(availability_eur(each.contract, each.offered_kw, 900)) for each in due
        ]


@few
@given(
    strikes=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4),
    own=st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 60.0)), max_size=5),
)
def test_what_is_committed_is_offered_at_the_strike_or_less(strikes, own):
    """Of contracts from the cheapest up: obligatory and own bids at the strike cover what they commit together."""
    contracts = [replace(contract_of(offer("c", 20.0, strike)), id=str(k)) for k, strike in enumerate(strikes)]
    free = [offer(f"own {k}", kw, price) for k, (price, kw) in enumerate(own)]
    due = obligations(contracts, CLOCK, 0, 1, free)
    assert [each.offered_kw.tolist() for each in due] == [[pytest.approx(20.0)]] * len(due)
    book = (*contracts_as_bids(due), *free)
    for k, each in enumerate(due, start=1):
        strike = each.contract.strike_eur_per_kwh
        offered = sum(bid.quantity_kw[0] for bid in book if bid.steps[0].price_eur_per_kwh <= strike)
        assert offered >= 20.0 * k - 1e-9
    inserted = sum(bid.quantity_kw[0] for bid in contracts_as_bids(due))
    cheap = sum(bid.quantity_kw[0] for bid in free if bid.steps[0].price_eur_per_kwh <= max(strikes))
    assert 20.0 * len(contracts) - cheap - 1e-9 <= inserted <= 20.0 * len(contracts)


def random_auction(seed, share, meshed, whole=0.0, most=1.0):
    """Needs of a random network; every resource offers up to all that it has, both ways, some of it as a whole."""
    case = random_case(seed, share, 0.05, meshed, drop_pu=0.05)
    rng = np.random.default_rng([seed, 3])
    bids = [
        ForwardBid(
            bid.id, "A", "F", bid.direction, bid.quantity_kw[0] * rng.uniform(0.3, most), rng.uniform(1.0, 10.0),
            bid.steps[0].price_eur_per_kwh, ((bid.resource, 1.0),), min_accept=float(rng.random() < whole),
        )
        for bid in case.bids
    ]  # fmt: skip
    return bids, relief_needs(case), case.resources


def given_kw(needs, bids, committed):
    """Relief that commitments give to every need."""
    sign = {Direction.UP: 1.0, Direction.DOWN: -1.0}
    by_need = [dict(need.relief_per_kw) for need in needs]
    return [
        sum(max(0.0, sign[bid.direction] * ratio.get(bid.shares[0][0], 0.0)) * committed[bid.id] for bid in bids)
        for ratio in by_need
    ]


@few
@given(seed=seeds, loop=meshed, share=shares, whole=st.sampled_from([0.0, 0.4]))
def test_needs_are_met_or_what_is_missing_is_told(seed, loop, share, whole):
    bids, needs, resources = random_auction(seed, share, loop, whole)
    result = forward_auction(bids, needs, resources, TERMS, SOLVER)
    for need, kw in zip(needs, given_kw(needs, bids, result.committed_kw), strict=True):
        missing = result.missing_kw.get(need.id, 0.0)
        assert kw + missing >= need.relief_kw - 1e-5
        assert missing == 0.0 or kw + missing == pytest.approx(need.relief_kw, abs=1e-5)
    for bid in bids:
        kw = result.committed_kw[bid.id]
        assert 0.0 <= kw <= bid.capacity_kw * (1.0 + 1e-9)
        assert kw <= 1e-6 or kw >= bid.min_accept * bid.capacity_kw - 1e-6
    assert result.program.columns.integer.any() == any(bid.min_accept for bid in bids)
    assert needs or not result.contracts
    costs = [(b.availability_eur_per_kw + 3.0 * b.utilisation_eur_per_kwh) * result.committed_kw[b.id] for b in bids]
    assert result.cost_eur == pytest.approx(sum(costs), rel=1e-9, abs=1e-9)


def total_eur(result):
    return result.cost_eur + TERMS.slack_eur_per_kw * sum(result.missing_kw.values())


@few
@given(seed=seeds, loop=meshed, share=shares, whole=st.sampled_from([0.0, 0.4]))
def test_one_more_bid_never_raises_the_cost_and_their_order_changes_nothing(seed, loop, share, whole):
    bids, needs, resources = random_auction(seed, share, loop, whole)
    every = forward_auction(bids, needs, resources, TERMS, SOLVER)
    fewer_bids = forward_auction(bids[1:], needs, resources, TERMS, SOLVER)
    assert total_eur(every) <= total_eur(fewer_bids) + 1e-6 * (1.0 + total_eur(fewer_bids))
    shuffled = [bids[k] for k in np.random.default_rng(seed).permutation(len(bids))]
    again = forward_auction(shuffled, needs, resources, TERMS, SOLVER)
    assert again.contracts == every.contracts


@fewer
@given(seed=seeds, share=st.floats(0.6, 0.9), whole=st.sampled_from([0.0, 0.4]))
def test_solvers_agree_on_the_auction(seed, share, whole):
    bids, needs, resources = random_auction(seed, share, False, whole)
    fast, cbc, highs = (
        forward_auction(bids, needs, resources, TERMS, solver)
        for solver in (SOLVER, Reference("cbc"), Reference("highs"))
    )
    for other in (cbc, highs):
        assert total_eur(other) == pytest.approx(total_eur(fast), rel=1e-6, abs=1e-6)


@few
@given(seed=seeds, loop=meshed, share=st.floats(0.8, 2.0))
def test_whatever_the_grid_lets_resources_do_breaks_no_limit(seed, loop, share):
    """Alone up to one quantity, and all together in one direction up to another, in any combination."""
    case = random_case(seed, share, 0.05, loop, drop_pu=0.1)
    found = grid_capabilities(case)
    everyone = replace(case, bids=tuple(offers_of_all(case)))
    cleared = clear(everyone, SOLVER)
    network, offers = cleared.networks[0], cleared.offers
    index = {(offers.bids[row % len(offers.bids)].id): c for row, c in zip(*offers.quantity.nonzero(), strict=True)}

    def broken(kw):
        x = np.zeros(cleared.program.n_column)
        for name, quantity in kw.items():
            x[index[name]] = quantity
        state, before = network.state(x), network.state(np.zeros_like(x))
        for number, family in enumerate(network.families):
            at = np.arange(len(family.quantity))
            over, was = network.exceeded(number, at, state), network.exceeded(number, at, before)
            scale = network.scale_kw[family.quantity][:, None]
            if (over > np.maximum(was, 0.0) + 1e-4 * scale).any():
                return True
        return False

    rng = np.random.default_rng([seed, 4])
    for direction in Direction:
        own = [each for each in found if each.direction is direction]
        for each in own:
            assert 0.0 <= each.together_kw <= each.alone_kw * (1.0 + 1e-9) <= each.registered_kw * (1.0 + 2e-9)
            name = f"{each.resource} {direction.value}"
            assert not broken({name: each.alone_kw})
            if each.registered_kw > each.alone_kw + 0.01 > 0.02:
                assert broken({name: each.alone_kw + 0.01})
        for share_of in (np.ones(len(own)), *rng.random((5, len(own)))):
            kw = share_of * [each.together_kw for each in own]
            assert not broken(dict(zip([f"{e.resource} {direction.value}" for e in own], kw, strict=True)))


def offers_of_all(case):
    """Every resource's registered capability as a bid that the clearing does not take."""
    for name, unit in case.resources.items():
        for direction, kw in ((Direction.UP, unit.up_kw), (Direction.DOWN, unit.down_kw)):
            yield replace(offer(f"{name} {direction.value}", kw, 1.0), resource=name, direction=direction)


@few
@given(seed=seeds, stages=st.lists(st.floats(0.6, 1.1), min_size=1, max_size=4), whole=st.sampled_from([0.0, 0.3]))
def test_never_awarded_more_than_offered_over_stages(seed, stages, whole):
    rng = np.random.default_rng([seed, 5])
    case = random_case(seed, 1.0)
    net = case.networks[0]
    bids = [replace(bid, min_accept=float(rng.random() < whole)) for bid in case.bids]
    ledger = validated(submitted(bids), {})
    for number, share in enumerate(stages):
        stage = replace(
            case,
            bids=stage_bids(ledger),
            locked=locked_kw(ledger),
            networks=(with_currents_up_to(net, share * net.i_max_a),),
        )
        check_case(stage)
        found = clear(stage, SOLVER)
        for name, before in stage.locked.items():
            assert found.of(name)[0] >= before[0] - 1e-9
        bought = awards(found, "pay_as_bid", f"stage {number}", "DSO")
        ledger = cleared(ledger, [bid.id for bid in found.bids], bought)
        for bid in found.bids:
            assert ledger[bid.id].awarded_kw[0] == pytest.approx(found.of(bid.id)[0], abs=1e-6)
        ledger = moved_on(ledger, rng)
    for bid in bids:
        entry = ledger[bid.id]
        assert entry.awarded_kw[0] <= bid.quantity_kw[0] + 1e-6
        assert entry.awarded_kw[0] + entry.rest_kw[0] <= bid.quantity_kw[0] + 1e-6
        if entry.on_offer:
            more = replace(bought_of(bid), quantity_kw=(entry.rest_kw[0] + 0.001,))
            with pytest.raises(BidError, match="awards what is not on offer"):
                cleared(ledger, [bid.id], [more])


def bought_of(bid):
    return Award(bid.id, "late", "TSO", 0, (1.0,), (0.1,), (0.1,))


def moved_on(ledger, rng):
    """What is left of each bid goes one of the ways that the life cycle knows."""
    for name in [name for name, entry in ledger.items() if entry.state is BidState.RESIDUAL]:
        way = rng.integers(0, 4)
        if way == 0:
            ledger = capped(ledger, {name: [rng.random() * ledger[name].rest_kw[0]]})
        else:
            then = (BidState.EXCLUDED, BidState.FORWARDED, BidState.FORWARDED)[way - 1]
            ledger = carried(ledger, then, [name])
    return ledger


@few
@given(
    offers=st.lists(
        st.tuples(st.sampled_from(["P0", "P1", "both"]), st.floats(0.0, 80.0), st.integers(0, 3), st.booleans()),
        max_size=8,
    ),
    order=st.randoms(use_true_random=False),
)
def test_the_bids_that_are_taken_fit_and_none_that_fits_is_rejected(offers, order):
    case = random_case(0, 2.0)
    resources = {name: replace(case.resources[name], up_kw=100.0) for name in ("P0", "P1")}
    bids = [
        replace(
            offer(str(k), kw, 1.0), resource=None if who == "both" else who, submitted_s=at,
            shares=(("P0", 0.5), ("P1", 0.5)) if who == "both" else (), exclusive_group="g" if grouped else None,
        )
        for k, (who, kw, at, grouped) in enumerate(offers)
    ]  # fmt: skip
    case = replace(case, bids=tuple(bids), resources=resources)
    out = rejections(case)
    taken = tuple(bid for bid in bids if bid.id not in out)
    check_case(replace(case, bids=taken))
    for bid in (bid for bid in bids if bid.id in out):
        with pytest.raises(BidError):
            check_case(replace(case, bids=(*taken, bid)))
    order.shuffle(bids)
    assert set(rejections(replace(case, bids=tuple(bids)))) == set(out)
