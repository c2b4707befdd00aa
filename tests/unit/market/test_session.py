"""A session of the local market on a feeder small enough to reason about: needs, purchases, and what is left."""

from dataclasses import replace

import numpy as np
import pytest
from small_market import DOWN, bid, network, resources

from cosim.domain.market import StorageLimit
from cosim.market import session as market_session
from cosim.market.ac_loop import EXCESS_PU
from cosim.market.highs import Highs
from cosim.market.network import network_part
from cosim.market.session import Foreseen, LocalMarket, Situation, uncertainty_of
from cosim.scenario.market import MarketConfig, UncertaintyConfig

HOUR_S = 3600


class Wire:
    """One conductor that carries 1 A for each kW drawn, reactive power a quarter turn behind; exact, or with currents
    that the power flow finds higher by ``more``."""

    def __init__(self, more=0.0, **limits):
        self.more, self.limits, self.seen = more, limits, []

    def linearise(self, mtu, p_kw, q_kvar):
        rows = network(p_kw, **self.limits)
        return replace(rows, q_kvar=q_kvar, base=rows.at(np.zeros(len(p_kw)), q_kvar))

    def around(self, p_kw, q_kvar):
        return None, self.linearise(0, p_kw, q_kvar)

    def magnitudes(self, mtu, p_kw, q_kvar):
        self.seen.append(mtu)
        at = [self.linearise(mtu, *point) for point in zip(p_kw, q_kvar, strict=True)]
        size = np.abs([rows.base for rows in at])
        size[:, 0] *= 1.0 + self.more
        return size


def market(wire=None, kinds=("load", "load"), mtu_s=HOUR_S, **config):
    wire = wire or Wire()
    return LocalMarket(MarketConfig.model_validate(config), lambda position: wire, kinds, mtu_s)


def situation(*p_kw, half=0.0, half_q=0.0, t_s=7200, q_kvar=0.0):
    """One MTU for each list of powers; half-bands are equal for all PODs."""
    p = np.array(p_kw, dtype=float)
    return Situation(t_s, p, np.full(p.shape, q_kvar), np.full(p.shape, half), np.full(p.shape, half_q), ())


def clear(of, at, *bids, own=None, **more):
    made = [replace(each, t_s=at.t_s) for each in bids]
    return of.clear(at, made, own or resources(at.p_kw.shape[1]), **more)


def bought(result):
    return {
        award.bid: award.quantity_kw[0] if len(award.quantity_kw) == 1 else award.quantity_kw for award in result.awards
    }


# --- needs ------------------------------------------------------------------------------------------------------


def test_a_need_is_a_limit_that_errors_may_break():
    at = situation([60.0, 30.0], [60.0, 50.0], half=8.0)
    assert market().foreseen(at) == (
        Foreseen(0, "i_max", "L@A.1", 90.0, 106.0, 100.0),
        Foreseen(1, "i_max", "L@A.1", 110.0, 126.0, 100.0),
    )
    assert market().foreseen(situation([60.0, 20.0], half=8.0)) == ()
    assert [found.mtu for found in market(uncertainty={"set": "none"}).foreseen(at)] == [1]


def test_errors_of_reactive_power_are_apart_or_come_with_those_of_active_power():
    at = situation([60.0, 20.0], half=3.0, half_q=12.0)
    (apart,) = market(uncertainty={"reactive": "independent"}).foreseen(at)
    assert apart.worst == pytest.approx(80.0 + 2 * 3.0 + 2 * 12.0)
    (together,) = market(uncertainty={"reactive": "with_active"}).foreseen(at)
    assert together.worst == pytest.approx(80.0 + 2 * np.hypot(3.0, 12.0))


def test_voltages_have_two_limits():
    low = Wire(v_drop_pu=[0.001, 0.002], i_max_a=np.nan)
    found = market(low).foreseen(situation([20.0, 38.0], half=2.0))
    assert found == (Foreseen(0, "v_min", "B.1", pytest.approx(0.904), pytest.approx(0.898), 0.9),)
    (high,) = market(low).foreseen(situation([-20.0, -39.0], half=2.0))
    assert (high.kind, high.limit) == ("v_max", 1.1)
    assert (high.expected, high.worst) == (pytest.approx(1.098), pytest.approx(1.104))
    assert market(low).foreseen(situation([20.0, 38.0])) == ()


# --- what is bought ---------------------------------------------------------------------------------------------


def test_as_much_is_bought_as_the_worst_errors_take():
    result = clear(market(), situation([60.0, 30.0], half=8.0), bid("P0 up", 50.0, 0.3), bid("P1 up", 4.0, 0.2))
    assert bought(result) == pytest.approx({"P1 up": 4.0, "P0 up": 2.0})
    assert result.cost_eur == pytest.approx(4.0 * 0.2 + 2.0 * 0.3)
    assert (result.unsolved, result.excess, result.rounds) == ((), (), 1)
    assert {(award.stage, award.buyer, award.t_s) for award in result.awards} == {("local", "dso", 7200)}


def test_generation_is_curtailed_against_reverse_flow():
    result = clear(market(), situation([-90.0, -40.0]), bid("P0 up", 50.0, 0.1), bid("P1 down", 50.0, 0.2, DOWN))
    assert bought(result) == pytest.approx({"P1 down": 30.0})


def test_deterministic_buys_for_the_expected_only():
    at = situation([60.0, 50.0], half=8.0)
    result = clear(market(uncertainty={"set": "none"}), at, bid("P0 up", 50.0, 0.3))
    assert bought(result) == pytest.approx({"P0 up": 10.0})


def test_what_is_missing_is_told():
    result = clear(market(), situation([60.0, 70.0]), bid("P0 up", 5.0, 0.3))
    assert bought(result) == pytest.approx({"P0 up": 5.0})
    (left,) = result.unsolved
    assert (left.mtu, left.kind, left.element, left.limit) == (0, "i_max", "L@A.1", 100.0)
    assert (left.excess, left.missing_kw) == (pytest.approx(25.0), pytest.approx(25.0))
    assert result.cost_eur == pytest.approx(1.5), "what is missing costs nothing"


def test_nobody_offers():
    result = clear(market(), situation([60.0, 70.0]))
    assert (result.awards, len(result.unsolved)) == ((), 1)


def test_flexibility_that_costs_more_than_the_limit_is_worth_is_not_bought():
    at, dear = situation([60.0, 70.0]), bid("P0 up", 50.0, 3.0)
    assert not clear(market(slack_eur_per_kwh=2.0), at, dear).awards
    assert clear(market(slack_eur_per_kwh=4.0), at, dear).awards


def test_prices_paid_follow_the_rule():
    at, bids = situation([60.0, 70.0]), [bid("P0 up", 20.0, 0.1), bid("P1 up", 20.0, 0.4)]
    for rule, first in (("pay_as_bid", 0.1), ("pay_as_clear", 0.4), ("pay_as_clear_uniform", 0.4)):
        result = clear(market(pricing=rule), at, *bids)
        paid = {award.bid: award.price_eur_per_kwh[0] for award in result.awards}
        assert paid == pytest.approx({"P0 up": first, "P1 up": 0.4}), rule
        assert {a.bid: a.bid_price_eur_per_kwh[0] for a in result.awards} == pytest.approx({"P0 up": 0.1, "P1 up": 0.4})


def test_a_held_interface_takes_as_much_down_as_up():
    wire, at = Wire(effect=[[1.0, 0.0]]), situation([110.0, 20.0])
    bids = [bid("P0 up", 50.0, 0.3), bid("P1 down", 50.0, 0.1, DOWN)]
    assert bought(clear(market(wire), at, *bids)) == pytest.approx({"P0 up": 10.0})
    held = clear(market(wire, interface="hold"), at, *bids)
    assert bought(held) == pytest.approx({"P0 up": 10.0, "P1 down": 10.0})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"overload": 0.05}, {"P0 up": 15.0}),
        ({"polygon": "circumscribed", "planes": 4, "outer_loop": False}, {}),  # the corner is at 141 A
        ({"planes": 4}, {"P0 up": 20.0}),
        ({"solver": "cbc"}, {"P0 up": 20.0}),
        ({"outer_loop": False}, {"P0 up": 20.0}),
    ],
)
def test_rules_of_the_scenario_reach_the_clearing(config, expected):
    result = clear(market(**config), situation([60.0, 60.0]), bid("P0 up", 50.0, 0.3))
    assert bought(result) == pytest.approx(expected)


def test_a_solver_has_the_time_of_the_scenario(monkeypatch):
    given = []

    def solver(time_limit_s, *more):
        given.append(time_limit_s)
        return Highs(time_limit_s, *more)

    monkeypatch.setattr(market_session, "Highs", solver)
    clear(market(time_limit_s=7.0), situation([60.0, 60.0]), bid("P0 up", 50.0, 0.3))
    assert given == [7.0]


def test_the_power_flow_has_the_last_word():
    """Currents are 2 % higher than the linear model has them; without the outer loop nobody notices."""
    at, offer = situation([60.0, 60.0]), bid("P0 up", 50.0, 0.3)
    result = clear(market(Wire(more=0.02)), at, offer)
    assert result.rounds > 1
    assert result.excess == ()
    drawn_kw = 120.0 - bought(result)["P0 up"]
    assert 0.999 * 100.0 <= 1.02 * drawn_kw <= (1.0 + EXCESS_PU) * 100.0
    blind = Wire(more=0.02)
    assert bought(clear(market(blind, outer_loop=False), at, offer)) == pytest.approx({"P0 up": 20.0})
    assert blind.seen == []


# --- several MTUs -----------------------------------------------------------------------------------------------


def test_storage_gives_what_it_takes():
    """10 kWh in store at the beginning; 15 kW are wanted in the second hour and 10 kW may be taken in the first."""
    at = situation([70.0, 20.0], [70.0, 45.0])
    limit = StorageLimit("P0", (0.0, 0.0), 10.0, 0.0, 20.0, 0.0, 1.0, 1.0)
    bids = [bid("P0 up", [30.0, 30.0], 0.3), bid("P0 down", [30.0, 30.0], 0.1, DOWN)]
    result = clear(market(), at, *bids, couplings=[limit])
    assert bought(result) == {"P0 up": pytest.approx((0.0, 15.0)), "P0 down": pytest.approx((5.0, 0.0))}
    assert bought(clear(market(), at, *bids)) == {"P0 up": pytest.approx((0.0, 15.0))}


def test_every_mtu_is_checked_by_the_power_flow():
    wire = Wire()
    clear(market(wire), situation([60.0, 70.0], [60.0, 20.0], [50.0, 70.0]), bid("P0 up", [50.0] * 3, 0.1))
    assert set(wire.seen) == {0, 1, 2}


# --- screening --------------------------------------------------------------------------------------------------


def test_quantities_that_nothing_offered_can_bring_to_a_limit_are_left_out():
    wire = Wire(v_drop_pu=[0.0001, 0.0001])
    result = clear(market(wire), situation([60.0, 60.0]), bid("P0 up", 50.0, 0.3))
    assert result.clearing.case.networks[0].names == ("L@A.1",)
    deep = clear(market(Wire(v_drop_pu=[0.0006, 0.0006])), situation([60.0, 60.0]), bid("P0 down", 60.0, 0.3, DOWN))
    assert deep.clearing.case.networks[0].names == ("L@A.1", "B.1")


def test_a_rebound_may_bring_a_quantity_to_its_limit():
    """120 kW with 100 kW shed and half of that coming back an hour later, when 90 kW are drawn."""
    at, own = situation([120.0, 0.0], [90.0, 0.0]), resources(2, rebound=(0.5,))
    result = clear(market(), at, bid("P0 up", [100.0, 0.0], 0.3), bid("P1 up", [0.0, 30.0], 0.2), own=own)
    assert bought(result) == {"P0 up": pytest.approx((20.0, 0.0))}
    tight = clear(
        market(),
        situation([120.0, 0.0], [95.0, 0.0]),
        bid("P0 up", [100.0, 0.0], 0.3),
        bid("P1 up", [0.0, 30.0], 0.2),
        own=own,
    )
    assert bought(tight) == {"P0 up": pytest.approx((20.0, 0.0)), "P1 up": pytest.approx((0.0, 5.0))}


def test_a_band_that_widens_with_what_is_sold_is_in_question_too():
    """70 kW down on 70 kW: the band is then twice as wide, which brings the voltage from 0.853 pu to 0.846 pu."""
    wire = Wire(i_max_a=np.nan, v_drop_pu=[0.001, 0.0], v_limits=(0.848, 1.1))
    at = replace(situation([70.0, 1.0]), half_p_kw=np.array([[7.0, 0.0]]))
    for base, names in (("residual", ("B.1",)), ("baseline", ())):
        result = clear(market(wire, uncertainty={"base": base}), at, bid("P0 down", 70.0, 0.1, DOWN))
        assert result.clearing.case.networks[0].names == names


def test_a_part_of_the_network_is_the_same_network():
    rows = network([60.0, 30.0], v_drop_pu=[0.001, 0.002])
    for keep, names in (([True, False], ("L@A.1",)), ([False, True], ("B.1",)), ([False, False], ())):
        part = network_part(rows, np.array(keep))
        assert part.names == names
        np.testing.assert_array_equal(part.base, rows.base[keep])
        np.testing.assert_array_equal(part.by_p, rows.by_p[keep])
        np.testing.assert_array_equal(part.by_q, rows.by_q[keep])
        np.testing.assert_array_equal(part.upper, rows.upper[keep])
        np.testing.assert_array_equal(part.lower, rows.lower[keep])
        np.testing.assert_array_equal(part.head_by_p, rows.head_by_p)


# --- sets of forecast errors ------------------------------------------------------------------------------------

HALF_P, HALF_Q, KINDS = np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0, 0.5]), ("load", "pv", "load")


def largest(effect, **config):
    """Largest sum of effects times errors (n_xi,)."""
    made = uncertainty_of(UncertaintyConfig.model_validate(config), HALF_P, HALF_Q, KINDS)
    loadings = np.eye(made.n_xi) if made.set.loadings is None else made.set.loadings
    return made.set.largest(np.asarray(effect, dtype=float) @ loadings)


@pytest.mark.parametrize("reactive", ["with_active", "independent"])
def test_sets_of_the_scenario(reactive):
    more = {} if reactive == "with_active" else {"more": 3}
    one = np.array([1.0, -2.0, 4.0] + [0.0] * more.get("more", 0))
    given = {"reactive": reactive}
    assert largest(one, set="box", **given) == 7.0
    assert largest(one, set="budget", gamma=1.5, **given) == 5.0
    assert largest(one, set="ellipsoid", omega=2.0, **given) == pytest.approx(2.0 * np.sqrt(21.0))
    assert largest(one, set="ellipsoid", omega=2.0, correlation=1.0, **given) == pytest.approx(2.0 * 3.0)
    assert largest(one, set="factors", common=0.0, **given) == pytest.approx(7.0)
    assert largest(one, set="factors", common=1.0, **given) == pytest.approx(5.0 + 2.0), "loads together, PV apart"


def test_factors_of_active_and_of_reactive_power_are_apart():
    assert largest([1.0, 0, 0, -1.0, 0, 0], set="factors", common=1.0, reactive="independent") == pytest.approx(2.0)


def test_without_uncertainty_there_are_no_bands():
    made = uncertainty_of(UncertaintyConfig(set="none"), HALF_P, HALF_Q, KINDS)
    assert not made.half_p_kw.any()
    assert not made.half_q_kvar.any()
    kept = uncertainty_of(UncertaintyConfig(base="residual", reactive="with_active"), HALF_P, HALF_Q, KINDS)
    assert (kept.base, kept.reactive) == ("residual", "with_active")
    np.testing.assert_array_equal(kept.half_p_kw, HALF_P)
