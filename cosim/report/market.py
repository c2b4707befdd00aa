"""What the local market of a run came to: indicators, and what was asked for and bought for each market time unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cosim.report.causes import LEAST_KW, Cause, Residual
from cosim.report.circumstances import violations_left
from cosim.report.coverage import asked, coverage
from cosim.report.indicator import Indicator
from cosim.report.layout import number
from cosim.report.market_run import MarketRun, market_run, worst_percent
from cosim.report.reading import Reading, moment

MARKET, FLEXIBILITY, LEFT = "Local market", "Flexibility of the feeder", "MTUs with violations left, by cause"


@dataclass(frozen=True)
class Gate:
    """What was asked for and bought for an MTU, ``at`` local time: the limit that the schedule breaks most, in a word
    and with what is expected and the worst of it [% of the limit]; kW bought up and down, and what they are paid."""

    at: str
    kind: str
    element: str
    others: int
    expected_percent: float
    worst_percent: float
    up_kw: float
    down_kw: float
    paid_eur: float
    unsolved: bool


def residuals_of(reading: Reading) -> tuple[Residual, ...]:
    """Violations left by cause; empty without a market."""
    run = market_run(reading)
    return () if run is None else reading.once(_residuals)


def _residuals(reading: Reading) -> tuple[Residual, ...]:
    run = market_run(reading)
    return () if run is None else violations_left(run)


def unexplained(reading: Reading) -> str:
    """A warning about violations that nothing explains; empty if there are none."""
    found = [row for row in residuals_of(reading) if row.cause is Cause.UNEXPLAINED]
    if not found:
        return ""
    times = ", ".join(f"{local_moment(reading, row.t_s)} at {row.element}" for row in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    units = "1 MTU has a violation" if len(found) == 1 else f"{len(found)} MTUs have violations"
    return f"UNEXPLAINED (a bug): {units} that the market should have prevented: {times}{more}"


def market_indicators(reading: Reading) -> Iterator[Indicator]:
    """Indicators of the local market, or of flexibility of the feeder under a scheme; none without either."""
    run = market_run(reading)
    if run is None:
        return
    yield from _violations(run)
    if run.scheme is None:
        yield from _cost(run)
    yield from _energy(run)
    yield from _units(run)
    yield from _forecasts(run)
    yield from _causes(reading)


def _group(run: MarketRun) -> str:
    return MARKET if run.scheme is None else FLEXIBILITY


def _energy(run: MarketRun) -> Iterator[Indicator]:
    ordered_kw, missing_kw = run.ordered_kw, run.missing_kw
    up_kwh, down_kwh = (float(np.maximum(sign * ordered_kw, 0.0).sum()) * run.mtu_h for sign in (-1.0, 1.0))
    yield Indicator(_group(run), "energy activated up", up_kwh, "kWh", None, "less load, more generation")
    yield Indicator(_group(run), "energy activated down", down_kwh, "kWh")
    all_kw = float(np.abs(ordered_kw[run.step_mtu]).sum())
    if all_kw > 0.0:
        failed = run.activations[run.activations["reached"] == 0.0]
        note = f"{len(failed)} of {len(run.activations)} orders out of reach" if len(failed) else "of what was ordered"
        yield Indicator(
            _group(run), "delivered", 100.0 * (1.0 - float(np.nansum(missing_kw)) / all_kw), "%", None, note
        )


def _cost(run: MarketRun) -> Iterator[Indicator]:
    awards = run.awards
    kwh = float(awards["quantity_kw"].sum()) * run.mtu_h if len(awards) else 0.0
    for name, column in (("cost as bid", "bid_price_eur_per_kwh"), ("cost as paid", "price_eur_per_kwh")):
        note = f"{number(run.eur(column) / kwh, 'EUR/kWh')} EUR/kWh on average" if kwh > 0.0 else ""
        yield Indicator(_group(run), name, run.eur(column), "EUR", None, note)
    yield Indicator(_group(run), "awards", float(len(awards)), "1")
    rounds = run.values("market/session/rounds").sum(axis=1)
    note = f"in {int((rounds > 0).sum())} steps, at most {rounds.max():.0f}" if rounds.any() else ""
    yield Indicator(_group(run), "rounds of clearing", float(rounds.sum()), "1", None, note)


def _units(run: MarketRun) -> Iterator[Indicator]:
    for name, table in (
        ("MTUs with a need", run.needs),
        ("MTUs with flexibility bought", run.awards),
        ("MTUs with limits left by the plan", run.left_by_plan),
    ):
        yield Indicator(_group(run), name, float(table["mtu"].nunique()), "1", None, f"of {run.n_mtu}")


def _violations(run: MarketRun) -> Iterator[Indicator]:
    left, without = run.left, run.without
    units, worst = (None, None) if without is None else (float(without["mtu"].nunique()), worst_percent(without))
    yield Indicator(_group(run), "MTUs with violations", float(left["mtu"].nunique()), "1", units, f"of {run.n_mtu}")
    at = ""
    if len(left):
        row = left.iloc[int(left["excess_percent"].to_numpy().argmax())]
        at = f"{local_moment(run.reading, float(row['t_s']))}, {row['element']}"
    yield Indicator(_group(run), "worst violation", worst_percent(left), "%", worst, at)


def _forecasts(run: MarketRun) -> Iterator[Indicator]:
    share = asked(run)
    for found in coverage(run):
        pod, least = found.least
        notes = [] if share is None else [f"asked: {100.0 * share:g} %"]
        notes += [f"least: {100.0 * least:.3g} % at {pod}"] if least < 1.0 else []
        notes += [f"without one up to {number(found.bare, found.unit)} {found.unit}"] if found.bare > LEAST_KW else []
        yield Indicator(
            _group(run), f"{found.quantity} within its half-band", 100.0 * found.within, "%", None, "; ".join(notes)
        )


def _causes(reading: Reading) -> Iterator[Indicator]:
    rows = residuals_of(reading)
    for cause in sorted({row.cause for row in rows}, key=list(Cause).index):
        of_cause = [row for row in rows if row.cause is cause]
        worst = max(of_cause, key=lambda row: row.excess_percent)
        yield Indicator(LEFT, cause.value, float(len(of_cause)), "1", None, f"e.g. {worst.detail}")


def gates(reading: Reading) -> tuple[Gate, ...]:
    """What was asked for and bought for each MTU with a need; empty without a market."""
    run = market_run(reading)
    if run is None or run.needs.empty:
        return ()
    needs = run.needs.assign(
        percent=100.0 * run.needs["worst"] / run.needs["limit"],
        over=np.abs(run.needs["worst"] - run.needs["limit"]) / run.needs["limit"],
    )
    most = needs.loc[needs.groupby("mtu")["over"].idxmax()]
    count, unsolved = needs.groupby("mtu")["element"].nunique(), set(run.left_by_plan["mtu"])
    return tuple(
        Gate(
            at=local_moment(reading, float(t_s)),
            kind=str(kind),
            element=str(element),
            others=int(count[mtu]) - 1,
            expected_percent=100.0 * float(expected) / float(limit),
            worst_percent=float(percent),
            **_bought(run, int(mtu)),
            unsolved=mtu in unsolved,
        )
        for mtu, t_s, kind, element, expected, limit, percent in zip(
            *(most[name] for name in ("mtu", "t_s", "kind", "element", "expected", "limit", "percent")), strict=True
        )
    )


def _bought(run: MarketRun, mtu: int) -> dict[str, float]:
    rows = run.awards[run.awards["mtu"] == mtu]
    if rows.empty:
        return {"up_kw": 0.0, "down_kw": 0.0, "paid_eur": 0.0}
    up_kw, down_kw = (float(rows["quantity_kw"][rows["direction"] == name].sum()) for name in ("up", "down"))
    paid_eur = float((rows["quantity_kw"] * rows["price_eur_per_kwh"]).sum()) * run.mtu_h
    return {"up_kw": up_kw, "down_kw": down_kw, "paid_eur": paid_eur}


def local_moment(reading: Reading, t_s: float) -> str:
    """Local time of a moment of the run."""
    return moment(reading.local_time[0] + pd.Timedelta(seconds=t_s))
