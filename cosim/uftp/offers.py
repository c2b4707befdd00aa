"""Bids as FlexOffers and awards as FlexOrders, and FlexOffers as bids.

A FlexOffer is taken as a whole, by one factor. So a block is one offer, and any other bid one offer for each MTU and
price step, all in one conversation. The reference of the option is the bid's name, that of the baseline its resource.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

from cosim.domain.market import Bid, Direction, PriceStep
from cosim.errors import BidError, Fault
from cosim.uftp.day import Isps
from cosim.uftp.element import Element, message, part
from cosim.uftp.kinds import FACTOR_STEP, Value
from cosim.uftp.names import Names, amount, domain_of, kw, party_of, unit_price, watts
from cosim.uftp.told import head, of_day, order_reference, spans

Row = Mapping[str, Any]
Place = tuple[int, str, str]
"""Gate, seller and name of a bid: what tells the bids of a run apart."""
_DIRECTIONS: Final = tuple(direction.value for direction in Direction)

PRODUCTS: Final[Mapping[Direction, str]] = MappingProxyType({Direction.UP: "up", Direction.DOWN: "down"})


@dataclass(frozen=True)
class Offered:
    """A FlexOffer and the rows that it tells, in the order of their MTUs."""

    message: Element
    rows: tuple[Row, ...]


def offers_of(rows: Iterable[Row], names: Names, requests: Sequence[Element] = ()) -> tuple[Offered, ...]:
    """The FlexOffers of bids given as rows: t_s, bid, seller, resource, direction, quantity_kw, price_eur_per_kwh,
    min_accept, gate_s, and ``block`` if all MTUs of a bid are taken in the same share.

    Rows of a bid that differ in price only are its steps. An offer answers that of the FlexRequests of its gate that
    asks its seller for one of its ISPs, if there is one. Raises BidError with all that offers cannot say.
    """
    bids: dict[Place, list[Row]] = defaultdict(list)
    for row in rows:
        bids[place_of(row)].append(row)
    faults = [fault for place in sorted(bids) for fault in _unfit(place, bids[place], names)]
    if faults:
        raise BidError(faults)
    return tuple(offer for place in sorted(bids) for offer in _offers(place, bids[place], names, requests))


def place_of(row: Row) -> Place:
    return int(row["gate_s"]), str(row["seller"]), str(row["bid"])


def orders_of(rows: Iterable[Row], offered: Sequence[Offered], names: Names) -> tuple[tuple[Element, Fraction], ...]:
    """The FlexOrders of awards given as rows: t_s, bid, seller, direction, quantity_kw, price_eur_per_kwh, gate_s; and
    the energy that the awards of each come to [kWh]. Awards of one offer to several buyers are one order.

    Raises BidError for awards that are no numbers, or of what was not offered, or more of it than was.
    """
    rows = tuple(rows)
    lacking = [fault for row in rows for fault in _not_numbers(row, ("quantity_kw", "price_eur_per_kwh"))]
    if lacking:
        raise BidError(lacking)
    by_mtu: dict[tuple[Place, int], list[Offered]] = defaultdict(list)
    for offer in offered:
        for row in offer.rows:
            by_mtu[place_of(row), int(row["t_s"])].append(offer)
    taken: dict[int, dict[int, tuple[Fraction, Fraction]]] = defaultdict(dict)
    faults = []
    for (place, t_s), (bought_kw, cost) in sorted(_bought(rows).items()):
        left_kw, price = bought_kw, cost / bought_kw
        for offer in sorted(by_mtu[place, t_s], key=lambda offer: _price(offer.rows[0])):
            part_kw = min(left_kw, _offered_kw(offer, t_s))
            left_kw -= part_kw
            if part_kw > 0:
                taken[id(offer)][t_s] = (part_kw, price)
        if left_kw > Fraction(1, 1000):
            faults.append(Fault("was awarded more than it offers", key=place[2], value=f"{float(left_kw):g} kW more"))
    if faults:
        raise BidError(faults)
    counts: dict[tuple[str, int], int] = defaultdict(int)
    return tuple(_order(offer, taken[id(offer)], counts, names) for offer in offered if id(offer) in taken)


def _bought(rows: Iterable[Row]) -> dict[tuple[Place, int], tuple[Fraction, Fraction]]:
    """Quantity [kW] and that times its price, by bid and MTU."""
    found: dict[tuple[Place, int], tuple[Fraction, Fraction]] = {}
    for row in rows:
        quantity, price = _number(row["quantity_kw"]), _number(row["price_eur_per_kwh"])
        if quantity > 0:
            key = place_of(row), int(row["t_s"])
            before = found.get(key, (Fraction(0), Fraction(0)))
            found[key] = before[0] + quantity, before[1] + quantity * price
    return found


def bids_from(
    messages: Iterable[Element],
    names: Names,
    portfolio: Mapping[str, Sequence[str]] | None = None,
    products: Mapping[Direction, str] = PRODUCTS,
) -> tuple[Bid, ...]:
    """The bids that FlexOffers tell, in the order of their MTUs and names; other messages are passed over.

    Offers of one conversation that name the same option, baseline and least factor, as `offers_of` writes them, are one
    bid. Any other option is a bid of its own, a block if it has several MTUs; options of an offer exclude each other.
    Who delivers is the resource that the offer names, else any of its seller's in ``portfolio``. Raises BidError with
    all that cannot be a bid: both directions in an option, ISPs of another length, no one to deliver.
    """
    parts: dict[tuple[object, ...], list[_Part]] = defaultdict(list)
    faults: list[Fault] = []
    for offer in messages:
        if offer.name != "FlexOffer":
            continue
        try:
            for each in _parts(offer, names, portfolio or {}):
                parts[each.key].append(each)
        except BidError as error:
            faults += error.faults
    if faults:
        raise BidError(faults)
    bids = [bid for group in parts.values() for bid in _joined(group, names, products)]
    return tuple(sorted(bids, key=lambda bid: (bid.submitted_s, bid.t_s, bid.seller, bid.id)))


def _unfit(place: Place, rows: Sequence[Row], names: Names) -> Iterator[Fault]:
    key = place[2]
    for row in rows:
        yield from _not_numbers(row, ("quantity_kw", "price_eur_per_kwh", "min_accept"))
        if (int(row["t_s"])) % names.mtu_s:
            yield Fault("begins within an ISP", key=key, value=f"{row['t_s']} s")
        if row["direction"] not in _DIRECTIONS:
            yield Fault("has no direction", key=key, value=str(row["direction"]), allowed=" or ".join(_DIRECTIONS))
    if len({(int(row["t_s"]), row["price_eur_per_kwh"]) for row in rows}) < len(rows):
        yield Fault("offers an MTU twice at one price", key=key)
    prices, mtus = {row["price_eur_per_kwh"] for row in rows}, {int(row["t_s"]) for row in rows}
    for column in ("direction", "resource", "min_accept"):
        if len({row.get(column) for row in rows}) > 1:
            yield Fault("differs among the rows of a bid", key=key, value=column)
    if len(mtus) < len(rows) and _least(rows[0]) > FACTOR_STEP:
        yield Fault("has price steps and a least share, which no offer can say", key=key)
    if rows[0].get("block"):
        if len(prices) > 1:
            yield Fault("is a block of several prices", key=key)
        if len({names.isps(t_s).day for t_s in mtus}) > 1:
            yield Fault("is a block of several days, which no offer can say", key=key)


def _not_numbers(row: Row, columns: Sequence[str]) -> Iterator[Fault]:
    for column in columns:
        if not math.isfinite(row.get(column, 0.0)):
            yield Fault("is no number", key=str(row["bid"]), value=f"{column} {row[column]}")


def _offers(place: Place, rows: Sequence[Row], names: Names, requests: Sequence[Element]) -> Iterator[Offered]:
    ordered = sorted(rows, key=lambda row: (int(row["t_s"]), _price(row)))
    ordered = [row for row in ordered if watts(row["quantity_kw"]) > 0]
    for group in [ordered] if ordered and ordered[0].get("block") else [[row] for row in ordered]:
        yield Offered(_offer(place, group, names, requests), tuple(group))


def _offer(place: Place, rows: Sequence[Row], names: Names, requests: Sequence[Element]) -> Element:
    gate_s, seller, bid = place
    first_s = int(rows[0]["t_s"])
    isps, direction = names.isps(first_s), Direction(rows[0]["direction"])
    quantity_w = {(int(row["t_s"]) - first_s) // names.mtu_s: watts(row["quantity_kw"]) for row in rows}
    values: dict[int, Mapping[str, Value | None]] = {
        k: {"Power": round(direction.delta_p_kw(float(p_w)))} for k, p_w in quantity_w.items()
    }
    price = amount(_price(rows[0]) * names.kwh(sum(quantity_w.values())))
    option = part(
        "FlexOffer/OfferOption",
        {"OptionReference": bid, "Price": price, "MinActivationFactor": _least(rows[0])},
        *spans("FlexOffer/OfferOption/ISP", names, isps, first_s, values),
    )
    what = (gate_s, bid, first_s, rows[0]["price_eur_per_kwh"])
    said = head(names, "FlexOffer", seller, names.operator, gate_s, what, names.identity("bid", *place)) | of_day(
        names, isps
    )
    said |= {
        "ExpirationDateTime": max(names.at(gate_s), names.at(first_s)),
        "BaselineReference": rows[0].get("resource") or None,
        "Currency": names.currency,
    }
    said["FlexRequestMessageID"] = next((each["MessageID"] for each in requests if _answers(said, option, each)), None)
    return message("FlexOffer", said, option)


def _answers(said: Mapping[str, Value | None], option: Element, request: Element) -> bool:
    """Whether an offer is for an ISP that was requested of its seller, at its gate, and in that direction."""
    same = ("TimeStamp", "Period", "CongestionPoint")
    if said["SenderDomain"] != request["RecipientDomain"] or any(said[name] != request[name] for name in same):
        return False
    less = requested(request, lambda isp: isp["MinPower"] < 0) & numbers(option, lambda isp: isp["Power"] < 0)
    more = requested(request, lambda isp: isp["MaxPower"] > 0) & numbers(option, lambda isp: isp["Power"] > 0)
    return bool(less or more)


def requested(request: Element, which: Callable[[Element], bool] = lambda _: True) -> frozenset[int]:
    """The ISPs that a FlexRequest needs, by number."""
    return numbers(request, lambda isp: isp.get("Disposition") == "Requested" and which(isp))


def numbers(holder: Element, which: Callable[[Element], bool] = lambda _: True) -> frozenset[int]:
    """The ISPs of a list, by number."""
    chosen = [isp for isp in holder.all("ISP") if which(isp)]
    return frozenset(n for isp in chosen for n in range(isp["Start"], isp["Start"] + isp["Duration"]))


def _order(
    offer: Offered, taken: Mapping[int, tuple[Fraction, Fraction]], counts: dict[tuple[str, int], int], names: Names
) -> tuple[Element, Fraction]:
    """The order has the power that was bought, and the factor that comes next to it."""
    first, option = offer.rows[0], offer.message.children[0]
    begin_s, direction = int(first["t_s"]), Direction(first["direction"])
    bid, hours = str(first["bid"]), Fraction(names.mtu_s, 3600)
    counts[bid, begin_s] += 1
    all_kw = sum((_offered_kw(offer, int(row["t_s"])) for row in offer.rows), Fraction(0))
    bought_kw = sum((quantity for quantity, _ in taken.values()), Fraction(0))
    factor = min(max(_factor(bought_kw / all_kw), option["MinActivationFactor"]), Decimal(1))
    values: dict[int, Mapping[str, Value | None]] = {}
    for row in offer.rows:
        p_kw = taken.get(int(row["t_s"]), (Fraction(0), Fraction(0)))[0]
        values[(int(row["t_s"]) - begin_s) // names.mtu_s] = {"Power": _signed_w(direction, p_kw)}
    said = {
        name: offer.message.get(name)
        for name in ("Version", "ISP-Duration", "TimeZone", "Period", "CongestionPoint", "ConversationID", "Currency")
    }
    gate_s, seller, _ = place_of(first)
    said |= {
        "SenderDomain": domain_of(names.operator),
        "RecipientDomain": domain_of(seller),
        "TimeStamp": names.at(gate_s),
        "MessageID": names.identity("FlexOrder", offer.message["MessageID"]),
        "FlexOfferMessageID": offer.message["MessageID"],
        "BaselineReference": offer.message.get("BaselineReference"),
        "Price": amount(sum((q_kw * price for q_kw, price in taken.values()), Fraction(0)) * hours),
        "OrderReference": order_reference(bid, names, begin_s, counts[bid, begin_s]),
        "OptionReference": option["OptionReference"],
        "ActivationFactor": factor,
    }
    isp_list = spans("FlexOrder/ISP", names, names.isps(begin_s), begin_s, values)
    return message("FlexOrder", said, *isp_list), bought_kw * hours


def _signed_w(direction: Direction, p_kw: Fraction) -> int:
    return round(-1000 * p_kw) if direction is Direction.UP else round(1000 * p_kw)


def _number(value: Any) -> Fraction:
    return Fraction(repr(float(value)))


def _price(row: Row) -> Fraction:
    return _number(row["price_eur_per_kwh"])


def _offered_kw(offer: Offered, t_s: int) -> Fraction:
    return sum((_number(row["quantity_kw"]) for row in offer.rows if int(row["t_s"]) == t_s), Fraction(0))


def _least(row: Row) -> Decimal:
    """The least factor of a bid: never less than what its seller accepts, and 0.01 for a divisible one."""
    least = Decimal(repr(float(row.get("min_accept", 0.0)))).quantize(FACTOR_STEP, ROUND_CEILING)
    return max(least, FACTOR_STEP)


def _factor(share: Fraction) -> Decimal:
    return round(share / Fraction(FACTOR_STEP)) * FACTOR_STEP


@dataclass(frozen=True)
class _Part:
    """An option of an offer; ``whole`` if it cannot be one of several parts of a bid."""

    key: tuple[object, ...]
    option: Element
    offer: Element
    first_s: int
    power_w: Mapping[int, int]
    members: tuple[str, ...]
    whole: bool


def _parts(offer: Element, names: Names, portfolio: Mapping[str, Sequence[str]]) -> Iterator[_Part]:
    said = offer["MessageID"]
    if offer["ISP-Duration"] != names.minutes:
        value = f"{offer['ISP-Duration']} minutes"
        raise BidError(
            Fault("has ISPs of another length", line=offer.line, key=said, value=value, allowed=f"{names.minutes}")
        )
    seller, resource = party_of(offer["SenderDomain"]), offer.get("BaselineReference")
    members = (resource,) if resource else tuple(portfolio.get(seller, ()))
    if not members:
        raise BidError(Fault("names no resource and its seller has none", line=offer.line, key=said, value=seller))
    options = offer.all("OfferOption")
    for option in options:
        power_w = _powers(offer, option, names)
        if not power_w or len({p_w > 0 for p_w in power_w.values()}) > 1:
            problem = "has both directions, which no bid has" if power_w else "offers nothing"
            raise BidError(Fault(problem, line=option.line, key=f"{said}: {option['OptionReference']}"))
        whole = len(options) > 1 or len(power_w) > 1
        own = (said,) if whole else (offer["ConversationID"], offer["TimeStamp"], offer["CongestionPoint"], resource)
        key = (seller, option["OptionReference"], option["MinActivationFactor"], min(power_w.values()) > 0, *own)
        yield _Part(key, option, offer, min(power_w), power_w, members, whole)


def _powers(offer: Element, option: Element, names: Names) -> dict[int, int]:
    """Powers that are not 0 [W] by mosaik time [s]."""
    isps = Isps(offer["Period"], offer["TimeZone"], offer["ISP-Duration"])
    return {
        names.t_s(isps.instant(number)): isp["Power"]
        for isp in option.all("ISP")
        for number in range(isp["Start"], isp["Start"] + isp["Duration"])
        if isp["Power"]
    }


def _joined(parts: Sequence[_Part], names: Names, products: Mapping[Direction, str]) -> Iterator[Bid]:
    """Parts of a bid that follow each other are one; those after a gap another."""
    if parts[0].whole:
        yield _bid(parts, names, products)
        return
    run: list[_Part] = []
    for each in sorted(parts, key=lambda each: (each.first_s, each.offer["MessageID"])):
        if run and each.first_s > run[-1].first_s + names.mtu_s:
            yield _bid(run, names, products)
            run = []
        run.append(each)
    yield _bid(run, names, products)


def _bid(parts: Sequence[_Part], names: Names, products: Mapping[Direction, str]) -> Bid:
    first = min(parts, key=lambda each: each.first_s)
    t_s, end_s = first.first_s, max(max(each.power_w) for each in parts) + names.mtu_s
    n_mtu = (end_s - t_s) // names.mtu_s
    total_w = [0] * n_mtu
    steps_w: dict[float, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for each in parts:
        kwh = sum((names.kwh(abs(p_w)) for p_w in each.power_w.values()), Fraction(0))
        price = unit_price(each.option["Price"], kwh)
        for at_s, p_w in each.power_w.items():
            total_w[(at_s - t_s) // names.mtu_s] += abs(p_w)
            steps_w[price][at_s] += abs(p_w)
    direction = Direction.DOWN if next(iter(first.power_w.values())) > 0 else Direction.UP
    least = first.option["MinActivationFactor"]
    several = len(first.offer.children) > 1
    return Bid(
        id=first.option["OptionReference"],
        seller=party_of(first.offer["SenderDomain"]),
        product=products[direction],
        direction=direction,
        t_s=t_s,
        quantity_kw=tuple(kw(p_w) for p_w in total_w),
        steps=tuple(PriceStep(kw(max(step.values())), price) for price, step in sorted(steps_w.items())),
        resource=first.members[0] if len(first.members) == 1 else None,
        any_of=first.members if len(first.members) > 1 else (),
        min_accept=0.0 if least == FACTOR_STEP else float(least),
        block=first.whole and len(first.power_w) > 1,
        exclusive_group=first.offer["MessageID"] if several else None,
        submitted_s=names.t_s(first.offer["TimeStamp"]),
    )
