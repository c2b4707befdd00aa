"""Sweeps that were interrupted, and runs whose worker died: they go on from the last checkpoint, and the results are
those of runs that nobody disturbed."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import pytest
from dask_farm import Farm, farm
from resumed_runs import assert_same_file, stopped_after
from short_runs import HUNG_S, cosim, start_cosim
from small_studies import SETTINGS, index_of, study_file

from cosim import open_results, result_hash, run
from cosim.errors import ResultError
from cosim.io.target import held
from cosim.scenario.study import load_study
from cosim.sweep.sweep import survey, sweep
from cosim.sweep.work import UNFINISHED, Job, work

SEGMENT = 4  # steps
HOURLY = {"recorder.checkpoint": "1h"}
LONG = {"overrides": SETTINGS | {"recorder.checkpoint": "30min", "duration": "1d"}, "vary": {}, "seeds": 2}
"""Runs that take long, for all the segments they have: longer than a sweep takes to end its workers."""
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    (job,) = _jobs(folder)
    return run(job.loaded, folder / "run.h5").path


def _jobs(folder: Path) -> tuple[Job, ...]:
    path = study_file(folder, overrides=SETTINGS | HOURLY | {"duration": "3h"}, vary={}, seeds=1)
    return survey(load_study(path)).jobs


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """One of three segments, whose folder is there."""
    (job,) = _jobs(tmp_path)
    (job.path.parent / UNFINISHED).mkdir(parents=True)
    return job


def left_by_a_worker(job: Job, last_step: int) -> Path:
    """What a worker leaves that dies after a step."""
    path = job.path.parent / UNFINISHED / f"{job.path.stem.partition('-')[2]}.0a1b2c3d.h5"
    stopped_after(last_step, lambda: run(job.loaded, path))
    with h5py.File(path, "r+") as file:
        file.attrs.modify("status", "running")
    return path


def resumed_from(path: Path) -> list[int]:
    """The steps from which a run has gone on."""
    with open_results(path) as results:
        return [entry["resumed_from_step"] for entry in json.loads(results.attributes["history"])]


def test_run_goes_on_where_its_worker_died(job: Job, undisturbed: Path) -> None:
    left = left_by_a_worker(job, 2 * SEGMENT + 1)
    outcome = work(job)
    assert (outcome.status, outcome.error, outcome.hash) == ("complete", "", result_hash(undisturbed))
    assert resumed_from(job.path) == [2 * SEGMENT]
    assert_same_file(job.path, undisturbed)
    assert list(left.parent.iterdir()) == []


def test_run_goes_on_under_another_number(job: Job, undisturbed: Path) -> None:
    left_by_a_worker(job, SEGMENT)
    moved = Job(job.loaded, job.path.with_name(f"17-{job.path.name.partition('-')[2]}"))
    assert work(moved).hash == result_hash(undisturbed)
    assert resumed_from(moved.path) == [SEGMENT]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _not_hdf5(path: Path) -> None:
    path.write_text("my thesis")


def _spoil_rows(path: Path) -> None:
    """The checkpoint is whole, but not what it counts."""
    with h5py.File(path, "r+") as file:
        del file["grid"]


def _upgrade(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["versions"] = file.attrs["versions"].replace('"numpy": "', '"numpy": "9')


def _change_scenario(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["scenario"] = file.attrs["scenario"].replace('"step": "15min"', '"step": "5min"')


def _change_inputs(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["inputs"] = "{}"


@pytest.mark.parametrize(
    "spoil",
    [_truncate, _not_hdf5, _spoil_rows, _upgrade, _change_scenario, _change_inputs],
    ids=lambda each: each.__name__,
)
def test_run_that_cannot_go_on_begins_anew(job: Job, undisturbed: Path, spoil: Callable[[Path], None]) -> None:
    left = left_by_a_worker(job, SEGMENT)
    before = left.read_bytes()
    spoil(left)
    assert left.read_bytes() != before
    assert work(job).hash == result_hash(undisturbed)
    assert resumed_from(job.path) == []
    assert_same_file(job.path, undisturbed)
    assert list(left.parent.iterdir()) == []


def test_run_without_a_checkpoint_begins_anew(job: Job, undisturbed: Path, caplog: pytest.LogCaptureFixture) -> None:
    left_by_a_worker(job, 1)
    assert work(job).hash == result_hash(undisturbed)
    assert resumed_from(job.path) == []
    assert caplog.messages == []


def test_file_that_another_worker_writes_is_left_to_it(job: Job, undisturbed: Path) -> None:
    left = left_by_a_worker(job, SEGMENT)
    before = left.read_bytes()
    with held(left):
        assert work(job).hash == result_hash(undisturbed)
    assert resumed_from(job.path) == []
    assert left.read_bytes() == before


def test_failure_while_it_goes_on_is_told_once(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not done again from the first step."""
    from simulators.grid import Grid

    left_by_a_worker(job, SEGMENT)
    advance = Grid.advance

    def failing(self: Grid, t_s: int, inputs: object) -> object:
        if self.sid == "grid" and t_s == 2 * SEGMENT * 900:
            raise ValueError("burst")
        return advance(self, t_s, inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(Grid, "advance", failing)
    outcome = work(job)
    assert outcome.status == "failed"
    assert outcome.error == "simulator grid failed in step() at simulated time 7200 s: ValueError: burst"
    assert not job.path.exists()
    assert resumed_from(job.path.with_suffix(".failed.h5")) == [SEGMENT]


# --- whole sweeps ------------------------------------------------------------------------------------------------


def with_checkpoints(folder: Path) -> list[Path]:
    """Unfinished files that have a checkpoint."""
    found = []
    for path in folder.glob("*.h5"):
        try:
            with open_results(path) as results:
                found += [path] if results.checkpoint() is not None else []
        except ResultError:  # in the middle of a flush, or finished meanwhile
            continue
    return found


def wait_for_a_checkpoint(folder: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not with_checkpoints(folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def holds_open(pid: int, path: Path) -> bool:
    """Whether a process is at work on a file."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if descriptor.samefile(path):
                return True
    return False


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Hashes of the long runs, one after the other, without interruption."""
    folder = tmp_path_factory.mktemp("expected")
    jobs = survey(load_study(study_file(folder, **LONG))).jobs
    return [result_hash(run(job.loaded, folder / f"{k}.h5").path) for k, job in enumerate(jobs)]


def test_interrupted_sweep_goes_on_from_checkpoints(tmp_path: Path, expected: list[str]) -> None:
    path, results = study_file(tmp_path, **LONG), tmp_path / "study"
    with start_cosim("sweep", path, "--workers", "2", start_new_session=True) as process:
        wait_for_a_checkpoint(results / UNFINISHED)
        process.send_signal(signal.SIGINT)
        printed, err = process.communicate(timeout=HUNG_S)
    assert (process.returncode, printed, err) == (130, "", "cosim: interrupted\n")
    assert "missing" in set(index_of(results)["status"])
    left = with_checkpoints(results / UNFINISHED)
    assert left
    code, printed, err = cosim("sweep", path, "--workers", "2")
    assert (code, err) == (0, "")
    index = index_of(results)
    assert list(index["hash"]) == expected
    gone_on = [name for name in index["path"] if resumed_from(results / name)]
    assert {name.partition("-")[2].partition(".")[0] for name in gone_on} == {
        each.name.partition(".")[0] for each in left
    }
    assert not (results / UNFINISHED).exists()


def test_run_of_a_killed_worker_goes_on_with_another(tmp_path: Path, expected: list[str]) -> None:
    path, results = study_file(tmp_path, **LONG), tmp_path / "study"

    def kill_one(processes: Farm) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            for worker in processes.workers:
                if any(holds_open(worker.pid, file) for file in with_checkpoints(results / UNFINISHED)):
                    worker.kill()
                    return
            time.sleep(0.05)

    with farm(tmp_path, 2) as processes:
        killer = threading.Thread(target=kill_one, args=(processes,))
        killer.start()
        sweep(load_study(path), scheduler=processes.address)
        killer.join()
    index = index_of(results)
    assert list(index["hash"]) == expected
    histories = [resumed_from(results / name) for name in index["path"]]
    assert sorted(map(len, histories)) == [0, 1]
    assert sum(map(sum, histories)) >= 2
    assert sum(map(sum, histories)) % 2 == 0
