"""Writer of the result file: one HDF5 file, buffered, readable at any moment up to its last flush.

The layout is described in ``docs/hdf5_layout.md``; why it is written in this order, in
``docs/decisions/0004-hdf5.md``.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import h5py
import numpy as np
import numpy.typing as npt

from cosim.clock import Clock
from cosim.domain.frames import EventTable, Signal
from cosim.errors import ResultError
from cosim.io.disk import detach, reason, require_space, reserve
from cosim.io.layout import (
    FORMAT,
    FORMAT_VERSION,
    MISSING_CODE,
    ROWS_RECORDED,
    STEPS_RECORDED,
    name_faults,
    signal_faults,
    text_of,
)

Status = Literal["complete", "failed", "interrupted"]

_CHUNK_BYTES = 1 << 20
_EVENT_CHUNK_ROWS = 256
_TEXT = h5py.string_dtype("utf-8")
_SLACK_BYTES = 1 << 16
_BYTES_PER_SERIES = 1 << 13  # growth of the chunk index and headers of one data set in a flush, generously
_HDF5_ERRORS = (OSError, RuntimeError)


@dataclass
class _Series:
    """A data set over time and the rows of it that are not in the file yet, shape (flush_steps, ...)."""

    dataset: h5py.Dataset
    rows: npt.NDArray[Any]
    codes: int = 0

    def __post_init__(self) -> None:
        self.shape = self.rows.shape[1:]
        chunk = self.dataset.chunks
        chunks = [-(-count // width) for count, width in zip(self.rows.shape, chunk, strict=True)]
        self.flush_bytes: int = math.prod(chunks) * math.prod(chunk) * self.rows.itemsize  # whole chunks, filled or not


@dataclass
class _Table:
    group: h5py.Group
    columns: dict[str, str | None]
    rows: list[Mapping[str, object]] = field(default_factory=list)
    written: int = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes that the pending rows can append, generously [byte]."""
        if not self.rows:
            return 0
        texts = sum(4 * len(value) + 32 for row in self.rows for value in row.values() if isinstance(value, str))
        return texts + (len(self.rows) + 2 * _EVENT_CHUNK_ROWS) * 16 * (len(self.columns) + 1)


class ResultWriter:
    """Writes one result file while a run goes on.

    ``path`` is the final file; ``attributes`` become root attributes (``scenario`` is the resolved scenario as JSON).
    The file is built beside ``path`` under a temporary name and takes its place in ``start()``, so that an older
    result is kept until the new run begins. Rows are buffered and written every ``flush_steps`` steps. Leaving the
    ``with`` block without ``finish()`` marks the file as interrupted (Ctrl-C) or failed.

    Raises ResultError when ``path`` is a folder, holds something that is not a result of ours or is being written by
    another run, or when the file cannot be created.
    """

    def __init__(
        self,
        path: str | Path,
        clock: Clock,
        flush_steps: int,
        compression: Literal["gzip", "none"],
        attributes: Mapping[str, str | int | float],
    ) -> None:
        self.path = Path(path)
        self._clock = clock
        self._flush_steps = min(flush_steps, clock.steps)
        # Each chunk is compressed once, when it is full: a chunk rewritten in another size would be moved, and
        # its old place, which the file on disk still refers to, used anew.
        self._filters = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if compression == "gzip" else {}
        self._series: dict[tuple[str, str, str], _Series] = {}
        self._timings: dict[str, _Series] = {}
        self._tables: dict[tuple[str, str], _Table] = {}
        self._first = 0  # step of the first buffered row
        self._ended = 0  # steps ended, in the file or buffered
        self._end = self._flush_steps  # step that the buffer has no row for
        self._started = self._failed = False
        self._working_path = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        _refuse_target(self.path)
        own = {"format": FORMAT, "format_version": FORMAT_VERSION, "Conventions": "CF-1.11", "created_by": "cosim"}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            require_space(self.path.parent, _SLACK_BYTES)
            self._file: h5py.File | None = h5py.File(self._working_path, "w")
        except _HDF5_ERRORS as error:
            raise ResultError(f"{self.path}: cannot create the result file: {reason(error)}") from error
        for name, value in {**own, **attributes, "status": "running", "error": ""}.items():
            self._file.attrs[name] = text_of(value) if isinstance(value, str) else value
        self._file.attrs.create(STEPS_RECORDED, 0, dtype=np.int64)
        self._time = self._time_scale(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        if isinstance(error, KeyboardInterrupt):
            self.finish("interrupted", "interrupted by the user")
        else:
            self.finish("failed", str(error) if error is not None else "the run ended without being finished")

    def declare(self, simulator: str, model: str, signals: Sequence[Signal]) -> None:
        """Create the data sets ``/<simulator>/<model>/<attribute>`` of shape (time, element).

        Signals with the same axis share its element scale and must have the same elements. Raises ResultError
        naming every fault at once.
        """
        parent = self._open()
        faults = name_faults(simulator, model, *(name for s in signals for name in (s.attribute, s.axis)))
        for signal in signals:
            faults += signal_faults(f"{simulator}/{model}", signal, signals)
        known = parent.get(f"{simulator}/{model}")
        if known is not None:
            faults.append(f"{simulator}/{model} is declared already")
        if faults:
            raise ResultError(f"{self.path}: cannot declare {simulator}/{model}: " + "; ".join(dict.fromkeys(faults)))
        group = self._group(f"{simulator}/{model}", "signals")
        group["time"] = self._time  # a hard link: tools that open one group see the decoded time
        for signal in signals:
            if signal.axis not in group:
                scale = group.create_dataset(signal.axis, data=np.array(signal.elements, dtype=object), dtype=_TEXT)
                scale.make_scale(signal.axis)
                scale.attrs["long_name"] = f"{signal.axis} id"
            self._series[simulator, model, signal.attribute] = self._signal(group, signal)

    def declare_events(self, simulator: str, table: EventTable) -> None:
        """Create the group ``/<simulator>/<table>`` with one data set a column, all along the dimension ``row``."""
        parent = self._open()
        faults = name_faults(simulator, table.name, *table.columns)
        if f"{simulator}/{table.name}" in parent:
            faults.append(f"{simulator}/{table.name} is declared already")
        if faults:
            raise ResultError(f"{self.path}: cannot declare {simulator}/{table.name}: " + "; ".join(faults))
        group = self._group(f"{simulator}/{table.name}", "events")
        group.attrs["long_name"] = table.long_name
        group.attrs["columns"] = np.array(list(table.columns), dtype=object)
        group.attrs.create(ROWS_RECORDED, 0, dtype=np.int64)
        shape: dict[str, Any] = {"shape": (0,), "maxshape": (None,), "chunks": (_EVENT_CHUNK_ROWS,)}
        scale = group.create_dataset("row", dtype=np.int64, **shape)
        scale.make_scale("row")
        for name, unit in table.columns.items():
            kind = {"dtype": _TEXT} if unit is None else {"dtype": np.float64, "fillvalue": np.nan}
            column = group.create_dataset(name, **shape, **kind)
            column.dims[0].attach_scale(scale)
            if unit is not None:
                column.attrs["units"] = self._time_units() if name == "t_s" else unit
        self._tables[simulator, table.name] = _Table(group, dict(table.columns))

    def start(self) -> None:
        """The run begins: the file takes its final name, replacing an older result. The first ``end_step`` calls it."""
        file = self._open()
        if self._started:
            return
        try:
            self._reserve(self._flush_bytes())
            file.flush()
            self._working_path.replace(self.path)
        except _HDF5_ERRORS as error:
            self._abandon()
            raise self._lost(error) from error
        self._started = True

    def write(self, step: int, simulator: str, model: str, attribute: str, values: npt.ArrayLike) -> None:
        """Keep the values of one signal at one step; shape (n_element,). A row never written stays missing."""
        series = self._series.get((simulator, model, attribute))
        if series is None:
            known = ", ".join("/".join(key) for key in self._series) or "none"
            raise ResultError(f"{self.path}: {simulator}/{model}/{attribute} is not declared; declared: {known}")
        array = np.asarray(values)
        row = self._row(step)
        if array.shape != series.shape:
            raise ResultError(
                f"{self.path}: {simulator}/{model}/{attribute} at step {step}: {series.shape[0]} values expected, "
                f"got shape {array.shape}"
            )
        if series.codes and not _are_codes(array, series.codes):
            raise ResultError(
                f"{self.path}: {simulator}/{model}/{attribute} at step {step}: whole codes from {MISSING_CODE} "
                f"(missing) to {series.codes - 1} expected, got {array.tolist()}"
            )
        series.rows[row] = array

    def append_event(self, simulator: str, table: str, row: Mapping[str, object]) -> None:
        """Keep one event; ``row`` has a value for every column (None: missing)."""
        events = self._tables.get((simulator, table))
        if events is None:
            known = ", ".join("/".join(key) for key in self._tables) or "none"
            raise ResultError(f"{self.path}: events {simulator}/{table} are not declared; declared: {known}")
        if row.keys() != events.columns.keys():
            raise ResultError(
                f"{self.path}: event of {simulator}/{table} has columns {', '.join(map(str, row))}; "
                f"expected: {', '.join(events.columns)}"
            )
        for name, unit in events.columns.items():
            value = row[name]
            if value is not None and isinstance(value, str) != (unit is None):
                expected = "text" if unit is None else f"a number [{unit}]"
                raise ResultError(f"{self.path}: {simulator}/{table}/{name}: {expected} expected, got {value!r}")
        events.rows.append(dict(row))

    def timing(self, step: int, simulator_seconds: Mapping[str, float]) -> None:
        """Keep the wall-clock time [s] that each simulator took in one step; not part of the result hash."""
        row = self._row(step)
        for simulator, seconds in simulator_seconds.items():
            series = self._timings.get(simulator)
            if series is None:
                series = self._timings[simulator] = self._timing(simulator)
            series.rows[row] = seconds

    def end_step(self, step: int) -> None:
        """All of ``step`` has been written; every ``flush_steps`` steps the rows go into the file.

        Raises ResultError when they cannot be written, e.g. disk full; what was flushed before stays readable.
        """
        row = self._row(step)
        if not self._started:
            self.start()
        self._ended = step + 1
        if row + 1 == self._flush_steps:
            self._flush()

    def finish(self, status: Status, error: str = "") -> None:
        """Write what is buffered, mark the file and close it. Nothing happens if it is closed already.

        A file that never started is removed, and an older result stays.
        """
        if self._file is None:
            return
        if not self._started:
            if status != "complete":
                self._abandon()
                return
            self.start()
        if not self._failed:
            self._flush()
        try:
            self._reserve(_SLACK_BYTES + 4 * len(error))
        except OSError:
            self._abandon()  # no room even for the status: the file stays as it was flushed, status running
            return
        self._close(status, error)

    def _close(self, status: Status, error: str) -> None:
        file = self._open()
        try:
            file.attrs.modify("status", "failed" if self._failed else status)
            file.attrs.modify("error", text_of(error))
            file.flush()
            size = file.id.get_filesize()
        except _HDF5_ERRORS as failure:
            self._abandon()
            raise self._lost(failure) from failure
        file.close()
        self._file, self._end = None, 0
        os.truncate(self.path, size)  # gives back what was reserved and not used

    def _open(self) -> h5py.File:
        if self._file is None:
            raise ResultError(f"{self.path}: the result file is closed")
        return self._file

    def _row(self, step: int) -> int:
        if not self._ended <= step < self._end:
            self._open()
            raise ResultError(
                f"{self.path}: step {step} cannot be written now; steps {self._ended} to {self._end - 1} can"
            )
        return step - self._first

    def _time_units(self) -> str:
        return f"seconds since {self._clock.start.isoformat()}"

    def _time_scale(self, file: h5py.File) -> h5py.Dataset:
        scale = file.create_dataset("time", (0,), np.int64, maxshape=(None,), chunks=(self._chunk_rows(8),))
        scale.make_scale("time")
        scale.attrs["units"] = self._time_units()
        scale.attrs["calendar"] = "proleptic_gregorian"
        scale.attrs["standard_name"] = "time"
        scale.attrs["long_name"] = "begin of the step"
        return scale

    def _group(self, path: str, kind: str) -> h5py.Group:
        group = self._open().create_group(path)
        group.attrs["kind"] = kind
        return group

    def _chunk_rows(self, row_bytes: int) -> int:
        return max(1, min(self._flush_steps, self._clock.steps, _CHUNK_BYTES // row_bytes))

    def _signal(self, group: h5py.Group, signal: Signal) -> _Series:
        count, dtype = len(signal.elements), signal.dtype
        rows = self._chunk_rows(dtype.itemsize)
        missing = MISSING_CODE if signal.codes else np.nan
        dataset = group.create_dataset(
            signal.attribute,
            shape=(0, count),
            maxshape=(None, count or None),
            chunks=(rows, max(1, min(count, _CHUNK_BYTES // (rows * dtype.itemsize)))),
            dtype=dtype,
            fillvalue=missing,
            **self._filters,
        )
        dataset.dims[0].attach_scale(self._time)
        dataset.dims[1].attach_scale(group[signal.axis])
        dataset.attrs["units"] = signal.unit
        dataset.attrs["long_name"] = signal.long_name
        dataset.attrs["_FillValue"] = dtype.type(missing)
        if signal.sign:
            dataset.attrs["sign_convention"] = signal.sign
        if signal.codes:
            dataset.attrs["flag_values"] = np.arange(len(signal.codes), dtype=np.int8)
            dataset.attrs["flag_meanings"] = " ".join(signal.codes)
        return _Series(dataset, np.full((self._flush_steps, count), missing, dtype), len(signal.codes))

    def _timing(self, simulator: str) -> _Series:
        if faults := name_faults(simulator):
            raise ResultError(f"{self.path}: cannot record timing: {'; '.join(faults)}")
        if "timing" not in self._open():
            self._group("timing", "timing")["time"] = self._time
        dataset = self._open()["timing"].create_dataset(
            simulator,
            shape=(self._first,),
            maxshape=(None,),
            chunks=(self._chunk_rows(8),),
            dtype=np.float64,
            fillvalue=np.nan,
        )
        dataset.dims[0].attach_scale(self._time)
        dataset.attrs["units"] = "s"
        dataset.attrs["long_name"] = "wall-clock time of the step"
        return _Series(dataset, np.full(self._flush_steps, np.nan))

    def _flush(self) -> None:
        """Write the ended steps and the events, then their numbers: whoever reads up to the numbers reads it all."""
        file = self._open()
        try:
            self._reserve(self._flush_bytes())
        except OSError as error:
            self._failed = True
            raise self._lost(error) from error
        try:
            self._extend()
            for table in self._tables.values():
                _extend_table(table)
            file.flush()
            file.attrs.modify(STEPS_RECORDED, np.int64(self._ended))
            for table in self._tables.values():
                table.group.attrs.modify(ROWS_RECORDED, np.int64(table.written))
            file.flush()
        except _HDF5_ERRORS as error:
            self._abandon()
            raise self._lost(error) from error
        self._first = self._ended
        self._end = min(self._first + self._flush_steps, self._clock.steps)

    def _extend(self) -> None:
        first, ended = self._first, self._ended
        for series in (*self._series.values(), *self._timings.values()):
            _append(series.dataset, first, series.rows[: ended - first])
            series.rows.fill(MISSING_CODE if series.codes else np.nan)
        _append(self._time, first, np.arange(first, ended, dtype=np.int64) * self._clock.step_s)

    def _flush_bytes(self) -> int:
        series = (*self._series.values(), *self._timings.values())
        data_sets = len(series) + sum(len(table.columns) + 1 for table in self._tables.values()) + 1
        appended = sum(s.flush_bytes for s in series) + sum(t.pending_bytes for t in self._tables.values())
        return appended + appended // 64 + data_sets * _BYTES_PER_SERIES + 8 * self._flush_steps + _SLACK_BYTES

    def _reserve(self, count: int) -> None:
        """Make the file system set ``count`` bytes aside before HDF5 is given anything to write; else OSError.

        An HDF5 file in which a write failed half-way may not open again, and HDF5 may crash the process.
        """
        file = self._open()
        reserve(file.id.get_vfd_handle(), file.id.get_filesize(), count, self.path.parent)

    def _lost(self, error: Exception) -> ResultError:
        until = self._clock.instant(self._first * self._clock.step_s).isoformat()
        kept = f"is complete up to {until} ({self._first} of {self._clock.steps} steps)"
        state = kept if self._started else "is not begun"
        free_mib = shutil.disk_usage(self.path.parent).free / 2**20
        return ResultError(
            f"{self.path}: cannot write results: {reason(error)}; the file {state}; "
            f"free space there: {free_mib:.1f} MiB"
        )

    def _abandon(self) -> None:
        """Close without another byte reaching the file, because HDF5 would retry, fail and crash the process."""
        file = self._open()
        self._file, self._end = None, 0
        detach(file.id.get_vfd_handle(), file.id.get_filesize())  # a file shorter than its header says does not open
        with suppress(*_HDF5_ERRORS):
            file.close()
        if not self._started:
            self._working_path.unlink(missing_ok=True)


def _are_codes(array: npt.NDArray[Any], count: int) -> bool:
    return array.dtype.kind in "iub" and bool(np.all((array >= MISSING_CODE) & (array < count)))


def _append(dataset: h5py.Dataset, first: int, rows: npt.NDArray[Any]) -> None:
    """Write ``rows`` from row ``first`` on; the low-level calls take a fifth of the time of ``dataset[...] = rows``."""
    dataset.id.set_extent((first + len(rows), *rows.shape[1:]))
    if rows.size:
        place = dataset.id.get_space()
        place.select_hyperslab((first,) + (0,) * (rows.ndim - 1), rows.shape)
        dataset.id.write(h5py.h5s.create_simple(rows.shape), place, rows)


def _extend_table(table: _Table) -> None:
    first, table.written = table.written, table.written + len(table.rows)
    if first == table.written:
        return
    for name, unit in table.columns.items():
        values = [row[name] for row in table.rows]
        column = table.group[name]
        if unit is None:
            column.resize(table.written, axis=0)
            column[first:] = np.array(["" if value is None else text_of(str(value)) for value in values], dtype=object)
        else:
            _append(column, first, np.array([np.nan if value is None else value for value in values], np.float64))
    _append(table.group["row"], first, np.arange(first, table.written, dtype=np.int64))
    table.rows.clear()


def _refuse_target(path: Path) -> None:
    """Raise ResultError unless nothing is at ``path``, or an earlier result that nobody is writing."""
    try:
        if not path.exists():
            return
        if not path.is_file():
            raise ResultError(f"{path}: not a file; give the name of a result file, for example {path / 'result.h5'}")
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # HDF5 holds this lock exclusively while it writes
    except BlockingIOError as error:
        raise ResultError(f"{path}: another run is writing this result file") from error
    except OSError as error:
        raise ResultError(f"{path}: cannot be replaced: {reason(error)}") from error
    try:
        with h5py.File(path, "r", locking=False) as file:
            ours = file.attrs.get("format") == FORMAT
    except _HDF5_ERRORS:
        ours = False
    if not ours:
        raise ResultError(f"{path}: exists and is not a result file of cosim; it is left as it is, give another name")
