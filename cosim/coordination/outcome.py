"""What a stage found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from cosim.coordination.messages import AreaCurve
from cosim.coordination.traffic_light import Light


class Unmet(NamedTuple):
    """A limit that a stage could not meet, forecast errors included: by so much in ``unit``."""

    kind: str
    element: str
    excess: float
    unit: str
    limit: float

    def __str__(self) -> str:
        return f"{self.kind} of {self.element}: {self.excess:.4g} {self.unit} beyond {self.limit:g}"


class Bought(NamedTuple):
    """Of a bid what a stage awarded (below zero: gave back) [kW], at what price paid and asked [EUR/kWh], and which
    share of it each buyer pays."""

    kw: float
    price_eur_per_kwh: float
    asked_eur_per_kwh: float
    shares: Mapping[str, float]


@dataclass(frozen=True)
class StageOutcome:
    """``bought`` by bid; ``on_curve``: of each area's curve, change of its export [kW, kvar] and payment [EUR];
    ``export_kw``: change of export of each area by awards, as the solver sees it; ``shortage_kw``: what the
    balance still lacks, below zero what it has too much of; ``demands``: what BRPs bought [kW] and pay [EUR].

    ``objective_eur``: cost of all awards, earlier ones too, with what stays unmet at its price, less what BRPs would
    pay; ``interface_eur_per_kwh``: what 1 kWh of export of each area is worth. ``curves``, with the ``slopes``
    (export, then price up to it [EUR/kWh]) they come from; ``caps`` and ``lights``; ``again``: something new was cut.
    """

    stage: str
    bought: Mapping[str, Bought] = field(default_factory=dict)
    on_curve: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    export_kw: Mapping[str, float] = field(default_factory=dict)
    shortage_kw: float = 0.0
    demands: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    unmet: tuple[Unmet, ...] = ()
    reason: str = ""
    excluded: Mapping[str, str] = field(default_factory=dict)
    objective_eur: float = 0.0
    interface_eur_per_kwh: Mapping[str, float] = field(default_factory=dict)
    curves: tuple[AreaCurve, ...] = ()
    slopes: Mapping[str, tuple[tuple[float, float, float], ...]] = field(default_factory=dict)
    caps: Mapping[str, float] = field(default_factory=dict)
    lights: tuple[Light, ...] = ()
    again: bool = False
    fell_back: bool = False

    @property
    def solved(self) -> bool:
        """Whether all limits and the balance are met."""
        return not self.unmet and abs(self.shortage_kw) < SHORT_KW


SHORT_KW = 1e-4


def merged(stage: str, parts: Sequence[StageOutcome]) -> StageOutcome:
    """The outcome of a stage that was cleared area by area."""
    if len(parts) == 1:
        return parts[0]
    together: dict[str, Any] = {"stage": stage, "reason": "; ".join(part.reason for part in parts if part.reason)}
    for each in fields(StageOutcome):
        values = [getattr(part, each.name) for part in parts]
        if each.name in together or not values:
            continue
        if isinstance(values[0], Mapping):
            together[each.name] = {key: entry for value in values for key, entry in value.items()}
        elif isinstance(values[0], tuple):
            together[each.name] = tuple(entry for value in values for entry in value)
        else:
            together[each.name] = any(values) if isinstance(values[0], bool) else sum(values)
    return StageOutcome(**together)
