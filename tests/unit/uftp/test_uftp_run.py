"""The exchange of a run: from rows, from a result file, by the command."""

from __future__ import annotations

import argparse
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from uftp_records import AWARDS, GATE_S, MTU_S, NAMES, RECORDED, ROWS

from cosim.clock import Clock
from cosim.domain.frames import EventTable
from cosim.errors import BidError, ResultError
from cosim.io.results import open_results
from cosim.io.store import ResultWriter
from cosim.uftp.element import read
from cosim.uftp.offers import bids_from
from cosim.uftp.published import FILES, schema_of
from cosim.uftp.run import RunRows, exchange_of, export_run, names_of, rows_of
from cosim.uftp_cli import add_commands

NEEDS = ({"t_s": 2_700, "gate_s": GATE_S}, {"t_s": 3_600, "gate_s": GATE_S}, {"t_s": 3_600, "gate_s": GATE_S})


def test_every_message_has_its_response_and_comes_after_what_it_refers_to():
    files = exchange_of(RunRows(AWARDS, ROWS, NEEDS), NAMES)
    kinds = [file.message.name for file in files]
    assert kinds[::2] == ["FlexRequest"] * 2 + ["FlexOffer"] * 4 + ["FlexOrder"] * 4
    assert kinds[1::2] == [f"{kind}Response" for kind in kinds[::2]]
    assert [file.name for file in files][:2] == ["000001-FlexRequest.xml", "000002-FlexRequestResponse.xml"]


def test_a_request_is_for_what_the_gate_then_bought():
    files = exchange_of(RunRows(AWARDS, ROWS, NEEDS), NAMES)
    asked = [(isp["MinPower"], isp["MaxPower"], isp["Start"]) for f in files[:4:2] for isp in f.message.children]
    assert asked == [(-12_500, 0, 96), (-6_334, 0, 1)]


def test_offers_answer_the_request_for_their_isps():
    def answered(*needs):
        files = exchange_of(RunRows(AWARDS, ROWS, needs), NAMES)
        sent = {f.message["MessageID"]: f.message for f in files}
        offers = [one for one in sent.values() if one.name == "FlexOffer"]
        references = [one.get("FlexRequestMessageID") for one in offers]
        return [None if each is None else str(sent[each]["Period"]) for each in references]

    assert answered() == [None] * 4
    assert answered(*NEEDS) == ["2024-03-30", "2024-03-31", None, "2024-03-31"]  # one raises consumption
    assert answered(NEEDS[0]) == ["2024-03-30", None, None, None]


def test_the_energy_of_every_order_is_told_beside_what_was_awarded():
    files = exchange_of(RunRows(AWARDS, ROWS), NAMES)
    assert sum(file.awarded_kwh for file in files) == Fraction("30.8337") / 4
    assert sum(file.told_kwh for file in files) == Fraction("30.834") / 4


def test_without_a_table_of_bids_what_was_bought_is_offered():
    files = exchange_of(RunRows(AWARDS), NAMES)
    found = bids_from((file.message for file in files), NAMES, {"AGG_1": ("battery",)})
    assert {(bid.id, bid.quantity_kw) for bid in found} == {
        ("evening", (12.5, 3.334)),
        ("heat pump", (3.0,)),
        ("night", (6.0, 6.0)),
    }


def test_the_same_run_gives_the_same_bytes_whatever_the_order_of_its_rows():
    rows = RunRows(AWARDS, ROWS, NEEDS)
    backwards = RunRows(AWARDS[::-1], ROWS[::-1], NEEDS[::-1])
    assert list(export_run(rows, NAMES)) == list(export_run(backwards, NAMES))


def test_rows_need_names():
    with pytest.raises(BidError, match="rows need names"):
        exchange_of(RunRows(AWARDS))


AWARD_UNITS = {
    **{"t_s": "s", "bid": None, "seller": None, "buyer": None, "direction": None, "quantity_kw": "kW"},
    **{"price_eur_per_kwh": "EUR/kWh", "bid_price_eur_per_kwh": "EUR/kWh", "gate_s": "s"},
}
BID_UNITS = {
    **{"t_s": "s", "bid": None, "seller": None, "resource": None, "direction": None, "quantity_kw": "kW"},
    **{"price_eur_per_kwh": "EUR/kWh", "min_accept": "1", "gate_s": "s"},
}
DIVISIBLE = tuple({name: row[name] for name in BID_UNITS} for row in ROWS if not row.get("block"))
TABLES = {
    "awards": (EventTable("awards", "bought", AWARD_UNITS), [row for row in AWARDS if row["bid"] != "night"]),
    "bids": (EventTable("bids", "offered", BID_UNITS), DIVISIBLE),
}


def recorded(path: Path, *tables: str) -> Path:
    """A result file of a run that offered and bought what `TABLES` say."""
    clock = Clock(NAMES.start, MTU_S, 8, MTU_S)
    with ResultWriter(
        path, clock, 4, "none", {"scenario": '{"name": "night", "mtu": "15min"}', "feeder": "street"}
    ) as writer:
        for name in tables:
            writer.declare_events("market", TABLES[name][0])
        writer.start()
        for step in range(clock.steps):
            for name in tables:
                for row in TABLES[name][1] if step == 3 else ():
                    writer.append_event("market", name, row)
            writer.end_step(step)
        writer.finish("complete")
    return path


def test_a_result_file_is_its_rows(tmp_path):
    with open_results(recorded(tmp_path / "run.h5", "awards", "bids")) as results:
        names = names_of(results)
        assert (names.start, names.mtu_s, names.area) == (NAMES.start, 900, "ea1.2024-01.dso.example:street")
        assert rows_of(results).bids is not None
        told = list(export_run(results))
    assert told == list(export_run(RunRows(TABLES["awards"][1], DIVISIBLE), names))
    assert [read(xml).name for _, xml in told].count("FlexOffer") == 3


def test_a_result_file_without_a_market_is_refused(tmp_path):
    with (
        open_results(recorded(tmp_path / "run.h5")) as results,
        pytest.raises(BidError, match="market/awards or dso/awards: holds no awards of a network operator"),
    ):
        exchange_of(results)


def command(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()

    def added(name: str, does: str, function: object) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=does)
        one.set_defaults(command=function)
        return one

    add_commands(added)
    options = parser.parse_args(arguments)
    options.command(options)


def test_the_command_exports_and_checks(tmp_path, capsys):
    result, folder = recorded(tmp_path / "run.h5", "awards", "bids"), tmp_path / "messages"
    command("uftp", "export", str(result), str(folder))
    assert capsys.readouterr().out == (
        "3 FlexOffer, 3 FlexOfferResponse, 3 FlexOrder, 3 FlexOrderResponse\n"
        "awarded 4.708425 kWh, ordered in whole watts 4.708500 kWh: +0.000075 kWh\n"
    )
    command("uftp", "check", str(folder))
    assert capsys.readouterr().out.endswith("\nvalid\n")
    with pytest.raises(BidError, match="holds messages already"):
        command("uftp", "export", str(result), str(folder))
    with pytest.raises(BidError, match="time_zone: cannot be said in a message; got UTC"):
        command("uftp", "export", str(result), str(tmp_path / "other"), "--time-zone", "UTC")
    for taken in (result, result / "messages"):
        with pytest.raises(ResultError, match=r"run\.h5.*: cannot be written: "):
            command("uftp", "export", str(result), str(taken))


SCHEMA = """<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
<xs:element name="FlexOfferResponse"><xs:complexType><xs:attribute name="Result" fixed="Accepted" use="required"/>
<xs:anyAttribute processContents="skip"/></xs:complexType></xs:element></xs:schema>"""
"""Stands for the published schema, which is not ours to ship."""


def test_the_users_schema_is_asked_too(tmp_path):
    pytest.importorskip("lxml")
    for name in FILES:
        (tmp_path / name).write_text(SCHEMA)
    check = schema_of(tmp_path)
    assert check(b'<FlexOfferResponse Result="Accepted" Other="1"/>', "a.xml") == []
    (fault,) = check(b'<FlexOfferResponse\nResult="Rejected"/>', "a.xml")
    assert (fault.file, fault.line) == ("a.xml", 2)
    assert "Rejected" in fault.problem
    (fault,) = check(b"<Metering", "a.xml")
    assert fault.problem.startswith("is not XML")
    (tmp_path / "messages").mkdir()
    shutil.copy(RECORDED / "14-FlexOfferResponse.xml", tmp_path / "messages")
    shutil.copy(RECORDED / "13-FlexOffer.xml", tmp_path / "messages")
    with pytest.raises(BidError, match=r"13-FlexOffer.xml:2: published schema: .*FlexOffer"):
        command("uftp", "check", str(tmp_path / "messages"), "--schema", str(tmp_path))


def test_a_schema_that_is_not_there_or_none(tmp_path, monkeypatch):
    pytest.importorskip("lxml")
    with pytest.raises(BidError) as caught:
        schema_of(tmp_path)
    assert [fault.problem for fault in caught.value.faults] == ["is missing", "is missing"]
    for name in FILES:
        (tmp_path / name).write_text("<hello/>")
    with pytest.raises(BidError, match="is no schema"):
        schema_of(tmp_path)
    monkeypatch.setitem(sys.modules, "lxml.etree", None)
    with pytest.raises(BidError, match="--schema: needs lxml"):
        schema_of(tmp_path)
