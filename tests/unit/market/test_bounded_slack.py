"""What a coordination stage asks of a clearing: no limit worse than before, and caps on several bids together."""

from dataclasses import replace

import numpy as np
import pytest
from small_market import DOWN, bid, case, kw, network

from cosim.market.case import JointLimit
from cosim.market.clearing import clear
from cosim.market.pricing import location_prices


def two_conductors(p_kw, i_max_a):
    """Each POD behind a conductor of its own, of which the first may carry what the second may not."""
    rows = network(p_kw)
    effect = np.eye(2, dtype=complex)
    return replace(
        rows,
        conductors=("L@A.1", "M@A.1"),
        base=effect @ rows.p_kw,
        by_p=effect,
        by_q=-1j * effect,
        upper=np.array(i_max_a),
        lower=np.full(2, np.nan),
    )


def test_relief_of_one_limit_is_not_bought_by_breaking_another():
    """The interface is held: what P0 sheds P1 has to draw, whose conductor has no room left. P0 counts twice there."""
    rows = two_conductors((20.0, 10.0), (5.0, 10.0))
    rows = replace(rows, head_by_p=np.array([2.0, 1.0]))
    bids = [bid("P0 up", 10.0, 0.1), bid("P1 down", 20.0, 0.1, DOWN)]
    held = {"interface_kw": (0.0, 0.0), "slack_eur_per_kwh": 10.0}
    half = replace(rows, head_by_p=np.array([0.5, 1.0]))
    assert kw(clear(case(bids, half, settings=held))) == pytest.approx({"P0 up": 10.0, "P1 down": 5.0})
    for each in (rows, half):
        bounded = clear(case(bids, each, settings=held | {"no_worse": True}))
        assert kw(bounded) == {"P0 up": 0.0, "P1 down": 0.0}
        assert [unsolved.element for unsolved in bounded.unsolved] == ["L@A.1"]


def test_at_a_price_of_zero_what_was_broken_may_stay_and_get_no_worse():
    rows = network((60.0, 60.0), i_max_a=100.0)
    bids = [bid("P0 up", 30.0, 0.1), bid("P1 down", 30.0, -0.5, DOWN)]
    free = {"slack_eur_per_kwh": 0.0, "no_worse": True}
    assert kw(clear(case(bids, rows, settings=free))) == pytest.approx({"P0 up": 30.0, "P1 down": 30.0})
    alone = clear(case(bids[1:], rows, settings=free))
    assert kw(alone) == {"P1 down": 0.0}


def test_what_locked_awards_break_counts_as_before():
    rows = network((50.0, 50.0), i_max_a=100.0)
    bids = [bid("P0 down", 10.0, 0.1, DOWN), bid("P1 down", 30.0, -0.5, DOWN)]
    settings = {"slack_eur_per_kwh": 0.0, "no_worse": True}
    found = clear(case(bids, rows, settings=settings, locked={"P0 down": (10.0,)}))
    assert kw(found) == {"P0 down": 10.0, "P1 down": 0.0}
    (unsolved,) = found.unsolved
    assert unsolved.excess == pytest.approx(10.0)


def test_several_bids_have_a_limit_together():
    """And its price is part of what a kWh of them is worth."""
    rows = network((60.0, 60.0, 60.0), i_max_a=150.0)
    bids = [bid("P0 up", 30.0, 0.1), bid("P1 up", 30.0, 0.2), bid("P2 up", 60.0, 0.5)]
    limited = case(bids, rows, joint_limits=(JointLimit("area", ("P0 up", "P1 up"), 20.0),))
    found = clear(limited)
    assert kw(found) == pytest.approx({"P0 up": 20.0, "P1 up": 0.0, "P2 up": 10.0})
    prices = dict(zip((each.id for each in found.bids), location_prices(found)[0], strict=True))
    assert prices == pytest.approx({"P0 up": 0.1, "P1 up": 0.1, "P2 up": 0.5})
    assert kw(clear(case(bids, rows))) == pytest.approx({"P0 up": 30.0, "P1 up": 0.0, "P2 up": 0.0})
