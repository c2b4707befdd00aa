"""The watchdog: says who waits for whom when a run gets no further.

A simulator in this process holds up mosaik's loop, so this looks on from a thread of its own. It only tells: a remote
simulator that does not answer is ended by its own time limit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from cosim.wiring import Link
from cosim.world.calls import Call, Calls

_log = logging.getLogger(__name__)
_AGAIN_S = 60.0
_LOOK_S = 1.0


@contextmanager
def watched(calls: Calls, links: Sequence[Link], stall_s: float) -> Iterator[None]:
    """While it lasts, warns once a minute when no call to a simulator has begun or ended for ``stall_s`` [s]."""
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(calls, links, stall_s, done), name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _watch(calls: Calls, links: Sequence[Link], stall_s: float, done: threading.Event) -> None:
    due_s = stall_s
    while not done.wait(min(_LOOK_S, stall_s / 4)):
        now_s = time.perf_counter()
        idle_s = now_s - calls.changed_s
        if idle_s < stall_s:
            due_s = stall_s
        elif idle_s >= due_s:
            _log.warning("%s", stalled(calls.under_way(), links, now_s, idle_s))
            due_s = idle_s + _AGAIN_S


def stalled(under_way: Mapping[str, Call], links: Sequence[Link], now_s: float, idle_s: float) -> str:
    """Who has not answered for how long, and who waits for it by the ``links``."""
    if not under_way:
        return f"no progress for {idle_s:.0f} s, and no simulator is at work"
    told = []
    for name, call in under_way.items():
        at = "" if call.t_s is None else f" at simulated time {call.t_s} s"
        waiting = ", ".join(_after(name, links))
        told.append(
            f"{name} is in {call.method}(){at} since {now_s - call.since_s:.0f} s"
            + (f" (waiting for it: {waiting})" if waiting else "")
        )
    return f"no progress for {idle_s:.0f} s: {'; '.join(told)}"


def _after(simulator: str, links: Sequence[Link]) -> list[str]:
    """Simulators that need, within the step, what comes from ``simulator``, directly or not; the recorder last."""
    found: dict[str, None] = {}
    before = [simulator]
    while before:
        source = before.pop(0)
        for link in links:
            name = link.target.simulator
            if link.when != "next" and link.source.simulator == source and name not in (simulator, *found):
                found[name] = None
                before.append(name)
    return [*found, "recorder"] if simulator != "recorder" else []
