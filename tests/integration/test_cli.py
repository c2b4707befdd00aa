"""Every command on its happy path, and a recording that is replayed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from mosaik.starters import Starter
from mosquitto_server import NEEDS_MOSQUITTO, Mosquitto
from resumed_runs import stopped_after
from short_runs import HUNG_S, REPOSITORY, SCENARIO, cosim, settings, short_run, start_cosim

from cosim import open_results, result_hash, resume
from cosim.cli import main
from cosim.scenario.schema import Method
from cosim.wiring import CLASSES
from cosim.world.compose import OWN_TIMEOUT_S
from cosim.world.guard import GuardedStarter

Capture = pytest.CaptureFixture[str]


def said(capfd: Capture, *arguments: str | Path) -> str:
    """What a command prints when all goes well."""
    assert main([str(argument) for argument in arguments]) == 0
    printed, message = capfd.readouterr()
    assert message == ""
    return printed


def refused(capfd: Capture, code: int, *arguments: str | Path) -> str:
    assert main([str(argument) for argument in arguments]) == code
    printed, message = capfd.readouterr()
    assert printed == ""
    assert message.startswith("cosim: ")
    return message


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory.mktemp("result") / "run.h5").path


def test_run_writes_result_and_report_and_prints_indicators(tmp_path: Path) -> None:
    """In a process of its own, all warnings errors, with foreign and remote simulators."""
    out = tmp_path / "sub" / "run.h5"
    odd = (
        "simulators={odd: {start: {cmd: '%(python)s "
        + str(Path(__file__).parent / "foreign" / "odd.py")
        + " %(addr)s'}, params: {values: [100]}, model: Source, links: [{attribute: p, pod: SS2.load}]}}"
    )
    overrides = settings(odd, "remote=[estimator, sensors]", "transport=embedded")
    code, printed, err = cosim("run", SCENARIO, "--out", out, *overrides)
    assert (code, err) == (0, "")
    assert "deepest" in printed.lower()
    assert f"result  {out}\n" in printed
    assert f"report  {out.with_suffix('.html')}\n" in printed
    page = out.with_suffix(".html").read_text()
    assert page.startswith("<!DOCTYPE html>") or page.startswith("<!doctype html>")
    with open_results(out) as results:
        assert results.status == "complete"
        assert set(results.timing()) >= {"odd", "grid", "estimator", "sensors", "recorder"}


def test_run_stops_at_until_and_writes_no_report_when_told_so(tmp_path: Path, capfd: Capture) -> None:
    out = tmp_path / "run.h5"
    printed = said(capfd, "run", SCENARIO, "--out", out, "--no-report", *settings(), "--until", "45min")
    assert "report" not in printed.splitlines()[-1]
    assert [file.name for file in tmp_path.iterdir()] == ["run.h5"]
    with open_results(out) as results:
        assert len(results.time) == 3


def test_run_in_an_empty_folder_goes_to_results(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = said(capfd, "run", SCENARIO, "--no-report", *settings("duration=15min"))
    assert "result  results/mv5_threshold.h5" in printed
    assert (tmp_path / "results" / "mv5_threshold.h5").is_file()


def test_check(capfd: Capture) -> None:
    printed = said(capfd, "check", SCENARIO)
    assert "all right" in printed
    assert "3d from 2016-07-21T00:00:00+01:00 in steps of 15min: 288 steps" in printed
    assert "feeder mv5: " in printed
    assert "11 PODs at 5 sites, 1 storage units" in printed
    assert "3 meters with 9 channels" in printed


def test_check_looks_at_the_recording_too(tmp_path: Path, capfd: Capture) -> None:
    file = tmp_path / "readings.csv"
    file.write_text("time,topic,value,unit\n2016-07-23T10:00:00+01:00,sub/7/p_kw,1.0,kW\n")
    message = refused(capfd, 2, "check", SCENARIO, "--set", f"sensors.replay={{file: {file}}}")
    assert f"{file}:2: topic: no channel 'sub/7/p_kw'" in message


def test_graph_as_text(capfd: Capture) -> None:
    arrows = dict.fromkeys(
        re.findall(r"^(\S+) +(-->|==>|<->) (\S+)", said(capfd, "graph", SCENARIO), flags=re.MULTILINE)
    )
    assert list(arrows) == [
        ("profiles", "-->", "grid"),
        ("profiles", "-->", "counterfactual"),
        ("grid", "-->", "sensors"),
        ("sensors", "-->", "gateway"),
        ("gateway", "-->", "estimator"),
        ("grid", "-->", "estimator"),
        ("estimator", "-->", "operator"),
        ("operator", "==>", "grid"),
        ("operator", "==>", "estimator"),
    ]
    assert "operator <-> grid" in re.sub(" +", " ", said(capfd, "graph", SCENARIO, "--set", "operator.action=same"))


def test_graph_as_mermaid(capfd: Capture) -> None:
    lines = said(capfd, "graph", SCENARIO, "--mermaid").splitlines()
    assert lines[0] == "flowchart LR"
    assert '    sensors -->|"outbox"| gateway' in lines
    assert '    operator -.->|"order"| grid' in lines


def test_thresholds(capfd: Capture) -> None:
    printed = said(capfd, "thresholds", SCENARIO, *settings("operator.sizing.day=2016-07-23"))
    assert re.search(r"threshold of SS3\.battery +-6\d\d\.\d kW", printed)
    assert "on 2016-07-23, orders acting in the next MTU" in printed
    assert re.search(r"deepest head power without orders +-863\.0 kW", printed)
    assert re.search(r"with these thresholds +-67[34]\.\d kW", printed)
    assert re.search(r"the day known in advance +-619\.1 kW", printed)


def test_list(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    printed = said(capfd, "list")
    for part in (
        "feeders\n  european_lv\n  ieee123\n  lfm12\n  lv_rural1\n  mv5\n",
        "scenarios/mv5_threshold.yaml",
        "methods\n  genetic",
        "  counterfactual",
    ):
        assert part in printed
    assert said(capfd, "list", "simulators").split() == ["simulators", *CLASSES]
    assert said(capfd, "list", "methods").splitlines()[1:] == [f"  {name}" for name in get_args(Method)]
    scenarios = said(capfd, "list", "scenarios").split()[1:]
    assert "scenarios/schemes/lfm_mode1.yaml" in scenarios
    assert "scenarios/monte_carlo.yaml" not in scenarios
    assert not [path for path in scenarios if path.startswith("scenarios/cases/")]


def test_list_where_nothing_is(capfd: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said(capfd, "list", "results") == "results\n  (none here)\n"


def test_show(result: Path, capfd: Capture) -> None:
    printed = said(capfd, "show", result, "--hash")
    assert f"hash  {result_hash(result)}\n" in printed
    timing = said(capfd, "show", result, "--timing")
    assert "estimator" in timing
    assert timing != printed


def test_report_of_two_results(result: Path, tmp_path: Path, capfd: Capture) -> None:
    other = short_run(tmp_path / "other.h5", "operator.action=same").path
    page = tmp_path / "both.html"
    assert said(capfd, "report", result, other, "--out", page) == f"report  {page}\n"
    assert "mv5_threshold" in page.read_text()


def test_report_goes_beside_the_result(tmp_path: Path, capfd: Capture) -> None:
    out = short_run(tmp_path / "run.h5", "duration=15min").path
    assert said(capfd, "report", out) == f"report  {tmp_path / 'run.html'}\n"
    assert (tmp_path / "run.html").is_file()


@pytest.mark.parametrize("command", ["show", "report"])
def test_result_that_is_not_there(command: str, tmp_path: Path, capfd: Capture) -> None:
    assert "there is no such file" in refused(capfd, 1, command, tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("text")
    assert "cannot be opened" in refused(capfd, 1, command, tmp_path / "text.h5")


def test_record_refuses_nonsense(tmp_path: Path, capfd: Capture) -> None:
    assert "--duration: not a duration: '3 minutes'" in refused(
        capfd, 2, "record", tmp_path / "x.csv", "--duration", "3 minutes"
    )
    assert "--port: " in refused(capfd, 2, "record", tmp_path / "x.csv", "--port", "99999")
    assert "127.0.0.1:9" in refused(capfd, 1, "record", tmp_path / "x.csv", "--port", "9")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("factor", ["-1", "0", "nan", "inf"])
def test_ratings_refuse_nonsense(factor: str, tmp_path: Path, capfd: Capture) -> None:
    message = refused(capfd, 2, "ratings", tmp_path / "none.h5", "--factor", factor)
    assert "--factor: must be above 0 and finite; got " in message


def test_no_command_and_unknown_command(capfd: Capture) -> None:
    for arguments in ([], ["fly"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
        assert "usage: cosim" in capfd.readouterr().err


def test_reader_of_the_output_may_go_away(result: Path) -> None:
    command = f"{sys.executable} -m cosim.cli show {result} | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


class TestReplay:
    pytestmark = NEEDS_MOSQUITTO
    no_delay = ("sensors.faults=null", "sensors.faults={default: {dropout: 0.2, stuck: 0.2, quantum: 0.05}}")

    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    def test_recorded_run_gives_the_same_snapshots(self, tmp_path: Path, suffix: str) -> None:
        file = tmp_path / f"readings{suffix}"
        with Mosquitto(tmp_path) as broker:
            arguments = ["--port", str(broker.port), "--topic-prefix", "site/"]
            with start_cosim("record", file, *arguments) as recording:
                wait_for(tmp_path / f".{file.name}.part")
                broker_of = f"transport={{mqtt: {{port: {broker.port}, topic_prefix: site/}}}}"
                live = short_run(tmp_path / "live.h5", broker_of, *self.no_delay).path
                time.sleep(0.3)
                recording.send_signal(signal.SIGINT)
                printed, err = recording.communicate(timeout=HUNG_S)
        with open_results(live) as results:
            readings = int(results.frame("gateway/snapshot/value").notna().to_numpy().sum())
        assert (recording.returncode, err) == (0, "")
        assert printed.startswith(f"{readings} messages recorded in {file}\n")
        replayed = short_run(tmp_path / "replayed.h5", f"sensors.replay={{file: {file}}}", *self.no_delay).path
        assert_same(live, replayed, "gateway/snapshot/value", "gateway/snapshot/quality", "estimator/head/p_kw")


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 30.0
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} does not appear"
        time.sleep(0.05)


def assert_same(one: Path, other: Path, *signals: str) -> None:
    with open_results(one) as expected, open_results(other) as found:
        for signal_path in signals:
            a, b = expected.frame(signal_path).to_numpy(), found.frame(signal_path).to_numpy()
            assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), signal_path


def test_replay_of_readings_in_place_of_the_measurement(tmp_path: Path) -> None:
    """What the recording holds reaches the snapshot, whatever the grid does; what it lacks is missing."""
    file = tmp_path / "readings.csv"
    rows = [f"2016-07-23T{10 + k // 4}:{15 * (k % 4):02d}:01+01:00,sub/1/p_kw,{100.5 + k},kW" for k in (0, 1, 3)]
    file.write_text("\n".join(["time,topic,value,unit", *rows]) + "\n")
    finished = short_run(tmp_path / "run.h5", f"sensors.replay={{file: {file}}}", "duration=1h")
    with open_results(finished.path) as results:
        values = results.frame("gateway/snapshot/value")
    assert values["sub/1/p_kw"].dropna().tolist() == [100.5, 101.5, 103.5]
    assert np.flatnonzero(values["sub/1/p_kw"].isna()).tolist() == [2]
    assert values.drop(columns="sub/1/p_kw").isna().all(axis=None)


def test_replay_at_a_real_time_factor_takes_its_time(tmp_path: Path) -> None:
    file = tmp_path / "readings.csv"
    file.write_text("time,topic,value,unit\n2016-07-23T10:00:01+01:00,sub/1/p_kw,100.5,kW\n")
    began = time.monotonic()
    paced = short_run(tmp_path / "paced.h5", f"sensors.replay={{file: {file}, real_time_factor: 1800}}", "duration=1h")
    assert time.monotonic() - began > 1.5, "the last of four steps begins 2700 s after the first"
    lock_step = short_run(tmp_path / "run.h5", f"sensors.replay={{file: {file}}}", "duration=1h")
    assert result_hash(paced.path) == result_hash(lock_step.path)


def test_replay_is_paced_from_where_the_run_began_in_all_its_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paced: list[tuple[float, float]] = []
    monkeypatch.setattr("simulators.sensors.pace", lambda factor, t_s, started, *_: paced.append((t_s, started)))
    file, out = tmp_path / "readings.csv", tmp_path / "run.h5"
    file.write_text("time,topic,value,unit\n2016-07-23T10:00:01+01:00,sub/1/p_kw,100.5,kW\n")
    replay = f"sensors.replay={{file: {file}, real_time_factor: 1800}}"
    stopped_after(2, lambda: short_run(out, replay, "duration=1h", "recorder.checkpoint=30min"))
    before = time.monotonic()
    resume(out)
    t_s, started = zip(*paced, strict=True)
    assert t_s == (0, 900, 1800, 0, 900), "three steps, and two from the checkpoint on"
    assert len(set(started[:3])) == len(set(started[3:])) == 1
    assert started[0] < before < started[3]


def test_waiting_for_real_time_is_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    timeouts_s: dict[str, float] = {}

    class Noting(GuardedStarter):
        def __init__(self, name: str, inner: Starter, timeout_s: float, *others: Any) -> None:
            super().__init__(name, inner, timeout_s, *others)
            timeouts_s[name] = timeout_s

    monkeypatch.setattr("cosim.world.compose.GuardedStarter", Noting)
    file = tmp_path / "readings.csv"
    file.write_text("time,topic,value,unit\n2016-07-23T10:00:01+01:00,sub/1/p_kw,100.5,kW\n")
    replay = f"sensors.replay={{file: {file}, real_time_factor: 900}}"
    short_run(tmp_path / "run.h5", replay, "duration=45min", "stall_s=0.4")
    assert not [message for message in caplog.messages if "sensors is in step()" in message]
    assert (timeouts_s["sensors"], timeouts_s["grid"]) == (OWN_TIMEOUT_S + 1.0, OWN_TIMEOUT_S)
