"""The part of the scenario schema about flexibility bought forward, and about buyers other than the grid's operator."""

from __future__ import annotations

from datetime import time
from typing import Literal, Self

from pydantic import Field, model_validator

from cosim.scenario.values import Day, NonNegative, Number, Part, Positive, Share, TimeOfDay, Whole

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEK: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class WindowConfig(Part):
    """Hours of days in local time."""

    begin: TimeOfDay = Field(time(0), description="local time at which it begins on each day")
    end: TimeOfDay = Field(time(0), description="local time at which it ends; on the next day where not after begin")
    weekdays: tuple[Weekday, ...] = Field(WEEK, min_length=1, description="days on which it begins")
    first_day: Day | None = Field(None, description="first day; default: that of the run")
    last_day: Day | None = Field(None, description="last day; default: that of the run")


class ContractConfig(Part):
    """Flexibility bought forward: in its window the resource offers it at the strike price or less."""

    resource: str = Field(description="resource that delivers; of an entry with several PODs `<name>:<POD>`")
    direction: Literal["up", "down"] = Field(description="up raises net injection, down lowers it")
    committed_kw: Positive = Field(description="quantity that is kept ready [kW]")
    strike_eur_per_kwh: Number = Field(description="highest price asked for what is activated [EUR/kWh]")
    availability_eur_per_kw: NonNegative = Field(0.0, description="paid for the whole window, called or not [EUR/kW]")
    window: WindowConfig = Field(description="when it may be called; {} for always")
    max_activations: Whole | None = Field(None, ge=1, description="MTUs in which it is called at most; default: any")
    availability_full: Share = Field(0.9, gt=0.0, description="share offered of what is owed that is paid in full [1]")
    availability_zero: Share = Field(0.5, description="share offered below which nothing is paid [1]")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.availability_zero > self.availability_full:
            raise ValueError(
                f"availability_zero {self.availability_zero:g} must not be above availability_full "
                f"{self.availability_full:g}"
            )
        return self


class NeedConfig(Part):
    """Net flexibility that somebody else buys in the local market, e.g. a balance responsible party."""

    buyer: str = Field(pattern=r"^\w+$", description="who pays")
    direction: Literal["up", "down"] = Field(description="up: short of injection; down: long")
    need_kw: Positive = Field(description="net quantity needed [kW]")
    max_price_eur_per_kwh: Number | None = Field(
        None, description="bought as far as it costs no more [EUR/kWh]; default: bought at any price"
    )
    window: WindowConfig = Field(description="when it is needed; {} for always")
    where: tuple[str, ...] = Field(
        ("system",), min_length=1, description="perimeters or balance responsible parties of resources, or system"
    )
