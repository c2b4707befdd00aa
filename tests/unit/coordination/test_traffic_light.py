"""Caps of bids and of perimeters: whatever is chosen within them is safe."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_system import AREA_LINES, UNITS, area, bid

from cosim.coordination.grid import dc_grid
from cosim.coordination.safe_box import bid_caps
from cosim.coordination.topology import NO_MATRIX, Placed, TopologicalMatrix, check_version, matrix_faults
from cosim.coordination.traffic_light import Colour, caps_by_perimeter, static_light, traffic_light
from cosim.domain.market import Direction
from cosim.errors import BidError
from cosim.market.case import ClearingCase
from cosim.market.uncertainty import Protection

sys.path.insert(0, str(Path(__file__).parents[2] / "property"))
from random_coordination import random_system

UP, DOWN = Direction.UP, Direction.DOWN
POLYGON = np.cos(np.pi / 64)
INSIDE = {name: unit for name, unit in UNITS.items() if "/" in unit.pod}


def clearing_case(load_kw, resources=INSIDE, bids=(), **more):
    rows = dc_grid("area/", AREA_LINES, "head", {"B1": load_kw[0], "B2": load_kw[1]}).rows
    return ClearingCase(tuple(bids), resources, (rows,), 0, 3600, **more)


def lights_of(load_kw, matrix=None):
    found = traffic_light(clearing_case(load_kw), matrix or area().matrix)
    return {(light.perimeter, light.direction): light for light in found}


def test_colours_of_both_directions():
    light = lights_of((10.0, 10.0))
    assert light["area", UP].colour is Colour.GREEN
    assert light["area", UP].cap_kw == 20.0
    assert light["area", DOWN].colour is Colour.RED
    assert light["area", DOWN].cap_kw == 0.0
    assert light["area", DOWN].limit.startswith("i_max of area/first")
    light = lights_of((4.0, 4.0))
    assert light["area", DOWN].colour is Colour.YELLOW
    assert light["area", DOWN].cap_kw == pytest.approx(7.0)
    assert light["area", DOWN].registered_kw == 20.0
    light = lights_of((-20.0, 0.0))
    assert light["area", UP].colour is Colour.RED
    assert light["area", DOWN].colour is Colour.GREEN


def test_all_is_green_where_no_limit_can_be_reached():
    light = lights_of((0.0, -7.0))
    assert {key: (each.colour, each.cap_kw, each.limit) for key, each in light.items()} == {
        ("area", UP): (Colour.YELLOW, pytest.approx(8.0), light["area", UP].limit),
        ("area", DOWN): (Colour.GREEN, 20.0, ""),
    }
    small = {name: replace(unit, up_kw=1.0, down_kw=1.0) for name, unit in INSIDE.items()}
    found = traffic_light(clearing_case((0.0, 0.0), small), area().matrix)
    assert [(light.colour, light.cap_kw) for light in found] == [(Colour.GREEN, 2.0)] * 2
    assert traffic_light(clearing_case((10.0, 10.0), {}), area().matrix) == ()


def test_finer_perimeters_never_lower_the_total():
    fine = TopologicalMatrix(1, tuple(replace(e, dso_perimeter=e.resource) for e in area().matrix.entries))
    for load_kw in ((4.0, 4.0), (0.0, 12.0), (10.0, 10.0), (2.0, -8.0)):
        coarse, split = lights_of(load_kw), lights_of(load_kw, fine)
        assert sum(light.cap_kw for light in split.values()) >= sum(light.cap_kw for light in coarse.values()) - 1e-9


def test_what_is_safe_in_all_snapshots_is_in_each():
    snapshots = [clearing_case(load_kw) for load_kw in ((4.0, 4.0), (1.0, 13.0), (-4.0, 0.0))]
    static = static_light(snapshots, area().matrix)
    for case in snapshots:
        dynamic = caps_by_perimeter(traffic_light(case, area().matrix))
        assert all(light.cap_kw <= dynamic[light.perimeter, light.direction] + 1e-9 for light in static.lights)
    assert caps_by_perimeter(static.at(1))["area", DOWN] == pytest.approx(1.0)
    with pytest.raises(BidError, match=r"of another topology: prequalify again; got 1; allowed: 2"):
        static.at(area().matrix.changed(area().matrix.entries, "N-1").version)


@pytest.mark.parametrize("sharing", ["max_volume", "pro_rata", "price"])
def test_caps_by_bid(sharing):
    bids = [bid("F1", DOWN, 10.0, 0.4), bid("F2", DOWN, 5.0, 0.1)]
    caps = bid_caps(clearing_case((4.0, 4.0), bids=bids), sharing)
    assert sum(caps.values()) == pytest.approx(7.0)
    if sharing == "pro_rata":
        assert caps == pytest.approx({"F1 down": 10.0 * 7.0 / 15.0, "F2 down": 5.0 * 7.0 / 15.0})
    if sharing == "price":
        assert caps == pytest.approx({"F1 down": 2.0, "F2 down": 5.0})


def test_what_is_locked_takes_its_room():
    bids = [bid("F1", DOWN, 10.0, 0.4), bid("F2", DOWN, 5.0, 0.1)]
    case = clearing_case((4.0, 4.0), bids=bids, locked={"F1 down": (3.0,)})
    assert sum(bid_caps(case, "max_volume").values()) == pytest.approx(4.0)
    assert caps_by_perimeter(traffic_light(case, area().matrix))["area", DOWN] == pytest.approx(4.0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ac", [True, False])
def test_whatever_is_chosen_within_caps_is_safe(seed, ac):
    """1000 random choices, some at the corners of the box, both directions together, with forecast errors."""
    system = random_system(seed, share=1.1, ac=ac, half_band=0.03 if ac else 0.0, drop_pu=0.06 if ac else None)
    (own,) = system.areas.values()
    grid = own.grid
    units = {name: unit for name, unit in system.resources.items() if unit.pod.startswith(own.id)}
    bids = [each for each in system.bids if each.resource in units]
    band = None if grid.uncertainty is None else (grid.uncertainty,)
    case = ClearingCase(tuple(bids), units, (grid.rows,), 0, 3600, uncertainty=band)
    lights = caps_by_perimeter(traffic_light(case, own.matrix))
    caps = bid_caps(case, "max_volume")
    rng = np.random.default_rng(seed)
    for k in range(1000):
        fraction = rng.random(len(bids)) if k % 2 else rng.integers(0, 2, len(bids)).astype(float)
        by_bid = {each.id: f * caps[each.id] for each, f in zip(bids, fraction, strict=True)}
        assert_safe(grid, bids, units, by_bid, rng)
        by_light, left = {}, dict(lights)
        for b in rng.permutation(len(bids)):
            place = units[bids[b].resource].perimeter, bids[b].direction
            by_light[bids[b].id] = min(fraction[b] * bids[b].quantity_kw[0], left[place])
            left[place] -= by_light[bids[b].id]
        assert_safe(grid, bids, units, by_light, rng)


def assert_safe(grid, bids, units, kw, rng):
    """Limits that the forecast keeps with all its errors are kept with some; others are exceeded no further (a current
    may turn within the planes of a limit, which is a circle's 0.12 %)."""
    rows, band = grid.rows, grid.uncertainty
    p_kw, q_kvar = np.zeros(len(rows.pods)), np.zeros(len(rows.pods))
    for each in bids:
        unit = units[each.resource]
        k = rows.pods.index(unit.pod)
        p_kw[k] += each.direction.delta_p_kw(kw[each.id])
        q_kvar[k] += unit.kvar_per_kw * each.direction.delta_p_kw(kw[each.id])
    upper, lower = rows.upper, rows.lower
    before, reach, errors = np.abs(rows.base), 0.0, 0.0
    if band is not None:
        reach = Protection(rows, band).reach(ceiling=False)
        xi = rng.choice([-1.0, 1.0], len(rows.pods))
        errors = rows.by_p @ (xi * band.half_p_kw) + rows.by_q @ (xi * band.half_q_kvar)
    after = rows.at(p_kw, q_kvar)
    kept = (before + reach <= POLYGON * upper) & ~(before - reach < lower)
    assert not (np.abs(after + errors)[kept] > upper[kept] * (1.0 + 1e-9)).any()
    assert not (np.abs(after + errors)[kept] < lower[kept] * (1.0 - 1e-9)).any()
    if band is None:
        assert not (np.abs(after) > np.maximum(upper, before / POLYGON) * (1.0 + 1e-9)).any()


def test_one_place_for_each():
    one = Placed("F1", "P1", "A", "north", "T", 1.0, 1.0)
    assert list(matrix_faults([one, replace(one, resource="F2", pod="P2")])) == []
    twice = list(matrix_faults([one, replace(one, dso_perimeter="south")]))
    assert [str(fault) for fault in twice] == [
        "resource F1: in more than one perimeter; got north, south; allowed: one"
    ]
    sellers = list(matrix_faults([one, replace(one, resource="F2", aggregator="B")]))
    assert "one aggregator sells all of a POD" in str(sellers[0])
    across = list(matrix_faults([one, replace(one, resource="F2", pod="P2", tso_perimeter="U")]))
    assert "a DSO perimeter lies in one TSO perimeter" in str(across[0])


def test_the_matrix_is_one_hot_and_versioned():
    matrix = TopologicalMatrix(
        4,
        (
            Placed("F1", "P1", "A", "north", "T", 1.0, 1.0),
            Placed("F2", "P2", "A", "south", "T", 1.0, 1.0),
            Placed("F3", "P3", "A", "north", "T", 1.0, 1.0),
        ),
    )
    np.testing.assert_array_equal(matrix.one_hot("dso"), [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(matrix.one_hot("tso"), [[1.0, 1.0, 1.0]])
    assert matrix.perimeters_of(["F3", "F1"]) == {"north": ("F1", "F3")}
    with pytest.raises(BidError, match="resource F9: not in the topological matrix"):
        matrix.perimeters_of(["F1", "F9"])
    changed = matrix.changed(matrix.entries[:2], "maintenance")
    assert (changed.version, changed.state, len(changed.entries)) == (5, "maintenance", 2)
    check_version(4, matrix.version, "north")
    with pytest.raises(BidError, match=r"limits of area north are of another version.*got 5; allowed: 4"):
        check_version(4, changed.version, "north")
    assert NO_MATRIX.entries == ()
