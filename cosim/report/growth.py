"""A feeder that grows in stages: what each scheme of coordination buys in a year, from windows that stand for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import pandas as pd

from cosim.analysis import measures
from cosim.analysis.windows import Window
from cosim.errors import ResultError
from cosim.io.results import Results
from cosim.io.tables import Cell, Table, table_of
from cosim.report.compare_schemes import aggregators_eur, paid_eur, unmet_mtus
from cosim.report.coordination import Coordination, coordination, volumes
from cosim.report.market_run import MarketRun, market_run, worst_percent
from cosim.report.reading import WITH, WITHOUT, Reading

ROLES = ("DSO", "TSO", "BRP")


@dataclass(frozen=True)
class Stage:
    """What a feeder has grown by: photovoltaics ``added_pv_kw``, electric ``cars``, and what these need on a day."""

    name: str
    added_pv_kw: float
    cars: float
    cars_kwh_a_day: float


@dataclass(frozen=True)
class Year:
    """A stage under a scheme: figures of the year by name (see `run_figures`), or why there are none (``error``)."""

    stage: str
    scheme: str
    error: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Growth:
    """All stages, the windows that stand for each of their years, counted from ``first_day``, and what came of it."""

    stages: tuple[Stage, ...]
    windows: tuple[Window, ...]
    years: tuple[Year, ...]
    first_day: date

    @property
    def schemes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(year.scheme for year in self.years))

    def figure(self, stage: str, scheme: str, name: str) -> float:
        """NaN where a run failed."""
        found = (year.figures for year in self.years if (year.stage, year.scheme) == (stage, scheme))
        return next(found, {}).get(name, float("nan"))

    def begin(self, window: Window) -> date:
        """The first day of a window."""
        return self.first_day + timedelta(days=window.first_day)


def run_figures(results: Results) -> dict[str, float]:
    """Figures of a run under a scheme, names ending with the unit:

    - ``dso_up_kwh``, ``dso_down_kwh``, ``tso_up_kwh``, ``tso_down_kwh``: bought by each at the feeder, less what was
      given back; ``t_up_kwh``, ``t_down_kwh``: at transmission;
    - ``dso_eur``, ``tso_eur``, ``brp_eur``: what each pays in all; ``aggregators_eur``: paid to those of the feeder;
    - ``need_up_kwh``, ``need_down_kwh``: of the system; ``short_kwh``: of it not met; ``unmet_h``: time in which a
      stage could not keep all limits for all errors planned for;
    - ``violation_h``, ``worst_percent`` (beyond its limit) by the power flow, ``peak_import_kw``, ``peak_export_kw``;
      with ``without_`` in front: had nothing been activated.

    Raises ResultError for a run without a scheme, or that did not reach its end.
    """
    reading = Reading(results)
    run, found = market_run(reading), coordination(reading)
    if run is None or found is None or reading.status != "complete":
        raise ResultError(f"{reading.name}: no complete run under a scheme of coordination")
    figures = dict(_bought(run)) | {f"{role.lower()}_eur": float(paid_eur(found, role)) for role in ROLES}
    figures["aggregators_eur"] = float(aggregators_eur(found)[0])
    figures |= _needs(run, found)
    figures |= {"worst_percent": worst_percent(run.left), "unmet_h": unmet_mtus(found) * run.mtu_h}
    if run.without is not None:
        figures["without_worst_percent"] = worst_percent(run.without)
    for state, before in ((WITH, ""), (WITHOUT, "without_")):
        figures |= {f"{before}{name}": value for name, value in _network(reading, state)}
    return figures


def _bought(run: MarketRun) -> Iterator[tuple[str, float]]:
    awards = run.all_awards
    for role in ("DSO", "TSO"):
        own = awards[awards["buyer"].str.partition(":")[0] == role] if len(awards) else awards
        bought = volumes(own, run.mtu_h)
        yield f"{role.lower()}_up_kwh", bought.d_up_kwh
        yield f"{role.lower()}_down_kwh", bought.d_down_kwh
    bought = volumes(awards, run.mtu_h)
    yield "t_up_kwh", bought.t_up_kwh
    yield "t_down_kwh", bought.t_down_kwh


def _needs(run: MarketRun, found: Coordination) -> dict[str, float]:
    need = found.need
    if need is None:
        return {}
    return {"need_up_kwh": need.up_kwh, "need_down_kwh": need.down_kwh, "short_kwh": need.short_kwh}


def _network(reading: Reading, state: str) -> Iterator[tuple[str, float]]:
    head, violations = reading.total(f"{state}/head/p_kw"), reading.table(f"{state}/violations")
    if head is not None:
        course = pd.Series(head, index=reading.time)
        yield "peak_import_kw", measures.peak_import(course).value_kw
        yield "peak_export_kw", measures.peak_export(course).value_kw
    if violations is not None:
        yield "violation_h", measures.violation_h(violations, reading.step_s)


def tables(found: Growth) -> tuple[Table, ...]:
    """All figures as tables for CSV files."""
    names = tuple(dict.fromkeys(name for year in found.years for name in year.figures))
    years: list[dict[str, Cell]] = [
        {"stage": year.stage, "scheme": year.scheme, "error": year.error, **{n: year.figures.get(n) for n in names}}
        for year in found.years
    ]
    windows: list[dict[str, Cell]] = [
        {"window": window.name, "first_day": found.begin(window).isoformat(), "days": window.n_days,
         "of_days": float(window.part_days), "weight": window.weight, "error_percent": 100.0 * window.error}
        for window in found.windows
    ]  # fmt: skip
    stages: list[dict[str, Cell]] = [
        {
            "stage": stage.name,
            "added_pv_kw": stage.added_pv_kw,
            "cars": stage.cars,
            "cars_a_day_kwh": stage.cars_kwh_a_day,
        }
        for stage in found.stages
    ]
    return (
        table_of("growth", "figures of a year by stage and scheme", years),
        table_of("windows", "days that stand for a year", windows),
        table_of("stages", "what was added", stages),
    )


def over_stages(found: Growth, scheme: str, name: str) -> Sequence[float]:
    """A figure of a scheme, stage by stage."""
    return [found.figure(stage.name, scheme, name) for stage in found.stages]
