"""The study of growth at its smallest: its years hold what the result files hold, weighted; nothing is run twice."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pandas as pd
import pytest

from cosim import open_results
from cosim.analysis.windows import Window
from cosim.io.study import Study, open_study

ROOT = Path(__file__).resolve().parents[2]
SCHEMES = ("it_dso_priority", "it_coopt")
STAGES = ("2021", "2030")
WEIGHT = 366 / 0.5


@pytest.fixture(scope="module")
def script(scenario_script: Callable[[str], ModuleType]) -> ModuleType:
    return scenario_script("growth_2030")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Half a day from 08:00 on that stands for the whole year."""
    small = ["--stages", "2", "--weeks", "1", "--days", "0.5", "--schemes", ",".join(SCHEMES), "--workers", "1"]
    return [*small, "--out", str(tmp_path_factory.mktemp("grown"))]


@pytest.fixture(scope="module")
def out(script: ModuleType, arguments: list[str]) -> Path:
    assert script.main(arguments) == 0
    return Path(arguments[-1])


@pytest.fixture(scope="module")
def years(out: Path) -> dict[tuple[str, str], dict[str, float]]:
    with (out / "growth.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["stage"], row["scheme"]) for row in rows] == [(a, b) for a in STAGES for b in SCHEMES]
    assert {row["error"] for row in rows} == {""}
    texts = ("stage", "scheme", "error")
    return {(row["stage"], row["scheme"]): {k: float(v) for k, v in row.items() if k not in texts} for row in rows}


def sold(path: Path) -> pd.DataFrame:
    """Awards of all parties for MTUs of the run, with their energy and money."""
    with open_results(path) as results:
        tables = [results.table(name) for name in results.events() if name.endswith("/awards")]
    found = pd.concat([table for table in tables if len(table)])
    found = found[found["t_s"] < 12 * 3600].assign(kwh=lambda table: table["quantity_kw"] / 4.0)
    return found.assign(eur=found["kwh"] * found["price_eur_per_kwh"])


@pytest.mark.parametrize("k", range(4))
def test_years_are_the_files_weighted(out: Path, years: dict[tuple[str, str], dict[str, float]], k: int) -> None:
    index = pd.read_parquet(out / "index.parquet")
    row, scheme = index.loc[k], SCHEMES[k % 2]
    year = years[STAGES[k // 2], scheme]
    assert row["coordination.scheme"] == scheme
    with h5py.File(out / row["path"]) as file:
        head_kw = file["grid/head/p_kw"][:, 0]
        violated = {name: len(np.unique(file[f"{name}/violations/t_s"])) for name in ("grid", "counterfactual")}
    assert len(head_kw) == 48
    assert year["peak_import_kw"] == pytest.approx(head_kw.max())
    assert year["peak_export_kw"] == pytest.approx(-head_kw.min())
    assert year["violation_h"] == pytest.approx(violated["grid"] * 0.25 * WEIGHT)
    assert year["without_violation_h"] == pytest.approx(violated["counterfactual"] * 0.25 * WEIGHT)
    bought = sold(out / row["path"])
    for role in ("DSO", "TSO"):
        own = bought[bought["buyer"].str.startswith(role)]
        assert year[f"{role.lower()}_eur"] == pytest.approx(own["eur"].sum() * WEIGHT, abs=1e-6)
        for direction in ("up", "down"):
            there = own[(own["direction"] == direction) & (own["area"] == "mv5")]
            figure = year[f"{role.lower()}_{direction}_kwh"]
            assert figure == pytest.approx(there["kwh"].sum() * WEIGHT, rel=1e-9, abs=1e-6)


def test_needs_grow(years: dict[tuple[str, str], dict[str, float]]) -> None:
    """With photovoltaics and vehicles limits are violated that were not before; the need of the system stays."""
    for scheme in SCHEMES:
        first, last = (years[stage, scheme] for stage in STAGES)
        assert first["without_violation_h"] == first["dso_up_kwh"] == first["dso_down_kwh"] == 0.0
        assert last["without_violation_h"] > 0.0
        assert last["dso_up_kwh"] + last["dso_down_kwh"] > 0.0
        assert last["violation_h"] < last["without_violation_h"]
        assert last["need_up_kwh"] == pytest.approx(first["need_up_kwh"])
        assert last["without_peak_import_kw"] > first["without_peak_import_kw"]


def test_all_files_are_there(out: Path) -> None:
    page = (out / "growth_2030.html").read_text()
    for part in ("The days that stand for a year", "732.00", "EEG 2023", "2454"):
        assert part in page
    images = {path.name for path in (out / "images").iterdir()}
    assert images == {f"growth_{name}.{kind}" for name in ("bought", "cost", "left") for kind in ("svg", "png")}
    assert {path.name for path in out.glob("*.csv")} == {"growth.csv", "windows.csv", "stages.csv"}


def test_again_nothing_is_run(
    script: ModuleType, arguments: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (out / "growth.csv").read_bytes()
    assert script.main(arguments) == 0
    told = capsys.readouterr().out
    assert "runs left" not in told
    assert "2030   it_coopt" in told
    assert (out / "growth.csv").read_bytes() == before


def test_a_run_that_failed_leaves_the_others(script: ModuleType, out: Path) -> None:
    index = open_study(out / "index.parquet")
    broken = index.runs
    broken.loc[2, ["status", "error", "path"]] = ["failed", "the power went out\nat noon", ""]
    windows = (Window("all", 0, 0.5, 366, 0.0),)
    tasks = [script.Task(int(stage), 0, scheme, {}) for stage in STAGES for scheme in SCHEMES]
    found = list(script.years_of(tasks, windows, Study("broken", broken)))
    assert [year.error for year in found] == ["", "", "the power went out", ""]
    assert found[2].figures == {}
    assert found[3].figures["need_up_kwh"] > 0.0


def test_growth_is_what_the_assumptions_say(script: ModuleType) -> None:
    assert script.pv_factor(2021) == 1.0
    assert script.pv_factor(2025) == pytest.approx((88 + 128) / 2 / 60)
    assert script.electric_share(2030) == pytest.approx(0.31)
    shares = [script.electric_share(year) for year in script.YEARS]
    assert np.diff(np.log(shares)) == pytest.approx(np.log(0.31 / 0.013) / 9)
    cars = [vehicle["vehicle"] for name, vehicle in script.fields_of(2030)["resources"].items() if "SS5" in name]
    assert sum(each["p_max_kw"] for each in cars) == pytest.approx(0.31 * 140 * 7.4, abs=0.01)
    assert sum(each["stays"][0]["need_kwh"] for each in cars) == pytest.approx(0.31 * 140 * 7.0, abs=0.01)
    assert script.fields_of(2021)["added"] == {}
    assert sum(each["kw"] for each in script.fields_of(2030)["added"].values()) == pytest.approx(
        script.stage_of(2030).added_pv_kw, abs=0.01
    )


@pytest.mark.parametrize(
    ("stages", "years"), [(1, [2030]), (2, [2021, 2030]), (4, [2021, 2024, 2027, 2030]), (10, list(range(2021, 2031)))]
)
def test_stages_are_spread_evenly(script: ModuleType, stages: int, years: list[int]) -> None:
    assert script.chosen(stages) == years


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--stages", "11", "allowed: 1 to 10"),
        ("--schemes", "it_coopt,nonsense", "no scheme of that name; got nonsense"),
        ("--days", "100", "windows must be shorter than their parts"),
    ],
)
def test_wrong_options_are_told(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, told: str
) -> None:
    assert script.main([option, value, "--out", str(tmp_path / "none")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_ctrl_c_is_told_in_a_line(
    script: ModuleType,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "sweep", interrupted)
    assert script.main([*arguments[:-1], str(tmp_path)]) == 130
    told = "growth_2030: interrupted; what has been run stays, and the same command does the rest\n"
    assert capsys.readouterr().err == told
