"""A stage as a clearing case: which network, which bids, and who stands on the other side of the balance.

A counterpart is a bid like others: whoever is short or has too much at the price of a shortage, a balance responsible
party that buys, an interface that trades at a price.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from cosim.coordination.case import place_of
from cosim.coordination.grid import (
    COUNTERPART,
    Grid,
    area_of,
    held_in_kvar,
    joined,
    reactive,
    shifted,
    with_counterpart,
    with_reactive_pods,
    without_limits,
    without_voltages,
)
from cosim.coordination.messages import AreaCurve
from cosim.coordination.scheme import CURVES, Balance, Stage
from cosim.coordination.situation import Allowed, Situation, allowed, curve_resource
from cosim.domain.market import Bid, Direction, PriceStep, Resource
from cosim.errors import BidError, Fault
from cosim.market.case import ClearingCase, ClearingSettings, JointLimit
from cosim.market.network import NetworkRows

SHORT, LONG = "short", "long"
TRADE: Final = "trade"
_SPARE_KW = 1e3
_UNITS_KEPT = 4096
_NO_WORSE = ("caps", "validate")


@dataclass(frozen=True)
class Problem:
    """A clearing case of a stage and what its bids stand for: ``book`` those offered, of which the case has those that
    anything is left of, ``curves`` those of areas (with what 1 kW does to the export), ``demands`` those of BRPs, by
    id; ``grid``: the network before it."""

    case: ClearingCase
    grid: Grid
    book: tuple[Allowed, ...]
    curves: Mapping[str, tuple[AreaCurve, Bid]]
    demands: Mapping[str, Bid]


def problem_of(stage: Stage, now: Situation, area: str | None, balance: Balance) -> Problem:
    """The problem of a stage for one area, or for all of the system (None)."""
    book = tuple(_relaxed(each) if stage.objective in CURVES else each for each in allowed(stage, now, area))
    curves = {} if area is not None or stage.admit != "curve" else _curve_bids(now)
    grid = with_counterpart(_area_grid(stage, now, area) if area is not None else _joint_grid(stage, now))
    resources = _resources(now, area, grid.rows)
    book_bids = (each.bid for each in book if each.high_kw > 0.0)
    locked = {each.bid.id: (each.low_kw,) for each in book if each.low_kw > 0.0}
    interface = _interface(stage, now, area, balance, book, grid)
    size_kw = sum(each.high_kw for each in book) + sum(bid.quantity_kw[0] for _, bid in curves.values())
    size_kw += sum(abs(kw) for need in now.demands for kw in need.need_kw) + _SPARE_KW
    size_kw += abs(interface[0]) if interface else 0.0
    demands = _demand_bids(now) if "BRP" in stage.buyers else {}
    others = [*_counterparts(now, area, balance, size_kw), *demands.values()]
    no_worse = stage.limits == "no_worse" or stage.objective in _NO_WORSE
    case = ClearingCase(
        bids=(*book_bids, *(bid for _, bid in curves.values()), *others),
        resources=resources,
        networks=(grid.rows,),
        t_s=now.t_s,
        mtu_s=now.mtu_s,
        uncertainty=None if grid.uncertainty is None else (grid.uncertainty,),
        locked=locked,
        settings=ClearingSettings(
            limits=now.rules.limits,
            interface_kw=interface,
            slack_eur_per_kwh=0.0 if no_worse else now.rules.violation_eur_per_kwh,
            no_worse=True,
        ),
        joint_limits=tuple(_joint_limits(now, book)),
    )
    return Problem(case, grid, book, curves, demands)


def _relaxed(each: Allowed) -> Allowed:
    """Divisible: a curve is convex."""
    return each._replace(bid=replace(each.bid, min_accept=0.0, exclusive_group=None))


def _area_grid(stage: Stage, now: Situation, area: str) -> Grid:
    grid = now.areas[area].grid
    return held_in_kvar(grid, -now.target_kw.get(area, 0.0)) if stage.commodity == "Q" else grid


def _joint_grid(stage: Stage, now: Situation) -> Grid:
    """Transmission after what others changed at the interfaces, with the areas' networks if they count. Its voltages
    count where reactive power is cleared."""
    if now.transmission is None:
        raise ValueError("a stage of the whole system needs the transmission network")
    grid = now.transmission
    missing = [bus for bus in dict.fromkeys(now.interfaces.values()) if reactive(bus) not in grid.rows.pods]
    if stage.commodity == "Q":
        grid = with_reactive_pods(grid, missing)
    told = dict.fromkeys(grid.rows.pods, 0.0)
    for area, bus in now.interfaces.items():
        told[bus] -= now.export_kw.get(area, 0.0)
        if stage.commodity == "Q":
            told[reactive(bus)] -= now.export_kvar.get(area, 0.0)
    grid = shifted(grid, told)
    if "T" not in stage.network:
        grid = without_limits(grid)
    elif stage.commodity == "P":
        grid = without_voltages(grid)
    if "D" in stage.network:
        grid = joined(grid, [(area.bus, area.grid) for area in now.areas.values()])
    return grid


def _resources(now: Situation, area: str | None, rows: NetworkRows) -> dict[str, Resource]:
    """All that the problem can place; at its area's bus what is in a network that is not known."""
    placed = {}
    for name, unit in now.resources.items():
        if unit.pod in rows.index:
            placed[name] = unit
        elif area is None and (bus := now.interfaces.get(area_of(unit.pod))) is not None:
            placed[name] = _at_bus(unit, bus)
    for curve in now.curves:
        bus = now.interfaces[curve.area]
        pod = reactive(bus) if curve.commodity == "Q" else bus
        placed[curve_resource(curve.area)] = Resource(curve_resource(curve.area), pod, "area", curve.area, 0.0, 0.0)
    return placed | {COUNTERPART: Resource(COUNTERPART, COUNTERPART, "counterpart", "", 0.0, 0.0)}


@lru_cache(_UNITS_KEPT)
def _at_bus(unit: Resource, bus: str) -> Resource:
    return replace(unit, pod=bus, kvar_per_kw=0.0)


def effects_on_import(bids: Iterable[Bid], resources: Mapping[str, Resource], rows: NetworkRows) -> dict[str, float]:
    """Change of the head's import [kW] by 1 kW of each bid; of one of any split, the mean of its members."""
    by_p, by_q = rows.head_by_p.tolist(), rows.head_by_q.tolist()

    def of(name: str) -> float:
        unit = resources[name]
        k = rows.index[unit.pod]
        return float(by_p[k] + unit.kvar_per_kw * by_q[k])

    found = {}
    for bid in bids:
        if bid.resource is not None:
            total = of(bid.resource)
        else:
            shares = bid.shares or [(name, 1.0 / len(bid.members)) for name in bid.members]
            total = sum(share * of(name) for name, share in shares)
        found[bid.id] = bid.direction.delta_p_kw(total)
    return found


def _interface(
    stage: Stage, now: Situation, area: str | None, balance: Balance, book: Sequence[Allowed], grid: Grid
) -> tuple[float, float] | None:
    """Bounds on the change of import from the schedule, of the area or of the system."""
    if balance == "none":
        return None
    if area is None:
        change = sum(now.export_kw.values()) - now.need_kw
        return change, change
    if balance in ("hold", "priced"):
        before = [each for each in book if each.locked_kw]
        effect = effects_on_import((each.bid for each in before), now.resources, grid.rows)
        change = sum(each.locked_kw * effect[each.bid.id] for each in before)
        return change, change
    if balance == "target":
        change = -(now.target_kvar if stage.commodity == "Q" else now.target_kw)[area]
        return change, change
    tolerance_kw = now.areas[area].tolerance_kw
    change = -now.schedule_kw.get(area, 0.0)
    return change - tolerance_kw, change + tolerance_kw


def _counterparts(now: Situation, area: str | None, balance: Balance, size_kw: float) -> Iterator[Bid]:
    if balance == "priced" and area is not None:
        if area not in now.price_eur_per_kwh:
            key = f"areas.{area}.interface_price_eur_per_mwh"
            raise BidError(Fault("the scheme needs a price of the interface", key=key))
        price = now.price_eur_per_kwh[area]
        yield _counterpart(f"{TRADE} up", Direction.UP, now.t_s, size_kw, price)
        yield _counterpart(f"{TRADE} down", Direction.DOWN, now.t_s, size_kw, -price)
    elif balance in ("system", "band", "target"):
        yield _counterpart(SHORT, Direction.UP, now.t_s, size_kw, now.rules.shortage_eur_per_kwh)
        yield _counterpart(LONG, Direction.DOWN, now.t_s, size_kw, now.rules.shortage_eur_per_kwh)


def _demand_bids(now: Situation) -> dict[str, Bid]:
    """Who buys UP takes it away from the balance, as DOWN would."""
    found = {}
    for need in now.demands:
        kw, price = need.need_kw[0], float(need.max_price_eur_per_kwh or 0.0)
        direction = Direction.DOWN if kw > 0.0 else Direction.UP
        if kw:
            found[need.id] = _counterpart(f"demand {need.id}", direction, now.t_s, abs(kw), -price)
    return found


def _counterpart(name: str, direction: Direction, t_s: int, kw: float, price: float) -> Bid:
    return Bid(name, "", "", direction, t_s, (kw,), (PriceStep(kw, price),), resource=COUNTERPART)


def _curve_bids(now: Situation) -> dict[str, tuple[AreaCurve, Bid]]:
    """Curves of areas as bids of a resource at their bus."""
    found = {}
    for curve in now.curves:
        for direction in Direction:
            steps = curve.steps(direction)
            name = f"curve {curve.area} {direction.value}"
            kw = sum(step.quantity_kw for step in steps)
            bid = Bid(name, curve.area, "", direction, now.t_s, (kw,), steps, resource=curve_resource(curve.area))
            if steps:
                found[name] = curve, bid
    return found


def _joint_limits(now: Situation, book: Sequence[Allowed]) -> Iterator[JointLimit]:
    """Caps of perimeters on bids at distribution, beyond what was awarded before."""
    for light in now.lights:
        inside = [
            each
            for each in book
            if each.high_kw > 0.0
            and each.bid.direction is light.direction
            and place_of(each.bid, now.resources)
            and any(now.resources[name].perimeter == light.perimeter for name in each.bid.members)
        ]
        if inside:
            before = sum(each.locked_kw for each in inside)
            ids = tuple(each.bid.id for each in inside)
            yield JointLimit(f"{light.perimeter} {light.direction.value}", ids, before + light.cap_kw)
