"""What a sweep takes for done."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import pytest

from cosim.io.layout import FORMAT, FORMAT_VERSION
from cosim.io.study_index import write_index
from cosim.scenario.study import load_study
from cosim.sweep.sweep import Survey, survey

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(f"scenario: {REPOSITORY}/scenarios/mv5_threshold.yaml\nout: {tmp_path / 'out'}\nseeds: [1, 2, 3]\n")
    return path


def indexed(study: Path, names: list[str]) -> Survey:
    """What is found with results of these names in the index, all of them marked complete."""
    told = {"seed": 1, "status": "complete", "error": "", "hash": "aa", "wall_s": 1.0}
    write_index(study.parent / "out", "study", [], [{"run": k, "path": name, **told} for k, name in enumerate(names)])
    return survey(load_study(study))


def test_results_that_are_none_any_more_are_not_done(study: Path) -> None:
    paths = survey(load_study(study)).paths
    paths[0].parent.mkdir()
    for path in paths:
        with h5py.File(path, "w") as file:
            about = {"format": FORMAT, "format_version": FORMAT_VERSION, "status": "complete", "steps_recorded": 0}
            file.attrs.update(about)
    names = [path.name for path in paths]
    assert set(indexed(study, names).done) == set(paths)
    os.truncate(paths[0], 2000)
    paths[1].unlink()
    paths[1].mkdir()
    found = indexed(study, names)
    assert set(found.done) == {paths[2]}
    assert [job.path for job in found.jobs] == list(paths[:2])
    assert not found.missing, "they are left as they are, and told"
    shutil.rmtree(paths[1])
    assert [job.path for job in indexed(study, names).missing] == [paths[1]]


def test_index_row_without_a_path(study: Path) -> None:
    (study.parent / "out").mkdir()
    assert len(indexed(study, [None, "", "x"]).missing) == 3  # type: ignore[list-item]
