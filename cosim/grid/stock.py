"""What a compiled circuit is made of, element by element, as records; read from OpenDSS."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.domain.frames import Ints
from cosim.grid.feeder import canonical_branch

_KM = {0: math.nan, 1: 1.609344, 2: 0.3048, 3: 1.0, 4: 1e-3, 5: 3.048e-4, 6: 2.54e-5, 7: 1e-5, 8: 1e-6}
"""Kilometres in a unit of length, by OpenDSS's number of the unit (0: none given)."""

_LAWS = {
    "1": "constant power",
    "2": "constant impedance",
    "3": "constant P, quadratic Q",
    "4": "exponents (CVR)",
    "5": "constant current",
    "6": "constant P, fixed Q",
    "7": "constant P, fixed X",
    "8": "ZIP",
}
"""Models of a Load (OpenDSS manual)."""

_RATED_KW = {"generator": "kW", "pvsystem": "Pmpp", "storage": "kWrated"}
_ENERGY = {"storage": "kWhrated"}
POWERED = ("load", *_RATED_KW)
"""OpenDSS classes that consume or inject."""

_AUTO = "autotrans."
_BY_WINDING = ("conns", "kVs", "kVAs", "taps")


@dataclass(frozen=True)
class Edge:
    """A branch between two buses ``start`` and ``end`` (indices); several of a transformer with three windings.

    ``kind`` is ``line``, ``switch`` (a line that OpenDSS marks as one), ``transformer``, ``regulator`` (a transformer
    with a tap control and the same voltage on both sides), or OpenDSS's class. ``phases``, ``length_km`` [km] of lines,
    NaN where the script gives no unit. ``is_open``: open in at least one phase, or out of service.
    """

    branch: str
    kind: str
    start: int
    end: int
    phases: int
    length_km: float
    is_open: bool


@dataclass(frozen=True)
class Winding:
    """A winding of a transformer: its bus, connection ``wye``, ``delta``, or ``series`` of an autotransformer (whose kV
    is that of its bus), rating [kV, kVA] and tap [pu]; kV is between lines where there are two or three phases."""

    bus: str
    connection: str
    kv: float
    kva: float
    tap_pu: float


@dataclass(frozen=True)
class Transformer:
    """A transformer in service."""

    name: str
    phases: int
    windings: tuple[Winding, ...]

    @property
    def is_series(self) -> bool:
        """Whether all windings have one voltage, as those of a series regulator."""
        return len({winding.kv for winding in self.windings}) == 1


@dataclass(frozen=True)
class Regulation:
    """A tap control: holds ``set_v`` within ``band_v`` [V behind a voltage transformer of ratio ``pt_ratio``] by the
    tap of a winding. ``position`` is in steps from the neutral one."""

    name: str
    transformer: str
    bus: str
    set_v: float
    band_v: float
    pt_ratio: float
    position: int


@dataclass(frozen=True)
class Capacitor:
    """A shunt capacitor: ``kvar`` of all its steps at rated voltage; ``is_switched`` by a control."""

    name: str
    bus: str
    phases: int
    kvar: float
    is_switched: bool
    is_open: bool


@dataclass(frozen=True)
class Group:
    """Elements alike: how many, and their sums as the script sets them [kW, kvar, kWh]; NaN what they do not have."""

    count: int
    p_kw: float
    q_kvar: float = math.nan
    e_kwh: float = math.nan


def bus_name(reference: object) -> str:
    """The bus of a reference such as ``lv1.1.2``, in capitals."""
    return str(reference).partition(".")[0].upper()


def read_edges(circuit: Any, buses: Mapping[str, int]) -> Iterator[Edge]:
    """The branches between ``buses``, also those out of service, in OpenDSS's order."""
    regulated = {str(control.Transformer).lower() for control in circuit.RegControls}
    series = {each.name.lower() for each in read_transformers(circuit) if each.is_series}
    regulators = {f"transformer.{name}" for name in regulated} & series
    for name in map(str, circuit.PDElements.AllNames):
        circuit.SetActiveElement(name)
        element = circuit.ActiveCktElement
        ends = list(dict.fromkeys(bus_name(bus) for bus in element.BusNames))
        is_open = not element.Enabled or any(element.IsOpen(k + 1, 0) for k in range(element.NumTerminals))
        kind, length_km = ("regulator" if name.lower() in regulators else name.partition(".")[0].lower()), math.nan
        if kind == "line":
            lines = circuit.Lines
            lines.Name = name.partition(".")[2]
            kind, length_km = ("switch" if lines.IsSwitch else kind), lines.Length * _KM.get(lines.Units, math.nan)
        for end in ends[1:]:
            if ends[0] in buses and end in buses:
                start_end = buses[ends[0]], buses[end]
                yield Edge(canonical_branch(name), kind, *start_end, int(element.NumPhases), length_km, bool(is_open))


def terminal_nodes(element: Any) -> Ints:
    """Nodes (1 + index of node) of an element in service (n_terminal, n_conductor), 0 where there is none to count.

    The second end of an autotransformer's series winding is listed at its first terminal but lies at the second, among
    whose currents OpenDSS counts it (TAutoTransObj.GetCurrents): it is 0 here.
    """
    refs = np.array(element.NodeRef).reshape(int(element.NumTerminals), -1)
    if str(element.Name).lower().startswith(_AUTO):
        refs[0, int(element.NumPhases) :] = 0
    return refs


def read_transformers(circuit: Any) -> Iterator[Transformer]:
    """The transformers in service, then the autotransformers."""
    for each in circuit.Transformers:
        element = circuit.ActiveCktElement
        windings = []
        for number, bus in enumerate(element.BusNames, start=1):
            each.Wdg = number
            connection = "delta" if each.IsDelta else "wye"
            windings.append(Winding(bus_name(bus), connection, float(each.kV), float(each.kVA), float(each.Tap)))
        yield Transformer(canonical_branch(str(element.Name)), int(element.NumPhases), tuple(windings))
    for name in _of_class(circuit, "autotrans"):
        circuit.SetActiveElement(name)
        if circuit.ActiveCktElement.Enabled:
            yield _autotransformer(circuit.ActiveCktElement)


def _autotransformer(element: Any) -> Transformer:
    """OpenDSS has no interface to autotransformers but their properties, lists such as ``[12.47, 11, ]``."""
    listed = ([each.strip() for each in element.Properties(key).Val.strip("[], ").split(",")] for key in _BY_WINDING)
    windings = tuple(
        Winding(bus_name(bus), connection, float(kv), float(kva), float(tap))
        for bus, connection, kv, kva, tap in zip(element.BusNames, *listed, strict=True)
    )
    return Transformer(canonical_branch(str(element.Name)), int(element.NumPhases), windings)


def read_regulations(circuit: Any) -> Iterator[Regulation]:
    """The tap controls in service, with the positions of now."""
    for control in circuit.RegControls:
        name, transformer, winding = str(control.Name), str(control.Transformer), int(control.TapWinding)
        figures = float(control.ForwardVreg), float(control.ForwardBand), float(control.PTratio)
        position = int(control.TapNumber)
        circuit.SetActiveElement(f"Transformer.{transformer}")
        bus = bus_name(circuit.ActiveCktElement.BusNames[winding - 1])
        yield Regulation(f"RegControl.{name.upper()}", f"Transformer.{transformer.upper()}", bus, *figures, position)


def read_capacitors(circuit: Any) -> Iterator[Capacitor]:
    """The shunt capacitors in service, open or closed as they are now."""
    switched = {str(control.Capacitor).lower() for control in circuit.CapControls}
    for each in circuit.Capacitors:
        element = circuit.ActiveCktElement
        buses = {bus_name(bus) for bus in element.BusNames}
        if len(buses) == 1:
            is_open = bool(element.IsOpen(1, 0)) or not any(each.States)
            name, kvar = str(each.Name), float(each.kvar)
            is_switched = name.lower() in switched
            yield Capacitor(
                f"Capacitor.{name.upper()}", buses.pop(), int(element.NumPhases), kvar, is_switched, is_open
            )


def read_loads(circuit: Any) -> dict[tuple[int, str, str], Group]:
    """Sums of the loads in service by phases, connection and law of their power over voltage, with the multiplier of
    the script."""
    multiplier = float(circuit.Solution.LoadMult)
    rows = defaultdict(list)
    for name in _of_class(circuit, "load"):
        circuit.SetActiveElement(name)
        element = circuit.ActiveCktElement
        if element.Enabled:
            law = str(element.Properties("Model").Val)
            key = int(element.NumPhases), str(element.Properties("Conn").Val).lower(), _LAWS.get(law, f"model {law}")
            rows[key].append((_figure(element, "kW"), _figure(element, "kvar")))
    sums = {key: multiplier * np.sum(rows[key], axis=0) for key in sorted(rows)}
    return {key: Group(len(rows[key]), float(p_kw), float(q_kvar)) for key, (p_kw, q_kvar) in sums.items()}


def read_injecting(circuit: Any) -> dict[str, Group]:
    """Number, rated power and stored energy of what can inject, by OpenDSS class; only what is in service."""
    found = {}
    for kind, power in _RATED_KW.items():
        figures = []
        for name in _of_class(circuit, kind):
            circuit.SetActiveElement(name)
            element = circuit.ActiveCktElement
            if element.Enabled:
                e_kwh = _figure(element, _ENERGY[kind]) if kind in _ENERGY else math.nan
                figures.append((_figure(element, power), e_kwh))
        if figures:
            p_kw, e_kwh = np.sum(figures, axis=0)
            found[kind] = Group(len(figures), float(p_kw), e_kwh=float(e_kwh))
    return found


def _of_class(circuit: Any, kind: str) -> list[str]:
    return [str(name) for name in circuit.AllElementNames if str(name).lower().startswith(kind + ".")]


def _figure(element: Any, key: str) -> float:
    return float(element.Properties(key).Val)
