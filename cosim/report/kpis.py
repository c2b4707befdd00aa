"""Key figures of a run as one series, of a study as one table: what the report shows, for further computation.

A name ends with its unit, before a ``/`` and what it is of: ``imported_kwh``, ``cost_eur/DSO``, ``violation_h/vm_pu``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np
import pandas as pd

from cosim.analysis import measures
from cosim.domain.frames import Floats
from cosim.io.results import Results
from cosim.io.study import Run, Study
from cosim.report.accuracy import ALL_SITES, EstimateError, head_error, site_errors
from cosim.report.market_run import market_run
from cosim.report.money import money
from cosim.report.reading import WITH, WITHOUT, Reading

Figure = tuple[str, float]

UNITS = {"_kwh": "kWh", "_kw": "kW", "_h": "h", "_eur": "EUR", "_share": "1"}
"""Units by what the name of a figure ends with."""
CHANGE = "change_"
"""Begins the name of a figure less that without orders and activation."""


@overload
def kpis(results: Results) -> pd.Series[float]: ...
@overload
def kpis(results: Study, runs: Sequence[Run] | None = None) -> pd.DataFrame: ...
def kpis(results: Results | Study, runs: Sequence[Run] | None = None) -> pd.Series[float] | pd.DataFrame:
    """Key figures of a run; of a study a row for each run that is complete, or of those named. ``attrs["units"]`` maps
    each name to its unit. What was not recorded is left out; in a study it is NaN.

    - head: ``imported_kwh``, ``exported_kwh``, ``peak_import_kw``, ``peak_export_kw``, ``reverse_flow_h``;
    - grid: ``loss_kwh``, ``violation_h`` and by kind ``violation_h/vm_pu``, ``violation_h/i_a``;
    - ``change_...`` of these: with orders and activation less without;
    - market: ``cost_as_bid_eur``, ``cost_as_paid_eur`` of resources at the feeder, by buyer ``cost_eur/...`` as paid,
      resources at transmission included; ``activated_up_kwh``, ``activated_down_kwh``, ``delivered_share``; of a
      settlement by party ``cash_eur/...`` (received less paid);
    - estimate at sites without a meter by method, ``estimate_mae_kw/...``, ``estimate_rmse_kw/...``,
      ``estimate_bias_kw/...``, and of ``head``.
    """
    if isinstance(results, Results):
        return _of_run(results)
    rows = {}
    for run in results.chosen(runs):
        with results.open(run) as one:
            rows[run] = _of_run(one)
    names = dict.fromkeys(name for row in rows.values() for name in row.index)
    table = pd.DataFrame({name: [row.get(name, np.nan) for row in rows.values()] for name in names})
    table.index = pd.Index(list(rows), name="run")
    table.attrs["units"] = {name: unit_of(name) for name in names}
    return table


def unit_of(name: str) -> str:
    """The unit of a figure by its name."""
    quantity = name.partition("/")[0]
    return next(unit for ending, unit in UNITS.items() if quantity.endswith(ending))


def _of_run(results: Results) -> pd.Series[float]:
    reading = Reading(results)
    figures = dict(figure for part in _PARTS for figure in part(reading)) if reading.steps else {}
    found = pd.Series(figures, dtype=np.float64, name=reading.name)
    found.attrs["units"] = {name: unit_of(name) for name in figures}
    return found


def _network(reading: Reading) -> Iterator[Figure]:
    """Head, losses and violations, and what became of them by orders and activation."""
    enforced = dict(_of_state(reading, WITH))
    yield from enforced.items()
    if reading.compared:
        idle = dict(_of_state(reading, WITHOUT))
        yield from ((CHANGE + name, value - idle[name]) for name, value in enforced.items() if name in idle)


def _of_state(reading: Reading, state: str) -> Iterator[Figure]:
    head, loss = (reading.total(f"{state}/head/{name}") for name in ("p_kw", "loss_kw"))
    if head is not None:
        yield from _of_head(reading, head)
    if loss is not None:
        yield "loss_kwh", measures.total_kwh(loss, reading.step_s)
    violations = reading.table(f"{state}/violations")
    if violations is not None:
        yield "violation_h", measures.violation_h(violations, reading.step_s)
        by_kind = measures.violation_h_by(violations, reading.step_s, "quantity")
        yield from ((f"violation_h/{kind}", float(by_kind.get(kind, 0.0))) for kind in ("vm_pu", "i_a"))


def _of_head(reading: Reading, head_kw: Floats) -> Iterator[Figure]:
    course = pd.Series(head_kw, index=reading.time)
    yield "imported_kwh", measures.imported_kwh(head_kw, reading.step_s)
    yield "exported_kwh", measures.exported_kwh(head_kw, reading.step_s)
    yield "peak_import_kw", measures.peak_import(course).value_kw
    yield "peak_export_kw", measures.peak_export(course).value_kw
    yield "reverse_flow_h", measures.reverse_flow_h(head_kw, reading.step_s)


def _market(reading: Reading) -> Iterator[Figure]:
    run = market_run(reading)
    if run is None:
        return
    yield "cost_as_bid_eur", run.eur("bid_price_eur_per_kwh")
    yield "cost_as_paid_eur", run.eur("price_eur_per_kwh")
    if len(run.all_awards):
        for buyer, due_eur in measures.cost_eur_by(run.all_awards, run.mtu_s).items():
            yield f"cost_eur/{buyer}", float(due_eur)
    if "change_kw" in run.activations:
        for direction in ("up", "down"):
            yield f"activated_{direction}_kwh", measures.activated_kwh(run.activations, run.mtu_s, direction)
        yield "delivered_share", measures.delivered_share(run.missing_kw, run.ordered_kw[run.step_mtu])


def _settlement(reading: Reading) -> Iterator[Figure]:
    found = money(reading)
    yield from ((f"cash_eur/{each.party}", each.net_eur) for each in (() if found is None else found.parties))


def _estimate(reading: Reading) -> Iterator[Figure]:
    for error in site_errors(reading):
        if error.site == ALL_SITES:
            yield from _errors(error.method, error)
    head = head_error(reading)
    if head is not None:
        yield from _errors("head", head)


def _errors(of: str, error: EstimateError) -> Iterator[Figure]:
    yield f"estimate_mae_kw/{of}", error.mean_absolute_kw
    yield f"estimate_rmse_kw/{of}", error.root_mean_square_kw
    yield f"estimate_bias_kw/{of}", error.bias_kw


_PARTS: tuple[Callable[[Reading], Iterator[Figure]], ...] = (_network, _market, _settlement, _estimate)
