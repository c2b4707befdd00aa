"""What messages of one exchange say of each other: identities, references, orders that are what was offered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path

from cosim.errors import BidError, Fault
from cosim.uftp.element import Element
from cosim.uftp.kinds import FACTOR_STEP
from cosim.uftp.offers import numbers, requested
from cosim.uftp.published import schema_of
from cosim.uftp.rules import read_message

_REFERENCES = ("FlexRequest", "FlexOffer", "FlexOfferRevocation", "FlexOrder", "D-Prognosis", "FlexReservationUpdate")


def read_exchange(folder: Path, schema_dir: Path | None = None) -> dict[str, Element]:
    """The messages of all ``*.xml`` of a folder by file name. With ``schema_dir``, a copy of the published schema, they
    are checked against that too. Raises BidError with all faults of all files, and if there is no file."""
    files = sorted(folder.glob("*.xml"))
    if not files:
        raise BidError(Fault("holds no messages", str(folder), allowed="files *.xml"))
    published = None if schema_dir is None else schema_of(schema_dir)
    found: dict[str, Element] = {}
    faults: list[Fault] = []
    for file in files:
        content = file.read_bytes()
        try:
            found[file.name] = read_message(content, file.name)
        except BidError as error:
            faults += error.faults
            continue
        faults += published(content, file.name) if published else []
    faults = faults or between(found)  # what refers to a message that was refused is no fault of its own
    if faults:
        raise BidError(faults)
    return found


def between(messages: Mapping[str, Element]) -> list[Fault]:
    """Faults of messages, by file, that only others show."""
    by_id = {one["MessageID"]: one for one in messages.values()}
    return [
        *_repeated(messages),
        *(fault for file, one in messages.items() for fault in _unknown(file, one, by_id)),
        *(
            fault
            for file, one in messages.items()
            if one.name == "FlexOrder"
            for fault in _misordered(file, one, by_id)
        ),
        *_ordered_twice(messages),
        *(fault for file, one in messages.items() if one.name == "FlexOffer" for fault in _unasked(file, one, by_id)),
    ]


def _repeated(messages: Mapping[str, Element]) -> Iterator[Fault]:
    first: dict[str, str] = {}
    for file, one in messages.items():
        other = first.setdefault(one["MessageID"], file)
        if other != file:
            yield Fault(f"is that of {other}", file, one.line, f"{one.name}/@MessageID", one["MessageID"])


def _unknown(file: str, one: Element, by_id: Mapping[str, Element]) -> Iterator[Fault]:
    for kind in _REFERENCES:
        key = f"{kind}MessageID"
        said = one.get(key)
        if said is None:
            continue
        other = by_id.get(said)
        if other is None or other.name != kind:
            yield Fault(f"no {kind} here has this identity", file, one.line, f"{one.name}/@{key}", said)
        elif {one["SenderDomain"], one["RecipientDomain"]} != {other["SenderDomain"], other["RecipientDomain"]}:
            yield Fault(f"that {kind} is between others", file, one.line, f"{one.name}/@{key}", said)
        elif one.get("Period") is not None and one["Period"] != other.get("Period"):
            yield Fault(
                f"that {kind} is of {other.get('Period')}", file, one.line, f"{one.name}/@Period", str(one["Period"])
            )


def _misordered(file: str, order: Element, by_id: Mapping[str, Element]) -> Iterator[Fault]:
    """An order has the ISPs of the option, and in each the share of its power that the activation factor says."""
    offer = by_id.get(order["FlexOfferMessageID"])
    if offer is None or offer.name != "FlexOffer":
        return
    options = offer.all("OfferOption")
    chosen = [o for o in options if order.get("OptionReference") in (None, o["OptionReference"])]
    if len(chosen) != 1:
        known = ", ".join(option["OptionReference"] for option in options)
        yield Fault(
            "names no option of its offer",
            file,
            order.line,
            "FlexOrder/@OptionReference",
            str(order.get("OptionReference")),
            known,
        )
        return
    factor, least = order["ActivationFactor"], chosen[0]["MinActivationFactor"]
    if factor < least:
        yield Fault(
            "is below that of the offer",
            file,
            order.line,
            "FlexOrder/@ActivationFactor",
            str(factor),
            f"{least} to 1.00",
        )
    if order["Currency"] != offer["Currency"]:
        yield Fault(
            "is not that of the offer", file, order.line, "FlexOrder/@Currency", order["Currency"], offer["Currency"]
        )
    ordered, offered = _watts(order), _watts(chosen[0])
    if ordered.keys() != offered.keys():
        yield Fault(
            "has other ISPs than its offer", file, order.line, "FlexOrder/ISP", _spans(ordered), _spans(offered)
        )
        return
    for isp, watts in ordered.items():
        slack = FACTOR_STEP * abs(offered[isp]) + 1
        if abs(watts - factor * offered[isp]) > slack:
            share = f"{factor} of {offered[isp]}"
            yield Fault(
                "is not the share of the offer", file, order.line, f"FlexOrder/ISP {isp}/@Power", str(watts), share
            )


def _unasked(file: str, offer: Element, by_id: Mapping[str, Element]) -> Iterator[Fault]:
    """An offer that answers a request is for an ISP that was requested."""
    request = by_id.get(offer.get("FlexRequestMessageID") or "")
    if request is None or request.name != "FlexRequest":
        return
    if not any(requested(request) & numbers(option) for option in offer.all("OfferOption")):
        allowed = _spans(requested(request))
        yield Fault("has no ISP of its request", file, offer.line, "FlexOffer/OfferOption/ISP", allowed=allowed)


def _ordered_twice(messages: Mapping[str, Element]) -> Iterator[Fault]:
    first: dict[str, str] = {}
    for file, one in messages.items():
        if one.name == "FlexOrder" and (other := first.setdefault(one["FlexOfferMessageID"], file)) != file:
            yield Fault(
                f"its offer is ordered by {other} already",
                file,
                one.line,
                "FlexOrder/@FlexOfferMessageID",
                one["FlexOfferMessageID"],
            )


def _watts(holder: Element) -> dict[int, Decimal]:
    return {
        number: Decimal(isp["Power"])
        for isp in holder.all("ISP")
        for number in range(isp["Start"], isp["Start"] + isp["Duration"])
    }


def _spans(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
