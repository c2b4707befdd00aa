"""Runs that are stopped and go on: short ones with all simulators on, and what counts as the same file."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from short_runs import REPOSITORY

from cosim import load_scenario, open_results, result_hash, run
from cosim.errors import Interrupted
from cosim.io.store import ResultWriter

PRIORITY = REPOSITORY / "scenarios" / "dso_priority.yaml"
MARKET = REPOSITORY / "scenarios" / "lfm_mv5.yaml"
HALF_A_DAY = ("start=2016-05-16T06:00:00+01:00", "duration=12h", "settlement={}", "recorder={checkpoint: 2h}")
STEPS = 48
SEGMENT = 8
SAME = (
    "start=2016-07-23T06:00:00+01:00",
    "duration=6h",
    "step=5min",
    "transport=memory",
    "estimator={method: wls, compare: []}",
    "operator={action: same, thresholds_kw: {SS3.battery: -600}}",
    "recorder.checkpoint=1h",
)
CHANGING = ("status", "error", "history")
Undisturbed = Callable[[Path, tuple[str, ...]], Path]


def assert_same_file(found: Path, expected: Path) -> None:
    """Every data set but wall-clock times, every attribute but what tells of the interruption."""
    assert result_hash(found) == result_hash(expected)
    with h5py.File(found, "r") as one, h5py.File(expected, "r") as other:
        assert names_of(one) == names_of(other)
        for name in names_of(one):
            left, right = one[name], other[name]
            assert (left.shape, left.dtype) == (right.shape, right.dtype), name
            assert left[()].tobytes() == right[()].tobytes() or np.array_equal(left[()], right[()]), name
            assert attributes_of(left) == attributes_of(right), name
        mine, theirs = attributes_of(one), attributes_of(other)
        assert {k: v for k, v in mine.items() if k not in CHANGING} == {
            k: v for k, v in theirs.items() if k not in CHANGING
        }
        assert mine["status"] == "'complete'"
    with open_results(found) as one_, open_results(expected) as other_:
        assert one_.checkpoint() == other_.checkpoint()


def names_of(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return [name for name in names if name.partition("/")[0] not in ("timing", "checkpoint")]


def attributes_of(place: Any) -> dict[str, str]:
    """As text: a NaN equals nothing."""
    hidden = ("DIMENSION_LIST", "REFERENCE_LIST")  # addresses within the file
    return {name: repr(np.asarray(value).tolist()) for name, value in place.attrs.items() if name not in hidden}


def stopped_after(step: int, begin: Callable[[], object], number: int = signal.SIGINT) -> None:
    """Runs until Ctrl-C in ``step``."""
    end_step = ResultWriter.end_step

    def ending(self: ResultWriter, at: int) -> None:
        end_step(self, at)
        if at == step:
            os.kill(os.getpid(), number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResultWriter, "end_step", ending)
        with pytest.raises(Interrupted, match=f"interrupted after step {step} "):
            begin()


def undisturbed_runs(folder: Callable[[str], Path]) -> Undisturbed:
    """Gives the file of a run without interruption, made once in a new folder."""
    made: dict[tuple[Path, tuple[str, ...]], Path] = {}

    def make(scenario: Path, overrides: tuple[str, ...]) -> Path:
        key = (scenario, overrides)
        if key not in made:
            made[key] = run(load_scenario(scenario, overrides), folder("undisturbed") / "run.h5").path
        return made[key]

    return make
