"""Messages read and written: every kind, and what is refused, with line, element, attribute, value and rule."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from uftp_records import RECORDED, exchange

from cosim.errors import BidError, Fault
from cosim.uftp.element import LARGEST_BYTES, Element, message, part, read, write
from cosim.uftp.facts import MESSAGES
from cosim.uftp.rules import read_message

REQUEST = (RECORDED / "05-FlexRequest.xml").read_text()
OFFER = (RECORDED / "13-FlexOffer.xml").read_text()
SETTLEMENT = (RECORDED / "33-FlexSettlement.xml").read_text()


def faults_of(text: str | bytes, reading: Callable[[bytes, str], Element] = read) -> tuple[Fault, ...]:
    with pytest.raises(BidError) as caught:
        reading(text.encode() if isinstance(text, str) else text, "a.xml")
    return caught.value.faults


@pytest.mark.parametrize("file", sorted(RECORDED.glob("*.xml")), ids=lambda file: file.stem)
def test_recorded_messages_are_read_and_written_as_they_are(file):
    content = file.read_bytes()
    found = read_message(content, file.name)
    assert write(found) == content
    assert found == exchange()[file.name], "the recorded message is not what our records now give"


def test_every_kind_of_message_is_recorded():
    assert {file.stem.partition("-")[2] for file in RECORDED.glob("*.xml")} == set(MESSAGES)
    assert {file.name for file in RECORDED.glob("*.xml")} == exchange().keys()


@pytest.mark.parametrize(
    ("text", "old", "new", "key"),
    [
        (REQUEST, 'Version="3.0.0"', 'Version="3"', "FlexRequest/@Version"),
        (REQUEST, 'SenderDomain="dso.example"', 'SenderDomain="DSO"', "FlexRequest/@SenderDomain"),
        (REQUEST, 'TimeZone="Europe/Rome"', 'TimeZone="Etc/GMT-1"', "FlexRequest/@TimeZone"),
        (REQUEST, 'Revision="1"', 'Revision="9223372036854775808"', "FlexRequest/@Revision"),
        (REQUEST, "ea1.2024-01.example:area", "line:3", "FlexRequest/@CongestionPoint"),
        (REQUEST, 'MinPower="-12500"', 'MinPower="-12.5"', "FlexRequest/ISP[1]/@MinPower"),
        (REQUEST, 'Start="96"', 'Start="0"', "FlexRequest/ISP[1]/@Start"),
        (REQUEST, 'Start="96"', 'Start="\u0669"', "FlexRequest/ISP[1]/@Start"),
        (REQUEST, "Requested", "Wanted", "FlexRequest/ISP[1]/@Disposition"),
        (REQUEST, 'ISP-Duration="PT15M"', 'ISP-Duration="PT15"', "FlexRequest/@ISP-Duration"),
        (REQUEST, 'ISP-Duration="PT15M"', 'ISP-Duration="PT2000M"', "FlexRequest/@ISP-Duration"),
        (REQUEST, 'Period="2024-03-30"', 'Period="2024-02-30"', "FlexRequest/@Period"),
        (REQUEST, 'Period="2024-03-30"', 'Period="2024-03-30Z"', "FlexRequest/@Period"),
        (OFFER, 'Price="0.3750"', 'Price="1e3"', "FlexOffer/OfferOption[1]/@Price"),
        (REQUEST, 'TimeStamp="2024-03-30T22:30:00Z"', 'TimeStamp="2024-03-30T22:15:00"', "FlexRequest/@TimeStamp"),
        (REQUEST, 'TimeStamp="2024-03-30T22:30:00Z"', 'TimeStamp="2024-03-30T24:00:00Z"', "FlexRequest/@TimeStamp"),
        (
            REQUEST,
            'TimeStamp="2024-03-30T22:30:00Z"',
            'TimeStamp="0001-01-01T00:00:00+14:00"',
            "FlexRequest/@TimeStamp",
        ),
        (REQUEST, ' Revision="1"', "", "FlexRequest/@Revision"),
        (REQUEST, ' Revision="1"', ' Revision="1" Unit="kW"', "FlexRequest/@Unit"),
        (REQUEST, "</FlexRequest>", "<Isp/></FlexRequest>", "FlexRequest/Isp"),
        (REQUEST, "</FlexRequest>", "more</FlexRequest>", "FlexRequest"),
        (
            OFFER,
            'MinActivationFactor="0.01"',
            'MinActivationFactor="0.005"',
            "FlexOffer/OfferOption[1]/@MinActivationFactor",
        ),
        (
            OFFER,
            'MinActivationFactor="0.01"',
            'MinActivationFactor="1.01"',
            "FlexOffer/OfferOption[1]/@MinActivationFactor",
        ),
        (OFFER, 'Price="0.3750"', 'Price="0.37501"', "FlexOffer/OfferOption[1]/@Price"),
        (OFFER, 'Currency="EUR"', 'Currency="euro"', "FlexOffer/@Currency"),
        (SETTLEMENT, 'Result="Accepted"', 'Result="Yes"', "FlexSettlement/@Result"),
        (
            SETTLEMENT,
            "</FlexSettlement>",
            "<FlexOrderSettlement/></FlexSettlement>",
            "FlexSettlement/FlexOrderSettlement",
        ),
    ],
)
def test_what_is_not_in_the_schema_is_refused_with_its_place(text, old, new, key):
    assert text.count(old) >= 1
    found = faults_of(text.replace(old, new, 1))
    assert key in [fault.key for fault in found]
    place = next(fault for fault in found if fault.key == key)
    assert (place.file, place.line is not None and place.line >= 2) == ("a.xml", True)
    assert place.allowed or place.value


def test_the_fault_says_all_that_mends_it():
    (fault,) = faults_of(REQUEST.replace('Start="96"', 'Start="ninety"'))
    assert str(fault) == (
        "a.xml:3: FlexRequest/ISP[1]/@Start: is not a value of this attribute; got ninety; "
        "allowed: a whole number from 1"
    )


def test_all_faults_are_found_at_once():
    broken = REQUEST.replace('Start="96"', 'Start="x"').replace(' Revision="1"', "").replace("Requested", "Wanted")
    assert [fault.key for fault in faults_of(broken)] == [
        "FlexRequest/@Revision",
        "FlexRequest/ISP[1]/@Disposition",
        "FlexRequest/ISP[1]/@Start",
    ]


def test_a_missing_element_is_refused():
    empty = re.sub(r"<ISP.*/>\n", "", REQUEST)
    assert [(f.key, f.problem) for f in faults_of(empty)] == [("FlexRequest/ISP", "needs at least 1 of an element")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not XML: no element found"),
        (b"<FlexRequest", "is not XML: unclosed token"),
        (b"<Hello/>", "is not a message that is known"),
        (b'<FlexRequest xmlns="urn:other"/>', "is not a message that is known"),
        (b'<?xml version="1.0" encoding="nonsense"?><FlexRequest/>', "is not XML: unknown encoding: nonsense"),
        (
            b'<!DOCTYPE FlexRequest [<!ENTITY a "b">]><FlexRequest Version="&a;"/>',
            "document type declarations are refused, entities with them",
        ),
        (
            b'<!DOCTYPE FlexRequest SYSTEM "file:///etc/hostname"><FlexRequest/>',
            "document type declarations are refused, entities with them",
        ),
        (b" " * (LARGEST_BYTES + 1), "is too large for a message"),
    ],
)
def test_what_is_no_message_is_refused(content, problem):
    (fault,) = faults_of(content)
    assert fault.problem == problem
    assert fault.file == "a.xml"


def test_a_hint_where_the_schema_is_does_not_matter():
    hint = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="UFTP.xsd" Version'
    assert read(REQUEST.replace("Version", hint, 1).encode()) == read(REQUEST.encode())
    assert faults_of(REQUEST.replace("Version", hint.replace("noNamespaceSchemaLocation", "type"), 1))


def test_what_is_left_out_counts_as_its_default():
    short = OFFER.replace(' MinActivationFactor="0.01"', "").replace(' Duration="1"', "")
    option = read(short.encode()).children[0]
    assert (option["MinActivationFactor"], option.children[0]["Duration"]) == (Decimal("1.00"), 1)
    assert read(REQUEST.encode()).get("ContractID") is None


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_yes_and_no(text, value):
    status = f'<FlexOrderStatus FlexOrderMessageID="{"0" * 8}-0000-0000-0000-{"0" * 12}" IsValidated="{text}"/>'
    answered = (RECORDED / "02-D-PrognosisResponse.xml").read_text().replace("/>", f">{status}</D-PrognosisResponse>")
    one = read(answered.encode())
    assert one.children[0]["IsValidated"] is value
    assert read(write(one)) == one
    assert [fault.value for fault in faults_of(answered.replace(f'IsValidated="{text}"', 'IsValidated="yes"'))] == [
        "yes"
    ]


def test_instants_are_the_same_in_any_zone():
    one = read(REQUEST.replace("2024-03-30T22:30:00Z", "2024-03-30T23:30:00.5000009+01:00").encode())
    assert one["TimeStamp"] == datetime(2024, 3, 30, 22, 30, 0, 500_000, tzinfo=UTC)


def test_text_of_any_kind_survives():
    said = 'a "quoted" <tag> & a\ttab,\na line, \u20ac'
    one = read(OFFER.encode())
    option = replace(one.children[0], values={**one.children[0].values, "OptionReference": said})
    assert read(write(replace(one, children=(option,)))).children[0]["OptionReference"] == said


@pytest.mark.parametrize(
    ("name", "value"),
    [("Price", 0.1), ("Price", "1"), ("Price", Decimal("0.00001")), ("OptionReference", "\x00"), ("Other", 1)],
)
def test_what_would_not_be_read_back_is_not_written(name, value):
    one = read(OFFER.encode())
    option = replace(one.children[0], values={**one.children[0].values, name: value})
    with pytest.raises(BidError, match=rf"FlexOffer/OfferOption\[1\]/@{name}: cannot be written"):
        write(replace(one, children=(option,)))


def test_what_is_missing_is_not_written():
    with pytest.raises(BidError) as caught:
        write(message("FlexOfferRevocation", {"Version": "3.0.0"}))
    assert len(caught.value.faults) == 6
    with pytest.raises(BidError, match="not a message"):
        write(Element("Hello", {}))


def test_names_that_are_not_in_the_table_are_refused():
    with pytest.raises(KeyError, match="Colour"):
        part("FlexOffer/OfferOption", {"Colour": "red"})
    with pytest.raises(KeyError, match="FlexOffer/Other"):
        part("FlexOffer/Other", {})
