"""What is left for others (mode 2): the range of the interface that the network allows, and its least cost along it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from cosim.errors import BidError, Fault
from cosim.market.case import ClearingCase, ClearingSettings, Objective
from cosim.market.clearing import clear
from cosim.market.highs import Highs
from cosim.market.outcome import Clearing
from cosim.market.program import Solver

_SAME_KW = 1e-6
_SAME_EUR = 1e-7


@dataclass(frozen=True)
class SupplyCurve:
    """Least cost against export, convex and piecewise linear.

    ``export_kw``: break points (n,), as change of the export from the schedule, ``cost_eur`` there, and
    ``price_eur_per_kwh`` (n - 1,) of each piece, increasing. ``local_kw``: where cost is least, what the network itself
    needs; steps to the right of it are UP, to the left DOWN (at minus the price).
    """

    export_kw: tuple[float, ...]
    cost_eur: tuple[float, ...]
    price_eur_per_kwh: tuple[float, ...]
    local_kw: float


def export_range(case: ClearingCase, solver: Solver | None = None) -> tuple[float, float]:
    """Least and most change of the export [kW] of a case of one MTU that the network's limits allow."""
    solver = solver or Highs()
    case = _firm(case, solver)
    return _extreme(case, "most_down", solver), _extreme(case, "most_up", solver)


def export_kw(clearing: Clearing, mtu: int = 0) -> float:
    """Change of the export [kW] by a plan."""
    network = clearing.networks[mtu]
    return -float(network.head_by_delta @ network.state(clearing.solution.x).delta_kw)


def at_export(case: ClearingCase, kw: float, solver: Solver | None = None, within_kw: float = 0.0) -> Clearing:
    """The plan of least cost with a change of the export by ``kw``, or ``within_kw`` of that."""
    settings = replace(case.settings, interface_kw=(-kw - within_kw, -kw + within_kw), objective="least_cost")
    return clear(replace(case, settings=settings), solver)


def supply_curve(case: ClearingCase, solver: Solver | None = None) -> SupplyCurve:
    """The curve of a case of one MTU, exact: pieces are found where the tangents of their ends meet."""
    if case.n_mtu != 1:
        raise BidError(Fault("a supply curve is of one MTU", key="networks", value=f"{case.n_mtu} MTUs"))
    solver = solver or Highs()
    case = _firm(case, solver)
    low, high = (_point(case, kw, solver, _SAME_KW) for kw in export_range(case, solver))
    points, open_ = {low.kw: low, high.kw: high}, [(low, high)]
    while open_:
        a, b = open_.pop()
        meeting = _meeting(a, b)
        if meeting is None:
            continue
        middle = _point(case, meeting, solver)
        points[middle.kw] = middle
        if middle.eur - (a.eur + a.slope * (meeting - a.kw)) > _SAME_EUR * max(1.0, abs(middle.eur)):
            open_ += [(a, middle), (middle, b)]
    return _curve(case, [points[kw] for kw in sorted(points)], solver)


def _firm(case: ClearingCase, solver: Solver) -> ClearingCase:
    """With hard limits, so that none is broken for others, unless it already is for the network's own need."""
    if clear(case, solver).unsolved:
        return case
    return replace(case, settings=replace(case.settings, slack_eur_per_kwh=None))


@dataclass(frozen=True)
class _Point:
    kw: float
    eur: float
    slope: float


def _extreme(case: ClearingCase, objective: Objective, solver: Solver) -> float:
    settings: ClearingSettings = replace(case.settings, objective=objective, interface_kw=None)
    return export_kw(clear(replace(case, settings=settings), solver))


def _point(case: ClearingCase, kw: float, solver: Solver, within_kw: float = 0.0) -> _Point:
    """An end of the range is known as well as a solver keeps limits: exactly there may be no plan."""
    found = at_export(case, kw, solver, within_kw)
    row = next(k for k, tag in enumerate(found.program.rows.tags) if tag.kind == "interface")
    at_kw = export_kw(found) if within_kw else kw
    return _Point(at_kw, found.objective_eur, -float(found.solution.row_dual[row]))


def _meeting(a: _Point, b: _Point) -> float | None:
    """Where the tangents of two points meet, None if not between them: then cost is linear there."""
    if b.slope - a.slope < _SAME_EUR or b.kw - a.kw < _SAME_KW:
        return None
    kw = (a.eur - b.eur + b.slope * b.kw - a.slope * a.kw) / (b.slope - a.slope)
    return kw if a.kw + _SAME_KW < kw < b.kw - _SAME_KW else None


def _curve(case: ClearingCase, points: list[_Point], solver: Solver) -> SupplyCurve:
    """Points that lie on a straight line between their neighbours go."""
    kept = points[:1]
    for k, point in enumerate(points[1:], start=1):
        last = k == len(points) - 1
        if last or abs(_price(kept[-1], point) - _price(point, points[k + 1])) > _SAME_EUR:
            kept.append(point)
    prices = tuple(_price(a, b) / case.mtu_h for a, b in pairwise(kept))
    settings = replace(case.settings, interface_kw=None, objective="least_cost")
    local = export_kw(clear(replace(case, settings=settings), solver))
    return SupplyCurve(tuple(p.kw for p in kept), tuple(p.eur for p in kept), prices, local)


def _price(a: _Point, b: _Point) -> float:
    """EUR per kW between two points."""
    return (b.eur - a.eur) / (b.kw - a.kw) if b.kw > a.kw else a.slope
