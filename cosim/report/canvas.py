"""How figures look, and how they become SVG that follows the page: colours are CSS variables, text is text."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import Colormap, Normalize
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from cosim.domain.frames import Floats
from cosim.report.layout import shortened
from cosim.report.reading import moment
from cosim.units import SECONDS_PER_HOUR

COLOURS = {
    "ink": ("#1d2430", "#e4e7ec"),
    "muted": ("#5b6675", "#a3adba"),
    "rule": ("#dfe3e8", "#343c48"),
    "none": ("#8a93a0", "#8f99a7"),
    "blue": ("#0072b2", "#56b4e9"),
    "red": ("#d55e00", "#ff8a47"),
    "green": ("#009e73", "#2fcf9f"),
    "purple": ("#b0568a", "#e39cc5"),
    "orange": ("#c98a00", "#f0b429"),
    "sky": ("#3f9fd8", "#9ad4f7"),
}
"""Each colour on a light and on a dark page; after Okabe and Ito, Color Universal Design (2008), darkened where they
would be faint on white."""

SERIES = ("blue", "red", "green", "purple", "orange", "sky")
"""Colours of things that are equal in rank, in this order."""

NAME_LENGTH = 26
"""Characters of an element's name that a figure shows."""

_WIDTH_IN, _POINTS = 10.0, 400
_SPAN_HOURS = (0.25, 0.5, 1, 2, 3, 4, 6, 12, 24, 48, 96, 168)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # a fixed place: to find a free one, matplotlib measures every label
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "timezone": "UTC",
}
_STYLE |= dict.fromkeys(("grid.color", "axes.edgecolor"), COLOURS["rule"][0])
_STYLE |= dict.fromkeys(("xtick.color", "ytick.color", "axes.labelcolor"), COLOURS["muted"][0])
_STYLE |= dict.fromkeys(("text.color", "axes.titlecolor"), COLOURS["ink"][0])
_VARIABLES = {light: f"var(--{name})" for name, (light, _) in COLOURS.items()}

Line = Literal["-", "--", ":"]
Spread = Literal["area", "edges", "mean", "top"]


@dataclass(frozen=True)
class Key:
    """An entry of a figure's legend: a name of ``COLOURS`` and how it is drawn."""

    label: str
    colour: str
    kind: Literal["line", "dash", "dots", "area", "faint", "tick", "point", "cross"] = "line"


@dataclass(frozen=True)
class Drawing:
    """A figure ready for the page: SVG text, its legend, and a sentence on how to read it."""

    title: str
    svg: str
    keys: tuple[Key, ...] = ()
    note: str = ""


@contextmanager
def style() -> Iterator[None]:
    """While it lasts, figures are made in the style of the report, whatever the user's own matplotlib settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def colour(name: str) -> str:
    """The colour to draw with; ``svg_of`` puts its CSS variable in its place."""
    return COLOURS[name][0]


def panels(
    heights_in: Sequence[float], left_in: float = 0.6, right_in: float = 0.35, gap_in: float = 0.42
) -> tuple[Figure, list[Axes]]:
    """A figure of axes one above the other, of these heights [in], with room for a title above each."""
    top, bottom = 0.3, 0.4
    height = top + sum(heights_in) + gap_in * (len(heights_in) - 1) + bottom
    figure = Figure(figsize=(_WIDTH_IN, height))
    axes, upper = [], height - top
    for panel in heights_in:
        box = (left_in, upper - panel, _WIDTH_IN - left_in - right_in, panel)
        axes.append(figure.add_axes((box[0] / _WIDTH_IN, box[1] / height, box[2] / _WIDTH_IN, box[3] / height)))
        upper -= panel + gap_in
    return figure, axes


def time_axis(axes: Axes, zone: str, first: pd.Timestamp, last: pd.Timestamp) -> None:
    """Time along x, from ``first`` to ``last``, local in the offset ``zone``."""
    locator = AutoDateLocator(minticks=4, maxticks=11)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    axes.set_xlim(_day_number(first), _day_number(last))
    axes.set_xlabel(f"{moment(first)} to {moment(last)}, {zone}", loc="left", fontsize=8)


def _day_number(instant: pd.Timestamp) -> float:
    return float(date2num(instant.to_datetime64()))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Spans:
    """Consecutive groups of steps: ``first`` (n_span,) is the index of each one's first step among ``steps``."""

    first: npt.NDArray[np.int64]
    steps: int

    @property
    def single(self) -> bool:
        return len(self.first) == self.steps

    def low(self, values: Floats) -> Floats:
        """Lowest value of each span along the first axis, missing ones left out."""
        lowest: Floats = np.fmin.reduceat(values, self.first, axis=0)
        return lowest

    def high(self, values: Floats) -> Floats:
        """Highest value of each span along the first axis, missing ones left out."""
        highest: Floats = np.fmax.reduceat(values, self.first, axis=0)
        return highest

    def mean(self, values: Floats) -> Floats:
        """Mean of each span along the first axis, missing values left out."""
        there = np.add.reduceat(np.isfinite(values).astype(np.float64), self.first, axis=0)
        sums = np.add.reduceat(np.where(np.isfinite(values), values, 0.0), self.first, axis=0)
        mean: Floats = sums / np.where(there > 0, there, np.nan)
        return mean


def spans(steps: int, step_s: float, most: int = _POINTS) -> Spans:
    """Groups of equal length, the last one maybe shorter: each step on its own where they are no more than twice
    ``most``, else at most ``most`` groups, of a length that divides a day or is whole days where that can be."""
    shortest = 1 if steps <= 2 * most else -(-steps // most)
    lengths = [hours * SECONDS_PER_HOUR / step_s for hours in _SPAN_HOURS] if step_s > 0.0 else []
    fitting = [int(length) for length in lengths if length >= shortest and length.is_integer()]
    return Spans(np.arange(0, steps, fitting[0] if shortest > 1 and fitting else shortest), steps)


def edges(time: pd.DatetimeIndex, end: pd.Timestamp, groups: Spans) -> Floats:
    """Day numbers at which the groups begin and, last, end; (n_span + 1,)."""
    begins: Floats = date2num(time[groups.first].to_numpy())  # type: ignore[no-untyped-call]
    return np.append(begins, _day_number(end))


def course(
    axes: Axes,
    at: Floats,
    groups: Spans,
    values: Floats,
    name: str,
    line: Line = "-",
    width: float = 1.3,
    spread: Spread = "area",
) -> None:
    """Values that hold for their step each, as steps. Where there are too many to show, ``spread`` tells what of each
    group: its range filled and its mean, only its range as two lines, only its mean, or only its highest value."""
    look: dict[str, Any] = {"color": colour(name), "linewidth": width, "linestyle": line}
    if groups.single:
        axes.step(at, np.append(values, values[-1]), where="post", **look)
        return
    middle = (at[:-1] + at[1:]) / 2.0
    if spread == "area":
        low, high = groups.low(values), groups.high(values)
        axes.fill_between(middle, low, high, color=colour(name), alpha=0.3, linewidth=0)
    shown = {"edges": (groups.low, groups.high), "top": (groups.high,)}.get(spread, (groups.mean,))
    for reduced in shown:
        axes.plot(middle, reduced(values), **look)


def level(axes: Axes, value: float, name: str = "muted", line: Line = "-", width: float = 0.8) -> None:
    """A horizontal line across the axes."""
    axes.axhline(value, color=colour(name), linewidth=width, linestyle=line)


def picture(axes: Axes, cells: npt.NDArray[np.float64], at: Floats) -> None:
    """RGBA cells (n_row, n_span, 4) as an image over the time ``at``, the first row on top, one pixel a cell."""
    extent = (float(at[0]), float(at[-1]), len(cells) - 0.5, -0.5)
    axes.imshow(cells, aspect="auto", interpolation="none", extent=extent)
    axes.grid(False)


def row_names(axes: Axes, names: Sequence[str], height_in: float) -> None:
    """Names of the rows of a picture or of bars; every n-th where the height [in] has no room for all."""
    every = -(-len(names) // max(1, int(height_in / 0.11)))
    axes.set_yticks(range(0, len(names), every), [shortened(name, NAME_LENGTH) for name in names[::every]])
    axes.tick_params(axis="y", length=0, labelsize=7.5)


def colour_scale(axes: Axes, scale: Colormap, norm: Normalize, unit: str) -> None:
    """What the colours of a picture mean, as a bar to its right."""
    bar = axes.inset_axes((1.015, 0.0, 0.014, 1.0))
    steps = np.linspace(0.0, 1.0, 128)[::-1, None]
    bar.imshow(scale(steps), aspect="auto", interpolation="none", extent=(0.0, 1.0, norm.vmin or 0.0, norm.vmax or 1.0))
    bar.grid(False)
    bar.set_xticks([])
    bar.yaxis.tick_right()
    bar.tick_params(axis="y", labelsize=7.5, length=2)
    bar.set_title(unit, fontsize=7.5, loc="left")


def svg_of(figure: Figure, salt: str, describes: str) -> str:
    """The figure as SVG for a page: no document head, no links, ids that are unique to ``salt``.

    ``describes`` is read to those who do not see it.
    """
    written = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}), warnings.catch_warnings():
        # matplotlib only measures the text; the browser draws it, in fonts that know more signs than matplotlib's.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(written, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r": (#[0-9a-f]{6})\b", lambda match: f": {_VARIABLES.get(match[1], match[1])}", svg)
    view = re.search(r'viewBox="[^"]*"', svg)
    box = view[0] if view else ""
    return re.sub(r"<svg[^>]*>", lambda _: f'<svg {box} role="img" aria-label="{_attribute(describes)}">', svg, count=1)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
