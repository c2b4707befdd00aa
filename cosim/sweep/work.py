"""What a worker does: one run into the shared folder. It keeps nothing; the client hears only how it went."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cosim.case import Case, open_case
from cosim.errors import CosimError, ResultError, ResumeError
from cosim.io.disk import reason
from cosim.io.results import open_results, result_hash
from cosim.io.target import held
from cosim.resuming import Unfinished, unfinished
from cosim.runner import changed_software, go_on, run
from cosim.scenario.load import LoadedScenario
from cosim.threads import one_thread

UNFINISHED = ".unfinished"
"""Folder, beside the results, of files that are being written, or that an interrupted sweep left."""

_ONE_AT_A_TIME = threading.Lock()  # the engine has one working directory a process; a worker may have more threads


@dataclass(frozen=True)
class Job:
    """A run to do: ``path`` is the absolute path of its result file."""

    loaded: LoadedScenario
    path: Path


@dataclass(frozen=True)
class Outcome:
    """How a run went: ``hash`` is that of its results, ``wall_s`` the wall-clock time [s] that it took, NaN if it was
    found done."""

    status: Literal["complete", "failed"]
    error: str = ""
    hash: str = ""
    wall_s: float = float("nan")


def work(job: Job) -> Outcome:
    """Does a run, unless its result file is there; whatever goes wrong is told in the outcome.

    The file is written under a name of its own and takes its place when it is complete, so that a file at ``job.path``
    is a whole one, whenever the worker is killed and whoever else does the same run. The run goes on from the last
    checkpoint of a worker that did not get to the end of it. What a failed run has recorded stays as
    ``<name>.failed.h5``.
    """
    with _ONE_AT_A_TIME, one_thread():
        if job.path.exists():
            return found(job.path)
        began = time.perf_counter()
        working = job.path.parent / UNFINISHED / f"{_identity(job.path)}.{secrets.token_hex(4)}.h5"
        failed = job.path.with_suffix(".failed.h5")
        try:
            if not (_taken_over(job.path, working) and _went_on(job.loaded, working)):
                run(job.loaded, working)
            results_hash = result_hash(working)
            working.replace(job.path)
            failed.unlink(missing_ok=True)
        except Exception as error:  # whatever it is, the other runs go on
            with suppress(OSError):
                working.replace(failed)
            if not isinstance(error, CosimError | OSError):
                logging.getLogger(__name__).exception("run %s", job.path.stem)
            told = _told(error).replace(str(working), str(job.path))
            return Outcome("failed", told, wall_s=time.perf_counter() - began)
        return Outcome("complete", "", results_hash, time.perf_counter() - began)


def _identity(path: Path) -> str:
    """Of the run whose result belongs at a path: the number before it changes with the study."""
    return path.stem.rpartition("-")[2]


def _taken_over(path: Path, working: Path) -> bool:
    """Gives what a worker that is no more left of the run the name ``working``, if there is something.

    Whoever renames it first has it. Were its writer alive after all, on a file system that does not tell, it would find
    that its file is gone, and fail."""
    for left in sorted(working.parent.glob(f"{_identity(path)}.*.h5")):
        with suppress(OSError, ResultError), held(left):
            left.rename(working)
            return True
    return False


def _went_on(loaded: LoadedScenario, working: Path) -> bool:
    """Whether the run could go on to its end from the file at ``working``; if it could not begin to, that is gone."""
    found = _to_go_on_with(loaded, working)
    if found is not None:
        with suppress(ResumeError):
            go_on(*found)
            return True
    working.unlink(missing_ok=True)
    return False


def _to_go_on_with(loaded: LoadedScenario, working: Path) -> tuple[Case, Unfinished] | None:
    """None for a file that is broken, has no checkpoint, or is of other software, with which numbers may differ."""
    try:
        left = unfinished(working)
        if left.earlier is None or changed_software(left):
            return None
        case = open_case(loaded)
        left.require_unchanged(case)
    except Exception:  # whatever is wrong with it, the run can begin anew
        return None
    return case, left


def found(path: Path) -> Outcome:
    """A result that is there already. It is not run again if it cannot be read: it may be all that is left of it."""
    try:
        with open_results(path) as results:
            status = results.status
        if status != "complete":
            raise ResultError(f"{path}: is marked {status}")
        return Outcome("complete", "", result_hash(path))
    except ResultError as error:
        return Outcome("failed", f"{error}; move it away to have it run anew")


def _told(error: Exception) -> str:
    if isinstance(error, CosimError):
        return str(error)
    return reason(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
