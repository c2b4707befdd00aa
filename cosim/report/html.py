"""Writes the report: one HTML file that needs nothing but a browser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cosim.clock import format_duration
from cosim.errors import ResultError
from cosim.io.disk import as_a_whole, reason
from cosim.io.results import open_results
from cosim.report import figures, figures_coordination, figures_market, figures_sensing
from cosim.report.accuracy import (
    ALL_SITES,
    ChannelError,
    EstimateError,
    MeterQuality,
    channel_errors,
    fault_counts,
    head_error,
    largest_error_kw,
    meter_quality,
    site_errors,
)
from cosim.report.breakdown import DayFigures, WallTime, days, wall_times
from cosim.report.canvas import COLOURS, Drawing, style
from cosim.report.causes import Cause, Residual
from cosim.report.comparison import Comparison, compare
from cosim.report.coordination import Coordination, coordination
from cosim.report.figures import TimeAxis, axis_of
from cosim.report.indicator import Indicator
from cosim.report.indicators import indicators_of
from cosim.report.layout import number
from cosim.report.market import Gate, gates, local_moment, residuals_of, unexplained
from cosim.report.money import Money, money
from cosim.report.reading import Reading, moment
from cosim.scenario.document import as_yaml

_ROWS = 500
_STATES = {
    "running": "This run has not ended, or its process was killed",
    "failed": "This run failed",
    "interrupted": "This run was interrupted",
}

Maker = Callable[[TimeAxis, str], Drawing | None]
_GRID: tuple[Maker, ...] = (
    figures.head, figures.storage, figures.voltage_band, figures.voltage_map, figures.loadings, figures.loading_maxima,
)  # fmt: skip
_COORDINATION: tuple[Maker, ...] = (figures_coordination.need_met, figures_coordination.stages)
_MARKET: tuple[Maker, ...] = (
    figures_market.limits, figures_market.activations, figures_market.cost, figures_market.forecast_errors,
)  # fmt: skip
_ESTIMATES: tuple[Maker, ...] = (figures_sensing.sites, figures_sensing.errors)
_MEASUREMENTS: tuple[Maker, ...] = (figures_sensing.quality, figures_sensing.measured)


@dataclass(frozen=True)
class Section:
    """All that the page says about one result."""

    label: str
    file: str
    name: str
    description: str
    status: str
    warning: str
    error: str
    facts: tuple[tuple[str, str], ...]
    indicators: tuple[Indicator, ...]
    days: tuple[DayFigures, ...]
    acts: str
    coordination: Coordination | None
    coordinated: tuple[Drawing, ...]
    market: tuple[Drawing, ...]
    residuals: tuple[tuple[str, Residual], ...]
    unexplained: str
    gates: tuple[Gate, ...]
    money: Money | None
    grid: tuple[Drawing, ...]
    estimates: tuple[Drawing, ...]
    measurements: tuple[Drawing, ...]
    method_in_use: str
    errors: tuple[EstimateError, ...]
    largest_error_kw: float
    meters: tuple[MeterQuality, ...]
    channels: tuple[ChannelError, ...]
    faults: dict[str, int]
    orders: tuple[tuple[str, str, str, str], ...]
    orders_left_out: int
    wall_times: tuple[WallTime, ...]
    scenario: str


def write_report(paths: Sequence[Path], out: Path) -> None:
    """Write one self-contained HTML file about one or more result files; several are compared side by side.

    The same files give the same bytes. Raises ResultError as ``open_results`` does, when ``out`` is one of the results,
    and when it cannot be written.
    """
    if any(out.resolve() == path.resolve() for path in paths):
        raise ResultError(f"{out}: the report would take the place of a result file")
    with ExitStack() as stack:
        readings = [Reading(stack.enter_context(open_results(path))) for path in paths]
        labels = _labels(readings)
        with style():
            sections = [
                _section(reading, label, f"r{k}")
                for k, (reading, label) in enumerate(zip(readings, labels, strict=True))
            ]
            compared = compare(readings, labels) if len(readings) > 1 else None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with as_a_whole(out) as part:
            part.write_text(_page(sections, compared), encoding="utf-8", newline="\n")
    except OSError as error:
        raise ResultError(f"{out}: cannot write the report: {reason(error)}") from error


def _page(sections: Sequence[Section], compared: Comparison | None) -> str:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals |= {"all_sites": ALL_SITES, "most_rows": _ROWS, "unexplained": Cause.UNEXPLAINED}
    templates.filters |= {"number": number, "svg": Markup, "groupby_order": _grouped}
    page: str = templates.get_template("report.html").render(sections=sections, compared=compared, colours=COLOURS)
    return page


@dataclass(frozen=True)
class Group:
    """Neighbouring rows of a table under one heading."""

    name: str
    members: tuple[Any, ...]


def _grouped(rows: Sequence[Any], attribute: str) -> list[Group]:
    """Rows by the value of an attribute, in their order."""
    return [Group(str(name), tuple(members)) for name, members in groupby(rows, key=attrgetter(attribute))]


def _labels(readings: Sequence[Reading]) -> list[str]:
    """The names of the result files, numbered where two have the same."""
    stems = [reading.results.path.stem for reading in readings]
    seen = Counter(stems)
    return [f"{stem} ({k + 1})" if seen[stem] > 1 else stem for k, stem in enumerate(stems)]


def _section(reading: Reading, label: str, salt: str) -> Section:
    orders = _orders(reading)
    left = tuple((local_moment(reading, row.t_s), row) for row in residuals_of(reading))
    head = head_error(reading)
    errors = (*((head,) if head else ()), *site_errors(reading))
    return Section(
        label=label,
        file=reading.results.path.name,
        name=reading.name,
        description=str(reading.scenario.get("description", "")),
        status=reading.status,
        warning=_warning(reading),
        error=str(reading.attributes.get("error", "")),
        facts=_facts(reading),
        indicators=indicators_of(reading),
        days=days(reading) if reading.steps else (),
        acts=reading.acts,
        coordination=coordination(reading),
        coordinated=_drawn(reading, _COORDINATION, salt),
        market=_drawn(reading, _MARKET, salt),
        residuals=left,
        unexplained=unexplained(reading),
        gates=gates(reading),
        money=money(reading) if reading.steps else None,
        grid=_drawn(reading, _GRID, salt),
        estimates=_drawn(reading, _ESTIMATES, salt),
        measurements=_drawn(reading, _MEASUREMENTS, salt),
        method_in_use=reading.method_in_use,
        errors=errors,
        largest_error_kw=largest_error_kw(errors),
        meters=meter_quality(reading),
        channels=channel_errors(reading),
        faults=fault_counts(reading),
        orders=orders[:_ROWS],
        orders_left_out=max(0, len(orders) - _ROWS),
        wall_times=wall_times(reading),
        scenario=as_yaml(reading.scenario) if reading.scenario else "",
    )


def _drawn(reading: Reading, makers: Sequence[Maker], salt: str) -> tuple[Drawing, ...]:
    if not reading.steps:
        return ()
    axis = axis_of(reading)
    made = (maker(axis, f"{salt}-{maker.__name__}") for maker in makers)
    return tuple(drawing for drawing in made if drawing is not None)


def _warning(reading: Reading) -> str:
    """What the reader must know first of a run that is not complete; empty for one that is."""
    if reading.status == "complete":
        return ""
    state = _STATES.get(reading.status, f"The status of this run is {reading.status}")
    planned = f" of {reading.steps_planned}" if reading.steps_planned else ""
    until = f", until {moment(reading.local_end)}" if reading.steps else ""
    return f"{state}: {reading.steps}{planned} steps were recorded{until}. All figures are about these."


def _facts(reading: Reading) -> tuple[tuple[str, str], ...]:
    attributes, versions = reading.attributes, reading.json("versions") or {}
    facts = [("feeder", str(attributes.get("feeder", "")))]
    if reading.steps:
        step = f" of {format_duration(int(reading.step_s))}" if reading.step_s > 0 else ""
        span = f"{moment(reading.local_time[0])} to {moment(reading.local_end)}, {reading.zone}"
        facts += [("simulated", span), ("steps", f"{reading.steps}{step}")]
    facts += [
        ("seed", str(attributes.get("seed", ""))),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("git commit", str(attributes.get("git_commit", ""))),
        ("result file", reading.results.path.name),
    ]
    return tuple((name, text) for name, text in facts if text)


def _orders(reading: Reading) -> tuple[tuple[str, str, str, str], ...]:
    """Local time, unit, power [kW] and head power without orders [kW] of each order, as text."""
    if "operator/orders" not in reading.results.events():
        return ()
    table: Any = reading.results.table("operator/orders")
    return tuple(
        (moment((time + reading.offset).tz_localize(None)), pod, number(p_kw, "kW"), number(idle_kw, "kW"))
        for time, pod, p_kw, idle_kw in zip(
            table["time"], table["pod"], table["p_kw"], table["head_idle_p_kw"], strict=True
        )
    )
