"""The load flow as the estimator sees it: net consumption per site in, meter readings and the grid's state out.

Sites draw constant power at any voltage: right for the state of one instant, whatever the loads' laws, since what they
draw is what is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.linalg.lapack import dgesv

from cosim.domain.frames import Complexes, Floats
from cosim.domain.measurement import Channel
from cosim.domain.site import bus_of_site, site_sums, sites_of
from cosim.errors import Fault, InputError, PowerFlowError
from cosim.grid.batch import MAX_ITERATIONS, TOLERANCE_PU, BatchPowerFlow
from cosim.grid.feeder import Feeder
from cosim.grid.law import CONSTANT_POWER
from cosim.grid.reduction import Reduction, conductors_of
from cosim.grid.unloaded import Unloaded

_POWERS = ("p_kw", "q_kvar")
_POINTS_KEPT = 4  # an estimate is asked for its readings, its state and its slope, one after the other
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
        self._readings = _Readings(network, pod_sites, channels)
        self._enter(network)

    def at(self, network: Unloaded) -> SiteFlow:
        """The same sites and meters in the network at another position of taps, capacitors and switches."""
        other = copy(self)
        other._enter(network)
        return other

    def _enter(self, network: Unloaded) -> None:
        branches = tuple(replace(branch, law=CONSTANT_POWER) for branch in network.pod_branches)
        self._network = replace(network, pod_branches=branches)
        self._batch: BatchPowerFlow | None = None
        everything = np.arange(len(self._layout.conductors))
        self._reduction = Reduction(self._network, self._layout.nodes, everything, self._spread)
        self._share_va = self._reduction.share_va.toarray()
        self._metered = self._readings.look_at(self._reduction)
        self._point_at = lru_cache(_POINTS_KEPT)(self._new_point)

    def predict(self, p_kw: Floats, q_kvar: Floats) -> Floats:
        """Readings of all channels (n_case, n_channel) at net consumption (n_case, n_site) [kW, kvar].

        A case whose load flow has no answer is a row of NaN; channels at storage units are columns of NaN.
        """
        if len(p_kw) == 1:
            return self._read(self._point(p_kw[0], q_kvar[0]), p_kw[0], q_kvar[0])[np.newaxis]
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
        reading = self._read(point, p_kw, q_kvar)
        if not point.answered:
            return reading, np.full((len(reading), 2 * len(self.sites)), np.nan)
        return reading, self._readings.slope(self._metered, point)

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
        return point.by_inputs(by_volt[:, np.newaxis] * seen.response)

    def _point(self, p_kw: Floats, q_kvar: Floats) -> _Point:
        return self._point_at(np.array([p_kw, q_kvar], dtype=np.float64).tobytes())

    def _new_point(self, power: bytes) -> _Point:
        return _Point(self._reduction.u0, self._reduction.z, self._share_va, *np.frombuffer(power).reshape(2, -1))

    def _read(self, point: _Point, p_kw: Floats, q_kvar: Floats) -> Floats:
        return self._readings.of(p_kw, q_kvar, *self._metered.at(point))

    def _cause(self, point: _Point) -> str:
        """Why there is no answer."""
        row = int(np.argmax(np.abs(point.s_va)))
        pods = ", ".join(self._network.pods[k] for k in self._reduction.share[row].indices)
        power = f"{point.s_va[row].real / 1000.0:.1f} kW, {point.s_va[row].imag / 1000.0:.1f} kvar"
        return f"not converged in {MAX_ITERATIONS} iterations; largest power in a phase {power} at POD {pods}"


class _Point:
    """The load flow at one point: ``s_va``, ``i`` (n_branch,) powers and currents [VA] of the branches, as in
    `cosim.grid.reduction`; NaN if it is not ``answered``."""

    def __init__(self, u0: Complexes, z: Complexes, share_va: Floats, p_kw: Floats, q_kvar: Floats) -> None:
        self._z, self._share_va = z, share_va
        self.s_va: Complexes = share_va @ p_kw + 1j * (share_va @ q_kvar)
        self._u = _voltages(u0, z, self.s_va)
        self.answered = bool(np.isfinite(self._u).all())
        self.i: Complexes = (self.s_va / self._u).conj() if self.answered else self._u

    def by_inputs(self, by_current: Complexes) -> Floats:
        """Derivatives by the inputs' p, then q (n_row, 2 n_input) of quantities that change by the real part of
        ``by_current`` (n_row, n_branch) times the change of the branches' currents."""
        changes = np.hstack([by_current.real, -by_current.imag])
        # di + n conj(du) is what it would be at fixed voltages, where du = -z di and n = conj(s / u^2).
        system = _of_conjugate((-(self.s_va / self._u**2)[:, np.newaxis] * self._z).conj())
        system.ravel()[:: len(system) + 1] += 1.0
        # Rows in C order are columns to LAPACK: it solves with the transposed system.
        _, _, adjoint, _ = dgesv(system.T, changes.T, overwrite_a=1, overwrite_b=1)
        return np.asarray(adjoint.T @ _of_conjugate(self._share_va / self._u.conj()[:, np.newaxis]))


def _of_conjugate(factor: Complexes) -> Floats:
    """(2 n_row, 2 n_column), real parts first: what ``factor`` (n_row, n_column) does to the conjugate of a vector."""
    n_row, n_column = factor.shape
    real = np.empty((2 * n_row, 2 * n_column))
    real[:n_row, :n_column], real[n_row:, n_column:] = factor.real, -factor.real
    real[:n_row, n_column:] = real[n_row:, :n_column] = factor.imag
    return real


def _voltages(u0: Complexes, z: Complexes, s_va: Complexes) -> Complexes:
    """Voltages of branches [of rated] that draw ``s_va`` at any voltage, by ``u = u0 - z conj(s / u)``, NaN without an
    answer: the iteration of `cosim.grid.batch` for a single case, which goes on for as long as it gains anything."""
    u, size = u0, np.inf
    with np.errstate(all="ignore"):  # a hopeless case runs to infinity
        for _ in range(MAX_ITERATIONS):
            before, u = u, u0 - z @ (s_va / u).conj()
            size = float(np.abs(u - before).max(initial=0.0))
            if not SETTLED_PU < size < np.inf:
                break
    return u if size <= TOLERANCE_PU else np.full_like(u0, np.nan)


@dataclass(frozen=True)
class _Metered:
    """What meters look at, by the currents of the branches: ``at_rest - response @ i`` (n_seen,). First the voltages of
    nodes of ``v_base`` (n_node,) [V], then those of conductors [V], then the currents of these [A]."""

    at_rest: Complexes
    response: Complexes
    v_base: Floats

    def values(self, point: _Point) -> tuple[Complexes, Complexes, Complexes]:
        """Voltages of nodes, voltages and currents of conductors."""
        seen, n_node = self.at_rest - self.response @ point.i, len(self.v_base)
        half = (len(seen) + n_node) // 2
        return seen[:n_node], seen[n_node:half], seen[half:]

    def at(self, point: _Point) -> tuple[Floats, Complexes, Floats]:
        """Voltages of nodes [pu], powers [kVA] and currents [A] of conductors."""
        v_node, v, i = self.values(point)
        return np.abs(v_node) / self.v_base, v * i.conj() / 1000.0, np.abs(i)


class _Readings:
    """What meters read, as weights (n_channel, n_source) on what the load flow gives: on the sites' p and q, on the
    voltages of ``nodes``, and for the conductors of ``terminals`` on their active and reactive powers and currents. Of
    a branch as a whole the current of its highest-loaded conductor is read: ``_highest`` lists channels, their rows
    among those of flows, and conductors.
    """

    def __init__(self, network: Unloaded, pod_sites: Sequence[str], channels: Sequence[Channel]) -> None:
        self.terminals = tuple(dict.fromkeys(terminal_of(c) for c in channels if c.place.branch is not None))
        _refuse(network, self.terminals, pod_sites, channels)
        buses = {c.place.bus or c.place.end for c in channels if c.quantity == "vm_pu"}
        self._node_at = [k for k, node in enumerate(network.layout.nodes) if node.rpartition(".")[0] in buses]
        self.nodes = tuple(network.layout.nodes[k] for k in self._node_at)
        self._conductors, _ = conductors_of(network, self.terminals)
        self._unpredicted = [k for k, channel in enumerate(channels) if channel.place.storage is not None]
        sites = [{site, bus_of_site(site)} for site in sites_of(pod_sites)]
        flows = [_keys(network.layout.conductors[k]) for k in self._conductors]
        self._by_site = np.hstack([_weights(channels, quantity, sites, at_bus=True) for quantity in _POWERS])
        by_v = _weights(channels, "vm_pu", [_keys(node) for node in self.nodes])
        by_v /= np.maximum(by_v.sum(axis=1, keepdims=True), 1.0)
        by_p, by_q, by_i = (_weights(channels, quantity, flows, at_bus=False) for quantity in (*_POWERS, "i_a"))
        v, flow = np.flatnonzero(by_v.any(axis=1)), np.flatnonzero(np.hstack([by_p, by_q, by_i]).any(axis=1))
        self._rows = np.concatenate([v, flow])
        whole = [k for k, c in enumerate(channels) if c.quantity == "i_a" and c.place.phase is None]
        self._highest = [(k, np.flatnonzero(flow == k)[0], np.flatnonzero(by_i[k])) for k in whole]
        by_i[whole] = 0.0
        self._weights = np.hstack([self._by_site, by_v, by_p, by_q, by_i]).T.copy()
        self._by_v, self._by_i, self._by_s_kva = by_v[v], by_i[flow], (by_p[flow] - 1j * by_q[flow]) / 1000.0

    def look_at(self, reduction: Reduction) -> _Metered:
        """What these meters look at in a network of which ``reduction`` sees every node and conductor."""
        at, y = reduction.conductor_at[self._conductors], reduction.conductor_y[self._conductors]
        v0, response = reduction.v0, reduction.response
        return _Metered(
            np.concatenate([v0[self._node_at], v0[at], y @ v0]),
            np.concatenate([response[self._node_at], response[at], y @ response]),
            reduction.v_base[self._node_at],
        )

    def of(self, p_kw: Floats, q_kvar: Floats, vm_pu: Floats, s_kva: Complexes, i_a: Floats) -> Floats:
        """Readings (..., n_channel) from arrays (..., n_source)."""
        readings = np.concatenate([p_kw, q_kvar, vm_pu, s_kva.real, s_kva.imag, i_a], axis=-1) @ self._weights
        for channel, _, conductors in self._highest:
            readings[..., channel] = i_a[..., conductors].max(axis=-1)
        readings[..., self._unpredicted] = np.nan
        return np.asarray(readings)

    def slope(self, metered: _Metered, point: _Point) -> Floats:
        """Derivatives (n_channel, 2 n_site) at a point of the load flow."""
        v_node, v, i = metered.values(point)
        i_a, n_node = np.abs(i), len(v_node)
        by_i_a = self._by_i.copy()
        for _, row, conductors in self._highest:
            by_i_a[row, conductors[i_a[conductors].argmax()]] = 1.0
        along_i = np.divide(i.conj(), i_a, out=np.zeros_like(i), where=i_a > 0.0)
        by_v_node = self._by_v * (v_node.conj() / np.abs(v_node) / metered.v_base)
        by_v = self._by_s_kva * i.conj()  # d(v i*) = i* dv + v di*
        by_i = self._by_s_kva.conj() * v.conj() + by_i_a * along_i
        of_node, of_flow = by_v_node @ metered.response[:n_node], np.hstack([by_v, by_i]) @ metered.response[n_node:]
        slope = self._by_site.copy()
        slope[self._rows] -= point.by_inputs(np.concatenate([of_node, of_flow]))
        slope[self._unpredicted] = np.nan
        return slope


def terminal_of(channel: Channel) -> str:
    """``branch@BUS`` of a channel measured in a branch."""
    return f"{channel.place.branch}@{channel.place.end}"


def _key(channel: Channel) -> str:
    """Where a channel measures, with its phase if it is one."""
    place = channel.place
    flow = place.branch is not None and channel.quantity != "vm_pu"
    where = terminal_of(channel) if flow else str(place.bus or place.end)
    return where if place.phase is None else f"{where}.{place.phase}"


def _keys(name: str) -> set[str]:
    """The keys of a node or conductor: itself, and all phases."""
    return {name, name.rpartition(".")[0]}


def _weights(
    channels: Sequence[Channel], quantity: str, sources: Sequence[set[str]], at_bus: bool | None = None
) -> Floats:
    """(n_channel, n_source): 1 where a channel of ``quantity``, not at a storage unit, has one of the source's keys;
    ``at_bus`` for channels at buses or in branches alone."""
    weights = np.zeros((len(channels), len(sources)))
    for k, channel in enumerate(channels):
        place = channel.place
        if channel.quantity == quantity and place.storage is None and at_bus in (None, place.bus is not None):
            weights[k] = [_key(channel) in keys for keys in sources]
    return weights


def _refuse(network: Unloaded, terminals: Sequence[str], pod_sites: Sequence[str], channels: Sequence[Channel]) -> None:
    """Raises InputError with all meters that cannot be where they are said to be."""
    faults = [*_unknown_places(network, terminals, channels), *_inseparable(network, pod_sites, channels)]
    if faults:
        raise InputError(tuple(dict.fromkeys(faults)))


def _unknown_places(network: Unloaded, terminals: Sequence[str], channels: Sequence[Channel]) -> Iterator[Fault]:
    layout = network.layout
    known = {key for name in (*layout.nodes, *layout.conductors) for key in _keys(name)}
    for channel in channels:
        if channel.place.storage is None and _key(channel) not in known:
            whole = _key(replace(channel, place=replace(channel.place, phase=None)))
            phases = ", ".join(name for name in (*layout.nodes, *layout.conductors) if whole in _keys(name))
            yield Fault(
                "the grid has no such place", key=f"meters.{channel.meter}", value=_key(channel), allowed=phases
            )


def _inseparable(network: Unloaded, pod_sites: Sequence[str], channels: Sequence[Channel]) -> Iterator[Fault]:
    for channel in channels:
        place = channel.place
        if place.bus is not None and place.phase is not None and channel.quantity in _POWERS:
            for pod, site in zip(network.pods, pod_sites, strict=True):
                if bus_of_site(site) == place.bus and site.count(".") != 1:
                    problem = f"the power of one phase is metered, but POD {pod} is not between a phase and ground"
                    yield Fault(problem, key=f"meters.{channel.meter}", value=f"{place}")


def _spread(feeder: Feeder, pod_sites: Sequence[str]) -> Floats:
    """(n_pod, n_site) shares of each site's power."""
    sums = site_sums(pod_sites)
    weight = sums * np.array([[pod.kw if pod.kind == "load" else 0.0] for pod in feeder.pods.values()])
    weight = np.where(weight.sum(axis=0) > 0.0, weight, sums)
    return np.asarray(weight / weight.sum(axis=0))
