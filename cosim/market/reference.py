"""The reference way: the program written in Pyomo anew for every solve, and CBC or HiGHS to solve it."""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.optimize
import scipy.sparse

from cosim.domain.frames import Floats
from cosim.errors import SolverError
from cosim.market.program import Flags, Program, Solution, Status, no_plan, no_solution, without_columns

try:
    import pyomo.environ as pyo
    from pyomo.common.errors import ApplicationError
    from pyomo.core.expr import LinearExpression
    from pyomo.opt import SolverStatus, TerminationCondition
except ModuleNotFoundError as missing:
    raise SolverError("Pyomo is not installed: get it with 'pip install pyomo'") from missing

CBC_VARIABLE = "COSIM_CBC"
_UNBOUNDED = 1e15  # CBC may call a program optimal whose solution has no bound
_ACTIVE = 1e-7
_LOWER_BOUND = re.compile(r"^Lower bound:\s+(\S+)", re.MULTILINE)
_STATUS = {
    TerminationCondition.optimal: Status.OPTIMAL,
    TerminationCondition.infeasible: Status.INFEASIBLE,
    TerminationCondition.unbounded: Status.UNBOUNDED,
    TerminationCondition.infeasibleOrUnbounded: Status.INFEASIBLE,
    TerminationCondition.unknown: Status.INFEASIBLE,  # what CBC says if tightening bounds already shows it
}


def find_cbc() -> str:
    """Path of CBC's binary: from the environment variable COSIM_CBC, the command path, or the package cbcbox.

    Raises SolverError saying where it looked and how to get one.
    """
    given = os.environ.get(CBC_VARIABLE)
    if given:
        if Path(given).is_file() and os.access(given, os.X_OK):
            return given
        raise SolverError(f"{CBC_VARIABLE} names {given}, which is no program")
    if on_path := shutil.which("cbc"):
        return on_path
    if importlib.util.find_spec("cbcbox") is not None:
        return str(importlib.import_module("cbcbox").cbc_bin_path())
    looked = f"the environment variable {CBC_VARIABLE}, the command path and the Python package cbcbox"
    raise SolverError(
        f"CBC is not installed: looked in {looked}. Get it with 'pip install cbcbox' or your system's package of "
        f"coin-or CBC, or clear with HiGHS"
    )


class Reference:
    """Pyomo with ``solver``; ``time_limit_s`` and ``mip_gap`` as of `Highs`."""

    def __init__(
        self, solver: Literal["cbc", "highs"] = "cbc", time_limit_s: float = 60.0, mip_gap: float = 0.0
    ) -> None:
        self._solver, self._time_limit_s, self._mip_gap = solver, time_limit_s, mip_gap
        self._binary = find_cbc() if solver == "cbc" else ""
        self.digits = 6 if solver == "cbc" else 9  # CBC writes 8 digits

    def solve(self, program: Program, with_duals: bool = True) -> Solution:
        """See `program.Solver`."""
        if not program.n_column:
            return without_columns(program)
        with_duals = with_duals and not len(program.integers)
        model = _model(program, with_duals and self._solver == "highs")
        result = self._run_highs(model) if self._solver == "highs" else self._run_cbc(model)
        return self._answer(program, model, result, with_duals)

    def _run_highs(self, model: Any) -> Any:
        engine = pyo.SolverFactory("appsi_highs")
        if not engine.available(exception_flag=False):
            raise SolverError("HiGHS is not installed: get it with 'pip install highspy'")
        engine.highs_options = {
            "primal_feasibility_tolerance": 1e-9,
            "dual_feasibility_tolerance": 1e-9,
            "mip_rel_gap": self._mip_gap,
            "time_limit": self._time_limit_s,
            "threads": 1,
        }
        return engine.solve(model, load_solutions=False)

    def _run_cbc(self, model: Any) -> Any:
        """Pyomo's result, with the bound that CBC prints and Pyomo forgets."""
        engine = pyo.SolverFactory("cbc", executable=self._binary)
        options = {"ratio": self._mip_gap, "sec": self._time_limit_s}
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "cbc.log"
            try:
                result = engine.solve(model, load_solutions=False, options=options, logfile=str(log))
            except ApplicationError as failed:
                raise SolverError(f"CBC at {self._binary} does not run: {failed}") from failed
            printed = _LOWER_BOUND.search(log.read_text(encoding="utf-8", errors="replace"))
        if printed is not None:
            result.problem.lower_bound = float(printed.group(1))
        return result

    def _answer(self, program: Program, model: Any, result: Any, with_duals: bool) -> Solution:
        ended = result.solver.termination_condition
        status = _STATUS.get(ended)
        integers = len(program.integers) > 0
        if ended == TerminationCondition.maxTimeLimit and integers and np.isfinite(_number(result.problem.upper_bound)):
            status = Status.FEASIBLE
            result.solver.status = SolverStatus.ok  # or Pyomo logs a warning
        if status in (Status.INFEASIBLE, Status.UNBOUNDED):
            return no_solution(status)
        if status is None or result.solver.status == SolverStatus.error:
            raise SolverError(no_plan(f"{self._solver} through Pyomo", str(ended), self._time_limit_s))
        model.solutions.load_from(result)
        x = np.array([pyo.value(model.x[k], exception=False) or 0.0 for k in range(program.n_column)])
        if np.abs(x).max(initial=0.0) > _UNBOUNDED:
            return no_solution(Status.UNBOUNDED)
        nothing = np.zeros(0)
        if not with_duals:
            proven = not integers or (status is Status.OPTIMAL and self._mip_gap == 0.0)
            return Solution(status, x, nothing, nothing, 0.0 if proven else _gap(result))
        if self._solver == "cbc":
            dual = complementary_duals(program, x)
        else:
            dual = np.array([model.dual.get(model.row[k], 0.0) for k in range(program.n_row)])
        return Solution(status, x, dual, program.columns.cost - program.rows.matrix(program.n_column).T @ dual)


def complementary_duals(program: Program, x: Floats) -> Floats:
    """Duals (n_row,) of a linear program that prove its solution ``x`` the best (complementary slackness).

    CBC tightens bounds before it solves, and the duals that it writes are those of the tightened program. Raises
    SolverError if there are none: then ``x`` is not the best.
    """
    columns, rows = program.columns, program.rows
    matrix = rows.matrix(program.n_column)
    low, high = _at_bounds(matrix @ x, rows.lower, rows.upper)
    active = np.flatnonzero(low | high)
    if not len(active):
        return np.zeros(program.n_row)
    at_low, at_high = _at_bounds(x, columns.lower, columns.upper)
    signs = [(None if high[k] else 0.0, None if low[k] else 0.0) for k in active]
    effect = matrix[active].T
    free, down, up = ~(at_low | at_high), at_low & ~at_high, at_high & ~at_low
    found = scipy.optimize.linprog(
        np.zeros(len(active)),
        A_eq=effect[free],
        b_eq=columns.cost[free],
        A_ub=scipy.sparse.vstack([effect[down], -effect[up]]),
        b_ub=np.concatenate([columns.cost[down], -columns.cost[up]]) + _ACTIVE,
        bounds=signs,
    )
    if not found.success:
        raise SolverError(f"CBC's plan is not the best: no duals belong to it ({found.message})")
    dual = np.zeros(program.n_row)
    dual[active] = found.x
    return dual


def _at_bounds(value: Floats, lower: Floats, upper: Floats) -> tuple[Flags, Flags]:
    near = _ACTIVE * (1.0 + np.abs(value))
    return np.asarray(value <= lower + near), np.asarray(value >= upper - near)


def _gap(result: Any) -> float:
    low, high = _number(result.problem.lower_bound), _number(result.problem.upper_bound)
    return abs(high - low) / max(abs(high), 1e-9)


def _number(read: Any) -> float:
    """What Pyomo read, infinite if nothing."""
    return math.inf if read is None else float(read)


def _model(program: Program, with_duals: bool) -> Any:
    """The program as a Pyomo model."""
    columns, rows = program.columns, program.rows
    model = pyo.ConcreteModel()

    def bounds(_: Any, k: int) -> tuple[float | None, float | None]:
        return _finite(columns.lower[k]), _finite(columns.upper[k])

    def domain(_: Any, k: int) -> Any:
        return pyo.Integers if columns.integer[k] else pyo.Reals

    def row(_: Any, k: int) -> Any:
        part = slice(rows.start[k], rows.start[k + 1])
        body = LinearExpression(
            linear_coefs=rows.value[part].tolist(), linear_vars=[model.x[j] for j in rows.column[part].tolist()]
        )
        low, high = _finite(rows.lower[k]), _finite(rows.upper[k])
        return body == low if low == high else pyo.inequality(low, body, high)

    model.x = pyo.Var(range(program.n_column), bounds=bounds, domain=domain)
    model.row = pyo.Constraint(range(program.n_row), rule=row)
    priced = np.flatnonzero(columns.cost).tolist()
    cost = LinearExpression(linear_coefs=columns.cost[priced].tolist(), linear_vars=[model.x[k] for k in priced])
    model.cost = pyo.Objective(expr=cost)
    if with_duals:
        model.dual = pyo.Suffix(direction=pyo.Suffix.IMPORT)
    return model


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
