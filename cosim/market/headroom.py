"""What the forecast leaves of every limit, and how much of it 1 kW of each resource takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cosim.domain.frames import Floats, Ints
from cosim.domain.market import Bid, Direction, PriceStep
from cosim.errors import BidError, Fault
from cosim.market.case import ClearingCase
from cosim.market.offers import Offers, offers_of
from cosim.market.program import RowTag
from cosim.market.terms import MtuNetwork, MtuState, Selected

_ROWS_AT_ONCE = 8192
UP, DOWN = 0, 1


@dataclass(frozen=True)
class Headroom:
    """Planes of limits of one kind in one MTU, in kW of the resource with the largest effect on the limited quantity.

    ``room_kw`` (n,): left at the schedule, forecast errors deducted, below zero where the limit is violated; ``take``
    (n, 2, n_resource): by 1 kW UP and DOWN of each resource of the case, below zero what relieves (as far as it is
    sure to be delivered). ``elements`` and ``plane`` (n,).
    """

    kind: str
    mtu: int
    elements: tuple[str, ...]
    plane: Ints
    room_kw: Floats
    take: Floats

    def tag(self, row: int) -> RowTag:
        return RowTag(self.kind, self.mtu, self.elements[row], int(self.plane[row]))


def headroom(case: ClearingCase, violated_only: bool = False) -> Iterator[Headroom]:
    """All planes of the limits of a case that all resources together could reach, or of those that are violated now the
    worst plane and its neighbours. Bids, needs and couplings of the case do not matter.

    Raises BidError where the forecast errors make rows that are not linear in single resources.
    """
    full = _with_all_capability(case)
    offers = offers_of(full)
    for t in range(full.n_mtu):
        network = MtuNetwork(full, offers, t)
        now = network.state(np.zeros(len(offers.columns.cost)))
        for selected in network.violated(now) if violated_only else _within_reach(network, now, offers):
            yield _of_planes(full, offers, network, selected)


def _within_reach(network: MtuNetwork, now: MtuState, offers: Offers) -> Iterator[Selected]:
    cap_kw = offers.mtus[network.mtu].cap_kw
    for number, family in enumerate(network.families):
        reach = network.protection.reach(family.ceiling) + np.abs(network.by_delta) @ cap_kw
        highest = (family.weight * now.z[family.quantity][:, None]).real.max(axis=1) + reach[family.quantity]
        limits, n_plane = np.flatnonzero(highest > family.bound.min(axis=1)), family.weight.shape[1]
        size = max(1, _ROWS_AT_ONCE // n_plane)
        for first in range(0, len(limits), size):
            part = limits[first : first + size]
            yield Selected(number, np.repeat(part, n_plane), np.tile(np.arange(n_plane), len(part)))


def _of_planes(case: ClearingCase, offers: Offers, network: MtuNetwork, selected: Selected) -> Headroom:
    rows, family = network.rows(selected), network.families[selected.family]
    if any(rows.budgets):
        problem = "a budget of errors on the residual load has no headroom by resource"
        raise BidError(Fault(problem, key="base", allowed="baseline"))
    own, index = offers.mtus[network.mtu], {name: k for k, name in enumerate(case.resources)}
    take = np.zeros((len(rows.room), 2, len(index)))
    for column, delta in enumerate(own.delta.T):
        (k,) = np.flatnonzero(delta)
        direction = UP if delta[k] < 0.0 else DOWN
        take[:, direction, index[offers.resources[k]]] = rows.coef[:, column]
    names = case.networks[network.mtu].names
    elements = tuple(names[q] for q in family.quantity[selected.limit])
    return Headroom(family.kind, network.mtu, elements, selected.plane, rows.room, take)


def _with_all_capability(case: ClearingCase) -> ClearingCase:
    """Every resource offers all that it has registered in both directions in every MTU, each by itself."""
    bids = tuple(
        Bid(f"{name} {side.value}", "", "", side, case.t_s, (kw,) * case.n_mtu, (PriceStep(kw, 0.0),), resource=name)
        for name, unit in case.resources.items()
        for side, kw in ((Direction.UP, unit.up_kw), (Direction.DOWN, unit.down_kw))
        if kw > 0.0
    )
    resources = {name: replace(unit, rebound=()) for name, unit in case.resources.items()}
    uncertainty = case.uncertainty and tuple(replace(each, delivery_budget=None) for each in case.uncertainty)
    return replace(case, bids=bids, resources=resources, uncertainty=uncertainty, needs=(), couplings=(), locked={})
