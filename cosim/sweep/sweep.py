"""A sweep: plans the runs of a study, does those that are missing, and writes the index."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosim.case import open_case
from cosim.errors import Fault, InputError, ResultError, ScenarioError, SweepError
from cosim.io.disk import reason
from cosim.io.results import open_results
from cosim.io.study_index import read_index, write_index
from cosim.scenario.study import LoadedStudy
from cosim.sweep.identity import run_hash
from cosim.sweep.plan import Plan, Run, plan
from cosim.sweep.work import UNFINISHED, Job, Outcome, found

_LOCK = ".sweep.lock"


@dataclass(frozen=True)
class Survey:
    """What is to be done: the absolute ``paths`` (n_run,) of the results of the plan's runs, which is the same for runs
    that are the same; what the index has of those that are ``done``; the ``jobs`` for the others; and which of these
    are ``missing``: a job whose result file is there only takes it into the index."""

    plan: Plan
    paths: tuple[Path, ...]
    done: Mapping[Path, Outcome]
    jobs: tuple[Job, ...]
    missing: tuple[Job, ...]


@dataclass(frozen=True)
class Swept:
    """A sweep that reached its end: its index, the outcome of each run by number, and how many that were missing are
    ``done`` now."""

    index: Path
    outcomes: tuple[Outcome, ...]
    done: int


Progress = Callable[[int, Job, Outcome], None]


def survey(study: LoadedStudy, until: str | None = None) -> Survey:
    """Plans a study and looks at what its folder holds. Raises ScenarioError with all faults of all runs."""
    planned = plan(study, until)
    folder = study.folder
    there = {path.stem.rpartition("-")[2]: path for path in sorted(folder.glob("*-*.h5"))}
    known = {folder / row["path"]: row for row in read_index(folder) if row["status"] == "complete" and row["path"]}
    digits = len(str(len(planned.runs) - 1))
    paths: dict[str, Path] = {}
    jobs: dict[Path, Job] = {}
    each = []
    for run in planned.runs:
        identity = run_hash(run.loaded)
        path = paths.setdefault(identity, there.get(identity) or folder / f"{run.number:0{digits}d}-{identity}.h5")
        each.append(path)
        jobs.setdefault(path, Job(run.loaded, path))
    done = {
        path: Outcome("complete", "", known[path]["hash"], known[path]["wall_s"])
        for path in jobs
        if path in known and _complete(path)
    }
    left = tuple(job for path, job in jobs.items() if path not in done)
    return Survey(planned, tuple(each), done, left, tuple(job for job in left if not job.path.exists()))


def _complete(path: Path) -> bool:
    """Whether a result that the index has is still one: it may have been cut or replaced since."""
    try:
        with open_results(path) as results:
            return results.status == "complete"
    except ResultError:
        return False


def sweep(
    study: LoadedStudy,
    *,
    until: str | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    memory: str | None = None,
    on_outcome: Progress = lambda left, job, outcome: None,
) -> Swept:
    """Does the runs of a study that are missing, on ``workers`` processes of this machine (default: one a core), each
    of which may use ``memory`` (such as ``2GiB``), or on a Dask ``scheduler``; ``until`` is a duration for all runs.

    Writes a result file for each run into the study's folder, and ``index.parquet`` whatever happens. ``on_outcome`` is
    called as runs end, with how many are left. A failed run is an outcome, not an error.

    Raises ScenarioError with all faults of the study before anything runs; SweepError if the folder cannot be written
    or is in use by another sweep, or the scheduler cannot be reached; ResultError if the index cannot be written.
    """
    with _held(study.folder):
        surveyed = survey(study, until)
        check(surveyed.missing)
        outcomes = dict(surveyed.done)
        try:
            with _interruptible():
                _work(surveyed.jobs, outcomes, scheduler, workers, memory, on_outcome)
        finally:
            outcomes |= {job.path: found(job.path) for job in surveyed.jobs if _unheard_of(job, outcomes)}
            index = _write_index(study, surveyed, outcomes)
    ended = tuple(outcomes[path] for path in surveyed.paths)
    done = {job.path for job in surveyed.missing if outcomes[job.path].status == "complete"}
    return Swept(index, ended, sum(path in done for path in surveyed.paths))


def check(jobs: Sequence[Job]) -> None:
    """Opens feeder, profiles and meters of one job of each kind: jobs that differ in numbers alone are of one kind.

    Raises ScenarioError with all faults found.
    """
    kinds = {_kind(job.loaded.scenario.model_dump(mode="json")): job.loaded for job in reversed(jobs)}
    faults: dict[Fault, None] = {}
    for loaded in reversed(kinds.values()):
        try:
            open_case(loaded)
        except InputError as error:
            faults |= dict.fromkeys(error.faults)
    if faults:
        raise ScenarioError(list(faults))


def _kind(value: Any) -> str:
    """A scenario without its numbers."""

    def blank(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: blank(entry) for key, entry in part.items()}
        if isinstance(part, list):
            return [blank(entry) for entry in part]
        return 0 if isinstance(part, int | float) and not isinstance(part, bool) else part

    return json.dumps(blank(value), sort_keys=True)


def _work(
    jobs: Sequence[Job],
    outcomes: dict[Path, Outcome],
    scheduler: str | None,
    workers: int | None,
    memory: str | None,
    on_outcome: Progress,
) -> None:
    if not jobs:
        return
    from cosim.sweep import cluster  # Dask takes half a second to import, which a sweep with nothing to do saves

    processes = min(workers or os.cpu_count() or 1, len(jobs))
    with cluster.connected(scheduler, processes, memory) as client:
        for count, (job, outcome) in enumerate(cluster.outcomes(client, jobs), 1):
            outcomes[job.path] = _here(job, outcome)
            on_outcome(len(jobs) - count, job, outcomes[job.path])


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the sweep in good order, also where a shell in the background has switched Ctrl-C off."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    except ValueError:  # not in the main thread: whoever calls us there handles signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _here(job: Job, outcome: Outcome) -> Outcome:
    if outcome.status == "complete" and not job.path.exists():
        where = f"{job.path.parent}: the worker wrote its result there, but here it is not"
        return Outcome("failed", f"{where}; scheduler, workers and this machine need one shared folder")
    return outcome


def _unheard_of(job: Job, outcomes: Mapping[Path, Outcome]) -> bool:
    """Whether a job was done although the sweep ended before its worker could tell."""
    return job.path not in outcomes and job.path.exists()


def _write_index(study: LoadedStudy, surveyed: Survey, outcomes: Mapping[Path, Outcome]) -> Path:
    rows = [_row(run, path, outcomes.get(path)) for run, path in zip(surveyed.plan.runs, surveyed.paths, strict=True)]
    return write_index(study.folder, study.name, surveyed.plan.keys, rows)


def _row(run: Run, path: Path, outcome: Outcome | None) -> dict[str, Any]:
    complete = outcome is not None and outcome.status == "complete"
    return {
        "run": run.number,
        **run.varied,
        "seed": run.loaded.scenario.seed,
        "status": "missing" if outcome is None else outcome.status,
        "error": "" if outcome is None else outcome.error,
        "path": path.name if complete else "",
        "hash": "" if outcome is None else outcome.hash,
        "wall_s": math.nan if outcome is None else outcome.wall_s,
    }


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder, made if need be, for this sweep alone. What is unfinished goes when a sweep gets to its end; the next
    one goes on with what an interrupted one left."""
    unfinished = folder / UNFINISHED
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("w")
    except OSError as error:
        raise SweepError(f"{folder}: cannot be written: {reason(error)}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SweepError(f"{folder}: another sweep is writing this folder") from None
        except OSError:
            pass  # a file system without locks
        try:
            yield
        except BaseException:
            with suppress(OSError):
                unfinished.rmdir()  # if nothing is in it
            raise
        shutil.rmtree(unfinished, ignore_errors=True)
