"""Checkpoints in a result file: one is whole at any moment, and a run goes on from it with what was recorded then."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cosim.clock import Clock
from cosim.domain.frames import EventTable, Signal
from cosim.errors import ResultError
from cosim.io.checkpoint import Checkpoint, create_slots, read_checkpoints, write_checkpoint
from cosim.io.layout import CHECKPOINT
from cosim.io.results import open_results, result_hash
from cosim.io.store import ResultWriter
from cosim.io.takeover import Earlier

CLOCK = Clock(datetime(2016, 7, 21, 23, tzinfo=UTC), step_s=900, steps=30, mtu_s=900)
WIDE = tuple(f"n{k}" for k in range(40))
SEGMENT = 12


def writer(path: Path, flush_steps: int = 5, compression: Any = "gzip", **options: Any) -> ResultWriter:
    result = ResultWriter(path, CLOCK, flush_steps, compression, {"seed": 3}, segment_steps=SEGMENT, **options)
    result.declare("grid", "bus", [Signal("vm_pu", "pu", "voltage", "node", WIDE)])
    result.declare("grid", "none", [Signal("p_kw", "kW", "power", "storage", ())])
    result.declare("gateway", "snapshot", [Signal("quality", "1", "", "channel", ("a",), codes=("good", "late"))])
    result.declare_events("operator", EventTable("orders", "", {"t_s": "s", "pod": None}))
    result.declare_events("operator", EventTable("never", "", {"t_s": "s", "why": None}))
    return result


def write(result: ResultWriter, first: int, last: int) -> None:
    for step in range(first, last):
        result.write(step, "grid", "bus", "vm_pu", np.sin(np.arange(40.0) * (step + 1)))
        result.write(step, "grid", "none", "p_kw", [])
        result.write(step, "gateway", "snapshot", "quality", np.array([step % 2], np.int8))
        for k in range(step % 3):
            result.append_event("operator", "orders", {"t_s": 900 * step, "pod": f"köln {step}.{k}"})
        result.timing(step, {"grid": 0.25 + step})
        result.end_step(step)
        if (step + 1) % SEGMENT == 0:
            result.checkpoint(f'{{"at": {step}}}')


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    with writer(tmp_path / "whole.h5") as result:
        write(result, 0, CLOCK.steps)
        result.finish("complete")
    return tmp_path / "whole.h5"


def left(path: Path, last: int, **options: Any) -> Checkpoint:
    """An unfinished file of the steps before ``last``; gives its checkpoint."""
    with writer(path, **options) as result:
        write(result, 0, last)
        result.finish("interrupted")
    with open_results(path) as results:
        found = results.checkpoint()
    assert found is not None
    return found


def gone_on(path: Path, checkpoint: Checkpoint, **options: Any) -> None:
    with writer(path, earlier=Earlier(path, checkpoint), **options) as result:
        write(result, checkpoint.step, CLOCK.steps)
        result.finish("complete")


@pytest.mark.parametrize(("flush_steps", "rows"), [(1, 1), (5, 4), (8, 6), (12, 12), (100, 12)])
def test_a_flush_falls_on_the_end_of_every_segment(tmp_path: Path, flush_steps: int, rows: int) -> None:
    with writer(tmp_path / "run.h5", flush_steps) as result:
        write(result, 0, SEGMENT)
        with h5py.File(result.path, "r") as file:
            assert file["grid/bus/vm_pu"].chunks[0] == rows
            assert file.attrs["steps_recorded"] == SEGMENT


def test_a_single_segment_is_flushed_as_told_and_has_no_slots(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "run.h5", CLOCK, 7, "gzip", {}, segment_steps=30) as result:
        result.declare("grid", "bus", [Signal("vm_pu", "pu", "voltage", "node", WIDE)])
        result.start()
        with h5py.File(result.path, "r") as file:
            assert file["grid/bus/vm_pu"].chunks[0] == 7
            assert CHECKPOINT not in file


@pytest.mark.parametrize("last", [12, 13, 23, 24, 25, 29])
@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_goes_on_from_the_checkpoint_as_if_nothing_had_happened(
    tmp_path: Path, whole: Path, last: int, compression: str
) -> None:
    path = tmp_path / "run.h5"
    checkpoint = left(path, last, compression=compression)
    assert checkpoint.step == last // SEGMENT * SEGMENT
    assert checkpoint.text == f'{{"at": {checkpoint.step - 1}}}'
    assert checkpoint.rows == {"operator/orders": checkpoint.step, "operator/never": 0}
    gone_on(path, checkpoint, compression=compression)
    assert result_hash(path) == result_hash(whole)
    with open_results(path) as found, open_results(whole) as expected:
        assert found.status == "complete"
        assert found.checkpoint() == expected.checkpoint()
        assert found.timing()["grid"].tolist() == expected.timing()["grid"].tolist()
        assert found.table("operator/orders").equals(expected.table("operator/orders"))


def test_what_lies_beyond_the_checkpoint_is_not_looked_at(tmp_path: Path, whole: Path) -> None:
    """A file whose writer died in a flush may be damaged there."""
    path = tmp_path / "run.h5"
    checkpoint = left(path, 20)
    with h5py.File(path, "r+") as file:
        file["grid/bus/vm_pu"][12:] = 77.0
        file["operator/orders/pod"].resize(13, axis=0)
    gone_on(path, checkpoint)
    assert result_hash(path) == result_hash(whole)


def test_other_chunks_or_elements_are_refused_and_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    checkpoint = left(path, 20)
    before = path.read_bytes()
    with (
        pytest.raises(ResultError, match=r"run\.h5: cannot be resumed, and is left as it is: .*vm_pu is not what"),
        writer(path, flush_steps=3, earlier=Earlier(path, checkpoint)) as result,
    ):
        result.start()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run.h5"]


def test_nobody_else_may_write_the_file_that_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    checkpoint = left(path, 20)
    with (
        h5py.File(path, "r+"),
        pytest.raises(ResultError, match="another run is writing this result file"),
        writer(path, earlier=Earlier(path, checkpoint)) as result,
    ):
        result.start()


def test_only_the_end_of_a_segment_can_be_kept(tmp_path: Path) -> None:
    with writer(tmp_path / "run.h5") as result:
        write(result, 0, 4)
        with pytest.raises(ResultError, match="step 4 does not end a segment of 12 steps"):
            result.checkpoint("{}")


def test_parts_that_killed_runs_left_are_removed(tmp_path: Path) -> None:
    (tmp_path / "run.h5.1.part").write_text("left over")
    (tmp_path / "other.h5.1.part").write_text("of another run")
    with h5py.File(tmp_path / "run.h5.2.part", "w"), writer(tmp_path / "run.h5") as result:
        write(result, 0, 1)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["other.h5.1.part", "run.h5", "run.h5.2.part"]


# --- slots -------------------------------------------------------------------------------------------------------


def test_slots_grow_and_the_other_one_stays(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run.h5", "w") as file:
        create_slots(file)
        assert read_checkpoints(file) == {}
        first, second = Checkpoint(8, {"a/b": 3}, "x"), Checkpoint(16, {"a/b": 5}, "ä" * 200_000)
        write_checkpoint(file, first, 1)
        write_checkpoint(file, second, 0)
        assert read_checkpoints(file) == {1: first, 0: second}
        third = Checkpoint(24, {"a/b": 5}, "short")
        write_checkpoint(file, third, 0)
        assert read_checkpoints(file) == {1: first, 0: third}


@pytest.mark.parametrize("byte", [0, 20, 45, 60])
def test_a_torn_slot_does_not_count(tmp_path: Path, byte: int) -> None:
    path = tmp_path / "run.h5"
    left(path, 25)
    with h5py.File(path, "r+") as file:
        slot = file[CHECKPOINT]["even"]
        slot[byte] = slot[byte] ^ 1
    with open_results(path) as results:
        found = results.checkpoint()
    assert found is not None
    assert found.step == 12
