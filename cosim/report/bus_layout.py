"""Where the buses of a feeder are drawn: at their coordinates, or in layers of a tree from the source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import Floats, Ints, frozen
from cosim.grid.stock import Edge

_DIRECTIONS = 16
_STEP = 0.035  # distance of a bus without coordinates from its neighbour, of the extent of all


@dataclass(frozen=True)
class Tree:
    """How the source reaches the buses: ``order`` (n_bus,) in which they are reached, ``parent`` (n_bus,) the bus
    before each and ``edge`` (n_bus,) the index of the edge between; -1 at the source and where no edge leads."""

    order: Ints
    parent: Ints
    edge: Ints


@dataclass(frozen=True)
class Placement:
    """Positions ``xy`` (n_bus, 2); ``is_map`` where they are coordinates, else layers of the ``tree``."""

    xy: Floats
    tree: Tree
    is_map: bool


def place(xy: Floats, edges: Sequence[Edge], source: int) -> Placement:
    """Positions for buses with coordinates ``xy`` (n_bus, 2), NaN where there are none: these if at least half of the
    buses have some, the missing ones beside their neighbours; else layers from bus ``source``."""
    tree = tree_of(len(xy), edges, source)
    known = ~np.isnan(xy).any(axis=1)
    is_map = bool(2 * known.sum() >= len(xy) and np.ptp(xy[known], axis=0).max() > 0.0)
    return Placement(completed(xy, edges) if is_map else layered(tree), tree, is_map)


def tree_of(n_bus: int, edges: Sequence[Edge], source: int) -> Tree:
    """The buses in the order of their distance from the source in closed edges; open edges serve only to reach buses
    that no closed one does, and buses that none reaches begin trees of their own."""
    parent, edge_to = np.full(n_bus, -1), np.full(n_bus, -1)
    closed: list[list[tuple[int, int]]] = [[] for _ in range(n_bus)]
    for k, edge in enumerate(edges):
        if not edge.is_open:
            closed[edge.start].append((edge.end, k))
            closed[edge.end].append((edge.start, k))
    order: list[int] = []
    reached: set[int] = set()
    entry: tuple[int, int, int] | None = (source, -1, -1)
    while entry is not None:
        bus, parent[bus], edge_to[bus] = entry
        reached.add(bus)
        order.append(bus)
        ahead = len(order) - 1
        while ahead < len(order):
            for neighbour, k in closed[order[ahead]]:
                if neighbour not in reached:
                    reached.add(neighbour)
                    parent[neighbour], edge_to[neighbour] = order[ahead], k
                    order.append(neighbour)
            ahead += 1
        entry = _next_entry(n_bus, edges, reached)
    return Tree(frozen(order, np.int64), frozen(parent, np.int64), frozen(edge_to, np.int64))


def _next_entry(n_bus: int, edges: Sequence[Edge], reached: set[int]) -> tuple[int, int, int] | None:
    """A bus not reached yet, the bus before it and the open edge between."""
    if len(reached) == n_bus:
        return None
    for k, edge in enumerate(edges):
        if (edge.start in reached) != (edge.end in reached):
            return (edge.end, edge.start, k) if edge.start in reached else (edge.start, edge.end, k)
    return min(set(range(n_bus)) - reached), -1, -1


def layered(tree: Tree) -> Floats:
    """Positions (n_bus, 2): x the number of edges from the source, y one row for each bus at an end. A bus stands in
    the row of its longest branch, the other branches above and below it."""
    n_bus = len(tree.order)
    depth, reach = np.zeros(n_bus), np.ones(n_bus)
    children: list[list[int]] = [[] for _ in range(n_bus)]
    for bus in tree.order:
        if (parent := tree.parent[bus]) >= 0:
            depth[bus] = depth[parent] + 1.0
            children[parent].append(int(bus))
    for bus in tree.order[::-1]:
        if (parent := tree.parent[bus]) >= 0:
            reach[parent] = max(reach[parent], reach[bus] + 1.0)
    for of_bus in children:
        of_bus.sort(key=lambda bus: (-reach[bus], bus))
    row = np.zeros(n_bus)
    for k, end in enumerate(_ends(tree, children)):
        row[end] = k
    for bus in tree.order[::-1]:
        if children[bus]:
            row[bus] = row[children[bus][0]]
    return frozen(np.column_stack((depth, -row)))


def _ends(tree: Tree, children: list[list[int]]) -> Iterator[int]:
    """The buses without children from top to bottom. The first child of each bus, with the longest branch, is between
    the others; they change sides from one fork to the next, so that a long row has branches on both."""
    ahead = [(int(bus), False) for bus in tree.order[::-1] if tree.parent[bus] < 0]
    while ahead:
        bus, turned = ahead.pop()
        if not children[bus]:
            yield bus
            continue
        longest, *others = children[bus]
        below, above = others[turned::2], others[not turned :: 2]
        ahead += [(child, turned) for child in below]
        ahead.append((longest, turned != bool(others)))
        ahead += [(child, turned) for child in above[::-1]]


def completed(xy: Floats, edges: Sequence[Edge]) -> Floats:
    """Coordinates (n_bus, 2) without gaps: a bus between two with coordinates in the middle of them, another a step
    away from its neighbour where there is most room, one without neighbours beside the picture."""
    placed = np.array(xy)
    missing = [int(bus) for bus in np.flatnonzero(np.isnan(xy).any(axis=1))]
    placed[missing] = np.nan
    low, high = np.nanmin(placed, axis=0), np.nanmax(placed, axis=0)
    step = _STEP * float((high - low).max())
    neighbours: list[list[int]] = [[] for _ in xy]
    for edge in edges:
        neighbours[edge.start].append(edge.end)
        neighbours[edge.end].append(edge.start)
    beside = np.array([high[0] + step, low[1]])
    while missing:
        bus, hosts = _next_missing(missing, neighbours, placed)
        missing.remove(bus)
        if len(hosts) > 1 and not _taken(middle := placed[hosts].mean(axis=0), placed, step / 10.0):
            placed[bus] = middle
        elif hosts:
            placed[bus] = _roomiest(placed[hosts[0]], placed, step)
        else:
            placed[bus] = _roomiest(beside, placed, step)
    return frozen(placed)


def _next_missing(missing: list[int], neighbours: list[list[int]], placed: Floats) -> tuple[int, list[int]]:
    """The first bus with a neighbour that has a place, and its neighbours that have; else the first bus."""
    for bus in missing:
        hosts = [host for host in dict.fromkeys(neighbours[bus]) if not np.isnan(placed[host, 0])]
        if hosts:
            return bus, hosts
    return missing[0], []


def _taken(place: Floats, placed: Floats, reach: float) -> bool:
    return bool((np.hypot(*(placed - place).T) < reach).any())


def _roomiest(host: Floats, placed: Floats, step: float) -> Floats:
    angle = 2.0 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    offers = host + step * np.column_stack((np.cos(angle), np.sin(angle)))
    others = placed[np.hypot(*(placed - host).T) > 0.0]
    room = np.hypot(*(offers[:, None, :] - others[None, :, :]).transpose(2, 0, 1)).min(axis=1)
    best: Floats = offers[int(np.argmax(np.round(room / step, 6)))]
    return best
