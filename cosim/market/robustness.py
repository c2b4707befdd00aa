"""What robustness is worth: how often a plan fails when forecasts err at random, and how far the worst error takes it,
both by the linear model and by the power flow. Awards are delivered in full.

A robust set says nothing of probabilities; these are rates under distributions that are stated here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import numpy as np

from cosim.domain.frames import Floats, Ints
from cosim.errors import BidError, Fault
from cosim.market.ac_loop import EXCESS_PU, Magnitudes
from cosim.market.network import NetworkRows
from cosim.market.outcome import Clearing
from cosim.market.terms import MtuNetwork, MtuState
from cosim.market.uncertainty import Uncertainty, ellipsoid
from cosim.rng import rng_for

Errors = Literal["uniform", "normal", "corners"]
ERRORS: Final[tuple[Errors, ...]] = get_args(Errors)
HALF_BAND_SIGMA: Final = 1.959963984540054
"""Half-band over standard deviation of normal errors: 95 % of them lie inside the band."""


def forecast_errors(seed: int, n_sample: int, n_xi: int, errors: Errors, correlation: Floats | None = None) -> Floats:
    """xi (n_sample, n_xi): ``uniform`` in the band, ``normal`` with the half-band `HALF_BAND_SIGMA` times sigma (5 %
    lie outside), or at either end of the band with equal probability (``corners``: the widest of all symmetric errors
    inside it); independent, or normal with a ``correlation`` (n_xi, n_xi).

    The same arguments give the same errors, so that plans are judged by the same. Raises BidError for a correlation of
    other than normal errors.
    """
    if correlation is not None and errors != "normal":
        problem = "only normal errors can be drawn with a correlation"
        raise BidError(Fault(problem, key="correlation", value=errors, allowed="normal"))
    rng, shape = rng_for(seed, "robustness", errors), (n_sample, n_xi)
    if errors == "uniform":
        return rng.uniform(-1.0, 1.0, shape)
    if errors == "corners":
        return np.where(rng.integers(0, 2, shape), 1.0, -1.0)
    loadings = np.eye(n_xi) if correlation is None else ellipsoid(correlation, 1.0).loadings
    return np.asarray(rng.standard_normal(shape) @ np.asarray(loadings).T / HALF_BAND_SIGMA)


@dataclass(frozen=True)
class ViolationRate:
    """Of sampled forecast errors: the share [1] with a limit exceeded by more than a tolerance, by the linear model and
    by the power flow, and the highest excess of all [of the limit], below 0 if none is reached."""

    samples: int
    linear: float
    ac: float
    linear_highest_pu: float
    ac_highest_pu: float


def violation_rate(
    clearing: Clearing,
    truth: Uncertainty,
    xi: Floats,
    magnitudes: Magnitudes,
    mtu: int = 0,
    tolerance_pu: float = EXCESS_PU,
) -> ViolationRate:
    """How a plan stands forecast errors ``xi`` (n_sample, n_xi) of the bands of ``truth``, which need not be what it
    was made for. Limits are those of the network, without what was tolerated or kept clear of them."""
    network, state = _under(clearing, truth, mtu)
    rows = clearing.case.networks[mtu]
    linear, ac = (_excess_pu(rows, size).max(axis=1) for size in _sizes(network, state, rows, xi, magnitudes))
    return ViolationRate(
        len(xi),
        float((linear > tolerance_pu).mean()),
        float((ac > tolerance_pu).mean()),
        float(linear.max()),
        float(ac.max()),
    )


@dataclass(frozen=True)
class WorstCorner:
    """The limit that forecast errors of a set take furthest beyond, or nearest to: its element, the errors (n_xi,) that
    do so, and the magnitude there [A or pu] by the linear model and by the power flow."""

    element: str
    limit: float
    xi: Floats
    linear: float
    ac: float


def worst_corner(clearing: Clearing, truth: Uncertainty, magnitudes: Magnitudes, mtu: int = 0) -> WorstCorner:
    """Of all limits, each at its own worst error in the set of ``truth``, the one with the highest excess by power
    flow."""
    network, state = _under(clearing, truth, mtu)
    rows = clearing.case.networks[mtu]
    quantity, xi = _corners(network, state)
    linear, ac = _sizes(network, state, rows, xi, magnitudes)
    own = np.arange(len(quantity))
    worst = int(_excess_pu(rows, ac)[own, quantity].argmax())
    at = worst, int(quantity[worst])
    limit = _nearest_limit(rows, ac[worst])[at[1]]
    return WorstCorner(rows.names[at[1]], float(limit), xi[worst], float(linear[at]), float(ac[at]))


def _under(clearing: Clearing, truth: Uncertainty, mtu: int) -> tuple[MtuNetwork, MtuState]:
    """An MTU of a plan with other forecast errors, and its state."""
    case = replace(clearing.case, uncertainty=(truth,) * clearing.case.n_mtu, margins=None)
    network = MtuNetwork(case, clearing.offers, mtu)
    return network, network.state(clearing.solution.x)


def _sizes(
    network: MtuNetwork, state: MtuState, rows: NetworkRows, xi: Floats, magnitudes: Magnitudes
) -> tuple[Floats, Floats]:
    """Magnitudes (n_sample, n_quantity) [A, pu] at forecast errors, by the linear model and by the power flow."""
    p_kw, q_kvar = (power + more for power, more in zip(network.powers(state), network.errors(state, xi), strict=True))
    linear = rows.base + (p_kw - rows.p_kw) @ rows.by_p.T + (q_kvar - rows.q_kvar) @ rows.by_q.T
    return np.abs(linear), magnitudes(network.mtu, p_kw, q_kvar)


def _corners(network: MtuNetwork, state: MtuState) -> tuple[Ints, Floats]:
    """The quantity of every limit (n_limit,) and the forecast errors that are worst for it (n_limit, n_xi)."""
    quantities, corners = [], []
    for number, family in enumerate(network.families):
        if family.ceiling:  # whose errors are all at once, whatever the set
            continue
        every = np.arange(len(family.quantity))
        planes = network.exceeded(number, every, state).argmax(axis=1)
        for quantity, weight in zip(family.quantity.tolist(), family.weight[every, planes].tolist(), strict=True):
            quantities.append(quantity)
            corners.append(network.protection.worst(quantity, weight, False, state.scale))
    return np.array(quantities, dtype=np.int64), np.array(corners)


def _excess_pu(rows: NetworkRows, size: Floats) -> Floats:
    """How far magnitudes (n_sample, n_quantity) are beyond their nearest limit, of it; -inf without a limit."""
    over = np.fmax(size / rows.upper - 1.0, 1.0 - size / rows.lower)
    return np.where(np.isnan(over), -np.inf, over)


def _nearest_limit(rows: NetworkRows, size: Floats) -> Floats:
    """The limit (n_quantity,) that `_excess_pu` measures from."""
    low, high = 1.0 - size / rows.lower, size / rows.upper - 1.0
    return np.where(np.isnan(rows.lower) | (high >= low), rows.upper, rows.lower)
