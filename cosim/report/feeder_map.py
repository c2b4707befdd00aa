"""The picture of a feeder: its buses and branches, coloured by the voltages of its base case."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, ListedColormap, Normalize, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cosim.domain.frames import Floats
from cosim.errors import CosimError, Fault, InputError
from cosim.grid.inventory import Inventory
from cosim.io.disk import reason
from cosim.report.bus_layout import Placement, place
from cosim.report.canvas import colour, colour_scale, style
from cosim.report.labels import Labels
from cosim.report.symbols import sign

_METADATA: dict[str, dict[str, Any]] = {
    ".svg": {"Date": None},
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
}
"""Kinds of picture, and what would make two pictures of the same feeder differ."""

_WIDTH_IN, _LEFT_IN, _RIGHT_IN, _TOP_IN, _BOTTOM_IN = 10.0, 0.25, 0.9, 0.7, 0.6
_PLOT_IN = _WIDTH_IN - _LEFT_IN - _RIGHT_IN
_HEIGHTS_IN = (1.6, 10.5)
_DEGREES = 5.0  # a feeder whose coordinates look like degrees spans less
_ROW_IN = 0.42
_PHASES_PT = {1: 0.9, 2: 1.7, 3: 2.8}
_CURRENT_PT = (0.9, 4.0)
_GREY = 7
_ZONES = [shade for k, shade in enumerate(matplotlib.color_sequences["tab10"]) if k != _GREY]
_NAMED = 150  # buses; above, only the ones that matter are named
_SPAN_PU = 0.005  # the colours span at least this
_SIGN_PT = {"transformer": 15.0, "regulator": 14.0, "switch": 5.5, "source": 11.0, "capacitor": 21.0}


@dataclass(frozen=True)
class _Frame:
    """The part of the plane that is shown, its height on paper, and the length of a unit of y over one of x."""

    low: Floats
    high: Floats
    height_in: float
    ratio: float


@dataclass(frozen=True)
class _Map:
    """What is drawn, and where; ``point_pt`` is the diameter of a bus."""

    inventory: Inventory
    placement: Placement
    vm_pu: Floats
    scale: Colormap
    norm: Normalize
    point_pt: float

    @property
    def xy(self) -> Floats:
        return self.placement.xy

    def lines(self, kinds: set[str] | None = None, is_open: bool = False) -> list[int]:
        """Edges of these kinds, by index."""
        edges = enumerate(self.inventory.edges)
        return [k for k, edge in edges if edge.is_open == is_open and (kinds is None or edge.kind in kinds)]

    def course(self, k: int) -> Floats:
        """Corners (3, 2) of an edge: straight on a map; in a tree first along the layer, then to the next one."""
        edge = self.inventory.edges[k]
        first, last = self.xy[edge.start], self.xy[edge.end]
        parent = self.placement.tree.parent
        if self.placement.is_map or (edge.start != parent[edge.end] and edge.end != parent[edge.start]):
            return np.array([first, (first + last) / 2.0, last])
        near, far = (first, last) if first[0] < last[0] else (last, first)
        return np.array([near, (near[0], far[1]), far])


def draw(inventory: Inventory, out: Path) -> None:
    """Writes the picture of a feeder; its suffix tells what kind: .png, .svg or .pdf. The same feeder gives the same
    bytes.

    Buses stand at their coordinates if at least half of them have some, else in layers from the source. Colours are
    the voltages of the lowest phase [pu] with the powers of the script. Raises InputError for another suffix,
    CosimError if the picture cannot be written.
    """
    suffix = out.suffix.lower()
    if suffix not in _METADATA:
        raise InputError(Fault("no kind of picture", value=str(out), allowed=", ".join(sorted(_METADATA))))
    with style(), matplotlib.rc_context({"svg.hashsalt": "cosim"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        try:
            _figure(inventory).savefig(out, dpi=200, facecolor="white", metadata=_METADATA[suffix])
        except OSError as error:
            raise CosimError(f"{out}: cannot write the picture: {reason(error)}") from error


def _figure(inventory: Inventory) -> Figure:
    placement = place(inventory.xy, inventory.edges, inventory.source)
    frame = _frame(placement)
    scale, norm = _colours(inventory.vm_pu)
    shown = _Map(inventory, placement, inventory.vm_pu, scale, norm, _point_pt(frame, len(inventory.buses)))
    figure, axes = _axes(frame, placement.is_map)
    _write_title(axes, shown)
    _zones(axes, shown)
    _branches(axes, shown)
    _buses(axes, shown)
    signs = _signs(axes, shown)
    _names(axes, shown, signs)
    _legend(axes, shown, frame.height_in)
    return figure


def _colours(vm_pu: Floats) -> tuple[Colormap, Normalize]:
    shades = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.93, 256)))
    scale = shades.with_extremes(bad=colour("none"))
    known = vm_pu[np.isfinite(vm_pu)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.95, 1.05)
    more = max(0.0, _SPAN_PU - (high - low)) / 2.0
    return scale, Normalize(low - more, high + more)


def _frame(placement: Placement) -> _Frame:
    """What holds all buses, as high as they need."""
    low, high = placement.xy.min(axis=0), placement.xy.max(axis=0)
    if placement.is_map:
        ratio, margin = _ratio(low, high), np.full(2, 0.05 * (high - low).max())
        span = high - low + 2.0 * margin
        height_in = _PLOT_IN * span[1] / span[0] * ratio
    else:
        ratio, margin = 1.0, np.array([0.07 * max(1.0, high[0] - low[0]), 0.8])
        height_in = _ROW_IN * (high[1] - low[1] + 2.0)
    return _Frame(low - margin, high + margin, float(np.clip(height_in, *_HEIGHTS_IN)), ratio)


def _ratio(low: Floats, high: Floats) -> float:
    """More than 1 for degrees of longitude and latitude."""
    is_degrees = (np.abs([low, high]) <= (180.0, 85.0)).all() and (high - low).max() < _DEGREES
    return float(1.0 / np.cos(np.radians((low[1] + high[1]) / 2.0))) if is_degrees else 1.0


def _point_pt(frame: _Frame, n_bus: int) -> float:
    """Smaller where buses are many."""
    return float(np.clip(0.16 * 72.0 * np.sqrt(_PLOT_IN * frame.height_in / n_bus), 1.8, 8.0))


def _axes(frame: _Frame, is_map: bool) -> tuple[Figure, Axes]:
    total_in = frame.height_in + _TOP_IN + _BOTTOM_IN
    figure = Figure(figsize=(_WIDTH_IN, total_in))
    box = (_LEFT_IN / _WIDTH_IN, _BOTTOM_IN / total_in, _PLOT_IN / _WIDTH_IN, frame.height_in / total_in)
    axes = figure.add_axes(box)
    axes.set_xlim(frame.low[0], frame.high[0])
    axes.set_ylim(frame.low[1], frame.high[1])
    if is_map:
        axes.set_aspect(frame.ratio, adjustable="datalim")
        axes.apply_aspect()
    axes.axis("off")
    return figure, axes


def _write_title(axes: Axes, shown: _Map) -> None:
    axes.set_title(_title(shown.inventory), fontsize=10, pad=22)
    axes.annotate(
        _subtitle(shown), (0.0, 1.0), (0.0, 9.0), "axes fraction", textcoords="offset points", fontsize=8,
        color=colour("muted"), annotation_clip=False,
    )  # fmt: skip


def _title(inventory: Inventory) -> str:
    lengths = [edge.length_km for edge in inventory.edges if edge.kind == "line"]
    known = f" of {sum(lengths):.3g} km" if lengths and np.isfinite(lengths).all() else ""
    parts = [_count(len(inventory.buses), "bus", "es"), _count(len(lengths), "line") + known]
    parts.append(_count(len(inventory.transformers), "transformer"))
    return f"{inventory.feeder.name}: {', '.join(parts)}"


def _count(number: int, what: str, plural: str = "s") -> str:
    return f"{number} {what}{plural if number != 1 else ''}"


def _subtitle(shown: _Map) -> str:
    inventory = shown.inventory
    said = f"No voltages: {inventory.failure}"
    if inventory.base is not None:
        said = "Colours: voltage of the lowest phase, with the powers of the script"
    return said if shown.placement.is_map else f"{said}. No coordinates: x counts the branches from the source"


def _zones(axes: Axes, shown: _Map) -> None:
    """A pale band under the lines and buses of each zone."""
    width = 7.0 + shown.point_pt
    for zone, members in enumerate(_members(shown.inventory)):
        pale = 0.82 + 0.18 * _zone_rgb(zone)
        x, y = shown.xy[sorted(members)].T
        axes.scatter(x, y, s=width**2, linewidths=0, color=pale, zorder=1)
        inside = [
            shown.course(k)
            for k, edge in enumerate(shown.inventory.edges)
            if not edge.is_open and edge.start in members and edge.end in members
        ]
        axes.add_collection(LineCollection(inside, linewidths=width, capstyle="round", color=pale, zorder=1))


def _zone_rgb(zone: int) -> Floats:
    return np.array(to_rgb(_ZONES[zone % len(_ZONES)]))


def _zone_ink(zone: int) -> str:
    red, green, blue = 0.8 * _zone_rgb(zone)
    return to_hex((red, green, blue))


def _members(inventory: Inventory) -> list[set[int]]:
    """Buses of each zone, by index; those that the circuit does not have are left out."""
    index = {bus: k for k, bus in enumerate(inventory.buses)}
    zones = inventory.feeder.file.zones.values()
    return [{index[bus.upper()] for bus in zone.buses if bus.upper() in index} for zone in zones]


def _branches(axes: Axes, shown: _Map) -> None:
    edges = shown.inventory.edges
    closed, opened = shown.lines(), shown.lines(is_open=True)
    pairs = np.array([(edge.start, edge.end) for edge in edges], dtype=np.int64).reshape(-1, 2)
    if closed:
        courses = LineCollection([shown.course(k) for k in closed], cmap=shown.scale, norm=shown.norm, zorder=2)
        courses.set_array(np.ma.masked_invalid(shown.vm_pu[pairs[closed]].mean(axis=1)))
        courses.set_linewidth(_widths_pt(shown.inventory)[closed].tolist())
        courses.set_capstyle("round")
        axes.add_collection(courses)
    if opened:
        dashed = [shown.course(k) for k in opened]
        axes.add_collection(LineCollection(dashed, colors=colour("muted"), linestyles="--", linewidths=1.0, zorder=2))


def _by_phases(inventory: Inventory) -> bool:
    return len({edge.phases for edge in inventory.edges if edge.kind == "line"}) > 1


def _widths_pt(inventory: Inventory) -> Floats:
    """Width of each edge: those of more phases are thicker; where all lines have the same, those with more current."""
    edges, base = inventory.edges, inventory.base
    if _by_phases(inventory):
        return np.array([_PHASES_PT.get(edge.phases, _PHASES_PT[3]) for edge in edges])
    if base is None:
        return np.full(len(edges), _PHASES_PT[2])
    highest_a = _highest_a(inventory)
    share = np.nan_to_num(base.edge_a / highest_a) if highest_a > 0.0 else np.zeros(len(edges))
    thin, thick = _CURRENT_PT
    widths: Floats = thin + (thick - thin) * np.sqrt(np.clip(share, 0.0, 1.0))
    return widths


def _highest_a(inventory: Inventory) -> float:
    """Current of the line that carries most [A]; 0 if there is none."""
    assert inventory.base is not None
    lines = [k for k, edge in enumerate(inventory.edges) if edge.kind == "line"]
    return float(np.nanmax(inventory.base.edge_a[lines], initial=0.0))


def _buses(axes: Axes, shown: _Map) -> None:
    edge = 0.4 if len(shown.xy) <= _NAMED else 0.0
    axes.scatter(
        shown.xy[:, 0], shown.xy[:, 1], s=shown.point_pt**2, c=shown.vm_pu, cmap=shown.scale, norm=shown.norm,
        plotnonfinite=True, edgecolors="white", linewidths=edge, zorder=3,
    )  # fmt: skip
    if shown.inventory.base is not None:
        colour_scale(axes, shown.scale, shown.norm, "pu")


def _signs(axes: Axes, shown: _Map) -> Floats:
    """Signs of the source, transformers, regulators, switches and capacitors; gives back where they are and
    their reach [pt] (n, 3)."""
    places = []
    for kind, angle, at, is_open in _sign_places(axes, shown):
        look: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": colour("ink"), "markeredgewidth": 1.0}
        if kind == "switch" and not is_open:
            look["markerfacecolor"] = colour("ink")
        axes.plot(*at, linestyle="none", marker=sign(kind, angle), markersize=_SIGN_PT[kind], zorder=5, **look)
        reach = _SIGN_PT[kind] / 2.0
        places.append((*at, reach) if kind != "capacitor" else (*_below(axes, at, 0.7 * reach), 0.5 * reach))
    return np.array(places).reshape(-1, 3)


def _below(axes: Axes, at: Floats, by_pt: float) -> Floats:
    """The place [data] so many points below another one."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    shifted: Floats = axes.transData.transform(at) - (0.0, by_pt * figure.dpi / 72.0)
    return np.asarray(axes.transData.inverted().transform(shifted))


def _sign_places(axes: Axes, shown: _Map) -> Iterator[tuple[str, float, Floats, bool]]:
    """Kind, angle [rad], place and whether open of each sign; elements between the same buses have one together."""
    inventory = shown.inventory
    index = {bus: k for k, bus in enumerate(inventory.buses)}
    for bus in dict.fromkeys(capacitor.bus for capacitor in inventory.capacitors):
        yield "capacitor", 0.0, shown.xy[index[bus]], False
    drawn = set()
    for k, edge in enumerate(inventory.edges):
        if edge.kind in _SIGN_PT and (key := (edge.kind, *sorted((edge.start, edge.end)))) not in drawn:
            drawn.add(key)
            corners = shown.course(k)
            before, after = corners[1:] if not shown.placement.is_map else corners[::2]
            across = np.diff(axes.transData.transform([before, after]), axis=0)[0]
            yield edge.kind, float(np.arctan2(*across[::-1])), (before + after) / 2.0, edge.is_open
    yield "source", 0.0, shown.xy[inventory.source], False


def _names(axes: Axes, shown: _Map, signs: Floats) -> None:
    inventory, xy = shown.inventory, shown.xy
    courses = np.array([shown.course(k) for k in range(len(inventory.edges))]).reshape(-1, 3, 2)
    segments = np.concatenate((courses[:, :2], courses[:, 1:]))
    points = np.column_stack((xy, np.full(len(xy), shown.point_pt / 2.0 + 0.5)))
    labels = Labels(axes, segments, np.concatenate((points, signs)))
    bold: dict[str, Any] = {"must": True, "fontweight": "bold"}
    for zone, (name, members) in enumerate(zip(inventory.feeder.file.zones, _members(inventory), strict=True)):
        if members:
            middle = xy[sorted(members)].mean(axis=0)
            labels.put(name, _near(middle, xy[sorted(members)]), 9.5, _zone_ink(zone), **bold)
    said = {inventory.source: [inventory.buses[inventory.source]]}
    if inventory.base is not None:
        for word, bus in (("lowest", int(np.nanargmin(shown.vm_pu))), ("highest", int(np.nanargmax(shown.vm_pu)))):
            said.setdefault(bus, [inventory.buses[bus]]).append(f"{word} {shown.vm_pu[bus]:.4f} pu")
    for bus, parts in said.items():
        labels.put(", ".join(parts), _point(xy[bus]), 8.5, colour("ink"), **bold)
    for bus in range(len(xy)) if len(xy) <= _NAMED else ():
        if bus not in said:
            labels.put(inventory.buses[bus], _point(xy[bus]), 7.0, colour("muted"))


def _near(place: Floats, points: Floats) -> tuple[float, float]:
    """The one of the points that is nearest to a place."""
    return _point(points[int(np.argmin(np.hypot(*(points - place).T)))])


def _point(place: Floats) -> tuple[float, float]:
    return float(place[0]), float(place[1])


def _legend(axes: Axes, shown: _Map, height_in: float) -> None:
    axes.legend(
        handles=list(_handles(shown)), loc="upper left", bbox_to_anchor=(0.0, -0.12 / height_in), ncols=9,
        frameon=False, fontsize=8, borderpad=0.0, borderaxespad=0.0, handletextpad=0.6, columnspacing=1.6,
    )  # fmt: skip


def _handles(shown: _Map) -> Iterator[Line2D]:
    inventory = shown.inventory
    look: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": colour("ink"), "linestyle": "none"}
    yield Line2D([], [], marker=sign("source"), markersize=9, label="source", **look)
    for kind in ("transformer", "regulator", "capacitor"):
        there = inventory.capacitors if kind == "capacitor" else shown.lines({kind})
        if there:
            yield Line2D([], [], marker=sign(kind), markersize=12, label=kind, **look)
    if shown.lines({"switch"}):
        closed = look | {"markerfacecolor": colour("ink")}
        yield Line2D([], [], marker=sign("switch"), markersize=5.5, label="switch", **closed)
    if shown.lines(is_open=True):
        opened = look | {"linestyle": "--", "color": colour("muted"), "linewidth": 1.0}
        yield Line2D([], [], marker=sign("switch"), markersize=5.5, label="open", **opened)
    ink = colour("muted")
    if _by_phases(inventory):
        for phases, width in _PHASES_PT.items():
            if any(edge.phases == phases for edge in inventory.edges if edge.kind == "line"):
                yield Line2D([], [], color=ink, linewidth=width, label=f"{phases}-phase")
    elif inventory.base is not None and shown.lines({"line"}):
        for width, current_a in zip(_CURRENT_PT[::-1], (_highest_a(inventory), 0.0), strict=True):
            yield Line2D([], [], color=ink, linewidth=width, label=f"{current_a:.3g} A")
