"""Records of measurement and settlement. Powers have passive sign (consumption > 0), money is exact decimal EUR.

Energies of positions and deliveries are exact fractions of a kWh: what one party gains another loses to the last
digit. Only the amount of a line is rounded, once (`cosim.market.exact.apportioned`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Final, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter

from cosim.domain.market import Award, Direction

Record = TypeVar("Record")
Value = TypeVar("Value")
LineKind = Literal[
    "availability",
    "utilisation",
    "uplift",
    "penalty",
    "clawback",
    "imbalance",
    "supplier_compensation",
]
PenaltyBasis = Literal["clipped", "raw"]


class _Closed:
    """Reading a record from JSON refuses keys that it does not have."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Period(_Closed):
    """What is settled together: ``n_mtu`` MTUs of ``mtu_s`` seconds from ``t_s`` on."""

    t_s: int
    mtu_s: int
    n_mtu: int

    @property
    def begins(self) -> range:
        """When each MTU begins [s]."""
        return range(self.t_s, self.end_s, self.mtu_s)

    @property
    def end_s(self) -> int:
        return self.t_s + self.n_mtu * self.mtu_s

    def before(self, n_mtu: int) -> Period:
        """The ``n_mtu`` MTUs that end where this one begins."""
        return Period(self.t_s - n_mtu * self.mtu_s, self.mtu_s, n_mtu)


@dataclass(frozen=True)
class Series(_Closed):
    """Mean power of ``owner`` (a meter, a party, an interface: import > 0) in MTUs of ``mtu_s`` from ``t_s`` on
    (n_mtu,) [kW]; None where nothing was measured. ``estimated`` (n_mtu,): which values stand in for a measurement;
    empty for none."""

    owner: str
    kind: Literal["baseline", "measurement", "schedule", "forecast"]
    t_s: int
    mtu_s: int
    p_kw: tuple[float | None, ...]
    estimated: tuple[bool, ...] = ()

    @property
    def end_s(self) -> int:
        return self.t_s + len(self.p_kw) * self.mtu_s

    def over(self, period: Period) -> Series:
        """The part of a period; MTUs outside of what was recorded are None. The MTUs of both must be the same."""
        if self.t_s == period.t_s and len(self.p_kw) == len(self.estimated) == period.n_mtu:
            return self
        first = (period.t_s - self.t_s) // self.mtu_s
        flags = _part(self.estimated, first, period.n_mtu, False) if self.estimated else (False,) * period.n_mtu
        return Series(self.owner, self.kind, period.t_s, self.mtu_s, self.values(period.t_s, period.n_mtu), flags)

    def values(self, t_s: int, n_mtu: int) -> tuple[float | None, ...]:
        """Powers in ``n_mtu`` MTUs from ``t_s`` on; MTUs outside of what was recorded are None."""
        return _part(self.p_kw, (t_s - self.t_s) // self.mtu_s, n_mtu, None)

    @property
    def missing(self) -> tuple[int, ...]:
        """MTUs without a value, counted from its first."""
        return tuple([k for k, value in enumerate(self.p_kw) if value is None or math.isnan(value)])


def _part(values: tuple[Value, ...], first: int, n: int, outside: Value) -> tuple[Value, ...]:
    """``n`` values from number ``first`` on, also beside those that there are."""
    if first >= 0 and first + n <= len(values):
        return values[first : first + n]
    return tuple([values[k] if 0 <= k < len(values) else outside for k in range(first, first + n)])


@dataclass(frozen=True)
class DeliveryTerms(_Closed):
    """What a seller owes for an award.

    ``tolerance``: share of the awarded energy that may be missing. A missing kWh beyond costs ``penalty_factor`` times
    the size of the unit price plus ``penalty_adder_eur_per_kwh``. ``basis``: ``raw`` counts delivery in the wrong
    direction as missing too, ``clipped`` does not. ``two_sided``: what is delivered beyond the award and the tolerance
    costs the same; else (UFTP) nothing. ``clawback``: share of the availability payment lost if nothing is delivered.
    """

    tolerance: float = 0.10
    penalty_factor: float = 0.0
    penalty_adder_eur_per_kwh: float = 0.0
    basis: PenaltyBasis = "clipped"
    two_sided: bool = False
    clawback: float = 0.0


@dataclass(frozen=True)
class Call(_Closed):
    """An award that was called, and what was ordered for it from each meter: (meter, kW per MTU of the award), which
    adds up to the quantity awarded. ``contract``: the forward contract it was called from, if any."""

    award: Award
    seller: str
    direction: Direction
    ordered_kw: tuple[tuple[str, tuple[float, ...]], ...]
    terms: DeliveryTerms = DeliveryTerms()
    contract: str | None = None


@dataclass(frozen=True)
class Perimeter(_Closed):
    """A balance responsible party, the meters it answers for, and their schedule together: a `Series`."""

    party: str
    meters: tuple[str, ...]
    scheduled: Series


@dataclass(frozen=True)
class Interface(_Closed):
    """Flow into the area (import > 0), scheduled and metered, and who answers for losses and what no meter saw."""

    scheduled: Series
    metered: Series
    loss_party: str


@dataclass(frozen=True)
class SettlementLine(_Closed):
    """``payer`` owes ``payee`` an ``amount_eur`` for an MTU (or more: ``duration_s``) from ``t_s`` on; below zero it
    is owed the other way.

    The amount is ``quantity`` times ``price_eur``, per ``unit``, before either is rounded for this line.
    ``estimated``: it rests on a value that was not measured.
    """

    id: str
    t_s: int
    duration_s: int
    payer: str
    payee: str
    kind: LineKind
    quantity: Decimal
    unit: Literal["kWh", "kW", "EUR"]
    price_eur: Decimal
    amount_eur: Decimal
    refs: tuple[str, ...] = ()
    estimated: bool = False


_ADAPTERS: Final[Mapping[type, TypeAdapter[Any]]] = {
    kind: TypeAdapter(kind) for kind in (Period, Series, DeliveryTerms, Call, Perimeter, Interface, SettlementLine)
}


def to_json(record: Any) -> dict[str, Any]:
    """A record of this module as what ``json`` can write, exactly: decimals as text."""
    document: dict[str, Any] = _ADAPTERS[type(record)].dump_python(record, mode="json")
    return document


def from_json(kind: type[Record], document: Mapping[str, Any]) -> Record:
    """The record that ``to_json`` made; raises pydantic's ValidationError with all that is wrong."""
    record: Record = _ADAPTERS[kind].validate_python(dict(document))
    return record
