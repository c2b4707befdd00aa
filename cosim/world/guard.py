"""Guarded simulators: whatever goes wrong in one, local or remote, becomes one error that names it.

mosaik logs a remote simulator's exception and returns normally, waits for ever for one that hangs, and ends the process
of one that is slow to stop without looking whether it ended. Every call to a simulator passes through `GuardedProxy`,
which also measures the time it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections import defaultdict
from typing import Any

from mosaik.exceptions import ConnectionClosedError, ScenarioError, SimulationError
from mosaik.proxies import BaseProxy, RemoteProxy
from mosaik.starters import Starter
from mosaik_api_v3.connection import RemoteException

from cosim.errors import CosimError, SimulatorError

_STOP_S = 5.0


class Stopwatch:
    """Wall-clock seconds spent in each simulator."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, simulator: str, seconds: float) -> None:
        self._seconds[simulator] += seconds

    def take(self) -> dict[str, float]:
        """The seconds since the last call, by simulator."""
        seconds = dict(self._seconds)
        self._seconds = defaultdict(float, dict.fromkeys(seconds, 0.0))
        return seconds


class GuardedStarter(Starter):
    """Starts simulator ``name`` as ``inner`` does and guards it; a call may take ``timeout_s`` [s]."""

    def __init__(self, name: str, inner: Starter, timeout_s: float, stopwatch: Stopwatch) -> None:
        self._name, self._inner, self._timeout_s, self._stopwatch = name, inner, timeout_s, stopwatch
        self.api_version = inner.api_version

    async def start(self, sim_id: str, mosaik_remote: Any, mosaik_config: Any) -> BaseProxy:
        try:
            proxy = await self._inner.start(sim_id, mosaik_remote, mosaik_config)
        except (SimulationError, ScenarioError, OSError) as error:
            raise SimulatorError(f"simulator {self._name} could not be started: {error}") from None
        return GuardedProxy(self._name, proxy, self._timeout_s, self._stopwatch)

    @classmethod
    def from_starter_config(cls, starter_config: Any) -> Starter | None:
        return None


class GuardedProxy(BaseProxy):
    """A simulator whose every failure is a `CosimError` that names it."""

    def __init__(self, name: str, inner: BaseProxy, timeout_s: float, stopwatch: Stopwatch) -> None:
        super().__init__()
        self._name, self._inner, self._timeout_s, self._stopwatch = name, inner, timeout_s, stopwatch
        self._remote = isinstance(inner, RemoteProxy)
        self._t_s: int | None = None

    @property
    def meta(self) -> Any:
        return self._inner.meta

    async def init(self, sid: str, *, time_resolution: float, **sim_params: Any) -> list[int]:
        call = self._inner.init(sid, time_resolution=time_resolution, **sim_params)
        version: list[int] = await self._guarded("init", call)
        return version

    async def send(self, request: Any) -> Any:
        method = str(request[0])
        if method == "step":
            self._t_s = request[1][0]
        started = time.perf_counter()
        try:
            return await self._guarded(method, self._inner.send(request))
        finally:
            self._stopwatch.add(self._name, time.perf_counter() - started)

    async def _guarded(self, method: str, call: Any) -> Any:
        try:
            return await (asyncio.wait_for(call, self._timeout_s) if self._remote else call)
        except CosimError:
            raise
        except RemoteException as error:
            raise self._error(method, f"{error.remote_type}: {error.remote_msg}") from None
        except (ConnectionClosedError, ConnectionError, asyncio.IncompleteReadError):
            raise self._error(method, f"its process is gone{self._exit_code()}") from None
        except TimeoutError:
            raise self._error(method, f"no answer within {self._timeout_s:g} s") from None
        except Exception as error:
            raise self._error(method, f"{type(error).__name__}: {error}") from error

    def _error(self, method: str, cause: str) -> SimulatorError:
        at = "" if self._t_s is None else f" at simulated time {self._t_s} s"
        return SimulatorError(f"simulator {self._name} failed in {method}(){at}: {cause}")

    def _exit_code(self) -> str:
        process = self._process
        code = None if process is None else process.poll()
        return "" if code is None else f" (exit code {code})"

    @property
    def _process(self) -> subprocess.Popen[str] | None:
        owned = getattr(self._inner, "_process", None)
        return owned[0] if owned else None

    async def stop(self) -> None:
        """Stops it; a process that does not end in time is killed and reaped."""
        if not self._remote:
            await self._inner.stop()
            return
        with contextlib.suppress(Exception):  # it may be gone, hang or fail to stop: below it is ended in any case
            await asyncio.wait_for(self._inner.stop(), _STOP_S)
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()
        if process is not None:
            process.wait()
