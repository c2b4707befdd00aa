"""Rows of a signal put into hours, days or months of local time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta, timezone
from typing import Any, Literal

import numpy as np
import pandas as pd

from cosim.clock import DURATION_FORM, format_duration, parse_duration_s
from cosim.domain.frames import Ints, frozen
from cosim.errors import Fault, InputError
from cosim.units import SECONDS_PER_DAY

CALENDAR = ("month", "year")


@dataclass(frozen=True)
class Intervals:
    """Intervals without gaps from the first row to the last.

    ``of_row`` (n_row,) is the interval of each row, ``expected`` (n_interval,) how many steps each has; ``length_s`` is
    None for months and years.
    """

    begins: pd.DatetimeIndex
    of_row: Ints
    expected: Ints
    step_s: int
    length_s: int | None


def intervals(table: pd.DataFrame, period: str, step_s: float | None, utc_offset_s: float | None) -> Intervals:
    """The intervals of ``period``, a duration such as ``1h`` or ``7d``, or ``month`` or ``year``. They begin at local
    midnight and after it; those that are no part of a day, at the local midnight before the first row.

    ``step_s`` and ``utc_offset_s`` [s] are those recorded with the table unless given: else the least distance of its
    rows, and the offset of its time zone. Raises InputError when the period is no such text or not a whole number of
    steps, when steps lie across two intervals, or rows are not in order of time.
    """
    time = table.index
    if not isinstance(time, pd.DatetimeIndex) or time.tz is None or time.hasnans:
        raise InputError(Fault("rows must have a time with a zone", value=type(time).__name__, allowed="results.frame"))
    offset_s = _offset_s(table.attrs, time, utc_offset_s)
    local_s = _local_seconds(time, offset_s)
    step = _step_s(table.attrs, local_s, step_s)
    midnight_s = int(local_s[0] // SECONDS_PER_DAY * SECONDS_PER_DAY) if local_s.size else 0
    length_s = _length_s(period, step)
    if ((local_s - midnight_s) % step).any():
        raise InputError(
            Fault(
                f"steps of {format_duration(step)} do not begin at local midnight, so that they lie across intervals",
                key="period",
                value=period,
            )
        )
    if length_s is None:
        return _of_calendar(local_s, period, step, offset_s)
    of_row = (local_s - midnight_s) // length_s
    first = int(of_row[0]) if of_row.size else 0
    count = int(of_row[-1]) - first + 1 if of_row.size else 0
    begins_s = midnight_s + (first + np.arange(count)) * length_s
    return Intervals(
        _instants(begins_s, offset_s),
        frozen(of_row - first, dtype=np.int64),
        frozen(np.full(count, length_s // step), dtype=np.int64),
        step,
        length_s,
    )


def _of_calendar(local_s: Ints, period: str, step_s: int, offset_s: int) -> Intervals:
    months = local_s.astype("datetime64[s]").astype("datetime64[M]" if period == "month" else "datetime64[Y]")
    number = months.astype(np.int64)
    first = int(number[0]) if number.size else 0
    last = int(number[-1]) if number.size else first - 1
    unit: Literal["M", "Y"] = "M" if period == "month" else "Y"
    edges = np.arange(first, last + 2).astype(f"datetime64[{unit}]").astype("datetime64[s]").astype(np.int64)
    return Intervals(
        _instants(edges[:-1], offset_s),
        frozen(number - first, dtype=np.int64),
        frozen(np.diff(edges) // step_s, dtype=np.int64),
        step_s,
        None,
    )


def _offset_s(attributes: dict[Any, Any], time: pd.DatetimeIndex, given: float | None) -> int:
    if given is None:
        given = attributes.get("utc_offset_s")
    if given is not None:
        return round(given)
    fixed = time.tz.utcoffset(None) if time.tz is not None else None
    if fixed is None:
        raise InputError(
            Fault("the time zone has no fixed offset", key="utc_offset_s", value=str(time.tz), allowed="seconds")
        )
    return round(fixed.total_seconds())


def _step_s(attributes: dict[Any, Any], local_s: Ints, given: float | None) -> int:
    apart = np.diff(local_s)
    if (apart <= 0).any():
        row = int(np.flatnonzero(apart <= 0)[0]) + 1
        raise InputError(Fault("rows are not in order of time, each once", key="time", value=f"row {row}"))
    if given is None:
        given = attributes.get("step_s")
    if given is None and not apart.size:
        raise InputError(Fault("one row does not tell the length of a step", key="step_s", allowed="seconds"))
    return round(given) if given is not None else int(apart.min())


def _length_s(period: str, step_s: int) -> int | None:
    """Seconds of a period, None for one of the calendar."""
    if period in CALENDAR:
        if SECONDS_PER_DAY % step_s:
            raise InputError(_not_whole(period, step_s))
        return None
    try:
        length_s = parse_duration_s(period)
    except ValueError:
        allowed = f"{DURATION_FORM}, or {' or '.join(CALENDAR)}"
        raise InputError(Fault("not a period", key="period", value=repr(period), allowed=allowed)) from None
    if length_s % step_s:
        raise InputError(_not_whole(period, step_s))
    return length_s


def _not_whole(period: str, step_s: int) -> Fault:
    step = format_duration(step_s)
    return Fault("not a whole number of steps", key="period", value=period, allowed=f"multiples of {step}")


def _local_seconds(time: pd.DatetimeIndex, offset_s: int) -> Ints:
    seconds: Ints = time.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64)
    return seconds + offset_s


def _instants(local_s: Ints, offset_s: int) -> pd.DatetimeIndex:
    """Instants with the local offset."""
    utc = pd.DatetimeIndex((local_s - offset_s).astype("datetime64[s]").astype("datetime64[ns]"), tz="UTC", name="time")
    return utc.tz_convert(timezone(timedelta(seconds=offset_s)))
