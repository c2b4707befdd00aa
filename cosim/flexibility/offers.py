"""Offers of an aggregator: from the bands of its members to bids for one product."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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

    Quantities keep the product's sizes; what the reliability margin and these take away is the dearest. Members whose
    energy is limited offer what they hold in all MTUs together. A product that lasts several MTUs is offered in blocks
    of constant power, at their mean price. Raises BidError with every fault found.
    """
    _check(members, product, terms)
    margins = Reliability(0.0) if reliability is None else reliability
    bids: list[Bid] = []
    for name, offering in _groups(members, product, terms).items():
        group = [member for member, _ in offering]
        kept_kw = margins.margin_kw([member.resource.id for member in group])
        offered_kw = np.stack([kw for _, kw in offering])
        wanted_kw = np.array([_sized_kw(float(total) - kept_kw, product) for total in offered_kw.sum(axis=0)])
        bids += _bids(name, group, offered_kw, wanted_kw, product, terms)
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


def _groups(members: Sequence[Member], product: Product, terms: Terms) -> dict[str, list[tuple[Member, Floats]]]:
    """Members that offer together, by name, each with what it offers (n_mtu,) [kW]; without those that have nothing to
    offer in any MTU."""
    groups: dict[str, list[tuple[Member, Floats]]] = {}
    for member in members:
        offered_kw = _offered_kw(member, product, terms)
        if offered_kw.any():
            together = member.resource.perimeter if terms.per_perimeter else "portfolio"
            name = member.resource.id if terms.delivery == "single" else together
            groups.setdefault(name, []).append((member, offered_kw))
    return groups


def _offered_kw(member: Member, product: Product, terms: Terms) -> Floats:
    """Power [kW] in each MTU (n_mtu,), constant in each block of the product's duration; what does not fill a block at
    the end is not offered."""
    powers_kw = member.rated_kw(product.direction) if terms.coupled else member.sustained_kw(product.direction)
    length = product.duration_min_mtu
    if length == 1:
        return powers_kw
    whole = len(powers_kw) // length * length
    blocks_kw = powers_kw[:whole].reshape(-1, length).min(axis=1)
    return np.concatenate([np.repeat(blocks_kw, length), np.zeros(len(powers_kw) - whole)])


def _sized_kw(available_kw: float, product: Product) -> float:
    """The most that keeps the product's sizes, 0 if nothing does."""
    size_kw = available_kw if product.max_kw is None else min(available_kw, product.max_kw)
    if product.step_kw > 0.0:
        size_kw = min(size_kw, math.floor(size_kw / product.step_kw + _ROUNDING) * product.step_kw)
    return size_kw if size_kw >= product.min_kw and size_kw > 0.0 else 0.0


def _bids(
    name: str, group: Sequence[Member], offered_kw: Floats, wanted_kw: Floats, product: Product, terms: Terms
) -> list[Bid]:
    """One bid for a single resource by MTU; else one for each block, whose members and prices are its own."""
    n, length = len(wanted_kw), product.duration_min_mtu
    if terms.delivery == "single" and length == 1:
        whole = _bid(_label(name, terms, terms.t_s), group, offered_kw.max(axis=1), wanted_kw, product, terms)
        return [whole] if wanted_kw.any() else []
    bids = []
    for begin in range(0, n - length + 1, length):
        if wanted_kw[begin] > 0.0:
            only_kw = np.where((np.arange(n) >= begin) & (np.arange(n) < begin + length), wanted_kw, 0.0)
            label = _label(name, terms, terms.t_s + begin * group[0].band.mtu_s)
            bids.append(_bid(label, group, offered_kw[:, begin], only_kw, product, terms))
    return bids


def _label(name: str, terms: Terms, t_s: int) -> str:
    """End of a bid's id. Two gates may offer the same MTU, so it names the gate too."""
    return f"{name}/{t_s}@{terms.submitted_s}"


def _bid(
    name: str, group: Sequence[Member], offered_kw: Floats, wanted_kw: Floats, product: Product, terms: Terms
) -> Bid:
    """A bid by members that offer ``offered_kw`` (n_member,) [kW] each."""
    ids = tuple(member.resource.id for member in group)
    total_kw = float(offered_kw.sum())
    fixed = terms.delivery == "fixed_shares"
    steps = _steps(group, offered_kw, total_kw if fixed else float(wanted_kw.max()), product.direction)
    if fixed or product.duration_min_mtu > 1:
        steps = (_mean_step(steps, float(wanted_kw.max())),)
    return Bid(
        id=f"{terms.seller}/{product.id}/{name}",
        seller=terms.seller,
        product=product.id,
        direction=product.direction,
        t_s=terms.t_s,
        quantity_kw=tuple(wanted_kw.tolist()),
        steps=steps,
        resource=group[0].resource.id if terms.delivery == "single" else None,
        shares=tuple(zip(ids, (offered_kw / total_kw).tolist(), strict=True)) if fixed else (),
        any_of=ids if terms.delivery == "any_split" else (),
        min_accept=0.0 if product.divisible else 1.0,
        block=product.duration_min_mtu > 1,
        submitted_s=terms.submitted_s,
    )


def _steps(
    group: Sequence[Member], offered_kw: Floats, wanted_kw: float, direction: Direction
) -> tuple[PriceStep, ...]:
    """The members' quantities from the cheapest on, until ``wanted_kw`` is reached; equal prices are one step."""
    prices = [member.price_eur_per_kwh(direction) for member in group]
    sizes: dict[float, float] = {}
    for k in merit_order(prices):
        size_kw = min(float(offered_kw[k]), wanted_kw)
        wanted_kw -= size_kw
        if size_kw > 0.0:
            sizes[prices[k]] = sizes.get(prices[k], 0.0) + size_kw
    return tuple(PriceStep(size_kw, price) for price, size_kw in sizes.items())


def _mean_step(steps: Sequence[PriceStep], wanted_kw: float) -> PriceStep:
    cost = sum(step.quantity_kw * step.price_eur_per_kwh for step in steps)
    return PriceStep(wanted_kw, cost / sum(step.quantity_kw for step in steps))


def _member_faults(member: Member, terms: Terms) -> Iterator[Fault]:
    resource = member.resource
    for key, price in (("up_eur_per_kwh", member.up_eur_per_kwh), ("down_eur_per_kwh", member.down_eur_per_kwh)):
        if not math.isfinite(price):
            yield Fault("price is not a number", key=f"resource {resource.id}: {key}", value=str(price))
    for key, kw in (("up_kw", resource.up_kw), ("down_kw", resource.down_kw)):
        if not kw >= 0.0:
            problem = "registered capability is negative or no number"
            yield Fault(problem, key=f"resource {resource.id}: {key}", value=str(kw))
    if resource.rebound and terms.delivery == "any_split":
        yield Fault("pays back later, so that it cannot be in a bid of any split", key=f"resource {resource.id}")


def _check(members: Sequence[Member], product: Product, terms: Terms) -> None:
    faults = [fault for member in members for fault in _member_faults(member, terms)]
    often = Counter(member.resource.id for member in members)
    faults += [Fault("is a member twice", key=f"resource {name}") for name in sorted(often) if often[name] > 1]
    horizons = sorted({(member.band.mtu_s, len(member.band.baseline_kw)) for member in members})
    if len(horizons) > 1:
        faults.append(Fault("members' bands differ in (MTU [s], number of MTUs)", value=str(horizons)))
    if terms.coupled and terms.delivery != "single":
        faults.append(Fault("a coupled offer is for a single resource", key="delivery", value=terms.delivery))
    if faults:
        raise BidError(faults)
