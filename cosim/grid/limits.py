"""Limits: which voltages leave their band, and which conductors carry more than their branch is rated for."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import EventTable, Floats
from cosim.domain.grid import GridLayout, GridState
from cosim.errors import Fault, ScenarioError
from cosim.grid.feeder import canonical_branch
from cosim.scenario import schema

VIOLATIONS = EventTable(
    "violations",
    "voltages outside their band and currents above ratings",
    {
        "t_s": "s",
        "element": None,
        "phase": "1",
        "quantity": None,
        "value": "pu or A",
        "limit": "pu or A",
        "excess": "pu or A",
    },
)
"""``element`` is the bus of a ``vm_pu``, the terminal ``branch@BUS`` of an ``i_a``; ``excess`` is positive."""

_PHASES = 3  # conductors with higher numbers are neutrals
_SHOWN = 10


@dataclass(frozen=True)
class Violation:
    """A limit that is not kept: of ``vm_pu`` at a bus [pu], or of ``i_a`` at a terminal ``branch@BUS`` [A]; ``excess``
    is the distance to the limit, in the same unit."""

    element: str
    phase: int
    quantity: str
    value: float
    limit: float
    excess: float

    @property
    def excess_percent(self) -> float:
        """The distance to the limit [% of the limit]."""
        return 100.0 * self.excess / self.limit

    def row(self, t_s: float) -> dict[str, float | str]:
        """A row of `VIOLATIONS`."""
        return {
            "t_s": t_s,
            "element": self.element,
            "phase": float(self.phase),
            "quantity": self.quantity,
            "value": self.value,
            "limit": self.limit,
            "excess": self.excess,
        }


class Limits:
    """The limits of a grid by the scenario's ``limits``. Voltages above the terminal ``head`` are not the feeder's, and
    neutrals have no band and no rating.

    Raises ScenarioError naming every branch that the scenario holds to a rating it does not have, or that is unknown.
    """

    def __init__(self, layout: GridLayout, config: schema.Limits, head: str) -> None:
        rated_a = config.loading_max_pu * layout.rated_a
        held = _held_branches(layout, config)
        rated_a[~held[layout.terminal_branch]] = np.nan
        for branch, share in _derated(layout, config, held).items():
            own = layout.terminal_branch == branch
            rated_a[own] = share * layout.rated_a[own]
        self._layout = layout
        outside = set(layout.above(head))
        of_node = [_split(name) for name in layout.nodes]
        in_band = np.array([phase <= _PHASES and bus not in outside for bus, phase in of_node])
        self._v_min = np.where(in_band, config.vm_min_pu, -np.inf)
        self._v_max = np.where(in_band, config.vm_max_pu, np.inf)
        is_phase = np.array([_split(name)[1] <= _PHASES for name in layout.conductors])
        limit_a = rated_a[layout.conductor_terminal]
        self._i_max = np.where(is_phase & np.isfinite(limit_a), limit_a, np.inf)

    @property
    def i_max_a(self) -> Floats:
        """Highest current of each conductor (n_conductor,) [A], infinite where there is no limit."""
        return self._i_max

    @property
    def vm_band_pu(self) -> tuple[Floats, Floats]:
        """Lowest and highest voltage of each node (n_node,) [pu], infinite where there is no limit."""
        return self._v_min, self._v_max

    def violations(self, state: GridState) -> tuple[Violation, ...]:
        """All limits that ``state`` does not keep, voltages first; none in a step that did not converge."""
        vm_pu, i_a = state.vm_pu, state.conductor_i_a
        low, high, over = vm_pu < self._v_min, vm_pu > self._v_max, i_a > self._i_max
        if not (low.any() or high.any() or over.any()):
            return ()
        limit_pu = np.where(low, self._v_min, self._v_max)
        return (
            *self._found("vm_pu", self._layout.nodes, np.flatnonzero(low | high), vm_pu, limit_pu),
            *self._found("i_a", self._layout.conductors, np.flatnonzero(over), i_a, self._i_max),
        )

    def _found(
        self, quantity: str, names: tuple[str, ...], where: np.ndarray[tuple[int], np.dtype[np.intp]], *sizes: Floats
    ) -> Iterator[Violation]:
        for k in where.tolist():
            element, phase = _split(names[k])
            value, limit = (float(size[k]) for size in sizes)
            yield Violation(element, phase, quantity, value, limit, abs(value - limit))


def _split(name: str) -> tuple[str, int]:
    element, _, phase = name.rpartition(".")
    return element, int(phase)


def _held_branches(layout: GridLayout, config: schema.Limits) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which branches are held to their ratings (n_branch,)."""
    rated = np.zeros(len(layout.branches), dtype=bool)
    rated[layout.terminal_branch[np.isfinite(layout.rated_a)]] = True
    if config.branches == "rated":
        return rated
    index_of = {branch: k for k, branch in enumerate(layout.branches)}
    faults, held = [], np.zeros_like(rated)
    with_rating = [branch for branch, is_rated in zip(layout.branches, rated, strict=True) if is_rated]
    for branch in config.branches:
        k = index_of.get(canonical_branch(branch))
        if k is not None and rated[k]:
            held[k] = True
            continue
        problem = "no such branch" if k is None else "a branch without a rating; give it one in feeder.yaml"
        faults.append(Fault(problem, key="limits.branches", value=branch, allowed=_near(branch, with_rating)))
    if faults:
        raise ScenarioError(faults)
    return held


def _derated(
    layout: GridLayout, config: schema.Limits, held: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> dict[int, float]:
    """Highest current of the branches (by index) for which the scenario names one [of the rated current]."""
    index_of = {branch: k for k, branch in enumerate(layout.branches)}
    known = [branch for branch, is_held in zip(layout.branches, held, strict=True) if is_held]
    faults, shares = [], {}
    for branch, share in config.derated.items():
        k = index_of.get(canonical_branch(branch))
        if k is None or not held[k]:
            problem = "no branch that is held to a rating"
            faults.append(Fault(problem, key=f"limits.derated.{branch}", value=branch, allowed=_near(branch, known)))
        else:
            shares[k] = share
    if faults:
        raise ScenarioError(faults)
    return shares


def _near(branch: str, available: list[str]) -> str:
    """The branches with ratings, those spelled alike first."""
    alike = difflib.get_close_matches(canonical_branch(branch), available, _SHOWN)
    shown = list(dict.fromkeys([*alike, *available]))
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "") if shown else "no branch has a rating"


def decisive_nodes(layout: GridLayout, pod_buses: Collection[str]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Nodes (n_node,) where a voltage can be highest or lowest; the others lie between two of them.

    A bus without PODs that joins two lines and nothing else carries the same currents on both sides, so that its
    voltages lie on the straight line between those of its neighbours: their magnitude is convex, highest at an end, and
    below both ends only by the square of the angle between them.
    """
    ends: dict[str, list[str]] = {}
    for terminal in layout.terminals:
        branch, _, bus = terminal.partition("@")
        ends.setdefault(bus, []).append(branch.partition(".")[0])
    between = {bus for bus, kinds in ends.items() if kinds == ["Line", "Line"]} - set(pod_buses)
    return np.array([_split(node)[0] not in between for node in layout.nodes])
