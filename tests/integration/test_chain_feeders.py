"""The chain of the main job on feeders of every kind: unbalanced with regulators, low voltage by phases, imported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from short_runs import REPOSITORY

from cosim import load_scenario, open_results, result_hash, run
from cosim.cli import main
from cosim.report.accuracy import ALL_SITES, site_errors
from cosim.report.indicators import as_text
from cosim.report.reading import Reading


def run_of(name: str, out: Path, *overrides: str) -> Path:
    scenario = REPOSITORY / "scenarios" / f"{name}.yaml"
    return run(load_scenario(scenario, ["transport=memory", *overrides]), out).path


@pytest.mark.parametrize(
    ("name", "start", "duration"),
    [
        ("ieee123_day", "2016-01-20T13:30:00+01:00", "30min"),
        ("european_lv_day", "2016-01-20T12:00:00+01:00", "2h"),
        ("lv_rural1_day", "2016-07-23T11:00:00+01:00", "2h"),
    ],
)
def test_the_estimate_is_better_than_history(name: str, start: str, duration: str, tmp_path: Path) -> None:
    path = run_of(name, tmp_path / "run.h5", f"start={start}", f"duration={duration}")
    with open_results(path) as results:
        assert results.status == "complete"
        overall = {e.method: e for e in site_errors(Reading(results)) if e.site == ALL_SITES}
        assert overall["wls"].mean_absolute_kw < 0.6 * overall["history"].mean_absolute_kw
        volts, sigma = (results.frame(f"estimator/bus/{a}").to_numpy() for a in ("vm_pu", "sigma_vm_pu"))
        error = np.abs(volts - results.frame("grid/bus/vm_pu").to_numpy())
        assert (error < 5.0 * sigma + 1e-3).all()
        assert np.isfinite(results.frame("grid/branch/loading_pu").to_numpy()).any()
        assert "Estimation error" in as_text(results)


def test_regulators_move_and_the_estimator_knows(tmp_path: Path) -> None:
    """A regulator's tap is worth 0.6 %: without it the estimated voltages behind it would be off by as much."""
    path = run_of("ieee123_day", tmp_path / "run.h5", "duration=30min", "start=2016-01-20T06:00:00+01:00")
    with open_results(path) as results:
        taps = results.frame("grid/control/position")
        assert (taps.nunique() > 1).any()
        assert taps.to_numpy().max() > 1.03
        error = results.frame("estimator/bus/vm_pu") - results.frame("grid/bus/vm_pu")
        assert error.abs().to_numpy().max() < 2e-3


def test_same_results_when_grid_and_estimator_run_in_processes_of_their_own(tmp_path: Path) -> None:
    brief = ("duration=15min", "step=3min", "start=2016-01-20T06:00:00+01:00", "estimator.compare=[]")
    here = run_of("ieee123_day", tmp_path / "here.h5", *brief)
    apart = run_of("ieee123_day", tmp_path / "apart.h5", *brief, "remote=[grid, estimator]")
    assert result_hash(here) == result_hash(apart)


def test_a_limit_for_a_branch_without_rating_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    scenario = str(REPOSITORY / "scenarios" / "european_lv_day.yaml")
    assert main(["check", scenario, "--set", "limits.branches=[Line.L15, Line.L1]"]) == 2
    said = capfd.readouterr().err
    assert "limits.branches: a branch without a rating; give it one in feeder.yaml; got Line.L15; allowed: " in said
    assert said.count("Line.L1;") == 0


def test_a_meter_of_a_phase_that_its_bus_does_not_have(capfd: pytest.CaptureFixture[str]) -> None:
    scenario = str(REPOSITORY / "scenarios" / "ieee123_day.yaml")
    meter = "{type: sub, number: 900, bus: '%s', phases: [%s], quantities: [p_kw], full_scale: {p_kw: 50}}"
    wrong = f"sensors.extra={{A: {meter % ('2', '1, 2')}, B: {meter % ('47', '1')}}}"
    assert main(["check", scenario, "--set", wrong]) == 2
    said = capfd.readouterr().err
    assert "2 has no phase 1; allowed: 2" in said
    assert "power by phase is measured only where every POD connects a phase to ground; got 47" in said
