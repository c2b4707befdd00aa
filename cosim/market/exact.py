"""Exact arithmetic of settlement: numbers become fractions, amounts are rounded once, and no cent is lost or found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from functools import cache, lru_cache
from typing import Final

MONEY_EUR: Final = Decimal("0.0001")
"""Unit of all amounts."""
ENERGY: Final = Decimal("0.000001")
"""Unit in which lines print quantities and prices."""
_EXACTLY: Final = Context(prec=1200, traps=[Inexact])
"""More digits than there are between the largest and the least number: no sum is rounded."""
_HOUR_S: Final = 3600


@lru_cache(maxsize=1024)
def exact(value: float) -> Fraction:
    """The number that ``value`` prints as: 0.1 is one tenth. Raises ValueError unless it is finite."""
    return Fraction(_decimal(value))


def _decimal(value: float) -> Decimal:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return Decimal(str(float(value)))


def energy(p_kw: float, mtu_s: int) -> Fraction:
    """Energy [kWh] of a mean power [kW] over an MTU [s]."""
    return energy_of((p_kw,), mtu_s)


def energy_of(powers_kw: Iterable[float], mtu_s: int) -> Fraction:
    """Energy [kWh] of mean powers [kW] together over an MTU [s]."""
    total = Decimal(0)
    for p_kw in powers_kw:
        total = _EXACTLY.add(total, _decimal(p_kw))
    numerator, denominator = total.as_integer_ratio()
    return Fraction(numerator * mtu_s, denominator * _HOUR_S)


@cache
def _per(unit: Decimal) -> Fraction:
    return 1 / Fraction(unit)


def rounded(value: Fraction, unit: Decimal) -> Decimal:
    """To whole ``unit``, half to even."""
    return round(value * _per(unit)) * unit


def apportioned(values: Sequence[Fraction], unit: Decimal = MONEY_EUR) -> tuple[Decimal, ...]:
    """``values`` in whole ``unit``, which add up to their exact sum rounded.

    Largest remainder: all are rounded down, and the units left over go one each to those that lost most, the first of
    equals. None is changed by a whole unit; what is whole already is not changed.
    """
    units = [value * _per(unit) for value in values]
    whole = [unit_count.__floor__() for unit_count in units]
    over = round(sum(units, Fraction(0))) - sum(whole)
    losses = sorted(range(len(units)), key=lambda k: (whole[k] - units[k], k))
    up = set(losses[:over])
    return tuple((count + (k in up)) * unit for k, count in enumerate(whole))
