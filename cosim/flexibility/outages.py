"""Activations that fail: devices that deliver a part, and devices that cannot be reached.

Every draw comes from a stream named by aggregator, resource and market time unit (MTU), so that no other resource,
step or run changes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cosim.rng import rng_for
from cosim.units import SECONDS_PER_HOUR


@dataclass(frozen=True)
class DeliveryRisk:
    """``shortfall``: up to that share of an activation is missing, uniformly distributed and drawn anew for each MTU.

    Outages: a device is reached for ``between_outages_h`` [h] on average (None: always) and then out of reach for
    ``outage_h`` [h] on average, both exponentially distributed; while out of reach it runs free.
    """

    shortfall: float = 0.0
    between_outages_h: float | None = None
    outage_h: float = 1.0

    def failing(self, mtu_s: int) -> float:
        """Probability that a device within reach is out of reach in the next MTU."""
        return 0.0 if self.between_outages_h is None else _ends_within(self.between_outages_h, mtu_s)

    def returning(self, mtu_s: int) -> float:
        """Probability that a device out of reach is within reach in the next MTU."""
        return _ends_within(self.outage_h, mtu_s)


@dataclass(frozen=True)
class Stream:
    """The randomness of one resource of an aggregator."""

    seed: int
    aggregator: str
    resource: str

    def draw(self, purpose: str, mtu: int) -> np.random.Generator:
        return rng_for(self.seed, "aggregator", self.aggregator, self.resource, purpose, mtu)


def delivered_share(risk: DeliveryRisk, stream: Stream, mtu: int) -> float:
    """Share of an activation that the device delivers in the MTU ``mtu``, counted from the start of the run."""
    return 1.0 - risk.shortfall * float(stream.draw("shortfall", mtu).random()) if risk.shortfall else 1.0


def out_of_reach(risk: DeliveryRisk, stream: Stream, mtu: int, mtu_s: int, before: bool | None) -> bool:
    """Whether the device is out of reach in the MTU ``mtu``; ``before``: in the one before, None at the start, where
    the outage is as likely as in the long run."""
    failing, returning = risk.failing(mtu_s), risk.returning(mtu_s)
    if failing == 0.0:
        return False
    draw = float(stream.draw("outage", mtu).random())
    if before is None:
        return draw < failing / (failing + returning)
    return draw >= returning if before else draw < failing


def _ends_within(mean_h: float, mtu_s: int) -> float:
    return -math.expm1(-mtu_s / SECONDS_PER_HOUR / mean_h)
