"""An award divided among the members that offered: at least cost, within what each can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from cosim.domain.frames import Floats, frozen
from cosim.domain.market import Award, Bid, Direction
from cosim.errors import BidError, Fault, SolverError
from cosim.flexibility.band import rates_kwh, room_kwh
from cosim.flexibility.offers import Member, merit_order

_LARGEST = 100.0
"""The dearest member's cost in the programme: far above the solver's tolerance of 1e-7 on costs."""

_TIE = 1e-3
"""Spread of costs by position, so that equals have an order."""

_MISSING = 1e5
"""Cost of a kW that nobody delivers."""

_LEAST_EUR_PER_KWH = 1e-6
"""Prices below this are as good as none."""

_NOISE_KW = 1e-6
"""What is missing below this is the solver's tolerance."""


@dataclass(frozen=True)
class Division:
    """``quantity_kw`` (n_member, n_mtu) [kW] by each member in the direction of the award; ``missing_kw`` (n_mtu,) [kW]
    of the award that the members cannot deliver."""

    quantity_kw: Floats
    missing_kw: Floats


@dataclass(frozen=True)
class Divided:
    """``awards`` of one direction whose sum ``members`` deliver, each ``quantity_kw`` (n_member, n_mtu) [kW] of it, but
    for ``missing_kw`` (n_mtu,) [kW]."""

    awards: tuple[Award, ...]
    members: tuple[str, ...]
    direction: Direction
    quantity_kw: Floats
    missing_kw: Floats


def divide(members: Sequence[Member], direction: Direction, award_kw: Floats) -> Division:
    """The cheapest division of ``award_kw`` (n_mtu,) [kW] within rated powers and energy.

    In one MTU the merit order is exact, and so it is over several as long as no member stores energy; else a linear
    programme over all MTUs. Nothing is missing of what was offered as sustained by the same members. Raises SolverError
    if the programme has no solution.
    """
    prices = np.array([member.price_eur_per_kwh(direction) for member in members])
    if len(award_kw) == 1 or all(member.band.store is None for member in members):
        caps_kw = np.stack([member.sustained_kw(direction) for member in members])
        return _by_merit(prices, caps_kw, award_kw)
    return _by_programme(members, direction, prices, award_kw)


def divide_awards(
    bids: Sequence[Bid], awards: Sequence[Award], members: Mapping[str, Member]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """What each resource is to change its consumption by [kW], from the awards of an aggregator's own ``bids``.

    Returns changes (n_mtu,) by resource, of those in an awarded bid, and what is missing (n_mtu,) by award, of those
    that cannot be delivered whole. Raises BidError as `divided` does.
    """
    changes: dict[str, Floats] = {}
    missing: dict[str, Floats] = {}
    for each in divided(bids, awards, members):
        for name, kw in zip(each.members, each.quantity_kw, strict=True):
            changes[name] = changes.get(name, 0.0) + each.direction.delta_p_kw(kw)
        for award in each.awards if each.missing_kw.any() else ():
            wanted = np.array(award.quantity_kw) > 0.0
            if (wanted & (each.missing_kw > 0.0)).any():
                missing[award.bid] = frozen(np.where(wanted, each.missing_kw, 0.0))
    return {name: frozen(change_kw) for name, change_kw in changes.items()}, missing


def divided(bids: Sequence[Bid], awards: Sequence[Award], members: Mapping[str, Member]) -> tuple[Divided, ...]:
    """Who delivers what of the awards of an aggregator's own ``bids``.

    Awards to any of the same members in the same direction are divided together; those to one resource or in fixed
    shares leave nothing to divide. Raises BidError for an award of another bid or other MTUs than the bid's.
    """
    own = {bid.id: bid for bid in bids}
    _check(own, awards)
    found: list[Divided] = []
    together: dict[tuple[Direction, tuple[str, ...]], list[Award]] = {}
    for award in awards:
        bid = own[award.bid]
        if bid.any_of:
            together.setdefault((bid.direction, bid.any_of), []).append(award)
        else:
            quantity_kw = np.array([award.quantity_kw])
            if bid.shares:
                quantity_kw = np.array([[share] for _, share in bid.shares]) * quantity_kw
            found.append(Divided((award,), bid.members, bid.direction, quantity_kw, np.zeros(len(award.quantity_kw))))
    for (direction, names), of_same in together.items():
        wanted_kw = np.array([award.quantity_kw for award in of_same])
        division = divide([members[name] for name in names], direction, wanted_kw.sum(axis=0))
        found.append(Divided(tuple(of_same), names, direction, division.quantity_kw, division.missing_kw))
    return tuple(found)


def _check(own: Mapping[str, Bid], awards: Sequence[Award]) -> None:
    faults = []
    for award in awards:
        bid = own.get(award.bid)
        if bid is None:
            faults.append(Fault("award of a bid that was not made", value=award.bid, allowed=", ".join(own)))
        elif (award.t_s, len(award.quantity_kw)) != (bid.t_s, len(bid.quantity_kw)):
            faults.append(Fault("award for other market time units than the bid", value=award.bid))
    if faults:
        raise BidError(faults)


def _by_merit(prices: Floats, caps_kw: Floats, award_kw: Floats) -> Division:
    quantity_kw, left_kw = np.zeros(caps_kw.shape), np.array(award_kw, dtype=float)
    for k in merit_order(prices.tolist()):
        quantity_kw[k] = np.minimum(caps_kw[k], left_kw)
        left_kw -= quantity_kw[k]
    return _division(quantity_kw, award_kw)


def _by_programme(members: Sequence[Member], direction: Direction, prices: Floats, award_kw: Floats) -> Division:
    """Columns: quantities of each member and MTU, what is missing in each MTU, departures of the stored energy of each
    member that stores, at the end of each MTU."""
    n, n_member = len(award_kw), len(members)
    stores = [(k, member.band.store) for k, member in enumerate(members) if member.band.store is not None]
    cost = prices * (_LARGEST / max(float(np.abs(prices).max()), _LEAST_EUR_PER_KWH))
    cost += _TIE * np.arange(n_member) / n_member
    one = scipy.sparse.identity(n, format="csr")
    first = scipy.sparse.hstack([*[one] * n_member, one, scipy.sparse.csr_matrix((n, n * len(stores)))])
    rows = [first]
    for i, (k, store) in enumerate(stores):
        blocks = [scipy.sparse.csr_matrix((n, n)) for _ in range(n_member + 1 + len(stores))]
        blocks[k] = scipy.sparse.diags(-rates_kwh(store, direction))
        blocks[n_member + 1 + i] = one - store.retention * scipy.sparse.eye(n, k=-1)
        rows.append(scipy.sparse.hstack(blocks))
    upper = [member.rated_kw(direction) for member in members]
    upper += [award_kw, *(room_kwh(store, direction) for _, store in stores)]
    from scipy.optimize import linprog  # a quarter of a second, which awards of single resources save

    found = linprog(
        np.concatenate([np.repeat(cost, n), np.full(n, _MISSING), np.zeros(n * len(stores))]),
        A_eq=scipy.sparse.vstack(rows, format="csr"),
        b_eq=np.concatenate([award_kw, np.zeros(n * len(stores))]),
        bounds=np.column_stack([np.zeros(n * len(upper)), np.concatenate(upper)]),
        method="highs",
    )
    if not found.success:
        raise SolverError(f"dividing an award among members: the linear programme has no solution ({found.message})")
    quantity_kw = np.clip(found.x[: n * n_member], 0.0, np.concatenate(upper[:n_member])).reshape(n_member, n)
    return _division(quantity_kw, award_kw)


def _division(quantity_kw: Floats, award_kw: Floats) -> Division:
    missing_kw = award_kw - quantity_kw.sum(axis=0)
    return Division(frozen(quantity_kw), frozen(np.where(missing_kw > _NOISE_KW, missing_kw, 0.0)))
