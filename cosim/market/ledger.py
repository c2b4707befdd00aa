"""The life of bids: what of each was awarded in which stage, what is still on offer, and in which state both are.

A ledger is a mapping that is never changed; every function gives a new one. A step that the life cycle does not allow
raises ValueError (`cosim.domain.market.advance`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cosim.domain.market import Award, Bid, BidState, advance
from cosim.errors import BidError, Fault

_SHARE = 1e-9
_AWARDED_KW = 1e-6
_ON_OFFER = (BidState.VALIDATED, BidState.FORWARDED, BidState.CAPPED)


@dataclass(frozen=True)
class Part:
    """What one stage awarded of a bid to one buyer, and its state."""

    award: Award
    state: BidState


@dataclass(frozen=True)
class Entry:
    """A bid, the ``parts`` awarded of it, and ``state`` and quantity (n_mtu,) [kW] of the rest. ``faults``: why it was
    rejected."""

    bid: Bid
    state: BidState
    rest_kw: tuple[float, ...]
    parts: tuple[Part, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def on_offer(self) -> bool:
        return self.state in _ON_OFFER

    @property
    def awarded_kw(self) -> tuple[float, ...]:
        """By all stages to all buyers (n_mtu,)."""
        return tuple(
            math.fsum(part.award.quantity_kw[t] for part in self.parts) for t in range(len(self.bid.quantity_kw))
        )


Ledger = Mapping[str, Entry]


def submitted(bids: Iterable[Bid]) -> Ledger:
    """A ledger of new bids. Raises BidError for ids that occur more than once."""
    bids = tuple(bids)
    entries = {bid.id: Entry(bid, BidState.SUBMITTED, bid.quantity_kw) for bid in bids}
    if len(entries) < len(bids):
        ids = [bid.id for bid in bids]
        raise BidError([Fault("more than one bid of that id", key=f"bid {x}") for x in entries if ids.count(x) > 1])
    return entries


def validated(ledger: Ledger, faults: Mapping[str, Sequence[Fault]]) -> Ledger:
    """Submitted bids are rejected if they have ``faults``, else valid."""

    def judged(entry: Entry) -> Entry:
        found = tuple(faults.get(entry.bid.id, ()))
        then = BidState.REJECTED if found else BidState.VALIDATED
        return replace(entry, state=advance(entry.state, then), faults=found)

    return _changed(ledger, (name for name, entry in ledger.items() if entry.state is BidState.SUBMITTED), judged)


def stage_bids(ledger: Ledger) -> tuple[Bid, ...]:
    """Bids of a next clearing, whose ``locked`` is `locked_kw`: what is on offer, and what was awarded before, which
    stays in the plan."""
    return tuple(_staged(entry) for entry in ledger.values() if entry.on_offer or entry.parts)


def _staged(entry: Entry) -> Bid:
    rest_kw = entry.rest_kw if entry.on_offer else (0.0,) * len(entry.rest_kw)
    kw = tuple(a + r for a, r in zip(entry.awarded_kw, rest_kw, strict=True))
    return entry.bid if kw == entry.bid.quantity_kw else replace(entry.bid, quantity_kw=kw)


def locked_kw(ledger: Ledger) -> dict[str, tuple[float, ...]]:
    """What earlier stages awarded, by bid."""
    return {name: entry.awarded_kw for name, entry in ledger.items() if entry.parts}


def cleared(ledger: Ledger, bids: Iterable[str], awards: Sequence[Award]) -> Ledger:
    """After a stage in which ``bids`` took part and ``awards`` were made, in addition to those before: of every bid on
    offer the part awarded is AWARDED and what is left, if any, RESIDUAL.

    Raises BidError naming every award of more than is on offer.
    """
    new: dict[str, list[Award]] = {name: [] for name in bids if ledger[name].on_offer}
    stray = [award for award in awards if award.bid not in new or not _of_mtus(award, ledger[award.bid].bid)]
    if stray:
        problem = "awarded a bid that is not on offer in these MTUs"
        raise BidError([Fault(problem, key=f"stage {award.stage}", value=award.bid) for award in stray])
    for award in awards:
        new[award.bid].append(award)
    if faults := [fault for name, own in new.items() for fault in _oversold(ledger[name], own)]:
        raise BidError(faults)
    return _changed(ledger, new, lambda entry: _after(entry, new[entry.bid.id]))


def _of_mtus(award: Award, bid: Bid) -> bool:
    return (award.t_s, len(award.quantity_kw)) == (bid.t_s, len(bid.quantity_kw))


def _oversold(entry: Entry, awards: Sequence[Award]) -> list[Fault]:
    faults = []
    for t, rest_kw in enumerate(entry.rest_kw):
        kw = math.fsum(award.quantity_kw[t] for award in awards)
        if kw > rest_kw * (1.0 + _SHARE) + _AWARDED_KW or any(award.quantity_kw[t] < 0.0 for award in awards):
            problem = f"stage {awards[0].stage} awards what is not on offer in MTU {t}"
            faults.append(Fault(problem, key=f"bid {entry.bid.id}", value=f"{kw:g} kW", allowed=f"0..{rest_kw:g} kW"))
    return faults


def _after(entry: Entry, awards: Sequence[Award]) -> Entry:
    parts = tuple(Part(award, advance(entry.state, BidState.AWARDED)) for award in awards)
    rest = tuple(
        max(0.0, kw - math.fsum(award.quantity_kw[t] for award in awards)) for t, kw in enumerate(entry.rest_kw)
    )
    sold_out = bool(parts) and max(rest) <= _AWARDED_KW
    then = advance(entry.state, BidState.AWARDED if sold_out else BidState.RESIDUAL)
    return replace(entry, state=then, rest_kw=rest, parts=(*entry.parts, *parts))


def carried(
    ledger: Ledger, then: Literal[BidState.FORWARDED, BidState.EXCLUDED, BidState.EXPIRED], bids: Iterable[str]
) -> Ledger:
    """What is left of ``bids`` goes to a later stage, is excluded from it, or expires."""
    return _changed(ledger, bids, lambda entry: replace(entry, state=advance(entry.state, then)))


def capped(ledger: Ledger, caps_kw: Mapping[str, Sequence[float]]) -> Ledger:
    """What is left of bids goes to a later stage as far as ``caps_kw`` (n_mtu,) allow.

    Of a block the smallest share of its MTUs; a bid that is accepted only as a whole is excluded if it is cut.
    """

    def cut(entry: Entry) -> Entry:
        caps = caps_kw[entry.bid.id]
        rest = tuple(min(kw, max(0.0, cap)) for kw, cap in zip(entry.rest_kw, caps, strict=True))
        if entry.bid.whole and rest != entry.rest_kw:
            return replace(entry, state=advance(entry.state, BidState.EXCLUDED))
        if entry.bid.block:
            share = min((r / kw for r, kw in zip(rest, entry.rest_kw, strict=True) if kw > 0.0), default=1.0)
            rest = tuple(share * kw for kw in entry.rest_kw)
        return replace(entry, state=advance(entry.state, BidState.CAPPED), rest_kw=rest)

    return _changed(ledger, caps_kw, cut)


def progressed(ledger: Ledger, then: BidState, awards: Iterable[Award]) -> Ledger:
    """The parts of these ``awards`` are activated, measured, settled, or expire unused."""
    moving = set(awards)

    def moved(entry: Entry) -> Entry:
        parts = tuple(
            replace(part, state=advance(part.state, then)) if part.award in moving else part for part in entry.parts
        )
        return replace(entry, parts=parts)

    return _changed(ledger, dict.fromkeys(award.bid for award in moving), moved)


def _changed(ledger: Ledger, names: Iterable[str], change: Callable[[Entry], Entry]) -> Ledger:
    return {**ledger, **{name: change(ledger[name]) for name in names}}
