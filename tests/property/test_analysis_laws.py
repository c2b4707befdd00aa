"""Resampling keeps energy, may be done in one go or in several, and treats each run alone; reading part by part gives
the whole."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.analysis.measures import exported_kwh, imported_kwh, total_kwh
from cosim.analysis.resample import coverage, resample

PERIODS = ("15min", "30min", "1h", "2h", "6h", "12h", "1d", "2d")
MINUTES = (15, 30, 60, 120, 360, 720, 1440, 2880)
WAYS = ("mean", "sum", "max", "min", "first", "last", "energy")
POWER = st.floats(-1e6, 1e6) | st.just(float("nan"))
CALM = settings(max_examples=60)
OFFSETS_S = st.sampled_from((0, 3600, 7200, -18_000, 19_800))


def signal(values: Sequence[float], first: int, offset_s: float, gone: Sequence[int] = ()) -> pd.DataFrame:
    """Powers in steps of 15 min from the step ``first`` after local midnight on, without the rows ``gone``."""
    start = pd.Timestamp("2016-02-27T00:00", tz="UTC") - pd.Timedelta(seconds=offset_s) + first * pd.Timedelta("15min")
    time = pd.date_range(start, periods=len(values), freq="15min", name="time")
    table = pd.DataFrame({"a": values, "b": np.asarray(values)[::-1]}, index=time)
    table = table.drop(table.index[sorted({row for row in gone if row < len(table)})])
    table.attrs.update({"units": "kW", "signal": "x/y/p_kw", "step_s": 900.0, "utc_offset_s": offset_s})
    return table


@st.composite
def signals(draw: st.DrawFn, values: st.SearchStrategy[float] = POWER, gaps: bool = True) -> pd.DataFrame:
    course = draw(st.lists(values, min_size=1, max_size=300))
    gone = draw(st.lists(st.integers(1, 299), max_size=20)) if gaps else []
    return signal(course, draw(st.integers(0, 95)), draw(OFFSETS_S), gone)


@CALM
@given(signals(), st.sampled_from([*PERIODS, "month", "year"]))
def test_energy_is_what_it_was(table: pd.DataFrame, period: str) -> None:
    energy = resample(table, period, "energy", incomplete="keep")
    for name in table:
        scale_kwh = float(table[name].abs().sum()) / 4.0
        expected = np.nansum(table[name]) / 4.0
        assert np.nansum(energy[name]) == pytest.approx(expected, rel=1e-12, abs=1e-12 * scale_kwh + 1e-300)


@CALM
@given(signals(), st.integers(0, 6), st.integers(0, 7), st.sampled_from(WAYS))
def test_in_two_goes_as_in_one(table: pd.DataFrame, short: int, long: int, how: str) -> None:
    if MINUTES[long] % MINUTES[short]:
        return
    within = resample(table, PERIODS[short], how)
    twice = resample(within, PERIODS[long])
    once = resample(table, PERIODS[long], how)
    rtol = 0.0 if how in ("max", "min", "first", "last") else 1e-9
    pd.testing.assert_frame_equal(twice, once, rtol=rtol, atol=1e-6 * (rtol > 0.0))
    assert twice.attrs["units"] == once.attrs["units"]


@CALM
@given(signals(), st.sampled_from([*PERIODS, "month"]))
def test_nan_where_a_step_is_missing_and_nowhere_else(table: pd.DataFrame, period: str) -> None:
    share = coverage(table, period)
    assert (share >= 0.0).all(axis=None)
    assert (share <= 1.0).all(axis=None)
    whole = resample(table, period)
    pd.testing.assert_frame_equal(whole.notna(), share == 1.0)
    kept = resample(table, period, incomplete="keep")
    pd.testing.assert_frame_equal(kept.notna(), share > 0.0)
    pd.testing.assert_frame_equal(kept.where(share == 1.0), whole)


@CALM
@given(signals(gaps=False), signals(gaps=False), st.sampled_from(PERIODS), st.sampled_from(WAYS))
def test_runs_do_not_touch_each_other(one: pd.DataFrame, other: pd.DataFrame, period: str, how: str) -> None:
    other.attrs["utc_offset_s"] = one.attrs["utc_offset_s"]
    runs: dict[str, pd.DataFrame] = {"x": one, "y": other}
    study = pd.concat(runs, names=["run", "time"])
    study.attrs.update(one.attrs)
    together = resample(study, period, how)
    for name, table in runs.items():
        pd.testing.assert_frame_equal(together.loc[name], resample(table, period, how), check_freq=False)


@CALM
@given(signals(st.floats(-1e6, 1e6), gaps=False))
def test_import_less_export_is_the_sum(table: pd.DataFrame) -> None:
    course: pd.Series[Any] = table["a"]
    course.attrs.update(table.attrs)
    scale_kwh = float(course.abs().sum()) / 4.0
    balance = imported_kwh(course) - exported_kwh(course)
    assert balance == pytest.approx(total_kwh(course), rel=1e-9, abs=1e-9 * scale_kwh)
    assert imported_kwh(course) >= 0.0
    assert exported_kwh(course) >= 0.0
