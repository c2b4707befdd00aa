"""The port: what holds for memory and for MQTT alike, and what is special to memory."""

from __future__ import annotations

import threading
import time

import pytest

from cosim.errors import TransportError
from cosim.io.broker import EmbeddedBroker
from cosim.io.mqtt import connect_mqtt
from cosim.io.transport import MemoryBus


@pytest.fixture(params=["memory", "embedded"])
def connect(request):
    """A way to join one run, for as many participants as wanted."""
    if request.param == "memory":
        yield MemoryBus().connect
    else:
        with EmbeddedBroker() as broker:
            yield lambda: connect_mqtt(broker.endpoint, "test")


def receive_count(transport, count):
    received, deadline = [], time.monotonic() + 10.0
    while len(received) < count and time.monotonic() < deadline:
        received += transport.receive(1.0)
    return received


def test_all_subscribers_get_every_message_in_order(connect):
    with connect() as first, connect() as second, connect() as publisher:
        first.subscribe()
        second.subscribe()
        sent = [(f"sub/{k % 3}/p_kw", bytes([k])) for k in range(200)]
        for topic, payload in sent:
            publisher.publish(topic, payload)
        assert receive_count(first, 200) == sent
        assert receive_count(second, 200) == sent


def test_publisher_that_subscribed_hears_itself(connect):
    with connect() as alone:
        alone.subscribe()
        alone.publish("a/b", b"\x00\xff")
        assert receive_count(alone, 1) == [("a/b", b"\x00\xff")]


def test_without_subscription_nothing_arrives(connect):
    with connect() as deaf, connect() as publisher:
        publisher.publish("a", b"1")
        assert deaf.receive(0.1) == []


def test_messages_published_before_the_subscription_do_not_arrive(connect):
    with connect() as late, connect() as marker, connect() as publisher:
        marker.subscribe()
        publisher.publish("a", b"early")
        assert receive_count(marker, 1) == [("a", b"early")]
        late.subscribe()
        publisher.publish("a", b"later")
        assert receive_count(late, 1) == [("a", b"later")]


def test_subscribing_twice_brings_messages_once(connect):
    with connect() as both:
        both.subscribe()
        both.subscribe()
        both.publish("a", b"1")
        both.publish("b", b"2")
        assert receive_count(both, 2) == [("a", b"1"), ("b", b"2")]
        assert both.receive(0.05) == []


def test_receive_gives_nothing_after_its_time(connect):
    with connect() as idle:
        idle.subscribe()
        began = time.monotonic()
        assert idle.receive(0.1) == []
        assert 0.09 <= time.monotonic() - began < 2.0


def test_receive_returns_as_soon_as_a_message_comes(connect):
    with connect() as waiting, connect() as publisher:
        waiting.subscribe()
        timer = threading.Timer(0.1, publisher.publish, ("a", b"1"))
        began = time.monotonic()
        timer.start()
        assert waiting.receive(30.0) == [("a", b"1")]
        assert time.monotonic() - began < 5.0
        timer.join()


@pytest.mark.parametrize("topic", ["", "a/#", "+/b", "a\0"])
def test_topics_that_cannot_be_published_on(connect, topic):
    with connect() as transport, pytest.raises(TransportError, match="cannot publish on topic"):
        transport.publish(topic, b"1")


def test_closed_transport_says_so_and_closes_again(connect):
    transport = connect()
    transport.close()
    transport.close()
    with pytest.raises(TransportError, match="closed"):
        transport.publish("a", b"1")
    with pytest.raises(TransportError, match="closed"):
        transport.subscribe()
    with pytest.raises(TransportError, match="closed"):
        transport.receive(1.0)


def test_close_hands_over_what_is_queued(connect):
    with connect() as gateway:
        gateway.subscribe()
        with connect() as sensors:
            for k in range(300):
                sensors.publish("a", str(k).encode())
        assert [int(payload) for _, payload in receive_count(gateway, 300)] == list(range(300))


def test_closed_subscriber_gets_nothing_more():
    bus = MemoryBus()
    gone, publisher = bus.connect(), bus.connect()
    gone.subscribe()
    gone.close()
    publisher.publish("a", b"1")
    with pytest.raises(TransportError):
        gone.receive(0.0)
