"""Reads a case file and makes a case of it, networks and all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from cosim.coordination.case import Area, CoordinationCase, Rules, check_case
from cosim.coordination.case_file import (
    AreaEntry,
    CaseFile,
    ErrorsEntry,
    Offer,
    ResourceEntry,
    TransmissionEntry,
    problems,
)
from cosim.coordination.feeder_area import FeederArea
from cosim.coordination.grid import Grid, area_of, dc_grid, reactive, with_reactive_pods, with_voltages
from cosim.coordination.topology import Placed, TopologicalMatrix
from cosim.domain.market import Bid, Direction, Need, PriceStep, Resource
from cosim.errors import BidError, Fault, InputError
from cosim.market.uncertainty import Uncertainty, box, budget
from cosim.scenario.document import Document, read_document
from cosim.units import KW_PER_MW

_FEEDERS = Path("dss_models")


def read_case(path: str | Path, overrides: tuple[str, ...] = (), feeders: Path = _FEEDERS) -> CoordinationCase:
    """The case of a YAML file, with ``overrides`` such as ``need_mw=10``; ``feeders``: the folder of those known by
    name.

    Raises BidError with all faults of the file, each with its line, and FeederError if a feeder cannot be used.
    """
    document = read_document(path, BidError, overrides)
    file = document.validate(CaseFile, BidError)
    opened, faults = _feeders(document, file, feeders)
    pods = {
        name: _places(file, name, area, opened) for name, area in file.areas.items() if _is_known(name, area, opened)
    }
    faults += [document.fault(*each) for each in problems(file, pods)]
    if faults:
        raise BidError(faults)
    return _case(file, opened)


def _feeders(document: Document, file: CaseFile, library: Path) -> tuple[dict[str, FeederArea], list[Fault]]:
    opened, faults = dict[str, FeederArea](), list[Fault]()
    for name, area in file.areas.items():
        if area.feeder is not None:
            key = f"areas.{name}.feeder"
            try:
                opened[name] = FeederArea(area.feeder, document.resolve(key, "."), library, area.limits)
            except InputError as error:
                faults += [document.fault(key, f.problem, f.value or area.feeder, f.allowed) for f in error.faults]
    return opened, faults


def _is_known(name: str, area: AreaEntry, opened: Mapping[str, FeederArea]) -> bool:
    return area.feeder is None or name in opened


def _places(file: CaseFile, name: str, area: AreaEntry, opened: Mapping[str, FeederArea]) -> tuple[str, ...]:
    if name in opened:
        return opened[name].pods
    head = area.bus or file.transmission.slack
    return tuple(dict.fromkeys([head, *(bus for line in area.lines for bus in line.buses)]))


def _case(file: CaseFile, opened: Mapping[str, FeederArea]) -> CoordinationCase:
    resources, bids = dict[str, Resource](), list[Bid]()
    for name, entry in file.resources.items():
        for resource, bid in _offers(file, name, entry):
            known = resources.get(resource.id)
            if known is None:
                resources[resource.id] = resource
            bids.append(bid)
    areas = {name: _area(file, name, entry, resources, opened.get(name)) for name, entry in file.areas.items()}
    transmission = _transmission(file.transmission, areas)
    case = CoordinationCase(
        name=file.name,
        t_s=0,
        mtu_s=file.mtu,
        transmission=with_reactive_pods(transmission, reactive_pods(resources, "")),
        need_kw=KW_PER_MW * file.need_mw,
        areas=areas,
        resources=resources,
        bids=tuple(bids),
        demands=tuple(
            Need(name, name, 0, (KW_PER_MW * each.mw,), max_price_eur_per_kwh=each.max_eur_per_mwh / KW_PER_MW)
            for name, each in file.demands.items()
        ),
        matrix_version=file.transmission.matrix_version,
        rules=Rules(file.shortage_eur_per_mwh / KW_PER_MW, file.violation_eur_per_mwh / KW_PER_MW),
    )
    check_case(case)
    return case


def _offers(file: CaseFile, name: str, entry: ResourceEntry) -> Iterator[tuple[Resource, Bid]]:
    place = entry.bus or file.transmission.slack
    pod = place if entry.area is None else f"{entry.area}/{place}"
    perimeter = entry.perimeter or (_perimeter(entry.area, file.areas[entry.area], place) if entry.area else "")
    return offers_at(pod, name, entry, perimeter)


def offers_at(pod: str, name: str, entry: ResourceEntry, perimeter: str) -> Iterator[tuple[Resource, Bid]]:
    """Resources, one for active and one for reactive power, and their bids."""
    seller = entry.aggregator or name
    for tag, ups, downs in (("", entry.up, entry.down), (" q", entry.q_up, entry.q_down)):
        at = reactive(pod) if tag else pod
        up_kw, down_kw = (KW_PER_MW * sum(offer.mw for offer in offers) for offers in (ups, downs))
        kvar_per_kw = 0.0 if tag else entry.mvar_per_mw
        unit = Resource(
            name + tag, at, entry.kind, seller, up_kw, down_kw, kvar_per_kw=kvar_per_kw, perimeter=perimeter
        )
        for direction, offers in ((Direction.UP, ups), (Direction.DOWN, downs)):
            if offers:
                steps = _steps(offers)
                kw = sum(step.quantity_kw for step in steps)
                bid_id = f"{unit.id} {direction.value}"
                product = "reactive" if tag else "active"
                yield (
                    unit,
                    Bid(
                        bid_id,
                        seller,
                        product,
                        direction,
                        0,
                        (kw,),
                        steps,
                        resource=unit.id,
                        min_accept=entry.min_accept,
                    ),
                )


def _steps(offers: tuple[Offer, ...]) -> tuple[PriceStep, ...]:
    return tuple(PriceStep(KW_PER_MW * offer.mw, offer.eur_per_mwh / KW_PER_MW) for offer in offers)


def _perimeter(name: str, area: AreaEntry, place: str) -> str:
    return next((perimeter for perimeter, places in area.perimeters.items() if place in places), name)


def reactive_pods(resources: Mapping[str, Resource], area: str) -> list[str]:
    """Places of an area (empty: at transmission) whose reactive power is offered."""
    twins = [unit.pod for unit in resources.values() if unit.pod.endswith(reactive("")) and area_of(unit.pod) == area]
    return [pod.removesuffix(reactive("")) for pod in twins]


def _transmission(entry: TransmissionEntry, areas: Mapping[str, Area]) -> Grid:
    """With what the areas import by the forecast."""
    load = net_kw(entry.load_mw, entry.generation_mw)
    for area in areas.values():
        load[area.bus] = load.get(area.bus, 0.0) + area.grid.import_kw
    return transmission_grid(entry, load)


def transmission_grid(entry: TransmissionEntry, load_kw: Mapping[str, float]) -> Grid:
    """The network of transmission with consumption ``load_kw`` by bus."""
    lines = [line.line for line in entry.lines]
    if not lines:  # a copper plate: one bus for all
        return dc_grid("", lines, entry.slack, {entry.slack: sum(load_kw.values())})
    grid = dc_grid("", lines, entry.slack, load_kw)
    if entry.voltage is None:
        return grid
    v = entry.voltage
    return with_voltages(grid, lines, KW_PER_MW * v.base_mva, v.vm_pu, (v.min_pu, v.max_pu))


def net_kw(load_mw: Mapping[str, float], generation_mw: Mapping[str, float]) -> dict[str, float]:
    """Consumption less generation [kW] by place."""
    places = dict.fromkeys([*load_mw, *generation_mw])
    return {place: KW_PER_MW * (load_mw.get(place, 0.0) - generation_mw.get(place, 0.0)) for place in places}


def _area(
    file: CaseFile, name: str, entry: AreaEntry, resources: Mapping[str, Resource], feeder: FeederArea | None
) -> Area:
    bus = entry.bus or file.transmission.slack
    powers_kw = net_kw(entry.load_mw, entry.generation_mw)

    def grid(times: float, errors: ErrorsEntry | None) -> Grid:
        if feeder is not None:
            made = feeder.grid(name, {str(kind): share for kind, share in entry.level.items()}, powers_kw, times)
        else:
            loads = {place: kw * (times if kw > 0.0 else 1.0) for place, kw in powers_kw.items()}
            made = dc_grid(f"{name}/", [line.line for line in entry.lines], bus, loads)
        return with_reactive_pods(_uncertain(made, errors), reactive_pods(resources, name))

    inside = [unit for unit in resources.values() if area_of(unit.pod) == name]
    matrix = TopologicalMatrix(entry.matrix_version, tuple(_placed(unit, entry, feeder is not None) for unit in inside))
    price = entry.interface_price_eur_per_mwh
    return Area(
        id=name,
        bus=bus,
        grid=grid(1.0, entry.errors),
        matrix=matrix,
        schedule_kw=KW_PER_MW * entry.schedule_mw,
        tolerance_kw=KW_PER_MW * entry.tolerance_mw,
        price_eur_per_kwh=None if price is None else price / KW_PER_MW,
        snapshots=tuple(grid(times, None) for times in entry.snapshots),
    )


def _uncertain(grid: Grid, errors: ErrorsEntry | None) -> Grid:
    if errors is None:
        return grid
    half = errors.half_band * np.abs(grid.rows.p_kw), errors.half_band * np.abs(grid.rows.q_kvar)
    kind = box() if errors.set == "box" else budget(errors.gamma)
    return replace(grid, uncertainty=Uncertainty(*half, kind))


def _placed(unit: Resource, area: AreaEntry, by_pod: bool) -> Placed:
    """At a bus there may be several PODs, one for each resource."""
    pod = unit.pod if by_pod else unit.id
    return Placed(unit.id, pod, unit.aggregator, unit.perimeter, area.tso_perimeter, unit.up_kw, unit.down_kw)
