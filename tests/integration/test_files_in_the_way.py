"""What a file system or another program may put in the way of runs, resumed runs and sweeps: one clear message on the
command line, the exit code, and all that was there as it was."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pytest
from resumed_runs import stopped_after
from short_runs import FAST, SCENARIO, cosim, settings, short_run
from small_studies import study_file

from cosim import load_scenario, run
from cosim.cli import main
from cosim.scenario.study import load_study
from cosim.sweep.sweep import survey
from cosim.sweep.work import UNFINISHED, work

Capture = pytest.CaptureFixture[str]
Refused = Callable[..., str]
_PR_CAPBSET_DROP = 24
_OVERRIDE_PERMISSIONS = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
CHECKPOINTS = ("recorder={checkpoint: 30min, flush_steps: 2}",)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a complete result and an unfinished one, and a sweep of one run."""
    folder = tmp_path_factory.mktemp("original")
    short_run(folder / "complete.h5", "duration=30min")
    loaded = load_scenario(SCENARIO, [*FAST, *CHECKPOINTS])
    stopped_after(3, lambda: run(loaded, folder / "stopped.h5"))
    (job,) = survey(load_study(study_file(folder, seeds=1, vary={}))).jobs
    job.path.parent.mkdir()
    assert work(job).status == "complete"
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of all of it."""
    there = tmp_path / "results"
    shutil.copytree(original, there)
    study_file(there, seeds=1, vary={})
    return there


def contents(folder: Path) -> dict[str, bytes]:
    """All files but locks, which are empty, and the folder of unfinished files if it is empty."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


@pytest.fixture
def refused(folder: Path, capfd: Capture) -> Refused:
    """Gives the message of a command that must end with an exit code, print nothing else and change no file."""

    def on_the_command_line(*arguments: str | Path, code: int = 1) -> str:
        before = contents(folder)
        assert main([str(each) for each in arguments]) == code
        printed, message = capfd.readouterr()
        assert printed == ""
        assert contents(folder) == before
        return message

    return on_the_command_line


def run_into(path: Path) -> list[str | Path]:
    return ["run", SCENARIO, "--no-report", "--out", path, *settings("duration=30min")]


# --- files that another program writes -----------------------------------------------------------------------------


def test_result_file_that_another_run_writes(folder: Path, refused: Refused) -> None:
    complete, stopped = folder / "complete.h5", folder / "stopped.h5"
    with h5py.File(complete, "r+"), h5py.File(stopped, "r+"):
        for command, path in ((run_into(complete), complete), (["resume", stopped], stopped)):
            assert refused(*command) == f"cosim: {path}: another run is writing this result file\n"


# --- results of another version --------------------------------------------------------------------------------------


def test_results_of_another_version(folder: Path, refused: Refused) -> None:
    (swept,) = (folder / "study").glob("*.h5")
    for path in (folder / "complete.h5", folder / "stopped.h5", swept):
        with h5py.File(path, "r+") as file:
            file.attrs["format_version"] = 99
    told = "is of format version 99; this version of cosim reads 1"
    for command, path in (("show", "complete"), ("report", "complete"), ("resume", "stopped")):
        assert refused(command, folder / f"{path}.h5") == f"cosim: {folder / path}.h5: {told}\n"


def test_swept_result_of_another_version_is_left_as_it_is(folder: Path, capfd: Capture) -> None:
    (swept,) = (folder / "study").glob("*.h5")
    with h5py.File(swept, "r+") as file:
        file.attrs["format_version"] = 99
    before = swept.read_bytes()
    assert main(["sweep", str(folder / "study.yaml"), "--workers", "1"]) == 1
    printed, err = capfd.readouterr()
    assert printed.splitlines()[0] == "1 runs: 0 there before, 0 done now, 1 failed"
    told = f"{swept}: is of format version 99; this version of cosim reads 1; move it away to have it run anew"
    assert err == f"cosim: 1 of 1 runs failed\n       0  {told}\n"
    assert swept.read_bytes() == before


# --- no permission -------------------------------------------------------------------------------------------------


def _without_power() -> None:
    """Of a superuser, permissions are not looked at: gives that up for the program that is about to begin."""
    if os.geteuid() == 0:
        for capability in _OVERRIDE_PERMISSIONS:
            if ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise PermissionError


@pytest.fixture
def closed(folder: Path) -> Iterator[Path]:
    """The folder without the permission to write it, and what is in it."""
    places = [folder, *folder.rglob("*")]
    modes = {place: place.stat().st_mode for place in places}
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    yield folder
    for place, mode in modes.items():
        place.chmod(mode)


def powerless(*arguments: str | Path) -> tuple[int, str, str]:
    try:
        return cosim(*arguments, preexec_fn=_without_power)
    except subprocess.SubprocessError:
        pytest.skip("this superuser cannot give up its power")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["run", "new.h5"], "new.h5: cannot create the result file: Permission denied"),
        (["run", "complete.h5"], "complete.h5: cannot create the result file: Permission denied"),
        (["resume", "stopped.h5"], "stopped.h5: cannot be locked: Permission denied: "),
        (["sweep", "study.yaml"], "study: cannot be written: Permission denied: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_folder_without_permission(closed: Path, command: list[str], told: str) -> None:
    before = contents(closed)
    name, path = command
    arguments = run_into(closed / path) if name == "run" else [name, closed / path]
    code, printed, err = powerless(*arguments)
    assert (code, printed) == (1, "")
    assert err.startswith(f"cosim: {closed}/{told}")
    assert err.count("\n") == 1
    assert contents(closed) == before


# --- no room -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk on which the results have all but 200 kB of the room."""
    there = folder.parent / "small"
    there.mkdir()
    size = sum(4096 + path.stat().st_size for path in (folder / "study").rglob("*")) + 200_000
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(there)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root and the right to mount")
    shutil.copytree(folder / "study", there / "study")
    yield there
    subprocess.run(["umount", str(there)], check=True)


def test_sweep_on_a_full_disk(small_disk: Path, capfd: Capture) -> None:
    """What is complete stays; once there is room the sweep does the rest."""
    (done,) = (small_disk / "study").glob("*.h5")
    before = done.read_bytes()
    path = study_file(small_disk.parent, seeds=2, vary={}, out=str(small_disk / "study"))
    assert main(["sweep", str(path), "--workers", "1"]) == 1
    printed, err = capfd.readouterr()
    assert err.splitlines()[0] == "cosim: 1 of 2 runs failed"
    assert "No space left on device" in err
    assert "2 runs: 1 there before, 0 done now, 1 failed" in printed
    assert done.read_bytes() == before
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    assert main(["sweep", str(path), "--workers", "1"]) == 0
    printed, err = capfd.readouterr()
    assert err == ""
    assert "2 runs: 1 there before, 1 done now, 0 failed" in printed
    assert done.read_bytes() == before
    assert not (small_disk / "study" / UNFINISHED).exists()
