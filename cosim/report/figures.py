"""Figures of the grid: head, storage, voltages, loadings. Each function draws what its name says, or gives None where
nothing of it was recorded."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize

from cosim.domain.frames import Floats
from cosim.report.canvas import (
    SERIES,
    Drawing,
    Key,
    Spans,
    colour,
    colour_scale,
    course,
    edges,
    level,
    panels,
    picture,
    row_names,
    spans,
    svg_of,
    time_axis,
)
from cosim.report.reading import WITH, WITHOUT, Reading
from cosim.units import SECONDS_PER_HOUR

SHOWN = 6
"""Courses in one figure at most."""

RANGE_AND_MEAN = "filled is its range, the line its mean"

_BARS = 40
_MAP_COLUMNS, _MAP_ROWS = 800, 600


@dataclass(frozen=True)
class TimeAxis:
    """The time axis of a run's figures: day numbers ``at`` (n_span + 1,) at which ``groups`` of steps begin and end."""

    reading: Reading
    groups: Spans
    at: Floats

    def under(self, axes: list[Axes]) -> None:
        """Local time along x of axes one above the other; written below the lowest."""
        for upper in axes:
            time_axis(upper, self.reading.zone, self.reading.local_time[0], self.reading.local_end)
        for upper in axes[:-1]:
            upper.tick_params(axis="x", labelbottom=False, length=0)
            upper.set_xlabel("")

    def note(self, what: str) -> str:
        """What must be known where there are too many steps to show each: ``what`` is drawn of each group."""
        if self.groups.single:
            return ""
        length_s = float(self.groups.first[1]) * self.reading.step_s
        each = f"{length_s / SECONDS_PER_HOUR:g} h" if length_s > 0.0 else "a group of steps"
        return f"Too many steps to show each: a point stands for {each}; {what}."


def axis_of(reading: Reading, most: int = 400) -> TimeAxis:
    """The time axis of a run that has at least one step."""
    groups = spans(reading.steps, reading.step_s, most)
    return TimeAxis(reading, groups, edges(reading.local_time, reading.local_end, groups))


def head(axis: TimeAxis, salt: str) -> Drawing | None:
    """Head power with and without orders and activation, as estimated, and the thresholds."""
    reading = axis.reading
    true, idle = reading.total(f"{WITH}/head/p_kw"), reading.total_without("head/p_kw")
    if true is None:
        return None
    figure, (axes,) = panels([2.7])
    keys = [Key("true" if idle is None else f"with {reading.acts}", "blue")]
    level(axes, 0.0)
    if idle is not None:
        course(axes, axis.at, axis.groups, idle, "none", "--", 1.0, "edges")
        keys.append(Key(f"without {reading.acts}", "none", "dash"))
    estimated = reading.total("estimator/head/p_kw")
    if estimated is not None:
        course(axes, axis.at, axis.groups, estimated, "red", width=1.7, spread="mean")
        keys.append(Key("estimated", "red"))
    course(axes, axis.at, axis.groups, true, "blue", width=1.2)
    thresholds_kw = _thresholds_kw(reading)
    for threshold_kw in thresholds_kw:
        level(axes, threshold_kw, "purple", ":", 1.4)
    keys += [Key("threshold", "purple", "dots")] if thresholds_kw else []
    axes.set_title("active power at the head [kW]: import above 0, reverse flow below")
    axis.under([axes])
    note = axis.note("filled is its range, lines are means, the dashed ones the range without")
    return Drawing("Head power", svg_of(figure, salt, "Head power over time"), tuple(keys), note)


def _thresholds_kw(reading: Reading) -> list[float]:
    """The different thresholds in force in the last step [kW]."""
    frame = reading.frame("operator/order/threshold_kw")
    last = np.empty(0) if frame is None else frame.to_numpy()[-1]
    return sorted({float(kw) for kw in last[np.isfinite(last)]})


def storage(axis: TimeAxis, salt: str) -> Drawing | None:
    """Power and stored energy of each storage unit, or of all together where they are many."""
    power, energy = axis.reading.frame(f"{WITH}/storage/p_kw"), axis.reading.frame(f"{WITH}/storage/e_kwh")
    if power is None or energy is None or power.shape[1] == 0:
        return None
    figure, (upper, lower) = panels([1.4, 1.4])
    names, p_kw, e_kwh = [str(name) for name in power.columns], power.to_numpy(), energy.to_numpy()
    if len(names) > SHOWN:
        names, p_kw, e_kwh = [f"all {len(names)} units"], p_kw.sum(axis=1)[:, None], e_kwh.sum(axis=1)[:, None]
    level(upper, 0.0)
    for k, name in enumerate(SERIES[: len(names)]):
        course(upper, axis.at, axis.groups, p_kw[:, k], name)
        course(lower, axis.at, axis.groups, e_kwh[:, k], name)
    keys = [Key(name, SERIES[k]) for k, name in enumerate(names)]
    if axis.reading.storage and len(names) == 1:
        level(lower, sum(unit.e_max_kwh for unit in axis.reading.storage), "none", "--")
        level(lower, sum(unit.reserve_kwh for unit in axis.reading.storage), "none", ":", 1.2)
        keys += [Key("capacity", "none", "dash"), Key("reserve", "none", "dots")]
    lower.set_ylim(bottom=0.0)
    upper.set_title("storage power [kW]: charging above 0, discharging below")
    lower.set_title("stored energy [kWh]")
    axis.under([upper, lower])
    note = axis.note(RANGE_AND_MEAN)
    return Drawing("Storage", svg_of(figure, salt, "Power and stored energy of storage"), tuple(keys), note)


def voltage_band(axis: TimeAxis, salt: str) -> Drawing | None:
    """The range of the voltages over all nodes: lowest, highest, 5 % and 95 %, median."""
    path = f"{WITH}/bus/vm_pu"
    if not axis.reading.elements(path):
        return None
    parts = [_across(frame.to_numpy()) for _, frame in axis.reading.blocks(path)]
    low, p5, median, p95, high = np.concatenate(parts, axis=1)
    groups, at = axis.groups, axis.at
    figure, (axes,) = panels([1.9])
    for lower, upper, alpha in ((low, high, 0.22), (p5, p95, 0.38)):
        bottom, top = groups.low(lower), groups.high(upper)
        axes.fill_between(
            at, _closed(bottom), _closed(top), step="post", color=colour("blue"), alpha=alpha, linewidth=0
        )
    axes.step(at, _closed(groups.mean(median)), where="post", color=colour("ink"), linewidth=1.1)
    level(axes, 1.0)
    axes.set_title("voltage magnitude [pu] over the nodes of the feeder")
    axis.under([axes])
    keys = (
        Key("lowest to highest", "blue", "faint"),
        Key("5 % to 95 % of nodes", "blue", "area"),
        Key("median", "ink"),
    )
    return Drawing("Voltages", svg_of(figure, salt, "Range of voltages over time"), keys)


def _across(vm_pu: Floats) -> Floats:
    """Lowest, 5 %, median, 95 %, highest over the nodes at each step, (5, n_time); NaN where no node has a value."""
    found = np.full((5, len(vm_pu)), np.nan)
    gaps = np.isnan(vm_pu)
    for rows, percentile in (
        (~gaps.any(axis=1), np.percentile),
        (gaps.any(axis=1) & ~gaps.all(axis=1), np.nanpercentile),
    ):
        if rows.any():
            found[:, rows] = percentile(vm_pu[rows], [0, 5, 50, 95, 100], axis=1)
    return found


def _closed(values: Floats) -> Floats:
    """Values of steps with the last one repeated, so that it is drawn to its end."""
    return np.append(values, values[-1])


def voltage_map(axis: TimeAxis, salt: str) -> Drawing | None:
    """Voltage of each node over time, as colours; of several steps or nodes in one cell, the one furthest from 1 pu."""
    reading, path = axis.reading, f"{WITH}/bus/vm_pu"
    nodes = reading.elements(path)
    if not nodes:
        return None
    fine = axis_of(reading, _MAP_COLUMNS)
    deviation = np.concatenate([_furthest_nodes(frame.to_numpy() - 1.0) for _, frame in reading.blocks(path)])
    cells = _furthest(deviation, fine.groups).T
    reach = float(np.nanmax(np.abs(cells), initial=0.0)) or 0.01
    names = nodes[:: -(-len(nodes) // _MAP_ROWS)]
    height_in = min(4.2, max(1.2, 0.115 * len(names)))
    figure, (axes,) = panels([height_in], left_in=1.9, right_in=0.9)
    scale, norm = matplotlib.colormaps["RdBu_r"], Normalize(1.0 - reach, 1.0 + reach)
    picture(axes, _tinted(scale, norm, cells + 1.0), fine.at)
    row_names(axes, names, height_in)
    colour_scale(axes, scale, norm, "pu")
    axes.set_title("voltage magnitude [pu] by node")
    fine.under([axes])
    note = "" if fine.groups.single and len(names) == len(nodes) else "A cell shows the value furthest from 1 pu in it."
    return Drawing("Voltages by node", svg_of(figure, salt, "Voltage of each node over time"), (), note)


def _furthest_nodes(deviation: Floats) -> Floats:
    """The deviations of groups of neighbouring nodes, so that no more rows are drawn than can be seen."""
    size = -(-deviation.shape[1] // _MAP_ROWS)
    if size == 1:
        return deviation
    count = -(-deviation.shape[1] // size)
    first = np.arange(count) * size
    return _furthest(deviation.T, Spans(first, deviation.shape[1])).T


def _furthest(deviation: Floats, groups: Spans) -> Floats:
    """The value furthest from 0 of each group along the first axis."""
    low, high = groups.low(deviation), groups.high(deviation)
    return np.where(-low > high, low, high)


def _tinted(scale: Colormap, norm: Normalize, values: Floats) -> npt.NDArray[np.float64]:
    """Colours of values, (..., 4); transparent where there is none."""
    cells = np.array(scale(norm(np.nan_to_num(values))), dtype=np.float64)
    cells[np.isnan(values)] = 0.0
    return cells


def _maxima(reading: Reading, simulator: str) -> tuple[list[str], Floats] | None:
    """Branches with a rating and their highest loading [pu], the highest first."""
    path = f"{simulator}/branch/loading_pu"
    names = reading.elements(path)
    if not names:
        return None
    blocks = [np.fmax.reduce(frame.to_numpy(), axis=0) for _, frame in reading.blocks(path)]
    highest = np.fmax.reduce(blocks)
    order = [int(k) for k in np.argsort(-highest, kind="stable") if not np.isnan(highest[k])]
    return [names[k] for k in order], highest[order]


def loadings(axis: TimeAxis, salt: str) -> Drawing | None:
    """Loading of the branches that are loaded most, over time."""
    found = _maxima(axis.reading, WITH)
    if found is None or not found[0]:
        return None
    names = found[0][:5]
    blocks = [block[names] for _, block in axis.reading.blocks(f"{WITH}/branch/loading_pu")]
    frame = pd.concat(blocks)
    figure, (axes,) = panels([1.9])
    for k, name in enumerate(names):
        course(axes, axis.at, axis.groups, frame[name].to_numpy(), SERIES[k], width=1.1, spread="top")
    axes.set_ylim(bottom=0.0)
    if float(found[1][0]) > 0.9:
        level(axes, 1.0, "ink", "--")
    axes.set_title(f"loading [pu of rated current]: the {len(names)} branches loaded most")
    axis.under([axes])
    keys = tuple(Key(name, SERIES[k]) for k, name in enumerate(names))
    return Drawing(
        "Lines and transformers",
        svg_of(figure, salt, "Loading over time"),
        keys,
        axis.note("lines are its highest values"),
    )


def loading_maxima(axis: TimeAxis, salt: str) -> Drawing | None:
    """Highest loading of each branch, with and without orders and activation."""
    found = _maxima(axis.reading, WITH)
    if found is None or not found[0]:
        return None
    names, highest = found[0][:_BARS], found[1][:_BARS]
    height_in = 0.17 * len(names) + 0.1
    figure, (axes,) = panels([height_in], left_in=1.9)
    rows = np.arange(len(names))
    axes.barh(rows, highest, height=0.7, color=colour("blue"))
    keys = [Key(f"with {axis.reading.acts}" if axis.reading.compared else "true", "blue", "area")]
    other = _maxima(axis.reading, WITHOUT) if axis.reading.compared else None
    if other is not None:
        without = dict(zip(*other, strict=True))
        axes.plot([without.get(name, np.nan) for name in names], rows, "|", color=colour("ink"), ms=8, mew=1.6)
        keys.append(Key(f"without {axis.reading.acts}", "ink", "tick"))
    if float(highest[0]) > 0.9:
        axes.axvline(1.0, color=colour("ink"), linewidth=0.8, linestyle="--")
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(False, axis="y")
    row_names(axes, names, height_in)
    axes.set_title("highest loading of the run [pu of rated current]")
    others = len(found[0]) - len(names)
    note = f"{others} more branches are loaded at most {found[1][_BARS]:.3f} pu." if others else ""
    return Drawing("Highest loadings", svg_of(figure, salt, "Highest loading of each branch"), tuple(keys), note)
