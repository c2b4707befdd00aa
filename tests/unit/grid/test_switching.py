"""Switching of networks small enough to draw. Nodes are counted from 1; 0 is the source."""

import pytest

from cosim.grid.switching import switching

NODES = [*(f"H.{k}" for k in (1, 2, 3)), *(f"L.{k}" for k in (1, 2, 3)), "L.4"]
ONE_BY_ONE = {f"S{k}": [(0, k)] for k in (1, 2, 3)}


@pytest.mark.parametrize("closed", [[], ["S1"], ["S1", "S3"], ["S1", "S2", "S3"]])
def test_one_phase_does_not_feed_the_others_through_a_transformer(closed):
    of = switching(NODES, [], [((1, 2, 3), (4, 5, 6, 7))], ONE_BY_ONE)
    assert of.cut_off(closed) == (() if len(closed) == 3 else ("H", "L"))


def test_transformers_of_one_phase_feed_their_own():
    of = switching(NODES, [], [((1,), (4, 7)), ((2,), (5, 7)), ((3,), (6, 7))], ONE_BY_ONE)
    assert of.cut_off(["S1", "S2", "S3"]) == ()
    assert of.cut_off(["S2", "S3"]) == ("H", "L")


def test_transformers_feed_one_another_in_either_direction():
    nodes = [f"B{k}.1" for k in (1, 2, 3)]
    of = switching(nodes, [], [((2,), (1,)), ((3,), (2,))], {"near": [(0, 1)], "far": [(0, 3)]})
    assert of.cut_off(["near"]) == of.cut_off(["far"]) == ()
    assert of.cut_off([]) == ("B1", "B2", "B3")
    assert of.looped(["near", "far"]) == ("near", "far")


def test_neutrals_are_not_missed():
    of = switching(["A.1", "A.4", "B.4"], [(0, 1)], [], {"S": [(1, 3)]})
    assert of.cut_off([]) == ()


def test_what_nothing_feeds_is_not_cut_off_by_a_switch():
    of = switching(["A.1", "B.1"], [], [], {"S": [(0, 1)]})
    assert of.cut_off(["S"]) == ()
    assert of.cut_off([]) == ("A",)


def test_three_phases_of_one_switch_are_no_loop():
    """Beyond it the phases meet in a transformer."""
    beyond = [((1, 2, 3), (4, 5, 6))]
    assert switching(NODES, [], beyond, {"S": [(0, 1), (0, 2), (0, 3)]}).looped(["S"]) == ()


def test_switches_side_by_side_are_a_loop_unless_they_may_be():
    ends = {"S": [(0, 1)], "T": [(0, 1)]}
    assert switching(["A.1"], [], [], ends).looped(["S", "T"]) == ("S", "T")
    assert switching(["A.1"], [], [], ends, may_loop=["T"]).looped(["S", "T"]) == ("S",)
    assert switching(["A.1"], [], [], ends).looped(["T"]) == ()
