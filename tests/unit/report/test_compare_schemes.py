"""The comparison of schemes as pure functions: facts of runs in, tables and sentences out."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from coordination_results import coordination_file

from cosim.coordination.plain import from_plain, to_plain
from cosim.io.results import open_results
from cosim.report.canvas import style
from cosim.report.compare_schemes import (
    CauseCount,
    Left,
    SchemeRun,
    aggregators_eur,
    bought_by,
    differing,
    paid_eur,
    scheme_run,
    tables,
    unmet_mtus,
    without_flows,
    worse_mtus,
)
from cosim.report.coordination import Need, Volumes
from cosim.report.figures_schemes import cost_and_violations, cost_drawing, write_svg
from cosim.report.scheme_pages import DSO_FIRST, TSO_FIRST, Block, blocks, markdown, page

NONE_LEFT = Left(0, 0.0, 5, 12.0, 0, 0, 0, 0, 0, 0, ())


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> SchemeRun:
    with open_results(coordination_file(tmp_path_factory.mktemp("results") / "run.h5")) as opened:
        return scheme_run(opened)


@pytest.fixture(scope="module")
def second(first: SchemeRun) -> SchemeRun:
    """A scheme that is grid-safe, with a need that it meets, in which the TSO clears first and pays less."""
    assert first.coordination is not None
    (msl, msd), (dso, tso) = first.coordination.stages, first.coordination.parties
    again = replace(msd, stage="rebalance", resources="T", cost_eur=0.2, bought=Volumes())
    found = replace(
        first.coordination,
        scheme=TSO_FIRST,
        description="The TSO first",
        grid_safe=True,
        need=Need(7.5, 2.0, 1.0, 1),
        stages=(replace(msd, cost_eur=0.3), replace(msl, cost_eur=0.9, fell_back=3), again),
        parties=(replace(dso, bids_eur=0.9), replace(tso, bids_eur=0.5)),
    )
    return replace(first, scheme=TSO_FIRST, coordination=found, left=NONE_LEFT)


def block(runs: tuple[SchemeRun, ...], title: str) -> Block:
    (found,) = [each for each in blocks(runs) if each.title == title]
    return found


def test_facts(first: SchemeRun) -> None:
    assert (first.scheme, first.error, first.mtus) == (DSO_FIRST, "", 4)
    assert first.left is not None
    assert (first.left.mtus, first.left.without_mtus, first.left.unforeseeable) == (0, 0, 0)
    found = first.coordination
    assert found is not None
    assert [paid_eur(found, role) for role in ("DSO", "TSO", "BRP")] == pytest.approx([-1.4, 2.75, 0.0])
    assert aggregators_eur(found) == (pytest.approx(0.9), pytest.approx(0.0))
    assert bought_by(found, "TSO") == Volumes(1.0, 0.0, 5.5, 2.0)
    assert unmet_mtus(found) == 1


def test_facts_survive_json(first: SchemeRun) -> None:
    assert from_plain(SchemeRun, json.loads(json.dumps(to_plain(first)))) == first
    short = without_flows(first)
    assert short.coordination is not None
    assert short.coordination.flows == ""
    assert without_flows(SchemeRun("a", "failed")) == SchemeRun("a", "failed")


def test_a_run_that_did_not_end_is_why(tmp_path: Path) -> None:
    with open_results(coordination_file(tmp_path / "run.h5", status="failed")) as opened:
        assert scheme_run(opened) == SchemeRun(DSO_FIRST, "the power went out\nat noon")


def test_other_needs_are_noticed(first: SchemeRun, tmp_path: Path) -> None:
    with open_results(coordination_file(tmp_path / "run.h5", TSO_FIRST, need_kw=(10.0, -8.0, 20.001))) as opened:
        other = scheme_run(opened)
    assert differing([first, first]) == ()
    assert differing([first, other]) == ("need of the system",)
    assert differing([first, SchemeRun("local_only", "", 4, shared={})]) == ()
    (text, _) = block((first, other), "What all runs share").text
    assert "NOT THE SAME" in text


def rows(*cells: tuple[int, str, float]) -> pd.DataFrame:
    table = pd.DataFrame(cells, columns=["mtu", "element", "excess_percent"])
    return table.assign(phase=1.0, quantity="i_a")


def test_worse_is_more_of_the_limit_of_the_same_element_in_the_same_mtu() -> None:
    without = rows((1, "L1@A", 5.0), (1, "L1@A", 4.0), (2, "L1@A", 5.0), (3, "L1@A", 5.0))
    left = rows((1, "L1@A", 5.05), (2, "L1@A", 5.2), (3, "L2@A", 1.0), (4, "L1@A", 0.05), (5, "L1@A", 0.2))
    assert worse_mtus(left, without) == {2, 3, 5}
    assert worse_mtus(left.iloc[:0], without) == set()
    assert worse_mtus(left, without.iloc[:0]) == {1, 2, 3, 5}


def test_tables_have_a_row_for_each_scheme_failed_or_not(first: SchemeRun, second: SchemeRun) -> None:
    made = {table.form.name: table for table in tables([first, second, SchemeRun("raw", "no power flow")])}
    assert set(made) == {"schemes", "stages", "sellers", "excluded", "messages"}
    schemes = made["schemes"]
    assert schemes.column("scheme") == [DSO_FIRST, TSO_FIRST, "raw"]
    assert schemes.column("error") == ["", "", "no power flow"]
    assert schemes.column("tso_eur") == [pytest.approx(2.75), pytest.approx(2.5), None]
    assert schemes.column("short_kwh") == [2.0, 1.0, None]
    assert schemes.form.columns["tso_eur"] == "EUR"
    assert schemes.form.columns["d_up_kwh"] == "kWh"
    assert made["stages"].where(scheme=TSO_FIRST).column("stage") == ["MSD", "MSL", "rebalance"]
    assert made["excluded"].where(scheme=DSO_FIRST).column("bids") == [2.0, 2.0]


def test_tables_without_rows_are_left_out() -> None:
    assert [table.form.name for table in tables([SchemeRun("raw", "failed")])] == ["schemes"]


def test_cost_block_tells_who_pays_and_what_is_missing(first: SchemeRun) -> None:
    assert first.coordination is not None
    alone = replace(first, scheme="local_only", coordination=replace(first.coordination, need=None))
    found = block((first, alone), "Cost by party, and needs that were not met")
    assert found.rows[0] == (DSO_FIRST, "Multi-level", "-1.40", "2.75", "0.00", "1.35", "2.0", "1")
    assert found.rows[1][6] == "nobody balances"


def test_who_is_first_is_compared_in_numbers(first: SchemeRun, second: SchemeRun) -> None:
    found = block((first, second), "DSO priority and TSO priority")
    said = " ".join(found.text)
    assert "costs 0.30 EUR if it is first, 0.75 EUR if the DSO is: no more, as theory says." in said
    assert "pays 2.50 EUR against 2.75 EUR, and 1.0 kWh against 2.0 kWh of the need stay unmet" in said
    assert "The DSO pays -1.10 EUR if it is second, -1.40 EUR if it is first" in said
    assert "in 1 against 1 MTUs: no less, as theory says" in said
    assert "buys 0.0 kWh up and 3.0 kWh down without looking at the balance" in said
    assert "4 bids (28.0 kWh) are out for it: capped" in said
    assert "In 3 MTUs that is not possible" in said
    assert "balances again for 0.20 EUR" in said
    assert f"under {TSO_FIRST}: its last stage, rebalance, has only offers at transmission" in said
    assert not [each for each in blocks((first,)) if each.title == "DSO priority and TSO priority"]


def test_what_is_not_as_theory_says_is_told(first: SchemeRun, second: SchemeRun) -> None:
    assert first.coordination is not None
    cheap = tuple(replace(each, cost_eur=0.1) for each in first.coordination.stages)
    turned = replace(first, coordination=replace(first.coordination, stages=cheap))
    said = " ".join(block((turned, second), "DSO priority and TSO priority").text)
    assert "if the DSO is: more, NOT as theory says." in said


def test_grid_safe_schemes_must_not_break_what_the_forecast_shows(first: SchemeRun, second: SchemeRun) -> None:
    title = "Grid-safe and raw schemes"
    calm = " ".join(block((replace(first, left=NONE_LEFT), second), title).text)
    assert "In none of them a purchase breaks a limit" in calm
    assert f"without knowing the network: {DSO_FIRST}." in calm
    assert "none of their purchases makes a violation" in calm
    raw = replace(NONE_LEFT, mtus=9, unserved=4, unseen=5, shown_mtus=6, worse_mtus=6)
    said = " ".join(block((replace(first, left=raw), second), title).text)
    assert f"makes, or makes worse: {DSO_FIRST} in 6 MTUs." in said
    assert f"nobody buys for, which the forecast shows too, in MTUs: {DSO_FIRST} 4." in said
    bug = replace(second, left=replace(NONE_LEFT, mtus=1, unexplained=1))
    assert f"NOT AS IT SHOULD BE, in {TSO_FIRST}" in " ".join(block((first, bug), title).text)


def test_violations_add_up(first: SchemeRun) -> None:
    causes = (CauseCount("forecast error", 1),)
    left = Left(11, 20.0, 12, 30.0, 2, 1, 4, 3, 2, 1, causes)
    assert left.unforeseeable == 1
    found = block((replace(first, left=left),), "Violations left, by the power flow of OpenDSS")
    assert found.rows == ((DSO_FIRST, "11", "4", "3", "2", "1", "1", "2", "20.00"),)
    assert found.text == ("Without any activation 12 of 4 MTUs have violations, the worst 30.00 % beyond its limit.",)


def test_failed_runs_come_first_and_stop_nothing(first: SchemeRun) -> None:
    failed = SchemeRun("usman_two_stage", "no power flow\nat step 3")
    found = blocks((first, failed))
    assert found[0].title == "Schemes that did not reach the end"
    assert found[0].rows == (("usman_two_stage", "no power flow"),)
    assert len(blocks((failed,))) >= 2


def test_markdown_is_a_table_of_its_blocks() -> None:
    block = Block("Part", ("Text.",), ("scheme", "kind", "kW"), (("a", "b", "1"),), ("Note.",), 2)
    lines = [
        "# Title", "", "Lead.", "", "## Part", "", "Text.", "", "| scheme | kind | kW |", "|---|---|---:|",
        "| `a` | b | 1 |", "", "Note.",
    ]  # fmt: skip
    assert markdown("Title", ["Lead."], [block]).splitlines() == lines


@pytest.fixture
def drawn(first: SchemeRun, second: SchemeRun) -> Iterator[str]:
    with style():
        yield page("Title <1>", ["Lead."], blocks((first, second)), [cost_drawing((first, second))])


def test_page_needs_nothing_else(drawn: str) -> None:
    assert "<title>Title &lt;1&gt;</title>" in drawn
    assert "href=" not in drawn.replace('href="#', "")
    assert "src=" not in drawn
    assert "<svg" in drawn
    assert f">{TSO_FIRST}</th>" in drawn


def test_figure_has_a_row_for_each_scheme_that_ended(first: SchemeRun, second: SchemeRun, tmp_path: Path) -> None:
    runs = (first, second, SchemeRun("raw", "failed"))
    with style():
        cost, left = cost_and_violations(runs).axes
        assert [label.get_text() for label in cost.get_yticklabels()] == [DSO_FIRST, TSO_FIRST]
        widths = [patch.get_width() for patch in cost.patches]
    assert widths == pytest.approx([-1.4, 2.75, 0.0, -1.1, 2.5, 0.0])
    assert len(left.patches) == 10
    for name in ("a", "b"):
        write_svg(runs, tmp_path / name / "figure.svg")
    assert (tmp_path / "a" / "figure.svg").read_bytes() == (tmp_path / "b" / "figure.svg").read_bytes()
