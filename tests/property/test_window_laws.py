"""Laws of windows that stand for a year, over any courses, numbers and lengths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.analysis.windows import over_year, representative_windows

ROWS = 2
WEIGHTS = st.lists(st.floats(0.1, 100.0), min_size=1, max_size=5)
VALUES = st.floats(-1e6, 1e6)


@settings(max_examples=40)
@given(
    n_year=st.integers(200, 366), n_windows=st.integers(1, 6), half_days=st.integers(1, 20), seed=st.integers(0, 1000)
)
def test_parts_cover_the_year_and_windows_are_the_best_of_them(
    n_year: int, n_windows: int, half_days: int, seed: int
) -> None:
    courses = np.random.default_rng(seed).normal(size=(n_year * ROWS, 2)).cumsum(axis=0)
    windows = representative_windows(courses, ROWS, n_windows, half_days / ROWS)
    assert sum(window.part_days for window in windows) == n_year
    assert sum(window.weight * window.n_days for window in windows) == pytest.approx(n_year)
    for window in windows:
        first = window.first_day * ROWS
        assert 0 <= first <= len(courses) - half_days
        assert window.error >= 0.0
    assert windows == representative_windows(courses, ROWS, n_windows, half_days / ROWS)


@given(weights=WEIGHTS, factor=st.floats(0.5, 4.0), data=st.data())
def test_sums_are_linear_in_weights_and_highest_values_do_not_feel_them(
    weights: list[float], factor: float, data: st.DataObject
) -> None:
    figures = [{"a_kwh": data.draw(VALUES), "b_h": data.draw(VALUES), "c_kw": data.draw(VALUES)} for _ in weights]
    year, more = over_year(figures, weights), over_year(figures, [factor * weight for weight in weights])
    assert more["c_kw"] == year["c_kw"] == max(each["c_kw"] for each in figures)
    for name in ("a_kwh", "b_h"):
        assert more[name] == pytest.approx(factor * year[name], rel=1e-9, abs=1e-3)
    split = [weight / 2.0 for weight in weights] * 2  # a window given twice at half the weight
    assert over_year(figures * 2, split)["a_kwh"] == pytest.approx(year["a_kwh"], rel=1e-9, abs=1e-3)
