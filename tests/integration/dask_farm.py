"""A Dask scheduler and workers of it as processes of their own, on this machine only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from short_runs import HUNG_S

TESTS = Path(__file__).resolve().parent
LOOPBACK = "127.0.0.1"
_UP_S = 60.0


@dataclass
class Farm:
    """The scheduler's address and the processes."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]


@contextmanager
def farm(folder: Path, workers: int) -> Iterator[Farm]:
    """One of ``workers`` without nannies: a worker that is killed does not come back."""
    told = folder / "scheduler.json"
    common = ["--no-dashboard", "--scheduler-file", str(told)]
    with (folder / "dask.log").open("wb") as log:
        processes = [_start(log, "scheduler", "--host", LOOPBACK, "--port", "0", "--dashboard-address", ":0", *common)]
        try:
            _wait_for(told, processes[0])
            own = ["--nthreads", "1", "--no-nanny", "--host", LOOPBACK, "--local-directory", str(folder)]
            processes += [_start(log, "worker", *own, *common) for _ in range(workers)]
            yield Farm(_address(told), processes[0], processes[1:])
        finally:
            for process in processes:
                process.kill()
                process.wait(timeout=HUNG_S)


def _start(log: object, *arguments: str) -> subprocess.Popen[bytes]:
    paths = [str(TESTS.parents[1]), str(TESTS)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "dask", *arguments], stdout=log, stderr=log, env=environment
    )


def _address(told: Path) -> str:
    address = json.loads(told.read_text())["address"]
    assert address.startswith(f"tcp://{LOOPBACK}:")
    return str(address)


def _wait_for(told: Path, scheduler: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _UP_S
    while not told.exists():
        assert scheduler.poll() is None, (told.parent / "dask.log").read_text()
        if time.monotonic() > deadline:
            pytest.fail("the scheduler does not start")
        time.sleep(0.05)
