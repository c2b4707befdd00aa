"""What all awards of a scheme do together, in the networks as they are: what no single party may know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cosim.coordination.case import CoordinationCase, place_of
from cosim.coordination.grid import Grid, area_of, is_reactive, joined
from cosim.coordination.outcome import StageOutcome
from cosim.coordination.problem import effects_on_import
from cosim.domain.market import Resource

_REL = 1e-6


@dataclass(frozen=True)
class Overload:
    """A limit that the network is beyond, with all awards (``value``) or ``before`` any, as moduli without forecast
    errors, in ``unit``."""

    element: str
    kind: str
    value: float
    before: float
    limit: float
    unit: str

    @property
    def excess(self) -> float:
        """How far beyond; 0 if the awards have cured it."""
        return max(0.0, self.limit - self.value if self.kind == "v_min" else self.value - self.limit)

    @property
    def worse(self) -> bool:
        """Whether it is beyond its limit, and further than before."""
        further = self.before - self.value if self.kind == "v_min" else self.value - self.before
        return self.excess > _REL * self.limit and further > _REL * self.limit


@dataclass(frozen=True)
class Balance:
    """Of the whole system: what it needed, and what is still missing with all awards, below zero what is too much."""

    need_kw: float
    missing_kw: float


def dispatch_of(outcomes: Sequence[StageOutcome]) -> dict[str, float]:
    """Awarded quantity of each bid over all stages [kW]."""
    total: dict[str, float] = {}
    for outcome in outcomes:
        for bid, each in outcome.bought.items():
            total[bid] = total.get(bid, 0.0) + each.kw
    return total


def overloads(case: CoordinationCase, dispatch_kw: Mapping[str, float]) -> tuple[Overload, ...]:
    """All limits that are exceeded before or after."""
    whole = _whole(case)
    rows = whole.rows
    index = {pod: k for k, pod in enumerate(rows.pods)}
    p_kw, q_kvar = np.zeros(len(rows.pods)), np.zeros(len(rows.pods))
    for bid in case.bids:
        for unit, share in _deliverers(case, bid.members, dict(bid.shares)):
            kw = float(bid.direction.delta_p_kw(share * dispatch_kw.get(bid.id, 0.0)))
            p_kw[index[unit.pod]] += kw
            q_kvar[index[unit.pod]] += unit.kvar_per_kw * kw
    before, after = np.abs(rows.base), np.abs(rows.at(p_kw, q_kvar))
    n = len(rows.conductors)
    units: dict[str, str] = {"": case.transmission.unit, **{name: area.grid.unit for name, area in case.areas.items()}}
    found = []
    for k, element in enumerate(rows.names):
        measured = units[area_of(element)] if k < n else "pu"
        kind = "i_max" if k < n else "v_max"
        for what, limit, sign in ((kind, rows.upper[k], 1.0), ("v_min", rows.lower[k], -1.0)):
            if max(sign * (before[k] - limit), sign * (after[k] - limit)) > _REL * limit:
                found.append(Overload(element, what, float(after[k]), float(before[k]), float(limit), measured))
    return tuple(found)


def _deliverers(
    case: CoordinationCase, members: Sequence[str], shares: Mapping[str, float]
) -> list[tuple[Resource, float]]:
    return [(case.resources[name], shares.get(name, 1.0 / len(members))) for name in members]


def _whole(case: CoordinationCase) -> Grid:
    certain = [(area.bus, _certain(area.grid)) for area in case.areas.values()]
    return joined(_certain(case.transmission), certain)


def _certain(grid: Grid) -> Grid:
    return replace(grid, uncertainty=None)


def exported_kw(case: CoordinationCase, dispatch_kw: Mapping[str, float]) -> dict[str, float]:
    """Change of the export of each area by awards."""
    changed = dict.fromkeys(case.areas, 0.0)
    for bid in case.bids:
        area = place_of(bid, case.resources)
        if area and dispatch_kw.get(bid.id):
            effect = effects_on_import([bid], case.resources, case.areas[area].grid.rows)[bid.id]
            changed[area] -= dispatch_kw[bid.id] * effect
    return changed


def balance_of(case: CoordinationCase, dispatch_kw: Mapping[str, float]) -> Balance:
    """Active power at transmission: awards there, and what areas export more."""
    got = sum(exported_kw(case, dispatch_kw).values())
    for bid in case.bids:
        if not place_of(bid, case.resources) and not is_reactive(case.resources[bid.members[0]]):
            got -= float(bid.direction.delta_p_kw(dispatch_kw.get(bid.id, 0.0)))
    return Balance(case.need_kw, case.need_kw - got)
