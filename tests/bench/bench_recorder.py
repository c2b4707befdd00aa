"""Cost of recording: the result writer against mosaik-hdf5, CPU time in the process for the same values.

Run ``python tests/bench/bench_recorder.py``. mosaik-hdf5 is driven as mosaik drives it (init, create, step with one
entity per signal), without a world around it.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from cosim.clock import Clock
from cosim.domain.frames import Floats, Signal, frozen
from cosim.io.store import ResultWriter

SIGNALS, STEPS = 1000, 5760
CLOCK = Clock(datetime(2020, 1, 1, tzinfo=UTC), 900, STEPS, 900)

Row = tuple[str, float, float, float]


def values() -> list[Floats]:
    """Values of each step, shape (SIGNALS,): slow changes with noise on the last digits, as solved grids have."""
    generator = np.random.Generator(np.random.Philox(1))
    daily = np.sin(np.arange(STEPS)[:, None] * 2 * np.pi / 96 + np.arange(SIGNALS))
    return [frozen(row) for row in daily + 1e-6 * generator.normal(size=(STEPS, SIGNALS))]


def record(path: Path, rows: list[Floats], compression: Literal["gzip", "none"], arrays: int) -> None:
    """All values by the result writer, as ``arrays`` signals of equally many elements."""
    width = SIGNALS // arrays
    elements = tuple(f"element{k}" for k in range(width))
    names = [f"model{k}" for k in range(arrays)]
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
    import mosaik_hdf5

    simulator = mosaik_hdf5.MosaikHdf5()
    simulator.init("hdf5", time_resolution=1.0, step_size=CLOCK.step_s, duration=CLOCK.until_s)
    simulator.create(1, "Database", filename=str(path))
    sources = [f"sim-0.element{k}" for k in range(SIGNALS)]
    for step, row in enumerate(rows):
        inputs = {"hdf5db": {"p_kw": dict(zip(sources, row.tolist(), strict=True))}}
        simulator.step(step * CLOCK.step_s, inputs, CLOCK.until_s)
    simulator.db.close()


def cpu_s(work: Callable[[], None]) -> float:
    """CPU time [s] of the process for one run of ``work``."""
    gc.collect()
    begin = time.process_time()
    work()
    return time.process_time() - begin


def row_cost_us() -> float:
    """CPU time [us] that ``write`` takes a step for 30 arrays of 5 to 50 elements, without flushes."""
    elements = tuple(f"element{k}" for k in range(50))
    sizes = [5 + k * 45 // 29 for k in range(30)]
    arrays = [frozen(np.ones(size)) for size in sizes]
    steps = 2000
    clock = Clock(CLOCK.start, 900, steps, 900)
    with (
        tempfile.TemporaryDirectory() as folder,
        ResultWriter(Path(folder, "a.h5"), clock, steps, "none", {}) as result,
    ):
        for k, size in enumerate(sizes):
            result.declare("sim", f"m{k}", [Signal("x", "1", "", "element", elements[:size])])
        names = [f"m{k}" for k in range(30)]
        result.start()

        def write_all() -> None:
            for step in range(steps):
                for name, array in zip(names, arrays, strict=True):
                    result.write(step, "sim", name, "x", array)

        cost = cpu_s(write_all)
        result.finish("interrupted")
    return cost / steps * 1e6


def bench() -> list[Row]:
    """Rows (name, ours, reference, reference / ours): CPU seconds; the last row in us a step against its target."""
    rows = values()
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        reference = cpu_s(lambda: record_by_mosaik_hdf5(Path(folder, "reference.h5"), rows))
        for arrays, compression in ((1, "none"), (20, "none"), (1, "gzip"), (20, "gzip")):
            work = partial(record, Path(folder, "ours.h5"), rows, compression, arrays)
            ours = min(cpu_s(work) for _ in range(3))
            name = f"recorder, {arrays} x {SIGNALS // arrays} signals x {STEPS} steps, {compression} [s]"
            found.append((name, ours, reference, reference / ours))
    cost, target = row_cost_us(), 100.0
    return [
        *found,
        ("write 30 arrays of 5 to 50 elements, against the target [us a step]", cost, target, target / cost),
    ]


def main() -> list[Row]:
    """Print and return the rows of ``bench``."""
    rows = bench()
    for name, ours, reference, ratio in rows:
        print(f"{name:70s} {ours:10.3f} {reference:10.3f} {ratio:8.1f}x")
    return rows


if __name__ == "__main__":
    main()
