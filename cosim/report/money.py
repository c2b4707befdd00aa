"""What the settlement of a run came to: cash by party and kind, what was delivered, and what baselines missed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cosim.report.indicator import Indicator
from cosim.report.layout import number
from cosim.report.market import local_moment
from cosim.report.market_run import market_run
from cosim.report.reading import Reading
from cosim.units import SECONDS_PER_HOUR

MONEY = "Money"
_UNITS = 10_000
"""Amounts count 1e-4 EUR."""


@dataclass(frozen=True)
class PartyCash:
    """What a party received, paid, and is left with [EUR]."""

    party: str
    received_eur: float
    paid_eur: float
    net_eur: float


@dataclass(frozen=True)
class KindSum:
    """Lines of one kind between two parties [EUR]."""

    kind: str
    payer: str
    payee: str
    lines: int
    eur: float


@dataclass(frozen=True)
class Delivered:
    """Of all awards of a seller: energy [kWh] awarded, given by the meters, paid for, and short of the tolerance."""

    seller: str
    awards: int
    awarded_kwh: float
    given_kwh: float
    delivered_kwh: float
    short_kwh: float


@dataclass(frozen=True)
class MethodBias:
    """Of a baseline against the simulation without activation, over ``count`` PODs and MTUs with a call: mean and mean
    absolute error [kW], and energy that it credits to activations beyond what was delivered [kWh]."""

    method: str
    paid: bool
    count: int
    mean_kw: float
    mean_absolute_kw: float
    credited_kwh: float


@dataclass(frozen=True)
class Money:
    """``told``: local time and a sentence for each value that was not metered or not known; ``closing_kwh``: the
    largest energy that does not close against the metered interface."""

    parties: tuple[PartyCash, ...]
    kinds: tuple[KindSum, ...]
    sellers: tuple[Delivered, ...]
    methods: tuple[MethodBias, ...]
    told: tuple[tuple[str, str], ...]
    estimated: int
    closing_kwh: float


def money(reading: Reading) -> Money | None:
    """The settlement of a run; None for a run without one."""
    return reading.once(_money)


def _money(reading: Reading) -> Money | None:
    lines, deliveries, baselines, told = (
        reading.table(f"settlement/{name}") for name in ("lines", "deliveries", "baselines", "estimates")
    )
    if lines is None or deliveries is None or baselines is None or told is None:
        return None
    closing, estimated = (reading.total(f"settlement/interface/{name}") for name in ("closing_kwh", "estimated"))
    return Money(
        _parties(lines, reading.elements("settlement/party/cash_eur")),
        _kinds(lines),
        _sellers(deliveries),
        _methods(baselines, reading),
        tuple(
            (local_moment(reading, float(t_s)), str(said)) for t_s, said in zip(told["t_s"], told["told"], strict=True)
        ),
        0 if estimated is None else int(np.nansum(estimated)),
        0.0 if closing is None else float(np.abs(np.nan_to_num(closing)).max(initial=0.0)),
    )


def _eur(amount: float) -> float:
    return float(amount) / _UNITS


def _parties(lines: pd.DataFrame, names: list[str]) -> tuple[PartyCash, ...]:
    """A line below zero is owed the other way."""
    found = []
    for name in names:
        flows = np.concatenate([lines["amount"][lines["payee"] == name], -lines["amount"][lines["payer"] == name]])
        got, paid = float(flows[flows > 0.0].sum()), float(-flows[flows < 0.0].sum())
        found.append(PartyCash(name, _eur(got), _eur(paid), _eur(got - paid)))
    return tuple(found)


def _kinds(lines: pd.DataFrame) -> tuple[KindSum, ...]:
    if lines.empty:
        return ()
    sums = lines.groupby(["kind", "payer", "payee"])["amount"].agg(["size", "sum"])
    return tuple(
        KindSum(str(kind), str(payer), str(payee), int(size), _eur(total))
        for (kind, payer, payee), size, total in sums.itertuples()
    )


def _sellers(deliveries: pd.DataFrame) -> tuple[Delivered, ...]:
    columns = ["awarded_kwh", "given_kwh", "delivered_kwh", "short_kwh"]
    return tuple(
        Delivered(str(seller), own["bid"].nunique(), *(float(own[column].sum()) for column in columns))
        for seller, own in deliveries.groupby("seller", sort=True)
    )


def _methods(baselines: pd.DataFrame, reading: Reading) -> tuple[MethodBias, ...]:
    """Those of which the truth is known, in the order of their mean absolute error."""
    table = baselines[np.isfinite(baselines["bias_kw"])]
    mtu_h = _mtu_s(reading) / SECONDS_PER_HOUR
    found = []
    for method, own in table.groupby("method", sort=True):
        credited_kw = (np.sign(own["ordered_kw"]) * own["bias_kw"]).sum()
        bias = own["bias_kw"]
        paid = bool((own["paid"] > 0.0).any())
        absolute_kw = float(bias.abs().mean())
        found.append(MethodBias(str(method), paid, len(own), float(bias.mean()), absolute_kw, credited_kw * mtu_h))
    return tuple(sorted(found, key=lambda each: (each.mean_absolute_kw, each.method)))


def _mtu_s(reading: Reading) -> float:
    run = market_run(reading)
    return reading.step_s if run is None else run.mtu_s


def money_indicators(reading: Reading) -> Iterator[Indicator]:
    """Indicators of the settlement; none without one."""
    found = money(reading)
    if found is None:
        return
    for kind in dict.fromkeys(each.kind for each in found.kinds):
        own = [each for each in found.kinds if each.kind == kind]
        note = f"lines: {sum(each.lines for each in own)}"
        yield Indicator(MONEY, kind.replace("_", " "), sum(each.eur for each in own), "EUR", None, note)
    awarded = sum(each.awarded_kwh for each in found.sellers)
    delivered = sum(each.delivered_kwh for each in found.sellers)
    if awarded > 0.0:
        note = f"of {number(awarded, 'kWh')} kWh awarded"
        yield Indicator(MONEY, "paid for as delivered", 100.0 * delivered / awarded, "%", None, note)
    for each in found.methods:
        if each.paid:
            note = f"{each.method}; mean absolute error {number(each.mean_absolute_kw, 'kW')} kW"
            yield Indicator(MONEY, "bias of the baseline", each.mean_kw, "kW", None, note)
    if found.estimated:
        yield Indicator(MONEY, "values not metered", float(found.estimated), "1", None, "estimated")
    yield Indicator(MONEY, "energy that does not close", found.closing_kwh, "kWh", None, "largest of all MTUs")
