from dataclasses import replace

import numpy as np
import pytest
from small_market import DOWN, bid, case, kw, network

from cosim.errors import SolverError
from cosim.market.case import HOLD
from cosim.market.clearing import clear
from cosim.market.highs import Highs
from cosim.market.pricing import location_prices, uplifts
from cosim.market.program import Program, Status
from cosim.market.reference import Reference

HOUR = network([80.0, 40.0])  # 20 A too much
DAY = [HOUR, network([75.0, 40.0])]  # 20 and 15
SOLVERS = pytest.mark.parametrize(
    "solver", [Highs(), Reference("cbc"), Reference("highs")], ids=["fast", "cbc", "highs"]
)


@SOLVERS
def test_all_or_nothing(solver):
    bids = [bid("P0 all", 50.0, 1.0, min_accept=1.0), bid("P1 some", 50.0, 2.0)]
    assert kw(clear(case(bids, HOUR), solver)) == pytest.approx({"P0 all": 0.0, "P1 some": 20.0}, abs=1e-5)
    bids = [bid("P0 all", 50.0, 0.5, min_accept=1.0), bid("P1 some", 50.0, 2.0)]
    assert kw(clear(case(bids, HOUR), solver)) == pytest.approx({"P0 all": 50.0, "P1 some": 0.0}, abs=1e-5)


def test_least_share():
    bids = [bid("P0 half", 50.0, 1.0, min_accept=0.5), bid("P1 some", 50.0, 2.0)]
    assert kw(clear(case(bids, HOUR))) == pytest.approx({"P0 half": 25.0, "P1 some": 0.0})


def test_a_block_has_one_share_in_all_mtus():
    bids = [bid("P0 block", [40.0, 20.0], 1.0, block=True)]
    cleared = clear(case(bids, DAY)).require_solved()
    assert kw(cleared) == {"P0 block": pytest.approx([30.0, 15.0])}
    assert not cleared.program.columns.integer.any()


@SOLVERS
def test_block_with_least_share_in_hours_that_need_it_not(solver):
    day = [HOUR, network([10.0, 10.0])]
    bids = [bid("P0 block", [40.0, 40.0], 0.4, block=True, min_accept=0.6), bid("P1 some", [50.0, 50.0], 1.0)]
    found = kw(clear(case(bids, day), solver))
    assert found["P0 block"] == pytest.approx([24.0, 24.0], abs=1e-5)
    bids = [bid("P0 block", [40.0, 40.0], 0.6, block=True, min_accept=0.6), bid("P1 some", [50.0, 50.0], 1.0)]
    assert kw(clear(case(bids, day), solver))["P1 some"] == pytest.approx([20.0, 0.0], abs=1e-5)


@SOLVERS
def test_only_one_of_an_exclusive_group(solver):
    bids = [
        bid("P0 x", 15.0, 1.0, exclusive_group="g"),
        bid("P1 x", 30.0, 1.5, exclusive_group="g"),
        bid("P1 rest", 50.0, 9.0),
    ]
    found = kw(clear(case(bids, HOUR), solver))
    assert found == pytest.approx({"P0 x": 0.0, "P1 x": 20.0, "P1 rest": 0.0}, abs=1e-5)


def test_a_child_only_with_its_parent():
    bids = [
        bid("P0 parent", [40.0], 3.0, block=True),
        bid("P1 child", [40.0], 0.1, block=True, parent="P0 parent"),
    ]
    assert kw(clear(case(bids, HOUR))) == pytest.approx({"P0 parent": 10.0, "P1 child": 10.0})


def test_up_and_down_of_one_resource_are_not_both_taken_with_a_block():
    """Half of the block would be too much in the second hour; buying it back from the same resource is no way out."""
    day = [HOUR, network([60.0, 40.0])]
    bids = [
        bid("P0 block", [20.0, 20.0], 0.1, block=True, min_accept=1.0),
        bid("P0 down", [20.0, 20.0], 0.1, DOWN),
        bid("P1 down", [20.0, 20.0], 0.2, DOWN),
        bid("P1 some", [50.0, 50.0], 9.0),
    ]
    found = kw(clear(case(bids, day, settings={"interface_kw": HOLD})))
    assert found["P0 block"] == [0.0, 0.0] or found["P0 down"] == [0.0, 0.0]


def test_uplift_makes_a_whole_bid_whole():
    """A block that is taken though the price of the last hour's marginal bid does not pay for it."""
    bids = [bid("P0 all", 50.0, 0.5, min_accept=1.0), bid("P1 some", 50.0, 2.0)]
    cleared = clear(case(bids, HOUR))
    prices = location_prices(cleared)
    assert uplifts(cleared, prices) == {"P0 all": pytest.approx(25.0)}


def test_bids_that_can_be_divided_need_no_uplift():
    cleared = clear(case([bid("P0 a", 15.0, 1.0), bid("P1 b", 50.0, 2.0)], HOUR))
    assert uplifts(cleared, location_prices(cleared)) == {}


class Stopped:
    """A solver whose time ends at the second best plan of a program with integers."""

    digits = 9

    def __init__(self):
        self.stops = 0

    def solve(self, program, with_duals=True):
        best = Highs().solve(program, with_duals)
        if not len(program.integers):
            return best
        self.stops += 1
        other = replace(program.columns, lower=np.where(program.columns.integer, 1.0 - best.x.round(), -np.inf))
        other = replace(other, lower=np.maximum(other.lower, program.columns.lower), upper=program.columns.upper)
        second = Highs().solve(Program(other, program.rows))
        cost, least = (float(program.columns.cost @ each.x) for each in (second, best))
        return replace(second, status=Status.FEASIBLE, gap=(cost - least) / cost)


def test_when_time_ends_the_decisions_so_far_stay_and_the_gap_is_told():
    """Without network rows no bid is best; the second best takes the dear one, and limits found later adjust it."""
    bids = [bid("P0 all", 50.0, 5.0, min_accept=0.2), bid("P1 some", 50.0, 2.0)]
    solver = Stopped()
    stopped, best = clear(case(bids, HOUR), solver), clear(case(bids, HOUR))
    assert solver.stops == 1
    assert kw(stopped) == pytest.approx({"P0 all": 10.0, "P1 some": 10.0})
    assert stopped.stopped
    assert stopped.gap >= (stopped.objective_eur - best.objective_eur) / stopped.objective_eur > 0.0
    assert stopped.unsolved == ()
    assert (best.stopped, best.gap) == (False, 0.0)


def test_decisions_that_cannot_keep_hard_limits_when_time_ends_are_an_error():
    bids = [bid("P0 all", 50.0, -1.0, DOWN, min_accept=1.0), bid("P1 some", 20.0, 2.0, min_accept=0.1)]
    hard = {"slack_eur_per_kwh": None}
    clear(case(bids, HOUR, settings=hard))
    with pytest.raises(SolverError, match="time ended with decisions"):
        clear(case(bids, HOUR, settings=hard), Stopped())
