"""Recorder: the result writer against mosaik-hdf5 for the same values (CPU time).

mosaik-hdf5 is driven as mosaik drives it (init, create, step with one entity per signal), without a world around it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from ratios import Row, alternated, not_measured, times_as_fast

from cosim.clock import Clock
from cosim.domain.frames import Floats, Signal, frozen
from cosim.io.results import open_results
from cosim.io.store import ResultWriter

SIGNALS, STEPS, ROUNDS = 1000, 2880, 3
CLOCK = Clock(datetime(2020, 1, 1, tzinfo=UTC), 900, STEPS, 900)
SMALL_STEPS, TARGET_US = 2000, 100.0

Compression = Literal["gzip", "none"]
VARIANTS: tuple[tuple[int, Compression], ...] = ((1, "none"), (20, "none"), (1, "gzip"), (20, "gzip"))
"""Number of arrays that the signals come in, and compression."""


def values() -> list[Floats]:
    """Values of each step, shape (SIGNALS,): slow changes with noise on the last digits, as solved grids have."""
    generator = np.random.Generator(np.random.Philox(1))
    daily = np.sin(np.arange(STEPS)[:, None] * 2 * np.pi / 96 + np.arange(SIGNALS))
    return [frozen(row) for row in daily + 1e-6 * generator.normal(size=(STEPS, SIGNALS))]


def record(path: Path, rows: list[Floats], arrays: int, compression: Compression) -> None:
    """All values by the result writer, as ``arrays`` signals of equally many elements."""
    width = SIGNALS // arrays
    elements = tuple(f"element{k}" for k in range(width))
    names = [f"model{k:02}" for k in range(arrays)]
    with ResultWriter(path, CLOCK, 96, compression, {}) as result:
        for name in names:
            result.declare("sim", name, [Signal("p_kw", "kW", "power", "element", elements)])
        for step, row in enumerate(rows):
            for name, part in zip(names, row.reshape(arrays, width), strict=True):
                result.write(step, "sim", name, "p_kw", part)
            result.end_step(step)
        result.finish("complete")


def record_by_mosaik_hdf5(path: Path, rows: list[Floats]) -> None:
    """All values by mosaik-hdf5 with its default options: SIGNALS entities of one value."""
    import mosaik_hdf5  # type: ignore[import-untyped]

    simulator = mosaik_hdf5.MosaikHdf5()
    simulator.init("hdf5", time_resolution=1.0, step_size=CLOCK.step_s, duration=CLOCK.until_s)
    simulator.create(1, "Database", filename=str(path))
    sources = [f"sim-0.element{k}" for k in range(SIGNALS)]
    for step, row in enumerate(rows):
        inputs = {"hdf5db": {"p_kw": dict(zip(sources, row.tolist(), strict=True))}}
        simulator.step(step * CLOCK.step_s, inputs, CLOCK.until_s)
    simulator.db.close()


def write_small_arrays(folder: Path) -> None:
    """SMALL_STEPS rows of 30 arrays of 5 to 50 elements each, without flushes: the shape of a whole co-simulation."""
    sizes = [5 + k * 45 // 29 for k in range(30)]
    arrays = [frozen(np.ones(size)) for size in sizes]
    elements = tuple(f"element{k}" for k in range(50))
    clock = Clock(CLOCK.start, 900, SMALL_STEPS, 900)
    with ResultWriter(folder / "small.h5", clock, SMALL_STEPS, "none", {}) as result:
        names = [f"m{k}" for k in range(30)]
        for name, size in zip(names, sizes, strict=True):
            result.declare("sim", name, [Signal("x", "1", "", "element", elements[:size])])
        result.start()
        for step in range(SMALL_STEPS):
            for name, array in zip(names, arrays, strict=True):
                result.write(step, "sim", name, "x", array)
        result.finish("interrupted")


def check_recorded(path: Path, rows: list[Floats]) -> None:
    """The result file holds all values. Raises AssertionError."""
    with open_results(path) as results:
        found = np.hstack([results.frame(signal).to_numpy() for signal in results.signals()])
    np.testing.assert_array_equal(found, np.stack(rows))


def check_recorded_by_mosaik_hdf5(path: Path, rows: list[Floats]) -> None:
    """The reference's file holds the same. Raises AssertionError."""
    with h5py.File(path, "r") as file:
        found = np.stack([file[f"Series/sim-0.element{k}/p_kw"][:] for k in range(SIGNALS)], axis=1)
    np.testing.assert_array_equal(found, np.stack(rows))


def main() -> list[Row]:
    """Rows in seconds for all values; the last in microseconds a step against the target of the design."""
    rows = values()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ways: dict[str, Callable[[], None]] = {
            _title(*variant): partial(record, folder / f"{_title(*variant)}.h5", rows, *variant) for variant in VARIANTS
        }
        ways["small"] = partial(write_small_arrays, folder)
        if find_spec("mosaik_hdf5") is not None:
            ways["reference"] = partial(record_by_mosaik_hdf5, folder / "reference.h5", rows)
        seconds = alternated(ways, ROUNDS)
        for variant in VARIANTS:
            check_recorded(folder / f"{_title(*variant)}.h5", rows)
        if "reference" in seconds:
            check_recorded_by_mosaik_hdf5(folder / "reference.h5", rows)
    small_us = 1e6 * seconds["small"] / SMALL_STEPS
    return [
        *_against_mosaik_hdf5(seconds),
        times_as_fast("30 arrays of 5 to 50 elements", small_us, TARGET_US, "us/step", "target of 100 us over ours"),
    ]


def _against_mosaik_hdf5(seconds: dict[str, float]) -> list[Row]:
    if "reference" not in seconds:
        return [not_measured("against mosaik-hdf5", "it is not installed: pip install .[bench]")]
    note = f"times as fast as mosaik-hdf5 with {SIGNALS} scalar signals over {STEPS} steps"
    titles = [_title(*variant) for variant in VARIANTS]
    return [times_as_fast(title, seconds[title], seconds["reference"], "s", note) for title in titles]


def _title(arrays: int, compression: str) -> str:
    return f"{arrays} x {SIGNALS // arrays} signals, compression {compression}"


if __name__ == "__main__":
    for row in main():
        print(row)
