"""A network without PODs, reduced to the phase branches of its PODs and to what is looked at.

With ``u`` the voltages of the branches over their rated ones and ``i = conj(s) g(|u|) u`` [VA] their currents times
rated voltages (`cosim.grid.law`), the network is ``u = u0 - z i``, and the node voltages seen are
``v = v0 - response i``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse

from cosim.domain.frames import Complexes, Floats, Ints
from cosim.grid.law import LoadLaw
from cosim.grid.unloaded import PodBranch, Unloaded

_COLUMNS = 64  # of the inverse, solved for at once


class Reduction:
    """``branches`` (n_row,): the phase branches of all PODs, those alike (nodes, rated voltage, law) in one row;
    ``share_va`` (n_row, n_input) sparse turns inputs [kW, kvar] into their powers [VA]. ``spread`` (n_pod, n_input)
    turns inputs into powers of the PODs; by default they are the PODs'.

    ``law`` of the branches, ``u0`` (n_row,) and ``z`` (n_row, n_row) [1/VA]. ``v0`` (n_seen,) [V] and ``response``
    (n_seen, n_row) [V/VA] are of the nodes seen: those asked for, ``node_at`` (n_node,) among them, of ``v_base``
    (n_node,) [V], and those that the conductors asked for need. ``conductor_y`` (n_conductor, n_seen) [S] gives the
    conductors' currents, ``conductor_at`` (n_conductor,) their nodes among those seen.

    Raises FeederError naming every POD whose load law is not known.
    """

    def __init__(self, network: Unloaded, nodes: Sequence[str], conductors: Ints, spread: Floats | None = None) -> None:
        rows, self.branches = _alike(network.require_laws().pod_branches)
        pods, shares = [b.pod for b in network.pod_branches], [b.share for b in network.pod_branches]
        shape = (len(self.branches), len(network.pods))
        self.share = scipy.sparse.csr_matrix((shares, (rows, pods)), shape=shape, dtype=float)
        self.row_of_branch = np.array(rows, dtype=np.int64)
        self.share_va = 1000.0 * (self.share if spread is None else scipy.sparse.csr_matrix(self.share @ spread))
        self.law = LoadLaw(self.branches)
        self._see(network, nodes, conductors)
        self._reduce(network)

    def _see(self, network: Unloaded, nodes: Sequence[str], conductors: Ints) -> None:
        node_of = {name: k for k, name in enumerate(network.layout.nodes)}
        asked = [node_of[node] for node in nodes]
        at, y = network.layout.conductor_node[conductors], network.conductor_y[conductors]
        self._seen = np.unique(np.concatenate([asked, y.indices, at])).astype(np.int64)
        self.v0 = network.v[self._seen]
        self.v_base = network.v_base[asked]
        self.node_at, self.conductor_at = np.searchsorted(self._seen, asked), np.searchsorted(self._seen, at)
        self.conductor_y = y[:, self._seen]

    def _reduce(self, network: Unloaded) -> None:
        v_rated = np.array([branch.v_rated for branch in self.branches])
        across = _incidence(self.branches, len(network.v))
        n_row = len(v_rated)
        self._across = scipy.sparse.csr_matrix(scipy.sparse.diags(1.0 / v_rated) @ across)
        self.u0 = self._across @ network.v
        self.z = np.zeros((n_row, n_row), dtype=np.complex128)
        self.response = np.zeros((len(self._seen), n_row), dtype=np.complex128)
        factor = network.factor()
        for first in range(0, n_row, _COLUMNS):
            columns = slice(first, first + _COLUMNS)
            volts = factor.solve(across[columns].T.toarray().astype(np.complex128)) / v_rated[columns]
            self.z[:, columns] = self._across @ volts
            self.response[:, columns] = volts[self._seen]

    def across(self, v: Complexes) -> Complexes:
        """Voltages of the branches over rated ones (n_row,) from those of all nodes (n_node,) [V]."""
        return np.asarray(self._across @ v)


def conductors_of(network: Unloaded, terminals: Sequence[str]) -> tuple[Ints, Ints]:
    """The conductors of ``terminals``, one terminal after the other, and which of them is the first of each."""
    layout = network.layout
    terminal_of = {name: k for k, name in enumerate(layout.terminals)}
    ends = [*layout.terminal_start.tolist(), len(layout.conductors)]
    groups = [np.arange(ends[k], ends[k + 1]) for k in (terminal_of[name] for name in terminals)]
    starts = np.cumsum([0, *(len(group) for group in groups)])[:-1]
    return np.concatenate([np.zeros(0, dtype=np.int64), *groups]), starts


def _alike(branches: Sequence[PodBranch]) -> tuple[list[int], tuple[PodBranch, ...]]:
    """The row of each branch, and one branch of each row."""
    row_of: dict[tuple[object, ...], int] = {}
    rows = [row_of.setdefault((b.nodes, b.v_rated, b.law), len(row_of)) for b in branches]
    example = dict(zip(rows, branches, strict=True))
    return rows, tuple(example[row] for row in range(len(row_of)))


def _incidence(branches: Sequence[PodBranch], n_node: int) -> scipy.sparse.csr_matrix:
    """(n_branch, n_node): +1 at the first node, -1 at the second; node 0 is ground and left out."""
    ends = [
        (row, node - 1, sign)
        for row, branch in enumerate(branches)
        for node, sign in zip(branch.nodes, (1.0, -1.0), strict=True)
        if node
    ]
    row, column, sign = zip(*ends, strict=True) if ends else ((), (), ())
    return scipy.sparse.csr_matrix((sign, (row, column)), shape=(len(branches), n_node), dtype=float)
