"""A case to coordinate: one MTU of a system of one transmission network and areas of distribution below it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cosim.coordination.grid import Grid, area_of
from cosim.coordination.topology import TopologicalMatrix, matrix_faults
from cosim.domain.market import Bid, Need, Resource
from cosim.errors import BidError, Fault
from cosim.market.book import check_case as check_bids
from cosim.market.case import HOLD, ClearingCase, ClearingSettings
from cosim.market.planes import LimitSettings
from cosim.units import SECONDS_PER_HOUR


@dataclass(frozen=True)
class Rules:
    """What all parties know: prices of what stays unmet [EUR/kWh], for each kW that the balance is short or long and
    for each kW of a limit (of the resource that would do most for it), and how limits become rows."""

    shortage_eur_per_kwh: float = 3.0
    violation_eur_per_kwh: float = 10.0
    limits: LimitSettings = field(default_factory=LimitSettings)


@dataclass(frozen=True)
class Area:
    """The distribution of one operator below ``bus`` of the transmission network.

    ``schedule_kw``: agreed change of its export from the forecast, to within ``tolerance_kw``; ``price_eur_per_kwh``:
    what transmission pays for export, None if not agreed; ``matrix``: its version of where resources are;
    ``snapshots``: its network in the situations that prequalification looks at.
    """

    id: str
    bus: str
    grid: Grid
    matrix: TopologicalMatrix
    schedule_kw: float = 0.0
    tolerance_kw: float = 0.0
    price_eur_per_kwh: float | None = None
    snapshots: tuple[Grid, ...] = ()


@dataclass(frozen=True)
class CoordinationCase:
    """``need_kw``: what the system is short of (UP) or has too much of, below zero (DOWN); ``demands``: what balance
    responsible parties would buy at most, with a price; ``matrix_version``: of the transmission operator's copy."""

    name: str
    t_s: int
    mtu_s: int
    transmission: Grid
    need_kw: float
    areas: Mapping[str, Area]
    resources: Mapping[str, Resource]
    bids: tuple[Bid, ...]
    demands: tuple[Need, ...] = ()
    matrix_version: int = 1
    rules: Rules = field(default_factory=Rules)

    @property
    def interfaces(self) -> Mapping[str, str]:
        """Bus of each area."""
        return {name: area.bus for name, area in self.areas.items()}

    @property
    def mtu_h(self) -> float:
        """Length of the MTU [h]."""
        return self.mtu_s / SECONDS_PER_HOUR


def check_case(case: CoordinationCase) -> None:
    """Raises BidError with all that is wrong with bids, resources and topological matrices."""
    faults: list[Fault] = []
    for place, grid in (("", case.transmission), *((area.id, area.grid) for area in case.areas.values())):
        resources = {name: unit for name, unit in case.resources.items() if area_of(unit.pod) == place}
        bids = tuple(bid for bid in case.bids if _first_place(bid, case.resources) == place)
        settings = ClearingSettings(interface_kw=HOLD)
        side = ClearingCase(bids, resources, (grid.rows,), case.t_s, case.mtu_s, settings=settings)
        try:
            check_bids(side)
        except BidError as error:
            faults += error.faults
    for bid in case.bids:
        if _first_place(bid, case.resources) not in ("", *case.areas):
            faults.append(Fault("of no area of the case", key=f"bid {bid.id}", allowed=", ".join(case.areas)))
    for area in case.areas.values():
        faults += matrix_faults(area.matrix.entries)
    if faults:
        raise BidError(faults)


def _first_place(bid: Bid, resources: Mapping[str, Resource]) -> str:
    known = [resources[name] for name in bid.members if name in resources]
    return area_of(known[0].pod) if known else ""


def place_of(bid: Bid, resources: Mapping[str, Resource]) -> str:
    """The area of a bid, which lies in one; empty at transmission."""
    return area_of(resources[bid.resource or bid.members[0]].pod)
