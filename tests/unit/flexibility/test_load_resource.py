import pytest

from cosim.flexibility.load import Load
from cosim.flexibility.resources import Conditions, step

QUARTER_S = 900


def run(load, wishes, profile_kw=10.0):
    """Powers in consecutive MTUs."""
    state, powers = load.start(), []
    for k, wish in enumerate(wishes):
        state, p_kw = step(load, state, wish, Conditions(k * QUARTER_S, profile_kw), QUARTER_S)
        powers.append(p_kw)
    return powers


def test_the_share_that_can_be_shed():
    load = Load(0.3, QUARTER_S)
    assert run(load, [8.0, 0.0, 12.0, None]) == [8.0, 7.0, 10.0, 10.0]
    assert load.limits_kw(load.start(), Conditions(0, p_kw=-2.0), QUARTER_S) == (-2.0, -2.0)


def test_what_was_shed_is_paid_back_in_the_mtus_after():
    load = Load(0.5, QUARTER_S, rebound=(0.5, 0.25))
    assert run(load, [6.0, None, None, None]) == pytest.approx([6.0, 12.0, 11.0, 10.0])


def test_what_is_paid_back_can_be_shed_again():
    load = Load(0.5, QUARTER_S, rebound=(1.0,))
    assert run(load, [6.0, 10.0, None, None]) == pytest.approx([6.0, 10.0, 14.0, 10.0])


def test_long_after_nothing_is_owed():
    load = Load(0.5, QUARTER_S, rebound=(1.0,))
    state, _ = step(load, load.start(), 6.0, Conditions(0, 10.0), QUARTER_S)
    assert load.free_kw(state, Conditions(QUARTER_S, 10.0), QUARTER_S) == 14.0
    assert load.free_kw(state, Conditions(96 * QUARTER_S, 10.0), QUARTER_S) == 10.0
