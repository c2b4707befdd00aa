"""Laws of the clearing (R1 to R11 but R6, which needs an AC power flow) on random small networks, radial and meshed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_market import (
    KINDS,
    permuted,
    random_case,
    sample,
    scaled,
    uncertain,
    with_currents_up_to,
    with_turned_currents,
)

from cosim.domain.market import Direction
from cosim.market.clearing import clear, worst_corners
from cosim.market.flexible_range import at_export, export_kw, export_range
from cosim.market.highs import Highs
from cosim.market.planes import LimitSettings
from cosim.market.pricing import bid_prices, location_prices
from cosim.market.reference import Reference
from cosim.market.uncertainty import box, budget, certain, ellipsoid

seeds = st.integers(0, 10_000)
meshed = st.booleans()
shares = st.floats(0.6, 1.2)
SOLVER = Highs()
EUR = 1e-7
few = settings(max_examples=40)
fewer = settings(max_examples=12)


def cost(case):
    return clear(case, SOLVER).objective_eur


@few
@given(seed=seeds, loop=meshed, half=st.floats(0.0, 0.2))
def test_r1_no_violation_no_award(seed, loop, half):
    cleared = clear(random_case(seed, 2.0, half, loop, drop_pu=0.5), SOLVER)
    network = cleared.networks[0]
    nothing = network.state(np.zeros(cleared.program.n_column))
    assume(not network.violated(nothing))
    assert cleared.awarded_kw.sum() == 0.0
    assert cleared.objective_eur == 0.0


@few
@given(seed=seeds, loop=meshed, share=shares)
def test_r2_budget_from_nothing_to_the_box(seed, loop, share):
    case = random_case(seed, share, meshed=loop)
    n = len(case.networks[0].pods)
    sizes = [cost(uncertain(case, budget(g))) for g in (0.0, 0.7, 1.0, 1.9, float(n))]
    assert sizes[0] == pytest.approx(cost(replace(case, uncertainty=(certain(n),))), abs=EUR, rel=1e-7)
    assert sizes[-1] == pytest.approx(cost(uncertain(case, box())), abs=EUR, rel=1e-7)
    assert (np.diff(sizes) >= -EUR * (1.0 + sizes[-1])).all()


@few
@given(seed=seeds, loop=meshed, share=shares, more=st.floats(1.0, 3.0))
def test_r2_wider_bands_and_tighter_limits_never_cost_less(seed, loop, share, more):
    case = random_case(seed, share, meshed=loop)
    base = cost(uncertain(case, box(), 0.05))
    slack = EUR * (1.0 + base)
    assert cost(uncertain(case, box(), 0.05 * more)) >= base - slack
    net = case.networks[0]
    tight = replace(case, networks=(with_currents_up_to(net, net.i_max_a / more),))
    wider = cost(uncertain(tight, box(), 0.05))
    assert wider >= base - EUR * (1.0 + wider)


@few
@given(seed=seeds, share=shares)
def test_r3_full_correlation_of_effects_of_one_sign_is_the_box(seed, share):
    """On a tree of loads every load adds to every current above it."""
    case = random_case(seed, share, generation=0.0)
    n = len(case.networks[0].pods)
    ball = cost(uncertain(case, ellipsoid(np.ones((n, n)), 1.0)))
    assert ball == pytest.approx(cost(uncertain(case, box())), abs=EUR, rel=1e-6)
    half = cost(uncertain(case, ellipsoid(0.5 * np.ones((n, n)) + 0.5 * np.eye(n), 1.0)))
    assert half <= ball + EUR * (1.0 + ball)


@few
@given(seed=seeds, loop=meshed, share=shares)
def test_r4_polygons_close_in_on_the_circle(seed, loop, share):
    def at(planes, polygon):
        return cost(random_case(seed, share, 0.05, loop, limits=LimitSettings(planes=planes, polygon=polygon)))

    inner, outer = [at(n, "inscribed") for n in (16, 64, 256)], [at(n, "circumscribed") for n in (16, 64, 256)]
    slack = EUR * (1.0 + max(inner))
    assert max(outer) <= min(inner) + slack
    assert abs(inner[2] - outer[2]) <= abs(inner[0] - outer[0]) + slack


@few
@given(seed=seeds, loop=meshed, share=shares, sectors=st.integers(1, 31))
def test_r4_turning_all_angles_by_whole_sectors_changes_nothing(seed, loop, share, sectors):
    case = random_case(seed, share, 0.05, loop, limits=LimitSettings(planes=32))
    turned = with_turned_currents(case.networks[0], 2.0 * np.pi * sectors / 32)
    again = cost(replace(case, networks=(turned,)))
    assert again == pytest.approx(cost(case), abs=EUR, rel=1e-7)


@few
@given(seed=seeds, loop=meshed, share=shares, name=st.sampled_from(sorted(KINDS)))
def test_r5_no_error_of_the_set_breaks_a_limit_and_the_worst_reaches_it(seed, loop, share, name):
    case = random_case(seed, share, meshed=loop, drop_pu=0.05)
    net = case.networks[0]
    kind = KINDS[name](len(net.pods))
    cleared = clear(uncertain(case, kind), SOLVER)
    assume(not cleared.unsolved)
    network = cleared.networks[0]
    z = network.state(cleared.solution.x).z
    xi = np.vstack([sample(kind, len(net.pods), np.random.default_rng(seed)), *(c.xi for c in worst_corners(cleared))])
    moduli = np.abs(z + xi @ network.protection.effect().T)
    assert (moduli <= net.upper * (1.0 + 1e-7)).all()
    assert (moduli >= np.nan_to_num(net.lower) - 1e-7).all()
    for corner in worst_corners(cleared):
        family = network.families[corner.key.family]
        quantity = family.quantity[corner.key.limit]
        reached = (
            family.weight[corner.key.limit] * (z[quantity] + network.protection.effect()[quantity] @ corner.xi)
        ).real
        assert (reached - family.bound[corner.key.limit]).max() == pytest.approx(0.0, abs=1e-6 * corner.limit)


@few
@given(seed=seeds, loop=meshed, share=shares, factor=st.floats(0.1, 10.0))
def test_r7_scaling_all_prices_scales_the_cost_only(seed, loop, share, factor):
    case = random_case(seed, share, 0.05, loop)
    first = clear(case, SOLVER)
    dearer = replace(case.settings, slack_eur_per_kwh=100.0 * factor)
    again = clear(replace(case, bids=tuple(scaled(b, factor) for b in case.bids), settings=dearer), SOLVER)
    assert again.objective_eur == pytest.approx(factor * first.objective_eur, abs=EUR, rel=1e-7)
    assert {b.id: again.of(b.id)[0] for b in again.bids} == pytest.approx(
        {b.id: first.of(b.id)[0] for b in first.bids}, abs=1e-6
    )


@few
@given(seed=seeds, loop=meshed, share=shares)
def test_r8_duals_reproduce_what_is_paid(seed, loop, share):
    cleared = clear(random_case(seed, share, 0.05, loop), SOLVER)
    prices, asked, kw = location_prices(cleared)[0], bid_prices(cleared)[0], cleared.awarded_kw[0]
    offered = np.array([bid.steps[0].price_eur_per_kwh for bid in cleared.bids])
    tolerance = 1e-7 * (1.0 + np.abs(prices).max())
    assert (prices[kw > 1e-6] >= asked[kw > 1e-6] - tolerance).all()
    assert (prices[kw < 1e-9] <= offered[kw < 1e-9] + tolerance).all()
    rows, dual = cleared.program.rows, cleared.solution.row_dual
    slack = cleared.program.columns.cost[len(kw) :] @ cleared.solution.x[len(kw) :]
    worth = (dual * np.where(np.isfinite(rows.upper), rows.upper, 0.0)).sum()
    paid = (prices * kw).sum() * cleared.case.mtu_h
    assert paid + slack == pytest.approx(worth, abs=1e-6, rel=1e-6)


@few
@given(seed=seeds, loop=meshed, share=shares, half=st.floats(0.0, 0.2))
def test_r9_nobody_is_paid_up_and_down(seed, loop, share, half):
    cleared = clear(random_case(seed, share, half, loop, drop_pu=0.05), SOLVER)
    up = {b.resource: cleared.of(b.id)[0] for b in cleared.bids if b.direction is Direction.UP}
    down = {b.resource: cleared.of(b.id)[0] for b in cleared.bids if b.direction is Direction.DOWN}
    assert all(min(up[name], down[name]) <= 1e-9 for name in up)


@few
@given(seed=seeds, loop=meshed, share=shares)
def test_r10_three_balanced_phases_are_as_one(seed, loop, share):
    """48 planes are the same for angles a third of a turn apart."""
    way = {"half_band": 0.05, "meshed": loop, "drop_pu": 0.05, "limits": LimitSettings(planes=48)}
    one, three = (clear(random_case(seed, share, phases=phases, **way), SOLVER) for phases in ((0,), (0, 1, 2)))
    assume(not one.unsolved)  # three phases pay three slacks
    np.testing.assert_allclose(three.awarded_kw, one.awarded_kw, atol=1e-6)
    assert three.objective_eur == pytest.approx(one.objective_eur, abs=EUR, rel=1e-7)


@few
@given(seed=seeds, loop=meshed, share=shares)
def test_r11_order_of_pods_branches_and_bids_changes_nothing(seed, loop, share):
    case = random_case(seed, share, 0.05, loop, drop_pu=0.05)
    rng, net, band = np.random.default_rng(seed), case.networks[0], case.uncertainty[0]
    pods, i, v = (rng.permutation(len(each)) for each in (net.pods, net.conductors, net.nodes))
    other = replace(
        case,
        bids=tuple(case.bids[k] for k in rng.permutation(len(case.bids))),
        networks=(permuted(net, pods, (i, v)),),
        uncertainty=(replace(band, half_p_kw=band.half_p_kw[pods], half_q_kvar=band.half_q_kvar[pods]),),
    )
    first, again = clear(case, SOLVER), clear(other, SOLVER)
    assert [bid.id for bid in again.bids] == [bid.id for bid in first.bids]
    np.testing.assert_allclose(again.awarded_kw, first.awarded_kw, atol=1e-6)
    assert {(u.kind, u.element) for u in again.unsolved} == {(u.kind, u.element) for u in first.unsolved}


@fewer
@given(seed=seeds, loop=meshed, share=shares, residual=st.booleans())
def test_all_ways_to_solve_agree(seed, loop, share, residual):
    case = random_case(seed, share, meshed=loop, drop_pu=0.05, limits=LimitSettings(planes=16))
    kind, base = (budget(1.5), "residual") if residual else (box(), "baseline")
    case = uncertain(case, kind, base=base)
    fast = clear(case, Highs())
    every = replace(case, settings=replace(case.settings, lazy=False))
    for other in (clear(case, Reference("cbc")), clear(every, Highs()), clear(every, Reference("highs"))):
        assert other.objective_eur == pytest.approx(fast.objective_eur, abs=1e-6, rel=1e-6)
        np.testing.assert_allclose(other.awarded_kw, fast.awarded_kw, atol=1e-4)


@few
@given(seed=seeds, loop=meshed, share=shares)
def test_a_solver_that_was_used_before_gives_the_same_bits(seed, loop, share):
    case = random_case(seed, share, 0.05, loop, drop_pu=0.05)
    np.testing.assert_array_equal(clear(case, SOLVER).awarded_kw, clear(case, Highs()).awarded_kw)


@few
@given(seed=seeds, loop=meshed, share=shares)
def test_another_bid_never_costs_more(seed, loop, share):
    case = random_case(seed, share, 0.05, loop)
    less = cost(replace(case, bids=case.bids[1:]))
    assert cost(case) <= less + EUR * (1.0 + less)


@few
@given(seed=seeds, loop=meshed, share=st.floats(0.9, 1.5), part=st.floats(0.0, 1.0))
def test_every_export_within_the_range_is_within_the_limits(seed, loop, share, part):
    case = random_case(seed, share, 0.02, loop)
    assume(not clear(case, SOLVER).unsolved)
    low, high = export_range(case, SOLVER)
    hard = replace(case, settings=replace(case.settings, slack_eur_per_kwh=None))
    found = at_export(hard, low + part * (high - low), SOLVER)
    assert export_kw(found) == pytest.approx(low + part * (high - low), abs=1e-6)
