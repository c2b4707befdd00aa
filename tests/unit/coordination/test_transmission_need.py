"""The need of the system: drawn or given, MTU by MTU."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from cosim.clock import Clock
from cosim.coordination.transmission_need import DrawnNeed, GivenNeed, NeedRows, need_of_rows
from cosim.errors import ScenarioError

START = datetime(2020, 1, 1, tzinfo=UTC)
CLOCK = Clock(START, 900, 8, 1800)


def series(n, seed=1, std_kw=15.0, persistence=0.8):
    need = DrawnNeed(seed, std_kw, persistence)
    return np.array([need.need_kw(k) for k in range(n)])


def test_spread_and_memory_of_a_drawn_need():
    many = np.array([series(4000, seed) for seed in range(50)])
    assert many.mean() == pytest.approx(0.0, abs=0.3)
    assert many.std() == pytest.approx(15.0, rel=0.02)
    assert many[:, 0].std() == pytest.approx(15.0, rel=0.25)  # stationary from the first MTU on
    for lag in (1, 2, 5):
        product = (many[:, lag:] * many[:, :-lag]).mean()
        assert product / 15.0**2 == pytest.approx(0.8**lag, abs=0.03)


def test_without_persistence_mtus_do_not_depend_on_each_other():
    many = series(20_000, persistence=0.0)
    assert many.std() == pytest.approx(15.0, rel=0.02)
    assert (many[1:] * many[:-1]).mean() / 15.0**2 == pytest.approx(0.0, abs=0.03)


def test_a_drawn_need_does_not_depend_on_what_was_asked_before():
    first = DrawnNeed(7, 1.0, 0.8).need_kw(5000)
    short = series(10, seed=7, std_kw=1.0)
    assert DrawnNeed(7, 1.0, 0.8).need_kw(5000) == first
    assert series(3000, seed=7, std_kw=1.0)[:10].tolist() == short.tolist()
    assert series(10, seed=8, std_kw=1.0).tolist() != short.tolist()


def test_a_given_need_is_the_mean_of_each_mtu_over_the_feeders():
    rows = NeedRows(START - timedelta(minutes=15), 900, np.array([99.0, *(10.0 * k for k in range(8))]))
    need = need_of_rows(rows, CLOCK, 5)
    assert [need.need_kw(k) for k in range(4)] == pytest.approx([1.0, 5.0, 9.0, 13.0])


def test_a_given_need_holds_until_its_next_row():
    rows = NeedRows(START - timedelta(minutes=30), 3600, np.array([1.0, 2.0, 3.0]))
    assert need_of_rows(rows, CLOCK, 1).by_mtu_kw == pytest.approx([1.0, 2.0, 2.0, 3.0])


@pytest.mark.parametrize(("late_s", "n"), [(1, 100), (0, 7)])
def test_a_need_that_does_not_cover_the_run(late_s, n):
    rows = NeedRows(START + timedelta(seconds=late_s), 900, np.ones(n))
    with pytest.raises(
        ScenarioError, match="the need does not cover the run, which is from 2020-01-01T00:00Z to"
    ) as no:
        need_of_rows(rows, CLOCK, 1)
    assert no.value.faults[0].key == "transmission.need.file"


def test_after_the_run_a_given_need_is_not_known():
    with pytest.raises(ScenarioError, match=r"after the run's 2 MTUs; got MTU 2"):
        GivenNeed(np.ones(2)).need_kw(2)
