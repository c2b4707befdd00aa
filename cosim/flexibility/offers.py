"""Offers of an aggregator: from the bands of its members to bids for one product."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from cosim.domain.frames import Floats
from cosim.domain.market import Bid, Coupling, Direction, PriceStep, Product, Resource
from cosim.errors import BidError, Fault
from cosim.flexibility.band import FlexibilityBand, energy_band
from cosim.flexibility.battery import Battery
from cosim.flexibility.resources import Device

Delivery = Literal["single", "fixed_shares", "any_split"]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Member:
    """A resource of a portfolio, what it can do, and its prices [EUR/kWh]."""

    resource: Resource
    band: FlexibilityBand
    up_eur_per_kwh: float
    down_eur_per_kwh: float

    def price_eur_per_kwh(self, direction: Direction) -> float:
        return self.up_eur_per_kwh if direction is Direction.UP else self.down_eur_per_kwh

    def rated_kw(self, direction: Direction) -> Floats:
        """The most in each MTU by power, as registered (n_mtu,) [kW]."""
        return np.minimum(self.band.rated_kw(direction), self._registered_kw(direction))

    def sustained_kw(self, direction: Direction) -> Floats:
        """What it holds in all MTUs together, as registered (n_mtu,) [kW]."""
        return np.minimum(self.band.sustained_kw(direction), self._registered_kw(direction))

    def _registered_kw(self, direction: Direction) -> float:
        return self.resource.up_kw if direction is Direction.UP else self.resource.down_kw


@dataclass(frozen=True)
class Supply:
    """What ``resources`` can do in the direction of a product: ``powers_kw`` (n_resource, n_mtu) [kW] in MTUs of
    ``mtu_s`` [s], at one price each."""

    resources: Sequence[Resource]
    prices_eur_per_kwh: Sequence[float]
    powers_kw: Floats
    mtu_s: int

    def of(self, group: Sequence[int]) -> Supply:
        """That of some resources."""
        resources, prices = [self.resources[k] for k in group], [self.prices_eur_per_kwh[k] for k in group]
        return Supply(resources, prices, self.powers_kw[group], self.mtu_s)


@dataclass(frozen=True)
class Reliability:
    """What is kept back so that the rest is there with probability 1 - ``risk``.

    ``shortfall_kw`` by resource (n_sample,) [kW]: by how much it could do less than forecast (negative: more), at the
    same times for all of them, so that what happens together adds up.
    """

    risk: float
    shortfall_kw: Mapping[str, Floats] = field(default_factory=dict)

    def margin_kw(self, resources: Sequence[str]) -> float:
        """Quantile of the shortfall of all ``resources`` together [kW], at least 0."""
        known = [self.shortfall_kw[name] for name in resources if name in self.shortfall_kw]
        if not known:
            return 0.0
        return max(0.0, float(np.quantile(np.sum(known, axis=0), 1.0 - self.risk, method="higher")))


def shortfall_kw(curtailable: float, direction: Direction, error_kw: Floats) -> Floats:
    """By how much less of a load can be shed (UP) or of PV curtailed (DOWN) than forecast, from errors of the forecast
    ``error_kw`` (n_sample,) [kW]: truth less forecast, consumption positive."""
    return direction.delta_p_kw(curtailable * error_kw)


@dataclass(frozen=True)
class Terms:
    """Who offers, from which MTU on (``t_s`` [s]), and who delivers: each resource for itself (``single``), all in the
    shares of what they offer (``fixed_shares``), or any of them in any split (``any_split``).

    ``per_perimeter``: members of one perimeter bid together, else all. ``coupled``: the clearing is told what couples
    the MTUs of a resource (`coupling`), so that its bid offers the rated power and not only what it holds in all MTUs.
    """

    seller: str
    t_s: int
    delivery: Delivery = "fixed_shares"
    per_perimeter: bool = True
    coupled: bool = False
    submitted_s: int = 0


def offers(
    members: Sequence[Member], product: Product, terms: Terms, reliability: Reliability | None = None
) -> tuple[Bid, ...]:
    """Bids for ``product``, each over all MTUs of the members' bands with zeros where nothing is offered.

    Members whose energy is limited offer what they hold in all MTUs together. Raises BidError with every fault found.
    """
    _check(members, product, terms)
    direction = product.direction
    if not members:
        return ()
    powers = [m.rated_kw(direction) if terms.coupled else m.sustained_kw(direction) for m in members]
    prices = [member.price_eur_per_kwh(direction) for member in members]
    supply = Supply([member.resource for member in members], prices, np.stack(powers), members[0].band.mtu_s)
    return bids_of(supply, product, terms, reliability)


def bids_of(supply: Supply, product: Product, terms: Terms, reliability: Reliability | None = None) -> tuple[Bid, ...]:
    """Bids for ``product``, each over all MTUs of the supply with zeros where nothing is offered.

    Quantities keep the product's sizes; what the reliability margin and these take away is the dearest. A product that
    lasts several MTUs is offered in blocks of constant power, at their mean price.
    """
    margins = Reliability(0.0) if reliability is None else reliability
    offered = replace(supply, powers_kw=_in_blocks(supply.powers_kw, product.duration_min_mtu))
    if terms.delivery == "single" and product.duration_min_mtu == 1:
        return tuple(_single_bids(offered, product, terms, margins))
    bids: list[Bid] = []
    for name, group in _groups(offered, terms).items():
        together = offered.of(group)
        kept_kw = margins.margin_kw([resource.id for resource in together.resources])
        wanted_kw = _sized_kw(together.powers_kw.sum(axis=0) - kept_kw, product)
        bids += _bids(name, together, wanted_kw, product, terms)
    return tuple(bids)


def coupling(resource: str, device: Device[Any], state: Any, band: FlexibilityBand) -> Coupling | None:
    """What couples the MTUs of a resource, for the clearing; None if nothing does."""
    if band.store is None:
        return None
    if isinstance(device, Battery):
        return device.storage_limit(resource, state, band.baseline_kw, band.mtu_s)
    return energy_band(resource, band)


def merit_order(prices_eur_per_kwh: Sequence[float]) -> list[int]:
    """Positions from the cheapest to the dearest, in their order among equals."""
    return sorted(range(len(prices_eur_per_kwh)), key=prices_eur_per_kwh.__getitem__)


def _groups(offered: Supply, terms: Terms) -> dict[str, list[int]]:
    """Positions of resources that offer together, by name; without those that have nothing to offer in any MTU."""
    groups: dict[str, list[int]] = {}
    for k in np.flatnonzero(offered.powers_kw.any(axis=1)).tolist():
        resource = offered.resources[k]
        together = resource.perimeter if terms.per_perimeter else "portfolio"
        groups.setdefault(resource.id if terms.delivery == "single" else together, []).append(k)
    return groups


def _in_blocks(powers_kw: Floats, length: int) -> Floats:
    """Powers (..., n_mtu) [kW], constant in each block of ``length`` MTUs; what does not fill a block at the end is not
    offered."""
    if length == 1:
        return powers_kw
    whole = powers_kw.shape[-1] // length * length
    blocks_kw = powers_kw[..., :whole].reshape(*powers_kw.shape[:-1], -1, length).min(axis=-1)
    return np.concatenate([np.repeat(blocks_kw, length, axis=-1), np.zeros_like(powers_kw[..., whole:])], axis=-1)


def _sized_kw(available_kw: Floats, product: Product) -> Floats:
    """The most of what is available (...) [kW] that keeps the product's sizes, 0 where nothing does."""
    size_kw = available_kw if product.max_kw is None else np.minimum(available_kw, product.max_kw)
    if product.step_kw > 0.0:
        size_kw = np.minimum(size_kw, np.floor(size_kw / product.step_kw + _ROUNDING) * product.step_kw)
    return np.where((size_kw >= product.min_kw) & (size_kw > 0.0), size_kw, 0.0)


def _single_bids(offered: Supply, product: Product, terms: Terms, margins: Reliability) -> Iterator[Bid]:
    """One bid of each resource for itself, over all MTUs."""
    kept_kw = np.array([[margins.margin_kw((resource.id,))] for resource in offered.resources])
    wanted_kw = _sized_kw(offered.powers_kw - kept_kw, product)
    for k in np.flatnonzero(wanted_kw.any(axis=1)).tolist():
        resource, quantity_kw = offered.resources[k], tuple(wanted_kw[k].tolist())
        yield Bid(
            id=_id(resource.id, product, terms, terms.t_s),
            seller=terms.seller,
            product=product.id,
            direction=product.direction,
            t_s=terms.t_s,
            quantity_kw=quantity_kw,
            steps=(PriceStep(max(quantity_kw), offered.prices_eur_per_kwh[k]),),
            resource=resource.id,
            min_accept=_min_accept(product),
            submitted_s=terms.submitted_s,
        )


def _bids(name: str, group: Supply, wanted_kw: Floats, product: Product, terms: Terms) -> list[Bid]:
    """One bid for each block, whose members and prices are its own."""
    n, length = len(wanted_kw), product.duration_min_mtu
    bids = []
    for begin in range(0, n - length + 1, length):
        if wanted_kw[begin] > 0.0:
            only_kw = np.where((np.arange(n) >= begin) & (np.arange(n) < begin + length), wanted_kw, 0.0)
            bid_id = _id(name, product, terms, terms.t_s + begin * group.mtu_s)
            bids.append(_bid(bid_id, group, group.powers_kw[:, begin], only_kw, product, terms))
    return bids


def _id(name: str, product: Product, terms: Terms, t_s: int) -> str:
    """The id of a bid. Two gates may offer the same MTU, so it names the gate too."""
    return f"{terms.seller}/{product.id}/{name}/{t_s}@{terms.submitted_s}"


def _min_accept(product: Product) -> float:
    return 0.0 if product.divisible else 1.0


def _bid(bid_id: str, group: Supply, offered_kw: Floats, wanted_kw: Floats, product: Product, terms: Terms) -> Bid:
    """A bid by resources that offer ``offered_kw`` (n_resource,) [kW] each."""
    ids = tuple(resource.id for resource in group.resources)
    total_kw = float(offered_kw.sum())
    fixed = terms.delivery == "fixed_shares"
    steps = _steps(group.prices_eur_per_kwh, offered_kw.tolist(), total_kw if fixed else float(wanted_kw.max()))
    if fixed or product.duration_min_mtu > 1:
        steps = (_mean_step(steps, float(wanted_kw.max())),)
    return Bid(
        id=bid_id,
        seller=terms.seller,
        product=product.id,
        direction=product.direction,
        t_s=terms.t_s,
        quantity_kw=tuple(wanted_kw.tolist()),
        steps=steps,
        resource=ids[0] if terms.delivery == "single" else None,
        shares=tuple(zip(ids, (offered_kw / total_kw).tolist(), strict=True)) if fixed else (),
        any_of=ids if terms.delivery == "any_split" else (),
        min_accept=_min_accept(product),
        block=product.duration_min_mtu > 1,
        submitted_s=terms.submitted_s,
    )


def _steps(prices: Sequence[float], offered_kw: Sequence[float], wanted_kw: float) -> tuple[PriceStep, ...]:
    """What is offered from the cheapest on, until ``wanted_kw`` is reached; equal prices are one step."""
    sizes: dict[float, float] = {}
    for k in merit_order(prices):
        size_kw = min(offered_kw[k], wanted_kw)
        wanted_kw -= size_kw
        if size_kw > 0.0:
            sizes[prices[k]] = sizes.get(prices[k], 0.0) + size_kw
    return tuple(PriceStep(size_kw, price) for price, size_kw in sizes.items())


def _mean_step(steps: Sequence[PriceStep], wanted_kw: float) -> PriceStep:
    cost = sum(step.quantity_kw * step.price_eur_per_kwh for step in steps)
    return PriceStep(wanted_kw, cost / sum(step.quantity_kw for step in steps))


def seller_faults(
    resources: Sequence[Resource], prices_eur_per_kwh: Sequence[tuple[float, float]], delivery: Delivery
) -> Iterator[Fault]:
    """What keeps resources from bidding, whatever they can do; their prices are for UP and for DOWN."""
    for resource, prices in zip(resources, prices_eur_per_kwh, strict=True):
        for key, price in zip(("up_eur_per_kwh", "down_eur_per_kwh"), prices, strict=True):
            if not math.isfinite(price):
                yield Fault("price is not a number", key=f"resource {resource.id}: {key}", value=str(price))
        for key, kw in (("up_kw", resource.up_kw), ("down_kw", resource.down_kw)):
            if not kw >= 0.0:
                problem = "registered capability is negative or no number"
                yield Fault(problem, key=f"resource {resource.id}: {key}", value=str(kw))
        if resource.rebound and delivery == "any_split":
            yield Fault("pays back later, so that it cannot be in a bid of any split", key=f"resource {resource.id}")
    often = Counter(resource.id for resource in resources)
    yield from (Fault("is a member twice", key=f"resource {name}") for name in sorted(often) if often[name] > 1)


def _check(members: Sequence[Member], product: Product, terms: Terms) -> None:
    prices = [(member.up_eur_per_kwh, member.down_eur_per_kwh) for member in members]
    faults = list(seller_faults([member.resource for member in members], prices, terms.delivery))
    horizons = sorted({(member.band.mtu_s, len(member.band.baseline_kw)) for member in members})
    if len(horizons) > 1:
        faults.append(Fault("members' bands differ in (MTU [s], number of MTUs)", value=str(horizons)))
    if terms.coupled and terms.delivery != "single":
        faults.append(Fault("a coupled offer is for a single resource", key="delivery", value=terms.delivery))
    if faults:
        raise BidError(faults)
