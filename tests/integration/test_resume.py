"""Runs that are killed, interrupted or fail, and go on: the file finished is that of a run nobody disturbed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from short_runs import REPOSITORY, SCENARIO, start_cosim

from cosim import load_scenario, open_results, result_hash, resume, run
from cosim.cli import main
from cosim.errors import Interrupted, ResultError, ScenarioError
from cosim.io.store import ResultWriter

PRIORITY = REPOSITORY / "scenarios" / "dso_priority.yaml"
MARKET = REPOSITORY / "scenarios" / "lfm_mv5.yaml"
HALF_A_DAY = ("start=2016-05-16T06:00:00+01:00", "duration=12h", "settlement={}", "recorder={checkpoint: 2h}")
STEPS = 48
SEGMENT = 8
SAME = (
    "start=2016-07-23T06:00:00+01:00",
    "duration=6h",
    "step=5min",
    "transport=memory",
    "estimator={method: wls, compare: []}",
    "operator={action: same, thresholds_kw: {SS3.battery: -600}}",
    "recorder.checkpoint=1h",
)
CHANGING = ("status", "error", "history")
Undisturbed = Callable[[Path, tuple[str, ...]], Path]


def assert_same_file(found: Path, expected: Path) -> None:
    """Every data set but wall-clock times, every attribute but what tells of the interruption."""
    assert result_hash(found) == result_hash(expected)
    with h5py.File(found, "r") as one, h5py.File(expected, "r") as other:
        assert names_of(one) == names_of(other)
        for name in names_of(one):
            left, right = one[name], other[name]
            assert (left.shape, left.dtype) == (right.shape, right.dtype), name
            assert left[()].tobytes() == right[()].tobytes() or np.array_equal(left[()], right[()]), name
            assert attributes_of(left) == attributes_of(right), name
        mine, theirs = attributes_of(one), attributes_of(other)
        assert {k: v for k, v in mine.items() if k not in CHANGING} == {
            k: v for k, v in theirs.items() if k not in CHANGING
        }
        assert mine["status"] == "'complete'"
    with open_results(found) as one_, open_results(expected) as other_:
        assert one_.checkpoint() == other_.checkpoint()


def names_of(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return [name for name in names if name.partition("/")[0] not in ("timing", "checkpoint")]


def attributes_of(place: Any) -> dict[str, str]:
    """As text: a NaN equals nothing."""
    hidden = ("DIMENSION_LIST", "REFERENCE_LIST")  # addresses within the file
    return {name: repr(np.asarray(value).tolist()) for name, value in place.attrs.items() if name not in hidden}


def stopped_after(step: int, begin: Callable[[], object], number: int = signal.SIGINT) -> None:
    """Runs until Ctrl-C in ``step``."""
    end_step = ResultWriter.end_step

    def ending(self: ResultWriter, at: int) -> None:
        end_step(self, at)
        if at == step:
            os.kill(os.getpid(), number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResultWriter, "end_step", ending)
        with pytest.raises(Interrupted, match=f"interrupted after step {step} "):
            begin()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The file of a run without interruption, made once."""
    made: dict[tuple[Path, tuple[str, ...]], Path] = {}

    def make(scenario: Path, overrides: tuple[str, ...]) -> Path:
        key = (scenario, overrides)
        if key not in made:
            out = tmp_path_factory.mktemp("undisturbed") / "run.h5"
            made[key] = run(load_scenario(scenario, overrides), out).path
        return made[key]

    return make


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run of half a day under a scheme, stopped in the fourth segment."""
    out = tmp_path / "run.h5"
    stopped_after(29, lambda: run(load_scenario(PRIORITY, HALF_A_DAY), out))
    return out


def test_killed_twenty_times_all_finish_as_if_undisturbed(tmp_path: Path, undisturbed: Undisturbed) -> None:
    expected = undisturbed(PRIORITY, HALF_A_DAY)
    script = Path(__file__).with_name("killed_runs.py")
    command = [sys.executable, script, tmp_path / "run.h5", PRIORITY, "11", "20", json.dumps(HALF_A_DAY)]
    said = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert said.returncode == 0, said.stderr
    told = [json.loads(line) for line in said.stdout.splitlines()]
    killed = [line for line in told if line["killed_by"]]
    assert len(killed) == 20
    assert {line["killed_by"] for line in killed} == {signal.SIGKILL, signal.SIGALRM}
    for line in killed:
        assert line["steps"] is None or (line["steps"] % SEGMENT == 0 and line["steps"] < STEPS), line
        assert (line["checkpoint"] or 0) <= (line["steps"] or 0), line
    finished = sorted(tmp_path.glob("finished*.h5"))
    assert finished
    assert sorted(tmp_path.iterdir()) == finished, "nothing is left over"
    histories = []
    for file in finished:
        assert_same_file(file, expected)
        with open_results(file) as results:
            histories.append(json.loads(results.attributes["history"]))
    assert max(map(len, histories)) >= 3, "of one run"
    assert sum(each["resumed_from_step"] > 0 for history in histories for each in history) >= 5


@pytest.mark.parametrize(
    ("scenario", "overrides", "steps"),
    [
        (MARKET, (*HALF_A_DAY, "recorder.bids=true"), (17, 18, 40)),
        (PRIORITY, (*HALF_A_DAY, "coordination.scheme=smartnet_integrated"), (16, 24)),
        (MARKET.with_name("lfm_mv5_measures.yaml"), HALF_A_DAY, (9, 30)),
        (SCENARIO, SAME, (13, 50, 60)),
    ],
    ids=["market", "an operator of markets", "measures", "orders at once"],
)
def test_interrupted_again_and_again(
    tmp_path: Path,
    undisturbed: Undisturbed,
    scenario: Path,
    overrides: tuple[str, ...],
    steps: tuple[int, ...],
) -> None:
    expected, out = undisturbed(scenario, overrides), tmp_path / "run.h5"
    stopped_after(steps[0], lambda: run(load_scenario(scenario, overrides), out))
    for step in steps[1:]:
        stopped_after(step, lambda: resume(out), signal.SIGTERM)
    finished = resume(out)
    assert_same_file(out, expected)
    with open_results(out) as results:
        assert len(json.loads(results.attributes["history"])) == len(steps)
        assert json.loads(results.attributes["prepared"])["thresholds_kw"] == finished.prepared.thresholds_kw


@pytest.mark.parametrize(("scenario", "overrides"), [(PRIORITY, HALF_A_DAY), (SCENARIO, SAME)])
def test_length_of_segments_does_not_matter_here(
    tmp_path: Path,
    undisturbed: Undisturbed,
    scenario: Path,
    overrides: tuple[str, ...],
) -> None:
    """Nothing promises this: solvers that keep something from step to step begin anew with each segment."""
    expected = result_hash(undisturbed(scenario, overrides))
    for checkpoint in ("false", "3h"):
        out = tmp_path / f"{checkpoint}.h5"
        finished = run(load_scenario(scenario, (*overrides, f"recorder.checkpoint={checkpoint}")), out)
        assert result_hash(finished.path) == expected
        with open_results(out) as results:
            assert (results.checkpoint() is None) == (checkpoint != "3h")


def test_over_remote_simulators(tmp_path: Path, undisturbed: Undisturbed) -> None:
    """One that gives and takes values of the step before, one that has a state."""
    shorter = (*HALF_A_DAY, "duration=4h")
    out = tmp_path / "run.h5"
    stopped_after(10, lambda: run(load_scenario(PRIORITY, (*shorter, "remote=[tso, aggregator]")), out))
    resume(out)
    assert result_hash(out) == result_hash(undisturbed(PRIORITY, shorter))


def test_over_the_embedded_broker(tmp_path: Path, undisturbed: Undisturbed) -> None:
    out = tmp_path / "run.h5"
    stopped_after(30, lambda: run(load_scenario(SCENARIO, (*SAME, "transport=embedded")), out))
    resume(out)
    assert result_hash(out) == result_hash(undisturbed(SCENARIO, SAME))


def test_from_the_command_line_with_settings_and_another_folder(
    tmp_path: Path, undisturbed: Undisturbed, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C as a terminal sends it; the run goes on from its own folder and with its own settings."""
    out = tmp_path / "run.h5"
    settings = [part for override in HALF_A_DAY for part in ("--set", override)]
    slow = "simulators.recorder"  # waits where the file is written
    program = (
        f"import os, signal, {slow} as r; from cosim.cli import main; import sys; old = r.Recorder.advance\n"
        "def advance(self, t_s, inputs):\n"
        "    if t_s == 20 * 900: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return old(self, t_s, inputs)\n"
        "r.Recorder.advance = advance\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-W", "error", "-c", program, "run", str(PRIORITY), "--no-report", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    said = subprocess.run([*command, *settings], capture_output=True, text=True, env=environment, check=False)
    assert said.returncode == 130
    assert said.stderr.startswith("cosim: interrupted after step 20 (")
    with start_cosim("resume", out, "--no-report", cwd=tmp_path) as process:
        printed, err = process.communicate(timeout=60.0)
    assert (process.returncode, err) == (0, "")
    assert f"result  {out}" in printed
    assert_same_file(out, undisturbed(PRIORITY, HALF_A_DAY))
    assert main(["show", "--timing", str(out)]) == 0
    timing = capfd.readouterr().out
    assert "mosaik, waiting" in timing
    assert "segments" in timing


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


def test_without_a_checkpoint_the_run_begins_anew(
    tmp_path: Path, undisturbed: Undisturbed, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run.h5"
    stopped_after(3, lambda: run(load_scenario(PRIORITY, HALF_A_DAY), out))
    resume(out)
    assert "has no checkpoint yet, so its run begins anew" in caplog.text
    assert_same_file(out, undisturbed(PRIORITY, HALF_A_DAY))


def test_changed_scenario_is_refused_with_the_difference(tmp_path: Path) -> None:
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
    resume(out, moved)
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
