"""The part of the scenario schema about the system above the feeder: transmission and what it needs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from cosim.scenario.values import NonNegative, Number, Part, Positive, Share, TimeSeriesFile, Whole

_FILES = (".json", ".m", ".mat")


class RandomNeed(Part):
    """A random need: of every MTU a part of that before, and a normal shock."""

    share: NonNegative = Field(0.15, description="standard deviation [of the feeder's mean absolute import]")
    persistence: Share = Field(0.8, lt=1.0, description="part of the need of an MTU that remains in the next [1]")


class FileNeed(TimeSeriesFile):
    """A need from a CSV or Parquet file with a column need_kw: of the whole system, so divided by `feeders`. What an
    MTU needs is its mean over the MTU."""


def _need_form(value: object) -> str:
    if isinstance(value, dict):
        return "file" if any(key in FileNeed.model_fields for key in value) else "random"
    return "file" if isinstance(value, FileNeed) else "random"


Need = Annotated[
    Annotated[RandomNeed, Tag("random")] | Annotated[FileNeed, Tag("file")],
    Discriminator(_need_form),
]
Prices = tuple[Number, Number]


class MeritOrder(Part):
    """Offers of units at a copper plate, each unit one step upward and one downward; the unit that is cheapest upward
    saves least downward."""

    steps: Whole = Field(8, ge=1, description="units")
    step_share: Positive = Field(0.1, description="size of each step [of the feeder's mean absolute import]")
    up_eur_per_mwh: Prices = Field((60.0, 400.0), description="prices of the first and the last step upward [EUR/MWh]")
    down_eur_per_mwh: Prices = Field(
        (-60.0, -10.0),
        description="prices of the first and the last step downward, below zero what units pay for the fuel they save "
        "[EUR/MWh]",
    )

    @field_validator("up_eur_per_mwh", "down_eur_per_mwh")
    @classmethod
    def _increasing(cls, value: tuple[float, float]) -> tuple[float, float]:
        if any(then < now for now, then in pairwise(value)):
            raise ValueError("prices of steps must increase, first the step that is used first")
        return value


class SystemRules(Part):
    """Prices of what stays unmet, known to all."""

    shortage_eur_per_mwh: Positive = Field(3000.0, description="of what a balance lacks [EUR/MWh]")
    violation_eur_per_mwh: Positive = Field(10000.0, description="of what is beyond a limit [EUR/MWh]")


class TransmissionConfig(Part):
    """The system above the feeder: a copper plate, or the network of `case` or of `network`. The feeder stands for
    `feeders` equal ones below one bus, and the run sees the system from one of them: loads, generation, ratings, offers
    and a need from a file are divided by `feeders`. The slack bus balances the schedule; `need` is on top of it."""

    case: Path | None = Field(
        None,
        description="case file whose transmission network and resources at transmission are taken (its need and areas "
        "are not: the feeder takes their place)",
    )
    network: str | None = Field(
        None, description="case of pandapower such as case9 or case30, or a pandapower (.json) or MATPOWER (.m) file"
    )
    bus: str | None = Field(
        None,
        description="bus that the feeders hang at; default: where the areas of `case` hang, that with the largest load "
        "of `network`, else the slack bus",
    )
    load: Literal["replaced", "added"] = Field(
        "replaced", description="whether the feeders are the load of that bus, or come on top of it"
    )
    feeders: Whole = Field(1, ge=1, description="so many feeders like that of the run hang at the bus")
    need: Need = Field(
        RandomNeed(), description="what the system is short of (above zero) or has too much of, MTU by MTU"
    )
    merit_order: MeritOrder = Field(MeritOrder(), description="copper plate only: what units at transmission offer")
    dispatch: Literal["least_cost", "given"] = Field(
        "least_cost",
        description="network only: schedule of generators, of least cost for the load of each MTU without the network, "
        "or that of the file with the rest at the slack bus (cheaper plants may then be free to replace dearer ones "
        "whenever the market clears)",
    )
    flexible_cost_share: Share = Field(
        0.05,
        description="network only: generators offer what their schedule leaves them, upward this share above their "
        "marginal cost, downward this share below [1]",
    )
    rules: SystemRules = Field(SystemRules(), description="prices of what stays unmet")

    @model_validator(mode="after")
    def _one_system(self) -> Self:
        if self.case is not None and self.network is not None:
            raise ValueError("the system is that of `case` or of `network`, not of both")
        return self

    @property
    def tier(self) -> Literal["copper_plate", "case", "network"]:
        """What the system is."""
        if self.case is not None:
            return "case"
        return "copper_plate" if self.network is None else "network"

    @property
    def network_file(self) -> Path | None:
        """The file of `network`, as written; None where it is the name of a case of pandapower, or not given."""
        named = self.network is not None and Path(self.network).suffix.lower() in _FILES
        return Path(str(self.network)) if named else None
