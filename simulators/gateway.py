"""The gateway: collects what the sensors published for a step into one synchronised snapshot."""

from __future__ import annotations

from typing import Any, ClassVar

from cosim.domain.frames import Signal
from cosim.domain.measurement import Quality
from cosim.sensing.gateway import Barrier, collect, snapshot
from simulators._base import Adapter, Inputs, Output
from simulators._link import connect


class Gateway(Adapter):
    """Model ``snapshot``: value, quality (n_channel,).

    Remembers nothing that counts: every step's messages are complete before it ends, leftovers are dropped.
    """

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {"inbox": ("step",)}

    def build(self) -> dict[str, tuple[Output, ...]]:
        self._channels = self.case.sensor_model.channels
        self._barrier = Barrier(self.options["run"], self.case.clock)
        self._transport = connect(self.case, "gateway", **self.options)
        self._transport.subscribe()
        topics = self.case.sensor_model.topics
        return {
            "snapshot": (
                Signal("value", "of the channel", "measured value, NaN if not good", "channel", topics),
                Signal(
                    "quality", "1", "how the value came about", "channel", topics,
                    codes=tuple(quality.name.lower() for quality in Quality),
                ),
            )
        }  # fmt: skip

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        scenario, step = self.case.scenario, self.case.clock.step_index(t_s)
        self._barrier, messages = collect(self._transport.receive, self._barrier, step, scenario.message_timeout_s)
        taken = snapshot(self._channels, messages, t_s, scenario.sensors.tolerance_s)
        return {("snapshot", "value"): taken.value, ("snapshot", "quality"): taken.quality}

    def close(self) -> None:
        self._transport.close()
