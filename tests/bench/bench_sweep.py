"""A sweep on two workers against one.

Eight hours of mv5 in each of six runs; only the time of the runs counts, not that of starting processes. Needs two
free cores.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from distributed import Client
from ratios import Row, alternated, not_measured, share, times_as_fast

from cosim.scenario.study import load_study
from cosim.sweep.cluster import connected, outcomes
from cosim.sweep.sweep import survey
from cosim.sweep.work import Job, Outcome

SCENARIO = Path(__file__).resolve().parents[2] / "scenarios" / "lfm_mv5.yaml"
RUNS = 6
ROUNDS = 3
NAME = "mv5: 6 runs of 8 h"


def main() -> list[Row]:
    """The ratio of times; both ways must give the same hashes."""
    if (os.cpu_count() or 1) < 2:
        return [not_measured(NAME, "one core")]
    with TemporaryDirectory() as folder, connected(None, 1, None) as one, connected(None, 2, None) as two:
        loaded = [job.loaded for job in _jobs(Path(folder))]
        counter = count()

        def swept(client: Client) -> dict[Path, Outcome]:
            jobs = [Job(each, Path(folder) / f"{next(counter)}.h5") for each in loaded]
            found = {job.path: outcome for job, outcome in outcomes(client, jobs)}
            return {job.path: found[job.path] for job in jobs}

        of_one, of_two = swept(one), swept(two)  # after which all is imported
        assert _hashes(of_one) == _hashes(of_two), "results depend on the number of workers"
        ways = {"one": lambda: swept(one), "two": lambda: swept(two)}
        seconds = alternated(ways, ROUNDS, time.perf_counter)
        began = time.perf_counter()
        working_s = sum(outcome.wall_s for outcome in swept(two).values())
        took_s = time.perf_counter() - began
    note = "times as fast with two workers as with one, once they are up; needs two free cores"
    return [
        times_as_fast(NAME, seconds["two"], seconds["one"], "s", note),
        share("two workers at work", working_s, 2 * took_s, "s", "of their time, also where cores are not free"),
    ]


def _hashes(found: Mapping[Path, Outcome]) -> list[str]:
    return [outcome.hash for outcome in found.values()]


def _jobs(folder: Path) -> tuple[Job, ...]:
    study = folder / "study.yaml"
    study.write_text(
        f"scenario: {SCENARIO}\nout: {folder / 'out'}\nseeds: {RUNS}\n"
        "overrides: {duration: 8h, start: 2016-05-16T06:00:00+01:00}\n"
    )
    return survey(load_study(study)).jobs
