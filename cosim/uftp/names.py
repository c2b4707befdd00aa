"""Names, identities and numbers of an exchange: what messages say in place of ours, and back.

Nothing of it depends on a clock or on chance: an identity is the UUID5 of the run and of what the message is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from cosim.errors import BidError, Fault
from cosim.uftp.day import Isps, isps_at
from cosim.uftp.kinds import ADDRESS, CURRENCY, PRICE_STEP, ZONE

VERSION: Final = "3.0.0"
_SUFFIX: Final = ".example"
_PLAIN: Final = re.compile(r"[a-wyz0-9]|(?<=[a-wyz0-9])-(?=[a-wyz0-9])")
_HIDDEN: Final = re.compile(r"x([0-9a-f]+)x")
_DIGITS: Final = 17


@dataclass(frozen=True)
class Names:
    """Of one exchange.

    ``run`` makes identities; ``start`` is UTC; ``mtu_s`` the length of an ISP; ``area`` the entity address of the
    congestion point; ``operator`` the party that asks for flexibility and orders it. Raises BidError naming all that
    messages cannot say.
    """

    run: str
    start: datetime
    mtu_s: int
    time_zone: str = "Europe/Rome"
    area: str = "ea1.2024-01.example:area"
    operator: str = "dso"
    currency: str = "EUR"

    def __post_init__(self) -> None:
        faults = []
        for key, kind in (("time_zone", ZONE), ("area", ADDRESS), ("currency", CURRENCY)):
            value: str = getattr(self, key)
            try:
                kind.read(value)
            except ValueError:
                faults.append(Fault("cannot be said in a message", key=key, value=value, allowed=kind.allowed))
        if self.mtu_s % 60 or not 0 < self.mtu_s <= 86_400:
            faults.append(Fault("cannot be said in a message", key="mtu", value=f"{self.mtu_s} s", allowed="minutes"))
        elif not faults:
            faults += self._unfit()
        if faults:
            raise BidError(faults)

    def _unfit(self) -> list[Fault]:
        try:
            isps = self.isps(0)
        except ValueError as error:
            return [Fault(str(error), key="time_zone", value=self.time_zone)]
        if (self.start - isps.begin) % timedelta(seconds=self.mtu_s):
            return [Fault("is not where an ISP begins", key="start", value=str(self.start))]
        return []

    @property
    def minutes(self) -> int:
        return self.mtu_s // 60

    def at(self, t_s: float) -> datetime:
        """UTC time of mosaik time ``t_s`` [s]."""
        return self.start + timedelta(seconds=t_s)

    def isps(self, t_s: float) -> Isps:
        """The ISPs of the day that an MTU begins in."""
        return isps_at(self.at(t_s), self.time_zone, self.minutes)

    def t_s(self, instant: datetime) -> int:
        """Mosaik time of an instant [s], down to whole seconds."""
        return (instant - self.start) // timedelta(seconds=1)

    def identity(self, *what: object) -> str:
        """The UUID of a message or conversation of this run."""
        return str(uuid5(_space(self.run), "\n".join(map(str, what))))

    def kwh(self, watts: int) -> Fraction:
        """Energy of a power in one ISP."""
        return Fraction(watts, 1000) * Fraction(self.mtu_s, 3600)


def _space(run: str) -> UUID:
    return uuid5(NAMESPACE_URL, f"urn:cosim:uftp:{run}")


def domain_of(party: str) -> str:
    """The Internet domain that stands for a party, another for every party. ``x..x`` holds what no domain may."""
    shown = "".join(sign if _PLAIN.match(party, k) else f"x{ord(sign):x}x" for k, sign in enumerate(party))
    return f"{shown or 'xx'}{_SUFFIX}"


def party_of(domain: str) -> str:
    """The party that a domain stands for; a domain that was not made by `domain_of` is the party itself."""
    if not domain.endswith(_SUFFIX):
        return domain
    shown = domain.removesuffix(_SUFFIX)
    try:
        party = "" if shown == "xx" else _HIDDEN.sub(lambda match: chr(int(match[1], 16)), shown)
    except (ValueError, OverflowError):
        return domain
    return party if domain_of(party) == domain else domain


def watts(p_kw: float) -> int:
    """A power [kW] in whole watts: the nearest, of two the even one."""
    return round(Fraction(repr(float(p_kw))) * 1000)


def kw(power_w: int) -> float:
    """A power [W] in kW: the float whose shortest text is it."""
    return float(Decimal(power_w) / 1000)


def amount(eur: Fraction) -> Decimal:
    """Money to four decimals: the nearest, of two the even one."""
    return round(eur / Fraction(PRICE_STEP)) * PRICE_STEP


def unit_price(price: Decimal, kwh: Fraction) -> float:
    """EUR/kWh of a price for an energy: of all that come to this price after rounding, the one with fewest digits."""
    exact = Fraction(price) / kwh
    for digits in range(_DIGITS):
        rounded = round(exact, digits)
        if amount(rounded * kwh) == price:
            return float(rounded)
    return float(exact)
