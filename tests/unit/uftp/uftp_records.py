"""A small exchange: an aggregator, a DSO, the night to 31 March 2024, on which clocks go forward in Europe."""

from __future__ import annotations

from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path

from cosim.domain.market import Award, Contract, Direction, Need, Window
from cosim.domain.settlement import Call, DeliveryTerms, Period, Series
from cosim.market.delivery import Delivery, MeterShare
from cosim.market.payments import lines, penalties, utilisation
from cosim.uftp.element import Element, message
from cosim.uftp.names import Names
from cosim.uftp.offers import offers_of, orders_of
from cosim.uftp.told import (
    Reserved,
    d_prognoses,
    flex_requests,
    flex_reservation_updates,
    flex_settlement,
    head,
    meterings,
    response,
)

RECORDED = Path(__file__).parents[2] / "reference" / "uftp_messages"
MTU_S = 900
NAMES = Names("a small exchange", datetime(2024, 3, 30, 22, tzinfo=UTC), MTU_S)
"""It begins at 23:00 of Rome's 30 March; 4 MTUs are left of that day, the next has 92."""
GATE_S = 1_800
BIDS = (
    {"bid": "evening", "t_s": 2_700, "quantity_kw": 12.5, "price_eur_per_kwh": 0.12, "min_accept": 0.0},
    {"bid": "evening", "t_s": 3_600, "quantity_kw": 10.0, "price_eur_per_kwh": 0.12, "min_accept": 0.0},
    {"bid": "heat pump", "t_s": 3_600, "quantity_kw": 4.0, "price_eur_per_kwh": -0.05, "min_accept": 0.5},
    {"bid": "night", "t_s": 3_600, "quantity_kw": 6.0, "price_eur_per_kwh": 0.2, "min_accept": 1.0, "block": True},
    {"bid": "night", "t_s": 4_500, "quantity_kw": 6.0, "price_eur_per_kwh": 0.2, "min_accept": 1.0, "block": True},
)
ROWS = tuple(
    {
        "seller": "AGG_1",
        "resource": "battery" if row["bid"] == "evening" else "",
        "direction": "down" if row["bid"] == "heat pump" else "up",
        "gate_s": GATE_S,
        **row,
    }
    for row in BIDS
)
AWARDS = tuple(
    {
        "t_s": t_s,
        "bid": bid,
        "seller": "AGG_1",
        "buyer": buyer,
        "direction": "down" if bid == "heat pump" else "up",
        "quantity_kw": quantity_kw,
        "price_eur_per_kwh": price,
        "bid_price_eur_per_kwh": price,
        "gate_s": GATE_S,
    }
    for bid, t_s, buyer, quantity_kw, price in (
        ("evening", 2_700, "dso", 12.5, 0.12),
        ("evening", 3_600, "dso", 1.0, 0.12),
        ("evening", 3_600, "retailer", 2.3337, 0.12),
        ("heat pump", 3_600, "dso", 3.0, -0.05),
        ("night", 3_600, "dso", 6.0, 0.2),
        ("night", 4_500, "dso", 6.0, 0.2),
    )
)
CONTRACT = Contract(
    "C-7",
    "AGG_1",
    "dso",
    "up",
    Direction.UP,
    15.0,
    3.0,
    0.3,
    Window(date(2024, 3, 1), date(2024, 3, 31)),
    (("b", 1.0),),
)


def series(kind: str, *p_kw: float | None, owner: str = "AGG_1", t_s: int = 2_700) -> Series:
    return Series(owner, kind, t_s, MTU_S, p_kw)  # type: ignore[arg-type]


def settlement() -> Element:
    """12.5 kW less were ordered of a baseline of 20 kW, 10 kW less were drawn."""
    award = Award("evening", "spot", "dso", 2_700, (12.5,), (0.12,), (0.12,))
    terms = DeliveryTerms(tolerance=0.0, penalty_factor=2.0, penalty_adder_eur_per_kwh=0.0)
    call = Call(award, "AGG_1", Direction.UP, (("meter", (12.5,)),), terms)
    share = MeterShare("meter", Fraction("3.125"), Fraction("2.5"))
    found = [Delivery(call, 2_700, Fraction("0.12"), Fraction("0.12"), (share,))]
    period = Period(2_700, MTU_S, 2)
    due = lines([*utilisation(found, MTU_S), *penalties(found, MTU_S)])
    reserved = Reserved("C-7", Direction.UP, 2_700, (15.0, 15.0))
    return flex_settlement(
        "AGG_1", period, found, due, {"meter": series("baseline", 20.0, 20.0, owner="meter")}, NAMES, (reserved,)
    )


def exchange() -> dict[str, Element]:
    """One message of every kind and more, by file name."""
    need = Need("feeder", "dso", 2_700, (12.5, -2.0, 4.0))
    requests = flex_requests(need, "AGG_1", NAMES, GATE_S)
    offered = offers_of(ROWS, NAMES, requests)
    orders = orders_of(AWARDS, offered, NAMES)
    revoked = head(NAMES, "FlexOfferRevocation", "AGG_1", "dso", GATE_S, ("night",))
    revocation = message("FlexOfferRevocation", {**revoked, "FlexOfferMessageID": offered[-1].message["MessageID"]})
    declared = series("schedule", 20.0, 20.0, 18.2504, -3.0, -3.0, owner="AGG_1")
    sent = [
        *d_prognoses(declared, NAMES, 900),
        *requests,
        *flex_reservation_updates(CONTRACT, 2_700, (15.0, 2.5), NAMES, 900),
        *(offer.message for offer in offered),
        *(order for order, _ in orders),
        *meterings(series("measurement", 10.0, None, 0.1), "E0123456789012345", "AGG_1", NAMES, 90_000),
        settlement(),
    ]
    answered = [each for one in sent for each in (one, response(one, NAMES))]
    answered += [revocation, response(revocation, NAMES, "its flexibility is ordered already")]
    return {f"{k:02d}-{one.name}.xml": one for k, one in enumerate(answered, start=1)}
