"""What grows in a result file: data sets over time and event tables, with the rows that are not in the file yet."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from cosim.domain.frames import Signal
from cosim.io.layout import MISSING_CODE, text_of

EVENT_CHUNK_ROWS = 256
TEXT = h5py.string_dtype("utf-8")
_CHUNK_BYTES = 1 << 20


@dataclass
class Series:
    """A data set over time and the rows of it that are not in the file yet, shape (flush_steps, ...)."""

    dataset: h5py.Dataset
    rows: npt.NDArray[Any]
    codes: int = 0

    def __post_init__(self) -> None:
        self.shape = self.rows.shape[1:]
        chunk = self.dataset.chunks
        chunks = [-(-count // width) for count, width in zip(self.rows.shape, chunk, strict=True)]
        self.flush_bytes: int = math.prod(chunks) * math.prod(chunk) * self.rows.itemsize  # whole chunks, filled or not


class Table:
    """An event table: its data sets, kept at hand, and the rows that are not in the file yet, by column: texts (None:
    missing) and numbers (NaN). ``written`` rows are in the file, ``pending`` not yet."""

    def __init__(self, group: h5py.Group, columns: Mapping[str, str | None]) -> None:
        self.group, self.columns = group, dict(columns)
        self.datasets: dict[str, h5py.Dataset] = {name: group[name] for name in ("row", *columns)}
        self.written = self.pending = 0
        self.texts: dict[str, list[str | None]] = {name: [] for name, unit in columns.items() if unit is None}
        self.numbers = {name: array("d") for name, unit in columns.items() if unit is not None}

    def add(self, row: Mapping[str, Any]) -> None:
        """One more row, with a value for every column."""
        for name, texts in self.texts.items():
            texts.append(row[name])
        for name, numbers in self.numbers.items():
            value = row[name]
            numbers.append(math.nan if value is None else value)
        self.pending += 1

    @property
    def pending_bytes(self) -> int:
        """Bytes that the pending rows can append, generously [byte]."""
        if not self.pending:
            return 0
        texts = sum(4 * len(value) + 32 for column in self.texts.values() for value in column if value is not None)
        return texts + (self.pending + 2 * EVENT_CHUNK_ROWS) * 16 * (len(self.columns) + 1)


def chunk_rows(row_bytes: int, flush_steps: int) -> int:
    """Rows of a chunk: those of a flush, unless they are too many."""
    return max(1, min(flush_steps, _CHUNK_BYTES // row_bytes))


def create_signal(
    group: h5py.Group, signal: Signal, time: h5py.Dataset, flush_steps: int, filters: Mapping[str, Any]
) -> Series:
    """An empty data set (time, element) for a signal whose axis is in ``group``."""
    count, dtype = len(signal.elements), signal.dtype
    rows = chunk_rows(dtype.itemsize, flush_steps)
    missing = MISSING_CODE if signal.codes else np.nan
    dataset = group.create_dataset(
        signal.attribute,
        shape=(0, count),
        maxshape=(None, count or None),
        chunks=(rows, max(1, min(count, _CHUNK_BYTES // (rows * dtype.itemsize)))),
        dtype=dtype,
        fillvalue=missing,
        **filters,
    )
    dataset.dims[0].attach_scale(time)
    dataset.dims[1].attach_scale(group[signal.axis])
    dataset.attrs["units"] = signal.unit
    dataset.attrs["long_name"] = signal.long_name
    dataset.attrs["_FillValue"] = dtype.type(missing)
    if signal.sign:
        dataset.attrs["sign_convention"] = signal.sign
    if signal.codes:
        dataset.attrs["flag_values"] = np.arange(len(signal.codes), dtype=np.int8)
        dataset.attrs["flag_meanings"] = " ".join(signal.codes)
    return Series(dataset, np.full((flush_steps, count), missing, dtype), len(signal.codes))


def create_times(group: h5py.Group, name: str, time: h5py.Dataset, first: int, flush_steps: int) -> Series:
    """A data set (time) of wall-clock times, missing in the ``first`` steps."""
    dataset = group.create_dataset(
        name,
        shape=(first,),
        maxshape=(None,),
        chunks=(chunk_rows(8, flush_steps),),
        dtype=np.float64,
        fillvalue=np.nan,
    )
    dataset.dims[0].attach_scale(time)
    dataset.attrs["units"] = "s"
    dataset.attrs["long_name"] = "wall-clock time of the step"
    return Series(dataset, np.full(flush_steps, np.nan))


def are_codes(array: npt.NDArray[Any], count: int) -> bool:
    """Whether values are codes below ``count``, or missing."""
    return array.dtype.kind in "iub" and bool(np.all((array >= MISSING_CODE) & (array < count)))


def append(dataset: h5py.Dataset, first: int, rows: npt.NDArray[Any]) -> None:
    """Write ``rows`` from row ``first`` on; the low-level calls take a fifth of the time of ``dataset[...] = rows``."""
    dataset.id.set_extent((first + len(rows), *rows.shape[1:]))
    if rows.size:
        place = dataset.id.get_space()
        place.select_hyperslab((first,) + (0,) * (rows.ndim - 1), rows.shape)
        dataset.id.write(h5py.h5s.create_simple(rows.shape), place, rows)


def extend_table(table: Table) -> None:
    """Write the rows of an event table that are not in the file yet."""
    if not table.pending:
        return
    first, table.written = table.written, table.written + table.pending
    for name, texts in table.texts.items():
        filled = ["" if text is None else text_of(text) for text in texts]
        append(table.datasets[name], first, np.array(filled, dtype=TEXT))
        texts.clear()
    for name, numbers in table.numbers.items():
        append(table.datasets[name], first, np.array(numbers))
        del numbers[:]
    append(table.datasets["row"], first, np.arange(first, table.written, dtype=np.int64))
    table.pending = 0
