"""What a party says: of its own at the gate, and of the outcome of a stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np

from cosim.coordination.case import Area, Rules, place_of
from cosim.coordination.grid import Grid, area_of
from cosim.coordination.messages import (
    Body,
    Curves,
    Lights,
    MessageType,
    Needed,
    NetworkModel,
    Offered,
    OperatingData,
    Quantities,
    Terms,
)
from cosim.coordination.outcome import StageOutcome
from cosim.domain.market import Bid, Need, Resource
from cosim.market.case import ClearingCase
from cosim.market.prequalification import grid_capabilities, prequalified

SYSTEM: Final = "system"


@dataclass(frozen=True)
class Own:
    """What a party knows without being told: bids (who sells), networks, needs (BRPs: ``demands``), what is agreed with
    areas about their interface, and the version of its topological matrix."""

    t_s: int
    mtu_s: int
    rules: Rules
    transmission: Grid | None = None
    interfaces: Mapping[str, str] = field(default_factory=dict)
    areas: Mapping[str, Area] = field(default_factory=dict)
    bids: tuple[Bid, ...] = ()
    resources: Mapping[str, Resource] = field(default_factory=dict)
    need_kw: float = 0.0
    demands: tuple[Need, ...] = ()
    schedule_kw: Mapping[str, float] = field(default_factory=dict)
    price_eur_per_kwh: Mapping[str, float] = field(default_factory=dict)
    matrix_version: int = 1

    @cached_property
    def offered(self) -> Offered:
        """All its bids."""
        return _with_members(self, self.bids)

    @cached_property
    def places(self) -> tuple[str, ...]:
        """The area of each of its bids, empty at transmission."""
        return tuple(place_of(bid, self.resources) for bid in self.bids)


def own_body(kind: MessageType, own: Own, receiver: str, sides: frozenset[str]) -> Body:
    """What a party says at the gate; ``sides``: whose bids the receiver gets (D, T)."""
    if kind == "BID":
        return _offered(own, receiver, sides)
    if kind == "NEED":
        return Needed({SYSTEM: own.need_kw} if not own.areas else _excesses(own), own.demands)
    if kind in ("IFACE_SCHEDULE", "IFACE_PRICE"):
        terms = own.schedule_kw if kind == "IFACE_SCHEDULE" else own.price_eur_per_kwh
        area = receiver.partition(":")[2]
        return Terms({name: value for name, value in terms.items() if area in ("", name)})
    if kind == "RESOURCE_LIST":
        return Offered((), tuple(unit for area in own.areas.values() for unit in _listed(own, area)))
    area_name = next(iter(own.areas), "")
    grid = own.areas[area_name].grid if area_name else own.transmission
    if grid is None:
        raise ValueError(f"{kind} is said by who has a network")
    if kind == "OPER_DATA":
        rows = grid.rows
        return OperatingData(area_name, rows.p_kw, rows.q_kvar, rows.base, grid.uncertainty)
    bus = own.areas[area_name].bus if area_name else ""
    return NetworkModel(area_name, bus, _without_state(grid), {} if area_name else dict(own.interfaces))


def _offered(own: Own, receiver: str, sides: frozenset[str]) -> Offered:
    """Bids that a party gets as they are: a DSO those of its area."""
    area = receiver.partition(":")[2]
    bids = [
        bid
        for bid, place in zip(own.bids, own.places, strict=True)
        if ("D" if place else "T") in sides and area in ("", place)
    ]
    return own.offered if len(bids) == len(own.bids) else _with_members(own, bids)


def _with_members(own: Own, bids: Sequence[Bid]) -> Offered:
    names = dict.fromkeys(name for bid in bids for name in bid.members)
    return Offered(tuple(bids), tuple(own.resources[name] for name in names))


def _excesses(own: Own) -> dict[str, float]:
    """By how much currents and voltages of areas are beyond their limits by the forecast."""
    found = dict[str, float]()
    for area in own.areas.values():
        rows = area.grid.rows
        size = np.abs(rows.base)
        excess = np.fmax(size - rows.upper, rows.lower - size)
        found |= {rows.names[k]: float(excess[k]) for k in np.flatnonzero(excess > 0.0).tolist()}
    return found


def _listed(own: Own, area: Area) -> list[Resource]:
    """Resources of an area, with no more than is safe in all situations that prequalification looks at."""
    inside = {name: unit for name, unit in own.resources.items() if area_of(unit.pod) == area.id}
    if area.snapshots:
        rows = tuple(grid.rows for grid in area.snapshots)
        inside = prequalified(inside, grid_capabilities(ClearingCase((), inside, rows, own.t_s, own.mtu_s)))
    return list(inside.values())


def _without_state(grid: Grid) -> Grid:
    rows = grid.rows
    nothing = np.zeros(len(rows.pods))
    bare = replace(rows, p_kw=nothing, q_kvar=nothing, base=np.zeros_like(rows.base))
    return replace(grid, rows=bare, uncertainty=None)


def body_of(
    kind: MessageType,
    outcome: StageOutcome,
    to: str = "",
    concerns: Callable[[str], bool] = lambda _: True,
    area: str = "",
    topology_version: int = 0,
) -> Body:
    """What a message of a type says of an outcome to the role ``to``; ``concerns``: whether a bid or an area is the
    receiver's business; of lights, those of an ``area`` for a version of its topology."""
    kw = {bid: each.kw for bid, each in outcome.bought.items() if concerns(bid)}
    exports = {name: change for name, change in outcome.export_kw.items() if concerns(name)}
    if kind == "BID_CURVE":
        return Curves(outcome.curves)
    if kind == "LIMIT":
        return Lights(area, topology_version, outcome.lights)
    if kind in ("BID_CAP", "VALIDATION"):
        return Quantities(kw=outcome.caps, again=outcome.again)
    if kind == "IFACE_SCHEDULE":
        return Terms(exports)
    if kind == "AWARD" and to == "AGG":
        return Quantities(kw=kw)
    if kind == "AWARD":
        on_curve = {name: change for name, (change, _) in outcome.on_curve.items() if concerns(name)}
        return Quantities(export_kw=on_curve or exports)
    return Quantities(kw=kw, export_kw=exports)
