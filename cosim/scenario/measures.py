"""The part of the scenario schema about what the grid's operator may move by hand before it buys flexibility."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from cosim.scenario.values import NonNegative, Part, Positive, Switch, Whole

KINDS_OF_MEASURES = ("tap", "capacitor", "switch")


class Tap(Part):
    """A tap of a transformer without automatic control: 1 + n ``step_pu`` at position n."""

    element: str = Field(description="transformer of the script, e.g. Transformer.T4")
    low: Whole = Field(description="lowest position")
    high: Whole = Field(description="highest position")
    step_pu: Positive = Field(description="between two positions [pu]")
    winding: Whole = Field(1, ge=1, description="winding that has the tap")


class CapacitorSteps(Part):
    """Steps of a shunt capacitor without automatic control: the first n are in service at position n."""

    element: str = Field(description="capacitor of the script, e.g. Capacitor.C1")
    low: Whole = Field(0, ge=0, description="fewest steps in service")
    high: Whole = Field(ge=0, description="most steps in service")


class LineSwitch(Part):
    """A line that may be opened (position 0) or closed (1); one that the script puts out of service is open."""

    element: str = Field(description="line of the script, e.g. Line.L25")
    may_loop: Switch = Field(False, description="whether it may be closed as part of a loop")


class MeasureConfig(Part):
    """Something that the operator may move by hand: a tap, a capacitor or a switch."""

    tap: Tap | None = Field(None, description="tap of a transformer")
    capacitor: CapacitorSteps | None = Field(None, description="steps of a capacitor")
    switch: LineSwitch | None = Field(None, description="line that can be opened and closed")
    eur_per_move: NonNegative = Field(0.0, description="cost of a move from one position to the next [EUR]")
    moves_per_day: Whole | None = Field(None, ge=0, description="moves in a local day at most; default: any number")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS_OF_MEASURES if getattr(self, kind) is not None]
        if len(given) != 1:
            known = ", ".join(KINDS_OF_MEASURES)
            raise ValueError(f"a measure is exactly one of {known}; here: {', '.join(given) or 'none'}")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS_OF_MEASURES if getattr(self, kind) is not None)
