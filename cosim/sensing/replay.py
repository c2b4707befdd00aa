"""Replay: a recorded data set published in place of the simulated measurements."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from cosim.clock import Clock
from cosim.domain.frames import Floats, frozen
from cosim.domain.measurement import Channel, Message
from cosim.errors import Fault, ProfileError

COLUMNS = ("time", "topic", "value", "unit")
_ROWS_NAMED = 5
_Row = tuple[int, Mapping[str, Any]]


@dataclass(frozen=True)
class Recording:
    """Recorded values in order of time: ``stamp_s`` [s since start] and ``value`` of shape (n_row,), the topic, unit
    and sequence number (per topic, from 0) of each row."""

    step_s: int
    stamp_s: Floats
    value: Floats
    topic: tuple[str, ...]
    unit: tuple[str, ...]
    sequence: tuple[int, ...]


def read_recording(path: Path, channels: Sequence[Channel], clock: Clock) -> Recording:
    """Read a CSV or Parquet file with columns ``time``, ``topic``, ``value``, ``unit``, rows in any order.

    ``time`` states its zone (ISO 8601 with offset, or a Parquet time stamp with a zone); further columns are ignored.
    Raises ProfileError with all faults, each with the rows that have it (line of a CSV file, row of a Parquet table)
    and its first value: unknown topic, wrong unit, time that cannot be read or lacks a zone, value that is not a
    finite number; and if no row lies within the run.
    """
    units = {channel.topic: channel.unit for channel in channels}
    found: list[tuple[float, str, float]] = []
    faults: dict[str, tuple[Fault, list[int]]] = {}
    for line, row in _rows(path):
        stamp, number = _stamp(row["time"]), _number(row["value"])
        problems = _problems(path, row, stamp, number, units)
        for problem in problems:
            faults.setdefault(problem.problem, (problem, []))[1].append(line)
        if stamp is not None and number is not None and not problems:
            found.append(((stamp - clock.start).total_seconds(), row["topic"], number))
    if faults:
        raise ProfileError([_located(fault, lines) for fault, lines in faults.values()])
    recording = _recording(found, units, clock.step_s)
    half_s = clock.step_s / 2
    if not np.any((recording.stamp_s >= -half_s) & (recording.stamp_s < clock.until_s - half_s)):
        raise ProfileError(_outside(path, recording, clock))
    return recording


def recorded(recording: Recording, step: int) -> tuple[Message, ...]:
    """The messages of ``step``: rows stamped from half a step before its instant to, exclusive, half a step after,
    in order of time, with their own stamps."""
    edges_s = ((step - 0.5) * recording.step_s, (step + 0.5) * recording.step_s)
    first, last = np.searchsorted(recording.stamp_s, edges_s)
    return tuple(
        Message(
            recording.topic[row],
            step,
            recording.sequence[row],
            float(recording.stamp_s[row]),
            float(recording.value[row]),
            recording.unit[row],
        )
        for row in range(first, last)
    )


def pace(
    real_time_factor: float, t_s: float, started: float, now: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    """Wait until simulated time ``t_s`` [s since start] is due: ``t_s / real_time_factor`` after ``started``.

    ``started`` is what ``now`` [s] gave at simulated time 0. A factor of 0 never waits, nor does a run that is behind.
    """
    if real_time_factor > 0.0:
        wait_s = started + t_s / real_time_factor - now()
        if wait_s > 0.0:
            sleep(wait_s)


def _rows(path: Path) -> Iterator[_Row]:
    """Numbered rows of the file; raises ProfileError if it cannot be read or lacks a column."""
    readers = {".csv": _csv_rows, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ProfileError(Fault("kind of file not known", str(path), value=path.suffix, allowed=", ".join(readers)))
    try:
        yield from reader(path)
    except (OSError, ValueError, csv.Error) as error:
        raise ProfileError(Fault(f"cannot be read: {error}", str(path))) from error


def _csv_rows(path: Path) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="")
        _require_columns(path, reader.fieldnames or ())
        for row in reader:
            yield reader.line_num, row


def _parquet_rows(path: Path) -> Iterator[_Row]:
    import pandas as pd  # 0.4 s to import, needed for this kind of file only

    table = pd.read_parquet(path)
    _require_columns(path, [str(name) for name in table.columns])
    for line, row in enumerate(table[list(COLUMNS)].itertuples(index=False, name=None), start=1):
        yield line, dict(zip(COLUMNS, row, strict=True))


def _require_columns(path: Path, present: Sequence[str]) -> None:
    lacking = [name for name in COLUMNS if name not in present]
    if lacking:
        raise ProfileError(
            [Fault(f"column {name!r} is missing", str(path), allowed=", ".join(present) or "none") for name in lacking]
        )


def _stamp(raw: object) -> datetime | None:
    """An instant, None if ``raw`` is none or states no zone."""
    if isinstance(raw, str):
        try:
            raw = datetime.fromisoformat(raw.strip())
        except ValueError:
            return None
    # pandas' NaT is a datetime too, without a zone
    return raw if isinstance(raw, datetime) and raw.tzinfo is not None else None


def _number(raw: object) -> float | None:
    """A finite number, None if ``raw`` is none."""
    if not isinstance(raw, str | int | float) or isinstance(raw, bool):
        return None
    try:
        number = float(raw)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _problems(
    path: Path, row: Mapping[str, Any], stamp: datetime | None, number: float | None, units: Mapping[str, str]
) -> list[Fault]:
    topic, unit = row["topic"], row["unit"]
    problems = []
    if stamp is None:
        form = "date and time with an offset, e.g. 2016-07-22T00:15:00+00:00"
        problems.append(Fault("not a time with a zone", str(path), key="time", value=str(row["time"]), allowed=form))
    if topic not in units:
        allowed = ", ".join(units) or "none"
        problems.append(Fault(f"no channel {topic!r}", str(path), key="topic", value=str(topic), allowed=allowed))
    elif unit != units[topic]:
        problems.append(Fault(f"wrong unit of {topic}", str(path), key="unit", value=str(unit), allowed=units[topic]))
    if number is None:
        problems.append(Fault("not a finite number", str(path), key="value", value=str(row["value"])))
    return problems


def _located(fault: Fault, lines: Sequence[int]) -> Fault:
    """``fault`` at its first row, naming the first rows that have it."""
    named = ", ".join(str(line) for line in lines[:_ROWS_NAMED])
    more = f" and {len(lines) - _ROWS_NAMED} more" if len(lines) > _ROWS_NAMED else ""
    return replace(fault, problem=f"{fault.problem} (rows {named}{more})", line=lines[0])


def _recording(rows: Sequence[tuple[float, str, float]], units: Mapping[str, str], step_s: int) -> Recording:
    ordered = sorted(rows, key=lambda row: row[0])
    count: dict[str, int] = {}
    sequence = []
    for _, topic, _ in ordered:
        sequence.append(count.get(topic, 0))
        count[topic] = sequence[-1] + 1
    return Recording(
        step_s,
        frozen([stamp_s for stamp_s, _, _ in ordered]),
        frozen([value for _, _, value in ordered]),
        tuple(topic for _, topic, _ in ordered),
        tuple(units[topic] for _, topic, _ in ordered),
        tuple(sequence),
    )


def _outside(path: Path, recording: Recording, clock: Clock) -> Fault:
    stamps_s = recording.stamp_s
    span = (
        f"{clock.instant(stamps_s[0]).isoformat()} to {clock.instant(stamps_s[-1]).isoformat()}"
        if len(stamps_s)
        else "no rows"
    )
    horizon = f"{clock.start.isoformat()} to {clock.instant(clock.until_s).isoformat()}"
    return Fault("no row lies within the run", str(path), key="time", value=span, allowed=horizon)
