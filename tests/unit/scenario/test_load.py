"""Scenario files: what is read, and how each mistake is answered."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from cosim.errors import Fault, ScenarioError
from cosim.scenario.load import LoadedScenario, load_scenario
from cosim.scenario.schema import FileProfiles, MqttTransport, Scenario, SimbenchProfiles

MINIMAL = """\
name: small
start: 2016-07-22T00:00:00+01:00
duration: 3d
feeder: mv5
"""


def write(folder: Path, text: str, name: str = "s.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, *overrides: str) -> LoadedScenario:
    return load_scenario(write(folder, MINIMAL + text), overrides)


def faults(folder: Path, text: str, *overrides: str) -> tuple[Fault, ...]:
    with pytest.raises(ScenarioError) as caught:
        load(folder, text, *overrides)
    return caught.value.faults


def only_fault(folder: Path, text: str, *overrides: str) -> Fault:
    found = faults(folder, text, *overrides)
    assert len(found) == 1, found
    return found[0]


def test_minimal_scenario_has_the_defaults(tmp_path: Path) -> None:
    scenario = load(tmp_path, "").scenario
    assert scenario.profiles == SimbenchProfiles()
    assert (scenario.step, scenario.duration) == (900, 259_200)
    assert scenario.clock.start == datetime(2016, 7, 21, 23, tzinfo=UTC)


def test_offset_of_the_start_survives(tmp_path: Path) -> None:
    scenario = load(tmp_path, "").scenario
    assert scenario.start.utcoffset() == timedelta(hours=1)
    assert scenario.local(datetime(2016, 7, 21, 23, tzinfo=UTC)).isoformat() == "2016-07-22T00:00:00+01:00"


def test_scalars_mean_what_they_say(tmp_path: Path) -> None:
    text = "grid: {tolerance_pu: 1e-9}\noperator: {discharge: {start: 17:30}}\ndescription: on\nseed: 007\n"
    scenario = load(tmp_path, text).scenario
    assert scenario.grid.tolerance_pu == 1e-9
    assert scenario.operator.discharge.start == time(17, 30)
    assert scenario.description == "on"
    assert scenario.seed == 7


def test_dumped_scenario_reads_back(tmp_path: Path) -> None:
    text = "transport: {mqtt: {tls: true}}\noperator: {thresholds_kw: {B1: -300}}\nsensors: {meters: [a, b]}\n"
    scenario = load(tmp_path, text).scenario
    assert isinstance(scenario.transport, MqttTransport)
    assert Scenario.model_validate(scenario.model_dump(mode="json")) == scenario


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    text = "sed: 3\nmtu: soon\ngrid:\n  max_iterations: 1\n  on_divergence: ignore\n"
    assert [(fault.line, fault.key) for fault in faults(tmp_path, text)] == [
        (5, "sed"),
        (6, "mtu"),
        (8, "grid.max_iterations"),
        (9, "grid.on_divergence"),
    ]


def test_misspelt_key(tmp_path: Path) -> None:
    fault = only_fault(tmp_path, "sensors:\n  tolerence_s: 5\n")
    assert str(fault) == (
        f"{tmp_path / 's.yaml'}:6: sensors.tolerence_s: unknown key; did you mean tolerance_s?; got 5; "
        "allowed: meters, extra, faults, tolerance_s, replay"
    )


def test_number_with_a_unit(tmp_path: Path) -> None:
    fault = only_fault(tmp_path, "operator:\n  discharge:\n    power_kw: 100 kW\n")
    assert (fault.line, fault.key, fault.value) == (7, "operator.discharge.power_kw", '"100 kW"')
    assert fault.problem == "a number is expected"
    assert fault.allowed == "number, at least 0: power of each unit [kW]"


@pytest.mark.parametrize(
    ("text", "key", "problem", "value", "allowed"),
    [
        ("seed: true", "seed", "a whole number is expected", "true", "whole number, at least 0"),
        ("seed: 1.5", "seed", "a whole number is expected", "1.5", "whole number, at least 0"),
        ("seed:", "seed", "no value is given", "", "whole number, at least 0"),
        ("tolerance_s: .nan", "tolerance_s", "unknown key", "NaN", "name, description, start"),
        ("sensors: {tolerance_s: .inf}", "sensors.tolerance_s", "a finite number is expected", "Infinity", "number"),
        ("sensors: {tolerance_s: -1}", "sensors.tolerance_s", "out of range", "-1", "at least 0"),
        ("sensors: [a]", "sensors", "a mapping is expected", "a list", "mapping with meters, extra"),
        ("sensors: {meters: some}", "sensors.meters", "not one of the choices", '"some"', "list of text or all"),
        (
            "sensors: {faults: {default: {dropout: 2}}}",
            "sensors.faults.default.dropout",
            "out of range",
            "2",
            "at most 1",
        ),
        ("step: 15", "step", "not a duration", "15", ""),
        ("step: 15 minutes", "step", "not a duration", '"15 minutes"', ""),
        ("operator: {discharge: {end: 6}}", "operator.discharge.end", "expected the form 18:00", "6", ""),
        ("operator: {sizing: {day: 20160723}}", "operator.sizing.day", "expected the form 2016-07-23", "20160723", ""),
        (
            "operator: {sizing: {limit_kw: '5'}}",
            "operator.sizing.limit_kw",
            "a number is expected",
            '"5"',
            "number: head",
        ),
        ("operator: {thresholds_kw: never}", "operator.thresholds_kw", "not one of the choices", '"never"', "or auto"),
        ("operator: {thresholds_kw: {B: x}}", "operator.thresholds_kw.B", "a number is expected", '"x"', "[kW]"),
        ("transport: mqtt", "transport", "not one of the choices", '"mqtt"', "or embedded or memory"),
        ("transport: {mqtt: {tls: yes}}", "transport.mqtt.tls", "true or false is expected", '"yes"', "true or false"),
        ("transport: {mqtt: {qos: 2}}", "transport.mqtt.qos", "not one of the choices", "2", "0 or 1"),
        ("profiles: {file: a.csv}", "profiles.timezone", "required key is missing", "", "text: zone of time stamps"),
        ("profiles: {file: a.csv, timezone: Europe/Roma}", "profiles.timezone", "did you mean Europe/Rome", "", ""),
        ("remote: estimator", "remote", "a list is expected", '"estimator"', "list of text"),
        ("remote: [1]", "remote.0", "text is expected; put it in quotes", "1", "text"),
        ("estimator: {compare: [ga]}", "estimator.compare.0", "not one of the choices", '"ga"', "genetic or"),
        ("estimator: {genetic: {parents: 60}}", "estimator.genetic", "parents 60 exceed population 50", "", ""),
        ("mtu: 20min", "mtu", "mtu (20min) must be a whole number of steps (15min)", "", ""),
        (
            "recorder: {checkpoint: 100min}",
            "recorder.checkpoint",
            "recorder.checkpoint (100min) must be a whole number of mtus (15min)",
            "",
            "",
        ),
    ],
)
def test_fault_names_key_value_and_what_is_allowed(
    tmp_path: Path, text: str, key: str, problem: str, value: str, allowed: str
) -> None:
    fault = only_fault(tmp_path, text + "\n")
    assert (fault.file, fault.line, fault.key) == (str(tmp_path / "s.yaml"), 5, key)
    assert problem in fault.problem
    assert value in fault.value
    assert allowed in fault.allowed


@pytest.mark.parametrize("start", ["2016", "'2016'", "2016-07-22", "22.07.2016 00:00"])
def test_start_that_is_no_time(tmp_path: Path, start: str) -> None:
    path = write(tmp_path, MINIMAL.replace("2016-07-22T00:00:00+01:00", start))
    with pytest.raises(ScenarioError, match=r"s\.yaml:2: start: expected the form 2016-07-22T00:00:00\+01:00"):
        load_scenario(path)


def test_start_without_offset(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL.replace("+01:00", ""))
    with pytest.raises(ScenarioError, match="start: the offset from UTC is missing"):
        load_scenario(path)


def test_missing_key_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL.replace("feeder: mv5\n", ""))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert caught.value.faults == (
        Fault(
            "required key is missing", str(path), None, "feeder",
            allowed="text: folder in dss_models/, or a path to a feeder folder",
        ),
    )  # fmt: skip


def test_key_given_twice_and_other_faults(tmp_path: Path) -> None:
    found = faults(tmp_path, "seed: 1\ngrid: {tolerance_pu: 1, tolerance_pu: 2}\nseed: 2\nsed: 1\n")
    assert [(fault.line, fault.key, fault.problem.split(";")[0]) for fault in found] == [
        (6, "grid.tolerance_pu", "the key is given twice, first given in line 6"),
        (7, "seed", "the key is given twice, first given in line 5"),
        (8, "sed", "unknown key"),
    ]


def test_unknown_way_to_start_a_simulator(tmp_path: Path) -> None:
    text = "simulators:\n  pv:\n    start: {pyton: x}\n    model: PV\n    links: [{attribute: P, pod: A}]\n"
    fault = only_fault(tmp_path, text)
    assert (fault.line, fault.key) == (7, "simulators.pv.start.pyton")
    assert fault.problem == "unknown key; did you mean python?"
    assert fault.allowed == "python, cmd, connect, cwd"


def test_two_ways_to_start_a_simulator(tmp_path: Path) -> None:
    text = "simulators: {pv: {start: {python: x, cmd: y}, model: PV, links: [{attribute: P, pod: A}]}}\n"
    assert only_fault(tmp_path, text).problem == "start takes exactly one of python, cmd, connect; here: cmd, python"


def test_meter_that_contradicts_itself(tmp_path: Path) -> None:
    text = "sensors: {extra: {m: {type: sub, number: 1, bus: A, quantities: [e_kwh], full_scale: {e_kwh: 9}}}}\n"
    fault = only_fault(tmp_path, text)
    assert (fault.key, fault.line) == ("sensors.extra.m", 5)
    assert "a bus meter measures" in fault.problem


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ("", None, "the file is empty"),
        ("# nothing\n", None, "the file is empty"),
        ("- a\n", None, "a mapping of keys to values is expected"),
        ("a: 1\nb: [\nc: d: e\n", 3, "not YAML"),
        ("a: 1\nb: 'x\n", 3, "not YAML: found unexpected end of stream"),
        ("a: 1\n---\nb: 1\n", 2, "not YAML"),
        ("a: 1\nb: \x07\n", 2, "not YAML: special characters are not allowed"),
    ],
)
def test_file_that_is_no_mapping(tmp_path: Path, content: str, line: int | None, problem: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    (fault,) = caught.value.faults
    assert (fault.file, fault.line) == (str(path), line)
    assert problem in fault.problem


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(ScenarioError, match=r"not UTF-8 text \(byte 6\)"):
        load_scenario(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ("description: !!python/name:os.system ''\n", "description", "is not understood"),
        ("description: !secret x\n", "description", "tag !secret is not understood"),
        ("seed: !!int many\n", "seed", "not a value of"),
        ("? [a, b]\n: 1\n", "", "a key must be plain text"),
        ("simulators: &all {a: *all}\n", "simulators.a", "a value cannot contain itself"),
    ],
)
def test_yaml_beyond_plain_values(tmp_path: Path, text: str, key: str, problem: str) -> None:
    first = faults(tmp_path, text)[0]
    assert (first.line, first.key) == (5, key)
    assert problem in first.problem


def test_missing_file_names_those_that_are_there(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL, "winter.yaml")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(tmp_path / "wintr.yaml")
    (fault,) = caught.value.faults
    assert fault.problem == "cannot be read: No such file or directory; did you mean winter.yaml?"
    assert fault.allowed == "winter.yaml"


def test_extends_merges_mappings_and_replaces_lists(tmp_path: Path) -> None:
    write(
        tmp_path, MINIMAL + "remote: [grid, sensors]\noperator: {action: same, discharge: {power_kw: 50}}\n", "a.yaml"
    )
    write(tmp_path, "extends: a.yaml\nseed: 7\noperator: {discharge: {start: 20:00}}\n", "b.yaml")
    path = write(tmp_path, "extends: b.yaml\nname: c\nremote: [estimator]\n", "c.yaml")
    scenario = load_scenario(path).scenario
    assert (scenario.name, scenario.seed, scenario.feeder, scenario.remote) == ("c", 7, "mv5", ("estimator",))
    assert scenario.operator.action == "same"
    assert (scenario.operator.discharge.power_kw, scenario.operator.discharge.start) == (50.0, time(20))


def test_fault_in_an_extended_file_is_located_there(tmp_path: Path) -> None:
    base = write(tmp_path, MINIMAL + "operator:\n  action: late\n", "base/a.yaml")
    path = write(tmp_path, "extends: base/a.yaml\noperator: {discharge: {power_kw: -1}}\n", "b.yaml")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    located = {(fault.file, fault.line, fault.key) for fault in caught.value.faults}
    assert located == {(str(base), 6, "operator.action"), (str(path), 2, "operator.discharge.power_kw")}


def test_null_takes_an_inherited_key_out(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL + "profiles: {simbench: x}\n", "a.yaml")
    both = write(tmp_path, "extends: a.yaml\nprofiles: {file: p.csv, timezone: UTC}\n", "b.yaml")
    with pytest.raises(ScenarioError, match=r"b\.yaml:2: profiles: profiles come from `simbench` or from `file`"):
        load_scenario(both)
    one = write(tmp_path, "extends: a.yaml\nprofiles: {simbench: null, file: p.csv, timezone: UTC}\n", "c.yaml")
    assert load_scenario(one).scenario.profiles == FileProfiles(file=Path("p.csv"), timezone="UTC")
    none = write(tmp_path, MINIMAL + "profiles: {simbench: null, file: p.csv, timezone: UTC}\n", "d.yaml")
    assert load_scenario(none).scenario.profiles == FileProfiles(file=Path("p.csv"), timezone="UTC")


def test_extending_in_a_circle(tmp_path: Path) -> None:
    write(tmp_path, "name: b\nextends: a.yaml\n", "b.yaml")
    path = write(tmp_path, "extends: b.yaml\n", "a.yaml")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert caught.value.faults == (
        Fault(
            "the files extend each other in a circle",
            str(tmp_path / "b.yaml"),
            2,
            "extends",
            "a.yaml -> b.yaml -> a.yaml",
        ),
    )


@pytest.mark.parametrize(("extends", "problem"), [("x.yaml", "cannot be read"), ("[a]", "the path of one YAML file")])
def test_extending_what_cannot_be_read(tmp_path: Path, extends: str, problem: str) -> None:
    path = write(tmp_path, f"name: a\nextends: {extends}\n")
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    (fault,) = caught.value.faults
    assert (fault.file, fault.line, fault.key) == (str(path), 2, "extends")
    assert problem in fault.problem


def test_overrides_win_over_files(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "seed: 1\ntransport: memory\noperator: {action: same, discharge: {power_kw: 5}}\n",
        "seed=9",
        "transport.mqtt.port=1884",
        "remote=[grid]",
        "operator.action=null",
    )
    scenario = loaded.scenario
    assert (scenario.seed, scenario.remote, scenario.operator.action) == (9, ("grid",), "next")
    assert isinstance(scenario.transport, MqttTransport)
    assert scenario.transport.mqtt.port == 1884
    assert scenario.operator.discharge.power_kw == 5.0


def test_faults_of_overrides_are_located_at_them(tmp_path: Path) -> None:
    found = faults(tmp_path, "sed: 1\n", "sed", "grid.tol=3", "seed=x", "remote=[", ".a=1")
    assert [(fault.file.removeprefix(str(tmp_path)), fault.key) for fault in found] == [
        ("--set sed", ""),
        ("--set remote=[", ""),
        ("--set .a=1", ""),
        ("--set grid.tol=3", "grid.tol"),
        ("--set seed=x", "seed"),
        ("/s.yaml", "sed"),
    ]
    assert str(found[4]).startswith("--set seed=x: seed: a whole number is expected")


def test_override_that_extends_keeps_other_keys_located_in_the_file(tmp_path: Path) -> None:
    loaded = load(tmp_path, "operator:\n  action: same\n", "operator.enabled=false")
    assert loaded.fault("operator", "bad").line == 5
    assert loaded.fault("operator.enabled", "bad").file == "--set operator.enabled=false"


def test_later_checks_find_the_nearest_written_key(tmp_path: Path) -> None:
    loaded = load(tmp_path, "sensors:\n  extra:\n    m:\n      {type: sub, number: 1, bus: Z, quantities: [p_kw], "
                            "full_scale: {p_kw: 9}}\n")  # fmt: skip
    fault = loaded.fault("sensors.extra.m.bus", "no such bus", "Z", "MV0, MV1")
    assert str(fault) == f"{tmp_path / 's.yaml'}:8: sensors.extra.m.bus: no such bus; got Z; allowed: MV0, MV1"
    assert loaded.fault("sensors.extra.m.nothing.here", "bad").line == 7
    assert loaded.fault("seed", "bad").line is None


def test_paths_are_relative_to_the_file_they_are_written_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, MINIMAL + "profiles: {file: p.csv, timezone: UTC}\n", "base/a.yaml")
    path = write(tmp_path, "extends: ../base/a.yaml\nfeeder: ../feeders/x\n", "own/b.yaml")
    loaded = load_scenario(path)
    assert loaded.directory == tmp_path / "own"
    assert isinstance(loaded.scenario.profiles, FileProfiles)
    assert str(loaded.scenario.profiles.file) == "p.csv"
    assert loaded.resolve("profiles.file", loaded.scenario.profiles.file) == tmp_path / "base/p.csv"
    assert loaded.resolve("feeder", loaded.scenario.feeder) == tmp_path / "feeders/x"
    overridden = load_scenario(path, ["feeder=y"])
    assert overridden.resolve("feeder", overridden.scenario.feeder) == tmp_path / "y"


def test_scenario_from_no_file(tmp_path: Path) -> None:
    scenario = load(tmp_path, "").scenario
    loaded = LoadedScenario.of(scenario, tmp_path)
    assert loaded.resolve("profiles.file", "p.csv") == tmp_path / "p.csv"
    assert str(loaded.fault("seed", "bad")) == "seed: bad"


@pytest.mark.parametrize(
    ("written", "segment_steps"),
    [("1d", 96), ("6h", 24), ("false", 288), ("30d", 288)],
)
def test_segments_between_checkpoints(tmp_path: Path, written: str, segment_steps: int) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        f"name: x\nstart: 2016-07-21T00:00:00+00:00\nduration: 3d\nfeeder: mv5\nrecorder: {{checkpoint: {written}}}\n"
    )
    scenario = load_scenario(file).scenario
    assert scenario.segment_steps == segment_steps
    dumped = scenario.model_dump(mode="json")
    assert dumped["recorder"]["checkpoint"] == (False if written == "false" else written)
    assert Scenario.model_validate(dumped) == scenario
