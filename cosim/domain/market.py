"""Records of a flexibility market. Flexibility is a non-negative quantity with a direction, powers have passive sign.

Times are mosaik seconds since the start of the run; a tuple over MTUs begins at ``t_s``. A price above zero means that
the buyer pays the seller for what is activated in the direction of the bid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, TypeVar, overload

from pydantic import ConfigDict, TypeAdapter

from cosim.domain.frames import Floats

Record = TypeVar("Record")


class _Closed:
    """Reading a record from JSON refuses keys that it does not have."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


class Direction(Enum):
    """``UP`` raises net injection (less load, more generation), ``DOWN`` lowers it."""

    UP = "up"
    DOWN = "down"

    @overload
    def delta_p_kw(self, quantity_kw: float) -> float: ...
    @overload
    def delta_p_kw(self, quantity_kw: Floats) -> Floats: ...
    def delta_p_kw(self, quantity_kw: float | Floats) -> float | Floats:
        """Change of consumption [kW] (passive sign) by a quantity of flexibility [kW]: the only sign flip."""
        return -quantity_kw if self is Direction.UP else quantity_kw

    @property
    def opposite(self) -> Direction:
        return Direction.DOWN if self is Direction.UP else Direction.UP


@dataclass(frozen=True)
class Product(_Closed):
    """What can be traded.

    A bid offers between ``min_kw`` and ``max_kw`` in multiples of ``step_kw`` over ``duration_min_mtu`` to
    ``duration_max_mtu`` MTUs; an order precedes delivery by ``full_activation_s``; ``tolerance`` is the share of the
    awarded energy that may be missing without a penalty.
    """

    id: str
    direction: Direction
    min_kw: float = 0.0
    step_kw: float = 0.0
    max_kw: float | None = None
    duration_min_mtu: int = 1
    duration_max_mtu: int = 1
    full_activation_s: int = 0
    divisible: bool = True
    tolerance: float = 0.10


@dataclass(frozen=True)
class Resource(_Closed):
    """A controllable unit at a POD as registered.

    ``up_kw``, ``down_kw``: prequalified capability. ``kvar_per_kw``: how its reactive power moves with its power (both
    of the passive sign). ``rebound``: share of the activated energy paid back 1, 2, ... MTUs later. ``delivery_risk``:
    share of an activation that may fail to be delivered.
    """

    id: str
    pod: str
    kind: str
    aggregator: str
    up_kw: float
    down_kw: float
    kvar_per_kw: float = 0.0
    brp: str = ""
    perimeter: str = ""
    rebound: tuple[float, ...] = ()
    delivery_risk: float = 0.0


@dataclass(frozen=True)
class StorageLimit(_Closed):
    """Stored energy of a resource over the MTUs of a clearing, from ``energy_kwh`` at their beginning.

    ``baseline_p_kw`` is its schedule (charging positive) over the MTUs; ``end_min_kwh`` the least after the last.
    ``unused_too``: the limits hold whichever awards are used and whichever are not, so what one direction leaves in
    store serves no award of the other.
    """

    resource: str
    baseline_p_kw: tuple[float, ...]
    energy_kwh: float
    energy_min_kwh: float
    energy_max_kwh: float
    end_min_kwh: float
    charge_efficiency: float
    discharge_efficiency: float
    unused_too: bool = False


@dataclass(frozen=True)
class EnergyBand(_Closed):
    """Energy that an electric vehicle or a heat pump must have drawn [kWh], at least and at most, by the end of each
    MTU since the first one began; ``baseline_p_kw`` is its schedule."""

    resource: str
    baseline_p_kw: tuple[float, ...]
    low_kwh: tuple[float, ...]
    high_kwh: tuple[float, ...]


@dataclass(frozen=True)
class RampLimit(_Closed):
    """Largest change of a resource's power from one MTU to the next [kW]; ``before_p_kw`` is that before the first."""

    resource: str
    baseline_p_kw: tuple[float, ...]
    ramp_kw: float
    before_p_kw: float | None = None


@dataclass(frozen=True)
class ActivationLimit(_Closed):
    """How often a resource may be activated (have an award above 0 in an MTU): in at most ``activations_max`` MTUs of a
    clearing, with at least ``rest_mtu`` MTUs without between two; ``rested_mtu`` of these passed before the first MTU
    of the clearing, None if there was no activation."""

    resource: str
    activations_max: int | None = None
    rest_mtu: int = 0
    rested_mtu: int | None = None


Coupling = StorageLimit | EnergyBand | RampLimit | ActivationLimit


@dataclass(frozen=True)
class Need(_Closed):
    """A buyer's request for net flexibility of the resources in ``where`` (perimeters, BRPs or ``system``).

    ``need_kw`` > 0: short, needs UP; < 0: long, needs DOWN. Firm without ``max_price_eur_per_kwh``, else bought only as
    far as it costs no more; flexibility against it, which others need, then counts as a loss at that price.
    """

    id: str
    buyer: str
    t_s: int
    need_kw: tuple[float, ...]
    where: tuple[str, ...] = ("system",)
    max_price_eur_per_kwh: float | None = None


@dataclass(frozen=True)
class PriceStep(_Closed):
    """Up to ``quantity_kw`` more at ``price_eur_per_kwh``."""

    quantity_kw: float
    price_eur_per_kwh: float


@dataclass(frozen=True)
class Bid(_Closed):
    """An offer of flexibility.

    Who delivers is one of: ``resource``; ``shares`` of resources that add up to 1; ``any_of`` resources in whatever
    split. ``quantity_kw`` (n_mtu,) is offered, at ``steps`` of increasing price. ``min_accept``: 0 divisible, 1 all or
    nothing. ``block``: the same share of the quantity is accepted in all MTUs. At most one bid of an
    ``exclusive_group`` is accepted, and of a bid with a ``parent`` no larger a share than of that.
    """

    id: str
    seller: str
    product: str
    direction: Direction
    t_s: int
    quantity_kw: tuple[float, ...]
    steps: tuple[PriceStep, ...]
    resource: str | None = None
    shares: tuple[tuple[str, float], ...] = ()
    any_of: tuple[str, ...] = ()
    availability_eur_per_kw: float | None = None
    min_accept: float = 0.0
    block: bool = False
    exclusive_group: str | None = None
    parent: str | None = None
    markets: tuple[str, ...] = ("local", "global")
    submitted_s: int = 0

    @property
    def members(self) -> tuple[str, ...]:
        """Resources that may deliver."""
        if self.resource is not None:
            return (self.resource,)
        return self.any_of or tuple(resource for resource, _ in self.shares)

    def at(self, t_s: int) -> Bid:
        """The same offer from another time [s] on."""
        dated = object.__new__(Bid)
        vars(dated).update(vars(self), t_s=t_s)
        return dated

    @property
    def whole(self) -> bool:
        """Whether accepting it takes a yes-or-no decision."""
        return self.min_accept > 0.0 or self.exclusive_group is not None


@dataclass(frozen=True)
class Window(_Closed):
    """When a contract may be called: from ``begin`` to ``end`` of days from ``first_day`` to ``last_day`` that are one
    of ``weekdays`` (0 is Monday), in local time, ``utc_offset_s`` ahead of UTC.

    An ``end`` not later than ``begin`` is on the next day; by default all day.
    """

    first_day: date
    last_day: date
    begin: time = time(0)
    end: time = time(0)
    weekdays: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    utc_offset_s: int = 0


@dataclass(frozen=True)
class ForwardBid(_Closed):
    """An offer to keep ``capacity_kw`` ready through the window of a forward auction, delivered by ``shares`` of
    resources that add up to 1.

    ``availability_eur_per_kw``: for the whole window; ``utilisation_eur_per_kwh``: for what is activated.
    ``min_accept``: 0 divisible, 1 all or nothing.
    """

    id: str
    seller: str
    product: str
    direction: Direction
    capacity_kw: float
    availability_eur_per_kw: float
    utilisation_eur_per_kwh: float
    shares: tuple[tuple[str, float], ...]
    min_accept: float = 0.0
    submitted_s: int = 0


@dataclass(frozen=True)
class ReliefNeed(_Closed):
    """What a limit lacks without flexibility: ``relief_kw``, counted in kW of one resource, and how much of it 1 kW UP
    of each resource gives; below zero it is DOWN that relieves."""

    id: str
    relief_kw: float
    relief_per_kw: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Contract(_Closed):
    """Flexibility bought forward: in its window the seller offers ``committed_kw`` at the strike price or less.

    It is called in at most ``max_activations`` MTUs. Availability is paid for the whole window, called or not: in full
    if the seller offered at least the share ``availability_full`` of what it owes, less in proportion, and nothing
    below ``availability_zero``.
    """

    id: str
    seller: str
    buyer: str
    product: str
    direction: Direction
    committed_kw: float
    availability_eur_per_kw: float
    strike_eur_per_kwh: float
    window: Window
    shares: tuple[tuple[str, float], ...]
    max_activations: int | None = None
    availability_full: float = 0.9
    availability_zero: float = 0.5
    signed_s: int = 0


@dataclass(frozen=True)
class Award(_Closed):
    """What a clearing bought of a bid for one buyer, per MTU, and the unit prices paid and bid [EUR/kWh]."""

    bid: str
    stage: str
    buyer: str
    t_s: int
    quantity_kw: tuple[float, ...]
    price_eur_per_kwh: tuple[float, ...]
    bid_price_eur_per_kwh: tuple[float, ...]
    obligation: Literal["energy", "capacity"] = "energy"


class BidState(Enum):
    """Where a bid, or the part of it that was awarded or left, is in its life."""

    SUBMITTED = "submitted"
    REJECTED = "rejected"
    VALIDATED = "validated"
    AWARDED = "awarded"
    RESIDUAL = "residual"
    FORWARDED = "forwarded"
    CAPPED = "capped"
    EXCLUDED = "excluded"
    EXPIRED = "expired"
    ACTIVATED = "activated"
    MEASURED = "measured"
    SETTLED = "settled"


_S = BidState
_OFFERED = frozenset({_S.AWARDED, _S.RESIDUAL, _S.EXPIRED})
TRANSITIONS: Final[Mapping[BidState, frozenset[BidState]]] = MappingProxyType(
    {
        _S.SUBMITTED: frozenset({_S.REJECTED, _S.VALIDATED}),
        _S.VALIDATED: _OFFERED,
        _S.RESIDUAL: frozenset({_S.FORWARDED, _S.CAPPED, _S.EXCLUDED, _S.EXPIRED}),
        _S.FORWARDED: _OFFERED,
        _S.CAPPED: _OFFERED,
        _S.AWARDED: frozenset({_S.ACTIVATED, _S.EXPIRED}),
        _S.ACTIVATED: frozenset({_S.MEASURED}),
        _S.MEASURED: frozenset({_S.SETTLED}),
        _S.REJECTED: frozenset(),
        _S.EXCLUDED: frozenset(),
        _S.EXPIRED: frozenset(),
        _S.SETTLED: frozenset(),
    }
)
"""What may follow each state. Of a bid awarded in part, the part is AWARDED and the rest RESIDUAL."""


def advance(now: BidState, then: BidState) -> BidState:
    """``then``, if it may follow ``now``; raises ValueError naming what may."""
    if then not in TRANSITIONS[now]:
        allowed = ", ".join(sorted(state.value for state in TRANSITIONS[now])) or "nothing"
        raise ValueError(f"a bid that is {now.value} cannot become {then.value}; allowed: {allowed}")
    return then


_RECORDS: Final = (
    *(Product, Resource, StorageLimit, EnergyBand, RampLimit, ActivationLimit, Need, Bid, Award),
    *(ForwardBid, ReliefNeed, Contract),
)
_ADAPTERS: Final[Mapping[type, TypeAdapter[Any]]] = {kind: TypeAdapter(kind) for kind in _RECORDS}


def to_json(record: Any) -> dict[str, Any]:
    """A record of this module as what ``json`` can write, exactly."""
    document: dict[str, Any] = _ADAPTERS[type(record)].dump_python(record, mode="json")
    return document


def from_json(kind: type[Record], document: Mapping[str, Any]) -> Record:
    """The record that ``to_json`` made; raises pydantic's ValidationError with all that is wrong."""
    record: Record = _ADAPTERS[kind].validate_python(dict(document))
    return record
