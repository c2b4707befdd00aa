from __future__ import annotations

import numpy as np

from cosim.domain.grid import GridLayout


def layout(*pairs: str) -> GridLayout:
    """Branches named by their two buses, e.g. ``AB``."""
    terminals = tuple(f"{pair}@{bus}" for pair in pairs for bus in pair)
    nodes = tuple(f"{bus}.1" for bus in sorted({bus for pair in pairs for bus in pair}))
    return GridLayout(nodes, pairs, terminals, np.full(len(terminals), np.nan))


def test_buses_above_the_head_are_those_on_its_own_side() -> None:
    grid = layout("AB", "XB", "BC", "CD")
    assert grid.above("BC@B") == ("A", "X")
    assert grid.above("BC@C") == ("D",)


def test_nothing_is_above_the_source_bus() -> None:
    assert layout("AB", "BC").above("AB@A") == ()


def test_a_head_in_a_loop_divides_nothing() -> None:
    assert layout("AB", "BC", "CA").above("BC@B") == ()
