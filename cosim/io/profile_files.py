"""The user's own time series, CSV or Parquet: read, and every fault found before the first use."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from cosim.clock import zone
from cosim.domain.frames import Floats, Ints
from cosim.errors import Fault, ProfileError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECOND_US = 1_000_000


@dataclass(frozen=True)
class Rows:
    """Regular rows: ``start`` in UTC, ``step_s`` and ``values`` of shape (n_row, n_column), all finite."""

    start: datetime
    step_s: int
    values: Floats


@dataclass(frozen=True)
class _Table:
    """What a file holds: ``numbers[i]`` is the line of row i in a CSV file, its 1-based row in a Parquet file."""

    path: Path
    numbers: Sequence[int]
    stamps: Sequence[object]
    columns: dict[str, Sequence[object]]
    faults: list[Fault] = field(default_factory=list)

    def report(self, row: int, key: str, problem: str, value: object = "", expected: str = "") -> None:
        """Add a fault at a row."""
        number = self.numbers[row]
        text = "" if value is None else str(value)
        if self.path.suffix == ".csv":
            self.faults.append(Fault(problem, str(self.path), number, key, text, expected))
        else:
            self.faults.append(Fault(f"row {number}: {problem}", str(self.path), None, key, text, expected))


def read_rows(path: Path, timezone: str, time_column: str, columns: Sequence[str]) -> Rows:
    """The rows of ``columns``; raises ProfileError with all faults (see ``cosim.io.profiles.read_file``)."""
    readers: dict[str, Callable[[Path, str, Sequence[str]], _Table]] = {".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise ProfileError(Fault("unknown kind of file", str(path), value=path.suffix, allowed=", ".join(readers)))
    try:
        local = zone(timezone)
        table = readers[path.suffix](path, time_column, columns)
    except OSError as error:
        raise ProfileError(Fault(f"cannot be read: {error.strerror or error}", str(path))) from None
    except (ValueError, csv.Error) as error:
        raise ProfileError(Fault(str(error), str(path))) from None
    times_us, readable = _times(table, time_column, local)
    step_us = _regular_step(table, time_column, times_us, readable)
    values = np.column_stack([_numbers(table, name) for name in columns]) if columns else np.empty((len(times_us), 0))
    if table.faults:
        raise ProfileError(table.faults)
    return Rows(_EPOCH + timedelta(microseconds=int(times_us[0])), step_us // _SECOND_US, values)


def _read_csv(path: Path, time_column: str, columns: Sequence[str]) -> _Table:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        first = lines.readline()
        lines.seek(0)
        reader = csv.reader(lines, delimiter=";" if ";" in first and "," not in first else ",")
        head = next(reader, [])
        _require(path, (time_column, *columns), head)
        numbered = [(reader.line_num, row) for row in reader if row]
    ragged = [(number, len(row)) for number, row in numbered if len(row) != len(head)]
    rows = [row + [""] * (len(head) - len(row)) for _, row in numbered]
    series = {name: [row[head.index(name)] for row in rows] for name in (time_column, *columns)}
    table = _Table(path, [number for number, _ in numbered], series[time_column], dict(series))
    if ragged:
        number, length = ragged[0]
        table.faults.append(Fault(f"{length} cells in a row; {len(head)} expected", str(path), number))
    return table


def _read_parquet(path: Path, time_column: str, columns: Sequence[str]) -> _Table:
    import pyarrow as pa  # type: ignore[import-untyped]  # here: costs 0.1 s, needed for Parquet files only
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]

    _require(path, (time_column, *columns), parquet.read_schema(path).names)
    read = parquet.read_table(path, columns=list(dict.fromkeys((time_column, *columns))))
    stamps = read[time_column]
    if pa.types.is_timestamp(stamps.type):
        stamps = stamps.cast(pa.timestamp("us", stamps.type.tz))
    series = {name: read[name].to_pylist() for name in columns}
    return _Table(path, range(1, read.num_rows + 1), stamps.to_pylist(), series)


def _require(path: Path, names: Sequence[str], present: Sequence[str]) -> None:
    """Refuse a file that lacks a column or has it twice."""
    faults = []
    for name in dict.fromkeys(names):
        if present.count(name) > 1:
            faults.append(Fault("the column is there twice", str(path), 1, name))
        elif name not in present:
            close = get_close_matches(name, present, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            faults.append(Fault(f"no such column{hint}", str(path), 1, name, allowed=", ".join(present)))
    if faults:
        raise ProfileError(faults)


def _times(table: _Table, key: str, local: ZoneInfo) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Microseconds since 1970 of each row, and whether its stamp could be read."""
    times_us = np.zeros(len(table.stamps), dtype=np.int64)
    readable = np.ones(len(table.stamps), dtype=bool)
    reported: set[str] = set()
    for row, stamp in enumerate(table.stamps):
        try:
            times_us[row] = (_instant(stamp, local) - _EPOCH) // _MICROSECOND
        except ValueError as error:
            readable[row] = False
            if str(error) not in reported:
                reported.add(str(error))
                table.report(row, key, str(error), stamp)
    return times_us, readable


def _instant(stamp: object, local: ZoneInfo) -> datetime:
    """The aware time of a stamp; raises ValueError with what is wrong."""
    try:
        time = stamp if isinstance(stamp, datetime) else datetime.fromisoformat(str(stamp).strip())
    except ValueError:
        raise ValueError("not a time stamp of the form 2016-07-22T00:00:00 or 2016-07-22T00:00:00+01:00") from None
    if time.tzinfo is not None:
        return time
    early, late = (time.replace(tzinfo=local, fold=fold) for fold in (0, 1))
    before, after = early.utcoffset(), late.utcoffset()
    if before == after or before is None or after is None:
        return early
    advice = "write the offset, or use a zone without summer time"
    if before > after:
        raise ValueError(f"this local time comes twice in {local.key}; {advice}")
    raise ValueError(f"this local time does not exist in {local.key}; {advice}")


def _regular_step(table: _Table, key: str, times_us: Ints, readable: npt.NDArray[np.bool_]) -> int:
    """The step [us] that most rows keep; reports the first row of each way in which others do not."""
    known = readable[1:] & readable[:-1]
    steps_us = np.diff(times_us)
    forward = steps_us[known & (steps_us > 0)]
    if not forward.size:
        number_of_rows = f"{len(times_us)} rows"
        table.faults.append(
            Fault("at least two rows in order of time are needed", str(table.path), None, key, number_of_rows)
        )
        return _SECOND_US
    lengths, counts = np.unique(forward, return_counts=True)
    step_us = int(lengths[np.argmax(counts)])
    if step_us % _SECOND_US:
        table.faults.append(
            Fault("the step is not a whole number of seconds", str(table.path), None, key, f"{step_us} us")
        )
    ways = {
        "time given twice": steps_us == 0,
        "earlier than the row before": steps_us < 0,
        "gap": (steps_us > step_us) & (steps_us % step_us == 0),
        f"step other than the {step_us / _SECOND_US:g} s of most rows": (steps_us > 0) & (steps_us % step_us != 0),
    }
    for problem, where in ways.items():
        found = np.flatnonzero(where & known)
        if found.size:
            row = int(found[0]) + 1
            missing = f" of {steps_us[row - 1] // step_us - 1} rows before this one" if problem == "gap" else ""
            table.report(row, key, problem + missing, _utc(times_us[row]), _utc(times_us[row - 1] + step_us))
    return step_us


def _numbers(table: _Table, name: str) -> Floats:
    """The values of a column; reports the first that is not a finite number."""
    cells = table.columns[name]
    values = np.array([_number(cell) for cell in cells], dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        cell = cells[int(bad[0])]
        problem = "no value" if cell in (None, "") else "not a finite number"
        more = f" (and {bad.size - 1} more)" if bad.size > 1 else ""
        table.report(int(bad[0]), name, problem + more, cell)
    return values


def _number(cell: Any) -> float:
    try:
        return math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError):
        return math.nan


def _utc(time_us: int) -> str:
    time = _EPOCH + timedelta(microseconds=int(time_us))
    return time.isoformat().replace("+00:00", "Z")
