"""Guarded simulators: whatever goes wrong in one, local or remote, becomes one error that names it.

mosaik logs a remote simulator's exception and returns normally, waits for ever for one that hangs or whose answer it
cannot read, and takes any value for an output. Every call to a simulator passes through `GuardedProxy`, and is noted in
its `Calls`.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Awaitable
from typing import Any

from mosaik.exceptions import ConnectionClosedError, ScenarioError, SimulationError
from mosaik.proxies import BaseProxy, RemoteProxy
from mosaik.starters import Starter
from mosaik_api_v3.connection import RemoteException

from cosim.errors import CosimError, SimulatorError
from cosim.world.calls import Calls
from cosim.world.foreign import fault_in
from cosim.world.process import end

CONNECT_S = 60.0
_STOP_S = 5.0
_SETTLE_S = 0.1
_EXIT_S = 3.0


class _NoAnswer(Exception):
    """A remote simulator hangs, is gone or sends something else than answers."""


class GuardedStarter(Starter):
    """Starts simulator ``name`` as ``inner`` does and guards it: a call may take ``timeout_s`` [s], and the outputs of
    a ``foreign`` one must be numbers. Its clock starts at simulated time ``begin_s`` [s]."""

    def __init__(
        self, name: str, inner: Starter, timeout_s: float, calls: Calls, begin_s: int = 0, foreign: bool = False
    ) -> None:
        self._name, self._inner, self._timeout_s = name, inner, timeout_s
        self._calls, self._begin_s, self._foreign = calls, begin_s, foreign
        self.api_version = inner.api_version

    async def start(self, sim_id: str, mosaik_remote: Any, mosaik_config: Any) -> BaseProxy:
        try:
            proxy = await asyncio.wait_for(self._inner.start(sim_id, mosaik_remote, mosaik_config), CONNECT_S)
        except TimeoutError:
            raise SimulatorError(f"simulator {self._name} did not connect within {CONNECT_S:g} s") from None
        except (SimulationError, ScenarioError, OSError) as error:
            raise SimulatorError(f"simulator {self._name} could not be started: {error}") from None
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise SimulatorError(f"simulator {self._name} could not be started: {what}") from error
        return GuardedProxy(self._name, proxy, self._timeout_s, self._calls, self._begin_s, self._foreign)

    @classmethod
    def from_starter_config(cls, starter_config: Any) -> Starter | None:
        return None


class GuardedProxy(BaseProxy):
    """A simulator whose every failure is a `CosimError` that names it."""

    def __init__(
        self, name: str, inner: BaseProxy, timeout_s: float, calls: Calls, begin_s: int, foreign: bool
    ) -> None:
        super().__init__()
        self._name, self._inner, self._timeout_s = name, inner, timeout_s
        self._calls, self._begin_s, self._foreign = calls, begin_s, foreign
        self._t_s: int | None = None
        self._hopeless = False

    @property
    def meta(self) -> Any:
        return self._inner.meta

    async def init(self, sid: str, *, time_resolution: float, **sim_params: Any) -> list[int]:
        call = self._inner.init(sid, time_resolution=time_resolution, **sim_params)
        try:
            version: list[int] = await self._guarded("init", call)
        except BaseException:
            if isinstance(self._inner, RemoteProxy):
                await self.stop()  # mosaik forgets a simulator that fails here
            raise
        return version

    async def send(self, request: Any) -> Any:
        method = str(request[0])
        if method == "step":
            self._t_s = self._begin_s + request[1][0]
        answer = await self._guarded(method, self._inner.send(request))
        fault = fault_in(method, request[1], answer, self.meta["type"]) if self._foreign else None
        if fault is not None:
            raise self._error(method, fault)
        return answer

    async def _guarded(self, method: str, call: Awaitable[Any]) -> Any:
        under_way = self._calls.began(self._name, method, self._t_s)
        try:
            return await (self._answer(self._inner, call) if isinstance(self._inner, RemoteProxy) else call)
        except CosimError:
            raise
        except RemoteException as error:
            raise self._error(method, f"{error.remote_type}: {error.remote_msg}") from None
        except _NoAnswer as error:
            raise self._error(method, str(error)) from None
        except Exception as error:
            raise self._error(method, f"{type(error).__name__}: {error}") from error
        finally:
            self._calls.ended(under_way)

    async def _answer(self, inner: RemoteProxy, call: Awaitable[Any]) -> Any:
        """The answer to ``call``. Without the task that reads answers there would never be one."""
        answer, reader = asyncio.ensure_future(call), inner._channel._receiver_task
        try:
            await asyncio.wait([answer, reader], timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                await asyncio.wait([answer], timeout=_SETTLE_S)
            if answer.done():
                return answer.result()
        except (ConnectionClosedError, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            answer.cancel()
        self._hopeless = True
        if not reader.done():
            raise _NoAnswer(f"no answer within {self._timeout_s:g} s")
        error = reader.exception()
        if error is None or isinstance(error, ConnectionError):
            await self._process_ended()
            raise _NoAnswer(f"its process is gone{self._exit_code()}")
        raise _NoAnswer(f"its answer cannot be read ({type(error).__name__}: {error})")

    def _error(self, method: str, cause: str) -> SimulatorError:
        at = "" if self._t_s is None else f" at simulated time {self._t_s} s"
        return SimulatorError(f"simulator {self._name} failed in {method}(){at}: {cause}")

    async def _process_ended(self) -> None:
        """Waits for the process to have an exit code, which a busy machine may take a while to give it."""
        waited_s = 0.0
        while self._process is not None and self._process.poll() is None and waited_s < _EXIT_S:
            await asyncio.sleep(_SETTLE_S)
            waited_s += _SETTLE_S

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
        if not isinstance(self._inner, RemoteProxy):
            await self._inner.stop()
            return
        process = self._process
        if self._hopeless and process is not None:
            process.kill()
        with contextlib.suppress(Exception):  # it may be gone, hang or fail to stop: below it is ended in any case
            await asyncio.wait_for(_leave(self._inner) if self._hopeless else self._inner.stop(), _STOP_S)
        if process is not None:
            await end(process, _STOP_S)


async def _leave(inner: RemoteProxy) -> None:
    """Closes the connection to a simulator that no longer talks to us."""
    inner._reader_task.cancel()
    await inner._channel.close()  # type: ignore[no-untyped-call]
