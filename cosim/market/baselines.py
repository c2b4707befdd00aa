"""What a meter would have shown without an activation, and how far a method is from the truth of a simulation.

Sources: UFTP (Shapeshifter) D-Prognosis for ``schedule``; NYISO's and EnerNOC's customer baseline loads ("high 5 of 10"
with a same-day adjustment of at most 20 %) for ``high_x_of_y``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np

from cosim.domain.frames import Floats
from cosim.domain.settlement import Period, Series
from cosim.errors import Fault, ProfileError
from cosim.market.metering import Metered, check_mtus, known_kw, values_kw
from cosim.units import SECONDS_PER_DAY, energy_kwh

_SATURDAY = 5


@dataclass(frozen=True)
class Known:
    """What is known of a meter: ``measured``, also of days before; what was declared; what a simulation of the same
    time without activation gave.

    ``start`` (UTC) is time 0, ``utc_offset_s`` how far local days are ahead. ``not_similar``: local days, of
    activations or holidays, that say nothing about others.
    """

    measured: Metered
    schedule: Series | None = None
    counterfactual: Series | None = None
    start: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    utc_offset_s: int = 0
    not_similar: frozenset[date] = frozenset()


@dataclass(frozen=True)
class KnownColumns:
    """What is `Known` of several meters that were called in one MTU: when each was; ``past_kw`` (n_past_mtu, n) of the
    MTUs before it, ``column`` in that of each meter; ``schedule_kw``, ``counterfactual_kw`` (n_meter,) in it; NaN where
    nothing is known."""

    meters: tuple[str, ...]
    period: Period
    order_s: tuple[int, ...]
    past_kw: Floats
    column: tuple[int, ...]
    schedule_kw: Floats
    counterfactual_kw: Floats
    start: datetime
    utc_offset_s: int
    not_similar: tuple[frozenset[date], ...]

    def of(self, k: int) -> Known:
        """Of meter number ``k``."""
        t_s, mtu_s, past_kw = self.period.t_s, self.period.mtu_s, self.past_kw[:, self.column[k]].tolist()
        meter = self.meters[k]
        return Known(
            Series(meter, "measurement", t_s - len(past_kw) * mtu_s, mtu_s, tuple(past_kw)),
            Series(meter, "schedule", t_s, mtu_s, (float(self.schedule_kw[k]),)),
            Series(meter, "forecast", t_s, mtu_s, (float(self.counterfactual_kw[k]),)),
            self.start,
            self.utc_offset_s,
            self.not_similar[k],
        )


class Baseline(Protocol):
    """A method: the baseline (n_mtu,) [kW] of the MTUs of an activation that was ordered at ``order_s``.

    ``p_kw`` raises ProfileError naming what it needs and does not have. ``each_kw`` is the same of meters called in one
    MTU (n_meter,), NaN for those of which it lacks something.
    """

    def p_kw(self, known: Known, period: Period, order_s: int) -> tuple[float, ...]: ...

    def each_kw(self, known: KnownColumns) -> list[float]: ...


@dataclass(frozen=True)
class Schedule:
    """What was declared."""

    def p_kw(self, known: Known, period: Period, order_s: int) -> tuple[float, ...]:
        return values_kw(_present(known, known.schedule, "schedule"), period)

    def each_kw(self, known: KnownColumns) -> list[float]:
        found: list[float] = known.schedule_kw.tolist()
        return found


@dataclass(frozen=True)
class Counterfactual:
    """What the simulation gave without activation: the truth, which only a simulation knows."""

    def p_kw(self, known: Known, period: Period, order_s: int) -> tuple[float, ...]:
        return values_kw(_present(known, known.counterfactual, "simulation without activation"), period)

    def each_kw(self, known: KnownColumns) -> list[float]:
        found: list[float] = known.counterfactual_kw.tolist()
        return found


@dataclass(frozen=True)
class Zero:
    """Nothing: for pure injection that exists for the activation only."""

    def p_kw(self, known: Known, period: Period, order_s: int) -> tuple[float, ...]:
        return (0.0,) * period.n_mtu

    def each_kw(self, known: KnownColumns) -> list[float]:
        return [0.0] * len(known.meters)


@dataclass(frozen=True)
class MeterBefore:
    """The mean of the last ``n_mtu`` whole MTUs before the order (or before the activation, if ordered later)."""

    n_mtu: int = 1

    def p_kw(self, known: Known, period: Period, order_s: int) -> tuple[float, ...]:
        late_s = max(0, period.t_s - order_s)
        ended = Period(period.t_s - -(-late_s // period.mtu_s) * period.mtu_s, period.mtu_s, 0)
        return (_mean(values_kw(known.measured, ended.before(self.n_mtu))),) * period.n_mtu

    def each_kw(self, known: KnownColumns) -> list[float]:
        found, t_s, mtu_s = [], known.period.t_s, known.period.mtu_s
        for column, order_s in zip(known.column, known.order_s, strict=True):
            until = len(known.past_kw) + min(0, order_s - t_s) // mtu_s
            enough = until >= self.n_mtu
            found.append(_mean(known.past_kw[until - self.n_mtu : until, column].tolist()) if enough else math.nan)
        return found


@dataclass(frozen=True)
class HighXOfY:
    """The mean of the ``x`` similar days with the highest consumption in the same MTUs, of the last ``y`` before.

    Similar are days of the same sort, working day or weekend, with all measurements; fewer than ``y`` are enough if
    there are ``x``. With ``adjust_mtu`` it is scaled to what was measured in that many MTUs before the order, by at
    most ``adjust_max``; not at all where the days show nothing in them. Of equal days the last counts.
    """

    x: int = 5
    y: int = 10
    adjust_mtu: int = 0
    adjust_max: float = 0.20

    def p_kw(self, known: Known, period: Period, order_s: int) -> tuple[float, ...]:
        ended_s = min(period.t_s, order_s // period.mtu_s * period.mtu_s)
        window = Period(ended_s, period.mtu_s, 0).before(self.adjust_mtu)
        days = self._days(known, period, window)
        highest = sorted(range(len(days)), key=lambda k: (-math.fsum(days[k][0]), k))[: self.x]
        base = [_mean([days[k][0][t] for k in highest]) for t in range(period.n_mtu)]
        before = math.fsum(_mean([days[k][1][t] for k in highest]) for t in range(self.adjust_mtu))
        factor = 1.0
        if before != 0.0:
            ratio = math.fsum(values_kw(known.measured, window)) / before
            factor = min(max(ratio, 1.0 - self.adjust_max), 1.0 + self.adjust_max)
        return tuple(factor * value for value in base)

    def each_kw(self, known: KnownColumns) -> list[float]:
        if self.adjust_mtu:
            return [self._one_kw(known, k) for k in range(len(known.meters))]
        period, n_past = known.period, len(known.past_kw)
        today = _local_day(known.start, period.t_s + known.utc_offset_s)
        days = _same_sort(today, n_past * period.mtu_s // SECONDS_PER_DAY)
        rows = [n_past + -back * SECONDS_PER_DAY // period.mtu_s for back, _ in days]
        shown_kw = known.past_kw[rows][:, known.column].T.tolist()
        found = []
        for own_kw, others in zip(shown_kw, known.not_similar, strict=True):
            of_days = zip(own_kw, days, strict=True)
            similar_kw = [kw for kw, (_, day) in of_days if not math.isnan(kw) and day not in others][: self.y]
            enough = len(similar_kw) >= self.x
            found.append(_mean(sorted(similar_kw, reverse=True)[: self.x]) if enough else math.nan)
        return found

    def _one_kw(self, known: KnownColumns, k: int) -> float:
        try:
            return self.p_kw(known.of(k), known.period, known.order_s[k])[0]
        except ProfileError:
            return math.nan

    def _days(self, known: Known, period: Period, window: Period) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """What each similar day, the last first, shows in the same MTUs and in those before the order."""
        days: list[tuple[tuple[float, ...], tuple[float, ...]]] = []
        measured = known.measured
        check_mtus(measured, period)
        for back_s in _similar_days(known, period):
            same = known_kw(measured.values(period.t_s - back_s, period.n_mtu))
            before = known_kw(measured.values(window.t_s - back_s, window.n_mtu)) if window.n_mtu else ()
            if len(same) == period.n_mtu and len(before) == window.n_mtu:
                days.append((same, before))
            if len(days) == self.y:
                break
        if len(days) < self.x:
            problem = "too few similar days before"
            key = f"baseline of {known.measured.owner}"
            raise ProfileError(Fault(problem, key=key, value=str(len(days)), allowed=f"{self.x} or more"))
        return days


METHODS: Final[Mapping[str, Baseline]] = MappingProxyType(
    {
        "schedule": Schedule(),
        "high_x_of_y": HighXOfY(),
        "meter_before_after": MeterBefore(),
        "model": Counterfactual(),
        "zero": Zero(),
    }
)
"""By name, with their usual settings."""


@dataclass(frozen=True)
class Bias:
    """Of a baseline against the truth: mean, mean absolute and root mean square error [kW]; energy that it credits to
    an activation UP beyond what was delivered [kWh]: that of an activation DOWN is the opposite."""

    mean_kw: float
    mean_abs_kw: float
    rms_kw: float
    credited_up_kwh: float


def baseline_series(method: Baseline, known: Known, period: Period, order_s: int) -> Series:
    """The baseline of a meter as a record."""
    p_kw = method.p_kw(known, period, order_s)
    return Series(known.measured.owner, "baseline", period.t_s, period.mtu_s, p_kw)


def bias(baseline_kw: Sequence[float] | Floats, truth_kw: Sequence[float] | Floats, mtu_s: int) -> Bias:
    """Of a baseline (n_mtu,) against what would have been (n_mtu,)."""
    error = np.asarray(baseline_kw, dtype=float) - np.asarray(truth_kw, dtype=float)
    mean = float(error.mean())
    rms = float(np.sqrt((error**2).mean()))
    return Bias(mean, float(np.abs(error).mean()), rms, energy_kwh(float(error.sum()), mtu_s))


def method_biases(known: Known, period: Period, order_s: int) -> Mapping[str, Bias | ProfileError]:
    """Of every method against the simulation without activation; of a method that lacks something, what."""
    truth = Counterfactual().p_kw(known, period, order_s)
    found: dict[str, Bias | ProfileError] = {}
    for name, method in METHODS.items():
        try:
            found[name] = bias(method.p_kw(known, period, order_s), truth, period.mtu_s)
        except ProfileError as lacking:
            found[name] = lacking
    return found


def _present(known: Known, series: Series | None, what: str) -> Series:
    if series is None:
        raise ProfileError(Fault(f"no {what}", key=f"baseline of {known.measured.owner}"))
    return series


def _similar_days(known: Known, period: Period) -> Iterator[int]:
    """How long ago [s] days of the same sort are, the last first, as far back as there are measurements."""
    today = _local_day(known.start, period.t_s + known.utc_offset_s)
    for back, day in _same_sort(today, (period.t_s - known.measured.t_s) // SECONDS_PER_DAY):
        if day not in known.not_similar:
            yield back * SECONDS_PER_DAY


def _local_day(start: datetime, local_s: int) -> date:
    return (start + timedelta(seconds=local_s)).date()


@lru_cache(8)
def _same_sort(today: date, most: int) -> tuple[tuple[int, date], ...]:
    """Working days before a working day, else weekends, up to ``most`` days back: how many, and which."""
    works = today.weekday() < _SATURDAY
    days = ((back, today - timedelta(days=back)) for back in range(1, most + 1))
    return tuple((back, day) for back, day in days if (day.weekday() < _SATURDAY) == works)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
