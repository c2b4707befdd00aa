"""What all benches share: the shape of a row, and how two or more ways to do one thing are timed against each other."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple


class Row(NamedTuple):
    """One comparison: ``ours`` and ``reference`` in ``unit``; ``note`` says what ``ratio`` means."""

    name: str
    ours: float
    reference: float
    ratio: float
    unit: str
    note: str


def times_as_fast(name: str, ours: float, reference: float, unit: str, note: str) -> Row:
    """A row whose ratio is reference / ours: above 1, ours is faster."""
    return Row(name, ours, reference, reference / ours, unit, note)


def share(name: str, ours: float, whole: float, unit: str, note: str) -> Row:
    """A row whose ratio is the part that ``ours`` is of ``whole``."""
    return Row(name, ours, whole, ours / whole, unit, note)


def not_measured(name: str, why: str) -> Row:
    """A row for what this machine cannot measure."""
    return Row(name, math.nan, math.nan, math.nan, "", f"not measured: {why}")


def alternated(
    ways: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Median seconds of each way by ``clock`` (CPU time of this process), all ways in turn, ``rounds`` times."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            gc.collect()
            begin = clock()
            work()
            seconds[name].append(clock() - begin)
    return {name: median(values) for name, values in seconds.items()}
