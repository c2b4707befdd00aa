"""What grows in a result file: data sets over time and event tables, with the rows that are not in the file yet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from cosim.io.layout import MISSING_CODE, text_of

EVENT_CHUNK_ROWS = 256


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
        return texts + (len(self.rows) + 2 * EVENT_CHUNK_ROWS) * 16 * (len(self.columns) + 1)


def are_codes(array: npt.NDArray[Any], count: int) -> bool:
    return array.dtype.kind in "iub" and bool(np.all((array >= MISSING_CODE) & (array < count)))


def append(dataset: h5py.Dataset, first: int, rows: npt.NDArray[Any]) -> None:
    """Write ``rows`` from row ``first`` on; the low-level calls take a fifth of the time of ``dataset[...] = rows``."""
    dataset.id.set_extent((first + len(rows), *rows.shape[1:]))
    if rows.size:
        place = dataset.id.get_space()
        place.select_hyperslab((first,) + (0,) * (rows.ndim - 1), rows.shape)
        dataset.id.write(h5py.h5s.create_simple(rows.shape), place, rows)


def extend_table(table: Table) -> None:
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
            append(column, first, np.array([np.nan if value is None else value for value in values], np.float64))
    append(table.group["row"], first, np.arange(first, table.written, dtype=np.int64))
    table.rows.clear()
