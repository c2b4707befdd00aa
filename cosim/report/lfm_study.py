"""Figures of the 12-bus market study (scenarios/lfm12_study.py) as SVG files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cosim.domain.frames import Floats
from cosim.errors import ResultError
from cosim.io.disk import reason
from cosim.io.tables import Table
from cosim.report.canvas import SERIES, colour, level, panels, style

LIMIT_A: Final = 117.0
_ERRORS: Final = {
    "corners": "at either end of the band, independent",
    "uniform": "uniform in the band, independent",
    "normal": "normal, 5 % outside, independent",
    "correlated": "normal, 5 % outside, correlation 0.8",
}
_LEAST_PERCENT: Final = 0.005
_HIGHEST_KW: Final = 75.0
Tables = Mapping[str, Table]


def draw_study(tables: Tables, folder: Path) -> list[Path]:
    """Writes one SVG for each figure into ``folder``; the same tables give the same bytes. Returns the paths.

    Raises ResultError if one cannot be written.
    """
    figures: dict[str, Callable[[Tables], Figure]] = {
        "price_of_robustness": price_of_robustness,
        "bands": half_bands,
        "polygons": polygons,
        "ellipsoids": ellipsoids,
        "overloads": overloads,
    }
    paths = []
    for name, draw in figures.items():
        path = folder / f"{name}.svg"
        with style(), matplotlib.rc_context({"svg.hashsalt": name}):
            try:
                draw(tables).savefig(path, facecolor="white", metadata={"Date": None})
            except OSError as error:
                raise ResultError(f"{path}: cannot be written: {reason(error)}") from error
        paths.append(path)
    return paths


def price_of_robustness(tables: Tables) -> Figure:
    """Over the budget of uncertainty: what is bought, how often true errors violate the limit, and the current at the
    worst corner."""
    text = "budget of uncertainty Gamma: how many of the seven forecasts may err fully at once"
    return _price(tables["gammas"], "gamma", text)[0]


def half_bands(tables: Tables) -> Figure:
    """The same over the half-band that is planned for, the true one being 5 %."""
    text = "half-band planned for [% of the flexible loads' power; three times that for the others]; true: 5 %"
    figure, drawn = _price(tables["bands"], "half_band_percent", text)
    for axes in drawn:
        axes.axvline(5.0, color=colour("muted"), linewidth=0.8, linestyle=":")
    return figure


def _price(table: Table, x: str, text: str) -> tuple[Figure, list[Axes]]:
    figure, drawn = panels([2.0, 2.2, 1.8])
    kw, rate, amperes = drawn
    _bought(kw, table, x)
    _rates(rate, table.where(planes=4096, stage="checked"), x)
    _currents(amperes, table, x)
    rate.set_xlim(kw.get_xlim())
    amperes.set_xlim(kw.get_xlim())
    amperes.set_xlabel(text, loc="left")
    return figure, drawn


def _bought(axes: Axes, table: Table, x: str) -> None:
    for name, planes, stage, label, line in (
        ("blue", 32, "linear", "32 planes (the study)", "-"),
        ("red", 4096, "linear", "circle, linear model only", "--"),
        ("red", 4096, "checked", "circle, after the AC loop", "-"),
    ):
        rows = table.where(planes=planes, stage=stage)
        axes.plot(_of(rows, x), _of(rows, "bought_kw"), line, color=colour(name), linewidth=1.3, label=label)
    axes.set_title("flexibility bought [kW] at 1 EUR/kWh")
    axes.tick_params(axis="x", labelbottom=False)
    _legend(axes, "upper left")


def _rates(axes: Axes, table: Table, x: str) -> None:
    """On a logarithmic scale; what never happened in the samples is not shown."""
    samples = {kind: _of(table, f"{kind}_ac_percent") for kind in _ERRORS}
    for (kind, percent), name in zip(samples.items(), SERIES, strict=False):
        seen = np.where(percent > 0.0, percent, np.nan)
        axes.semilogy(_of(table, x), seen, "o-", color=colour(name), ms=3, linewidth=1.2, label=_ERRORS[kind])
    axes.set_ylim(_LEAST_PERCENT, 30.0)
    axes.set_yticks([0.01, 0.1, 1.0, 10.0], ["0.01", "0.1", "1", "10"])
    axes.set_title("sampled errors that take 2-3 above 117 A [%], by power flow, after the AC loop; none: not shown")
    axes.minorticks_off()
    axes.tick_params(axis="x", labelbottom=False)
    _legend(axes, "lower left" if x == "gamma" else "center right")


def _currents(axes: Axes, table: Table, x: str) -> None:
    rows = table.where(planes=4096, stage="checked")
    axes.plot(_of(rows, x), _of(rows, "own_ac_a"), color=colour("blue"), label="worst of the errors planned for")
    axes.plot(_of(rows, x), _of(rows, "box_ac_a"), color=colour("red"), label="all true errors at their bounds")
    level(axes, LIMIT_A, "ink", "--")
    axes.set_title("current of 2-3 [A] by power flow at the worst corner, after the AC loop; dashed: 117 A")
    _legend(axes, "lower right" if x == "gamma" else "lower left")


def polygons(tables: Tables) -> Figure:
    """By the number of planes: what is bought on the linear model, and after the AC loop."""
    figure, (axes,) = panels([2.6])
    for name, kind, label in (
        ("blue", "inscribed", "inside the circle (safe)"),
        ("green", "best_fit", "best fit"),
        ("purple", "circumscribed", "outside"),
    ):
        rows = tables["polygons"].where(polygon=kind)
        axes.plot(_of(rows, "planes"), _of(rows, "bought_kw"), "o-", color=colour(name), ms=3.5, label=label)
        axes.plot(_of(rows, "planes"), _of(rows, "checked_kw"), "x", color=colour(name), ms=6, label=None)
    planes = sorted(set(_of(tables["polygons"], "planes").astype(int).tolist()))
    axes.set_xscale("log", base=2)
    axes.set_xticks(planes, [str(count) for count in planes])
    axes.minorticks_off()
    axes.set_ylim(35.0, _HIGHEST_KW)
    beyond = [row for row in tables["polygons"].rows if float(row["bought_kw"] or 0.0) > _HIGHEST_KW]
    above = ", ".join(f"{row['planes']} {row['polygon']}: {row['bought_kw']:.1f} kW" for row in beyond)
    axes.set_xlabel(f"planes of the polygon (not shown: {above.replace('_', ' ')})", loc="left")
    axes.set_title("CASE 2: flexibility bought [kW] on the linear model (points) and after the AC loop (crosses)")
    _legend(axes, "upper right")
    return figure


def ellipsoids(tables: Tables) -> Figure:
    """By the correlation of the errors and the chance that a row may be violated."""
    figure, (kw, rate) = panels([2.8, 2.2])
    checked = tables["ellipsoids"].where(stage="checked")
    chances = sorted(set(_of(checked, "chance_percent").tolist()), reverse=True)
    for chance, name in zip(chances, SERIES, strict=False):
        rows = checked.where(chance_percent=chance)
        omega = _of(rows, "omega")[0]
        look: dict[str, Any] = {"color": colour(name), "ms": 3.5, "label": f"{chance:g} % (omega {omega:.2f})"}
        kw.plot(_of(rows, "rho"), _of(rows, "bought_kw"), "o-", **look)
        rate.plot(_of(rows, "rho"), _of(rows, "correlated_ac_percent"), "o-", **look)
        level(rate, chance, name, ":")
    box = tables["gammas"].where(gamma=7.0, planes=4096, stage="checked")
    level(kw, float(_of(box, "bought_kw")[0]), "ink", "--")
    kw.set_title("CASE 2, ellipsoid for normal errors: flexibility bought [kW], after the AC loop; dashed: the box")
    kw.tick_params(axis="x", labelbottom=False)
    _legend(kw, "upper left", "chance allowed")
    rate.set_title("such errors that take 2-3 above 117 A [%]; dotted: the chance that was allowed")
    rate.set_xlabel("correlation rho between any two forecast errors", loc="left")
    return figure


def overloads(tables: Tables) -> Figure:
    """By the share of the limit that may be exceeded."""
    figure, (kw, rate) = panels([2.0, 2.0])
    rows = tables["overloads"].where(rule="factor", stage="checked")
    percent = _of(rows, "overload_percent")
    kw.plot(percent, _of(rows, "bought_kw"), "o-", color=colour("blue"), ms=3.5)
    kw.set_title("CASE 2, 32 planes: flexibility bought [kW]")
    kw.tick_params(axis="x", labelbottom=False)
    for (kind, label), name in zip(_ERRORS.items(), SERIES, strict=False):
        rate.plot(percent, _of(rows, f"{kind}_ac_percent"), "o-", color=colour(name), ms=3.5, label=label)
    rate.set_title("sampled errors that take 2-3 above 117 A [%], by power flow")
    rate.set_xlabel("overload tolerated [% of 117 A]", loc="left")
    _legend(rate, "upper left")
    return figure


def _of(table: Table, column: str) -> Floats:
    return np.array(table.column(column), dtype=np.float64)


def _legend(axes: Axes, place: Any, title: str | None = None) -> None:
    look: dict[str, Any] = {"framealpha": 0.85, "edgecolor": "none", "fontsize": 8, "title_fontsize": 8}
    axes.legend(loc=place, title=title, alignment="left", borderpad=0.3, **look)
