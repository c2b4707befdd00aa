"""One connection to an MQTT broker: a paho client set up from an endpoint, and the exchange that opens it."""

from __future__ import annotations

import select
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, ConnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from cosim.errors import BrokerError
from cosim.io.mqtt_causes import error_in_words, refusal_in_words, silence_in_words, tls_context

ANSWER_S = 5.0
_READS_MAX = 1000


@dataclass(frozen=True)
class MqttEndpoint:
    """Where and how to reach a broker.

    ``reconnect_s`` [s] is how long a lost broker is waited for, ``keepalive_s`` [s] after how long a silent connection
    is tested, ``keeps_sessions`` whether the broker keeps messages for a client that was cut off.
    """

    host: str
    port: int
    tls: bool = False
    ca_file: Path | None = None
    username: str | None = None
    password: str | None = None
    topic_prefix: str = ""
    qos: int = 1
    reconnect_s: float = 10.0
    keepalive_s: int = 60
    keeps_sessions: bool = True

    def __str__(self) -> str:
        return f"MQTT broker {self.host}:{self.port}"

    def __repr__(self) -> str:
        """Without user name and password, which must not reach a log."""
        return f"MqttEndpoint({self}, tls={self.tls}, topic_prefix={self.topic_prefix!r}, qos={self.qos})"


def new_client(endpoint: MqttEndpoint, client_id: str, *, clean_session: bool) -> Client:
    """A client that is not connected yet. Raises BrokerError if ``ca_file`` cannot be used."""
    client = Client(
        CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=clean_session, reconnect_on_failure=False
    )
    client.connect_timeout = ANSWER_S
    client.max_inflight_messages_set(65_535)
    client.on_socket_open = _no_delay
    client.connect_async(endpoint.host, endpoint.port, endpoint.keepalive_s)
    if endpoint.username is not None:
        client.username_pw_set(endpoint.username, endpoint.password)
    if endpoint.tls:
        try:
            client.tls_set_context(tls_context(endpoint.ca_file))
        except OSError as error:
            raise BrokerError(f"{endpoint}: cannot use ca_file {endpoint.ca_file}: {error}") from error
    return client


def open_session(client: Client, endpoint: MqttEndpoint) -> bool:
    """Connect, for the first time or again, and wait for the broker's answer.

    Returns whether the broker still knows this client's session. Raises BrokerError with the cause.
    """
    answers: list[tuple[ConnectFlags, ReasonCode]] = []

    def answered(
        _client: Client, _user: object, flags: ConnectFlags, reason: ReasonCode, _more: Properties | None
    ) -> None:
        answers.append((flags, reason))

    client.on_connect = answered
    try:
        client.reconnect()
    except OSError as error:
        raise BrokerError(f"{endpoint}: {error_in_words(error)}") from error
    deadline = time.monotonic() + ANSWER_S
    while not answers and is_open(client) and time.monotonic() < deadline:
        exchange(client, wait_for_socket(client, 0.1))
    if not answers:
        cause = silence_in_words(not is_open(client), endpoint.tls)
        raise BrokerError(f"{endpoint}: {cause}")
    flags, reason = answers[0]
    if reason.is_failure:
        raise BrokerError(f"{endpoint}: {refusal_in_words(reason)}")
    return flags.session_present


def is_open(client: Client) -> bool:
    """Whether the socket stands."""
    return client.socket() is not None


def wait_for_socket(client: Client, timeout_s: float, wake: socket.socket | None = None) -> bool:
    """Wait until the socket can be read, or written if there is something to write, or a byte arrives on ``wake``.

    Returns whether the socket can be read. Needs no lock.
    """
    sock: Any = client.socket()
    if sock is None:
        return False
    wakers = [wake] if wake is not None else []
    try:
        readable, _, _ = select.select([sock, *wakers], [sock] if client.want_write() else [], [], timeout_s)
    except (OSError, ValueError):  # closed meanwhile, by a publisher who found it broken
        return False
    if wake in readable and wake is not None:
        wake.recv(4096)
    return sock in readable


def exchange(client: Client, readable: bool) -> None:
    """Read and handle what has arrived, write what is queued, test a connection that has been silent for long."""
    sock: Any = client.socket()
    reads = 0
    while readable and reads < _READS_MAX and client.socket() is sock and sock is not None:
        reads += 1
        if client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return
        readable = _has_more(client)
    if client.want_write():
        client.loop_write()
    client.loop_misc()


def _has_more(client: Client) -> bool:
    sock: Any = client.socket()
    if sock is None:
        return False
    # what TLS has already decrypted does not show in select
    return (isinstance(sock, ssl.SSLSocket) and sock.pending() > 0) or bool(select.select([sock], [], [], 0.0)[0])


def _no_delay(_client: Client, _user: object, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
