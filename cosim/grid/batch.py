"""Batch power flow: many vectors of POD powers at once on the engine's own system matrix.

Fixed-point current injection (implicit Z-bus Gauss): with the system matrix Y of everything but the PODs and the
no-load voltages V0, every iteration sets ``V = V0 + Z I(V)`` with ``I = -conj(S / V)`` for constant power, Z reduced to
the POD branches once. Columns of one matrix are the cases. Source: T.-H. Chen et al., "Distribution system power flow
analysis - a rigid approach", IEEE Trans. Power Delivery 6(3), 1991 (Z-bus Gauss method).

Taps and capacitors stay where they are at no load. Constant power (OpenDSS load model 1) holds between the element's
``Vminpu`` and ``Vmaxpu``; a case outside of them is refused rather than answered wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from cosim.domain.frames import Complexes, Floats
from cosim.errors import PowerFlowError
from cosim.grid.engine import PodBranch, Unloaded

TOLERANCE_PU = 1e-11
MAX_ITERATIONS = 200


@dataclass(frozen=True)
class BatchState:
    """States of all cases at the places observed.

    Shapes: ``vm_pu`` (n_case, n_observed_node); ``p_kw``, ``q_kvar``, ``i_a`` (n_case, n_observed_terminal).
    """

    vm_pu: Floats
    p_kw: Floats
    q_kvar: Floats
    i_a: Floats


class BatchPowerFlow:
    """A linear network with constant-power PODs, observed at chosen nodes and terminals."""

    def __init__(self, network: Unloaded, nodes: Sequence[str], terminals: Sequence[str]) -> None:
        self.pods = network.pods
        branches = network.pod_branches
        pairs = sorted({branch.nodes for branch in branches})
        self._share = _shares(branches, pairs, len(self.pods))
        incidence = _incidence(pairs, len(network.v))
        factor = scipy.sparse.linalg.splu(network.y)
        response = factor.solve(incidence.T.toarray().astype(np.complex128))  # node volts per ampere of a POD branch
        self._z = incidence @ response
        self._v0 = incidence @ network.v
        self._v_rated, self._v_min, self._v_max = _limits(branches, pairs)
        self._observe_nodes([network.layout.nodes.index(node) for node in nodes], network, response)
        self._observe_terminals([network.terminal_y[terminal] for terminal in terminals], network.v, response)

    def solve(self, p_kw: Floats, q_kvar: Floats) -> BatchState:
        """States at net consumption ``p_kw``, ``q_kvar`` (n_case, n_pod).

        Raises PowerFlowError naming the case if it does not converge or leaves the constant-power voltage band.
        """
        i = self._currents(1000.0 * self._share @ (p_kw + 1j * q_kvar).T)
        v_node = self._v0_node[:, None] + self._response_node @ i
        i_terminal = self._i0_terminal[:, :, None] + np.einsum("tcb,bn->tcn", self._response_terminal, i)
        v_terminal = self._v0_terminal[:, :, None] + np.einsum("tcb,bn->tcn", self._response_terminal_v, i)
        s_kva = (v_terminal * i_terminal.conj()).sum(axis=1) / 1000.0
        return BatchState(
            vm_pu=(np.abs(v_node) / self._v_base_node[:, None]).T,
            p_kw=s_kva.real.T,
            q_kvar=s_kva.imag.T,
            i_a=np.abs(i_terminal).max(axis=1).T,
        )

    def _currents(self, s_va: Complexes) -> Complexes:
        """Currents into the network at the POD branches (n_branch, n_case) [A]."""
        v = np.repeat(self._v0[:, None], s_va.shape[1], axis=1)
        for _ in range(MAX_ITERATIONS):
            i = -np.conj(s_va / v)
            step = self._v0[:, None] + self._z @ i - v
            v += step
            if np.max(np.abs(step) / self._v_rated[:, None], initial=0.0) < TOLERANCE_PU:
                break
        else:
            worst = int(np.argmax(np.abs(step).max(axis=0)))
            raise PowerFlowError(f"batch power flow: case {worst} did not converge in {MAX_ITERATIONS} iterations")
        self._check_band(v)
        return i

    def _check_band(self, v: Complexes) -> None:
        v_pu = np.abs(v) / self._v_rated[:, None]
        outside = (v_pu < self._v_min[:, None]) | (v_pu > self._v_max[:, None])
        if outside.any():
            branch, case = (int(k[0]) for k in np.nonzero(outside))
            raise PowerFlowError(
                f"batch power flow: case {case} has {v_pu[branch, case]:.3f} pu at a POD, outside the band "
                f"{self._v_min[branch]}..{self._v_max[branch]} pu in which it draws constant power"
            )

    def _observe_nodes(self, rows: list[int], network: Unloaded, response: Complexes) -> None:
        self._v_base_node = network.v_base[rows]
        self._v0_node, self._response_node = network.v[rows], response[rows]

    def _observe_terminals(
        self, rows: Sequence[tuple[list[int], Complexes]], v0: Complexes, response: Complexes
    ) -> None:
        """Rows are padded with zeros to the largest number of conductors."""
        n_conductor = max((len(nodes) for nodes, _ in rows), default=1)
        shape = (len(rows), n_conductor, response.shape[1])
        self._response_terminal = np.zeros(shape, dtype=np.complex128)
        self._response_terminal_v = np.zeros(shape, dtype=np.complex128)
        self._i0_terminal = np.zeros(shape[:2], dtype=np.complex128)
        self._v0_terminal = np.zeros(shape[:2], dtype=np.complex128)
        grounded = np.concatenate([[0.0], v0])  # node 0 is ground
        grounded_response = np.vstack([np.zeros((1, response.shape[1])), response])
        for t, (nodes, y) in enumerate(rows):
            n = len(nodes)
            self._v0_terminal[t, :n] = grounded[nodes]
            self._response_terminal_v[t, :n] = grounded_response[nodes]
            self._i0_terminal[t, :n] = y @ v0
            self._response_terminal[t, :n] = y @ response


def _shares(branches: Sequence[PodBranch], pairs: Sequence[tuple[int, int]], n_pod: int) -> Floats:
    share = np.zeros((len(pairs), n_pod))
    for branch in branches:
        share[pairs.index(branch.nodes), branch.pod] += branch.share
    return share


def _incidence(pairs: Sequence[tuple[int, int]], n_node: int) -> scipy.sparse.csr_matrix:
    """(n_pair, n_node): +1 at the first node, -1 at the second; node 0 is ground and left out."""
    matrix = scipy.sparse.lil_matrix((len(pairs), n_node))
    for k, (a, b) in enumerate(pairs):
        if a:
            matrix[k, a - 1] = 1.0
        if b:
            matrix[k, b - 1] = -1.0
    return matrix.tocsr()


def _limits(branches: Sequence[PodBranch], pairs: Sequence[tuple[int, int]]) -> tuple[Floats, Floats, Floats]:
    """Rated voltage [V] and the narrowest constant-power band [pu] of the PODs on each pair of nodes."""
    v_rated, v_min, v_max = np.zeros(len(pairs)), np.zeros(len(pairs)), np.full(len(pairs), np.inf)
    for branch in branches:
        k = pairs.index(branch.nodes)
        v_rated[k] = branch.v_rated
        v_min[k], v_max[k] = max(v_min[k], branch.v_min_pu), min(v_max[k], branch.v_max_pu)
    return v_rated, v_min, v_max
