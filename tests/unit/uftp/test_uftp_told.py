"""Our records as messages: signs, days, what is left out."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from uftp_records import CONTRACT, MTU_S, NAMES, series, settlement

from cosim.domain.market import Need
from cosim.domain.settlement import Period
from cosim.errors import BidError
from cosim.uftp.rules import broken
from cosim.uftp.told import (
    d_prognoses,
    flex_requests,
    flex_reservation_updates,
    flex_settlement,
    meterings,
    response,
)


def isps(one):
    return [dict(isp.values) for isp in one.all("ISP")]


def test_a_schedule_over_midnight_is_a_message_a_day():
    first, second = d_prognoses(series("schedule", 1.5, 1.5, 1.5, -2.0, t_s=1_800), NAMES, 0)
    assert (str(first["Period"]), isps(first)) == ("2024-03-30", [{"Power": 1500, "Start": 95, "Duration": 2}])
    assert isps(second) == [{"Power": 1500, "Start": 1, "Duration": 1}, {"Power": -2000, "Start": 2, "Duration": 1}]
    assert first["MessageID"] != second["MessageID"]


def test_a_schedule_has_every_value_and_the_isps_of_the_exchange():
    with pytest.raises(BidError, match="AGG_1: has MTUs without a value; got 1"):
        d_prognoses(series("schedule", 1.0, None), NAMES, 0)
    with pytest.raises(BidError, match="has MTUs of another length; got 300 s; allowed: 900 s"):
        d_prognoses(replace(series("schedule", 1.0), mtu_s=300), NAMES, 0)


def test_a_need_for_up_asks_for_less_consumption():
    (one,) = flex_requests(Need("n", "dso", 3_600, (5.0, 5.0, 0.0, -3.0, 0.0001)), "AGG_1", NAMES, 0)
    assert isps(one) == [
        {"Disposition": "Requested", "MinPower": -5000, "MaxPower": 0, "Start": 1, "Duration": 2},
        {"Disposition": "Requested", "MinPower": 0, "MaxPower": 3000, "Start": 4, "Duration": 1},
    ]
    assert one["ExpirationDateTime"] == NAMES.at(3_600)
    assert flex_requests(Need("n", "dso", 0, (0.0,)), "AGG_1", NAMES, 0) == ()


def test_what_stays_reserved_has_the_sign_of_its_direction():
    (one,) = flex_reservation_updates(CONTRACT, 3_600, (15.0, 0.0), NAMES, 0)
    assert [isp["Power"] for isp in one.all("ISP")] == [-15000, 0]
    assert (one["ContractID"], one["Reference"]) == ("C-7", "C-7@2024-03-31")


def test_measurements_are_not_rounded_and_gaps_stay_gaps():
    (one,) = meterings(series("measurement", 0.12345678, None, 3.0, t_s=3_600), "E0123456789012345", "AGG_1", NAMES, 0)
    (profile,) = one.children
    assert [(isp["Start"], isp["Value"]) for isp in profile.children] == [
        (1, Decimal("0.12345678")),
        (3, Decimal("3.0")),
    ]
    assert meterings(series("measurement", None), "E0123456789012345", "AGG_1", NAMES, 0) == ()


def test_a_settlement_says_what_was_ordered_and_what_is_missing():
    one = settlement()
    (order,) = one.all("FlexOrderSettlement")
    (isp,) = order.children
    assert (order["Price"], order["Penalty"], order["NetSettlement"]) == (
        Decimal("0.30"),
        Decimal("0.15"),
        Decimal("0.15"),
    )
    assert dict(isp.values) == {
        "BaselinePower": 20_000,
        "OrderedFlexPower": -12_500,
        "ActualPower": 10_000,
        "DeliveredFlexPower": -10_000,
        "PowerDeficiency": 2_500,
        "Start": 96,
        "Duration": 1,
    }
    assert broken(one) == []


def test_a_settlement_without_deliveries_or_contracts():
    with pytest.raises(BidError, match="other: has no deliveries to settle"):
        flex_settlement("other", Period(0, MTU_S, 1), (), (), {}, NAMES)


def test_responses():
    one = settlement()
    accepted, disputed = response(one, NAMES), response(one, NAMES, "it was 11 kW")
    assert (accepted["Result"], accepted.children[0]["Disposition"]) == ("Accepted", "Accepted")
    assert (disputed["Result"], disputed["RejectionReason"]) == ("Rejected", "it was 11 kW")
    assert disputed.children[0]["DisputeReason"] == "it was 11 kW"
    assert accepted["ConversationID"] == one["ConversationID"]
    assert {accepted["SenderDomain"], accepted["RecipientDomain"]} == {one["SenderDomain"], one["RecipientDomain"]}
    assert accepted["MessageID"] != disputed["MessageID"]
