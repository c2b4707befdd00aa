"""Simulators that are not ours: fed into a POD however they are started, and what a run does when one misbehaves."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from short_runs import HUNG_S, SCENARIO, settings, short_run, start_cosim

from cosim import open_results, result_hash
from cosim.cli import main
from cosim.errors import ResultError, ScenarioError, SimulatorError

ODD = Path(__file__).parent / "foreign" / "odd.py"
CMD = f"%(python)s {ODD} %(addr)s"
PYTHON = {"python": "foreign.odd:Odd"}
LINKS = [{"attribute": "p", "pod": "SS2.load"}]


def foreign(name: str = "odd", **entry: object) -> str:
    """An override that adds a foreign simulator; by default a `Source` of `foreign.odd` at SS2.load."""
    return "simulators=" + json.dumps({name: {"start": PYTHON, "model": "Source", "links": LINKS} | entry})


def orphans() -> list[psutil.Process]:
    """Processes that run a simulator of these tests."""
    return [process for process in psutil.process_iter() if _command(process)[1:2] == [str(ODD)]]


def _command(process: psutil.Process) -> list[str]:
    try:
        return [] if process.status() == psutil.STATUS_ZOMBIE else process.cmdline()
    except psutil.NoSuchProcess:
        return []


def wait_until(condition, within_s: float = 120.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    yield
    wait_until(lambda: not orphans(), 5.0)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A file as mosaik-csv reads it: a model name, a header, half-hourly values in W."""
    file = tmp_path / "plant.csv"
    rows = [f"2016-07-23 {9 + k // 2:02d}:{30 * (k % 2):02d}:00,{100_000 + 12_345 * k}" for k in range(8)]
    file.write_text("\n".join(["Plant", "Date,P", *rows]) + "\n")
    return file


def mosaik_csv(series: Path, **start: str) -> str:
    params = {"sim_start": "2016-07-23 10:00:00", "datafile": str(series)}
    links = [{"attribute": "P", "pod": "SS4.pv", "scale": -0.001}]
    return foreign("plant", start=start, params=params, model="Plant", links=links)


@pytest.mark.parametrize(
    ("start", "more"),
    [
        ({"cmd": "%(python)s -m mosaik_csv %(addr)s"}, []),
        ({"python": "mosaik_csv:CSV"}, ["remote=[grid]"]),
        ({"python": "mosaik_csv:CSV"}, ["operator.action=same"]),
    ],
    ids=str,
)
def test_mosaik_csv_feeds_a_pod(tmp_path: Path, series: Path, start: dict[str, str], more: list[str]) -> None:
    finished = short_run(tmp_path / "run.h5", mosaik_csv(series, **start), *more)
    in_process = short_run(
        tmp_path / "again.h5", mosaik_csv(series, python="mosaik_csv:CSV"), *(m for m in more if "action" in m)
    )
    assert result_hash(finished.path) == result_hash(in_process.path)
    expected_kw = [(100_000 + 12_345 * (2 + k // 2)) * -0.001 for k in range(8)]
    with open_results(finished.path) as results:
        for grid in ("grid", "counterfactual"):
            assert list(results.frame(f"{grid}/pod/p_kw")["SS4.pv"]) == expected_kw
        assert list(results.frame("profiles/pod/p_kw")["SS4.pv"]) != expected_kw


def test_values_of_an_event_based_simulator_hold_until_the_next(tmp_path: Path) -> None:
    entry = foreign(params={"kind": "event-based", "step_s": 2000, "values": [10.0, 20.0, 30.0]})
    finished = short_run(tmp_path / "run.h5", entry)
    with open_results(finished.path) as results:
        power_kw = results.frame("grid/pod/p_kw")["SS2.load"]
    assert list(power_kw) == [10.0, 10.0, 10.0, 20.0, 20.0, 30.0, 30.0, 30.0]


def test_several_entities_quantities_and_parameters(tmp_path: Path) -> None:
    links = [
        {"attribute": "p", "pod": "SS2.load", "entity": 1},
        {"attribute": "q", "pod": "SS2.load", "quantity": "q_kvar", "scale": 0.5},
    ]
    entry = foreign(count=2, model_params={"gain": 3.0}, params={"values": [7]}, links=links)
    finished = short_run(tmp_path / "run.h5", "duration=30min", entry)
    with open_results(finished.path) as results:
        assert list(results.frame("grid/pod/p_kw")["SS2.load"]) == [21.0, 21.0]
        assert list(results.frame("grid/pod/q_kvar")["SS2.load"]) == [10.5, 10.5]


def test_connect_to_a_simulator_that_runs_already(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, str(ODD), "--remote", address]) as simulator:
        wait_until(lambda: any(c.laddr.port == port for c in psutil.Process(simulator.pid).net_connections()))
        finished = short_run(tmp_path / "run.h5", foreign(start={"connect": address}))
        assert simulator.wait(10.0) == 0
    assert result_hash(finished.path) == result_hash(short_run(tmp_path / "again.h5", foreign()).path)


FAULTS = {
    "raise": "step() at simulated time 1800 s: ValueError: cannot go on",
    "past": "step() at simulated time 1800 s: 1800 is not a time of a next step [s]",
    "words": "step() at simulated time 1800 s: 'later' is not a time of a next step [s]",
    "missing": "get_data() at simulated time 1800 s: source0.p is None, not a finite number",
    "text": "get_data() at simulated time 1800 s: source0.p is 'much', not a finite number",
    "nan": "get_data() at simulated time 1800 s: source0.p is nan, not a finite number",
}
REMOTE_FAULTS = FAULTS | {
    "exit": "step() at simulated time 1800 s: its process is gone (exit code 7)",
    "hang": "step() at simulated time 1800 s: no answer within 1 s",
    "deaf": "step() at simulated time 1800 s: no answer within 1 s",
    "garbage": "step() at simulated time 1800 s: its answer cannot be read (JSONDecodeError: Expecting value: "
    "line 1 column 1 (char 0))",
}


@pytest.mark.parametrize(
    ("way", "fault"), [("python", fault) for fault in FAULTS] + [("cmd", fault) for fault in REMOTE_FAULTS]
)
def test_misbehaviour_ends_the_run_with_one_clear_message(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], way: str, fault: str
) -> None:
    out, began = tmp_path / "run.h5", time.monotonic()
    start = {"cmd": CMD} if way == "cmd" else PYTHON
    entry = foreign(start=start, params={"fault": fault, "at_s": 1800}, timeout_s=1.0)
    assert main(["run", str(SCENARIO), "--out", str(out), *settings(entry)]) == 1
    message = f"simulator odd failed in {REMOTE_FAULTS[fault]}"
    assert capfd.readouterr() == ("", f"cosim: {message}\n")
    assert time.monotonic() - began < 15.0
    with open_results(out) as results:
        assert (results.status, results.attributes["error"]) == ("failed", message)
        assert 1 <= len(results.time) <= 2


def test_killed_simulator_ends_the_run(tmp_path: Path) -> None:
    out = tmp_path / "run.h5"
    entry = foreign(start={"cmd": CMD}, params={"fault": "slow"})
    with start_cosim("run", SCENARIO, "--out", out, *settings(entry)) as runner:
        wait_until(lambda: out.exists() and orphans())
        orphans()[0].kill()
        _, err = runner.communicate(timeout=HUNG_S)
    assert runner.returncode == 1
    assert err.startswith("cosim: simulator odd failed in ")
    assert err.endswith("s: its process is gone (exit code -9)\n")
    assert err.count("\n") == 1


def test_killed_runner_leaves_no_process(tmp_path: Path) -> None:
    """Not even one that hangs and does not listen to SIGTERM."""
    out = tmp_path / "run.h5"
    entry = foreign(start={"cmd": CMD}, params={"fault": "deaf", "at_s": 1800})
    overrides = settings(entry, "remote=[grid]", "recorder.flush_steps=1")
    with start_cosim("run", SCENARIO, "--out", out, *overrides) as runner:
        wait_until(lambda: out.exists() and steps_in(out) > 0)
        time.sleep(1.0)
        children = psutil.Process(runner.pid).children(recursive=True)
        assert len(children) == 2
        runner.kill()
        runner.communicate(timeout=HUNG_S)
    assert runner.returncode == -9
    assert psutil.wait_procs(children, timeout=5.0)[1] == []


def steps_in(out: Path) -> int:
    """Steps recorded; 0 also where the run is just writing, to be read again."""
    try:
        with open_results(out) as results:
            return len(results.time)
    except ResultError:
        return 0


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("python", "cosim: simulator odd failed in init(): ValueError: cannot begin\n"),
        ("cmd", "cosim: simulator odd failed in init(): its process is gone (exit code 1)\n"),
    ],
)
def test_simulator_that_cannot_begin(tmp_path: Path, capfd: pytest.CaptureFixture[str], way: str, said: str) -> None:
    out = tmp_path / "run.h5"
    entry = foreign(start={"cmd": CMD} if way == "cmd" else PYTHON, params={"fault": "init"})
    assert main(["run", str(SCENARIO), "--out", str(out), *settings(entry)]) == 1
    assert capfd.readouterr().err.endswith(said)
    assert list(tmp_path.iterdir()) == []


def test_parameter_that_init_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(SimulatorError, match=r"simulator odd failed in init\(\): TypeError: .*'colour'"):
        short_run(tmp_path / "run.h5", foreign(params={"colour": 1}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ({"cmd": "no-such-program %(addr)s"}, "its process ended with exit code 1 before it connected"),
        ({"cmd": "%(python)s -c pass %(addr)s"}, "its process ended with exit code 0 before it connected"),
        ({"cmd": CMD, "cwd": "no/such/folder"}, "No such file or directory: 'no/such/folder'"),
        ({"connect": "127.0.0.1:9"}, "Could not connect to"),
    ],
    ids=str,
)
def test_start_that_leads_nowhere(tmp_path: Path, start: dict[str, str], said: str) -> None:
    began = time.monotonic()
    with pytest.raises(SimulatorError, match=r"^simulator odd could not be started: ") as told:
        short_run(tmp_path / "run.h5", foreign(start=start))
    assert said in str(told.value)
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - began < 15.0


@pytest.mark.parametrize("way", ["cmd", "connect"])
def test_simulator_that_does_not_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr("cosim.world.guard.CONNECT_S", 1.0)
    with socket.socket() as full:  # accepts no one: as a host behind a firewall, it does not even refuse
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        start = {"cmd": "sleep 61"} if way == "cmd" else {"connect": f"127.0.0.1:{address[1]}"}
        began = time.monotonic()
        with pytest.raises(SimulatorError, match=r"^simulator odd did not connect within 1 s$"):
            short_run(tmp_path / "run.h5", foreign(start=start))
        for one in waiting:
            one.close()
    assert time.monotonic() - began < 10.0
    assert not [p for p in psutil.Process().children(recursive=True) if _command(p)[:2] == ["sleep", "61"]]
    assert list(tmp_path.iterdir()) == []


WRONG = {
    "simulators.odd.start.python: does not lead to a simulator (ModuleNotFoundError": {
        "start": {"python": "no_such_module:Sim"}
    },
    "simulators.odd.start.python: does not lead to a simulator (AttributeError": {"start": {"python": "json:Sim"}},
    "simulators.odd.start.cmd: does not lead to a simulator (KeyError: 'address'": {"start": {"cmd": "x %(address)s"}},
    "simulators.odd.start.connect: does not lead to a simulator (ValueError": {"start": {"connect": "localhost"}},
    "simulators.odd.model: no such model; got Sauce; allowed: Source": {"model": "Sauce"},
    "simulators.odd.model_params.size: no such parameter of the model; got size; allowed: gain": {
        "model_params": {"size": 2}
    },
    "simulators.odd.links.0.attribute: no such attribute; got P; allowed: p, q": {
        "links": [{"attribute": "P", "pod": "SS2.load"}]
    },
    "simulators.odd.links.0.pod: no POD that a simulator can feed; got SS9; allowed: SS1.load": {
        "links": [{"attribute": "p", "pod": "SS9"}]
    },
    "simulators.odd.links.0.pod: no POD that a simulator can feed; got SS3.battery": {
        "links": [{"attribute": "p", "pod": "SS3.battery"}]
    },
    "simulators.odd.links.1.pod: p_kw comes from simulators.odd.links.0 already; got SS2.load": {
        "links": [*LINKS, {"attribute": "q", "pod": "SS2.load"}]
    },
    "simulators.odd.links.0.entity: no such entity; got 1; allowed: 0..0": {
        "links": [{"attribute": "p", "pod": "SS2.load", "entity": 1}]
    },
    "simulators.grid: cannot be the name of a simulator; got grid": {"name": "grid"},
    "simulators.timing: cannot be the name of a simulator; got timing": {"name": "timing"},
    "simulators.row: cannot be the name of a simulator; got row": {"name": "row"},
    "simulators.a b: cannot be the name of a simulator; got a b": {"name": "a b"},
}


@pytest.mark.parametrize("said", WRONG, ids=lambda said: said.partition(";")[0])
def test_wrong_names_are_told_before_anything_is_written(tmp_path: Path, said: str) -> None:
    with pytest.raises(ScenarioError) as told:
        short_run(tmp_path / "run.h5", foreign(**WRONG[said]))
    assert said in str(told.value)
    assert len(told.value.faults) == 1
    assert list(tmp_path.iterdir()) == []


def test_older_result_stays_when_a_simulator_does_not_start(tmp_path: Path) -> None:
    finished = short_run(tmp_path / "run.h5", "duration=15min")
    before = result_hash(finished.path)
    with pytest.raises(ScenarioError):
        short_run(finished.path, foreign(model="Sauce"))
    assert result_hash(finished.path) == before


def test_time_in_a_foreign_simulator_is_told_apart(tmp_path: Path) -> None:
    finished = short_run(tmp_path / "run.h5", "duration=30min", foreign(params={"fault": "slow"}))
    with open_results(finished.path) as results:
        seconds = results.timing()["odd"].to_numpy()
    assert seconds.sum() > 0.5
