"""The gateway: messages in any order to one synchronised snapshot a step.

The barrier knows when a step is complete: its end marker has arrived and all messages that it lists. Nothing here
depends on the order or the time of arrival.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cosim.clock import Clock
from cosim.domain.frames import frozen
from cosim.domain.measurement import Channel, Message, Quality, Snapshot
from cosim.errors import SilentSensorError, TransportError
from cosim.sensing.wire import END_TOPIC, End, Packet, decode, decode_end

# Stamps are exact on the wire, their difference to the step's time is not: compare to the microsecond.
_STAMP_DIGITS = 6


@dataclass(frozen=True)
class Barrier:
    """What has arrived for step ``step`` and, should the sensors be ahead, for later ones."""

    run: str
    clock: Clock
    step: int = 0
    ends: Mapping[int, End] = field(default_factory=dict)
    messages: Mapping[tuple[str, int], Message] = field(default_factory=dict)

    def missing(self) -> tuple[str, ...]:
        """Topics, in order, that the step still waits for; ``end`` while its end marker has not arrived."""
        end = self.ends.get(self.step)
        if end is None:
            return (END_TOPIC,)
        return tuple(sorted({topic for topic, sequence in end.listed if (topic, sequence) not in self.messages}))

    def collected(self) -> tuple[Message, ...]:
        """The messages that the step's end marker lists, as far as arrived, by topic and sequence."""
        end = self.ends.get(self.step)
        return tuple(self.messages[key] for key in sorted(end.listed) if key in self.messages) if end else ()


def advance(barrier: Barrier, step: int) -> Barrier:
    """The barrier for ``step``, with all that belongs to earlier steps dropped."""
    return replace(
        barrier,
        step=step,
        ends={at: end for at, end in barrier.ends.items() if at >= step},
        messages={key: message for key, message in barrier.messages.items() if message.step >= step},
    )


def feed(barrier: Barrier, arrivals: Iterable[Packet]) -> Barrier:
    """The barrier after ``arrivals``, (topic, payload) in any order.

    Foreign payloads, leftovers of earlier steps and exact duplicates are dropped. Raises TransportError if the same
    message (topic and sequence) or end marker arrives with another content.
    """
    ends, messages = dict(barrier.ends), dict(barrier.messages)
    for topic, payload in arrivals:
        if topic == END_TOPIC:
            end = decode_end(payload, barrier.run)
            if end is not None and end.step >= barrier.step and ends.setdefault(end.step, end) != end:
                raise TransportError(f"step {end.step}: two different end markers arrived")
        else:
            message = decode(topic, payload, barrier.run)
            if message is None or message.step < barrier.step:
                continue
            first = messages.setdefault((topic, message.sequence), message)
            if first is not message and first != message:
                raise TransportError(_conflict(first, message))
    return replace(barrier, ends=ends, messages=messages)


def collect(
    receive: Callable[[float], list[Packet]],
    barrier: Barrier,
    step: int,
    timeout_s: float,
    monotonic: Callable[[], float] = time.monotonic,
) -> tuple[Barrier, tuple[Message, ...]]:
    """Receive until ``step`` is complete: the barrier to go on with, and the messages by topic and sequence.

    ``receive`` waits up to the given time [s] for at least one (topic, payload) and gives all that have arrived.
    Raises SilentSensorError naming the silent topics if ``timeout_s`` [s] does not suffice, TransportError as
    ``feed`` does.
    """
    barrier = advance(barrier, step)
    deadline_s = monotonic() + timeout_s
    while barrier.missing():
        left_s = deadline_s - monotonic()
        if left_s <= 0.0:
            raise SilentSensorError(_silence(barrier, timeout_s))
        barrier = feed(barrier, receive(left_s))
    return barrier, barrier.collected()


def snapshot(channels: Sequence[Channel], messages: Iterable[Message], t_s: float, tolerance_s: float) -> Snapshot:
    """The values of ``channels`` that belong to ``t_s`` [s since start]: stamped within ``tolerance_s`` [s] of it.

    Of several such messages of a channel the nearest in time counts, of equally near ones the one with the highest
    sequence. A channel without one is NaN: LATE if messages came but all are stamped too far off, MISSING if none came.
    """
    arrived: dict[str, list[tuple[float, int, float]]] = {}
    for message in messages:
        distance_s = round(abs(message.stamp_s - t_s), _STAMP_DIGITS)
        arrived.setdefault(message.topic, []).append((distance_s, -message.sequence, message.value))
    values, quality = np.full(len(channels), np.nan), np.full(len(channels), Quality.MISSING, dtype=np.int8)
    for k, channel in enumerate(channels):
        if (of_channel := arrived.get(channel.topic)) is not None:
            distance_s, _, value = min(of_channel)
            if distance_s <= tolerance_s:
                values[k], quality[k] = value, Quality.GOOD
            else:
                quality[k] = Quality.LATE
    return Snapshot(frozen(values), frozen(quality, np.int8))


def _conflict(first: Message, second: Message) -> str:
    return (
        f"step {second.step}: message {second.sequence} of topic {second.topic} arrived twice with different content: "
        f"{first.value!r} {first.unit} stamped {first.stamp_s!r} s in step {first.step}, and "
        f"{second.value!r} {second.unit} stamped {second.stamp_s!r} s in step {second.step}"
    )


def _silence(barrier: Barrier, timeout_s: float) -> str:
    t_s = barrier.step * barrier.clock.step_s
    missing = barrier.missing()
    what = "end marker" if missing == (END_TOPIC,) else f"announced message of {', '.join(missing)}"
    heard = sum(message.step == barrier.step for message in barrier.messages.values())
    return (
        f"step {barrier.step} ({barrier.clock.instant(t_s).isoformat()}, {t_s} s after start): no {what} within "
        f"{timeout_s:g} s; {heard} messages of this step arrived"
    )
