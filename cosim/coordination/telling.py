"""What a party says: of its own at the gate, and of the outcome of a stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from cosim.coordination.case import Area
from cosim.coordination.grid import Grid
from cosim.coordination.messages import (
    Body,
    Curves,
    Lights,
    MessageType,
    NetworkModel,
    Offered,
    OperatingData,
    Quantities,
    Terms,
)
from cosim.coordination.outcome import StageOutcome
from cosim.domain.market import Resource
from cosim.errors import MarketError
from cosim.market.case import ClearingCase
from cosim.market.prequalification import grid_capabilities, prequalified

SYSTEM: Final = "system"


def body_of(
    kind: MessageType, outcome: StageOutcome, concerns: Callable[[str], bool] = lambda _: True, topology_version: int = 0
) -> Body:
    """What a message of a type says of an outcome to a party; ``concerns``: whether a bid or an area is its business."""
    kw = {bid: each.kw for bid, each in outcome.bought.items() if concerns(bid)}
    exports = {area: change for area, change in outcome.export_kw.items() if concerns(area)}
    if kind == "BID_CURVE":
        return Curves(outcome.curves)
    if kind == "LIMIT":
        return Lights(", ".join(outcome.areas), topology_version, outcome.lights)
    if kind in ("BID_CAP", "VALIDATION"):
        return Quantities(kw=outcome.caps, again=outcome.again)
    if kind == "IFACE_SCHEDULE":
        return Terms(exports)
    if kind == "AWARD":
        on_curve = {area: change for area, (change, _) in outcome.on_curve.items() if concerns(area)}
        return Quantities(kw=kw, export_kw=on_curve or exports)
    return Quantities(kw=kw, export_kw=exports)
