"""A case in a YAML file: what it may hold, and the faults that its parts have together.

Powers are in MW, prices in EUR/MWh, as markets of transmission state them; reactive power in Mvar. Loads are
consumption, generation injection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from cosim.coordination.grid import Line, unconnected
from cosim.scenario.schema import Limits
from cosim.scenario.values import Duration, NonNegative, Number, Part, Positive, Share, Whole
from cosim.units import KW_PER_MW

Name = Annotated[str, Field(pattern=r"^[^/:#]+$")]
AreaName = Annotated[str, Field(pattern=r"^\w+$")]


class Offer(Part):
    """A price step of a bid."""

    mw: Positive = Field(description="quantity [MW; Mvar of reactive power]")
    eur_per_mwh: Number = Field(description="price paid to the seller [EUR/MWh, EUR/Mvarh]")


class ResourceEntry(Part):
    """A resource and what it offers. UP raises net injection, DOWN lowers it."""

    area: AreaName | None = Field(None, description="area of distribution; default: at transmission")
    bus: Name | None = Field(None, description="bus, or POD of a feeder; default: the slack bus")
    up: tuple[Offer, ...] = Field((), description="offers upward, prices increasing")
    down: tuple[Offer, ...] = Field((), description="offers downward, prices increasing")
    q_up: tuple[Offer, ...] = Field((), description="offers of more reactive injection, prices increasing")
    q_down: tuple[Offer, ...] = Field((), description="offers of less reactive injection, prices increasing")
    min_accept: Share = Field(0.0, description="share of an offer that must be accepted if any is [1]")
    mvar_per_mw: Number = Field(0.0, description="how its reactive power moves with its power, of consumption")
    kind: str = Field("resource", description="load, pv, battery, ...")
    aggregator: str = Field("", description="who sells it; default: itself")
    perimeter: str = Field("", description="DSO perimeter; default: that which the area gives its place")


class LineEntry(Part):
    """A line of a direct-current model."""

    buses: tuple[Name, Name] = Field(description="its two buses")
    x_pu: Positive = Field(description="reactance [pu]")
    limit_mw: Positive | None = Field(None, description="most it may carry [MW]; default: no limit")

    @property
    def name(self) -> str:
        return "-".join(self.buses)

    @property
    def line(self) -> Line:
        limit = float("inf") if self.limit_mw is None else KW_PER_MW * self.limit_mw
        return Line(self.name, self.buses, self.x_pu, limit)


class VoltageEntry(Part):
    """Voltages at transmission, which follow reactive power."""

    base_mva: Positive = Field(100.0, description="base of the reactances [MVA]")
    vm_pu: dict[Name, Positive] = Field({}, description="voltages in operation [pu]; default: 1")
    min_pu: Positive = Field(0.95, description="lowest [pu]")
    max_pu: Positive = Field(1.05, description="highest [pu]")


class TransmissionEntry(Part):
    """The transmission network: without lines a copper plate of one bus."""

    slack: Name = Field("system", description="bus that balances what is not")
    lines: tuple[LineEntry, ...] = Field((), description="lines of the direct-current model")
    load_mw: dict[Name, Number] = Field({}, description="loads by bus [MW]")
    generation_mw: dict[Name, Number] = Field({}, description="dispatched generation by bus [MW]")
    voltage: VoltageEntry | None = Field(None, description="voltages; default: not looked at")
    matrix_version: Whole = Field(1, ge=1, description="version of the operator's topological matrix")


class ErrorsEntry(Part):
    """Forecast errors that limits of distribution have to survive."""

    half_band: Share = Field(description="half-band [of each load or generation]")
    set: Literal["box", "budget"] = Field("box", description="set of errors")
    gamma: NonNegative = Field(2.0, description="budget: so many deviate fully at once")


class AreaEntry(Part):
    """An area of distribution: lines of a direct-current model that begin at the interface, or a feeder."""

    bus: Name | None = Field(None, description="bus of transmission where it hangs; default: the slack bus")
    lines: tuple[LineEntry, ...] = Field((), description="lines, from that bus on")
    feeder: str | None = Field(None, description="name of a feeder, or a path relative to this file")
    level: dict[Literal["load", "pv", "generator"], NonNegative] = Field(
        {}, description="powers of a feeder's PODs by kind [of their factor kw]; default: 1"
    )
    load_mw: dict[Name, Number] = Field({}, description="loads by bus, or consumption by POD of a feeder [MW]")
    generation_mw: dict[Name, Number] = Field({}, description="generation by bus [MW]")
    limits: Limits = Field(Limits(), description="limits of a feeder")
    errors: ErrorsEntry | None = Field(None, description="forecast errors; default: none")
    schedule_mw: Number = Field(0.0, description="agreed change of its export from the forecast [MW]")
    tolerance_mw: NonNegative = Field(0.0, description="by which it may miss that [MW]")
    interface_price_eur_per_mwh: Number | None = Field(None, description="what its export is worth [EUR/MWh]")
    perimeters: dict[Name, tuple[Name, ...]] = Field(
        {}, description="buses or PODs of each DSO perimeter; default: one, of the area's name"
    )
    tso_perimeter: str = Field("", description="TSO perimeter that its perimeters lie in")
    matrix_version: Whole = Field(1, ge=1, description="version of its topological matrix")
    snapshots: tuple[NonNegative, ...] = Field(
        (), description="prequalification looks at the network with all loads times each of these"
    )

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if bool(self.lines) == (self.feeder is not None):
            raise ValueError("an area is either of lines or of a feeder")
        return self


class DemandEntry(Part):
    """What a balance responsible party would buy."""

    mw: Number = Field(description="UP above zero, DOWN below [MW]")
    max_eur_per_mwh: Number = Field(description="at most at this price [EUR/MWh]")


class CaseFile(Part):
    """A case file."""

    name: str = Field(description="name of the case")
    description: str = Field("", description="what it is")
    mtu: Duration = Field(3600, description="length of the market time unit")
    need_mw: Number = Field(0.0, description="what the system is short of, below zero what it has too much of [MW]")
    shortage_eur_per_mwh: Positive = Field(3000.0, description="price of what a balance lacks [EUR/MWh]")
    violation_eur_per_mwh: Positive = Field(10000.0, description="price of what is beyond a limit [EUR/MWh]")
    transmission: TransmissionEntry = Field(TransmissionEntry(), description="the transmission network")
    areas: dict[AreaName, AreaEntry] = Field({}, description="areas of distribution, by name")
    resources: dict[Name, ResourceEntry] = Field(min_length=1, description="resources and their offers, by name")
    demands: dict[Name, DemandEntry] = Field({}, description="demand of balance responsible parties, by name")


class Problem(NamedTuple):
    """A fault at a key of the file."""

    key: str
    problem: str
    value: str = ""
    allowed: str = ""


def problems(file: CaseFile, pods: Mapping[str, tuple[str, ...]]) -> Iterator[Problem]:
    """What does not fit together; ``pods``: the places of each area that could be read."""
    grid = file.transmission
    buses = transmission_buses(grid)
    yield from _network_problems("transmission", grid.lines, grid.slack, buses)
    for key in ("load_mw", "generation_mw"):
        for bus in getattr(grid, key):
            if grid.lines and bus not in buses:
                yield Problem(f"transmission.{key}.{bus}", "no such bus", bus, ", ".join(buses))
    for name, area in file.areas.items():
        yield from _area_problems(f"areas.{name}", area, grid.slack, buses, pods.get(name))
    for name, resource in file.resources.items():
        yield from _resource_problems(f"resources.{name}", resource, file, buses, pods)


def transmission_buses(grid: TransmissionEntry) -> tuple[str, ...]:
    """All buses, the slack first; of a copper plate it is the only one."""
    return tuple(dict.fromkeys([grid.slack, *(bus for line in grid.lines for bus in line.buses)]))


def _network_problems(key: str, lines: tuple[LineEntry, ...], slack: str, buses: tuple[str, ...]) -> Iterator[Problem]:
    for bus in unconnected([line.line for line in lines], slack, buses):
        yield Problem(f"{key}.lines", f"no line connects it to {slack}", bus)
    for k, line in enumerate(lines):
        if line.buses[0] == line.buses[1]:
            yield Problem(f"{key}.lines.{k}.buses", "a line has two ends", line.name)
        if line.name in [other.name for other in lines[:k]]:
            yield Problem(f"{key}.lines.{k}.buses", "a second line between these buses in this order", line.name)


def _area_problems(
    key: str, area: AreaEntry, slack: str, buses: tuple[str, ...], pods: tuple[str, ...] | None
) -> Iterator[Problem]:
    bus = area.bus or slack
    if bus not in buses:
        yield Problem(f"{key}.bus", "no such bus of transmission", bus, ", ".join(buses))
    if area.lines:
        own = tuple(dict.fromkeys([bus, *(b for line in area.lines for b in line.buses)]))
        yield from _network_problems(key, area.lines, bus, own)
    if pods is None:
        return
    for quantity in ("load_mw", "generation_mw"):
        for place in getattr(area, quantity):
            if place not in pods:
                yield Problem(f"{key}.{quantity}.{place}", "no such place in the area", place, ", ".join(pods))
    inside: dict[str, str] = {}
    for perimeter, places in area.perimeters.items():
        for k, place in enumerate(places):
            first = inside.setdefault(place, perimeter)
            if place not in pods:
                yield Problem(f"{key}.perimeters.{perimeter}.{k}", "no such place in the area", place, ", ".join(pods))
            elif first != perimeter:
                yield Problem(
                    f"{key}.perimeters.{perimeter}.{k}", f"in perimeter {first} already", place, "one perimeter"
                )


def _resource_problems(
    key: str, resource: ResourceEntry, file: CaseFile, buses: tuple[str, ...], pods: Mapping[str, tuple[str, ...]]
) -> Iterator[Problem]:
    if resource.area is not None and resource.area not in file.areas:
        yield Problem(f"{key}.area", "no such area", resource.area, ", ".join(file.areas) or "none")
        return
    places = buses if resource.area is None else pods.get(resource.area)
    if places is not None and (resource.bus or file.transmission.slack) not in places:
        yield Problem(f"{key}.bus", "no such place", resource.bus or "", ", ".join(places))
    elif resource.area is not None and not resource.perimeter and resource.bus is not None:
        perimeters = file.areas[resource.area].perimeters
        if perimeters and not any(resource.bus in inside for inside in perimeters.values()):
            yield Problem(f"{key}.bus", "in no perimeter of its area", resource.bus, ", ".join(perimeters))
    if not (resource.up or resource.down or resource.q_up or resource.q_down):
        yield Problem(key, "offers nothing", allowed="up, down, q_up, q_down")
    for name in ("up", "down", "q_up", "q_down"):
        prices = [offer.eur_per_mwh for offer in getattr(resource, name)]
        if any(then < now for now, then in pairwise(prices)):
            yield Problem(f"{key}.{name}", "prices of steps must increase", str(prices))
