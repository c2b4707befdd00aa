"""What is noted of calls to simulators, and what the watchdog says of a run that gets no further."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from mosaik.proxies import BaseProxy

from cosim.errors import SimulatorError
from cosim.wiring import Link, Port
from cosim.world import watch
from cosim.world.calls import Call, Calls
from cosim.world.guard import GuardedProxy
from cosim.world.watch import stalled


def link(source: str, target: str, when: str = "now") -> Link:
    return Link(Port(source, "a", "x"), Port(target, "b", "x"), when)  # type: ignore[arg-type]


@contextmanager
def _under_way(calls: Calls, simulator: str, method: str, t_s: int | None) -> Iterator[None]:
    call = calls.began(simulator, method, t_s)
    yield
    calls.ended(call)


LINKS = (
    link("grid", "sensors"),
    link("sensors", "gateway"),
    link("gateway", "grid", "back"),
    link("gateway", "market", "next"),
    link("profiles", "grid"),
)


def test_times_by_simulator_and_phase() -> None:
    calls = Calls()
    calls.begin()
    time.sleep(0.02)
    calls.begun()
    with _under_way(calls, "grid", "step", 0):
        time.sleep(0.02)
    with _under_way(calls, "grid", "get_data", 0):
        time.sleep(0.01)
    first = calls.take()
    assert first["run.begin"] >= 0.02
    assert 0.03 <= first["grid"] <= first["run.step"]
    assert 0.01 <= first["grid.data"] < first["grid"]
    second = calls.take()
    assert (second["grid"], second["grid.data"], second["run.begin"]) == (0.0, 0.0, 0.0)
    assert 0.0 < second["run.step"] < first["run.step"]


def test_what_is_done_before_a_segment_belongs_to_no_step() -> None:
    calls = Calls()
    calls.begin()
    with _under_way(calls, "grid", "init", None):
        time.sleep(0.01)
    calls.begun()
    taken = calls.take()
    assert taken["grid"] == 0.0
    assert taken["run.begin"] >= 0.01


def test_a_call_that_fails_is_over() -> None:
    calls = Calls()

    class Failing(BaseProxy):
        async def send(self, request: Any) -> Any:
            assert calls.under_way()["grid"].t_s == 900
            raise ValueError("no")

        meta: ClassVar[Any] = {"type": "time-based"}
        stop = init = None

    guarded = GuardedProxy("grid", Failing(), 1.0, calls, 0, foreign=False)
    with pytest.raises(SimulatorError, match=r"grid failed in step\(\) at simulated time 900 s: ValueError: no"):
        asyncio.run(guarded.send(("step", (900, {}, 0), {})))
    assert calls.under_way() == {}


def test_who_waits_for_whom() -> None:
    under_way = {"sensors": Call("sensors", "step", 100.0, 4500)}
    assert stalled(under_way, LINKS, 161.2, 61.2) == (
        "no progress for 61 s: sensors is in step() at simulated time 4500 s since 61 s "
        "(waiting for it: gateway, grid, recorder)"
    )
    under_way = {"recorder": Call("recorder", "step", 100.0, 0), "market": Call("market", "init", 90.0, None)}
    assert stalled(under_way, LINKS, 200.0, 100.0) == (
        "no progress for 100 s: recorder is in step() at simulated time 0 s since 100 s; "
        "market is in init() since 110 s (waiting for it: recorder)"
    )
    assert stalled({}, LINKS, 200.0, 70.0) == "no progress for 70 s, and no simulator is at work"


def test_a_stalled_step_is_told_and_told_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a clock of the test's own: a step takes 100 s, after that there is a call every 5 s."""
    now_s = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now_s)
    calls = Calls()
    call = calls.began("grid", "step", 1800)

    class Ending(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal now_s, call
            now_s += timeout or 0.0
            if now_s >= 100.0 and now_s % 5.0 == 0.0:
                calls.ended(call)
                call = calls.began("grid", "get_data", 1800)
            return now_s >= 200.0

    with caplog.at_level(logging.WARNING):
        watch._watch(calls, LINKS, 10.0, Ending())
    grid = "grid is in step() at simulated time 1800 s since {} s (waiting for it: sensors, gateway, recorder)"
    assert caplog.messages == [f"no progress for {s} s: {grid.format(s)}" for s in (10, 70)]
