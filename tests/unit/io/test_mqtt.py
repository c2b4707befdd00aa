"""MQTT: endpoints, the plain words of refusals, lost connections. The broker is the embedded one."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import paho.mqtt.publish
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from cosim.errors import BrokerError, ScenarioError
from cosim.io import mqtt
from cosim.io.broker import EmbeddedBroker
from cosim.io.mqtt import MqttEndpoint, connect_mqtt, endpoint_from
from cosim.io.mqtt_causes import error_in_words, refusal_in_words
from cosim.scenario.schema import MqttBroker


@pytest.fixture
def broker():
    with EmbeddedBroker() as running:
        yield running


@contextlib.contextmanager
def server(answer):
    """A TCP server that does ``answer(connection)`` with each connection; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    answer(listening.accept()[0])

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def receive_until(transport, expected):
    received, deadline = [], time.monotonic() + 10.0
    while not set(expected) <= set(received) and time.monotonic() < deadline:
        received += transport.receive(0.5)
    return received


def test_endpoint_takes_the_login_from_the_environment():
    broker = MqttBroker(host="h", port=8883, tls=True, username_env="U", password_env="P", topic_prefix="x/", qos=0)
    endpoint = endpoint_from(broker, {"U": "meter", "P": "secret"})
    assert (endpoint.username, endpoint.password) == ("meter", "secret")
    assert (endpoint.host, endpoint.port, endpoint.tls, endpoint.topic_prefix) == ("h", 8883, True, "x/")
    assert (endpoint.qos, endpoint.reconnect_s) == (0, 10.0)


def test_every_variable_that_is_not_set_is_named():
    broker = MqttBroker(username_env="NO_USER", password_env="NO_PASSWORD")
    with pytest.raises(ScenarioError, match="NO_USER") as caught:
        endpoint_from(broker, {})
    assert [fault.value for fault in caught.value.faults] == ["NO_USER", "NO_PASSWORD"]
    assert caught.value.faults[0].key == "transport.mqtt.username_env"


def test_password_needs_a_user_name():
    with pytest.raises(ScenarioError, match=r"username_env.*no password without a user name"):
        endpoint_from(MqttBroker(password_env="P"), {"P": "secret"})


def test_login_does_not_show_in_logs():
    text = repr(MqttEndpoint("h", 1, username="meter", password="secret"))
    assert "h:1" in text
    assert "secret" not in text
    assert "meter" not in text


def test_prefix_is_put_on_and_taken_off(broker):
    inner = MqttEndpoint("127.0.0.1", broker.port, topic_prefix="site/7/")
    with connect_mqtt(inner, "inner") as inside, connect_mqtt(broker.endpoint, "outer") as outside:
        inside.subscribe()
        outside.subscribe()
        inside.publish("sub/1/p_kw", b"1")
        outside.publish("elsewhere", b"2")
        outside.publish("site/7/foreign", b"3")
        assert receive_until(inside, [("foreign", b"3")]) == [("sub/1/p_kw", b"1"), ("foreign", b"3")]
        received = receive_until(outside, [("site/7/sub/1/p_kw", b"1"), ("site/7/foreign", b"3")])
        assert ("site/7/sub/1/p_kw", b"1") in received


def test_retained_messages_do_not_enter(broker):
    paho.mqtt.publish.single("old", b"1", qos=1, retain=True, hostname="127.0.0.1", port=broker.port)
    with connect_mqtt(broker.endpoint, "gateway") as gateway:
        gateway.subscribe()
        gateway.publish("new", b"2")
        assert receive_until(gateway, [("new", b"2")]) == [("new", b"2")]


@pytest.mark.parametrize(
    ("code", "told"), [(0x80, "not authorised to subscribe to 'a/#'"), (0, "grants QoS 0 only; scenario says qos: 1")]
)
def test_refused_subscription_is_an_error(code, told):
    def refuse(connection):
        with connection:
            connection.recv(1024)
            connection.sendall(bytes([0x20, 2, 0, 0]))
            request = connection.recv(1024)
            connection.sendall(bytes([0x90, 3, *request[2:4], code]))
            connection.recv(1024)

    with server(refuse) as port:
        gateway = connect_mqtt(MqttEndpoint("127.0.0.1", port, topic_prefix="a/", reconnect_s=0.0), "gateway")
        with pytest.raises(BrokerError, match=told):
            gateway.subscribe()
        gateway.close()


def test_refused_connection():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(BrokerError, match=rf"127.0.0.1:{port}: connection refused: no broker listens there"):
        connect_mqtt(MqttEndpoint("127.0.0.1", port), "client")


def test_host_that_does_not_exist():
    with pytest.raises(BrokerError, match=r"no-such-host.invalid:1883: host name cannot be resolved"):
        connect_mqtt(MqttEndpoint("no-such-host.invalid", 1883), "client")


def test_server_that_closes_without_an_answer():
    with (
        server(lambda connection: connection.close()) as port,
        pytest.raises(BrokerError, match=rf"127.0.0.1:{port}: it closed the connection.*TLS"),
    ):
        connect_mqtt(MqttEndpoint("127.0.0.1", port), "client")


def test_server_that_never_answers(monkeypatch):
    monkeypatch.setattr("cosim.io.mqtt_session.ANSWER_S", 0.3)
    kept = []
    with (
        server(kept.append) as port,
        pytest.raises(BrokerError, match=rf"127.0.0.1:{port}: connected, but no answer; .*is it an MQTT 3.1.1 broker"),
    ):
        connect_mqtt(MqttEndpoint("127.0.0.1", port), "client")
    for connection in kept:
        connection.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "MQTT 3.1.1"),
        (2, "client id"),
        (3, "unavailable"),
        (4, "wrong user name or password"),
        (5, "not authorised"),
    ],
)
def test_refusals_by_code_are_put_in_words(code, words):
    def refuse(connection):
        with connection:
            connection.recv(1024)
            connection.sendall(bytes([0x20, 2, 0, code]))

    with server(refuse) as port, pytest.raises(BrokerError, match=rf"127.0.0.1:{port}: .*{words}"):
        connect_mqtt(MqttEndpoint("127.0.0.1", port), "client")


def test_unknown_refusals_and_errors_keep_their_names():
    assert "Quota exceeded" in refusal_in_words(ReasonCode(PacketTypes.CONNACK, "Quota exceeded"))
    assert error_in_words(OSError(113, "No route to host")) == "unreachable (No route to host)"
    assert error_in_words(TimeoutError()) == "unreachable: no answer"


def test_ca_file_that_cannot_be_read(tmp_path):
    absent, junk = tmp_path / "absent.pem", tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    for file in (absent, junk):
        with pytest.raises(BrokerError, match=rf"h:1: cannot use ca_file {file}"):
            connect_mqtt(MqttEndpoint("h", 1, tls=True, ca_file=file), "client")


def test_broker_that_stops_acknowledging_is_an_error(monkeypatch):
    monkeypatch.setattr(mqtt, "_UNACKNOWLEDGED_MAX", 5)
    monkeypatch.setattr(mqtt, "_ACKNOWLEDGE_S", 0.2)
    mute = bytes([0x20, 2, 0, 0])
    kept = []

    def accept_only(connection):
        connection.recv(1024)
        connection.sendall(mute)
        kept.append(connection)

    with server(accept_only) as port:
        transport = connect_mqtt(MqttEndpoint("127.0.0.1", port, reconnect_s=0.0), "sensors")
        for _ in range(5):
            transport.publish("a", b"1")
        with pytest.raises(BrokerError, match="does not acknowledge; 5 messages wait"):
            transport.publish("a", b"1")
        for connection in kept:
            connection.close()
        transport.close()


def test_message_of_megabytes_passes(broker):
    with connect_mqtt(broker.endpoint, "both") as both:
        both.subscribe()
        large = bytes(range(256)) * 12_000
        both.publish("a", large)
        assert receive_until(both, [("a", large)]) == [("a", large)]
