"""Which switches may be open together: every bus keeps a path to the source, and no loop is closed unless it may be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

_PHASES = 3  # nodes with higher numbers are neutrals, which may float

Pair = tuple[int, int]


@dataclass(frozen=True)
class Switching:
    """What the switches of a network connect.

    ``buses`` (n_island,): those with a phase in each island, an island being the nodes that are connected whatever the
    switches do; ``source``: that of the sources. ``ends`` (n_conductor,) of each switch: the islands that its
    conductors connect. ``may_loop``: switches that may be closed as part of a loop.
    """

    buses: tuple[tuple[str, ...], ...]
    source: int
    ends: Mapping[str, tuple[Pair, ...]]
    may_loop: frozenset[str]

    def cut_off(self, closed: Collection[str]) -> tuple[str, ...]:
        """Buses of which a phase has no path to a source if only the switches ``closed`` are."""
        root = self._roots(closed)
        dead = [buses for island, buses in enumerate(self.buses) if root[island] != root[self.source]]
        return tuple(sorted({bus for buses in dead for bus in buses}))

    def looped(self, closed: Collection[str]) -> tuple[str, ...]:
        """Those of the switches ``closed`` that are part of a loop and may not be: without one, something else connects
        the ends of a conductor of it."""
        return tuple(switch for switch in closed if switch not in self.may_loop and self._loops(switch, closed))

    def _loops(self, switch: str, closed: Collection[str]) -> bool:
        root = self._roots([other for other in closed if other != switch])
        return any(root[a] == root[b] for a, b in self.ends[switch])

    def _roots(self, closed: Collection[str]) -> list[int]:
        """An island that stands for all those that are connected with it (n_island,)."""
        root = list(range(len(self.buses)))

        def root_of(island: int) -> int:
            while root[island] != island:
                island = root[island]
            return island

        for switch in closed:
            for a, b in self.ends[switch]:
                root[root_of(a)] = root_of(b)
        return [root_of(island) for island in range(len(root))]


def switching(
    nodes: Sequence[str], links: Sequence[Pair], switches: Mapping[str, Sequence[Pair]], may_loop: Collection[str] = ()
) -> Switching:
    """The switching of a network of ``nodes`` (``BUS.phase``), connected by ``links`` whatever the switches do.

    ``links`` and the conductors of ``switches`` are pairs of nodes (1 + index of node, 0 is the source)."""
    n = 1 + len(nodes)
    rows, columns = np.array(links, dtype=np.int64).reshape(-1, 2).T
    graph = scipy.sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))
    n_island, of_node = connected_components(graph, directed=False)
    island = of_node.tolist()
    buses: list[dict[str, None]] = [{} for _ in range(n_island)]
    for k, node in enumerate(nodes, start=1):
        bus, _, phase = node.rpartition(".")
        if int(phase) <= _PHASES:
            buses[island[k]][bus] = None
    ends = {name: tuple((island[a], island[b]) for a, b in pairs) for name, pairs in switches.items()}
    return Switching(tuple(tuple(each) for each in buses), island[0], ends, frozenset(may_loop))
