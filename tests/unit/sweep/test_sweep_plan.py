"""The runs that a study means: laws of the draws, faults with their lines, keys and merging."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cosim.errors import ScenarioError
from cosim.scenario.document import Document, Origin
from cosim.scenario.study import Draw, Vary, load_study, placed, value_at
from cosim.sweep.plan import Plan, axes, latin_axis, plan, random_axis, seed_of_run

SCENARIO = """\
name: base
start: 2016-07-22T00:00:00+01:00
duration: 1d
feeder: mv5
limits: {derated: {Transformer.T4: 0.4}}
sensors:
  faults:
    default: {dropout: 0.01, quantum: 0.05}
"""
seeds = st.integers(0, 2**40)
sizes = st.integers(1, 12)


def planned(folder: Path, text: str, until: str | None = None) -> Plan:
    (folder / "base.yaml").write_text(SCENARIO)
    (folder / "study.yaml").write_text("scenario: base.yaml\n" + text)
    return plan(load_study(folder / "study.yaml"), until)


def faults(folder: Path, text: str, until: str | None = None) -> list[str]:
    with pytest.raises(ScenarioError) as told:
        planned(folder, text, until)
    return [str(fault).removeprefix(f"{folder}/") for fault in told.value.faults]


def varied(axis: Any, key: str) -> list[Any]:
    return [setting.value for point in axis for setting in point if setting.key == key]


@given(seed=seeds, n=sizes, more=sizes)
def test_more_draws_and_other_fields_change_no_draw(seed: int, n: int, more: int) -> None:
    fields = {"a": Draw(uniform=(0.0, 1.0)), "b": Draw(normal=(5.0, 2.0)), "c": Draw(choice=("x", "y", "z"))}
    few = random_axis(fields, n, seed)
    many = random_axis({"d": Draw(integers=(1, 3)), **fields}, n + more, seed)
    for key in fields:
        assert varied(many, key)[:n] == varied(few, key)
    assert len(many) == n + more
    assert all(0.0 <= value < 1.0 for value in varied(many, "a"))
    assert set(varied(many, "c")) <= {"x", "y", "z"}
    assert set(varied(many, "d")) <= {1, 2, 3}
    assert [seed_of_run(seed, k) for k in range(n)] == [seed_of_run(seed, k) for k in range(n + more)][:n]


@given(seed=seeds, n=st.integers(1, 60), low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6))
def test_latin_hypercube_has_one_value_in_each_part(seed: int, n: int, low: float, width: float) -> None:
    axis = latin_axis({"a": (low, low + width), "b": (0.0, 1.0)}, n, seed)
    parts = np.floor(np.array(varied(axis, "b")) * n).astype(int)
    assert sorted(parts) == list(range(n))
    a = (np.array(varied(axis, "a")) - low) / width * n
    assert np.all(np.abs(np.sort(a) - np.arange(n) - 0.5) <= 0.5 + 1e-6 * n)
    assert varied(latin_axis({"b": (0.0, 1.0)}, n, seed), "b") == varied(axis, "b")


@given(
    grid=st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(), min_size=1, max_size=3, unique=True)),
    n_list=st.integers(0, 3),
    n_random=st.integers(0, 3),
    n_seed=st.integers(0, 3),
)
def test_ways_are_crossed_seeds_slowest(grid: dict[str, list[int]], n_list: int, n_random: int, n_seed: int) -> None:
    vary = Vary.model_validate(
        {
            "grid": grid,
            "list": [{"l": k} for k in range(n_list)],
            **({"random": {"n": n_random, "fields": {"r": {"uniform": [0.0, 1.0]}}}} if n_random else {}),
        }
    )
    points = list(product(*axes(vary, list(range(n_seed)), seed=1)))
    assert len(points) == max(n_seed, 1) * max(n_random, 1) * max(n_list, 1) * np.prod(
        [len(values) for values in grid.values()], initial=1
    )
    told = [tuple(str(setting.value) for point in each for setting in point) for each in points]
    assert len(set(told)) == len(told)
    own_seeds = [int(each[0][0].value) for each in points if n_seed]
    assert own_seeds == sorted(own_seeds)


def test_runs_of_a_study(tmp_path: Path) -> None:
    text = (
        "overrides: {duration: 2h}\nseeds: 2\nvary:\n  grid: {sensors.faults.default.dropout: [0, 0.5]}\n"
        "  list:\n    - {name: plain}\n    - {name: derated, limits.derated.Transformer.T4: 0.3}\n"
    )
    text = text.replace("[0, 0.5]", "[0.0, 0.5]")
    found = planned(tmp_path, text)
    assert found.keys == ("seed", "name", "sensors.faults.default.dropout", "limits.derated.Transformer.T4")
    assert [run.number for run in found.runs] == list(range(8))
    scenarios = [run.loaded.scenario for run in found.runs]
    assert [s.name for s in scenarios] == ["plain", "plain", "derated", "derated"] * 2
    assert [s.sensors.faults["default"].dropout for s in scenarios] == [0.0, 0.5] * 4
    assert {s.sensors.faults["default"].quantum for s in scenarios} == {0.05}
    assert [s.limits.derated["Transformer.T4"] for s in scenarios[:4]] == [0.4, 0.4, 0.3, 0.3]
    assert len({s.seed for s in scenarios[:4]}) == len({s.seed for s in scenarios[4:]}) == 1
    assert {s.duration for s in scenarios} == {7200}
    assert found.runs[0].varied["limits.derated.Transformer.T4"] == 0.4
    assert {run.loaded.scenario.duration for run in planned(tmp_path, text, until="1h").runs} == {3600}


def test_name_with_dots_that_the_scenario_has_not(tmp_path: Path) -> None:
    (told,) = faults(tmp_path, "vary:\n  grid:\n    limits.derated.Transformer.T9: [0.4, 0.5]\n")
    assert told.startswith("study.yaml:4: limits.derated.Transformer: a number is expected; ")
    assert "; if the name is Transformer.T9: limits.derated: [{Transformer.T9: ...}, ...]; got a mapping" in told
    runs = planned(tmp_path, "vary: {grid: {limits.derated: [{Transformer.T9: 0.4}, {Transformer.T9: 0.5}]}}").runs
    assert [run.loaded.scenario.limits.derated["Transformer.T9"] for run in runs] == [0.4, 0.5]
    assert {run.loaded.scenario.limits.derated["Transformer.T4"] for run in runs} == {0.4}


def test_draws_without_a_number_go_with_the_seeds(tmp_path: Path) -> None:
    text = "seeds: [3, 4, 5]\nvary: {random: {fields: {sensors.faults.default.dropout: {uniform: [0.0, 0.1]}}}}\n"
    runs = planned(tmp_path, text).runs
    assert [run.varied["seed"] for run in runs] == [3, 4, 5]
    assert len({run.varied["sensors.faults.default.dropout"] for run in runs}) == 3


def test_study_that_varies_nothing_is_one_run(tmp_path: Path) -> None:
    found = planned(tmp_path, "")
    assert (len(found.runs), found.keys) == (1, ())


def test_fields_that_vary_twice_and_values_given_twice(tmp_path: Path) -> None:
    text = (
        "seeds: 2\noverrides: {operator.enabled: true}\nvary:\n  grid:\n    seed: [1, 1]\n    sensors.faults: [null]\n"
        "    operator.enabled: [true, false]\n  list:\n    - {sensors.faults.default.dropout: 0.1}\n"
        "  random: {fields: {duration: {choice: [1h]}}}\n  latin_hypercube: {n: 3, fields: {duration: [1.0, 2.0]}}\n"
    )
    assert faults(tmp_path, text) == [
        "study.yaml:6: vary.grid.seed: varies already by seeds",
        "study.yaml:12: vary.latin_hypercube.fields.duration: varies already by vary.random.fields.duration",
        "study.yaml:7: vary.grid.sensors.faults: varies already by vary.list.0.sensors.faults.default.dropout",
        "study.yaml:8: vary.grid.operator.enabled: is set for all runs by overrides.operator.enabled",
        "study.yaml:6: vary.grid.seed.1: is given twice; got 1",
    ]


def test_one_duration_for_all_and_a_duration_that_varies(tmp_path: Path) -> None:
    for way in ("grid: {duration: [1h, 2h]}", "list: [{duration: 1h}, {name: other}]"):
        text = f"vary: {{{way}}}"
        assert len(planned(tmp_path, text).runs) == 2
        (told,) = faults(tmp_path, text, until="30min")
        assert told.endswith("duration: is set for all runs by --until")


def test_faults_of_all_runs_are_told_once_and_where_they_are_written(tmp_path: Path) -> None:
    text = (
        "seeds: 3\noverrides:\n  durtion: 1h\nvary:\n  grid:\n    sensors.faults.default.dropout: [0.5, 1.5]\n"
        "  list:\n    - {mtu: 1 hour}\n    - {estimator: {metod: wls}}\n"
    )
    told = faults(tmp_path, text)
    assert len(told) == 4
    assert told[0].startswith("study.yaml:4: durtion: unknown key; did you mean duration?")
    assert told[1].startswith("study.yaml:9: mtu: ")
    assert any(
        fault.startswith("study.yaml:7: sensors.faults.default.dropout: out of range; got 1.5") for fault in told
    )
    assert any(fault.startswith("study.yaml:10: estimator.metod: unknown key; did you mean method?") for fault in told)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("vary: {random: {fields: {seed: {uniform: [2.0, 1.0]}}}}", "needs low < high"),
        ("vary: {random: {fields: {seed: {uniform: [1.0, 2.0], choice: [1]}}}}", "exactly one of uniform, normal"),
        ("vary: {random: {fields: {seed: {normal: [1.0, 0.0]}}}}", "standard deviation must be above 0"),
        ("vary: {latin_hypercube: {n: 2, fields: {seed: [2.0, 1.0]}}}", "needs low < high"),
        ("vary: {random: {fields: {seed: {integers: [1, 9]}}}}", "gives no n, and there are no seeds to draw for"),
        ("vary: {random: {n: 1, fields: {seed: {uniform: [-1.7e+308, 1.7e+308]}}}}", "uniform [low, high] is too wide"),
        ("vary: {latin_hypercube: {n: 2, fields: {seed: [-1.7e+308, 1.7e+308]}}}", "is too wide, here seed [-1.7"),
        ("overrides: {seed: 9007199254740993}", "seed: out of range; got 9007199254740993"),
        ("seeds: 0", "out of range"),
        ("seeds: [1, -1]", "out of range"),
        ("vary: {grids: {}}", "unknown key; did you mean grid?"),
        ("seeds: 1000\nvary: {latin_hypercube: {n: 1000, fields: {seed: [1.0, 2.0]}}}", "too many runs; got 1000000"),
    ],
)
def test_studies_that_say_no_sense(tmp_path: Path, text: str, fault: str) -> None:
    assert any(fault in each for each in faults(tmp_path, text))


def test_scenario_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("scenario: bas.yaml\n")
    (tmp_path / "base.yaml").write_text(SCENARIO)
    with pytest.raises(ScenarioError, match=r"did you mean base\.yaml"):
        load_study(tmp_path / "study.yaml")


trees = st.recursive(
    st.none() | st.integers() | st.text("xyz", max_size=2) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "c.d"]), inner, max_size=3),
    max_leaves=8,
)


@given(
    base=st.dictionaries(st.sampled_from(["a", "b", "c.d"]), trees),
    key=st.sampled_from(["a", "a.b", "b.c.d.a"]),
    value=trees.filter(lambda tree: tree is not None),
)
def test_what_is_placed_is_there_and_the_rest_stays(base: dict[str, Any], key: str, value: Any) -> None:
    source = Document({}, {"": Origin("study.yaml", 1, Path("/study"))})
    document = Document(base, {"": Origin("base.yaml", None, Path("/base"))})
    after = placed(document, key, value, source, "")
    found = value_at(after.content, key)
    assert found == value if not isinstance(value, dict) else isinstance(found, dict)
    first = key.split(".")[0]
    assert {name: after.content[name] for name in base if name != first} == {
        name: entry for name, entry in base.items() if name != first
    }
    assert after.nearest(key).file == "study.yaml"
    assert after.nearest("other").file == "base.yaml"
    assert base == document.content
    assert yaml.safe_load(yaml.safe_dump(base)) == base


def test_null_takes_a_key_out_and_paths_start_where_they_are_written(tmp_path: Path) -> None:
    found = planned(tmp_path, "overrides: {limits.derated.Transformer.T4: null, sensors.faults: null}\n").runs[0]
    assert found.loaded.scenario.limits.derated == {}
    assert found.loaded.scenario.sensors.faults == {}
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "study.yaml").write_text("scenario: ../base.yaml\noverrides: {feeder: ../mine}\n")
    loaded = plan(load_study(tmp_path / "sub" / "study.yaml")).runs[0].loaded
    assert loaded.resolve("feeder", "mine") == tmp_path / "sub" / "mine"
    assert loaded.resolve("profiles", "x") == tmp_path / "x"
