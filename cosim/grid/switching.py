"""Which switches may be open together: every bus keeps its feed, and no loop is closed unless it may be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from cosim.grid.checks import links
from cosim.grid.stock import terminal_nodes

_PHASES = 3  # nodes with higher numbers are neutrals, which may float
_WOUND = ("transformer", "autotrans")

Pair = tuple[int, int]
Windings = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Switching:
    """What the switches of a network connect.

    ``buses`` (n_island,): those with a phase in each island, which are the nodes that conductors connect whatever the
    switches do; ``source``: the island of the sources. ``transformers``: the islands of the phases of each winding of
    them all. ``area`` (n_island,): the same number where transformers connect islands. ``ends`` of each switch: the
    islands that its conductors connect. ``may_loop``: switches that may be closed as part of a loop.
    """

    buses: tuple[tuple[str, ...], ...]
    source: int
    transformers: tuple[Windings, ...]
    area: tuple[int, ...]
    ends: Mapping[str, tuple[Pair, ...]]
    may_loop: frozenset[str]

    def cut_off(self, closed: Collection[str]) -> tuple[str, ...]:
        """Buses of which a phase is fed with all switches closed, and not if only those ``closed`` are.

        A transformer feeds its other windings if all phases of one are fed: one phase alone does not feed the others
        through the windings of a delta.
        """
        lost = self._fed(self.ends) - self._fed(closed)
        return tuple(sorted({bus for island in lost for bus in self.buses[island]}))

    def looped(self, closed: Collection[str]) -> tuple[str, ...]:
        """Those of the switches ``closed`` that are part of a loop and may not be: without one, something else connects
        the ends of a conductor of it."""
        return tuple(switch for switch in closed if switch not in self.may_loop and self._loops(switch, closed))

    def _loops(self, switch: str, closed: Collection[str]) -> bool:
        pairs = [pair for other in closed if other != switch for pair in self.ends[other]]
        root = _roots(len(self.area), ((self.area[a], self.area[b]) for a, b in pairs))
        return any(root[self.area[a]] == root[self.area[b]] for a, b in self.ends[switch])

    def _fed(self, closed: Collection[str]) -> set[int]:
        root = _roots(len(self.buses), (pair for switch in closed for pair in self.ends[switch]))
        fed, waiting = {root[self.source]}, list(self.transformers)
        while woken := [k for k, each in enumerate(waiting) if any(w and all(root[i] in fed for i in w) for w in each)]:
            fed |= {root[i] for k in woken for winding in waiting[k] for i in winding}
            waiting = [each for k, each in enumerate(waiting) if k not in woken]
        return {island for island in range(len(self.buses)) if root[island] in fed}


def _roots(n: int, pairs: Iterable[Pair]) -> list[int]:
    """Of each of ``n``, one that stands for all that are connected with it by ``pairs``."""
    root = list(range(n))

    def root_of(k: int) -> int:
        while root[k] != k:
            k = root[k]
        return k

    for a, b in pairs:
        root[root_of(a)] = root_of(b)
    return [root_of(k) for k in range(n)]


def switching(
    nodes: Sequence[str],
    conductors: Sequence[Pair],
    transformers: Sequence[Windings],
    switches: Mapping[str, Sequence[Pair]],
    may_loop: Collection[str] = (),
) -> Switching:
    """The switching of a network of ``nodes`` (``BUS.phase``): pairs of nodes (1 + index of node, 0 is the source) that
    ``conductors`` connect, and those of ``switches``, and the nodes of each winding of ``transformers``."""
    is_phase = [False, *(int(node.rpartition(".")[2]) <= _PHASES for node in nodes)]
    island = _islands(1 + len(nodes), conductors)
    buses: list[dict[str, None]] = [{} for _ in range(1 + max(island))]
    for k, node in enumerate(nodes, start=1):
        if is_phase[k]:
            buses[island[k]][node.rpartition(".")[0]] = None
    wound = [tuple(tuple(island[k] for k in w if is_phase[k]) for w in each) for each in transformers]
    together = [[k for winding in each for k in winding] for each in wound]
    return Switching(
        buses=tuple(tuple(each) for each in buses),
        source=island[0],
        transformers=tuple(wound),
        area=tuple(_islands(len(buses), [(each[0], k) for each in together for k in each])),
        ends={name: tuple((island[a], island[b]) for a, b in pairs) for name, pairs in switches.items()},
        may_loop=frozenset(may_loop),
    )


def _islands(n: int, pairs: Sequence[Pair]) -> list[int]:
    """The number of what each of ``n`` is connected with (n,)."""
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = scipy.sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))
    return [int(k) for k in connected_components(graph, directed=False)[1]]


def read_switching(circuit: Any, switches: Mapping[str, str], may_loop: Collection[str]) -> Switching:
    """The switching of a compiled circuit by ``switches``, lines in service by the name of the switch."""
    circuit.Solution.BuildYMatrix(0, 1)
    nodes = tuple(str(name).upper() for name in circuit.YNodeOrder)
    lines = {name: _terminals(circuit, line) for name, line in switches.items()}
    ends = {name: [(a, b) for a, b in zip(*of_line, strict=True) if a and b] for name, of_line in lines.items()}
    wound = list(_wound(circuit))
    left_out = [*wound, *(line.lower() for line in switches.values())]
    windings = [tuple(tuple(k for k in refs if k) for refs in _terminals(circuit, name)) for name in wound]
    return switching(nodes, links(circuit, left_out), windings, ends, may_loop)


def _wound(circuit: Any) -> Iterator[str]:
    """Transformers in service, full names in lower case."""
    for name in map(str, circuit.PDElements.AllNames):
        if name.partition(".")[0].lower() in _WOUND:
            circuit.SetActiveElement(name)
            if circuit.ActiveCktElement.Enabled:
                yield name.lower()


def _terminals(circuit: Any, element: str) -> list[list[int]]:
    """Nodes of each terminal of an element, or winding of a transformer; 0 is ground."""
    circuit.SetActiveElement(element)
    return [list(map(int, refs)) for refs in terminal_nodes(circuit.ActiveCktElement)]
