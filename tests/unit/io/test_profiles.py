"""Time series: SimBench's own files, files of the user with every fault, sampling and history."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as parquet  # type: ignore[import-untyped]
import pytest

from cosim.clock import Clock
from cosim.domain.frames import frozen
from cosim.errors import ProfileError
from cosim.io.profiles import Profiles, covering, history, read_file, read_simbench, sample

DATASET = "1-complete_data-mixed-all-1-sw"
JANUARY = datetime(2016, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def ramp(rows: int, step_s: int = 900, wraps_year: bool = False, start: datetime = JANUARY) -> Profiles:
    """Column ``row`` holds the row number, ``minus`` its negative."""
    numbers = np.arange(rows, dtype=np.float64)
    return Profiles(start, step_s, ("row", "minus"), frozen(np.stack([numbers, -numbers], axis=1)), wraps_year, "ramp")


def clock(start: datetime = JANUARY, step_s: int = 900, steps: int = 4) -> Clock:
    return Clock(start, step_s, steps, step_s)


def stamps(count: int = 8, minutes: int = 15, zone: str = "Z") -> list[str]:
    times = [JANUARY + timedelta(minutes=minutes * k) for k in range(count)]
    return [f"{time:%Y-%m-%dT%H:%M:%S}{zone}" for time in times]


def csv_file(folder: Path, times: list[str], *columns: list[str], head: str = "time,a,b") -> Path:
    cells = columns or ([str(k) for k in range(len(times))], ["1"] * len(times))
    path = folder / "p.csv"
    path.write_text("\n".join([head, *(",".join(row) for row in zip(times, *cells, strict=True))]) + "\n")
    return path


def faults(path: Path, zone: str = "UTC", columns: tuple[str, ...] = ("a", "b"), time: str = "time") -> list[str]:
    with pytest.raises(ProfileError) as caught:
        read_file(path, zone, time, columns)
    return [str(fault).removeprefix(str(path)) for fault in caught.value.faults]


# SimBench


def test_simbench_is_read_in_file_order_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "simbench", raising=False)
    profiles = read_simbench(DATASET, ["PV4", "lv_urban6_pload"])
    assert "simbench" not in sys.modules
    assert profiles.names == ("PV4", "lv_urban6_pload")
    assert profiles.values.shape == (35136, 2)
    assert not profiles.values.flags.writeable
    assert profiles.start == datetime(2015, 12, 31, 23, tzinfo=UTC)
    assert profiles.end == datetime(2016, 12, 31, 23, tzinfo=UTC)
    assert profiles.wraps_year
    assert 0.6 < profiles.values[:, 0].max() <= 0.634


def test_simbench_rows_around_summer_time_are_fixed_quarter_hours() -> None:
    """The time column jumps from 01:45 to 03:00 (line 8265 to 8266); the rows go on by a quarter hour."""
    profiles = read_simbench(DATASET, ["lv_urban6_pload"])
    after_jump = datetime(2016, 3, 27, 1, 0, tzinfo=UTC)
    line_8266 = profiles.values[8264]
    assert profiles.rows(after_jump) == line_8266
    assert profiles.rows(after_jump - timedelta(minutes=1)) == profiles.values[8263]


def test_simbench_name_of_several_files_needs_its_file() -> None:
    with pytest.raises(ProfileError, match=r"several files have this profile; got lv_rural1; allowed: RESProfile/lv_r"):
        read_simbench(DATASET, ["lv_rural1"])
    assert read_simbench(DATASET, ["RESProfile/lv_rural1"]).names == ("RESProfile/lv_rural1",)


def test_unknown_simbench_names_list_what_is_there() -> None:
    with pytest.raises(ProfileError) as caught:
        read_simbench(DATASET, ["PV44", "PV1", "time"])
    first, second = caught.value.faults
    assert (first.problem, first.value) == ("unknown SimBench profile", "PV44")
    assert first.allowed.startswith("PV4, ")
    assert "lv_urban6_pload" in first.allowed
    assert second.value == "time"
    with pytest.raises(ProfileError) as caught:
        read_simbench("1-complete_data-mixed-all-9-sw", ["PV1"])
    assert caught.value.faults[0].problem == "unknown SimBench data set"
    assert DATASET in caught.value.faults[0].allowed


def test_simbench_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ProfileError, match="the package simbench is not installed"):
        read_simbench(DATASET, ["PV1"])


# Files of the user


def test_csv_with_offsets(tmp_path: Path) -> None:
    path = csv_file(tmp_path, stamps(4, zone="+02:00"), ["1", "2", "3", "4.5"], ["5", "6", "7", "-1e3"])
    profiles = read_file(path, "Europe/Rome", "time", ["b", "a"])
    assert profiles.start == JANUARY - 2 * HOUR
    assert profiles.start.tzinfo is UTC
    assert (profiles.step_s, profiles.names, profiles.wraps_year) == (900, ("b", "a"), False)
    np.testing.assert_array_equal(profiles.values, [[5, 1], [6, 2], [7, 3], [-1000, 4.5]])
    assert not profiles.values.flags.writeable


def test_naive_stamps_are_local_to_the_zone(tmp_path: Path) -> None:
    path = csv_file(tmp_path, stamps(3, zone=""))
    assert read_file(path, "Etc/GMT-1", "time", ["a"]).start == JANUARY - HOUR
    assert read_file(path, "UTC", "time", ["a"]).start == JANUARY


def test_local_summer_time_jump_is_no_gap(tmp_path: Path) -> None:
    path = csv_file(tmp_path, ["2016-03-27 01:00", "2016-03-27 03:00", "2016-03-27 04:00"])
    profiles = read_file(path, "Europe/Rome", "time", ["a"])
    assert (profiles.start, profiles.step_s) == (datetime(2016, 3, 27, 0, tzinfo=UTC), 3600)


def test_semicolons_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("\ufefft;a\n2016-01-01T00:00Z;1\n\n2016-01-01T01:00Z;2\n\n", encoding="utf-8")
    np.testing.assert_array_equal(read_file(path, "UTC", "t", ["a"]).values, [[1], [2]])


def test_whole_year_wraps(tmp_path: Path) -> None:
    path = csv_file(tmp_path, stamps(366 * 24, minutes=60))
    assert read_file(path, "UTC", "time", ["a"]).wraps_year


def test_gap(tmp_path: Path) -> None:
    times = stamps()
    del times[3:5]
    assert faults(csv_file(tmp_path, times)) == [
        ":5: time: gap of 2 rows before this one; got 2016-01-01T01:15:00Z; allowed: 2016-01-01T00:45:00Z"
    ]


def test_time_given_twice(tmp_path: Path) -> None:
    times = stamps()
    times.insert(3, times[2])
    assert faults(csv_file(tmp_path, times)) == [
        ":5: time: time given twice; got 2016-01-01T00:30:00Z; allowed: 2016-01-01T00:45:00Z"
    ]


def test_unsorted(tmp_path: Path) -> None:
    times = [*stamps()[4:], *stamps()[:4]]
    assert faults(csv_file(tmp_path, times)) == [
        ":6: time: earlier than the row before; got 2016-01-01T00:00:00Z; allowed: 2016-01-01T02:00:00Z"
    ]


def test_irregular_step(tmp_path: Path) -> None:
    times = [*stamps(5), "2016-01-01T01:10:00Z"]
    assert faults(csv_file(tmp_path, times)) == [
        ":7: time: step other than the 900 s of most rows; got 2016-01-01T01:10:00Z; allowed: 2016-01-01T01:15:00Z"
    ]


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    path = csv_file(tmp_path, stamps(4), ["1", "", "3", "nan"], ["1", "2", "3.5", "off"])
    assert faults(path) == [":3: a: no value (and 1 more)", ":5: b: not a finite number; got off"]


def test_all_kinds_of_fault_at_once(tmp_path: Path) -> None:
    times = [*stamps(6), "2016-01-01T01:15:00Z", "2016-01-01T09:00:00Z", "01.01.2016 09:15"]
    path = csv_file(tmp_path, times, ["inf"] * 9, ["x"] * 9)
    found = faults(path)
    assert [fault.split(";")[0] for fault in found] == [
        ":10: time: not a time stamp of the form 2016-07-22T00:00:00 or 2016-07-22T00:00:00+01:00",
        ":8: time: time given twice",
        ":9: time: gap of 30 rows before this one",
        ":2: a: not a finite number (and 8 more)",
        ":2: b: not a finite number (and 8 more)",
    ]


@pytest.mark.parametrize(
    ("stamp", "problem"),
    [
        ("2016-03-27T02:30", "this local time does not exist in Europe/Rome"),
        ("2016-10-30T02:30", "this local time comes twice in Europe/Rome"),
    ],
)
def test_local_times_without_meaning(tmp_path: Path, stamp: str, problem: str) -> None:
    path = csv_file(tmp_path, [*stamps(3, zone=""), stamp])
    (fault,) = faults(path, "Europe/Rome")
    assert fault.startswith(f":5: time: {problem}")
    assert fault.endswith(f"got {stamp}")


def test_missing_columns_are_all_named(tmp_path: Path) -> None:
    found = faults(csv_file(tmp_path, stamps()), columns=("load", "a", "B"), time="Time")
    assert found == [
        ":1: Time: no such column; did you mean time?; allowed: time, a, b",
        ":1: load: no such column; allowed: time, a, b",
        ":1: B: no such column; allowed: time, a, b",
    ]


def test_column_there_twice(tmp_path: Path) -> None:
    assert faults(csv_file(tmp_path, stamps(), head="time,a,a"), columns=("a",)) == [":1: a: the column is there twice"]


def test_ragged_row(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("time,a,b\n2016-01-01T00:00Z,1,2\n2016-01-01T01:00Z,1\n2016-01-01T02:00Z,1,2\n")
    assert faults(path) == [":3: 2 cells in a row; 3 expected", ":3: b: no value"]


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows(tmp_path: Path, rows: int) -> None:
    assert faults(csv_file(tmp_path, stamps(rows))) == [
        f": time: at least two rows in order of time are needed; got {rows} rows"
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert faults(tmp_path / "none.csv") == [": cannot be read: No such file or directory"]
    assert faults(tmp_path / "p.xlsx") == [": unknown kind of file; got .xlsx; allowed: .csv, .parquet"]
    (tmp_path / "p.parquet").write_text("no parquet")
    assert "Parquet" in faults(tmp_path / "p.parquet")[0]
    assert faults(csv_file(tmp_path, stamps()), "Mars/Base")[0].startswith(": no time zone 'Mars/Base'")


def parquet_file(folder: Path, times: pa.Array, values: pa.Array) -> Path:
    path = folder / "p.parquet"
    parquet.write_table(pa.table({"time": times, "a": values}), path)
    return path


def test_parquet_with_zone_without_zone_and_as_text(tmp_path: Path) -> None:
    naive = [datetime.fromisoformat(text) for text in stamps(4, zone="")]
    values = pa.array([1, 2, 3, 4])
    for times, start in (
        (pa.array(naive, pa.timestamp("ns")), JANUARY - HOUR),
        (pa.array(naive, pa.timestamp("ms", "UTC")), JANUARY),
        (pa.array(stamps(4)), JANUARY),
    ):
        profiles = read_file(parquet_file(tmp_path, times, values), "Etc/GMT-1", "time", ["a"])
        assert (profiles.start, profiles.step_s) == (start, 900)
        np.testing.assert_array_equal(profiles.values[:, 0], [1, 2, 3, 4])


def test_parquet_faults_name_the_row(tmp_path: Path) -> None:
    times = pa.array([*stamps(3), None])
    assert faults(parquet_file(tmp_path, times, pa.array([1.0, None, 3.0, 4.0])), columns=("a",)) == [
        ": time: row 4: not a time stamp of the form 2016-07-22T00:00:00 or 2016-07-22T00:00:00+01:00",
        ": a: row 2: no value",
    ]


def test_parquet_truth_values_are_no_numbers(tmp_path: Path) -> None:
    path = parquet_file(tmp_path, pa.array(stamps(2)), pa.array([True, False]))
    assert faults(path, columns=("a",)) == [": a: row 1: not a finite number (and 1 more); got True"]


# Rows, sampling, history


def test_rows_hold_over_their_interval() -> None:
    profiles = ramp(4)
    np.testing.assert_array_equal(profiles.rows(JANUARY + timedelta(minutes=29, seconds=59)), [1, -1])
    np.testing.assert_array_equal(profiles.rows(JANUARY + timedelta(minutes=30), "minus", "row"), [-2, 2])
    with pytest.raises(ProfileError, match="unknown profile; got rov; allowed: row, minus"):
        profiles.rows(JANUARY, "rov")
    for outside in (JANUARY - timedelta(seconds=1), JANUARY + HOUR):
        with pytest.raises(ProfileError, match=r"allowed: 2016-01-01T00:00:00Z to 2016-01-01T01:00:00Z"):
            profiles.rows(outside)


def test_other_columns_over_the_same_rows() -> None:
    other = ramp(3).with_columns(["x"], np.array([[1.0], [2.0], [3.0]]))
    assert (other.names, other.start, other.values[2, 0]) == (("x",), JANUARY, 3.0)
    assert not other.values.flags.writeable
    with pytest.raises(ValueError, match=r"shape \(3, 2\) expected"):
        ramp(3).with_columns(["x", "y"], np.zeros((3, 1)))


def test_too_short_a_profile() -> None:
    covering(ramp(4), clock())
    for bad in (clock(steps=5), clock(JANUARY - HOUR)):
        with pytest.raises(ProfileError) as caught:
            covering(ramp(4), bad)
    assert str(caught.value) == (
        "ramp: the profiles do not cover the horizon 2015-12-31T23:00:00Z to 2016-01-01T00:00:00Z; "
        "got 2016-01-01T00:00:00Z to 2016-01-01T01:00:00Z"
    )
    with pytest.raises(ProfileError, match="do not cover the horizon"):
        sample(ramp(4), clock(steps=5))


def test_sampling_holds_takes_rows_or_means() -> None:
    profiles = ramp(8)
    np.testing.assert_array_equal(sample(profiles, clock(JANUARY + HOUR))[:, 0], [4, 5, 6, 7])
    np.testing.assert_array_equal(sample(profiles, clock(step_s=300, steps=7))[:, 0], [0, 0, 0, 1, 1, 1, 2])
    np.testing.assert_array_equal(sample(profiles, clock(step_s=600, steps=4))[:, 0], [0, 0, 1, 2])
    hourly = sample(profiles, clock(step_s=3600, steps=2))
    np.testing.assert_array_equal(hourly, [[1.5, -1.5], [5.5, -5.5]])
    assert not hourly.flags.writeable


@pytest.mark.parametrize("bad", [clock(step_s=1200, steps=2), clock(JANUARY + timedelta(minutes=5), 1800, 2)])
def test_long_steps_that_cut_rows_are_refused(bad: Clock) -> None:
    with pytest.raises(ProfileError, match="must be a whole multiple of it and begin with a row"):
        sample(ramp(8), bad)


def test_history_is_the_same_time_of_day_on_the_days_before() -> None:
    profiles = ramp(96 * 10)
    instant = JANUARY + timedelta(days=5, hours=2)
    samples = history(profiles, instant, days=2, window=1)
    now = 96 * 5 + 8
    np.testing.assert_array_equal(samples[:, 0], [now - 97, now - 96, now - 95, now - 193, now - 192, now - 191])
    assert samples.shape == (6, 2)


def test_history_before_the_first_row_comes_from_the_end_of_the_year() -> None:
    rows = 366 * 96
    samples = history(ramp(rows, wraps_year=True), JANUARY, days=2, window=1)
    np.testing.assert_array_equal(
        samples[:, 0], [rows - 97, rows - 96, rows - 95, rows - 193, rows - 192, rows - 191]
    )  # fmt: skip


def test_history_that_is_not_there() -> None:
    profiles = ramp(96 * 3)
    assert history(profiles, JANUARY + timedelta(days=2, hours=1), days=2, window=4).shape == (18, 2)
    with pytest.raises(ProfileError) as caught:
        history(profiles, JANUARY + timedelta(days=2), days=2, window=1)
    assert str(caught.value) == (
        "ramp: no history over 2015-12-31T23:45:00Z to 2016-01-02T00:15:00Z; "
        "got 2016-01-01T00:00:00Z to 2016-01-04T00:00:00Z"
    )


@pytest.mark.parametrize(("step_s", "expected"), [(300, [285, 288, 291]), (3600, [23, 24, 24])])
def test_history_counts_quarter_hours_whatever_the_step(step_s: int, expected: list[int]) -> None:
    profiles = ramp(86_400 // step_s * 3, step_s)
    samples = history(profiles, JANUARY + timedelta(days=2), days=1, window=1)
    np.testing.assert_array_equal(samples[:, 0], expected)
