"""What is wrong with the names and places in a scenario: meters where the feeder has nothing, names that nothing bears,
links of foreign simulators that lead nowhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from cosim.clock import format_duration
from cosim.coordination.scheme import Scheme
from cosim.domain.flexibility import StorageUnit
from cosim.domain.grid import GridLayout
from cosim.domain.site import bus_of_site
from cosim.errors import Fault
from cosim.grid.feeder import Feeder
from cosim.io.layout import RESERVED
from cosim.scenario.load import LoadedScenario
from cosim.scenario.schema import Meter, Scenario
from cosim.wiring import CLASSES, simulators_of


def faults_of_places(
    loaded: LoadedScenario,
    feeder: Feeder,
    meters: dict[str, Meter],
    layout: GridLayout,
    storage: tuple[StorageUnit, ...],
) -> Iterator[Fault]:
    """Meters at places that the feeder does not have."""
    for name, meter in meters.items():
        where, key = _meter_key(loaded, feeder, name)
        if meter.bus is not None and meter.bus not in layout.buses:
            yield where(f"{key}.bus", "no such bus", meter.bus, ", ".join(layout.buses))
        if meter.branch is not None and f"{meter.branch}@{meter.end}" not in layout.terminals:
            yield where(
                f"{key}.branch", "no such end of a branch", f"{meter.branch}@{meter.end}", ", ".join(layout.terminals)
            )
        if meter.storage is not None and meter.storage not in [unit.pod for unit in storage]:
            yield where(f"{key}.storage", "no such storage POD", meter.storage, _storage_names(storage))


def faults_of_phases(
    loaded: LoadedScenario, feeder: Feeder, meters: dict[str, Meter], layout: GridLayout, pod_sites: tuple[str, ...]
) -> Iterator[Fault]:
    """Meters of phases that their place does not have, or whose power no POD draws alone."""
    for name, meter in meters.items():
        where, key = _meter_key(loaded, feeder, name)
        place = meter.bus if meter.branch is None else f"{meter.branch}@{meter.end}"
        known = layout.nodes if meter.branch is None else layout.conductors
        there = [c.rpartition(".")[2] for c in known if c.rpartition(".")[0] == place]
        missing = [str(phase) for phase in meter.phases if there and str(phase) not in there]
        if missing:
            yield where(f"{key}.phases", f"{place} has no phase {', '.join(missing)}", allowed=", ".join(there))
        shared = [site for site in pod_sites if bus_of_site(site) == meter.bus and site.count(".") != 1]
        if meter.phases and shared and set(meter.quantities) & {"p_kw", "q_kvar"}:
            problem = "power by phase is measured only where every POD connects a phase to ground"
            yield where(f"{key}.phases", problem, ", ".join(dict.fromkeys(shared)))


def _meter_key(loaded: LoadedScenario, feeder: Feeder, name: str) -> tuple[Callable[..., Fault], str]:
    """Where a meter is described: what makes a fault there, and its key."""
    if name in loaded.scenario.sensors.extra:
        return loaded.fault, f"sensors.extra.{name}"
    return feeder.fault, f"meters.{name}"


def faults_of_names(
    loaded: LoadedScenario, feeder: Feeder, storage: tuple[StorageUnit, ...], scheme: Scheme | None
) -> Iterator[Fault]:
    """Names in the scenario that nothing bears; ``scheme``: that of its coordination, None also if it has faults."""
    scenario, operator = loaded.scenario, loaded.scenario.operator
    for key in ("thresholds_kw", "initial_energy_kwh"):
        given = getattr(operator, key)
        for pod in given if isinstance(given, dict) else ():
            if pod not in [unit.pod for unit in storage]:
                yield loaded.fault(f"operator.{key}.{pod}", "no such storage POD", pod, _storage_names(storage))
    if isinstance(operator.initial_energy_kwh, dict):
        for unit in storage:
            given_kwh = operator.initial_energy_kwh.get(unit.pod, unit.reserve_kwh)
            if given_kwh > unit.e_max_kwh:
                key = f"operator.initial_energy_kwh.{unit.pod}"
                yield loaded.fault(key, "more than it can hold [kWh]", str(given_kwh), f"up to {unit.e_max_kwh}")
    remote_able = _remote_able(scenario, scheme)
    for k, name in enumerate(scenario.remote):
        if name not in remote_able:
            yield loaded.fault(f"remote.{k}", "no simulator of this name", name, ", ".join(remote_able))
        elif name in ("sensors", "gateway") and scenario.transport == "memory":
            yield loaded.fault(f"remote.{k}", "the memory transport stays in one process", name, "embedded, mqtt")
    for name in scenario.simulators:
        if name in (*CLASSES, *RESERVED) or not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
            allowed = f"letters, digits and _, not {', '.join([*CLASSES, *RESERVED])}"
            yield loaded.fault(f"simulators.{name}", "cannot be the name of a simulator", name, allowed)
    if scenario.simulators and scenario.segment_steps < scenario.clock.steps:
        problem = f"the state of {', '.join(scenario.simulators)} cannot be saved"
        allowed = "false, or no less than the duration: a run without checkpoints"
        yield loaded.fault("recorder.checkpoint", problem, format_duration(scenario.recorder.checkpoint), allowed)
    yield from _faults_of_foreign_links(loaded, feeder)


def _remote_able(scenario: Scenario, scheme: Scheme | None) -> tuple[str, ...]:
    """Simulators of ours that a scenario has; all that there are if nothing tells, for its scheme has faults."""
    told = scheme is not None or scenario.coordination is None
    there = simulators_of(scenario, scheme) if told else tuple(CLASSES)
    return tuple(name for name in CLASSES if name in there and name != "recorder")


def _faults_of_foreign_links(loaded: LoadedScenario, feeder: Feeder) -> Iterator[Fault]:
    """Links of foreign simulators that lead nowhere, or to a place that is taken."""
    takers = [pod for pod, description in feeder.pods.items() if description.kind != "storage"]
    taken: dict[tuple[str, str], str] = {}
    for name, foreign in loaded.scenario.simulators.items():
        for k, link in enumerate(foreign.links):
            key = f"simulators.{name}.links.{k}"
            first = taken.setdefault((link.pod, link.quantity), key)
            if link.pod not in takers:
                yield loaded.fault(f"{key}.pod", "no POD that a simulator can feed", link.pod, ", ".join(takers))
            elif first != key:
                yield loaded.fault(f"{key}.pod", f"{link.quantity} comes from {first} already", link.pod)
            if link.entity >= foreign.count:
                yield loaded.fault(f"{key}.entity", "no such entity", str(link.entity), f"0..{foreign.count - 1}")


def _storage_names(storage: tuple[StorageUnit, ...]) -> str:
    return ", ".join(unit.pod for unit in storage) or "none: the feeder has no storage"
