"""Sweeps on real workers: the same results on any number of them, nothing lost when they die, one message when it
cannot go on."""

from __future__ import annotations

import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from dask_farm import Farm, farm
from short_runs import HUNG_S, REPOSITORY, cosim, start_cosim
from small_studies import DROPOUT, NOWHERE, index_of, study_file

from cosim import kpis, open_results, open_study, result_hash
from cosim.cli import main
from cosim.errors import SweepError
from cosim.scenario.study import LoadedStudy, load_study
from cosim.sweep.sweep import Swept, sweep


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with farm(tmp_path_factory.mktemp("dask"), 2) as processes:
        yield processes


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, two_workers: Farm) -> tuple[Path, Swept]:
    """The folder of a sweep on two workers, and what was told of it."""
    folder = tmp_path_factory.mktemp("two")
    return folder, sweep(load_study(study_file(folder)), scheduler=two_workers.address)


def test_results_and_index_of_a_sweep(swept: tuple[Path, Swept]) -> None:
    folder, told_of = swept
    table = index_of(folder / "study")
    assert table["hash"].nunique() == 4
    assert list(table.columns) == ["run", "seed", DROPOUT, "status", "error", "path", "hash"]
    assert list(table["status"]) == ["complete"] * 4
    assert [outcome.hash for outcome in told_of.outcomes] == list(table["hash"])
    for run, seed, dropout, path, told in table[["run", "seed", DROPOUT, "path", "hash"]].itertuples(index=False):
        file = folder / "study" / path
        assert path.startswith(f"{run}-")
        assert result_hash(file) == told
        with open_results(file) as results:
            assert (results.status, results.attributes["seed"]) == ("complete", seed)
            assert f'"dropout": {dropout}' in results.attributes["scenario"]


def test_twenty_seeds_on_a_local_cluster_and_on_two_workers_of_a_scheduler(tmp_path: Path, two_workers: Farm) -> None:
    """The shipped Monte Carlo study: index and figures are the same for one worker, which the command line starts, and
    for two that run already."""
    study, short = REPOSITORY / "scenarios" / "monte_carlo.yaml", ["--until", "30min"]
    for name, where in (("one", ["--workers", "1"]), ("two", ["--scheduler", two_workers.address])):
        code, printed, err = cosim("sweep", study, *short, "--set", f"out={tmp_path / name}", *where)
        assert (code, err) == (0, "")
        assert "20 runs: 0 there before, 20 done now, 0 failed" in printed
    one, two = index_of(tmp_path / "one"), index_of(tmp_path / "two")
    pd.testing.assert_frame_equal(one, two)
    assert list(one["status"]) == ["complete"] * 20
    assert one["seed"].nunique() == one["hash"].nunique() == 20
    figures = [kpis(open_study(tmp_path / name)) for name in ("one", "two")]
    pd.testing.assert_frame_equal(*figures)
    assert list(figures[0].index) == list(range(20))
    assert figures[0]["estimate_mae_kw/wls"].nunique() == 20


def test_only_what_is_missing_or_changed_is_run_again(swept: tuple[Path, Swept], two_workers: Farm) -> None:
    folder, first = swept
    results = folder / "study"
    written = {path.name: path.stat().st_mtime_ns for path in results.glob("*.h5")}
    again = sweep(load_study(study_file(folder)), scheduler=NOWHERE)  # nothing to do: nobody is asked
    assert (again.done, again.outcomes) == (0, first.outcomes)
    (results / "index.parquet").unlink()
    changed = study_file(folder, vary={"grid": {DROPOUT: [0.2, 0.1]}}, seeds=2)
    run: list[Path] = []
    grown = sweep(
        load_study(changed), scheduler=two_workers.address, on_outcome=lambda left, job, outcome: run.append(job.path)
    )
    table = index_of(results)
    assert grown.done == 2
    assert list(table["status"]) == ["complete"] * 4
    assert table["path"][0].startswith("1-")  # under the number that it had in the study before
    assert len(list(results.glob("*.h5"))) == 6
    assert {path: (results / path).stat().st_mtime_ns for path in written} == written
    assert len(run) == 4  # two of them only to be taken into the new index


def test_worker_killed_in_the_middle_loses_nothing(swept: tuple[Path, Swept], tmp_path: Path) -> None:
    working = tmp_path / "study" / ".unfinished"

    def kill_when_both_work(process: Farm) -> None:
        deadline = time.monotonic() + 60.0
        while len(list(working.glob("*.h5"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.workers[0].kill()

    with farm(tmp_path, 2) as processes:
        killer = threading.Thread(target=kill_when_both_work, args=(processes,))
        killer.start()
        study = load_study(study_file(tmp_path, seeds=3))
        sweep(study, scheduler=processes.address)
        killer.join()
        assert processes.workers[0].wait(timeout=HUNG_S) == -signal.SIGKILL
        assert processes.workers[1].poll() is None
    found = index_of(tmp_path / "study")
    assert list(found["status"]) == ["complete"] * 6
    assert list(found["hash"][:4]) == [outcome.hash for outcome in swept[1].outcomes]
    assert not working.exists()
    assert {path.name for path in (tmp_path / "study").glob("*.h5")} == set(found["path"])


def foreign(module: str, fault: str) -> dict[str, object]:
    links = [{"attribute": "p", "pod": "SS2.load"}]
    params = {"fault": fault, "at_s": 1800}
    return {"odd": {"start": {"python": module}, "params": params, "model": "Source", "links": links, "timeout_s": 90}}


def test_failed_runs_are_told_and_do_not_stop_the_others(tmp_path: Path) -> None:
    """One whose simulator fails, one that takes more memory than its worker may use."""
    simulators = [{}, foreign("foreign.odd:Odd", "raise"), foreign("foreign.greedy:Greedy", "eat")]
    vary = {"list": [{"simulators": each} for each in simulators]}
    path = study_file(tmp_path, vary=vary, seeds=[1])
    code, printed, err = cosim("sweep", path, "--memory", "1.5GiB", "--workers", "2")
    assert code == 1
    assert "3 runs: 0 there before, 1 done now, 2 failed" in printed
    first, raised, ate = err.splitlines()
    assert first == "cosim: 2 of 3 runs failed"
    assert raised.startswith("       1  ")
    assert "odd" in raised
    assert "cannot go on" in raised
    assert ate.startswith("       2  the worker that ran it died every time")
    assert "1.50 GiB" in ate
    index = index_of(tmp_path / "study")
    assert list(index["status"]) == ["complete", "failed", "failed"]
    assert index["error"][1] in raised
    assert list(index["path"].str.len() > 0) == [True, False, False]
    with open_results(next((tmp_path / "study").glob("1-*.failed.h5"))) as results:
        assert (results.status, len(results.time) in (1, 2)) == ("failed", True)


def test_disk_full_leaves_what_is_done(swept: tuple[Path, Swept], tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the same error from the same calls."""
    shutil.copytree(swept[0] / "study", tmp_path / "study", ignore=shutil.ignore_patterns("[123]-*"))
    path = study_file(tmp_path, seeds=1)
    command = ["sweep", path, "--workers", "1"]
    code, _, err = cosim(*command, preexec_fn=_limit_file_size)
    assert (code, err.splitlines()[0]) == (1, "cosim: 1 of 2 runs failed")
    assert "cannot write results: File too large" in err
    index = index_of(tmp_path / "study")
    assert list(index["status"]) == ["complete", "failed"]
    assert result_hash(tmp_path / "study" / index["path"][0]) == swept[1].outcomes[0].hash


def _limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))


def test_interrupted_sweep_ends_in_good_order(tmp_path: Path) -> None:
    """As a terminal does it: Ctrl-C goes to all processes of the group."""
    path = study_file(tmp_path, seeds=50)
    with start_cosim("sweep", path, "--workers", "1", start_new_session=True) as process:
        deadline = time.monotonic() + 90.0
        while not list((tmp_path / "study").glob("*.h5")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        printed, err = process.communicate(timeout=HUNG_S)
    assert (process.returncode, printed, err) == (130, "", "cosim: interrupted\n")
    index = index_of(tmp_path / "study")
    counts = index["status"].value_counts()
    assert counts["complete"] == len(list((tmp_path / "study").glob("*.h5"))) >= 1
    assert counts["missing"] == 100 - counts["complete"]


def refused(path: Path, **options: str) -> str:
    with pytest.raises(SweepError) as told:
        sweep(load_study(path), **options)  # type: ignore[arg-type]
    return str(told.value)


def test_scheduler_that_is_not_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = study_file(tmp_path, seeds=1, vary={})
    began = time.monotonic()
    assert main(["sweep", str(path), "--scheduler", NOWHERE]) == 1
    assert time.monotonic() - began < 30.0
    assert capfd.readouterr() == ("", f"cosim: {NOWHERE}: no Dask scheduler answers within 5 s\n")
    assert list(index_of(tmp_path / "study")["status"]) == ["missing"]


def test_scheduler_that_is_lost(tmp_path: Path) -> None:
    def lose(processes: Farm) -> None:
        while not list((tmp_path / "study" / ".unfinished").glob("*.h5")):
            time.sleep(0.005)
        processes.scheduler.kill()

    with farm(tmp_path, 1) as processes:
        threading.Thread(target=lose, args=(processes,), daemon=True).start()
        assert "the Dask scheduler is lost" in refused(study_file(tmp_path), scheduler=processes.address)
    assert "missing" in set(index_of(tmp_path / "study")["status"])


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    path = study_file(tmp_path)
    (tmp_path / "study").write_text("my thesis")
    assert refused(path).startswith(f"{tmp_path / 'study'}: cannot be written: ")
    assert (tmp_path / "study").read_text() == "my thesis"


def test_folder_that_another_sweep_writes(tmp_path: Path) -> None:
    from cosim.sweep.sweep import _held

    study: LoadedStudy = load_study(study_file(tmp_path))
    with _held(study.folder):
        assert refused(tmp_path / "study.yaml") == f"{tmp_path / 'study'}: another sweep is writing this folder"


def test_options_and_plan_of_the_command_line(
    swept: tuple[Path, Swept], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = study_file(tmp_path)
    wrong = ["--scheduler", NOWHERE, "--workers", "0", "--memory", "much"]
    assert main(["sweep", str(path), *wrong]) == 2
    assert capfd.readouterr().err.count("\n--") == 4
    shutil.copytree(swept[0] / "study", tmp_path / "study", ignore=shutil.ignore_patterns("[23]-*"))
    assert main(["sweep", str(path), "--dry-run"]) == 0
    printed, err = capfd.readouterr()
    assert err == ""
    assert [line.split()[1] for line in printed.splitlines()[:4]] == ["there", "there", "to", "to"]
    assert printed.splitlines()[4].startswith("4 runs: 2 to do; results in ")
    assert main(["sweep", str(path), "--dry-run", "--until", "30min", "--set", "seeds=1"]) == 0
    assert capfd.readouterr().out.splitlines()[2].startswith("2 runs: 2 to do")
