"""Robust clearing against the enumeration of every corner of the errors of P and Q, together and apart."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_market import random_case, random_grid
from scipy.optimize import linprog

from cosim.domain.market import Direction
from cosim.market.clearing import clear, worst_corners
from cosim.market.highs import Highs
from cosim.market.planes import LimitSettings
from cosim.market.uncertainty import Uncertainty, UncertaintySet, box, budget, ellipsoid, factor_set

SOLVER = Highs()
PLANES = 12
seeds = st.sampled_from([seed for seed in range(1000) if len(random_grid(seed).p_kw) <= 3])
reactives = st.sampled_from(["with_active", "independent"])
bases = st.sampled_from(["baseline", "residual"])
few = settings(max_examples=30)


def small_case(seed, share):
    """Of two or three PODs, whose P and Q bands differ; a POD sells in one direction only, so that its bids together
    cannot reverse its power and a band on the residual shrinks with it."""
    case = random_case(seed, share, drop_pu=0.05, limits=LimitSettings(planes=PLANES))
    net = case.networks[0]
    n = len(net.pods)
    rng = np.random.default_rng([seed, 2])
    sold = {pod: Direction.UP if up else Direction.DOWN for pod, up in zip(net.pods, rng.random(n) < 0.8, strict=True)}
    bids = tuple(bid for bid in case.bids if bid.direction is sold[bid.resource])
    bands = (rng.uniform(0.02, 0.15, n) * np.abs(net.p_kw), rng.uniform(0.02, 0.15, n) * np.abs(net.p_kw))
    return replace(case, bids=bids), bands


def sets(n):
    """Sets of n xi with corners that can be listed."""
    return {
        "box": box(),
        "budget": budget(1.5),
        "factors": factor_set(np.full((n, 1), 0.6), np.full(n, 0.4)),
        "factors in a budget": factor_set(np.full((n, 1), 0.6), np.full(n, 0.4), gamma=1.0),
    }


def corners(kind: UncertaintySet, n):
    """All points (n_corner, n_xi) whose hull the set is."""
    columns = n if kind.loadings is None else kind.loadings.shape[1]
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=columns)))
    if kind.norm == "budget":
        sizes = {tuple(order) for order in itertools.permutations(np.clip(kind.size - np.arange(columns), 0.0, 1.0))}
        signs = np.unique(np.vstack([signs * size for size in sizes]), axis=0)
    return signs if kind.loadings is None else signs @ kind.loadings.T


def least_cost(case, xi):
    """The clearing with one row for each plane of each limit in each corner ``xi``; None without a plan."""
    net, band = case.networks[0], case.uncertainty[0]
    bids, n = case.bids, len(net.pods)
    price = np.array([bid.steps[0].price_eur_per_kwh for bid in bids]) * case.mtu_h
    change = np.zeros((n, len(bids)))
    for b, bid in enumerate(bids):
        change[net.pods.index(bid.resource), b] = bid.direction.delta_p_kw(1.0)
    kvar = np.array([case.resources[pod].kvar_per_kw for pod in net.pods])
    moved = (net.by_p + net.by_q * kvar) @ change  # by 1 kW of each bid (n_quantity, n_bid)
    at_p, at_q = (xi, xi) if band.reactive == "with_active" else (xi[:, :n], xi[:, n:])
    more_p, more_q = at_p * band.half_p_kw, at_q * band.half_q_kvar
    z0 = net.base + more_p @ net.by_p.T + more_q @ net.by_q.T
    shrinks = change / net.p_kw[:, None] if band.base == "residual" else np.zeros_like(change)
    by_x = moved + np.einsum("cp,qp,pb->cqb", more_p, net.by_p, shrinks)
    by_x = by_x + np.einsum("cp,qp,pb->cqb", more_q, net.by_q, shrinks)
    rows, rooms = [], []
    for family in clear(replace(case, bids=bids[:1], uncertainty=None)).networks[0].families:
        for q, weights, bounds in zip(family.quantity, family.weight, family.bound, strict=True):
            rows += [(weight * by_x[:, q]).real for weight in weights]
            rooms += [bound - (weight * z0[:, q]).real for weight, bound in zip(weights, bounds, strict=True)]
    found = linprog(price, np.vstack(rows), np.concatenate(rooms), bounds=[(0.0, bid.quantity_kw[0]) for bid in bids])
    return found.fun if found.success else None


@few
@given(
    seed=seeds,
    share=st.floats(0.7, 1.2),
    reactive=reactives,
    base=bases,
    name=st.sampled_from(sorted(sets(1))),
)
def test_cost_is_that_with_every_corner_as_a_row_of_its_own(seed, share, reactive, base, name):
    case, bands = small_case(seed, share)
    if reactive == "independent" and name != "box":
        assume(len(case.networks[0].pods) == 2)  # fewer corners to list
    n_xi = len(bands[0]) * (2 if reactive == "independent" else 1)
    kind = sets(n_xi)[name]
    case = replace(case, uncertainty=(Uncertainty(*bands, kind, base=base, reactive=reactive),))
    listed = least_cost(case, corners(kind, n_xi))
    cleared = clear(case, SOLVER)
    assert (listed is None) == bool(cleared.unsolved)
    if listed is not None:
        assert cleared.cost_eur == pytest.approx(listed, abs=1e-6, rel=1e-6)


@few
@given(seed=seeds, share=st.floats(0.7, 1.2), base=bases)
def test_p_and_q_apart_never_cost_less_than_together(seed, share, base):
    case, bands = small_case(seed, share)
    together, apart = (
        clear(replace(case, uncertainty=(Uncertainty(*bands, box(), base=base, reactive=way),)), SOLVER).objective_eur
        for way in ("with_active", "independent")
    )
    assert apart >= together - 1e-7 * (1.0 + together)


@few
@given(
    seed=seeds,
    share=st.floats(0.7, 1.2),
    base=bases,
    kind=st.sampled_from(["box", "budget", "ball", "factors"]),
)
def test_no_point_of_the_rectangles_breaks_a_limit_and_the_worst_reaches_it(seed, share, base, kind):
    case, bands = small_case(seed, share)
    n = len(bands[0])
    made = sets(2 * n) | {"ball": ellipsoid(0.5 * np.ones((2 * n, 2 * n)) + 0.5 * np.eye(2 * n), 1.1)}
    base = "baseline" if kind == "ball" else base
    band = Uncertainty(*bands, made[kind], base=base, reactive="independent")
    cleared = clear(replace(case, uncertainty=(band,)), SOLVER)
    assume(not cleared.unsolved)
    network, net = cleared.networks[0], case.networks[0]
    state = network.state(cleared.solution.x)
    worst = [corner.xi for corner in worst_corners(cleared)]
    xi = np.vstack([drawn(made[kind], 2 * n, np.random.default_rng(seed)), *worst])
    more_kw, more_kvar = network.errors(state, xi)
    if kind == "box":  # the rectangles, independent of xi
        scale = 1.0 if state.scale is None else state.scale
        assert np.abs(more_kw).max(axis=0) == pytest.approx(bands[0] * scale)
        assert np.abs(more_kvar).max(axis=0) == pytest.approx(bands[1] * scale)
    z = state.z + more_kw @ net.by_p.T + more_kvar @ net.by_q.T
    assert (np.abs(z) <= net.upper * (1.0 + 1e-7)).all()
    assert (np.abs(z) >= np.nan_to_num(net.lower) - 1e-7).all()
    for corner, reached in zip(worst_corners(cleared), z[len(xi) - len(worst) :], strict=True):
        family, at = network.families[corner.key.family], corner.key.limit
        planes = (family.weight[at] * reached[family.quantity[at]]).real - family.bound[at]
        assert planes.max() == pytest.approx(0.0, abs=1e-6 * corner.limit)


def drawn(kind: UncertaintySet, n, rng):
    """200 points on the boundary of a set of n xi."""
    columns = n if kind.loadings is None else kind.loadings.shape[1]
    eta = rng.uniform(-1.0, 1.0, (200, columns))
    if kind.norm == "ball":
        eta *= kind.size / np.linalg.norm(eta, axis=1, keepdims=True)
    elif kind.norm == "budget":
        eta *= np.minimum(1.0, kind.size / np.abs(eta).sum(axis=1, keepdims=True))
    else:
        eta = np.sign(eta)
    return eta if kind.loadings is None else eta @ kind.loadings.T
