"""The comparison of schemes: its script runs them, in processes of their own, and a failed one stops nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cosim import open_results
from cosim.report.compare_schemes import SHARED

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "tests" / "reference" / "compare_schemes" / "week.json"
SCHEMES = ("it_dso_priority", "traffic_light", "it_coopt")
NOON = (
    "start=2016-05-17T10:00:00+01:00",
    "duration=1h",
    "limits={derated: {Transformer.T3: 0.22}}",
    "transmission.need.share=1",
)
"""The TSO needs the battery, which is behind a transformer that can take no more."""
RESIDUAL = "market.uncertainty.base=residual"
"""Refused with co-optimisation alone."""


@pytest.fixture(scope="module")
def script(scenario_script: Callable[[str], ModuleType]) -> ModuleType:
    return scenario_script("compare_schemes")


@pytest.fixture(scope="module")
def out(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    settings = [part for each in (*NOON, RESIDUAL) for part in ("--set", each)]
    assert script.main(["--schemes", ",".join(SCHEMES), *settings, "--out", str(folder)]) == 1
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_run_that_fails_is_a_row_that_says_why(out: Path) -> None:
    first, raw, refused = rows_of(out / "schemes.csv")
    assert [row["scheme"] for row in (first, raw, refused)] == list(SCHEMES)
    assert (first["error"], raw["error"]) == ("", "")
    assert "takes forecast errors of each POD by itself" in refused["error"]
    assert refused["tso_eur"] == ""
    assert float(first["tso_eur"]) != 0.0
    assert float(first["dso_eur"]) > 0.0
    assert "Schemes that did not reach the end" in (out / "compare_schemes.html").read_text()


def test_raw_schemes_show_what_they_break_and_grid_safe_ones_break_nothing(out: Path) -> None:
    """The same two stages, with all that the DSO leaves as it is, and with its traffic light."""
    raw, safe, _ = rows_of(out / "schemes.csv")
    assert (raw["grid_safe"], safe["grid_safe"]) == ("no", "yes")
    assert float(raw["unseen_mtus"]) >= 2.0
    assert float(raw["worse_mtus"]) >= 2.0
    assert (float(safe["unseen_mtus"]), float(safe["unexplained_mtus"]), float(safe["worse_mtus"])) == (0.0, 0.0, 0.0)
    page = (out / "compare_schemes.md").read_text(encoding="utf-8")
    assert f"makes, or makes worse: it_dso_priority in {float(raw['unseen_mtus']):.0f} MTUs" in page


def test_needs_profiles_and_errors_are_the_same_in_all_runs(out: Path) -> None:
    """Whatever a scheme does, the world around it is the same: what differs is the schemes' alone."""
    same = (*SHARED.values(), "profiles/pod/q_kvar", "counterfactual/terminal/i_a", "gateway/snapshot/quality")
    with open_results(out / "it_dso_priority.h5") as one, open_results(out / "traffic_light.h5") as other:
        for path in same:
            np.testing.assert_array_equal(one.frame(path), other.frame(path), err_msg=path)
            assert np.isfinite(one.frame(path).to_numpy(dtype=float)).any(), path
        orders = [each.frame("aggregator/resource/ordered_kw").to_numpy() for each in (one, other)]
        assert np.abs(orders[0] - orders[1]).max() > 1.0
        forecasts = [each.frame("dso/forecast/p_kw").iloc[0] for each in (one, other)]
        np.testing.assert_array_equal(*forecasts)


def test_random_errors_of_meters_are_drawn_alike(out: Path) -> None:
    """Measured less true: the noise of every channel, as far as it does not scale with what is measured."""
    with open_results(out / "it_dso_priority.h5") as one, open_results(out / "traffic_light.h5") as other:
        faults = [each.table("sensors/faults") for each in (one, other)]
        assert faults[0].equals(faults[1])
        first = [each.frame("sensors/reading/value").iloc[0] for each in (one, other)]
        np.testing.assert_array_equal(*first)


def test_all_files_are_there_and_stand_alone(out: Path) -> None:
    names = {path.name for path in out.iterdir()}
    assert {"schemes.csv", "stages.csv", "sellers.csv", "messages.csv", "excluded.csv"} <= names
    assert {"compare_schemes.html", "compare_schemes.md", "compare_schemes.json"} <= names
    assert (out / "images" / "compare_schemes.svg").stat().st_size > 1000
    page = (out / "compare_schemes.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "The same in all runs, bit by bit" in page


def test_the_report_is_made_anew_of_results(script: ModuleType, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (out / "compare_schemes.md").read_text(encoding="utf-8")
    settings = [part for each in (*NOON, RESIDUAL) for part in ("--set", each)]
    pair = ["--schemes", "it_dso_priority,traffic_light"]
    assert script.main([*pair, *settings, "--out", str(out), "--from-results"]) == 0
    assert "2 schemes compared" in capsys.readouterr().out
    made = (out / "compare_schemes.md").read_text(encoding="utf-8")
    assert made != before
    assert script.document_of((out / "compare_schemes.json").read_text(encoding="utf-8")) == made


def test_wrong_use_is_answered_clearly(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--schemes", "it_dso_prority", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no scheme of that name" in said
    assert "it_dso_priority" in said
    assert script.main(["--scenario", str(tmp_path / "none.yaml"), "--out", str(tmp_path)]) == 2
    assert "none.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["--processes", "0"])
    assert script.main(["--schemes", "local_only", "--out", str(tmp_path), "--from-results"]) == 1
    assert "there is no such file" in capsys.readouterr().out


def test_page_of_the_week_is_what_the_script_writes(script: ModuleType) -> None:
    """docs/compare_schemes.md of the stored figures of the shipped scenario; see the README beside them."""
    page = (ROOT / "docs" / "compare_schemes.md").read_text(encoding="utf-8")
    assert script.document_of(STORED.read_text(encoding="utf-8")) == page


def test_figures_of_the_week_say_what_theory_says() -> None:
    stored = {each["scheme"]: each for each in json.loads(STORED.read_text(encoding="utf-8"))["runs"]}
    assert not [name for name, each in stored.items() if each["error"]]
    for each in stored.values():
        if each["coordination"]["grid_safe"]:
            left = each["left"]
            assert (left["unseen"], left["unexplained"], left["shown_mtus"]) == (0, 0, 0), each["scheme"]
    cost = {name: sum(party["bids_eur"] for party in each["coordination"]["parties"]) for name, each in stored.items()}
    common = cost["smartnet_common_central"]
    assert cost["smartnet_common_decentral"] == pytest.approx(common, rel=1e-4)
    met = [n for n, each in stored.items() if (each["coordination"]["need"] or {"short_kwh": 1.0})["short_kwh"] == 0.0]
    assert len(met) > 5
    for name in met:  # in an MTU a theorem; over a week storage is elsewhere
        if not stored[name]["left"]["mtus"]:
            assert cost[name] > 0.995 * common, name
    needs = {each["shared"].get("need of the system") for each in stored.values()} - {None}
    assert len(needs) == 1
