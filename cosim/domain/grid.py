"""A grid as arrays: what it is made of (`GridLayout`) and its state at one instant (`GridState`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cosim.domain.frames import Floats, Ints


@dataclass(frozen=True)
class GridLayout:
    """The names along the axes of a `GridState`.

    ``nodes`` are ``BUS.phase``; ``terminals`` are ``branch@BUS``, all ends of every branch in branch order (two, three
    of a three-winding transformer), ``terminal_branch`` (n_terminal,) the index of the branch of each; ``conductors``
    are ``branch@BUS.phase``, those of every terminal in terminal order without the ones at ground,
    ``conductor_terminal`` (n_conductor,) the index of the terminal of each and ``conductor_node`` (n_conductor,) that
    of its node. ``rated_a`` (n_terminal,) is the rated phase current [A], NaN where no rating is known.
    """

    nodes: tuple[str, ...]
    branches: tuple[str, ...]
    terminals: tuple[str, ...]
    terminal_branch: Ints
    conductors: tuple[str, ...]
    conductor_terminal: Ints
    conductor_node: Ints
    rated_a: Floats

    @cached_property
    def buses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(node.rpartition(".")[0] for node in self.nodes))

    @cached_property
    def branch_start(self) -> Ints:
        """The first terminal of each branch (n_branch,)."""
        return np.flatnonzero(np.diff(self.terminal_branch, prepend=-1))

    @cached_property
    def terminal_start(self) -> Ints:
        """The first conductor of each terminal (n_terminal,)."""
        return np.flatnonzero(np.diff(self.conductor_terminal, prepend=-1))

    def highest_a(self, conductor_i_a: Floats) -> Floats:
        """Current of the highest-loaded phase (..., n_terminal) [A] from those of all (..., n_conductor)."""
        return np.maximum.reduceat(conductor_i_a, self.terminal_start, axis=-1)

    def loading_pu(self, terminal_i_a: Floats) -> Floats:
        """The largest of the currents at a branch's ends over their ratings (..., n_branch), from (..., n_terminal)
        [A]; NaN where an end has no rating."""
        return np.maximum.reduceat(terminal_i_a / self.rated_a, self.branch_start, axis=-1)

    def above(self, head: str) -> tuple[str, ...]:
        """Buses on the grid's side of the terminal ``head``, without its own: not part of the feeder. None where the
        head's branch is part of a loop."""
        branch, _, start = head.partition("@")
        ends: dict[str, set[str]] = {}
        for terminal in self.terminals:
            name, _, bus = terminal.partition("@")
            ends.setdefault(name, set()).add(bus)
        own = ends.pop(branch)
        neighbours: dict[str, set[str]] = {bus: set() for bus in self.buses}
        for buses in ends.values():
            for bus in buses:
                neighbours[bus] |= buses
        reached, ahead = {start}, [start]
        while ahead:
            found = neighbours[ahead.pop()] - reached
            reached |= found
            ahead += found
        return () if own <= reached else tuple(bus for bus in self.buses if bus in reached and bus != start)


@dataclass(frozen=True)
class GridState:
    """One solved step.

    Shapes: ``vm_pu``, ``va_deg`` (n_node,); ``conductor_p_kw``, ``conductor_q_kvar``, ``conductor_i_a``
    (n_conductor,), flowing from the bus into the branch; ``terminal_p_kw``, ``terminal_q_kvar``,
    ``terminal_i_a`` (n_terminal,), powers flowing from the bus into the branch, currents of the highest-loaded phase;
    ``loading_pu`` (n_branch,) the largest of a branch's ends over the rating. ``pod_p_kw``, ``pod_q_kvar`` (n_pod,):
    what the PODs draw at their voltages (passive sign), which differs from what was set where they are not of constant
    power. ``head_p_kw``, ``head_q_kvar``: import positive. ``loss_kw``: of the whole circuit. A step that did not
    converge is all NaN with ``converged`` false.
    """

    vm_pu: Floats
    va_deg: Floats
    conductor_p_kw: Floats
    conductor_q_kvar: Floats
    conductor_i_a: Floats
    terminal_p_kw: Floats
    terminal_q_kvar: Floats
    terminal_i_a: Floats
    loading_pu: Floats
    pod_p_kw: Floats
    pod_q_kvar: Floats
    head_p_kw: float
    head_q_kvar: float
    loss_kw: float
    converged: bool
    iterations: int
