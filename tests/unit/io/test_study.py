"""Many runs read as one: by folder, list or index; by signal, element, time and run; and what does not fit."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cosim.clock import Clock
from cosim.domain.frames import EventTable, Signal
from cosim.errors import ResultError
from cosim.io import study as study_reader
from cosim.io.results import Results, hdf5_file
from cosim.io.store import ResultWriter, Status
from cosim.io.study import Study, open_results, open_study
from cosim.io.study_index import write_index

CLOCK = Clock(datetime(2016, 7, 21, 23, tzinfo=UTC), step_s=900, steps=8, mtu_s=900)
SCENARIO = {"start": "2016-07-22T00:00:00+01:00", "step": "15min", "estimator": {"method": "wls"}, "meters": ["A"]}


def result(
    path: Path,
    number: int,
    nodes: Sequence[str] = ("n1", "n2", "n3"),
    unit: str = "pu",
    clock: Clock = CLOCK,
    status: Status = "complete",
) -> Path:
    """A run whose voltages are its number, a tenth for each node and a hundredth for each step."""
    scenario = SCENARIO | {"seed": number, "market": {"gamma": number / 2}, "meters": ["A", "B"][:number]}
    with ResultWriter(path, clock, 4, "gzip", {"scenario": json.dumps(scenario), "name": "demo"}) as writer:
        writer.declare("grid", "bus", [Signal(name, unit, name, "node", tuple(nodes)) for name in ("vm_pu", "va_pu")])
        writer.declare("grid", "head", [Signal("p_kw", "kW", "head", "feeder", ("demo",))])
        writer.declare_events("operator", EventTable("orders", "orders", {"t_s": "s", "pod": None}))
        writer.declare_events("operator", EventTable("notes", "notes", {"told": None}))
        for step in range(clock.steps):
            for name, sign in (("vm_pu", 1), ("va_pu", -1)):
                values = number + np.arange(len(nodes)) / 10 + step / 100
                writer.write(step, "grid", "bus", name, sign * values)
            writer.write(step, "grid", "head", "p_kw", [100 * number + step])
            writer.end_step(step)
        writer.append_event("operator", "orders", {"t_s": 900.0, "pod": f"pod{number}"})
        writer.append_event("operator", "orders", {"t_s": 2700.0, "pod": f"pod{number}"})
        writer.finish(status, "" if status == "complete" else "diverged")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("study")
    for number in (1, 2):
        result(place / f"run{number}.h5", number)
    return place


@pytest.fixture
def study(folder: Path) -> Study:
    return open_study(folder)


def test_a_file_is_a_run_and_all_else_a_study(folder: Path) -> None:
    with_file = open_results(folder / "run1.h5")
    assert isinstance(with_file, Results)
    with_file.close()
    assert isinstance(open_results(folder), Study)
    assert isinstance(open_results(str(folder)), Study)
    assert isinstance(open_results([folder / "run2.h5"]), Study)


def test_runs_are_told_apart_by_what_differs_in_their_scenarios(study: Study, folder: Path) -> None:
    runs = study.runs
    assert list(runs.index) == ["run1", "run2"]
    assert list(runs.columns) == ["meters", "seed", "market.gamma", "status", "error", "path"]
    assert runs.loc["run2"].tolist() == ['["A", "B"]', 2, 1.0, "complete", "", str(folder / "run2.h5")]
    runs["seed"] = 0
    assert study.runs["seed"].tolist() == [1, 2], "what is given out is a copy"


def test_frames_have_the_run_first(study: Study) -> None:
    table = study.frame("grid/bus/vm_pu", "2016-07-21T23:15", "2016-07-21T23:45", ["n3", "n1"])
    assert list(table.index.names) == ["run", "time"]
    assert table.shape == (4, 2)
    assert table.loc[("run2", pd.Timestamp("2016-07-21T23:30Z")), "n3"] == pytest.approx(2.22)
    assert table.attrs == {
        "units": "pu",
        "long_name": "vm_pu",
        "signal": "grid/bus/vm_pu",
        "step_s": 900.0,
        "utc_offset_s": 3600.0,
    }
    assert study.frame("grid/head/p_kw", runs=["run2"]).index.unique("run").tolist() == ["run2"]


def test_series(study: Study) -> None:
    by_run = study.series("grid/head/p_kw").unstack("run")
    assert by_run["run1"].tolist() == [100.0 + step for step in range(8)]
    assert study.series("grid/bus/vm_pu", elements=["n2"]).iloc[0] == 1.1
    assert study.series("grid/head/p_kw").attrs["units"] == "kW"
    with pytest.raises(ResultError, match="3 elements, not one: use frame"):
        study.series("grid/bus/vm_pu")


def test_tables(study: Study) -> None:
    orders = study.table("operator/orders", start="2016-07-21T23:30")
    assert list(orders.columns) == ["run", "time", "t_s", "pod"]
    assert orders["pod"].tolist() == ["pod1", "pod2"]
    assert study.table("operator/orders", runs=["run1"])["t_s"].tolist() == [900.0, 2700.0]
    assert study.table("operator/orders", stop="2016-07-21T23:30").attrs["units"] == {
        "t_s": "seconds since 2016-07-21T23:00:00+00:00"
    }
    with pytest.raises(ResultError, match="operator/notes has no column t_s to choose by; columns: told"):
        study.table("operator/notes", start="2016-07-21T23:30")


def test_datasets_have_runs_and_what_varies_as_coordinates(study: Study) -> None:
    bus = study.dataset("grid/bus", start="2016-07-21T23:15", elements=["n3", "n1"])
    assert bus["vm_pu"].dims == ("run", "time", "node")
    assert dict(bus.sizes) == {"run": 2, "time": 7, "node": 2}
    assert bus["seed"].values.tolist() == [1, 2]
    whole = study.frame("grid/bus/vm_pu")
    np.testing.assert_array_equal(bus["vm_pu"].sel(run="run2", node="n1").values, whole.loc["run2"]["n1"].iloc[1:])
    assert bus["va_pu"].sel(run="run1", time="2016-07-22T00:00", node="n3").item() == pytest.approx(-1.24)
    assert bus["vm_pu"].attrs["units"] == "pu"


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"run": 1},
        {"run": [1, 0]},
        {"run": slice(0, 0)},
        {"time": slice(6, 1, -2), "node": [2, 0]},
        {"time": [5, 5, 0], "node": slice(None, None, -1)},
        {"time": -1, "node": 1},
        {"time": slice(3, 3)},
        {"node": []},
        {"run": [1], "time": slice(1, None, 3), "node": -1},
    ],
)
def test_any_part_is_that_of_the_whole(study: Study, part: dict[str, int | slice | list[int]]) -> None:
    whole = study.dataset("grid/bus")["vm_pu"].load()
    np.testing.assert_array_equal(study.dataset("grid/bus")["vm_pu"].isel(part).values, whole.isel(part).values)


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    """The signal that is not asked for is not there any more, and neither is the run."""
    paths = [result(tmp_path / f"r{number}.h5", number) for number in (1, 2)]
    bus = open_study(paths).dataset("grid/bus")
    with_one = open_results(paths[0])
    assert isinstance(with_one, Results)
    with with_one:
        alone = with_one.dataset("grid/bus")
    with hdf5_file(paths[0]) as file:
        expected = file["grid/bus/vm_pu"][2, :]
    paths[1].unlink()
    np.testing.assert_array_equal(bus["vm_pu"].isel(run=0, time=2).values, expected)
    np.testing.assert_array_equal(alone["vm_pu"].isel(time=2).values, expected)
    with pytest.raises(ResultError, match=r"r2.h5: cannot be read: No such file or directory"):
        _ = bus["vm_pu"].isel(run=1).values


def index(folder: Path, **columns: list[object]) -> Path:
    pd.DataFrame(columns).to_parquet(folder / study_reader.INDEX)
    return folder / study_reader.INDEX


def test_an_index_tells_the_runs(tmp_path: Path) -> None:
    result(tmp_path / "a.h5", 1)
    other = result(tmp_path / "elsewhere" / "b.h5", 2)
    told = {"error": ["", "", "PowerFlowError: diverged"], "status": ["complete", "complete", "failed"]}
    path = index(tmp_path, run=[7, 8, 9], seed=[1, 2, 3], path=["a.h5", str(other), ""], **told)
    for study in (open_results(tmp_path), open_study(path)):
        assert isinstance(study, Study)
        assert study.complete == (7, 8)
        assert study.runs["seed"].tolist() == [1, 2, 3]
        assert study.series("grid/head/p_kw").unstack("run").iloc[0].tolist() == [100.0, 200.0]
        assert study.dataset("grid/head")["seed"].values.tolist() == [1, 2]
        with pytest.raises(ResultError, match="run 9 has no result file: PowerFlowError: diverged"):
            study.frame("grid/head/p_kw", runs=[9])
        with pytest.raises(ResultError, match=r"no run '10'; there is: 7, 8, 9"):
            study.open(10)


def test_the_index_of_a_sweep_is_one(tmp_path: Path) -> None:
    result(tmp_path / "runs" / "a.h5", 1)
    rows = [
        {"run": 0, "market.gamma": 0.5, "seed": 1, "status": "complete", "error": "", "path": "runs/a.h5"},
        {"run": 1, "market.gamma": 1.0, "seed": 2, "status": "failed", "error": "diverged", "path": None},
    ]
    write_index(tmp_path, "study", ["market.gamma"], [row | {"hash": None, "wall_s": 1.0} for row in rows])
    study = open_study(tmp_path)
    assert list(study.runs.columns) == ["market.gamma", "seed", "status", "error", "path", "hash", "wall_s"]
    assert study.series("grid/head/p_kw").index.unique("run").tolist() == [0]
    assert study.dataset("grid/head")["market.gamma"].values.tolist() == [0.5]
    assert "hash" not in study.dataset("grid/head").coords
    with pytest.raises(ResultError, match="run 1 has no result file: diverged"):
        study.open(1)


def test_runs_that_are_not_complete_are_read_when_named(tmp_path: Path) -> None:
    result(tmp_path / "a.h5", 1)
    result(tmp_path / "b.h5", 2, status="failed")
    study = open_study(tmp_path)
    assert study.complete == ("a",)
    assert study.frame("grid/head/p_kw").index.unique("run").tolist() == ["a"]
    assert study.series("grid/head/p_kw", runs=["b"]).iloc[0] == 200.0
    assert study.runs.loc["b", "error"] == "diverged"
    with pytest.raises(ResultError, match="no run to read; complete: none; there is: 1 failed"):
        open_study([tmp_path / "b.h5"]).frame("grid/head/p_kw")


def test_runs_that_do_not_fit_together(tmp_path: Path) -> None:
    shorter = Clock(CLOCK.start, step_s=900, steps=4, mtu_s=900)
    first = result(tmp_path / "a.h5", 1)
    others = {
        "other": result(tmp_path / "other.h5", 2, ("n1", "n2", "n4")),
        "swapped": result(tmp_path / "swapped.h5", 2, ("n2", "n1", "n3")),
        "percent": result(tmp_path / "percent.h5", 2, unit="%"),
        "short": result(tmp_path / "short.h5", 2, clock=shorter),
    }

    def of(name: str) -> Study:
        return open_study([first, others[name]])

    lacks = "runs differ in the elements of grid/bus/vm_pu: run other lacks n3 and also has n4, against run a"
    with pytest.raises(ResultError, match=lacks):
        of("other").frame("grid/bus/vm_pu")
    assert of("other").frame("grid/bus/vm_pu", elements=["n2", "n1"]).shape == (16, 2)
    with pytest.raises(ResultError, match="the elements of grid/bus along node: run other lacks n3 and also has n4"):
        of("other").dataset("grid/bus")
    with pytest.raises(ResultError, match="run swapped has another order, against run a"):
        of("swapped").frame("grid/bus/vm_pu")
    with pytest.raises(ResultError, match="the unit of grid/bus/vm_pu: run percent lacks pu and also has %"):
        of("percent").frame("grid/bus/vm_pu")
    with pytest.raises(ResultError, match="runs differ in the units of grid/bus: run percent"):
        of("percent").dataset("grid/bus")
    with pytest.raises(ResultError, match=r"runs differ in their steps: run a has 8 from .*, run short 4 from"):
        of("short").dataset("grid/bus")
    assert of("short").frame("grid/bus/vm_pu").shape == (12, 3)


def test_what_is_not_there_is_named_with_what_is(study: Study) -> None:
    with pytest.raises(ResultError, match="no signal 'grid/bus/v_pu'; there is: grid/bus/v"):
        study.frame("grid/bus/v_pu")
    with pytest.raises(ResultError, match="no run 'run3'; there is: run"):
        study.frame("grid/bus/vm_pu", runs=["run3"])
    with pytest.raises(ResultError, match="grid/bus has no element 'n9'; there is: n"):
        study.dataset("grid/bus", elements=["n9"])
    with pytest.raises(ResultError, match="no model 'grid/buses'; there is: grid/bus, grid/head"):
        study.dataset("grid/buses")


def test_places_that_are_no_study(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "text.parquet").write_text("no")
    pd.DataFrame({"run": [1], "path": ["a.h5"]}).to_parquet(tmp_path / "short.parquet")
    told = {"path": ["a", "b"], "status": ["complete"] * 2, "error": ["", ""]}
    pd.DataFrame({"run": [1, 1], **told}).to_parquet(tmp_path / "twice.parquet")
    for place, words in (
        (tmp_path, "holds neither index.parquet nor a result file"),
        (tmp_path / "none.parquet", "cannot be read as an index in Parquet: No such file"),
        (tmp_path / "text.parquet", "cannot be read as an index in Parquet"),
        (tmp_path / "short.parquet", "lacks columns status, error; there is: run, path"),
        (tmp_path / "twice.parquet", "holds a run more than once: 1"),
        ([], "the list of results: is empty"),
        ([folder / "run1.h5", folder / "run1.h5"], "holds a run more than once"),
        (tmp_path / "none", "there is no such file"),
    ):
        with pytest.raises(ResultError, match=words):
            open_results(place)  # type: ignore[call-overload]
