"""Energy positions of all who answer for balance, corrected for activations; together they are the interface's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

from cosim.domain.settlement import Interface, Perimeter, Period, Series
from cosim.errors import BidError, Fault
from cosim.market.delivery import Delivery, signed
from cosim.market.exact import NOTHING, energy_of, total
from cosim.market.metering import Meters, columns, values_kw

Correction = Literal["none", "ordered", "delivered"]
_NOBODY: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class Position:
    """Of a party in the MTU from ``t_s`` on [kWh]: what its meters were scheduled to draw and drew, and ``activated``,
    the rise of injection by activations that others answer for (of those who answer for them: below zero)."""

    party: str
    t_s: int
    scheduled: Fraction
    metered: Fraction
    activated: Fraction
    estimated: bool = False

    @cached_property
    def imbalance(self) -> Fraction:
        """Above zero: long, it drew less (or injected more) than scheduled, activations of others left out."""
        return self.scheduled - self.metered - self.activated


def check_perimeters(perimeters: Sequence[Perimeter], measured: Mapping[str, Series], loss_party: str) -> None:
    """Raises BidError unless every measured meter is in exactly one perimeter, and every meter of one is measured."""
    faults = list(_perimeter_faults(perimeters, measured, loss_party))
    if faults:
        raise BidError(faults)


def _perimeter_faults(
    perimeters: Sequence[Perimeter], measured: Mapping[str, Series], loss_party: str
) -> Iterator[Fault]:
    holders: dict[str, list[str]] = defaultdict(list)
    seen = dict.fromkeys(measured)
    for perimeter in perimeters:
        for meter in perimeter.meters:
            holders[meter].append(perimeter.party)
    for meter, parties in holders.items():
        if len(parties) > 1:
            yield Fault("in more than one perimeter", key=f"meter {meter}", value=", ".join(parties), allowed="one")
        if meter not in seen:
            yield Fault("no measurement", key=f"meter {meter}", value=f"in the perimeter of {parties[0]}")
    for meter in seen:
        if meter not in holders:
            allowed = ", ".join(perimeter.party for perimeter in perimeters) or "none"
            yield Fault("in no perimeter: nobody answers for its balance", key=f"meter {meter}", allowed=allowed)
    parties = [perimeter.party for perimeter in perimeters]
    for party in dict.fromkeys(party for party in parties if parties.count(party) > 1):
        yield Fault("more than one perimeter of that party", key=f"perimeter of {party}")
    if loss_party in parties:
        problem = "answers for losses and for meters: give its meters a party of their own"
        yield Fault(problem, key=f"perimeter of {loss_party}")


def positions(
    period: Period,
    perimeters: Sequence[Perimeter],
    measured: Mapping[str, Series],
    interface: Interface,
    delivered: Sequence[Delivery] = (),
    correction: Correction = "delivered",
    bearers: Mapping[str, str] = _NOBODY,
) -> tuple[Position, ...]:
    """Of every party in every MTU; imbalances add up to what the interface imported less than scheduled.

    A BRP answers for what its meters drew against its schedule; ``correction`` takes out what was ordered there, or
    what was delivered, and the buyer of the activation answers for it instead, or its bearer in ``bearers``. The loss
    party answers for what the interface carried and no meter saw. ``measured`` must be complete.

    Raises BidError naming every meter in no perimeter or in several, ProfileError for MTUs without a value.
    """
    check_perimeters(perimeters, measured, interface.loss_party)
    meters = _whole(measured, period)
    own = {each.party: [meters.place[meter] for meter in each.meters] for each in perimeters}
    drawn_kw = meters.p_kw.tolist()
    scheduled = {each.party: _energies([values_kw(each.scheduled, period)], period) for each in perimeters}
    metered = {party: _energies([drawn_kw[k] for k in rows], period) for party, rows in own.items()}
    guessed = {party: np.logical_or.reduce(meters.estimated[rows]).tolist() for party, rows in own.items()}
    rest = interface.loss_party
    scheduled[rest] = _rest(interface.scheduled, scheduled.values(), period)
    metered[rest] = _rest(interface.metered, metered.values(), period)
    flags = (interface.metered.over(period).estimated, *guessed.values())
    guessed[rest] = [any(of_mtu) for of_mtu in zip(*flags, strict=True)]
    party_of = {meter: perimeter.party for perimeter in perimeters for meter in perimeter.meters}
    moved = _corrections(delivered, party_of, correction, bearers)
    parties = dict.fromkeys([*scheduled, *sorted({party for party, _ in moved})])
    nothing, measured_all = (NOTHING,) * period.n_mtu, (False,) * period.n_mtu
    return tuple(
        Position(
            party,
            t_s,
            scheduled.get(party, nothing)[t],
            metered.get(party, nothing)[t],
            moved.get((party, t_s), NOTHING),
            guessed.get(party, measured_all)[t],
        )
        for t, t_s in enumerate(period.begins)
        for party in parties
    )


def _whole(measured: Mapping[str, Series], period: Period) -> Meters:
    """Raises ProfileError naming the MTUs of a meter that are without a value."""
    meters = columns("measurement", measured, period)
    for k in np.flatnonzero(np.isnan(meters.p_kw).any(axis=1)).tolist():
        values_kw(measured[meters.names[k]], period)
    return meters


def _energies(powers_kw: Sequence[Sequence[float]], period: Period) -> tuple[Fraction, ...]:
    """Of powers (n_mtu,) together, exactly."""
    return tuple([energy_of([p_kw[t] for p_kw in powers_kw], period.mtu_s) for t in range(period.n_mtu)])


def _rest(whole: Series, parts: Iterable[Sequence[Fraction]], period: Period) -> tuple[Fraction, ...]:
    """Energies (n_mtu,) that a whole has beyond its parts."""
    energies = _energies([values_kw(whole, period)], period)
    return tuple([kwh - total(of_mtu) for kwh, *of_mtu in zip(energies, *parts, strict=True)])


def _corrections(
    delivered: Sequence[Delivery], party_of: Mapping[str, str], correction: Correction, bearers: Mapping[str, str]
) -> Mapping[tuple[str, int], Fraction]:
    """Activated energy taken out of a party's position, by party and MTU; what is taken from one another gets."""
    taken: dict[tuple[str, int], list[Fraction]] = defaultdict(list)
    got: dict[tuple[str, int], list[Fraction]] = defaultdict(list)
    for each in delivered if correction != "none" else ():
        buyer = each.call.award.buyer
        bearer = bearers.get(buyer, buyer)
        for share in each.shares:
            if share.meter not in party_of:
                raise BidError(Fault("called, but in no perimeter", key=f"meter {share.meter}"))
            kwh = signed(each.call.direction, share.ordered if correction == "ordered" else share.given)
            taken[party_of[share.meter], each.t_s].append(kwh)
            got[bearer, each.t_s].append(kwh)
    return {of: total(taken[of]) - total(got[of]) for of in {**taken, **got}}


def interface_imbalance(period: Period, interface: Interface) -> tuple[Fraction, ...]:
    """What it imported less than scheduled (n_mtu,) [kWh]."""
    seen = _energies([values_kw(interface.metered, period)], period)
    return _rest(interface.scheduled, [seen], period)


def closing_gaps(period: Period, found: Sequence[Position], interface: Interface) -> tuple[Fraction, ...]:
    """By how much the imbalances of all parties miss the interface's (n_mtu,) [kWh]: nothing, if all is well."""
    held: dict[int, Fraction] = defaultdict(Fraction)
    for each in found:
        held[each.t_s] += each.imbalance
    return tuple(
        held[t_s] - kwh for t_s, kwh in zip(period.begins, interface_imbalance(period, interface), strict=True)
    )
