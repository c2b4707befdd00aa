"""Which part of a feeder a branch feeds."""

from __future__ import annotations

from collections.abc import Iterable


def buses_behind(terminals: Iterable[str], branch: str, head_bus: str) -> frozenset[str]:
    """Buses that ``head_bus`` reaches only through ``branch``; none for a branch in a loop.

    ``terminals`` are ends ``branch@BUS`` of branches in service.
    """
    ends: dict[str, list[str]] = {}
    for terminal in terminals:
        name, _, bus = terminal.partition("@")
        ends.setdefault(name, []).append(bus)
    with_it = _reached(ends, head_bus)
    ends.pop(branch, None)
    return with_it - _reached(ends, head_bus)


def _reached(ends: dict[str, list[str]], start: str) -> frozenset[str]:
    neighbours: dict[str, set[str]] = {}
    for buses in ends.values():
        for bus in buses:
            neighbours.setdefault(bus, set()).update(buses)
    reached, ahead = {start}, [start]
    while ahead:
        found = neighbours.get(ahead.pop(), set()) - reached
        reached |= found
        ahead += found
    return frozenset(reached)
