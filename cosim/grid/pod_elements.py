"""The OpenDSS elements behind the PODs: checked against the circuit, storage replaced by a generator of ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cosim.domain.flexibility import StorageUnit
from cosim.domain.site import site_name
from cosim.errors import Fault
from cosim.grid.circuit import POD_CLASSES
from cosim.grid.feeder import Feeder
from cosim.grid.script import shown

_INJECTING = (*POD_CLASSES, "pvsystem")
_CLASSES = {"load": POD_CLASSES, "pv": _INJECTING, "generator": _INJECTING, "storage": ("storage",)}
_REPLACED = ("storage", "pvsystem")
_GENERATORS = ("1", "2", "4", "5", "7")  # models; 3 holds a voltage by reactive power of its own, 6 is the user's code
_PHASES = 3  # nodes with higher numbers are neutrals


def adopt_elements(dss: Any, feeder: Feeder) -> tuple[list[str], tuple[StorageUnit, ...]]:
    """The element of each POD (n_pod,), full name in lower case, and the storage units among them.

    The Storage and PVSystem elements of PODs are put out of service and a generator put in the place of each. Stored
    energy is our own model, because the Storage element integrates at each solve and runs at full power through a step
    with room for a part; the power of a PVSystem comes from its profile, the element would compute its own from
    irradiance, temperature and the curves of its inverter.
    """
    elements, units = [], []
    for name, pod in feeder.pods.items():
        element = pod.element.lower()
        if pod.kind == "storage":
            dss.ActiveCircuit.SetActiveElement(element)
            units.append(_storage_unit(dss.ActiveCircuit.ActiveCktElement, name))
        elements.append(_put_generator(dss, element) if element.partition(".")[0] in _REPLACED else element)
    return elements, tuple(units)


def place_added(dss: Any, feeder: Feeder) -> None:
    """Puts the elements of PODs that the scenario adds into the circuit, each connected as the POD beside it."""
    names = {str(name).lower() for name in dss.ActiveCircuit.AllElementNames}
    for pod, host in feeder.beside.items():
        element = feeder.pods[host].element.lower()
        if element in names:
            added = feeder.pods[pod]
            _put_beside(dss, element, added.element, f"kW={added.kw!r} PF=1")


def site_of(circuit: Any, element: str, nodes: Sequence[str]) -> str:
    """The site of an element of a circuit with ``nodes``: its bus and the phases at which it connects, without
    neutrals."""
    circuit.SetActiveElement(element)
    live = [nodes[ref - 1].rpartition(".") for ref in map(int, circuit.ActiveCktElement.NodeRef) if ref]
    return site_name(live[0][0], sorted({int(phase) for _, _, phase in live if int(phase) <= _PHASES}))


def pod_faults(circuit: Any, feeder: Feeder) -> Iterator[Fault]:
    """PODs whose element does not exist, is out of service, is of the wrong class, already belongs to another, or does
    not take the power that it is set to."""
    names = {str(name).lower(): str(name) for name in circuit.AllElementNames}
    owner: dict[str, str] = {}
    fitting = {
        kind: shown([written for name, written in names.items() if name.partition(".")[0] in classes])
        for kind, classes in _CLASSES.items()
    }
    for pod, entry in feeder.pods.items():
        key, element, classes = f"pods.{pod}.element", entry.element.lower(), _CLASSES[entry.kind]
        allowed = fitting[entry.kind]
        if element not in names:
            yield feeder.fault(key, "no such element", entry.element, allowed)
        elif element.partition(".")[0] not in classes:
            yield feeder.fault(key, f"not an element for a POD of kind {entry.kind}", entry.element, allowed)
        elif element in owner:
            yield feeder.fault(key, f"the element already belongs to POD {owner[element]}", entry.element)
        elif circuit.SetActiveElement(element) < 0 or not circuit.ActiveCktElement.Enabled:
            yield feeder.fault(key, "the element is out of service (enabled=no)", entry.element)
        elif element.startswith("generator.") and (model := _model(circuit)) not in _GENERATORS:
            problem = f"{entry.element} does not take the power of a profile: it holds a voltage or is the user's code"
            yield feeder.fault(key, problem, f"model={model}", ", ".join(f"model={known}" for known in _GENERATORS))
        owner.setdefault(element, pod)


def _model(circuit: Any) -> str:
    return str(circuit.ActiveCktElement.Properties("model").Val)


def _storage_unit(element: Any, pod: str) -> StorageUnit:
    def figure(key: str) -> float:
        return float(element.Properties(key).Val)

    e_max_kwh = figure("kWhrated")
    return StorageUnit(
        pod=pod,
        p_max_kw=figure("kWrated"),
        e_max_kwh=e_max_kwh,
        reserve_kwh=e_max_kwh * figure("%reserve") / 100.0,
        charge_efficiency=figure("%EffCharge") / 100.0,
        discharge_efficiency=figure("%EffDischarge") / 100.0,
        idling_kw=figure("%IdlingkW") / 100.0 * figure("kWrated"),
    )


def _put_generator(dss: Any, replaced: str) -> str:
    generator = f"generator.cosim_{replaced.replace('.', '_', 1)}"
    _put_beside(dss, replaced, generator, "kW=0 kvar=0")
    dss.ActiveCircuit.SetActiveElement(replaced)
    dss.ActiveCircuit.ActiveCktElement.Enabled = False
    return generator


def _put_beside(dss: Any, host: str, element: str, powers: str) -> None:
    """A new element of constant power that is connected as ``host`` and has its voltage limits."""
    dss.ActiveCircuit.SetActiveElement(host)
    held = dss.ActiveCircuit.ActiveCktElement
    bus, phases = held.BusNames[0], held.NumPhases
    kv, conn, v_min, v_max = (held.Properties(key).Val for key in ("kV", "conn", "Vminpu", "Vmaxpu"))
    dss.Text.Command = (
        f"New {element} phases={phases} bus1={bus} kV={kv} conn={conn} model=1 Vminpu={v_min} Vmaxpu={v_max} {powers}"
    )
