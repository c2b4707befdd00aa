"""Time series of loads and generation: the files of the installed SimBench package, and CSV or Parquet of the user.

A profile is regular: row ``i`` holds over ``[start + i*step, start + (i+1)*step)``. Values are as in the file.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv as arrow_csv  # type: ignore[import-untyped]

from cosim.clock import Clock, format_duration
from cosim.domain.frames import Floats, frozen
from cosim.errors import Fault, ProfileError
from cosim.io.profile_files import read_rows
from cosim.units import SECONDS_PER_DAY

SIMBENCH_START = datetime(2015, 12, 31, 23, 0, tzinfo=UTC)
SIMBENCH_STEP_S = 900
SIMBENCH_ROWS = 35136
_SIMBENCH_TABLES = ("LoadProfile", "RESProfile", "PowerPlantProfile", "StorageProfile")
_SIMBENCH_KEPT = 2  # sets of columns: one for each feeder of a study
_QUARTER_HOUR_S = 900


@dataclass(frozen=True)
class Profiles:
    """Regular time series: ``values`` of shape (n_row, n_name), read-only, in the unit of the source.

    Row ``i`` holds over ``[start + i*step_s, start + (i+1)*step_s)``; ``start`` is UTC. ``wraps_year`` says that the
    rows cover one whole year, so that its end may stand for the days before its start in a history.
    """

    start: datetime
    step_s: int
    names: tuple[str, ...]
    values: Floats
    wraps_year: bool
    source: str = ""

    @property
    def end(self) -> datetime:
        """End of the last row, exclusive."""
        return self.start + timedelta(seconds=self.step_s * len(self.values))

    @property
    def extent(self) -> str:
        """What is covered, in words."""
        return f"{_text(self.start)} to {_text(self.end)}"

    def with_columns(self, names: Sequence[str], values: Floats) -> Profiles:
        """Other series over the same rows: ``values`` of shape (n_row, n_name), copied unless they are read-only."""
        if values.shape != (len(self.values), len(names)):
            raise ValueError(f"values of shape {(len(self.values), len(names))} expected, got {values.shape}")
        return replace(self, names=tuple(names), values=frozen(values) if values.flags.writeable else values)

    def rows(self, instant: datetime, *names: str) -> Floats:
        """The values that hold at ``instant``, shape (n_name,), of ``names`` in their order (all when none is given).

        Raises ProfileError when the instant or a name is not there.
        """
        row = (instant - self.start) // timedelta(seconds=self.step_s)
        if not 0 <= row < len(self.values):
            raise ProfileError(
                Fault("no value at this instant", self.source, value=_text(instant), allowed=self.extent)
            )
        values: Floats = self.values[row]
        if not names:
            return values
        _require(names, self.names, self.source)
        return values[[self.names.index(name) for name in names]]


def read_simbench(dataset: str, columns: Sequence[str]) -> Profiles:
    """``columns`` of one of the data sets that come with the ``simbench`` package, which is not imported.

    A name that several of the data set's files have is written ``RESProfile/lv_rural1``. The 35136 rows are taken in
    file order as quarter hours from 2016-01-01 00:00 CET (UTC+1): the time column jumps at summer time. Values are per
    unit of the rated power. Raises ProfileError when the package, the data set or a column is not there.

    Source: Meinecke et al., SimBench - A Benchmark Dataset of Electric Power Systems to Compare Innovative Solutions
    Based on Power Flow Analysis, Energies 13(12), 2020; data under ODbL 1.0.
    """
    folder = _simbench_folder(dataset)
    names = tuple(dict.fromkeys(columns))
    values = _simbench_values(folder, names)
    return Profiles(SIMBENCH_START, SIMBENCH_STEP_S, names, values, wraps_year=True, source=f"simbench {dataset}")


@lru_cache(maxsize=_SIMBENCH_KEPT)
def _simbench_values(folder: Path, names: tuple[str, ...]) -> Floats:
    """Shape (n_row, n_name). The runs of a sweep read the same: a quarter of a second each time."""
    located = _locate_columns(folder, names)
    series: dict[str, Floats] = {}
    for table in dict.fromkeys(table for table, _ in located.values()):
        wanted = {name: column for name, (of, column) in located.items() if of == table}
        read = _read_table(folder / f"{table}.csv", list(wanted.values()))
        series |= {name: read[column] for name, column in wanted.items()}
    return frozen(np.column_stack([series[name] for name in names]) if names else np.empty((SIMBENCH_ROWS, 0)))


def _simbench_folder(dataset: str) -> Path:
    package = importlib.util.find_spec("simbench")
    if package is None or not package.submodule_search_locations:
        raise ProfileError(Fault("the package simbench is not installed", key="profiles.simbench", value=dataset))
    networks = Path(package.submodule_search_locations[0]) / "networks"
    present = sorted(table.parent.name for table in networks.glob(f"*/{_SIMBENCH_TABLES[0]}.csv"))
    if dataset not in present:
        known = _listed(dataset, present)
        raise ProfileError(Fault("unknown SimBench data set", key="profiles.simbench", value=dataset, allowed=known))
    return networks / dataset


def simbench_columns(dataset: str) -> dict[str, tuple[str, ...]]:
    """The columns of each table of one of the data sets that `read_simbench` reads; raises ProfileError like it."""
    return _heads(_simbench_folder(dataset))


def _heads(folder: Path) -> dict[str, tuple[str, ...]]:
    heads: dict[str, tuple[str, ...]] = {}
    for table in _SIMBENCH_TABLES:
        if (folder / f"{table}.csv").exists():
            with (folder / f"{table}.csv").open(encoding="utf-8") as lines:
                heads[table] = tuple(name for name in lines.readline().strip().split(";") if name != "time")
    return heads


def _locate_columns(folder: Path, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The table and the column in it of each name."""
    heads = _heads(folder)
    found = {name: [(t, c) for t, head in heads.items() for c in head if name in (c, f"{t}/{c}")] for name in names}
    known = sorted({column for head in heads.values() for column in head})
    faults = [
        Fault("unknown SimBench profile", folder.name, value=name, allowed=_listed(name, known))
        for name, places in found.items()
        if not places
    ] + [
        Fault("several files have this profile", folder.name, None, "", name, ", ".join(f"{t}/{c}" for t, c in places))
        for name, places in found.items()
        if len(places) > 1
    ]
    if faults:
        raise ProfileError(faults)
    return {name: places[0] for name, places in found.items()}


def _read_table(path: Path, columns: Sequence[str]) -> dict[str, Floats]:
    table = arrow_csv.read_csv(
        path,
        read_options=arrow_csv.ReadOptions(use_threads=False),  # as fast, and takes half the memory
        parse_options=arrow_csv.ParseOptions(delimiter=";"),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=columns, column_types=dict.fromkeys(columns, pa.float64())
        ),
    )
    # Not to_numpy(): that imports pandas, which costs more than the reading.
    found = {column: np.concatenate([np.from_dlpack(chunk) for chunk in table[column].chunks]) for column in columns}
    del table
    pa.default_memory_pool().release_unused()
    return found


def covering(profiles: Profiles, clock: Clock) -> None:
    """Raise ProfileError unless the profiles cover the whole horizon of the clock."""
    begin, end = clock.start, clock.instant(clock.until_s)
    if begin < profiles.start or end > profiles.end:
        needed = f"{_text(begin)} to {_text(end)}"
        raise ProfileError(
            Fault(f"the profiles do not cover the horizon {needed}", profiles.source, value=profiles.extent)
        )


def sample(profiles: Profiles, clock: Clock) -> Floats:
    """The values of every step, shape (n_step, n_name), read-only.

    A step no longer than the profiles' own takes the value that holds at its beginning. A longer step must be a whole
    multiple and begin with a row; it takes the mean over its rows. Raises ProfileError otherwise, and when the horizon
    is not covered.
    """
    covering(profiles, clock)
    offset_s = round((clock.start - profiles.start).total_seconds())
    if clock.step_s <= profiles.step_s:
        return frozen(profiles.values[(offset_s + clock.step_s * np.arange(clock.steps)) // profiles.step_s])
    if clock.step_s % profiles.step_s or offset_s % profiles.step_s:
        own = format_duration(profiles.step_s)
        raise ProfileError(
            Fault(
                f"a step longer than the profiles' own ({own}) must be a whole multiple of it and begin with a row",
                profiles.source,
                value=f"step {format_duration(clock.step_s)} from {_text(clock.start)}",
                allowed=f"multiples of {own} counted from {_text(profiles.start)}",
            )
        )
    per_step, first = clock.step_s // profiles.step_s, offset_s // profiles.step_s
    rows = profiles.values[first : first + clock.steps * per_step]
    return frozen(rows.reshape(clock.steps, per_step, -1).mean(axis=1))


def history(profiles: Profiles, instant: datetime, days: int, window: int) -> Floats:
    """Values at the same time of day (UTC) on the preceding ``days`` days and ``window`` quarter hours on either side.

    Shape (days * (2 * window + 1), n_name), from the day before backwards. Before the first row the rows of the end
    of the same year stand in when ``profiles.wraps_year``. Raises ProfileError when rows are missing.
    """
    around_s = _QUARTER_HOUR_S * np.arange(-window, window + 1)
    before_s = -SECONDS_PER_DAY * np.arange(1, days + 1)
    since_start_s = int((instant - profiles.start).total_seconds())
    rows = ((since_start_s + before_s[:, None] + around_s).ravel()) // profiles.step_s
    if profiles.wraps_year:
        rows %= len(profiles.values)
    elif rows.min() < 0 or rows.max() >= len(profiles.values):
        first, last = instant - timedelta(days=days), instant - timedelta(days=1)
        slack = timedelta(seconds=_QUARTER_HOUR_S * window)
        needed = f"{_text(first - slack)} to {_text(last + slack)}"
        raise ProfileError(Fault(f"no history over {needed}", profiles.source, value=profiles.extent))
    values: Floats = profiles.values[rows]
    return values


def read_file(path: str | Path, timezone: str, time_column: str, columns: Sequence[str]) -> Profiles:
    """``columns`` of a CSV or Parquet file of the user with a time stamp (ISO 8601) in each row.

    Stamps carry an offset or are local times of the IANA zone ``timezone``. Raises ProfileError with every kind of
    fault found, each with its first row (the line of a CSV file, the 1-based row of a Parquet file): missing columns,
    unreadable, ambiguous or non-existent times, repeated or unsorted rows, gaps, irregular steps, missing or
    non-numeric values.
    """
    names = tuple(dict.fromkeys(columns))
    rows = read_rows(Path(path), timezone, time_column, names)
    whole_year = rows.step_s * len(rows.values) in (365 * SECONDS_PER_DAY, 366 * SECONDS_PER_DAY)
    return Profiles(rows.start, rows.step_s, names, frozen(rows.values), whole_year, str(path))


def _require(names: Sequence[str], present: Sequence[str], source: str) -> None:
    faults = [
        Fault("unknown profile", source, value=name, allowed=_listed(name, present))
        for name in names
        if name not in present
    ]
    if faults:
        raise ProfileError(faults)


def _listed(name: str, present: Sequence[str]) -> str:
    """What is available, close matches first."""
    close = get_close_matches(name, present, n=3, cutoff=0.5)
    return ", ".join([*close, *(other for other in present if other not in close)])


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
