"""A coordination scheme: stages, each with who clears it, with what resources, limits and balance; and what crosses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import Field

from cosim.coordination.messages import MessageType
from cosim.scenario.values import Part, Switch, Whole

Role = Literal["DSO", "TSO", "IMO"]
Commodity = Literal["P", "Q"]
Balance = Literal["none", "hold", "band", "system", "target", "priced"]
Objective = Literal["least_cost", "welfare", "range", "max_up", "max_down", "caps", "validate"]

CURVES: Final = ("range", "max_up", "max_down")
SERVES: Final = (*CURVES, "caps", "validate")
"""Objectives of stages that award nothing but tell another stage what the network allows."""


class Repeat(Part):
    """A cycle of stages that ends when nothing is cut any more."""

    back_to: str = Field(description="stage to go back to")
    until: Literal["no_new_cut"] = Field("no_new_cut", description="when it ends")
    at_most: Whole = Field(20, ge=1, description="rounds; in the last one what is left over is cut for good")


class Stage(Part):
    """One call of the clearing function."""

    solver: Role = Field(description="who clears it: network operator, transmission operator, market operator")
    buyers: tuple[Literal["DSO", "TSO", "BRP"], ...] = Field(
        (), description="whose needs are served and who pays; of several, each what it is worth to them"
    )
    resources: Literal["D", "T", "DT"] = Field(
        description="resources at distribution (D), at transmission (T), or both"
    )
    network: Literal["none", "D", "T", "TD"] = Field(description="networks whose limits are kept")
    balance: Balance = Field(
        "none",
        description="what the stage does to the balance: nothing said; interface unchanged (hold), as agreed (band), "
        "as the used stage orders (target) or at a price; or need of the system",
    )
    admit: Literal["raw", "caps", "curve", "validated"] = Field(
        "raw", description="how bids of distribution reach a solver that does not know their network"
    )
    exclude: Literal["capacity", "direction", "resource"] = Field(
        "capacity", description="what of an award in an earlier stage is out: its kW, also the other direction, or all"
    )
    reversal: Literal["forbid", "pay_both", "buy_back"] = Field(
        "forbid",
        description="going back on earlier awards: not at all, by paying the other direction too, or by undoing its "
        "own at their price before that",
    )
    objective: Objective = Field("least_cost", description="what is looked for")
    limits: Literal["meet", "no_worse"] = Field(
        "meet", description="whether limits violated before have to be met, or only not made worse"
    )
    caps: Literal["max_volume", "pro_rata", "price", "perimeters"] = Field(
        "max_volume", description="how the room of the network is shared among bids; or a traffic light by perimeter"
    )
    commodity: Commodity = Field("P", description="active or reactive power at the interface")
    pricing: Literal["pay_as_bid", "pay_as_clear", "pay_as_clear_uniform"] = Field(
        "pay_as_bid", description="what is paid"
    )
    lock: Switch = Field(True, description="whether awards bind")
    uses: tuple[str, ...] = Field((), description="earlier stages whose outcome it takes")
    tells: dict[Role, MessageType] = Field({}, description="whom it tells its outcome in the end, and how")
    prequalified: Switch = Field(False, description="whether only resources on the DSO's list take part")
    fallback: Literal["none"] | None = Field(None, description="balance if limits cannot be met with the one above")
    repeat: Repeat | None = Field(None, description="go back to a stage until nothing is cut any more")

    @property
    def awards(self) -> bool:
        """Whether it buys, or only serves other stages."""
        return self.objective not in SERVES

    @property
    def joint(self) -> bool:
        """Whether it is one clearing of the whole system, not one for each area."""
        return "T" in self.resources or "T" in self.network or self.balance == "system"

    @property
    def knows_distribution(self) -> bool:
        """Whether its solver has the network of distribution before it."""
        return self.solver == "DSO" or "D" in self.network

    @property
    def takes_bids(self) -> bool:
        """Whether bids come to its solver as they are."""
        return "T" in self.resources or self.admit != "curve"


class Scheme(Part):
    """A scheme; ``messages``: what may cross, types by ``SENDER to RECEIVER``."""

    name: str = Field(description="its name")
    description: str = Field(description="what it is, in a line")
    stages: dict[str, Stage] = Field(min_length=1, description="stages in order, by name")
    messages: dict[
        Annotated[str, Field(pattern=r"^(DSO|TSO|IMO|AGG|BRP) to (DSO|TSO|IMO|AGG|BRP)$")], tuple[MessageType, ...]
    ] = Field(description="types of messages that cross, by `SENDER to RECEIVER`")

    def __hash__(self) -> int:
        return hash(self.name)

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Place of each stage in the order."""
        return {name: k for k, name in enumerate(self.stages)}

    @cached_property
    def declared(self) -> frozenset[tuple[str, str, str]]:
        """(type, sender, receiver) of all that may cross."""
        pairs = ((key.split(" to "), types) for key, types in self.messages.items())
        return frozenset((kind, sender, receiver) for (sender, receiver), types in pairs for kind in types)

    @property
    def most_clearings(self) -> int:
        """All stages together are not cleared more often than this, however often cycles go back."""
        rounds = sum(stage.repeat.at_most for stage in self.stages.values() if stage.repeat is not None)
        return len(self.stages) * (1 + rounds)

    def in_cycle(self, stage: str, repeated: str) -> bool:
        """Whether ``stage`` is cleared again when ``repeated`` goes back."""
        repeat = self.stages[repeated].repeat
        place = self.position
        return repeat is not None and place[repeat.back_to] <= place[stage] <= place[repeated]
