"""Laws of a session of the local market on random feeders, linearised and by their power flow."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from random_feeders import engine_of, feeders

from cosim.domain.frames import frozen
from cosim.domain.market import Bid, Direction, PriceStep, Resource
from cosim.market import session as market_session
from cosim.market.ac_loop import EXCESS_PU
from cosim.market.feeder_model import FeederModel
from cosim.market.session import LocalMarket, Situation, uncertainty_of
from cosim.market.uncertainty import Protection
from cosim.rng import rng_for
from cosim.scenario.market import MarketConfig

HEAD = "Line.HEAD@SRC"
POLYGON, FAN = np.cos(np.pi / 64.0), np.cos(np.radians(1.0))
"""Of an upper limit, where the planes of currents and of voltages may be at the closest."""

seeds = st.integers(0, 1000)
few = settings(max_examples=15)
sets = st.sampled_from(["none", "box", "budget", "ellipsoid", "factors"])
reactives = st.sampled_from(["with_active", "independent"])
bases = st.sampled_from(["baseline", "residual"])


class Market:
    """A random feeder with offers at all PODs; half of its limits lie within a share ``tight`` (voltages: a tenth of
    it) of what flows in its first case."""

    def __init__(self, feeder, seed, tight, **config):
        script, yaml, (self.p_kw, self.q_kvar) = feeder
        engine = engine_of(script, yaml)
        self.network, self.rng = engine.unloaded(), rng_for(seed, "market")
        engine.close()
        self.pods, n = self.network.pods, len(self.network.pods)
        self.n_conductor = len(self.network.layout.conductors)
        n_node = len(self.network.layout.nodes)
        self.limit(np.full(self.n_conductor, 1e9), np.zeros(n_node), np.full(n_node, 9.0))
        size = self.model.magnitudes(0, self.p_kw[:1], self.q_kvar[:1])[0]
        near = np.where(self.rng.random(len(size)) < 0.5, self.rng.uniform(0.0, tight, len(size)), np.nan)
        i_a, v_pu, band = size[: self.n_conductor], size[self.n_conductor :], 0.1 * near[self.n_conductor :]
        self.limit(np.maximum(i_a * (1.0 + near[: self.n_conductor]), 0.5), v_pu - band, v_pu + band)
        self.half_kw, self.half_kvar = self.rng.uniform(0.0, 0.1, (2, n)) * np.abs([self.p_kw[0], self.q_kvar[0]])
        kinds = tuple(self.rng.choice(["load", "pv"], n).tolist())
        self.local = LocalMarket(MarketConfig.model_validate(config), lambda position: self.model, kinds, 900)
        self.resources = {
            pod: Resource(pod, pod, "load", "A", 300.0, 300.0, kvar_per_kw=float(self.rng.uniform(-0.5, 0.5)))
            for pod in self.pods
        }

    def limit(self, i_max_a, v_min_pu, v_max_pu):
        self.model = FeederModel(self.network, HEAD, i_max_a, v_min_pu, v_max_pu)

    def situation(self, cases, t_s=0):
        """The schedules of some MTUs, with the half-bands."""
        n = len(cases)
        half = [frozen(np.tile(band, (n, 1))) for band in (self.half_kw, self.half_kvar)]
        return Situation(t_s, self.p_kw[cases], self.q_kvar[cases], *half, ())

    def bids(self, n_mtu, t_s=0, share=0.9):
        """Up and down of each POD, of as much as it draws."""
        prices = rng_for(1, "price").uniform(0.05, 0.5, (len(self.pods), 2)).round(3).tolist()
        most = share * np.abs(self.p_kw[:n_mtu])
        return [
            Bid(
                f"{pod} {direction.value}",
                "A",
                "P",
                direction,
                t_s,
                tuple(kw.tolist()),
                (PriceStep(float(kw.max()), prices[k][side]),),
                resource=pod,
            )
            for k, (pod, kw) in enumerate(zip(self.pods, most.T, strict=True))
            for side, direction in enumerate(Direction)
            if kw.max() > 0.0
        ]


def all_kept(known, capability_kw):
    return np.ones(len(known.rows.names), dtype=bool)


def assert_same(one, other, atol_kw=1e-4):
    """The same plan and the same limits left."""
    quantities = [{award.bid: np.array(award.quantity_kw) for award in each.awards} for each in (one, other)]
    for bid in {*quantities[0], *quantities[1]}:
        np.testing.assert_allclose(quantities[0].get(bid, 0.0), quantities[1].get(bid, 0.0), atol=atol_kw)
    np.testing.assert_allclose(one.cost_eur, other.cost_eur, atol=1e-5, rtol=1e-6)
    left = [{(u.mtu, u.kind, u.element): u.excess for u in each.unsolved} for each in (one, other)]
    assert set(left[0]) == set(left[1])
    for key, excess in left[0].items():
        np.testing.assert_allclose(excess, left[1][key], rtol=1e-4, atol=1e-6)


def config_of(kind, reactive, base, **more):
    base = "baseline" if kind == "ellipsoid" else base
    return {"uncertainty": {"set": kind, "reactive": reactive, "base": base}, **more}


@few
@given(feeder=feeders(), seed=seeds, kind=sets, reactive=reactives)
def test_where_nothing_is_foreseen_nothing_is_bought(feeder, seed, kind, reactive):
    """Limits as close as they can be without being a need, or planes away from there; all quantities looked at."""
    made = Market(feeder, seed, 1e3, **config_of(kind, reactive, "baseline", outer_loop=False))
    n_node = len(made.network.layout.nodes)
    made.limit(np.full(made.n_conductor, 1e9), np.zeros(n_node), np.full(n_node, 9.0))
    at = made.situation([0])
    rows = made.model.linearise(0, at.p_kw[0], at.q_kvar[0])
    half = at.half_p_kw[0], at.half_q_kvar[0]
    uncertainty = uncertainty_of(made.local.config.uncertainty, *half, made.local.kinds)
    size, reach = np.abs(rows.base), Protection(rows, uncertainty).reach(ceiling=False)
    upper, lower = (size + reach) * (1.0 + 1e-9), (size - reach) * (1.0 - 1e-9)
    i_max_a, v_max_pu = upper[: made.n_conductor], upper[made.n_conductor :]
    made.limit(i_max_a, lower[made.n_conductor :], v_max_pu)
    assert made.local.foreseen(at) == ()
    made.limit(i_max_a / POLYGON, lower[made.n_conductor :], v_max_pu / FAN)
    with patch.object(market_session, "_in_question", all_kept):
        result = made.local.clear(at, made.bids(1), made.resources)
    assert result.awards == ()
    assert result.unsolved == ()
    assert result.cost_eur == 0.0
    made.limit(0.999 * i_max_a, lower[made.n_conductor :], v_max_pu)
    named = {found.element for found in made.local.foreseen(at)}
    assert named == {name for name, a in zip(rows.conductors, i_max_a, strict=True) if a > 0.0}


@few
@given(feeder=feeders(), seed=seeds, reactive=reactives)
def test_no_corner_of_the_box_breaks_a_limit_of_the_power_flow(feeder, seed, reactive):
    """After a session that left nothing unsolved; resources deliver what was awarded."""
    made = Market(feeder, seed, 0.05, **config_of("box", reactive, "baseline"))
    at = made.situation([0])
    result = made.local.clear(at, made.bids(1), made.resources)
    if result.unsolved or result.excess:
        return
    p_kw, q_kvar = at.p_kw[0].copy(), at.q_kvar[0].copy()
    for award in result.awards:
        resource, _, direction = award.bid.partition(" ")
        change_kw = Direction(direction).delta_p_kw(award.quantity_kw[0])
        p_kw[made.pods.index(resource)] += change_kw
        q_kvar[made.pods.index(resource)] += made.resources[resource].kvar_per_kw * change_kw
    n = len(p_kw)
    xi = np.sign(np.random.default_rng(seed).uniform(-1.0, 1.0, (100, 2 * n)))
    xi[:, n:] = xi[:, :n] if reactive == "with_active" else xi[:, n:]
    size = made.model.magnitudes(0, p_kw + xi[:, :n] * made.half_kw, q_kvar + xi[:, n:] * made.half_kvar)
    rows = made.model.linearise(0, p_kw, q_kvar)
    of = len(rows.conductors)
    assert (size[:, :of] <= rows.i_max_a * (1.0 + 2.0 * EXCESS_PU)).all()
    assert (size[:, of:] <= rows.upper[of:] + 2.0 * EXCESS_PU).all()
    assert (size[:, of:] >= rows.lower[of:] - 2.0 * EXCESS_PU).all()


@few
@given(feeder=feeders(), seed=seeds, kind=sets, reactive=reactives, base=bases, outer_loop=st.booleans())
def test_leaving_quantities_out_changes_nothing(feeder, seed, kind, reactive, base, outer_loop):
    made = Market(feeder, seed, 0.1, **config_of(kind, reactive, base, outer_loop=outer_loop))
    at, bids = made.situation([1]), made.bids(1)
    screened = made.local.clear(at, bids, made.resources)
    with patch.object(market_session, "_in_question", all_kept):
        whole = made.local.clear(at, bids, made.resources)
    assert len(screened.clearing.case.networks[0].names) <= len(whole.clearing.case.networks[0].names)
    assert_same(screened, whole)


@few
@given(feeder=feeders(), seed=seeds, kind=sets, reactive=reactives, base=bases)
def test_a_day_ahead_is_as_many_sessions_when_nothing_couples_them(feeder, seed, kind, reactive, base):
    made = Market(feeder, seed, 0.05, **config_of(kind, reactive, base, outer_loop=False))
    cases = [0, 1, 2, 3]
    together = made.local.clear(made.situation(cases), made.bids(4, share=0.4), made.resources)
    cost = 0.0
    for t in cases:
        bids = [replace(bid, t_s=900 * t, quantity_kw=bid.quantity_kw[t : t + 1]) for bid in made.bids(4, share=0.4)]
        alone = made.local.clear(made.situation([t], 900 * t), bids, made.resources)
        cost += alone.cost_eur
        mine = {award.bid: award.quantity_kw[0] for award in alone.awards}
        for award in together.awards:
            np.testing.assert_allclose(award.quantity_kw[t], mine.pop(award.bid, 0.0), atol=1e-4)
        assert mine == {}
        found = made.local.foreseen(made.situation(cases))
        assert made.local.foreseen(made.situation([t])) == tuple(replace(f, mtu=0) for f in found if f.mtu == t)
    np.testing.assert_allclose(together.cost_eur, cost, rtol=1e-6, atol=1e-5)
