"""Groups of steps, with which long runs are drawn."""

import numpy as np
import pytest

from cosim.report.canvas import spans

DAY_S = 86400.0


@pytest.mark.parametrize(
    ("steps", "step_s", "length"),
    [
        (1, 900.0, 1),
        (800, 900.0, 1),
        (801, 900.0, 4),
        (35136, 900.0, 96),
        (525600, 60.0, 1440),
        (1000, 77.0, 3),
        (1000, float("nan"), 3),
        (10_000_000, 900.0, 25_000),
    ],
)
def test_lengths(steps: int, step_s: float, length: int) -> None:
    groups = spans(steps, step_s, 400)
    assert groups.first.tolist() == list(range(0, steps, length))
    assert groups.single == (length == 1)


def test_range_and_mean_leave_missing_values_out() -> None:
    groups = spans(1000, 900.0, 400)
    values = np.arange(1000.0)
    values[[0, 5]] = np.nan
    values[8:12] = np.nan
    assert groups.low(values)[:4].tolist() == pytest.approx([1.0, 4.0, np.nan, 12.0], nan_ok=True)
    assert groups.high(values)[:4].tolist() == pytest.approx([3.0, 7.0, np.nan, 15.0], nan_ok=True)
    assert groups.mean(values)[:4].tolist() == pytest.approx([2.0, 17.0 / 3.0, np.nan, 13.5], nan_ok=True)


def test_nothing_between_lowest_and_highest_is_lost() -> None:
    values = np.random.default_rng(1).normal(size=5000)
    groups = spans(5000, 900.0, 400)
    assert groups.low(values).min() == values.min()
    assert groups.high(values).max() == values.max()
