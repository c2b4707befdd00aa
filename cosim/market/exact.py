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
NOTHING: Final = Fraction(0)
_HOUR_S: Final = 3600


@lru_cache(maxsize=1024)
def exact(value: float) -> Fraction:
    """The number that ``value`` prints as: 0.1 is one tenth. Raises ValueError unless it is finite."""
    return Fraction(_sum((value,)))


def _sum(values: Sequence[float]) -> Decimal:
    """Of the numbers that ``values`` print as, none of its digits lost. Raises ValueError unless all are finite."""
    together = Decimal(0)
    for value in values:
        together = _EXACTLY.add(together, Decimal(repr(float(value))))
    if not together.is_finite():
        raise ValueError(f"{next(value for value in values if not math.isfinite(value))} is not finite")
    return together


def energy(p_kw: float, mtu_s: int) -> Fraction:
    """Energy [kWh] of a mean power [kW] over an MTU [s]."""
    return energy_of((p_kw,), mtu_s)


def energy_of(powers_kw: Sequence[float], mtu_s: int) -> Fraction:
    """Energy [kWh] of mean powers [kW] together over an MTU [s]."""
    numerator, denominator = _sum(powers_kw).as_integer_ratio()
    return Fraction(numerator * mtu_s, denominator * _HOUR_S)


def total(values: Iterable[Fraction]) -> Fraction:
    """Their exact sum: nothing of none."""
    parts = list(values)
    if len(parts) == 1:
        return parts[0]
    ratios = [value.as_integer_ratio() for value in parts]
    common = math.lcm(*[denominator for _, denominator in ratios])
    return Fraction(sum([numerator * (common // denominator) for numerator, denominator in ratios]), common)


@cache
def _ratio(unit: Decimal) -> tuple[int, int]:
    return unit.as_integer_ratio()


def _nearest(numerator: int, denominator: int) -> int:
    """Half to even."""
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2))


def rounded(value: Fraction, unit: Decimal) -> Decimal:
    """To whole ``unit``, half to even."""
    of_unit, per = _ratio(unit)
    numerator, denominator = value.as_integer_ratio()
    return _nearest(numerator * per, denominator * of_unit) * unit


def apportioned(values: Sequence[Fraction], unit: Decimal = MONEY_EUR) -> tuple[Decimal, ...]:
    """``values`` in whole ``unit``, which add up to their exact sum rounded.

    Largest remainder: all are rounded down, and the units left over go one each to those that lost most, the first of
    equals. None is changed by a whole unit; what is whole already is not changed.
    """
    of_unit, per = _ratio(unit)
    ratios = [value.as_integer_ratio() for value in values]
    common = math.lcm(*[denominator for _, denominator in ratios])
    unit_size = common * of_unit
    parts = [divmod(numerator * (common // denominator) * per, unit_size) for numerator, denominator in ratios]
    down = sum([count for count, _ in parts])
    over = _nearest(sum([lost for _, lost in parts]) + down * unit_size, unit_size) - down
    up = set(sorted(range(len(parts)), key=[-lost for _, lost in parts].__getitem__)[:over])
    return tuple([(count + (k in up)) * unit for k, (count, _) in enumerate(parts)])
