"""A feeder that grows: figures of a run by hand, tables, sentences and figures of years."""

from __future__ import annotations

import csv
import math
from datetime import date
from pathlib import Path

import pytest
from coordination_results import coordination_file
from matplotlib.figure import Figure

from cosim.analysis.windows import Window
from cosim.errors import ResultError
from cosim.io.results import open_results
from cosim.report.canvas import style
from cosim.report.figures_growth import FIGURES, drawings, grown, write_figures
from cosim.report.growth import Growth, Stage, Year, over_stages, run_figures, tables
from cosim.report.growth_pages import blocks, shown, summary, write_report

NAMES = [
    "dso_up_kwh", "dso_down_kwh", "tso_up_kwh", "tso_down_kwh", "t_up_kwh", "t_down_kwh", "dso_eur", "tso_eur",
    "aggregators_eur", "need_up_kwh", "need_down_kwh", "short_kwh", "violation_h", "without_violation_h", "unmet_h",
    "worst_percent", "without_worst_percent", "peak_import_kw", "peak_export_kw", "without_peak_import_kw",
    "without_peak_export_kw",
]  # fmt: skip


def figures(first: float) -> dict[str, float]:
    return {name: first + 100.0 * k for k, name in enumerate(NAMES)}


@pytest.fixture
def found() -> Growth:
    """Two stages under two schemes; one year failed."""
    return Growth(
        (Stage("2021", 0.0, 9.0, 63.0), Stage("2030", 2454.0, 220.0, 1540.0)),
        (Window("winter", 10, 7.0, 183, 0.1), Window("summer", 180, 7.0, 183, 0.2)),
        (
            Year("2021", "a", "", figures(1000.0)),
            Year("2021", "b", "", figures(2000.0)),
            Year("2030", "a", "", figures(40000.0)),
            Year("2030", "b", "the power went out"),
        ),
        date(2016, 1, 1),
    )


def test_figures_of_a_run(tmp_path: Path) -> None:
    """See coordination_results for what was bought."""
    with open_results(coordination_file(tmp_path / "run.h5")) as results:
        made = run_figures(results)
    assert {name: made[name] for name in made if name.endswith("_kwh")} == pytest.approx(
        {
            "dso_up_kwh": 0.0,
            "dso_down_kwh": (4.0 + 8.0) / 4.0,
            "tso_up_kwh": 4.0 / 4.0,
            "tso_down_kwh": 0.0,
            "t_up_kwh": (10.0 + 12.0) / 4.0,
            "t_down_kwh": 8.0 / 4.0,
            "need_up_kwh": (10.0 + 20.0) / 4.0,
            "need_down_kwh": 8.0 / 4.0,
            "short_kwh": 8.0 / 4.0,
        }
    )
    money = {name: made[name] for name in made if name.endswith("_eur")}
    assert money == pytest.approx({"dso_eur": 0.6 - 2.0, "tso_eur": 0.75 + 2.0, "brp_eur": 0.0, "aggregators_eur": 0.9})
    assert made["unmet_h"] == 0.25
    assert made["violation_h"] == made["worst_percent"] == 0.0


def test_a_run_that_did_not_end_is_refused(tmp_path: Path) -> None:
    file = coordination_file(tmp_path / "run.h5", status="failed")
    with open_results(file) as results, pytest.raises(ResultError, match="no complete run"):
        run_figures(results)


def test_figures_of_years_by_stage_and_scheme(found: Growth) -> None:
    assert found.schemes == ("a", "b")
    assert over_stages(found, "a", "dso_up_kwh") == [1000.0, 40000.0]
    assert over_stages(found, "b", "dso_up_kwh") == [2000.0, pytest.approx(math.nan, nan_ok=True)]
    assert found.begin(found.windows[1]) == date(2016, 6, 29)


def test_numbers_of_a_year() -> None:
    assert shown(123456.0, "kwh") == "123.5"
    assert shown(1234.56, "eur") == "1235"
    assert shown(0.25, "h") == "0.2"
    assert shown(-0.01, "kwh") == "0.0"
    assert shown(math.nan, "kw") == "-"


def test_a_failed_year_is_told_and_leaves_no_numbers(found: Growth) -> None:
    made = {block.title: block for block in blocks(found, ("assumed",))}
    assert made["Years without figures"].rows == (("2030", "b", "the power went out"),)
    (row,) = [row for row in made["Bought and paid in a year"].rows if row[:2] == ("2030", "b")]
    assert set(row[2:]) == {"-"}
    assert "2030 b: the power went out" in summary(found)
    table = {each.form.name: each for each in tables(found)}["growth"]
    assert table.where(stage="2030", scheme="b").rows[0]["dso_up_kwh"] is None


def test_words(found: Growth) -> None:
    made = {block.title: block for block in blocks(found, ("assumed",))}
    first, of_a, _ = made["In short"].text
    without = NAMES.index("without_violation_h") * 100.0
    assert f"{1000.0 + without:.1f} h a year in 2021 and {40000.0 + without:.1f} h in 2030" in first
    assert of_a.startswith("a: the DSO buys 40.0 MWh upward and 40.1 MWh downward and pays 40600 EUR")
    assert made["Assumptions"].text == ("assumed",)
    assert [row[-2] for row in made["The days that stand for a year"].rows] == ["26.14", "26.14"]
    assert made["What grows"].rows[1] == ("2030", "2454", "220", "564")


def test_columns_of_all_tables_are_as_wide_as_their_heads(found: Growth) -> None:
    for block in blocks(found, ()):
        assert all(len(row) == len(block.columns) for row in block.rows), block.title
    lines = summary(found)
    assert len(lines) == 2 + 4 + 1
    assert lines[0].split()[:2] == ["stage", "scheme"]


def test_bars_hold_the_figures(found: Growth) -> None:
    with style():
        figure = grown(found, FIGURES["bought"][1], legend=True)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights[:4] == pytest.approx([1.0, 40.0, -1.1, -40.1])  # scheme a: up of both stages, then down [MWh]
    assert heights[4] == pytest.approx(2.0)
    assert isinstance(figure, Figure)
    with style():
        assert [drawing.title for drawing in drawings(found)] == [title for title, _ in FIGURES.values()]


def test_files(found: Growth, tmp_path: Path) -> None:
    write_report(found, ("what was run",), ("assumed",), tmp_path, "grown")
    for name in FIGURES:
        assert (tmp_path / "images" / f"growth_{name}.png").stat().st_size > 1000
    page, text = ((tmp_path / f"grown.{kind}").read_text() for kind in ("html", "md"))
    assert page.count("<figure>") == len(FIGURES)
    for part in ("what was run", "assumed", "the power went out"):
        assert part in page
        assert part in text
    with (tmp_path / "growth.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [float(row["dso_up_kwh"] or "nan") for row in rows[:3]] == [1000.0, 2000.0, 40000.0]
    before = (tmp_path / "images" / "growth_left.svg").read_bytes()
    write_figures(found, tmp_path / "images")
    assert (tmp_path / "images" / "growth_left.svg").read_bytes() == before


def test_a_folder_that_cannot_be_written_is_told(found: Growth, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ResultError, match="cannot be written"):
        write_report(found, (), (), tmp_path / "taken", "grown")
