"""Reader of a study: the result files of many runs, read by signal with a run dimension.

A study is a folder, a list of result files, or an index in Parquet with a row for each run: columns ``run``, ``path``
(absolute or beside the index), ``status``, ``error``, and one for each field of the scenario that varies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

import pandas as pd

from cosim.errors import ResultError
from cosim.io import results as one_file
from cosim.io.disk import reason
from cosim.io.results import Instant, ModelLayout, Results, only_column, suggested

if TYPE_CHECKING:
    import xarray as xr

Run = Any
"""The label of a run: a number or a text, as in the index."""

Files = list[str] | list[Path] | tuple[str | Path, ...]
INDEX = "index.parquet"
_COLUMNS = ("run", "path", "status", "error")
_TOLD = ("status", "error", "path", "hash", "wall_s")
"""What an index tells of a run beside the fields that vary; the last two where sweeps write them."""
_SHOWN = 5


class Study:
    """The runs of a study; nothing but what tells them apart is read before it is asked for, and no file stays open.

    ``runs`` has a row for each run: the fields that vary, ``status``, ``error`` and ``path``. Methods take the runs
    that are complete, or those named in ``runs``.
    """

    def __init__(self, place: str, runs: pd.DataFrame) -> None:
        self.place = place
        self._runs = runs
        doubled = runs.index[runs.index.duplicated()].unique()
        if len(doubled):
            raise ResultError(f"{place}: holds a run more than once: {_listed(list(doubled))}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open between two reads; ``with`` is for programs that read a run as well as a study."""

    @property
    def runs(self) -> pd.DataFrame:
        """A row for each run: the fields that vary, ``status``, ``error`` and ``path``."""
        return self._runs.copy()

    @property
    def complete(self) -> tuple[Run, ...]:
        """The runs that are complete, in order."""
        return tuple(self._runs.index[self._runs["status"] == "complete"])

    def open(self, run: Run) -> Results:
        """The result file of a run. Raises ResultError when there is no such run or file."""
        if run not in self._runs.index:
            raise ResultError(f"{self.place}: no run {suggested(str(run), [str(name) for name in self._runs.index])}")
        row = self._runs.loc[run]
        if not row["path"]:
            raise ResultError(f"{self.place}: run {run} has no result file: {row['error'] or row['status']}")
        return one_file.open_results(str(row["path"]))

    def frame(
        self,
        path: str,
        start: Instant | None = None,
        stop: Instant | None = None,
        elements: Sequence[str] | None = None,
        runs: Sequence[Run] | None = None,
    ) -> pd.DataFrame:
        """A signal as `Results.frame` gives it, a row for each run and step (index ``run``, ``time``).

        Raises ResultError where runs have other elements or another unit.
        """
        frames = self._of_each(runs, lambda results: results.frame(path, start, stop, elements))
        self._require_same(
            f"the elements of {path}", {run: list(f.columns) for run, f in frames.items()}, "name some with elements="
        )
        self._require_same(f"the unit of {path}", {run: [f.attrs.get("units")] for run, f in frames.items()})
        return _stacked(frames)

    def series(
        self,
        path: str,
        start: Instant | None = None,
        stop: Instant | None = None,
        elements: Sequence[str] | None = None,
        runs: Sequence[Run] | None = None,
    ) -> pd.Series[Any]:
        """A signal of one element over run and time; ``.unstack("run")`` gives a column for each run."""
        return only_column(self.frame(path, start, stop, elements, runs), self.place, path)

    def table(
        self,
        path: str,
        start: Instant | None = None,
        stop: Instant | None = None,
        runs: Sequence[Run] | None = None,
    ) -> pd.DataFrame:
        """An event table as `Results.table` gives it, with a first column ``run``."""
        tables = self._of_each(runs, lambda results: results.table(path, start, stop))
        for run, table in tables.items():
            table.insert(0, "run", run)
        found = pd.concat(tables.values(), ignore_index=True)
        found.attrs.update(next(iter(tables.values())).attrs)
        return found

    def dataset(
        self,
        path: str,
        start: Instant | None = None,
        stop: Instant | None = None,
        elements: Sequence[str] | None = None,
        runs: Sequence[Run] | None = None,
    ) -> xr.Dataset:
        """All signals of a model over run, time and element, with the fields that vary as coordinates; values are read
        when they are asked for.

        Raises ResultError where runs have other signals, elements or steps than the first.
        """
        from cosim.io.lazy import dataset_of  # xarray costs half a second, and only notebooks need it

        chosen = self.chosen(runs)
        with self.open(chosen[0]) as results:
            layout, rows = results.model(path), results.rows_between(start, stop)
        for run in chosen[1:]:
            with self.open(run) as results:
                self._require_same_layout(path, chosen[0], layout, run, results.model(path))
        told = self._runs.loc[list(chosen)].drop(columns=list(_TOLD), errors="ignore")
        paths = [Path(path) for path in self._runs.loc[list(chosen), "path"]]
        return dataset_of(paths, path, layout, elements, told).isel(time=rows)

    def chosen(self, runs: Sequence[Run] | None) -> tuple[Run, ...]:
        """The runs named, or all that are complete. Raises ResultError without any."""
        chosen = self.complete if runs is None else tuple(runs)
        if chosen:
            return chosen
        states = ", ".join(f"{count} {status}" for status, count in self._runs["status"].value_counts().items())
        raise ResultError(f"{self.place}: no run to read; complete: none; there is: {states or 'no run'}")

    def _of_each(self, runs: Sequence[Run] | None, read: Callable[[Results], pd.DataFrame]) -> dict[Run, pd.DataFrame]:
        found = {}
        for run in self.chosen(runs):
            with self.open(run) as results:
                found[run] = read(results)
        return found

    def _require_same(self, what: str, of_run: Mapping[Run, Sequence[Any]], advice: str = "") -> None:
        first, *others = of_run
        for run in others:
            if list(of_run[run]) != list(of_run[first]):
                missing = [each for each in of_run[first] if each not in of_run[run]]
                more = [each for each in of_run[run] if each not in of_run[first]]
                told = [
                    f"{words} {_listed(found)}" for words, found in (("lacks", missing), ("also has", more)) if found
                ]
                difference = " and ".join(told) or "has another order"
                hint = f"; {advice}" if advice else ""
                raise ResultError(
                    f"{self.place}: runs differ in {what}: run {run} {difference}, against run {first}; choose with "
                    f"runs={hint}"
                )

    def _require_same_layout(self, path: str, first: Run, layout: ModelLayout, run: Run, other: ModelLayout) -> None:
        for name in layout.axes:
            self._require_same(
                f"the elements of {path} along {name}", {first: layout.axes[name], run: other.axes.get(name, ())}
            )
        self._require_same(f"the signals of {path}", {first: sorted(layout.signals), run: sorted(other.signals)})
        units = [{n: signal[2].get("units") for n, signal in each.signals.items()} for each in (layout, other)]
        self._require_same(f"the units of {path}", {first: sorted(units[0].items()), run: sorted(units[1].items())})
        if not layout.time.equals(other.time):
            raise ResultError(
                f"{self.place}: runs differ in their steps: run {first} has {_span(layout.time)}, run {run} "
                f"{_span(other.time)}; use frame(...), or choose with runs="
            )


def _stacked(frames: Mapping[Run, pd.DataFrame]) -> pd.DataFrame:
    found = pd.concat(list(frames.values()), keys=list(frames), names=["run", "time"])
    first = next(iter(frames.values()))
    found.columns = first.columns
    found.attrs.update(first.attrs)
    return found


def _span(time: pd.DatetimeIndex) -> str:
    return f"{len(time)} from {time[0].isoformat()}" if len(time) else "none"


def _listed(found: Sequence[Any]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(map(str, found[:_SHOWN])) + more


@overload
def open_results(place: Files) -> Study: ...
@overload
def open_results(place: str | Path) -> Results | Study: ...
def open_results(place: str | Path | Files) -> Results | Study:
    """A result file as `Results`; a folder, an index (Parquet) or a list of result files as `Study`.

    Raises ResultError when there is no such file, or it is not what this version reads.
    """
    if not isinstance(place, str | Path) or Path(place).is_dir() or Path(place).suffix == ".parquet":
        return open_study(place)
    return one_file.open_results(place)


def open_study(place: str | Path | Files) -> Study:
    """A study: a folder (its index if it has one, else all its ``*.h5``), an index, or a list of result files.

    Without an index the fields that vary are those of the scenarios that differ between the files.
    """
    if not isinstance(place, str | Path):
        return _of_files("the list of results", [Path(path) for path in place])
    place = Path(place)
    if place.suffix == ".parquet":
        return _of_index(place)
    if (place / INDEX).is_file():
        return _of_index(place / INDEX)
    files = sorted(place.glob("*.h5"))
    if not files:
        raise ResultError(f"{place}: holds neither {INDEX} nor a result file *.h5")
    return _of_files(str(place), files)


def _of_index(path: Path) -> Study:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: cannot be read as an index in Parquet: {reason(error)}") from error
    table = table.reset_index() if "run" not in table and table.index.name == "run" else table
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise ResultError(f"{path}: lacks columns {', '.join(missing)}; there is: {', '.join(map(str, table))}")
    return Study(str(path), _arranged(table.assign(path=[_beside(path, each) for each in table["path"]])))


def _beside(index: Path, path: str | None) -> str:
    return str(index.parent / path) if isinstance(path, str) and path else ""


def _arranged(table: pd.DataFrame) -> pd.DataFrame:
    """The index ``run``, fields that vary first, what became of the run last."""
    told = [name for name in _TOLD if name in table]
    return table.set_index("run")[[name for name in table if name not in (*told, "run")] + told]


def _of_files(place: str, files: Sequence[Path]) -> Study:
    if not files:
        raise ResultError(f"{place}: is empty")
    rows: list[dict[str, Any]] = []
    fields: list[dict[str, Any]] = []
    stems = [path.stem for path in files]
    labels = stems if len(set(stems)) == len(stems) else [str(path) for path in files]
    for label, path in zip(labels, files, strict=True):
        with one_file.open_results(path) as results:
            rows.append({"run": label, "status": results.status, "error": results.error, "path": str(path)})
            fields.append(dict(_flat(results.scenario)) if results.has_scenario else {})
    names = dict.fromkeys(name for each in fields for name in each)
    varied = [name for name in names if len({each.get(name) for each in fields}) > 1]
    for row, each in zip(rows, fields, strict=True):
        row |= {name: each.get(name) for name in varied}
    return Study(place, _arranged(pd.DataFrame(rows)))


def _flat(tree: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of a scenario and their values, lists as JSON text."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{under}{name}.")
        else:
            yield f"{under}{name}", json.dumps(value) if isinstance(value, list | Mapping) else value
