"""Days that stand for a year: found where they were put, and weighted so that energies scale and peaks do not."""

from __future__ import annotations

import numpy as np
import pytest

from cosim.analysis.windows import SEASONS, Window, over_year, representative_windows
from cosim.errors import InputError

ROWS, DAYS = 4, 366


def courses_of(daily: np.ndarray) -> np.ndarray:
    """A course with the same shape on each day, (n_row, 1), shifted by a value for each day."""
    return (daily[:, None] + np.arange(ROWS) / ROWS).reshape(-1, 1)


@pytest.mark.parametrize("n_windows", [1, 2, 4, 5, 12])
@pytest.mark.parametrize("n_days", [0.5, 1.0, 7.0])
def test_weights_times_days_are_the_year(n_windows: int, n_days: float) -> None:
    courses = np.random.default_rng(5).normal(size=(DAYS * ROWS, 3))
    windows = representative_windows(courses, ROWS, n_windows, n_days, begin_row=1)
    assert len(windows) == n_windows
    assert sum(window.weight * window.n_days for window in windows) == pytest.approx(DAYS)
    for window in windows:
        assert window.first_day >= 0
        assert (window.first_day + window.n_days) * ROWS + 1 <= DAYS * ROWS


def test_four_parts_are_the_seasons() -> None:
    windows = representative_windows(courses_of(np.zeros(DAYS)), ROWS, 4, 7.0)
    assert tuple(window.name for window in windows) == SEASONS
    assert [window.part_days for window in windows] == [92, 91, 91, 92]
    begins = [-31, 61, 152, 243]  # 1 December, 2 March, 1 June, 1 September of a leap year
    ends = [*begins[1:], 335]
    for window, begin, end in zip(windows, begins, ends, strict=True):
        day = window.first_day - DAYS if window.first_day >= DAYS - 31 else window.first_day
        assert begin <= day <= end - 7


def test_windows_that_begin_late_stay_in_their_part() -> None:
    """A third of the winter is low, and only what begins at noon of its last day, with half of it in spring, is too."""
    year = np.full((DAYS * ROWS, 1), 100.0)
    year[(DAYS - 31) * ROWS :] = year[61 * ROWS] = -100.0
    assert representative_windows(year, ROWS, 4, 1.0, begin_row=2)[0].first_day != 60


def test_the_mean_day_is_found() -> None:
    """Days far off but one, which alone has the median of its part."""
    daily = np.where(np.arange(DAYS) % 2, 100.0, -100.0)
    daily[200] = 0.0
    (window,) = representative_windows(courses_of(daily), ROWS, 1, 1.0)
    assert window.first_day == 200


def test_highs_and_lows_count() -> None:
    """Of two days with the right mean the one with the spread of the part is taken."""
    year = np.tile([0.0, 0.0, 10.0, 10.0], DAYS).reshape(-1, 1)
    flat = slice(40 * ROWS, 41 * ROWS)
    year[: 40 * ROWS], year[41 * ROWS :] = year[: 40 * ROWS] + 50.0, year[41 * ROWS :] + 50.0
    year[flat] = 55.0
    (window,) = representative_windows(year, ROWS, 1, 1.0)
    assert window.first_day != 40
    assert window.error == pytest.approx(0.0, abs=0.02)


def test_identical_days_have_no_error() -> None:
    for window in representative_windows(courses_of(np.ones(DAYS)), ROWS, 3, 2.0, begin_row=2):
        assert window.error == pytest.approx(0.0, abs=0.06)  # quantiles between 4 values of a day
        assert window.n_days == 2.0


def test_scale_and_offset_of_a_course_change_nothing() -> None:
    courses = np.random.default_rng(1).normal(size=(DAYS * ROWS, 2))
    moved = courses * [3.0, 1000.0] + [7.0, -5.0]
    found, again = (representative_windows(each, ROWS, 4, 3.0) for each in (courses, moved))
    assert [window.first_day for window in found] == [window.first_day for window in again]
    assert [window.error for window in found] == pytest.approx([window.error for window in again])


@pytest.mark.parametrize(
    ("n_windows", "n_days", "told"),
    [
        (0, 1.0, "no such number of windows"),
        (400, 1.0, "allowed: 1 to 366"),
        (4, 91.0, "below 91"),
        (4, 0.0, "shorter than their parts"),
        (4, 0.3, "not a whole number of 4ths of a day"),
        (52, 6.5, "without running over its end or that of the year"),
    ],
)
def test_refused(n_windows: int, n_days: float, told: str) -> None:
    with pytest.raises(InputError, match=told):
        representative_windows(courses_of(np.arange(DAYS, dtype=float)), ROWS, n_windows, n_days, begin_row=1)


def test_energies_scale_by_weight_and_peaks_do_not() -> None:
    winter = {"bought_kwh": 10.0, "cost_eur": -2.0, "violation_h": 0.5, "peak_kw": 300.0, "worst_percent": 2.0}
    summer = {"bought_kwh": 1.0, "cost_eur": 4.0, "violation_h": 0.0, "peak_kw": -50.0, "worst_percent": 7.0}
    weights = [Window("", 0, 2.0, 91, 0.0).weight, Window("", 0, 7.0, 91, 0.0).weight]
    assert weights == [45.5, 13.0]
    year = over_year([winter, summer], weights)
    assert year == {
        "bought_kwh": pytest.approx(455.0 + 13.0),
        "cost_eur": pytest.approx(-91.0 + 52.0),
        "violation_h": pytest.approx(22.75),
        "peak_kw": 300.0,
        "worst_percent": 7.0,
    }
    twice = over_year([winter, summer], [2.0 * weight for weight in weights])
    assert twice["bought_kwh"] == pytest.approx(2.0 * year["bought_kwh"])
    assert twice["peak_kw"] == year["peak_kw"]


def test_a_figure_of_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"nothing tells how it adds up over a year; got delivered_share"):
        over_year([{"delivered_share": 0.5}], [1.0])
