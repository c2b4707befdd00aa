"""Figures of a feeder that grows: what is bought, what it costs, and what is left, by stage and scheme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from cosim.errors import ResultError
from cosim.io.disk import reason
from cosim.report.canvas import SERIES, Drawing, Key, colour, panels, style, svg_of
from cosim.report.growth import Growth, over_stages

_PANEL_IN = 1.55
_LEAST: Final = 1e-6
_WIDTH: Final = 0.8
"""Of the bars of a stage together [stages]."""


@dataclass(frozen=True)
class Panel:
    """Bars of the figures ``above`` the axis, and of those ``below`` it as negative; if ``marked`` a mark of what
    ``without_`` in front of the same names tells. Figures are divided by ``unit``."""

    title: str
    above: str
    below: str = ""
    unit: float = 1.0
    marked: bool = False


FIGURES: Final = {
    "bought": (
        "What is bought in a year",
        (
            Panel("by the DSO at the feeder: up (above 0) and down (below 0) [MWh]", "dso_up_kwh", "dso_down_kwh", 1e3),
            Panel("by the TSO at the feeder: up and down [MWh]", "tso_up_kwh", "tso_down_kwh", 1e3),
            Panel("at transmission: up and down [MWh]", "t_up_kwh", "t_down_kwh", 1e3),
        ),
    ),
    "cost": (
        "What it costs in a year",
        (
            Panel("paid by the DSO [1000 EUR]", "dso_eur", unit=1e3),
            Panel("paid by the TSO [1000 EUR]", "tso_eur", unit=1e3),
            Panel("paid to aggregators of the feeder [1000 EUR]", "aggregators_eur", unit=1e3),
        ),
    ),
    "left": (
        "What is left",
        (
            Panel("time with a violation in a year [h]", "violation_h", marked=True),
            Panel("need of the system that is not met in a year [MWh]", "short_kwh", unit=1e3),
            Panel(
                "peak at the head: import (above 0) and export (below 0) [kW]",
                "peak_import_kw",
                "peak_export_kw",
                marked=True,
            ),
        ),
    ),
}
"""Title and panels of each figure, by the name of its file."""


def grown(found: Growth, shown: Sequence[Panel], legend: bool) -> Figure:
    """Panels one above the other, in each a group of bars for each stage, a bar for each scheme."""
    figure, axes = panels([_PANEL_IN] * len(shown))
    for each, panel in zip(axes, shown, strict=True):
        _bars(each, found, panel)
        each.set_title(panel.title)
    if legend:
        handles: list[Patch | Line2D] = [Patch(color=colour(name), label=scheme) for scheme, name in _colours(found)]
        if any(panel.marked for panel in shown):
            handles.append(Line2D([], [], color=colour("ink"), linewidth=1.4, label="without activation"))
        axes[-1].legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(0.0, -0.14),
            ncols=len(handles),
            frameon=False,
            borderpad=0.0,
        )
    return figure


def _colours(found: Growth) -> list[tuple[str, str]]:
    return [(scheme, SERIES[k % len(SERIES)]) for k, scheme in enumerate(found.schemes)]


def _bars(axes: Axes, found: Growth, panel: Panel) -> None:
    at, schemes = np.arange(len(found.stages)), found.schemes
    width = _WIDTH / max(len(schemes), 1)
    for k, (scheme, name) in enumerate(_colours(found)):
        middle = at - 0.5 * _WIDTH + (k + 0.5) * width
        for figure, sign in ((panel.above, 1.0), (panel.below, -1.0)):
            if figure:
                values = sign * np.array(over_stages(found, scheme, figure)) / panel.unit
                axes.bar(middle, values, 0.92 * width, color=colour(name))
                if panel.marked:
                    idle = sign * np.array(over_stages(found, scheme, f"without_{figure}")) / panel.unit
                    axes.hlines(idle, middle - 0.5 * width, middle + 0.5 * width, color=colour("ink"), linewidth=1.4)
    axes.axhline(0.0, color=colour("muted"), linewidth=0.8)
    axes.set_xticks(at, [stage.name for stage in found.stages])
    axes.set_xlim(-0.6, len(at) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.grid(False, axis="x")
    axes.margins(y=0.1)
    if max(map(abs, axes.dataLim.intervaly)) < _LEAST:
        axes.set_ylim(0.0, 1.0)  # nothing but rounding


def drawings(found: Growth) -> list[Drawing]:
    """The figures for a page. Made in `canvas.style`."""
    keys = tuple(Key(scheme, name, "area") for scheme, name in _colours(found))
    made = []
    for name, (title, shown) in FIGURES.items():
        svg = svg_of(grown(found, shown, legend=False), f"growth-{name}", title)
        mark = (Key("without activation", "ink", "line"),) if any(panel.marked for panel in shown) else ()
        made.append(Drawing(title, svg, (*keys, *mark)))
    return made


def write_figures(found: Growth, folder: Path) -> list[Path]:
    """Each figure as SVG and PNG; the same figures give the same bytes. Raises ResultError if one cannot be written."""
    paths = []
    for name, (_, shown) in FIGURES.items():
        with style(), matplotlib.rc_context({"svg.hashsalt": name}):
            figure = grown(found, shown, legend=True)
            for path in (folder / f"growth_{name}.svg", folder / f"growth_{name}.png"):
                metadata = {"Date": None} if path.suffix == ".svg" else None
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    figure.savefig(path, facecolor="white", dpi=120, metadata=metadata)
                except OSError as error:
                    raise ResultError(f"{path}: cannot be written: {reason(error)}") from error
                paths.append(path)
    return paths
