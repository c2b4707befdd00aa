"""ISPs of a day: numbered from 1 at midnight of a time zone. A day on which clocks change has fewer or more of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from cosim.clock import zone


@dataclass(frozen=True)
class Isps:
    """The ISPs of ``minutes`` each of one day of a time zone by its IANA name; raises ValueError for one unknown."""

    day: date
    time_zone: str
    minutes: int

    def __post_init__(self) -> None:
        if self.length % timedelta(minutes=self.minutes):
            raise ValueError(f"{self.length} of {self.day} are no whole number of ISPs of {self.minutes} minutes")

    @property
    def begin(self) -> datetime:
        """Midnight [UTC]."""
        return _midnight(self.day, self.time_zone)

    @property
    def length(self) -> timedelta:
        """23, 24 or 25 hours."""
        return _midnight(self.day + timedelta(days=1), self.time_zone) - self.begin

    @property
    def count(self) -> int:
        return self.length // timedelta(minutes=self.minutes)

    def instant(self, number: int) -> datetime:
        """When an ISP begins [UTC]."""
        return self.begin + (number - 1) * timedelta(minutes=self.minutes)

    def number(self, instant: datetime) -> int:
        """The ISP that begins then. Raises ValueError when none of this day does."""
        passed, rest = divmod(instant - self.begin, timedelta(minutes=self.minutes))
        if rest or not 0 <= passed < self.count:
            raise ValueError(f"no ISP of {self.day} in {self.time_zone} begins at {instant}")
        return passed + 1


def isps_at(instant: datetime, time_zone: str, minutes: int) -> Isps:
    """The ISPs of the day that an instant is in."""
    return Isps(instant.astimezone(zone(time_zone)).date(), time_zone, minutes)


def _midnight(day: date, time_zone: str) -> datetime:
    return datetime.combine(day, time(), zone(time_zone)).astimezone(UTC)
