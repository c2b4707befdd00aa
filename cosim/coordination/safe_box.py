"""What is safe whatever others choose: the room that limits leave, shared so that every combination within it fits.

A box of quantities ``u`` is safe if ``sum max(0, a) u <= room`` for every row: then so is all that lies in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from cosim.domain.frames import Floats
from cosim.domain.market import Bid, Direction
from cosim.market.case import ClearingCase
from cosim.market.headroom import DOWN, UP, headroom
from cosim.market.highs import Highs
from cosim.market.program import Columns, Program, Rows, RowTag

Sharing = Literal["max_volume", "pro_rata", "price"]
SIDE: Final[Mapping[Direction, int]] = {Direction.UP: UP, Direction.DOWN: DOWN}
NO_EFFECT = 1e-6
"""kW of a row by 1 kW below which a resource has no part in it."""
_LEAST_PRICE_EUR_PER_KWH = 1e-3


@dataclass(frozen=True)
class Room:
    """Rows of a network that may be reached: ``room_kw`` (n,) left by what is locked, below zero where a limit is
    violated; ``take`` (n, 2, n_resource) by 1 kW UP and DOWN of each resource of the case; ``tags`` (n,)."""

    room_kw: Floats
    take: Floats
    tags: tuple[RowTag, ...]


def room_of(case: ClearingCase) -> Room:
    """Of a case of one MTU; of its bids the locked awards count.

    Raises BidError where the forecast errors make rows that are not linear in single resources.
    """
    names = list(case.resources)
    locked = np.zeros((2, len(names)))
    for bid in case.bids:
        for name, share in shares_of(bid):
            locked[SIDE[bid.direction], names.index(name)] += share * sum(case.locked.get(bid.id, ()))
    most = np.array(
        [[unit.up_kw for unit in case.resources.values()], [unit.down_kw for unit in case.resources.values()]]
    )
    rooms, takes, tags = [np.zeros(0)], [np.zeros((0, 2, len(names)))], list[RowTag]()
    for rows in headroom(case):
        room = rows.room_kw - (rows.take * locked).sum(axis=(1, 2))
        at = np.flatnonzero((np.maximum(rows.take, 0.0) * most).sum(axis=(1, 2)) > room)
        rooms.append(room[at])
        takes.append(rows.take[at])
        tags += [rows.tag(row) for row in at.tolist()]
    return Room(np.concatenate(rooms), np.concatenate(takes), tuple(tags))


def shares_of(bid: Bid) -> tuple[tuple[str, float], ...]:
    """Who delivers a bid, each counted with the most it may have to."""
    if bid.resource is not None:
        return ((bid.resource, 1.0),)
    return bid.shares or tuple((name, 1.0) for name in bid.any_of)


def bid_caps(case: ClearingCase, sharing: Sharing) -> dict[str, float]:
    """The most of each bid [kW] beyond what is locked such that every combination is safe.

    ``max_volume``: as much as possible in all; ``price``: with cheap bids first; ``pro_rata``: the same share of each.
    """
    room = room_of(case)
    names = {name: k for k, name in enumerate(case.resources)}
    bids = sorted(case.bids, key=lambda bid: (bid.steps[0].price_eur_per_kwh, bid.submitted_s, bid.id))
    take = np.zeros((len(room.room_kw), len(bids)))
    for b, bid in enumerate(bids):
        parts = [share * room.take[:, SIDE[bid.direction], names[name]] for name, share in shares_of(bid)]
        combined = np.max(parts, axis=0) if bid.any_of else np.sum(parts, axis=0)
        take[:, b] = np.where(combined > NO_EFFECT, combined, 0.0)
    most = np.array([max(0.0, bid.quantity_kw[0] - sum(case.locked.get(bid.id, ()))) for bid in bids])
    left = np.maximum(room.room_kw, 0.0)
    if sharing == "pro_rata":
        used = take @ most
        kw = most * min(
            1.0, float(np.min(np.divide(left, used, out=np.ones_like(left), where=used > 0.0), initial=1.0))
        )
    else:
        prices = np.array([max(bid.steps[0].price_eur_per_kwh, _LEAST_PRICE_EUR_PER_KWH) for bid in bids])
        kw = safe_box(take, left, most, 1.0 / prices if sharing == "price" else np.ones(len(bids)))
    return {bid.id: float(quantity) for bid, quantity in zip(bids, kw, strict=True)}


def safe_box(take: Floats, room_kw: Floats, most_kw: Floats, weight: Floats) -> Floats:
    """The box (n,) up to ``most_kw`` of largest weighted size with ``take @ box <= room_kw``; all at least 0."""
    needed = np.flatnonzero(take @ most_kw > room_kw)
    row, column = np.nonzero(take[needed])
    start = np.searchsorted(row, np.arange(len(needed) + 1))
    tags = tuple(RowTag("safe", 0, str(k)) for k in needed)
    value, room = take[needed][row, column], np.maximum(room_kw[needed], 0.0)
    rows = Rows(start.astype(np.int64), column.astype(np.int64), value, np.full(len(needed), -np.inf), room, tags)
    columns = Columns(-weight, np.zeros(len(most_kw)), np.array(most_kw), np.zeros(len(most_kw), dtype=bool))
    if not len(most_kw):
        return np.zeros(0)
    return np.asarray(np.clip(Highs().solve(Program(columns, rows), with_duals=False).x, 0.0, most_kw))


def widest(take: Floats, members: Sequence[int]) -> Floats:
    """What 1 kW of any split among ``members`` takes at most (n, 2)."""
    return np.asarray(np.maximum(take[:, :, list(members)].max(axis=2, initial=0.0), 0.0))
