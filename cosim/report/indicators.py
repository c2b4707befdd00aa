"""What a run came to: indicators with the orders enforced and without them, and the same as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

import numpy as np
import pandas as pd

from cosim.analysis.measures import exported_kwh, imported_kwh, reverse_flow_h, total_kwh, violation_h
from cosim.clock import format_duration
from cosim.domain.frames import Floats
from cosim.flexibility.storage import stored_kwh
from cosim.io.results import Results
from cosim.report.accuracy import (
    ALL_SITES,
    EstimateError,
    fault_counts,
    head_error,
    largest_error_kw,
    meter_quality,
    share_not_good,
    site_errors,
)
from cosim.report.breakdown import days, deepest, wall_times
from cosim.report.coordination import coordination_indicators
from cosim.report.indicator import Indicator
from cosim.report.layout import aligned, number, shortened
from cosim.report.market import market_indicators, unexplained
from cosim.report.money import money_indicators
from cosim.report.reading import WITH, WITHOUT, Reading, moment

HEAD, GRID, PREDICTION, STORAGE = "Head (import > 0)", "Grid", "Prediction before the run", "Storage"
ESTIMATE, RUN = "Estimate and measurements", "Run"
_WIDTH = 120
_DAYS_AS_TEXT = 14

Measure = Callable[[Floats], tuple[float, str]]
"""A figure of a course of powers (n_time,), and a note on it."""


def indicators_of(reading: Reading) -> tuple[Indicator, ...]:
    """All indicators of a run, most important first. What was not recorded is left out."""
    if not reading.steps:
        return ()
    parts = (
        coordination_indicators,
        market_indicators,
        money_indicators,
        _head,
        _grid,
        _prediction,
        _storage,
        _estimate,
        _run,
    )
    return tuple(indicator for part in parts for indicator in part(reading))


def _head(reading: Reading) -> Iterator[Indicator]:
    course, idle = reading.total(f"{WITH}/head/p_kw"), reading.total_without("head/p_kw")
    if course is None:
        return
    steps = np.arange(reading.steps)

    def lowest(p_kw: Floats) -> tuple[float, str]:
        return deepest(reading, p_kw, steps)

    def highest(p_kw: Floats) -> tuple[float, str]:
        value, at = deepest(reading, -p_kw, steps)
        return -value, at

    step_s = reading.step_s
    yield _compared(HEAD, "deepest head power", "kW", course, idle, lowest)
    yield _compared(HEAD, "reverse flow", "h", course, idle, lambda p: (reverse_flow_h(p, step_s), ""))
    yield _compared(HEAD, "highest import", "kW", course, idle, highest)
    yield _compared(HEAD, "energy exported", "kWh", course, idle, lambda p: (exported_kwh(p, step_s), ""))
    yield _compared(HEAD, "energy imported", "kWh", course, idle, lambda p: (imported_kwh(p, step_s), ""))


def _compared(group: str, name: str, unit: str, course: Floats, idle: Floats | None, measure: Measure) -> Indicator:
    """An indicator of the course with orders, and of the one without where there is one."""
    value, note = measure(course)
    other, other_note = (None, "") if idle is None else measure(idle)
    return Indicator(group, name, value, unit, other, _notes(note, other_note))


def _notes(note: str, without: str) -> str:
    """Two notes in one; of two times on the same day, the second without the day."""
    if without in ("", note):
        return note
    day = len("2016-07-23 ")
    return f"{note} (without: {without[day:] if note[:day] == without[:day] else without})"


def _grid(reading: Reading) -> Iterator[Indicator]:
    losses, idle = reading.total(f"{WITH}/head/loss_kw"), reading.total_without("head/loss_kw")
    if losses is not None:
        yield _compared(GRID, "losses", "kWh", losses, idle, lambda p: (total_kwh(p, reading.step_s), ""))
    for name, path, sign in (
        ("lowest voltage", "bus/vm_pu", -1),
        ("highest voltage", "bus/vm_pu", 1),
        ("highest loading", "branch/loading_pu", 1),
    ):
        true = reading.extreme(f"{WITH}/{path}", sign)
        other = reading.extreme(f"{WITHOUT}/{path}", sign) if reading.compared else None
        if true is not None:
            at, other_at = (
                f"{moment(reading.local_time[e.step])}, {e.element}" if e is not None else "" for e in (true, other)
            )
            yield Indicator(GRID, name, true.value, "pu", None if other is None else other.value, _notes(at, other_at))
    yield from _violations(reading)


def _violations(reading: Reading) -> Iterator[Indicator]:
    """Time outside the limits, and where they were exceeded most."""
    true = reading.table(f"{WITH}/violations")
    other = reading.table(f"{WITHOUT}/violations") if reading.compared else None
    for name, quantity in (("time outside the voltage band", "vm_pu"), ("time above a rating", "i_a")):
        found = [None if table is None else table[table["quantity"] == quantity] for table in (true, other)]
        hours = [None if t is None else violation_h(t, reading.step_s) for t in found]
        if hours[0] is not None:
            yield Indicator(GRID, name, hours[0], "h", hours[1], _worst(found[0]))


def _worst(violations: pd.DataFrame | None) -> str:
    """The largest excess over a limit, and how many elements exceed theirs."""
    if violations is None or violations.empty:
        return ""
    percent = 100.0 * violations["excess"].to_numpy() / violations["limit"].to_numpy()
    elements = violations["element"].nunique()
    note = f"by {percent.max():.3g} % at {violations['element'].iloc[int(percent.argmax())]}"
    return note + (f", {elements} elements" if elements > 1 else "")


def _prediction(reading: Reading) -> Iterator[Indicator]:
    prepared, course = reading.json("prepared"), reading.total(f"{WITH}/head/p_kw")
    if not prepared or course is None or reading.acts == "activation":  # the sizing knows nothing of resources
        return
    idle, steps = reading.total_without("head/p_kw"), np.arange(reading.steps)
    predicted, predicted_idle = prepared["head_min_kw"], prepared["head_min_idle_kw"]
    missed = deepest(reading, course, steps)[0] - predicted
    missed_idle = None if idle is None else deepest(reading, idle, steps)[0] - predicted_idle
    shown_idle = None if idle is None else predicted_idle
    note = "above 0 is better" if reading.status == "complete" else "the run is not complete"
    yield Indicator(PREDICTION, "deepest head power predicted", predicted, "kW", shown_idle, "whole run")
    yield Indicator(PREDICTION, "reached less predicted", missed, "kW", missed_idle, note)
    sized = prepared.get("sized")
    if sized:
        alone = f"{prepared['day']} alone"
        held, idle_kw, bound = sized["head_min_kw"], sized["head_min_idle_kw"], sized["bound_head_min_kw"]
        yield Indicator(PREDICTION, "deepest head power when sized", held, "kW", idle_kw, alone)
        yield Indicator(PREDICTION, "best that storage can hold", bound, "kW", None, f"{alone}, known in advance")
    for pod, threshold_kw in prepared["thresholds_kw"].items():
        if threshold_kw is not None and np.isfinite(threshold_kw):  # older files hold -Infinity
            yield Indicator(PREDICTION, f"threshold of {pod}", threshold_kw, "kW", None, "head power")


def _storage(reading: Reading) -> Iterator[Indicator]:
    power, energy = reading.frame(f"{WITH}/storage/p_kw"), reading.frame(f"{WITH}/storage/e_kwh")
    if power is None or energy is None or power.shape[1] == 0:
        return
    p_kw = power.to_numpy()
    charged, discharged = (total_kwh(np.maximum(sign * p_kw, 0.0), reading.step_s) for sign in (1.0, -1.0))
    yield Indicator(STORAGE, "energy charged", charged, "kWh")
    yield Indicator(STORAGE, "energy discharged", discharged, "kWh")
    capacity = sum(unit.e_max_kwh for unit in reading.storage)
    if capacity:
        note = f"(charged + discharged) / 2 / {capacity:g} kWh"
        yield Indicator(STORAGE, "equivalent full cycles", (charged + discharged) / 2.0 / capacity, "1", None, note)
    yield _stored_at_end(reading, p_kw[-1], energy.to_numpy()[-1])
    orders = reading.table("operator/orders")
    if orders is not None:
        yield Indicator(STORAGE, "orders", float(len(orders)), "1", None, "one for each unit and MTU")


def _stored_at_end(reading: Reading, p_kw: Floats, e_kwh: Floats) -> Indicator:
    """Energy stored when the last step ends, from what was stored at its beginning and its power (n_storage,)."""
    name, units = "energy stored at the end", reading.storage
    if len(units) != len(e_kwh):
        return Indicator(STORAGE, name, float(e_kwh.sum()), "kWh", None, "at the beginning of the last step")
    after = [float(stored_kwh(unit, p_kw[k], e_kwh[k], reading.step_s)) for k, unit in enumerate(units)]
    reserve = sum(unit.reserve_kwh for unit in units)
    return Indicator(STORAGE, name, sum(after), "kWh", None, f"reserve {reserve:g} kWh")


def _estimate(reading: Reading) -> Iterator[Indicator]:
    head = head_error(reading)
    if head is not None:
        yield Indicator(ESTIMATE, "head: mean absolute error", head.mean_absolute_kw, "kW")
        yield Indicator(ESTIMATE, "head: largest error", head.maximum_kw, "kW")
    for error in site_errors(reading):
        if error.site == ALL_SITES:
            note = "unmetered sites" + (", used by the operator" if error.method == reading.method_in_use else "")
            yield Indicator(ESTIMATE, f"{error.method}: mean absolute error", error.mean_absolute_kw, "kW", None, note)
    if meter_quality(reading):
        yield Indicator(ESTIMATE, "values missing or late", 100.0 * share_not_good(reading), "%")


def _run(reading: Reading) -> Iterator[Indicator]:
    planned = f"of {reading.steps_planned}" if reading.steps_planned else ""
    yield Indicator(RUN, "steps recorded", float(reading.steps), "1", None, planned)
    converged = reading.total(f"{WITH}/solution/converged")
    if converged is not None:
        yield Indicator(RUN, "steps that did not converge", float((converged == 0).sum()), "1")
    times = wall_times(reading)
    if times:
        yield Indicator(RUN, "wall-clock time of simulators", sum(t.total_s for t in times), "s")


def as_text(results: Results) -> str:
    """The run in a table of at most 120 columns: what happened, with and without orders and activation, as predicted,
    how good estimates and measurements were."""
    reading = Reading(results)
    found = [i for i in indicators_of(reading) if i.group not in (ESTIMATE, RUN)]
    parts = [_title(reading), _indicator_lines(found, reading.title_with), _day_lines(reading), _error_lines(reading)]
    parts.append(_meter_lines(reading))
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _title(reading: Reading) -> list[str]:
    facts = [f"{reading.name}: {reading.status}", f"feeder {reading.attributes.get('feeder', 'not recorded')}"]
    if "seed" in reading.attributes:
        facts.append(f"seed {reading.attributes['seed']}")
    lines = [", ".join(facts)]
    error = str(reading.attributes.get("error", ""))
    lines += [shortened(line, _WIDTH) for line in error.splitlines()]
    if reading.status != "complete":
        of_planned = f" of {reading.steps_planned}" if reading.steps_planned else ""
        lines.append(f"NOT COMPLETE: {reading.steps}{of_planned} steps recorded; all below is about these")
    if reading.steps:
        step = f", steps of {format_duration(int(reading.step_s))}" if reading.step_s > 0 else ""
        lines += [shortened(line, _WIDTH) for line in [unexplained(reading)] if line]
        lines.append(f"{moment(reading.local_time[0])} to {moment(reading.local_end)} {reading.zone}{step}")
    return lines


def _indicator_lines(found: list[Indicator], title: str) -> list[str]:
    if not found:
        return []
    compared = any(i.without_orders is not None for i in found)
    rows = [["", title, "without", "", ""] if compared else ["", "", "", "", ""]]
    for i in found:
        without = "" if i.without_orders is None else number(i.without_orders, i.unit)
        rows.append([f"  {i.name}", number(i.value, i.unit), without, "" if i.unit == "1" else i.unit, i.note])
    heading, *lines = aligned(rows, left=(0, 3, 4), width=_WIDTH)
    text = [heading]
    for group, members in groupby(zip(found, lines, strict=True), key=lambda each: each[0].group):
        text += [group, *(line for _, line in members)]
    return text


def _day_lines(reading: Reading) -> list[str]:
    found = days(reading)
    if len(found) < 2:
        return []
    title = "Deepest head power by day [kW]"
    if len(found) > _DAYS_AS_TEXT:
        title += f" (the {_DAYS_AS_TEXT} deepest of {len(found)} days)"
        deepest_days = sorted(found, key=lambda d: np.nanmin([d.head_min_kw, d.head_min_idle_kw or 0.0, 0.0]))
        found = tuple(sorted(deepest_days[:_DAYS_AS_TEXT], key=lambda d: d.day))
    rows = [["  day", reading.title_with, "at", "without", "at", "predicted"]]
    rows += [
        [
            f"  {d.day}",
            number(d.head_min_kw, "kW"),
            d.at,
            number(d.head_min_idle_kw, "kW"),
            d.idle_at,
            number(d.predicted_kw, "kW"),
        ]
        for d in found
    ]
    return [title, *aligned(rows, width=_WIDTH)]


def _error_lines(reading: Reading) -> list[str]:
    """Errors by method over all unmetered sites, then at single sites as far as there is room for them."""
    errors, head = site_errors(reading), head_error(reading)
    sites = [f"at {shortened(site, 12)}" for site in reading.unmetered_sites]
    room = (_WIDTH - 54) // (2 + max(map(len, sites), default=8))
    shown = reading.unmetered_sites[:room] if len(sites) > 1 else ()
    largest_kw = largest_error_kw([*errors, *([head] if head else [])])
    at_site = {(e.method, e.site): number(e.mean_absolute_kw, "kW", largest_kw) for e in errors}
    rows = [["  method", "mean abs.", "RMSE", "bias", "largest", *sites[: len(shown)]]]
    for e in [e for e in errors if e.site == ALL_SITES]:
        label = f"  {e.method}{'*' if e.method == reading.method_in_use else ''}"
        rows.append([label, *_error_figures(e, largest_kw), *(at_site[e.method, site] for site in shown)])
    if head is not None:
        rows.append(["  head", *_error_figures(head, largest_kw), *[""] * len(shown)])
    title = "Estimation error of active power at unmetered sites [kW] (* used by the operator)"
    return [title, *aligned(rows, width=_WIDTH)] if len(rows) > 1 else []


def _error_figures(error: EstimateError, largest_kw: float) -> list[str]:
    figures = (error.mean_absolute_kw, error.root_mean_square_kw, error.bias_kw, error.maximum_kw)
    return [number(figure, "kW", largest_kw) for figure in figures]


def _meter_lines(reading: Reading) -> list[str]:
    rows = [["  meter", "values", "good", "missing", "late"]]
    for m in meter_quality(reading):
        shares = (number(100.0 * share, "%") for share in (m.good, m.missing, m.late))
        rows.append([f"  {m.meter}", str(m.values), *shares])
    if len(rows) == 1:
        return []
    faults = ", ".join(f"{count} {kind}" for kind, count in fault_counts(reading).items())
    return [
        "Measurements at the gateway [%]",
        *aligned(rows, width=_WIDTH),
        *([f"  faults: {faults}"] if faults else []),
    ]
