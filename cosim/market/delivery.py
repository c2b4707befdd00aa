"""What was delivered of each award, and what is missing.

A meter's deviation from its baseline is shared among the awards that were called from it, so that the shares add up to
the deviation exactly; what a portfolio's meters gave counts together before it is cut to the award.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final

import numpy as np

from cosim.domain.market import Direction
from cosim.domain.settlement import Call, Period, Series
from cosim.errors import BidError, Fault
from cosim.market.exact import NOTHING, energy, energy_of, exact, total
from cosim.market.metering import Meters, columns, values_kw
from cosim.units import SECONDS_PER_DAY

_SPLIT_KW: Final = 1e-6


@dataclass(frozen=True)
class MeterShare:
    """Of one award at one meter in one MTU [kWh], in the direction of the award: ordered, and given (below zero: the
    wrong way)."""

    meter: str
    ordered: Fraction
    given: Fraction


@dataclass(frozen=True)
class Delivery:
    """Of one award in the MTU from ``t_s`` on; energies [kWh] in the direction of the award."""

    call: Call
    t_s: int
    price: Fraction
    bid_price: Fraction
    shares: tuple[MeterShare, ...]
    estimated: bool = False

    @cached_property
    def awarded(self) -> Fraction:
        return total([share.ordered for share in self.shares])

    @cached_property
    def given(self) -> Fraction:
        """Against the baseline, also beyond the award or the wrong way."""
        return total([share.given for share in self.shares])

    @cached_property
    def delivered(self) -> Fraction:
        """What is paid: no more than the award, no less than nothing."""
        return min(self.given, self.awarded) if self.given.numerator > 0 else NOTHING

    @cached_property
    def short(self) -> Fraction:
        """Missing beyond the tolerance."""
        got = self.given if self.call.terms.basis == "raw" else self.delivered
        if self.given >= self.awarded:
            return NOTHING
        return max(NOTHING, self.awarded * (1 - exact(self.call.terms.tolerance)) - got)

    @cached_property
    def over(self) -> Fraction:
        """Too much beyond the tolerance; none under one-sided terms."""
        if not self.call.terms.two_sided:
            return NOTHING
        return max(NOTHING, self.given - self.awarded * (1 + exact(self.call.terms.tolerance)))

    @cached_property
    def penalty_price(self) -> Fraction:
        """Of a missing or unwanted kWh [EUR/kWh]: rises with the size of the price, also of a negative one."""
        terms = self.call.terms
        return exact(terms.penalty_factor) * abs(self.price) + exact(terms.penalty_adder_eur_per_kwh)


def check_calls(calls: Sequence[Call]) -> None:
    """Raises BidError with all that is wrong with calls."""
    faults = [fault for call in calls for fault in _call_faults(call)]
    if faults:
        raise BidError(faults)


def _call_faults(call: Call) -> Iterator[Fault]:
    key, n_mtu, terms = f"call of {call.award.bid}", len(call.award.quantity_kw), call.terms
    meters = [meter for meter, _ in call.ordered_kw]
    if len(set(meters)) < len(meters):
        yield Fault("a meter is ordered twice", key=key, value=", ".join(meters))
    for meter, kw in call.ordered_kw:
        if len(kw) != n_mtu:
            yield Fault(f"the order to {meter} has other MTUs", key=key, value=str(len(kw)), allowed=str(n_mtu))
        if not (min(kw, default=0.0) >= 0.0 and sum(kw) < math.inf):
            yield Fault(f"the order to {meter} must be numbers, 0 kW or more", key=key, value=str(kw))
    if {len(kw) for _, kw in call.ordered_kw} <= {n_mtu}:
        for t, quantity in enumerate(call.award.quantity_kw):
            ordered = sum([kw[t] for _, kw in call.ordered_kw])
            if not abs(ordered - quantity) <= _SPLIT_KW:
                value, allowed = f"{ordered:g} kW", f"{quantity:g} kW awarded"
                yield Fault(f"orders do not add up to the award in MTU {t}", key=key, value=value, allowed=allowed)
    if not 0.0 <= terms.tolerance <= 1.0:
        yield Fault("a tolerance is a share", key=key, value=str(terms.tolerance), allowed="0..1")
    if not 0.0 <= terms.clawback <= 1.0:
        yield Fault("a clawback is a share", key=key, value=str(terms.clawback), allowed="0..1")
    if not (terms.penalty_factor >= 0.0 and terms.penalty_adder_eur_per_kwh >= 0.0):
        value = f"factor {terms.penalty_factor:g}, adder {terms.penalty_adder_eur_per_kwh:g}"
        yield Fault("a penalty must not be a reward", key=key, value=value, allowed="0 or more")


def deliveries(
    period: Period, calls: Sequence[Call], measured: Mapping[str, Series], baselines: Mapping[str, Series]
) -> tuple[Delivery, ...]:
    """Of every call in every MTU of the period in which something was ordered, in the order of time.

    ``measured`` (complete, see `cosim.market.metering.completed`) and ``baselines``, which are needed where something
    was ordered, by meter. Raises BidError naming every fault of the calls and every meter without one of these,
    ProfileError naming MTUs without a value.
    """
    check_calls(calls)
    orders = _orders(period, calls)
    meters = _meters(orders)
    faults = [
        Fault(f"no {what} of a meter that was called", key=f"meter {meter}")
        for meter in meters
        for what, known in (("measurement", measured), ("baseline", baselines))
        if meter not in known
    ]
    if faults:
        raise BidError(faults)
    drawn = columns("measurement", measured, period, meters)
    raised = _raised(drawn, columns("baseline", baselines, period, meters), meters, (measured, baselines))
    flags = np.argwhere(drawn.estimated).tolist() if drawn.estimated.any() else []
    guessed = {(drawn.names[k], t) for k, t in flags}
    return tuple(
        [each for t, ordered in orders.items() for each in _of_mtu(calls, period, t, ordered, raised, guessed)]
    )


def _orders(period: Period, calls: Sequence[Call]) -> Mapping[int, Mapping[str, Mapping[int, Fraction]]]:
    """Energy ordered [kWh] by MTU of the period, meter, and number of the call."""
    found: dict[int, dict[str, dict[int, Fraction]]] = {}
    for k, call in enumerate(calls):
        first, beside_s = divmod(call.award.t_s - period.t_s, period.mtu_s)
        if beside_s:
            value, allowed = f"from {call.award.t_s} s on", f"MTUs of {period.mtu_s} s from {period.t_s} s on"
            key = f"call of {call.award.bid}"
            raise BidError(Fault("its MTUs are not those settled", key=key, value=value, allowed=allowed))
        for meter, kw in call.ordered_kw:
            for t in range(max(first, 0), min(first + len(kw), period.n_mtu)):
                if kw[t - first] > 0.0:
                    of_meter = found.setdefault(t, {}).setdefault(meter, {})
                    of_meter[k] = energy(kw[t - first], period.mtu_s)
    return dict(sorted(found.items()))


def _meters(orders: Mapping[int, Mapping[str, Mapping[int, Fraction]]]) -> Mapping[str, list[int]]:
    """MTUs in which something was ordered from each meter."""
    found: dict[str, list[int]] = defaultdict(list)
    for t, of_mtu in orders.items():
        for meter in of_mtu:
            found[meter].append(t)
    return found


def _raised(
    drawn: Meters, free: Meters, meters: Mapping[str, list[int]], known: tuple[Mapping[str, Series], ...]
) -> Mapping[tuple[str, int], Fraction]:
    """Energy [kWh] by which a meter's injection was above its baseline, by meter and MTU in which something was ordered
    from it: the sign of an activation UP. Raises ProfileError naming MTUs without a value in what is ``known``."""
    found: dict[tuple[str, int], Fraction] = {}
    drawn_kw, free_kw, mtu_s = drawn.p_kw.tolist(), free.p_kw.tolist(), drawn.period.mtu_s
    for meter, mtus in meters.items():
        seen_kw, would_kw = drawn_kw[drawn.place[meter]], free_kw[free.place[meter]]
        for t in mtus:
            if math.isnan(seen_kw[t] + would_kw[t]):
                for series in known:
                    values_kw(series[meter], drawn.period, mtus)
            found[meter, t] = energy_of((would_kw[t], -seen_kw[t]), mtu_s)
    return found


def signed(direction: Direction, kwh: Fraction) -> Fraction:
    """Rise of injection by a quantity of a direction, or the other way round."""
    return kwh if direction is Direction.UP else -kwh


def _of_mtu(
    calls: Sequence[Call],
    period: Period,
    t: int,
    ordered: Mapping[str, Mapping[int, Fraction]],
    raised: Mapping[tuple[str, int], Fraction],
    guessed: Collection[tuple[str, int]],
) -> Iterator[Delivery]:
    shares: dict[int, list[MeterShare]] = defaultdict(list)
    for meter, own in ordered.items():
        for k, given in _given(calls, own, raised[meter, t]).items():
            shares[k].append(MeterShare(meter, own[k], given))
    for k, of_call in sorted(shares.items()):
        award, t_s = calls[k].award, period.begins[t]
        of_award = (t_s - award.t_s) // period.mtu_s
        price, asked = exact(award.price_eur_per_kwh[of_award]), exact(award.bid_price_eur_per_kwh[of_award])
        estimated = bool(guessed) and any((share.meter, t) in guessed for share in of_call)
        yield Delivery(calls[k], t_s, price, asked, tuple(of_call), estimated)


def _given(calls: Sequence[Call], ordered: Mapping[int, Fraction], raised: Fraction) -> dict[int, Fraction]:
    """What each call got of a meter's rise of injection: what it ordered, and of the error a part in proportion."""
    if len(ordered) == 1:
        return {k: signed(calls[k].direction, raised) for k in ordered}
    net = total(signed(calls[k].direction, kwh) for k, kwh in ordered.items())
    error = (raised - net) / sum(ordered.values())
    return {k: kwh + signed(calls[k].direction, error * kwh) for k, kwh in ordered.items()}


def reliability(delivered: Iterable[Delivery]) -> Mapping[str, Fraction]:
    """Share delivered of what was awarded, by seller: what may de-rate its future bids."""
    got: dict[str, Fraction] = defaultdict(Fraction)
    owed: dict[str, Fraction] = defaultdict(Fraction)
    for each in delivered:
        got[each.call.seller] += each.delivered
        owed[each.call.seller] += each.awarded
    return {seller: got[seller] / kwh for seller, kwh in owed.items() if kwh}


def suspensions(delivered: Iterable[Delivery], mtu_s: int, failures: int, days: int) -> Mapping[str, int]:
    """Until when each meter is suspended [s]: ``days`` from the end of the last of ``failures`` calls in a row in each
    of which it gave less than was ordered less the tolerance. Without such a row it is not named."""
    failing: dict[str, dict[int, bool]] = defaultdict(dict)
    for each in delivered:
        owed = 1 - exact(each.call.terms.tolerance)
        for share in each.shares:
            of_meter = failing[share.meter]
            of_meter[each.t_s] = of_meter.get(each.t_s, False) or share.given < share.ordered * owed
    until: dict[str, int] = {}
    for meter, by_time in failing.items():
        row = 0
        for t_s, failed in sorted(by_time.items()):
            row = row + 1 if failed else 0
            if row >= failures:
                until[meter] = t_s + mtu_s + days * SECONDS_PER_DAY
                row = 0
    return until
