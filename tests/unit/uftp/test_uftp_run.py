"""The exchange of a run: from rows, from a result file, by the command."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest
from uftp_records import AWARDS, GATE_S, NAMES, ROWS

from cosim.errors import BidError
from cosim.io.results import open_results
from cosim.uftp.element import read
from cosim.uftp.offers import bids_from
from cosim.uftp.published import schema_of
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


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return recorded(tmp_path / "run.h5")


def recorded(path: Path, *, awards: bool = True) -> Path:
    """A result file of a run that bought what `AWARDS` says."""
    from cosim.io.store import Store

    raise NotImplementedError(Store, awards)


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
