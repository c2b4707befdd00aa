import math
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from cosim.domain.settlement import Period, Series
from cosim.errors import ProfileError
from cosim.market.baselines import (
    METHODS,
    Bias,
    Counterfactual,
    HighXOfY,
    Known,
    MeterBefore,
    Schedule,
    Zero,
    baseline_series,
    bias,
    method_biases,
)

HOUR, DAY = 3600, 24
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def days(*levels, hours=DAY):
    """A meter that draws one power all day."""
    p_kw = tuple(float(level) for level in levels for _ in range(hours))
    return Series("M", "measurement", 0, HOUR, p_kw)


def at(day, hour, n=1):
    return Period((day * DAY + hour) * HOUR, HOUR, n)


def known(series, **more):
    return Known(series, start=MONDAY, **more)


def test_schedule_counterfactual_zero():
    declared = Series("M", "schedule", 0, HOUR, (1.0, 2.0, 3.0))
    free = Series("M", "forecast", 0, HOUR, (1.5, 2.5, 3.5))
    both = known(days(0), schedule=declared, counterfactual=free)
    period = Period(HOUR, HOUR, 2)
    assert Schedule().p_kw(both, period, 0) == (2.0, 3.0)
    assert Counterfactual().p_kw(both, period, 0) == (2.5, 3.5)
    assert Zero().p_kw(both, period, 0) == (0.0, 0.0)
    assert baseline_series(Schedule(), both, period, 0) == Series("M", "baseline", HOUR, HOUR, (2.0, 3.0))


def test_meter_before_takes_whole_mtus_before_the_order():
    meter = Series("M", "measurement", 0, HOUR, (1.0, 2.0, 4.0, 8.0, 16.0))
    period = Period(4 * HOUR, HOUR, 1)
    assert MeterBefore(1).p_kw(known(meter), period, 3 * HOUR) == (4.0,)
    assert MeterBefore(1).p_kw(known(meter), period, 3 * HOUR - 1) == (2.0,)  # the MTU of the order is not over
    assert MeterBefore(2).p_kw(known(meter), replace(period, n_mtu=3), 3 * HOUR) == (3.0, 3.0, 3.0)
    assert MeterBefore(1).p_kw(known(meter), period, 10 * HOUR) == (8.0,)  # ordered late: before the activation


def test_high_x_of_y_is_the_mean_of_the_highest_similar_days():
    # Monday to Friday 1..5 kW, weekend 9 kW, Monday 7 kW
    meter = days(1, 2, 3, 4, 5, 9, 9, 7)
    assert HighXOfY(2, 10).p_kw(known(meter), at(7, 12), 0) == (4.5,)
    assert HighXOfY(5, 10).p_kw(known(meter), at(7, 12), 0) == (3.0,)
    assert HighXOfY(1, 3).p_kw(known(meter), at(4, 12), 0) == (4.0,)  # of Tuesday to Thursday
    assert HighXOfY(1, 10).p_kw(known(meter), at(6, 12), 0) == (9.0,)  # Sunday: Saturday
    assert HighXOfY(1, 10).p_kw(known(meter, not_similar=frozenset({date(2026, 1, 9)})), at(7, 12), 0) == (4.0,)


def test_high_x_of_y_ranks_by_the_hours_of_the_activation():
    meter = days(0, 0, 0)
    p_kw = list(meter.p_kw)
    p_kw[10], p_kw[DAY + 10], p_kw[DAY + 20] = 6.0, 4.0, 100.0
    own = known(replace(meter, p_kw=tuple(p_kw)))
    assert HighXOfY(1, 2).p_kw(own, at(2, 10), 0) == (6.0,)


def test_high_x_of_y_counts_local_days():
    meter = days(1, 2, 3, 4, 5, 9, 9, 7)
    assert HighXOfY(1, 10).p_kw(known(meter), at(4, 23), 0) == (4.0,)
    with pytest.raises(ProfileError, match="too few similar days"):  # Friday 23 h UTC is Saturday, the first of all
        HighXOfY(1, 10).p_kw(known(meter, utc_offset_s=HOUR), at(4, 23), 0)
    assert HighXOfY(1, 10).p_kw(known(meter, utc_offset_s=HOUR), at(5, 23), 0) == (5.0,)  # Sunday: Saturday began then


def test_same_day_adjustment_is_capped():
    def adjusted(today):
        meter = days(10, 10, today)
        return HighXOfY(2, 2, adjust_mtu=2).p_kw(known(meter), at(2, 12), at(2, 12).t_s)

    assert adjusted(11) == (pytest.approx(11.0),)
    assert adjusted(20) == (pytest.approx(12.0),)
    assert adjusted(0) == (pytest.approx(8.0),)
    later = list(days(10, 10, 11).p_kw)
    later[2 * DAY + 12 :] = [0.0] * 12
    late = known(replace(days(10, 10, 11), p_kw=tuple(later)))
    assert HighXOfY(2, 2, adjust_mtu=2).p_kw(late, at(2, 12), at(2, 14).t_s) == (pytest.approx(11.0),)
    empty = days(0, 0, 5)
    assert HighXOfY(2, 2, adjust_mtu=2).p_kw(known(empty), at(2, 12), at(2, 12).t_s) == (0.0,)


def test_days_without_all_measurements_are_not_similar():
    meter = days(1, 8, 3)
    p_kw = list(meter.p_kw)
    p_kw[DAY + 12] = None
    own = known(replace(meter, p_kw=tuple(p_kw)))
    assert HighXOfY(1, 5).p_kw(own, at(2, 12), 0) == (1.0,)
    with pytest.raises(ProfileError, match="baseline of M: too few similar days before; got 1; allowed: 2 or more"):
        HighXOfY(2, 5).p_kw(own, at(2, 12), 0)


def test_what_a_method_lacks_is_named():
    with pytest.raises(ProfileError, match="baseline of M: no schedule"):
        Schedule().p_kw(known(days(1)), at(0, 3), 0)
    with pytest.raises(ProfileError, match="baseline of M: no simulation without activation"):
        Counterfactual().p_kw(known(days(1)), at(0, 3), 0)
    short = Series("M", "schedule", 0, HOUR, (1.0, None))
    with pytest.raises(ProfileError) as caught:
        Schedule().p_kw(known(days(1), schedule=short), Period(0, HOUR, 3), 0)
    assert [fault.value for fault in caught.value.faults] == ["MTU from 3600 s", "MTU from 7200 s"]


def test_bias_by_hand():
    found = bias([3.0, 1.0], [2.0, 4.0], 900)
    assert found == Bias(mean_kw=-1.0, mean_abs_kw=2.0, rms_kw=math.sqrt(5.0), credited_up_kwh=-0.5)


def test_every_method_against_the_truth():
    free = Series("M", "forecast", 0, HOUR, (10.0,) * 3 * DAY)
    found = method_biases(known(days(10, 10, 8), counterfactual=free), at(2, 12), at(2, 12).t_s)
    assert set(found) == set(METHODS)
    assert found["model"] == Bias(0.0, 0.0, 0.0, 0.0)
    assert found["meter_before_after"] == Bias(-2.0, 2.0, 2.0, -2.0)
    assert found["zero"].credited_up_kwh == -10.0
    assert isinstance(found["schedule"], ProfileError)
    assert isinstance(found["high_x_of_y"], ProfileError)
