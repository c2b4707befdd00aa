"""What a run does not go on from, a full disk, and failures whose cause is gone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest
from resumed_runs import (
    HALF_A_DAY,
    MARKET,
    PRIORITY,
    SAME,
    Undisturbed,
    assert_same_file,
    stopped_after,
)
from short_runs import REPOSITORY, SCENARIO

from cosim import load_scenario, open_results, resume, run
from cosim.cli import main
from cosim.errors import ResultError, ScenarioError, SimulatorError
from cosim.io.checkpoint import read_checkpoints, write_checkpoint
from cosim.io.store import ResultWriter
from simulators.grid import Grid


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of half a day under a scheme, stopped in the fourth segment."""
    out = tmp_path_factory.mktemp("left") / "run.h5"
    stopped_after(29, lambda: run(load_scenario(PRIORITY, HALF_A_DAY), out))
    return out


@pytest.fixture
def stopped(left: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copy(left, tmp_path / "run.h5"))


# --- what is refused ---------------------------------------------------------------------------------------------


def test_complete_file_is_refused(tmp_path: Path, undisturbed: Undisturbed, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.h5"
    shutil.copy(undisturbed(PRIORITY, HALF_A_DAY), out)
    before = out.read_bytes()
    assert main(["resume", str(out)]) == 1
    assert capfd.readouterr().err == f"cosim: {out}: is complete, there is nothing to resume\n"
    assert out.read_bytes() == before


def test_file_that_is_not_there_or_of_another_version(stopped: Path) -> None:
    with pytest.raises(ResultError, match="there is no such file"):
        resume(stopped.with_name("other.h5"))
    with h5py.File(stopped, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(ResultError, match="is of format version 99; this version of cosim reads 1"):
        resume(stopped)


def test_file_that_is_being_written(stopped: Path) -> None:
    with h5py.File(stopped, "r+"), pytest.raises(ResultError, match="another run is writing this result file"):
        resume(stopped)


def test_file_with_a_damaged_chunk_is_left_as_it_is(stopped: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Not found out at the end, when the file would be all that there is."""
    with h5py.File(stopped) as file:
        chunk = file["grid/bus/vm_pu"].id.get_chunk_info(0)
    with stopped.open("r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        file.write(bytes(8))
    before = stopped.read_bytes()
    assert main(["resume", str(stopped)]) == 1
    assert f"cosim: {stopped}: cannot be resumed, and is left as it is: " in capfd.readouterr().err
    assert stopped.read_bytes() == before
    assert list(stopped.parent.iterdir()) == [stopped]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda saved: saved["states"]["aggregator"].pop("units"), "aggregator failed in restore(): KeyError"),
        (lambda saved: saved["states"]["grid"].update(taps=[1]), "grid failed in restore(): TypeError"),
        (lambda saved: saved["states"].pop("dso"), "nothing is kept for 'dso'"),
        (lambda saved: saved["links"].popitem(), "nothing is kept for"),
    ],
    ids=["less than is remembered", "more", "no such simulator", "no such link"],
)
def test_checkpoint_of_another_form(
    stopped: Path, change: Callable[[dict[str, Any]], Any], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(stopped, "r+") as file:
        for slot, kept in read_checkpoints(file).items():
            change(saved := json.loads(kept.text))
            write_checkpoint(file, replace(kept, text=json.dumps(saved)), slot)
    before = stopped.read_bytes()
    assert main(["resume", str(stopped)]) == 1
    message = capfd.readouterr().err
    assert f"cosim: {stopped}: cannot go on from its checkpoint, which another version of cosim may" in message
    assert says in message
    assert stopped.read_bytes() == before


def test_failure_between_segments_is_the_simulators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Grid, saved: dict[str, Any]) -> None:
        raise ValueError("burst")

    monkeypatch.setattr(Grid, "restore", failing)
    told = r"^simulator (grid|counterfactual) failed in restore\(\): ValueError: burst$"
    with pytest.raises(SimulatorError, match=told):
        run(load_scenario(PRIORITY, HALF_A_DAY), tmp_path / "run.h5")
    with open_results(tmp_path / "run.h5") as results:
        assert (results.status, results.checkpoint() is not None) == ("failed", True)


def test_without_a_checkpoint_the_run_begins_anew(
    tmp_path: Path, undisturbed: Undisturbed, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run.h5"
    stopped_after(3, lambda: run(load_scenario(PRIORITY, HALF_A_DAY), out))
    resume(out)
    assert "has no checkpoint yet, so its run begins anew" in caplog.text
    assert_same_file(out, undisturbed(PRIORITY, HALF_A_DAY))


def test_changed_scenario_is_refused_with_the_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, out = tmp_path / "mine.yaml", tmp_path / "run.h5"
    text = f"extends: {PRIORITY}\nname: mine\nmarket: {{slack_eur_per_kwh: 9.5}}\n"
    scenario.write_text(text)
    stopped_after(9, lambda: run(load_scenario(scenario, HALF_A_DAY), out))
    before = out.read_bytes()
    scenario.write_text(text.replace("9.5", "8") + "limits: {derated: {Transformer.T4: 0.4, Transformer.T1: 0.9}}\n")
    with pytest.raises(ScenarioError) as told:
        resume(out)
    assert [(fault.key, fault.problem.partition(": ")[2]) for fault in told.value.faults] == [
        ("limits.derated.Transformer.T1", "then nothing, now 0.9"),
        ("market.slack_eur_per_kwh", "then 9.5, now 8.0"),
    ]
    assert out.read_bytes() == before
    moved = tmp_path / "moved.yaml"
    moved.write_text(text)
    scenario.unlink()
    with pytest.raises(ScenarioError, match=r"mine\.yaml"):
        resume(out)
    monkeypatch.chdir(tmp_path)  # where it has moved to is told from here, not from where the run began
    resume(out, Path(moved.name))
    with open_results(out) as results:
        assert results.status == "complete"


def test_changed_input_files_are_refused(tmp_path: Path) -> None:
    feeder, rows = tmp_path / "mv5", tmp_path / "outdoor.csv"
    shutil.copytree(REPOSITORY / "dss_models" / "mv5", feeder)
    rows.write_text(
        "time,temperature_c\n" + "".join(f"2016-05-{day:02d}T00:00:00+00:00,{day}\n" for day in range(1, 30))
    )
    pump = (
        "resources.heat={pods: [SS4.load], heat_pump: {p_max_kw: 9, capacity_kwh_per_k: 5, resistance_k_per_kw: 2, "
        f"outdoor: {{file: {rows}, timezone: UTC}}}}, aggregator: homes, down_eur_per_kwh: 0.1}}"
    )
    overrides = ["start=2016-05-16T06:00:00+01:00", "duration=4h", "recorder.checkpoint=1h", f"feeder={feeder}", pump]
    out = tmp_path / "run.h5"
    stopped_after(5, lambda: run(load_scenario(MARKET, overrides), out))
    (feeder / "Lines.dss").write_text((feeder / "Lines.dss").read_text() + "! a remark\n")
    (feeder / "more.txt").write_text("new")
    rows.write_text(rows.read_text().replace(",7\n", ",8\n"))
    with pytest.raises(ScenarioError) as told:
        resume(out)
    assert [(fault.key, fault.problem.partition(" since")[0]) for fault in told.value.faults] == [
        ("feeder/Lines.dss", "the file has changed"),
        ("feeder/more.txt", "the file is new"),
        ("resources.heat.heat_pump.outdoor.file", "the file has changed"),
    ]


def test_foreign_simulators_need_a_run_without_checkpoints(tmp_path: Path) -> None:
    entry = "simulators=" + json.dumps(
        {
            "odd": {
                "start": {"python": "foreign.odd:Odd"},
                "model": "Source",
                "links": [{"attribute": "p", "pod": "SS2.load"}],
            }
        }
    )
    with pytest.raises(ScenarioError, match=r"recorder.checkpoint: the state of odd cannot be saved; got 1h"):
        run(load_scenario(SCENARIO, [*SAME, entry]), tmp_path / "run.h5")
    assert list(tmp_path.iterdir()) == []
    finished = run(load_scenario(SCENARIO, [*SAME, entry, "recorder.checkpoint=false"]), tmp_path / "run.h5")
    with open_results(finished.path) as results:
        assert results.status == "complete"


# --- the disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def limited() -> Iterator[Callable[[int], None]]:
    """Sets the largest size of a file [byte]: the same errors from the same calls as a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_disk_full_at_a_checkpoint(
    tmp_path: Path,
    undisturbed: Undisturbed,
    limited: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, checkpoint = tmp_path / "run.h5", ResultWriter.checkpoint
    taken = []

    def without_room(self: ResultWriter, text: str) -> None:
        taken.append(text)
        if len(taken) == 3:
            limited(os.path.getsize(out))
            text += " " * 20_000_000  # more than was set aside for flushes and not used
        checkpoint(self, text)

    monkeypatch.setattr(ResultWriter, "checkpoint", without_room)
    with pytest.raises(ResultError, match=r"cannot write results: File too large; the file is complete up to .*24 of"):
        run(load_scenario(PRIORITY, HALF_A_DAY), out)
    with open_results(out) as results:
        assert (results.status, len(results.time)) == ("failed", 24)
        found = results.checkpoint()
        assert found is not None
        assert found.step == 16
    monkeypatch.undo()
    limited(os.path.getsize(out) // 2)
    with pytest.raises(ResultError, match="cannot be resumed, and is left as it is: File too large"):
        resume(out)
    assert [file.name for file in tmp_path.iterdir()] == ["run.h5"]
    limited(1 << 40)
    resume(out)
    assert_same_file(out, undisturbed(PRIORITY, HALF_A_DAY))


def test_failed_run_goes_on_once_the_cause_is_gone(
    tmp_path: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the error names simulator and simulated time in any segment, though mosaik's clock begins anew in each."""
    out = tmp_path / "run.h5"
    with monkeypatch.context() as patch:
        from simulators.tso import Tso

        advance = Tso.advance

        def failing(self: Tso, t_s: int, inputs: Any) -> Any:
            if t_s == 27 * 900:
                raise ValueError("out of order")
            return advance(self, t_s, inputs)

        patch.setattr(Tso, "advance", failing)
        message = r"simulator tso failed in step\(\) at simulated time 24300 s: ValueError: out of order"
        with pytest.raises(Exception, match=message):
            run(load_scenario(PRIORITY, HALF_A_DAY), out)
    with open_results(out) as results:
        assert (results.status, len(results.time)) == ("failed", 27)
    resume(out)
    assert_same_file(out, undisturbed(PRIORITY, HALF_A_DAY))
