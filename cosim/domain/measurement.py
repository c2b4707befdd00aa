"""Measurements: where a quantity is measured, how well, and what arrived."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from cosim.domain.frames import Codes, Floats

UNITS = {"p_kw": "kW", "q_kvar": "kvar", "vm_pu": "pu", "i_a": "A", "e_kwh": "kWh"}
QUANTITIES = tuple(UNITS)


class Quality(IntEnum):
    """How a value of a snapshot came about; anything but GOOD carries NaN."""

    GOOD = 0
    MISSING = 1
    LATE = 2


@dataclass(frozen=True)
class Place:
    """Where a quantity is measured: at a bus (net consumption of all PODs there; mean phase voltage), or in a
    branch at one of its ends (flow from that end into the branch), or at a storage unit (POD id). With ``phase`` only
    that one: of a bus the PODs between the phase and ground, of a branch the flow through that conductor."""

    bus: str | None = None
    branch: str | None = None
    end: str | None = None
    storage: str | None = None
    phase: int | None = None

    def __str__(self) -> str:
        where = f"storage {self.storage}" if self.bus is None else f"bus {self.bus}"
        if self.branch is not None:
            where = f"branch {self.branch} at {self.end}"
        return where if self.phase is None else f"{where}, phase {self.phase}"


@dataclass(frozen=True)
class Channel:
    """One measured quantity of one sensor; its topic ``<type>/<number>/<quantity>`` is its id.

    ``sigma`` is the standard deviation of its error in the unit of the quantity.
    """

    meter: str
    topic: str
    quantity: str
    place: Place
    sigma: float

    @property
    def unit(self) -> str:
        return UNITS[self.quantity]


class Message(NamedTuple):
    """One published value. ``stamp_s`` is the sensor's own time of measurement [s since start], ``step`` the step
    in which it is published, ``sequence`` counts the messages of its topic from 0."""

    topic: str
    step: int
    sequence: int
    stamp_s: float
    value: float
    unit: str


@dataclass(frozen=True)
class Snapshot:
    """The measurements that belong to one instant: ``value`` and ``quality`` of shape (n_channel,)."""

    value: Floats
    quality: Codes
