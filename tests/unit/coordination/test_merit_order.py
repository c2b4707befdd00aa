"""Stages without a linear program, where bids of one price could replace each other."""

import pytest
from small_system import DOWN, GLOBAL, UNITS, UP, bid, scheme, system, unit

from cosim.coordination import stage as stage_room
from cosim.coordination.coordinate import coordinate
from cosim.coordination.merit_order import by_merit

MORE = {u.id: u for u in (unit("H", "B", 100.0, 100.0), unit("K", "A", 100.0, 100.0))}
LIKE = (bid("G", UP, 40.0, 0.10), bid("H", UP, 30.0, 0.10), bid("G", DOWN, 20.0, -0.10), bid("K", DOWN, 25.0, -0.10))
"""G and K are paid for less consumption what it costs to consume that much less, or they pay as much for more."""


@pytest.mark.parametrize("need_kw", [-40.0, -33.0, -10.0, 5.0, 20.0, 45.0, 68.0])
def test_of_bids_of_one_price_the_least_is_activated_and_of_equals_the_first(need_kw, monkeypatch):
    """As the linear program has it."""
    case = system(need_kw, LIKE, UNITS | MORE)
    made = scheme({"MSD": {**GLOBAL, "resources": "T", "network": "none"}})
    plans = []
    monkeypatch.setattr(stage_room, "by_merit", lambda *of: plans.append(by_merit(*of)) or plans[-1])
    found = coordinate(case, made)
    assert plans[0] is not None
    monkeypatch.setattr(stage_room, "by_merit", lambda *_: None)
    assert found.dispatch_kw == pytest.approx(coordinate(case, made).dispatch_kw, abs=1e-9)
    assert sum(kw for kw in found.dispatch_kw.values()) == pytest.approx(abs(need_kw))
