"""Signals as one table in CSV or Parquet, for programs that read no HDF5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cosim.errors import Fault, InputError, ResultError
from cosim.io.disk import as_a_whole, reason

FORMATS = (".csv", ".parquet")


def wide(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Signals as `Results.frame` or `Study.frame` give them, or resampled: one table with a column
    ``simulator/model/attribute:element [unit]`` each, of states their names.

    Raises InputError when they have other steps or runs.
    """
    for frame in frames:
        if not frame.index.equals(frames[0].index):
            names = ", ".join(str(each.attrs.get("signal")) for each in (frames[0], frame))
            raise InputError(Fault("signals have other steps or runs", value=names))
    return pd.concat([_named(frame) for frame in frames], axis=1)


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    signal, unit = frame.attrs.get("signal", "signal"), frame.attrs.get("units")
    ending = "" if unit is None or "flag_values" in frame.attrs else f" [{unit}]"
    columns = [f"{signal}:{_text(name)}{ending}" for name in frame.columns]
    return _worded(frame).set_axis(columns, axis=1)


def _text(name: object) -> str:
    return "/".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _worded(frame: pd.DataFrame) -> pd.DataFrame:
    """States by their names, missing ones as None."""
    if "flag_values" not in frame.attrs:
        return frame
    words = dict(zip(frame.attrs["flag_values"], frame.attrs["flag_meanings"], strict=True))
    return frame.astype(object).map(words.get)


def export(table: pd.DataFrame, path: Path) -> None:
    """Writes a table with its index, ``.csv`` or ``.parquet`` by the name of the file. Instants are UTC: in CSV ISO
    8601 with ``Z``; missing values are empty there, null in Parquet. A file is replaced only when the new one is whole.

    Raises InputError when the name ends otherwise or a column is there twice, ResultError when the file cannot be
    written.
    """
    if path.suffix not in FORMATS:
        raise InputError(Fault("unknown kind of file", str(path), value=path.suffix, allowed=", ".join(FORMATS)))
    plain = table.reset_index()
    twice = plain.columns[plain.columns.duplicated()]
    if len(twice):
        raise InputError(Fault("a column is there twice", str(path), value=str(twice[0])))
    plain = _in_utc(plain)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with as_a_whole(path) as part:
            if path.suffix == ".csv":
                _iso(plain).to_csv(part, index=False, lineterminator="\n")
            else:
                plain.to_parquet(part, index=False)
    except OSError as error:
        raise ResultError(f"{path}: cannot be written: {reason(error)}") from error


def _in_utc(table: pd.DataFrame) -> pd.DataFrame:
    columns = {}
    for name in table.columns:
        zoned = isinstance(table[name].dtype, pd.DatetimeTZDtype)
        columns[name] = table[name].dt.tz_convert("UTC") if zoned else table[name]
    return pd.DataFrame(columns)


def _iso(table: pd.DataFrame) -> pd.DataFrame:
    times = [name for name in table.columns if isinstance(table[name].dtype, pd.DatetimeTZDtype)]
    return table.assign(**{name: table[name].dt.strftime("%Y-%m-%dT%H:%M:%SZ") for name in times})
