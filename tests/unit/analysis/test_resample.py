"""Signals over hours, days and months: what is done with which signal, local time, and gaps that are never unseen."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cosim.analysis.resample import coverage, how_of, resample
from cosim.errors import InputError

ROME_S = 3600.0


def course(
    values: Any, start: str = "2016-07-22T00:00+01:00", step: str = "15min", unit: str = "kW", **attributes: Any
) -> pd.DataFrame:
    """A signal of one element ``a`` as `Results.frame` gives it."""
    values = np.asarray(values)
    time = pd.date_range(pd.Timestamp(start).tz_convert("UTC"), periods=len(values), freq=step, name="time")
    table = pd.DataFrame({"a": values}, index=time)
    table.columns.name = "pod"
    base = {"units": unit, "signal": "grid/pod/p_kw", "utc_offset_s": ROME_S}
    base["step_s"] = pd.Timedelta(step).total_seconds()
    table.attrs.update(base | attributes)
    return table


def test_power_is_averaged_and_energy_is_power_times_hours() -> None:
    quarters = course([1.0, 2.0, 3.0, 6.0, 10.0, 10.0, 10.0, 10.0])
    hourly = resample(quarters, "1h")
    assert hourly["a"].tolist() == [3.0, 10.0]
    assert hourly.attrs["units"] == "kW"
    assert hourly.attrs["step_s"] == 3600.0
    energy = resample(quarters, "1h", "energy")
    assert energy["a"].tolist() == [3.0, 10.0]
    assert energy.attrs["units"] == "kWh"
    assert resample(quarters, "30min", "energy")["a"].tolist() == [0.75, 2.25, 5.0, 5.0]
    assert quarters.attrs["units"] == "kW", "what came in stays as it was"


@pytest.mark.parametrize(
    ("signal", "unit", "expected", "how"),
    [
        ("grid/head/p_kw", "kW", 3.0, "mean"),
        ("grid/head/q_kvar", "kvar", 3.0, "mean"),
        ("grid/storage/e_kwh", "kWh", 1.0, "first"),
        ("settlement/party/imbalance_kwh", "kWh", 12.0, "sum"),
        ("market/session/cost_eur", "EUR", 12.0, "sum"),
        ("grid/branch/loading_pu", "pu", 6.0, "max"),
        ("grid/terminal/i_a", "A", 6.0, "max"),
        ("grid/bus/vm_pu", "pu", 3.0, "mean"),
        ("grid/control/position", "1", 2.0, "last"),
    ],
)
def test_what_is_done_follows_from_the_signal(signal: str, unit: str, expected: float, how: str) -> None:
    table = course([1.0, 3.0, 6.0, 2.0], unit=unit, signal=signal)
    assert how_of(table.attrs) == how
    assert resample(table, "1h")["a"].tolist() == [expected]


def test_shares_of_time_in_states() -> None:
    codes = np.array([0, 1, 1, 1, 2, 0, 0, -1], dtype=np.int8)
    table = course(codes, unit="1", flag_values=[0, 1, 2], flag_meanings=["good", "missing", "late"])
    shares = resample(table, "1h")
    assert list(shares.columns) == [("a", "good"), ("a", "missing"), ("a", "late")]
    assert shares.iloc[0].tolist() == [0.25, 0.75, 0.0]
    assert shares.iloc[1].isna().all(), "the quality of a step is not known"
    kept = resample(table, "1h", incomplete="keep")
    assert kept.iloc[1].tolist() == pytest.approx([2 / 3, 0.0, 1 / 3])
    assert coverage(table, "1h")["a"].tolist() == [1.0, 0.75]
    assert "flag_values" not in shares.attrs


def test_days_are_local() -> None:
    table = course(np.arange(96.0), start="2016-07-22T12:00+01:00")
    days = resample(table, "1d", "sum", incomplete="keep")
    assert [stamp.isoformat() for stamp in days.index] == ["2016-07-22T00:00:00+01:00", "2016-07-23T00:00:00+01:00"]
    assert days["a"].tolist() == [sum(range(48)), sum(range(48, 96))]
    assert resample(table, "1d")["a"].isna().all(), "both days are incomplete"
    in_utc = resample(table, "1d", "sum", incomplete="keep", utc_offset_s=0)
    assert in_utc["a"].tolist() == [sum(range(52)), sum(range(52, 96))]
    assert str(in_utc.index[0]) == "2016-07-22 00:00:00+00:00"


def test_the_zone_of_the_rows_tells_the_offset_where_nothing_else_does() -> None:
    table = course(np.ones(48), step="30min", start="2016-07-22T00:00+05:30")
    del table.attrs["utc_offset_s"]
    local = table.tz_convert("UTC+05:30")
    assert resample(local, "1d")["a"].tolist() == [1.0]
    assert len(resample(table, "1d", incomplete="keep")) == 2
    with pytest.raises(InputError, match="no fixed offset; got Europe/Rome"):
        resample(table.tz_convert("Europe/Rome"), "1d")


def test_months_have_their_own_lengths() -> None:
    days = course(np.ones(92), start="2016-01-31T00:00+01:00", step="1d")
    months = resample(days, "month", "energy")
    assert [f"{stamp:%Y-%m-%d %H:%M %z}" for stamp in months.index[:2]] == [
        "2016-01-01 00:00 +0100",
        "2016-02-01 00:00 +0100",
    ]
    hours = [np.nan, 29 * 24.0, 31 * 24.0, 30 * 24.0, np.nan]
    assert months["a"].tolist() == pytest.approx(hours, nan_ok=True)
    assert coverage(days, "month")["a"].tolist() == pytest.approx([1 / 31, 1.0, 1.0, 1.0, 1 / 31])
    assert "step_s" not in months.attrs
    assert resample(days, "year", "energy", incomplete="keep")["a"].tolist() == [92 * 24.0]


def test_a_gap_is_never_unseen() -> None:
    table = course(np.ones(12))
    holes = table.drop(table.index[[1, 5, 6, 7, 8]])
    assert resample(holes, "1h")["a"].isna().tolist() == [True, True, True]
    assert coverage(holes, "1h")["a"].tolist() == [0.75, 0.25, 0.75]
    whole_hour = table.drop(table.index[4:8])
    assert resample(whole_hour, "1h", "energy")["a"].tolist() == pytest.approx([1.0, np.nan, 1.0], nan_ok=True)
    kept = resample(whole_hour, "1h", "sum", incomplete="keep")["a"]
    assert kept.tolist() == pytest.approx([4.0, np.nan, 4.0], nan_ok=True)
    assert coverage(whole_hour, "1h")["a"].tolist() == [1.0, 0.0, 1.0]


def test_missing_values_are_gaps_but_amounts_that_do_not_arise() -> None:
    values = [np.nan, 2.0, np.nan, 3.0, np.nan, np.nan, np.nan, np.nan]
    power = course(values)
    assert resample(power, "1h")["a"].isna().all()
    assert resample(power, "1h", incomplete="keep")["a"].tolist() == pytest.approx([2.5, np.nan], nan_ok=True)
    cash = course(values, unit="EUR", signal="settlement/party/cash_eur")
    assert resample(cash, "1h")["a"].tolist() == [5.0, 0.0]
    assert resample(cash.drop(cash.index[6]), "1h")["a"].isna().tolist() == [False, True], "a step is missing"


def test_series_and_studies() -> None:
    table = course([1.0, 2.0, 3.0, 6.0])
    series = table["a"].rename("p_kw")
    series.attrs.update(table.attrs)
    hourly = resample(series, "1h", "energy")
    assert isinstance(hourly, pd.Series)
    assert hourly.tolist() == [3.0]
    assert hourly.name == "p_kw"
    assert hourly.attrs["units"] == "kWh"
    study = pd.concat([table, 2.0 * table], keys=["x", "y"], names=["run", "time"])
    study.attrs.update(table.attrs)
    assert resample(study, "1h")["a"].tolist() == [3.0, 6.0]
    assert list(resample(study, "1h").index.names) == ["run", "time"]
    assert resample(study, "1h").attrs["units"] == "kW"


def test_an_empty_part_of_a_signal() -> None:
    nothing = resample(course([1.0, 2.0]).iloc[:0], "1h")
    assert nothing.empty
    assert list(nothing.columns) == ["a"]
    assert resample(course([1.0, 2.0])[[]], "1h").shape == (1, 0)


@pytest.mark.parametrize(
    ("period", "given", "words"),
    [
        ("20min", {}, "period: not a whole number of steps; got 20min; allowed: multiples of 15min"),
        ("1 hour", {}, "period: not a period; got '1 hour'; allowed: a whole number with a unit"),
        ("1h", {"how": "average"}, "how: no such way; got 'average'; allowed: mean, sum"),
        ("1h", {"how": "share"}, "shares are of states"),
        ("1h", {"incomplete": "drop"}, "incomplete: no such way; got 'drop'; allowed: nan, keep"),
    ],
)
def test_wrong_wishes(period: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        resample(course(np.ones(4)), period, **given)


def test_tables_that_do_not_tell_enough() -> None:
    bare = course(np.ones(4))
    bare.attrs.clear()
    with pytest.raises(InputError, match="how: nothing tells how to resample; got no unit is recorded with this table"):
        resample(bare, "1h")
    assert resample(bare, "1h", "sum")["a"].tolist() == [4.0], "rows tell the step, and their zone is UTC"
    with pytest.raises(InputError, match="one row does not tell the length of a step"):
        resample(bare.iloc[:1], "1h", "sum")
    with pytest.raises(InputError, match="energy is of a power; got unit pu"):
        resample(course(np.ones(4), unit="pu"), "1h", "energy")
    with pytest.raises(InputError, match="rows are not in order of time, each once; got row 1"):
        resample(course(np.ones(4)).iloc[[0, 0, 1]], "1h")
    with pytest.raises(InputError, match="do not begin at local midnight"):
        resample(course(np.ones(4), start="2016-07-22T00:05+01:00"), "1h")
    with pytest.raises(InputError, match="rows must have a time with a zone; got RangeIndex"):
        resample(course(np.ones(4)).reset_index(drop=True), "1h")
    with pytest.raises(InputError, match="period: not a whole number of steps; got month; allowed: multiples of 7h"):
        resample(course(np.ones(4), step="7h"), "month")
    states = course(np.array([0, 1], dtype=np.int8), flag_values=[0, 1], flag_meanings=["no", "yes"])
    one = states["a"]
    one.attrs.update(states.attrs)
    with pytest.raises(InputError, match="states become several columns; got a series; allowed: a frame"):
        resample(one, "30min")
