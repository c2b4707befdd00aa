"""What the specification says beyond the schema, of one message and of several."""

from __future__ import annotations

import shutil

import pytest
from uftp_records import RECORDED, exchange

from cosim.errors import BidError
from cosim.uftp.exchange import between, read_exchange
from cosim.uftp.rules import broken, read_message

PROGNOSIS, REQUEST, OFFER, BLOCK, METERING, SETTLEMENT, REJECTION = (
    (RECORDED / f"{name}.xml").read_text()
    for name in (
        "03-D-Prognosis",
        "05-FlexRequest",
        "13-FlexOffer",
        "19-FlexOffer",
        "31-Metering",
        "33-FlexSettlement",
        "36-FlexOfferRevocationResponse",
    )
)
DISPUTE = (RECORDED / "34-FlexSettlementResponse.xml").read_text()


@pytest.mark.parametrize(
    ("text", "old", "new", "key", "problem"),
    [
        (REQUEST, 'Start="96"', 'Start="97"', "FlexRequest/ISP[1]/@Start", "ISPs 97 to 97 are not in a day of 96"),
        (PROGNOSIS, 'Start="3"', 'Start="92"', "D-Prognosis/ISP[3]/@Start", "ISPs 92 to 93 are not in a day of 92"),
        (PROGNOSIS, 'Start="1"', 'Start="-1"', "D-Prognosis/ISP[1]/@Start", "ISPs -1 to -1 are not in a day of 92"),
        (PROGNOSIS, 'Start="3"', 'Start="2"', "D-Prognosis/ISP[3]/@Start", "an ISP is addressed twice"),
        (PROGNOSIS, 'Duration="2"', 'Duration="0"', "D-Prognosis/ISP[3]/@Start", "ISPs 3 to 2 are not in a day of 92"),
        (REQUEST, "Europe/Rome", "Europe/Roma", "FlexRequest/@Period", "has no ISPs: no time zone 'Europe/Roma'"),
        (REQUEST, "PT15M", "PT7M", "FlexRequest/@Period", "has no ISPs: 1 day, 0:00:00 of 2024-03-30"),
        (REQUEST, 'MaxPower="0"', 'MaxPower="-20000"', "FlexRequest/ISP[1]/@MinPower", "is above MaxPower"),
        (REQUEST, 'MaxPower="0"', 'MaxPower="9"', "FlexRequest/ISP[1]/@MinPower", "a requested ISP needs a direction"),
        (REQUEST, "Requested", "Available", "FlexRequest", "no ISP is requested"),
        (
            REQUEST,
            'ExpirationDateTime="2024-03-30T22:45:00Z"',
            'ExpirationDateTime="2024-03-30T22:29:00Z"',
            "FlexRequest/@ExpirationDateTime",
            "is before TimeStamp",
        ),
        (METERING, 'Unit="kW"', 'Unit="kWh"', "Metering/Profile[1]/@Unit", "Power is in kW"),
        (
            METERING,
            'Start="2"',
            'Start="93"',
            "Metering/Profile[1]/ISP[1]/@Start",
            "ISPs 93 to 93 are not in a day of 92",
        ),
        (
            SETTLEMENT,
            'NetSettlement="0.1500"',
            'NetSettlement="0.16"',
            "FlexSettlement/FlexOrderSettlement[1]/@NetSettlement",
            "is not Price less Penalty, 0.1500",
        ),
        (
            SETTLEMENT,
            'PeriodEnd="2024-03-31"',
            'PeriodEnd="2024-03-29"',
            "FlexSettlement/@PeriodEnd",
            "is before PeriodStart",
        ),
        (
            SETTLEMENT,
            'PeriodEnd="2024-03-31"',
            'PeriodEnd="2024-03-30"',
            "FlexSettlement/ContractSettlement[1]/Period[2]/@Period",
            "is not in 2024-03-30 to 2024-03-30",
        ),
        (
            REJECTION,
            ' RejectionReason="its flexibility is ordered already"',
            "",
            "FlexOfferRevocationResponse/@RejectionReason",
            "a rejection",
        ),
        (
            DISPUTE,
            'Disposition="Accepted"',
            'Disposition="Disputed"',
            "FlexSettlementResponse/FlexOrderSettlementStatus[1]/@DisputeReason",
            "a dispute needs its reason",
        ),
    ],
)
def test_rules_of_a_message(text, old, new, key, problem):
    assert old in text
    with pytest.raises(BidError) as caught:
        read_message(text.replace(old, new).encode(), "a.xml")
    found = {fault.key: fault.problem for fault in caught.value.faults}
    assert found[key].startswith(problem)


def test_an_offer_names_its_options_apart():
    second = BLOCK[BLOCK.index("  <OfferOption") : BLOCK.index("</FlexOffer>")]
    with pytest.raises(BidError, match="is that of another option; got night"):
        read_message(BLOCK.replace("</FlexOffer>", second + "</FlexOffer>").encode())


def test_a_day_with_more_isps():
    autumn = PROGNOSIS.replace("2024-03-31", "2024-10-27").replace('Start="3"', 'Start="99"')
    assert read_message(autumn.encode()).children[-1]["Start"] == 99


def test_what_our_records_give_breaks_no_rule():
    found = exchange()
    assert [fault for file, one in found.items() for fault in broken(one, file)] == []
    assert between(found) == []
    assert read_exchange(RECORDED) == found


@pytest.mark.parametrize(
    ("file", "old", "new", "key", "problem"),
    [
        ("25-FlexOrder.xml", 'Power="3000"', 'Power="3100"', "FlexOrder/ISP 1/@Power", "is not the share of the offer"),
        ("25-FlexOrder.xml", 'Start="1"', 'Start="2"', "FlexOrder/ISP", "has other ISPs than its offer"),
        (
            "25-FlexOrder.xml",
            'Factor="0.75"',
            'Factor="0.40"',
            "FlexOrder/@ActivationFactor",
            "is below that of the offer",
        ),
        (
            "25-FlexOrder.xml",
            'OptionReference="heat pump"',
            'OptionReference="x"',
            "FlexOrder/@OptionReference",
            "names no option",
        ),
        ("25-FlexOrder.xml", 'Currency="EUR"', 'Currency="DKK"', "FlexOrder/@Currency", "is not that of the offer"),
        (
            "19-FlexOffer.xml",
            'Start="1"',
            'Start="3"',
            "FlexOffer/OfferOption/ISP",
            "has no ISP of its request",
        ),
        (
            "25-FlexOrder.xml",
            'Period="2024-03-31"',
            'Period="2024-03-30"',
            "FlexOrder/@Period",
            "that FlexOffer is of 2024-03-31",
        ),
        (
            "25-FlexOrder.xml",
            "dso.example",
            "tso.example",
            "FlexOrder/@FlexOfferMessageID",
            "that FlexOffer is between others",
        ),
    ],
)
def test_orders_are_what_was_offered(tmp_path, file, old, new, key, problem):
    shutil.copytree(RECORDED, tmp_path / "all")
    content = (tmp_path / "all" / file).read_text()
    assert old in content
    (tmp_path / "all" / file).write_text(content.replace(old, new))
    with pytest.raises(BidError) as caught:
        read_exchange(tmp_path / "all")
    found = {fault.key: (fault.file, fault.problem) for fault in caught.value.faults}
    assert found[key][0] == file
    assert found[key][1].startswith(problem)


def test_references_and_identities(tmp_path):
    for name in ("15-FlexOffer.xml", "23-FlexOrder.xml"):
        shutil.copy(RECORDED / name, tmp_path)
    assert read_exchange(tmp_path).keys() == {"15-FlexOffer.xml", "23-FlexOrder.xml"}
    shutil.copy(RECORDED / "23-FlexOrder.xml", tmp_path / "99-again.xml")
    (tmp_path / "15-FlexOffer.xml").unlink()
    with pytest.raises(BidError) as caught:
        read_exchange(tmp_path)
    assert [(fault.file, fault.key, fault.problem) for fault in caught.value.faults] == [
        ("99-again.xml", "FlexOrder/@MessageID", "is that of 23-FlexOrder.xml"),
        ("23-FlexOrder.xml", "FlexOrder/@FlexOfferMessageID", "no FlexOffer here has this identity"),
        ("99-again.xml", "FlexOrder/@FlexOfferMessageID", "no FlexOffer here has this identity"),
        ("99-again.xml", "FlexOrder/@FlexOfferMessageID", "its offer is ordered by 23-FlexOrder.xml already"),
    ]


def test_a_folder_without_messages(tmp_path):
    with pytest.raises(BidError, match="holds no messages"):
        read_exchange(tmp_path)


def test_a_refused_message_is_not_also_missing(tmp_path):
    shutil.copytree(RECORDED, tmp_path / "all")
    (tmp_path / "all" / "17-FlexOffer.xml").write_text("<FlexOffer")
    with pytest.raises(BidError) as caught:
        read_exchange(tmp_path / "all")
    assert [fault.file for fault in caught.value.faults] == ["17-FlexOffer.xml"]
