"""Calls to simulators: which are under way, and how long they took."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple


class Call(NamedTuple):
    """A call that is under way: ``method`` of a simulator since ``since_s`` [s, of `time.perf_counter`], in the step at
    simulated time ``t_s`` [s]; None before the first one."""

    simulator: str
    method: str
    since_s: float
    t_s: int | None


class Calls:
    """Notes every call to a simulator. Read by the watchdog from a thread of its own."""

    def __init__(self) -> None:
        self._under_way: dict[str, Call] = {}
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._step_since_s = self._begun_s = time.perf_counter()
        self._begin_s = 0.0
        self.changed_s = self._begun_s
        """When a call last began or ended [s, of `time.perf_counter`]."""

    def began(self, simulator: str, method: str, t_s: int | None) -> Call:
        """A call begins; `ended` is told when it is over, however it ended."""
        call = Call(simulator, method, time.perf_counter(), t_s)
        self._under_way[simulator], self.changed_s = call, call.since_s
        return call

    def ended(self, call: Call) -> None:
        """A call is over."""
        del self._under_way[call.simulator]
        self.changed_s = time.perf_counter()
        seconds = self.changed_s - call.since_s
        self._seconds[call.simulator] += seconds
        if call.method == "get_data":
            self._seconds[f"{call.simulator}.data"] += seconds

    def under_way(self) -> Mapping[str, Call]:
        """Calls under way, by simulator."""
        return dict(self._under_way)

    def begin(self) -> None:
        """A segment is about to begin: what is done until `begun` belongs to no step."""
        self._begin_since_s = time.perf_counter()

    def begun(self) -> None:
        """The segment's first step begins."""
        self._step_since_s = time.perf_counter()
        self._begin_s = self._step_since_s - self._begin_since_s
        self._seconds = defaultdict(float, dict.fromkeys(self._seconds, 0.0))

    def take(self) -> dict[str, float]:
        """Wall-clock seconds since the last call, when a step ends: in each simulator, ``<simulator>.data`` of that for
        its outputs; ``run.step`` of the step as a whole, ``run.begin`` to begin the segment that it begins."""
        now_s = time.perf_counter()
        taken = {**self._seconds, "run.step": now_s - self._step_since_s, "run.begin": self._begin_s}
        self._seconds = defaultdict(float, dict.fromkeys(self._seconds, 0.0))
        self._step_since_s, self._begin_s = now_s, 0.0
        return taken
