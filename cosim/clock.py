"""Simulated time: the only source of instants, steps and market time units (MTU).

Time is UTC. Step ``k`` is the half-open interval ``[start + k*step, start + (k+1)*step)``; mosaik time is
seconds since ``start``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

_UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d+)\s*(s|min|h|d)")
DURATION_FORM = "a whole number with a unit s, min, h or d, for example 15min or 3d"


def parse_duration_s(text: str) -> int:
    """Seconds of a duration such as ``15min``, ``2h``, ``3d``, ``90s``.

    Raises ValueError when the text has no such form or the duration is zero.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"not a duration: {text!r}; expected {DURATION_FORM}")
    return int(match[1]) * _UNITS_S[match[2]]


def format_duration(seconds: int) -> str:
    """The shortest text that ``parse_duration_s`` reads back, e.g. ``259200`` -> ``3d``."""
    for unit in ("d", "h", "min"):
        if seconds % _UNITS_S[unit] == 0:
            return f"{seconds // _UNITS_S[unit]}{unit}"
    return f"{seconds}s"


def zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name such as ``Europe/Rome``. Raises ValueError when there is none of that name."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        close = get_close_matches(name, sorted(available_timezones()), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ", for example UTC, Etc/GMT-1, Europe/Rome"
        raise ValueError(f"no time zone {name!r}{hint}") from None


@dataclass(frozen=True)
class Clock:
    """The time base of one run.

    ``start`` is an aware UTC datetime; ``step_s`` and ``mtu_s`` are whole seconds, the MTU a whole number of steps.
    """

    start: datetime
    step_s: int
    steps: int
    mtu_s: int

    def __post_init__(self) -> None:
        if self.start.tzinfo is not UTC:
            raise ValueError(f"clock start must be UTC, got {self.start!r}")

    @property
    def until_s(self) -> int:
        """End of the run [s], exclusive."""
        return self.steps * self.step_s

    @property
    def steps_per_mtu(self) -> int:
        return self.mtu_s // self.step_s

    def instant(self, t_s: float) -> datetime:
        """UTC time of mosaik time ``t_s`` [s]."""
        return self.start + timedelta(seconds=t_s)

    def step_index(self, t_s: int) -> int:
        """Index of the step that begins at or contains ``t_s`` [s]."""
        return t_s // self.step_s

    def begins_mtu(self, t_s: int) -> bool:
        """Whether a market time unit begins at ``t_s`` [s]."""
        return t_s % self.mtu_s == 0
