"""How messages look on the wire: compact JSON, one message a value, and one end marker a step.

A value:       {"t": "2016-07-22T00:15:00.000000+00:00", "stamp_s": 900.0, "value": -12.5, "unit": "kW",
                "seq": 1, "step": 1, "run": "..."}           on its channel's topic
An end marker: {"step": 1, "run": "...", "messages": [["sub/3/p_kw", 1], ...]}          on the topic ``end``

``t`` is for people and other programs; ``stamp_s`` is the same instant, exact. Floats keep every bit (shortest repr).
What another run or another program publishes on the same broker is foreign and decoded to None.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from cosim.clock import Clock
from cosim.domain.measurement import Message

END_TOPIC = "end"
Packet = tuple[str, bytes]

_to_text = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_from_text = json.JSONDecoder().raw_decode


@dataclass(frozen=True)
class End:
    """End marker of a step: the (topic, sequence) of every message published in it."""

    step: int
    listed: frozenset[tuple[str, int]]


def packets(messages: Sequence[Message], step: int, clock: Clock, run: str) -> tuple[Packet, ...]:
    """All that is published in a step, as (topic, payload): the messages, then the end marker."""
    values = tuple((message.topic, encode(message, clock, run)) for message in messages)
    return (*values, (END_TOPIC, encode_end(step, messages, run)))


def encode(message: Message, clock: Clock, run: str) -> bytes:
    """Payload of a message of the run ``run``. Raises ValueError if its value is not finite."""
    stamp_s, value = float(message.stamp_s), float(message.value)
    if not (math.isfinite(stamp_s) and math.isfinite(value)):
        raise ValueError(f"not JSON compliant: stamp {stamp_s} s, value {value} of {message.topic}")
    return (
        f'{{"t":"{_instant_text(clock.start, stamp_s)}","stamp_s":{stamp_s!r},"value":{value!r},'
        f'"unit":{_to_text(message.unit)},"seq":{message.sequence},"step":{message.step},"run":{_to_text(run)}}}'
    ).encode()


@lru_cache(maxsize=64)
def _instant_text(start: datetime, stamp_s: float) -> str:
    """The messages of a step bear hardly more than one stamp."""
    return (start + timedelta(seconds=stamp_s)).isoformat(timespec="microseconds")


def decode(topic: str, payload: bytes, run: str) -> Message | None:
    """The message of a payload, None if it is foreign: of another run, or not of this form."""
    fields = _own_fields(payload, run)
    match fields:
        case {
            "stamp_s": float() as stamp_s,
            "value": float() as value,
            "unit": str() as unit,
            "seq": int() as sequence,
            "step": int() as step,
        } if math.isfinite(stamp_s) and math.isfinite(value):
            return Message(topic, step, sequence, stamp_s, value, unit)
    return None


def encode_end(step: int, messages: Iterable[Message], run: str) -> bytes:
    """Payload of the end marker of ``step``, which published ``messages``."""
    listed = sorted((message.topic, message.sequence) for message in messages)
    return _to_text({"step": step, "run": run, "messages": listed}).encode()


def decode_end(payload: bytes, run: str) -> End | None:
    """The end marker of a payload, None if it is foreign."""
    match _own_fields(payload, run):
        case {"step": int() as step, "messages": list() as listed} if all(_is_pair(entry) for entry in listed):
            return End(step, frozenset((topic, sequence) for topic, sequence in listed))
    return None


def _is_pair(entry: object) -> bool:
    match entry:
        case [str(), int()]:
            return True
    return False


def _own_fields(payload: bytes, run: str) -> dict[str, Any] | None:
    try:
        text = payload.decode()
        fields, end = _from_text(text)
    except (ValueError, RecursionError):
        return None
    return fields if end == len(text) and isinstance(fields, dict) and fields.get("run") == run else None
