"""The index of a study: one Parquet file with a row for each run. Layout: docs/sweeps.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from cosim.errors import ResultError
from cosim.io.disk import reason
from cosim.io.study import INDEX

_META = b"cosim"
_OWN = {
    "seed": pa.int64(),
    "status": pa.string(),
    "error": pa.string(),
    "path": pa.string(),
    "hash": pa.string(),
    "wall_s": pa.float64(),
}


def write_index(folder: Path, study: str, varied: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Writes ``index.parquet`` in one piece, in place of an older one; returns its path.

    Columns: ``run``, the ``varied`` fields, ``seed``, ``status``, ``error``, ``path`` (relative to the folder),
    ``hash``, ``wall_s`` [s]. A varied field that is neither number, text nor switch throughout, or too
    large a number, is text, as JSON.

    Raises ResultError if it cannot be written.
    """
    columns: dict[str, pa.Array] = {"run": pa.array([row["run"] for row in rows], pa.int64())}
    for key in varied:
        columns[key] = _array([row[key] for row in rows])
    columns |= {name: pa.array([row[name] for row in rows], kind) for name, kind in _OWN.items()}
    about = {"study": study, "varied": list(varied), "format_version": 1}
    table = pa.table(columns).replace_schema_metadata({_META: json.dumps(about).encode()})
    path, working = folder / INDEX, folder / f".{INDEX}.part"
    try:
        pq.write_table(table, working)
        working.replace(path)
    except OSError as error:
        with suppress(OSError):
            working.unlink()
        raise ResultError(f"{path}: the index cannot be written: {reason(error)}") from error
    return path


def read_index(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``index.parquet``; none if there is no index, or it was left half-written by another program."""
    try:
        rows: list[dict[str, Any]] = pq.read_table(folder / INDEX).to_pylist()
    except (OSError, pa.ArrowInvalid):
        return []
    return [row for row in rows if row.keys() >= {"run", *_OWN}]


def _array(values: Sequence[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    with suppress(OverflowError):
        if kinds <= {int, float} and float in kinds:
            return pa.array([None if value is None else float(value) for value in values], pa.float64())
        if kinds == {int}:
            return pa.array(values, pa.int64())
    if kinds in ({bool}, {str}):
        return pa.array(values)
    return pa.array([None if value is None else json.dumps(value, sort_keys=True) for value in values], pa.string())
