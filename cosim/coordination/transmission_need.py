"""What the system above the feeder is short of, MTU by MTU: drawn, or given.

A drawn need depends on the seed and on how many MTUs have passed since the run began, and on nothing else: not on how
long the run is, not on where it is resumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from typing import Protocol

import numpy as np

from cosim.clock import Clock
from cosim.domain.frames import Floats
from cosim.errors import Fault, ScenarioError
from cosim.rng import rng_for

_BLOCK = 1024


class NeedSource(Protocol):
    """Gives the need of MTUs."""

    def need_kw(self, mtu: int) -> float:
        """The need [kW] of the MTU of that number since the start of the run, above zero if it is short."""


@dataclass(frozen=True)
class DrawnNeed:
    """An autoregressive need ``R[t] = persistence R[t-1] + eps[t]``, stationary from the first MTU on, with the
    standard deviation ``std_kw`` (of R, not of eps)."""

    seed: int
    std_kw: float
    persistence: float

    def need_kw(self, mtu: int) -> float:
        blocks = 1 << (mtu // _BLOCK).bit_length()
        return self.std_kw * float(_standard(self.seed, self.persistence, blocks * _BLOCK)[mtu])


@lru_cache(maxsize=4)
def _standard(seed: int, persistence: float, n: int) -> Floats:
    """The first ``n`` MTUs (n,) of the stationary series with standard deviation 1."""
    shocks = rng_for(seed, "transmission", "need").standard_normal(n)
    shocks[1:] *= np.sqrt(1.0 - persistence**2)
    series = np.array(list(accumulate(shocks.tolist(), lambda last, shock: shock + persistence * last)))
    series.flags.writeable = False
    return series


@dataclass(frozen=True)
class GivenNeed:
    """A need by MTU (n_mtu,) [kW]."""

    by_mtu_kw: Floats

    def need_kw(self, mtu: int) -> float:
        """Raises ScenarioError after the last MTU of the run."""
        if mtu >= len(self.by_mtu_kw):
            problem = f"no need is known after the run's {len(self.by_mtu_kw)} MTUs"
            raise ScenarioError(Fault(problem, key="transmission.need.file", value=f"MTU {mtu}"))
        return float(self.by_mtu_kw[mtu])


@dataclass(frozen=True)
class NeedRows:
    """A series read from a file: the need of the whole system (n_row,) [kW] that holds for ``step_s`` from ``start``
    (UTC) on, row by row."""

    start: datetime
    step_s: int
    need_kw: Floats


def need_of_rows(rows: NeedRows, clock: Clock, feeders: int) -> GivenNeed:
    """The mean of each MTU of the run, divided by ``feeders``. Raises ScenarioError if the rows do not cover it."""
    begin_s = (rows.start - clock.start).total_seconds()
    end_s = begin_s + rows.step_s * len(rows.need_kw)
    if begin_s > 0.0 or end_s < clock.until_s:
        times = (rows.start, rows.start + timedelta(seconds=end_s - begin_s), clock.start, clock.instant(clock.until_s))
        first, last, start, end = (f"{time:%Y-%m-%dT%H:%MZ}" for time in times)
        problem = f"the need does not cover the run, which is from {start} to {end}"
        raise ScenarioError(Fault(problem, key="transmission.need.file", value=f"{first} to {last}"))
    knots_s = begin_s + rows.step_s * np.arange(len(rows.need_kw) + 1)
    energy = np.append(0.0, np.cumsum(rows.need_kw)) * rows.step_s
    bounds_s = np.append(np.arange(0, clock.until_s, clock.mtu_s), clock.until_s)
    mean_kw = np.diff(np.interp(bounds_s, knots_s, energy)) / np.diff(bounds_s) / feeders
    mean_kw.flags.writeable = False
    return GivenNeed(mean_kw)
