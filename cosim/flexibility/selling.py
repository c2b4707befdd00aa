"""Aggregators as sellers: what each offers of the bands of its own units, on its own terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cosim.domain.frames import Floats, Ints, frozen
from cosim.domain.market import Bid, Direction, Product, Resource
from cosim.errors import BidError
from cosim.flexibility.band import Bands
from cosim.flexibility.offers import Supply, Terms, bids_of, seller_faults
from cosim.flexibility.portfolio import Unit
from cosim.scenario.market import AggregatorConfig

PRODUCTS = {direction: Product(direction.value, direction) for direction in Direction}
"""What is traded in the local market: net injection raised or lowered for an MTU."""


@dataclass(frozen=True)
class Seller:
    """An aggregator: its terms, the positions of its resources in the fleet, what is registered of them (n_resource, 1)
    [kW] and what they ask, and what it offers of them."""

    name: str
    config: AggregatorConfig
    at: Ints
    resources: tuple[Resource, ...]
    registered_kw: Mapping[Direction, Floats]
    prices_eur_per_kwh: Mapping[Direction, Sequence[float]]
    products: tuple[Product, ...]

    def bids(self, bands: Bands, t_s: int, submitted_s: int) -> Iterator[Bid]:
        """Its bids for the MTUs of the fleet's ``bands`` from ``t_s`` on, at a gate that closes with the step at
        ``submitted_s``."""
        config = self.config
        coupled = bands.n_mtu > 1 and config.delivery == "single"
        terms = Terms(self.name, t_s, config.delivery, coupled=coupled, submitted_s=submitted_s)
        for product in self.products:
            direction = product.direction
            powers_kw = bands.rated_kw(direction) if coupled else bands.sustained_kw(direction)
            able_kw = np.minimum(np.take(powers_kw.T, self.at, axis=0), self.registered_kw[direction])
            if able_kw.any():
                supply = Supply(self.resources, self.prices_eur_per_kwh[direction], able_kw, bands.mtu_s)
                for bid in bids_of(supply, product, terms):
                    yield replace(bid, min_accept=config.min_accept) if config.min_accept else bid


def sellers_of(units: Sequence[Unit], configs: Mapping[str, AggregatorConfig]) -> tuple[Seller, ...]:
    """All aggregators with a resource among ``units``; the entry ``default`` is of those that have none of their own.

    Raises BidError with every fault found of resources that cannot bid.
    """
    names = dict.fromkeys(unit.resource.aggregator for unit in units)
    default = configs.get("default", AggregatorConfig())
    sellers = tuple(_seller(name, units, configs.get(name, default)) for name in names)
    faults = [fault for seller in sellers for fault in seller_faults(*_asked(seller), seller.config.delivery)]
    if faults:
        raise BidError(faults)
    return sellers


def _seller(name: str, units: Sequence[Unit], config: AggregatorConfig) -> Seller:
    own = [(k, unit) for k, unit in enumerate(units) if unit.resource.aggregator == name]
    resources = tuple(unit.resource for _, unit in own)
    return Seller(
        name=name,
        config=config,
        at=frozen([k for k, _ in own], np.int64),
        resources=resources,
        registered_kw={
            Direction.UP: frozen([[resource.up_kw] for resource in resources]),
            Direction.DOWN: frozen([[resource.down_kw] for resource in resources]),
        },
        prices_eur_per_kwh={
            Direction.UP: [unit.up_eur_per_kwh for _, unit in own],
            Direction.DOWN: [unit.down_eur_per_kwh for _, unit in own],
        },
        products=tuple(replace(each, min_kw=config.min_kw, step_kw=config.step_kw) for each in PRODUCTS.values()),
    )


def _asked(seller: Seller) -> tuple[Sequence[Resource], list[tuple[float, float]]]:
    """Its resources, and their prices for UP and for DOWN."""
    prices = seller.prices_eur_per_kwh
    return seller.resources, list(zip(prices[Direction.UP], prices[Direction.DOWN], strict=True))
