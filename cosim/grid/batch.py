"""Batch power flow: many vectors of POD powers at once on the engine's own system matrix.

Fixed-point current injection (implicit Z-bus Gauss): with the system matrix Y of everything but the PODs and the
no-load voltages V0, every iteration sets ``V = V0 - Z I(V)``, ``I`` by the loads' laws (`cosim.grid.law`), Z reduced to
the POD branches once. Columns of one matrix are the cases. Source: T.-H. Chen et al., "Distribution system power flow
analysis - a rigid approach", IEEE Trans. Power Delivery 6(3), 1991 (Z-bus Gauss method).

Taps and capacitors stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.sparse

from cosim.domain.frames import Complexes, Floats, Ints
from cosim.errors import PowerFlowError
from cosim.grid.law import LoadLaw, VoltageLaw
from cosim.grid.reduction import Reduction, conductors_of
from cosim.grid.unloaded import Unloaded

TOLERANCE_PU = 1e-10
"""Last step of the iteration [pu]. The error left is the step times r / (1 - r), r being how much smaller each step is
than the one before: below 1e-8 up to r = 0.99."""
MAX_ITERATIONS = 100
_UNSEEN = 4  # rounds before the first look whether a case has converged: fewer are hardly ever enough
_BLOCK = 1 << 15  # numbers in an array that is worked on at once: a few of them fit the cache


@dataclass(frozen=True)
class BatchState:
    """States of all cases at the nodes and terminals observed; a case that has no answer is a row of NaN.

    ``v`` (n_case, n_node) complex voltages [V]; ``s_kva``, ``conductor_i_a`` (n_case, n_conductor) power and current
    into the branch of the conductors of the terminals, in terminal order; ``terminal_start`` (n_terminal,) the first of
    each. ``failures`` gives the cause for each case without an answer.
    """

    v: Complexes
    v_base: Floats
    s_kva: Complexes
    conductor_i_a: Floats
    terminal_start: Ints
    failures: Mapping[int, str]

    @cached_property
    def vm_pu(self) -> Floats:
        """(n_case, n_node)."""
        return np.sqrt(self.v.real**2 + self.v.imag**2) / self.v_base

    @cached_property
    def p_kw(self) -> Floats:
        """Into the branch at each terminal (n_case, n_terminal)."""
        return self._terminal_kva.real

    @cached_property
    def q_kvar(self) -> Floats:
        """Into the branch at each terminal (n_case, n_terminal)."""
        return self._terminal_kva.imag

    @cached_property
    def i_a(self) -> Floats:
        """Of the highest-loaded phase at each terminal (n_case, n_terminal)."""
        first, last = self.terminal_start, self._terminal_end - 1
        i_a = self.conductor_i_a.T  # cases lie next to each other in memory
        highest: Floats = i_a[first]
        for k in range(1, int((last - first).max(initial=0)) + 1):
            np.maximum(highest, i_a[np.minimum(first + k, last)], out=highest)
        return highest.T

    @cached_property
    def _terminal_kva(self) -> Complexes:
        n_conductor = self.s_kva.shape[1]
        ends = np.append(self.terminal_start, n_conductor)
        shape = (len(self.terminal_start), n_conductor)
        sums = scipy.sparse.csr_matrix((np.ones(n_conductor), np.arange(n_conductor), ends), shape=shape)
        return np.asarray(sums @ self.s_kva.T).T

    @property
    def _terminal_end(self) -> Ints:
        return np.append(self.terminal_start[1:], self.s_kva.shape[1])[: len(self.terminal_start)]

    def require_converged(self) -> Self:
        """Itself; raises PowerFlowError naming the first case without an answer and the cause."""
        if self.failures:
            case, cause = next(iter(self.failures.items()))
            more = f" (and {len(self.failures) - 1} more cases)" if len(self.failures) > 1 else ""
            raise PowerFlowError(f"batch power flow: case {case}: {cause}{more}")
        return self


def _blocks(n_case: int, n_row: int) -> Iterator[slice]:
    """Cases to be worked on together so that their arrays (n_row, n_case) fit the cache."""
    size = max(16, _BLOCK // max(1, n_row))
    return (slice(first, first + size) for first in range(0, n_case, size))


class FixedPoint:
    """The iteration for the phase branches of a reduced network.

    Branches that differ in the limits of their laws alone are taken together first. Only cases in which one of them
    turns out to be beyond its limits are iterated with all branches and limits.
    """

    def __init__(self, reduction: Reduction) -> None:
        branches, self._law = reduction.branches, reduction.law
        self._all = _Iteration(reduction.u0, reduction.z, reduction.law)
        row_of: dict[tuple[object, ...], int] = {}
        self._together = [row_of.setdefault((b.nodes, b.v_rated, b.law.exponent), len(row_of)) for b in branches]
        one_of = np.array([self._together.index(row) for row in range(len(row_of))], dtype=np.int64)
        without_limits = [replace(branches[k], law=VoltageLaw(branches[k].law.exponent)) for k in one_of]
        z = reduction.z[np.ix_(one_of, one_of)]
        self._limitless = _Iteration(reduction.u0[one_of], z, LoadLaw(without_limits))
        places = np.ones(len(branches)), (self._together, np.arange(len(branches)))
        self._sums = scipy.sparse.csr_matrix(places, shape=(len(row_of), len(branches)))
        within = not self._law.outside(np.abs(reduction.u0[:, np.newaxis]) ** 2).any()
        self._worth_it = within and len(row_of) < len(branches)

    def currents(self, p_va: Floats, q_va: Floats) -> tuple[Complexes, npt.NDArray[np.bool_]]:
        """Currents (n_row, n_case) [VA] of branches set to ``p_va``, ``q_va`` (n_row, n_case), NaN in cases without an
        answer, and which have one (n_case,)."""
        with np.errstate(all="ignore"):  # hopeless cases run to infinity
            u = self._voltages(p_va, q_va)
            i = _drawn(self._law, p_va, q_va, u)
        return i[: len(p_va)] + 1j * i[len(p_va) :], np.asarray(np.isfinite(u).all(axis=0))

    def _voltages(self, p_va: Floats, q_va: Floats) -> Floats:
        if not self._worth_it:
            return self._all.voltages(p_va, q_va)
        u = self._limitless.voltages(self._sums @ p_va, self._sums @ q_va)
        n_together = len(u) // 2
        u = np.concatenate([u[:n_together][self._together], u[n_together:][self._together]])
        beyond = ~self._law.within(u[: len(p_va)] ** 2 + u[len(p_va) :] ** 2)
        if beyond.any():
            u[:, beyond] = self._all.voltages(p_va[:, beyond], q_va[:, beyond])
        return u


class _Iteration:
    """Voltages of branches by ``u = u0 - z i(u)``; all arrays hold real parts first, (2 n_row, n_case)."""

    def __init__(self, u0: Complexes, z: Complexes, law: LoadLaw) -> None:
        self._law = law
        self._u0 = np.concatenate([u0.real, u0.imag])[:, np.newaxis]
        self._z = np.block([[z.real, -z.imag], [z.imag, z.real]])

    def voltages(self, p_va: Floats, q_va: Floats) -> Floats:
        """Of branches set to ``p_va``, ``q_va`` (n_row, n_case); NaN in cases without an answer."""
        found = np.full((len(self._u0), p_va.shape[1]), np.nan)
        left = np.arange(p_va.shape[1])  # cases still iterated
        p_left, q_left, u = p_va, q_va, np.repeat(self._u0, len(left), axis=1)
        for round_ in range(1, MAX_ITERATIONS + 1):
            step = self._z @ _drawn(self._law, p_left, q_left, u)
            np.subtract(self._u0, step, out=step)
            if round_ < _UNSEEN:
                u = step
                continue
            u, step = step, np.subtract(step, u, out=u)
            size = np.abs(step, out=step).max(axis=0, initial=0.0)
            moving = (size > TOLERANCE_PU) & (size < np.inf)
            if round_ == MAX_ITERATIONS or 2 * np.count_nonzero(moving) <= len(left):
                still = np.flatnonzero(size <= TOLERANCE_PU)
                found[:, left[still]] = u[:, still]
                p_left, q_left, u, left = p_left[:, moving], q_left[:, moving], u[:, moving], left[moving]
            if not left.size:
                break
        return found


def _drawn(law: LoadLaw, p_va: Floats, q_va: Floats, u: Floats) -> Floats:
    """Currents of branches at voltages ``u``, both (2 n_row, n_case), real parts first."""
    real, imag = u[: len(p_va)], u[len(p_va) :]
    i, product = np.empty_like(u), np.empty_like(real)
    i_real, i_imag = i[: len(p_va)], i[len(p_va) :]
    u2 = np.multiply(real, real, out=i_real)
    u2 += np.multiply(imag, imag, out=product)
    g = law.factor(u2)
    np.multiply(p_va, real, out=i_real)
    i_real += np.multiply(q_va, imag, out=product)
    np.multiply(p_va, imag, out=i_imag)
    i_imag -= np.multiply(q_va, real, out=product)
    i_real *= g
    i_imag *= g
    return i


class BatchPowerFlow:
    """A linear network with PODs of any known load law, observed at chosen nodes and terminals.

    ``spread`` (n_pod, n_input) turns the powers given to `solve` into those of the PODs; by default they are the PODs'.
    """

    way = "matrix"

    def __init__(
        self, network: Unloaded, nodes: Sequence[str], terminals: Sequence[str], spread: Floats | None = None
    ) -> None:
        conductors, self._terminal_start = conductors_of(network, terminals)
        self._pods, self.reduction = network.pods, Reduction(network, nodes, conductors, spread)
        self.fixed_point = FixedPoint(self.reduction)

    def solve(self, p_kw: Floats, q_kvar: Floats) -> BatchState:
        """States at net consumption ``p_kw``, ``q_kvar`` (n_case, n_input) [kW, kvar]."""
        seen = self.reduction
        p_va, q_va = (np.ascontiguousarray(seen.share_va @ power.T) for power in (p_kw, q_kvar))
        n_case = p_va.shape[1]
        drawn, answered = np.empty(p_va.shape, dtype=np.complex128), np.empty(n_case, dtype=bool)
        for block in _blocks(n_case, len(p_va)):
            drawn[:, block], answered[block] = self.fixed_point.currents(p_va[:, block], q_va[:, block])
        v = np.empty((len(seen.node_at), n_case), dtype=np.complex128)
        s_kva = np.empty((len(seen.conductor_at), n_case), dtype=np.complex128)
        i_a = np.empty(s_kva.shape)
        for block in _blocks(n_case, max(len(seen.v0), len(i_a))):
            volts = seen.v0[:, np.newaxis] - seen.response @ drawn[:, block]
            v[:, block] = volts[seen.node_at]
            i = seen.conductor_y @ volts
            s_kva[:, block] = 1e-3 * volts[seen.conductor_at] * i.conj()
            i_a[:, block] = np.sqrt(i.real**2 + i.imag**2)
        return BatchState(
            v.T,
            seen.v_base,
            s_kva.T,
            i_a.T,
            self._terminal_start,
            {int(case): self._cause(p_va[:, case], q_va[:, case]) for case in np.flatnonzero(~answered)},
        )

    def _cause(self, p_va: Floats, q_va: Floats) -> str:
        """Why a case with these powers of the branches (n_row,) has no answer."""
        row = int(np.argmax(np.hypot(p_va, q_va)))
        pods = ", ".join(self._pods[k] for k in self.reduction.share[row].indices)
        power = f"{p_va[row] / 1000.0:.1f} kW, {q_va[row] / 1000.0:.1f} kvar"
        return f"not converged in {MAX_ITERATIONS} iterations; largest power in a phase {power} at POD {pods}"
