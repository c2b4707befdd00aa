"""The figures of one run: each function draws what its name says, or gives None where nothing of it was recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from cosim.domain.frames import Floats
from cosim.report.canvas import (
    SERIES,
    Drawing,
    Key,
    Spans,
    colour,
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
from cosim.report.layout import number
from cosim.report.reading import WITH, WITHOUT, Reading

_SHOWN = 6
_BARS = 40
_VOLTAGE_STEPS = 600


@dataclass(frozen=True)
class Axis:
    """The time axis that the figures of a run share: day numbers ``at`` (n_span + 1,) at which ``groups`` begin."""

    reading: Reading
    groups: Spans
    at: Floats

    def finish(self, axes: Axes) -> None:
        """Local time along x of the lowest axes of a figure."""
        reading = self.reading
        time_axis(axes, reading.zone, reading.local_time[0], reading.local_end)


def axis_of(reading: Reading, most: int = 400) -> Axis:
    """The time axis of a run that has at least one step."""
    groups = spans(reading.steps, most)
    return Axis(reading, groups, edges(reading.local_time, reading.local_end, groups))


def drawings(reading: Reading, salt: str) -> tuple[Drawing, ...]:
    """All figures of a run in the order of the page; ``salt`` keeps their ids apart from those of other runs."""
    if not reading.steps:
        return ()
    axis = axis_of(reading)
    makers: tuple[Callable[[Axis, str], Drawing | None], ...] = (
        head, storage, voltage_band, voltage_map, loadings, loading_maxima, sites, errors, measured, quality,
    )  # fmt: skip
    made = (maker(axis, f"{salt}-{maker.__name__}") for maker in makers)
    return tuple(drawing for drawing in made if drawing is not None)


def _thin(axis: Axis) -> str:
    """What the reader must know where there are too many steps to show each."""
    if axis.groups.single:
        return ""
    hours = axis.reading.steps * axis.reading.step_s / len(axis.groups.first) / 3600.0
    return f"Each point stands for about {hours:.1f} h: the filled range is lowest to highest, the line the mean."


def head(axis: Axis, salt: str) -> Drawing | None:
    """Head power with and without orders, as estimated, and the thresholds."""
    reading = axis.reading
    true, idle = reading.total(f"{WITH}/head/p_kw"), reading.total_without("head/p_kw")
    if true is None:
        return None
    figure, (axes,) = panels([2.6])
    keys = []
    level(axes, 0.0)
    if idle is not None:
        course(axes, axis.at, axis.groups, idle, "none", "--")
        keys.append(Key("without orders", "none", "dash"))
    course(axes, axis.at, axis.groups, true, "blue", width=1.6)
    keys.insert(0, Key("with orders" if idle is not None else "true", "blue"))
    estimated = reading.total("estimator/head/p_kw")
    if estimated is not None:
        course(axes, axis.at, axis.groups, estimated, "red", width=0.8)
        keys.append(Key("estimated", "red"))
    thresholds = reading.frame("operator/order/threshold_kw")
    last = np.empty(0) if thresholds is None else thresholds.to_numpy()[-1]
    for threshold_kw in sorted(set(last[np.isfinite(last)])):
        level(axes, float(threshold_kw), "purple", ":", 1.2)
    if np.isfinite(last).any():
        keys.append(Key("threshold", "purple", "dots"))
    axes.set_title("active power at the head [kW]; import above 0, reverse flow below")
    axis.finish(axes)
    return Drawing("Head power", svg_of(figure, salt, "head power over time"), tuple(keys), _thin(axis))


def storage(axis: Axis, salt: str) -> Drawing | None:
    """Power and stored energy of each storage unit, or of all together where they are many."""
    power, energy = axis.reading.frame(f"{WITH}/storage/p_kw"), axis.reading.frame(f"{WITH}/storage/e_kwh")
    if power is None or energy is None or power.shape[1] == 0:
        return None
    figure, (upper, lower) = panels([1.5, 1.5])
    names, p_kw, e_kwh = list(power.columns), power.to_numpy(), energy.to_numpy()
    if len(names) > _SHOWN:
        names, p_kw, e_kwh = [f"all {len(names)} units"], p_kw.sum(axis=1)[:, None], e_kwh.sum(axis=1)[:, None]
    level(upper, 0.0)
    for k, name in enumerate(SERIES[: len(names)]):
        course(upper, axis.at, axis.groups, p_kw[:, k], name)
        course(lower, axis.at, axis.groups, e_kwh[:, k], name)
    keys = [Key(str(name), SERIES[k]) for k, name in enumerate(names)]
    units = axis.reading.storage
    if units:
        level(lower, sum(u.e_max_kwh for u in units) if len(names) == 1 else max(u.e_max_kwh for u in units), "none", "--")
        level(lower, sum(u.reserve_kwh for u in units) if len(names) == 1 else min(u.reserve_kwh for u in units), "none", ":")
        keys += [Key("capacity", "none", "dash"), Key("reserve", "none", "dots")]
    lower.set_ylim(bottom=0.0)
    upper.set_title("storage power [kW]; charging above 0")
    lower.set_title("stored energy [kWh]")
    upper.set_xlim(axis.at[0], axis.at[-1])
    upper.set_xticklabels([])
    axis.finish(lower)
    return Drawing("Storage", svg_of(figure, salt, "power and stored energy of storage"), tuple(keys), _thin(axis))
