"""The embedded broker: starts on a free port, stops in bounded time, leaves nothing behind."""

from __future__ import annotations

import logging
import socket
import threading
import time

import psutil
import pytest

from cosim.errors import BrokerError
from cosim.io.broker import EmbeddedBroker
from cosim.io.mqtt import connect_mqtt


def refuses(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_brokers_side_by_side_have_their_own_ports_and_messages():
    with EmbeddedBroker() as one, EmbeddedBroker() as other:
        assert one.port != other.port
        with connect_mqtt(one.endpoint, "a") as here, connect_mqtt(other.endpoint, "b") as there:
            here.subscribe()
            there.subscribe()
            here.publish("t", b"1")
            assert here.receive(5.0) == [("t", b"1")]
            assert there.receive(0.1) == []


def test_listens_on_loopback_only():
    with EmbeddedBroker() as broker:
        addresses = {c.laddr.ip for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == broker.port}
        assert addresses == {"127.0.0.1"}


def test_nothing_leaks_over_fifty_cycles():
    with EmbeddedBroker():
        pass
    process = psutil.Process()
    before = threading.active_count(), process.num_fds()
    for _ in range(50):
        with EmbeddedBroker() as broker, connect_mqtt(broker.endpoint, "cycle") as transport:
            transport.subscribe()
            transport.publish("a", b"1")
            assert transport.receive(5.0) == [("a", b"1")]
    assert (threading.active_count(), process.num_fds()) == before


def test_stops_in_bounded_time_while_clients_are_connected():
    with EmbeddedBroker() as broker:
        clients = [connect_mqtt(broker.endpoint, f"client{k}") for k in range(3)]
        silent = socket.create_connection(("127.0.0.1", broker.port))
        began = time.monotonic()
    assert time.monotonic() - began < 1.5
    assert refuses(broker.port)
    silent.close()
    for client in clients:
        client.close()


def test_clients_are_told_when_it_has_gone():
    with EmbeddedBroker() as broker:
        endpoint = broker.endpoint
        client = connect_mqtt(endpoint, "orphan")
        client._endpoint = type(endpoint)(host=endpoint.host, port=endpoint.port, reconnect_s=0.3)
    with pytest.raises(BrokerError, match=rf"127.0.0.1:{broker.port}: lost, and not back within 0.3 s"):
        client.receive(30.0)
    client.close()


def test_junk_on_the_port_does_not_harm_it():
    with EmbeddedBroker() as broker:
        with socket.create_connection(("127.0.0.1", broker.port)) as junk:
            junk.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with connect_mqtt(broker.endpoint, "after") as transport:
            transport.subscribe()
            transport.publish("a", b"1")
            assert transport.receive(5.0) == [("a", b"1")]


def test_log_is_silent_unless_a_level_is_set(capfd):
    with EmbeddedBroker() as broker, connect_mqtt(broker.endpoint, "quiet") as transport:
        transport.subscribe()
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("amqtt").level == logging.CRITICAL


def test_start_that_fails_is_an_error(monkeypatch):
    def occupied(_address):
        raise OSError("no ports left")

    monkeypatch.setattr("cosim.io.broker.socket.create_server", occupied)
    with pytest.raises(BrokerError, match="did not start: no ports left"):
        EmbeddedBroker().__enter__()
