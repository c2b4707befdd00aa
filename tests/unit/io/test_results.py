"""The reader: tables, series, data sets in a line; what it says when something is not there; the hash."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from cosim.clock import Clock
from cosim.domain.frames import EventTable, Signal
from cosim.errors import ResultError
from cosim.io.results import Results, open_results, result_hash
from cosim.io.store import ResultWriter, Status
from cosim.sweep.work import found

CLOCK = Clock(datetime(2016, 7, 21, 23, tzinfo=UTC), step_s=900, steps=8, mtu_s=900)


def make(
    path: Path,
    flush_steps: int = 4,
    compression: str = "gzip",
    status: Status = "complete",
    seconds: float = 0.1,
    shift: float = 0.0,
    seed: int = 1,
) -> Path:
    attributes = {"scenario": '{"name": "demo", "seed": 1}', "seed": seed}
    assert compression in ("gzip", "none")
    with ResultWriter(path, CLOCK, flush_steps, "gzip" if compression == "gzip" else "none", attributes) as result:
        bus = Signal("vm_pu", "pu", "voltage", "node", ("n1", "n2", "n3"))
        head = Signal("p_kw", "kW", "head power", "head", ("head",), sign="import > 0")
        codes = Signal("converged", "1", "solved", "node", ("n1", "n2", "n3"), codes=("no", "yes"))
        result.declare("grid", "bus", [bus, codes])
        result.declare("grid", "head", [head])
        result.declare_events("operator", EventTable("orders", "orders", {"t_s": "s", "pod": None, "p_kw": "kW"}))
        for step in range(CLOCK.steps):
            if step != 2:
                result.write(step, "grid", "bus", "vm_pu", np.arange(3) / 10 + step + shift)
            result.write(step, "grid", "bus", "converged", [1, 1, 0])
            result.write(step, "grid", "head", "p_kw", [-step])
            if step in (1, 6):
                result.append_event("operator", "orders", {"t_s": step * 900, "pod": "pod1", "p_kw": 5.0 * step})
            result.timing(step, {"grid": seconds, "operator": 0.2})
            result.end_step(step)
        result.finish(status)
    return path


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Results]:
    with open_results(make(tmp_path / "run.h5")) as opened:
        yield opened


def test_what_is_in_the_file(results: Results) -> None:
    assert results.signals() == ("grid/bus/converged", "grid/bus/vm_pu", "grid/head/p_kw")
    assert results.events() == ("operator/orders",)
    assert results.status == "complete"
    assert results.scenario == {"name": "demo", "seed": 1}
    assert results.attributes["seed"] == 1
    assert results.attributes["created_by"] == "cosim"


def test_frame(results: Results) -> None:
    table = results.frame("grid/bus/vm_pu")
    assert table.shape == (8, 3)
    assert table.index.name == "time"
    assert str(table.index.dtype) == "datetime64[ns, UTC]"
    assert list(table.columns) == ["n1", "n2", "n3"]
    assert table.loc["2016-07-22T00:00Z", "n2"] == 4.1
    assert table.iloc[2].isna().all()
    assert table.attrs == {"units": "pu", "long_name": "voltage", "signal": "grid/bus/vm_pu"}


def test_part_of_a_frame(results: Results) -> None:
    start, stop = "2016-07-21T23:15", datetime(2016, 7, 21, 23, 45, tzinfo=UTC)
    table = results.frame("grid/bus/vm_pu", start, stop, ["n3", "n1"])
    assert list(table.columns) == ["n3", "n1"]
    assert [stamp.minute for stamp in table.index] == [15, 30]
    assert table["n3"].iloc[0] == 1.2
    in_rome = results.frame("grid/head/p_kw", pd.Timestamp("2016-07-22T02:30", tz="Europe/Rome"))
    assert in_rome["head"].tolist() == [-6.0, -7.0]
    assert results.frame("grid/head/p_kw", "2030-01-01").empty
    assert results.frame("grid/bus/vm_pu", elements=[]).shape == (8, 0)


def test_codes_keep_their_meaning(results: Results) -> None:
    table = results.frame("grid/bus/converged")
    assert table.dtypes.unique().tolist() == [np.int8]
    assert table.attrs["flag_meanings"] == ["no", "yes"]
    assert table.attrs["flag_values"] == [0, 1]


def test_series(results: Results) -> None:
    head = results.series("grid/head/p_kw")
    assert head.name == "p_kw"
    assert head.tolist() == [-float(step) for step in range(8)]
    assert head.attrs["sign_convention"] == "import > 0"
    with pytest.raises(ResultError, match="3 elements, not one: use frame"):
        results.series("grid/bus/vm_pu")


def test_xarray_dataset(results: Results) -> None:
    bus = results.dataset("grid/bus")
    assert bus["vm_pu"].dims == ("time", "node")
    assert bus["vm_pu"].attrs["units"] == "pu"
    assert bus["vm_pu"].sel(node="n2", time="2016-07-22T00:00").item() == 4.1
    assert bus["converged"].dtype == np.int8
    assert bus.attrs["seed"] == 1


def test_tables(results: Results) -> None:
    orders = results.table("operator/orders")
    assert list(orders.columns) == ["time", "t_s", "pod", "p_kw"]
    assert orders["time"].tolist() == [pd.Timestamp("2016-07-21T23:15Z"), pd.Timestamp("2016-07-22T00:30Z")]
    assert orders["pod"].tolist() == ["pod1", "pod1"]
    assert orders.attrs["units"]["p_kw"] == "kW"
    timing = results.timing()
    assert list(timing.columns) == ["grid", "operator"]
    assert timing["operator"].eq(0.2).all()


def test_what_is_missing_is_named_with_what_is_there(results: Results) -> None:
    for call, path, words in (
        (results.frame, "grid/bus/v_pu", "'grid/bus/v_pu'; there is: grid/bus/vm_pu, "),
        (results.dataset, "grid/busses", "'grid/busses'; there is: grid/bus, grid/head"),
        (results.table, "operator/order", "'operator/order'; there is: operator/orders"),
    ):
        with pytest.raises(ResultError, match=words):
            call(path)
    with pytest.raises(ResultError, match="no element 'n4'; there is: n"):
        results.frame("grid/bus/vm_pu", elements=["n1", "n4"])
    for nonsense in ("noon", "NaT", ""):
        with pytest.raises(ResultError, match=f"not a point in time: '{nonsense}'"):
            results.frame("grid/bus/vm_pu", nonsense)


@pytest.mark.parametrize(
    "ask",
    [
        lambda results: results.frame("grid/head/p_kw"),
        lambda results: results.table("operator/orders"),
        lambda results: results.dataset("grid/bus"),
        lambda results: results.timing(),
        lambda results: (results.time, results.signals()),
        lambda results: results.status,
        lambda results: results.scenario,
        lambda results: results.attributes,
        lambda results: results.checkpoint(),
    ],
)
def test_a_closed_file_says_so(results: Results, ask: Callable[[Results], object]) -> None:
    results.close()
    results.close()
    with pytest.raises(ResultError, match=r"run\.h5: is closed$"):
        ask(results)


def test_files_that_are_not_results(tmp_path: Path) -> None:
    text, other, newer, bare = (tmp_path / name for name in ("a.txt", "b.h5", "c.h5", "d.h5"))
    text.write_text("no")
    with h5py.File(other, "w") as file:
        file["x"] = 1
    with h5py.File(make(newer), "r+") as file:
        file.attrs["format_version"] = 2
    with h5py.File(make(bare), "r+") as file:
        del file.attrs["scenario"]
    for path, words in (
        (text, "cannot be opened as an HDF5 file"),
        (other, "not a result file of cosim"),
        (newer, "format version 2; this version of cosim reads 1"),
        (tmp_path / "none.h5", "no such file"),
        (tmp_path, "no such file"),
    ):
        with pytest.raises(ResultError, match=words):
            open_results(path)
    with open_results(bare) as results, pytest.raises(ResultError, match="no scenario"):
        _ = results.scenario


def test_unfinished_file_is_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with ResultWriter(path, CLOCK, 3, "gzip", {}) as result:
        result.declare("grid", "head", [Signal("p_kw", "kW", "head power", "head", ("head",))])
        for step in range(4):
            result.write(step, "grid", "head", "p_kw", [step])
            result.end_step(step)
        with open_results(path) as results:
            assert results.status == "running"
            assert results.series("grid/head/p_kw").tolist() == [0.0, 1.0, 2.0]
            assert results.timing().shape == (3, 0)
        result.finish("complete")


def test_rows_beyond_the_last_flush_are_not_shown(tmp_path: Path) -> None:
    """A kill in the middle of a flush leaves some data sets longer than what was declared complete."""
    path = make(tmp_path / "run.h5")
    whole = shutil.copy(path, tmp_path / "whole.h5")
    with h5py.File(path, "r+") as file:
        file["grid/bus/vm_pu"].resize(12, axis=0)
        file["operator/orders/pod"].resize(5, axis=0)
    with open_results(path) as results:
        assert results.frame("grid/bus/vm_pu").shape == (8, 3)
        assert len(results.table("operator/orders")) == 2
        assert results.dataset("grid/bus").sizes["time"] == 8
    assert result_hash(path) == result_hash(whole)


def test_hash_is_of_what_was_computed(tmp_path: Path) -> None:
    reference = result_hash(make(tmp_path / "a.h5"))
    assert len(reference) == 64
    same = (
        make(tmp_path / "b.h5", flush_steps=3),
        make(tmp_path / "c.h5", compression="none"),
        make(tmp_path / "d.h5", seconds=9.0, status="failed", seed=2),
    )
    assert {result_hash(path) for path in same} == {reference}
    assert result_hash(make(tmp_path / "e.h5", shift=1e-15)) != reference
    with h5py.File(make(tmp_path / "f.h5"), "r+") as file:
        file["operator/orders/pod"][0] = "pod2"
    assert result_hash(tmp_path / "f.h5") != reference


def test_hash_knows_one_nan_only(tmp_path: Path) -> None:
    reference = result_hash(make(tmp_path / "a.h5"))
    with h5py.File(make(tmp_path / "b.h5"), "r+") as file:
        file["grid/bus/vm_pu"][2] = np.full(3, -np.nan)
    assert result_hash(tmp_path / "b.h5") == reference


def test_damaged_data_set_is_told(tmp_path: Path) -> None:
    path = make(tmp_path / "run.h5")
    with h5py.File(path) as file:
        chunk = file["grid/bus/vm_pu"].id.get_chunk_info(0)
    with path.open("r+b") as bytes_of:
        bytes_of.seek(chunk.byte_offset)
        bytes_of.write(bytes(chunk.size))
    with pytest.raises(ResultError, match=r"run.h5: cannot be read: "):
        result_hash(path)
    told = found(path)
    assert (told.status, told.hash) == ("failed", "")
    assert told.error.endswith("; move it away to have it run anew")


def test_a_file_in_the_middle_of_a_flush_says_so(tmp_path: Path) -> None:
    path = make(tmp_path / "run.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["status"] = "running"
        del file["time"]
    with open_results(path) as results, pytest.raises(ResultError, match=r"run.h5: cannot be read: .*read it again"):
        _ = results.time
