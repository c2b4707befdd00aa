"""Simulators in processes of their own: started, connected and ended without a trace.

mosaik's own starter waits a minute for a process that has died at once, and leaves behind one that never connects.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from mosaik.exceptions import SimulationError
from mosaik.proxies import BaseProxy, RemoteProxy
from mosaik.starters import Starter
from mosaik_api_v3.connection import Channel

_LOOK_S = 0.02  # between two looks whether a process still runs
_OBEY_S = 2.0  # for a process to end when told to


def split(command: str) -> list[str]:
    """The parts of a command, as a shell would see them. Raises ValueError or KeyError if it cannot be filled in."""
    parts = shlex.split(command)
    for part in parts:
        _ = part % {"addr": "", "python": ""}
    return parts


class ProcessStarter(Starter):
    """Runs ``command`` in the folder ``cwd``; ``%(addr)s`` and ``%(python)s`` in it are filled in. The process must
    connect to the address. What it prints goes to our standard error."""

    api_version = None

    def __init__(self, command: Sequence[str], cwd: str = ".") -> None:
        self._command, self._cwd = tuple(command), cwd

    async def start(self, sim_id: str, mosaik_remote: Any, mosaik_config: Any) -> BaseProxy:
        connected: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()

        async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if connected.done():
                writer.close()
            else:
                connected.set_result(Channel(reader, writer, name=sim_id))

        server = await asyncio.start_server(on_connect, "127.0.0.1", 0)
        try:
            host, port = server.sockets[0].getsockname()
            process = self._process({"addr": f"{host}:{port}", "python": sys.executable})
            try:
                channel = await self._connection(process, connected)
            except BaseException:
                await end(process, 0.0)
                raise
        finally:
            server.close()
        return RemoteProxy(channel, mosaik_remote, process=(process, False))

    @classmethod
    def from_starter_config(cls, starter_config: Any) -> Starter | None:
        return None

    def _process(self, filled_in: dict[str, str]) -> subprocess.Popen[str]:
        command = [part % filled_in for part in self._command]
        ours = os.dup(2)
        try:
            return subprocess.Popen(command, cwd=self._cwd, stdin=subprocess.DEVNULL, stdout=ours, text=True)
        finally:
            os.close(ours)

    async def _connection(self, process: subprocess.Popen[str], connected: asyncio.Future[Channel]) -> Channel:
        while not connected.done():
            if process.poll() is not None:
                raise SimulationError(f"its process ended with exit code {process.returncode} before it connected")
            await asyncio.wait([connected], timeout=_LOOK_S)
        return connected.result()


async def end(process: subprocess.Popen[str], grace_s: float) -> None:
    """Waits ``grace_s`` [s] for a process to end by itself, tells it to end, kills it; reaps it."""
    for seconds, harder in ((grace_s, process.terminate), (_OBEY_S, process.kill)):
        deadline = asyncio.get_running_loop().time() + seconds
        while process.poll() is None and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_LOOK_S)
        if process.poll() is None:
            harder()
    process.wait()
