"""Messages of UFTP 3.0 as a table: elements, their attributes and what they contain. Reader and writer walk it.

Source: schema of the Shapeshifter specification for AGR and DSO, restated. ``attributes`` of a line are
``Name kind``, with ``?`` behind what may be left out and ``=value`` behind what then counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cosim.uftp import kinds
from cosim.uftp.kinds import Kind, Value


@dataclass(frozen=True)
class Attribute:
    """``default`` counts if it is left out; None: nothing does."""

    name: str
    kind: Kind
    required: bool
    default: Value | None = None


@dataclass(frozen=True)
class Facts:
    """What an element holds: attributes by name, and children in this order, each at least ``least`` times."""

    name: str
    attributes: Mapping[str, Attribute]
    children: tuple[tuple[Facts, int], ...] = ()

    def child(self, name: str) -> Facts | None:
        return next((facts for facts, _ in self.children if facts.name == name), None)

    @property
    def defaults(self) -> dict[str, Value]:
        return {a.name: a.default for a in self.attributes.values() if a.default is not None}


_KINDS: Final[Mapping[str, Kind]] = {
    "text": kinds.TEXT,
    "version": kinds.VERSION,
    "uuid": kinds.UUID,
    "domain": kinds.DOMAIN,
    "address": kinds.ADDRESS,
    "currency": kinds.CURRENCY,
    "zone": kinds.ZONE,
    "meter": kinds.METER,
    "result": kinds.RESULT,
    "space": kinds.SPACE,
    "verdict": kinds.VERDICT,
    "profile": kinds.PROFILE,
    "unit": kinds.UNIT,
    "watts": kinds.WATTS,
    "number": kinds.NUMBER,
    "count": kinds.COUNT,
    "long": kinds.LONG,
    "amount": kinds.AMOUNT,
    "factor": kinds.FACTOR,
    "reading": kinds.READING,
    "boolean": kinds.YES_NO,
    "day": kinds.DAY,
    "instant": kinds.INSTANT,
    "minutes": kinds.MINUTES,
}


def _attribute(name: str, form: str) -> Attribute:
    bare, _, default = form.partition("=")
    kind = _KINDS[bare.rstrip("?")]
    required = not default and not bare.endswith("?")
    return Attribute(name, kind, required, kind.read(default) if default else None)


def _facts(name: str, attributes: str, *children: Facts | tuple[Facts, int]) -> Facts:
    words = attributes.split()
    table = {n: _attribute(n, form) for n, form in zip(words[::2], words[1::2], strict=True)}
    counted = tuple(child if isinstance(child, tuple) else (child, 1) for child in children)
    return Facts(name, MappingProxyType(table), counted)


_HEAD = (
    "Version version SenderDomain domain RecipientDomain domain TimeStamp instant MessageID uuid ConversationID uuid "
)
_OUTCOME = _HEAD + "Result result RejectionReason text? "
_DAY = "ISP-Duration minutes TimeZone zone Period day "
_FLEX = _HEAD + _DAY + "CongestionPoint address "
_SPAN = " Start count Duration count=1"
_POWER = _facts("ISP", "Power watts" + _SPAN)
_BASIS = "ContractID text? D-PrognosisMessageID uuid? BaselineReference text? "


def _response(name: str, *children: Facts | tuple[Facts, int]) -> Facts:
    return _facts(f"{name}Response", _OUTCOME + f"{name}MessageID uuid", *children)


_OPTION = _facts("OfferOption", "OptionReference text Price amount MinActivationFactor factor=1.00", _POWER)
_SETTLED_ISP = _facts(
    "ISP",
    "BaselinePower watts OrderedFlexPower watts ActualPower watts DeliveredFlexPower watts PowerDeficiency watts=0"
    + _SPAN,
)
_ORDER_SETTLEMENT = _facts(
    "FlexOrderSettlement",
    "OrderReference text? Period day CongestionPoint address Price amount Penalty amount=0 NetSettlement amount "
    + _BASIS,
    _SETTLED_ISP,
)
_RESERVED_ISP = _facts(
    "ISP",
    "ReservedPower watts RequestedPower watts? AvailablePower watts? OfferedPower watts? OrderedPower watts?" + _SPAN,
)
_CONTRACT_SETTLEMENT = _facts("ContractSettlement", "ContractID text?", _facts("Period", "Period day", _RESERVED_ISP))

MESSAGES: Final[Mapping[str, Facts]] = MappingProxyType(
    {
        facts.name: facts
        for facts in (
            _facts(
                "FlexRequest",
                _FLEX + "Revision long ExpirationDateTime instant ContractID text? ServiceType text?",
                _facts("ISP", "Disposition space? MinPower watts MaxPower watts" + _SPAN),
            ),
            _facts(
                "FlexOffer",
                _FLEX + "ExpirationDateTime instant FlexRequestMessageID uuid? Currency currency " + _BASIS,
                _OPTION,
            ),
            _facts("FlexOfferRevocation", _HEAD + "FlexOfferMessageID uuid"),
            _facts(
                "FlexOrder",
                _FLEX
                + "FlexOfferMessageID uuid Price amount Currency currency OrderReference text OptionReference text? "
                + "ActivationFactor factor=1.00 "
                + _BASIS,
                _POWER,
            ),
            _facts("D-Prognosis", _FLEX + "Revision long", _facts("ISP", "Power watts Start number Duration number=1")),
            _facts("FlexReservationUpdate", _FLEX + "ContractID text Reference text", _POWER),
            _facts(
                "Metering",
                _HEAD + _DAY + "Revision long Currency currency? EAN meter",
                _facts("Profile", "ProfileType profile Unit unit", _facts("ISP", "Start number Value reading")),
            ),
            _facts(
                "FlexSettlement",
                _OUTCOME + "PeriodStart day PeriodEnd day Currency currency",
                _ORDER_SETTLEMENT,
                _CONTRACT_SETTLEMENT,
            ),
            *map(_response, ("FlexRequest", "FlexOffer", "FlexOfferRevocation", "FlexOrder", "FlexReservationUpdate")),
            _response("D-Prognosis", (_facts("FlexOrderStatus", "FlexOrderMessageID uuid IsValidated boolean"), 0)),
            _response("Metering"),
            _response(
                "FlexSettlement",
                _facts("FlexOrderSettlementStatus", "OrderReference text? Disposition verdict DisputeReason text?"),
            ),
        )
    }
)
"""The messages by the name of their root element."""
