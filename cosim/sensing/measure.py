"""The sensor model: true values to published messages, with errors and faults.

For channel ``c`` with full scale ``F``, at step ``k`` and true value ``x``, with ``u, v ~ N(0, 1)`` and
``p, q ~ U(0, 1)`` drawn for (c, k):

    read    = quantise(x + bias/100*F + u*class/100*F/3)     quantise(y) = round(y/Q)*Q, Q = quantum/100*F
    stuck   : if p < stuck, the value last read is published for ``stuck_steps`` steps, this one the first
    dropout : if q < dropout, the message is lost; it has consumed no sequence number
    stamp   = t + clock_skew
    arrival = t + max(0, delay + v*jitter)

A message that takes longer than the tolerance is published with its old stamp in the first later step at or after its
arrival: the gateway finds it too late. A true value that is not finite gives no message and starts no fault.

All draws of a channel come from streams named after its topic and the step: there is no generator to save, and no
sensor's draws depend on which others exist.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from cosim.domain.frames import EventTable, Floats, frozen
from cosim.domain.measurement import Channel, Message
from cosim.rng import rng_for
from cosim.scenario.schema import Meter, SensorFaults, Sensors
from cosim.sensing.channels import channels_of, faults_for

SENSOR_EVENTS = EventTable("faults", "sensor faults as they truly happened", {"t_s": "s", "topic": None, "fault": None})
DROPOUT, STUCK, LATE = "dropout", "stuck", "late"

# Naming a stream costs 30 us: one a channel and block of steps instead of one a step.
_BLOCK_STEPS = 64


@dataclass(frozen=True)
class Sensor:
    """One channel and its errors in the unit of its quantity: ``bias``, ``noise`` (standard deviation) and
    ``quantum`` (0 = not quantised); ``faults`` holds the rest."""

    channel: Channel
    bias: float
    noise: float
    quantum: float
    faults: SensorFaults


@dataclass(frozen=True)
class SensorModel:
    """All sensors of a run, in channel order."""

    sensors: tuple[Sensor, ...]
    seed: int
    tolerance_s: float

    @cached_property
    def channels(self) -> tuple[Channel, ...]:
        return tuple(sensor.channel for sensor in self.sensors)

    @cached_property
    def topics(self) -> tuple[str, ...]:
        return tuple(sensor.channel.topic for sensor in self.sensors)


class ChannelMemory(NamedTuple):
    """What one sensor remembers: the next sequence number, the value last read, and the step (exclusive) until which
    it is stuck at that value."""

    sequence: int = 0
    last: float | None = None
    stuck_until: int = 0


@dataclass(frozen=True)
class Delayed:
    """A message on its way, due at the first step at or after ``arrival_s`` [s since start]."""

    arrival_s: float
    message: Message


@dataclass(frozen=True)
class SensorMemory:
    """What all sensors remember between two steps, in channel order, and the messages on their way."""

    channels: tuple[ChannelMemory, ...]
    pending: tuple[Delayed, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, from which ``from_json`` makes an equal memory."""
        return {
            "channels": [channel._asdict() for channel in self.channels],
            "pending": [{"arrival_s": each.arrival_s, "message": each.message._asdict()} for each in self.pending],
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> SensorMemory:
        return cls(
            tuple(ChannelMemory(**channel) for channel in saved["channels"]),
            tuple(Delayed(entry["arrival_s"], Message(**entry["message"])) for entry in saved["pending"]),
        )


class SensorEvent(NamedTuple):
    """A fault that truly happened: one row of ``SENSOR_EVENTS``; ``fault`` is dropout, stuck (its first step) or
    late (delayed beyond the tolerance), ``t_s`` the time of the measurement [s]."""

    t_s: float
    topic: str
    fault: str


class Measured(NamedTuple):
    """What one step leaves: the memory for the next, the messages to publish (by channel, then sequence), and the
    faults that happened."""

    memory: SensorMemory
    messages: tuple[Message, ...]
    events: tuple[SensorEvent, ...]


def sensor_model(meters: Mapping[str, Meter], sensors: Sensors, seed: int) -> SensorModel:
    """The sensors of ``meters`` with the errors and faults that ``sensors`` states.

    Raises ScenarioError as ``channels_of`` does.
    """
    channels = channels_of(meters, sensors)
    modelled = tuple(
        _sensor(channel, meters[channel.meter], faults_for(sensors, channel.meter)) for channel in channels
    )
    return SensorModel(modelled, seed, sensors.tolerance_s)


def fresh_memory(model: SensorModel) -> SensorMemory:
    """The memory before the first step."""
    return SensorMemory((ChannelMemory(),) * len(model.sensors))


def measure(model: SensorModel, memory: SensorMemory, step: int, t_s: float, truth: Floats) -> Measured:
    """Measure ``truth`` of shape (n_channel,) at step ``step``, time ``t_s`` [s since start].

    Steps may be left out, but must not go back. Formulas: see the module.
    """
    topics = model.topics
    draws = _draws(model.seed, topics, step // _BLOCK_STEPS)[step % _BLOCK_STEPS].tolist()
    channels: list[ChannelMemory] = []
    delayed_due = [delayed.message._replace(step=step) for delayed in memory.pending if delayed.arrival_s <= t_s]
    due: list[Message] = []
    pending = [delayed for delayed in memory.pending if delayed.arrival_s > t_s]
    events: list[SensorEvent] = []
    for sensor, before, drawn, true_value in zip(model.sensors, memory.channels, draws, truth.tolist(), strict=True):
        noise, jitter, sticks, lost = drawn
        after, message, faults = _measure_one(sensor, before, step, t_s, true_value, (noise, sticks, lost))
        if message is not None:
            delay_s = max(0.0, sensor.faults.delay_s + sensor.faults.delay_jitter_s * jitter)
            if delay_s > model.tolerance_s:
                pending.append(Delayed(t_s + delay_s, message))
                faults = (*faults, LATE)
            else:
                due.append(message)
        channels.append(after)
        events.extend(SensorEvent(t_s, sensor.channel.topic, fault) for fault in faults)
    if delayed_due:
        order = {topic: place for place, topic in enumerate(topics)}
        due = sorted(delayed_due + due, key=lambda message: (order[message.topic], message.sequence))
    return Measured(SensorMemory(tuple(channels), tuple(pending)), tuple(due), tuple(events))


def _measure_one(
    sensor: Sensor, before: ChannelMemory, step: int, t_s: float, true_value: float, draws: tuple[float, float, float]
) -> tuple[ChannelMemory, Message | None, tuple[str, ...]]:
    """One channel at one step: its memory, its message unless lost, and the faults that happened."""
    if not math.isfinite(true_value):
        return before, None, ()
    noise, sticks, lost = draws
    value, stuck_until = before.last, before.stuck_until
    begins = step >= stuck_until and sticks < sensor.faults.stuck
    if begins:
        stuck_until = step + sensor.faults.stuck_steps
    if value is None or step >= stuck_until:
        value = _reading(sensor, true_value, noise)
    faults = (STUCK,) if begins else ()
    if lost < sensor.faults.dropout:
        return ChannelMemory(before.sequence, value, stuck_until), None, (*faults, DROPOUT)
    message = Message(
        sensor.channel.topic, step, before.sequence, t_s + sensor.faults.clock_skew_s, value, sensor.channel.unit
    )
    return ChannelMemory(before.sequence + 1, value, stuck_until), message, faults


def _reading(sensor: Sensor, true_value: float, noise: float) -> float:
    value = true_value + sensor.bias + sensor.noise * noise
    return round(value / sensor.quantum) * sensor.quantum if sensor.quantum > 0.0 else value


def _sensor(channel: Channel, meter: Meter, faults: SensorFaults) -> Sensor:
    percent = meter.full_scale[channel.quantity] / 100.0
    return Sensor(
        channel,
        bias=faults.bias_percent * percent,
        noise=meter.class_percent * percent / 3.0 if faults.noise else 0.0,
        quantum=faults.quantum * percent,
        faults=faults,
    )


@lru_cache(maxsize=8)
def _draws(seed: int, topics: tuple[str, ...], block: int) -> Floats:
    """Draws of one block of steps, shape (step, channel, 4): noise, jitter ~ N(0, 1); stuck, dropout ~ U(0, 1).

    Remembered only to be fast: the same arguments always give the same numbers.
    """
    drawn = np.empty((_BLOCK_STEPS, len(topics), 4))
    for place, topic in enumerate(topics):
        generator = rng_for(seed, "sensor", topic, block)
        drawn[:, place, :2] = generator.standard_normal((_BLOCK_STEPS, 2))
        drawn[:, place, 2:] = generator.random((_BLOCK_STEPS, 2))
    return frozen(drawn)
