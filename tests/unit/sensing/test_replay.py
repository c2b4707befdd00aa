from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from cosim.clock import Clock
from cosim.domain.measurement import Channel, Message, Place
from cosim.errors import ProfileError
from cosim.sensing.replay import pace, read_recording, recorded

CLOCK = Clock(datetime(2016, 7, 22, tzinfo=UTC), 900, 8, 900)
CHANNELS = (
    Channel("a", "sub/1/p_kw", "p_kw", Place(bus="b"), 1.0),
    Channel("a", "sub/1/vm_pu", "vm_pu", Place(bus="b"), 0.01),
)


def csv_file(folder: Path, *rows: str, header: str = "time,topic,value,unit") -> Path:
    path = folder / "recording.csv"
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return path


def faults_of(path: Path) -> list[str]:
    with pytest.raises(ProfileError) as caught:
        read_recording(path, CHANNELS, CLOCK)
    return [str(fault).removeprefix(str(path)) for fault in caught.value.faults]


def test_rows_are_ordered_by_time_and_numbered_by_topic(tmp_path):
    path = csv_file(
        tmp_path,
        "2016-07-22T00:15:00.500+00:00,sub/1/p_kw,-3.25,kW",
        "2016-07-22T02:00:00+02:00,sub/1/p_kw,1e1,kW",
        "2016-07-22T00:00:01Z,sub/1/vm_pu,1.01,pu",
    )
    recording = read_recording(path, CHANNELS, CLOCK)
    assert recorded(recording, 0) == (
        Message("sub/1/p_kw", 0, 0, 0.0, 10.0, "kW"),
        Message("sub/1/vm_pu", 0, 0, 1.0, 1.01, "pu"),
    )
    assert recorded(recording, 1) == (Message("sub/1/p_kw", 1, 1, 900.5, -3.25, "kW"),)
    assert recorded(recording, 2) == ()


def test_parquet_gives_the_same_as_csv_with_stamps_as_text_or_time_stamps(tmp_path):
    times = ["2016-07-22T00:00:00+00:00", "2016-07-22T00:15:00.250+00:00"]
    path = csv_file(tmp_path, f"{times[0]},sub/1/p_kw,4,kW", f"{times[1]},sub/1/p_kw,5.5,kW")
    from_csv = read_recording(path, CHANNELS, CLOCK)
    text = pd.DataFrame({"time": times, "topic": "sub/1/p_kw", "value": [4.0, 5.5], "unit": "kW", "extra": 1})
    stamped = text.assign(time=pd.to_datetime(text["time"], format="ISO8601").dt.tz_convert("Europe/Rome"))
    for number, table in enumerate((text, stamped)):
        table.to_parquet(tmp_path / f"{number}.parquet")
        recording = read_recording(tmp_path / f"{number}.parquet", CHANNELS, CLOCK)
        assert [recorded(recording, step) for step in range(8)] == [recorded(from_csv, step) for step in range(8)]


def test_each_row_belongs_to_exactly_one_step(tmp_path):
    stamps = [f"2016-07-22T00:{minute:02d}:{second:02d}+00:00" for minute in (7, 22, 37) for second in (29, 30)]
    path = csv_file(tmp_path, *(f"{stamp},sub/1/p_kw,{row},kW" for row, stamp in enumerate(stamps)))
    recording = read_recording(path, CHANNELS, CLOCK)
    values = [[message.value for message in recorded(recording, step)] for step in range(4)]
    assert values == [[0.0], [1.0, 2.0], [3.0, 4.0], [5.0]]


def test_all_faults_are_reported_at_once_with_their_rows(tmp_path):
    path = csv_file(
        tmp_path,
        "2016-07-22T00:00:00+00:00,sub/1/p_kw,1,kW",
        "2016-07-22T00:00:00,sub/1/p_kw,1,kW",
        "yesterday,sub/1/p_kw,1,MW",
        "2016-07-22T00:15:00+00:00,sub/9/p_kw,high,kW",
        "2016-07-22T00:30:00+00:00,sub/1/vm_pu,nan,pu",
        "2016-07-22T00:45:00+00:00,sub/1/vm_pu",
    )
    form = "date and time with an offset, e.g. 2016-07-22T00:15:00+00:00"
    assert faults_of(path) == [
        f":3: time: not a time with a zone (rows 3, 4); got 2016-07-22T00:00:00; allowed: {form}",
        ":4: unit: wrong unit of sub/1/p_kw (rows 4); got MW; allowed: kW",
        ":5: topic: no channel 'sub/9/p_kw' (rows 5); got sub/9/p_kw; allowed: sub/1/p_kw, sub/1/vm_pu",
        ":5: value: not a finite number (rows 5, 6, 7); got high",
        ":7: unit: wrong unit of sub/1/vm_pu (rows 7); allowed: pu",
    ]


def test_a_fault_of_many_rows_names_the_first_ones(tmp_path):
    path = csv_file(tmp_path, *["2016-07-22T00:00:00Z,x,1,kW"] * 100)
    (fault,) = faults_of(path)
    assert "(rows 2, 3, 4, 5, 6 and 95 more)" in fault


def test_gaps_in_a_parquet_table_are_faults_with_their_rows(tmp_path):
    path = tmp_path / "gaps.parquet"
    stamps = pd.to_datetime(["2016-07-22T00:00Z", None, "2016-07-22T00:30Z"])
    pd.DataFrame(
        {"time": stamps, "topic": ["sub/1/p_kw", "sub/1/p_kw", None], "value": [1.0, 2.0, None], "unit": "kW"}
    ).to_parquet(path)
    faults = faults_of(path)
    assert [fault.split(";")[0] for fault in faults] == [
        ":2: time: not a time with a zone (rows 2)",
        ":3: topic: no channel None (rows 3)",
        ":3: value: not a finite number (rows 3)",
    ]


def test_parquet_time_stamps_without_a_zone_are_a_fault(tmp_path):
    path = tmp_path / "naive.parquet"
    stamps = pd.to_datetime(["2016-07-22T00:00"])
    pd.DataFrame({"time": stamps, "topic": "sub/1/p_kw", "value": [1], "unit": "kW"}).to_parquet(path)
    assert "not a time with a zone" in faults_of(path)[0]


def test_truth_values_are_no_numbers(tmp_path):
    path = tmp_path / "booleans.parquet"
    times = ["2016-07-22T00:00Z", "2016-07-22T00:15Z"]
    pd.DataFrame({"time": times, "topic": "sub/1/p_kw", "value": [True, False], "unit": "kW"}).to_parquet(path)
    assert faults_of(path) == [":1: value: not a finite number (rows 1, 2); got True"]


def test_missing_columns_are_named_with_those_there(tmp_path):
    path = csv_file(tmp_path, header="time,value,name")
    assert faults_of(path) == [
        ": column 'topic' is missing; allowed: time, value, name",
        ": column 'unit' is missing; allowed: time, value, name",
    ]


def test_recording_of_another_day_is_refused_with_both_spans(tmp_path):
    path = csv_file(tmp_path, "2016-07-23T00:00:00Z,sub/1/p_kw,1,kW", "2016-07-23T01:00:00Z,sub/1/p_kw,1,kW")
    (fault,) = faults_of(path)
    assert "no row lies within the run" in fault
    assert "got 2016-07-23T00:00:00+00:00 to 2016-07-23T01:00:00+00:00" in fault
    assert "allowed: 2016-07-22T00:00:00+00:00 to 2016-07-22T02:00:00+00:00" in fault


def test_empty_recording_is_refused(tmp_path):
    (fault,) = faults_of(csv_file(tmp_path))
    assert "no row lies within the run; got no rows" in fault


def test_file_that_cannot_be_read_is_a_fault(tmp_path):
    assert "cannot be read" in faults_of(tmp_path / "absent.csv")[0]
    assert "cannot be read" in faults_of(tmp_path / "absent.parquet")[0]
    assert faults_of(tmp_path / "recording.xlsx") == [": kind of file not known; got .xlsx; allowed: .csv, .parquet"]
    (tmp_path / "text.parquet").write_text("no table", encoding="utf-8")
    assert "cannot be read" in faults_of(tmp_path / "text.parquet")[0]
    (tmp_path / "bytes.csv").write_bytes(b"time,topic,value,unit\n\xff\xfe,,,\n")
    assert "cannot be read" in faults_of(tmp_path / "bytes.csv")[0]


@pytest.mark.parametrize(
    ("factor", "now_s", "slept"),
    [(0.0, 50.0, []), (900.0, 50.0, [2.0]), (450.0, 50.0, [4.0]), (900.0, 51.5, [0.5]), (900.0, 53.0, [])],
)
def test_pace_sleeps_until_the_simulated_time_is_due(factor, now_s, slept):
    sleeps: list[float] = []
    pace(factor, 1800.0, 50.0, lambda: now_s, sleeps.append)
    assert sleeps == slept
