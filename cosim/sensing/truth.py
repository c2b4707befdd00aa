"""What perfect meters would read in a state of the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cosim.domain.frames import Floats, frozen
from cosim.domain.grid import GridLayout
from cosim.domain.measurement import Channel

SOURCES = {
    "bus": ("vm_pu",),
    "terminal": ("p_kw", "q_kvar", "i_a"),
    "pod": ("p_kw", "q_kvar"),
    "storage": ("p_kw", "e_kwh"),
}
"""Attributes of the grid that meters read, by model."""


class TruthReader:
    """Linear map from the grid's attributes to channels, fixed at the start."""

    def __init__(
        self, channels: Sequence[Channel], layout: GridLayout, pod_buses: Sequence[str], storage: Sequence[str]
    ) -> None:
        self._rows = [_row(channel, layout, pod_buses, storage) for channel in channels]

    def read(self, attributes: Mapping[tuple[str, str], Floats]) -> Floats:
        """Readings (n_channel,) from the attributes of `SOURCES`, keyed by (model, attribute)."""
        return frozen([float(attributes[source] @ weights) for source, weights in self._rows])


def _row(
    channel: Channel, layout: GridLayout, pod_buses: Sequence[str], storage: Sequence[str]
) -> tuple[tuple[str, str], Floats]:
    place, quantity = channel.place, channel.quantity
    if place.storage is not None:
        return ("storage", quantity), np.array([float(pod == place.storage) for pod in storage])
    if quantity == "vm_pu":
        bus = place.bus or place.end
        at_bus = np.array([float(node.rpartition(".")[0] == bus) for node in layout.nodes])
        return ("bus", quantity), at_bus / at_bus.sum()
    if place.branch is not None:
        terminal = f"{place.branch}@{place.end}"
        return ("terminal", quantity), np.array([float(name == terminal) for name in layout.terminals])
    return ("pod", quantity), np.array([float(bus == place.bus) for bus in pod_buses])
