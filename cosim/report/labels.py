"""Names beside points of a picture, where they cover nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from cosim.domain.frames import Floats

_DISTANCES = (5.0, 9.0, 14.0, 20.0, 28.0, 38.0, 50.0)
_LEADER = 12.0
_PAPER = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.6}
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8))
_SAMPLE_PT = 3.0
_RING = np.array([(0, 0), *_SIDES[:4], *((0.7 * x, 0.7 * y) for x in (-1, 1) for y in (-1, 1))])


class Labels:
    """Places labels one after the other; the limits of the axes must be final.

    No label shall cover the lines ``segments`` (n, 2, 2) [data], nor the ``signs`` (n, 3): place [data], reach [pt].
    """

    def __init__(self, axes: Axes, segments: Floats, signs: Floats) -> None:
        self._axes, self._figure = axes, axes.get_figure(root=True)
        assert self._figure is not None
        canvas: Any = FigureCanvasAgg(self._figure)
        self._renderer = canvas.get_renderer()
        self._pt = self._figure.dpi / 72.0
        to_display = axes.transData.transform
        ends = to_display(segments.reshape(-1, 2)).reshape(-1, 2, 2)
        ring = signs[:, None, 2:] * self._pt * _RING
        around = (to_display(signs[:, :2])[:, None, :] + ring).reshape(-1, 2)
        self._points = np.concatenate((_sampled(ends, _SAMPLE_PT * self._pt), around))
        self._boxes: list[Floats] = []
        self._bounds = np.asarray(axes.get_window_extent(self._renderer).extents)

    def put(
        self, text: str, at: tuple[float, float], size: float, colour: str, must: bool = False, **look: Any
    ) -> bool:
        """A label near the point ``at`` [data]; what ``must`` be there goes where it covers least, with a leader if
        that is far, all else only where it covers nothing. Tells whether it is there."""
        label = self._axes.annotate(
            text, at, (0, 0), textcoords="offset points", fontsize=size, color=colour, ha="center", va="center",
            bbox=_PAPER, zorder=9, **look,
        )  # fmt: skip
        extent = label.get_window_extent(self._renderer)
        half = np.array([extent.width, extent.height]) / 2.0 + np.array([1.5, 0.5]) * self._pt
        anchor = self._axes.transData.transform(at)
        best, cost = None, np.inf
        for distance in _DISTANCES if must else _DISTANCES[:2]:
            for side in _SIDES:
                centre = anchor + np.array(side) * (distance * self._pt + half)
                covered = self._covered(centre, half)
                if covered + (0.02 * distance if must else 0.0) < cost:
                    best, cost = (centre, distance), covered + (0.02 * distance if must else 0.0)
            if cost < 1.0:
                break
        if best is None or (not must and cost >= 1.0):
            label.remove()
            return False
        self._settle(label, best[0], anchor, half, best[1])
        return True

    def _covered(self, centre: Floats, half: Floats) -> float:
        """How much a box covers: points of lines and signs, and other labels and the outside as very many."""
        low, high = centre - half, centre + half
        points = int(((self._points > low) & (self._points < high)).all(axis=1).sum())
        apart = [bool((box[2:] < low).any() or (box[:2] > high).any()) for box in self._boxes]
        outside = bool((low < self._bounds[:2]).any() or (high > self._bounds[2:]).any())
        return points + 1000.0 * (len(apart) - sum(apart)) + 500.0 * outside

    def _settle(self, label: Any, centre: Floats, anchor: Floats, half: Floats, distance: float) -> None:
        label.set_position(tuple((centre - anchor) / self._pt))
        self._boxes.append(np.concatenate((centre - half, centre + half)))
        if distance > _LEADER:
            near = np.clip(anchor, centre - half, centre + half)
            ends = self._axes.transData.inverted().transform(np.array([anchor, near]))
            self._axes.plot(*ends.T, color=label.get_color(), linewidth=0.6, zorder=2.5)


def _sampled(ends: Floats, every: float) -> Floats:
    """Points on lines (n, 2, 2), about ``every`` pixels apart."""
    if len(ends) == 0:
        return np.empty((0, 2))
    counts = np.maximum(1, np.ceil(np.hypot(*(ends[:, 1] - ends[:, 0]).T) / every)).astype(int) + 1
    line = np.repeat(np.arange(len(ends)), counts)
    share = np.concatenate([np.linspace(0.0, 1.0, count) for count in counts])[:, None]
    points: Floats = ends[line, 0] * (1.0 - share) + ends[line, 1] * share
    return points
