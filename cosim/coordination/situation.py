"""What a solver knows when a stage begins, and what of every bid it may use in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from cosim.coordination.case import Area, Rules, place_of
from cosim.coordination.grid import Grid, is_reactive
from cosim.coordination.messages import AreaCurve
from cosim.coordination.scheme import Stage
from cosim.coordination.traffic_light import Light
from cosim.domain.market import Bid, Direction, Need, PriceStep, Resource

SMALL_KW = 1e-6


@dataclass(frozen=True)
class Taken:
    """An award of an earlier stage on a resource; whether the solver can undo it."""

    stage: str
    direction: Direction
    own: bool = True


@dataclass(frozen=True)
class Situation:
    """``areas``: those whose network is known; ``interfaces``: the bus of all areas; ``need_kw``, ``demands``: of the
    system and of BRPs.

    Of earlier stages: ``locked`` kW of bids whose effect the solver works out itself; ``used`` kW of bids whose effect
    it is told as changes of export of areas (``export_kw``, ``export_kvar``); ``taken``: awards by resource. Of this
    stage: ``caps`` by bid, ``lights`` by perimeter, ``picked`` bids and ``listed`` resources (None for all), ``curves``
    in place of an area's bids, and targets of an area's interface, changes of export from the schedule [kW, kvar].
    """

    t_s: int
    mtu_s: int
    rules: Rules
    transmission: Grid | None = None
    areas: Mapping[str, Area] = field(default_factory=dict)
    interfaces: Mapping[str, str] = field(default_factory=dict)
    bids: tuple[Bid, ...] = ()
    resources: Mapping[str, Resource] = field(default_factory=dict)
    need_kw: float = 0.0
    demands: tuple[Need, ...] = ()
    schedule_kw: Mapping[str, float] = field(default_factory=dict)
    price_eur_per_kwh: Mapping[str, float] = field(default_factory=dict)
    locked: Mapping[str, float] = field(default_factory=dict)
    used: Mapping[str, float] = field(default_factory=dict)
    export_kw: Mapping[str, float] = field(default_factory=dict)
    export_kvar: Mapping[str, float] = field(default_factory=dict)
    taken: Mapping[str, tuple[Taken, ...]] = field(default_factory=dict)
    caps: Mapping[str, float] = field(default_factory=dict)
    picked: Mapping[str, float] | None = None
    lights: tuple[Light, ...] = ()
    listed: Mapping[str, Resource] | None = None
    curves: tuple[AreaCurve, ...] = ()
    target_kw: Mapping[str, float] = field(default_factory=dict)
    target_kvar: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def untouched(self) -> bool:
        """Whether nothing that was told or done before says anything of bids."""
        told = self.picked is not None or self.listed is not None
        return not (told or self.caps or self.locked or self.used or self.taken)


class Allowed(NamedTuple):
    """A bid as a stage may use it: from ``low_kw`` to ``high_kw``, of which ``locked_kw`` was awarded before; why the
    stage takes less than there is. What is left of no bid is the bid as it was."""

    bid: Bid
    low_kw: float
    high_kw: float
    locked_kw: float
    reason: str = ""


def allowed(stage: Stage, now: Situation, area: str | None) -> Iterator[Allowed]:
    """Every bid that a stage may use or has to keep, of one area, or of all of the system (None)."""
    for bid in now.bids:
        place = place_of(bid, now.resources)
        if area is not None and place != area:
            continue
        in_scope = _in_scope(stage, now, bid, place)
        if in_scope and bid.min_accept == 0.0 and (now.untouched or _untouched(now, bid)):
            yield Allowed(bid, 0.0, bid.quantity_kw[0], 0.0)
        elif in_scope:
            yield _limited(stage, now, bid)
        elif (locked := now.locked.get(bid.id, 0.0)) > 0.0:
            yield Allowed(_residual(bid, now, locked), locked, locked, locked)


def _in_scope(stage: Stage, now: Situation, bid: Bid, place: str) -> bool:
    """Whether the stage is for such bids, and its solver can place them."""
    if not place:
        return "T" in stage.resources and (stage.commodity == "P" or _in_kvar(now, bid))
    if "D" not in stage.resources or (stage.admit == "curve" and stage.joint):
        return False
    return stage.knows_distribution or not _in_kvar(now, bid)


def _in_kvar(now: Situation, bid: Bid) -> bool:
    if bid.resource is not None:
        return is_reactive(now.resources[bid.resource])
    return all(is_reactive(now.resources[name]) for name in bid.members)


def _untouched(now: Situation, bid: Bid) -> bool:
    """Whether nothing that was told or done before says anything of a bid, or of those who deliver it."""
    told = now.picked is not None or now.listed is not None or bid.id in now.caps
    return not (told or bid.id in now.locked or bid.id in now.used) and now.taken.keys().isdisjoint(bid.members)


def _limited(stage: Stage, now: Situation, bid: Bid) -> Allowed:
    whole, locked = bid.quantity_kw[0], now.locked.get(bid.id, 0.0)
    high = max(locked, whole - now.used.get(bid.id, 0.0))
    low = 0.0 if stage.reversal == "buy_back" else locked
    if reason := _excluded(stage, now, bid):
        return Allowed(_residual(bid, now, locked), locked, locked, locked, reason)
    reason = ""
    most = min((kw for kw in _caps(now, bid)), default=high)
    if locked + most < high - SMALL_KW:
        high, reason = locked + max(most, 0.0), f"capped to {max(most, 0.0):g} kW"
    if bid.min_accept > 0.0 and high < bid.min_accept * whole - SMALL_KW:
        high, reason = locked, f"{reason or 'partly used'}, less than the least it accepts"
    return Allowed(_residual(bid, now, high), low, high, locked, reason)


def _caps(now: Situation, bid: Bid) -> Iterator[float]:
    if bid.id in now.caps:
        yield now.caps[bid.id]
    if now.picked is not None:
        yield now.picked.get(bid.id, 0.0)
    if now.listed is not None:
        for name in bid.members:
            unit = now.listed[name]
            yield unit.up_kw if bid.direction is Direction.UP else unit.down_kw


def _excluded(stage: Stage, now: Situation, bid: Bid) -> str:
    """Why a bid is out, empty if it is not."""
    if now.listed is not None and any(name not in now.listed for name in bid.members):
        return "not on the list of resources"
    for name in bid.members:
        for award in now.taken.get(name, ()):
            if stage.exclude == "resource":
                return f"resource activated in {award.stage}"
            free = stage.reversal == "pay_both" or (stage.reversal == "buy_back" and award.own)
            if award.direction is bid.direction.opposite and (stage.exclude == "direction" or not free):
                return f"activated {award.direction.value} in {award.stage}"
    return ""


def _residual(bid: Bid, now: Situation, high_kw: float) -> Bid:
    """What is left of a bid: up to ``high_kw``, and the steps that are not used elsewhere."""
    used, steps = now.used.get(bid.id, 0.0), list[PriceStep]()
    if high_kw == 0.0 or (used == 0.0 and bid.min_accept == 0.0 and bid.quantity_kw == (high_kw,)):
        return bid
    for step in bid.steps:
        left = max(0.0, step.quantity_kw - used)
        used -= step.quantity_kw - left
        if left > 0.0:
            steps.append(PriceStep(left, step.price_eur_per_kwh))
    share = bid.min_accept * bid.quantity_kw[0] / high_kw
    return replace(bid, quantity_kw=(high_kw,), steps=tuple(steps or bid.steps), min_accept=min(1.0, share))


def curve_resource(area: str) -> str:
    return f"curve {area}"
