"""Laws of sampling and history over any regular series."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cosim.clock import Clock
from cosim.domain.frames import frozen
from cosim.io.profiles import Profiles, history, sample

START = datetime(2016, 1, 1, tzinfo=UTC)
DAY_ROWS = 96
YEAR_ROWS = 365 * DAY_ROWS


def series(rows: int, seed: int, wraps_year: bool) -> Profiles:
    values = np.random.default_rng(seed).normal(size=(rows, 2))
    return Profiles(START, 900, ("a", "b"), frozen(values), wraps_year)


@given(seed=st.integers(0, 99), finer=st.sampled_from([1, 3, 5, 15]), steps=st.integers(1, 20), first=st.integers(0, 9))
def test_finer_steps_repeat_each_row(seed: int, finer: int, steps: int, first: int) -> None:
    profiles = series(40, seed, False)
    begin = START + timedelta(seconds=900 * first)
    fine = sample(profiles, Clock(begin, 900 // finer, steps * finer, 900))
    own = sample(profiles, Clock(begin, 900, steps, 900))
    np.testing.assert_array_equal(fine, np.repeat(own, finer, axis=0))


@given(seed=st.integers(0, 99), coarser=st.integers(2, 8), steps=st.integers(1, 5))
def test_coarser_steps_keep_the_energy(seed: int, coarser: int, steps: int) -> None:
    profiles = series(40, seed, False)
    coarse = sample(profiles, Clock(START, 900 * coarser, steps, 900 * coarser))
    energy = profiles.values[: steps * coarser].sum(axis=0)
    np.testing.assert_allclose(coarse.sum(axis=0) * coarser, energy, rtol=0, atol=1e-12)


@given(row=st.integers(0, YEAR_ROWS - 1), days=st.integers(1, 40), window=st.integers(0, 8))
def test_history_is_the_value_at_each_earlier_instant(row: int, days: int, window: int) -> None:
    numbers = np.arange(YEAR_ROWS, dtype=np.float64)
    year = Profiles(START, 900, ("row",), frozen(numbers[:, None]), wraps_year=True)
    samples = history(year, START + timedelta(seconds=900 * row), days, window)[:, 0]
    wanted = [(row - DAY_ROWS * day + k) % YEAR_ROWS for day in range(1, days + 1) for k in range(-window, window + 1)]
    np.testing.assert_array_equal(samples, wanted)
