"""Reader of result files: ``open_results(path)`` gives pandas and xarray objects in a line."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from cosim.clock import parse_duration_s
from cosim.errors import ResultError
from cosim.io.checkpoint import Checkpoint, read_checkpoints
from cosim.io.disk import reason
from cosim.io.layout import BESIDES, FORMAT, FORMAT_VERSION, ROWS_RECORDED, STEPS_RECORDED, TIMING

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


@dataclass(frozen=True)
class ModelLayout:
    """What a model ``simulator/model`` of a file holds: element ids of each axis, and of each signal its axis, type and
    attributes (units, long name, ...)."""

    time: pd.DatetimeIndex
    axes: Mapping[str, tuple[str, ...]]
    signals: Mapping[str, tuple[str, np.dtype[Any], Mapping[str, Any]]]


class Results:
    """An open result file; nothing is read before it is asked for.

    A file whose run has died or still goes on can be read too: up to its last flush. ``status`` tells. Once it is
    closed, ResultError is raised instead.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._opened = file
        self._steps = int(file.attrs[STEPS_RECORDED])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    @property
    def attributes(self) -> dict[str, Any]:
        """The root attributes: scenario (JSON text), seed, versions, status, ..."""
        return {name: _plain(value) for name, value in self._file.attrs.items()}

    @property
    def status(self) -> str:
        """``complete``, ``failed``, ``interrupted``, or ``running``: still written, or its process was killed."""
        return str(self._file.attrs["status"])

    @property
    def error(self) -> str:
        """What went wrong; empty if nothing."""
        return str(self._file.attrs["error"])

    @property
    def has_scenario(self) -> bool:
        return "scenario" in self._file.attrs

    @property
    def scenario(self) -> dict[str, Any]:
        """The resolved scenario of the run. Raises ResultError when the file has none."""
        if not self.has_scenario:
            raise ResultError(f"{self.path}: holds no scenario; attributes: {', '.join(self._file.attrs)}")
        scenario: dict[str, Any] = json.loads(self._file.attrs["scenario"])
        return scenario

    @property
    def time(self) -> pd.DatetimeIndex:
        """Begin of each recorded step, UTC."""
        return self._time

    def checkpoint(self) -> Checkpoint | None:
        """The latest checkpoint that is whole; None if there is none."""
        found = read_checkpoints(self._file).values()
        return max(found, key=lambda checkpoint: checkpoint.step, default=None)

    def signals(self) -> tuple[str, ...]:
        """Paths ``simulator/model/attribute`` of all signals, sorted."""
        return self._signals

    def events(self) -> tuple[str, ...]:
        """Paths ``simulator/table`` of all event tables, sorted."""
        return self._events

    @_readable
    def frame(
        self,
        path: str,
        start: Instant | None = None,
        stop: Instant | None = None,
        elements: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """A signal as a table: a row per step in ``[start, stop)`` (UTC unless they say otherwise), a column per
        element (all, or those named, in that order). ``attrs`` holds units, long name and the rest of what is recorded
        with it, its path as ``signal``, and where the scenario tells them ``step_s`` and ``utc_offset_s`` of local
        time [s].

        Raises ResultError when there is no such signal or element.
        """
        dataset = self._signal(path)
        ids = self._elements(dataset)
        chosen = ids if elements is None else list(elements)
        unknown = [element for element in chosen if element not in ids]
        if unknown:
            raise ResultError(f"{self.path}: {path} has no element {suggested(unknown[0], ids)}")
        rows = self.rows_between(start, stop)
        values = dataset[rows, :][:, [ids.index(element) for element in chosen]]
        table = pd.DataFrame(values, index=self.time[rows], columns=pd.Index(chosen, name=_axis(dataset)))
        table.attrs.update(_described(dataset) | {"signal": path.strip("/")} | self._time_base)
        return table

    def series(
        self,
        path: str,
        start: Instant | None = None,
        stop: Instant | None = None,
        elements: Sequence[str] | None = None,
    ) -> pd.Series[Any]:
        """A signal of one element, the only one or the one named, as a series over time named after the attribute."""
        return only_column(self.frame(path, start, stop, elements), self.path, path)

    def dataset(
        self,
        path: str,
        start: Instant | None = None,
        stop: Instant | None = None,
        elements: Sequence[str] | None = None,
    ) -> xr.Dataset:
        """All signals of a model ``simulator/model`` with their coordinates (time is UTC without zone, as xarray
        has none). Values are read when they are asked for, also after this file has been closed.

        Raises ResultError when there is no such model or element.
        """
        from cosim.io.lazy import dataset_of  # xarray costs half a second, and only notebooks need it

        found = dataset_of([self.path], path, self.model(path), elements).isel(time=self.rows_between(start, stop))
        return found.assign_attrs(self.attributes)

    @_readable
    def model(self, path: str) -> ModelLayout:
        """What a model ``simulator/model`` holds, without its values. Raises ResultError when there is none."""
        group = self._group(path, "signals", "model")
        signals = {name: dataset for name, dataset in group.items() if not dataset.is_scale}
        of_axis = {_axis(dataset): dataset for dataset in signals.values()}
        return ModelLayout(
            self.time,
            {axis: tuple(self._elements(dataset)) for axis, dataset in of_axis.items()},
            {name: (_axis(each), each.dtype, _described(each)) for name, each in signals.items()},
        )

    @_readable
    def table(self, path: str, start: Instant | None = None, stop: Instant | None = None) -> pd.DataFrame:
        """An event table ``simulator/table``, a row an event; from its column ``t_s`` a first column ``time`` (UTC), of
        which ``start`` and ``stop`` take those in ``[start, stop)``.

        Raises ResultError when there is no such table, or it has no time to choose by.
        """
        group = self._group(path, "events", "event table")
        count = int(group.attrs[ROWS_RECORDED])
        columns = [str(name) for name in group.attrs["columns"]]
        table = pd.DataFrame({name: _values(group[name], slice(count)) for name in columns}, columns=columns)
        if "t_s" in columns:
            table.insert(0, "time", self._instants(table["t_s"].to_numpy()))
        if start is not None or stop is not None:
            table = self._between(path, table, start, stop)
        table.attrs["units"] = {n: str(group[n].attrs["units"]) for n in columns if "units" in group[n].attrs}
        return table

    def rows_between(self, start: Instant | None, stop: Instant | None) -> slice:
        """Rows of the steps that begin in ``[start, stop)``, UTC unless they say otherwise.

        Raises ResultError when one is not a point in time.
        """
        time = self.time
        first = 0 if start is None else int(time.searchsorted(self._utc(start)))
        last = len(time) if stop is None else int(time.searchsorted(self._utc(stop)))
        return slice(first, max(first, last))

    @_readable
    def timing(self) -> pd.DataFrame:
        """Wall-clock seconds of each step (row) and simulator (column)."""
        phases = self.phases()
        return phases[[name for name in phases if "." not in str(name)]]

    @_readable
    def phases(self) -> pd.DataFrame:
        """Wall-clock seconds of each step (row): of each simulator, of that ``<simulator>.data`` for its outputs,
        ``run.step`` of the step as a whole, and ``run.begin`` to begin the segment that begins with it."""
        group = self._file.get(TIMING, {})
        seconds = {name: values[: self._steps] for name, values in sorted(group.items()) if not values.is_scale}
        return pd.DataFrame(seconds, index=self.time)

    @cached_property
    @_readable
    def _time(self) -> pd.DatetimeIndex:
        return self._instants(self._file["time"][: self._steps])

    @cached_property
    @_readable
    def _signals(self) -> tuple[str, ...]:
        return tuple(
            f"{path}/{name}"
            for path, group in self._groups("signals")
            for name, dataset in sorted(group.items())
            if not dataset.is_scale
        )

    @cached_property
    @_readable
    def _events(self) -> tuple[str, ...]:
        return tuple(path for path, _ in self._groups("events"))

    @cached_property
    def _time_base(self) -> dict[str, float]:
        """Length of a step and local time less UTC [s], as far as the scenario tells them."""
        scenario = self.scenario if self.has_scenario else {}
        base = {"step_s": float(parse_duration_s(scenario["step"]))} if "step" in scenario else {}
        offset = datetime.fromisoformat(scenario["start"]).utcoffset() if "start" in scenario else None
        return base if offset is None else base | {"utc_offset_s": offset.total_seconds()}

    @property
    def _file(self) -> h5py.File:
        if not self._opened:
            raise ResultError(f"{self.path}: is closed")
        return self._opened

    def _groups(self, kind: str) -> Iterator[tuple[str, h5py.Group]]:
        for simulator, models in sorted(self._file.items()):
            if isinstance(models, h5py.Group):
                for model, group in sorted(models.items()):
                    if group.attrs.get("kind") == kind:
                        yield f"{simulator}/{model}", group

    def _group(self, path: str, kind: str, word: str) -> h5py.Group:
        found = self._file.get(path) if path.count("/") == 1 else None
        if isinstance(found, h5py.Group) and found.attrs.get("kind") == kind:
            return found
        raise ResultError(f"{self.path}: no {word} {suggested(path, [known for known, _ in self._groups(kind)])}")

    def _signal(self, path: str) -> h5py.Dataset:
        place = path.strip("/")
        found = self._file.get(place) if place.count("/") == 2 else None
        if isinstance(found, h5py.Dataset) and found.parent.attrs.get("kind") == "signals" and not found.is_scale:
            return found
        raise ResultError(f"{self.path}: no signal {suggested(path, self.signals())}")

    def _elements(self, dataset: h5py.Dataset) -> list[str]:
        return [str(element) for element in dataset.dims[1][0].asstr()[:]]

    def _instants(self, seconds: npt.NDArray[Any]) -> pd.DatetimeIndex:
        start = pd.Timestamp(str(self._file["time"].attrs["units"]).removeprefix("seconds since "))
        return pd.DatetimeIndex(start + pd.to_timedelta(seconds, unit="s"), name="time")

    def _between(self, path: str, table: pd.DataFrame, start: Instant | None, stop: Instant | None) -> pd.DataFrame:
        if "time" not in table:
            there = ", ".join(map(str, table))
            raise ResultError(f"{self.path}: {path} has no column t_s to choose by; columns: {there}")
        time = table["time"]
        within = np.ones(len(table), dtype=np.bool_)
        within &= True if start is None else (time >= self._utc(start)).to_numpy()
        within &= True if stop is None else (time < self._utc(stop)).to_numpy()
        return table[within].reset_index(drop=True)

    def _utc(self, instant: Instant) -> pd.Timestamp:
        try:
            stamp = pd.Timestamp(instant)
            if pd.isna(stamp):
                raise ValueError
        except ValueError as error:
            raise ResultError(
                f"{self.path}: not a point in time: {instant!r}; expected e.g. 2016-07-23T12:00"
            ) from error
        return stamp.tz_localize(UTC) if stamp.tzinfo is None else stamp.tz_convert(UTC)


def only_column(table: pd.DataFrame, place: str | Path, path: str) -> pd.Series[Any]:
    """The values of a signal's single element as a series named after the attribute. Raises ResultError, which names
    the file or study at ``place``, if there are others."""
    if table.shape[1] != 1:
        raise ResultError(f"{place}: {path} has {table.shape[1]} elements, not one: use frame({path!r})")
    series = table.iloc[:, 0].rename(path.rsplit("/", 1)[-1])
    series.attrs.update(table.attrs)
    return series


def open_results(path: str | Path) -> Results:
    """Open one result file for reading, also one that is being written; `cosim.io.study` opens many.

    Raises ResultError when there is no such file, or it is not a result file that this version reads.
    """
    path = Path(path)
    if not path.is_file():
        raise ResultError(f"{path}: there is no such file")
    try:
        file = hdf5_file(path)
    except (OSError, RuntimeError) as error:
        raise ResultError(f"{path}: cannot be opened as an HDF5 file: {reason(error)}") from error
    found, version = file.attrs.get("format"), file.attrs.get("format_version")
    if found == FORMAT and version == FORMAT_VERSION and STEPS_RECORDED in file.attrs:
        return Results(path, file)
    file.close()
    if found == FORMAT:
        raise ResultError(f"{path}: is of format version {version}; this version of cosim reads {FORMAT_VERSION}")
    raise ResultError(f"{path}: is an HDF5 file, but not a result file of cosim")


def hdf5_file(path: Path) -> h5py.File:
    """The file for reading, also while it is written. Raises OSError or RuntimeError when HDF5 cannot open it."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "locking flag" not in str(error):
            raise
        return h5py.File(path, "r")  # this very process is writing it: HDF5 then wants the writer's locking


def result_hash(path: str | Path) -> str:
    """SHA-256 (hex) over what was computed: path, type, shape and values of every data set but ``/timing`` and
    ``/checkpoint``.

    Data sets count in the order of their paths; numbers little-endian with one pattern for all NaN, texts as UTF-8
    with their length. Attributes, chunks and compression do not count, and rows after the last flush neither.

    Raises ResultError when the file cannot be read.
    """
    with open_results(path) as results:
        return _digest(results)


@_readable
def _digest(results: Results) -> str:
    digest = hashlib.sha256()
    for name, dataset, rows in _recorded(results._file, results._steps):
        text = h5py.check_string_dtype(dataset.dtype) is not None
        kind = "utf-8" if text else dataset.dtype.newbyteorder("<").str
        digest.update(f"{name}\x1f{kind}\x1f{(rows, *dataset.shape[1:])}\x1e".encode())
        for first in range(0, rows, _HASH_ROWS):
            digest.update(_bytes(_values(dataset, slice(first, min(first + _HASH_ROWS, rows)))))
    return digest.hexdigest()


def _recorded(file: h5py.File, steps: int) -> Iterator[tuple[str, h5py.Dataset, int]]:
    """Every data set that counts, with the number of rows that are recorded, in the order of the paths."""
    found: list[tuple[str, h5py.Dataset, int]] = [("time", file["time"], steps)]
    groups = [(name, group) for name, group in file.items() if isinstance(group, h5py.Group) and name not in BESIDES]
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


def _axis(dataset: h5py.Dataset) -> str:
    """The name of the axis of elements; not by the path of its scale, which HDF5 has to search for."""
    name: bytes = h5py.h5ds.get_scale_name(dataset.dims[1][0].id)
    return name.decode()


def _described(dataset: h5py.Dataset) -> dict[str, Any]:
    hidden = {"DIMENSION_LIST", "_FillValue"}
    described = {name: _plain(value) for name, value in dataset.attrs.items() if name not in hidden}
    if "flag_meanings" in described:
        described["flag_meanings"] = str(described["flag_meanings"]).split()
    return described


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def suggested(wanted: str, known: Sequence[str]) -> str:
    """``wanted`` and what there is instead, the closest first."""
    close = difflib.get_close_matches(wanted, known, n=len(known) or 1, cutoff=0.5)
    there = [*close, *(name for name in known if name not in close)]
    return f"{wanted!r}; there is: {', '.join(there) or 'nothing'}"
