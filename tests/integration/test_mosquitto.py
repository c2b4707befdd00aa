"""The MQTT transport against Debian's mosquitto: plain, TLS, passwords, and a broker that goes away."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from datetime import UTC, datetime

import paho.mqtt.publish
import pytest
import trustme
from mosquitto_server import NEEDS_MOSQUITTO, Mosquitto, password_file

from cosim.errors import BrokerError
from cosim.io.capture import record
from cosim.io.mqtt import MqttEndpoint, connect_mqtt

pytestmark = NEEDS_MOSQUITTO


def endpoint(broker, **settings):
    return MqttEndpoint(host="127.0.0.1", port=broker.port, **settings)


def receive_all(transport, expected, within_s=10.0):
    """Topics and payloads received until all of ``expected`` are there, or time is up."""
    received, deadline = [], time.monotonic() + within_s
    while not expected <= set(received) and time.monotonic() < deadline:
        received += transport.receive(0.5)
    return received


def messages(first, last):
    return [(f"sub/{k % 5}/p_kw", str(k).encode()) for k in range(first, last)]


def publish_all(transport, packets):
    for topic, payload in packets:
        transport.publish(topic, payload)


@pytest.fixture
def plain(tmp_path):
    with Mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def encrypted(tmp_path, authority):
    certificate = authority.issue_cert("127.0.0.1")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(chain)
    with Mosquitto(tmp_path, ["allow_anonymous true", f"keyfile {key}", f"certfile {chain}"]) as broker:
        yield broker


@pytest.fixture
def guarded(tmp_path):
    passwords = password_file(tmp_path, "meter", "right")
    with Mosquitto(tmp_path, ["allow_anonymous false", f"password_file {passwords}"]) as broker:
        yield broker


def ca_file(authority, tmp_path):
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    return file


@pytest.mark.parametrize("qos", [0, 1])
def test_every_message_arrives_once_and_in_order(plain, qos):
    reach = endpoint(plain, topic_prefix="site/a/", qos=qos)
    with connect_mqtt(reach, "gateway") as gateway, connect_mqtt(reach, "sensors") as sensors:
        gateway.subscribe()
        sent = messages(0, 3000)
        publish_all(sensors, sent)
        assert receive_all(gateway, set(sent)) == sent


def test_other_prefixes_stay_outside(plain):
    inside, outside = endpoint(plain, topic_prefix="a/"), endpoint(plain, topic_prefix="b/")
    with connect_mqtt(inside, "gateway") as gateway, connect_mqtt(outside, "foreign") as foreign:
        gateway.subscribe()
        foreign.publish("sub/1/p_kw", b"1")
        assert gateway.receive(0.3) == []


def test_retained_messages_do_not_enter(plain):
    paho.mqtt.publish.single("old", b"1", qos=1, retain=True, hostname="127.0.0.1", port=plain.port)
    with connect_mqtt(endpoint(plain), "gateway") as gateway:
        gateway.subscribe()
        gateway.publish("new", b"2")
        assert receive_all(gateway, {("new", b"2")}) == [("new", b"2")]


def test_sessions_are_discarded_at_the_end(plain, tmp_path):
    with connect_mqtt(endpoint(plain), "gateway") as gateway:
        gateway.subscribe()
    log = next(tmp_path.glob("mosquitto-*.log")).read_text()
    assert "as gateway-" in log
    assert log.count("c0, k60") == 1
    assert log.count("c1, k60") >= 1, "a clean connection must have dropped the session"


def test_tls_with_the_right_authority(encrypted, authority, tmp_path):
    reach = endpoint(encrypted, tls=True, ca_file=ca_file(authority, tmp_path))
    with connect_mqtt(reach, "gateway") as gateway, connect_mqtt(reach, "sensors") as sensors:
        gateway.subscribe()
        sent = messages(0, 2000)
        publish_all(sensors, sent)
        assert receive_all(gateway, set(sent)) == sent


def test_tls_with_another_authority_is_refused(encrypted, tmp_path):
    reach = endpoint(encrypted, tls=True, ca_file=ca_file(trustme.CA(), tmp_path))
    with pytest.raises(BrokerError, match=rf"127.0.0.1:{encrypted.port}: TLS verification failed: .*ca_file"):
        connect_mqtt(reach, "gateway")


def test_certificate_of_another_host_is_refused(tmp_path, authority):
    certificate = authority.issue_cert("broker.example")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(chain)
    with (
        Mosquitto(tmp_path, ["allow_anonymous true", f"keyfile {key}", f"certfile {chain}"]) as broker,
        pytest.raises(BrokerError, match=r"TLS verification failed: .*not valid for '127.0.0.1'"),
    ):
        connect_mqtt(endpoint(broker, tls=True, ca_file=ca_file(authority, tmp_path)), "gateway")


def test_plain_client_on_tls_port_is_told_so(encrypted):
    with pytest.raises(BrokerError, match=rf"127.0.0.1:{encrypted.port}: .*TLS"):
        connect_mqtt(endpoint(encrypted), "gateway")


def test_tls_client_on_plain_port_is_told_so(plain):
    with pytest.raises(BrokerError, match=rf"127.0.0.1:{plain.port}: .*TLS"):
        connect_mqtt(endpoint(plain, tls=True), "gateway")


def test_right_password(guarded):
    with connect_mqtt(endpoint(guarded, username="meter", password="right"), "gateway") as gateway:
        gateway.subscribe()
        gateway.publish("a", b"1")
        assert gateway.receive(5.0) == [("a", b"1")]


@pytest.mark.parametrize("login", [{"username": "meter", "password": "wrong"}, {}])
def test_wrong_or_missing_password(guarded, login):
    with pytest.raises(BrokerError, match=rf"127.0.0.1:{guarded.port}: not authorised: user name or password"):
        connect_mqtt(endpoint(guarded, **login), "gateway")


def test_lower_quality_of_service_than_asked_is_an_error(tmp_path):
    with (
        Mosquitto(tmp_path, ["allow_anonymous true", "max_qos 0"]) as broker,
        connect_mqtt(endpoint(broker), "gateway") as gateway,
        pytest.raises(BrokerError, match="grants QoS 0 only"),
    ):
        gateway.subscribe()


def test_broker_killed_and_restarted_loses_nothing(plain):
    """Killed without persistence: the broker forgets its sessions and what it had acknowledged."""
    with connect_mqtt(endpoint(plain), "gateway") as gateway, connect_mqtt(endpoint(plain), "sensors") as sensors:
        gateway.subscribe()
        sent = messages(0, 900)
        publish_all(sensors, sent[:300])
        plain.kill()
        publish_all(sensors, sent[300:600])
        again = threading.Timer(0.5, plain.start)
        again.start()
        publish_all(sensors, sent[600:])
        received = receive_all(gateway, set(sent))
        again.join()
        assert set(received) == set(sent)


def test_run_in_lock_step_survives_repeated_restarts(plain):
    reach = endpoint(plain)
    with connect_mqtt(reach, "gateway") as gateway, connect_mqtt(reach, "sensors") as sensors:
        gateway.subscribe()
        for step in range(60):
            sent = messages(15 * step, 15 * step + 15)
            publish_all(sensors, sent)
            if step % 20 == 10:
                plain.kill()
                plain.start()
            assert set(sent) <= set(receive_all(gateway, set(sent))), f"step {step}"


def test_time_without_a_broker_does_not_count_as_waiting(plain):
    """An outage must not be taken for a silent sensor."""
    with connect_mqtt(endpoint(plain), "gateway") as gateway, connect_mqtt(endpoint(plain), "sensors") as sensors:
        gateway.subscribe()
        plain.kill()
        sensors.publish("a", b"1")
        again = threading.Timer(1.5, plain.start)
        again.start()
        assert ("a", b"1") in gateway.receive(1.0)
        again.join()


def test_one_connection_for_both_survives_a_restart(plain):
    with connect_mqtt(endpoint(plain), "both") as both:
        both.subscribe()
        sent = messages(0, 500)
        publish_all(both, sent)
        plain.kill()
        plain.start()
        assert set(receive_all(both, set(sent))) == set(sent)


def test_subscriber_that_loses_its_connection_misses_nothing_of_other_programs(plain):
    with connect_mqtt(endpoint(plain), "gateway") as gateway:
        gateway.subscribe()
        cut(gateway)
        with gateway._changed:  # it cannot reconnect
            foreign = [("tcp", str(k).encode()) for k in range(50)]
            paho.mqtt.publish.multiple(
                [(topic, payload, 1, False) for topic, payload in foreign], hostname="127.0.0.1", port=plain.port
            )
        assert receive_all(gateway, set(foreign)) == foreign


@pytest.mark.parametrize("keeps_sessions", [True, False])
def test_broken_connections_lose_nothing(plain, keeps_sessions):
    reach = endpoint(plain, keeps_sessions=keeps_sessions)
    with connect_mqtt(reach, "gateway") as gateway, connect_mqtt(reach, "sensors") as sensors:
        gateway.subscribe()
        sent = messages(0, 300)
        for k, (topic, payload) in enumerate(sent):
            sensors.publish(topic, payload)
            if k in (50, 150):
                cut(gateway)
            if k in (100, 151):
                cut(sensors)
        assert set(receive_all(gateway, set(sent))) == set(sent)


def cut(transport):
    """Break its connection, as a network would."""
    with transport._changed:
        assert transport._changed.wait_for(lambda: transport._client.socket() is not None, 10.0)
        with contextlib.suppress(OSError):  # the broker was faster
            transport._client.socket().shutdown(socket.SHUT_RDWR)


def test_subscriber_that_comes_back_last_asks_for_what_it_missed(plain):
    """The publisher resends on its own reconnection, when nobody listens yet."""
    with connect_mqtt(endpoint(plain), "gateway") as gateway, connect_mqtt(endpoint(plain), "sensors") as sensors:
        gateway.subscribe()
        sent, lost = messages(0, 100), sensors._client.socket()
        with gateway._changed:  # it can neither receive nor reconnect
            publish_all(sensors, sent)
            plain.kill()
            plain.start()
            with sensors._changed:
                assert sensors._changed.wait_for(lambda: sensors._client.socket() not in (None, lost), 10.0)
                assert sensors._changed.wait_for(lambda: not sensors._unacknowledged, 10.0)
        assert set(receive_all(gateway, set(sent))) == set(sent)


@pytest.mark.parametrize("reconnect_s", [0.0, 1.0])
def test_broker_gone_for_good_is_a_clear_error_in_bounded_time(plain, reconnect_s):
    reach = endpoint(plain, reconnect_s=reconnect_s)
    gateway, sensors = connect_mqtt(reach, "gateway"), connect_mqtt(reach, "sensors")
    gateway.subscribe()
    plain.kill()
    began = time.monotonic()
    told = rf"127.0.0.1:{plain.port}: lost, and not back within {reconnect_s:g} s"
    with pytest.raises(BrokerError, match=told):
        gateway.receive(60.0)
    with pytest.raises(BrokerError, match=told):
        publish_until_error(sensors)
    gateway.close()
    sensors.close()
    assert time.monotonic() - began < reconnect_s + 3.0


def publish_until_error(transport):
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        transport.publish("a", b"1")
        time.sleep(0.01)


def test_capture_of_a_live_broker(plain, tmp_path):
    file = tmp_path / "live.csv"
    stop = threading.Event()
    arrival = datetime(2024, 1, 1, 12, tzinfo=UTC)
    with connect_mqtt(endpoint(plain), "record") as listener, connect_mqtt(endpoint(plain), "meter") as meter:
        listener.subscribe()
        meter.publish("sub/3/p_kw", b'{"t": "2016-07-23T12:00:00+02:00", "value": -863.0, "unit": "kW", "seq": 4}')
        meter.publish("foreign/temperature", b"21.5")
        capture = record(listener, file, max_messages=2, duration_s=10.0, now=lambda: arrival, stop=stop)
    assert capture.written == 2
    assert file.read_text().splitlines() == [
        "time,topic,value,unit,sequence",
        "2016-07-23T10:00:00.000+00:00,sub/3/p_kw,-863.0,kW,4",
        "2024-01-01T12:00:00.000+00:00,foreign/temperature,21.5,,",
    ]
