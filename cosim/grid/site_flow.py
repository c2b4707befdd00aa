"""The load flow as the estimator sees it: net consumption per site in, meter readings and the grid's state out.

Sites draw constant power at any voltage: right for the state of one instant, whatever the loads' laws, since what they
draw is what is looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.linalg.lapack import dgesv

from cosim.domain.frames import Complexes, Floats
from cosim.domain.measurement import Channel
from cosim.domain.site import site_sums, sites_of
from cosim.errors import PowerFlowError
from cosim.grid.batch import MAX_ITERATIONS, TOLERANCE_PU, BatchPowerFlow
from cosim.grid.feeder import Feeder
from cosim.grid.law import CONSTANT_POWER
from cosim.grid.readings import Readings
from cosim.grid.reduction import Reduction, conductors_of
from cosim.grid.unloaded import Unloaded

_POINTS_KEPT = 4  # an estimate is asked for its readings, its state and its slope, one after the other
_OF_CURRENT, _OF_VOLTAGE = np.array([[-1.0], [-1j]]), np.array([[1.0], [-1j]])  # for p, for q
_UNSEEN = 4  # rounds before the first look whether a case has settled: fewer are hardly ever enough
SETTLED_PU = 1e-13
"""Last step of the iteration for a single case [pu]: the estimator compares readings at points that lie less than a
millionth of what meters tell apart, and a step costs little."""


@dataclass(frozen=True)
class SiteStates:
    """States of all cases: ``vm_pu`` (n_case, n_node), ``loading_pu`` (n_case, n_branch), ``head_p_kw``,
    ``head_q_kvar`` (n_case,)."""

    vm_pu: Floats
    loading_pu: Floats
    head_p_kw: Floats
    head_q_kvar: Floats


class SiteFlow:
    """Load flow over sites, at one position of taps and capacitors. A site's power is spread over its loads in
    proportion to their kW (over all its PODs evenly, if it has no load): that fixes how it is shared by the phases.

    Raises InputError naming each meter whose node or conductor does not exist, or that should tell the phases of a bus
    apart where PODs connect otherwise than from a phase to ground.
    """

    def __init__(
        self, network: Unloaded, feeder: Feeder, pod_sites: Sequence[str], channels: Sequence[Channel]
    ) -> None:
        self.sites, self._layout = sites_of(pod_sites), network.layout
        self._head, _ = conductors_of(network, [feeder.head_terminal])
        self._spread = _spread(feeder, pod_sites)
        self._readings = Readings(network, pod_sites, channels)
        self._enter(network)

    def at(self, network: Unloaded) -> SiteFlow:
        """The same sites and meters in the network at another position of taps, capacitors and switches."""
        other = copy(self)
        other._enter(network)
        return other

    def _enter(self, network: Unloaded) -> None:
        branches = tuple(replace(branch, law=CONSTANT_POWER) for branch in network.pod_branches)
        self._network = replace(network, pod_branches=branches, unknown_laws=())
        self._batch: BatchPowerFlow | None = None
        everything = np.arange(len(self._layout.conductors))
        self._reduction = Reduction(self._network, self._layout.nodes, everything, self._spread)
        self._share_va, self._conj_z = self._reduction.share_va.toarray(), self._reduction.z.conj()
        self._metered = self._readings.look_at(self._reduction)
        self._point_at = lru_cache(_POINTS_KEPT)(self._new_point)

    def predict(self, p_kw: Floats, q_kvar: Floats) -> Floats:
        """Readings of all channels (n_case, n_channel) at net consumption (n_case, n_site) [kW, kvar].

        A case whose load flow has no answer is a row of NaN; channels at storage units are columns of NaN.
        """
        if len(p_kw) == 1:
            seen = self._metered.seen(self._point(p_kw[0], q_kvar[0]).i)
            return self._readings.of(p_kw[0], q_kvar[0], *self._metered.split(seen))[np.newaxis]
        if self._batch is None:
            self._batch = BatchPowerFlow(self._network, self._readings.nodes, self._readings.terminals, self._spread)
        state = self._batch.solve(p_kw, q_kvar)
        readings = self._readings.of(p_kw, q_kvar, state.vm_pu, state.s_kva, state.conductor_i_a)
        readings[list(state.failures)] = np.nan
        return readings

    def linearised(self, p_kw: Floats, q_kvar: Floats) -> tuple[Floats, Floats]:
        """The readings (n_channel,) at one point (n_site,) and their exact derivatives (n_channel, 2 n_site) by
        ``[p_kw of all sites, q_kvar of all sites]``; NaN as in `predict`."""
        point = self._point(p_kw, q_kvar)
        seen = self._metered.seen(point.i)
        reading = self._readings.of(p_kw, q_kvar, *self._metered.split(seen))
        if not point.answered:
            return reading, np.full((len(reading), 2 * len(self.sites)), np.nan)
        slope = self._readings.by_site.copy()
        slope[self._readings.rows] += self._by_inputs(point, self._metered.entries.by_current(seen))
        return reading, slope

    def states(self, p_kw: Floats, q_kvar: Floats) -> SiteStates:
        """States of the whole grid at net consumption (n_case, n_site) [kW, kvar].

        Raises PowerFlowError naming a case whose load flow has no answer.
        """
        points = [self._point(p, q) for p, q in zip(p_kw, q_kvar, strict=True)]
        for case, point in enumerate(points):
            if not point.answered:
                raise PowerFlowError(f"load flow of sites: case {case}: {self._cause(point)}")
        v = np.stack([self._reduction.v0 - self._reduction.response @ point.i for point in points])
        i = (self._reduction.conductor_y @ v.T).T
        head_kva = np.sum(v[:, self._reduction.conductor_at[self._head]] * i[:, self._head].conj(), axis=1) / 1000.0
        return SiteStates(
            vm_pu=np.abs(v) / self._reduction.v_base,
            loading_pu=self._layout.loading_pu(self._layout.highest_a(np.abs(i))),
            head_p_kw=head_kva.real,
            head_q_kvar=head_kva.imag,
        )

    def voltage_slope(self, p_kw: Floats, q_kvar: Floats) -> Floats:
        """Derivatives of the voltage magnitudes of all nodes at one point (n_site,), (n_node, 2 n_site) [pu per kW and
        kvar], by ``[p_kw of all sites, q_kvar of all sites]``; NaN where the load flow has no answer."""
        point, seen = self._point(p_kw, q_kvar), self._reduction
        if not point.answered:
            return np.full((len(self._layout.nodes), 2 * len(self.sites)), np.nan)
        v = seen.v0 - seen.response @ point.i
        by_volt = -v.conj() / np.abs(v) / seen.v_base
        return self._by_inputs(point, by_volt[:, np.newaxis] * seen.response)

    def _point(self, p_kw: Floats, q_kvar: Floats) -> _Point:
        return self._point_at(np.array([p_kw, q_kvar], dtype=np.float64).tobytes())

    def _new_point(self, power: bytes) -> _Point:
        p_kw, q_kvar = np.frombuffer(power).reshape(2, -1)
        s_va = self._share_va @ p_kw + 1j * (self._share_va @ q_kvar)
        u = _voltages(self._reduction.u0, self._reduction.z, s_va)
        answered = bool(np.isfinite(u).all())
        return _Point(s_va, u, (s_va / u).conj() if answered else u, answered)

    def _by_inputs(self, point: _Point, by_current: Complexes) -> Floats:
        """Derivatives by the sites' p, then q (n_row, 2 n_site) of quantities that change by the real part of
        ``by_current`` (n_row, n_branch) times the change of the branches' currents.

        Powers are ``s = u conj(i)`` with ``u = u0 - z i``, so that they change by ``ds = u conj(di) - conj(i) z di``.
        """
        n_row, n_branch = by_current.shape
        # What changes of currents [real, imaginary part of each] do to [all p, all q]; as complex pairs.
        system = (_OF_CURRENT * point.i)[:, :, np.newaxis] * self._conj_z
        np.einsum("pkk->pk", system)[...] += _OF_VOLTAGE * point.u
        # Rows in C order are columns to LAPACK: it solves with the transposed system.
        transposed = system.view(np.float64).reshape(2 * n_branch, -1).T
        _, _, by_power, _ = dgesv(transposed, by_current.conj().view(np.float64).T, overwrite_a=1, overwrite_b=1)
        return np.asarray(by_power.T.reshape(-1, n_branch) @ self._share_va).reshape(n_row, 2 * len(self.sites))

    def _cause(self, point: _Point) -> str:
        """Why there is no answer."""
        row = int(np.argmax(np.abs(point.s_va)))
        pods = ", ".join(self._network.pods[k] for k in self._reduction.share[row].indices)
        power = f"{point.s_va[row].real / 1000.0:.1f} kW, {point.s_va[row].imag / 1000.0:.1f} kvar"
        return f"not converged in {MAX_ITERATIONS} iterations; largest power in a phase {power} at POD {pods}"


@dataclass(frozen=True)
class _Point:
    """The load flow at one point: ``s_va``, ``u``, ``i`` (n_branch,) powers [VA], voltages [of rated] and currents [VA]
    of the branches, as in `cosim.grid.reduction`; NaN if it is not ``answered``."""

    s_va: Complexes
    u: Complexes
    i: Complexes
    answered: bool


def _voltages(u0: Complexes, z: Complexes, s_va: Complexes) -> Complexes:
    """Voltages of branches [of rated] that draw ``s_va`` at any voltage, by ``u = u0 - z conj(s / u)``, NaN without an
    answer: the iteration of `cosim.grid.batch` for a single case, which goes on for as long as it gains anything."""
    u, size = u0, np.inf
    with np.errstate(all="ignore"):  # a hopeless case runs to infinity
        for round_ in range(MAX_ITERATIONS):
            before, u = u, u0 - z @ (s_va / u).conj()
            if round_ >= _UNSEEN:
                size = np.maximum.reduce(np.abs(u - before), initial=0.0)
                if not SETTLED_PU < size < np.inf:
                    break
    return u if size <= TOLERANCE_PU else np.full_like(u0, np.nan)


def _spread(feeder: Feeder, pod_sites: Sequence[str]) -> Floats:
    """(n_pod, n_site) shares of each site's power."""
    sums = site_sums(pod_sites)
    weight = sums * np.array([[pod.kw if pod.kind == "load" else 0.0] for pod in feeder.pods.values()])
    weight = np.where(weight.sum(axis=0) > 0.0, weight, sums)
    return np.asarray(weight / weight.sum(axis=0))
