"""What a market run comes to, against values worked out by hand from the course in small_market."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from market_results import SCENARIO, market_file
from small_result import result_file

from cosim.io.results import Results, open_results
from cosim.report.causes import Cause
from cosim.report.circumstances import rules_of
from cosim.report.comparison import compare
from cosim.report.coverage import asked, coverage
from cosim.report.html import write_report
from cosim.report.indicator import Indicator
from cosim.report.indicators import as_text, indicators_of
from cosim.report.layout import number
from cosim.report.market import LEFT, MARKET, gates, residuals_of, unexplained
from cosim.report.market_run import MarketRun, market_run
from cosim.report.reading import Reading


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return market_file(tmp_path_factory.mktemp("results") / "run.h5")


@pytest.fixture(scope="module")
def results(path: Path) -> Iterator[Results]:
    with open_results(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def run(results: Results) -> MarketRun:
    found = market_run(Reading(results))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def found(results: Results) -> dict[str, Indicator]:
    return {i.name: i for i in indicators_of(Reading(results)) if i.group in (MARKET, LEFT)}


@pytest.mark.parametrize(
    ("name", "value", "without", "unit"),
    [
        ("MTUs with violations", 6.0, 5.0, "1"),
        ("worst violation", 20.0, 50.0, "%"),
        ("cost as bid", 6.0 * (40 * 0.1 + 60 * 0.1 + 20 * 0.2 + 50 * 0.1), None, "EUR"),
        ("cost as paid", 6.0 * 170.0 * 0.3, None, "EUR"),
        ("awards", 4.0, None, "1"),
        ("rounds of clearing", 6.0, None, "1"),
        ("energy activated up", 6.0 * 70.0, None, "kWh"),
        ("energy activated down", 6.0 * 100.0, None, "kWh"),
        ("delivered", 100.0 * (1.0 - (80.0 + 1.0) / 340.0), None, "%"),
        ("MTUs with a need", 3.0, None, "1"),
        ("MTUs with flexibility bought", 3.0, None, "1"),
        ("MTUs with limits left by the plan", 1.0, None, "1"),
        ("P within its half-band", 100.0, None, "%"),
        ("Q within its half-band", 100.0, None, "%"),
        ("left by the plan", 1.0, None, "1"),
        ("no session", 1.0, None, "1"),
        ("forecast error", 1.0, None, "1"),
        ("not delivered", 1.0, None, "1"),
        ("taps or capacitors moved", 1.0, None, "1"),
        ("UNEXPLAINED (a bug)", 1.0, None, "1"),
    ],
)
def test_values(found: dict[str, Indicator], name: str, value: float, without: float | None, unit: str) -> None:
    assert found[name].value == pytest.approx(value)
    assert found[name].without_orders == without
    assert found[name].unit == unit


def test_a_tap_that_moved_by_order_has_not_moved_by_itself(tmp_path: Path) -> None:
    with open_results(market_file(tmp_path / "run.h5", ordered=True)) as opened:
        ordered = {each.name: each.value for each in indicators_of(Reading(opened))}
    assert "taps or capacitors moved" not in ordered
    assert ordered["UNEXPLAINED (a bug)"] == 2.0


def test_notes(found: dict[str, Indicator]) -> None:
    assert found["delivered"].note == "1 of 4 orders out of reach"
    assert found["worst violation"].note == "2016-07-22 12:00, Line.L2@A"
    assert found["rounds of clearing"].note == "in 3 steps, at most 2"
    assert found["cost as paid"].note == "0.300 EUR/kWh on average"
    assert found["not delivered"].note == "e.g. sun: 40.0 of 40.0 kW missing, out of reach"


def test_residual_violations_by_cause(results: Results) -> None:
    rows = residuals_of(Reading(results))
    assert [(row.t_s / 21600, row.element, row.cause) for row in rows] == [
        (0, "Line.L2@A", Cause.NO_SESSION),
        (1, "Line.L2@A", Cause.ERROR),
        (2, "Line.L2@A", Cause.UNDELIVERED),
        (3, "Line.L2@A", Cause.UNSOLVED),
        (4, "B", Cause.MOVED),
        (5, "Line.L2@A", Cause.UNEXPLAINED),
    ]
    assert [row.detail for row in rows] == [
        "first MTU of the run",
        "B.pv: P -30.0 kW, 1.50 half-bands",
        "sun: 40.0 of 40.0 kW missing, out of reach",
        "Line.L2@B.1: 25 % beyond i_max",
        "Transformer.T 1 -> 0.975",
        "no need was foreseen although errors are as planned",
    ]
    assert all(row.also == () for row in rows)
    assert [row.excess_percent for row in rows] == pytest.approx([3.0, 10.0, 20.0, 20.0, 100.0 * 0.005 / 0.95, 0.5])


def test_errors_are_those_of_profiles_whatever_resources_did(run: MarketRun) -> None:
    """Also of reactive power, although what comes with activations is known only from what happened."""
    errors = run.errors
    assert errors is not None
    expected = np.zeros((16, 3))
    expected[3, 1], expected[13, 0] = -30.0, 2.0
    expected[:2] = np.nan
    np.testing.assert_allclose(errors.p_kw, expected, atol=1e-9)
    np.testing.assert_allclose(errors.q_kvar, np.where(np.isnan(expected), np.nan, 0.0), atol=1e-9)
    assert errors.at(0) is None
    assert errors.at(2) is not None


def test_what_was_missing(run: MarketRun) -> None:
    missing = run.missing_kw
    assert list(run.pod_of.items()) == [("shed", "A.load"), ("sun", "B.pv"), ("store", "C.battery")]
    assert np.isnan(missing[[0, 1, 2, 3, 8, 9, 10, 11, 14, 15]]).all()
    np.testing.assert_allclose(missing[[4, 5, 6, 7], 1], [40.0, 40.0, 0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(missing[[12, 13]][:, [0, 2]], [[0.0, 0.0], [1.0, 0.0]], atol=1e-9)


def test_what_an_earlier_gate_sold_must_be_in_the_forecast(results: Results) -> None:
    """If store had sold its 50 kW before the last gate, the forecast, which is without them, would be 50 kW off."""
    run = MarketRun(Reading(results))
    run.awards.loc[run.awards["bid"].str.contains("/store/"), "gate_s"] -= 21600.0
    errors = run.errors
    assert errors is not None
    np.testing.assert_allclose(errors.p_kw[12], [0.0, 0.0, -50.0], atol=1e-9)
    np.testing.assert_allclose(errors.q_kvar[12], [0.0, 0.0, -10.0], atol=1e-9)


def test_awards_to_several_count_in_proportion(results: Results) -> None:
    run = MarketRun(Reading(results))
    rows = run.awards[run.awards["mtu"] == 6].index
    run.awards.loc[rows, "bid"] = ["agg/up/all/129600", "agg/up/all/129600/early"]
    run.awards.loc[rows[1], "gate_s"] -= 21600.0
    bought_kw = run._bought_of_units()
    np.testing.assert_allclose(bought_kw[6], [-20.0 * 20 / 70, 0.0, -20.0 * 50 / 70])


def test_coverage_counts_mean_errors_of_mtus(results: Results) -> None:
    run = market_run(Reading(results))
    assert run is not None
    assert run.errors is not None
    run.errors.p_kw[2:4, 1] = -25.0, -21.0
    run.errors.q_kvar[4:6, 2] = 0.5
    active, reactive = coverage(run)
    assert (active.within, active.least, active.bare) == (13 / 14, ("B.pv", 6 / 7), 0.0)
    assert (reactive.within, reactive.least, reactive.bare) == (1.0, ("A.load", 1.0), pytest.approx(0.5))
    assert asked(run) == 0.9
    note = next(i.note for i in indicators_of(run.reading) if i.name == "Q within its half-band")
    assert note == "asked: 90 %; without one up to 0.5 kvar"


def test_gates(results: Results) -> None:
    first, second, third = gates(Reading(results))
    assert (first.at, first.kind, first.element, first.others) == ("2016-07-22 12:00", "i_max", "Line.L2@A.1", 1)
    assert (first.expected_percent, first.worst_percent) == (95.0, 130.0)
    assert (first.up_kw, first.down_kw, first.paid_eur) == (0.0, 40.0, pytest.approx(40.0 * 6.0 * 0.3))
    assert (third.up_kw, third.down_kw) == (70.0, 0.0)
    assert [gate.unsolved for gate in (first, second, third)] == [False, True, False]


@pytest.mark.parametrize(
    ("market", "expected"),
    [
        ({}, {"errors": "box", "with_active": False, "overload": 0.0, "loose": ()}),
        (
            {"uncertainty": {"set": "budget", "gamma": 3.5, "reactive": "with_active"}},
            {"gamma": 3.5, "with_active": True},
        ),
        ({"ends": "first", "outer_loop": False, "overload": 0.02}, {"loose": ("ends: first", "outer_loop: false")}),
    ],
)
def test_rules(tmp_path: Path, market: dict[str, Any], expected: dict[str, Any]) -> None:
    with open_results(market_file(tmp_path / "run.h5", {"market": market})) as results:
        rules = rules_of(MarketRun(Reading(results)))
    assert {name: getattr(rules, name) for name in expected} == expected


def test_bands_that_scale_with_what_is_left(tmp_path: Path) -> None:
    market = {"uncertainty": {"set": "box", "base": "residual"}}
    with open_results(market_file(tmp_path / "run.h5", {"market": market})) as results:
        errors = MarketRun(Reading(results)).errors
    assert errors is not None
    assert errors.half_p_kw[4].tolist() == pytest.approx([10.0, 20.0 * 160.0 / 200.0, 0.0])
    assert errors.half_p_kw[12].tolist() == pytest.approx([8.0, 20.0, 0.0])


def test_text(results: Results) -> None:
    text = as_text(results)
    lines = text.splitlines()
    warning = "UNEXPLAINED (a bug): 1 MTU has a violation that the market should have prevented: "
    assert lines[1] == warning + "2016-07-23 06:00 at Line.L2@A"
    assert max(map(len, lines)) <= 120
    assert next(line for line in lines if line.strip().startswith("activated")).split() == ["activated", "without"]
    row = next(line for line in lines if line.startswith("  MTUs with violations"))
    assert row.split()[3:] == ["6", "5", "of", "8"]
    assert "Prediction before the run" not in text


def test_unexplained_only_where_there_is_something(tmp_path: Path) -> None:
    market = SCENARIO["market"] | {"outer_loop": False}
    with open_results(market_file(tmp_path / "run.h5", {"market": market})) as results:
        reading = Reading(results)
        assert unexplained(reading) == ""
        assert [row.detail for row in residuals_of(reading) if row.cause is Cause.RULES] == ["outer_loop: false"]


def test_a_run_without_a_market_has_none_of_it(tmp_path: Path) -> None:
    with open_results(result_file(tmp_path / "run.h5")) as results:
        reading = Reading(results)
        assert market_run(reading) is None
        assert (residuals_of(reading), gates(reading), unexplained(reading)) == ((), (), "")
        assert MARKET not in {i.group for i in indicators_of(Reading(results))}
        assert reading.acts == "orders"


def test_without_a_counterfactual_nothing_is_compared(tmp_path: Path) -> None:
    with open_results(market_file(tmp_path / "run.h5", without=False)) as results:
        found = {i.name: i for i in indicators_of(Reading(results))}
    assert found["MTUs with violations"].value == 6.0
    assert found["MTUs with violations"].without_orders is None


@pytest.mark.parametrize(("recorded", "left", "awards"), [(1, 1, 0), (5, 3, 1), (12, 6, 2)])
def test_interrupted_run(tmp_path: Path, recorded: int, left: int, awards: int) -> None:
    """Interrupted also within an MTU, or when a gate has closed for one of which nothing was recorded."""
    with open_results(market_file(tmp_path / "run.h5", recorded=recorded)) as results:
        found = {i.name: i.value for i in indicators_of(Reading(results))}
    assert (found["MTUs with violations"], found["awards"]) == (left, awards)


def test_comparison_of_markets(path: Path, tmp_path: Path) -> None:
    paths = [path, market_file(tmp_path / "b.h5", {"market": {"overload": 0.2}})]
    paths.append(result_file(tmp_path / "none.h5"))
    with open_results(paths[0]) as a, open_results(paths[1]) as b, open_results(paths[2]) as other:
        compared = compare([Reading(each) for each in (a, b, other)], ["a", "b", "other"])
    rows = {row.name: [None if i is None else i.value for i in row.of_result] for row in compared.rows}
    assert rows["cost as paid"] == [pytest.approx(306.0), pytest.approx(306.0), None]
    assert rows["tolerated overload"] == [0.0, 4.0, None]
    assert rows["UNEXPLAINED (a bug)"] == [1.0, 0.0, None]
    first = compared.drawings[0]
    assert first.title == "Cost against violations left"
    assert [key.label for key in first.keys] == ["a", "b", "without activation"]


def test_page(path: Path, tmp_path: Path) -> None:
    write_report([path], tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    for part in (
        "with activation",
        "Violations left, by cause (6)",
        '<tr class="alarm"><th>2016-07-23 06:00</th>',
        "B.pv: P -30.0 kW, 1.50 half-bands",
        "Needs and what was bought (3)",
        "<strong>Limits</strong>",
        "<strong>Forecast errors</strong>",
    ):
        assert part in page, part
    assert page.count('role="alert"') == 1
    assert "UNEXPLAINED (a bug): 1 MTU has a violation" in page
    assert "predicted [kW]" not in page
    assert "with orders" not in page


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0312, "kW", "0.031"),
        (-0.0312, "kW", "-0.031"),
        (0.00987, "kW", "0.0099"),
        (0.0999, "kW", "0.100"),
        (0.1, "kW", "0.1"),
        (0.00006, "kW", "0.0001"),
        (0.00004, "kW", "0.0"),
        (-1e-12, "kW", "0.0"),
        (0.004, "%", "0.0040"),
        (0.857, "kW", "0.9"),
        (0.00001, "pu", "0.000010"),
        (float("inf"), "kW", "inf"),
        (float("nan"), "kW", "-"),
    ],
)
def test_small_numbers_keep_digits_that_count(value: float, unit: str, text: str) -> None:
    assert number(value, unit) == text


def test_all_numbers_of_a_table_of_small_ones_have_the_same_decimals() -> None:
    assert [number(kw, "kW", 0.123) for kw in (0.123, 0.0049, -0.00001)] == ["0.123", "0.005", "0.000"]
    assert [number(kw, "kW", 1.23) for kw in (1.23, 0.0049)] == ["1.2", "0.0049"]
