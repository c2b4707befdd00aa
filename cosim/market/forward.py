"""The forward auction: capacity bought for a window, at the least cost of availability and expected utilisation.

A linear program; integers only where bids cannot be accepted in part. Of several results of least cost the one that a
second objective prefers is taken, so that it does not depend on the solver's path.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import Floats
from cosim.domain.market import Contract, Direction, ForwardBid, ReliefNeed, Resource, Window
from cosim.errors import BidError, Fault, MarketError
from cosim.market.case import ClearingCase
from cosim.market.clearing import decided, preferred
from cosim.market.contracts import payment_faults, price_faults, share_faults, twice, window_faults, window_h
from cosim.market.headroom import DOWN, UP, headroom
from cosim.market.highs import Highs
from cosim.market.offers import ColumnList, RowList, tie_weights
from cosim.market.program import Flags, Program, RowTag, Solution, Solver

_SHARE = 1e-9
_LEAST_KW = 1e-6


@dataclass(frozen=True)
class AuctionTerms:
    """What all contracts of an auction have in common (see `Contract`), and how bids are compared.

    ``expected_h``: for how long the buyer expects to call what it buys [h]. Bids above a cap are left out. What stays
    missing of a need costs ``slack_eur_per_kw``; None makes needs hard.
    """

    buyer: str
    window: Window
    expected_h: float
    availability_cap_eur_per_kw: float = math.inf
    utilisation_cap_eur_per_kwh: float = math.inf
    slack_eur_per_kw: float | None = 10_000.0
    max_activations: int | None = None
    availability_full: float = 0.9
    availability_zero: float = 0.5
    signed_s: int = 0


@dataclass(frozen=True)
class ForwardResult:
    """``contracts`` in the order of price; ``committed_kw`` of every bid; ``cost_eur``: availability and expected
    utilisation. ``missing_kw`` by need, those met left out; ``above_cap``: bids left out. ``gap``: of integers, how far
    from the best at most [1]."""

    contracts: tuple[Contract, ...]
    committed_kw: Mapping[str, float]
    cost_eur: float
    missing_kw: Mapping[str, float]
    above_cap: tuple[str, ...]
    gap: float
    program: Program

    def require_met(self) -> ForwardResult:
        """Itself; raises MarketError if needs stay unmet, naming each."""
        if self.missing_kw:
            raise MarketError("\n".join(f"need {name}: {kw:.4g} kW short" for name, kw in self.missing_kw.items()))
        return self


def relief_needs(case: ClearingCase) -> tuple[ReliefNeed, ...]:
    """What a network lacks in every MTU of a case, whose bids do not matter: of each limit that the forecast and its
    errors may violate, the plane that is furthest beyond it."""
    worst: dict[str, ReliefNeed] = {}
    for rows in headroom(case, violated_only=True):
        for row in np.flatnonzero(rows.room_kw < -_LEAST_KW).tolist():
            name = f"{rows.kind} of {rows.elements[row]} in MTU {rows.mtu}"
            lack_kw = -float(rows.room_kw[row])
            if name not in worst or worst[name].relief_kw < lack_kw:
                worst[name] = ReliefNeed(name, lack_kw, tuple(_relief(case.resources, rows.take[row])))
    return tuple(worst.values())


def _relief(resources: Mapping[str, Resource], take: Floats) -> Iterator[tuple[str, float]]:
    """Relief by 1 kW UP of each resource, below zero by 1 kW DOWN, from what they take of a limit (2, n_resource)."""
    relief = np.maximum(-take[UP], 0.0) - np.maximum(-take[DOWN], 0.0)
    yield from ((name, kw) for name, kw in zip(resources, relief.tolist(), strict=True) if kw)


def forward_auction(
    bids: Sequence[ForwardBid],
    needs: Sequence[ReliefNeed],
    resources: Mapping[str, Resource],
    terms: AuctionTerms,
    solver: Solver | None = None,
) -> ForwardResult:
    """Least cost of availability and expected utilisation that covers every need.

    A contract need not be called, so bids count for needs that they relieve and never against others. Sellers are paid
    as bid. Raises BidError with all faults of bids and needs, MarketError naming hard needs beyond what all bids offer.
    """
    check_auction(bids, needs, resources, terms)
    within = [bid for bid in canonical(bids, terms) if not _above_cap(bid, terms)]
    relief = np.array([[_relief_per_kw(need, bid) * bid.capacity_kw for bid in within] for need in needs])
    relief = relief.reshape(len(needs), len(within))
    lacking = np.array([need.relief_kw > 0.0 for need in needs], dtype=bool)
    useful = np.asarray((relief[lacking] > 0.0).any(axis=0))
    if terms.slack_eur_per_kw is None:
        _require_enough(needs, relief)
    program = _program(within, needs, relief, useful, terms)
    capacity_kw = np.array([bid.capacity_kw for bid in within])
    solution = _settled(program, solver or Highs(), capacity_kw)
    accepted, missing = solution.x[: len(within)], solution.x[len(within) : len(within) + len(needs)]
    committed = {bid.id: float(y * bid.capacity_kw) for bid, y in zip(within, accepted, strict=True)}
    return ForwardResult(
        contracts=tuple(_contract(bid, committed[bid.id], terms) for bid in within if committed[bid.id] > _LEAST_KW),
        committed_kw={bid.id: committed.get(bid.id, 0.0) for bid in bids},
        cost_eur=float(program.columns.cost[: len(within)] @ accepted),
        missing_kw={need.id: float(kw) for need, kw in zip(needs, missing, strict=True) if kw > _LEAST_KW},
        above_cap=tuple(bid.id for bid in canonical(bids, terms) if _above_cap(bid, terms)),
        gap=solution.gap,
        program=program,
    )


def check_auction(
    bids: Sequence[ForwardBid], needs: Sequence[ReliefNeed], resources: Mapping[str, Resource], terms: AuctionTerms
) -> None:
    """Raises BidError with all faults of an auction's terms, bids and needs."""
    faults = [
        *_terms_faults(terms),
        *twice("bid", [bid.id for bid in bids]),
        *(fault for bid in bids for fault in forward_bid_faults(bid, resources)),
        *_beyond_capability(bids, resources),
        *twice("need", [need.id for need in needs]),
        *(fault for need in needs for fault in _need_faults(need, resources)),
    ]
    if faults:
        raise BidError(faults)


def forward_bid_faults(bid: ForwardBid, resources: Mapping[str, Resource]) -> Iterator[Fault]:
    """All that is wrong with one bid."""
    key = f"bid {bid.id}"
    if not (math.isfinite(bid.capacity_kw) and bid.capacity_kw > 0.0):
        yield Fault("a capacity must be a number above 0 kW", key=key, value=str(bid.capacity_kw))
    yield from price_faults(bid.availability_eur_per_kw, bid.utilisation_eur_per_kwh, key)
    if not 0.0 <= bid.min_accept <= 1.0:
        yield Fault("min_accept must be in [0, 1]", key=key, value=str(bid.min_accept))
    yield from share_faults(bid.shares, resources, key)


def _beyond_capability(bids: Sequence[ForwardBid], resources: Mapping[str, Resource]) -> Iterator[Fault]:
    """Bids that together offer more of a resource than is registered."""
    for name, resource in resources.items():
        for direction, limit in ((Direction.UP, resource.up_kw), (Direction.DOWN, resource.down_kw)):
            own = [bid for bid in bids if bid.direction is direction and name in dict(bid.shares)]
            offered = math.fsum(dict(bid.shares)[name] * bid.capacity_kw for bid in own)
            if offered > limit * (1.0 + _SHARE):
                problem = f"bids {', '.join(bid.id for bid in own)} offer more {direction.value} than is registered"
                yield Fault(problem, key=f"resource {name}", value=f"{offered:g} kW", allowed=f"{limit:g} kW")


def _terms_faults(terms: AuctionTerms) -> Iterator[Fault]:
    key = "terms of the auction"
    faults = list(window_faults(terms.window, key))
    yield from faults
    yield from payment_faults(terms.availability_full, terms.availability_zero, terms.max_activations, key)
    most_h = math.inf if faults else window_h(terms.window)
    if not 0.0 <= terms.expected_h <= most_h:
        allowed = f"0..{most_h:g} h, those of the window"
        yield Fault("expected_h out of range", key=key, value=f"{terms.expected_h:g} h", allowed=allowed)
    price = terms.slack_eur_per_kw
    if price is not None and not (math.isfinite(price) and price > 0.0):
        yield Fault("slack_eur_per_kw must be a number above 0, or none", key=key, value=str(price))


def _need_faults(need: ReliefNeed, resources: Mapping[str, Resource]) -> Iterator[Fault]:
    key = f"need {need.id}"
    if not (math.isfinite(need.relief_kw) and need.relief_kw >= 0.0):
        yield Fault("a relief must be a number of 0 or more kW", key=key, value=str(need.relief_kw))
    for name, ratio in need.relief_per_kw:
        if name not in resources:
            yield Fault("no resource of that name", key=key, value=name, allowed=", ".join(resources))
        if not math.isfinite(ratio):
            yield Fault(f"relief_per_kw of {name} must be a number", key=key, value=str(ratio))


def canonical(bids: Sequence[ForwardBid], terms: AuctionTerms) -> list[ForwardBid]:
    """By cost per kW, time of submission and id, so that the order of arrival changes nothing."""
    return sorted(bids, key=lambda bid: (_cost_eur_per_kw(bid, terms), bid.submitted_s, bid.id))


def _cost_eur_per_kw(bid: ForwardBid, terms: AuctionTerms) -> float:
    return bid.availability_eur_per_kw + terms.expected_h * bid.utilisation_eur_per_kwh


def _above_cap(bid: ForwardBid, terms: AuctionTerms) -> bool:
    return (
        bid.availability_eur_per_kw > terms.availability_cap_eur_per_kw
        or bid.utilisation_eur_per_kwh > terms.utilisation_cap_eur_per_kwh
    )


def _relief_per_kw(need: ReliefNeed, bid: ForwardBid) -> float:
    of_up = dict(need.relief_per_kw)
    sign = -bid.direction.delta_p_kw(1.0)
    return max(0.0, sign * math.fsum(share * of_up.get(name, 0.0) for name, share in bid.shares))


def _require_enough(needs: Sequence[ReliefNeed], relief: Floats) -> None:
    short = [
        f"need {need.id}: {need.relief_kw:g} kW, all bids within the caps give {kw:g} kW"
        for need, kw in zip(needs, relief.sum(axis=1).tolist(), strict=True)
        if kw < need.relief_kw * (1.0 - _SHARE)
    ]
    if short:
        raise MarketError("\n".join(short))


def _program(
    bids: Sequence[ForwardBid], needs: Sequence[ReliefNeed], relief: Floats, useful: Flags, terms: AuctionTerms
) -> Program:
    """Columns: accepted share of each bid, what is missing of each need [kW], decisions."""
    columns, rows = ColumnList(), RowList()
    for bid, wanted in zip(bids, useful, strict=True):
        columns.add(_cost_eur_per_kw(bid, terms) * bid.capacity_kw, 0.0, float(wanted))
    hard = terms.slack_eur_per_kw is None
    for need in needs:
        columns.add(terms.slack_eur_per_kw or 0.0, 0.0, 0.0 if hard else need.relief_kw)
    for k, need in enumerate(needs):
        given = {b: float(relief[k, b]) for b in np.flatnonzero(relief[k]).tolist()}
        rows.add({**given, len(bids) + k: 1.0}, need.relief_kw, math.inf, RowTag("relief", 0, need.id))
    for b, bid in enumerate(bids):
        if bid.min_accept > 0.0:
            tag, taken = RowTag("min_accept", 0, bid.id, priced=False), columns.add(0.0, 0.0, 1.0, integer=True)
            rows.add({b: 1.0, taken: -1.0}, -math.inf, 0.0, tag)
            rows.add({b: 1.0, taken: -bid.min_accept}, 0.0, math.inf, tag)
    return Program(columns.columns(), rows.rows())


def _settled(program: Program, solver: Solver, capacity_kw: Floats) -> Solution:
    """Of equal results the one with the least capacity, of equals that of the first bids (n_bid,)."""
    solution = solver.solve(program)
    gap = solution.gap
    if len(program.integers):
        program = decided(program, solution.x)
        solution = solver.solve(program)
    preference = np.zeros(program.n_column)
    preference[: len(capacity_kw)] = capacity_kw * tie_weights(len(capacity_kw))
    x = preferred(program, solution, solver, preference)
    return Solution(solution.status, x, solution.row_dual, solution.reduced_cost, gap)


def _contract(bid: ForwardBid, committed_kw: float, terms: AuctionTerms) -> Contract:
    return Contract(
        id=bid.id,
        seller=bid.seller,
        buyer=terms.buyer,
        product=bid.product,
        direction=bid.direction,
        committed_kw=committed_kw,
        availability_eur_per_kw=bid.availability_eur_per_kw,
        strike_eur_per_kwh=bid.utilisation_eur_per_kwh,
        window=terms.window,
        shares=bid.shares,
        max_activations=terms.max_activations,
        availability_full=terms.availability_full,
        availability_zero=terms.availability_zero,
        signed_s=terms.signed_s,
    )
