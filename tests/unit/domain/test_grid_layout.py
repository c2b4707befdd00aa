from __future__ import annotations

import numpy as np

from cosim.domain.grid import GridLayout


def layout(*pairs: str) -> GridLayout:
    """Branches named by their two buses, e.g. ``AB``."""
    terminals = tuple(f"{pair}@{bus}" for pair in pairs for bus in pair)
    buses = sorted({bus for pair in pairs for bus in pair})
    ends = [terminal.partition("@")[2] for terminal in terminals]
    return GridLayout(
        nodes=tuple(f"{bus}.1" for bus in buses),
        branches=pairs,
        terminals=terminals,
        terminal_branch=np.array([k for k, pair in enumerate(pairs) for _ in pair]),
        conductors=tuple(f"{terminal}.1" for terminal in terminals),
        conductor_terminal=np.arange(len(terminals)),
        conductor_node=np.array([buses.index(bus) for bus in ends]),
        rated_a=np.where(np.arange(len(terminals)) == 0, np.nan, 10.0),
    )


def test_highest_phase_and_loading_by_branches_of_two_and_three_ends() -> None:
    grid = layout("AB", "BCD")
    assert list(grid.branch_start) == [0, 2]
    assert list(grid.highest_a(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))) == [1.0, 2.0, 3.0, 4.0, 5.0]
    loading = grid.loading_pu(np.array([1.0, 2.0, 3.0, 12.0, 5.0]))
    assert np.isnan(loading[0])
    assert loading[1] == 1.2


def test_all_ends_of_a_branch_are_neighbours() -> None:
    assert layout("XA", "ABC", "CD").above("CD@C") == ("A", "B", "X")


def test_buses_above_the_head_are_those_on_its_own_side() -> None:
    grid = layout("AB", "XB", "BC", "CD")
    assert grid.above("BC@B") == ("A", "X")
    assert grid.above("BC@C") == ("D",)


def test_nothing_is_above_the_source_bus() -> None:
    assert layout("AB", "BC").above("AB@A") == ()


def test_a_head_in_a_loop_divides_nothing() -> None:
    assert layout("AB", "BC", "CA").above("BC@B") == ()
