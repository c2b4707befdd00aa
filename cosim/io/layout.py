"""Names of the result file's layout, and what its names and texts may be. See ``docs/hdf5_layout.md``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from cosim.domain.frames import Signal

FORMAT = "cosim-result"
FORMAT_VERSION = 1
STEPS_RECORDED = "steps_recorded"
ROWS_RECORDED = "rows_recorded"
MISSING_CODE = -1
CHECKPOINT = "checkpoint"
TIMING = "timing"
BESIDES = (CHECKPOINT, TIMING)
"""Groups that hold no results."""
RESERVED = ("time", "row", *BESIDES)
"""Names that no simulator, model, attribute or column may have."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*")
_CODE = re.compile(r"[A-Za-z0-9_.@+-]+")


def text_of(text: str) -> str:
    """``text`` as HDF5 can hold it: valid UTF-8 without NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def name_faults(*names: str) -> list[str]:
    """What is wrong with the names of groups and data sets, in words."""
    faults = [
        f"name {name!r} must be letters, digits and _ . @ + - and begin with a letter, a digit or _"
        for name in names
        if not _NAME.fullmatch(name)
    ]
    return faults + [f"name {name!r} is reserved" for name in names if name in RESERVED]


def signal_faults(place: str, signal: Signal, signals: Sequence[Signal]) -> list[str]:
    """What is wrong with a signal declared at ``place`` together with ``signals``, in words."""
    name, faults = f"{place}/{signal.attribute}", []
    if sum(other.attribute == signal.attribute for other in signals) > 1:
        faults.append(f"{name} is given twice")
    if any(signal.attribute == other.axis for other in signals):
        faults.append(f"{name} has the name of an axis")
    if any(other.axis == signal.axis and other.elements != signal.elements for other in signals):
        faults.append(f"{place}: signals disagree on the elements of axis {signal.axis!r}")
    repeated = sorted(element for element, count in Counter(signal.elements).items() if count > 1)
    if repeated:
        faults.append(f"{name} has elements more than once: {', '.join(repeated)}")
    if any(text_of(element) != element or not element for element in signal.elements):
        faults.append(f"{name} has an element id that is empty or not valid UTF-8 text without NUL")
    wrong = [code for code in signal.codes if not _CODE.fullmatch(code)]
    if wrong or len(signal.codes) > np.iinfo(np.int8).max:
        faults.append(f"{name}: at most 127 codes of letters, digits and _ . @ + - are possible; wrong: {wrong}")
    return faults
