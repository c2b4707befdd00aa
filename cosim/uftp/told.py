"""Our records as messages: needs, declared schedules, reservations, measurements, settlement, responses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from cosim.domain.market import Contract, Direction, Need
from cosim.domain.settlement import Period, Series, SettlementLine
from cosim.errors import BidError, Fault
from cosim.market.delivery import Delivery
from cosim.uftp.day import Isps
from cosim.uftp.element import Element, message, part
from cosim.uftp.kinds import Value
from cosim.uftp.names import VERSION, Names, domain_of, watts


def head(
    names: Names,
    kind: str,
    sender: str,
    recipient: str,
    t_s: float,
    what: Sequence[object],
    conversation: str | None = None,
) -> dict[str, Value | None]:
    """What all messages begin with; ``what`` tells messages of a kind and sender apart."""
    return {
        "Version": VERSION,
        "SenderDomain": domain_of(sender),
        "RecipientDomain": domain_of(recipient),
        "TimeStamp": names.at(t_s),
        "MessageID": names.identity(kind, sender, recipient, *what),
        "ConversationID": conversation or names.identity("conversation", kind, sender, recipient, *what),
    }


def of_day(names: Names, isps: Isps) -> dict[str, Value | None]:
    """What a message about ISPs says of them."""
    return {
        "ISP-Duration": names.minutes,
        "TimeZone": names.time_zone,
        "Period": isps.day,
        "CongestionPoint": names.area,
    }


def by_day(names: Names, t_s: int, n_mtu: int) -> Iterator[tuple[Isps, range]]:
    """MTUs from ``t_s`` by the day they are in: its ISPs, and the indices of the MTUs."""
    first = 0
    while first < n_mtu:
        isps = names.isps(t_s + first * names.mtu_s)
        left = isps.count + 1 - isps.number(names.at(t_s + first * names.mtu_s))
        yield isps, range(first, min(first + left, n_mtu))
        first += left


def spans(
    path: str, names: Names, isps: Isps, t_s: int, values: Mapping[int, Mapping[str, Value | None]]
) -> tuple[Element, ...]:
    """ISPs of a list: values by index of the MTU from ``t_s``; equal ones that follow each other are one element."""
    merged: list[tuple[int, int, Mapping[str, Value | None]]] = []
    for k in sorted(values):
        if merged and merged[-1][0] + merged[-1][1] == k and merged[-1][2] == values[k]:
            merged[-1] = (merged[-1][0], merged[-1][1] + 1, merged[-1][2])
        else:
            merged.append((k, 1, values[k]))
    return tuple(
        part(path, {**said, "Start": isps.number(names.at(t_s + k * names.mtu_s)), "Duration": length})
        for k, length, said in merged
    )


def flex_requests(need: Need, recipient: str, names: Names, gate_s: int) -> tuple[Element, ...]:
    """What a buyer is short of (UP: consumption is to fall) or long of, one message a day. MTUs without a need are left
    out, and days without."""
    found = []
    for isps, mtus in by_day(names, need.t_s, len(need.need_kw)):
        wanted = {k: watts(-need.need_kw[k]) for k in mtus if watts(need.need_kw[k])}
        if not wanted:
            continue
        values: dict[int, Mapping[str, Value | None]] = {
            k: {"Disposition": "Requested", "MinPower": min(0, p_w), "MaxPower": max(0, p_w)}
            for k, p_w in wanted.items()
        }
        isp_list = spans("FlexRequest/ISP", names, isps, need.t_s, values)
        said = head(names, "FlexRequest", names.operator, recipient, gate_s, (need.id, gate_s, isps.day))
        said |= of_day(names, isps) | {"Revision": 1}
        said["ExpirationDateTime"] = max(names.at(gate_s), isps.instant(isp_list[0]["Start"]))
        found.append(message("FlexRequest", said, *isp_list))
    return tuple(found)


def d_prognoses(declared: Series, names: Names, t_s: int, revision: int = 1) -> tuple[Element, ...]:
    """What its ``owner``, a seller, declared, one message a day. Raises BidError for MTUs without a value."""
    _check_mtu(declared, names)
    if declared.missing:
        raise BidError(
            Fault("has MTUs without a value", key=declared.owner, value=", ".join(map(str, declared.missing)))
        )
    found = []
    for isps, mtus in by_day(names, declared.t_s, len(declared.p_kw)):
        values: dict[int, Mapping[str, Value | None]] = {k: {"Power": watts(declared.p_kw[k] or 0.0)} for k in mtus}
        said = head(names, "D-Prognosis", declared.owner, names.operator, t_s, (isps.day, revision))
        said |= of_day(names, isps) | {"Revision": revision}
        found.append(message("D-Prognosis", said, *spans("D-Prognosis/ISP", names, isps, declared.t_s, values)))
    return tuple(found)


def flex_reservation_updates(
    contract: Contract, t_s: int, reserved_kw: Sequence[float], names: Names, gate_s: int
) -> tuple[Element, ...]:
    """What of a contract stays reserved in the MTUs from ``t_s`` [kW, not signed], one message a day."""
    found = []
    for isps, mtus in by_day(names, t_s, len(reserved_kw)):
        values: dict[int, Mapping[str, Value | None]] = {
            k: {"Power": watts(contract.direction.delta_p_kw(reserved_kw[k]))} for k in mtus
        }
        said = head(
            names, "FlexReservationUpdate", names.operator, contract.seller, gate_s, (contract.id, gate_s, isps.day)
        )
        said |= of_day(names, isps) | {"ContractID": contract.id, "Reference": f"{contract.id}@{isps.day}"}
        isp_list = spans("FlexReservationUpdate/ISP", names, isps, t_s, values)
        found.append(message("FlexReservationUpdate", said, *isp_list))
    return tuple(found)


def meterings(
    measured: Series, ean: str, seller: str, names: Names, t_s: int, revision: int = 1
) -> tuple[Element, ...]:
    """Mean powers of a meter [kW, not rounded], one message a day; MTUs without a measurement are left out."""
    _check_mtu(measured, names)
    gaps = set(measured.missing)
    found = []
    for isps, mtus in by_day(names, measured.t_s, len(measured.p_kw)):
        isp_list = tuple(
            part(
                "Metering/Profile/ISP",
                {"Start": isps.number(names.at(measured.t_s + k * names.mtu_s)), "Value": _exact(measured.p_kw[k])},
            )
            for k in mtus
            if k not in gaps
        )
        if not isp_list:
            continue
        said = head(names, "Metering", seller, names.operator, t_s, (ean, isps.day, revision)) | of_day(names, isps)
        said |= {"Revision": revision, "EAN": ean, "CongestionPoint": None}
        profile = part("Metering/Profile", {"ProfileType": "Power", "Unit": "kW"}, *isp_list)
        found.append(message("Metering", said, profile))
    return tuple(found)


@dataclass(frozen=True)
class Reserved:
    """Power kept ready under a contract in the MTUs from ``t_s`` [kW, not signed] (n_mtu,)."""

    contract: str
    direction: Direction
    t_s: int
    reserved_kw: tuple[float, ...]


def flex_settlement(
    seller: str,
    period: Period,
    found: Iterable[Delivery],
    lines: Iterable[SettlementLine],
    baselines: Mapping[str, Series],
    names: Names,
    reserved: Sequence[Reserved] = (),
) -> Element:
    """What a period came to for a seller: an entry for each award and MTU, and what was reserved (the schema wants one:
    without a contract it says that nothing was).

    ``lines`` give prices and penalties, ``baselines`` are by meter. Powers have their sign, what is missing has none.
    Raises BidError if the seller delivered nothing in the period, since the message needs an order.
    """
    due: dict[tuple[int, str, str], Decimal] = defaultdict(Decimal)
    for line in lines:
        if line.refs and line.kind in ("utilisation", "penalty"):
            due[line.t_s, line.refs[0], line.kind] += line.amount_eur
    own = [each for each in found if each.call.seller == seller]
    if not own:
        raise BidError(Fault("has no deliveries to settle", key=seller))
    orders = [_settled(each, due, baselines, names) for each in own]
    first, last = names.isps(period.t_s), names.isps(period.end_s - names.mtu_s)
    said = head(names, "FlexSettlement", names.operator, seller, period.end_s, (period.t_s, period.end_s))
    said |= {"Result": "Accepted", "PeriodStart": first.day, "PeriodEnd": last.day, "Currency": names.currency}
    none = Reserved("", Direction.UP, period.t_s, (0.0,) * period.n_mtu)
    contracts = [_reserved(each, names) for each in reserved or (none,)]
    return message("FlexSettlement", said, *orders, *contracts)


def _settled(
    each: Delivery, due: Mapping[tuple[int, str, str], Decimal], baselines: Mapping[str, Series], names: Names
) -> Element:
    bid, isps = each.call.award.bid, names.isps(each.t_s)
    price, penalty = (due.get((each.t_s, bid, kind), Decimal(0)) for kind in ("utilisation", "penalty"))
    one = Period(each.t_s, names.mtu_s, 1)
    baseline_kw = sum((_exact(baselines[share.meter].over(one).p_kw[0]) for share in each.shares), Decimal(0))

    def delta_w(kwh: Fraction) -> int:
        return round(-kwh * _per_kwh(names)) if each.call.direction is Direction.UP else round(kwh * _per_kwh(names))

    base_w = round(baseline_kw * 1000)
    isp = part(
        "FlexSettlement/FlexOrderSettlement/ISP",
        {
            "Start": isps.number(names.at(each.t_s)),
            "BaselinePower": base_w,
            "OrderedFlexPower": delta_w(each.awarded),
            "ActualPower": base_w + delta_w(each.given),
            "DeliveredFlexPower": delta_w(each.delivered),
            "PowerDeficiency": round(each.short * _per_kwh(names)),
        },
    )
    said: dict[str, Value | None] = {
        "OrderReference": order_reference(bid, names, each.t_s),
        "Period": isps.day,
        "CongestionPoint": names.area,
        "Price": price,
        "Penalty": penalty,
        "NetSettlement": price - penalty,
        "ContractID": each.call.contract,
        "BaselineReference": ", ".join(share.meter for share in each.shares) or None,
    }
    return part("FlexSettlement/FlexOrderSettlement", said, isp)


def _reserved(each: Reserved, names: Names) -> Element:
    days = []
    for isps, mtus in by_day(names, each.t_s, len(each.reserved_kw)):
        values: dict[int, Mapping[str, Value | None]] = {
            k: {"ReservedPower": watts(each.direction.delta_p_kw(each.reserved_kw[k]))} for k in mtus
        }
        isp_list = spans("FlexSettlement/ContractSettlement/Period/ISP", names, isps, each.t_s, values)
        days.append(part("FlexSettlement/ContractSettlement/Period", {"Period": isps.day}, *isp_list))
    return part("FlexSettlement/ContractSettlement", {"ContractID": each.contract or None}, *days)


def response(to: Element, names: Names, reason: str = "") -> Element:
    """The answer of the recipient of a message: accepted, or rejected for a reason. To a settlement it accepts, or
    disputes, every order."""
    said: dict[str, Value | None] = {
        "Version": VERSION,
        "SenderDomain": to["RecipientDomain"],
        "RecipientDomain": to["SenderDomain"],
        "TimeStamp": to["TimeStamp"],
        "MessageID": names.identity("response", to["MessageID"], reason),
        "ConversationID": to["ConversationID"],
        "Result": "Rejected" if reason else "Accepted",
        "RejectionReason": reason or None,
        f"{to.name}MessageID": to["MessageID"],
    }
    verdict: dict[str, Value | None] = {
        "Disposition": "Disputed" if reason else "Accepted",
        "DisputeReason": reason or None,
    }
    statuses = (
        part(
            "FlexSettlementResponse/FlexOrderSettlementStatus",
            {**verdict, "OrderReference": each.get("OrderReference")},
        )
        for each in to.all("FlexOrderSettlement")
    )
    return message(f"{to.name}Response", said, *statuses)


def order_reference(bid: str, names: Names, t_s: int, count: int = 1) -> str:
    """Of an order for an MTU of a bid; ``count`` tells several apart."""
    return f"{bid}@{names.at(t_s):%Y-%m-%dT%H:%M:%SZ}" + (f"#{count}" if count > 1 else "")


def _per_kwh(names: Names) -> Fraction:
    """Watts that give 1 kWh in an ISP."""
    return 1000 / Fraction(timedelta(seconds=names.mtu_s) / timedelta(hours=1))


def _exact(p_kw: float | None) -> Decimal:
    return Decimal(repr(float(p_kw or 0.0)))


def _check_mtu(series: Series, names: Names) -> None:
    if series.mtu_s != names.mtu_s:
        raise BidError(
            Fault("has MTUs of another length", key=series.owner, value=f"{series.mtu_s} s", allowed=f"{names.mtu_s} s")
        )
