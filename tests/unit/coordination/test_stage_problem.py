"""Which bids a stage has before it, and what they do to the import."""

from dataclasses import replace

import numpy as np
import pytest
from small_system import BIDS, DOWN, GLOBAL, LOCAL, UNITS, UP, bid, system

from cosim.coordination.case import Rules
from cosim.coordination.problem import effects_on_import, problem_of
from cosim.coordination.scheme import Stage
from cosim.coordination.situation import Situation, Taken
from cosim.coordination.stage import clear_stage
from cosim.domain.market import Bid, PriceStep


def situation(**of_earlier_stages):
    case = system(need_kw=8.0)
    return Situation(
        t_s=0,
        mtu_s=3600,
        rules=Rules(),
        transmission=case.transmission,
        areas=case.areas,
        interfaces=case.interfaces,
        bids=BIDS,
        resources=UNITS,
        need_kw=case.need_kw,
        **of_earlier_stages,
    )


TAKEN = {"F1": (Taken("MSL", UP, own=False),)}
MSD = Stage.model_validate({**GLOBAL, "exclude": "resource"})


def test_bids_of_which_nothing_is_left_are_out_of_the_case_but_not_of_the_book():
    problem = problem_of(MSD, situation(taken=TAKEN, used={"F1 up": 4.0}), None, "system")
    assert {each.bid.id: each.reason for each in problem.book if each.reason} == dict.fromkeys(
        ("F1 up", "F1 down"), "resource activated in MSL"
    )
    assert [each.id for each in problem.case.bids] == ["G up", "G down", "F2 up", "F2 down", "short", "long"]


def test_what_was_awarded_before_stays_in_the_case():
    locked = problem_of(MSD, situation(taken=TAKEN, locked={"F1 up": 4.0}), None, "system").case
    assert locked.locked == {"F1 up": (4.0,)}
    assert next(each for each in locked.bids if each.id == "F1 up").quantity_kw == (4.0,)
    assert "F1 down" not in {each.id for each in locked.bids}


def test_a_bid_of_which_nothing_is_left_is_capped_at_nothing():
    stage = Stage.model_validate({**LOCAL, "buyers": [], "objective": "caps", "exclude": "resource"})
    caps = clear_stage("caps", stage, situation(taken=TAKEN)).caps
    assert {name: caps[name] for name in ("F1 up", "F1 down")} == {"F1 up": 0.0, "F1 down": 0.0}
    assert caps["F2 up"] == pytest.approx(10.0)


def test_a_resource_in_a_network_that_is_not_known_is_at_its_areas_bus():
    case = problem_of(MSD, situation(), None, "system").case
    assert {name: unit.pod for name, unit in case.resources.items()} == {
        "G": "B", "F1": "C", "F2": "C", "counterpart": "counterpart",
    }  # fmt: skip


def test_effects_on_the_import_by_share_by_split_and_by_direction():
    rows = system().areas["area"].grid.rows
    rows = replace(rows, head_by_p=np.linspace(0.8, 1.2, len(rows.pods)))
    head = dict(zip(rows.pods, rows.head_by_p.tolist(), strict=True))

    def offer(name, **who):
        return Bid(name, "", "active", UP, 0, (1.0,), (PriceStep(1.0, 0.1),), **who)

    found = effects_on_import(
        [
            bid("F1", DOWN, 1.0, 0.1),
            offer("shares", shares=(("F1", 0.75), ("F2", 0.25))),
            offer("any", any_of=("F1", "F2")),
        ],
        UNITS,
        rows,
    )
    one, two = head["area/B1"], head["area/B2"]
    assert found == pytest.approx({"F1 down": one, "shares": -0.75 * one - 0.25 * two, "any": -0.5 * (one + two)})
