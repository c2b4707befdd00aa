"""Which bids a market takes: each is judged by itself, so that one that is wrong does not stop the others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby

import numpy as np

from cosim.domain.frames import Floats
from cosim.domain.market import Bid, Direction, Product
from cosim.errors import Fault
from cosim.market.book import bid_faults
from cosim.market.case import ClearingCase

_SHARE = 1e-9


def rejections(
    case: ClearingCase, products: Mapping[str, Product] | None = None, gate_closure_s: int | None = None
) -> dict[str, tuple[Fault, ...]]:
    """Why bids of a case are rejected, by id; with ``products`` they must be of one.

    Bids that together offer more of a resource than is registered are taken in the order of submission (then id) as far
    as they fit; obligatory bids of contracts were submitted when these were signed. Bids linked to a rejected one go
    with it.
    """
    found: dict[str, tuple[Fault, ...]] = {}
    while True:
        left = replace(case, bids=tuple(bid for bid in case.bids if bid.id not in found))
        new = {bid.id: tuple(_faults(bid, left, products, gate_closure_s)) for bid in left.bids}
        new = {name: faults for name, faults in new.items() if faults} or _overbooked(left)
        if not new:
            return found
        found |= new


def _faults(
    bid: Bid, case: ClearingCase, products: Mapping[str, Product] | None, gate_closure_s: int | None
) -> Iterator[Fault]:
    yield from bid_faults(bid, case, gate_closure_s)
    if products is not None:
        yield from product_bid_faults(bid, products)


def _overbooked(case: ClearingCase) -> dict[str, tuple[Fault, ...]]:
    """Bids that do not fit; of an exclusive group the largest quantity counts, bids of any split do not."""
    taken: dict[tuple[str, Direction], dict[str, Floats]] = {}
    found = {}
    for bid in sorted(case.bids, key=lambda each: (each.submitted_s, each.id)):
        group, faults, own = bid.exclusive_group or f"bid {bid.id}", [], {}
        for name in () if bid.any_of else bid.members:
            unit = case.resources[name]
            limit = unit.up_kw if bid.direction is Direction.UP else unit.down_kw
            kw = dict(bid.shares).get(name, 1.0) * np.array(bid.quantity_kw)
            before = taken.setdefault((name, bid.direction), {})
            own[name] = np.maximum(kw, before.get(group, 0.0))
            most_kw = float(sum((each for key, each in before.items() if key != group), own[name]).max())
            if most_kw > limit * (1.0 + _SHARE):
                problem = f"with bids before it offers more {bid.direction.value} of {name} than is registered"
                value, allowed = f"{most_kw:g} kW", f"{limit:g} kW"
                faults.append(Fault(problem, key=f"bid {bid.id}", value=value, allowed=allowed))
        if faults:
            found[bid.id] = tuple(faults)
        else:
            for name, kw in own.items():
                taken[name, bid.direction][group] = kw
    return found


def product_bid_faults(bid: Bid, products: Mapping[str, Product]) -> Iterator[Fault]:
    """All in which a bid is not of its product."""
    key, product = f"bid {bid.id}", products.get(bid.product)
    if product is None:
        yield Fault("no product of that name", key=key, value=bid.product, allowed=", ".join(products) or "none")
        return
    if bid.direction is not product.direction:
        yield Fault("of another direction than its product", key=key, value=bid.direction.value)
    for kw in dict.fromkeys(kw for kw in bid.quantity_kw if kw > 0.0):
        yield from _quantity_faults(kw, product, key)
    if not product.divisible and bid.min_accept < 1.0:
        yield Fault("its product is indivisible: min_accept must be 1", key=key, value=str(bid.min_accept))
    yield from _duration_faults(bid, product, key)


def _quantity_faults(kw: float, product: Product, key: str) -> Iterator[Fault]:
    most = math.inf if product.max_kw is None else product.max_kw
    if not product.min_kw * (1.0 - _SHARE) <= kw <= most * (1.0 + _SHARE):
        yield Fault("a quantity that its product does not allow", key=key, value=f"{kw:g} kW",
                    allowed=f"{product.min_kw:g}..{most:g} kW")  # fmt: skip
    if product.step_kw > 0.0 and abs(kw - round(kw / product.step_kw) * product.step_kw) > _SHARE * kw:
        yield Fault("not a multiple of its product's step", key=key, value=f"{kw:g} kW", allowed=f"{product.step_kw:g}")


def _duration_faults(bid: Bid, product: Product, key: str) -> Iterator[Fault]:
    """A block lasts as long as its stretches without a pause; what is no block may be accepted in a single MTU."""
    stretches = [len(list(mtus)) for offers, mtus in groupby(kw > 0.0 for kw in bid.quantity_kw) if offers]
    allowed = f"{product.duration_min_mtu}..{product.duration_max_mtu} MTUs"
    if bid.block:
        for n in stretches:
            if not product.duration_min_mtu <= n <= product.duration_max_mtu:
                yield Fault(
                    "of a duration that its product does not allow", key=key, value=f"{n} MTUs", allowed=allowed
                )
    elif product.duration_min_mtu > 1 and stretches:
        yield Fault("may be accepted in single MTUs, its product lasts longer: offer a block", key=key, allowed=allowed)
