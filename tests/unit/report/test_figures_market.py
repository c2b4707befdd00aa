"""Figures of the local market: what they show of the course in small_market, and that they keep silent otherwise."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from market_results import market_file
from small_result import result_file

from cosim.io.results import open_results
from cosim.report import figures_market
from cosim.report.canvas import Drawing, style
from cosim.report.figures import TimeAxis, axis_of
from cosim.report.figures_market import activations, cost, forecast_errors, limits
from cosim.report.market_run import MarketRun, market_run
from cosim.report.reading import Reading

MAKERS = (limits, activations, cost, forecast_errors)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return market_file(tmp_path_factory.mktemp("results") / "run.h5")


@pytest.fixture
def axis(path: Path) -> Iterator[TimeAxis]:
    with open_results(path) as results, style():
        yield axis_of(Reading(results))


def run_of(axis: TimeAxis) -> MarketRun:
    found = market_run(axis.reading)
    assert found is not None
    return found


def labels(drawing: Drawing | None) -> list[str]:
    assert drawing is not None
    return [key.label for key in drawing.keys]


def titles(drawing: Drawing | None) -> list[str]:
    assert drawing is not None
    return [text for text in re.findall(r"<text[^>]*>([^<]*)</text>", drawing.svg) if "[" in text]


def test_limits_show_what_was_violated_with_and_without(axis: TimeAxis) -> None:
    drawing = limits(axis, "limits")
    assert labels(drawing) == ["with activation", "without activation", "limit"]
    assert titles(drawing) == ["Line.L2@A: current [% of its limit], from 50 % up", "B.1: voltage magnitude [pu]"]


def test_courses_of_currents_are_in_percent_of_their_limits(axis: TimeAxis) -> None:
    held = figures_market._held(run_of(axis))
    assert [(each.name, each.limit) for each in held] == [("Line.L2@A", 100.0), ("B.1", 0.95)]
    current = figures_market._course(run_of(axis), "counterfactual", held[0])
    assert current is not None
    assert current[[2, 6]].tolist() == [80.0, 150.0]


def test_activations_are_stacked_by_resource_and_what_was_delivered_is_drawn(axis: TimeAxis) -> None:
    assert labels(activations(axis, "activations")) == ["sun", "store", "shed", "delivered, net"]
    names, up_kw = figures_market._ranked(run_of(axis))
    assert names == ["sun", "store", "shed"]
    assert up_kw[[4, 6, 12]].tolist() == [[-40.0, 0.0, 0.0], [-60.0, 0.0, 0.0], [0.0, 50.0, 20.0]]


@pytest.mark.parametrize(
    ("names", "expected", "kw"),
    [
        ([f"ev:{k}" for k in range(5)] + [f"pv:{k}" for k in range(3)], ["ev", "pv"], [5.0, 3.0]),
        ([f"ev:{k}" for k in range(8)], [*(f"ev:{k}" for k in range(6)), "2 others"], [1.0] * 6 + [2.0]),
    ],
)
def test_of_many_resources_entries_or_the_first_are_shown(
    axis: TimeAxis, names: list[str], expected: list[str], kw: list[float]
) -> None:
    run = run_of(axis)
    run.pod_of, run.ordered_kw = dict.fromkeys(names, "A.load"), np.full((8, 8), -1.0)
    found, up_kw = figures_market._ranked(run)
    assert (found, up_kw[0].tolist()) == (expected, kw)


def test_cost_by_day_with_what_was_asked(axis: TimeAxis) -> None:
    drawing = cost(axis, "cost")
    assert titles(drawing) == ["paid in a day [EUR]"]  # one price for all: its course would say nothing
    assert labels(drawing) == ["a day at the prices asked"]
    days = axis.reading.local_time.normalize().unique()
    paid, asked = figures_market._by_day(run_of(axis), days)
    assert paid.tolist() == pytest.approx([6.0 * 100.0 * 0.3, 6.0 * 70.0 * 0.3])
    assert asked.tolist() == pytest.approx([60.0, 6.0 * (4.0 + 5.0)])


def test_prices_where_they_differ(axis: TimeAxis) -> None:
    run = run_of(axis)
    run.awards.loc[run.awards["bid"].str.contains("/shed/"), "price_eur_per_kwh"] = 0.65
    assert labels(cost(axis, "cost")) == ["mean of the energy bought", "highest", "a day at the prices asked"]
    mean, highest = figures_market._prices(run)
    assert mean[[4, 12]].tolist() == pytest.approx([0.3, (20.0 * 0.65 + 50.0 * 0.3) / 70.0])
    assert highest[12] == 0.65
    assert np.isnan(mean[[0, 1, 14, 15]]).all()


def test_forecast_errors_tell_the_coverage(axis: TimeAxis) -> None:
    drawing = forecast_errors(axis, "errors")
    assert labels(drawing) == ["P, 100.00 % within", "Q, 100.00 % within", "half-bands"]
    assert drawing is not None
    assert drawing.note.endswith("Asked for: 90 % within.")


@pytest.mark.parametrize("maker", MAKERS)
def test_nothing_without_a_market(maker: Callable[[TimeAxis, str], Drawing | None], tmp_path: Path) -> None:
    with open_results(result_file(tmp_path / "run.h5")) as results, style():
        assert maker(axis_of(Reading(results)), "x") is None


def test_nothing_of_what_did_not_happen(axis: TimeAxis) -> None:
    run = run_of(axis)
    run.left, run.without = run.left.iloc[:0], run.left.iloc[:0]
    run.ordered_kw, run.awards = np.zeros_like(run.ordered_kw), run.awards.iloc[:0]
    run.errors = None
    assert [maker(axis, "x") for maker in MAKERS] == [None] * 4


def test_the_same_bytes_again(axis: TimeAxis) -> None:
    assert [maker(axis, "s") for maker in MAKERS] == [maker(axis, "s") for maker in MAKERS]
