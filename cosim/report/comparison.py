"""Several results side by side: one table of indicators, and their courses in common figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cosim.report.canvas import SERIES, Drawing, Key, colour, course, level, panels, svg_of, time_axis
from cosim.report.figures import axis_of
from cosim.report.indicator import Indicator
from cosim.report.indicators import indicators_of
from cosim.report.layout import shortened
from cosim.report.market import LEFT, MARKET
from cosim.report.market_run import market_run, worst_percent
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
        _price_of_limits(readings, labels),
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
    for found in of_result:  # a cause of violations that a result with a market does not have is none there
        if any(group == MARKET for group, _, _ in found):
            found |= {key: Indicator(*key[:2], 0.0, key[2]) for key in known if key[0] == LEFT and key not in found}
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


def _price_of_limits(readings: Sequence[Reading], labels: Sequence[str]) -> Drawing | None:
    """What the markets of several results cost against the violations that they left."""
    runs = [(label, market_run(reading)) for reading, label in zip(readings, labels, strict=True)]
    shown = [(label, run) for label, run in runs if run is not None]
    if len(shown) < 2:
        return None
    figure, (upper, lower) = panels([1.7, 1.7])
    keys = [Key(label, SERIES[k], "point") for k, (label, _) in enumerate(shown[: len(SERIES)])]
    for k, (label, run) in enumerate(shown):
        name, eur = SERIES[k] if k < len(SERIES) else "none", run.eur("price_eur_per_kwh")
        for axes, value in zip((upper, lower), _amount(run.left), strict=True):
            axes.plot(eur, value, "o", color=colour(name), ms=7, clip_on=False, zorder=4)
            if name == "none":
                axes.annotate(shortened(label, 20), (eur, value), (5, 4), textcoords="offset points", fontsize=7.5)
    without = {None if run.without is None else _amount(run.without) for _, run in shown}
    if len(without) == 1 and None not in without:
        for axes, value in zip((upper, lower), without.pop() or (), strict=True):
            axes.plot(0.0, value, "x", color=colour("ink"), ms=7, mew=1.6, clip_on=False, zorder=4)
        keys.append(Key("without activation", "ink", "cross"))
    for axes, title in ((upper, "MTUs with violations left"), (lower, "worst violation left [% of its limit]")):
        axes.set_title(title)
        axes.set_ylim(bottom=0.0)
        axes.set_xlim(left=min(0.0, *(run.eur("price_eur_per_kwh") for _, run in shown)))
    upper.tick_params(axis="x", labelbottom=False)
    lower.set_xlabel("paid for flexibility [EUR]", loc="left")
    title = "Cost against violations left"
    return Drawing(title, svg_of(figure, "c-price", title), tuple(keys))


def _amount(violations: pd.DataFrame) -> tuple[float, float]:
    """MTUs with violations, and the worst of them [% of its limit]."""
    return float(violations["mtu"].nunique()), worst_percent(violations)
