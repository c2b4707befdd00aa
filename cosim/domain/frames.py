"""What a simulator's attributes carry: arrays over named elements, described well enough to be stored and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
Complexes = npt.NDArray[np.complex128]

PASSIVE_SIGN = "consumption > 0, injection < 0"
HEAD_SIGN = "import > 0, reverse power flow < 0"

RECORDED = "recorded"
"""The attribute by which a model gives all of its signals and tables to the recorder at once, by name. mosaik carries
attributes one by one, and every one costs."""


@dataclass(frozen=True)
class Signal:
    """One attribute of a simulator's model: a value per element at every step.

    ``elements`` are the ids along the element axis, in order; ``axis`` names that axis (``node``, ``branch``, ...).
    ``codes`` gives the meaning of each value of an ``int8`` signal (CF ``flag_meanings``), empty for floats.
    """

    attribute: str
    unit: str
    long_name: str
    axis: str
    elements: tuple[str, ...]
    sign: str = ""
    codes: tuple[str, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int8 if self.codes else np.float64)


@dataclass(frozen=True)
class EventTable:
    """A table of events of a simulator's model, e.g. orders: one row an event.

    ``columns`` maps a column name to its unit; the column named ``t_s`` and all others with a unit are numbers,
    a column whose unit is ``None`` is text.
    """

    name: str
    long_name: str
    columns: dict[str, str | None]


@dataclass(frozen=True)
class Message:
    """What one simulator tells another, a list in plain JSON but for arrays; not recorded. It holds until the next, or
    is said ``once``."""

    name: str
    long_name: str
    once: bool = False


def frozen(values: Any, dtype: type = np.float64) -> npt.NDArray[Any]:
    """A read-only copy of ``values`` as an array, safe to pass by reference between simulators."""
    array: npt.NDArray[Any] = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array
