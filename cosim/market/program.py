"""A linear program, possibly with integers, as arrays: what clearing makes and solvers take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse

from cosim.domain.frames import Floats, Ints

Flags = npt.NDArray[np.bool_]


class RowTag(NamedTuple):
    """What a row says. ``priced``: of the network, the interface or a need, so its dual is part of prices."""

    kind: str
    mtu: int
    element: str
    plane: int = 0
    priced: bool = True

    def __str__(self) -> str:
        plane = f", plane {self.plane}" if self.kind.startswith("i_") else ""
        return f"{self.kind} of {self.element} in MTU {self.mtu}{plane}"


@dataclass(frozen=True)
class Rows:
    """``lower <= matrix @ x <= upper``, the matrix sparse by rows: ``start`` (n_row + 1,), ``column``, ``value``."""

    start: Ints
    column: Ints
    value: Floats
    lower: Floats
    upper: Floats
    tags: tuple[RowTag, ...]

    def __post_init__(self) -> None:
        _lock(self.start, self.column, self.value, self.lower, self.upper)

    def matrix(self, n_column: int) -> scipy.sparse.csr_matrix:
        """A copy (n_row, n_column): sparse matrices sort their arrays in place."""
        shape = (len(self.tags), n_column)
        return scipy.sparse.csr_matrix((self.value, self.column, self.start), shape=shape, copy=True)


@dataclass(frozen=True)
class Columns:
    """Variables: ``cost`` [EUR per unit], bounds, whether integer, all (n_column,)."""

    cost: Floats
    lower: Floats
    upper: Floats
    integer: Flags

    def __post_init__(self) -> None:
        _lock(self.cost, self.lower, self.upper, self.integer)


def _lock(*arrays: npt.NDArray[Any]) -> None:
    for array in arrays:
        array.flags.writeable = False


class _Origin:
    """Identity of a program through its extensions."""


@dataclass(frozen=True)
class Program:
    """Minimise ``columns.cost @ x`` subject to the rows. Extensions of a program keep its ``origin``, and its columns
    and rows in place: a solver that holds the origin adds the new ones to what it has."""

    columns: Columns
    rows: Rows
    origin: _Origin = field(default_factory=_Origin)

    @property
    def n_column(self) -> int:
        return len(self.columns.cost)

    @property
    def n_row(self) -> int:
        return len(self.rows.tags)

    @property
    def integers(self) -> Ints:
        return np.flatnonzero(self.columns.integer)

    def with_columns(self, more: Columns) -> Program:
        return Program(joined_columns(self.columns, more), self.rows, self.origin)

    def with_rows(self, more: Rows) -> Program:
        return Program(self.columns, joined_rows([self.rows, more]), self.origin)


def no_rows() -> Rows:
    """A set of rows without any."""
    nothing, none = np.zeros(0), np.zeros(0, dtype=np.int64)
    return Rows(np.zeros(1, dtype=np.int64), none, nothing, nothing, nothing, ())


def joined_rows(parts: Sequence[Rows]) -> Rows:
    """All rows of the parts, in order."""
    parts = [part for part in parts if part.tags] or [no_rows()]
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([0, *(len(part.value) for part in parts[:-1])])
    starts = [part.start[:-1] + end for part, end in zip(parts, ends, strict=True)]
    return Rows(
        np.concatenate([*starts, [sum(len(part.value) for part in parts)]]),
        np.concatenate([part.column for part in parts]),
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.lower for part in parts]),
        np.concatenate([part.upper for part in parts]),
        tuple(tag for part in parts for tag in part.tags),
    )


def joined_columns(first: Columns, second: Columns) -> Columns:
    """The columns of both, in order."""
    if not len(second.cost):
        return first
    return Columns(
        np.concatenate([first.cost, second.cost]),
        np.concatenate([first.lower, second.lower]),
        np.concatenate([first.upper, second.upper]),
        np.concatenate([first.integer, second.integer]),
    )


class Status(Enum):
    """How a solve ended. ``FEASIBLE``: stopped by the time limit with a plan that may not be the best (integers)."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"


@dataclass(frozen=True)
class Solution:
    """Values ``x`` (n_column,); of linear programs ``row_dual`` (n_row,) and ``reduced_cost`` (n_column,): change of
    the objective by a row's bound and by a column's. ``gap``: of integers, how far from the best possible at most, of
    its own objective [1]; infinite if not known.
    """

    status: Status
    x: Floats
    row_dual: Floats
    reduced_cost: Floats
    gap: float = 0.0

    @property
    def solved(self) -> bool:
        return self.status in (Status.OPTIMAL, Status.FEASIBLE)


def no_solution(status: Status) -> Solution:
    return Solution(status, np.zeros(0), np.zeros(0), np.zeros(0), np.inf)


def without_columns(program: Program) -> Solution:
    """Of a program without columns, which solvers call neither solved nor infeasible."""
    if (program.rows.lower > 0.0).any() or (program.rows.upper < 0.0).any():
        return no_solution(Status.INFEASIBLE)
    return Solution(Status.OPTIMAL, np.zeros(0), np.zeros(program.n_row), np.zeros(0))


def without_rows(program: Program) -> Solution | None:
    """Of a linear program without rows: each variable at its cheaper bound, at the lower one if it costs nothing. None
    if that has no end, or there are integers."""
    columns = program.columns
    x = np.where(columns.cost < 0.0, columns.upper, columns.lower)
    if columns.integer.any() or not np.isfinite(x).all() or (columns.lower > columns.upper).any():
        return None
    return Solution(Status.OPTIMAL, x, np.zeros(0), columns.cost)


def no_plan(solver: str, ended: str, time_limit_s: float) -> str:
    """What is said of a solver that gave none."""
    return f"{solver} gave no plan: {ended} (it may take {time_limit_s:g} s for a solve)"


class Solver(Protocol):
    """Solves programs. ``digits`` of duals that can be trusted."""

    digits: int

    def solve(self, program: Program, with_duals: bool = True) -> Solution:
        """Raises SolverError if it cannot, or finds no plan in its time. Programs with integers have no duals."""
        ...
