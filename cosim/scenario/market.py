"""The part of the scenario schema about flexibility: resources, aggregators, the DSO's forecast, the market."""

from __future__ import annotations

from datetime import time
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from cosim.scenario.measures import MeasureConfig
from cosim.scenario.procurement import ContractConfig, NeedConfig
from cosim.scenario.values import (
    Duration,
    NonNegative,
    Number,
    Part,
    Positive,
    Share,
    Switch,
    TimeOfDay,
    TimeSeriesFile,
    Whole,
    form,
)

KINDS = ("load", "pv", "battery", "vehicle", "heat_pump")


class FlexibleLoad(Part):
    """A share of the POD's own load that can be shed."""

    curtailable: Share = Field(description="share of the load that can be shed [1]")
    rebound: tuple[NonNegative, ...] = Field((), description="shares of it drawn in addition 1, 2, ... MTUs later [1]")

    @field_validator("rebound")
    @classmethod
    def _at_most_all(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if sum(value) > 1.0:
            raise ValueError(f"shares of the rebound add up to {sum(value):g}, which is above 1")
        return value


class FlexiblePv(Part):
    """Generation of the POD's own profile that can be curtailed."""

    curtailable: Share = Field(1.0, description="share of the generation that can be given up [1]")


class FlexibleBattery(Part):
    """A battery at the POD; at a POD of kind storage the feeder's own."""

    p_max_kw: Positive | None = Field(None, description="rated power [kW]; default: the feeder's")
    e_max_kwh: Positive | None = Field(None, description="capacity [kWh]; default: the feeder's")
    reserve_kwh: NonNegative | None = Field(
        None, description="stored energy below which it does not discharge [kWh]; default: the feeder's, else 0"
    )
    efficiency: Share | None = Field(
        None, gt=0.0, description="of charging, and of discharging [1]; default: the feeder's, else 0.95"
    )
    initial: Share = Field(0.5, description="stored energy at the start [of the capacity]")
    rest: Share | None = Field(
        None, description="stored energy it returns to by itself [of the capacity]; default: none"
    )
    rest_kw: NonNegative = Field(0.0, description="power at which it does [kW]")


class Stay(Part):
    """A daily stay of a vehicle at the charger."""

    arrive: TimeOfDay = Field(description="local time of arrival")
    depart: TimeOfDay = Field(description="local time of departure; on the next day where before the arrival")
    need_kwh: Positive = Field(description="energy that goes into the vehicle's battery [kWh]")


class FlexibleVehicle(Part):
    """A charger at the POD, in addition to its profile."""

    p_max_kw: Positive = Field(description="rated power [kW]")
    stays: tuple[Stay, ...] = Field(min_length=1, description="stays of every day")
    spread: Duration = Field(
        60, description="arrival and departure of each day and resource are drawn within this around the times given"
    )
    efficiency: Share = Field(0.92, gt=0.0, description="of charging [1]")
    charging: Literal["at_once", "evenly"] = Field("at_once", description="how it charges without activation")


class Outdoor(TimeSeriesFile):
    """Outdoor temperatures from a CSV or Parquet file with a column temperature_c."""


class FlexibleHeatPump(Part):
    """A heat pump and the building it warms, in addition to the POD's profile."""

    p_max_kw: Positive = Field(description="rated electrical power [kW]")
    cop: Positive = Field(3.0, description="coefficient of performance [1]")
    capacity_kwh_per_k: Positive = Field(description="heat capacity of the building [kWh/K]")
    resistance_k_per_kw: Positive = Field(description="thermal resistance of the building [K/kW]")
    set_c: Number = Field(20.0, description="indoor temperature wanted [degree C]")
    comfort_k: Positive = Field(1.0, description="departure from it that is accepted [K]")
    outdoor: Annotated[Annotated[Outdoor, Tag("structure")] | Annotated[Number, Tag("word")], Discriminator(form)] = (
        Field(5.0, description="outdoor temperature, constant [degree C] or from a file")
    )


class Delivery(Part):
    """How an activation can fail."""

    shortfall: Share = Field(0.0, description="up to this share of an activation is missing, drawn for each MTU [1]")
    between_outages: Duration | None = Field(None, description="mean time within reach; default: always")
    outage: Duration = Field(3600, description="mean time out of reach")
    planned: Share = Field(0.0, description="share of an activation that the market allows for failing [1]")


class ResourceConfig(Part):
    """Flexible resources of one kind, one at each POD named."""

    pods: Annotated[
        Annotated[tuple[str, ...], Field(min_length=1), Tag("structure")]
        | Annotated[Literal["all_load", "all_pv", "all_generator", "all_storage"], Tag("word")],
        Discriminator(form),
    ] = Field(description="PODs that each have one, or all of one kind of the feeder")
    aggregator: str = Field("aggregator", pattern=r"^\w+$", description="who sells it")
    load: FlexibleLoad | None = Field(None, description="load that can be shed")
    pv: FlexiblePv | None = Field(None, description="generation that can be curtailed")
    battery: FlexibleBattery | None = Field(None, description="battery")
    vehicle: FlexibleVehicle | None = Field(None, description="charger of an electric vehicle")
    heat_pump: FlexibleHeatPump | None = Field(None, description="heat pump")
    up_eur_per_kwh: Number = Field(0.2, description="asked for a higher net injection [EUR/kWh]")
    down_eur_per_kwh: Number = Field(0.2, description="asked for a lower net injection [EUR/kWh]")
    price_spread: Share = Field(
        0.0, description="prices of the resources are drawn within this share around those given [1]"
    )
    up_kw: NonNegative | None = Field(None, description="registered capability [kW]; default: what it can do")
    down_kw: NonNegative | None = Field(None, description="registered capability [kW]; default: what it can do")
    power_factor: Number | None = Field(
        None, gt=0.0, le=1.0, description="reactive power moves with its power by this; default: the POD's, else 1"
    )
    perimeter: str = Field("", description="DSO perimeter; default: the feeder")
    brp: str = Field("", description="balance responsible party")
    delivery: Delivery = Field(Delivery(), description="how an activation can fail")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a resource is exactly one of {', '.join(KINDS)}; here: {', '.join(given) or 'none'}")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)


class AggregatorConfig(Part):
    """How an aggregator offers what its resources can do."""

    delivery: Literal["single", "fixed_shares", "any_split"] = Field(
        "single", description="who delivers: each resource for itself, all in fixed shares, any in any split"
    )
    min_kw: NonNegative = Field(0.0, description="smallest quantity offered [kW]")
    step_kw: NonNegative = Field(0.0, description="quantities are multiples of this [kW]")
    min_accept: Share = Field(0.0, description="share of a bid that must be accepted if any is [1]")


class ForecastConfig(Part):
    """What the DSO expects of the PODs, with half-bands that bound the error."""

    method: Literal["corrected", "profile", "persistence", "perfect"] = Field(
        "corrected",
        description="mean of similar days corrected by what the estimate is above it now, that mean, the estimate held "
        "on, or the truth (disturbed by a known error)",
    )
    days: Whole = Field(28, ge=2, le=180, description="days looked back [d]")
    coverage: Share = Field(0.95, gt=0.0, lt=1.0, description="share of errors within the half-band [1]")
    half_share: Share = Field(
        0.0, lt=1.0, description="perfect only: half-band and largest error [of the forecast's modulus]"
    )
    correlation: Share = Field(0.0, description="perfect only: of the errors of PODs in one MTU [1]")
    beyond: NonNegative = Field(1.0, description="perfect only: errors reach this far [half-bands]")


class DsoConfig(Part):
    """The buyer of local flexibility."""

    forecast: ForecastConfig = Field(ForecastConfig(), description="what it expects")
    measures: dict[str, MeasureConfig] = Field({}, description="what it may move in its grid in real time, by name")
    measures_mode: Literal["before", "with"] = Field(
        "before",
        description="moves come first, and only what they leave is bought; or the least cost of moves and flexibility",
    )


class UncertaintyConfig(Part):
    """Forecast errors that a plan survives, in units of the half-bands."""

    set: Literal["none", "box", "budget", "ellipsoid", "factors"] = Field("box", description="set of errors")
    gamma: NonNegative = Field(2.0, description="budget: so many deviate fully at once")
    omega: NonNegative = Field(2.0, description="ellipsoid: radius [half-bands]")
    correlation: Share = Field(0.0, description="ellipsoid: of any two PODs [1]")
    common: Share = Field(
        0.5, description="factors: share of each half-band that all PODs of a kind have in common [1]"
    )
    reactive: Literal["with_active", "independent"] = Field(
        "independent", description="whether errors of reactive power come with those of active power"
    )
    base: Literal["baseline", "residual"] = Field(
        "baseline", description="whether the half-band stays when a POD is activated or scales with what is left"
    )

    @model_validator(mode="after")
    def _linear(self) -> Self:
        if self.set == "ellipsoid" and self.base == "residual":
            raise ValueError("an ellipsoid goes with a band on the baseline only: on the residual it is not linear")
        return self


class MarketConfig(Part):
    """The local flexibility market."""

    gate: Literal["real_time", "day_ahead"] = Field(
        "real_time",
        description="the last step of an MTU clears the next one; or once a day all MTUs of the next, corrected later",
    )
    gate_time: TimeOfDay = Field(time(12, 0), description="day_ahead: local time of the gate")
    correct: Switch = Field(True, description="day_ahead: whether every MTU is cleared again in real time")
    pricing: Literal["pay_as_bid", "pay_as_clear", "pay_as_clear_uniform"] = Field(
        "pay_as_bid", description="what is paid"
    )
    spot: Switch = Field(True, description="whether aggregators offer freely beside what contracts oblige them to")
    contracts: dict[str, ContractConfig] = Field({}, description="flexibility bought forward, by name")
    needs: dict[str, NeedConfig] = Field({}, description="what others than the operator of the grid buy, by name")
    uncertainty: UncertaintyConfig = Field(UncertaintyConfig(), description="errors a plan survives")
    interface: Literal["free", "hold"] = Field(
        "free", description="whether the exchange with the grid above may change (mode 0) or not (mode 1)"
    )
    ends: Literal["both", "first"] = Field("both", description="ends of a branch at which its current is limited")
    planes: Whole = Field(64, ge=3, description="planes of a current limit")
    polygon: Literal["inscribed", "circumscribed", "best_fit"] = Field("inscribed", description="where they lie")
    voltage: Literal["projection", "norm"] = Field("projection", description="how voltage limits become linear")
    overload: Share = Field(0.0, description="currents may exceed their limit by this share [1]")
    slack_eur_per_kwh: Positive = Field(
        100.0, description="price of a limit that stays unmet, per kWh of what would do most for it [EUR/kWh]"
    )
    outer_loop: Switch = Field(True, description="whether plans are checked by the power flow and limits tightened")
    solver: Literal["highs", "cbc"] = Field("highs", description="solver of the linear programs")
    time_limit_s: Positive = Field(60.0, description="time for one linear program [s]")

    @field_validator("gate_time")
    @classmethod
    def _whole_minutes(cls, value: time) -> time:
        if value.second or value.microsecond:
            raise ValueError("a gate closes at a whole minute, without seconds")
        return value
