"""Figures of a run under a scheme of coordination; None without one, or where nothing was bought."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cosim.coordination.outcome import SHORT_KW
from cosim.domain.frames import Floats
from cosim.report.canvas import Drawing, Key, colour, course, level, panels, row_names, svg_of
from cosim.report.coordination import Volumes, coordination, need_kw, short_kw
from cosim.report.figures import TimeAxis
from cosim.report.market_run import MarketRun, market_run

_PARTS = (("of the feeder, for the DSO", "blue"), ("of the feeder, for others", "green"), ("at transmission", "orange"))
_BAR_IN = 0.32
_SIDES = (("distribution", "blue"), ("transmission", "orange"))


def need_met(axis: TimeAxis, salt: str) -> Drawing | None:
    """What the system needed, and what was bought, stacked: up above 0, down below."""
    run = market_run(axis.reading)
    if run is None or run.scheme is None or run.all_awards.empty:
        return None
    figure, (axes,) = panels([2.6])
    keys = []
    up_kw, down_kw = (_bought_kw(run, run.all_awards, sign) for sign in (1.0, -1.0))
    base = {1.0: np.zeros(len(axis.groups.first)), -1.0: np.zeros(len(axis.groups.first))}
    for k, (label, name) in enumerate(_PARTS):
        for sign, kw in ((1.0, up_kw[k]), (-1.0, -down_kw[k])):
            base[sign] = _stacked(axes, axis, base[sign], kw[run.step_mtu], name)
        if up_kw[k].any() or down_kw[k].any():
            keys.append(Key(label, name, "area"))
    need, short = need_kw(run), short_kw(run, run.scheme)
    if need is not None:
        course(axes, axis.at, axis.groups, need[run.step_mtu], "ink", width=1.1, spread="mean")
        keys.append(Key("need of the system", "ink"))
    if np.abs(short).max() > SHORT_KW:
        course(axes, axis.at, axis.groups, short[run.step_mtu], "red", width=1.1, spread="mean")
        keys.append(Key("need not met", "red"))
    level(axes, 0.0)
    axes.set_title(
        "bought [kW]: up (less load, more generation) above 0, down below; need: what the system is short of"
    )
    axis.under([axes])
    svg = svg_of(figure, salt, "Need of the system over time and what was bought to meet it")
    note = "All that is bought, up less down, makes the need, but for losses and what a scheme leaves unbalanced."
    return Drawing("Need and what met it", svg, tuple(keys), f"{note} {axis.note('means are drawn')}".strip())


def _bought_kw(run: MarketRun, awards: pd.DataFrame, sign: float) -> Floats:
    """Bought upward (sign 1) or downward (-1) in each MTU for the entries of the legend (n_part, n_mtu) [kW]."""
    own = awards[awards["direction"] == ("up" if sign > 0.0 else "down")]
    at_feeder, of_dso = own["area"] != "", own["buyer"].str.startswith("DSO")
    found = np.zeros((len(_PARTS), run.n_mtu))
    for k, rows in enumerate((own[at_feeder & of_dso], own[at_feeder & ~of_dso], own[~at_feeder])):
        np.add.at(found[k], rows["mtu"].to_numpy(), rows["quantity_kw"].to_numpy())
    return found


def _stacked(axes: Axes, axis: TimeAxis, base: Floats, kw: Floats, name: str) -> Floats:
    top = base + axis.groups.mean(kw)
    ends = (np.append(base, base[-1]), np.append(top, top[-1]))
    axes.fill_between(axis.at, *ends, step="post", color=colour(name), linewidth=0)
    return top


def stages(axis: TimeAxis, salt: str) -> Drawing | None:
    """What each stage bought at distribution and at transmission: up to the right, down to the left."""
    found = coordination(axis.reading)
    buying = [] if found is None else [each for each in found.stages if each.bought != Volumes()]
    if not buying:
        return None
    height_in = _BAR_IN * len(buying) + 0.1
    figure, (axes,) = panels([height_in], left_in=1.4)
    for k, each in enumerate(buying):
        bought = each.bought
        for ends in ((bought.d_up_kwh, bought.t_up_kwh), (-bought.d_down_kwh, -bought.t_down_kwh)):
            left = 0.0
            for kwh, (_, name) in zip(ends, _SIDES, strict=True):
                axes.barh(k, kwh, left=left, height=0.6, color=colour(name))
                left += kwh
    row_names(axes, [f"{each.stage} ({each.solver})" for each in buying], height_in)
    axes.set_ylim(len(buying) - 0.5, -0.5)
    axes.axvline(0.0, color=colour("muted"), linewidth=0.8)
    axes.set_title("energy bought by each stage [kWh]: up to the right, down to the left")
    svg = svg_of(figure, salt, "Energy bought by each stage, up and down, at distribution and at transmission")
    return Drawing("Stages", svg, tuple(Key(label, name, "area") for label, name in _SIDES))
