"""What meters read in a load flow of sites, and how that changes with the currents of the branches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cosim.domain.frames import Complexes, Floats, Ints
from cosim.domain.measurement import Channel
from cosim.domain.site import bus_of_site, sites_of
from cosim.errors import Fault, InputError
from cosim.grid.reduction import Reduction, conductors_of
from cosim.grid.unloaded import Unloaded

_POWERS = ("p_kw", "q_kvar")


class Readings:
    """What meters read, as weights (n_channel, n_source) on what the load flow gives: on the sites' p and q, on the
    voltages of ``nodes``, and for the conductors of ``terminals`` on their active and reactive powers and currents. Of
    a branch as a whole the current of its highest-loaded conductor is read: ``_highest`` lists channels and conductors.

    ``by_site`` (n_channel, 2 n_site) are the derivatives by the sites' own p and q, NaN at storage units; ``rows`` are
    the channels that change with what is seen in the grid too.
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
        by_site = np.hstack([_weights(channels, quantity, sites, at_bus=True) for quantity in _POWERS])
        by_v = _weights(channels, "vm_pu", [_keys(node) for node in self.nodes])
        by_v /= np.maximum(by_v.sum(axis=1, keepdims=True), 1.0)
        by_p, by_q, by_i = (_weights(channels, quantity, flows, at_bus=False) for quantity in (*_POWERS, "i_a"))
        whole = [k for k, c in enumerate(channels) if c.quantity == "i_a" and c.place.phase is None]
        self._highest = [(k, np.flatnonzero(by_i[k])) for k in whole]
        by_s = (by_p - 1j * by_q) / 1000.0
        self._by_size = np.hstack([by_v, np.zeros_like(by_i), by_i])
        self._by_product: Complexes = np.hstack([np.zeros_like(by_v), by_s, by_s.conj()])
        by_i[whole] = 0.0
        self._weights = np.hstack([by_site, by_v, by_p, by_q, by_i]).T.copy()
        looks = (self._by_size != 0.0) | (self._by_product != 0.0)
        self.by_site, self.rows = by_site, np.flatnonzero(looks.any(axis=1))
        self.by_site[self._unpredicted] = np.nan

    def look_at(self, reduction: Reduction) -> Metered:
        """What these meters look at in a network of which ``reduction`` sees every node and conductor."""
        at, y = reduction.conductor_at[self._conductors], reduction.conductor_y[self._conductors]
        v0, response = reduction.v0, reduction.response
        n_node, n_flow = len(self._node_at), len(at)
        v_base = reduction.v_base[self._node_at]
        response = np.concatenate([response[self._node_at], response[at], y @ response])
        # v and i of a conductor turn each into the other's place; nodes have no other.
        other = np.concatenate([np.arange(n_node), np.arange(n_flow) + n_node + n_flow, np.arange(n_flow) + n_node])
        row, seen = np.nonzero((self._by_size != 0.0) | (self._by_product != 0.0))
        return Metered(
            at_rest=np.concatenate([v0[self._node_at], v0[at], y @ v0]),
            response=response,
            v_base=v_base,
            entries=Entries(
                first=np.searchsorted(row, self.rows),
                seen=seen,
                other=other[seen],
                by_size=self._by_size[row, seen] / np.concatenate([v_base, np.ones(2 * n_flow)])[seen],
                by_product=self._by_product[row, seen],
                response=response[seen],
                highest=tuple(np.flatnonzero(row == channel) for channel, _ in self._highest),
            ),
        )

    def of(self, p_kw: Floats, q_kvar: Floats, vm_pu: Floats, s_kva: Complexes, i_a: Floats) -> Floats:
        """Readings (..., n_channel) from arrays (..., n_source)."""
        readings = np.concatenate([p_kw, q_kvar, vm_pu, s_kva.real, s_kva.imag, i_a], axis=-1) @ self._weights
        for channel, conductors in self._highest:
            readings[..., channel] = i_a[..., conductors].max(axis=-1)
        readings[..., self._unpredicted] = np.nan
        return np.asarray(readings)


@dataclass(frozen=True)
class Metered:
    """What meters look at, by the currents of the branches: ``at_rest - response @ i`` (n_seen,). First the voltages of
    nodes of ``v_base`` (n_node,) [V], then those of conductors [V], then the currents of these [A]."""

    at_rest: Complexes
    response: Complexes
    v_base: Floats
    entries: Entries

    def seen(self, i: Complexes) -> Complexes:
        """What is looked at (n_seen,) at currents ``i`` (n_branch,) of the branches."""
        return np.asarray(self.at_rest - self.response @ i)

    def split(self, seen: Complexes) -> tuple[Floats, Complexes, Floats]:
        """Voltages of nodes [pu], powers [kVA] and currents [A] of conductors."""
        n_node = len(self.v_base)
        v, i = seen[n_node:].reshape(2, -1)
        return np.abs(seen[:n_node]) / self.v_base, v * i.conj() / 1000.0, np.abs(i)


@dataclass(frozen=True)
class Entries:
    """What each of the channels in `Readings.rows` looks at, one entry (n_entry,) for each channel and quantity seen,
    channel by channel: ``first`` (n_row,) entry of each.

    A reading is the sum over its entries of ``by_size`` times the size of what is ``seen``, and of the real part of
    ``by_product`` times it and the conjugate of the ``other`` of voltage and current of a conductor, which counts once.
    ``response`` (n_entry, n_branch) is that of what is seen. Among each of ``highest`` only the entry of the largest
    size counts.
    """

    first: Ints
    seen: Ints
    other: Ints
    by_size: Floats
    by_product: Complexes
    response: Complexes
    highest: tuple[Ints, ...]

    def by_current(self, seen: Complexes) -> Complexes:
        """What times a change of the branches' currents has the change of the readings as its real part
        (n_row, n_branch); ``seen`` as `Metered.seen`."""
        conj, size = seen.conj(), np.abs(seen)
        along = np.divide(conj, size, out=np.zeros_like(seen), where=size > 0.0)
        by_size = self.by_size
        if self.highest:
            by_size = by_size.copy()
        for entries in self.highest:
            by_size[entries] = np.arange(len(entries)) == size[self.seen[entries]].argmax()
        by_seen = by_size * along[self.seen] + self.by_product * conj[self.other]  # d(v i*) = i* dv + v di*
        return np.asarray(np.add.reduceat(-by_seen[:, np.newaxis] * self.response, self.first, axis=0))


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
