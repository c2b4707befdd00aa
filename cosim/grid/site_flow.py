"""The load flow as the estimator sees it: net consumption per site in, meter readings and the grid's state out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import Floats
from cosim.domain.grid import GridLayout
from cosim.domain.measurement import Channel
from cosim.grid.batch import BatchPowerFlow, BatchState
from cosim.grid.feeder import Feeder
from cosim.grid.unloaded import Unloaded


def sites_of(pod_buses: Sequence[str]) -> tuple[str, ...]:
    """Buses that hold PODs, each once, in the order of the PODs."""
    return tuple(dict.fromkeys(pod_buses))


def site_sums(pod_buses: Sequence[str]) -> Floats:
    """(n_pod, n_site) matrix that adds up the PODs of each site."""
    sites = sites_of(pod_buses)
    return np.array([[float(bus == site) for site in sites] for bus in pod_buses])


@dataclass(frozen=True)
class SiteStates:
    """States of all cases: ``vm_pu`` (n_case, n_node), ``loading_pu`` (n_case, n_branch), ``head_p_kw``,
    ``head_q_kvar`` (n_case,)."""

    vm_pu: Floats
    loading_pu: Floats
    head_p_kw: Floats
    head_q_kvar: Floats


class SiteFlow:
    """Batch load flow over sites. A site's power is spread over its loads in proportion to their kW (over all its PODs
    evenly, if it has no load): that fixes how it is shared by the phases."""

    def __init__(
        self, network: Unloaded, feeder: Feeder, pod_buses: Sequence[str], channels: Sequence[Channel]
    ) -> None:
        self.sites = sites_of(pod_buses)
        self._layout = network.layout
        self._head = network.layout.terminals.index(feeder.head_terminal)
        spread = _spread(feeder, pod_buses)
        self._whole = BatchPowerFlow(network, network.layout.nodes, network.layout.terminals, spread)
        buses = {channel.place.bus or channel.place.end for channel in channels if channel.quantity == "vm_pu"}
        nodes = [node for node in network.layout.nodes if _bus(node) in buses]
        terminals = list(dict.fromkeys(terminal_of(channel) for channel in channels if channel.place.branch))
        self._observed = BatchPowerFlow(network, nodes, terminals, spread)
        self._reading = np.zeros((2 * len(self.sites) + len(nodes) + 3 * len(terminals), len(channels)))
        for column, channel in enumerate(channels):
            rows = list(_sources(channel, self.sites, nodes, terminals))
            self._reading[rows, column] = 1.0 / max(len(rows), 1)
        self._unpredicted = [k for k, channel in enumerate(channels) if channel.place.storage is not None]

    def predict(self, p_kw: Floats, q_kvar: Floats) -> Floats:
        """Readings of all channels (n_case, n_channel) at net consumption (n_case, n_site) [kW, kvar].

        A case whose load flow has no answer is a row of NaN; channels at storage units are columns of NaN.
        """
        state = self._observed.solve(p_kw, q_kvar)
        sources = np.concatenate([p_kw, q_kvar, state.vm_pu, state.p_kw, state.q_kvar, state.i_a], axis=1)
        readings = np.asarray(sources @ self._reading)
        readings[:, self._unpredicted] = np.nan
        for case in state.failures:
            readings[case] = np.nan
        return readings

    def states(self, p_kw: Floats, q_kvar: Floats) -> SiteStates:
        """States of the whole grid at net consumption (n_case, n_site) [kW, kvar].

        Raises PowerFlowError naming a case whose load flow has no answer.
        """
        state = self._whole.solve(p_kw, q_kvar).require_converged()
        return SiteStates(
            vm_pu=state.vm_pu,
            loading_pu=_loading_pu(state, self._layout),
            head_p_kw=state.p_kw[:, self._head],
            head_q_kvar=state.q_kvar[:, self._head],
        )


def terminal_of(channel: Channel) -> str:
    """``branch@BUS`` of a channel measured in a branch."""
    return f"{channel.place.branch}@{channel.place.end}"


def _loading_pu(state: BatchState, layout: GridLayout) -> Floats:
    return np.asarray((state.i_a / layout.rated_a).reshape(len(state.i_a), -1, 2).max(axis=2))


def _spread(feeder: Feeder, pod_buses: Sequence[str]) -> Floats:
    """(n_pod, n_site) shares of each site's power."""
    sums = site_sums(pod_buses)
    weight = sums * np.array([[pod.kw if pod.kind == "load" else 0.0] for pod in feeder.pods.values()])
    weight = np.where(weight.sum(axis=0) > 0.0, weight, sums)
    return np.asarray(weight / weight.sum(axis=0))


def _bus(node: str) -> str:
    return node.rpartition(".")[0]


def _sources(channel: Channel, sites: Sequence[str], nodes: Sequence[str], terminals: Sequence[str]) -> Iterator[int]:
    """Which of ``[site p, site q, node voltages, terminal p, q, i]`` a channel reads the mean of; none
    at storage, and at a bus without PODs, whose consumption is 0."""
    place, first_node = channel.place, 2 * len(sites)
    if place.storage is not None:
        return
    if channel.quantity == "vm_pu":
        bus = place.bus or place.end
        yield from (first_node + k for k, node in enumerate(nodes) if _bus(node) == bus)
    elif place.branch is not None:
        block = ("p_kw", "q_kvar", "i_a").index(channel.quantity)
        yield first_node + len(nodes) + block * len(terminals) + terminals.index(terminal_of(channel))
    elif place.bus in sites:
        yield ("p_kw", "q_kvar").index(channel.quantity) * len(sites) + sites.index(place.bus)
