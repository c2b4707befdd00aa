"""Runs that are killed or interrupted, and go on: the file finished is that of a run nobody disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from resumed_runs import (
    HALF_A_DAY,
    MARKET,
    PRIORITY,
    SAME,
    SEGMENT,
    STEPS,
    Undisturbed,
    assert_same_file,
    stopped_after,
)
from short_runs import HUNG_S, REPOSITORY, SCENARIO, start_cosim

from cosim import load_scenario, open_results, result_hash, resume, run
from cosim.cli import main


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
        # All of them are there if the last flush was through, but not yet that the run is complete.
        assert line["steps"] is None or (line["steps"] % SEGMENT == 0 and line["steps"] <= STEPS), line
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
        (PRIORITY, (*HALF_A_DAY, "duration=6h", "coordination.scheme=smartnet_integrated"), (16, 17)),
        (MARKET.with_name("lfm_mv5_measures.yaml"), (*HALF_A_DAY, "duration=6h"), (9, 20)),
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
        printed, err = process.communicate(timeout=HUNG_S)
    assert (process.returncode, err) == (0, "")
    assert f"result  {out}" in printed
    assert_same_file(out, undisturbed(PRIORITY, HALF_A_DAY))
    assert main(["show", "--timing", str(out)]) == 0
    timing = capfd.readouterr().out
    assert "mosaik, waiting" in timing
    assert "segments" in timing
