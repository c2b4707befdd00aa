"""The one clearing function of all schemes: a stage and what its solver knows in, an outcome out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from cosim.coordination.case import place_of
from cosim.coordination.grid import COUNTERPART, area_of
from cosim.coordination.merit_order import by_merit
from cosim.coordination.messages import AreaCurve
from cosim.coordination.outcome import StageOutcome, Unmet, merged
from cosim.coordination.prices import Plan, asked_eur_per_h, bought_by, paid_on_curves, value_of_export
from cosim.coordination.problem import LONG, SHORT, Problem, effects_on_import, problem_of
from cosim.coordination.safe_box import bid_caps
from cosim.coordination.scheme import CURVES, Balance, Stage
from cosim.coordination.situation import SMALL_KW, Situation
from cosim.coordination.traffic_light import traffic_light
from cosim.domain.market import PriceStep
from cosim.errors import MarketError
from cosim.market.case import HOLD, ClearingCase
from cosim.market.clearing import clear
from cosim.market.flexible_range import SupplyCurve, supply_curve
from cosim.market.highs import Highs
from cosim.market.pricing import location_prices
from cosim.market.program import Solver

_REWARD_EUR_PER_KWH = -1.0


def clear_stage(name: str, stage: Stage, now: Situation, solver: Solver | None = None) -> StageOutcome:
    """Clears a stage, or finds what the network allows for another: for all of the system at once, or for each area
    that is known by itself.

    Raises MarketError where there is no plan, BidError where forecast errors cannot be dealt with.
    """
    solver = solver or Highs()
    if stage.joint:
        return _bought(name, stage, now, None, solver)
    return merged(name, [_of_area(name, stage, now, area, solver) for area in now.areas])


def _of_area(name: str, stage: Stage, now: Situation, area: str, solver: Solver) -> StageOutcome:
    if stage.objective in CURVES:
        return _curve(name, stage, now, area, solver)
    if stage.objective == "caps":
        return _caps(name, stage, now, area)
    if stage.objective == "validate":
        return _validated(name, stage, now, area, solver)
    return _bought(name, stage, now, area, solver)


def _bought(name: str, stage: Stage, now: Situation, area: str | None, solver: Solver) -> StageOutcome:
    """Least cost; with the fallback of the stage if limits cannot be met."""
    found = _cleared(name, stage, now, area, stage.balance, solver)
    if found.unmet and stage.fallback is not None:
        return replace(_cleared(name, stage, now, area, stage.fallback, solver), fell_back=True)
    return found


def _cleared(
    name: str, stage: Stage, now: Situation, area: str | None, balance: Balance, solver: Solver
) -> StageOutcome:
    problem = problem_of(stage, now, area, balance)
    plan = _plan(stage, problem, solver)
    unmet = _unmet(now, plan) if stage.limits == "meet" else ()
    bought = bought_by(stage, problem, plan)
    pods = {area: COUNTERPART} if area is not None else dict(now.interfaces)
    return StageOutcome(
        stage=name,
        bought=bought,
        on_curve=paid_on_curves(stage, problem, plan),
        export_kw=_exports(problem, now, area, {bid: each.kw for bid, each in bought.items()}),
        shortage_kw=_small(plan.kw.get(SHORT, 0.0) - plan.kw.get(LONG, 0.0)),
        demands=_demands(problem, plan),
        unmet=unmet,
        reason=_conflict(problem.case, balance, solver) if unmet else "",
        excluded={each.bid.id: each.reason for each in problem.book if each.reason},
        objective_eur=_objective_eur(problem, plan),
        interface_eur_per_kwh=value_of_export(problem, plan, pods),
    )


def _plan(stage: Stage, problem: Problem, solver: Solver) -> Plan:
    """What is least cost: in the order of prices where that is enough, else by a linear program."""
    merit = by_merit(stage, problem)
    if merit is not None:
        return Plan(merit.kw, None, merit.worth_eur_per_kwh)
    clearing = clear(problem.case, solver)
    kw = zip((bid.id for bid in clearing.bids), clearing.awarded_kw[0].tolist(), strict=True)
    return Plan(dict(kw), clearing)


def _objective_eur(problem: Problem, plan: Plan) -> float:
    if plan.clearing is not None:
        return plan.clearing.objective_eur
    used = ((bid, plan.kw[bid.id]) for bid in problem.case.bids)
    return sum(asked_eur_per_h(bid, kw) for bid, kw in used if kw) * problem.case.mtu_h


def _small(kw: float) -> float:
    return kw if abs(kw) > SMALL_KW else 0.0


def _unmet(now: Situation, plan: Plan) -> tuple[Unmet, ...]:
    if plan.clearing is None:
        return ()
    units = {name: area.grid.unit for name, area in now.areas.items()}
    if now.transmission is not None:
        units[""] = now.transmission.unit
    return tuple(
        Unmet(
            each.kind,
            each.element,
            each.excess,
            units.get(area_of(each.element), "kW") if each.unit == "A" else each.unit,
            each.limit,
        )
        for each in plan.clearing.unsolved
    )


def _conflict(case: ClearingCase, balance: Balance, solver: Solver) -> str:
    """Why limits cannot be met, in the words of the market."""
    if balance != "hold":
        return ""
    settings = replace(case.settings, slack_eur_per_kwh=None, interface_kw=case.settings.interface_kw or HOLD)
    try:
        clear(replace(case, settings=settings), solver)
    except MarketError as error:
        return str(error)
    return ""


def _exports(problem: Problem, now: Situation, area: str | None, kw: dict[str, float]) -> dict[str, float]:
    """Change of the export of each area by what was bought of its bids."""
    changed = dict.fromkeys([area] if area is not None else now.interfaces, 0.0)
    bought = [each.bid for each in problem.book if each.bid.id in kw]
    effect = effects_on_import(bought, problem.case.resources, problem.grid.rows)
    for bid in bought:
        if place := place_of(bid, now.resources):
            changed[place] -= kw[bid.id] * effect[bid.id]
    return changed


def _demands(problem: Problem, plan: Plan) -> dict[str, tuple[float, float]]:
    """BRPs pay what their purchase is worth where it is bought: no more than they offered."""
    if not problem.demands:
        return {}
    prices = location_prices(plan.prices)[0].tolist()
    price = dict(zip((bid.id for bid in plan.prices.bids), prices, strict=True))
    return {
        need: (
            float(bid.direction.delta_p_kw(plan.kw[bid.id])),
            -price[bid.id] * plan.kw[bid.id] * problem.case.mtu_h,
        )
        for need, bid in problem.demands.items()
    }


def _curve(name: str, stage: Stage, now: Situation, area: str, solver: Solver) -> StageOutcome:
    """Least cost of every export that the network allows, from the least of all on to either side."""
    problem = problem_of(stage, now, area, "none")
    unmet = _unmet(now, Plan({}, clear(problem.case, solver))) if stage.limits == "meet" else ()
    curve = supply_curve(problem.case, solver)
    up = _steps(curve, curve.local_kw, 1.0) if stage.objective != "max_down" else ()
    down = _steps(curve, curve.local_kw, -1.0) if stage.objective != "max_up" else ()
    ends = pairwise(curve.export_kw)
    slopes = tuple((a, b, price) for (a, b), price in zip(ends, curve.price_eur_per_kwh, strict=True))
    offered = AreaCurve(area, stage.commodity, curve.local_kw, up, down)
    excluded = {each.bid.id: each.reason for each in problem.book if each.reason}
    return StageOutcome(name, curves=(offered,), slopes={area: slopes}, unmet=unmet, excluded=excluded)


def _steps(curve: SupplyCurve, start_kw: float, sign: float) -> tuple[PriceStep, ...]:
    """Pieces of a curve on one side of ``start_kw``, in the order in which they are used."""
    steps = []
    for (a, b), price in zip(pairwise(curve.export_kw), curve.price_eur_per_kwh, strict=True):
        low, high = (max(a, start_kw), b) if sign > 0.0 else (a, min(b, start_kw))
        if high - low > SMALL_KW:
            steps.append(PriceStep(high - low, sign * price))
    return tuple(steps if sign > 0.0 else steps[::-1])


def _caps(name: str, stage: Stage, now: Situation, area: str) -> StageOutcome:
    """What is safe whatever the other solver picks: by bid, or by perimeter."""
    problem = problem_of(stage, now, area, "none")
    inside = {key: unit for key, unit in problem.case.resources.items() if area_of(unit.pod) == area}
    case = replace(problem.case, resources=inside)
    if stage.caps == "perimeters":
        return StageOutcome(name, lights=traffic_light(case, now.areas[area].matrix))
    nothing = dict.fromkeys((each.bid.id for each in problem.book), 0.0)
    return StageOutcome(name, caps=nothing | bid_caps(case, stage.caps))


def _validated(name: str, stage: Stage, now: Situation, area: str, solver: Solver) -> StageOutcome:
    """The largest part of what was picked that leaves no limit worse. What was cut once stays cut."""
    problem = problem_of(stage, now, area, "none")
    wanted = tuple(
        replace(each.bid, steps=(PriceStep(each.high_kw, _REWARD_EUR_PER_KWH),))
        for each in problem.book
        if each.high_kw > 0.0
    )
    clearing = clear(replace(problem.case, bids=wanted), solver)
    safe = dict(zip((bid.id for bid in clearing.bids), clearing.awarded_kw[0].tolist(), strict=True))
    cut = {
        each.bid.id: max(0.0, safe[each.bid.id] - each.locked_kw)
        for each in problem.book
        if each.high_kw > 0.0 and safe[each.bid.id] < each.high_kw - SMALL_KW
    }
    return StageOutcome(name, caps={**now.caps, **cut}, again=bool(cut))
