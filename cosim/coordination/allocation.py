"""How operators share the cost of what they buy together, which the optimisation itself does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from cosim.coordination.case import CoordinationCase
from cosim.coordination.coordinate import Coordination, coordinate
from cosim.coordination.grid import without_limits
from cosim.coordination.scheme import Scheme
from cosim.market.program import Solver

Rule = Literal["duals", "stand_alone", "shapley"]
DSO, TSO = "DSO", "TSO"


def allocated(case: CoordinationCase, scheme: Scheme, rule: Rule, solver: Solver | None = None) -> Mapping[str, float]:
    """Shares of all DSOs and of the TSO in the cost of a scheme [EUR], which add up to it.

    ``duals``: what every award is worth to each; ``stand_alone``: in proportion to what each would pay without the
    other's limits and need; ``shapley``: the mean of being first and of joining the other (L. Shapley, 1953).
    """
    together = coordinate(case, scheme, solver)
    if rule == "duals":
        return _by_duals(together)
    dso = coordinate(_without_transmission(case), scheme, solver).cost_eur
    tso = coordinate(_without_distribution(case), scheme, solver).cost_eur
    total = together.cost_eur
    if rule == "shapley":
        saved = total - dso - tso
        return {DSO: dso + saved / 2.0, TSO: tso + saved / 2.0}
    share = dso / (dso + tso) if dso + tso else 0.0
    return {DSO: share * total, TSO: (1.0 - share) * total}


def _by_duals(found: Coordination) -> dict[str, float]:
    paid = {DSO: 0.0, TSO: 0.0}
    for award in found.awards:
        eur = award.quantity_kw[0] * award.price_eur_per_kwh[0] * found.case.mtu_h
        paid[TSO if award.buyer == TSO else DSO] += eur
    return paid


def _without_transmission(case: CoordinationCase) -> CoordinationCase:
    """The system is to be balanced, which needs nothing by itself."""
    return replace(case, transmission=without_limits(case.transmission), need_kw=0.0)


def _without_distribution(case: CoordinationCase) -> CoordinationCase:
    areas = {name: replace(area, grid=without_limits(area.grid)) for name, area in case.areas.items()}
    return replace(case, areas=areas)
