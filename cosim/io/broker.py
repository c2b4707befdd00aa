"""An MQTT broker inside this process (amqtt), for runs that have no broker of their own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from typing import Self

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter  # type: ignore[import-untyped]
from amqtt.broker import Broker  # type: ignore[import-untyped]
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType  # type: ignore[import-untyped]

from cosim.errors import BrokerError
from cosim.io.mqtt import MqttEndpoint

_log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_LISTENER = "default"
_START_S = 10.0
_SHUTDOWN_S = 2.0
_ROUND_S = 0.02
_ANONYMOUS = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}


class EmbeddedBroker:
    """A broker on a free loopback port, running in a background thread while its ``with`` block lasts.

    Anybody on this machine may connect, without a password. The broker's log is silent unless a level is set for the
    logger ``amqtt``. Leaving the block takes a few seconds at most, also while clients are connected.
    """

    def __init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="embedded MQTT broker", daemon=True)
        self._ready = threading.Event()
        self._port = 0
        self._cause: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    @property
    def port(self) -> int:
        """TCP port on 127.0.0.1."""
        return self._port

    @property
    def endpoint(self) -> MqttEndpoint:
        """How to connect to it."""
        return MqttEndpoint(host=_HOST, port=self._port, keeps_sessions=False)

    def __enter__(self) -> Self:
        """Start. Raises BrokerError if the broker does not start."""
        _silence()
        self._thread.start()
        if not self._ready.wait(_START_S) or self._cause is not None:
            raise BrokerError(f"the embedded MQTT broker did not start: {self._cause or 'no answer'}") from self._cause
        return self

    def __exit__(self, *exc: object) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended already
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=3 * _SHUTDOWN_S)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve())
        except Exception as error:  # handed to the thread that waits in __enter__
            self._cause = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        listener = ListenerConfig(type=ListenerType.EXTERNAL)
        broker = Broker(BrokerConfig(listeners={_LISTENER: listener}, plugins=_ANONYMOUS))
        await broker.start()
        connections = _Connections(broker)
        with socket.create_server((_HOST, 0)) as listening:
            listening.setblocking(False)
            self._port = listening.getsockname()[1]
            self._loop.add_reader(listening, connections.accept, listening)
            self._ready.set()
            await self._stop.wait()
            self._loop.remove_reader(listening)
        await connections.abort()  # amqtt's shutdown waits for connected clients, without limit
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(broker.shutdown(), _SHUTDOWN_S)


class _Connections:
    """The broker's connections. asyncio's own server drops a connection unclosed that it accepts while it closes."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def accept(self, listening: socket.socket) -> None:
        """Take one waiting connection and serve it."""
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            connection = listening.accept()[0]
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 40 ms an acknowledgement
            task = asyncio.get_running_loop().create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def abort(self) -> None:
        """End them all at once, and wait until they have ended."""
        deadline = time.monotonic() + _SHUTDOWN_S
        while self._tasks and time.monotonic() < deadline:
            for writer in tuple(self._writers):
                writer.transport.abort()
            await asyncio.wait(tuple(self._tasks), timeout=_ROUND_S)  # one accepted just now has no writer yet
        for task in tuple(self._tasks):
            task.cancel()

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        self._writers.add(writer)
        try:
            await self._broker.external_connected(StreamReaderAdapter(reader), StreamWriterAdapter(writer), _LISTENER)
        finally:
            self._writers.discard(writer)
            writer.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.debug("a connection to the embedded broker failed: %s", task.exception())


def _silence() -> None:
    logger = logging.getLogger("amqtt")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
