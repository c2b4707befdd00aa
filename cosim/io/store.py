"""Writer of the result file: one HDF5 file, buffered, readable at any moment up to its last flush.

The layout is described in ``docs/hdf5_layout.md``; why it is written in this order, in
``docs/decisions/0004-hdf5.md``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import h5py
import numpy as np
import numpy.typing as npt

from cosim.clock import Clock
from cosim.domain.frames import EventTable, Signal
from cosim.errors import ResultError, ResumeError
from cosim.io.checkpoint import Checkpoint, checkpoint_bytes, create_slots, read_checkpoints, write_checkpoint
from cosim.io.disk import detach, reason, require_space, reserve
from cosim.io.layout import (
    FORMAT,
    FORMAT_VERSION,
    MISSING_CODE,
    ROWS_RECORDED,
    STEPS_RECORDED,
    TIMING,
    name_faults,
    signal_faults,
    text_of,
)
from cosim.io.series import (
    EVENT_CHUNK_ROWS,
    TEXT,
    Series,
    Table,
    append,
    are_codes,
    chunk_rows,
    create_signal,
    create_times,
    extend_table,
)
from cosim.io.takeover import UNREADABLE, Earlier, take_events, take_steps, take_times
from cosim.io.target import alone_in, held, is_at, refuse_target, remove_left_over

Status = Literal["complete", "failed", "interrupted"]

_SLACK_BYTES = 1 << 16
_BYTES_PER_SERIES = 1 << 13  # growth of the chunk index and headers of one data set in a flush, generously
_HDF5_ERRORS = (OSError, RuntimeError)


class ResultWriter:
    """Writes one result file while a run goes on.

    ``path`` is the final file; ``attributes`` become root attributes (``scenario`` is the resolved scenario as JSON).
    The file is built beside ``path`` under a temporary name and takes its place in ``start()``, so that an older
    result is kept until the new run begins. Rows are buffered and written every ``flush_steps`` steps, or somewhat more
    often so that a flush falls on the end of every ``segment_steps`` steps, where there may be a `checkpoint`. Leaving
    the ``with`` block without ``finish()`` marks the file as interrupted (Ctrl-C) or failed.

    With ``earlier``, ``start()`` takes over what that file holds up to its checkpoint, and the run goes on from there.

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
        segment_steps: int | None = None,
        earlier: Earlier | None = None,
    ) -> None:
        self.path = Path(path)
        self._clock, self._earlier = clock, earlier
        self._segment_steps = clock.steps if segment_steps is None else segment_steps
        self._flush_steps = min(flush_steps, clock.steps)
        if self._segment_steps < clock.steps:
            self._flush_steps = max(n for n in range(1, flush_steps + 1) if self._segment_steps % n == 0)
        # Each chunk is compressed once, when it is full: a chunk rewritten in another size would be moved, and
        # its old place, which the file on disk still refers to, used anew.
        self._filters = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if compression == "gzip" else {}
        self._series: dict[tuple[str, str, str], Series] = {}
        self._timings: dict[str, Series] = {}
        self._tables: dict[tuple[str, str], Table] = {}
        self._first = 0 if earlier is None else earlier.checkpoint.step  # step of the first buffered row
        self._ended = self._first  # steps ended, in the file or buffered
        self._end = min(self._first + self._flush_steps, clock.steps)  # step that the buffer has no row for
        self._started = self._failed = False
        self._working_path = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        refuse_target(self.path)
        own = {"format": FORMAT, "format_version": FORMAT_VERSION, "Conventions": "CF-1.11", "created_by": "cosim"}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove_left_over(self.path)
            require_space(self.path.parent, _SLACK_BYTES)
            # Chunks are written once, so HDF5 need not keep them: by default up to 1 MiB of each data set.
            self._file: h5py.File | None = h5py.File(self._working_path, "w", rdcc_nbytes=0)
            _keep_little(self._file)
        except _HDF5_ERRORS as error:
            raise ResultError(f"{self.path}: cannot create the result file: {reason(error)}") from error
        for name, value in {**own, **attributes, "status": "running", "error": ""}.items():
            self._file.attrs[name] = text_of(value) if isinstance(value, str) else value
        self._file.attrs.create(STEPS_RECORDED, 0, dtype=np.int64)
        self._time = self._time_scale(self._file)
        if self._segment_steps < clock.steps:
            create_slots(self._file)

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
                scale = group.create_dataset(signal.axis, data=np.array(signal.elements, dtype=object), dtype=TEXT)
                scale.make_scale(signal.axis)
                scale.attrs["long_name"] = f"{signal.axis} id"
            self._series[simulator, model, signal.attribute] = create_signal(
                group, signal, self._time, self._flush_steps, self._filters
            )

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
        shape: dict[str, Any] = {"shape": (0,), "maxshape": (None,), "chunks": (EVENT_CHUNK_ROWS,)}
        scale = group.create_dataset("row", dtype=np.int64, **shape)
        scale.make_scale("row")
        for name, unit in table.columns.items():
            kind = {"dtype": TEXT} if unit is None else {"dtype": np.float64, "fillvalue": np.nan}
            column = group.create_dataset(name, **shape, **kind)
            column.dims[0].attach_scale(scale)
            if unit is not None:
                column.attrs["units"] = self._time_units() if name == "t_s" else unit
        self._tables[simulator, table.name] = Table(group, table.columns)

    def start(self) -> None:
        """The run begins: the file takes its final name, replacing an older result. The first ``end_step`` calls it."""
        if self._started:
            return
        with alone_in(self.path.parent):
            if self._earlier is not None:
                with held(self._earlier.path):
                    self._take_over(self._earlier)
                    self._take_place()
            else:
                self._refuse_target()
                self._take_place()
        self._started = True

    def _refuse_target(self) -> None:
        """Again: another run may have begun since this one looked."""
        try:
            refuse_target(self.path)
        except ResultError:
            self._abandon()
            raise

    def _take_place(self) -> None:
        file = self._open()
        try:
            self._reserve(self._flush_bytes())
            file.flush()
            self._working_path.replace(self.path)
        except _HDF5_ERRORS as error:
            self._abandon()
            raise self._lost(error) from error

    def _take_over(self, earlier: Earlier) -> None:
        """All that the earlier file holds up to its checkpoint, and its checkpoints up to that."""
        file, steps = self._open(), earlier.checkpoint.step
        try:
            self._reserve(earlier.path.stat().st_size + _SLACK_BYTES)
            with h5py.File(earlier.path, "r", locking=False) as old:
                for (simulator, model, attribute), series in self._series.items():
                    take_steps(old[simulator][model][attribute], series, steps)
                for name, times in old.get(TIMING, {}).items():
                    if not times.is_scale:
                        self._timings[name] = self._timings.get(name) or self._timing(name)
                        take_times(times, self._timings[name], steps)
                for (simulator, name), table in self._tables.items():
                    take_events(old[simulator][name], table, earlier.checkpoint.rows[f"{simulator}/{name}"])
                checkpoints = read_checkpoints(old)
            append(self._time, 0, np.arange(steps, dtype=np.int64) * self._clock.step_s)
            self._count()
            for slot, checkpoint in checkpoints.items():
                if checkpoint.step <= steps:
                    write_checkpoint(file, checkpoint, slot)
        except (*UNREADABLE, ResultError) as error:
            self._abandon()
            raise ResumeError(f"{earlier.path}: cannot be resumed, and is left as it is: {reason(error)}") from error

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
        if series.codes and not are_codes(array, series.codes):
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
        events.add(row)

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

    def checkpoint(self, text: str) -> None:
        """Keeps ``text``, which tells all that lasts at the end of a segment, with the numbers of steps and events by
        now; the file is on the disk then. Raises ResultError as `end_step`; the checkpoint before stays."""
        rows = {f"{simulator}/{name}": table.written for (simulator, name), table in self._tables.items()}
        kept = Checkpoint(self._ended, rows, text)
        if self._first != self._ended or self._ended % self._segment_steps:
            raise ResultError(f"{self.path}: step {self._ended} does not end a segment of {self._segment_steps} steps")
        try:
            self._reserve(checkpoint_bytes(kept) + _SLACK_BYTES)
        except OSError as error:
            self._failed = True
            raise self._lost(error) from error
        with self._all_or_nothing():
            write_checkpoint(self._open(), kept, self._ended // self._segment_steps % 2)

    def finish(self, status: Status, error: str = "") -> None:
        """Write what is buffered, mark the file and close it. Nothing happens if it is closed already.

        A file that never started is removed, and an older result stays. Raises ResultError if the file cannot be
        written, or if another one has its name when it is ``complete``.
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
        own = os.dup(file.id.get_vfd_handle())  # whatever has the name by now
        try:
            self._file, self._end = None, 0
            file.close()
            os.ftruncate(own, size)  # gives back what was reserved and not used
            if status == "complete" and not is_at(own, self.path):
                raise ResultError(
                    f"{self.path}: was moved, deleted or replaced while this run wrote it; its results are in the file "
                    "that was there"
                )
        finally:
            os.close(own)

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
        scale = file.create_dataset(
            "time", (0,), np.int64, maxshape=(None,), chunks=(chunk_rows(8, self._flush_steps),)
        )
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

    def _timing(self, simulator: str) -> Series:
        if faults := name_faults(simulator):
            raise ResultError(f"{self.path}: cannot record timing: {'; '.join(faults)}")
        if TIMING not in self._open():
            self._group(TIMING, "timing")["time"] = self._time
        return create_times(self._open()[TIMING], simulator, self._time, self._first, self._flush_steps)

    def _flush(self) -> None:
        """Write the ended steps and the events, then their numbers: whoever reads up to the numbers reads it all."""
        try:
            self._reserve(self._flush_bytes())
        except OSError as error:
            self._failed = True
            raise self._lost(error) from error
        with self._all_or_nothing():
            self._extend()
            for table in self._tables.values():
                extend_table(table)
            self._count()
        self._first = self._ended
        self._end = min(self._first + self._flush_steps, self._clock.steps)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Rows that are half in the file and half no more in the buffers can only be given up: whatever goes wrong, a
        second Ctrl-C too, the file stays as it was before."""
        try:
            yield
        except BaseException as error:
            self._abandon()
            if isinstance(error, _HDF5_ERRORS):
                raise self._lost(error) from error
            raise

    def _count(self) -> None:
        """Says how many rows there are, after all of them are in the file."""
        file = self._open()
        file.flush()
        file.attrs.modify(STEPS_RECORDED, np.int64(self._ended))
        for table in self._tables.values():
            table.group.attrs.modify(ROWS_RECORDED, np.int64(table.written))
        file.flush()

    def _extend(self) -> None:
        first, ended = self._first, self._ended
        for series in (*self._series.values(), *self._timings.values()):
            append(series.dataset, first, series.rows[: ended - first])
            series.rows.fill(MISSING_CODE if series.codes else np.nan)
        append(self._time, first, np.arange(first, ended, dtype=np.int64) * self._clock.step_s)

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


def _keep_little(file: h5py.File) -> None:
    """Holds HDF5's memory of headers and chunk indices to 2 MiB: it would grow to 32 as the file does."""
    config = file.id.get_mdc_config()
    config.set_initial_size, config.initial_size = True, 1 << 20
    config.min_size, config.max_size = 1 << 20, 1 << 21
    file.id.set_mdc_config(config)
