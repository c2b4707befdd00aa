"""Before a market: are products well defined, can a resource sell them, and what does the grid let it do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cosim.domain.frames import Floats
from cosim.domain.market import Direction, Product, Resource
from cosim.errors import BidError, Fault
from cosim.market.case import ClearingCase
from cosim.market.headroom import DOWN, UP, Headroom, headroom

_NO_EFFECT = 1e-6  # kW of a limit by 1 kW


def check_products(products: Sequence[Product]) -> None:
    """Raises BidError with all that is wrong with a catalogue."""
    ids = [product.id for product in products]
    faults = [
        Fault("more than one product of that id", key=f"product {name}")
        for name in dict.fromkeys(ids)
        if ids.count(name) > 1
    ]
    if faults := [*faults, *(fault for product in products for fault in product_faults(product))]:
        raise BidError(faults)


def product_faults(product: Product) -> Iterator[Fault]:
    """All that is wrong with the definition of a product."""
    key = f"product {product.id}"
    for name in ("min_kw", "step_kw", "full_activation_s"):
        value = getattr(product, name)
        if not (math.isfinite(value) and value >= 0.0):
            yield Fault(f"{name} must be a number of 0 or more", key=key, value=str(value))
    if product.max_kw is not None and not product.max_kw >= max(product.min_kw, product.step_kw):
        value = f"{product.max_kw} kW"
        yield Fault("nothing can be offered: max_kw is below min_kw or step_kw", key=key, value=value)
    if not 1 <= product.duration_min_mtu <= product.duration_max_mtu:
        value = f"{product.duration_min_mtu}..{product.duration_max_mtu}"
        yield Fault("a duration must be 1 MTU or more, the least first", key=key, value=value)
    if not 0.0 <= product.tolerance <= 1.0:
        yield Fault("tolerance must be in [0, 1]", key=key, value=str(product.tolerance))


def qualification_faults(resource: Resource, product: Product) -> Iterator[Fault]:
    """Why a resource cannot sell a product by itself."""
    capability_kw = resource.up_kw if product.direction is Direction.UP else resource.down_kw
    least_kw = max(product.min_kw, product.step_kw)
    if capability_kw <= 0.0 or capability_kw < least_kw:
        value, allowed = f"{capability_kw:g} kW", f"at least {least_kw:g} kW" if least_kw else "above 0 kW"
        problem = f"too little {product.direction.value} for product {product.id}"
        yield Fault(problem, key=f"resource {resource.id}", value=value, allowed=allowed)


@dataclass(frozen=True)
class GridCapability:
    """What the network lets a resource do in one direction in every snapshot without violating, or making worse, any
    limit: ``alone_kw`` of what is ``registered_kw``, and ``together_kw`` if all resources may go as far in that
    direction at once. The limits that decide, empty for none."""

    resource: str
    direction: Direction
    registered_kw: float
    alone_kw: float
    together_kw: float
    alone_limit: str
    together_limit: str


def grid_capabilities(case: ClearingCase) -> tuple[GridCapability, ...]:
    """Of every resource of a case whose MTUs are snapshots for which the network must be safe; its bids do not matter.

    Together, a limit's room is shared in proportion to what is registered by those that take of it, so that every
    combination of up to ``together_kw`` in one direction is safe in the linear model, whoever goes how far.
    """
    names = tuple(case.resources)
    units = case.resources.values()
    registered = np.array([[unit.up_kw for unit in units], [unit.down_kw for unit in units]])
    alone, together = _Least(registered), _Least(registered)
    for rows in headroom(case):
        take = np.where(rows.take > _NO_EFFECT, rows.take, 0.0)
        room = np.maximum(rows.room_kw, 0.0)[:, None, None]
        alone.lower(rows, _over(room, take))
        share = np.minimum(_over(room[:, :, 0], (take * registered).sum(axis=2)), 1.0)
        together.lower(rows, np.where(take > 0.0, share[:, :, None] * registered, np.inf))
    return tuple(
        GridCapability(
            resource=name,
            direction=side,
            registered_kw=float(registered[d, k]),
            alone_kw=float(alone.kw[d, k]),
            together_kw=float(together.kw[d, k]),
            alone_limit=alone.limit[d][k],
            together_limit=together.limit[d][k],
        )
        for k, name in enumerate(names)
        for side, d in ((Direction.UP, UP), (Direction.DOWN, DOWN))
    )


def prequalified(
    resources: Mapping[str, Resource], capabilities: Sequence[GridCapability], together: bool = True
) -> dict[str, Resource]:
    """Resources with no more capability registered than the network allows all of them together, or each alone."""
    cut = dict(resources)
    for each in capabilities:
        kw = each.together_kw if together else each.alone_kw
        unit = cut[each.resource]
        up = each.direction is Direction.UP
        cut[each.resource] = replace(unit, up_kw=kw) if up else replace(unit, down_kw=kw)
    return cut


class _Least:
    """Smallest quantities by direction and resource (2, n_resource) [kW], and the limit to which each is due."""

    def __init__(self, kw: Floats) -> None:
        self.kw = kw.copy()
        self.limit = [[""] * kw.shape[1] for _ in range(2)]

    def lower(self, rows: Headroom, kw: Floats) -> None:
        """``kw`` (n, 2, n_resource): what each of ``rows`` allows."""
        worst = kw.argmin(axis=0)
        found = np.take_along_axis(kw, worst[None], axis=0)[0]
        for d, k in zip(*np.nonzero(found < self.kw), strict=True):
            self.kw[d, k] = found[d, k]
            self.limit[d][k] = str(rows.tag(int(worst[d, k])))


def _over(room: Floats, take: Floats) -> Floats:
    none = np.full(np.broadcast_shapes(room.shape, take.shape), np.inf)
    return np.asarray(np.divide(room, take, out=none, where=take > 0.0))
