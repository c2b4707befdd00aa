import math

import numpy as np
import pytest

from cosim.domain.grid import GridLayout
from cosim.domain.measurement import Channel, Place
from cosim.sensing.truth import SOURCES, TruthReader, metered_conductors

LAYOUT = GridLayout(
    nodes=("A.1", "A.2", "A.3", "B.2", "AB.1"),
    branches=("Line.L1",),
    terminals=("Line.L1@A", "Line.L1@B"),
    terminal_branch=np.array([0, 0]),
    conductors=("Line.L1@A.1", "Line.L1@A.2", "Line.L1@B.2", "Line.L1@B.3"),
    conductor_terminal=np.array([0, 0, 1, 1]),
    conductor_node=np.array([0, 1, 3, 2]),
    rated_a=np.array([100.0, 100.0]),
)
POD_SITES, STORAGE = ("A", "B.2", "B.1.2"), ("A.battery", "B.battery")
STATE = {
    ("bus", "vm_pu"): np.array([1.01, 1.02, 1.03, 0.97, 5.0]),
    ("terminal", "p_kw"): np.array([30.0, -29.0]),
    ("terminal", "q_kvar"): np.array([3.0, -2.5]),
    ("terminal", "i_a"): np.array([7.0, 8.0]),
    ("conductor", "p_kw"): np.array([-29.0]),
    ("conductor", "q_kvar"): np.array([-2.5]),
    ("conductor", "i_a"): np.array([8.0]),
    ("pod", "p_kw"): np.array([10.0, 20.0, -4.0]),
    ("pod", "q_kvar"): np.array([1.0, 2.0, 0.5]),
    ("storage", "p_kw"): np.array([0.0, -4.0]),
    ("storage", "e_kwh"): np.array([50.0, 60.0]),
}


def read(quantity, state=STATE, **place):
    reader = TruthReader([Channel("m", "t/0/x", quantity, Place(**place), 1.0)], LAYOUT, POD_SITES, STORAGE)
    return reader.read(state)[0]


@pytest.mark.parametrize(
    ("quantity", "place", "reading"),
    [
        ("p_kw", {"bus": "B"}, 16.0),
        ("q_kvar", {"bus": "B"}, 2.5),
        ("p_kw", {"bus": "AB"}, 0.0),
        ("vm_pu", {"bus": "A"}, 1.02),
        ("vm_pu", {"bus": "B"}, 0.97),
        ("vm_pu", {"branch": "Line.L1", "end": "B"}, 0.97),
        ("p_kw", {"branch": "Line.L1", "end": "B"}, -29.0),
        ("q_kvar", {"branch": "Line.L1", "end": "A"}, 3.0),
        ("i_a", {"branch": "Line.L1", "end": "B"}, 8.0),
        ("p_kw", {"bus": "B", "phase": 2}, 20.0),
        ("vm_pu", {"bus": "A", "phase": 3}, 1.03),
        ("vm_pu", {"branch": "Line.L1", "end": "A", "phase": 2}, 1.02),
        ("p_kw", {"branch": "Line.L1", "end": "B", "phase": 2}, -29.0),
        ("q_kvar", {"branch": "Line.L1", "end": "B", "phase": 2}, -2.5),
        ("i_a", {"branch": "Line.L1", "end": "B", "phase": 2}, 8.0),
        ("p_kw", {"storage": "B.battery"}, -4.0),
        ("e_kwh", {"storage": "A.battery"}, 50.0),
    ],
)
def test_perfect_readings(quantity, place, reading):
    assert read(quantity, **place) == pytest.approx(reading)


def test_channels_in_their_order_read_only():
    channels = [
        Channel("m", f"t/{k}/x", quantity, Place(**place), 1.0)
        for k, (quantity, place) in enumerate([("i_a", {"branch": "Line.L1", "end": "A"}), ("p_kw", {"bus": "A"})])
    ]
    readings = TruthReader(channels, LAYOUT, POD_SITES, STORAGE).read(STATE)
    assert list(readings) == [7.0, 10.0]
    assert not readings.flags.writeable


def test_a_step_not_solved_reads_nan_where_it_depends_on_the_solve():
    lost = STATE | {("bus", "vm_pu"): np.full(5, math.nan)}
    assert math.isnan(read("vm_pu", lost, bus="A"))
    assert read("p_kw", lost, bus="A") == 10.0


def test_sources_are_all_that_is_read():
    assert {(model, attribute) for model, given in SOURCES.items() for attribute in given} == set(STATE)


def test_conductors_metered_on_their_own_each_once():
    def channel(quantity: str, phase: int | None, **place: str) -> Channel:
        return Channel("m", f"t/0/{quantity}/{phase}", quantity, Place(phase=phase, **place), 1.0)

    line = {"branch": "Line.L1", "end": "A"}
    channels = [
        channel("p_kw", 2, **line),
        channel("q_kvar", 2, **line),
        channel("vm_pu", 1, **line),
        channel("i_a", None, **line),
        channel("p_kw", 1, bus="B"),
        channel("i_a", 1, **line),
    ]
    assert metered_conductors(channels) == ("Line.L1@A.2", "Line.L1@A.1")
    truth = STATE | {("conductor", "p_kw"): np.array([3.0, 5.0]), ("conductor", "i_a"): np.array([7.0, 9.0])}
    truth[("conductor", "q_kvar")] = np.array([0.5, 0.6])
    assert list(TruthReader(channels, LAYOUT, POD_SITES, STORAGE).read(truth)) == [3.0, 0.5, 1.01, 7.0, 0.0, 9.0]
