"""What the schemas of scenarios and feeders are made of: kinds of values, and the base of all parts."""

from __future__ import annotations

import re
from datetime import date, time
from pathlib import Path
from typing import Annotated

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    field_validator,
)

from cosim.clock import DURATION_FORM, format_duration, parse_duration_s, zone


def _duration(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError(f"not a duration; expected {DURATION_FORM}")
    return parse_duration_s(value)


def _written_as(form: str, example: str) -> BeforeValidator:
    """Keep numbers out of dates and times: pydantic would take them as seconds since 1970 or since midnight."""

    def check(value: object) -> object:
        if isinstance(value, date | time) or (isinstance(value, str) and re.fullmatch(form, value)):
            return value
        raise ValueError(f"expected the form {example}")

    return BeforeValidator(check)


def form(value: object) -> str:
    """The branch of a union that the user evidently means, so that only its faults are reported."""
    return "word" if isinstance(value, str | int | float | None) else "structure"


LARGEST_WHOLE = 2**53
"""Every language reads whole numbers up to it exactly."""

# The text in each of these is the type in the words of messages and of docs/scenario.md.
Number = Annotated[float, Strict(), "number"]
Whole = Annotated[int, Strict(), "whole number"]
Seed = Annotated[Whole, Field(ge=0, le=LARGEST_WHOLE)]
Switch = Annotated[bool, Strict(), "true or false"]
Share = Annotated[Number, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[Number, Field(ge=0.0)]
Positive = Annotated[Number, Field(gt=0.0)]
Duration = Annotated[
    int, BeforeValidator(_duration), PlainSerializer(format_duration, return_type=str), "duration such as 15min, 2h, 3d"
]
DurationOrNone = Annotated[
    int,
    BeforeValidator(lambda value: 0 if value is False else _duration(value)),
    PlainSerializer(lambda seconds: format_duration(seconds) if seconds else False),
    "duration such as 12h, 1d, or false",
]
"""0 for false."""
Instant = Annotated[
    AwareDatetime,
    _written_as(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*", "2016-07-22T00:00:00+01:00"),
    "date and time with offset such as 2016-07-22T00:00:00+01:00",
]
Day = Annotated[date, _written_as(r"\d{4}-\d\d-\d\d", "2016-07-23"), "date such as 2016-07-23"]
TimeOfDay = Annotated[time, _written_as(r"\d\d:\d\d(:\d\d)?", "18:00"), "time of day such as 18:00"]


class Part(BaseModel):
    """Base of all parts: frozen, unknown keys forbidden, no silent conversion of text to numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TimeSeriesFile(Part):
    """A CSV or Parquet file with a time stamp in each row."""

    file: Path = Field(description="CSV or Parquet file, relative to the scenario file")
    timezone: str = Field(description="zone of time stamps without offset, e.g. UTC, Etc/GMT-1, Europe/Rome")
    time_column: str = Field("time", description="name of the time column")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        zone(value)
        return value
