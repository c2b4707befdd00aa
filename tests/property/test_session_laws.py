"""Laws of a session of the local market on random feeders, linearised and by their power flow."""

from unittest.mock import patch

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_feeders import engine_of, feeders

from cosim.domain.frames import frozen
from cosim.domain.market import Bid, Direction, PriceStep, Resource
from cosim.market import session as market_session
from cosim.market.feeder_model import FeederModel
from cosim.market.session import LocalMarket, Situation
from cosim.rng import rng_for
from cosim.scenario.market import MarketConfig

HEAD = "Line.HEAD@SRC"
few = settings(max_examples=15, deadline=None)
sets = st.sampled_from(["none", "box", "budget", "ellipsoid", "factors"])
reactives = st.sampled_from(["with_active", "independent"])
bases = st.sampled_from(["baseline", "residual"])


class Market:
    """A random feeder whose limits lie around what flows in its first case, and offers at all PODs."""

    def __init__(self, feeder, seed, tight, **config):
        script, yaml, (self.p_kw, self.q_kvar) = feeder
        engine = engine_of(script, yaml)
        network = engine.unloaded()
        engine.close()
        layout, self.rng = network.layout, rng_for(seed, "market")
        none = np.full(len(layout.conductors), np.nan), np.full(len(layout.nodes), np.nan)
        every = FeederModel(network, HEAD, np.full_like(none[0], 1e9), np.zeros_like(none[1]), none[1])
        size = every.magnitudes(0, self.p_kw[:1], self.q_kvar[:1])[0]
        i_a, v_pu = size[: len(none[0])], size[len(none[0]) :]
        near, limited = (self.rng.uniform(0.0, tight, len(size)), self.rng.random(len(size)) < 0.5)
        i_max_a = np.where(limited[: len(i_a)], np.maximum(i_a * (1.0 + near[: len(i_a)]), 0.5), np.nan)
        band = np.where(limited[len(i_a) :], 0.1 * near[len(i_a) :], np.nan)
        self.model = FeederModel(network, HEAD, i_max_a, v_pu - band, v_pu + band)
        self.pods, n = network.pods, len(network.pods)
        self.half_kw, self.half_kvar = self.rng.uniform(0.0, 0.1, (2, n)) * np.abs([self.p_kw[0], self.q_kvar[0]])
        kinds = tuple(self.rng.choice(["load", "pv"], n).tolist())
        self.local = LocalMarket(MarketConfig.model_validate(config), lambda position: self.model, kinds, 900)
        self.resources = {
            pod: Resource(pod, pod, "load", "A", 300.0, 300.0, kvar_per_kw=float(self.rng.uniform(-0.5, 0.5)))
            for pod in self.pods
        }

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


def all_kept(rows, uncertainty, capability_kw):
    return np.ones(len(rows.names), dtype=bool)


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
@given(feeder=feeders(), seed=st.integers(0, 1000), kind=sets, reactive=reactives, tight=st.sampled_from([0.1, 0.4]))
def test_where_nothing_is_foreseen_nothing_is_bought(feeder, seed, kind, reactive, tight):
    """Without looking at quantities first. Planes that lie outside of limits, so that both mean the same limit."""
    made = Market(feeder, seed, tight, **config_of(kind, reactive, "baseline", outer_loop=False, polygon="circumscribed"))
    at = made.situation([0])
    assume(not made.local.foreseen(at))
    with patch.object(market_session, "_in_question", all_kept):
        result = made.local.clear(at, made.bids(1), made.resources)
    assert result.awards == ()
    assert result.unsolved == ()
    assert result.cost_eur == 0.0


@few
@given(
    feeder=feeders(), seed=st.integers(0, 1000), kind=sets, reactive=reactives, base=bases, outer_loop=st.booleans()
)
def test_leaving_quantities_out_changes_nothing(feeder, seed, kind, reactive, base, outer_loop):
    made = Market(feeder, seed, 0.1, **config_of(kind, reactive, base, outer_loop=outer_loop))
    at, bids = made.situation([1]), made.bids(1, share=0.4)
    screened = made.local.clear(at, bids, made.resources)
    with patch.object(market_session, "_in_question", all_kept):
        whole = made.local.clear(at, bids, made.resources)
    assert len(screened.clearing.case.networks[0].names) <= len(whole.clearing.case.networks[0].names)
    assert_same(screened, whole)


@few
@given(feeder=feeders(), seed=st.integers(0, 1000), kind=sets, reactive=reactives, base=bases)
def test_a_day_ahead_is_as_many_sessions_when_nothing_couples_them(feeder, seed, kind, reactive, base):
    made = Market(feeder, seed, 0.05, **config_of(kind, reactive, base))
    cases = [0, 1, 2, 3]
    together = made.local.clear(made.situation(cases), made.bids(4, share=0.4), made.resources)
    cost = 0.0
    for t in cases:
        bids = [
            Bid(**{**vars(bid), "t_s": 900 * t, "quantity_kw": bid.quantity_kw[t : t + 1]})
            for bid in made.bids(4, share=0.4)
        ]
        alone = made.local.clear(made.situation([t], 900 * t), bids, made.resources)
        cost += alone.cost_eur
        mine = {award.bid: award.quantity_kw[0] for award in alone.awards}
        for award in together.awards:
            np.testing.assert_allclose(award.quantity_kw[t], mine.pop(award.bid, 0.0), atol=0.05)
        assert mine == {}
        assert made.local.foreseen(made.situation([t]))[:3] == tuple(
            f.__class__(0, f.kind, f.element, f.expected, f.worst, f.limit)
            for f in made.local.foreseen(made.situation(cases))
            if f.mtu == t
        )[:3]
    np.testing.assert_allclose(together.cost_eur, cost, rtol=1e-3, atol=1e-3)
