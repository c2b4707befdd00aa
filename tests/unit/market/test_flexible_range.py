from dataclasses import replace

import numpy as np
import pytest
from small_market import DOWN, bid, case, kw, network

from cosim.errors import BidError, MarketError
from cosim.market.clearing import clear
from cosim.market.flexible_range import at_export, export_range, supply_curve

NET = network([80.0, 40.0, 0.0], effect=[1.0, 1.0, 0.0])  # 20 A too much; P2 is on another feeder
BIDS = (
    bid("P0 a", 30.0, 1.0),
    bid("P1 b", 20.0, 2.0),
    bid("P0 d", 10.0, 0.3, DOWN),
    bid("P2 c", 15.0, 4.0),
    bid("P2 d", 25.0, 0.5, DOWN),
)
CASE = case(BIDS, NET)


def test_range_is_what_bids_and_network_allow():
    low, high = export_range(CASE)
    assert high == pytest.approx(30.0 + 20.0 + 15.0)
    assert low == pytest.approx(20.0 - 25.0)


def test_curve_has_the_prices_of_the_bids():
    curve = supply_curve(CASE)
    assert curve.export_kw == pytest.approx((-5.0, 20.0, 30.0, 50.0, 65.0))
    assert curve.price_eur_per_kwh == pytest.approx((-0.5, 1.0, 2.0, 4.0))
    assert curve.local_kw == pytest.approx(20.0)
    assert curve.cost_eur[1] == pytest.approx(20.0)


def test_cost_is_least_at_what_the_network_needs_itself_and_convex():
    curve = supply_curve(CASE)
    assert min(curve.cost_eur) == curve.cost_eur[curve.export_kw.index(pytest.approx(curve.local_kw))]
    assert (np.diff(curve.price_eur_per_kwh) > 0.0).all()


@pytest.mark.parametrize("share", np.linspace(0.0, 1.0, 20))
def test_every_point_of_the_range_can_be_delivered(share):
    low, high = export_range(CASE)
    kw_ = low + share * (high - low)
    found = at_export(CASE, kw_).require_solved()
    curve = supply_curve(CASE)
    assert found.cost_eur == pytest.approx(np.interp(kw_, curve.export_kw, curve.cost_eur))


def test_after_a_local_stage_its_awards_stay():
    first = clear(CASE)
    locked = {b.id: tuple(first.of(b.id)) for b in first.bids}
    later = replace(CASE, locked=locked)
    assert export_range(later)[0] == pytest.approx(20.0 - 25.0)
    assert kw(at_export(later, 40.0))["P0 a"] == pytest.approx(30.0)


def test_a_solver_knows_the_end_of_a_range_only_so_well():
    """Beyond it, if only by a rounding error of the solver's, there is no plan; next to it there is."""
    hard = replace(CASE, settings=replace(CASE.settings, slack_eur_per_kwh=None))
    _, high = export_range(hard)
    beyond_kw = high + 5e-6
    with pytest.raises(MarketError, match="infeasible"):
        at_export(hard, beyond_kw)
    assert at_export(hard, beyond_kw, within_kw=1e-5).cost_eur == pytest.approx(at_export(hard, high - 1e-6).cost_eur)


def test_a_curve_is_of_one_mtu():
    with pytest.raises(BidError, match="one MTU; got 2 MTUs"):
        supply_curve(case([bid("P0 a", [1.0, 1.0], 1.0)], [NET, NET]))
