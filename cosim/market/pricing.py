"""Prices of a plan: as bid, by location from the duals of what binds, or uniform; and what makes sellers whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from cosim.domain.frames import Floats
from cosim.domain.market import Award, Direction
from cosim.market.offers import Offers
from cosim.market.outcome import Clearing

PricingRule = Literal["pay_as_bid", "pay_as_clear", "pay_as_clear_uniform"]
_AWARDED_KW = 1e-9


def bought_kw(clearing: Clearing) -> Floats:
    """What is accepted beyond what earlier stages awarded (n_mtu, n_bid)."""
    return clearing.offers.awarded_kw(_beyond_locked(clearing))


def _beyond_locked(clearing: Clearing) -> Floats:
    columns = clearing.offers.columns
    return np.asarray(clearing.solution.x[: len(columns.lower)] - columns.lower)


def bid_prices(clearing: Clearing) -> Floats:
    """Mean price asked for what is bought (n_mtu, n_bid) [EUR/kWh], 0 where nothing is."""
    offers = clearing.offers
    kw = np.asarray(offers.quantity.sum(axis=0)).ravel()
    unit = np.divide(offers.columns.cost, kw * clearing.case.mtu_h, out=np.zeros_like(kw), where=kw > 0.0)
    accepted = bought_kw(clearing)
    asked = (offers.quantity @ (unit * _beyond_locked(clearing))).reshape(accepted.shape)
    return np.asarray(np.divide(asked, accepted, out=np.zeros_like(asked), where=accepted > _AWARDED_KW))


def location_prices(clearing: Clearing, kinds: Sequence[str] | None = None, element: str | None = None) -> Floats:
    """What 1 kWh of each bid is worth where it is (n_mtu, n_bid) [EUR/kWh]: the duals of network, interface and needs
    times its effect on them, of rows of certain ``kinds`` or of one ``element`` only. Accepted bids are worth at least
    what they ask, rejected ones at most that (without integers)."""
    program, offers = clearing.program, clearing.offers
    tags, n_mtu = program.rows.tags, clearing.case.n_mtu
    chosen = [
        t.priced and (kinds is None or t.kind in kinds) and (element is None or t.element == element) for t in tags
    ]
    value = np.where(chosen, clearing.solution.row_dual, 0.0)
    mtu = np.array([tag.mtu for tag in tags], dtype=np.int64)
    by_mtu = np.zeros((n_mtu, program.n_row))
    by_mtu[mtu, np.arange(program.n_row)] = value
    worth = by_mtu @ program.rows.matrix(program.n_column)[:, : offers.quantity.shape[1]]
    return _per_kwh(offers, np.asarray(worth), n_mtu) / clearing.case.mtu_h


def _per_kwh(offers: Offers, worth: Floats, n_mtu: int) -> Floats:
    """EUR per kW of each bid and MTU from the worth of one unit of each column by MTU of the row (n_mtu, n_column):
    of a block what the rows of that MTU say, of others what all rows say."""
    prices = np.zeros((n_mtu, len(offers.bids)))
    cells = offers.quantity.tocoo()
    for row, column, kw in zip(cells.row.tolist(), cells.col.tolist(), cells.data.tolist(), strict=True):
        t, b = divmod(row, len(offers.bids))
        if kw:
            prices[t, b] = (worth[t, column] if offers.bids[b].block else worth[:, column].sum()) / kw
    return prices


def unit_prices(clearing: Clearing, rule: PricingRule) -> Floats:
    """Price paid (n_mtu, n_bid) [EUR/kWh]. ``pay_as_clear_uniform``, the highest accepted price of each direction and
    MTU, is an approximation: right only where one limit binds on which all bids have the same effect."""
    asked = bid_prices(clearing)
    if rule == "pay_as_bid":
        return asked
    if rule == "pay_as_clear":
        return location_prices(clearing)
    accepted = bought_kw(clearing) > _AWARDED_KW
    prices = np.zeros_like(asked)
    for direction in Direction:
        own = np.array([bid.direction is direction for bid in clearing.bids], dtype=bool)
        highest = np.where(accepted & own, asked, -np.inf).max(axis=1, initial=-np.inf)
        prices += np.where(own & np.isfinite(highest)[:, None], np.nan_to_num(highest, neginf=0.0)[:, None], 0.0)
    return prices


def awards(clearing: Clearing, rule: PricingRule, stage: str, buyer: str) -> tuple[Award, ...]:
    """What each buyer bought of each bid, beyond what earlier stages awarded: holders of needs the share of its price
    that it is worth to their need, ``buyer`` (the operator of the network) the rest."""
    prices, asked = unit_prices(clearing, rule), bid_prices(clearing)
    found, bought = [], bought_kw(clearing)
    for name, share in _shares(clearing, buyer).items():
        kw = bought * share
        for b, bid in enumerate(clearing.bids):
            if (kw[:, b] > _AWARDED_KW).any():
                quantity, price, own = (tuple(each[:, b].tolist()) for each in (kw, prices, asked))
                found.append(Award(bid.id, stage, name, clearing.case.t_s, quantity, price, own))
    return tuple(found)


def _shares(clearing: Clearing, buyer: str) -> Mapping[str, Floats]:
    """Share of each award (n_mtu, n_bid) that each buyer pays."""
    total = location_prices(clearing)
    shares = {buyer: np.ones_like(total)}
    for need in clearing.case.needs:
        worth = location_prices(clearing, ("need",), need.id)
        share = np.clip(np.divide(worth, total, out=np.zeros_like(total), where=total > 0.0), 0.0, 1.0)
        share = np.minimum(share, shares[buyer])
        shares[buyer] = shares[buyer] - share
        shares[need.buyer] = shares.get(need.buyer, 0.0) + share
    return shares


def uplifts(clearing: Clearing, prices: Floats) -> Mapping[str, float]:
    """What makes each bid whole [EUR] whose revenue at ``prices`` (n_mtu, n_bid) is less than it asks: bids accepted as
    a whole, or tied over the MTUs."""
    energy = bought_kw(clearing) * clearing.case.mtu_h
    short = ((bid_prices(clearing) - prices) * energy).sum(axis=0)
    return {bid.id: float(eur) for bid, eur in zip(clearing.bids, short, strict=True) if eur > 1e-9}
