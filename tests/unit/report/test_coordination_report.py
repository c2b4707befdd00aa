"""What a run under a scheme came to, against values worked out by hand from the course in coordination_results."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from coordination_results import coordination_file
from market_results import market_file
from small_result import result_file

from cosim.io.results import Results, open_results
from cosim.report.coordination import (
    Coordination,
    Excluded,
    LightShare,
    Need,
    PartyCost,
    Seller,
    Traffic,
    Transfer,
    UnmetLimit,
    Volumes,
    coordination,
    need_kw,
    short_kw,
)
from cosim.report.html import write_report
from cosim.report.indicators import as_text, indicators_of
from cosim.report.market_run import market_run
from cosim.report.reading import Reading


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coordination_file(tmp_path_factory.mktemp("results") / "run.h5")


@pytest.fixture(scope="module")
def results(path: Path) -> Iterator[Results]:
    with open_results(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def found(results: Results) -> Coordination:
    made = coordination(Reading(results))
    assert made is not None
    return made


def test_scheme(found: Coordination) -> None:
    assert (found.scheme, found.kind, found.grid_safe) == ("it_dso_priority", "Multi-level", False)
    assert "DSO clears MSL" in found.flows
    assert "DSO --> TSO  RESULT  for MSD" in found.flows


def test_need_and_what_met_it(found: Coordination, results: Results) -> None:
    assert found.need == Need(up_kwh=7.5, down_kwh=2.0, short_kwh=2.0, short_mtus=1)
    assert found.bought == Volumes(d_up_kwh=1.0, d_down_kwh=3.0, t_up_kwh=5.5, t_down_kwh=2.0)
    run = market_run(Reading(results))
    assert run is not None
    assert run.scheme is not None
    need = need_kw(run)
    assert need is not None
    np.testing.assert_array_equal(need, [np.nan, 10.0, -8.0, 20.0])
    np.testing.assert_array_equal(short_kw(run, run.scheme), [0.0, 0.0, 0.0, 8.0])


def test_stages(found: Coordination) -> None:
    msl, msd = found.stages
    assert (msl.stage, msl.solver, msl.resources, msl.rounds, msl.fell_back, msl.unmet_mtus) == (
        "MSL", "DSO", "D", 1, 1, 1
    )  # fmt: skip
    assert msl.bought == Volumes(d_down_kwh=3.0)
    assert msl.cost_eur == pytest.approx(0.6)
    assert msd.bought == Volumes(d_up_kwh=1.0, t_up_kwh=5.5, t_down_kwh=2.0)
    assert msd.cost_eur == pytest.approx(0.25 + 0.3 - 0.1 + 0.3)
    assert (msd.fell_back, msd.unmet_mtus) == (0, 0)


def test_who_pays_whom(found: Coordination) -> None:
    assert found.parties == (
        PartyCost("DSO:demo", pytest.approx(0.6), -2.0),
        PartyCost("TSO", pytest.approx(0.75), 2.0),
    )
    assert [each.total_eur for each in found.parties] == pytest.approx([-1.4, 2.75])
    assert found.transfers == (Transfer("MSD", "TSO", "DSO:demo", 2.0),)
    assert found.cost_eur == pytest.approx(1.35)


def test_what_sellers_get_is_what_buyers_pay(found: Coordination) -> None:
    assert found.sellers == (
        Seller("store", "D", 1.0, 0.0, pytest.approx(0.3), pytest.approx(0.3)),
        Seller("sun", "D", 0.0, 3.0, pytest.approx(0.6), pytest.approx(0.6)),
        Seller("unit 1", "T", 5.5, 2.0, pytest.approx(0.45), pytest.approx(0.39)),
    )
    assert found.sellers[2].above_asked_eur == pytest.approx(0.06)
    assert sum(each.revenue_eur for each in found.sellers) == pytest.approx(found.cost_eur)


def test_what_was_left_out_and_why(found: Coordination) -> None:
    """Caps differ from MTU to MTU: they are one reason."""
    assert found.excluded == (
        Excluded("MSD", "capped", bids=2, mtus=2, offered_kwh=3.0),
        Excluded("MSD", "resource activated in MSL", bids=2, mtus=2, offered_kwh=25.0),
    )


def test_limits_unmet_count_by_branch(found: Coordination) -> None:
    assert found.unmet == (UnmetLimit("MSL", "i_max", "demo/Line.L1", 1, pytest.approx(10.0)),)


def test_messages(found: Coordination) -> None:
    assert found.traffic == (
        Traffic("AGG:demo", "TSO", "BID", 3, 300),
        Traffic("DSO:demo", "TSO", "RESULT", 3, 150),
        Traffic("TSO", "AGG:demo", "AWARD", 3, 60),
        Traffic("TSO", "DSO:demo", "RESULT", 3, 180),
    )


def test_lights(found: Coordination) -> None:
    third = pytest.approx(100.0 / 3.0)
    assert found.lights == (LightShare("north", "up", third, third, third, pytest.approx(14.0 / 3.0)),)


def test_plans_of_the_feeder_take_limits_from_the_last_stage_that_is_to_meet_them(results: Results) -> None:
    run = market_run(Reading(results))
    assert run is not None
    assert list(run.unsolved["element"]) == ["Line.L1@A.1", "Line.L1@B.1"]
    assert list(run.unsolved["limit"]) == [100.0, 100.0]
    assert sorted(run.awards["seller"]) == ["store", "sun", "sun"]


def test_under_a_scheme_that_only_keeps_limits_no_worse_nothing_is_left_by_a_plan(tmp_path: Path) -> None:
    with open_results(coordination_file(tmp_path / "curve.h5", "givisiez_dso_curve")) as opened:
        run = market_run(Reading(opened))
        assert run is not None
        assert run.unsolved.empty


@pytest.mark.parametrize(
    ("name", "value", "unit", "note"),
    [
        ("need of the system", 9.5, "kWh", "of which 7.5 kWh too little, 2.0 kWh too much"),
        ("bought downward at distribution", 3.0, "kWh", "more load, less generation"),
        ("need that was not met", 2.0, "kWh", "in 1 MTU"),
        ("bids left out or cut", 4.0, "1", "2 in MSD: capped"),
        ("MTUs with limits unmet in MSL", 1.0, "1", ""),
        ("fallbacks of MSL", 1.0, "1", "the balance of the stage was given up"),
        ("DSO:demo", -1.4, "EUR", "of which -2.00 EUR not for bids"),
        ("messages", 12.0, "1", ""),
        ("size of all messages", 0.69, "kB", ""),
    ],
)
def test_indicators(results: Results, name: str, value: float, unit: str, note: str) -> None:
    (indicator,) = [each for each in indicators_of(Reading(results)) if each.name == name]
    assert (indicator.value, indicator.unit, indicator.note) == (pytest.approx(value), unit, note)


def test_text_has_no_local_market(results: Results) -> None:
    text = as_text(results)
    assert "Coordination\n" in text
    assert "Flexibility of the feeder\n" in text
    assert "Local market" not in text
    assert all(len(line) <= 120 for line in text.splitlines())


def test_page_shows_all_of_it(path: Path, tmp_path: Path) -> None:
    write_report([path], tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    for text in (
        "<h2>Coordination</h2>", "Need and what met it", "Stages", "Bids left out or cut, and why",
        "resource activated in MSL", "Limits that stages could not meet", "Traffic light", "Messages, and their order",
        "DSO clears MSL", "in MSD TSO to DSO:demo 2.00 EUR", "need not met", "Flexibility of the feeder",
    ):  # fmt: skip
        assert text in page, text
    assert ">nan" not in page.lower()


def test_results_without_a_scheme_have_no_coordination(tmp_path: Path) -> None:
    for made in (market_file(tmp_path / "market.h5"), result_file(tmp_path / "small.h5")):
        with open_results(made) as opened:
            assert coordination(Reading(opened)) is None
            assert not [each for each in indicators_of(Reading(opened)) if each.group == "Coordination"]


def test_a_scheme_without_awards_is_told_as_such(tmp_path: Path) -> None:
    quiet = {"dso": {}, "tso": {}, "aggregator": {"messages": []}}
    with open_results(coordination_file(tmp_path / "quiet.h5", recorded=quiet)) as opened:
        made = coordination(Reading(opened))
    assert made is not None
    assert (made.parties, made.sellers, made.traffic, made.bought) == ((), (), (), Volumes())
    write_report([tmp_path / "quiet.h5"], tmp_path / "quiet.html")
    assert "Need and what met it" not in (tmp_path / "quiet.html").read_text(encoding="utf-8")
