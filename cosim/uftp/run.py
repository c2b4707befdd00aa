"""The exchange of a run as files: what sellers were asked for, what they offered, what was ordered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from cosim.clock import parse_duration_s
from cosim.domain.market import Direction, Need
from cosim.errors import BidError, Fault
from cosim.io.results import Results
from cosim.uftp.element import Element, write
from cosim.uftp.names import Names, domain_of
from cosim.uftp.offers import Row, offers_of, orders_of
from cosim.uftp.rules import broken
from cosim.uftp.told import flex_requests, response

AWARDS: Final = ("market/awards", "dso/awards")
"""Tables of what the network operator bought: by a local market alone, or under a scheme of coordination."""
NEEDS: Final = "dso/needs"
_RANK: Final = ("FlexRequest", "FlexOffer", "FlexOrder")


@dataclass(frozen=True)
class RunRows:
    """Tables of a run as rows. Without ``bids`` what was bought counts as all that was offered, at the price asked.

    awards: t_s, bid, seller, buyer, direction, quantity_kw, price_eur_per_kwh, bid_price_eur_per_kwh, gate_s. bids:
    see `cosim.uftp.offers.offers_of`. needs: t_s, gate_s.
    """

    awards: Sequence[Row]
    bids: Sequence[Row] | None = None
    needs: Sequence[Row] = ()


@dataclass(frozen=True)
class File:
    """A message; of an order ``awarded_kwh``, what the awards behind it come to, and ``told_kwh``, what it says."""

    name: str
    message: Element
    xml: bytes
    awarded_kwh: Fraction = Fraction(0)
    told_kwh: Fraction = Fraction(0)


def export_run(run: Results | RunRows, names: Names | None = None) -> Iterator[tuple[str, bytes]]:
    """File name and XML of every message of a run, in the order in which they were sent, each with its response.

    ``names`` may be left out for results. Raises BidError with all that messages cannot say.
    """
    yield from ((file.name, file.xml) for file in exchange_of(run, names))


def exchange_of(run: Results | RunRows, names: Names | None = None) -> tuple[File, ...]:
    """The same as `export_run`, with the messages and their energies."""
    if isinstance(run, Results):
        names, run = names or names_of(run), rows_of(run)
    if names is None:
        raise BidError(Fault("rows need names", key="names"))
    bids = _offered(run.awards) if run.bids is None else run.bids
    requests = list(_requests(run, _sellers(bids), names))
    offered = offers_of(bids, names, requests)
    orders = orders_of(run.awards, offered, names)
    awarded = {order["MessageID"]: kwh for order, kwh in orders}
    sent = [*requests, *(offer.message for offer in offered), *(order for order, _ in orders)]
    sent.sort(key=_order_sent)
    with_responses = [each for one in sent for each in (one, response(one, names))]
    faults = [fault for one in with_responses for fault in broken(one, one["MessageID"])]
    if faults:
        raise BidError(faults)
    return tuple(_file(k, one, awarded, names) for k, one in enumerate(with_responses, start=1))


def names_of(results: Results, time_zone: str = "Europe/Rome") -> Names:
    """Names for a result file: its scenario makes the identities, its feeder is the congestion point."""
    scenario = results.scenario
    attributes = results.attributes
    return Names(
        run=str(attributes["scenario"]),
        start=results.time[0].to_pydatetime(),
        mtu_s=_seconds(scenario["mtu"]),
        time_zone=time_zone,
        area=f"ea1.2024-01.{domain_of('dso')}:{attributes.get('feeder') or 'area'}",
    )


def rows_of(results: Results) -> RunRows:
    """The tables of a result file that are told; raises BidError when it has none of awards."""
    tables = results.events()
    awards = next((name for name in AWARDS if name in tables), None)
    if awards is None:
        wanted, there = " or ".join(AWARDS), ", ".join(tables)
        raise BidError(Fault("holds no awards of a network operator", str(results.path), key=wanted, allowed=there))
    bids = next((name for name in tables if name.endswith("/bids")), None)
    return RunRows(
        [row for row in _rows(results, awards) if row["quantity_kw"] > 0.0],
        None if bids is None else _rows(results, bids),
        _rows(results, NEEDS) if NEEDS in tables else (),
    )


def _rows(results: Results, table: str) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in results.table(table).to_dict("records")]


def _seconds(duration: Any) -> int:
    return parse_duration_s(duration) if isinstance(duration, str) else int(duration)


def _offered(awards: Iterable[Row]) -> list[Row]:
    """Bids of what was bought, of all buyers together."""
    bought: dict[tuple[Any, ...], Fraction] = defaultdict(Fraction)
    for row in awards:
        key = (row["gate_s"], row["seller"], row["bid"], row["t_s"], row["direction"], row["bid_price_eur_per_kwh"])
        bought[key] += Fraction(repr(float(row["quantity_kw"])))
    columns = ("gate_s", "seller", "bid", "t_s", "direction", "price_eur_per_kwh")
    return [{**dict(zip(columns, key, strict=True)), "quantity_kw": float(kw)} for key, kw in bought.items()]


def _sellers(bids: Iterable[Row]) -> dict[int, list[str]]:
    """Who offers, by gate."""
    found: dict[int, set[str]] = defaultdict(set)
    for row in bids:
        found[int(row["gate_s"])].add(str(row["seller"]))
    return {gate_s: sorted(sellers) for gate_s, sellers in found.items()}


def _requests(run: RunRows, sellers: Mapping[int, Sequence[str]], names: Names) -> Iterator[Element]:
    """What a gate asked for in an MTU that needs something: the records have volts and amperes, so the power is what
    the gate then bought, net."""
    bought: dict[tuple[int, int], float] = defaultdict(float)
    for row in run.awards:
        net_kw = Direction(row["direction"]).delta_p_kw(float(row["quantity_kw"]))
        bought[int(row["gate_s"]), int(row["t_s"])] -= net_kw
    needed: dict[int, set[int]] = defaultdict(set)
    for row in run.needs:
        needed[int(row["gate_s"])].add(int(row["t_s"]))
    for gate_s, mtus in sorted(needed.items()):
        first = min(mtus)
        n_mtu = (max(mtus) - first) // names.mtu_s + 1
        times = [first + k * names.mtu_s for k in range(n_mtu)]
        need_kw = tuple(bought.get((gate_s, t_s), 0.0) if t_s in mtus else 0.0 for t_s in times)
        need = Need("congestion", names.operator, first, need_kw)
        for seller in sellers.get(gate_s, ()):
            yield from flex_requests(need, seller, names, gate_s)


def _order_sent(one: Element) -> tuple[Any, ...]:
    first = one.children[0].get("OptionReference") or one.get("OrderReference") or ""
    return (
        one["TimeStamp"],
        _RANK.index(one.name),
        one["SenderDomain"],
        one["RecipientDomain"],
        one["Period"],
        first,
        one["MessageID"],
    )


def _file(k: int, one: Element, awarded: Mapping[str, Fraction], names: Names) -> File:
    name = f"{k:06d}-{one.name}.xml"
    told = Fraction(0)
    if one.name == "FlexOrder":
        told = sum((names.kwh(abs(isp["Power"])) * isp["Duration"] for isp in one.all("ISP")), Fraction(0))
    return File(name, one, write(one, name), awarded.get(one["MessageID"], Fraction(0)), told)
