"""A run split up: by local day, and its wall-clock time by simulator."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from cosim.domain.frames import Floats, Ints
from cosim.report.reading import WITH, Reading, moment


@dataclass(frozen=True)
class DayFigures:
    """Deepest head power [kW] of a local day with and without orders, and when; ``predicted_kw`` by the sizing for that
    day. None where there is none, NaN where all values are missing."""

    day: date
    head_min_kw: float
    at: str
    head_min_idle_kw: float | None
    idle_at: str
    predicted_kw: float | None


@dataclass(frozen=True)
class WallTime:
    """Wall-clock time of a simulator: in all [s], per step [s], and its share [1] of all simulators."""

    simulator: str
    total_s: float
    per_step_s: float
    share: float


def days(reading: Reading) -> tuple[DayFigures, ...]:
    """Deepest head power of each local day of a run; empty where the head was not recorded."""
    head, idle = reading.total(f"{WITH}/head/p_kw"), reading.total_without("head/p_kw")
    if head is None:
        return ()
    prepared = reading.json("prepared") or {}
    predicted_kw = (prepared.get("sized") or {}).get("head_min_kw")
    dates = reading.local_time.date
    found = []
    for day in dict.fromkeys(dates):
        steps = np.flatnonzero(dates == day)
        low, at = deepest(reading, head, steps)
        idle_low, idle_at = (None, "") if idle is None else deepest(reading, idle, steps)
        predicted = predicted_kw if str(day) == str(prepared.get("day")) else None
        found.append(DayFigures(day, low, at[11:], idle_low, idle_at[11:], predicted))
    return tuple(found)


def deepest(reading: Reading, p_kw: Floats, steps: Ints) -> tuple[float, str]:
    """The lowest value at the given steps and its local time; NaN and no time where all are missing."""
    there = steps[~np.isnan(p_kw[steps])]
    if not there.size:
        return float("nan"), ""
    step = int(there[p_kw[there].argmin()])
    return float(p_kw[step]), moment(reading.local_time[step])


def wall_times(reading: Reading) -> tuple[WallTime, ...]:
    """Wall-clock time of each simulator, the slowest first."""
    timing = reading.results.timing()
    totals = {str(name): float(np.nansum(timing[name])) for name in timing.columns}
    together = sum(totals.values())
    return tuple(
        WallTime(name, total, total / max(1, len(timing)), total / together if together else 0.0)
        for name, total in sorted(totals.items(), key=lambda entry: (-entry[1], entry[0]))
    )
