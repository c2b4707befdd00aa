"""Exact arithmetic of settlement: numbers become fractions, amounts are rounded once, and no cent is lost or found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Final

MONEY_EUR: Final = Decimal("0.0001")
"""Unit of all amounts."""
ENERGY: Final = Decimal("0.000001")
"""Unit in which lines print quantities and prices."""


def exact(value: float) -> Fraction:
    """The number that ``value`` prints as: 0.1 is one tenth. Raises ValueError unless it is finite."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return Fraction(Decimal(str(float(value))))


def energy(p_kw: float, mtu_s: int) -> Fraction:
    """Energy [kWh] of a mean power [kW] over an MTU [s]."""
    return exact(p_kw) * _hours(mtu_s)


@cache
def _hours(mtu_s: int) -> Fraction:
    return Fraction(mtu_s, 3600)


def rounded(value: Fraction, unit: Decimal) -> Decimal:
    """To whole ``unit``, half to even."""
    return round(value / Fraction(unit)) * unit


def apportioned(values: Sequence[Fraction], unit: Decimal = MONEY_EUR) -> tuple[Decimal, ...]:
    """``values`` in whole ``unit``, which add up to their exact sum rounded.

    Largest remainder: all are rounded down, and the units left over go one each to those that lost most, the first of
    equals. None is changed by a whole unit; what is whole already is not changed.
    """
    units = [value / Fraction(unit) for value in values]
    whole = [unit_count.__floor__() for unit_count in units]
    over = round(sum(units, Fraction(0))) - sum(whole)
    losses = sorted(range(len(units)), key=lambda k: (whole[k] - units[k], k))
    up = set(losses[:over])
    return tuple((count + (k in up)) * unit for k, count in enumerate(whole))
