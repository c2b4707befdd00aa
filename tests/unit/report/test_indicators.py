"""Indicators against values worked out by hand from the courses in small_result."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small_result import NASTY, bare_file, killed_file, result_file

from cosim.io.results import Results, open_results
from cosim.report.accuracy import ALL_SITES, channel_errors, fault_counts, head_error, meter_quality, site_errors
from cosim.report.breakdown import days, wall_times
from cosim.report.indicator import Indicator
from cosim.report.indicators import _notes, as_text, indicators_of
from cosim.report.reading import Reading


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    with open_results(result_file(tmp_path_factory.mktemp("results") / "run.h5")) as opened:
        yield opened


@pytest.fixture(scope="module")
def found(results: Results) -> dict[str, Indicator]:
    return by_name(results)


def by_name(results: Results) -> dict[str, Indicator]:
    return {indicator.name: indicator for indicator in indicators_of(Reading(results))}


@pytest.mark.parametrize(
    ("name", "value", "without", "unit"),
    [
        ("deepest head power", -300.0, -500.0, "kW"),
        ("reverse flow", 18.0, 18.0, "h"),
        ("highest import", 100.0, 100.0, "kW"),
        ("energy exported", 440.0 * 6.0, 640.0 * 6.0, "kWh"),
        ("energy imported", 170.0 * 6.0, 210.0 * 6.0, "kWh"),
        ("losses", 7 * 12.0, 7 * 12.0, "kWh"),
        ("lowest voltage", 0.98, 0.98, "pu"),
        ("highest voltage", 1.05, 1.05, "pu"),
        ("highest loading", 0.75, 1.25, "pu"),
        ("deepest head power predicted", -298.0, -500.0, "kW"),
        ("reached less predicted", -2.0, 0.0, "kW"),
        ("deepest head power when sized", -295.0, -500.0, "kW"),
        ("best that storage can hold", -280.0, None, "kW"),
        ("threshold of B.battery", -290.0, None, "kW"),
        ("energy charged", 1200.0, None, "kWh"),
        ("energy discharged", 240.0, None, "kWh"),
        ("equivalent full cycles", 720.0 / 2000.0, None, "1"),
        ("energy stored at the end", 1130.0 - 240.0 / 0.8, None, "kWh"),
        ("orders", 2.0, None, "1"),
        ("head: mean absolute error", 3.0, None, "kW"),
        ("wls: mean absolute error", 6.0 / 7.0, None, "kW"),
        ("history: mean absolute error", 5.0, None, "kW"),
        ("values missing or late", 100.0 * 2.0 / 24.0, None, "%"),
        ("steps recorded", 8.0, None, "1"),
        ("steps that did not converge", 1.0, None, "1"),
        ("wall-clock time of simulators", 8.0, None, "s"),
    ],
)
def test_values(found: dict[str, Indicator], name: str, value: float, without: float | None, unit: str) -> None:
    indicator = found[name]
    assert indicator.value == pytest.approx(value, abs=1e-9)
    assert indicator.without_orders == (None if without is None else pytest.approx(without, abs=1e-9))
    assert indicator.unit == unit


def test_without_a_threshold_none_is_told(found: dict[str, Indicator]) -> None:
    assert [name for name in found if name.startswith("threshold")] == ["threshold of B.battery"]


def test_when_and_where_in_local_time(found: dict[str, Indicator]) -> None:
    assert found["deepest head power"].note == "2016-07-23 00:00"
    assert found["highest loading"].note == f"2016-07-23 00:00, {NASTY}"
    assert found["highest voltage"].note == f"2016-07-23 18:00, {NASTY}.1"


def test_two_times_on_one_day_are_told_shortly() -> None:
    assert _notes("2016-07-23 10:15", "2016-07-23 11:45") == "2016-07-23 10:15 (without: 11:45)"
    assert _notes("2016-07-23 10:15", "2016-07-24 11:45") == "2016-07-23 10:15 (without: 2016-07-24 11:45)"


def test_days_are_local(results: Results) -> None:
    first, second = days(Reading(results))
    assert (str(first.day), first.head_min_kw, first.at, first.predicted_kw) == ("2016-07-22", -100.0, "00:00", None)
    assert (second.head_min_kw, second.head_min_idle_kw, second.predicted_kw) == (-300.0, -500.0, -295.0)


def test_errors_at_unmetered_sites_only(results: Results) -> None:
    errors = {(e.method, e.site): e for e in site_errors(Reading(results))}
    assert set(errors) == {(m, s) for m in ("wls", "history") for s in (ALL_SITES, "B")}
    wls = errors["wls", "B"]
    assert wls.count == 7
    assert wls.bias_kw == pytest.approx(-2.0 / 7.0)
    assert wls.root_mean_square_kw == pytest.approx(np.sqrt(20.0 / 7.0))
    assert wls.maximum_kw == 4.0
    head = head_error(Reading(results))
    assert head is not None
    assert (head.method, head.bias_kw, head.count) == ("wls", pytest.approx(3.0), 7)


def test_measurements(results: Results) -> None:
    ma, head = meter_quality(Reading(results))
    assert (ma.meter, ma.values, ma.good, ma.missing, ma.late) == ("MA", 16, 15 / 16, 1 / 16, 0.0)
    assert (head.meter, head.values, head.late) == ("HEAD", 8, 1 / 8)
    assert fault_counts(Reading(results)) == {"dropout": 1, "late": 1}
    channel = channel_errors(Reading(results))[0]
    assert (channel.topic, channel.unit, channel.bias, channel.count) == ("sub/1/p_kw", "kW", pytest.approx(0.5), 7)


def test_wall_times_slowest_first(results: Results) -> None:
    estimator, grid = wall_times(Reading(results))
    assert (estimator.simulator, estimator.total_s, estimator.per_step_s, estimator.share) == (
        "estimator",
        6.0,
        0.75,
        0.75,
    )
    assert grid.share == 0.25


def test_text(results: Results) -> None:
    text = as_text(results)
    lines = text.splitlines()
    assert lines[0] == f"demo: complete, feeder {NASTY}, seed 7"
    assert lines[1] == "2016-07-22 00:00 to 2016-07-24 00:00 UTC+01:00, steps of 6h"
    assert "  deepest head power                  -300.0   -500.0  kW   2016-07-23 00:00" in lines
    assert "  wls*           0.9   1.7  -0.3      4.0" in lines
    assert "  2016-07-23       -300.0  00:00   -500.0  00:00     -295.0" in lines
    assert "  MA         16  93.75     6.25   0.00" in lines
    assert "NOT COMPLETE" not in text
    assert max(map(len, lines)) <= 100
    assert [text.index(t) for t in ("Head", "Prediction", "Deepest", "Estimation error", "Measurements")] == sorted(
        text.index(t) for t in ("Head", "Prediction", "Deepest", "Estimation error", "Measurements")
    )


def test_killed_run_is_told_and_counted_to_its_last_step(tmp_path: Path) -> None:
    with open_results(killed_file(tmp_path / "run.h5")) as results:
        assert "NOT COMPLETE: 5 of 8 steps recorded" in as_text(results)
        found = by_name(results)
    assert found["energy stored at the end"].value == pytest.approx(50.0 + 0.9 * 1200.0)
    assert found["reached less predicted"].note == "the run is not complete"


def test_failed_run_without_anything_but_nan(tmp_path: Path) -> None:
    with open_results(bare_file(tmp_path / "run.h5")) as results:
        text, found = as_text(results), by_name(results)
    assert f"power flow: {NASTY}" in text
    assert "run: failed, feeder not recorded" in text
    assert np.isnan(found["deepest head power"].value)
    assert found["deepest head power"].without_orders is None
    assert found["reverse flow"].value == 0.0
    assert "energy charged" not in found
    assert "lowest voltage" not in found


def test_no_steps(tmp_path: Path) -> None:
    with open_results(bare_file(tmp_path / "run.h5", steps=0)) as results:
        assert indicators_of(Reading(results)) == ()
        assert "NOT COMPLETE: 0 steps recorded" in as_text(results)
