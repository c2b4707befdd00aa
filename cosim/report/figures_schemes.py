"""The figure of a comparison of schemes: what each costs, and what violations it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cosim.errors import ResultError
from cosim.io.disk import reason
from cosim.report.canvas import Drawing, Key, colour, style, svg_of
from cosim.report.compare_schemes import Left, SchemeRun, paid_eur

_PARTIES: Final = (("DSO", "blue"), ("TSO", "orange"), ("BRP", "purple"))
_CAUSES: Final = (
    ("left by the plan", "sky"), ("nobody buys", "none"), ("bought unseen", "red"), ("unexplained", "ink"),
    ("not foreseeable", "green"),
)  # fmt: skip
_WIDTH_IN, _ROW_IN, _TOP_IN, _BOTTOM_IN = 10.0, 0.2, 0.3, 0.35
_NAMES, _GAP, _RIGHT = 0.19, 0.03, 0.02


def cost_and_violations(runs: Sequence[SchemeRun]) -> Figure:
    """Bars beside each other, a row for each scheme that reached its end."""
    ended = [run for run in runs if run.coordination is not None and run.left is not None]
    body = _ROW_IN * max(len(ended), 1)
    height = _TOP_IN + body + _BOTTOM_IN
    figure = Figure(figsize=(_WIDTH_IN, height))
    width = (1.0 - _NAMES - _GAP - _RIGHT) / 2.0
    cost, left = (
        figure.add_axes((x, _BOTTOM_IN / height, width, body / height)) for x in (_NAMES, _NAMES + width + _GAP)
    )
    for k, run in enumerate(ended):
        assert run.coordination is not None
        assert run.left is not None
        _bars(cost, k, [(paid_eur(run.coordination, role), name) for role, name in _PARTIES])
        _bars(left, k, list(zip(_counts(run.left), (name for _, name in _CAUSES), strict=True)))
    for axes in (cost, left):
        axes.set_ylim(max(len(ended), 1) - 0.5, -0.5)
        axes.set_yticks(range(len(ended)), [run.scheme for run in ended] if axes is cost else [""] * len(ended))
        axes.tick_params(axis="y", length=0, labelsize=8)
        axes.grid(False, axis="y")
    cost.axvline(0.0, color=colour("muted"), linewidth=0.8)
    cost.set_title("paid by DSO (blue), TSO (orange), BRP (purple) [EUR]")
    left.set_title("MTUs with violations left")
    counts = [_counts(run.left) for run in ended if run.left is not None]
    seen = [each for k, each in enumerate(_CAUSES) if any(count[k] for count in counts)]
    if seen:
        patches = [Patch(color=colour(name), label=label) for label, name in seen]
        left.legend(handles=patches, loc="lower right", framealpha=0.85, edgecolor="none", fontsize=8)
    return figure


def _bars(axes: Axes, row: int, parts: Sequence[tuple[float, str]]) -> None:
    ends = {True: 0.0, False: 0.0}
    for value, name in parts:
        side = value >= 0.0
        axes.barh(row, value, left=ends[side], height=0.7, color=colour(name))
        ends[side] += value


def _counts(left: Left) -> tuple[float, ...]:
    return left.planned, left.unserved, left.unseen, left.unexplained, left.unforeseeable


def cost_drawing(runs: Sequence[SchemeRun]) -> Drawing:
    """The same for a page. Made in `canvas.style`."""
    title = "Cost by party and violations left under each scheme"
    keys = tuple(Key(role, name, "area") for role, name in _PARTIES)
    return Drawing("Cost and violations", svg_of(cost_and_violations(runs), "schemes", title), keys)


def write_svg(runs: Sequence[SchemeRun], path: Path) -> None:
    """The figure as a file; the same runs give the same bytes. Raises ResultError if it cannot be written."""
    with style(), matplotlib.rc_context({"svg.hashsalt": path.stem}):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            cost_and_violations(runs).savefig(path, facecolor="white", metadata={"Date": None})
        except OSError as error:
            raise ResultError(f"{path}: cannot be written: {reason(error)}") from error
