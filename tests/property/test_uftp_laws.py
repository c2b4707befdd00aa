"""Laws of the UFTP messages: what is written is read back, bids survive the way there and back, nothing crashes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cosim.domain.market import Bid, Direction, PriceStep
from cosim.errors import BidError, Fault
from cosim.uftp import kinds
from cosim.uftp.day import Isps, isps_at
from cosim.uftp.element import Element, read, write
from cosim.uftp.exchange import between
from cosim.uftp.facts import MESSAGES, Facts
from cosim.uftp.names import Names, domain_of, kw, party_of, watts
from cosim.uftp.offers import bids_from, offers_of, orders_of
from cosim.uftp.rules import broken, read_message

RECORDED = sorted((Path(__file__).parents[1] / "reference" / "uftp_messages").glob("*.xml"))
ZONES = st.sampled_from(["Europe/Rome", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Pacific/Apia"])
DAYS = st.dates(date(2000, 1, 1), date(2037, 12, 30)) | st.sampled_from([date(2024, 3, 31), date(2024, 10, 27)])
UUIDS = st.uuids().map(str)
TEXTS = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\ufffe\uffff"), max_size=12)
VALUES: Mapping[kinds.Kind, st.SearchStrategy[Any]] = {
    kinds.TEXT: TEXTS,
    kinds.VERSION: st.just("3.0.0"),
    kinds.UUID: UUIDS,
    kinds.DOMAIN: TEXTS.map(domain_of),
    kinds.ADDRESS: st.sampled_from(["ean.123456789012", "ea1.2024-01.dso.example:a&b"]),
    kinds.CURRENCY: st.sampled_from(["EUR", "DKK"]),
    kinds.ZONE: ZONES,
    kinds.METER: st.integers(0, 10**16 - 1).map(lambda n: f"E{n:016d}"),
    kinds.RESULT: st.sampled_from(["Accepted", "Rejected"]),
    kinds.SPACE: st.sampled_from(["Available", "Requested"]),
    kinds.VERDICT: st.sampled_from(["Accepted", "Disputed"]),
    kinds.PROFILE: st.sampled_from(["Power", "ImportEnergy"]),
    kinds.UNIT: st.sampled_from(["kW", "kWh"]),
    kinds.WATTS: st.integers(-(10**12), 10**12),
    kinds.NUMBER: st.integers(-9, 200),
    kinds.COUNT: st.integers(1, 200),
    kinds.LONG: st.integers(-(2**63), 2**63 - 1),
    kinds.AMOUNT: st.decimals(-(10**9), 10**9, places=4),
    kinds.FACTOR: st.decimals("0.01", "1.00", places=2),
    kinds.READING: st.decimals(-(10**6), 10**6, places=9),
    kinds.YES_NO: st.booleans(),
    kinds.DAY: DAYS,
    kinds.INSTANT: st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
    kinds.MINUTES: st.integers(1, 1440),
}


@st.composite
def elements(draw: st.DrawFn, facts: Facts) -> Element:
    values = {
        name: draw(VALUES[a.kind])
        for name, a in facts.attributes.items()
        if a.required or a.default is not None or draw(st.booleans())
    }
    children = [
        draw(elements(child)) for child, least in facts.children for _ in range(draw(st.integers(least, least + 1)))
    ]
    return Element(facts.name, values, tuple(children))


@given(st.sampled_from(sorted(MESSAGES)).flatmap(lambda name: elements(MESSAGES[name])))
def test_what_is_written_is_read_back(one: Element) -> None:
    content = write(one)
    assert read(content) == one
    assert write(read(content)) == content


@given(st.sampled_from(RECORDED), st.data())
def test_a_damaged_message_is_read_or_refused_with_faults(file: Path, data: st.DataObject) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    faults = faults_of(bytes(content), file.name)
    assert all(fault.problem and fault.file == file.name for fault in faults)
    if not faults:
        found = read_message(bytes(content))
        assert read_message(write(found)) == found


def faults_of(content: bytes, file: str) -> tuple[Fault, ...]:
    try:
        read_message(content, file)
    except BidError as error:
        return error.faults
    return ()


@given(DAYS, ZONES, st.sampled_from([15, 30, 60, 5]))
def test_isps_of_a_day_follow_each_other_from_midnight_to_midnight(day: date, zone: str, minutes: int) -> None:
    try:
        isps = Isps(day, zone, minutes)
    except ValueError:  # a change of clocks by half an hour
        assert minutes == 60
        return
    instants = [isps.instant(number) for number in range(1, isps.count + 1)]
    assert [isps.number(instant) for instant in instants] == list(range(1, isps.count + 1))
    assert {isps_at(instant, zone, minutes).day for instant in instants} <= {day}
    assert instants[-1:] == [] or instants[-1] + timedelta(minutes=minutes) == Isps(day + timedelta(1), zone, 5).begin


@given(st.text(max_size=20), st.text(max_size=20))
def test_every_party_has_a_domain_of_its_own(one: str, other: str) -> None:
    assert kinds.DOMAIN.read(domain_of(one)) == domain_of(one)
    assert party_of(domain_of(one)) == one
    assert (domain_of(one) == domain_of(other)) == (one == other)


@given(st.floats(-1e6, 1e6))
def test_a_power_is_off_by_half_a_watt_at_most(p_kw: float) -> None:
    assert abs(Fraction(watts(p_kw)) - 1000 * Fraction(repr(p_kw))) <= Fraction(1, 2)
    assert watts(kw(watts(p_kw))) == watts(p_kw)


START = datetime(2024, 3, 30, 22, tzinfo=UTC)
NAMES = Names("laws", START, 900)
QUANTITIES_W = st.integers(4_000, 5_000_000)
PRICES = st.integers(-3_000, 3_000).map(lambda n: n / 1000)
"""EUR/kWh of 3 decimals, which an offer of 1 kWh or more tells exactly."""


@st.composite
def bids(draw: st.DrawFn) -> Bid:
    block, n_mtu = draw(st.booleans()), draw(st.integers(1, 4))
    # a block on one day: 4 MTUs are left of the first
    t_s = 900 * (draw(st.integers(4, 90)) if block else draw(st.integers(0, 90)))
    prices = sorted(draw(st.sets(PRICES, min_size=1, max_size=1 if block else 3)))
    steps_w = [draw(QUANTITIES_W) for _ in prices]
    full_mtu = draw(st.integers(0, n_mtu - 1))
    quantity_w = [
        sum(steps_w) if k == full_mtu else sum(steps_w[:-1]) + draw(st.integers(4_000, steps_w[-1]))
        for k in range(n_mtu)
    ]
    if block:
        steps_w = [max(quantity_w)]
    least = draw(st.sampled_from([0.0, 0.02, 0.5, 1.0])) if len(prices) == 1 else 0.0
    direction = draw(st.sampled_from(Direction))
    return Bid(
        id=draw(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=8)),
        seller=draw(st.sampled_from(["agg", "AGG 2", "a-b"])),
        product=direction.value,
        direction=direction,
        t_s=t_s,
        quantity_kw=tuple(kw(p_w) for p_w in quantity_w),
        steps=tuple(PriceStep(kw(p_w), price) for p_w, price in zip(steps_w, prices, strict=True)),
        resource=draw(st.sampled_from(["battery", "heat pump/1"])),
        min_accept=least,
        block=block and n_mtu > 1,
        submitted_s=900 * draw(st.integers(-96, 0)),
    )


def rows_of(bid: Bid) -> list[dict[str, Any]]:
    """A row for each MTU and price step, as a run records them."""
    rows = []
    for k, quantity_kw in enumerate(bid.quantity_kw):
        left_w = watts(quantity_kw)
        for step in bid.steps:
            part_w = min(left_w, watts(step.quantity_kw))
            left_w -= part_w
            rows.append(
                {
                    "t_s": bid.t_s + 900 * k,
                    "bid": bid.id,
                    "seller": bid.seller,
                    "resource": bid.resource,
                    "direction": bid.direction.value,
                    "quantity_kw": kw(part_w),
                    "price_eur_per_kwh": step.price_eur_per_kwh,
                    "min_accept": bid.min_accept,
                    "gate_s": bid.submitted_s,
                    "block": bid.block,
                }
            )
    return rows


BOOKS = st.lists(bids(), max_size=4, unique_by=lambda bid: (bid.id, bid.seller, bid.submitted_s))


@given(BOOKS)
def test_bids_come_back_equal(book: list[Bid]) -> None:
    offered = offers_of([row for bid in book for row in rows_of(bid)], NAMES)
    messages = [read_message(write(offer.message)) for offer in offered]
    found = bids_from(messages, NAMES)
    assert found == tuple(sorted(book, key=lambda bid: (bid.submitted_s, bid.t_s, bid.seller, bid.id)))
    assert bids_from(reversed(messages), NAMES) == found


@given(BOOKS, st.data())
def test_orders_keep_the_rules_and_the_energy(book: list[Bid], data: st.DataObject) -> None:
    rows = [row for bid in book for row in rows_of(bid)]
    offered = offers_of(rows, NAMES)
    awards = []
    for bid in book:
        least = bid.min_accept if bid.min_accept else 0.001
        share = data.draw(st.floats(least, 1.0))
        shares = [share if bid.block else data.draw(st.floats(least, 1.0)) for _ in bid.quantity_kw]
        first = rows_of(bid)[0]
        awards += [
            {**first, "t_s": bid.t_s + 900 * k, "quantity_kw": kw_offered * each}
            for k, (kw_offered, each) in enumerate(zip(bid.quantity_kw, shares, strict=True))
        ]
    orders = [order for order, _ in orders_of(awards, offered, NAMES)]
    sent = {one["MessageID"]: one for one in (*(offer.message for offer in offered), *orders)}
    assert [fault for one in sent.values() for fault in broken(one)] == []
    assert between(sent) == []
    told = sum((NAMES.kwh(abs(isp["Power"])) * isp["Duration"] for o in orders for isp in o.children), Fraction(0))
    awarded = sum((Fraction(repr(row["quantity_kw"])) / 4 for row in awards), Fraction(0))
    n_isp = sum(isp["Duration"] for order in orders for isp in order.children)
    assert abs(told - awarded) <= NAMES.kwh(1) * Fraction(n_isp, 2) + NAMES.kwh(1) * len(awards)
    assert all(Decimal("0.01") <= order["ActivationFactor"] <= 1 for order in orders)
