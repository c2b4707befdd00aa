"""Figures of what was measured and estimated, against the truth. None where nothing of it was recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from cosim.domain.frames import Codes, Floats
from cosim.domain.measurement import Quality
from cosim.report.accuracy import ALL_SITES, site_errors
from cosim.report.canvas import (
    SERIES,
    Drawing,
    Key,
    Spans,
    colour,
    course,
    level,
    panels,
    picture,
    row_names,
    svg_of,
)
from cosim.report.figures import SHOWN, TimeAxis, axis_of
from cosim.report.layout import shortened
from cosim.report.reading import Reading

_GOOD = to_rgba(colour("none"), 0.25)
_PANEL_NAME = 60


def sites(axis: TimeAxis, salt: str) -> Drawing | None:
    """True and estimated power of unmetered sites; of many, those where the method in use errs most."""
    reading, truth = axis.reading, axis.reading.true_site_kw
    shown = _worst_sites(reading)
    if truth is None or not shown:
        return None
    estimates = {method: reading.estimated_site_kw(method) for method in reading.methods[: len(SERIES)]}
    figure, rows = panels([1.45] * len(shown))
    for axes, site in zip(rows, shown, strict=True):
        for k, method in reversed(list(enumerate(estimates))):
            course(axes, axis.at, axis.groups, estimates[method][site].to_numpy(), SERIES[k], width=1.0, spread="mean")
        course(axes, axis.at, axis.groups, truth[site].to_numpy(), "ink", width=1.2)
        level(axes, 0.0)
        axes.set_title(f"{shortened(site, _PANEL_NAME)}: active power [kW], consumption above 0, storage included")
    axis.under(rows)
    keys = (Key("true", "ink"), *(Key(_method(reading, m), SERIES[k]) for k, m in enumerate(estimates)))
    left_out = len(reading.unmetered_sites) - len(shown)
    note = f"The {len(shown)} sites with the largest error; {left_out} more are in the table. " if left_out else ""
    return Drawing(
        "Unmetered sites",
        svg_of(figure, salt, "Power of unmetered sites"),
        keys,
        note + axis.note("filled is the true range, lines are means"),
    )


def _worst_sites(reading: Reading) -> list[str]:
    """At most ``SHOWN`` unmetered sites, in their order; those where the first method errs most."""
    errors = [e for e in site_errors(reading) if e.site != ALL_SITES and e.method == reading.methods[0]]
    worst = sorted(errors, key=lambda e: -np.nan_to_num(e.mean_absolute_kw))[:SHOWN]
    return [e.site for e in errors if e in worst]


def _method(reading: Reading, method: str) -> str:
    return f"{method} (used by the operator)" if method == reading.method_in_use else method


def errors(axis: TimeAxis, salt: str) -> Drawing | None:
    """How the errors at unmetered sites are distributed, for each method."""
    reading, truth = axis.reading, axis.reading.true_site_kw
    shown = _worst_sites(reading)
    if truth is None or not shown:
        return None
    methods = reading.methods[: len(SERIES)]
    wrong = {method: reading.estimated_site_kw(method) - truth for method in methods}
    places = [ALL_SITES, *shown] if len(reading.unmetered_sites) > 1 else shown
    figure, (axes,) = panels([0.17 * len(methods) * len(places) + 0.16 * len(places)], left_in=1.9)
    names, ticks = [], []
    for row, place in enumerate(places):
        for k, method in enumerate(methods):
            position = row * (len(methods) + 1.0) + k
            values = (wrong[method] if place == ALL_SITES else wrong[method][[place]]).to_numpy().ravel()
            _box(axes, values[~np.isnan(values)], position, SERIES[k])
        names.append(shortened(place, 26))
        ticks.append(row * (len(methods) + 1.0) + (len(methods) - 1) / 2.0)
    axes.axvline(0.0, color=colour("muted"), linewidth=0.8)
    axes.set_yticks(ticks, names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(places) * (len(methods) + 1.0) - 1.4, -0.8)
    axes.grid(False, axis="y")
    axes.set_title("estimation error [kW]: estimate less truth")
    keys = tuple(Key(_method(reading, m), SERIES[k], "area") for k, m in enumerate(methods))
    note = "Box: middle half of the errors, with the median; line: 5 % to 95 %; dots: lowest and highest."
    return Drawing("Estimation error", svg_of(figure, salt, "Distribution of estimation errors"), keys, note)


def _box(axes: Axes, values: Floats, position: float, name: str) -> None:
    if not values.size:
        return
    low, p5, quarter, median, three_quarters, p95, high = np.percentile(values, [0, 5, 25, 50, 75, 95, 100])
    axes.plot([p5, p95], [position] * 2, color=colour(name), linewidth=1.2)
    axes.barh(position, three_quarters - quarter, left=quarter, height=0.7, color=colour(name))
    axes.plot([median] * 2, [position - 0.4, position + 0.4], color=colour("ink"), linewidth=1.4)
    axes.plot([low, high], [position] * 2, ".", color=colour(name), markersize=4)


def measured(axis: TimeAxis, salt: str) -> Drawing | None:
    """Measured and true active power of the meters."""
    reading = axis.reading
    channels = [c for c in reading.json("channels") or () if c["quantity"] == "p_kw"][:SHOWN]
    value, true = reading.frame("gateway/snapshot/value"), reading.frame("sensors/reading/value")
    channels = [c for c in channels if value is not None and c["topic"] in value.columns]
    if value is None or not channels:
        return None
    figure, rows = panels([1.2] * len(channels))
    for axes, channel in zip(rows, channels, strict=True):
        topic = channel["topic"]
        if true is not None and topic in true.columns:
            course(axes, axis.at, axis.groups, true[topic].to_numpy(), "ink", width=1.0)
        _arrived(axes, axis, value[topic])
        level(axes, 0.0)
        axes.set_title(shortened(f"{channel['meter']}, {topic}", _PANEL_NAME) + " [kW]")
    axis.under(rows)
    note = axis.note("filled is the true range, lines are means")
    keys = (Key("true", "ink"), Key("measured", "red", "point" if axis.groups.single else "line"))
    return Drawing("Measured power", svg_of(figure, salt, "Measured and true power"), keys, note)


def _arrived(axes: Axes, axis: TimeAxis, values: pd.Series[Any]) -> None:
    """Values that arrived, as dots at the beginning of their steps; as means where they are too many."""
    if axis.groups.single:
        axes.plot(axis.at[:-1], values.to_numpy(), ".", color=colour("red"), markersize=3.5)
    else:
        course(axes, axis.at, axis.groups, values.to_numpy(), "red", width=0.8, spread="mean")


def quality(axis: TimeAxis, salt: str) -> Drawing | None:
    """Which values arrived: channels over time, a colour where one was missing or late."""
    codes = axis.reading.frame("gateway/snapshot/quality")
    if codes is None or codes.shape[1] == 0:
        return None
    fine = axis_of(axis.reading, 800)
    single = fine.groups.single
    cells, most = _by_code(codes.to_numpy().T) if single else _by_share(codes.to_numpy(), fine.groups)
    height_in = min(4.0, 0.16 * len(cells) + 0.05)
    figure, (axes,) = panels([height_in], left_in=1.9)
    picture(axes, cells, fine.at)
    row_names(axes, [str(topic) for topic in codes.columns], height_in)
    axes.set_title("values at the gateway, by channel")
    fine.under([axes])
    bad = [Key("missing", "red", "area"), Key("late", "sky", "area")] if single else [Key("not good", "red", "area")]
    note = fine.note(f"full colour is {100.0 * most:.1f} % of its values missing or late, no colour none")
    svg = svg_of(figure, salt, "Quality of measurements over time")
    return Drawing("Measurement quality", svg, (Key("good", "none", "faint"), *bad), note)


def _by_code(codes: Codes) -> tuple[Floats, float]:
    """A cell a value (n_channel, n_time, 4), coloured by its code; transparent where none was expected."""
    cells = np.zeros((*codes.shape, 4))
    cells[codes == Quality.GOOD] = _GOOD
    cells[codes == Quality.MISSING] = to_rgba(colour("red"))
    cells[codes == Quality.LATE] = to_rgba(colour("sky"))
    return cells, 1.0


def _by_share(codes: Codes, groups: Spans) -> tuple[Floats, float]:
    """A cell for each group of steps (n_channel, n_span, 4), the stronger the more of its values are not good; and the
    largest share."""
    share = groups.mean(np.where(codes < 0, np.nan, codes != Quality.GOOD)).T
    most = float(np.fmax.reduce(share, axis=None))
    weight = (np.nan_to_num(share) / (most if most > 0.0 else 1.0))[..., None]
    cells = (1.0 - weight) * np.array(_GOOD) + weight * np.array(to_rgba(colour("red")))
    cells[np.isnan(share)] = 0.0
    return cells, most
