"""Reader of result files: ``open_results(path)`` gives pandas and xarray objects in a line."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from cosim.errors import ResultError
from cosim.io.disk import reason
from cosim.io.layout import FORMAT, FORMAT_VERSION, ROWS_RECORDED, STEPS_RECORDED

if TYPE_CHECKING:
    import xarray as xr

Instant = str | datetime | pd.Timestamp
P = ParamSpec("P")
R = TypeVar("R")
_HASH_ROWS = 4096


def _readable(method: Callable[Concatenate[Results, P], R]) -> Callable[Concatenate[Results, P], R]:
    """Turns an error of HDF5 into one of ours: the run that writes the file may be in the middle of a flush."""

    @wraps(method)
    def guarded(self: Results, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except (KeyError, OSError, RuntimeError) as error:
            again = "; a run is writing it, read it again" if self.status == "running" else ""
            raise ResultError(f"{self.path}: cannot be read: {reason(error)}{again}") from error

    return guarded


class Results:
    """An open result file; nothing is read before it is asked for.

    A file whose run has died or still goes on can be read too: up to its last flush. ``status`` tells.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        self._steps = int(file.attrs[STEPS_RECORDED])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def attributes(self) -> dict[str, Any]:
        """The root attributes: scenario (JSON text), seed, versions, status, ..."""
        return {name: _plain(value) for name, value in self._file.attrs.items()}

    @property
    def status(self) -> str:
        """``complete``, ``failed``, ``interrupted``, or ``running``: still written, or its process was killed."""
        return str(self._file.attrs["status"])

    @property
    def scenario(self) -> dict[str, Any]:
        """The resolved scenario of the run. Raises ResultError when the file has none."""
        text = self._file.attrs.get("scenario")
        if text is None:
            raise ResultError(f"{self.path}: holds no scenario; attributes: {', '.join(self._file.attrs)}")
        scenario: dict[str, Any] = json.loads(text)
        return scenario

    @property
    @_readable
    def time(self) -> pd.DatetimeIndex:
        """Begin of each recorded step, UTC."""
        return self._instants(self._file["time"][: self._steps])

    @_readable
    def signals(self) -> tuple[str, ...]:
        """Paths ``simulator/model/attribute`` of all signals, sorted."""
        return tuple(
            f"{path}/{name}"
            for path, group in self._groups("signals")
            for name, dataset in sorted(group.items())
            if not dataset.is_scale
        )

    @_readable
    def events(self) -> tuple[str, ...]:
        """Paths ``simulator/table`` of all event tables, sorted."""
        return tuple(path for path, _ in self._groups("events"))

    @_readable
    def frame(
        self,
        path: str,
        start: Instant | None = None,
        stop: Instant | None = None,
        elements: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """A signal as a table: a row per step in ``[start, stop)`` (UTC unless they say otherwise), a column per
        element (all, or those named, in that order). ``attrs`` holds units, long name and the rest.

        Raises ResultError when there is no such signal or element.
        """
        dataset = self._signal(path)
        ids = self._elements(dataset)
        chosen = ids if elements is None else list(elements)
        unknown = [element for element in chosen if element not in ids]
        if unknown:
            raise ResultError(f"{self.path}: {path} has no element {_suggest(unknown[0], ids)}")
        rows = self._rows(start, stop)
        values = dataset[rows, :][:, [ids.index(element) for element in chosen]]
        table = pd.DataFrame(values, index=self.time[rows], columns=pd.Index(chosen, name=_dims(dataset)[1]))
        table.attrs.update(_described(dataset))
        return table

    def series(self, path: str, start: Instant | None = None, stop: Instant | None = None) -> pd.Series[Any]:
        """A signal that has one element, as a series over time named after the attribute."""
        table = self.frame(path, start, stop)
        if table.shape[1] != 1:
            raise ResultError(f"{self.path}: {path} has {table.shape[1]} elements, not one: use frame({path!r})")
        series = table.iloc[:, 0].rename(path.rsplit("/", 1)[-1])
        series.attrs.update(table.attrs)
        return series

    @_readable
    def dataset(self, path: str) -> xr.Dataset:
        """All signals of a model ``simulator/model`` with their coordinates (time is UTC without zone, as xarray
        has none). Raises ResultError when there is no such model."""
        import xarray as xr  # costs half a second, and only notebooks need it

        groups = dict(self._groups("signals"))
        if path not in groups:
            raise ResultError(f"{self.path}: no model {_suggest(path, list(groups))}")
        coordinates: dict[str, Any] = {"time": self.time.tz_localize(None)}
        variables = {}
        for name, dataset in groups[path].items():
            if dataset.is_scale:
                continue
            coordinates[_dims(dataset)[1]] = self._elements(dataset)
            variables[name] = (_dims(dataset), dataset[: self._steps], _described(dataset))
        return xr.Dataset(variables, coordinates, self.attributes)

    @_readable
    def table(self, path: str) -> pd.DataFrame:
        """An event table ``simulator/table``, a row an event; from its column ``t_s`` a first column ``time`` (UTC).

        Raises ResultError when there is no such table.
        """
        groups = dict(self._groups("events"))
        if path not in groups:
            raise ResultError(f"{self.path}: no event table {_suggest(path, list(groups))}")
        group = groups[path]
        count = int(group.attrs[ROWS_RECORDED])
        columns = [str(name) for name in group.attrs["columns"]]
        table = pd.DataFrame({name: _values(group[name], slice(count)) for name in columns}, columns=columns)
        if "t_s" in columns:
            table.insert(0, "time", self._instants(table["t_s"].to_numpy()))
        table.attrs["units"] = {n: str(group[n].attrs["units"]) for n in columns if "units" in group[n].attrs}
        return table

    @_readable
    def timing(self) -> pd.DataFrame:
        """Wall-clock seconds of each step (row) and simulator (column)."""
        group = self._file.get("timing", {})
        seconds = {name: values[: self._steps] for name, values in sorted(group.items()) if not values.is_scale}
        return pd.DataFrame(seconds, index=self.time)

    def _groups(self, kind: str) -> Iterator[tuple[str, h5py.Group]]:
        for simulator, models in sorted(self._file.items()):
            if isinstance(models, h5py.Group):
                for model, group in sorted(models.items()):
                    if group.attrs.get("kind") == kind:
                        yield f"{simulator}/{model}", group

    def _signal(self, path: str) -> h5py.Dataset:
        known = self.signals()
        if path.strip("/") not in known:
            raise ResultError(f"{self.path}: no signal {_suggest(path, known)}")
        return self._file[path]

    def _elements(self, dataset: h5py.Dataset) -> list[str]:
        return [str(element) for element in dataset.dims[1][0].asstr()[:]]

    def _instants(self, seconds: npt.NDArray[Any]) -> pd.DatetimeIndex:
        start = pd.Timestamp(str(self._file["time"].attrs["units"]).removeprefix("seconds since "))
        return pd.DatetimeIndex(start + pd.to_timedelta(seconds, unit="s"), name="time")

    def _rows(self, start: Instant | None, stop: Instant | None) -> slice:
        time = self.time
        first = 0 if start is None else int(time.searchsorted(self._utc(start)))
        last = len(time) if stop is None else int(time.searchsorted(self._utc(stop)))
        return slice(first, max(first, last))

    def _utc(self, instant: Instant) -> pd.Timestamp:
        try:
            stamp = pd.Timestamp(instant)
        except ValueError as error:
            raise ResultError(
                f"{self.path}: not a point in time: {instant!r}; expected e.g. 2016-07-23T12:00"
            ) from error
        return stamp.tz_localize(UTC) if stamp.tzinfo is None else stamp.tz_convert(UTC)


def open_results(path: str | Path) -> Results:
    """Open a result file for reading, also one that is being written.

    Raises ResultError when there is no such file, or it is not a result file that this version reads.
    """
    path = Path(path)
    if not path.is_file():
        raise ResultError(f"{path}: there is no such file")
    try:
        file = _opened(path)
    except (OSError, RuntimeError) as error:
        raise ResultError(f"{path}: cannot be opened as an HDF5 file: {reason(error)}") from error
    found, version = file.attrs.get("format"), file.attrs.get("format_version")
    if found == FORMAT and version == FORMAT_VERSION and STEPS_RECORDED in file.attrs:
        return Results(path, file)
    file.close()
    if found == FORMAT:
        raise ResultError(f"{path}: is of format version {version}; this version of cosim reads {FORMAT_VERSION}")
    raise ResultError(f"{path}: is an HDF5 file, but not a result file of cosim")


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "locking flag" not in str(error):
            raise
        return h5py.File(path, "r")  # this very process is writing it: HDF5 then wants the writer's locking


def result_hash(path: str | Path) -> str:
    """SHA-256 (hex) over what was computed: path, type, shape and values of every data set but ``/timing``.

    Data sets count in the order of their paths; numbers little-endian with one pattern for all NaN, texts as UTF-8
    with their length. Attributes, chunks and compression do not count, and rows after the last flush neither.
    """
    digest = hashlib.sha256()
    with open_results(path) as results:
        for name, dataset, rows in _recorded(results._file, int(results.attributes[STEPS_RECORDED])):
            text = h5py.check_string_dtype(dataset.dtype) is not None
            kind = "utf-8" if text else dataset.dtype.newbyteorder("<").str
            digest.update(f"{name}\x1f{kind}\x1f{(rows, *dataset.shape[1:])}\x1e".encode())
            for first in range(0, rows, _HASH_ROWS):
                digest.update(_bytes(_values(dataset, slice(first, min(first + _HASH_ROWS, rows)))))
    return digest.hexdigest()


def _recorded(file: h5py.File, steps: int) -> Iterator[tuple[str, h5py.Dataset, int]]:
    """Every data set that counts, with the number of rows that are recorded, in the order of the paths."""
    found: list[tuple[str, h5py.Dataset, int]] = [("time", file["time"], steps)]
    groups = [(name, group) for name, group in file.items() if isinstance(group, h5py.Group) and name != "timing"]
    for simulator, models in groups:
        for model, group in models.items():
            for name, dataset in group.items():
                if "kind" in group.attrs and group.attrs["kind"] == "events":
                    rows = int(group.attrs[ROWS_RECORDED])
                else:
                    rows = steps if name == "time" or not dataset.is_scale else len(dataset)
                found.append((f"{simulator}/{model}/{name}", dataset, rows))
    return iter(sorted(found, key=lambda entry: entry[0]))


def _values(dataset: h5py.Dataset, rows: slice) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = dataset.asstr()[rows] if h5py.check_string_dtype(dataset.dtype) else dataset[rows]
    return values


def _bytes(values: npt.NDArray[Any]) -> bytes:
    if values.dtype.kind == "O":
        encoded = [str(value).encode() for value in values]
        return b"".join(len(text).to_bytes(8, "little") + text for text in encoded)
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), np.nan, values)
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _dims(dataset: h5py.Dataset) -> list[str]:
    return [dimension[0].name.rsplit("/", 1)[-1] for dimension in dataset.dims]


def _described(dataset: h5py.Dataset) -> dict[str, Any]:
    hidden = {"DIMENSION_LIST", "_FillValue"}
    described = {name: _plain(value) for name, value in dataset.attrs.items() if name not in hidden}
    if "flag_meanings" in described:
        described["flag_meanings"] = str(described["flag_meanings"]).split()
    return described


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _suggest(wanted: str, known: Sequence[str]) -> str:
    """``wanted`` and what there is instead, the closest first."""
    close = difflib.get_close_matches(wanted, known, n=len(known) or 1, cutoff=0.5)
    there = [*close, *(name for name in known if name not in close)]
    return f"{wanted!r}; there is: {', '.join(there) or 'nothing'}"
