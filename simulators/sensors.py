"""Sensors: measure the true state (or replay a recording) and publish it."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from cosim.domain.frames import Signal, frozen
from cosim.sensing.measure import SENSOR_EVENTS, SensorMemory, fresh_memory, measure
from cosim.sensing.replay import pace, read_recording, recorded
from cosim.sensing.truth import SOURCES, TruthReader
from cosim.sensing.wire import packets
from simulators._base import Adapter, Inputs, Output
from simulators._link import connect


class Sensors(Adapter):
    """Model ``truth``: value (n_channel,) that perfect meters would read; model ``outbox``: step published; table of
    the faults that truly happened."""

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {
        model: tuple(f"true_{attribute}" for attribute in attributes) for model, attributes in SOURCES.items()
    }

    def build(self) -> dict[str, tuple[Output, ...]]:
        case = self.case
        self._model, self._run = case.sensor_model, self.options["run"]
        self.memory = fresh_memory(self._model)
        self._truth = TruthReader(
            self._model.channels, case.layout, case.pod_sites, [unit.pod for unit in case.storage]
        )
        replay = case.scenario.sensors.replay
        self._pace = replay.real_time_factor if replay else 0.0
        self._recording = (
            read_recording(case.loaded.resolve("sensors.replay.file", replay.file), self._model.channels, case.clock)
            if replay
            else None
        )
        self._paced_s, self._started = self.options.pop("began")
        self._transport = connect(case, "sensors", **self.options)
        topics = self._model.topics
        return {
            "reading": (
                Signal("value", "of the channel", "what perfect meters would read", "channel", topics),
                SENSOR_EVENTS,
            ),
            "outbox": (Signal("step", "1", "step published", "feeder", (case.feeder.name,)),),
        }

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        step = self.case.clock.step_index(t_s)
        truth = self._truth.read({(m, a.removeprefix("true_")): value for (m, a), value in inputs.items()})
        if self._recording is None:
            self.memory, messages, events = measure(self._model, self.memory, step, t_s, truth)
        else:
            messages, events = recorded(self._recording, step), ()
            pace(self._pace, t_s - self._paced_s, self._started, time.monotonic, time.sleep)
        for topic, payload in packets(messages, step, self.case.clock, self._run):
            self._transport.publish(topic, payload)
        return {
            ("reading", "value"): truth,
            ("reading", SENSOR_EVENTS.name): [event._asdict() for event in events],
            ("outbox", "step"): frozen([step]),
        }

    def state(self) -> dict[str, Any]:
        saved: dict[str, Any] = self.memory.to_json()
        return saved

    def restore(self, saved: dict[str, Any]) -> None:
        self.memory = SensorMemory.from_json(saved)

    def close(self) -> None:
        self._transport.close()
