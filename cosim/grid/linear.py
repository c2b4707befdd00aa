"""Sensitivities: what one more kW or kvar drawn at a POD, or by one of its phases, does to voltages and currents.

Two kinds. With *fixed voltages* in the loads' currents, ``i = conj(s) g(|u~|) u~`` (for constant power
``conj(s / u~)``), the whole model is linear in p and q, exact at the powers that belong to the voltages u~; at no load
it is the derivative of a load's effect with all others out of service. *Exact* derivatives follow the loads' own
response to the voltage: with ``m``, ``n`` from their laws ``di = conj(ds) g u + m du + n conj(du)``, ``du = -z di``.
Both are affine predictions around a point. Consumption is positive: where it rises, voltages fall.

Source: the current-injection form of the power flow; e.g. A. Bernstein et al., "Load flow in multiphase distribution
networks", IEEE Trans. Power Systems 33(6), 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse

from cosim.domain.frames import Complexes, Floats
from cosim.errors import PowerFlowError
from cosim.grid.batch import BatchPowerFlow, FixedPoint
from cosim.grid.reduction import Reduction, conductors_of
from cosim.grid.unloaded import Unloaded

MAX_OUTER = 50


@dataclass(frozen=True)
class LinearState:
    """A prediction: node voltages ``v`` (..., n_node) [V], conductor currents ``i_a`` (..., n_conductor) [A] into the
    branches, both complex, and the head's ``head_kva`` (...), P + jQ, import positive."""

    v: Complexes
    i_a: Complexes
    head_kva: Complexes


@dataclass(frozen=True)
class Linearisation:
    """An affine model around the powers ``p_kw``, ``q_kvar`` (n_column,) of PODs, or of their phase branches.

    ``state`` is the one there. Derivatives, complex, by consumption: ``v_by_p``, ``v_by_q`` (n_node, n_column)
    [V/kW, V/kvar], ``i_by_p``, ``i_by_q`` (n_conductor, n_column) [A/kW, A/kvar], ``head_by_p``, ``head_by_q``
    (n_column,) [kVA/kW, kVA/kvar]: real part of P, imaginary part of Q at the head.
    """

    nodes: tuple[str, ...]
    conductors: tuple[str, ...]
    p_kw: Floats
    q_kvar: Floats
    state: LinearState
    v_by_p: Complexes
    v_by_q: Complexes
    i_by_p: Complexes
    i_by_q: Complexes
    head_by_p: Complexes
    head_by_q: Complexes

    def predict(self, p_kw: Floats, q_kvar: Floats) -> LinearState:
        """The state at net consumption ``p_kw``, ``q_kvar`` (..., n_column) [kW, kvar]."""
        dp, dq = p_kw - self.p_kw, q_kvar - self.q_kvar
        return LinearState(
            v=self.state.v + dp @ self.v_by_p.T + dq @ self.v_by_q.T,
            i_a=self.state.i_a + dp @ self.i_by_p.T + dq @ self.i_by_q.T,
            head_kva=self.state.head_kva + dp @ self.head_by_p + dq @ self.head_by_q,
        )


class LinearNetwork:
    """Linearises one network again and again, seen at ``nodes`` and ``conductors`` (``branch@BUS.phase``; by default
    all) and at the terminal ``head``. Columns are the PODs or, ``by`` branch, their phase branches, as they stand in
    ``network.pod_branches``."""

    def __init__(
        self,
        network: Unloaded,
        head: str,
        nodes: Sequence[str] | None = None,
        conductors: Sequence[str] | None = None,
        by: Literal["pod", "branch"] = "pod",
    ) -> None:
        layout = network.layout
        self.network = network
        self.nodes = layout.nodes if nodes is None else tuple(nodes)
        self.conductors = layout.conductors if conductors is None else tuple(conductors)
        index_of = {name: k for k, name in enumerate(layout.conductors)}
        chosen = np.array([index_of[name] for name in self.conductors], dtype=np.int64)
        at_head, _ = conductors_of(network, [head])
        self._reduction = Reduction(network, self.nodes, np.concatenate([chosen, at_head]))
        self._fixed_point = FixedPoint(self._reduction)
        self._share_va = self._reduction.share_va if by == "pod" else self._by_branch()
        self._share_row = np.repeat(np.arange(self._share_va.shape[0]), np.diff(self._share_va.indptr))
        self._rise = -self._reduction.response

    def _by_branch(self) -> scipy.sparse.csr_matrix:
        row = self._reduction.row_of_branch
        return scipy.sparse.csr_matrix((np.full(len(row), 1000.0), (row, np.arange(len(row)))))

    def fixed_voltages(self, p_kw: Floats, q_kvar: Floats, v: Complexes | None = None) -> Linearisation:
        """The model with the voltages ``v`` (n_node of the network,) [V] in the loads' currents, by default those at no
        load, around net consumption ``p_kw``, ``q_kvar`` (n_column,) [kW, kvar]."""
        own = self._own_current(self._reduction.u0 if v is None else self._reduction.across(v))
        by_p = own.toarray()
        return self._seen(p_kw, q_kvar, own @ (p_kw - 1j * q_kvar), by_p, -1j * by_p)

    def exact(self, p_kw: Floats, q_kvar: Floats, v: Complexes | None = None) -> Linearisation:
        """State and derivatives at net consumption ``p_kw``, ``q_kvar`` (n_column,) [kW, kvar], whose node voltages are
        ``v`` (n_node of the network,) [V]; by default they are solved for.

        Raises PowerFlowError if that power flow has no answer.
        """
        s_va = self._share_va @ (p_kw + 1j * q_kvar)
        u = self._solved(s_va) if v is None else self._reduction.across(v)
        own = self._own_current(u)
        n_row, n_column = own.shape
        by_p = own.toarray()
        columns = _quarters(by_p.real, by_p.imag, by_p.imag, -by_p.real)  # by p, and by q: -1j times that
        solved = np.linalg.solve(response_system(self._reduction, s_va, u), columns)
        i_by = np.empty((n_row, 2 * n_column), dtype=np.complex128)
        i_by.real, i_by.imag = solved[:n_row], solved[n_row:]
        return self._seen(p_kw, q_kvar, own @ (p_kw - 1j * q_kvar), i_by[:, :n_column], i_by[:, n_column:])

    def _solved(self, s_va: Complexes) -> Complexes:
        """Voltages across the branches (n_row,) set to ``s_va`` (n_row,) [VA]."""
        i, answered = self._fixed_point.currents(s_va.real[:, None], s_va.imag[:, None])
        if not answered[0]:
            raise PowerFlowError("no operating point to linearise at: the power flow does not converge")
        return np.asarray(self._reduction.u0 - self._reduction.z @ i[:, 0])

    def _own_current(self, u: Complexes) -> scipy.sparse.csr_matrix:
        """Currents [VA] of the branches for each kW of a column at fixed voltages (n_row, n_column)."""
        g = self._reduction.law.factor(np.abs(u[:, None]) ** 2)[:, 0]
        own = copy(self._share_va)  # the same pattern
        own.data = own.data * (g * u)[self._share_row]
        return own

    def _seen(self, p_kw: Floats, q_kvar: Floats, i: Complexes, i_by_p: Complexes, i_by_q: Complexes) -> Linearisation:
        """What is seen of currents ``i`` (n_row,) [VA] of the branches and their derivatives (n_row, n_column)."""
        seen, n_conductor = self._reduction, len(self.conductors)
        v = seen.v0 + self._rise @ i
        v_by_p, v_by_q = self._rise @ i_by_p, self._rise @ i_by_q
        a, a_by_p, a_by_q = (seen.conductor_y @ volts for volts in (v, v_by_p, v_by_q))
        v_head, a_head = v[seen.conductor_at[n_conductor:]], a[n_conductor:]

        def head(dv: Complexes, da: Complexes) -> Complexes:
            dv = dv[seen.conductor_at[n_conductor:]]
            return np.asarray((a_head.conj() @ dv + v_head @ da[n_conductor:].conj()) / 1000.0)

        return Linearisation(
            nodes=self.nodes,
            conductors=self.conductors,
            p_kw=p_kw,
            q_kvar=q_kvar,
            state=LinearState(v[seen.node_at], a[:n_conductor], (v_head @ a_head.conj()) / 1000.0),
            v_by_p=v_by_p[seen.node_at],
            v_by_q=v_by_q[seen.node_at],
            i_by_p=a_by_p[:n_conductor],
            i_by_q=a_by_q[:n_conductor],
            head_by_p=head(v_by_p, a_by_p),
            head_by_q=head(v_by_q, a_by_q),
        )


def linearise(
    network: Unloaded, p_kw: Floats, q_kvar: Floats, head: str, at: Complexes | None = None, exact: bool = False
) -> Linearisation:
    """One linearisation of everything at net consumption ``p_kw``, ``q_kvar`` (n_pod,): of `LinearNetwork.exact` at the
    node voltages ``at``, or of `LinearNetwork.fixed_voltages`."""
    model = LinearNetwork(network, head)
    return (model.exact if exact else model.fixed_voltages)(p_kw, q_kvar, at)


def operating_point(network: Unloaded, p_kw: Floats, q_kvar: Floats) -> Complexes:
    """Complex voltages of all nodes (n_node,) [V] at net consumption ``p_kw``, ``q_kvar`` (n_pod,) [kW, kvar].

    Raises PowerFlowError if the power flow does not converge.
    """
    flow = BatchPowerFlow(network, network.layout.nodes, [])
    return np.asarray(flow.solve(p_kw[np.newaxis], q_kvar[np.newaxis]).require_converged().v[0])


def relinearised(
    linearise_at: Callable[[Floats, Floats], Linearisation],
    respond: Callable[[Linearisation], tuple[Floats, Floats]],
    start: tuple[Floats, Floats],
    tolerance_pu: float = 1e-8,
) -> tuple[Linearisation, int]:
    """The outer loop around decisions taken on a linear model: linearise at the powers, let ``respond`` choose others
    (consumption (n_column,) [kW, kvar]), linearise there, until what the last model predicted for them and the power
    flow itself are within ``tolerance_pu`` of the no-load voltage at all nodes.

    ``linearise_at`` takes powers and gives a model whose ``state`` is that of the power flow there, e.g.
    `LinearNetwork.exact`. Returns the model at the last powers and the number of rounds. Raises PowerFlowError if it
    does not close.
    """
    model = linearise_at(*start)
    gap_pu = np.inf
    for round_ in range(1, MAX_OUTER + 1):
        p_kw, q_kvar = respond(model)
        predicted = model.predict(p_kw, q_kvar).v
        model = linearise_at(p_kw, q_kvar)
        gap_pu = float(np.max(np.abs(model.state.v - predicted) / np.abs(model.state.v), initial=0.0))
        if gap_pu <= tolerance_pu:
            return model, round_
    raise PowerFlowError(f"linear model and power flow are still {gap_pu:.1e} pu apart after {MAX_OUTER} rounds")


@dataclass(frozen=True)
class LoadGap:
    """How far a model with voltages fixed at no load is from loads as they are, at one point: largest and mean gap of
    the sensitivities of voltages and of currents, over the largest of each POD [1], and largest gap of the predicted
    voltages [of those] and currents [over the largest]."""

    v_slope_largest: float
    v_slope_mean: float
    i_slope_largest: float
    i_slope_mean: float
    v_largest: float
    i_largest: float


def gap_to_loads(model: LinearNetwork, p_kw: Floats, q_kvar: Floats) -> LoadGap:
    """The gap at net consumption ``p_kw``, ``q_kvar`` (n_column,) [kW, kvar]."""
    fixed, exact = model.fixed_voltages(p_kw, q_kvar), model.exact(p_kw, q_kvar)
    v = _relative(np.hstack([fixed.v_by_p, fixed.v_by_q]), np.hstack([exact.v_by_p, exact.v_by_q]))
    i = _relative(np.hstack([fixed.i_by_p, fixed.i_by_q]), np.hstack([exact.i_by_p, exact.i_by_q]))
    return LoadGap(
        v_slope_largest=float(v.max()),
        v_slope_mean=float(v.mean()),
        i_slope_largest=float(i.max()),
        i_slope_mean=float(i.mean()),
        v_largest=float((np.abs(fixed.state.v - exact.state.v) / np.abs(exact.state.v)).max()),
        i_largest=float(np.abs(fixed.state.i_a - exact.state.i_a).max() / np.abs(exact.state.i_a).max()),
    )


def _relative(found: Complexes, true: Complexes) -> Floats:
    """Size of the difference (n_row, n_column) over the largest true value of the column."""
    return np.asarray(np.abs(found - true) / np.abs(true).max(axis=0))


def response_system(reduction: Reduction, s_va: Complexes, u: Complexes) -> Floats:
    """(2 n_row, 2 n_row), real parts first: turns the changes of the branches' currents [VA] into those that they would
    make at fixed voltages, for branches set to ``s_va`` (n_row,) [VA] at voltages ``u`` (n_row,) [of rated]."""
    u2 = u.real**2 + u.imag**2
    g, slope = (each[:, 0] for each in reduction.law.factor_and_slope(u2[:, None]))
    m, n = s_va.conj() * (g + 0.5 * slope), s_va.conj() * (0.5 * slope) * u**2 / u2
    linear, conjugate = m[:, None] * reduction.z, n[:, None] * reduction.z.conj()
    system = _quarters(
        linear.real + conjugate.real,
        conjugate.imag - linear.imag,
        linear.imag + conjugate.imag,
        linear.real - conjugate.real,
    )
    system.flat[:: len(system) + 1] += 1.0
    return system


def _quarters(top_left: Floats, top_right: Floats, below_left: Floats, below_right: Floats) -> Floats:
    """One array of four of the same shape."""
    n, m = top_left.shape
    whole = np.empty((2 * n, 2 * m))
    whole[:n, :m], whole[:n, m:] = top_left, top_right
    whole[n:, :m], whole[n:, m:] = below_left, below_right
    return whole
