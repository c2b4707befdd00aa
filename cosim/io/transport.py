"""The port through which messages travel, and its implementation in memory.

The port has two implementations, both shipped: ``MemoryBus`` here and MQTT in ``cosim.io.mqtt``. A topic is a text
such as ``sub/3/p_kw``, a payload is bytes. A message reaches those that had subscribed before it was published,
including its own publisher. Over MQTT it may arrive more than once, and late ones after newer ones when a connection
was lost: receivers go by the sequence number in the payload.
"""

from __future__ import annotations

import threading
from typing import Protocol, Self

from cosim.errors import TransportError

_RESERVED = frozenset("#+\0")


class Transport(Protocol):
    """One participant's connection to the other participants of the run. Leaving its ``with`` block closes it."""

    def publish(self, topic: str, payload: bytes) -> None:
        """Send to all subscribers; returns once queued. The order of one publisher's messages is kept.

        Raises TransportError if the topic is empty or holds a wildcard or the transport is closed, BrokerError if the
        broker is lost.
        """

    def subscribe(self) -> None:
        """Receive all topics of this run from now on. Raises BrokerError if the broker refuses."""

    def receive(self, timeout_s: float) -> list[tuple[str, bytes]]:
        """All (topic, payload) that have arrived since the last call, in order of arrival.

        Waits up to ``timeout_s`` [s] for at least one; ``[]`` if none came. Raises BrokerError if the broker is lost,
        TransportError if the transport is closed.
        """

    def close(self) -> None:
        """Hand over what is queued and leave; a second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def check_topic(topic: str) -> None:
    """Raise TransportError unless messages can be published on ``topic`` (MQTT 3.1.1, section 4.7)."""
    if not topic or not _RESERVED.isdisjoint(topic):
        raise TransportError(f"cannot publish on topic {topic!r}: it must not be empty or contain '#', '+' or NUL")


class MemoryBus:
    """Messages between participants of one process, without a broker."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._subscribers: list[_MemoryTransport] = []

    def connect(self) -> Transport:
        """A new participant."""
        return _MemoryTransport(self._changed, self._subscribers)


class _MemoryTransport:
    def __init__(self, changed: threading.Condition, subscribers: list[_MemoryTransport]) -> None:
        self._changed = changed
        self._subscribers = subscribers
        self._arrived: list[tuple[str, bytes]] = []
        self._closed = False

    def publish(self, topic: str, payload: bytes) -> None:
        check_topic(topic)
        with self._changed:
            self._require_open()
            for subscriber in self._subscribers:
                subscriber._arrived.append((topic, payload))
            self._changed.notify_all()

    def subscribe(self) -> None:
        with self._changed:
            self._require_open()
            if self not in self._subscribers:
                self._subscribers.append(self)

    def receive(self, timeout_s: float) -> list[tuple[str, bytes]]:
        with self._changed:
            self._require_open()
            self._changed.wait_for(lambda: self._arrived or self._closed, timeout_s)
            arrived, self._arrived = self._arrived, []
            return arrived

    def close(self) -> None:
        with self._changed:
            self._closed = True
            if self in self._subscribers:
                self._subscribers.remove(self)
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._closed:
            raise TransportError("the transport is closed")
