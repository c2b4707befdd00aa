"""A pandapower network as OpenDSS scripts: sources and head, and what is left behind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cosim.importers.branches import HEAD, LINES, carry_branches
from cosim.importers.buses import SOURCE_BUS, Buses, read_buses
from cosim.importers.draft import Carried, merged, number
from cosim.importers.injections import INJECTING, carry_injections
from cosim.importers.result import Left
from cosim.importers.tables import Row, rows

_CARRIED = frozenset(
    {"bus", "line", "trafo", "trafo3w", "switch", "impedance", "ext_grid", "load", "sgen", "storage", "shunt"}
    | {"asymmetric_load", "asymmetric_sgen", "ward", "xward", "motor", "gen", "controller", "bus_geodata"}
    | {"line_geodata", "trafo_characteristic_table", "shunt_characteristic_table", "q_capability_curve_table"}
)
_STIFF = 1e8  # short-circuit power of a source over the load of the network
_HEAD_PU = 1e-8  # voltage drop at the head's own line, at the load of the network
_CLOSE_BASES = 1.2


@dataclass(frozen=True)
class Conversion:
    """A network as parts of a feeder folder.

    ``vm_pu``, ``va_deg``: the source's solution by OpenDSS bus and source bus; ``head`` is (branch, bus),
    ``head_kw`` what the source's solution has there, ``loss_kw`` its losses.
    """

    carried: Carried
    buses: Buses
    source_lines: tuple[str, ...]
    head: tuple[str, str]
    head_kw: float
    load_kva: float
    loss_kw: float
    f_hz: float


def convert(net: Any) -> Conversion:
    """The parts of a feeder folder from a network that has been solved (`tables.solve`)."""
    buses = read_buses(net)
    branches = carry_branches(net, buses)
    injections = carry_injections(net, buses)
    load_kva = _load_kva(injections)
    grids = [row for row in rows(net, "ext_grid") if row.in_service and row.bus() in buses.name_of]
    first = max(grids, key=lambda row: abs(float(net.res_ext_grid.p_mw[row.index])))
    at = buses.name_of[first.bus()]
    at_head = [row.index for row in grids if buses.name_of[row.bus()] == at]
    branch = _only_branch(net, at, branches, buses)
    head_lines = () if branch else (_head_line(at, buses.kv_of[first.bus()], load_kva),)
    own = Carried({LINES: head_lines}, ratings={} if branch else {f"Line.{HEAD}": None})
    left = Carried(left=(*buses.left, *_left(net, buses)), assumptions=tuple(_assumptions(grids, first)))
    return Conversion(
        carried=merged([own, branches, injections, left]),
        buses=buses,
        source_lines=tuple(_source_lines(first, grids, buses, load_kva, SOURCE_BUS if not branch else at, net.f_hz)),
        head=(branch, at) if branch else (f"Line.{HEAD}", SOURCE_BUS),
        head_kw=1000.0 * float(net.res_ext_grid.p_mw[at_head].sum()),
        load_kva=load_kva,
        loss_kw=_loss_kw(net),
        f_hz=net.f_hz,
    )


def _load_kva(injections: Carried) -> float:
    return max(1.0, sum(math.hypot(pod.p_kw, pod.q_kvar) for pod in injections.pods.values()))


def _loss_kw(net: Any) -> float:
    tables = ("res_line", "res_trafo", "res_trafo3w", "res_impedance", "res_switch")
    lost_mw = [net[table].pl_mw for table in tables if table in net and "pl_mw" in net[table]]
    return 1000.0 * float(sum(np.nansum(column.to_numpy(dtype=float)) for column in lost_mw))


def _only_branch(net: Any, at: str, branches: Carried, buses: Buses) -> str:
    """The branch that carries all the power of the source at bus ``at``; empty if there are several, or PODs there."""
    found = [branch for branch, ends in branches.ends.items() if at in ends]
    here = [
        row.table
        for table in (*INJECTING, "ext_grid")
        for row in rows(net, table)
        if row.in_service and buses.name_of.get(row.bus()) == at
    ]
    return found[0] if len(found) == 1 and here == ["ext_grid"] else ""


def _head_line(at: str, kv: float, load_kva: float) -> str:
    z_ohm = number(_HEAD_PU * 1000.0 * kv**2 / load_kva)
    return (
        f"New Line.{HEAD} bus1={SOURCE_BUS} bus2={at} phases=3 R1={z_ohm} X1={z_ohm} R0={z_ohm} X0={z_ohm} "
        "C1=0 C0=0 Length=1 Units=none"
    )


def _source_lines(first: Row, grids: list[Row], buses: Buses, load_kva: float, bus: str, f_hz: float) -> Iterator[str]:
    """The circuit's own source, then those of further external grids."""
    sc_mva = number(_STIFF * load_kva / 1000.0)
    taken = {buses.name_of[first.bus()]}
    for row in [first, *(row for row in grids if row is not first)]:
        at = buses.name_of[row.bus()]
        if row is not first and at in taken:
            continue
        taken.add(at)
        what, where = ("Circuit.{name}", bus) if row is first else (f"Vsource.{at}", at)
        yield (
            f"New {what} bus1={where} basekV={number(buses.kv_of[row.bus()])} pu={number(row.number('vm_pu', 1.0))} "
            f"angle={number(row.number('va_degree', 0.0))} frequency={number(f_hz)} phases=3"
        )
        yield f"~ MVAsc3={sc_mva} MVAsc1={sc_mva}"


def _assumptions(grids: list[Row], first: Row) -> Iterator[str]:
    yield "sources are stiff: pandapower's power flow holds the voltage of an external grid"
    if len(grids) > 1:
        yield (
            f"the network has {len(grids)} external grids; the head counts the power of the largest, "
            f"{first.name or first.label}, alone"
        )


def _left(net: Any, buses: Buses) -> Iterator[Left]:
    for row in rows(net, "ext_grid"):
        if not row.in_service:
            yield Left(row.label, row.name, "out of service")
        elif math.isfinite(sc_mva := row.number("s_sc_max_mva")):
            yield Left(row.label, row.name, f"short-circuit power of {number(sc_mva)} MVA: the source is stiff")
    for row in rows(net, "controller"):
        kind = type(row.values.get("object")).__name__
        yield Left(row.label, kind, "a controller: taps and set points stay where the network has them")
    for table in sorted(net.keys()):
        if table in _CARRIED or table.startswith(("_", "res_")) or not hasattr(net[table], "columns"):
            continue
        if "in_service" in net[table]:
            for row in rows(net, table):
                yield Left(row.label, row.name, "an element that is not carried over", row.in_service)
        elif len(net[table]):
            yield Left(table, "", f"{len(net[table])} rows of a table that has no part in the power flow")


def voltage_bases(buses: Buses) -> tuple[float, ...]:
    """Rated voltages of the live buses [kV], highest first."""
    return tuple(sorted({buses.kv_of[bus] for bus in buses.name_of}, reverse=True))


def bases_are_close(bases: tuple[float, ...]) -> bool:
    """Whether OpenDSS may take one base for another when it chooses by the voltage without load."""
    return any(high / low < _CLOSE_BASES for high, low in pairwise(bases))


def solution(net: Any, buses: Buses) -> Mapping[int, tuple[float, float]]:
    """Voltage magnitude [pu] and angle [degrees] of every live bus of the source, by its index."""
    found = net.res_bus
    return {bus: (float(found.vm_pu[bus]), float(found.va_degree[bus])) for bus in buses.name_of}
