"""Of equal plans the preferred one: without a second solve where there is one plan only, and then it is that plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cosim.domain.frames import Floats
from cosim.market.clearing import preferred
from cosim.market.highs import Highs
from cosim.market.program import Columns, Program, Rows, RowTag, Solution, Status

HIGH = 4.0
SMALL = st.integers(-2, 2)


class Counting:
    """A solver that counts its solves."""

    def __init__(self) -> None:
        self.solver, self.solves = Highs(), 0
        self.digits = self.solver.digits

    def solve(self, program: Program, with_duals: bool = True) -> Solution:
        self.solves += 1
        return self.solver.solve(program, with_duals)


def program_of(cost: list[int], rows: list[tuple[list[int], int]]) -> Program:
    """Columns from 0 to `HIGH` (n,), and rows ``coefficients @ x >= bound``."""
    n = len(cost)
    columns = Columns(np.array(cost, float), np.zeros(n), np.full(n, HIGH), np.zeros(n, dtype=bool))
    value = np.array([each for coefficients, _ in rows for each in coefficients], float)
    lower = np.array([bound for _, bound in rows], float)
    start, column = np.arange(len(rows) + 1) * n, np.tile(np.arange(n), len(rows))
    tags = tuple(RowTag("need", 0, str(k)) for k in range(len(rows)))
    return Program(columns, Rows(start, column, value, lower, np.full(len(rows), np.inf), tags))


def weights(n: int) -> Floats:
    """As little as can be, of equals the first."""
    return np.asarray(1.0 + 0.1 * np.arange(n), dtype=np.float64)


def least_of_equals(program: Program, best: float, preference: Floats) -> Floats:
    """The second objective with the cost as a row of its own, and so without any dual."""
    n, cost = program.n_column, program.columns.cost
    row = Rows(
        np.array([0, n]), np.arange(n), cost.copy(), np.array([-np.inf]), np.array([best]), (RowTag("cost", 0, ""),)
    )
    columns = program.columns
    second = Program(Columns(preference, columns.lower, columns.upper, columns.integer), program.rows).with_rows(row)
    found = Highs().solve(second)
    assert found.status is Status.OPTIMAL
    return found.x


@st.composite
def programs(draw: st.DrawFn) -> Program:
    n = draw(st.integers(1, 4))
    some = st.lists(SMALL, min_size=n, max_size=n)
    return program_of(draw(some), draw(st.lists(st.tuples(some, st.integers(-3, 6)), max_size=3)))


@given(programs())
@example(program_of([1, 2], [([1, 1], 3)]))  # one plan
@example(program_of([1, 1], [([1, 1], 3)]))  # equal prices: a whole edge
@example(program_of([1, 2], [([1, 1], 4), ([1, 0], 4), ([2, 1], 8)]))  # more rows meet in the vertex than it takes
@example(program_of([0, 1], [([0, 1], 1)]))  # a column without a price
@example(program_of([1, 1, 1], [([1, 1, 0], 4), ([0, 1, 1], 4)]))  # degenerate, and unique
def test_no_optimal_plan_is_preferred_to_the_one_found(program: Program) -> None:
    solution, solver = Highs().solve(program), Counting()
    assume(solution.status is Status.OPTIMAL)
    preference = weights(program.n_column)
    x = preferred(program, solution, solver, preference)
    best = float(program.columns.cost @ solution.x)
    wanted = least_of_equals(program, best + 1e-9, preference)
    assert program.columns.cost @ x == pytest.approx(best, abs=1e-6)
    assert preference @ x == pytest.approx(float(preference @ wanted), abs=1e-6)
    if solver.solves == 0:
        opposite = least_of_equals(program, best + 1e-9, -preference)
        np.testing.assert_allclose(wanted, x, atol=1e-6)
        np.testing.assert_allclose(opposite, x, atol=1e-6)


@pytest.mark.parametrize(
    ("cost", "rows", "plan", "solves"),
    [
        ([1, 2], [([1, 1], 3)], [3.0, 0.0], 0),
        ([1, 2], [([1, 1], 6)], [4.0, 2.0], 0),
        ([1, 1], [([1, 1], 3)], [3.0, 0.0], 1),
        ([0, 1], [([0, 1], 1)], [0.0, 1.0], 1),
    ],
    ids=["unique", "unique-between-bounds", "equal-prices", "no-price"],
)
def test_a_second_solve_only_where_plans_are_equal(
    cost: list[int], rows: list[tuple[list[int], int]], plan: list[float], solves: int
) -> None:
    program, solver = program_of(cost, rows), Counting()
    x = preferred(program, Highs().solve(program), solver, weights(2))
    np.testing.assert_allclose(x, plan, atol=1e-9)
    assert solver.solves == solves
