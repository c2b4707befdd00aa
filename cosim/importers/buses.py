"""Live buses of a pandapower network that has been solved, with those joined by a closed switch made one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cosim.importers.draft import Names
from cosim.importers.result import Left
from cosim.importers.tables import Row, rows


@dataclass(frozen=True)
class Terminal:
    """An end of a branch: its OpenDSS bus and its voltage [kV]. ``live``: at a bus of the network, else an end that
    hangs free behind an open switch."""

    bus: str
    kv: float
    live: bool


@dataclass(frozen=True)
class Buses:
    """``name_of`` gives the OpenDSS bus of every live bus of the source by index, ``kv_of`` its voltage [kV]."""

    name_of: Mapping[int, str]
    kv_of: Mapping[int, float]
    places: Mapping[str, tuple[float, float]]
    open_ends: frozenset[tuple[str, int, int]]
    left: tuple[Left, ...]

    def terminal(self, row: Row, key: str, branch: str) -> Terminal:
        """The end ``key`` (``from_bus``, ``hv_bus``, ...) of the OpenDSS branch ``branch``."""
        bus = row.bus(key)
        if bus in self.name_of and (row.table, row.index, bus) not in self.open_ends:
            return Terminal(self.name_of[bus], self.kv_of[bus], live=True)
        end = key.removesuffix("_bus")
        return Terminal(f"{branch}_open_{end}", self.kv_of.get(bus, math.nan), live=False)


SOURCE_BUS = "SOURCE"
_SWITCHED = {"l": "line", "t": "trafo", "t3": "trafo3w"}


def read_buses(net: Any) -> Buses:
    """The buses of a solved network; those that have no voltage are left behind."""
    live = {int(bus) for bus, vm in net.res_bus.vm_pu.items() if math.isfinite(vm)}
    owner = _joined(net, live)
    names, name_of, places = Names(SOURCE_BUS), dict[int, str](), dict[str, tuple[float, float]]()
    left = []
    for row in rows(net, "bus"):
        if row.index not in live:
            reason = "without a path to the source" if row.in_service else "out of service"
            left.append(Left(row.label, row.name, reason))
            continue
        first = owner[row.index]
        if first == row.index:
            name_of[first] = names.take(row.name, f"B{first}")
            if place := _place(net, row):
                places[name_of[first]] = place
    name_of |= {bus: name_of[first] for bus, first in owner.items()}
    return Buses(
        name_of={bus: name_of[bus] for bus in sorted(live)},
        kv_of={row.index: row.number("vn_kv") for row in rows(net, "bus")},
        places=places,
        open_ends=frozenset(_open_ends(net)),
        left=tuple(left),
    )


def _joined(net: Any, live: set[int]) -> dict[int, int]:
    """The first of the buses that each is joined with by closed switches without impedance."""
    owner = {bus: bus for bus in live}

    def first(bus: int) -> int:
        while owner[bus] != bus:
            owner[bus] = owner[owner[bus]]
            bus = owner[bus]
        return bus

    for row in rows(net, "switch"):
        if row.text("et") == "b" and row.flag("closed") and not row.number("z_ohm", 0.0) > 0.0:
            ends = [row.bus("bus"), row.bus("element")]
            if live.issuperset(ends):
                low, high = sorted(map(first, ends))
                owner[high] = low
    return {bus: first(bus) for bus in live}


def _open_ends(net: Any) -> list[tuple[str, int, int]]:
    return [
        (_SWITCHED[row.text("et")], row.bus("element"), row.bus("bus"))
        for row in rows(net, "switch")
        if row.text("et") in _SWITCHED and not row.flag("closed")
    ]


def _place(net: Any, row: Row) -> tuple[float, float] | None:
    """Coordinates of a bus: a GeoJSON point, or the table of networks made before pandapower 3."""
    if geo := row.text("geo"):
        x, y = json.loads(geo)["coordinates"][:2]
        return float(x), float(y)
    if "bus_geodata" in net and row.index in net.bus_geodata.index:
        place = net.bus_geodata.loc[row.index]
        return float(place.x), float(place.y)
    return None
