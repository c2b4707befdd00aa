"""What was delivered of each award, and what is missing.

A meter's deviation from its baseline is shared among the awards that were called from it, so that the shares add up to
the deviation exactly; what a portfolio's meters gave counts together before it is cut to the award.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from cosim.domain.market import Direction
from cosim.domain.settlement import Call, Period, Series
from cosim.errors import BidError, Fault
from cosim.market.exact import energy, exact
from cosim.market.metering import values_kw
from cosim.units import SECONDS_PER_DAY

_SPLIT_KW: Final = 1e-6
_NONE: Final = Fraction(0)


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

    @property
    def awarded(self) -> Fraction:
        return sum((share.ordered for share in self.shares), _NONE)

    @property
    def given(self) -> Fraction:
        """Against the baseline, also beyond the award or the wrong way."""
        return sum((share.given for share in self.shares), _NONE)

    @property
    def delivered(self) -> Fraction:
        """What is paid: no more than the award, no less than nothing."""
        return min(max(self.given, _NONE), self.awarded)

    @property
    def short(self) -> Fraction:
        """Missing beyond the tolerance."""
        owed = self.awarded * (1 - exact(self.call.terms.tolerance))
        return max(_NONE, owed - (self.given if self.call.terms.basis == "raw" else self.delivered))

    @property
    def over(self) -> Fraction:
        """Too much beyond the tolerance; none under one-sided terms."""
        most = self.awarded * (1 + exact(self.call.terms.tolerance))
        return max(_NONE, self.given - most) if self.call.terms.two_sided else _NONE

    @property
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
        if not all(0.0 <= each < float("inf") for each in kw):
            yield Fault(f"the order to {meter} must be numbers, 0 kW or more", key=key, value=str(kw))
    if all(len(kw) == n_mtu for _, kw in call.ordered_kw):
        for t, quantity in enumerate(call.award.quantity_kw):
            ordered = sum(kw[t] for _, kw in call.ordered_kw)
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
    """Of every call in every MTU of the period in which something was awarded.

    ``measured`` (complete, see `cosim.market.metering.completed`) and ``baselines`` by meter. Raises BidError naming
    every meter without one of these and every fault of the calls, ProfileError for MTUs without a value.
    """
    check_calls(calls)
    for call in calls:
        if (call.award.t_s - period.t_s) % period.mtu_s:
            value, allowed = f"from {call.award.t_s} s on", f"MTUs of {period.mtu_s} s from {period.t_s} s on"
            raise BidError(
                Fault("its MTUs are not those settled", f"call of {call.award.bid}", value=value, allowed=allowed)
            )
    meters = dict.fromkeys(meter for call in calls for meter, _ in call.ordered_kw)
    faults = [
        Fault(f"no {what} of a meter that was called", key=f"meter {meter}")
        for meter in meters
        for what, known in (("measurement", measured), ("baseline", baselines))
        if meter not in known
    ]
    if faults:
        raise BidError(faults)
    up = {meter: raised(measured[meter], baselines[meter], period) for meter in meters}
    flags = {meter: measured[meter].over(period).estimated for meter in meters}
    return tuple(
        delivery
        for t, t_s in enumerate(period.begins)
        for delivery in _of_mtu(
            calls, t_s, period.mtu_s, {m: kwh[t] for m, kwh in up.items()}, {m for m in meters if flags[m][t]}
        )
    )


def raised(measured: Series, baseline: Series, period: Period) -> tuple[Fraction, ...]:
    """Energy by which a meter's injection was above its baseline (n_mtu,) [kWh]: the sign of an activation UP."""
    drawn, free = values_kw(measured, period), values_kw(baseline, period)
    return tuple(energy(b, period.mtu_s) - energy(m, period.mtu_s) for m, b in zip(drawn, free, strict=True))


def signed(direction: Direction, kwh: Fraction) -> Fraction:
    """Rise of injection by a quantity of a direction, or the other way round."""
    return kwh if direction is Direction.UP else -kwh


def _of_mtu(
    calls: Sequence[Call], t_s: int, mtu_s: int, raised_kwh: Mapping[str, Fraction], estimated: set[str]
) -> Iterator[Delivery]:
    at = {k: (t_s - call.award.t_s) // mtu_s for k, call in enumerate(calls)}
    active = {k: t for k, t in at.items() if 0 <= t < len(calls[k].award.quantity_kw)}
    ordered: dict[str, dict[int, Fraction]] = defaultdict(dict)
    for k, t in active.items():
        for meter, kw in calls[k].ordered_kw:
            if kw[t] > 0.0:
                ordered[meter][k] = energy(kw[t], mtu_s)
    given = {meter: _given(calls, own, raised_kwh[meter]) for meter, own in ordered.items()}
    for k, t in active.items():
        shares = tuple(MeterShare(m, own[k], given[m][k]) for m, own in ordered.items() if k in own)
        if shares:
            award = calls[k].award
            price, asked = exact(award.price_eur_per_kwh[t]), exact(award.bid_price_eur_per_kwh[t])
            yield Delivery(calls[k], t_s, price, asked, shares, any(s.meter in estimated for s in shares))


def _given(calls: Sequence[Call], ordered: Mapping[int, Fraction], raised_kwh: Fraction) -> dict[int, Fraction]:
    """What each call got of a meter's rise of injection: what it ordered, and of the error a part in proportion."""
    net = sum((signed(calls[k].direction, kwh) for k, kwh in ordered.items()), _NONE)
    error = (raised_kwh - net) / sum(ordered.values())
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
