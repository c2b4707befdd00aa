"""The load flow as the estimator sees it: net consumption per site in, meter readings and the grid's state out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import Floats
from cosim.domain.grid import GridLayout
from cosim.domain.measurement import Channel
from cosim.grid.batch import BatchPowerFlow, BatchState
from cosim.grid.engine import Unloaded
from cosim.grid.feeder import Feeder


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
        self._spread = _spread(feeder, pod_buses)
        self._layout = network.layout
        self._head = network.layout.terminals.index(feeder.head_terminal)
        self._whole = BatchPowerFlow(network, network.layout.nodes, network.layout.terminals)
        nodes = [node for node in network.layout.nodes if node.rpartition(".")[0] in _buses(channels)]
        terminals = list(dict.fromkeys(terminal_of(channel) for channel in channels if channel.place.branch))
        self._observed = BatchPowerFlow(network, nodes, terminals)
        self._readers = [_reader(channel, self.sites, nodes, terminals) for channel in channels]

    def predict(self, p_kw: Floats, q_kvar: Floats) -> Floats:
        """Readings of all channels (n_case, n_channel) at net consumption (n_case, n_site) [kW, kvar]; NaN for
        channels at storage units.

        Raises PowerFlowError as the batch power flow does.
        """
        state = self._observed.solve(p_kw @ self._spread.T, q_kvar @ self._spread.T)
        sources = {"site_p_kw": p_kw, "site_q_kvar": q_kvar, "vm_pu": state.vm_pu}
        sources |= {"p_kw": state.p_kw, "q_kvar": state.q_kvar, "i_a": state.i_a}
        columns = [
            np.full(len(p_kw), np.nan) if source is None else sources[source][:, index].mean(axis=1)
            for source, index in self._readers
        ]
        return np.stack(columns, axis=1) if columns else np.zeros((len(p_kw), 0))

    def states(self, p_kw: Floats, q_kvar: Floats) -> SiteStates:
        """States of the whole grid at net consumption (n_case, n_site)."""
        state = self._whole.solve(p_kw @ self._spread.T, q_kvar @ self._spread.T)
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


def _buses(channels: Sequence[Channel]) -> set[str]:
    return {channel.place.bus or channel.place.end or "" for channel in channels}


def _reader(
    channel: Channel, sites: Sequence[str], nodes: Sequence[str], terminals: Sequence[str]
) -> tuple[str | None, list[int]]:
    """Where a channel's reading comes from: a source and the columns whose mean it is."""
    place = channel.place
    if place.storage is not None:
        return None, []
    if channel.quantity == "vm_pu":
        bus = place.bus or place.end
        return "vm_pu", [k for k, node in enumerate(nodes) if node.rpartition(".")[0] == bus]
    if place.branch is not None:
        return channel.quantity, [terminals.index(terminal_of(channel))]
    return f"site_{channel.quantity}", [sites.index(str(place.bus))]
