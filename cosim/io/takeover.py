"""What an earlier, unfinished run has recorded, taken over into the file of the run that goes on from its checkpoint.

The earlier file is only read: what its writer left half-done when it died stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import h5py
import numpy as np

from cosim.errors import ResultError
from cosim.io.checkpoint import Checkpoint
from cosim.io.series import Series, Table, append

_ROWS = 1 << 14
UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)
"""What h5py raises for files that are damaged."""


@dataclass(frozen=True)
class Earlier:
    """An unfinished result file, and the checkpoint to go on from."""

    path: Path
    checkpoint: Checkpoint


def take_steps(old: h5py.Dataset, series: Series, steps: int) -> None:
    """The first ``steps`` rows, chunk by chunk as they are. Raises ResultError if the chunks are others, and what h5py
    does if one cannot be read: a compressed one tells whether it is whole."""
    new = series.dataset
    if (old.chunks, old.dtype, old.shape[1:]) != (new.chunks, new.dtype, new.shape[1:]) or steps % new.chunks[0]:
        raise ResultError(f"{old.name} is not what this run would write")
    new.id.set_extent((steps, *new.shape[1:]))
    if not new.size:
        return
    for start in product(*(range(0, n, width) for n, width in zip(new.shape, new.chunks, strict=True))):
        old[tuple(slice(first, first + width) for first, width in zip(start, new.chunks, strict=True))]
        filters, chunk = old.id.read_direct_chunk(start)
        new.id.write_direct_chunk(start, chunk, filters)


def take_times(old: h5py.Dataset, series: Series, steps: int) -> None:
    """The first ``steps`` rows of wall-clock times."""
    append(series.dataset, 0, old[:steps])


def take_events(old: h5py.Group, table: Table, rows: int) -> None:
    """The first ``rows`` events."""
    for first in range(0, rows, _ROWS):
        last = min(first + _ROWS, rows)
        for name in table.columns:
            column = table.datasets[name]
            append(column, first, old[name][first:last].astype(column.dtype))
        append(table.datasets["row"], first, np.arange(first, last, dtype=np.int64))
    table.written = rows
