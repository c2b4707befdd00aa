"""What a clearing is asked: bids, needs, the network and its uncertainty over the MTUs, and how to clear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from cosim.domain.frames import Floats
from cosim.domain.market import Bid, Coupling, Need, Resource
from cosim.errors import BidError, Fault
from cosim.market.network import NetworkRows
from cosim.market.planes import LimitSettings
from cosim.market.uncertainty import Protection, Uncertainty, certain
from cosim.units import SECONDS_PER_HOUR

Objective = Literal["least_cost", "most_up", "most_down"]
HOLD = (0.0, 0.0)


@dataclass(frozen=True)
class ClearingSettings:
    """``interface_kw``: bounds on the change of the import from the grid above in every MTU, None for none (mode 0),
    `HOLD` for an unchanged interface (mode 1). ``objective``: least cost, or the most export or import (mode 2).

    ``slack_eur_per_kwh``: price of a limit or firm need that stays unmet, in kW of the POD where 1 kW does most for
    it; None makes them hard. ``no_worse``: what stays unmet is at most what is unmet with the locked awards alone.
    ``lazy``: planes enter when they are violated, else all at once.
    """

    limits: LimitSettings = field(default_factory=LimitSettings)
    interface_kw: tuple[float, float] | None = None
    objective: Objective = "least_cost"
    slack_eur_per_kwh: float | None = 100.0
    lazy: bool = True
    no_worse: bool = False

    def __post_init__(self) -> None:
        if self.slack_eur_per_kwh is not None and not self.slack_eur_per_kwh >= 0.0:
            raise BidError(Fault("must be 0 or more", key="slack_eur_per_kwh", value=str(self.slack_eur_per_kwh)))


@dataclass(frozen=True)
class JointLimit:
    """Bids of which no more than ``limit_kw`` is accepted together in any MTU."""

    name: str
    bids: tuple[str, ...]
    limit_kw: float


@dataclass(frozen=True)
class ClearingCase:
    """One clearing over the MTUs of ``networks`` (n_mtu,) from ``t_s``.

    ``uncertainty`` (n_mtu,) or None for none; ``locked``: quantities per MTU by bid that earlier stages awarded, which
    do not shrink; ``margins`` (n_mtu,): kept clear of limits (see `plane_families`), or None; ``joint_limits``: what
    others have found safe for some bids together; ``gate_s``: bids submitted later are refused, None for no gate.
    """

    bids: tuple[Bid, ...]
    resources: Mapping[str, Resource]
    networks: tuple[NetworkRows, ...]
    t_s: int
    mtu_s: int
    uncertainty: tuple[Uncertainty, ...] | None = None
    needs: tuple[Need, ...] = ()
    couplings: tuple[Coupling, ...] = ()
    locked: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    margins: tuple[Floats, ...] | None = None
    settings: ClearingSettings = field(default_factory=ClearingSettings)
    joint_limits: tuple[JointLimit, ...] = ()
    gate_s: int | None = None

    @property
    def n_mtu(self) -> int:
        return len(self.networks)

    @property
    def mtu_h(self) -> float:
        """Length of an MTU [h]."""
        return self.mtu_s / SECONDS_PER_HOUR

    @cached_property
    def protections(self) -> tuple[Protection, ...]:
        """What forecast errors can do in every MTU."""
        bands = self.uncertainty or tuple(certain(len(network.pods)) for network in self.networks)
        return tuple(Protection(*each) for each in zip(self.networks, bands, strict=True))

    @cached_property
    def pods(self) -> Mapping[str, int]:
        """Index of each POD of the network."""
        return self.networks[0].index
