"""A grid as arrays: what it is made of (`GridLayout`) and its state at one instant (`GridState`)."""

from __future__ import annotations

from dataclasses import dataclass

from cosim.domain.frames import Floats


@dataclass(frozen=True)
class GridLayout:
    """The names along the axes of a `GridState`.

    ``nodes`` are ``BUS.phase``; ``terminals`` are ``branch@BUS``, both ends of every branch in branch order;
    ``rated_a`` (n_terminal,) is the rated phase current [A], NaN where no rating is known.
    """

    nodes: tuple[str, ...]
    branches: tuple[str, ...]
    terminals: tuple[str, ...]
    rated_a: Floats

    @property
    def buses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(node.rpartition(".")[0] for node in self.nodes))

    def above(self, head: str) -> tuple[str, ...]:
        """Buses on the grid's side of the terminal ``head``, without its own: not part of the feeder. None where the
        head's branch is part of a loop."""
        branch, _, start = head.partition("@")
        neighbours: dict[str, set[str]] = {bus: set() for bus in self.buses}
        for here, there in zip(self.terminals[::2], self.terminals[1::2], strict=True):
            if here.partition("@")[0] != branch:
                a, b = here.partition("@")[2], there.partition("@")[2]
                neighbours[a].add(b)
                neighbours[b].add(a)
        reached, ahead = {start}, [start]
        while ahead:
            found = neighbours[ahead.pop()] - reached
            reached |= found
            ahead += found
        ends = {t.partition("@")[2] for t in self.terminals if t.partition("@")[0] == branch}
        return () if ends <= reached else tuple(bus for bus in self.buses if bus in reached and bus != start)


@dataclass(frozen=True)
class GridState:
    """One solved step.

    Shapes: ``vm_pu``, ``va_deg`` (n_node,); ``terminal_p_kw``, ``terminal_q_kvar``, ``terminal_i_a`` (n_terminal,),
    powers flowing from the bus into the branch, currents of the highest-loaded phase; ``loading_pu`` (n_branch,)
    the larger of both ends over the rating. ``head_p_kw``, ``head_q_kvar``: import positive. ``loss_kw``: of the
    whole circuit. A step that did not converge is all NaN with ``converged`` false.
    """

    vm_pu: Floats
    va_deg: Floats
    terminal_p_kw: Floats
    terminal_q_kvar: Floats
    terminal_i_a: Floats
    loading_pu: Floats
    head_p_kw: float
    head_q_kvar: float
    loss_kw: float
    converged: bool
    iterations: int
