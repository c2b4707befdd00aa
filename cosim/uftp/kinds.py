"""Kinds of attribute values: which text is one, and how a value is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final

Value = str | int | bool | Decimal | date | datetime

SPACES: Final = " \t\r\n"
PRICE_STEP: Final = Decimal("0.0001")
FACTOR_STEP: Final = Decimal("0.01")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INSTANT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9]|[+-]14:00)"
)
_MINUTES = re.compile(r"PT([0-9]{1,4})M")


@dataclass(frozen=True)
class Kind:
    """``read(text)`` is the value, or raises ValueError; ``write(value)`` is its text; ``allowed`` says what may be."""

    allowed: str
    read: Callable[[str], Value]
    write: Callable[[Value], str] = str

    def text_of(self, value: Value) -> str:
        """The text of a value; raises ValueError if reading it does not give the value back."""
        text = self.write(value)
        if self.read(text) != value:
            raise ValueError(f"{value!r} would be read as {self.read(text)!r}")
        return text


def _pattern(pattern: str, allowed: str) -> Kind:
    whole = re.compile(pattern)

    def read(text: str) -> Value:
        if not whole.fullmatch(text):
            raise ValueError(text)
        return text

    return Kind(allowed, read)


def _one_of(*words: str) -> Kind:
    return _pattern("|".join(words), " or ".join(words))


def _integer(allowed: str, low: int | None = None, high: int | None = None) -> Kind:
    def read(text: str) -> Value:
        bare = text.strip(SPACES)
        if not _INTEGER.fullmatch(bare) or len(bare) > 40:
            raise ValueError(text)
        number = int(bare)
        if (low is not None and number < low) or (high is not None and number > high):
            raise ValueError(text)
        return number

    return Kind(allowed, read)


def _decimal(allowed: str, digits: int | None = None, low: str = "-Infinity", high: str = "Infinity") -> Kind:
    def read(text: str) -> Value:
        bare = text.strip(SPACES)
        if not _DECIMAL.fullmatch(bare) or len(bare) > 40:
            raise ValueError(text)
        number = Decimal(bare)
        fraction = bare.partition(".")[2].rstrip("0")
        if not Decimal(low) <= number <= Decimal(high) or (digits is not None and len(fraction) > digits):
            raise ValueError(text)
        return number

    return Kind(allowed, read, lambda value: f"{value:f}")


def _read_boolean(text: str) -> Value:
    words: dict[str, Value] = {"true": True, "1": True, "false": False, "0": False}
    try:
        return words[text.strip(SPACES)]
    except KeyError:
        raise ValueError(text) from None


def _read_day(text: str) -> Value:
    if not _DATE.fullmatch(text):
        raise ValueError(text)
    return date.fromisoformat(text)


def _read_instant(text: str) -> Value:
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    seconds, fraction, zone = match[1], match[2] or "", match[3]
    instant = datetime.fromisoformat(seconds + fraction[:7] + zone.replace("Z", "+00:00"))
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError(text) from None


def _write_instant(value: Value) -> str:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(f"{value!r} is no instant with a time zone")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _read_minutes(text: str) -> Value:
    match = _MINUTES.fullmatch(text)
    if match is None or not 0 < int(match[1]) <= timedelta(days=1).total_seconds() / 60:
        raise ValueError(text)
    return int(match[1])


TEXT: Final = Kind("text", str)
VERSION: Final = _pattern(r"\d+\.\d+\.\d+", "three numbers such as 3.0.0")
UUID: Final = _pattern("[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}", "a UUID, 8-4-4-4-12 hexadecimal digits")
DOMAIN: Final = _pattern(r"([a-z0-9]+(-[a-z0-9]+)*\.)+[a-z]{2,}", "an Internet domain in lower case")
ADDRESS: Final = _pattern(
    r"ea1\.[0-9]{4}-[0-9]{2}\.[^\r\n]{1,244}:[^\r\n]{1,244}|ean\.[0-9]{12,34}",
    "an entity address, ea1.yyyy-mm.<domain>:<name> or ean.<12 to 34 digits>",
)
CURRENCY: Final = _pattern("[A-Z]{3}", "three capitals such as EUR")
ZONE: Final = _pattern(
    "(Africa|America|Australia|Europe|Pacific)/[a-zA-Z0-9_/]{3,}",
    "a time zone of Africa, America, Australia, Europe or Pacific, such as Europe/Rome",
)
METER: Final = _pattern("[Ee][0-9]{16}", "E and 16 digits")
RESULT: Final = _one_of("Accepted", "Rejected")
SPACE: Final = _one_of("Available", "Requested")
VERDICT: Final = _one_of("Accepted", "Disputed")
PROFILE: Final = _one_of("Power", "ImportEnergy", "ExportEnergy", "ImportMeterReading", "ExportMeterReading")
UNIT: Final = _one_of("kW", "kWh")
WATTS: Final = _integer("a whole number of watts")
NUMBER: Final = _integer("a whole number")
COUNT: Final = _integer("a whole number from 1", low=1)
LONG: Final = _integer("a whole number of 64 bits", -(2**63), 2**63 - 1)
AMOUNT: Final = _decimal("a number with at most 4 decimals", digits=4)
FACTOR: Final = _decimal("0.01 to 1.00, with at most 2 decimals", digits=2, low="0.01", high="1.00")
READING: Final = _decimal("a number")
YES_NO: Final = Kind("true or false", _read_boolean, lambda value: "true" if value else "false")
DAY: Final = Kind("a day, yyyy-mm-dd", _read_day)
INSTANT: Final = Kind("date and time with time zone, such as 2024-03-31T00:15:00Z", _read_instant, _write_instant)
MINUTES: Final = Kind("whole minutes such as PT15M, a day at most", _read_minutes, lambda value: f"PT{value}M")
