import math
from dataclasses import replace

import numpy as np
import pytest
from feeder_folders import LINE, LINE_YAML, engine_in

from cosim.errors import ScenarioError
from cosim.grid.limits import VIOLATIONS, Limits, Violation
from cosim.scenario.schema import Limits as Config

HEAD = "Line.L1@SRC"


@pytest.fixture
def engine(tmp_path):
    """Line L1 of 100 A from SRC to A, line L2 without rating on to B."""
    made = engine_in(tmp_path / "line")
    yield made
    made.close()


def moved(state, layout, **values):
    """The state with other voltages and currents, by name of the node or conductor."""
    vm_pu, i_a = state.vm_pu.copy(), state.conductor_i_a.copy()
    for name, value in values.items():
        (vm_pu if name in layout.nodes else i_a)[
            (layout.nodes if name in layout.nodes else layout.conductors).index(name)
        ] = value
    return replace(state, vm_pu=vm_pu, conductor_i_a=i_a)


def test_a_state_within_its_limits_has_no_violations(engine):
    state = engine.solve(np.array([1000.0, 500.0, 0.0]), np.zeros(3))
    assert Limits(engine.layout, Config(), HEAD).violations(state) == ()


def test_what_is_violated_where_and_by_how_much(engine):
    state = engine.solve(np.zeros(3), np.zeros(3))
    state = moved(state, engine.layout, **{"B.2": 0.87, "A.3": 1.13, "Line.L1@A.1": 125.0, "Line.L2@A.1": 1e5})
    found = Limits(engine.layout, Config(), HEAD).violations(state)
    assert [(v.element, v.phase, v.quantity) for v in found] == [
        ("A", 3, "vm_pu"),
        ("B", 2, "vm_pu"),
        ("Line.L1@A", 1, "i_a"),
    ]
    assert [v.value for v in found] == [1.13, 0.87, 125.0]
    assert [v.limit for v in found] == [1.1, 0.9, 100.0]
    assert [v.excess for v in found] == pytest.approx([0.03, 0.03, 25.0])
    assert [v.excess_percent for v in found] == pytest.approx([100 * 0.03 / 1.1, 100 * 0.03 / 0.9, 25.0])


def test_at_the_limit_is_within_it(engine):
    state = engine.solve(np.zeros(3), np.zeros(3))
    at = moved(state, engine.layout, **{"B.2": 0.9, "A.3": 1.1, "Line.L1@A.1": 100.0})
    assert Limits(engine.layout, Config(), HEAD).violations(at) == ()


def test_limits_of_the_scenario(engine):
    state = engine.solve(np.array([2000.0, 500.0, 0.0]), np.zeros(3))
    high_a = state.conductor_i_a.max()
    assert 50.0 < high_a < 100.0
    found = Limits(engine.layout, Config(loading_max_pu=0.5), HEAD).violations(state)
    assert {(v.element, v.limit) for v in found} == {("Line.L1@SRC", 50.0), ("Line.L1@A", 50.0)}
    assert len(found) == 6
    tight = Config(vm_min_pu=0.9999, branches=())
    assert {v.quantity for v in Limits(engine.layout, tight, HEAD).violations(state)} == {"vm_pu"}


def test_a_step_that_did_not_converge_has_none(engine):
    state = engine.diverged()
    assert math.isnan(state.vm_pu[0])
    assert Limits(engine.layout, Config(), HEAD).violations(state) == ()


def test_voltages_above_the_head_and_neutrals_are_left_out(tmp_path):
    script = LINE.replace("bus1=A phases=3 kV=20", "bus1=A.1.2.3.4 phases=3 kV=20").replace(
        "New Storage", "New Reactor.N phases=1 bus1=A.4 R=1 X=0\nNew Storage"
    )
    yaml = LINE_YAML.replace("{branch: Line.L1, end: SRC}", "{branch: Line.L2, end: A}")
    engine = engine_in(tmp_path / "line", script, yaml)
    state = engine.solve(np.zeros(3), np.zeros(3))
    assert state.vm_pu[engine.layout.nodes.index("A.4")] < 0.9
    low = moved(state, engine.layout, **{"SRC.1": 0.5, "B.1": 0.5})
    found = Limits(engine.layout, Config(), "Line.L2@A").violations(low)
    engine.close()
    assert [(v.element, v.phase) for v in found] == [("B", 1)]


def test_branches_that_cannot_be_held_are_named_with_those_that_can(engine):
    with pytest.raises(ScenarioError) as caught:
        Limits(engine.layout, Config(branches=("line.l1", "Line.L2", "Line.l7")), HEAD)
    assert [str(fault) for fault in caught.value.faults] == [
        "limits.branches: a branch without a rating; give it one in feeder.yaml; got Line.L2; allowed: Line.L1",
        "limits.branches: no such branch; got Line.l7; allowed: Line.L1",
    ]


def test_a_violation_is_a_row_of_the_table():
    row = Violation("LV1", 2, "vm_pu", 0.88, 0.9, 0.02).row(900.0)
    assert row.keys() == VIOLATIONS.columns.keys()
    assert row["t_s"] == 900.0
    assert [row[name] for name, unit in VIOLATIONS.columns.items() if unit is None] == ["LV1", "vm_pu"]
