"""The flexible resources of a scenario: a device, a market record and prices for each, at the PODs of its feeder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from difflib import get_close_matches
from typing import Any

from cosim.clock import Clock
from cosim.domain.flexibility import StorageUnit
from cosim.domain.market import Resource
from cosim.errors import Fault, ScenarioError
from cosim.flexibility.battery import Battery
from cosim.flexibility.electric_vehicle import ElectricVehicle, Session, on_steps
from cosim.flexibility.heat_pump import HeatPump
from cosim.flexibility.load import Load
from cosim.flexibility.outages import DeliveryRisk
from cosim.flexibility.pv import Pv
from cosim.flexibility.resources import Device
from cosim.rng import rng_for
from cosim.scenario.market import FlexibleBattery, FlexibleVehicle, ResourceConfig, Stay
from cosim.units import SECONDS_PER_DAY, SECONDS_PER_HOUR, kvar_per_kw

_AT = {"load": ("load",), "pv": ("pv", "generator")}
"""Kinds of PODs whose profile is the device itself, by kind of resource."""

_EFFICIENCY = 0.95
"""Of a battery that the feeder does not have."""


_SHOWN = 10


@dataclass(frozen=True)
class Unit:
    """A flexible resource: its record, its device, the index of its POD, what it asks [EUR/kWh] and how it can fail.

    ``outdoor`` is its outdoor temperature [degree C], or the name of the entry in the scenario whose file has it.
    """

    resource: Resource
    device: Device[Any]
    pod: int
    up_eur_per_kwh: float
    down_eur_per_kwh: float
    risk: DeliveryRisk
    outdoor: float | str = 0.0


@dataclass(frozen=True)
class PodData:
    """What portfolios need to know of a POD: its ``kind``, factors of its profile [kW, kvar], the largest modulus of
    its power in the run [kW], and the storage unit there, if any."""

    name: str
    kind: str
    p_per_profile_kw: float
    q_per_profile_kvar: float
    largest_kw: float
    storage: StorageUnit | None = None


def portfolio(
    resources: Mapping[str, ResourceConfig],
    pods: Sequence[PodData],
    feeder: str,
    clock: Clock,
    start: datetime,
    seed: int,
) -> tuple[Unit, ...]:
    """All resources of a scenario in its order; ``start`` is the start of the run in local time.

    One at each POD that an entry names: its id is the entry's name, with ``:<POD>`` behind where there are several.
    Raises ScenarioError with every fault: a POD that does not exist or is of another kind, a device or an id that
    occurs twice, a battery without data.
    """
    faults: list[Fault] = []
    units: list[Unit] = []
    taken: dict[tuple[str, str] | None, str] = {}
    ids: set[str] = set()
    for name, config in resources.items():
        for key, pod in _named(name, config, pods, faults):
            place = _place(config, pods[pod])
            unit = _unit(name, config, pods[pod], pod, feeder, clock, start, seed)
            if place in taken:
                faults.append(Fault(f"this device is in {taken[place]} already", key=key, value=pods[pod].name))
            elif unit.resource.id in ids:
                faults.append(Fault("there is a resource of this name already", key=key, value=unit.resource.id))
            else:
                units.append(unit)
            ids.add(unit.resource.id)
            taken |= {} if place is None else {place: name}
    if faults:
        raise ScenarioError(faults)
    return tuple(units)


def _place(config: ResourceConfig, pod: PodData) -> tuple[str, str] | None:
    """What there is once only at a POD: its profile, or its storage unit. None for a device in addition to these."""
    own = config.kind in _AT or (config.kind == "battery" and pod.storage is not None)
    return (pod.name, config.kind) if own else None


def owned_storage(resources: Mapping[str, ResourceConfig], pods: Sequence[PodData]) -> frozenset[str]:
    """PODs of kind storage whose unit an aggregator runs."""
    own = [(name, config) for name, config in resources.items() if config.kind == "battery"]
    return frozenset(
        pods[pod].name
        for name, config in own
        for _, pod in _named(name, config, pods, [])
        if pods[pod].storage is not None
    )


def _named(
    name: str, config: ResourceConfig, pods: Sequence[PodData], faults: list[Fault]
) -> Iterator[tuple[str, int]]:
    """Key and index of the PODs that an entry names and that fit it; the others are faults."""
    at = f"resources.{name}.pods"
    if isinstance(config.pods, str):
        wanted = config.pods.removeprefix("all_")
        listed = [(at, pod.name) for pod in pods if pod.kind == wanted]
        if not listed:
            kinds = ", ".join(sorted({pod.kind for pod in pods}))
            faults.append(Fault(f"the feeder has no POD of kind {wanted}", key=at, value=config.pods, allowed=kinds))
    else:
        listed = [(f"{at}.{k}", pod) for k, pod in enumerate(config.pods)]
    index = {pod.name: k for k, pod in enumerate(pods)}
    for key, pod in listed:
        fault = _fault_of_pod(config, pods[index[pod]]) if pod in index else "no such POD"
        if fault:
            fitting = [each.name for each in pods if not _fault_of_pod(config, each)]
            faults.append(Fault(fault, key=key, value=pod, allowed=shown(pod, fitting)))
        else:
            yield key, index[pod]


def shown(name: str, available: Sequence[str]) -> str:
    """Some of what is available, names spelled alike first."""
    alike = dict.fromkeys([*get_close_matches(name, available, _SHOWN), *available])
    return ", ".join(list(alike)[:_SHOWN]) + (", ..." if len(alike) > _SHOWN else "")


def _fault_of_pod(config: ResourceConfig, pod: PodData) -> str:
    kinds = _AT.get(config.kind)
    if kinds is not None and pod.kind not in kinds:
        return f"a {config.kind} is the profile of a POD of kind {' or '.join(kinds)}, this one is of kind {pod.kind}"
    if (
        config.battery is not None
        and pod.storage is None
        and None in (config.battery.p_max_kw, config.battery.e_max_kwh)
    ):
        return "a battery at a POD without storage of its own needs p_max_kw and e_max_kwh"
    return ""


def _unit(
    name: str, config: ResourceConfig, pod: PodData, index: int, feeder: str, clock: Clock, start: datetime, seed: int
) -> Unit:
    alone = not isinstance(config.pods, str) and len(config.pods) == 1
    resource_id = name if alone else f"{name}:{pod.name}"
    kvar = _kvar_per_kw(config, pod)
    device = _device(config, pod, kvar, clock, start, seed, resource_id)
    rated_kw = _rated_kw(config, pod, device)
    spread = config.price_spread
    factor = 1.0 + spread * float(rng_for(seed, "price", resource_id).uniform(-1.0, 1.0)) if spread else 1.0
    between = config.delivery.between_outages
    resource = Resource(
        id=resource_id,
        pod=pod.name,
        kind=config.kind,
        aggregator=config.aggregator,
        up_kw=rated_kw if config.up_kw is None else config.up_kw,
        down_kw=rated_kw if config.down_kw is None else config.down_kw,
        kvar_per_kw=kvar,
        brp=config.brp,
        perimeter=config.perimeter or feeder,
        rebound=config.load.rebound if config.load is not None else (),
        delivery_risk=config.delivery.planned,
    )
    risk = DeliveryRisk(
        config.delivery.shortfall,
        None if between is None else between / SECONDS_PER_HOUR,
        config.delivery.outage / SECONDS_PER_HOUR,
    )
    outdoor = 0.0 if config.heat_pump is None else config.heat_pump.outdoor
    return Unit(
        resource,
        device,
        index,
        config.up_eur_per_kwh * factor,
        config.down_eur_per_kwh * factor,
        risk,
        outdoor if isinstance(outdoor, float | int) else name,
    )


def _kvar_per_kw(config: ResourceConfig, pod: PodData) -> float:
    """By the power factor given, else by that of the profile, if the device is the profile."""
    if config.power_factor is not None:
        return kvar_per_kw(config.power_factor)
    if config.kind in _AT and pod.p_per_profile_kw != 0.0:
        return pod.q_per_profile_kvar / pod.p_per_profile_kw
    return 0.0


def _device(
    config: ResourceConfig, pod: PodData, kvar: float, clock: Clock, start: datetime, seed: int, resource_id: str
) -> Device[Any]:
    if config.load is not None:
        return Load(config.load.curtailable, clock.mtu_s, config.load.rebound, kvar)
    if config.pv is not None:
        return Pv(config.pv.curtailable, kvar)
    if config.battery is not None:
        return _battery(config.battery, pod, kvar)
    if config.vehicle is not None:
        sessions = _sessions(config.vehicle, clock, start, seed, resource_id)
        vehicle = config.vehicle
        return ElectricVehicle(vehicle.p_max_kw, sessions, vehicle.efficiency, vehicle.charging, kvar)
    pump = config.heat_pump
    assert pump is not None  # the schema admits exactly one kind
    return HeatPump(
        pump.p_max_kw,
        pump.cop,
        pump.capacity_kwh_per_k,
        pump.resistance_k_per_kw,
        pump.set_c,
        pump.comfort_k,
        kvar_per_kw=kvar,
    )


def _battery(config: FlexibleBattery, pod: PodData, kvar: float) -> Battery:
    """What is not given is the feeder's; without storage there the fault of the POD has been found before."""
    own = pod.storage or StorageUnit(pod.name, math.nan, math.nan, 0.0, _EFFICIENCY, _EFFICIENCY)
    unit = replace(
        own,
        p_max_kw=config.p_max_kw or own.p_max_kw,
        e_max_kwh=config.e_max_kwh or own.e_max_kwh,
        reserve_kwh=own.reserve_kwh if config.reserve_kwh is None else config.reserve_kwh,
        charge_efficiency=config.efficiency or own.charge_efficiency,
        discharge_efficiency=config.efficiency or own.discharge_efficiency,
    )
    rest_kwh = None if config.rest is None else config.rest * unit.e_max_kwh
    return Battery(unit, config.initial * unit.e_max_kwh, rest_kwh, config.rest_kw, kvar)


def _sessions(
    config: FlexibleVehicle, clock: Clock, start: datetime, seed: int, resource_id: str
) -> tuple[Session, ...]:
    """The stays of every day of the run, from the day before it on, one after the other, on whole MTUs."""
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    found = []
    for day in range(-1, -(-clock.until_s // SECONDS_PER_DAY) + 1):
        for k, stay in enumerate(config.stays):
            early, late = rng_for(seed, "vehicle", resource_id, day, k).uniform(-0.5, 0.5, 2) * config.spread
            arrive_s = _seconds(midnight, day, stay.arrive, start) + early
            depart_s = _seconds(midnight, day + _over_night(stay), stay.depart, start) + late
            found.append(Session(round(arrive_s), round(depart_s), stay.need_kwh))
    found.sort(key=lambda session: session.arrive_s)
    apart = [
        Session(s.arrive_s, min(s.depart_s, later.arrive_s), s.need_kwh)
        for s, later in zip(found, [*found[1:], Session(2**62, 2**62, 0.0)], strict=True)
    ]
    return on_steps(apart, clock.mtu_s)


def _over_night(stay: Stay) -> int:
    return int(stay.depart <= stay.arrive)


def _seconds(midnight: datetime, day: int, at: time, start: datetime) -> float:
    """Seconds from ``start`` to the local time ``at`` of a day, counted from that of ``midnight``."""
    offset = timedelta(days=day, hours=at.hour, minutes=at.minute, seconds=at.second)
    return (midnight + offset - start).total_seconds()


def _rated_kw(config: ResourceConfig, pod: PodData, device: Device[Any]) -> float:
    """What the device can change its power by at most [kW]."""
    if config.load is not None:
        return config.load.curtailable * pod.largest_kw
    if config.pv is not None:
        return config.pv.curtailable * pod.largest_kw
    if isinstance(device, Battery):
        return 2.0 * device.unit.p_max_kw
    held = config.vehicle or config.heat_pump
    assert held is not None  # the schema admits exactly one kind
    return held.p_max_kw
