import os
import shutil
import stat
from dataclasses import replace

import numpy as np
import pytest

from cosim.errors import SolverError
from cosim.market import reference
from cosim.market.highs import Highs
from cosim.market.program import Columns, Program, Rows, RowTag, Status, joined_rows, no_rows
from cosim.market.reference import CBC_VARIABLE, Reference, complementary_duals, find_cbc

ALL = [Highs, lambda: Reference("cbc"), lambda: Reference("highs")]
SOLVERS = pytest.mark.parametrize("make", ALL, ids=["fast", "cbc", "highs"])


def program(cost, lower, upper, a, row_lower, row_upper, integer=False):
    a = np.atleast_2d(np.asarray(a, dtype=float))
    m, n = a.shape
    tags = tuple(RowTag("row", 0, str(k)) for k in range(m))
    bounds = (np.broadcast_to(np.asarray(each, dtype=float), n).copy() for each in (cost, lower, upper))
    columns = Columns(*bounds, np.full(n, integer))
    low, high = (np.broadcast_to(np.asarray(each, dtype=float), m).copy() for each in (row_lower, row_upper))
    rows = Rows(np.arange(m + 1) * n, np.tile(np.arange(n), m), a.ravel().copy(), low, high, tags)
    return Program(columns, rows)


@SOLVERS
def test_optimum_and_duals_of_a_linear_program(make):
    """min x + 2 y with x + y >= 3, x <= 2."""
    found = make().solve(program([1.0, 2.0], 0.0, [2.0, 9.0], [1.0, 1.0], 3.0, np.inf))
    assert found.status is Status.OPTIMAL
    assert found.x == pytest.approx([2.0, 1.0])
    assert found.row_dual == pytest.approx([2.0])
    assert found.reduced_cost == pytest.approx([-1.0, 0.0])


@SOLVERS
def test_sign_of_the_dual_of_an_upper_bound(make):
    """min -x with x <= 3 as a row: one more of it lowers the cost by 1."""
    assert make().solve(program([-1.0], 0.0, 9.0, [1.0], -np.inf, 3.0)).row_dual == pytest.approx([-1.0])


@SOLVERS
def test_equality_and_ranges(make):
    found = make().solve(program([1.0, 1.0], -9.0, 9.0, [[1.0, 0.0], [0.0, 1.0]], [2.0, -3.0], [2.0, 5.0]))
    assert found.x == pytest.approx([2.0, -3.0])


@SOLVERS
def test_integers(make):
    found = make().solve(program([1.0, 1.0], 0.0, 9.0, [2.0, 3.0], 7.5, np.inf, integer=True))
    assert found.status is Status.OPTIMAL
    assert found.x.sum() == pytest.approx(3.0)
    assert found.x == pytest.approx(found.x.round())


@SOLVERS
def test_infeasible_and_unbounded(make):
    assert make().solve(program([1.0], 0.0, 1.0, [1.0], 2.0, np.inf)).status is Status.INFEASIBLE
    assert make().solve(program([-1.0], 0.0, np.inf, [1.0], 2.0, np.inf)).status is Status.UNBOUNDED


def test_without_rows_each_variable_is_where_its_cost_pulls_it():
    """As the solver has it, which is asked with a row that holds nothing."""
    cost, lower = np.array([2.0, -1.0, 0.0, 0.0, 3.0]), np.array([-4.0, 0.0, 0.0, -2.0, 1.5])
    tied = program(cost, lower, [1.0, 7.0, 5.0, 9.0, np.inf], np.ones(5), -np.inf, 1e6)
    free = Highs().solve(Program(tied.columns, no_rows()))
    assert free.x.tolist() == [-4.0, 7.0, 0.0, -2.0, 1.5]
    asked = Highs().solve(tied)
    assert (free.status, free.x.tolist()) == (asked.status, asked.x.tolist())
    assert free.reduced_cost.tolist() == asked.reduced_cost.tolist()
    assert len(free.row_dual) == 0


@pytest.mark.parametrize(("cost", "upper"), [(-1.0, np.inf), (1.0, -1.0)], ids=["unbounded", "infeasible"])
def test_without_rows_the_solver_tells_what_is_wrong(cost, upper):
    found = Highs().solve(Program(program([cost], 0.0, upper, [1.0], 0.0, 1.0).columns, no_rows()))
    assert found.status is (Status.UNBOUNDED if upper > 0.0 else Status.INFEASIBLE)


def test_a_plan_that_is_not_the_best_has_no_duals():
    made = program([1.0, 2.0], 0.0, [2.0, 9.0], [1.0, 1.0], 3.0, np.inf)
    assert complementary_duals(made, np.array([2.0, 1.0])) == pytest.approx([2.0])
    with pytest.raises(SolverError, match="not the best"):
        complementary_duals(made, np.array([1.0, 2.0]))


def test_a_program_that_grows_is_solved_as_if_it_were_new():
    rng = np.random.default_rng(3)
    first = program(rng.uniform(1.0, 2.0, 8), 0.0, 1.0, rng.uniform(0.0, 1.0, (3, 8)), 2.0, np.inf)
    solver = Highs()
    solver.solve(first)
    slack = Columns(np.full(2, 5.0), np.zeros(2), np.full(2, np.inf), np.zeros(2, dtype=bool))
    wide = program(np.zeros(10), 0.0, 1.0, rng.uniform(0.0, 1.0, (2, 10)), 4.0, np.inf).rows
    grown = first.with_columns(slack).with_rows(wide)
    assert grown.origin is first.origin
    found = solver.solve(grown)
    fresh = Highs().solve(Program(grown.columns, grown.rows))
    assert grown.columns.cost @ found.x == pytest.approx(grown.columns.cost @ fresh.x, rel=1e-12)
    assert Reference("cbc").solve(grown).x @ grown.columns.cost == pytest.approx(grown.columns.cost @ fresh.x, rel=1e-7)


def test_rows_cannot_be_changed_by_who_reads_them():
    made = program([1.0, 2.0], 0.0, 1.0, [[1.0, 2.0]], 0.0, 1.0)
    with pytest.raises(ValueError, match="read-only"):
        made.rows.value[0] = 7.0
    matrix = made.rows.matrix(2)
    matrix.data[0] = 9.0
    assert made.rows.value[0] == 1.0


def test_rows_are_joined_in_order():
    one = program([1.0, 2.0], 0.0, 1.0, [[1.0, 2.0]], 0.0, 1.0).rows
    both = joined_rows([no_rows(), one, no_rows(), one])
    assert both.start.tolist() == [0, 2, 4]
    assert both.matrix(2).toarray().tolist() == [[1.0, 2.0], [1.0, 2.0]]


def test_names_of_rows():
    assert str(RowTag("i_max", 3, "L@A.1", 5)) == "i_max of L@A.1 in MTU 3, plane 5"
    assert str(RowTag("interface", 0, "head")) == "interface of head in MTU 0"


class TestFindingCbc:
    def test_named_by_the_environment(self, tmp_path, monkeypatch):
        fake = tmp_path / "mycbc"
        fake.write_text("#!/bin/sh\n")
        monkeypatch.setenv(CBC_VARIABLE, str(fake))
        with pytest.raises(SolverError, match="mycbc, which is no program"):
            find_cbc()
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
        assert find_cbc() == str(fake)

    def test_in_the_package_if_not_on_the_path(self, monkeypatch):
        monkeypatch.delenv(CBC_VARIABLE, raising=False)
        monkeypatch.setattr(shutil, "which", lambda name: None)
        assert os.access(find_cbc(), os.X_OK)

    def test_nowhere_says_where_it_looked_and_how_to_get_one(self, monkeypatch):
        monkeypatch.delenv(CBC_VARIABLE, raising=False)
        monkeypatch.setattr(shutil, "which", lambda name: None)
        monkeypatch.setattr(reference.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(SolverError, match=r"looked in .*COSIM_CBC.*pip install cbcbox"):
            Reference("cbc")


def market_split(n, m, priced):
    """Sums of yes-or-no columns that must be hit, which takes very long; missing them costs if ``priced``."""
    rng = np.random.default_rng(1)
    a = rng.integers(1, 100, (m, n)).astype(float)
    target, cost = np.floor(a.sum(axis=1) / 2.0), rng.uniform(1.0, 2.0, n)
    if not priced:
        return program(cost, 0.0, 1.0, a, target, target, integer=True)
    wide, more = np.hstack([a, np.eye(m), -np.eye(m)]), np.ones(2 * m)
    made = program([*cost, *(10.0 * more)], 0.0, [*np.ones(n), *(1e4 * more)], wide, target, target)
    return Program(replace(made.columns, integer=np.arange(n + 2 * m) < n), made.rows)


LIMITED = pytest.mark.parametrize(
    "make",
    [Highs, lambda **way: Reference("cbc", **way), lambda **way: Reference("highs", **way)],
    ids=["fast", "cbc", "highs"],
)


@LIMITED
def test_time_limit_gives_the_best_plan_so_far_and_its_gap(make):
    hard = market_split(60, 10, priced=True)
    found = make(time_limit_s=1.0).solve(hard)
    assert found.status is Status.FEASIBLE
    assert found.solved
    assert found.x[:60] == pytest.approx(found.x[:60].round(), abs=1e-6)
    assert hard.rows.matrix(80) @ found.x == pytest.approx(hard.rows.lower)
    relaxed = Program(replace(hard.columns, integer=np.zeros(80, dtype=bool)), hard.rows)
    cost, bound = (float(hard.columns.cost @ x) for x in (found.x, Highs().solve(relaxed).x))
    assert 0.0 < found.gap <= (cost - bound) / cost + 1e-6


@LIMITED
@pytest.mark.parametrize("time_limit_s", [0.0, 0.3])
def test_no_plan_within_the_time_limit_is_an_error(make, time_limit_s):
    with pytest.raises(SolverError, match=rf"gave no plan: .* \(it may take {time_limit_s:g} s for a solve\)"):
        make(time_limit_s=time_limit_s).solve(market_split(200, 30, priced=False))


@LIMITED
def test_a_plan_that_is_good_enough_says_how_good(make):
    hard = market_split(25, 1, priced=True)
    best = hard.columns.cost @ Highs().solve(hard).x
    found = make(mip_gap=0.2).solve(hard)
    assert found.status is Status.OPTIMAL
    assert hard.columns.cost @ found.x <= best / (1.0 - max(found.gap, 1e-9)) <= best / 0.8
    assert make().solve(hard).gap == 0.0


def test_a_linear_program_has_no_second_best():
    with pytest.raises(SolverError, match="Time limit"):
        Highs(time_limit_s=0.0).solve(program(np.ones(400), 0.0, 1.0, np.ones((400, 400)), 7.0, np.inf))
