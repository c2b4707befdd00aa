"""A stage without a linear program, where no limit is near: bids in the order of prices until the balance is met.

What is found is the plan of least cost; of several the one that the linear program prefers (`tie_weights`): with as
little activated as can be, of equals the first. Where a quantity of a network comes close to its limit with the worst
forecast errors, there is no answer here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from cosim.coordination.problem import Problem, effects_on_import
from cosim.coordination.scheme import Stage
from cosim.coordination.situation import SMALL_KW
from cosim.domain.frames import Floats
from cosim.domain.market import Bid
from cosim.market.offers import canonical

_ALIKE_EUR_PER_KWH: Final = 1e-9  # prices of which none is clearly the lower
_NEAR: Final = 0.995  # of a limit


class Merit(NamedTuple):
    """kW by bid, and what 1 kWh more at the head is worth [EUR/kWh]."""

    kw: dict[str, float]
    worth_eur_per_kwh: float


class _Steps(NamedTuple):
    """Pieces of bids (n,): the number of the bid, kW, effect of 1 kW on export, and the worth of export [EUR/kWh] from
    which on a piece is used, or, of a bid that lowers export, up to which."""

    bid: tuple[int, ...]
    kw: Floats
    effect: Floats
    at: Floats


def by_merit(stage: Stage, problem: Problem) -> Merit | None:
    """The plan of a stage, None where only a linear program can tell."""
    case = problem.case
    if not _simple(stage, problem):
        return None
    low = {bid.id: case.locked.get(bid.id, (0.0,))[0] for bid in case.bids}
    found = _idle(case.bids, low) if case.settings.interface_kw is None else _balanced(problem, low)
    return None if found is None or _near_a_limit(problem, found.kw) else found


def _simple(stage: Stage, problem: Problem) -> bool:
    """Whether bids are divisible pieces, each paid what it asks by one buyer, and the balance is one number or free."""
    case = problem.case
    interface = case.settings.interface_kw
    return (
        stage.objective == "least_cost"
        and stage.pricing == "pay_as_bid"
        and len(set(stage.buyers) - {"BRP"}) < 2
        and stage.reversal != "buy_back"
        and not (problem.demands or case.joint_limits or case.couplings or case.needs)
        and all(bid.min_accept == 0.0 and not (bid.exclusive_group or bid.parent) for bid in case.bids)
        and (interface is None or interface[0] == interface[1])
    )


def _target_kw(problem: Problem) -> float:
    """Change of the import at the head that the plan has to come to."""
    interface = problem.case.settings.interface_kw
    assert interface is not None  # as the caller has found
    return float(interface[0])


def _left(bid: Bid, low_kw: float) -> Iterator[tuple[float, float]]:
    """(kW, price [EUR/kWh]) of what may be used of a bid on top of what was awarded before."""
    left, room = low_kw, bid.quantity_kw[0]
    for step in bid.steps:
        width = min(step.quantity_kw, room)
        used = min(left, width)
        left, room = left - used, room - width
        if width - used > 0.0:
            yield width - used, step.price_eur_per_kwh


def _idle(bids: Sequence[Bid], low: Mapping[str, float]) -> Merit | None:
    """Without a balance nothing is bought, unless a seller would pay for it."""
    if any(price < _ALIKE_EUR_PER_KWH for bid in bids for _, price in _left(bid, low[bid.id])):
        return None
    return Merit(dict(low), 0.0)


def _balanced(problem: Problem, low: Mapping[str, float]) -> Merit | None:
    """What changes the import by just as much as the plan has to."""
    case = problem.case
    effect = [-change for change in effects_on_import(case.bids, case.resources, problem.grid.rows).values()]
    left = [(b, *piece) for b, bid in enumerate(case.bids) for piece in _left(bid, low[bid.id])]
    begin_kw = sum(each * kw for each, kw in zip(effect, low.values(), strict=True))
    if not left:
        return None
    of, kw, price = zip(*left, strict=True)
    by = np.array([effect[b] for b in of])
    if not (np.abs(by) > 0.5).all():
        return None
    found = _in_order(_Steps(of, np.array(kw), by, np.array(price) / by), -_target_kw(problem) - begin_kw, case.bids)
    if found is None:
        return None
    taken, worth = found
    total = list(low.values())
    for b, used in zip(of, taken.tolist(), strict=True):
        total[b] += used
    return Merit(dict(zip(low, total, strict=True)), worth)


def _in_order(steps: _Steps, export_kw: float, bids: Sequence[Bid]) -> tuple[Floats, float] | None:
    """Export rises with its worth: bids that raise it are taken one after the other, those that lower it given up."""
    worth, kw, up = steps.at, steps.kw, steps.effect > 0.0
    gain = kw * np.abs(steps.effect)
    order = np.argsort(worth, kind="stable")
    given_up = gain[~up].sum()
    reached = np.cumsum(gain[order]) - given_up
    last = int(np.searchsorted(reached, export_kw))
    if last == len(order):
        return None
    alike = np.abs(worth[order] - worth[order[last]]) < _ALIKE_EUR_PER_KWH
    if np.count_nonzero(alike) > 1:
        if (np.abs(steps.effect[order[alike]]) != 1.0).any():
            return None
        order[alike] = _as_preferred(order[alike].tolist(), steps, bids)
        reached = np.cumsum(gain[order]) - given_up
        last = int(np.searchsorted(reached, export_kw))
    moved = np.zeros(len(order))
    moved[order[:last]] = 1.0
    here = order[last]
    moved[here] = 1.0 - (reached[last] - export_kw) / gain[here]
    return np.where(up, moved, 1.0 - moved) * kw, float(worth[here])


def _as_preferred(alike: list[int], steps: _Steps, bids: Sequence[Bid]) -> list[int]:
    """Steps of one worth in the order in which they are moved: given up from the last on, then taken from the first
    on."""
    place = {bid.id: k for k, bid in enumerate(canonical(bids))}
    alike = sorted(alike, key=lambda k: (place[bids[steps.bid[k]].id], k))
    given_up, taken = ([k for k in alike if (steps.effect[k] > 0.0) == up] for up in (False, True))
    return given_up[::-1] + taken


def _near_a_limit(problem: Problem, kw: Mapping[str, float]) -> bool:
    """Whether some quantity of the network could come to its limit with a plan and some forecast error."""
    rows, band = problem.grid.rows, problem.grid.uncertainty
    if not rows.names:
        return False
    change = _change(problem, kw)
    if change is None or (band is not None and band.base == "residual"):
        return True
    size = np.abs(rows.at(*change) if any(each.any() for each in change) else rows.base)
    reach = np.zeros(len(size)) if band is None else problem.case.protections[0].reach(ceiling=True)
    return bool(((size + reach > _NEAR * rows.upper) | (size - reach < rows.lower / _NEAR)).any())


def _change(problem: Problem, kw: Mapping[str, float]) -> tuple[Floats, Floats] | None:
    """What a plan changes of the consumption of PODs (n_pod,) [kW, kvar]; None if that is not known."""
    rows, case = problem.grid.rows, problem.case
    p_kw, q_kvar = np.zeros(len(rows.pods)), np.zeros(len(rows.pods))
    for bid in (bid for bid in case.bids if kw[bid.id] > SMALL_KW):
        shares = dict(bid.shares) or {bid.members[0]: 1.0}
        if len(shares) < len(bid.members) or any(case.resources[name].delivery_risk for name in bid.members):
            return None  # who delivers is open, or whether
        for name, share in shares.items():
            unit = case.resources[name]
            k = rows.index[unit.pod]
            change_kw = float(bid.direction.delta_p_kw(share * kw[bid.id]))
            p_kw[k] += change_kw
            q_kvar[k] += unit.kvar_per_kw * change_kw
    return p_kw, q_kvar
