"""Tables of a study: one CSV file each, and all of them in one result file.

Units of columns follow from their names, as everywhere (docs/nomenclature.md).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cosim.clock import Clock
from cosim.domain.frames import EventTable
from cosim.errors import ResultError
from cosim.io.disk import reason
from cosim.io.store import ResultWriter

Cell = float | str | None

_INSTANT = Clock(datetime(1970, 1, 1, tzinfo=UTC), step_s=3600, steps=1, mtu_s=3600)  # a study has no date
_DIGITS = 12
_UNITS = {
    "_eur_per_kwh": "EUR/kWh",
    "_eur_per_a_h": "EUR/(A h)",
    "_eur": "EUR",
    "_kwh": "kWh",
    "_bytes": "bytes",
    "_kw": "kW",
    "_kvar": "kvar",
    "_a": "A",
    "_pu": "pu",
    "_percent": "%",
}


@dataclass(frozen=True)
class Table:
    """Rows of a table; a cell is a number where the column of ``form`` has a unit, else text, or None for missing."""

    form: EventTable
    rows: tuple[Mapping[str, Cell], ...]

    def column(self, name: str) -> list[Cell]:
        """One cell of each row."""
        return [row[name] for row in self.rows]

    def where(self, **cells: Cell) -> Table:
        """The rows that have these cells."""
        fitting = (row for row in self.rows if all(row[name] == cell for name, cell in cells.items()))
        return Table(self.form, tuple(fitting))


def table_of(name: str, long_name: str, rows: Iterable[Mapping[str, Cell]]) -> Table:
    """One row or more, all with the same columns: text where a row has text, else numbers in the unit that the name
    ends with, ``1`` if in none."""
    rows = tuple(rows)
    columns = {column: _unit(column, [row[column] for row in rows]) for column in rows[0]}
    return Table(EventTable(name, long_name, columns), rows)


def _unit(column: str, cells: Sequence[Cell]) -> str | None:
    if any(isinstance(cell, str) for cell in cells):
        return None
    return next((unit for suffix, unit in _UNITS.items() if column.endswith(suffix)), "1")


def write_csv(folder: Path, tables: Sequence[Table]) -> list[Path]:
    """``<folder>/<table>.csv`` of each; missing cells are empty, numbers have 12 digits. Returns the paths.

    Raises ResultError if one cannot be written.
    """
    paths = [folder / f"{table.form.name}.csv" for table in tables]
    for path, table in zip(paths, tables, strict=True):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="", encoding="utf-8") as file:
                lines = csv.writer(file, lineterminator="\n")
                lines.writerow(table.form.columns)
                lines.writerows([_text(row[name]) for name in table.form.columns] for row in table.rows)
        except OSError as error:
            raise ResultError(f"{path}: cannot be written: {reason(error)}") from error
    return paths


def write_hdf5(path: Path, study: str, tables: Sequence[Table], attributes: Mapping[str, str | int | float]) -> None:
    """A result file with the event tables ``<study>/<table>``, units as attributes, and these root attributes.

    Raises ResultError if it cannot be written.
    """
    with ResultWriter(path, _INSTANT, 1, "gzip", attributes) as result:
        for table in tables:
            result.declare_events(study, table.form)
            for row in table.rows:
                result.append_event(study, table.form.name, row)
        result.end_step(0)
        result.finish("complete")


def _text(cell: Cell) -> str:
    if isinstance(cell, float | int):
        return "" if math.isnan(cell) else f"{cell + 0.0:.{_DIGITS}g}"
    return cell or ""
