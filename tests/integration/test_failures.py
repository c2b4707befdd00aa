"""What a user may get wrong and what may break: one clear message, the exit code, no traceback, a readable file."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trustme
from mosquitto_server import NEEDS_MOSQUITTO, Mosquitto
from short_runs import HUNG_S, REPOSITORY, SCENARIO, settings, short_run, start_cosim

from cosim import open_results
from cosim.cli import main
from cosim.errors import ResultError, SilentSensorError
from cosim.io.transport import _MemoryTransport

MV5 = REPOSITORY / "dss_models" / "mv5"
LONG = "duration=3d"
Said = Callable[..., list[str]]


@pytest.fixture
def said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Said:
    """Runs the main scenario with overrides; checks the exit code, and that nothing is printed but lines of one
    message, which it returns; and that no result is left where there was none."""

    def run(code: int, *overrides: str, leaves_a_file: bool = False) -> list[str]:
        out = tmp_path / "results" / "run.h5"
        assert main(["run", str(SCENARIO), "--out", str(out), *settings(*overrides)]) == code
        printed, message = capfd.readouterr()
        assert printed == ""
        assert "Traceback" not in message
        assert message.startswith("cosim: ")
        assert out.exists() == leaves_a_file
        return message.removeprefix("cosim: ").splitlines()

    return run


@pytest.fixture
def scenario_file(tmp_path: Path) -> Callable[..., Path]:
    """A copy of the main scenario with a text replaced."""

    def write(old: str, new: str) -> Path:
        text = SCENARIO.read_text()
        assert old in text
        file = tmp_path / "wrong.yaml"
        file.write_text(text.replace(old, new))
        return file

    return write


def test_misspelt_key_and_wrong_unit_are_told_together_with_their_lines(
    scenario_file: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    file = scenario_file("tolerance_s: 5", "tolerence_s: 5")
    file.write_text(file.read_text().replace("duration: 3d", "duration: 3 days").replace("seed: 1", "seed: one"))
    assert main(["run", str(file)]) == 2
    printed, message = capfd.readouterr()
    first, *faults = message.splitlines()
    assert (printed, first) == ("", "cosim: 3 faults in the input")
    assert any("wrong.yaml:7: duration: " in fault and "3 days" in fault for fault in faults)
    assert any("wrong.yaml:10: seed: " in fault and "one" in fault for fault in faults)
    assert any("wrong.yaml:17: sensors.tolerence_s: " in fault and "tolerance_s" in fault for fault in faults)


def test_scenario_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "no/such.yaml"]) == 2
    assert "no/such.yaml" in capfd.readouterr().err


def test_unknown_feeder(said: Said) -> None:
    (_, fault) = said(2, "feeder=mv6")
    assert "feeder: " in fault
    assert "got mv6" in fault
    assert "mv5" in fault.partition("allowed: ")[2]


def test_unknown_bus_branch_and_storage_of_sensors(said: Said) -> None:
    meter = "type: x, quantities: [p_kw], full_scale: {p_kw: 1}"
    extra = (
        f"A: {{{meter}, number: 1, bus: LV9}}, B: {{{meter}, number: 2, branch: Line.L01, end: LV1}}, "
        f"C: {{{meter}, number: 3, storage: SS1.load}}"
    )
    count, *faults = said(2, f"sensors.extra={{{extra}}}")
    assert count == "3 faults in the input"
    assert "sensors.extra.A.bus: no such bus; got LV9; allowed: " in faults[0]
    assert "LV5" in faults[0]
    assert "sensors.extra.B.branch: no such end of a branch; got Line.L01@LV1" in faults[1]
    assert "sensors.extra.C.storage: no such storage POD; got SS1.load; allowed: SS3.battery" in faults[2]


def test_duplicate_and_unknown_sensors(said: Said) -> None:
    meter = "{type: sub, number: 1, bus: LV2, quantities: [p_kw], full_scale: {p_kw: 1}}"
    faults = said(2, f"sensors.extra={{TWIN: {meter}}}")
    assert any("sub/1" in fault and "TWIN" in fault for fault in faults)
    (_, fault) = said(2, "sensors.meters=[HEAD, SS7]")
    assert "SS7" in fault
    assert "HEAD" in fault.partition("allowed: ")[2]


def test_unknown_remote_names(said: Said) -> None:
    count, *faults = said(2, "remote=[recorder, estimater, gateway]")
    assert count == "3 faults in the input"
    assert "remote.0: no simulator of this name; got recorder; allowed: profiles, grid" in faults[0]
    assert "remote.1: no simulator of this name; got estimater" in faults[1]
    assert "remote.2: the memory transport stays in one process; got gateway; allowed: embedded, mqtt" in faults[2]


def test_remote_names_of_simulators_that_the_scenario_does_not_have(said: Said) -> None:
    count, *faults = said(2, "remote=[market, imo, grid]")
    assert count == "2 faults in the input"
    there = "profiles, grid, counterfactual, sensors, gateway, estimator, operator"
    for k, name in enumerate(["market", "imo"]):
        assert faults[k].endswith(f"remote.{k}: no simulator of this name; got {name}; allowed: {there}")
    faults = said(2, "remote=[tso]", "coordination={scheme: none_such}")
    assert any("coordination.scheme: " in fault for fault in faults)
    assert not any("remote" in fault for fault in faults), "nobody knows whether such a scheme has a TSO"


def test_operator_of_storage_that_is_not_there(said: Said) -> None:
    faults = said(2, "operator.thresholds_kw={SS4.battery: -1}", "operator.initial_energy_kwh={SS3.battery: 501}")
    assert "operator.thresholds_kw.SS4.battery: no such storage POD; got SS4.battery" in faults[1]
    assert "operator.initial_energy_kwh.SS3.battery: more than it can hold [kWh]; got 501" in faults[2]


@pytest.fixture
def broken_mv5(tmp_path: Path) -> Callable[..., str]:
    """A copy of mv5 with a text of a file replaced; gives the override that uses it."""

    def copy(file: str, old: str, new: str) -> str:
        folder = tmp_path / "broken"
        shutil.copytree(MV5, folder)
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))
        return f"feeder={folder}"

    return copy


def test_broken_dss_line(said: Said, broken_mv5: Callable[..., str]) -> None:
    message = " ".join(said(2, broken_mv5("Lines.dss", "New Line.L23 bus1=MV2", "New Lime.L23 bus1=MV2")))
    assert "broken/Lines.dss:8: OpenDSS refuses the circuit: " in message
    assert '"Lime" not found' in message


def test_pod_without_its_element(said: Said, broken_mv5: Callable[..., str]) -> None:
    message = " ".join(said(2, broken_mv5("feeder.yaml", "element: Load.SS4", "element: Load.SS9")))
    assert "feeder.yaml" in message
    assert "Load.SS9" in message or "load.ss9" in message


COLUMNS = ("lv_urban6_pload", "lv_semiurb4_pload", "G3-M_pload", "lv_rural2_pload", "PV4", "PV5", "PV1", "PV3", "PV8")


def profile_file(folder: Path, hours: list[int]) -> str:
    """An override: hourly profiles from 23 July 00:00 UTC, of the hours given."""
    rows = [f"2016-07-23T{hour:02d}:00:00+00:00," + ",".join(["0.5"] * len(COLUMNS)) for hour in hours]
    file = folder / "profiles.csv"
    file.write_text("\n".join([",".join(("time", *COLUMNS)), *rows]) + "\n")
    return f"profiles={{simbench: null, file: {file}, timezone: UTC}}"


def test_profile_with_a_gap(said: Said, tmp_path: Path) -> None:
    message = " ".join(said(2, profile_file(tmp_path, [*range(10), 11, 12, 13])))
    assert "profiles.csv" in message
    assert "2016-07-23" in message
    assert "11:00" in message


def test_profile_that_is_too_short(said: Said, tmp_path: Path) -> None:
    message = " ".join(said(2, profile_file(tmp_path, list(range(10)))))
    assert "do not cover the horizon 2016-07-23T09:00:00Z to 2016-07-23T11:00:00Z" in message
    assert "2016-07-23T10:00:00Z" in message


def test_history_that_is_too_short(said: Said, tmp_path: Path) -> None:
    message = " ".join(said(2, profile_file(tmp_path, list(range(14)))))
    assert "history" in message


def test_profile_column_that_is_not_there(said: Said, tmp_path: Path) -> None:
    override = profile_file(tmp_path, list(range(14)))
    file = tmp_path / "profiles.csv"
    file.write_text(file.read_text().replace("PV8", "PV9"))
    message = " ".join(said(2, override))
    assert "PV8" in message
    assert "PV9" in message


def mqtt(port: int, *more: str) -> str:
    return f"transport={{mqtt: {{{', '.join((f'port: {port}', 'reconnect_s: 1', *more))}}}}}"


@pytest.mark.parametrize("remote", [[], ["remote=[gateway]"]], ids=["local", "remote"])
def test_broker_that_refuses(said: Said, remote: list[str]) -> None:
    began = time.monotonic()
    (message,) = said(1, mqtt(9), *remote)
    assert "127.0.0.1:9" in message
    assert "refused" in message
    assert time.monotonic() - began < 20.0


class TestMosquitto:
    pytestmark = NEEDS_MOSQUITTO

    def test_tls_failure(self, said: Said, tmp_path: Path) -> None:
        certificate, other = trustme.CA().issue_cert("127.0.0.1"), tmp_path / "other.pem"
        key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
        certificate.private_key_pem.write_to_path(key)
        certificate.cert_chain_pems[0].write_to_path(chain)
        trustme.CA().cert_pem.write_to_path(other)
        with Mosquitto(tmp_path, ["allow_anonymous true", f"keyfile {key}", f"certfile {chain}"]) as broker:
            (message,) = said(1, mqtt(broker.port, "tls: true", f"ca_file: {other}"))
            assert f"127.0.0.1:{broker.port}: TLS verification failed" in message
            assert main(["run", str(SCENARIO), *settings(mqtt(broker.port, "ca_file: /no/such.pem", "tls: true"))]) in (
                1,
                2,
            )

    def test_password_that_the_environment_does_not_hold(self, said: Said, tmp_path: Path) -> None:
        with Mosquitto(tmp_path) as broker:
            message = " ".join(said(2, mqtt(broker.port, "username_env: NO_SUCH_VARIABLE")))
        assert "NO_SUCH_VARIABLE" in message

    @pytest.mark.parametrize("remote", ["remote=[]", "remote=[gateway]"])
    def test_broker_killed_in_the_middle(self, tmp_path: Path, remote: str) -> None:
        out = tmp_path / "run.h5"
        with Mosquitto(tmp_path) as broker:
            slow = "estimator={method: genetic, compare: [genetic_prior]}"
            overrides = settings(LONG, mqtt(broker.port), "recorder.flush_steps=2", remote, slow)
            with start_cosim("run", SCENARIO, "--no-report", "--out", out, *overrides) as runner:
                wait_for_steps(runner, out, 4)
                broker.kill()
                began = time.monotonic()
                printed, err = runner.communicate(timeout=HUNG_S)
        assert time.monotonic() - began < 20.0
        assert (runner.returncode, printed) == (1, "")
        assert err.count("\n") == 1
        assert f"127.0.0.1:{broker.port}: lost, and not back within 1 s" in err
        check_readable(out, "failed")


def wait_for_steps(runner: subprocess.Popen[str], out: Path, steps: int) -> None:
    """Until so many steps can be read from a file that is being written."""
    deadline = time.monotonic() + 120.0
    while time.monotonic() < deadline:
        assert runner.poll() is None, runner.communicate()
        # A read in the middle of a flush may meet a half-changed file: then it says so, and is repeated.
        with contextlib.suppress(ResultError), open_results(out) as results:
            if len(results.time) >= steps:
                return
        time.sleep(0.05)
    pytest.fail("the run does not get on")


def check_readable(out: Path, status: str, flushed: int = 1) -> int:
    """Everything recorded is there, for a whole number of ``flushed`` steps; returns how many."""
    with open_results(out) as results:
        steps = len(results.time)
        assert results.status == status
        assert steps >= 4
        assert steps % flushed == 0
        for signal in ("grid/bus/vm_pu", "estimator/head/p_kw", "operator/order/p_kw"):
            assert results.frame(signal).shape[0] == steps
            assert not results.frame(signal).isna().any(axis=None)
        assert json.loads(results.attributes["scenario"])["name"] == "mv5_threshold"
    return steps


@pytest.mark.parametrize(
    ("number", "remote"),
    [(signal.SIGINT, "remote=[]"), (signal.SIGINT, "remote=[estimator]"), (signal.SIGTERM, "remote=[]")],
    ids=str,
)
def test_interrupted_run_closes_its_file(tmp_path: Path, number: signal.Signals, remote: str) -> None:
    """As a terminal does it: Ctrl-C goes to all processes of the group."""
    out = tmp_path / "run.h5"
    overrides = settings(LONG, "recorder.flush_steps=2", remote)
    with start_cosim("run", SCENARIO, "--no-report", "--out", out, *overrides, start_new_session=True) as runner:
        wait_for_steps(runner, out, 4)
        if number == signal.SIGINT:
            subprocess.run(["kill", "-INT", "--", f"-{runner.pid}"], check=True)
        else:
            runner.terminate()
        printed, err = runner.communicate(timeout=HUNG_S)
    assert (runner.returncode, printed) == (130, "")
    steps = check_readable(out, "interrupted")
    assert err.startswith(f"cosim: interrupted after step {steps - 1} (2016-07-")
    assert err.count("\n") == 1


def test_second_interrupt_is_immediate(tmp_path: Path) -> None:
    out = tmp_path / "run.h5"
    odd = (
        "simulators={odd: {start: {python: 'foreign.odd:Odd'}, params: {fault: hang, at_s: 9000}, model: Source, "
        "links: [{attribute: p, pod: SS2.load}]}}"
    )
    overrides = settings(LONG, "recorder={flush_steps: 2, checkpoint: false}", odd)
    with start_cosim("run", SCENARIO, "--no-report", "--out", out, *overrides) as runner:
        wait_for_steps(runner, out, 8)
        time.sleep(1.0)
        for _ in range(2):
            runner.send_signal(signal.SIGINT)
            time.sleep(0.3)
        printed, err = runner.communicate(timeout=HUNG_S)
    assert (runner.returncode, printed, err) == (130, "", "cosim: interrupted\n")
    check_readable(out, "interrupted")


def test_killed_run_leaves_a_readable_file(tmp_path: Path) -> None:
    out = tmp_path / "run.h5"
    overrides = settings(LONG, "recorder.flush_steps=4")
    with start_cosim("run", SCENARIO, "--no-report", "--out", out, *overrides) as runner:
        wait_for_steps(runner, out, 8)
        runner.kill()
        runner.communicate(timeout=HUNG_S)
    assert runner.returncode == -9
    check_readable(out, "running", flushed=4)


def test_disk_full_while_recording(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the same error from the same calls."""
    out = tmp_path / "run.h5"
    overrides = settings(LONG, "recorder={flush_steps: 16, compression: none}")
    command = ["run", SCENARIO, "--no-report", "--out", out, *overrides]
    with start_cosim(*command, preexec_fn=_limit_file_size) as runner:
        printed, err = runner.communicate(timeout=HUNG_S)
    assert (runner.returncode, printed) == (1, "")
    assert err.startswith(f"cosim: {out}: cannot write results: File too large; the file is complete up to 2016-07-")
    assert err.count("\n") == 1
    steps = check_readable(out, "failed", flushed=16)
    assert f"({steps} of 288 steps)" in err


def _limit_file_size() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))


def test_result_that_another_program_left(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    precious = tmp_path / "precious.h5"
    precious.write_text("my thesis")
    assert main(["run", str(SCENARIO), "--out", str(precious), *settings()]) == 1
    assert "is not a result file of cosim; it is left as it is" in capfd.readouterr().err
    assert precious.read_text() == "my thesis"


@pytest.mark.parametrize("lost", ["sub/4/p_kw", "end"])
def test_silent_sensor_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    publish = _MemoryTransport.publish

    def losing(self: _MemoryTransport, topic: str, payload: bytes) -> None:
        if topic != lost or json.loads(payload)["step"] != 3:
            publish(self, topic, payload)

    monkeypatch.setattr(_MemoryTransport, "publish", losing)
    out = tmp_path / "run.h5"
    missing = "end marker" if lost == "end" else "announced message of sub/4/p_kw"
    faultless = ("sensors.faults=null", "message_timeout_s=0.5")
    with pytest.raises(
        SilentSensorError,
        match=rf"step 3 \(2016-07-23T09:45:00\+00:00, 2700 s after start\): no {missing} within 0.5 s",
    ) as told:
        short_run(out, *faultless)
    with open_results(out) as results:
        assert (results.status, results.attributes["error"]) == ("failed", str(told.value))
        assert len(results.time) == 3


def test_stalled_step_says_who_waits_for_whom(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    slow = (
        "simulators={odd: {start: {python: 'foreign.odd:Odd'}, params: {fault: slow, at_s: 1800}, model: Source, "
        "links: [{attribute: p, pod: SS2.load}]}}"
    )
    short_run(tmp_path / "run.h5", "duration=45min", "stall_s=0.15", slow)
    told = [message for message in caplog.messages if "odd is in step() at simulated time 1800 s" in message]
    assert len(told) == 1
    assert "(waiting for it: grid, counterfactual, sensors, " in told[0]


def test_stalled_beginning_says_who_does_not_begin(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    late = (
        "simulators={odd: {start: {python: 'foreign.odd:Odd'}, params: {fault: late}, model: Source, "
        "links: [{attribute: p, pod: SS2.load}]}}"
    )
    short_run(tmp_path / "run.h5", "duration=15min", "stall_s=0.15", late)
    assert [message for message in caplog.messages if "odd is in init() since 0 s (waiting for it: grid, " in message]


def test_fault_of_the_run_does_not_spoil_the_last_whole_step(tmp_path: Path) -> None:
    whole = short_run(tmp_path / "whole.h5")
    absurd = (
        "simulators={absurd: {start: {python: 'foreign.odd:Odd'}, params: {fault: raise, at_s: 4500, "
        "values: [100.0]}, model: Source, links: [{attribute: p, pod: SS4.load}]}}"
    )
    with pytest.raises(Exception, match="cannot go on"):
        short_run(tmp_path / "cut.h5", absurd)
    with open_results(whole.path) as expected, open_results(tmp_path / "cut.h5") as found:
        steps = len(found.time)
        assert 4 <= steps <= 5
        assert np.array_equal(
            found.frame("profiles/pod/p_kw").to_numpy(), expected.frame("profiles/pod/p_kw").to_numpy()[:steps]
        )
