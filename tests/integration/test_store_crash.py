"""Result files after kill -9, on a full disk, beyond a file size limit and without permission."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from short_runs import HUNG_S

from cosim.io.results import open_results

REPOSITORY = Path(__file__).parents[2]
WRITE = """
import resource, os, sys, time
from datetime import UTC, datetime
import numpy as np
from cosim.clock import Clock
from cosim.domain.frames import EventTable, Signal
from cosim.errors import ResultError
from cosim.io.store import ResultWriter

path, steps, compression, prelude = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
exec(prelude)
clock = Clock(datetime(2020, 1, 1, tzinfo=UTC), 900, steps, 900)
noise = np.random.default_rng(1).normal(size=(50, 20))
try:
    with ResultWriter(path, clock, 8, compression, {}) as result:
        for name in "abcdefghij":
            ids = tuple(f"e{k}" for k in range(20))
            result.declare("sim", name, [Signal("step", "1", "", "element", ids), Signal("x", "1", "", "element", ids)])
        result.declare_events("sim", EventTable("events", "", {"t_s": "s", "text": None}))
        result.start()
        print("started", flush=True)
        for step in range(steps):
            for name in "abcdefghij":
                result.write(step, "sim", name, "step", np.full(20, step))
                result.write(step, "sim", name, "x", noise[step % 50])
            result.append_event("sim", "events", {"t_s": 900 * step, "text": f"event {step}"})
            result.timing(step, {"sim": 0.1})
            result.end_step(step)
            if step % 8 == 7:
                time.sleep(0.01)
        result.finish("complete")
except ResultError as error:
    print(error)
    sys.exit(3)
"""


def start(path: Path, steps: int, compression: str = "gzip", prelude: str = "") -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", WRITE, str(path), str(steps), compression, prelude]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def recorded_steps(path: Path) -> int:
    """Steps in the file, after checking that all that is said to be there is there."""
    with open_results(path) as results:
        steps = int(results.attributes["steps_recorded"])
        for name in results.signals():
            table = results.frame(name)
            assert len(table) == steps
            if name.endswith("step"):
                assert np.array_equal(table.to_numpy(), np.repeat(np.arange(steps), 20).reshape(steps, 20))
            assert not table.isna().to_numpy().any()
        assert len(results.time) == steps
        events = results.table("sim/events")
        assert events["text"].tolist() == [f"event {k}" for k in range(len(events))]
        assert len(events) >= steps
    return steps


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_killed_at_any_moment_the_file_is_whole_up_to_the_last_flush(tmp_path: Path, compression: str) -> None:
    moments = random.Random(7)
    found = []
    for attempt in range(8):
        path = tmp_path / f"{attempt}.h5"
        process = start(path, 1_000_000, compression)
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            time.sleep(moments.uniform(0.0, 0.5))
            process.kill()
        assert process.returncode == -9
        found.append(recorded_steps(path))
        with h5py.File(path, "r") as file, open_results(path) as results:
            assert results.status == "running"
            lengths = {len(file[name]) for name in ("time", "timing/sim", *results.signals())} if found[-1] else {0}
            assert min(lengths) >= found[-1]
    assert max(found) > 8
    assert all(steps % 8 == 0 for steps in found)


def check_ran_out_of_space(path: Path, process: "subprocess.Popen[str]", cause: str) -> None:
    out, err = process.communicate(timeout=HUNG_S)
    assert (process.returncode, err) == (3, "")
    message = out.splitlines()[-1]
    steps = recorded_steps(path)
    assert steps > 0
    assert message.startswith(f"{path}: cannot write results: {cause}")
    assert f"({steps} of 1000000 steps); free space there: " in message
    assert f"complete up to {np.datetime64('2020-01-01T00:00:00') + np.timedelta64(steps * 900, 's')}+00:00" in message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root and the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_disk_full(small_disk: Path, compression: str) -> None:
    path = small_disk / "run.h5"
    check_ran_out_of_space(path, start(path, 1_000_000, compression), "No space left on device")
    with open_results(path) as results:
        assert results.status == "failed"
        assert "No space left on device" in results.attributes["error"]


def test_disk_full_on_a_file_system_that_cannot_reserve(small_disk: Path) -> None:
    """HDF5 itself runs out of space then: the file keeps what was flushed, and the process ends cleanly."""
    path = small_disk / "run.h5"
    prelude = """
import errno, shutil
from types import SimpleNamespace
def unsupported(*_): raise OSError(errno.EOPNOTSUPP, "no such call")
os.posix_fallocate = unsupported
shutil.disk_usage = lambda _: SimpleNamespace(free=10**12)
"""
    check_ran_out_of_space(path, start(path, 1_000_000, "none", prelude), "")
    with open_results(path) as results:
        assert results.status == "running"


def test_file_size_limit(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    prelude = "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))"
    check_ran_out_of_space(path, start(path, 1_000_000, "gzip", prelude), "File too large")


def test_no_space_to_begin_with(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    process = start(path, 10, "gzip", "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))")
    out, err = process.communicate(timeout=HUNG_S)
    assert (process.returncode, err) == (3, "")
    assert out.startswith(f"{path}: cannot write results: File too large; the file is not begun")
    assert list(tmp_path.iterdir()) == []


def test_no_permission(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    drop_root = "import secrets; os.setuid(65534)" if os.geteuid() == 0 else ""
    process = start(Path("run.h5"), 10, "gzip", f"os.chdir({str(folder)!r}); {drop_root}")
    out, err = process.communicate(timeout=HUNG_S)
    assert (process.returncode, err) == (3, "")
    assert out == "run.h5: cannot create the result file: Permission denied\n"
