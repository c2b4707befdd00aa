"""Settlement: what each award, contract and imbalance of a period costs whom, in lines with payer and payee."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from cosim.domain.settlement import Call, Interface, Perimeter, Period, Series, SettlementLine
from cosim.errors import BidError, Fault, ProfileError
from cosim.market.delivery import Delivery, deliveries
from cosim.market.imbalance import Correction, Position, positions
from cosim.market.metering import Meters, columns, completed, values_kw
from cosim.market.payments import (
    Readiness,
    availability,
    clawbacks,
    compensations,
    imbalances,
    lines,
    penalties,
    uplifts,
    utilisation,
)


@dataclass(frozen=True)
class SettlementRules:
    """``imbalance_party`` buys and sells imbalances; ``correction`` of perimeters, ``bearers`` of what a buyer
    activated (see `cosim.market.imbalance.positions`); ``gap_max_mtu``: longest gap that is interpolated."""

    imbalance_party: str = "TSO"
    correction: Correction = "delivered"
    bearers: Mapping[str, str] = field(default_factory=dict)
    gap_max_mtu: int = 2


@dataclass(frozen=True)
class SettlementCase:
    """What is settled: ``measured`` and ``baselines`` by meter (of many meters best as `cosim.market.metering.Meters`),
    prices (n_mtu,) [EUR/kWh].

    ``suppliers`` of meters are compensated at ``reference_price`` by sellers other than themselves. Imbalances are
    settled if ``interface`` is given, at ``imbalance_price``.
    """

    period: Period
    calls: tuple[Call, ...]
    measured: Mapping[str, Series]
    baselines: Mapping[str, Series]
    readiness: tuple[Readiness, ...] = ()
    perimeters: tuple[Perimeter, ...] = ()
    interface: Interface | None = None
    imbalance_price: tuple[float, ...] = ()
    suppliers: Mapping[str, str] = field(default_factory=dict)
    reference_price: tuple[float, ...] = ()
    rules: SettlementRules = SettlementRules()


@dataclass(frozen=True)
class Settlement:
    """Lines in the order of time, kind, parties; what they rest on; ``told``: a sentence on each value estimated."""

    lines: tuple[SettlementLine, ...]
    deliveries: tuple[Delivery, ...]
    positions: tuple[Position, ...]
    told: tuple[str, ...]


def settle(case: SettlementCase) -> Settlement:
    """All lines of a period. Measurements that are missing are estimated (`cosim.market.metering`), flagged and told.

    Raises BidError or ProfileError with everything that is wrong with calls, perimeters, prices and series.
    """
    _check_prices(case)
    measured, told = _complete(case)
    found = deliveries(case.period, case.calls, measured, case.baselines)
    interface, more = _complete_interface(case, measured)
    held: tuple[Position, ...] = ()
    if interface is not None:
        rules = case.rules
        held = positions(case.period, case.perimeters, measured, interface, found, rules.correction, rules.bearers)
    mtu_s = case.period.mtu_s
    payments = [
        *utilisation(found, mtu_s),
        *uplifts(found, case.period),
        *penalties(found, mtu_s),
        *availability(case.readiness, case.period),
        *clawbacks(case.readiness, found, case.period),
        *compensations(found, case.suppliers, case.reference_price, case.period),
        *imbalances(held, case.imbalance_price, case.rules.imbalance_party, case.period),
    ]
    return Settlement(lines(payments), found, held, (*told, *more))


def _check_prices(case: SettlementCase) -> None:
    wanted = [
        ("imbalance_price", case.imbalance_price, case.interface is not None),
        ("reference_price", case.reference_price, bool(case.suppliers)),
    ]
    n_mtu = case.period.n_mtu
    faults = [
        Fault("a price for each MTU is needed", key=name, value=f"{len(prices)} prices", allowed=str(n_mtu))
        for name, prices, used in wanted
        if used and len(prices) != n_mtu
    ]
    if faults:
        raise BidError(faults)


def _complete(case: SettlementCase) -> tuple[Meters, tuple[str, ...]]:
    seen = columns("measurement", case.measured, case.period)
    lacking = np.flatnonzero(np.isnan(seen.p_kw).any(axis=1)).tolist()
    if not lacking:
        return seen, ()
    p_kw, estimated = seen.p_kw.copy(), seen.estimated.copy()
    told: list[str] = []
    faults: list[Fault] = []
    for k in lacking:
        meter = seen.names[k]
        series = case.measured[meter]
        try:
            stand_ins = _stand_ins(case, meter, series)
            whole, sentences = completed(series, stand_ins, case.period, case.rules.gap_max_mtu)
            p_kw[k], estimated[k] = whole.p_kw, whole.estimated
            told += sentences
        except ProfileError as unknown:
            faults += unknown.faults
    if faults:
        raise ProfileError(faults)
    return replace(seen, p_kw=p_kw, estimated=estimated), tuple(told)


def _stand_ins(case: SettlementCase, meter: str, measured: Series) -> list[Series]:
    """For what was not measured: the baseline (nothing delivered), without one the mean of what was."""
    found = [case.baselines[meter]] if meter in case.baselines else []
    seen = [kw for kw in measured.p_kw if kw is not None and not math.isnan(kw)]
    if seen:
        mean_kw = (math.fsum(seen) / len(seen),) * case.period.n_mtu
        owner = f"{meter} (mean of what was measured)"
        found.append(Series(owner, "forecast", case.period.t_s, case.period.mtu_s, mean_kw))
    return found


def _complete_interface(case: SettlementCase, measured: Meters) -> tuple[Interface | None, tuple[str, ...]]:
    if case.interface is None:
        return None, ()
    whole, period = case.interface, case.period
    stand_ins = [_flow(whole, case.perimeters, measured, period)] if whole.metered.over(period).missing else []
    full, told = completed(whole.metered, stand_ins, period, case.rules.gap_max_mtu)
    return Interface(whole.scheduled, full, whole.loss_party), told


def _flow(whole: Interface, perimeters: tuple[Perimeter, ...], measured: Meters, period: Period) -> Series:
    """What an interface carries if losses are as scheduled."""
    added = [*measured.p_kw.tolist(), values_kw(whole.scheduled, period)]
    planned = [values_kw(each.scheduled, period) for each in perimeters]
    p_kw = tuple(
        math.fsum([*(each[t] for each in added), *(-each[t] for each in planned)]) for t in range(period.n_mtu)
    )
    return Series(f"{whole.metered.owner} (meters and scheduled losses)", "forecast", period.t_s, period.mtu_s, p_kw)
