"""Messages over an MQTT broker: the port of ``cosim.io.transport`` by paho-mqtt, MQTT 3.1.1.

A thread of each transport reads the socket, acknowledges, keeps the connection alive and gets it back when it is
lost. Nothing that this project publishes with QoS 1 is lost with it: paho sends again what the broker has not
acknowledged, and the broker keeps the session. A broker that comes back without its sessions (killed, not persistent)
has also lost what it had acknowledged, so publishers keep their last messages and send them again, on their own
reconnection and when a subscriber asks for it on the topic ``cosim/resend``. Receivers drop the duplicates by sequence.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from cosim.errors import BrokerError, Fault, ScenarioError, TransportError
from cosim.io.mqtt_session import ANSWER_S, MqttEndpoint, exchange, is_open, new_client, open_session, wait_for_socket
from cosim.io.transport import Transport, check_topic
from cosim.scenario.schema import MqttBroker

__all__ = ["MqttEndpoint", "connect_mqtt", "endpoint_from"]

_log = logging.getLogger(__name__)

_RESEND_TOPIC = "cosim/resend"
_KEPT_MESSAGES = 5_000
_UNACKNOWLEDGED_MAX = 20_000
_ACKNOWLEDGE_S = 30.0
_RETRY_S = 0.1
_TICK_S = 1.0


def endpoint_from(broker: MqttBroker, environ: Mapping[str, str]) -> MqttEndpoint:
    """The endpoint of a scenario's broker, user name and password taken from the environment variables it names.

    Raises ScenarioError naming every variable that is not set.
    """
    named = {"username_env": broker.username_env, "password_env": broker.password_env}
    faults = [
        Fault("environment variable is not set", key=f"transport.mqtt.{key}", value=variable)
        for key, variable in named.items()
        if variable is not None and variable not in environ
    ]
    if broker.password_env is not None and broker.username_env is None:
        faults.append(Fault("MQTT has no password without a user name; name one", key="transport.mqtt.username_env"))
    if faults:
        raise ScenarioError(faults)
    return MqttEndpoint(
        host=broker.host,
        port=broker.port,
        tls=broker.tls,
        ca_file=broker.ca_file,
        username=environ[broker.username_env] if broker.username_env is not None else None,
        password=environ[broker.password_env] if broker.password_env is not None else None,
        topic_prefix=broker.topic_prefix,
        qos=broker.qos,
        reconnect_s=broker.reconnect_s,
    )


def connect_mqtt(endpoint: MqttEndpoint, client_id: str) -> Transport:
    """Connect to the broker; a random suffix makes ``client_id`` unique there.

    Raises BrokerError naming host, port and the cause.
    """
    return _MqttTransport(endpoint, f"{client_id}-{secrets.token_hex(4)}")


class _MqttTransport:
    """``_changed`` guards the client and all state; paho calls back within its own calls, with the lock held."""

    def __init__(self, endpoint: MqttEndpoint, client_id: str) -> None:
        self._endpoint = endpoint
        self._client_id = client_id
        self._changed = threading.Condition(threading.Lock())
        self._arrived: list[tuple[str, bytes]] = []
        self._sent: deque[tuple[str, bytes]] = deque(maxlen=_KEPT_MESSAGES)
        self._unacknowledged = 0
        self._subscribed = False
        self._subscribe_id: int | None = None
        self._granted = False
        self._serves_resend = False
        self._resend_asked = False
        self._failure: BrokerError | None = None
        self._closing = threading.Event()
        self._client = self._connected()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_write.setblocking(False)
        self._thread = threading.Thread(target=self._serve, name=f"MQTT {client_id}", daemon=True)
        self._thread.start()

    def publish(self, topic: str, payload: bytes) -> None:
        check_topic(topic)
        with self._changed:
            self._require_open()
            if not self._changed.wait_for(self._may_send, self._endpoint.reconnect_s + _ACKNOWLEDGE_S):
                raise BrokerError(f"{self._endpoint}: does not acknowledge; {self._unacknowledged} messages wait")
            self._require_open()
            self._serve_resend()
            self._sent.append((topic, payload))
            self._send(topic, payload)

    def subscribe(self) -> None:
        with self._changed:
            self._require_open()
            self._subscribed = True
            self._send_subscription()
            patience_s = self._endpoint.reconnect_s + ANSWER_S
            self._changed.wait_for(lambda: self._granted or self._failure or self._closing.is_set(), patience_s)
            self._require_open()
            if not self._granted:
                raise BrokerError(f"{self._endpoint}: no answer to the subscription to {self._filter!r}")

    def receive(self, timeout_s: float) -> list[tuple[str, bytes]]:
        with self._changed:
            if not self._changed.wait_for(self._has_news, timeout_s) and not is_open(self._client):
                # time without a connection does not count: it ends with a connection or a failure
                self._changed.wait_for(lambda: is_open(self._client) or self._has_news())
                self._changed.wait_for(self._has_news, timeout_s)
            if not self._arrived:
                self._require_open()
            arrived, self._arrived = self._arrived, []
            return arrived

    def close(self) -> None:
        with self._changed:
            if self._closing.is_set():
                return
            self._changed.wait_for(
                lambda: self._failure or not self._unacknowledged, self._endpoint.reconnect_s + ANSWER_S
            )
            if self._unacknowledged and not self._failure:
                _log.warning("%s: %d messages may not have been delivered", self._endpoint, self._unacknowledged)
            self._closing.set()
            stands = is_open(self._client)
            self._client.disconnect()
            self._wake()
            self._changed.notify_all()
        self._thread.join()
        self._wake_read.close()
        self._wake_write.close()
        if stands and self._endpoint.keeps_sessions:
            self._discard_session()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # in the thread

    def _serve(self) -> None:
        try:
            while not self._closing.is_set():
                readable = wait_for_socket(self._client, _TICK_S, self._wake_read)
                with self._changed:
                    exchange(self._client, readable)
                    if self._resend_asked:
                        self._resend()
                    stands = is_open(self._client)
                    self._changed.notify_all()
                if not stands:
                    self._reconnect()
        except BrokerError as error:
            self._failure = error
        finally:
            with self._changed:
                if not self._closing.is_set() and self._failure is None:
                    self._failure = BrokerError(f"{self._endpoint}: the network thread ended unexpectedly")
                self._changed.notify_all()

    def _reconnect(self) -> None:
        limit_s = self._endpoint.reconnect_s
        began, cause = time.monotonic(), "it closed the connection"
        while not self._closing.is_set() and time.monotonic() - began < limit_s:
            with self._changed:
                try:
                    self._resume(open_session(self._client, self._endpoint))
                except BrokerError as error:
                    cause = str(error).removeprefix(f"{self._endpoint}: ")
                else:
                    _log.warning("%s: lost, and back after %.1f s", self._endpoint, time.monotonic() - began)
                    return
            self._closing.wait(_RETRY_S)
        if not self._closing.is_set():
            raise BrokerError(f"{self._endpoint}: lost, and not back within {limit_s:g} s; last: {cause}")

    def _resume(self, session_present: bool) -> None:
        if self._subscribed and not (session_present and self._granted):
            self._send_subscription()
            self._send(_RESEND_TOPIC, self._client_id.encode())
        if not session_present:
            self._serves_resend = False
            self._resend()
        self._changed.notify_all()

    # with the lock held

    @property
    def _filter(self) -> str:
        return self._endpoint.topic_prefix + "#"

    def _connected(self) -> Client:
        client = new_client(self._endpoint, self._client_id, clean_session=not self._endpoint.keeps_sessions)
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        open_session(client, self._endpoint)
        return client

    def _require_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closing.is_set():
            raise TransportError(f"{self._endpoint}: the transport is closed")

    def _has_news(self) -> bool:
        return bool(self._arrived) or self._failure is not None or self._closing.is_set()

    def _may_send(self) -> bool:
        return self._unacknowledged < _UNACKNOWLEDGED_MAX or self._failure is not None or self._closing.is_set()

    def _send(self, topic: str, payload: bytes) -> None:
        self._unacknowledged += self._endpoint.qos
        self._client.publish(self._endpoint.topic_prefix + topic, payload, qos=self._endpoint.qos)
        if self._client.want_write() or not is_open(self._client):
            self._wake()

    def _send_subscription(self) -> None:
        self._granted = False
        _, self._subscribe_id = self._client.subscribe(self._filter, self._endpoint.qos)

    def _serve_resend(self) -> None:
        if not self._serves_resend and not self._subscribed:
            self._client.subscribe(self._endpoint.topic_prefix + _RESEND_TOPIC, 1)
            self._serves_resend = True

    def _resend(self) -> None:
        self._resend_asked = False
        if self._sent:
            self._serve_resend()
        for topic, payload in self._sent:
            self._send(topic, payload)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the thread has not yet read the bytes that wake it
            self._wake_write.send(b"w")

    def _discard_session(self) -> None:
        """Let the broker forget this client; a clean connection is the way to say so in MQTT 3.1.1."""
        client = new_client(self._endpoint, self._client_id, clean_session=True)
        try:
            open_session(client, self._endpoint)
        except BrokerError as error:
            _log.debug("session %s not discarded: %s", self._client_id, error)
        else:
            client.disconnect()

    # called by paho

    def _on_message(self, _client: Client, _user: object, message: MQTTMessage) -> None:
        topic, payload = message.topic.removeprefix(self._endpoint.topic_prefix), bytes(message.payload)
        if message.retain:
            return
        if topic == _RESEND_TOPIC:
            self._resend_asked = self._resend_asked or payload != self._client_id.encode()
        elif self._subscribed:
            self._arrived.append((topic, payload))

    def _on_publish(
        self, _client: Client, _user: object, _id: int, _reason: ReasonCode, _more: Properties | None
    ) -> None:
        self._unacknowledged -= self._endpoint.qos

    def _on_subscribe(
        self, _client: Client, _user: object, message_id: int, reasons: list[ReasonCode], _more: Properties | None
    ) -> None:
        if message_id != self._subscribe_id:
            return
        granted, asked = reasons[0].value, self._endpoint.qos
        if reasons[0].is_failure:
            self._failure = BrokerError(f"{self._endpoint}: not authorised to subscribe to {self._filter!r}")
        elif granted < asked:
            self._failure = BrokerError(f"{self._endpoint}: grants QoS {granted} only; scenario says qos: {asked}")
        else:
            self._granted = True
