"""Forward contracts in the spot market: obligatory bids, what the seller made available, and what that is paid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

import numpy as np

from cosim.clock import Clock
from cosim.domain.frames import Floats
from cosim.domain.market import ActivationLimit, Award, Bid, Contract, Direction, PriceStep, Resource, Window
from cosim.errors import BidError, Fault
from cosim.market.program import Flags
from cosim.units import SECONDS_PER_DAY, SECONDS_PER_HOUR

_SHARE = 1e-9
_CALLED_KW = 1e-6
_WEEK = range(7)


def in_window(window: Window, clock: Clock, t_s: int, n_mtu: int) -> Flags:
    """Whether each of ``n_mtu`` MTUs from ``t_s`` lies in a window (n_mtu,)."""
    begins = (clock.instant(t_s + k * clock.mtu_s + window.utc_offset_s) for k in range(n_mtu))
    return np.array([_holds(window, begin) for begin in begins], dtype=bool)


def _holds(window: Window, local: datetime) -> bool:
    into_s = (_second(local.time()) - _second(window.begin)) % SECONDS_PER_DAY
    day = (local - timedelta(seconds=into_s)).date()
    return (
        into_s < _length_s(window) and window.first_day <= day <= window.last_day and day.weekday() in window.weekdays
    )


def window_h(window: Window) -> float:
    """Hours of a window."""
    n_day = (window.last_day - window.first_day).days + 1
    days = (window.first_day + timedelta(days=k) for k in range(n_day))
    return sum(day.weekday() in window.weekdays for day in days) * _length_s(window) / SECONDS_PER_HOUR


def _length_s(window: Window) -> int:
    """Of one day's part [s]."""
    return (_second(window.end) - _second(window.begin)) % SECONDS_PER_DAY or SECONDS_PER_DAY


def _second(at: time) -> int:
    return at.hour * 3600 + at.minute * 60 + at.second


def check_contracts(contracts: Sequence[Contract], resources: Mapping[str, Resource], clock: Clock) -> None:
    """Raises BidError with all faults of all contracts."""
    faults = [
        *twice("contract", [contract.id for contract in contracts]),
        *(fault for contract in contracts for fault in contract_faults(contract, resources, clock)),
    ]
    if faults:
        raise BidError(faults)


def contract_faults(contract: Contract, resources: Mapping[str, Resource], clock: Clock) -> Iterator[Fault]:
    """All that is wrong with one contract."""
    key = f"contract {contract.id}"
    if not (math.isfinite(contract.committed_kw) and contract.committed_kw > 0.0):
        yield Fault("a commitment must be a number above 0 kW", key=key, value=str(contract.committed_kw))
    yield from price_faults(contract.availability_eur_per_kw, contract.strike_eur_per_kwh, key)
    yield from payment_faults(contract.availability_full, contract.availability_zero, contract.max_activations, key)
    yield from share_faults(contract.shares, resources, key)
    for name, share in contract.shares:
        if unit := resources.get(name):
            limit = unit.up_kw if contract.direction is Direction.UP else unit.down_kw
            if share * contract.committed_kw > limit * (1.0 + _SHARE):
                problem = f"more {contract.direction.value} of {name} than is registered"
                value = f"{share * contract.committed_kw:g} kW"
                yield Fault(problem, key=key, value=value, allowed=f"{limit:g} kW")
    yield from window_faults(contract.window, key)
    yield from _off_mtu_faults(contract.window, clock, key)


def window_faults(window: Window, key: str) -> Iterator[Fault]:
    """All that is wrong with a window."""
    if window.last_day < window.first_day:
        value = f"{window.first_day}..{window.last_day}"
        yield Fault("its window ends before it begins", key=key, value=value)
    if wrong := [day for day in window.weekdays if day not in _WEEK]:
        yield Fault("a weekday must be in 0 (Monday)..6", key=key, value=str(wrong))
    elif window.last_day >= window.first_day and not window_h(window):
        value = f"weekdays {list(window.weekdays)} from {window.first_day} to {window.last_day}"
        yield Fault("its window has no day", key=key, value=value)


def _off_mtu_faults(window: Window, clock: Clock, key: str) -> Iterator[Fault]:
    """Edges within an MTU."""
    start = clock.instant(window.utc_offset_s)
    since_midnight_s = start.hour * 3600 + start.minute * 60 + start.second
    for name, at in (("begin", window.begin), ("end", window.end)):
        if (_second(at) - since_midnight_s) % clock.mtu_s:
            value, allowed = at.isoformat(), f"a whole number of MTUs of {clock.mtu_s} s from the start of the run"
            yield Fault(f"the {name} of its window lies within an MTU", key=key, value=value, allowed=allowed)


def price_faults(availability_eur_per_kw: float, utilisation_eur_per_kwh: float, key: str) -> Iterator[Fault]:
    """Of a price of availability and one of utilisation."""
    if not (math.isfinite(availability_eur_per_kw) and availability_eur_per_kw >= 0.0):
        problem = "a price of availability must be a number of 0 or more"
        yield Fault(problem, key=key, value=str(availability_eur_per_kw))
    if not math.isfinite(utilisation_eur_per_kwh):
        yield Fault("a price of utilisation must be a number", key=key, value=str(utilisation_eur_per_kwh))


def payment_faults(full: float, zero: float, max_activations: int | None, key: str) -> Iterator[Fault]:
    """Of the shares that decide how availability is paid, and of the number of activations."""
    if not (0.0 <= zero <= full <= 1.0 and full > 0.0):
        value = f"availability_zero {zero:g}, availability_full {full:g}"
        yield Fault(
            "shares must be 0 <= availability_zero <= availability_full <= 1, full above 0", key=key, value=value
        )
    if max_activations is not None and max_activations < 1:
        yield Fault("max_activations must be 1 or more, or none", key=key, value=str(max_activations))


def share_faults(shares: Sequence[tuple[str, float]], resources: Mapping[str, Resource], key: str) -> Iterator[Fault]:
    """Of who delivers."""
    for name, share in shares:
        if name not in resources:
            yield Fault("no resource of that name", key=key, value=name, allowed=", ".join(resources) or "none")
        if not share > 0.0:
            yield Fault(f"the share of {name} must be above 0", key=key, value=str(share))
    if abs(math.fsum(share for _, share in shares) - 1.0) > _SHARE or len(dict(shares)) < len(shares):
        yield Fault("shares must add up to 1, each resource once", key=key, value=str(shares))


def twice(what: str, ids: Sequence[str]) -> Iterator[Fault]:
    """Of ids that occur more than once."""
    for name in dict.fromkeys(name for name in ids if ids.count(name) > 1):
        yield Fault(f"more than one {what} of that id", key=f"{what} {name}")


@dataclass(frozen=True)
class Obligation:
    """What a contract means for some MTUs: ``window`` (n_mtu,) those in which it holds; ``own_kw`` (n_mtu,) its seller
    offers by itself at the strike price or less; ``bid``, the obligatory one, for the rest, None if there is none.

    ``calls_left``: in how many MTUs it may still be called, None for any number; it owes nothing when none are left.
    """

    contract: Contract
    window: Flags
    own_kw: Floats
    bid: Bid | None
    calls_left: int | None

    @property
    def offered_kw(self) -> Floats:
        """What counts as offered in each MTU of the window (n_in_window,): all if there are no calls left."""
        committed_kw = self.contract.committed_kw
        if self.calls_left == 0:
            return np.full(int(self.window.sum()), committed_kw)
        inserted = 0.0 if self.bid is None else np.array(self.bid.quantity_kw)
        return np.asarray(np.minimum(self.own_kw + inserted, committed_kw)[self.window])


def obligations(
    contracts: Sequence[Contract],
    clock: Clock,
    t_s: int,
    n_mtu: int,
    free_bids: Sequence[Bid] = (),
    available_kw: Mapping[str, Sequence[float]] | None = None,
    activated: Mapping[str, int] | None = None,
) -> tuple[Obligation, ...]:
    """Of all contracts, in the order of their strike prices, for ``n_mtu`` MTUs from ``t_s``.

    In its window a contract offers at its strike price what it commits and its seller does not offer itself at that
    price or less (see `fulfils`; a kW offered counts for one contract only), but no more than the seller declared to
    have: ``available_kw`` (n_mtu,) by contract, default all. ``activated``: how often each was called before.
    """
    used = {bid.id: np.zeros(n_mtu) for bid in free_bids}
    found = []
    for contract in sorted(contracts, key=lambda each: (each.strike_eur_per_kwh, each.id)):
        window = in_window(contract.window, clock, t_s, n_mtu)
        most, before = contract.max_activations, (activated or {}).get(contract.id, 0)
        calls_left = None if most is None else max(0, most - before)
        owed_kw = np.where(window & (calls_left != 0), contract.committed_kw, 0.0)
        own_kw = np.zeros(n_mtu)
        for bid in free_bids:
            if fulfils(bid, contract):
                taken = np.clip(at_strike_kw(bid, contract) - used[bid.id], 0.0, owed_kw - own_kw)
                used[bid.id] = used[bid.id] + taken
                own_kw = own_kw + taken
        declared = np.asarray((available_kw or {}).get(contract.id, owed_kw))
        open_kw = np.maximum(np.minimum(owed_kw, declared) - own_kw, 0.0)
        rest = _obligatory(contract, t_s, open_kw) if open_kw.any() else None
        found.append(Obligation(contract, window, own_kw, rest, calls_left))
    return tuple(found)


def contracts_as_bids(owed: Sequence[Obligation]) -> tuple[Bid, ...]:
    """The obligatory bids, to be cleared together with the free ones; without contracts there are none."""
    return tuple(each.bid for each in owed if each.bid is not None)


def activation_limits(owed: Sequence[Obligation]) -> tuple[ActivationLimit, ...]:
    """For a clearing of more MTUs than a contract may still be called in. They count whatever is bought of its first
    resource, so what its seller offers freely of that is limited too."""
    return tuple(
        ActivationLimit(each.contract.shares[0][0], activations_max=each.calls_left)
        for each in owed
        if each.calls_left and each.calls_left < each.window.sum()
    )


def calls(owed: Obligation, free_bids: Sequence[Bid], awards: Sequence[Award]) -> int:
    """In how many MTUs anything was bought of a contract's obligatory bid, or of what its seller offered instead."""
    own = {bid.id for bid in free_bids if fulfils(bid, owed.contract)}
    called = np.zeros(len(owed.window), dtype=bool)
    for award in awards:
        bought = np.array(award.quantity_kw) > _CALLED_KW
        if owed.bid is not None and award.bid == owed.bid.id:
            called |= bought
        elif award.bid in own:
            called |= bought & (owed.own_kw > 0.0)
    return int(called.sum())


def _obligatory(contract: Contract, t_s: int, kw: Floats) -> Bid:
    return Bid(
        id=f"contract {contract.id}",
        seller=contract.seller,
        product=contract.product,
        direction=contract.direction,
        t_s=t_s,
        quantity_kw=tuple(kw.tolist()),
        steps=(PriceStep(contract.committed_kw, contract.strike_eur_per_kwh),),
        shares=contract.shares,
        submitted_s=contract.signed_s,
    )


def fulfils(bid: Bid, contract: Contract) -> bool:
    """Whether a bid is the seller's own offer of what a contract commits, to be accepted in any part and MTU."""
    delivered_by = {bid.resource: 1.0} if bid.resource is not None else dict(bid.shares)
    same = (bid.seller, bid.product, bid.direction) == (contract.seller, contract.product, contract.direction)
    return same and delivered_by == dict(contract.shares) and not (bid.whole or bid.block)


def at_strike_kw(bid: Bid, contract: Contract) -> Floats:
    """What a bid offers at a contract's strike price or less (n_mtu,)."""
    cheap_kw = math.fsum(s.quantity_kw for s in bid.steps if s.price_eur_per_kwh <= contract.strike_eur_per_kwh)
    return np.asarray(np.minimum(bid.quantity_kw, cheap_kw))


def availability_factor(contract: Contract, offered: Floats) -> float:
    """Share offered of what was owed in MTUs of the window, from ``offered`` (n,) [kW]; 1 for none."""
    if not len(offered):
        return 1.0
    return float(np.minimum(offered, contract.committed_kw).mean() / contract.committed_kw)


def availability_eur(contract: Contract, offered: Floats, mtu_s: int) -> float:
    """Payment for MTUs of the window, of which ``offered`` (n,) [kW] is known: their share of that for all.

    ``availability price * committed * min(1, factor / availability_full)``, nothing below ``availability_zero``. Raises
    ValueError for more MTUs than the window has.
    """
    of_window = len(offered) * mtu_s / (window_h(contract.window) * SECONDS_PER_HOUR)
    if of_window > 1.0 + _SHARE:
        raise ValueError(f"contract {contract.id}: {len(offered)} MTUs of {mtu_s} s are more than its window has")
    factor = availability_factor(contract, offered)
    if factor < contract.availability_zero:
        return 0.0
    paid = min(1.0, factor / contract.availability_full)
    return contract.availability_eur_per_kw * contract.committed_kw * paid * of_window
