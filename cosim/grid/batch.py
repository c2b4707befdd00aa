"""Batch power flow: many vectors of POD powers at once on the engine's own system matrix.

Fixed-point current injection (implicit Z-bus Gauss): with the system matrix Y of everything but the PODs and the
no-load voltages V0, every iteration sets ``V = V0 + Z I(V)`` with ``I = -conj(S / V)`` for constant power, Z reduced to
the POD branches once. Columns of one matrix are the cases. Source: T.-H. Chen et al., "Distribution system power flow
analysis - a rigid approach", IEEE Trans. Power Delivery 6(3), 1991 (Z-bus Gauss method).

Taps and capacitors stay where they are at no load. Constant power (OpenDSS load model 1) holds between the element's
``Vminpu`` and ``Vmaxpu``; a case outside of them is given up rather than answered wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.sparse.linalg

from cosim.domain.frames import Complexes, Floats
from cosim.errors import PowerFlowError
from cosim.grid.unloaded import PodBranch, Port, Unloaded

TOLERANCE_PU = 1e-9
"""Last step of the iteration [pu]. Within the constant-power band each step is a small share of the one before, so the
error left is smaller still."""
MAX_ITERATIONS = 60


@dataclass(frozen=True)
class BatchState:
    """States of all cases at the places observed; a case that has no answer is a row of NaN.

    Shapes: ``vm_pu`` (n_case, n_node); ``p_kw``, ``q_kvar``, ``i_a`` (n_case, n_terminal), powers into the branch, the
    current of the highest-loaded phase. ``failures`` gives the cause for each case without an answer.
    """

    vm_pu: Floats
    p_kw: Floats
    q_kvar: Floats
    i_a: Floats
    failures: Mapping[int, str]

    def require_converged(self) -> Self:
        """Itself; raises PowerFlowError naming the first case without an answer and the cause."""
        if self.failures:
            case, cause = next(iter(self.failures.items()))
            more = f" (and {len(self.failures) - 1} more cases)" if len(self.failures) > 1 else ""
            raise PowerFlowError(f"batch power flow: case {case}: {cause}{more}")
        return self


class BatchPowerFlow:
    """A linear network with constant-power PODs, observed at chosen nodes and terminals.

    ``spread`` (n_pod, n_input) turns the powers given to `solve` into those of the PODs; by default they are the PODs'.
    """

    def __init__(
        self, network: Unloaded, nodes: Sequence[str], terminals: Sequence[str], spread: Floats | None = None
    ) -> None:
        self._network = network
        pairs = sorted({branch.nodes for branch in network.pod_branches})
        share = _shares(network.pod_branches, pairs, len(network.pods))
        self._share_va = 1000.0 * (share if spread is None else share @ spread)
        v_rated, self._v2_min, self._v2_max = _limits(network.pod_branches, pairs)
        incidence = _incidence(pairs, len(network.v))
        factor = scipy.sparse.linalg.splu(network.y)
        response = factor.solve(incidence.T.toarray().astype(np.complex128))  # node volts per ampere of a POD branch
        self._pairs, self._v_rated = pairs, v_rated
        self._u0 = (incidence @ network.v / v_rated)[:, None]  # voltages over rated voltages from here on
        self._z = (incidence @ response) / np.outer(v_rated, v_rated)
        self._observe([network.ports[terminal] for terminal in terminals], nodes, response / v_rated)

    def solve(self, p_kw: Floats, q_kvar: Floats) -> BatchState:
        """States at net consumption ``p_kw``, ``q_kvar`` (n_case, n_input) [kW, kvar]."""
        s_conj: Complexes = np.asarray(self._share_va @ (p_kw - 1j * q_kvar).T, dtype=np.complex128)
        with np.errstate(all="ignore"):  # hopeless cases run to infinity
            u, done = self._voltages(s_conj)
            i = -s_conj / u.conj()
            v2 = u.real**2 + u.imag**2
            inside = (v2 >= self._v2_min) & (v2 <= self._v2_max)
        answered = done & inside.all(axis=0)
        i[:, ~answered] = np.nan
        v = self._v0_seen + self._response_seen @ i
        i_port = (self._port_y @ v).reshape(*self._port_rows.shape, v.shape[1])
        s_kva = (v[self._port_rows] * i_port.conj()).sum(axis=1) / 1000.0
        return BatchState(
            vm_pu=(np.abs(v[: len(self._v_base)]) / self._v_base).T,
            p_kw=s_kva.real.T,
            q_kvar=s_kva.imag.T,
            i_a=np.abs(i_port).max(axis=1).T,
            failures={} if answered.all() else {int(k): self._cause(u[:, k]) for k in np.flatnonzero(~answered)},
        )

    def _voltages(self, s_conj: Complexes) -> tuple[Complexes, npt.NDArray[np.bool_]]:
        """Voltages at the POD branches (n_pair, n_case) [of rated], and which cases converged."""
        u = np.repeat(self._u0, s_conj.shape[1], axis=1)
        for _ in range(MAX_ITERATIONS):
            last = u
            u = self._u0 - self._z @ (s_conj / u.conj())
            step = u - last
            step2 = (step.real**2 + step.imag**2).max(axis=0, initial=0.0)
            if not (step2 > TOLERANCE_PU**2).any():
                break
        return u, step2 <= TOLERANCE_PU**2

    def _cause(self, u: Complexes) -> str:
        """Why the case with these voltages (n_pair,) has no answer."""
        u_abs = np.abs(u)
        outside = np.maximum(np.sqrt(self._v2_min[:, 0]) - u_abs, u_abs - np.sqrt(self._v2_max[:, 0]))
        if not outside.max() > 0.0:
            return f"not converged in {MAX_ITERATIONS} iterations"
        pair = int(outside.argmax())
        v = u_abs[pair] * self._v_rated[pair]
        here = [branch for branch in self._network.pod_branches if branch.nodes == self._pairs[pair]]
        worst = max(here, key=lambda b: max(b.v_min_pu - v / b.v_rated, v / b.v_rated - b.v_max_pu))
        return (
            f"{v / worst.v_rated:.3f} pu at POD {self._network.pods[worst.pod]}, outside the band {worst.v_min_pu}.."
            f"{worst.v_max_pu} pu in which it draws constant power"
        )

    def _observe(self, ports: Sequence[Port], nodes: Sequence[str], response: Complexes) -> None:
        """Keeps what is needed of nodes: first those observed, then those of the branches observed. Ports are padded to
        the same number of conductors by ones at ground."""
        network = self._network
        index_of = {name: k for k, name in enumerate(network.layout.nodes, start=1)}
        observed = [index_of[node] for node in nodes]
        extra = sorted({ref for port in ports for ref in port.all_nodes} | {0})
        refs = np.array([*observed, *extra])
        row_of = {ref: row for row, ref in enumerate(extra, start=len(observed))}
        self._v_base = network.v_base[refs[: len(observed)] - 1][:, None]
        self._v0_seen = np.concatenate([[0.0], network.v])[refs][:, None]
        self._response_seen = np.vstack([np.zeros((1, response.shape[1])), response])[refs]
        n_conductor = max((len(port.nodes) for port in ports), default=1)
        self._port_rows = np.full((len(ports), n_conductor), row_of[0])
        self._port_y = scipy.sparse.lil_matrix((len(ports) * n_conductor, len(refs)), dtype=np.complex128)
        for k, port in enumerate(ports):
            self._port_rows[k, : len(port.nodes)] = [row_of[ref] for ref in port.nodes]
            for conductor, row in enumerate(port.y):
                for ref, y in zip(port.all_nodes, row, strict=True):
                    self._port_y[k * n_conductor + conductor, row_of[ref]] += y
        self._port_y = self._port_y.tocsr()


def _shares(branches: Sequence[PodBranch], pairs: Sequence[tuple[int, int]], n_pod: int) -> Floats:
    row_of = {pair: k for k, pair in enumerate(pairs)}
    share = np.zeros((len(pairs), n_pod))
    for branch in branches:
        share[row_of[branch.nodes], branch.pod] += branch.share
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
    """For each pair of nodes the rated voltage (n_pair,) [V], and the squares (n_pair, 1) of the limits of the
    narrowest constant-power band of its PODs, over that voltage."""
    row_of = {pair: k for k, pair in enumerate(pairs)}
    v_rated, v_min, v_max = np.zeros(len(pairs)), np.zeros(len(pairs)), np.full(len(pairs), np.inf)
    for branch in branches:
        v_rated[row_of[branch.nodes]] = branch.v_rated
    for branch in branches:
        k = row_of[branch.nodes]
        v_min[k] = max(v_min[k], branch.v_min_pu * branch.v_rated / v_rated[k])
        v_max[k] = min(v_max[k], branch.v_max_pu * branch.v_rated / v_rated[k])
    return v_rated, (v_min**2)[:, None], (v_max**2)[:, None]
