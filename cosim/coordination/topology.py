"""The topological matrix (MaT): where every resource is, for one version of the network's topology."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from cosim.domain.frames import Floats
from cosim.errors import BidError, Fault


@dataclass(frozen=True)
class Placed:
    """A resource: the portfolio (UVAM) that sells it, its POD, DSO and TSO perimeter, registered capability [kW]."""

    resource: str
    pod: str
    aggregator: str
    dso_perimeter: str
    tso_perimeter: str
    up_kw: float
    down_kw: float


@dataclass(frozen=True)
class TopologicalMatrix:
    """All resources under ``version`` of the topology, and the ``state`` of operation that it describes."""

    version: int
    entries: tuple[Placed, ...]
    state: Literal["N", "N-1", "maintenance"] = "N"

    def perimeters_of(self, resources: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """DSO perimeters of ``resources`` with their members, in the order of the matrix. Raises BidError naming
        resources that it does not have."""
        known = {entry.resource for entry in self.entries}
        if missing := [name for name in resources if name not in known]:
            raise BidError([Fault("not in the topological matrix", key=f"resource {name}") for name in missing])
        inside: dict[str, list[str]] = {}
        for entry in self.entries:
            if entry.resource in resources:
                inside.setdefault(entry.dso_perimeter, []).append(entry.resource)
        return {perimeter: tuple(members) for perimeter, members in inside.items()}

    def one_hot(self, side: Literal["dso", "tso"]) -> Floats:
        """Which perimeter (row) holds each resource (column): exactly one 1 in each column."""
        own = [entry.dso_perimeter if side == "dso" else entry.tso_perimeter for entry in self.entries]
        perimeters = list(dict.fromkeys(own))
        return np.array([[float(perimeter == each) for each in own] for perimeter in perimeters])

    def changed(self, entries: Iterable[Placed], state: Literal["N", "N-1", "maintenance"]) -> TopologicalMatrix:
        """The matrix of another topology: the next version. What was found safe for this one holds no more."""
        return replace(self, version=self.version + 1, entries=tuple(entries), state=state)


NO_MATRIX: Final = TopologicalMatrix(0, ())


def check_version(own: int, told: int, area: str) -> None:
    """Raises BidError if limits are told for another version of the matrix than one's own."""
    if own != told:
        problem = f"the limits of area {area} are of another version of the topological matrix"
        raise BidError(Fault(problem, key="topology_version", value=str(told), allowed=str(own)))


def matrix_faults(entries: Sequence[Placed]) -> Iterator[Fault]:
    """Resources in two places, perimeters of two TSO perimeters, and resources of two aggregators at one POD."""
    by_resource, by_pod, above = dict[str, Placed](), dict[str, Placed](), dict[str, str]()
    for entry in entries:
        first = by_resource.setdefault(entry.resource, entry)
        if first is not entry:
            both = f"{first.dso_perimeter}, {entry.dso_perimeter}"
            yield Fault("in more than one perimeter", key=f"resource {entry.resource}", value=both, allowed="one")
        seller = by_pod.setdefault(entry.pod, entry)
        if seller.aggregator != entry.aggregator:
            problem = "one aggregator sells all of a POD, for local and for global services"
            yield Fault(problem, key=f"POD {entry.pod}", value=f"{seller.aggregator}, {entry.aggregator}")
        tso = above.setdefault(entry.dso_perimeter, entry.tso_perimeter)
        if tso != entry.tso_perimeter:
            problem = "a DSO perimeter lies in one TSO perimeter"
            yield Fault(problem, key=f"perimeter {entry.dso_perimeter}", value=f"{tso}, {entry.tso_perimeter}")
