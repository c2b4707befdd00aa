"""The table of wall-clock times."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from cosim.clock import Clock
from cosim.domain.frames import Signal
from cosim.io.results import open_results
from cosim.io.store import ResultWriter
from cosim.report.timing import timing_text


def made(path: Path, steps: int, *, times: bool = True) -> Path:
    """Step k: the grid 2 ms, half of it for outputs; the market k ms; 5 ms more in between; segments of 5 steps."""
    clock = Clock(datetime(2020, 1, 1, tzinfo=UTC), 900, steps, 900)
    with ResultWriter(path, clock, 100, "none", {"name": "demo", "scenario": '{"name": "demo"}'}) as result:
        result.declare("grid", "head", [Signal("p_kw", "kW", "", "feeder", ("f",))])
        for step in range(steps):
            result.write(step, "grid", "head", "p_kw", [1.0])
            if times:
                begin_s = 0.0 if step % 5 else (0.3 if step == 0 else 0.02)
                seconds = {"grid": 0.002, "grid.data": 0.001, "market": 0.001 * step}
                result.timing(step, {**seconds, "run.step": 0.007 + 0.001 * step, "run.begin": begin_s})
            result.end_step(step)
        result.finish("complete")
    return path


def test_table(tmp_path: Path) -> None:
    with open_results(made(tmp_path / "run.h5", 20)) as results:
        text = timing_text(results)
        assert list(results.timing().columns) == ["grid", "market"]
        assert list(results.phases().columns) == ["grid", "grid.data", "market", "run.begin", "run.step"]
    assert text.splitlines() == [
        "demo: wall-clock time of 20 steps",
        "[ms a step]      step: mean  median    95 %  data: mean  share [%]",
        "market                9.500   9.500  18.050       0.000       57.6",
        "grid                  1.000   1.000   1.000       1.000       12.1",
        "mosaik, waiting       5.000   5.000   5.000                   30.3",
        "all of it            16.500  16.500  25.050                  100.0",
        "steps 0.33 s in all; 0.36 s to begin 4 segments, 20.0 ms each after the first (median)",
        "first tenth of steps 7.500 ms, last tenth 25.500 ms a step: 3.40 times",
    ]


@pytest.mark.parametrize(("steps", "times"), [(3, False), (1, True)])
def test_little_to_tell(tmp_path: Path, steps: int, times: bool) -> None:
    with open_results(made(tmp_path / "run.h5", steps, times=times)) as results:
        text = timing_text(results)
    assert ("no times recorded" in text) != times
    assert "tenth" not in text


def test_times_of_simulators_alone(tmp_path: Path) -> None:
    """As files hold them that were written before phases were."""
    clock = Clock(datetime(2020, 1, 1, tzinfo=UTC), 900, 2, 900)
    with ResultWriter(tmp_path / "run.h5", clock, 2, "none", {"name": "old", "scenario": "{}"}) as result:
        for step in range(2):
            result.timing(step, {"grid": 0.004})
            result.end_step(step)
        result.finish("complete")
    with open_results(tmp_path / "run.h5") as results:
        lines = timing_text(results).splitlines()
    assert lines[2].split() == ["grid", "4.000", "4.000", "4.000", "0.000", "100.0"]
    assert lines[4].split()[:4] == ["all", "of", "it", "4.000"]
    assert np.isfinite([float(cell) for cell in lines[4].split()[3:]]).all()
