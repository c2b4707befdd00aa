"""Where buses are drawn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.grid.stock import Edge
from cosim.report.bus_layout import completed, layered, place, tree_of


def edge(start, end, is_open=False):
    return Edge(f"Line.{start}_{end}", "line", start, end, 3, math.nan, is_open)


@st.composite
def trees(draw):
    """Edges of a random tree with its buses numbered at random; bus 0 first in the list of numbers."""
    n_bus = draw(st.integers(1, 40))
    number = draw(st.permutations(range(n_bus)))
    parents = [draw(st.integers(0, bus - 1)) for bus in range(1, n_bus)]
    turned = draw(st.lists(st.booleans(), min_size=n_bus, max_size=n_bus))
    pairs = [(number[parent], number[bus]) for bus, parent in enumerate(parents, start=1)]
    return number, [edge(*(pair[::-1] if turn else pair)) for pair, turn in zip(pairs, turned, strict=False)]


@given(trees())
def test_tree_has_parents_to_the_left_and_no_two_buses_in_one_place(drawn):
    number, edges = drawn
    tree = tree_of(len(number), edges, number[0])
    xy = layered(tree)
    assert sorted(tree.order) == list(range(len(number)))
    assert len({tuple(place) for place in xy.tolist()}) == len(number)
    for each in edges:
        assert abs(xy[each.start, 0] - xy[each.end, 0]) == 1.0
        assert each.start == tree.parent[each.end] or each.end == tree.parent[each.start]
    reached = tree.parent >= 0
    assert (xy[reached, 0] == xy[tree.parent[reached], 0] + 1.0).all()
    assert np.flatnonzero(~reached).tolist() == [number[0]]


@given(trees())
def test_courses_of_a_tree_do_not_cross_buses(drawn):
    """A course runs along the layer of the bus that it leaves to the row of the bus that it goes to."""
    number, edges = drawn
    tree = tree_of(len(number), edges, number[0])
    xy = layered(tree)
    for bus, parent in enumerate(tree.parent):
        if parent >= 0:
            low, high = sorted((xy[bus, 1], xy[parent, 1]))
            at_layer = (xy[:, 0] == xy[parent, 0]) & (xy[:, 1] >= low) & (xy[:, 1] <= high)
            assert np.flatnonzero(at_layer).tolist() == [parent]


def test_a_row_goes_on_to_its_longest_branch_between_the_others():
    edges = [edge(0, 1), edge(1, 2), edge(1, 3), edge(3, 4), edge(1, 5), edge(4, 6)]
    xy = layered(tree_of(7, edges, 0))
    assert len(set(xy[[0, 1, 3, 4, 6], 1])) == 1
    assert (xy[2, 1] - xy[1, 1]) * (xy[5, 1] - xy[1, 1]) < 0.0


def test_long_chains_are_laid_out():
    edges = [edge(bus, bus + 1) for bus in range(3000)]
    assert layered(tree_of(3001, edges, 0)).tolist() == [[bus, 0.0] for bus in range(3001)]


def test_open_edges_serve_only_where_no_closed_one_does():
    edges = [edge(0, 3, is_open=True), edge(0, 1), edge(1, 2), edge(2, 3), edge(3, 4, is_open=True)]
    tree = tree_of(6, edges, 0)
    assert tree.parent.tolist() == [-1, 0, 1, 2, 3, -1]
    assert tree.edge.tolist() == [-1, 1, 2, 3, 4, -1]
    xy = layered(tree)
    assert xy[5, 0] == 0.0
    assert xy[5, 1] != xy[0, 1]


def test_coordinates_are_kept_and_gaps_filled():
    nan = [math.nan, math.nan]
    xy = np.array([[0.0, 0.0], [100.0, 0.0], nan, [200.0, 0.0], nan, nan, [200.0, 100.0], [0.0, 100.0]])
    edges = [edge(0, 1), edge(1, 2), edge(2, 3), edge(4, 3), edge(4, 5)]
    full = completed(xy, edges)
    known = ~np.isnan(xy[:, 0])
    assert (full[known] == xy[known]).all()
    assert full[2].tolist() == [150.0, 0.0]
    assert math.dist(full[4], full[3]) == pytest.approx(7.0)
    assert math.dist(full[5], full[4]) == pytest.approx(7.0)
    assert math.dist(full[5], full[3]) > 7.0
    assert full.tolist() == completed(xy, edges).tolist()


def test_parallel_spurs_without_coordinates_stand_apart():
    xy = np.array([[0.0, 0.0], [10.0, 0.0], *[[math.nan, math.nan]] * 6])
    full = completed(xy, [edge(0, 1), *(edge(1, bus) for bus in range(2, 7))])
    apart = np.hypot(*(full[:, None] - full[None]).transpose(2, 0, 1)) + np.eye(8)
    assert apart.min() > 0.1
    assert np.isfinite(full).all()


def test_islands_without_coordinates_stand_beside_the_picture():
    xy = np.array([[0.0, 0.0], [10.0, 5.0], [5.0, 5.0], [math.nan] * 2])
    assert completed(xy, [edge(0, 1), edge(1, 2)])[3, 0] > 10.0


@pytest.mark.parametrize(("known", "is_map"), [(3, True), (2, True), (1, False), (0, False)])
def test_coordinates_count_where_half_of_the_buses_have_them(known, is_map):
    xy = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    xy[known:] = math.nan
    assert place(xy, [edge(0, 1), edge(1, 2), edge(2, 3)], 0).is_map is is_map


def test_coordinates_that_are_all_the_same_are_none():
    assert not place(np.zeros((3, 2)), [edge(0, 1), edge(1, 2)], 0).is_map
