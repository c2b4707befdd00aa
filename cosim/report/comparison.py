"""Several results side by side: one table of indicators, and their courses in common figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cosim.report.canvas import SERIES, Drawing, Key, course, level, panels, svg_of, time_axis
from cosim.report.figures import axis_of
from cosim.report.indicator import Indicator
from cosim.report.indicators import indicators_of
from cosim.report.reading import WITH, Reading


@dataclass(frozen=True)
class Row:
    """An indicator of all results; None for a result that does not have it."""

    group: str
    name: str
    unit: str
    of_result: tuple[Indicator | None, ...]


@dataclass(frozen=True)
class Comparison:
    """What a page says about several results together; ``labels`` (n_result) names them."""

    labels: tuple[str, ...]
    statuses: tuple[str, ...]
    rows: tuple[Row, ...]
    drawings: tuple[Drawing, ...]
    left_out: int


def compare(readings: Sequence[Reading], labels: Sequence[str]) -> Comparison:
    """The comparison of several results. Figures show as many of them as there are colours, the first ones."""
    drawings = (
        _overlay(readings, labels, "head/p_kw", "Head power", "active power at the head [kW]: import above 0"),
        _overlay(readings, labels, "storage/e_kwh", "Stored energy", "stored energy of all units [kWh]"),
    )
    return Comparison(
        tuple(labels),
        tuple(reading.status for reading in readings),
        _rows(readings),
        tuple(drawing for drawing in drawings if drawing is not None),
        max(0, len(readings) - len(SERIES)),
    )


def _rows(readings: Sequence[Reading]) -> tuple[Row, ...]:
    """Indicators in the order of the first result that has them, under the headings of the first."""
    of_result = [{(i.group, i.name, i.unit): i for i in indicators_of(reading)} for reading in readings]
    known = dict.fromkeys(key for found in of_result for key in found)
    groups = list(dict.fromkeys(group for group, _, _ in known))
    ordered = sorted(known, key=lambda key: groups.index(key[0]))
    return tuple(Row(*key, tuple(found.get(key) for found in of_result)) for key in ordered)


def _overlay(
    readings: Sequence[Reading], labels: Sequence[str], path: str, title: str, axis_title: str
) -> Drawing | None:
    shown = [
        (reading, label, name)
        for reading, label, name in zip(readings, labels, SERIES, strict=False)
        if reading.steps and reading.elements(f"{WITH}/{path}")
    ]
    if not shown:
        return None
    figure, (axes,) = panels([2.4])  # the first is drawn widest, so that it shows below those that equal it
    if path.endswith("p_kw"):
        level(axes, 0.0)
    for k, (reading, _, name) in enumerate(shown):
        values = reading.total(f"{WITH}/{path}")
        axis = axis_of(reading)
        if values is not None:
            course(axes, axis.at, axis.groups, values, name, width=1.1 + 0.5 * (len(shown) - 1 - k), spread="edges")
    first = min(reading.local_time[0] for reading, _, _ in shown)
    last = max(reading.local_end for reading, _, _ in shown)
    zones = " and ".join(dict.fromkeys(reading.zone for reading, _, _ in shown))
    time_axis(axes, zones, first, last)
    axes.set_title(axis_title)
    notes = dict.fromkeys(axis_of(reading).note("two lines are its range") for reading, _, _ in shown)
    keys = tuple(Key(label, name) for _, label, name in shown)
    return Drawing(title, svg_of(figure, f"c-{path}", title), keys, " ".join(note for note in notes if note))
