"""The load flow as the estimator sees it: net consumption per site in, meter readings and the grid's state out.

Sites draw constant power at any voltage: right for the state of one instant, whatever the loads' laws, since what they
draw is what is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from cosim.domain.frames import Complexes, Floats
from cosim.domain.measurement import Channel
from cosim.domain.site import bus_of_site, site_sums, sites_of
from cosim.errors import Fault, InputError
from cosim.grid.batch import BatchPowerFlow, FixedPoint
from cosim.grid.feeder import Feeder
from cosim.grid.law import CONSTANT_POWER
from cosim.grid.linear import response_system
from cosim.grid.reduction import Reduction, conductors_of
from cosim.grid.unloaded import Unloaded

_POWERS = ("p_kw", "q_kvar")


@dataclass(frozen=True)
class SiteStates:
    """States of all cases: ``vm_pu`` (n_case, n_node), ``loading_pu`` (n_case, n_branch), ``head_p_kw``,
    ``head_q_kvar`` (n_case,)."""

    vm_pu: Floats
    loading_pu: Floats
    head_p_kw: Floats
    head_q_kvar: Floats


class SiteFlow:
    """Batch load flow over sites, at one position of taps and capacitors. A site's power is spread over its loads in
    proportion to their kW (over all its PODs evenly, if it has no load): that fixes how it is shared by the phases.

    Raises InputError naming each meter whose node or conductor does not exist, or that should tell the phases of a bus
    apart where PODs connect otherwise than from a phase to ground.
    """

    def __init__(
        self, network: Unloaded, feeder: Feeder, pod_sites: Sequence[str], channels: Sequence[Channel]
    ) -> None:
        self.sites, self._n_channel = sites_of(pod_sites), len(channels)
        self._layout = network.layout
        self._head = network.layout.terminals.index(feeder.head_terminal)
        spread = _spread(feeder, pod_sites)
        branches = tuple(replace(branch, law=CONSTANT_POWER) for branch in network.pod_branches)
        constant = replace(network, pod_branches=branches)
        self._whole = BatchPowerFlow(constant, network.layout.nodes, network.layout.terminals, spread)
        self._readings = _Readings(constant, pod_sites, channels)
        self._predicted = BatchPowerFlow(constant, self._readings.nodes, self._readings.terminals, spread)

    def predict(self, p_kw: Floats, q_kvar: Floats) -> Floats:
        """Readings of all channels (n_case, n_channel) at net consumption (n_case, n_site) [kW, kvar].

        A case whose load flow has no answer is a row of NaN; channels at storage units are columns of NaN.
        """
        state = self._predicted.solve(p_kw, q_kvar)
        readings = self._readings.of(p_kw, q_kvar, state.vm_pu, state.s_kva, state.conductor_i_a)
        readings[list(state.failures)] = np.nan
        return readings

    def linearised(self, p_kw: Floats, q_kvar: Floats) -> tuple[Floats, Floats]:
        """The readings (n_channel,) at one point (n_site,) and their exact derivatives (n_channel, 2 n_site) by
        ``[p_kw of all sites, q_kvar of all sites]``; NaN as in `predict`."""
        point = _Point(self._predicted.reduction, self._predicted.fixed_point, p_kw, q_kvar)
        if point.answered:
            return self._readings.linearised(point, p_kw, q_kvar)
        return np.full(self._n_channel, np.nan), np.full((self._n_channel, 2 * len(self.sites)), np.nan)

    def states(self, p_kw: Floats, q_kvar: Floats) -> SiteStates:
        """States of the whole grid at net consumption (n_case, n_site) [kW, kvar].

        Raises PowerFlowError naming a case whose load flow has no answer.
        """
        state = self._whole.solve(p_kw, q_kvar).require_converged()
        return SiteStates(
            vm_pu=state.vm_pu,
            loading_pu=self._layout.loading_pu(state.i_a),
            head_p_kw=state.p_kw[:, self._head],
            head_q_kvar=state.q_kvar[:, self._head],
        )

    def voltage_slope(self, p_kw: Floats, q_kvar: Floats) -> Floats:
        """Derivatives of the voltage magnitudes of all nodes at one point (n_site,), (n_node, 2 n_site) [pu per kW and
        kvar], by ``[p_kw of all sites, q_kvar of all sites]``; NaN where the load flow has no answer."""
        point = _Point(self._whole.reduction, self._whole.fixed_point, p_kw, q_kvar)
        if not point.answered:
            return np.full((len(self._layout.nodes), 2 * len(self.sites)), np.nan)
        seen = self._whole.reduction
        v = point.v[seen.node_at]
        by_volt = v.conj() / np.abs(v) / seen.v_base
        return point.by_inputs(-by_volt[:, np.newaxis] * seen.response[seen.node_at])


class _Point:
    """The load flow at one point: ``v`` (n_seen,) [V], ``conductor_a`` (n_conductor,) [A] of a reduction."""

    def __init__(self, reduction: Reduction, fixed_point: FixedPoint, p_kw: Floats, q_kvar: Floats) -> None:
        self.reduction = reduction
        p_va, q_va = reduction.share_va @ p_kw, reduction.share_va @ q_kvar
        currents, answered = fixed_point.currents(p_va[:, np.newaxis], q_va[:, np.newaxis])
        self.answered = bool(answered[0])
        self._s_va, i = p_va + 1j * q_va, currents[:, 0]
        self._u = reduction.u0 - reduction.z @ i
        self.v: Complexes = reduction.v0 - reduction.response @ i
        self.conductor_a: Complexes = reduction.conductor_y @ self.v

    def by_inputs(self, by_current: Complexes) -> Floats:
        """Derivatives by the inputs' p, then q (n_row, 2 n_input) of quantities that change by the real part of
        ``by_current`` (n_row, n_branch) times the change of the branches' currents."""
        system = response_system(self.reduction, self._s_va, self._u)
        changes = np.hstack([by_current.real, -by_current.imag])
        factor = scipy.linalg.lu_factor(system, overwrite_a=True, check_finite=False)
        adjoint = scipy.linalg.lu_solve(factor, changes.T, trans=1, overwrite_b=True, check_finite=False)
        n_branch = len(self._u)
        of_real, of_imag = adjoint[:n_branch].T, adjoint[n_branch:].T
        own = 1.0 / self._u.conj()  # the change of a current with p; with q it is -j of that
        by_p = (of_real * own.real + of_imag * own.imag) @ self.reduction.share_va
        by_q = (of_real * own.imag - of_imag * own.real) @ self.reduction.share_va
        return np.hstack([by_p, by_q])


class _Readings:
    """What meters read, as weights (n_channel, n_source) on what the load flow gives: on the sites' p and q, on the
    voltages of ``nodes``, and for the conductors of ``terminals`` on their active and reactive powers and currents. Of
    a branch as a whole the current of its highest-loaded conductor is read: ``_highest`` lists channels and conductors.
    """

    def __init__(self, network: Unloaded, pod_sites: Sequence[str], channels: Sequence[Channel]) -> None:
        self.terminals = tuple(dict.fromkeys(terminal_of(c) for c in channels if c.place.branch is not None))
        _refuse(network, self.terminals, pod_sites, channels)
        buses = {c.place.bus or c.place.end for c in channels if c.quantity == "vm_pu"}
        self.nodes = tuple(node for node in network.layout.nodes if node.rpartition(".")[0] in buses)
        self._unpredicted = [k for k, channel in enumerate(channels) if channel.place.storage is not None]
        sites = [{site, bus_of_site(site)} for site in sites_of(pod_sites)]
        flows = [_keys(network.layout.conductors[k]) for k in conductors_of(network, self.terminals)[0]]
        self._by_p, self._by_q = (_weights(channels, quantity, sites, at_bus=True) for quantity in _POWERS)
        by_v = _weights(channels, "vm_pu", [_keys(node) for node in self.nodes])
        self._by_v = by_v / np.maximum(by_v.sum(axis=1, keepdims=True), 1.0)
        self._by_p_flow, self._by_q_flow, self._by_i = (
            _weights(channels, quantity, flows, at_bus=False) for quantity in (*_POWERS, "i_a")
        )
        whole = [k for k, c in enumerate(channels) if c.quantity == "i_a" and c.place.phase is None]
        self._highest = [(k, np.flatnonzero(self._by_i[k])) for k in whole]
        self._by_i[whole] = 0.0

    def of(self, p_kw: Floats, q_kvar: Floats, vm_pu: Floats, s_kva: Complexes, i_a: Floats) -> Floats:
        """Readings (n_case, n_channel) from arrays (n_case, n_source)."""
        readings = p_kw @ self._by_p.T + q_kvar @ self._by_q.T + vm_pu @ self._by_v.T
        readings += s_kva.real @ self._by_p_flow.T + s_kva.imag @ self._by_q_flow.T + i_a @ self._by_i.T
        for channel, conductors in self._highest:
            readings[:, channel] = i_a[:, conductors].max(axis=1)
        readings[:, self._unpredicted] = np.nan
        return np.asarray(readings)

    def linearised(self, point: _Point, p_kw: Floats, q_kvar: Floats) -> tuple[Floats, Floats]:
        """Readings (n_channel,) and derivatives (n_channel, 2 n_site) at a point of the load flow."""
        seen = point.reduction
        v, i = point.v[seen.conductor_at], point.conductor_a
        v_node, i_a = point.v[seen.node_at], np.abs(i)
        vm = np.abs(v_node)
        by_i = self._by_i.copy()
        for channel, conductors in self._highest:
            by_i[channel, conductors[i_a[conductors].argmax()]] = 1.0
        along_i = np.divide(i.conj(), i_a, out=np.zeros_like(i), where=i_a > 0.0)
        by_conductor_v = (self._by_p_flow - 1j * self._by_q_flow) * i.conj() / 1000.0  # d(v i*) = i* dv + v di*
        by_conductor_i = (self._by_p_flow + 1j * self._by_q_flow) * v.conj() / 1000.0 + by_i * along_i
        by_v = by_conductor_v @ seen.at_conductors + by_conductor_i @ seen.conductor_y
        by_v[:, seen.node_at] += self._by_v * v_node.conj() / vm / seen.v_base
        slope = point.by_inputs(-(by_v @ seen.response))
        slope += np.hstack([self._by_p, self._by_q])
        slope[self._unpredicted] = np.nan
        vm_pu, s_kva = (vm / seen.v_base)[np.newaxis], (v * i.conj() / 1000.0)[np.newaxis]
        return self.of(p_kw[np.newaxis], q_kvar[np.newaxis], vm_pu, s_kva, i_a[np.newaxis])[0], slope


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
