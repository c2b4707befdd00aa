"""The fast way: HiGHS through its own arrays.

A program is handed over once; rows and columns that a clearing adds to it later are added to what the solver holds, and
it goes on from where it was. Every new program begins from nothing (no basis is carried over), so a result depends on
the program alone, not on what was solved before.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cosim.errors import SolverError
from cosim.market.program import Flags, Program, Solution, Status, no_plan, no_solution, without_columns, without_rows

try:
    import highspy
except ModuleNotFoundError as missing:
    raise SolverError("HiGHS is not installed: get it with 'pip install highspy'") from missing

_STATUS = {
    highspy.HighsModelStatus.kOptimal: Status.OPTIMAL,
    highspy.HighsModelStatus.kInfeasible: Status.INFEASIBLE,
    highspy.HighsModelStatus.kUnbounded: Status.UNBOUNDED,
}
_CONTINUOUS, _INTEGER = 0, 1
_ROW_WISE = int(highspy.MatrixFormat.kRowwise)
_MINIMISE = int(highspy.ObjSense.kMinimize)


class Highs:
    """A solver that keeps the last program.

    ``time_limit_s``, of the wall clock, is for one solve: a program with integers then has the best plan so far, unlike
    all else here another one each time. ``mip_gap`` [1]: how far from the best is good enough, with integers.
    """

    digits = 9

    def __init__(self, time_limit_s: float = 60.0, mip_gap: float = 0.0) -> None:
        self._time_limit_s, self._mip_gap = time_limit_s, mip_gap
        self._last: Program | None = None
        self._presolves = False

    @cached_property
    def _highs(self) -> Any:
        """Made when there is something to solve."""
        made: Any = highspy.Highs()  # type: ignore[no-untyped-call]
        options: dict[str, bool | int | float | str] = {
            "output_flag": False,
            "threads": 1,
            "random_seed": 0,
            "presolve": "off",
            "solver": "simplex",
            "primal_feasibility_tolerance": 1e-9,
            "dual_feasibility_tolerance": 1e-9,
            "mip_feasibility_tolerance": 1e-9,
            "mip_rel_gap": self._mip_gap,
            "mip_abs_gap": 1e-9,
        }
        for key, value in options.items():
            made.setOptionValue(key, value)
        return made

    def solve(self, program: Program, with_duals: bool = True) -> Solution:
        """See `Solver`."""
        if not program.n_column:
            return without_columns(program)
        if not program.n_row and (found := without_rows(program)) is not None:
            return found
        if self._last is None or self._last.origin is not program.origin:
            self._load(program)
        else:
            self._grow(self._last, program)
        self._last = program
        integers = bool(program.columns.integer.any())
        if integers != self._presolves:
            self._highs.setOptionValue("presolve", "on" if integers else "off")
            self._presolves = integers
        self._highs.setOptionValue("time_limit", self._highs.getRunTime() + self._time_limit_s)  # its clock never stops
        self._highs.run()
        return self._answer(program, integers)

    def _load(self, program: Program) -> None:
        columns, rows = program.columns, program.rows
        self._highs.clearModel()
        self._highs.passModel(
            program.n_column,
            program.n_row,
            len(rows.value),
            _ROW_WISE,
            _MINIMISE,
            0.0,
            columns.cost,
            columns.lower,
            columns.upper,
            rows.lower,
            rows.upper,
            rows.start[:-1].astype(np.int32),
            rows.column.astype(np.int32),
            rows.value,
            np.where(columns.integer, _INTEGER, _CONTINUOUS).astype(np.int32),
        )

    def _grow(self, last: Program, program: Program) -> None:
        old, new = last.columns, program.columns
        n, more = last.n_column, program.n_column - last.n_column
        if new is not old:
            kept = np.arange(n, dtype=np.int32)
            self._highs.changeColsCost(n, kept, new.cost[:n])
            self._highs.changeColsBounds(n, kept, new.lower[:n], new.upper[:n])
            self._integrality(kept, new.integer[:n], old.integer)
        if more:
            nothing = np.zeros(0)
            none = np.zeros(0, dtype=np.int32)
            self._highs.addCols(more, new.cost[n:], new.lower[n:], new.upper[n:], 0, none, none, nothing)
            added = np.arange(n, n + more, dtype=np.int32)
            self._integrality(added, new.integer[n:], np.zeros(more, dtype=bool))
        self._grow_rows(last, program)

    def _integrality(self, at: npt.NDArray[np.int32], new: Flags, old: Flags) -> None:
        changed = new != old
        if changed.any():
            kinds = np.where(new[changed], _INTEGER, _CONTINUOUS).astype(np.uint8)
            self._highs.changeColsIntegrality(int(changed.sum()), at[changed], kinds)

    def _grow_rows(self, last: Program, program: Program) -> None:
        rows, m = program.rows, last.n_row
        if rows is last.rows:
            return
        kept = np.arange(m, dtype=np.int32)
        self._highs.changeRowsBounds(m, kept, rows.lower[:m], rows.upper[:m])
        if program.n_row > m:
            first = rows.start[m]
            self._highs.addRows(
                program.n_row - m,
                rows.lower[m:],
                rows.upper[m:],
                len(rows.value) - int(first),
                (rows.start[m:-1] - first).astype(np.int32),
                rows.column[first:].astype(np.int32),
                rows.value[first:],
            )

    def _answer(self, program: Program, integers: bool) -> Solution:
        found = self._highs.getModelStatus()
        status = _STATUS.get(found)
        if found == highspy.HighsModelStatus.kUnboundedOrInfeasible:
            status = Status.INFEASIBLE
        gap = float(self._highs.getInfo().mip_gap) if integers else 0.0
        if found == highspy.HighsModelStatus.kTimeLimit and integers and np.isfinite(gap):
            status = Status.FEASIBLE
        if status is None:
            raise SolverError(no_plan("HiGHS", self._highs.modelStatusToString(found), self._time_limit_s))
        if status in (Status.INFEASIBLE, Status.UNBOUNDED):
            return no_solution(status)
        solution = self._highs.getSolution()
        x = np.array(solution.col_value)
        if integers:
            nothing = np.zeros(0)
            return Solution(status, x, nothing, nothing, gap)
        return Solution(status, x, np.array(solution.row_dual), np.array(solution.col_dual))
