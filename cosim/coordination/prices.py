"""What a cleared stage pays for what it bought, who pays it, and what an interface is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cosim.coordination.case import place_of
from cosim.coordination.grid import area_of
from cosim.coordination.outcome import Bought
from cosim.coordination.problem import Problem
from cosim.coordination.scheme import Stage
from cosim.coordination.situation import SMALL_KW
from cosim.domain.frames import Floats
from cosim.domain.market import Bid
from cosim.market.clearing import binding_rows
from cosim.market.outcome import Clearing
from cosim.market.pricing import location_prices, unit_prices

_INTERFACE_ROW = "interface"


def asked_eur_per_h(bid: Bid, kw: float) -> float:
    """What the first ``kw`` of a bid cost for an hour."""
    total = 0.0
    for step in bid.steps:
        part = min(kw, step.quantity_kw)
        total += part * step.price_eur_per_kwh
        kw -= part
    return total


@dataclass(frozen=True)
class Plan:
    """What a stage takes of each bid [kW]; the clearing that found it, None where none was needed, and so are no prices
    but those asked: 1 kWh more at the head is then worth ``worth_eur_per_kwh``."""

    kw: Mapping[str, float]
    clearing: Clearing | None
    worth_eur_per_kwh: float = 0.0

    @property
    def prices(self) -> Clearing:
        """Raises ValueError where a stage has to know more than prices asked."""
        if self.clearing is None:
            raise ValueError("a plan in the order of prices has no other prices")
        return self.clearing

    def unit_prices(self, stage: Stage) -> Mapping[str, float] | None:
        """By bid [EUR/kWh], None if each is paid what it asks."""
        if stage.pricing == "pay_as_bid":
            return None
        found = unit_prices(self.prices, stage.pricing)[0].tolist()
        return dict(zip((bid.id for bid in self.prices.bids), found, strict=True))


def bought_by(stage: Stage, problem: Problem, plan: Plan) -> dict[str, Bought]:
    """Of every bid of the book what changed against what was awarded before."""
    rule = plan.unit_prices(stage)
    changed = []
    for each in problem.book:
        kw = plan.kw.get(each.bid.id, 0.0)
        if abs(kw - each.locked_kw) > SMALL_KW:
            changed.append((each.bid, kw, each.locked_kw))
    shares = _shares(stage, problem, plan, [bid for bid, *_ in changed])
    found = {}
    for bid, kw, before in changed:
        asked = (asked_eur_per_h(bid, kw) - asked_eur_per_h(bid, before)) / (kw - before)
        price = asked if rule is None or kw < before else rule[bid.id]
        found[bid.id] = Bought(kw - before, price, asked, shares[bid.id])
    return found


def _shares(stage: Stage, problem: Problem, plan: Plan, bids: Sequence[Bid]) -> Mapping[str, Mapping[str, float]]:
    """Which share of each of ``bids`` every buyer pays: a DSO what it is worth to the limits of its area, the TSO the
    rest. A single buyer pays all; of a DSO whose area is the bid's."""
    payers = [buyer for buyer in stage.buyers if buyer != "BRP"]
    if "TSO" not in payers:
        return {bid.id: {f"DSO:{place_of(bid, problem.case.resources)}": 1.0} for bid in bids}
    if "DSO" not in payers:
        return {bid.id: {"TSO": 1.0} for bid in bids}
    clearing = plan.prices
    ids = [bid.id for bid in clearing.bids]  # in the order of its arrays
    total = location_prices(clearing)[0]
    elements = dict.fromkeys(tag.element for tag in clearing.program.rows.tags if tag.priced and area_of(tag.element))
    worth: dict[str, Floats] = {}
    for element in elements:
        area = area_of(element)
        worth[area] = worth.get(area, np.zeros(len(ids))) + location_prices(clearing, element=element)[0]
    shares: dict[str, dict[str, float]] = {bid: {} for bid in ids}
    for b, bid in enumerate(ids):
        left = 1.0
        for area in sorted(worth):
            part = worth[area][b] / total[b] if total[b] > 0.0 else 0.0
            share = min(max(float(part), 0.0), left)
            left -= share
            if share > 0.0:
                shares[bid][f"DSO:{area}"] = share
        if left > 0.0:
            shares[bid]["TSO"] = left
    return shares


def value_of_export(problem: Problem, plan: Plan, pods: Mapping[str, str]) -> dict[str, float]:
    """What 1 kWh more of injection at PODs is worth there [EUR/kWh], by the names given to them: the price of every
    row times what it does to it."""
    rows, h = problem.grid.rows, problem.case.mtu_h
    index = {name: rows.index[pod] for name, pod in pods.items()}
    if plan.clearing is None:
        return {name: plan.worth_eur_per_kwh * float(rows.head_by_p[k]) for name, k in index.items()}
    clearing = plan.clearing
    found = dict.fromkeys(pods, 0.0)
    for tag, dual in zip(clearing.program.rows.tags, clearing.solution.row_dual.tolist(), strict=True):
        if tag.kind == _INTERFACE_ROW:
            for name, k in index.items():
                found[name] -= dual * float(rows.head_by_p[k]) / h
    network = clearing.networks[0]
    for row in binding_rows(clearing):
        family = network.families[row.key.family]
        quantity = int(family.quantity[row.key.limit])
        weight = complex(family.weight[row.key.limit, row.plane])
        for name, k in index.items():
            effect = (weight * rows.by_p[quantity, k]).real / network.scale_kw[quantity]
            found[name] += row.dual_eur_per_kw * float(effect) / h
    return found


def paid_on_curves(stage: Stage, problem: Problem, plan: Plan) -> dict[str, tuple[float, float]]:
    """By area: change of export bought on its curve [kW, kvar] and what is paid for it [EUR]."""
    found: dict[str, tuple[float, float]] = {curve.area: (0.0, 0.0) for curve, _ in problem.curves.values()}
    rule = plan.unit_prices(stage)
    for name, (curve, bid) in problem.curves.items():
        kw = plan.kw[name]
        eur_per_h = asked_eur_per_h(bid, kw) if rule is None else rule[name] * kw
        before_kw, before_eur = found[curve.area]
        found[curve.area] = before_kw - float(bid.direction.delta_p_kw(kw)), before_eur + eur_per_h * problem.case.mtu_h
    return found


def payments(bought: Mapping[str, Bought], mtu_h: float) -> dict[str, float]:
    """What each buyer pays [EUR]."""
    paid: dict[str, float] = {}
    for each in bought.values():
        for buyer, share in each.shares.items():
            paid[buyer] = paid.get(buyer, 0.0) + share * each.kw * each.price_eur_per_kwh * mtu_h
    return paid
