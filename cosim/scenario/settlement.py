"""The part of the scenario schema about measurement and settlement."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cosim.scenario.values import NonNegative, Number, Part, Share, Switch, Whole

BaselineName = Literal["schedule", "model", "meter_before_after", "high_x_of_y", "zero"]


class SettlementConfig(Part):
    """What is measured of what the market bought, and what that costs whom."""

    baseline: BaselineName = Field(
        "schedule",
        description="what a POD would have drawn: as declared at the gate, as the simulation without activation says, "
        "as metered before, on similar days, or nothing",
    )
    missing: Share = Field(0.0, description="probability that the value of a meter for an MTU is missing [1]")
    tolerance: Share = Field(0.10, description="share of what was awarded that may be missing without a penalty [1]")
    penalty_factor: NonNegative = Field(0.0, description="a missing kWh costs this [of the price paid]")
    penalty_eur_per_kwh: NonNegative = Field(0.0, description="and this in addition [EUR/kWh]")
    penalty_basis: Literal["clipped", "raw"] = Field(
        "clipped", description="raw counts what was delivered in the wrong direction as missing too"
    )
    two_sided: Switch = Field(False, description="whether too much, beyond the tolerance, costs the same")
    failures: Whole | None = Field(
        None, ge=1, description="calls in a row short of the tolerance after which a POD is suspended; default: never"
    )
    suspension_days: Whole = Field(1, ge=1, description="days in which nothing of it is offered [d]")
    correction: Literal["none", "ordered", "delivered"] = Field(
        "delivered", description="what is taken out of the positions of BRPs: the buyer of an activation answers for it"
    )
    imbalance_eur_per_kwh: Number = Field(0.10, description="one price of imbalances [EUR/kWh]")
    compensation_eur_per_kwh: Number | None = Field(
        None, description="for energy that sellers sold and suppliers supplied [EUR/kWh]; default: not paid for"
    )
    brp: str = Field(
        "brp", min_length=1, description="balance responsible party of PODs for which no resource names one"
    )
    supplier: str = Field("supplier", min_length=1, description="supplier of all PODs")
    loss_party: str = Field("dso", min_length=1, description="who answers for losses")
    imbalance_party: str = Field("tso", min_length=1, description="who buys and sells imbalances")
