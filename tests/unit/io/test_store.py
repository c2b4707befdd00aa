"""The writer: layout, buffering, faults of its callers, what is kept and what is refused."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from cosim.clock import Clock
from cosim.domain.frames import PASSIVE_SIGN, EventTable, Signal
from cosim.errors import ResultError
from cosim.io.series import append
from cosim.io.store import ResultWriter

CLOCK = Clock(datetime(2016, 7, 21, 23, tzinfo=UTC), step_s=900, steps=10, mtu_s=900)
NODES = ("n1", "n2", "köln")
VOLTAGE = Signal("vm_pu", "pu", "voltage magnitude", "node", NODES)
POWER = Signal("p_kw", "kW", "net consumption", "node", NODES, sign=PASSIVE_SIGN)
FLOW = Signal("i_a", "A", "current", "branch", ("l1", "l2"))
QUALITY = Signal("quality", "1", "quality of the value", "channel", ("a", "b"), codes=("good", "missing", "late"))
ORDERS = EventTable("orders", "orders given", {"t_s": "s", "pod": None, "p_kw": "kW"})


def writer(path: Path, **changes: Any) -> ResultWriter:
    options: dict[str, Any] = {"flush_steps": 4, "compression": "gzip", "attributes": {"seed": 3, "scenario": "{}"}}
    result = ResultWriter(path, CLOCK, **(options | changes))
    result.declare("grid", "bus", [VOLTAGE, POWER, FLOW])
    result.declare("gateway", "snapshot", [QUALITY])
    result.declare_events("operator", ORDERS)
    return result


def write_step(result: ResultWriter, step: int) -> None:
    result.write(step, "grid", "bus", "vm_pu", np.array([1.0, 1.01, 1.02]) + step)
    result.write(step, "grid", "bus", "i_a", [step, -step])
    result.write(step, "gateway", "snapshot", "quality", np.array([0, 2], np.int8))
    if step % 3 == 0:
        result.append_event("operator", "orders", {"t_s": step * 900, "pod": f"pod {step}", "p_kw": -1.5})
    result.timing(step, {"grid": 0.25})
    result.end_step(step)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "run.h5"
    with writer(path) as result:
        for step in range(CLOCK.steps):
            write_step(result, step)
        result.finish("complete")
    return path


def test_layout_read_by_h5py(finished: Path) -> None:
    with h5py.File(finished, "r") as file:
        assert file.attrs["status"] == "complete"
        assert file.attrs["seed"] == 3
        assert file.attrs["steps_recorded"] == 10
        assert file["time"].dtype == np.int64
        assert file["time"][:].tolist() == [900 * k for k in range(10)]
        assert file["time"].attrs["units"] == "seconds since 2016-07-21T23:00:00+00:00"
        voltage = file["grid/bus/vm_pu"]
        assert voltage.shape == (10, 3)
        assert voltage.chunks == (4, 3)
        assert voltage[7].tolist() == [8.0, 8.01, 8.02]
        assert voltage.attrs["units"] == "pu"
        assert "sign_convention" not in voltage.attrs
        assert voltage.dims[0][0] == file["time"]
        assert voltage.dims[1][0].asstr()[:].tolist() == list(NODES)
        assert file["grid/bus/i_a"].dims[1][0] == file["grid/bus/branch"]
        assert file["grid/bus/p_kw"].attrs["sign_convention"] == PASSIVE_SIGN
        assert np.isnan(file["grid/bus/p_kw"][:]).all()
        quality = file["gateway/snapshot/quality"]
        assert quality.dtype == np.int8
        assert quality.attrs["flag_meanings"] == "good missing late"
        assert quality.attrs["flag_values"].tolist() == [0, 1, 2]
        assert file["operator/orders/pod"].asstr()[:].tolist() == ["pod 0", "pod 3", "pod 6", "pod 9"]
        assert file["operator/orders/row"][:].tolist() == [0, 1, 2, 3]
        assert file["timing/grid"][:].tolist() == [0.25] * 10


def test_one_group_opens_in_xarray_with_time_and_ids(finished: Path) -> None:
    with xr.open_dataset(finished, engine="h5netcdf", group="grid/bus") as bus:
        assert bus["vm_pu"].dims == ("time", "node")
        assert bus["vm_pu"].sel(node="köln", time="2016-07-22T00:00").item() == 5.02
        assert bus["time"].dtype.kind == "M"
        assert bus["i_a"].attrs["units"] == "A"
    with xr.open_dataset(finished, engine="h5netcdf", group="gateway/snapshot") as snapshot:
        assert snapshot["quality"].sel(channel="b").values.tolist() == [2.0] * 10
    with xr.open_dataset(finished, engine="h5netcdf", group="operator/orders") as orders:
        assert orders["t_s"].values[1] == np.datetime64("2016-07-21T23:45")
        assert orders["pod"].values.tolist() == ["pod 0", "pod 3", "pod 6", "pod 9"]


def test_all_groups_open_as_a_tree(finished: Path) -> None:
    with xr.open_datatree(finished, engine="h5netcdf") as tree:
        assert tree["grid/bus/vm_pu"].sel(node="n1").values[2] == 3.0
        assert tree["grid/bus"]["time"].size == 10


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_file_grows_only_by_whole_flushes(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "run.h5"
    with writer(path, compression=compression) as result:
        for step, expected in enumerate([0, 0, 0, 4, 4]):
            write_step(result, step)
            with h5py.File(path, "r") as file:
                lengths = {len(file[name]) for name in ("time", "grid/bus/vm_pu", "gateway/snapshot/quality")}
                assert lengths == {expected}
        result.finish("interrupted", "Ctrl-C")
    with h5py.File(path) as file:
        assert len(file["grid/bus/vm_pu"]) == 5
        assert (file.attrs["status"], file.attrs["error"]) == ("interrupted", "Ctrl-C")
        assert (file["grid/bus/vm_pu"].compression == "gzip") == (compression == "gzip")


def test_rows_never_written_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with writer(path) as result:
        write_step(result, 0)
        result.end_step(1)
        write_step(result, 4 - 1)
        result.timing(5, {"late": 1.0})
        result.end_step(5)
        result.finish("complete")
    with h5py.File(path) as file:
        assert np.isnan(file["grid/bus/vm_pu"][:, 0]).tolist() == [False, True, True, False, True, True]
        assert file["gateway/snapshot/quality"][:, 0].tolist() == [0, -1, -1, 0, -1, -1]
        assert np.isnan(file["timing/late"][:]).tolist() == [True] * 5 + [False]


def test_a_step_that_did_not_end_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with pytest.raises(RuntimeError, match="diverged"), writer(path) as result:  # noqa: PT012
        write_step(result, 0)
        result.write(1, "grid", "bus", "vm_pu", [1, 1, 1])
        raise RuntimeError("diverged at step 1")
    with h5py.File(path) as file:
        assert len(file["grid/bus/vm_pu"]) == 1
        assert (file.attrs["status"], file.attrs["error"]) == ("failed", "diverged at step 1")


def test_leaving_without_finish_is_a_failure(tmp_path: Path) -> None:
    with writer(tmp_path / "a.h5") as result:
        write_step(result, 0)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["status"] == "failed"
    with pytest.raises(KeyboardInterrupt), writer(tmp_path / "b.h5") as result:  # noqa: PT012
        write_step(result, 0)
        raise KeyboardInterrupt
    with h5py.File(tmp_path / "b.h5") as file:
        assert file.attrs["status"] == "interrupted"


def test_older_result_lasts_until_the_new_run_begins(finished: Path) -> None:
    before = finished.read_bytes()
    with writer(finished) as result:
        assert finished.read_bytes() == before
        result.finish("failed", "the feeder does not compile")
    assert finished.read_bytes() == before
    assert list(finished.parent.iterdir()) == [finished]
    with writer(finished, attributes={"seed": 4}) as result:
        result.start()
        with h5py.File(finished, "r") as file:
            assert (file.attrs["seed"], file.attrs["status"]) == (4, "running")
        result.finish("complete")
    assert list(finished.parent.iterdir()) == [finished]


def test_targets_that_are_refused(tmp_path: Path) -> None:
    text, other = tmp_path / "notes.txt", tmp_path / "other.h5"
    text.write_text("mine")
    with h5py.File(other, "w") as file:
        file["x"] = 1
    for path, words in (
        (text, "not a result file of cosim"),
        (other, "not a result file of cosim"),
        (tmp_path, "not a file"),
        (text / "run.h5", "File exists: .*notes.txt"),
    ):
        with pytest.raises(ResultError, match=words) as caught:
            writer(path)
        assert str(path) in str(caught.value)
    assert text.read_text() == "mine"
    with writer(tmp_path / "run.h5") as result:
        result.start()
        with pytest.raises(ResultError, match="another run is writing"):
            writer(tmp_path / "run.h5")
        result.finish("complete")


def test_all_faults_of_a_declaration_at_once(tmp_path: Path) -> None:
    signals = [
        Signal("a/b", "1", "", "node", ("x", "x", "")),
        Signal("time", "1", "", "time", ()),
        Signal("c", "1", "", "node", ("y",), codes=("not so good",)),
        Signal("c", "1", "", "c", ("y\0",)),
    ]
    with writer(tmp_path / "run.h5") as result:
        with pytest.raises(ResultError) as caught:
            result.declare("gr id", "m", signals)
        for words in (
            "'gr id'",
            "'a/b'",
            "'time' is reserved",
            "more than once: x",
            "empty",
            "disagree",
            "axis 'node'",
        ):
            assert words in str(caught.value)
        for words in ("c is given twice", "name of an axis", "not so good"):
            assert words in str(caught.value)
        with pytest.raises(ResultError, match="declared already"):
            result.declare("grid", "bus", [VOLTAGE])
        with pytest.raises(ResultError, match="declared already"):
            result.declare_events("operator", ORDERS)
        with pytest.raises(ResultError, match="reserved"):
            result.declare_events("operator", EventTable("row", "", {"": None}))
        with pytest.raises(ResultError, match="timing"):
            result.timing(0, {"a b": 1.0})


def test_wrong_values_are_refused(tmp_path: Path) -> None:
    with writer(tmp_path / "run.h5") as result:
        for values, attribute, words in (
            ([1.0, 2.0], "vm_pu", "3 values expected"),
            (1.0, "vm_pu", "3 values expected"),
            ([1.0, 2.0, 3.0], "va_deg", "not declared; declared: grid/bus/vm_pu"),
        ):
            with pytest.raises(ResultError, match=words):
                result.write(0, "grid", "bus", attribute, values)
        for codes in ([0, 3], [0, -2], [0.0, 1.0], [0, 300]):
            with pytest.raises(ResultError, match=r"whole codes from -1 \(missing\) to 2"):
                result.write(0, "gateway", "snapshot", "quality", codes)
        for row, words in (
            ({"t_s": 0, "pod": "a"}, "expected: t_s, pod, p_kw"),
            ({"t_s": 0, "pod": 1, "p_kw": 1.0}, "orders/pod: text expected, got 1"),
            ({"t_s": "0", "pod": "a", "p_kw": 1.0}, r"t_s: a number \[s\] expected"),
        ):
            with pytest.raises(ResultError, match=words):
                result.append_event("operator", "orders", row)
        with pytest.raises(ResultError, match="declared: operator/orders"):
            result.append_event("operator", "faults", {})


def test_steps_out_of_order_are_refused(tmp_path: Path) -> None:
    with writer(tmp_path / "run.h5") as result:
        for step in range(5):
            write_step(result, step)
        for step, words in ((3, "steps 5 to 7"), (4, "steps 5 to 7"), (8, "steps 5 to 7")):
            with pytest.raises(ResultError, match=words):
                result.write(step, "grid", "bus", "vm_pu", [1, 1, 1])
        for step in range(5, 10):
            write_step(result, step)
        with pytest.raises(ResultError, match="step 10"):
            result.end_step(10)
        result.finish("complete")
        result.finish("failed", "no effect after the end")
        with pytest.raises(ResultError, match="closed"):
            result.end_step(10)
    with h5py.File(tmp_path / "run.h5") as file:
        assert file.attrs["status"] == "complete"


def test_missing_and_odd_event_values(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with writer(path, attributes={"scenario": "x" * 200_000}) as result:
        result.append_event("operator", "orders", {"t_s": None, "pod": None, "p_kw": np.float64(2)})
        result.append_event("operator", "orders", {"t_s": 1, "pod": "a\0b\ud800", "p_kw": None})
        result.finish("complete")
    with h5py.File(path) as file:
        assert np.isnan(file["operator/orders/t_s"][0])
        assert file["operator/orders/pod"].asstr()[:].tolist() == ["", "a\N{REPLACEMENT CHARACTER}b?"]
        assert len(file.attrs["scenario"]) == 200_000


def test_no_elements_and_wide_signals(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    wide = Signal("p_kw", "kW", "power", "pod", tuple(f"pod{k}" for k in range(200_000)))
    with ResultWriter(path, CLOCK, 8, "none", {}) as result:
        result.declare("storage", "unit", [Signal("e_kwh", "kWh", "stored energy", "unit", ())])
        result.declare("profiles", "pod", [wide])
        for step in range(CLOCK.steps):
            result.write(step, "storage", "unit", "e_kwh", [])
            result.write(step, "profiles", "pod", "p_kw", np.arange(200_000.0) + step)
            result.end_step(step)
        result.finish("complete")
    with h5py.File(path) as file:
        assert file["storage/unit/e_kwh"].shape == (10, 0)
        power = file["profiles/pod/p_kw"]
        assert np.prod(power.chunks) * 8 <= 2**20
        assert power[9, 199_999] == 200_008.0
    with xr.open_dataset(path, engine="h5netcdf", group="storage/unit") as unit:
        assert unit["e_kwh"].shape == (10, 0)


def test_write_that_fails_in_hdf5_keeps_what_was_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.h5"

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(ResultError, match=r"Input/output error; the file is complete up to 2016-07-22T00:00:00\+00:00"):  # noqa: SIM117, PT012
        with writer(path) as result:
            for step in range(7):
                write_step(result, step)
            monkeypatch.setattr("cosim.io.store.append", broken)
            write_step(result, 7)
    with h5py.File(path) as file:
        assert file["grid/bus/vm_pu"].shape == (4, 3)
        assert (file.attrs["status"], file.attrs["steps_recorded"]) == ("running", 4)


@pytest.mark.parametrize("call", range(1, 9))
def test_flush_broken_off_by_ctrl_c_keeps_what_was_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Wherever in the flush: it is not flushed again, from buffers that are empty by then."""
    path, calls = tmp_path / "run.h5", 0

    def broken(*given: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        append(*given)

    with pytest.raises(KeyboardInterrupt), writer(path) as result:  # noqa: PT012
        for step in range(7):
            write_step(result, step)
        for module in ("store", "series"):
            monkeypatch.setattr(f"cosim.io.{module}.append", broken)
        write_step(result, 7)
    with h5py.File(path) as file:
        assert (file.attrs["status"], file.attrs["steps_recorded"]) == ("running", 4)
        assert np.isfinite(file["grid/bus/vm_pu"][:4]).all()
        assert file["operator/orders"].attrs["rows_recorded"] == 2


def test_of_two_runs_that_begin_at_once_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.h5"
    one = writer(path)
    monkeypatch.setattr("cosim.io.store.os.getpid", lambda: 1)
    other = writer(path, attributes={"seed": 4})
    write_step(one, 0)
    with pytest.raises(ResultError, match="another run is writing this result file"):
        write_step(other, 0)
    one.finish("complete")
    other.finish("failed")
    with h5py.File(path) as file:
        assert (file.attrs["seed"], file.attrs["status"]) == (3, "complete")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_moved_is_finished_where_it_is(tmp_path: Path, replaced: bool) -> None:
    path, moved = tmp_path / "run.h5", tmp_path / "moved.h5"
    with writer(path) as result:
        write_step(result, 0)
        path.rename(moved)
        if replaced:
            path.write_bytes(bytes(1 << 22))
        with pytest.raises(ResultError, match="was moved, deleted or replaced while this run wrote it"):
            result.finish("complete")
    with h5py.File(moved) as file:
        assert (file.attrs["status"], file.attrs["steps_recorded"]) == ("complete", 1)
    assert not path.exists() or path.stat().st_size == 1 << 22


def test_no_space_to_create_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosim.io.disk.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ResultError, match="cannot create the result file: No space left on device"):
        writer(tmp_path / "run.h5")
    assert list(tmp_path.iterdir()) == []
