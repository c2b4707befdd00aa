"""The outer loop on models that are wrong in a known way."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from small_market import DOWN, bid, case, kw, network, resources

from cosim.market.ac_loop import EXCESS_PU, MAX_ROUNDS, clear_with_ac
from cosim.market.clearing import clear
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
    return replace(net, base=curved(p_kw) + 0j)


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


def phasor(p_kw, q_kvar):
    """Current [A] of a power flow with losses, active along the real axis."""
    s = p_kw.sum(axis=-1) - 1j * q_kvar.sum(axis=-1)
    return s * (1.0 + 2e-4 * np.abs(s))


def phasor_tangent(_, p_kw, q_kvar):
    s = p_kw.sum() - 1j * q_kvar.sum()
    more, along = 1.0 + 2e-4 * abs(s), 2e-4 * s / abs(s)
    return replace(
        network(p_kw, 100.0),
        q_kvar=q_kvar,
        base=np.array([phasor(p_kw, q_kvar)]),
        by_p=np.full((1, 2), more + along * s.real),
        by_q=np.full((1, 2), -1j * more - along * s.imag),
    )


NET = network(P_KW)


@pytest.mark.parametrize("reactive", ["with_active", "independent"])
@pytest.mark.parametrize("base", ["baseline", "residual"])
def test_p_and_q_apart_the_loop_sees_every_corner_of_the_rectangles(reactive, base):
    """A capacitive load: with errors of P and Q together the worst is not the worst of them apart."""
    q_kvar = np.array([-50.0, -30.0])
    half_p_kw, half_q_kvar = 0.1 * P_KW, np.array([8.0, 4.0])
    band = Uncertainty(half_p_kw, half_q_kvar, box(), base=base, reactive=reactive)
    start = phasor_tangent(0, P_KW, q_kvar)
    made = case([bid("P0 a", 70.0, 1.0), bid("P1 b", 40.0, 2.0)], start, uncertainty=(band,))
    found = clear_with_ac(made, phasor_tangent, lambda _, p, q: np.abs(phasor(p, q))[:, None])
    assert found.excess == ()
    down_kw = np.array([kw(found.clearing)[name] for name in ("P0 a", "P1 b")])
    scale = 1.0 - down_kw / P_KW if base == "residual" else np.ones(2)
    xi = np.array(list(itertools.product((-1.0, 1.0), repeat=4)))
    sizes = np.abs(phasor(P_KW - down_kw + xi[:, :2] * half_p_kw * scale, q_kvar + xi[:, 2:] * half_q_kvar * scale))
    if reactive == "independent":
        assert 99.8 <= sizes.max() <= 100.0 * (1.0 + EXCESS_PU)
    else:
        together = (xi[:, :2] == xi[:, 2:]).all(axis=1)
        assert 99.8 <= sizes[together].max() <= 100.0 * (1.0 + EXCESS_PU) < 102.0 < sizes.max()


class TestDelivery:
    """Resources of which half an activation may fail: one at once, or both."""

    OWN = resources(2, delivery_risk=0.5)
    P_KW = np.array([60.0, 60.0])

    def cleared(self, bids, p_kw=P_KW, v_limits=(0.5, 1.5), own=OWN, budget=None):
        band = Uncertainty(0.05 * np.abs(p_kw), np.zeros(2), box(), delivery_budget=budget)

        def model(t, p, q):
            return tangent(t, p, q, v_limits)

        return clear_with_ac(case(bids, model(0, p_kw, np.zeros(2)), own, uncertainty=(band,)), model, at)

    @pytest.mark.parametrize("budget", [None, 1.0, 0.4])
    def test_the_limit_is_reached_where_the_worst_fail(self, budget):
        found = self.cleared([bid("P0 a", 18.0, 1.0), bid("P1 b", 60.0, 2.0)], budget=budget)
        assert found.excess == ()
        a, b = kw(found.clearing)["P0 a"], kw(found.clearing)["P1 b"]
        assert a == pytest.approx(18.0)
        failed = 0.5 * (a + b if budget is None else budget * max(a, b))
        assert curved(np.array([1.05 * 120.0 - a - b + failed]))[0] == pytest.approx(100.0, abs=100.0 * EXCESS_PU)

    def test_downward(self):
        found = self.cleared([bid("P0 d", 80.0, 1.0, DOWN)], p_kw=-0.5 * self.P_KW, v_limits=(0.5, 1.05))
        assert found.excess == ()
        corner = -1.05 * 60.0 + 0.5 * kw(found.clearing)["P0 d"]
        safe = 1.05 * np.cos(np.radians(1.0))  # of the three planes
        assert curved(np.array([corner]))[1] == pytest.approx(safe, abs=EXCESS_PU)

    def test_any_of_several_may_deliver(self):
        """The second, sure one, has less effect; who delivers is not known."""

        def model(t, p, q):
            size = p @ [1.0, 0.5]
            return network(p, 100.0, [1.0 + 4e-4 * size, 0.5 + 2e-4 * size])

        def flow(_, p, q):
            size = p @ [1.0, 0.5]
            return np.abs(size + 2e-4 * size**2)[..., None]

        own = {"P0": self.OWN["P0"], "P1": resources(2)["P1"]}
        p_kw = np.array([80.0, 60.0])
        start = model(0, p_kw, np.zeros(2))
        start = replace(start, base=flow(0, p_kw, None) + 0j)
        made = case([bid("s", 100.0, 1.0, any_of=("P0", "P1"))], start, own)

        def exact(t, p, q):
            return replace(model(t, p, q), base=flow(t, p, q) + 0j)

        found = clear_with_ac(made, exact, flow)
        assert found.excess == ()
        bought = kw(found.clearing)["s"]
        worst = flow(0, p_kw - [0.0, 0.5 * bought], None)[0]
        assert worst == pytest.approx(100.0, abs=100.0 * EXCESS_PU)


def test_powers_of_a_worst_corner():
    """Upward and downward resources with relief of either sign, of which one may fail: the one that does most."""
    net = network([60.0, 60.0, -10.0, 0.0], effect=[1.0, 0.5, -1.0, 0.2])
    own = resources(4, delivery_risk=0.5, kvar_per_kw=0.25)
    band = Uncertainty(np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4), box(), delivery_budget=1.0)
    bids = [bid("P0 a", 4.0, 1.0), bid("P1 b", 12.0, 1.0), bid("P2 c", 5.0, 1.0, DOWN), bid("P3 d", 8.0, 1.0, DOWN)]
    locked = {"P0 a": (4.0,), "P1 b": (12.0,), "P2 c": (5.0,), "P3 d": (8.0,)}
    cleared = clear(case(bids, net, own, uncertainty=(band,), locked=locked))
    state = cleared.networks[0].state(cleared.solution.x)
    family = cleared.networks[0].families[0]
    plane = int(np.abs(family.weight[0] - 1.0).argmin())
    corner = cleared.networks[0].worst(0, 0, plane, state)
    assert corner.xi == pytest.approx([1.0, 1.0, -1.0, 1.0])
    undelivered = np.array([0.0, 6.0, 0.0, 0.0])
    delta = np.array([-4.0, -12.0, 5.0, 8.0]) + undelivered
    assert corner.p_kw == pytest.approx(net.p_kw + delta + [1.0, 2.0, -3.0, 4.0])
    assert corner.q_kvar == pytest.approx(0.25 * delta + [1.0, 1.0, -1.0, 1.0])
    at = net.at(corner.p_kw - net.p_kw, corner.q_kvar)
    value = (family.weight[0, plane] * at[0]).real - family.bound[0, plane]
    assert value == pytest.approx(cleared.networks[0].exceeded(0, np.array([0]), state)[0, plane])
