"""What grows in a result file: data sets over time and event tables, with the rows that are not in the file yet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass
class Table:
    """An event table: its columns' units (None: text) and data sets by name, those of ``row`` numbers, and the rows
    that are not in the file yet; ``written`` are."""

    group: h5py.Group
    columns: dict[str, str | None]
    datasets: dict[str, h5py.Dataset]
    numbers: h5py.Dataset
    rows: list[Mapping[str, object]] = field(default_factory=list)
    written: int = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes that the pending rows can append, generously [byte]."""
        if not self.rows:
            return 0
        texts = sum(4 * len(value) + 32 for row in self.rows for value in row.values() if isinstance(value, str))
        return texts + (len(self.rows) + 2 * EVENT_CHUNK_ROWS) * 16 * (len(self.columns) + 1)


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
    first, table.written = table.written, table.written + len(table.rows)
    if first == table.written:
        return
    for name, unit in table.columns.items():
        values = [row[name] for row in table.rows]
        append(table.datasets[name], first, _texts(values) if unit is None else _numbers(values))
    append(table.numbers, first, np.arange(first, table.written, dtype=np.int64))
    table.rows.clear()


def _texts(values: Sequence[object]) -> npt.NDArray[Any]:
    return np.array(["" if value is None else text_of(str(value)) for value in values], dtype=TEXT)


def _numbers(values: Sequence[Any]) -> npt.NDArray[Any]:
    return np.array([np.nan if value is None else value for value in values], np.float64)
