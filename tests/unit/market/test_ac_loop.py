"""The outer loop on models that are wrong in a known way."""

import numpy as np
import pytest
from small_market import DOWN, bid, case, kw, network

from cosim.market.ac_loop import EXCESS_PU, MAX_ROUNDS, clear_with_ac
from cosim.market.uncertainty import Uncertainty, box

P_KW = np.array([80.0, 40.0])
BIDS = [bid("P0 a", 50.0, 1.0), bid("P1 b", 50.0, 2.0), bid("P0 d", 50.0, 1.0, DOWN)]
DROP = np.array([1e-3, 1e-3])


def curved(p_kw):
    """Current [A], with its sign, and voltage [pu] of a power flow with losses: a little worse than linear."""
    total = p_kw.sum(axis=-1)
    return np.stack([total + 2e-4 * total**2, 1.0 - 1e-3 * total - 1e-6 * total**2], axis=-1)


def tangent(_, p_kw, q_kvar, v_limits=(0.5, 1.5)):
    """The linear model of that at a point."""
    total = p_kw.sum()
    net = network(p_kw, 100.0, [1.0 + 4e-4 * total] * 2, v_drop_pu=DROP + 2e-6 * total, v_limits=v_limits)
    i_a, v_pu = curved(p_kw)
    return type(net)(**{**vars_of(net), "i_a": np.array([i_a + 0j]), "v_pu": np.array([v_pu + 0j])})


def vars_of(net):
    return {name: getattr(net, name) for name in type(net).__dataclass_fields__}


def at(_, p_kw, q_kvar):
    return np.abs(curved(p_kw))


def cleared(half_band=0.0, v_limits=(0.5, 1.5), bids=BIDS, p_kw=P_KW, linearise=tangent, magnitudes=at):
    def model(t, p, q):
        return linearise(t, p, q, v_limits)

    band = Uncertainty(half_band * np.abs(p_kw), np.zeros(2), box())
    made = case(bids, model(0, p_kw, np.zeros(2)), uncertainty=(band,))
    return clear_with_ac(made, model, magnitudes)


@pytest.mark.parametrize("half_band", [0.0, 0.1])
def test_current_ends_at_its_limit_at_the_worst_corner(half_band):
    found = cleared(half_band)
    assert found.excess == ()
    kept = P_KW.sum() - sum(kw(found.clearing).values()) + half_band * P_KW.sum()
    assert curved(np.array([kept, 0.0]))[0] == pytest.approx(100.0, abs=100.0 * EXCESS_PU)


@pytest.mark.parametrize("half_band", [0.0, 0.1])
def test_voltage_ends_at_its_lower_limit(half_band):
    found = cleared(half_band, v_limits=(0.92, 1.5), p_kw=np.array([60.0, 40.0]))
    kept = 100.0 - sum(kw(found.clearing).values()) + half_band * 100.0
    assert curved(np.array([kept, 0.0]))[1] == pytest.approx(0.92, abs=EXCESS_PU)


def test_voltage_ends_below_its_upper_limit():
    found = cleared(v_limits=(0.5, 1.05), p_kw=np.array([-60.0, -40.0]))
    kept = -100.0 + kw(found.clearing)["P0 d"]
    assert found.excess == ()
    assert curved(np.array([kept, 0.0]))[1] <= 1.05 * (1.0 + EXCESS_PU)


def test_a_good_model_needs_one_round():
    def linear(_, p_kw, q_kvar):
        total = p_kw.sum(axis=-1)
        return np.stack([np.abs(total), 1.0 - 1e-3 * total], axis=-1)

    def model(t, p_kw, q_kvar, v_limits):
        return network(p_kw, 100.0, v_drop_pu=DROP, v_limits=v_limits)

    assert cleared(linearise=model, magnitudes=linear).rounds == 1


def test_excess_is_described_when_the_loop_gives_up():
    """A power flow that is worse with every look at it."""
    looks = iter(range(1000))

    def worse(_, p_kw, q_kvar):
        size = np.abs(curved(p_kw))
        size[:, 0] = 101.0 + 0.01 * next(looks)
        return size

    found = cleared(magnitudes=worse, p_kw=np.array([30.0, 30.0]))
    assert found.rounds == MAX_ROUNDS == len(found.largest_pu)
    (excess,) = found.excess
    assert (excess.mtu, excess.element, excess.nominal) == (0, "L@A.1", True)
    assert excess.excess_pu == pytest.approx(0.01 + 1e-4 * (MAX_ROUNDS - 1))
