"""The invariants R1 to R11 of the clearing on random feeders: radial and with a loop, balanced and not, each linearised
from its OpenDSS script and checked by its power flow. `test_market_laws` has more laws on networks made by hand."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_market import (
    KINDS,
    market_on,
    permuted,
    sample,
    scaled,
    uncertain,
    with_currents_up_to,
    with_turned_currents,
)
from random_networks import N_SEED, SHAPES, random_network

from cosim.domain.market import Direction
from cosim.market.ac_loop import EXCESS_PU, clear_with_ac
from cosim.market.clearing import clear, worst_corners
from cosim.market.highs import Highs
from cosim.market.network import network_part
from cosim.market.planes import LimitSettings, plane_families
from cosim.market.pricing import bid_prices, location_prices
from cosim.market.uncertainty import Protection, Uncertainty, box, budget, certain, ellipsoid

seeds = st.integers(0, N_SEED - 1)
shares = st.floats(0.8, 1.15)
SOLVER = Highs()
EUR = 1e-7
every_shape = pytest.mark.parametrize("shape", SHAPES)
few = settings(max_examples=10)


def case_of(shape, seed, share, half_band=0.05, drop_pu=None, **more):
    return market_on(random_network(seed, shape).rows(share, drop_pu), seed, half_band, **more)


def cost(case):
    return clear(case, SOLVER).objective_eur


@every_shape
def test_shapes_are_what_they_say(shape):
    """A loop is one line more than a tree has; balanced networks load all phases alike, the others do not."""
    meshed, balanced = SHAPES[shape]
    spreads = []
    for seed in range(10):
        net = random_network(seed, shape)
        layout = net.network.layout
        assert len(layout.branches) - len({node.partition(".")[0] for node in layout.nodes}) + 1 == meshed
        head = [k for k, name in enumerate(layout.conductors) if name.startswith("Line.HEAD@SRC")]
        spreads.append(np.ptp(net.magnitudes[head]) / net.magnitudes[head].max())
    assert max(spreads) < 1e-6 if balanced else min(spreads) > 1e-3


@every_shape
@few
@given(seed=seeds, share=st.floats(1.0, 1.5), half=st.floats(0.0, 0.2))
def test_r1_no_violation_no_award(shape, seed, share, half):
    cleared = clear(case_of(shape, seed, share, half, drop_pu=0.05), SOLVER)
    network = cleared.networks[0]
    assume(not network.violated(network.state(np.zeros(cleared.program.n_column))))
    assert cleared.awarded_kw.sum() == 0.0
    assert cleared.objective_eur == 0.0


@every_shape
@few
@given(seed=seeds, share=shares, more=st.floats(1.0, 3.0))
def test_r2_robustness_costs_more_the_more_it_covers(shape, seed, share, more):
    """From the deterministic plan by the budget to the box; with wider bands; with tighter limits."""
    case = case_of(shape, seed, share)
    net, n = case.networks[0], len(case.networks[0].pods)
    sizes = [cost(uncertain(case, budget(g))) for g in (0.0, 0.7, 1.0, 1.9, float(n))]
    slack = EUR * (1.0 + sizes[-1])
    assert sizes[0] == pytest.approx(cost(replace(case, uncertainty=(certain(n),))), abs=EUR, rel=1e-7)
    assert sizes[-1] == pytest.approx(cost(uncertain(case, box())), abs=EUR, rel=1e-7)
    assert (np.diff(sizes) >= -slack).all()
    wider = cost(uncertain(case, box(), 0.1 * more))
    tighter = cost(uncertain(replace(case, networks=(with_currents_up_to(net, net.i_max_a / more),)), box()))
    assert wider >= sizes[-1] - EUR * (1.0 + wider)
    assert tighter >= sizes[-1] - EUR * (1.0 + tighter)


@every_shape
@few
@given(seed=seeds, share=shares)
def test_r3_full_correlation_is_the_box_where_all_effects_have_one_sign(shape, seed, share):
    case = case_of(shape, seed, share, drop_pu=0.02)
    net, n = case.networks[0], len(case.networks[0].pods)
    half = 0.1 * np.abs(net.p_kw), 0.1 * np.abs(net.q_kvar)
    boxed, ball = (Protection(net, Uncertainty(*half, kind)) for kind in (box(), ellipsoid(np.ones((n, n)), 1.0)))
    for family in plane_families(net, case.settings.limits):
        by_box, by_ball = (each.on(family.quantity, family.weight, False) for each in (boxed, ball))
        assert (by_ball <= by_box * (1.0 + 1e-9) + 1e-12).all()
        effect = (family.weight[:, :, None] * boxed.effect()[family.quantity][:, None, :]).real
        alike = (effect >= 0.0).all(axis=2) | (effect <= 0.0).all(axis=2)
        np.testing.assert_allclose(by_ball[alike], by_box[alike], rtol=1e-6, atol=1e-9)
    one, many = (cost(uncertain(case, kind)) for kind in (ellipsoid(np.ones((n, n)), 1.0), box()))
    assert one <= many + EUR * (1.0 + many)


@every_shape
@few
@given(seed=seeds, share=shares)
def test_r4_polygons_close_in_on_the_circle(shape, seed, share):
    def at(planes, polygon):
        return cost(case_of(shape, seed, share, limits=LimitSettings(planes=planes, polygon=polygon)))

    inner, outer = ([at(n, polygon) for n in (16, 64, 256)] for polygon in ("inscribed", "circumscribed"))
    slack = EUR * (1.0 + max(inner))
    assert max(outer) <= min(inner) + slack
    assert abs(inner[2] - outer[2]) <= abs(inner[0] - outer[0]) + slack
    assert (np.diff(inner) <= slack).all()  # with vertices of the next among its own


@every_shape
@few
@given(seed=seeds, share=st.floats(0.9, 1.2), angle=st.floats(0.0, 2.0 * np.pi))
def test_r4_turning_all_angles_moves_the_plan_within_the_polygon_error(shape, seed, share, angle):
    """Any polygon lies between the circle of the limit and the largest circle inside it."""
    case = case_of(shape, seed, share, limits=LimitSettings(planes=32))
    net = case.networks[0]

    def turned(by, planes=32, polygon="inscribed", limit=1.0):
        again = with_turned_currents(with_currents_up_to(net, limit * net.i_max_a), by)
        limits = replace(case.settings, limits=LimitSettings(planes=planes, polygon=polygon))
        return clear(replace(case, networks=(again,), settings=limits), SOLVER)

    inside = turned(0.0, 512, limit=np.cos(np.pi / 32))
    assume(not inside.unsolved)  # slacks are of the limit, and so of another size for each polygon
    found = turned(angle).objective_eur
    slack = EUR * (1.0 + found)
    assert turned(0.0, 512, "circumscribed").objective_eur - slack <= found <= inside.objective_eur + slack
    whole = turned(round(angle * 32 / (2.0 * np.pi)) * 2.0 * np.pi / 32).objective_eur
    assert whole == pytest.approx(turned(0.0).objective_eur, abs=EUR, rel=1e-7)


@every_shape
@few
@given(seed=seeds, share=st.floats(0.9, 1.2), name=st.sampled_from(sorted(KINDS)))
def test_r5_no_error_of_the_set_breaks_a_limit_and_the_worst_reaches_it(shape, seed, share, name):
    case = case_of(shape, seed, share, drop_pu=0.05)
    net = case.networks[0]
    kind = KINDS[name](len(net.pods))
    cleared = clear(uncertain(case, kind), SOLVER)
    broken = {each.element for each in cleared.unsolved}
    network = cleared.networks[0]
    z, effect = network.state(cleared.solution.x).z, network.protection.effect()
    corners = worst_corners(cleared)
    xi = np.vstack([sample(kind, len(net.pods), np.random.default_rng(seed)), *(corner.xi for corner in corners)])
    moduli = np.abs(z + xi @ effect.T)
    kept = np.array([each not in broken for each in net.names])
    assert (moduli <= net.upper * (1.0 + 1e-7))[:, kept].all()
    assert (moduli >= np.nan_to_num(net.lower) - 1e-7)[:, kept].all()
    for corner in corners:
        family = network.families[corner.key.family]
        quantity = family.quantity[corner.key.limit]
        if net.names[quantity] not in broken:
            row = (family.weight[corner.key.limit] * (z[quantity] + effect[quantity] @ corner.xi)).real
            assert (row - family.bound[corner.key.limit]).max() == pytest.approx(0.0, abs=1e-6 * corner.limit)


@every_shape
@few
@given(seed=seeds, share=st.floats(0.85, 1.2), half=st.floats(0.01, 0.1))
def test_r6_after_the_outer_loop_the_power_flow_keeps_the_limits_at_every_corner(shape, seed, share, half):
    """All corners of the box, by the power flow of the script's network."""
    net = random_network(seed, shape)
    model = net.model(share, drop_pu=0.02)
    case = market_on(model.linearise(0, net.p_kw, net.q_kvar), seed, half, limits=LimitSettings(256, "circumscribed"))
    found = clear_with_ac(case, model.linearise, model.magnitudes, SOLVER)
    assert found.excess == ()
    cleared = found.clearing
    network, (errors,) = cleared.networks[0], cleared.case.uncertainty
    p_kw, q_kvar = network.powers(network.state(cleared.solution.x))
    more_kw, more_kvar = errors.errors(np.array(list(product((-1.0, 1.0), repeat=len(p_kw)))))
    size = model.magnitudes(0, p_kw + more_kw, q_kvar + more_kvar)
    kept = ~np.isin(case.networks[0].names, [each.element for each in cleared.unsolved])
    upper, lower = case.networks[0].upper, np.nan_to_num(case.networks[0].lower)
    assert (size <= upper * (1.0 + EXCESS_PU) + 1e-9)[:, kept].all()
    assert (size >= lower * (1.0 - EXCESS_PU) - 1e-9)[:, kept].all()


@every_shape
@few
@given(seed=seeds, share=shares, factor=st.floats(0.1, 10.0))
def test_r7_scaling_all_prices_scales_the_cost_only(shape, seed, share, factor):
    case = case_of(shape, seed, share)
    first = clear(case, SOLVER)
    dearer = replace(case.settings, slack_eur_per_kwh=100.0 * factor)
    again = clear(replace(case, bids=tuple(scaled(b, factor) for b in case.bids), settings=dearer), SOLVER)
    assert again.objective_eur == pytest.approx(factor * first.objective_eur, abs=EUR, rel=1e-7)
    assert {b.id: again.of(b.id)[0] for b in again.bids} == pytest.approx(
        {b.id: first.of(b.id)[0] for b in first.bids}, abs=1e-6
    )


@every_shape
@few
@given(seed=seeds, share=shares)
def test_r8_duals_reproduce_what_is_paid(shape, seed, share):
    """What is accepted is worth at least what it asks, what is not at most that; all worth together is that of the
    limits."""
    cleared = clear(case_of(shape, seed, share, drop_pu=0.02), SOLVER)
    prices, asked, kw = location_prices(cleared)[0], bid_prices(cleared)[0], cleared.awarded_kw[0]
    offered = np.array([bid.steps[0].price_eur_per_kwh for bid in cleared.bids])
    tolerance = 1e-7 * (1.0 + np.abs(prices).max())
    assert (prices[kw > 1e-6] >= asked[kw > 1e-6] - tolerance).all()
    assert (prices[kw < 1e-9] <= offered[kw < 1e-9] + tolerance).all()
    rows, dual = cleared.program.rows, cleared.solution.row_dual
    slack = cleared.program.columns.cost[len(kw) :] @ cleared.solution.x[len(kw) :]
    worth = (dual * np.where(np.isfinite(rows.upper), rows.upper, 0.0)).sum()
    assert (prices * kw).sum() * cleared.case.mtu_h + slack == pytest.approx(worth, abs=1e-6, rel=1e-6)


@every_shape
@few
@given(seed=seeds, share=shares, half=st.floats(0.0, 0.2))
def test_r9_nobody_is_paid_up_and_down(shape, seed, share, half):
    cleared = clear(case_of(shape, seed, share, half, drop_pu=0.02), SOLVER)
    up, down = (
        {bid.resource: cleared.of(bid.id)[0] for bid in cleared.bids if bid.direction is side} for side in Direction
    )
    assert up.keys() == down.keys()
    assert all(min(up[name], down[name]) <= 1e-9 for name in up)


@pytest.mark.parametrize("shape", [shape for shape, (_, balanced) in SHAPES.items() if balanced])
@few
@given(seed=seeds, share=shares)
def test_r10_three_balanced_phases_are_as_one(shape, seed, share):
    """48 planes are the same for angles a third of a turn apart."""
    case = case_of(shape, seed, share, drop_pu=0.02, limits=LimitSettings(planes=48))
    net = case.networks[0]
    one = replace(case, networks=(network_part(net, np.array([name.endswith(".1") for name in net.names])),))
    assert 3 * len(one.networks[0].names) == len(net.names)
    single, three = clear(one, SOLVER), clear(case, SOLVER)
    assume(not single.unsolved)  # three phases pay three slacks
    np.testing.assert_allclose(three.awarded_kw, single.awarded_kw, atol=1e-4)
    assert three.objective_eur == pytest.approx(single.objective_eur, abs=1e-6, rel=1e-6)


@every_shape
@few
@given(seed=seeds, share=shares)
def test_r11_order_of_pods_branches_and_bids_changes_nothing(shape, seed, share):
    case = case_of(shape, seed, share, drop_pu=0.02)
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
    assert again.objective_eur == pytest.approx(first.objective_eur, abs=EUR, rel=1e-7)
    np.testing.assert_allclose(again.awarded_kw, first.awarded_kw, atol=1e-5)
    assert {(u.kind, u.element) for u in again.unsolved} == {(u.kind, u.element) for u in first.unsolved}
