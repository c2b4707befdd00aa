"""What perfect meters would read in a state of the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cosim.domain.frames import Floats, Ints, frozen
from cosim.domain.grid import GridLayout
from cosim.domain.measurement import Channel
from cosim.domain.site import bus_of_site

SOURCES = {
    "bus": ("vm_pu",),
    "terminal": ("p_kw", "q_kvar", "i_a"),
    "conductor": ("p_kw", "q_kvar", "i_a"),
    "pod": ("p_kw", "q_kvar"),
    "storage": ("p_kw", "e_kwh"),
}
"""Attributes of the grid that meters read, by model."""


class TruthReader:
    """Linear map from the grid's attributes to channels, fixed at the start. ``pod_sites`` (n_pod,) are the sites of
    the PODs (`cosim.domain.site.site_name`), ``storage`` (n_storage,) the PODs of storage units."""

    def __init__(
        self, channels: Sequence[Channel], layout: GridLayout, pod_sites: Sequence[str], storage: Sequence[str]
    ) -> None:
        rows = [_row(channel, channels, layout, pod_sites, storage) for channel in channels]
        self._n_channel = len(rows)
        self._single = {source: _single_elements(source, rows) for source in dict.fromkeys(row[0] for row in rows)}
        self._several = [(k, *row) for k, row in enumerate(rows) if not _is_single(row[1])]

    def read(self, attributes: Mapping[tuple[str, str], Floats]) -> Floats:
        """Readings (n_channel,) from the attributes of `SOURCES`, keyed by (model, attribute)."""
        readings = np.empty(self._n_channel)
        for source, (channels, elements) in self._single.items():
            readings[channels] = attributes[source][elements]
        for k, source, weights in self._several:
            readings[k] = attributes[source] @ weights
        return frozen(readings + 0.0)  # no -0.0, as a sum has none


def metered_conductors(channels: Sequence[Channel]) -> tuple[str, ...]:
    """Conductors ``branch@BUS.phase`` whose flow is measured on its own: the elements of the model ``conductor``."""
    metered = (c.place for c in channels if c.place.branch and c.place.phase and c.quantity != "vm_pu")
    return tuple(dict.fromkeys(f"{place.branch}@{place.end}.{place.phase}" for place in metered))


def _row(
    channel: Channel,
    channels: Sequence[Channel],
    layout: GridLayout,
    pod_sites: Sequence[str],
    storage: Sequence[str],
) -> tuple[tuple[str, str], Floats]:
    """The attribute that a channel reads and the weight of each of its elements."""
    place, quantity = channel.place, channel.quantity
    if place.storage is not None:
        return ("storage", quantity), _marked(storage, place.storage)
    suffix = "" if place.phase is None else f".{place.phase}"
    if quantity == "vm_pu":
        nodes = layout.nodes if place.phase is not None else [node.rpartition(".")[0] for node in layout.nodes]
        at_bus = _marked(nodes, f"{place.bus or place.end}{suffix}")
        return ("bus", quantity), at_bus / at_bus.sum()
    if place.branch is not None:
        where = f"{place.branch}@{place.end}{suffix}"
        if place.phase is not None:
            return ("conductor", quantity), _marked(metered_conductors(channels), where)
        return ("terminal", quantity), _marked(layout.terminals, where)
    sites = pod_sites if place.phase is not None else [bus_of_site(site) for site in pod_sites]
    return ("pod", quantity), _marked(sites, f"{place.bus}{suffix}")


def _is_single(weights: Floats) -> bool:
    """Whether it is one element that is read, as it is."""
    return bool(np.count_nonzero(weights) == 1 and weights.max() == 1.0)


def _single_elements(source: tuple[str, str], rows: Sequence[tuple[tuple[str, str], Floats]]) -> tuple[Ints, Ints]:
    """The channels that read one element of ``source``, and which."""
    single = {k: int(weights.argmax()) for k, (of, weights) in enumerate(rows) if of == source and _is_single(weights)}
    return np.array([*single], dtype=int), np.array([*single.values()], dtype=int)


def _marked(names: Sequence[str], wanted: str) -> Floats:
    return np.array([float(name == wanted) for name in names])
