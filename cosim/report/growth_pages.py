"""The growth of a feeder in words and tables: a page in HTML and Markdown, CSV files, figures, text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cosim.errors import ResultError
from cosim.io.disk import reason
from cosim.io.tables import write_csv
from cosim.report.canvas import style
from cosim.report.figures_growth import FIGURES, drawings, write_figures
from cosim.report.growth import Growth, Stage, Year, tables
from cosim.report.layout import aligned
from cosim.report.scheme_pages import Block, markdown, page

TITLE: Final = "Growth of photovoltaics and vehicles under schemes of coordination"
_SIDE: Final = (
    ("dso_up_kwh", "DSO up [MWh]"), ("dso_down_kwh", "DSO down [MWh]"),
    ("tso_up_kwh", "TSO up [MWh]"), ("tso_down_kwh", "TSO down [MWh]"),
)  # fmt: skip
_PAID: Final = (("dso_eur", "DSO [EUR]"), ("tso_eur", "TSO [EUR]"))
_BOUGHT: Final = (
    *_SIDE, ("t_up_kwh", "T up [MWh]"), ("t_down_kwh", "T down [MWh]"),
    *_PAID, ("aggregators_eur", "aggregators [EUR]"),
)  # fmt: skip
_LEFT: Final = (
    ("violation_h", "violations [h]"), ("without_violation_h", "without [h]"), ("worst_percent", "worst [%]"),
    ("without_worst_percent", "without [%]"), ("unmet_h", "limits unmet [h]"), ("need_up_kwh", "need up [MWh]"),
    ("need_down_kwh", "need down [MWh]"), ("short_kwh", "not met [MWh]"), ("peak_import_kw", "peak import [kW]"),
    ("peak_export_kw", "peak export [kW]"),
)  # fmt: skip
_SHORT: Final = (
    *_SIDE, *_PAID, ("violation_h", "violated [h]"), ("without_violation_h", "without [h]"),
    ("short_kwh", "need unmet [MWh]"), ("peak_import_kw", "import [kW]"), ("peak_export_kw", "export [kW]"),
)  # fmt: skip
Columns = Sequence[tuple[str, str]]


def shown(value: float, unit: str) -> str:
    """A figure of a year: energies in MWh, money and powers without decimals; ``-`` where there is none."""
    if value != value:
        return "-"
    scaled, decimals = (value / 1e3, 1) if unit == "kwh" else (value, 0 if unit in ("eur", "kw") else 1)
    text = f"{scaled:.{decimals}f}"
    return text[1:] if text.startswith("-") and float(text) == 0.0 else text


def blocks(found: Growth, assumptions: Sequence[str]) -> tuple[Block, ...]:
    """All of the page."""
    failed = tuple((year.stage, year.scheme, year.error) for year in found.years if year.error)
    made = [Block("In short", tuple(_short(found)))]
    if failed:
        made.append(Block("Years without figures", (), ("stage", "scheme", "because"), failed, words=3))
    made += [_bought(found), _left(found), _stages(found), _windows(found), Block("Assumptions", tuple(assumptions))]
    return tuple(made)


def _short(found: Growth) -> Iterator[str]:
    first, last = found.stages[0].name, found.stages[-1].name
    scheme = next((year.scheme for year in found.years if not year.error), "")
    idle = [shown(found.figure(stage, scheme, "without_violation_h"), "h") for stage in (first, last)]
    yield (
        f"If nothing is activated, a limit of the feeder is violated for {idle[0]} h a year in {first} and {idle[1]} h "
        f"in {last}. In {last}:"
    )
    for name in found.schemes:

        def of(figure: str, scheme: str = name) -> str:
            return shown(found.figure(last, scheme, figure), figure.rpartition("_")[2])

        yield (
            f"{name}: the DSO buys {of('dso_up_kwh')} MWh upward and {of('dso_down_kwh')} MWh downward and pays "
            f"{of('dso_eur')} EUR, the TSO buys {of('tso_up_kwh')} and {of('tso_down_kwh')} MWh at the feeder and pays "
            f"{of('tso_eur')} EUR in all; {of('violation_h')} h with a violation are left, and {of('short_kwh')} MWh "
            "of the need of the system are not met."
        )


def _row(year: Year, columns: Columns) -> tuple[str, ...]:
    nan = float("nan")
    cells = (shown(year.figures.get(name, nan), name.rpartition("_")[2]) for name, _ in columns)
    return (year.stage, year.scheme, *cells)


def _bought(found: Growth) -> Block:
    note = (
        "Up: less load or more generation, down: the reverse; less what was given back. DSO, TSO: bought by them "
        "at the feeder, T: at transmission. EUR: what both pay, and what aggregators of the feeder are paid."
    )
    return _by_year(found, "Bought and paid in a year", _BOUGHT, note)


def _left(found: Growth) -> Block:
    note = (
        "Violations: by the power flow, with the worst beyond its limit; without: had nothing been activated. "
        "Limits unmet: time in which a stage could not keep all limits for all forecast errors planned for. Need: "
        "of the system; not met: after all stages. Peaks are those of the feeder's head in any of the windows; "
        "time and energy are of a year."
    )
    return _by_year(found, "What is left in a year", _LEFT, note)


def _by_year(found: Growth, title: str, columns: Columns, note: str) -> Block:
    """A row for each stage and scheme."""
    header = ("stage", "scheme", *(title for _, title in columns))
    return Block(title, (), header, tuple(_row(year, columns) for year in found.years), (note,), 2)


def _stages(found: Growth) -> Block:
    def row(stage: Stage) -> tuple[str, ...]:
        return (stage.name, f"{stage.added_pv_kw:.0f}", f"{stage.cars:.0f}", f"{stage.cars_kwh_a_day * 0.366:.0f}")

    columns = ("stage", "photovoltaics added [kWp]", "electric cars", "into their batteries [MWh/a]")
    return Block("What grows", (), columns, tuple(row(stage) for stage in found.stages))


def _windows(found: Growth) -> Block:
    text = (
        "Each year is made of these windows. The year of the profiles is cut into equal parts, from 1 December on, so "
        "that four parts are the seasons; of each part those days in a row are taken whose duration curves of net "
        "power at the substations, in the last stage, are closest to those of all days of the part. Error: mean "
        "distance between the two curves, in percent of the part's mean absolute deviation from its median.",
        "Energy, money and time of a window count as often as its weight says; the weights times the days are the "
        "year. Peaks and worst violations are the highest of all windows. Windows follow the mean more closely than "
        "the rarest days: read peaks, and needs that come on a few days a year, as lower bounds.",
    )
    rows = tuple(
        (window.name, found.begin(window).isoformat(), f"{window.n_days:g}", str(window.part_days),
         f"{window.weight:.2f}", f"{100.0 * window.error:.1f}")
        for window in found.windows
    )  # fmt: skip
    return Block(
        "The days that stand for a year", text, ("window", "from", "days", "stand for", "weight", "error [%]"), rows
    )


def write_report(found: Growth, lead: Sequence[str], assumptions: Sequence[str], folder: Path, name: str) -> None:
    """Writes ``name``.html and .md, CSV files and figures. Raises ResultError if one cannot be written."""
    made = blocks(found, assumptions)
    write_csv(folder, tables(found))
    write_figures(found, folder / "images")
    with style():
        html = page(TITLE, lead, made, drawings(found))
    pictures = [f"![{title}](images/growth_{key}.svg)" for key, (title, _) in FIGURES.items()]
    texts = {f"{name}.html": html, f"{name}.md": markdown(TITLE, [*lead, *pictures], made)}
    for file, text in texts.items():
        try:
            (folder / file).write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise ResultError(f"{folder / file}: cannot be written: {reason(error)}") from error


def summary(found: Growth) -> list[str]:
    """A table for a terminal."""
    heads = [tuple(title.partition(" [")[k].rstrip("]") for _, title in _SHORT) for k in (0, 2)]
    rows = [("stage", "scheme", *heads[0]), ("", "", *heads[1]), *(_row(year, _SHORT) for year in found.years)]
    failed = [f"{year.stage} {year.scheme}: {year.error}" for year in found.years if year.error]
    return [*aligned(rows, left=(0, 1), width=160), *failed]
