"""The traffic light: how much flexibility of each perimeter and direction the network can take, whoever delivers it.

GREEN: all that is registered; YELLOW: up to a cap; RED: nothing, or a limit on its way is violated already. Perimeters
and versions are those of the topological matrix (MaT), which says where every resource is. Every choice within all caps
of both directions keeps the network within its limits, or leaves it no worse than it is, in the linear model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from cosim.coordination.safe_box import NO_EFFECT, SIDE, room_of, safe_box, widest
from cosim.coordination.topology import TopologicalMatrix
from cosim.domain.market import Direction
from cosim.errors import BidError, Fault
from cosim.market.case import ClearingCase


class Colour(Enum):
    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


@dataclass(frozen=True)
class Light:
    """One perimeter and direction: its colour, the cap and what its resources have registered [kW], and the limit that
    decides, empty for none."""

    perimeter: str
    direction: Direction
    colour: Colour
    cap_kw: float
    registered_kw: float
    limit: str = ""


@dataclass(frozen=True)
class LightSettings:
    """Shares of what is registered: up to ``red`` a cap is no more than nothing, from 1 - ``green`` on it is all."""

    red: float = 0.01
    green: float = 0.01


def traffic_light(
    case: ClearingCase, matrix: TopologicalMatrix, settings: LightSettings | None = None
) -> tuple[Light, ...]:
    """The light for the network of a case of one MTU after its locked awards; all its resources count, not its bids.

    Raises BidError where a resource is not in the matrix, or the forecast errors are not linear in single resources.
    """
    settings = settings or LightSettings()
    room, names = room_of(case), list(case.resources)
    perimeters = matrix.perimeters_of(names)
    members = {perimeter: [names.index(name) for name in inside] for perimeter, inside in perimeters.items()}
    units = list(case.resources.values())
    registered = np.array([[sum(getattr(units[k], name) for k in inside) for name in ("up_kw", "down_kw")]
                           for inside in members.values()]).reshape(-1, 2)  # fmt: skip
    take = (
        np.stack([widest(room.take, inside) for inside in members.values()], axis=1) if members else np.zeros((0, 0, 2))
    )
    take = np.where(take > NO_EFFECT, take, 0.0)
    flat = take.reshape(len(room.room_kw), registered.size)
    cap = safe_box(flat, np.maximum(room.room_kw, 0.0), registered.ravel(), np.ones(registered.size)).reshape(-1, 2)
    lights = []
    for m, perimeter in enumerate(members):
        for direction, d in SIDE.items():
            at = np.flatnonzero(take[:, m, d]) if len(room.room_kw) else np.zeros(0, dtype=np.int64)
            violated = bool((room.room_kw[at] < 0.0).any())
            decides = str(room.tags[at[room.room_kw[at].argmin()]]) if len(at) else ""
            colour = _colour(cap[m, d], registered[m, d], violated, settings)
            kw = 0.0 if colour is Colour.RED else float(cap[m, d])
            limit = "" if colour is Colour.GREEN else decides
            lights.append(Light(perimeter, direction, colour, kw, float(registered[m, d]), limit))
    return tuple(lights)


def _colour(cap_kw: float, registered_kw: float, violated: bool, settings: LightSettings) -> Colour:
    if violated or (cap_kw <= settings.red * registered_kw and registered_kw > 0.0):
        return Colour.RED
    return Colour.GREEN if cap_kw >= (1.0 - settings.green) * registered_kw else Colour.YELLOW


@dataclass(frozen=True)
class StaticLight:
    """What prequalification found safe in all design snapshots, for one version of the topology."""

    topology_version: int
    lights: tuple[Light, ...]

    def at(self, topology_version: int) -> tuple[Light, ...]:
        """The lights; raises BidError if the topology is another now."""
        if topology_version != self.topology_version:
            raise BidError(
                Fault(
                    "the static traffic light is of another topology: prequalify again",
                    key="topology_version",
                    value=str(self.topology_version),
                    allowed=str(topology_version),
                )
            )
        return self.lights


def static_light(
    snapshots: Iterable[ClearingCase], matrix: TopologicalMatrix, settings: LightSettings | None = None
) -> StaticLight:
    """Of every perimeter and direction the smallest cap of all ``snapshots``, which have the same resources."""
    found = [traffic_light(case, matrix, settings) for case in snapshots]
    least = tuple(min(same, key=lambda light: light.cap_kw) for same in zip(*found, strict=True))
    return StaticLight(matrix.version, least)


def caps_by_perimeter(lights: Sequence[Light]) -> Mapping[tuple[str, Direction], float]:
    """Cap of each perimeter and direction [kW]."""
    return {(light.perimeter, light.direction): light.cap_kw for light in lights}
