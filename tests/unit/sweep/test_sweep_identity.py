"""What makes two runs the same, and what a worker makes of a result that is there already."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import pytest

from cosim.case_files import FEEDERS
from cosim.scenario.load import load_scenario
from cosim.sweep.identity import run_hash
from cosim.sweep.work import Job, work

REPOSITORY = Path(__file__).resolve().parents[3]
SCENARIO = REPOSITORY / "scenarios" / "mv5_threshold.yaml"


def identity(*overrides: str) -> str:
    return run_hash(load_scenario(SCENARIO, overrides))


def test_what_counts_and_what_does_not() -> None:
    same = identity()
    assert len(same) == 12
    assert identity("description=another", "recorder.file=elsewhere.h5") == same
    assert identity("step=15min", "seed=1") == same  # what the scenario says anyway
    others = [
        identity(text) for text in ("seed=2", "duration=2d", "sensors.faults=null", "feeder=ieee123", "name=mine")
    ]
    assert len({same, *others}) == 6


def test_contents_of_the_feeder_and_of_files_count(tmp_path: Path) -> None:
    folder = tmp_path / "mv5"
    shutil.copytree(FEEDERS / "mv5", folder)
    feeder, table = f"feeder={folder}", tmp_path / "profiles.csv"
    table.write_text("time,a\n")
    file = f"profiles={{simbench: null, file: {table}, timezone: UTC}}"
    before = identity(feeder), identity(file)
    assert (identity(feeder), identity(file)) == before
    table.write_text("time,a,b\n")
    (folder / "Lines.dss").write_text((folder / "Lines.dss").read_text() + "\n! a remark\n")
    assert identity(feeder) != before[0]
    assert identity(file) != before[1]


@pytest.mark.parametrize("content", ["text", "other", "version", "running"])
def test_result_that_cannot_be_used_is_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "0-abc.h5"
    if content == "text":
        path.write_text("my thesis")
    else:
        with h5py.File(path, "w") as file:
            kind = "something else" if content == "other" else "cosim-results"
            file.attrs.update({"format": kind, "format_version": 99, "status": "running", "steps_recorded": 0})
    before = path.read_bytes()
    outcome = work(Job(load_scenario(SCENARIO), path))
    assert outcome.status == "failed"
    assert outcome.error.startswith(f"{path}: ")
    assert outcome.error.endswith("; move it away to have it run anew")
    assert path.read_bytes() == before


def test_run_that_cannot_begin_is_an_outcome(tmp_path: Path) -> None:
    outcome = work(Job(load_scenario(SCENARIO, ["feeder=mv6"]), tmp_path / "0-abc.h5"))
    assert outcome.status == "failed"
    assert "unknown feeder; got mv6" in outcome.error
    assert list(tmp_path.rglob("*.h5")) == []
