"""Batch power flows answered by the engine, one solve a case, and the choice between the two ways."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from cosim.domain.frames import Floats
from cosim.domain.grid import GridState
from cosim.errors import PowerFlowError
from cosim.grid.batch import BatchPowerFlow, BatchState
from cosim.grid.engine import Engine

MATRIX_BRANCHES = 700
"""Phase branches of PODs up to which the matrix pays: an iteration costs it their number squared a case, the engine's
sparse matrix only about their number. By tests/bench/bench_batch.py twice as fast at 300, as fast at 700."""

log = logging.getLogger(__name__)


class BatchFlow(Protocol):
    """Answers many cases at once; ``way`` is "matrix" or "engine"."""

    @property
    def way(self) -> str: ...

    def solve(self, p_kw: Floats, q_kvar: Floats) -> BatchState:
        """States at net consumption ``p_kw``, ``q_kvar`` (n_case, n_input) [kW, kvar]."""


class EngineFlow:
    """The engine as a batch power flow, with taps and capacitors held at ``positions`` (`Engine.controls`; by default
    where they are). It owns the engine from now on."""

    way = "engine"

    def __init__(
        self,
        engine: Engine,
        nodes: Sequence[str],
        terminals: Sequence[str],
        spread: Floats | None = None,
        positions: dict[str, Any] | None = None,
    ) -> None:
        if positions is not None:
            engine.restore_controls(positions)
        engine.hold_controls()
        self._engine, self._spread = engine, np.eye(len(engine.pods)) if spread is None else spread
        layout = engine.layout
        node_of = {name: k for k, name in enumerate(layout.nodes)}
        self._nodes = np.array([node_of[node] for node in nodes], dtype=np.int64)
        self._v_base = engine.v_base[self._nodes]
        conductors = [
            [k for k, name in enumerate(layout.conductors) if _is_of(name, terminal)] for terminal in terminals
        ]
        self._conductors = np.array([k for of_terminal in conductors for k in of_terminal], dtype=np.int64)
        self._terminal_start = np.cumsum([0, *(len(of_terminal) for of_terminal in conductors)])[:-1]

    def solve(self, p_kw: Floats, q_kvar: Floats) -> BatchState:
        """States at net consumption ``p_kw``, ``q_kvar`` (n_case, n_input) [kW, kvar]."""
        states, failures = [], {}
        for case, (p, q) in enumerate(zip(p_kw @ self._spread.T, q_kvar @ self._spread.T, strict=True)):
            try:
                states.append(self._engine.solve(p, q))
            except PowerFlowError as error:
                failures[case] = str(error)
                states.append(self._engine.diverged())
                self._engine.hold_controls()  # which looking for the cause let go
        return self._gathered(states, failures)

    def _gathered(self, states: Sequence[GridState], failures: dict[int, str]) -> BatchState:
        nodes, conductors = self._nodes, self._conductors
        v = np.empty((len(states), len(nodes)), dtype=np.complex128)
        s_kva, i_a = (
            np.empty((len(states), len(conductors)), dtype=np.complex128),
            np.empty((len(states), len(conductors))),
        )
        for case, state in enumerate(states):
            v[case] = self._v_base * state.vm_pu[nodes] * np.exp(1j * np.radians(state.va_deg[nodes]))
            s_kva[case] = state.conductor_p_kw[conductors] + 1j * state.conductor_q_kvar[conductors]
            i_a[case] = state.conductor_i_a[conductors]
        return BatchState(v, self._v_base, s_kva, i_a, self._terminal_start, failures)


def batch_flow(
    engine: Engine,
    nodes: Sequence[str],
    terminals: Sequence[str],
    spread: Floats | None = None,
    positions: dict[str, Any] | None = None,
) -> BatchFlow:
    """The faster way for this feeder, which is logged; the engine too where the matrix does not know a load law. It
    owns the engine from now on.

    Raises FeederError if the circuit holds something else that the matrix cannot.
    """
    name = engine.feeder.name
    unknown = engine.pods_of_unknown_law()
    if unknown:
        log.info("feeder %s: batch power flow by the engine, as %s has a load law of its own", name, unknown[0])
        return EngineFlow(engine, nodes, terminals, spread, positions)
    n_branch = engine.n_pod_branch()
    if n_branch > MATRIX_BRANCHES:
        log.info("feeder %s: batch power flow by the engine: %d branches > %d", name, n_branch, MATRIX_BRANCHES)
        return EngineFlow(engine, nodes, terminals, spread, positions)
    log.info("feeder %s: batch power flow by the matrix: %d branches <= %d", name, n_branch, MATRIX_BRANCHES)
    network = engine.unloaded(positions)
    engine.close()
    return BatchPowerFlow(network, nodes, terminals, spread)


def _is_of(conductor: str, terminal: str) -> bool:
    return conductor.rpartition(".")[0] == terminal
