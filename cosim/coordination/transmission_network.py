"""A system of transmission as it is read, before a feeder hangs at it: network, loads, generators, offers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from cosim.coordination.case_file import CaseFile, problems
from cosim.coordination.grid import Grid, dc_grid, part_of, reactive, with_reactive_pods
from cosim.coordination.read_case import net_kw, offers_at, reactive_pods, transmission_grid
from cosim.domain.market import Bid, Direction, PriceStep, Resource
from cosim.errors import BidError
from cosim.scenario.document import read_document
from cosim.scenario.transmission import MeritOrder
from cosim.units import KW_PER_MW

COPPER_PLATE: Final = "system"
"""The bus of a copper plate."""
_STEPS = 4
_SMALL_KW = 1e-6
_ROUNDS = 100


@dataclass(frozen=True)
class Generator:
    """A generator at ``bus`` that follows a schedule: ``p_kw`` as given, injection, between its bounds, at a cost of
    ``cost_eur_per_kwh`` and ``slope_eur_per_kwh_kw`` more for every kW that it generates."""

    id: str
    bus: str
    p_kw: float
    p_min_kw: float
    p_max_kw: float
    cost_eur_per_kwh: float
    slope_eur_per_kwh_kw: float = 0.0

    def marginal_eur_per_kwh(self, p_kw: float) -> float:
        return self.cost_eur_per_kwh + self.slope_eur_per_kwh_kw * p_kw

    def at_price(self, price_eur_per_kwh: float) -> float:
        """The most it generates [kW] at no more than a marginal cost."""
        if self.slope_eur_per_kwh_kw > 0.0:
            wanted_kw = (price_eur_per_kwh - self.cost_eur_per_kwh) / self.slope_eur_per_kwh_kw
            return min(max(wanted_kw, self.p_min_kw), self.p_max_kw)
        return self.p_max_kw if price_eur_per_kwh >= self.cost_eur_per_kwh else self.p_min_kw


@dataclass(frozen=True)
class TransmissionNetwork:
    """``grid``: around a schedule of all but ``generators``; ``load_kw``: the loads in it by bus, which a feeder may
    take the place of; ``feeder_bus``: where a feeder hangs if nobody says, None if that has to be said; ``offers`` of
    resources at transmission, whose bids begin at 0."""

    name: str
    grid: Grid
    slack: str
    load_kw: Mapping[str, float]
    feeder_bus: str | None
    generators: tuple[Generator, ...] = ()
    offers: tuple[tuple[Resource, Bid], ...] = ()

    @property
    def buses(self) -> tuple[str, ...]:
        reactive_too = self.grid.rows.pods
        return tuple(pod for pod in reactive_too if not pod.endswith(reactive("")))


def part_of_network(whole: TransmissionNetwork, systems: int) -> TransmissionNetwork:
    """One of ``systems`` equal parts, prices as they are."""
    return replace(
        whole,
        grid=part_of(whole.grid, systems),
        load_kw={bus: kw / systems for bus, kw in whole.load_kw.items()},
        generators=tuple(
            replace(
                unit,
                p_kw=unit.p_kw / systems,
                p_min_kw=unit.p_min_kw / systems,
                p_max_kw=unit.p_max_kw / systems,
                slope_eur_per_kwh_kw=unit.slope_eur_per_kwh_kw * systems,
            )
            for unit in whole.generators
        ),
        offers=tuple(_part_of_offer(unit, bid, systems) for unit, bid in whole.offers),
    )


def _part_of_offer(unit: Resource, bid: Bid, systems: int) -> tuple[Resource, Bid]:
    steps = tuple(PriceStep(step.quantity_kw / systems, step.price_eur_per_kwh) for step in bid.steps)
    part = replace(bid, quantity_kw=tuple(kw / systems for kw in bid.quantity_kw), steps=steps)
    return replace(unit, up_kw=unit.up_kw / systems, down_kw=unit.down_kw / systems), part


def copper_plate(order: MeritOrder, import_kw: float) -> TransmissionNetwork:
    """One bus without limits, and units that each offer one step upward and one downward, sized by the mean import of
    a feeder."""
    size_kw = order.step_share * import_kw
    ups, downs = (
        np.linspace(*ends, order.steps) / KW_PER_MW for ends in (order.up_eur_per_mwh, order.down_eur_per_mwh)
    )
    offers = list[tuple[Resource, Bid]]()
    for k, (up, down) in enumerate(zip(ups.tolist(), reversed(downs.tolist()), strict=True), start=1):
        name = f"{COPPER_PLATE} {k}"
        unit = Resource(name, COPPER_PLATE, "generator", name, size_kw, size_kw)
        for direction, price in ((Direction.UP, up), (Direction.DOWN, down)):
            offers.append((unit, _bid(unit, direction, (PriceStep(size_kw, price),))))
    grid = dc_grid("", (), COPPER_PLATE, {})
    return TransmissionNetwork(COPPER_PLATE, grid, COPPER_PLATE, {}, COPPER_PLATE, offers=tuple(offers))


def read_case_network(path: str | Path, overrides: tuple[str, ...] = ()) -> TransmissionNetwork:
    """The transmission of a case file and its resources there; areas and demands are left out, and no feeder is opened.

    Raises BidError with all faults of the file, each with its line.
    """
    document = read_document(path, BidError, overrides)
    file = document.validate(CaseFile, BidError)
    if faults := [document.fault(*each) for each in problems(file, {})]:
        raise BidError(faults)
    entry = file.transmission
    offers = tuple(
        offer
        for name, resource in file.resources.items()
        if resource.area is None
        for offer in offers_at(resource.bus or entry.slack, name, resource, resource.perimeter)
    )
    resources = {unit.id: unit for unit, _ in offers}
    grid = transmission_grid(entry, net_kw(entry.load_mw, entry.generation_mw))
    hang = {area.bus or entry.slack for area in file.areas.values()}
    whole = with_reactive_pods(grid, reactive_pods(resources, ""))
    load_kw = {bus: KW_PER_MW * mw for bus, mw in entry.load_mw.items()} if entry.lines else {}
    place = entry.slack if not entry.lines else next(iter(hang)) if len(hang) == 1 else None
    return TransmissionNetwork(file.name, whole, entry.slack, load_kw, place, offers=offers)


def least_cost(generators: Sequence[Generator], load_kw: float) -> dict[str, float]:
    """Generation [kW] by unit that meets ``load_kw`` at the least cost, as far as their bounds allow: all at one
    marginal cost, of those that have just that cost the first ones first."""
    if not generators:
        return {}
    low, high = -1.0, 1.0
    while sum(unit.at_price(high) for unit in generators) < load_kw and high < 1e9:
        high *= 2.0
    while sum(unit.at_price(low) for unit in generators) > load_kw and low > -1e9:
        low *= 2.0
    for _ in range(_ROUNDS):
        middle = 0.5 * (low + high)
        if sum(unit.at_price(middle) for unit in generators) < load_kw:
            low = middle
        else:
            high = middle
    found = {unit.id: unit.at_price(low) for unit in generators}
    left_kw = load_kw - sum(found.values())
    for unit in generators:
        more_kw = min(max(left_kw, 0.0), unit.at_price(high) - found[unit.id])
        found[unit.id] += more_kw
        left_kw -= more_kw
    return found


def flexible_offers(unit: Generator, p_kw: float, cost_share: float) -> Iterator[tuple[Resource, Bid]]:
    """What a schedule leaves a generator, upward at its marginal cost and ``cost_share`` of it more, downward at as
    much less, which it pays for what it saves. A cost that rises with generation is offered in steps."""
    resource_kw = unit.p_max_kw - unit.p_min_kw
    resource = Resource(unit.id, unit.bus, "generator", unit.id, resource_kw, resource_kw)
    parts = _STEPS if unit.slope_eur_per_kwh_kw > 0.0 else 1
    for direction, room_kw in ((Direction.UP, unit.p_max_kw - p_kw), (Direction.DOWN, p_kw - unit.p_min_kw)):
        if room_kw <= _SMALL_KW:
            continue
        sign = -float(direction.delta_p_kw(1.0))  # a generator injects
        steps = []
        for k in range(parts):
            cost = unit.marginal_eur_per_kwh(p_kw + sign * room_kw * (k + 0.5) / parts)
            steps.append(PriceStep(room_kw / parts, sign * cost + cost_share * abs(cost)))
        yield resource, _bid(resource, direction, tuple(steps))


def _bid(unit: Resource, direction: Direction, steps: tuple[PriceStep, ...]) -> Bid:
    total_kw = sum(step.quantity_kw for step in steps)
    return Bid(
        f"{unit.id} {direction.value}", unit.aggregator, "active", direction, 0, (total_kw,), steps, resource=unit.id
    )
