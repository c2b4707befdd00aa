"""Payments of a settlement, and how they become lines.

A payment is first an exact product of a quantity and a price. Amounts are rounded once, together: all lines of one kind
add up to their exact sum rounded (`cosim.market.exact.apportioned`), so that what is paid for energy delivered in full
is the objective of the clearing under pay-as-bid. As every line has a payer and a payee, the cash of all parties adds
up to zero in every period. What rounds to nothing, or is paid to oneself, makes no line.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final, Literal

import numpy as np

from cosim.domain.market import Contract, Direction
from cosim.domain.settlement import LineKind, Period, SettlementLine
from cosim.market.contracts import availability_eur
from cosim.market.delivery import Delivery
from cosim.market.exact import ENERGY, NOTHING, apportioned, exact, rounded, total
from cosim.market.imbalance import Position

_WHOLE_EUR: Final = Fraction(1, 10**9)
"""A seller that lacks no more than this is whole."""


@dataclass(frozen=True)
class Payment:
    """A line before rounding: ``quantity`` times ``price_eur`` per ``unit``."""

    t_s: int
    duration_s: int
    payer: str
    payee: str
    kind: LineKind
    quantity: Fraction
    unit: Literal["kWh", "kW", "EUR"]
    price_eur: Fraction
    refs: tuple[str, ...] = ()
    estimated: bool = False

    @property
    def eur(self) -> Fraction:
        return self.quantity * self.price_eur


@dataclass(frozen=True)
class Readiness:
    """What the seller of a contract offered in its window's MTUs of the period (n_in_window,) [kW]; see
    `cosim.market.contracts.Obligation`."""

    contract: Contract
    offered_kw: tuple[float, ...]


def lines(payments: Iterable[Payment]) -> tuple[SettlementLine, ...]:
    """In the order of time, kind, payer, payee, references, whatever the order of ``payments``.

    Quantities and prices are printed in 1e-6; amounts in 1e-4 EUR are those of the exact payments, rounded by kind.
    """
    owed = sorted((each for each in payments if each.payer != each.payee), key=_order)
    amounts: dict[int, Decimal] = {}
    for kind in dict.fromkeys(each.kind for each in owed):
        of_kind = [k for k, each in enumerate(owed) if each.kind == kind]
        amounts |= zip(of_kind, apportioned([owed[k].eur for k in of_kind]), strict=True)
    return tuple(
        SettlementLine(
            id=f"{each.t_s}-{n}",
            t_s=each.t_s,
            duration_s=each.duration_s,
            payer=each.payer,
            payee=each.payee,
            kind=each.kind,
            quantity=rounded(each.quantity, ENERGY),
            unit=each.unit,
            price_eur=rounded(each.price_eur, ENERGY),
            amount_eur=amounts[k],
            refs=each.refs,
            estimated=each.estimated,
        )
        for n, (k, each) in enumerate((k, each) for k, each in enumerate(owed) if amounts[k])
    )


def _order(each: Payment) -> tuple[object, ...]:
    return each.t_s, each.kind, each.payer, each.payee, each.refs, each.quantity, each.price_eur


def cash(settled: Iterable[SettlementLine]) -> Mapping[int, Mapping[str, Decimal]]:
    """What each party received less what it paid [EUR], by beginning of the MTU (or longer time) of the lines."""
    found: dict[int, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for line in settled:
        found[line.t_s][line.payee] += line.amount_eur
        found[line.t_s][line.payer] -= line.amount_eur
    return {t_s: dict(parties) for t_s, parties in sorted(found.items())}


def outlay_eur(settled: Iterable[SettlementLine], kinds: Sequence[LineKind] = ("utilisation",)) -> Decimal:
    """Sum of the lines of some kinds."""
    return sum((line.amount_eur for line in settled if line.kind in kinds), Decimal(0))


def utilisation(found: Iterable[Delivery], mtu_s: int) -> Iterator[Payment]:
    """Buyers pay what was delivered at the price of the award, which the pricing rule of its clearing set."""
    for each in found:
        if each.delivered:
            yield _of_award(each, mtu_s, "utilisation", each.delivered, each.price)


def penalties(found: Iterable[Delivery], mtu_s: int) -> Iterator[Payment]:
    """Sellers pay for what is missing, under two-sided terms for what is too much."""
    for each in found:
        if each.short or each.over:
            yield _of_award(each, mtu_s, "penalty", each.short + each.over, each.penalty_price)


def _of_award(each: Delivery, mtu_s: int, kind: LineKind, kwh: Fraction, price: Fraction) -> Payment:
    buyer, seller = each.call.award.buyer, each.call.seller
    payer, payee = (seller, buyer) if kind == "penalty" else (buyer, seller)
    refs = (each.call.award.bid, each.call.award.stage)
    return Payment(each.t_s, mtu_s, payer, payee, kind, kwh, "kWh", price, refs, each.estimated)


def uplifts(found: Iterable[Delivery], period: Period) -> Iterator[Payment]:
    """What makes a bid whole that asks more for what it delivered in a stage than it is paid (with integers, prices
    from duals do not): its buyers pay it in proportion to what they got."""
    own: dict[tuple[str, str], list[Delivery]] = defaultdict(list)
    for each in found:
        own[each.call.award.bid, each.call.award.stage].append(each)
    for refs, parts in own.items():
        other = [one for one in parts if one.bid_price != one.price]
        if not other or (lacking := _lacking(other)) <= _WHOLE_EUR:
            continue
        delivered = total(each.delivered for each in parts)
        by_buyer: dict[tuple[str, str], Fraction] = defaultdict(Fraction)
        for each in parts:
            by_buyer[each.call.award.buyer, each.call.seller] += each.delivered
        guessed = any(each.estimated for each in parts)
        for (buyer, seller), kwh in by_buyer.items():
            yield _of_period(period, buyer, seller, "uplift", lacking * kwh / delivered, refs, guessed)


def _lacking(parts: Iterable[Delivery]) -> Fraction:
    """What was asked for beyond what is paid [EUR]."""
    return total([(one.bid_price - one.price) * one.delivered for one in parts])


def _of_period(
    period: Period, payer: str, payee: str, kind: LineKind, eur: Fraction, refs: tuple[str, ...], guessed: bool = False
) -> Payment:
    duration_s = period.end_s - period.t_s
    return Payment(period.t_s, duration_s, payer, payee, kind, eur, "EUR", Fraction(1), refs, guessed)


def availability(readiness: Iterable[Readiness], period: Period) -> Iterator[Payment]:
    """Buyers pay the period's part of what contracts give for being ready, called or not."""
    for each in readiness:
        contract = each.contract
        eur = _ready_eur(each, period)
        yield _of_period(period, contract.buyer, contract.seller, "availability", eur, (contract.id,))


def _ready_eur(each: Readiness, period: Period) -> Fraction:
    return exact(availability_eur(each.contract, np.array(each.offered_kw), period.mtu_s))


def clawbacks(readiness: Iterable[Readiness], found: Sequence[Delivery], period: Period) -> Iterator[Payment]:
    """Sellers give back of the period's availability the share of the called energy that is missing beyond the
    tolerance, all at most, times the clawback of the terms of each call."""
    for each in readiness:
        contract = each.contract
        called = [delivery for delivery in found if delivery.call.contract == contract.id]
        awarded = total(delivery.awarded for delivery in called)
        if not awarded:
            continue
        lost = total(exact(d.call.terms.clawback) * min(d.short, d.awarded) for d in called)
        eur = _ready_eur(each, period) * lost / awarded
        guessed = any(delivery.estimated for delivery in called)
        yield _of_period(period, contract.seller, contract.buyer, "clawback", eur, (contract.id,), guessed)


def compensations(
    found: Iterable[Delivery], suppliers: Mapping[str, str], price: Sequence[float], period: Period
) -> Iterator[Payment]:
    """A seller that is not the supplier pays it for energy that it sold but did not supply, activated UP; is paid for
    what it supplied beyond, activated DOWN. What is delivered counts by meter, in proportion to what each gave."""
    for each in found if suppliers else ():
        t = period.begins.index(each.t_s)
        given = {share.meter: max(share.given, NOTHING) for share in each.shares}
        paid = each.delivered / (total(given.values()) or 1)
        for meter, kwh in given.items():
            if meter in suppliers and kwh:
                seller, supplier = each.call.seller, suppliers[meter]
                up = each.call.direction is Direction.UP
                payer, payee = (seller, supplier) if up else (supplier, seller)
                yield Payment(
                    t_s=each.t_s,
                    duration_s=period.mtu_s,
                    payer=payer,
                    payee=payee,
                    kind="supplier_compensation",
                    quantity=paid * kwh,
                    unit="kWh",
                    price_eur=exact(price[t]),
                    refs=(each.call.award.bid, meter),
                    estimated=each.estimated,
                )


def imbalances(
    held: Iterable[Position], price: Sequence[float], counterparty: str, period: Period
) -> Iterator[Payment]:
    """A party that is long is paid by ``counterparty`` at the one price of imbalances, a party that is short pays."""
    for each in held:
        t, kwh = period.begins.index(each.t_s), each.imbalance
        payer, payee = (counterparty, each.party) if kwh > 0 else (each.party, counterparty)
        yield Payment(
            t_s=each.t_s,
            duration_s=period.mtu_s,
            payer=payer,
            payee=payee,
            kind="imbalance",
            quantity=abs(kwh),
            unit="kWh",
            price_eur=exact(price[t]),
            estimated=each.estimated,
        )
