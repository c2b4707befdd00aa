"""What the specification says of a single message beyond its schema.

Source: Shapeshifter specification, message catalogue (power, metadata, the messages) and message validation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from types import MappingProxyType
from typing import Final

from cosim.errors import BidError, Fault
from cosim.uftp.day import Isps
from cosim.uftp.element import Element, read

Found = Iterator[tuple[Element, str, str, str]]
"""The element with the fault, attributes, what is wrong with which value."""


def read_message(content: bytes, file: str = "message") -> Element:
    """The message of a file that keeps its schema and the rules of this module; raises BidError with all faults."""
    found = read(content, file)
    faults = broken(found, file)
    if faults:
        raise BidError(faults)
    return found


def broken(message: Element, file: str = "message") -> list[Fault]:
    """Rules of the specification that a message breaks."""
    places = dict(_placed(message, message.name))
    found = [*_of_all(message), *_OF.get(message.name, _nothing)(message)]
    return [
        Fault(problem, file, one.line, places[id(one)] + (f"/@{name}" if name else ""), value)
        for one, name, problem, value in found
    ]


def _placed(one: Element, place: str) -> Iterator[tuple[int, str]]:
    yield id(one), place
    counted: dict[str, int] = {}
    for child in one.children:
        counted[child.name] = counted.get(child.name, 0) + 1
        yield from _placed(child, f"{place}/{child.name}[{counted[child.name]}]")


def _of_all(message: Element) -> Found:
    if message.get("Result") == "Rejected" and not message.get("RejectionReason"):
        yield message, "RejectionReason", "a rejection needs its reason", ""
    if "Period" in message.values:
        yield from _of_isps(message)
    expires = message.get("ExpirationDateTime")
    if expires is not None and expires < message["TimeStamp"]:
        yield message, "ExpirationDateTime", "is before TimeStamp", str(expires)


def _of_isps(message: Element) -> Found:
    try:
        count: int | None = Isps(message["Period"], message["TimeZone"], message["ISP-Duration"]).count
    except (ValueError, OverflowError) as error:
        yield message, "Period", f"has no ISPs: {error}", str(message["Period"])
        count = None
    for holder in (message, *message.all("OfferOption"), *message.all("Profile")):
        yield from _of_list(holder, count)


def _of_list(holder: Element, count: int | None) -> Found:
    """ISPs of a list are in the day, and none is addressed twice."""
    ends = 0
    for isp in sorted(holder.all("ISP"), key=lambda isp: isp["Start"]):
        first, last = isp["Start"], isp["Start"] + isp.values.get("Duration", 1) - 1
        if first < 1 or last < first or (count is not None and last > count):
            yield isp, "Start", f"ISPs {first} to {last} are not in a day of {count or 'as many'}", str(first)
        elif first <= ends:
            yield isp, "Start", "an ISP is addressed twice", str(first)
        ends = max(ends, last)


def _of_request(message: Element) -> Found:
    for isp in message.all("ISP"):
        low, high = isp["MinPower"], isp["MaxPower"]
        if low > high:
            yield isp, "MinPower", "is above MaxPower", f"{low} above {high}"
        elif low < 0 < high and isp.get("Disposition") == "Requested":
            yield isp, "MinPower", "a requested ISP needs a direction", f"{low} to {high}"
    if all(isp.get("Disposition") != "Requested" for isp in message.all("ISP")):
        yield message, "", "no ISP is requested", ""


def _of_offer(message: Element) -> Found:
    seen: set[str] = set()
    for option in message.all("OfferOption"):
        if option["OptionReference"] in seen:
            yield option, "OptionReference", "is that of another option", option["OptionReference"]
        seen.add(option["OptionReference"])


def _of_metering(message: Element) -> Found:
    for profile in message.all("Profile"):
        unit = "kW" if profile["ProfileType"] == "Power" else "kWh"
        if profile["Unit"] != unit:
            yield profile, "Unit", f"{profile['ProfileType']} is in {unit}", profile["Unit"]


def _of_settlement(message: Element) -> Found:
    begin, end = message["PeriodStart"], message["PeriodEnd"]
    if end < begin:
        yield message, "PeriodEnd", "is before PeriodStart", str(end)
    for order in message.all("FlexOrderSettlement"):
        yield from _of_list(order, None)
        yield from _of_period(order, begin, end)
        net = order["Price"] - order["Penalty"]
        if order["NetSettlement"] != net:
            yield order, "NetSettlement", f"is not Price less Penalty, {net}", str(order["NetSettlement"])
    for period in (period for contract in message.all("ContractSettlement") for period in contract.children):
        yield from _of_list(period, None)
        yield from _of_period(period, begin, end)


def _of_period(one: Element, begin: date, end: date) -> Found:
    if not begin <= one["Period"] <= end:
        yield one, "Period", f"is not in {begin} to {end}", str(one["Period"])


def _of_verdicts(message: Element) -> Found:
    for status in message.all("FlexOrderSettlementStatus"):
        if status["Disposition"] == "Disputed" and not status.get("DisputeReason"):
            yield status, "DisputeReason", "a dispute needs its reason", ""


def _nothing(_: Element) -> Found:
    return iter(())


_OF: Final[Mapping[str, Callable[[Element], Found]]] = MappingProxyType(
    {
        "FlexRequest": _of_request,
        "FlexOffer": _of_offer,
        "Metering": _of_metering,
        "FlexSettlement": _of_settlement,
        "FlexSettlementResponse": _of_verdicts,
    }
)
