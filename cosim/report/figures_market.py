"""Figures of the local market: limits with and without it, activations, cost, forecast errors. None where there is no
market or it did nothing of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cosim.domain.frames import Floats
from cosim.report.canvas import SERIES, Drawing, Key, colour, course, level, panels, svg_of
from cosim.report.causes import LEAST_KW
from cosim.report.coverage import asked, coverage
from cosim.report.figures import TimeAxis
from cosim.report.layout import number, shortened
from cosim.report.market_run import MarketRun, market_run
from cosim.report.reading import WITH, WITHOUT
from cosim.units import SECONDS_PER_DAY

_PANELS = 4
_PANEL_NAME = 60
_BINS, _REACH = 60, 3.0
_COLOURS = ("blue", "red")
_LEAST_PERCENT = 50.0
_SAME_EUR_PER_KWH = 1e-6
_CURRENT = f"current [% of its limit], from {_LEAST_PERCENT:g} % up"


@dataclass(frozen=True)
class Held:
    """An element whose limit was violated or foreseen to be: ``path`` and ``column`` of its course, that counts in
    ``unit`` of ``limit`` (in percent of it for a current)."""

    name: str
    path: str
    column: str
    limit: float
    scale: float
    unit: str


def limits(axis: TimeAxis, salt: str) -> Drawing | None:
    """What was near its limit, with and without activation: currents of branches, voltages of nodes."""
    run = market_run(axis.reading)
    shown = [] if run is None else _held(run)
    if run is None or not shown:
        return None
    figure, rows = panels([1.6] * len(shown))
    for axes, held in zip(rows, shown, strict=True):
        idle = _course(run, WITHOUT, held) if run.reading.compared else None
        if idle is not None:
            course(axes, axis.at, axis.groups, idle, "none", "--", 1.0, "edges")
        true = _course(run, WITH, held)
        if true is not None:
            course(axes, axis.at, axis.groups, true, "blue", width=1.2)
        level(axes, held.limit, "ink", ":", 1.4)
        if held.unit == _CURRENT:
            axes.set_ylim(bottom=_LEAST_PERCENT)
        axes.set_title(f"{shortened(held.name, _PANEL_NAME)}: {held.unit}")
    axis.under(rows)
    keys = [Key(f"with {run.reading.acts}", "blue")]
    keys += [Key(f"without {run.reading.acts}", "none", "dash")] if run.reading.compared else []
    note = axis.note("filled is the range, the line the mean, the dashed ones the range without")
    svg = svg_of(figure, salt, "Violated limits over time, with and without the market")
    return Drawing("Limits", svg, (*keys, Key("limit", "ink", "dots")), note)


def _held(run: MarketRun) -> list[Held]:
    """The elements that exceed a limit most, a branch or a node each, the worst first; with few, also those that only
    would have."""
    tables = [run.left] if run.without is None else [run.without, run.left]
    found = pd.concat([table for table in tables if len(table)]) if any(len(t) for t in tables) else pd.DataFrame()
    if found.empty:
        return []
    found = found.sort_values("excess_percent", ascending=False, kind="stable")
    shown: dict[str, Held] = {}
    for row in found.drop_duplicates(["element", "phase", "quantity"]).to_dict("records"):
        element, limit = str(row["element"]), float(row["limit"])
        if row["quantity"] == "i_a":
            held = Held(element, "terminal/i_a", element, 100.0, 100.0 / limit, _CURRENT)
            shown.setdefault(element.partition("@")[0], held)
        else:
            node = f"{element}.{int(row['phase'])}"
            shown.setdefault(element, Held(node, "bus/vm_pu", node, limit, 1.0, "voltage magnitude [pu]"))
    return list(shown.values())[:_PANELS]


def _course(run: MarketRun, simulator: str, held: Held) -> Floats | None:
    """The course of one element, without reading all others into memory."""
    path = f"{simulator}/{held.path}"
    if held.column not in run.reading.elements(path):
        return None
    return np.concatenate([held.scale * frame[held.column].to_numpy() for _, frame in run.reading.blocks(path)])


def activations(axis: TimeAxis, salt: str) -> Drawing | None:
    """What was ordered of each resource, stacked: up above 0, down below."""
    run = market_run(axis.reading)
    if run is None or not run.ordered_kw.any():
        return None
    names, up_kw = _ranked(run)
    figure, (axes,) = panels([2.2])
    for sign in (1.0, -1.0):
        base = np.zeros(len(axis.groups.first))
        for k, of_unit in enumerate(up_kw.T):
            top = base + axis.groups.mean(sign * np.maximum(sign * of_unit, 0.0))
            look = colour(SERIES[k] if k < len(SERIES) else "none")
            axes.fill_between(
                axis.at, np.append(base, base[-1]), np.append(top, top[-1]), step="post", color=look, linewidth=0
            )
            base = top
    keys = [Key(name, SERIES[k] if k < len(SERIES) else "none", "area") for k, name in enumerate(names)]
    short_kw = np.nan_to_num(run.missing_kw * np.sign(run.ordered_kw[run.step_mtu]))
    if np.abs(short_kw).max() > 0.01 * np.abs(up_kw).max():
        delivered_kw = short_kw.sum(axis=1) - run.ordered_kw[run.step_mtu].sum(axis=1)
        course(axes, axis.at, axis.groups, delivered_kw, "ink", width=0.9, spread="mean")
        keys.append(Key("delivered, net", "ink"))
    level(axes, 0.0)
    axes.set_title("activation ordered [kW]: up (less load, more generation) above 0, down below")
    axis.under([axes])
    svg = svg_of(figure, salt, "Activation of each resource over time")
    return Drawing("Activations", svg, tuple(keys), axis.note("the mean of it"))


def _ranked(run: MarketRun) -> tuple[list[str], Floats]:
    """Names of what was activated, most first, and what is ordered of each (n_step, n_name) [kW], up > 0: resources;
    where these are more than colours, entries of the scenario, or resources with the others together."""
    up_kw, names = -run.ordered_kw[run.step_mtu], list(run.pod_of)
    entries = [name.partition(":")[0] for name in names]
    if len(names) > len(SERIES) and 1 < len(set(entries)) <= len(SERIES):
        names = list(dict.fromkeys(entries))
        up_kw = np.stack([up_kw[:, [entry == name for entry in entries]].sum(axis=1) for name in names], axis=1)
    energy = np.abs(up_kw).sum(axis=0)
    order = [int(k) for k in np.argsort(-energy, kind="stable") if energy[k] > 0.0]
    shown, others = (order, []) if len(order) <= len(SERIES) else (order[: len(SERIES)], order[len(SERIES) :])
    labels = [names[k] for k in shown] + [f"{len(others)} others"] * bool(others)
    return labels, np.hstack([up_kw[:, shown], up_kw[:, others].sum(axis=1)[:, None]])[:, : len(labels)]


def cost(axis: TimeAxis, salt: str) -> Drawing | None:
    """Prices paid over time, and what a day cost."""
    run = market_run(axis.reading)
    if run is None or run.awards.empty:
        return None
    days = axis.reading.local_time.normalize().unique()
    mean, highest = _prices(run)
    priced, several = float(np.nanmax(highest)) - float(np.nanmin(mean)) > _SAME_EUR_PER_KWH, len(days) > 1
    if not (priced or several):
        return None
    figure, rows = panels([1.4] * priced + [1.0] * several)
    keys = _draw_prices(rows[0], axis, mean, highest) if priced else []
    if several:
        keys += _draw_days(rows[-1], axis, *_by_day(run, days), days)
    axis.under(rows)
    svg = svg_of(figure, salt, "Prices paid over time and cost of each day")
    return Drawing("Prices and cost", svg, tuple(keys), axis.note("lines are means, and the highest") if priced else "")


def _draw_prices(axes: Axes, axis: TimeAxis, mean: Floats, highest: Floats) -> list[Key]:
    several = bool(np.nanmax(highest - mean) > _SAME_EUR_PER_KWH)
    if several:
        course(axes, axis.at, axis.groups, highest, "none", width=1.0, spread="top")
    course(axes, axis.at, axis.groups, mean, "blue", spread="mean")
    axes.set_title("price paid [EUR/kWh]")
    axes.set_ylim(bottom=min(0.0, float(np.nanmin(mean))))
    return [Key("mean of the energy bought", "blue"), Key("highest", "none")][: 1 + several]


def _draw_days(axes: Axes, axis: TimeAxis, paid: Floats, asked: Floats, days: pd.DatetimeIndex) -> list[Key]:
    noon = axis.at[0] + (days - axis.reading.local_time[0]).total_seconds().to_numpy() / SECONDS_PER_DAY + 0.5
    axes.bar(noon, paid, width=0.5, color=colour("blue"))
    axes.set_title("paid in a day [EUR]")
    if np.allclose(paid, asked):
        return []
    axes.plot(noon, asked, "_", color=colour("ink"), ms=12, mew=1.6)
    return [Key("a day at the prices asked", "ink")]


def _prices(run: MarketRun) -> tuple[Floats, Floats]:
    """Mean price by energy and highest price of each step (n_step,) [EUR/kWh]; NaN where nothing was bought."""
    rows = run.awards.assign(eur_per_h=run.awards["quantity_kw"] * run.awards["price_eur_per_kwh"])
    grouped = rows.groupby("mtu")
    mean, highest = np.full(run.n_mtu, np.nan), np.full(run.n_mtu, np.nan)
    sums = grouped[["eur_per_h", "quantity_kw"]].sum()
    mean[sums.index] = sums["eur_per_h"] / sums["quantity_kw"]
    highest[sums.index] = grouped["price_eur_per_kwh"].max()
    return mean[run.step_mtu], highest[run.step_mtu]


def _by_day(run: MarketRun, days: pd.DatetimeIndex) -> tuple[Floats, Floats]:
    """What was paid, and asked, for each local day (n_day,) [EUR]."""
    begins = run.reading.local_time[0] + pd.to_timedelta(run.awards["t_s"], unit="s")
    kwh = run.awards["quantity_kw"] * run.mtu_h
    paid, asked = (
        (kwh * run.awards[column]).groupby(begins.dt.normalize()).sum().reindex(days, fill_value=0.0).to_numpy()
        for column in ("price_eur_per_kwh", "bid_price_eur_per_kwh")
    )
    return paid, asked


def forecast_errors(axis: TimeAxis, salt: str) -> Drawing | None:
    """How forecast errors are distributed against their half-bands."""
    run = market_run(axis.reading)
    found = () if run is None else coverage(run)
    if run is None or not any(np.isfinite(each.shares).any() for each in found):
        return None
    figure, (axes,) = panels([1.7])
    bounds = np.linspace(-_REACH, _REACH, _BINS + 1)
    for each, name in zip(found, _COLOURS, strict=True):
        there = each.shares[~np.isnan(each.shares)]
        if there.size:
            counts = np.histogram(np.clip(there, bounds[0], bounds[-1]), bounds)[0]
            axes.stairs(100.0 * counts / there.size, bounds, color=colour(name), linewidth=1.3)
    for side in (-1.0, 1.0):
        axes.axvline(side, color=colour("ink"), linewidth=1.0, linestyle=":")
    axes.set_xlim(-_REACH, _REACH)
    axes.set_ylim(bottom=0.0)
    axes.set_title("errors of the network operator's forecasts [half-bands]: share of PODs and MTUs [%]")
    keys = [
        Key(f"{each.quantity}, {number(100.0 * each.within, '%')} % within", name)
        for each, name in zip(found, _COLOURS, strict=True)
    ]
    note = f"More consumption than expected to the right; beyond {_REACH:g} half-bands at the edges."
    share = asked(run)
    note += "" if share is None else f" Asked for: {100.0 * share:g} % within."
    bare = [f"{number(each.bare, each.unit)} {each.unit}" for each in found if each.bare > LEAST_KW]
    note += f" Without a half-band errors are up to {' and '.join(bare)}; these are left out." if bare else ""
    svg = svg_of(figure, salt, "Distribution of forecast errors in half-bands")
    return Drawing("Forecast errors", svg, (*keys, Key("half-bands", "ink", "dots")), note)
