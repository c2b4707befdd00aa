"""Messages between the parties of a scheme: what each type carries, how large it is, and its plain form."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final, Literal

from cosim.coordination.grid import Grid
from cosim.coordination.plain import from_plain, json_of, number_json, to_plain
from cosim.coordination.traffic_light import Light
from cosim.domain.frames import Complexes, Floats
from cosim.domain.market import Bid, Direction, Need, PriceStep, Resource
from cosim.market.uncertainty import Uncertainty

MessageType = Literal[
    "RESOURCE_LIST", "NEED", "BID", "BID_CAP", "BID_CURVE", "PICKED_SET", "VALIDATION", "NETWORK_MODEL", "OPER_DATA",
    "LIMIT", "IFACE_SCHEDULE", "IFACE_PRICE", "AWARD", "RESULT", "ACTIVATION",
]  # fmt: skip


class _Written:
    """What can be written as JSON, once for all that are told."""

    @cached_property
    def json(self) -> bytes:
        """Arrays in base64."""
        return json_of(self).encode()


_UNITS_KEPT: Final = 4096
_resource_json = lru_cache(_UNITS_KEPT)(json_of)
_markets_json = lru_cache(json_of)


def _json(value: Any) -> str:
    """`json_of`, faster for what most values of a bid are."""
    if isinstance(value, str):
        return quoted(value)
    return "null" if value is None else "[]" if value == () else json_of(value)


def _bid_json(bid: Bid) -> str:
    """`json_of` of a bid."""
    kw = ", ".join(map(number_json, bid.quantity_kw))
    steps = ", ".join(
        [
            f'{{"price_eur_per_kwh": {number_json(step.price_eur_per_kwh)}, '
            f'"quantity_kw": {number_json(step.quantity_kw)}}}'
            for step in bid.steps
        ]
    )
    return (
        f'{{"any_of": {_json(bid.any_of)}, "availability_eur_per_kw": {_json(bid.availability_eur_per_kw)}, '
        f'"block": {"true" if bid.block else "false"}, "direction": "{bid.direction._value_}", '
        f'"exclusive_group": {_json(bid.exclusive_group)}, "id": {_json(bid.id)}, '
        f'"markets": {_markets_json(bid.markets)}, "min_accept": {number_json(bid.min_accept)}, '
        f'"parent": {_json(bid.parent)}, "product": {quoted(bid.product)}, "quantity_kw": [{kw}], '
        f'"resource": {_json(bid.resource)}, "seller": {quoted(bid.seller)}, "shares": {_json(bid.shares)}, '
        f'"steps": [{steps}], "submitted_s": {bid.submitted_s}, "t_s": {bid.t_s}}}'
    )


@dataclass(frozen=True)
class Offered(_Written):
    """BID: bids and the resources that deliver them. RESOURCE_LIST: resources that may take part, with no more
    capability than their network allows, and no bids."""

    bids: tuple[Bid, ...]
    resources: tuple[Resource, ...]

    @cached_property
    def json(self) -> bytes:
        """The same as of all that is written, but faster: bids are most of what is told."""
        bids, resources = ", ".join(map(_bid_json, self.bids)), ", ".join(map(_resource_json, self.resources))
        return f'{{"bids": [{bids}], "resources": [{resources}]}}'.encode()


@dataclass(frozen=True)
class Needed(_Written):
    """NEED: kW that the system is short of, or what each limit of an area is exceeded by, in its unit; what BRPs would
    buy."""

    quantity: Mapping[str, float]
    demands: tuple[Need, ...] = ()


@dataclass(frozen=True)
class NetworkModel(_Written):
    """NETWORK_MODEL: quantities with limits and what they do with powers, without the state of operation. Of an area
    (``bus``: where it hangs), or of transmission (``area`` empty), with the bus of each area."""

    area: str
    bus: str
    grid: Grid
    interfaces: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OperatingData(_Written):
    """OPER_DATA: the state of operation that a model lacks (see `NetworkRows`), and the half-bands of its forecast
    errors."""

    area: str
    p_kw: Floats
    q_kvar: Floats
    base: Complexes
    uncertainty: Uncertainty | None


@dataclass(frozen=True)
class Quantities(_Written):
    """What is awarded, picked, cut or safe [kW] of each bid, and how far it changes the export of each area [kW].

    RESULT, ACTIVATION, AWARD to sellers: awards. AWARD to a DSO: export alone, a change from the base of its curve.
    PICKED_SET: what would be taken. BID_CAP, VALIDATION: the most that is safe; ``again``: something new was cut.
    """

    kw: Mapping[str, float] = field(default_factory=dict)
    export_kw: Mapping[str, float] = field(default_factory=dict)
    again: bool = False


@dataclass(frozen=True)
class AreaCurve:
    """BID_CURVE: what an area would ask for more (``up``) and for less (``down``) export than ``base_kw``, itself a
    change from the schedule [kW, or kvar of reactive power]."""

    area: str
    commodity: Literal["P", "Q"]
    base_kw: float
    up: tuple[PriceStep, ...]
    down: tuple[PriceStep, ...]

    def steps(self, direction: Direction) -> tuple[PriceStep, ...]:
        return self.up if direction is Direction.UP else self.down


@dataclass(frozen=True)
class Curves(_Written):
    curves: tuple[AreaCurve, ...]


@dataclass(frozen=True)
class Lights(_Written):
    """LIMIT: the traffic light of an area's perimeters for one version of its topology."""

    area: str
    topology_version: int
    lights: tuple[Light, ...]


@dataclass(frozen=True)
class Terms(_Written):
    """IFACE_SCHEDULE at the gate: agreed change of each area's export [kW]. IFACE_PRICE: what 1 kWh of it is worth."""

    of_area: Mapping[str, float]


Body = Offered | Needed | NetworkModel | OperatingData | Quantities | Curves | Lights | Terms
_BODIES: Final[Mapping[str, type[Any]]] = {
    "RESOURCE_LIST": Offered, "NEED": Needed, "BID": Offered, "BID_CAP": Quantities, "BID_CURVE": Curves,
    "PICKED_SET": Quantities, "VALIDATION": Quantities, "NETWORK_MODEL": NetworkModel, "OPER_DATA": OperatingData,
    "LIMIT": Lights, "IFACE_SCHEDULE": Terms, "IFACE_PRICE": Terms, "AWARD": Quantities, "RESULT": Quantities,
    "ACTIVATION": Quantities,
}  # fmt: skip


@dataclass(frozen=True)
class Message:
    """From one party to another at a time [s]: the outcome of ``stage`` (empty at the gate), of its ``round``."""

    t_s: int
    sender: str
    receiver: str
    type: MessageType
    stage: str
    body: Body
    round: int = 1

    @property
    def size(self) -> int:
        """Bytes of its body as JSON, arrays in base64."""
        return len(self.body.json)

    @property
    def digest(self) -> str:
        """Hash of its body."""
        return hashlib.sha256(self.body.json).hexdigest()[:16]


def role_of(party: str) -> str:
    """``DSO`` of ``DSO:north``."""
    return party.partition(":")[0]


def message_to_plain(message: Message) -> dict[str, Any]:
    """As what JSON can write, but for arrays."""
    plain: dict[str, Any] = to_plain(message)
    return plain


def message_from_plain(plain: Mapping[str, Any]) -> Message:
    """The message that `message_to_plain` gave."""
    body = from_plain(_BODIES[plain["type"]], plain["body"])
    return Message(**{**plain, "body": body})
