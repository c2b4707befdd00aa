"""Capturing a live broker into a data set, and reading it back for replay."""

from __future__ import annotations

import csv
import os
import threading
import time
from datetime import UTC, datetime, timedelta, timezone

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.clock import Clock
from cosim.domain.measurement import Channel, Place
from cosim.errors import BrokerError, InputError, ResultError
from cosim.io.capture import parse, record
from cosim.io.transport import MemoryBus
from cosim.sensing.replay import read_recording

ARRIVAL = datetime(2024, 1, 2, 3, 4, 5, 678_900, tzinfo=timezone(timedelta(hours=1)))
START = datetime(2016, 7, 22, tzinfo=UTC)


class Scripted:
    """A transport that delivers the given batches, one a call; a batch that is an exception is raised."""

    def __init__(self, *batches):
        self.batches = list(batches)
        self.subscribed = False

    def subscribe(self):
        self.subscribed = True

    def receive(self, timeout_s):
        assert self.subscribed
        if not self.batches:
            time.sleep(timeout_s)
            return []
        batch = self.batches.pop(0)
        if isinstance(batch, BaseException):
            raise batch
        return batch


def payload(minute, value=1.5, topic="sub/3/p_kw"):
    return (
        topic,
        f'{{"t": "2016-07-22T00:{minute:02}:00Z", "value": {value}, "unit": "kW", "seq": {minute}}}'.encode(),
    )


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_own_time_unit_and_sequence_are_kept():
    reading = parse(
        "a", b'{"t": "2016-07-22T00:15:00.123+02:00", "value": -1, "unit": "kW", "seq": 7, "x": []}', ARRIVAL
    )
    assert reading.time == datetime(2016, 7, 21, 22, 15, 0, 123_000, tzinfo=UTC)
    assert reading.time.tzinfo is UTC
    assert (reading.topic, reading.value, reading.unit, reading.sequence) == ("a", -1.0, "kW", 7)


@pytest.mark.parametrize(("content", "value"), [(b"+5.", 5.0), (b".5", 0.5), (b"1e3", 1000.0), (b"-7", -7.0)])
def test_bare_numbers_in_other_forms(content, value):
    assert parse("a", content, ARRIVAL).value == value


def test_bare_number_gets_its_time_of_arrival():
    reading = parse("a", b" 21.5\n", ARRIVAL)
    assert reading.time == ARRIVAL
    assert (reading.value, reading.unit, reading.sequence) == (21.5, "", None)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "neither JSON nor a number"),
        (b"on", "neither JSON nor a number"),
        (b"\xff\xfe", "neither JSON nor a number"),
        (b"12,3", "neither JSON nor a number"),
        (b"[" * 100_000, "neither JSON nor a number"),
        (b"true", "truth value"),
        (b'"12"', "not a finite number: 12"),
        (b"NaN", "not a finite number: nan"),
        (b"-Infinity", "not a finite number: -inf"),
        (b"1" + b"0" * 400, "not a finite number"),
        (b"[1]", "not a finite number"),
        (b"{}", "not a finite number: None"),
        (b'{"value": null}', "not a finite number"),
        (b'{"value": 1, "unit": 5}', "unit must be a text"),
        (b'{"value": 1, "seq": "5"}', "seq a whole number"),
        (b'{"value": 1, "seq": true}', "seq a whole number"),
        (b'{"value": 1, "seq": 9223372036854775808}', "seq a whole number"),
        (b'{"value": 1, "t": 5}', "not an ISO 8601 time with its offset: 5"),
        (b'{"value": 1, "t": "2016-07-22T00:15:00"}', "with its offset"),
        (b'{"value": 1, "t": "yesterday"}', "yesterday"),
        (b'{"value": 1, "t": "0001-01-01T00:00:00+14:00"}', "t is out of range"),
    ],
)
def test_payload_without_a_number_is_named(content, told):
    with pytest.raises(ValueError, match=told):
        parse("a", content, ARRIVAL)


@given(st.binary(max_size=40))
def test_no_payload_stops_a_capture(content):
    try:
        assert abs(parse("a", content, ARRIVAL).value) < float("inf")
    except ValueError:
        assert content != b"1"


def test_rejected_messages_are_counted_and_the_first_is_told(tmp_path):
    transport = Scripted([payload(0), ("door", b"open"), ("end", b'{"step": 1}'), payload(1)])
    capture = record(transport, tmp_path / "a.csv", max_messages=2)
    assert (capture.written, capture.rejected) == (2, 2)
    assert capture.first_rejected == "door: neither JSON nor a number: b'open'"


def test_csv_has_utc_times_with_milliseconds(tmp_path):
    file = tmp_path / "a.csv"
    record(Scripted([payload(15), ("t", b"0.1")]), file, max_messages=2, now=lambda: ARRIVAL)
    assert file.read_text() == (
        "time,topic,value,unit,sequence\n"
        "2016-07-22T00:15:00.000+00:00,sub/3/p_kw,1.5,kW,15\n"
        "2024-01-02T02:04:05.678+00:00,t,0.1,,\n"
    )


def test_parquet_holds_the_same(tmp_path):
    file = tmp_path / "a.parquet"
    record(Scripted([payload(15)], [("t", b"0.1")]), file, max_messages=2, now=lambda: ARRIVAL)
    table = pd.read_parquet(file)
    assert list(table.columns) == ["time", "topic", "value", "unit", "sequence"]
    assert [t.isoformat() for t in table["time"]] == ["2016-07-22T00:15:00+00:00", "2024-01-02T02:04:05.678000+00:00"]
    assert list(table["value"]) == [1.5, 0.1]
    assert table["sequence"][0] == 15
    assert pd.isna(table["sequence"][1])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_capture_can_be_replayed(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    batches = [[payload(minute, value=0.1 * minute)] for minute in (0, 15, 30)]
    record(Scripted(*batches), file, max_messages=3)
    channel = Channel("sub3", "sub/3/p_kw", "p_kw", Place(bus="b3"), 1.0)
    replay = read_recording(file, [channel], Clock(START, 900, 4, 900))
    assert list(replay.value) == [0.0, 0.1 * 15, 0.1 * 30]
    assert list(replay.stamp_s) == [0.0, 900.0, 1800.0]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_nothing_captured_is_a_data_set_without_rows(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    assert record(Scripted(), file, duration_s=0.1).written == 0
    table = pd.read_csv(file) if suffix == ".csv" else pd.read_parquet(file)
    assert (list(table.columns), len(table)) == (["time", "topic", "value", "unit", "sequence"], 0)


def test_limit_cuts_a_batch(tmp_path):
    file = tmp_path / "a.csv"
    assert record(Scripted([payload(k) for k in range(10)]), file, max_messages=4).written == 4
    assert [row["sequence"] for row in rows(file)] == ["0", "1", "2", "3"]


def test_many_messages_go_out_in_pieces(tmp_path):
    file = tmp_path / "a.parquet"
    batches = [[("t", str(1000 * b + k).encode()) for k in range(1000)] for b in range(25)]
    assert record(Scripted(*batches), file, max_messages=25_000).written == 25_000
    assert list(pd.read_parquet(file)["value"]) == list(range(25_000))


def test_duration_ends_it(tmp_path):
    began = time.monotonic()
    assert record(Scripted([payload(0)]), tmp_path / "a.csv", duration_s=0.3).written == 1
    assert 0.25 <= time.monotonic() - began < 3.0


def test_stop_ends_it_and_keeps_what_there_is(tmp_path):
    stop = threading.Event()
    bus = MemoryBus()
    timers = []
    with bus.connect() as listener, bus.connect() as meter:
        listener.subscribe()
        meter.publish(*payload(0))
        timers.append(threading.Timer(0.2, stop.set))
        timers[0].start()
        capture = record(listener, tmp_path / "a.csv", stop=stop)
        timers[0].join()
    assert capture.written == 1
    assert len(rows(tmp_path / "a.csv")) == 1


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_ctrl_c_keeps_what_was_captured(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    capture = record(Scripted([payload(0)], [payload(1)], KeyboardInterrupt()), file)
    assert capture.written == 2
    assert len(pd.read_csv(file) if suffix == ".csv" else pd.read_parquet(file)) == 2
    assert os.listdir(tmp_path) == [file.name]


def test_lost_broker_keeps_what_was_captured_and_is_told(tmp_path):
    file = tmp_path / "a.csv"
    with pytest.raises(BrokerError, match="lost"):
        record(Scripted([payload(0)], BrokerError("h:1: lost")), file)
    assert len(rows(file)) == 1


def test_an_older_file_stays_until_the_capture_ends(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("old")
    seen = []

    def now():
        seen.append(file.read_text())
        return ARRIVAL

    record(Scripted([("t", b"1")]), file, max_messages=1, now=now)
    assert seen == ["old"]
    assert len(rows(file)) == 1


def test_other_kind_of_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a.xlsx: kind of file not known; got .xlsx; allowed: .csv, .parquet"):
        record(Scripted(), tmp_path / "a.xlsx", max_messages=1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_folder_that_does_not_exist_is_named(tmp_path, suffix):
    with pytest.raises(ResultError, match=rf"nowhere/a{suffix}: cannot be written: .*No such file"):
        record(Scripted(), tmp_path / "nowhere" / f"a{suffix}", max_messages=1)
