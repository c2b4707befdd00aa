from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.clock import Clock, format_duration, parse_duration_s, zone

START = datetime(2016, 7, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15min", 900), ("2h", 7200), ("3d", 259_200), (" 1 h ", 3600), ("007min", 420)],
)
def test_durations(text, seconds):
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "min", "1.5h", "-1h", "0s", "15 minutes", "1h30min", "1H"])
def test_texts_that_are_no_durations(text):
    with pytest.raises(ValueError, match="a whole number with a unit s, min, h or d, for example 15min or 3d"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(900, "15min"), (259_200, "3d"), (7200, "2h"), (61, "61s"), (90_000, "25h")]
)
def test_the_shortest_way_to_write_a_duration(seconds, text):
    assert format_duration(seconds) == text


@given(st.integers(1, 10**9))
def test_a_duration_written_reads_back(seconds):
    assert parse_duration_s(format_duration(seconds)) == seconds


def test_zones():
    assert START.astimezone(zone("Europe/Rome")).hour == 2
    with pytest.raises(ValueError, match=r"no time zone 'Europe/Rom'; did you mean Europe/Rome"):
        zone("Europe/Rom")
    with pytest.raises(ValueError, match=r"no time zone '.*', for example UTC"):
        zone("../../etc/passwd")


def test_steps_and_market_time_units():
    clock = Clock(START, step_s=300, steps=12, mtu_s=900)
    assert (clock.until_s, clock.steps_per_mtu) == (3600, 3)
    assert [clock.step_index(t_s) for t_s in (0, 299, 300, 3599)] == [0, 0, 1, 11]
    assert [t_s for t_s in range(0, 3600, 300) if clock.begins_mtu(t_s)] == [0, 900, 1800, 2700]
    assert clock.instant(900) == START + timedelta(minutes=15)


@pytest.mark.parametrize("start", [datetime(2016, 7, 22), START.astimezone(timezone(timedelta(hours=1)))])
def test_a_clock_is_utc(start):
    with pytest.raises(ValueError, match="clock start must be UTC"):
        Clock(start, 900, 4, 900)
