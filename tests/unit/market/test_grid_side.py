"""Measures chosen before flexibility is bought, or together with it."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from small_market import DOWN, bid, case, kw, network

from cosim.domain.market import Bid, Direction, Need, PriceStep, Resource
from cosim.errors import BidError, FeederError, MarketError, PowerFlowError, SolverError
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.grid.measures import CapacitorMeasure, SwitchMeasure, TapMeasure
from cosim.market.ac_loop import clear_with_ac
from cosim.market.case import ClearingCase
from cosim.market.clearing import clear
from cosim.market.feeder_model import FeederModel
from cosim.market.grid_side import choose_measures, forecast_excess_pu
from cosim.market.highs import Highs
from cosim.market.uncertainty import Uncertainty, box
from cosim.scenario.schema import GridConfig

P_KW = np.array([80.0, 40.0])
BIDS = [bid("P0 a", 50.0, 1.0), bid("P1 b", 50.0, 2.0)]
START = {"a": 0, "b": 0}


def tap(name, eur, low=-2, high=2, **more):
    return TapMeasure(
        name=name, element=f"Transformer.{name}", low=low, high=high, step_pu=0.01, eur_per_move=eur, **more
    )


class Toy:
    """A limit of 100 A that each position of ``a`` moves by 8 A and of ``b`` by 5 A; at 120 kW it is 20 A short."""

    def __init__(self, a_eur=3.0, b_eur=4.0, **more):
        self.measures = (tap("a", a_eur, **more), tap("b", b_eur))
        self.asked = []

    def __call__(self, positions):
        self.asked.append(tuple(positions.values()))
        self.positions = positions
        return self.at(positions)

    def at(self, positions):
        limit = 100.0 + 8.0 * positions["a"] + 5.0 * positions["b"]

        class Model:
            def linearise(self, mtu, p_kw, q_kvar):
                return network(p_kw, limit)

        return Model()

    def case(self, bids=BIDS, p_kw=P_KW, **more):
        return case(bids, network(p_kw, 100.0), **more)

    def choose(self, mode, case=None, **more):
        return choose_measures(case or self.case(), self.measures, START, self, mode, **more)


def test_no_measure_moves_where_no_limit_is_exceeded():
    toy = Toy(a_eur=0.0, b_eur=0.0)
    for mode in ("before", "with"):
        found = toy.choose(mode, toy.case(p_kw=[60.0, 40.0]))
        assert (found.positions, found.moves, found.cost_eur, found.looked_at) == (START, {}, 0.0, 1)
        assert found.excess_pu == 0.0
    assert found.clearing.cost_eur == 0.0


def test_before_takes_the_cheapest_moves_that_keep_the_limits():
    """20 A: one of a and three of b would do, but b has two; two of a and one of b cost 10."""
    found = Toy().choose("before")
    assert found.positions == {"a": 2, "b": 1}
    assert (found.moves, found.cost_eur, found.excess_pu) == ({"a": 2, "b": 1}, 10.0, 0.0)
    assert found.clearing is None
    assert clear(found.case).cost_eur == 0.0
    assert found.unseen_from_eur is None


def test_before_protects_against_forecast_errors():
    """5 % of 120 kW are 6 A more: two of a and two of b just do."""
    toy = Toy()
    band = Uncertainty(0.05 * P_KW, np.zeros(2), box())
    assert toy.choose("before", toy.case(uncertainty=(band,))).positions == {"a": 2, "b": 2}


def test_before_leaves_the_least_if_nothing_keeps_the_limits():
    toy = Toy()
    found = toy.choose("before", toy.case(p_kw=[100.0, 40.0]))
    assert found.positions == {"a": 2, "b": 2}
    assert found.excess_pu == pytest.approx((140.0 - 126.0) / (126.0))
    assert clear(found.case).cost_eur == pytest.approx(14.0 * 1.0)
    assert found.looked_at == 25


def test_a_measure_without_effect_on_what_is_left_does_not_move():
    class Idle(Toy):
        def at(self, positions):
            return super().at({**positions, "b": 0})

    found = Idle().choose("before", Toy().case(p_kw=[100.0, 40.0]))
    assert found.positions == {"a": 2, "b": 0}


def test_with_buys_where_flexibility_is_cheaper_than_a_move():
    assert Toy(a_eur=9.0, b_eur=9.0).choose("with").moves == {}
    found = Toy(a_eur=3.0, b_eur=6.0).choose("with")
    assert (found.moves, found.cost_eur) == ({"a": 2}, 6.0)
    assert kw(found.clearing) == pytest.approx({"P0 a": 4.0, "P1 b": 0.0})
    assert found.total_eur == pytest.approx(10.0)
    assert found.excess_pu == pytest.approx(4.0 / (116.0))


def brute_force(toy, mode, made):
    """Least value over all combinations, of equals the fewest moves, then those of the first measure."""
    found = []
    for a, b in product(*(measure.positions for measure in toy.measures)):
        at = case_at(made, toy.at({"a": a, "b": b}))
        cost = abs(a) * toy.measures[0].eur_per_move + abs(b) * toy.measures[1].eur_per_move
        value = forecast_excess_pu(at) if mode == "before" else cost + clear(at).objective_eur
        first = (round(value, 5), cost) if mode == "before" else (round(value, 5),)
        found.append((*first, abs(a) + abs(b), -abs(a), -abs(b), a, b))
    return dict(zip("ab", min(found)[-2:], strict=True))


def case_at(made, model):
    rows = tuple(model.linearise(t, net.p_kw, net.q_kvar) for t, net in enumerate(made.networks))
    return replace(made, networks=rows)


@pytest.mark.parametrize("mode", ["before", "with"])
@pytest.mark.parametrize("prices", [(3.0, 4.0), (8.0, 5.0), (0.0, 1.0), (0.0, 0.0), (7.9, 5.1), (100.0, 100.0)])
@pytest.mark.parametrize("load_kw", [100.0, 120.0, 140.0])
def test_choices_are_those_of_all_combinations(mode, prices, load_kw):
    toy = Toy(*prices)
    made = toy.case(p_kw=[load_kw - 40.0, 40.0])
    assert toy.choose(mode, made).positions == brute_force(toy, mode, made)


def test_equal_costs_have_fewer_moves_then_those_of_the_first_measure():
    """Two moves of a cost as much as buying their 16 A: nothing moves. One of each for nothing: a before b."""
    assert Toy(a_eur=8.0, b_eur=99.0).choose("with").moves == {}

    class Same(Toy):
        def at(self, positions):
            return super().at({"a": abs(positions["a"]) + abs(positions["b"]), "b": 0})

    same = Same(a_eur=1.0, b_eur=1.0)
    for mode in ("before", "with"):
        assert same.choose(mode).positions == {"a": -2, "b": -1}


def test_of_equal_totals_fewer_but_dearer_moves_win():
    """One move of a for 10 and 8 A bought, or two of b for 8 and 10 A bought: the latter are looked at first."""

    class Wide(Toy):
        def at(self, positions):
            return super().at({"a": 1.5 * positions["a"], "b": positions["b"]})

    found = Wide(10.0, 4.0).choose("with", allows=lambda p: (p["a"], p["b"]) in {(0, 0), (0, 2), (1, 0)})
    assert (found.moves, found.total_eur) == ({"a": 1}, pytest.approx(18.0))


def test_costs_above_what_is_found_are_not_looked_at():
    """Nothing costs more than buying for 20 EUR."""
    toy = Toy(a_eur=9.0, b_eur=11.0)
    found = toy.choose("with")
    assert found.looked_at == len(toy.asked) < 25
    assert max(9.0 * abs(a) + 11.0 * abs(b) for a, b in toy.asked) <= 20.0


def test_bids_below_zero_are_part_of_the_bound():
    """A bid that pays for being taken makes a clearing cheaper than nothing: dearer moves that let it in are found."""
    toy = Toy(a_eur=3.0, b_eur=4.0)
    made = toy.case([*BIDS, bid("P1 d", 30.0, -5.0, DOWN)], p_kw=[80.0, 20.0])
    found = toy.choose("with", made)
    assert found.positions == brute_force(toy, "with", made) == {"a": 2, "b": 2}
    assert found.cost_eur == 14.0


def test_buyers_with_a_price_limit_are_part_of_the_bound():
    toy = Toy(a_eur=3.0, b_eur=4.0)
    need = Need("n", "BRP", 0, (-26.0,), max_price_eur_per_kwh=5.0)
    found = toy.choose("with", toy.case([bid("P1 d", 30.0, 0.1, DOWN)], p_kw=[80.0, 20.0], needs=(need,)))
    assert found.positions == {"a": 2, "b": 2}
    assert found.clearing.bought_kw["n"] == pytest.approx((26.0,))


def test_a_cap_on_combinations_is_reported():
    found = Toy().choose("before", max_combinations=7)
    assert found.looked_at == 7
    assert (found.cost_eur, found.unseen_from_eur) == (6.0, 7.0)
    assert found.excess_pu > 0.0
    assert Toy().choose("with", max_combinations=1000).unseen_from_eur is None


def test_moves_of_the_day_are_limited():
    toy = Toy(moves_per_day=3)
    assert toy.choose("before").moves == {"a": 2, "b": 1}
    limited = toy.choose("before", moved={"a": 2})
    assert limited.moves == {"a": 1, "b": 2}
    assert limited.excess_pu == pytest.approx(2.0 / (118.0))
    assert toy.choose("before", moved={"a": 5}).moves == {"b": 2}


def test_positions_that_are_not_allowed_are_passed_over():
    found = Toy().choose("before", allows=lambda positions: positions["a"] < 2)
    assert found.positions == {"a": 1, "b": 2}
    toy = Toy()
    with pytest.raises(MarketError, match="none of 25 combinations of positions is allowed"):
        toy.choose("before", allows=lambda _: False)
    assert toy.asked == []


def test_a_combination_without_power_flow_is_named_and_passed_over():
    class Fails(Toy):
        def __call__(self, positions):
            if positions["a"] == 2:
                raise PowerFlowError("does not converge")
            return super().__call__(positions)

    found = Fails().choose("before")
    assert found.positions == {"a": 1, "b": 2}
    assert "a=2, b=0: does not converge" in found.failed


def test_what_no_position_makes_feasible_is_an_error_of_the_first():
    hard, toy = {"slack_eur_per_kwh": None}, Toy(a_eur=100.0, b_eur=100.0)
    with pytest.raises(MarketError, match=r"i_max of L@A\.1"):
        toy.choose("with", toy.case([], p_kw=[100.0, 40.0], settings=hard))
    found = toy.choose("with", toy.case([bid("P0 a", 8.0, 1.0)], settings=hard))
    assert (found.moves, found.total_eur) == ({"a": 2}, pytest.approx(204.0))
    assert found.failed[0].startswith("a=0, b=0: ")
    assert len(found.failed) == 11  # all that cost no more and leave more than 8 kW


def test_a_solver_that_fails_is_not_passed_over():
    """It says nothing of the combination: e.g. its time was up."""

    class Fails(Highs):
        def solve(self, program, with_duals=True):
            if toy.asked[-1] != (0, 0):
                raise SolverError("time is up")
            return super().solve(program, with_duals)

    toy = Toy()
    with pytest.raises(SolverError, match="time is up"):
        toy.choose("with", solver=Fails())


def test_measures_are_weighed_by_cost_only():
    with pytest.raises(BidError, match=r"objective: .*got most_up; allowed: least_cost"):
        Toy().choose("with", Toy().case(settings={"objective": "most_up"}))


def test_one_position_holds_in_all_mtus():
    toy = Toy()
    two = case([bid("P0 a", (50.0, 50.0), 1.0)], [network(P_KW, 100.0), network([100.0, 15.0], 100.0)])
    found = toy.choose("before", two)
    assert found.positions == {"a": 2, "b": 1}
    start = toy.choose("before", two, max_combinations=1)
    assert start.excess_pu == pytest.approx(35.0 / (100.0))
    assert [net.i_max_a[0] for net in found.case.networks] == pytest.approx([121.0] * 2)


def test_what_earlier_stages_awarded_counts():
    made = Toy().case([bid("P0 a", 50.0, 1.0)], locked={"P0 a": (12.0,)})
    assert forecast_excess_pu(made) == pytest.approx(8.0 / (100.0))
    assert Toy().choose("before", made).moves == {"a": 1}


# --- feeders ---

MODELS = Path(__file__).parents[3] / "dss_models"
PRIMARY = TapMeasure(name="TR0", element="Transformer.TR0", low=-5, high=5, step_pu=0.01, winding=2, eur_per_move=20.0)


class Feeder:
    """A feeder at its full load, whose loads may be lowered at 0.3 EUR/kWh; voltages from ``v_min`` on."""

    def __init__(self, name, measures, v_min, load=1.0):
        self.feeder, self.measures = load_feeder(MODELS / name), measures
        self.engine = Engine(self.feeder, GridConfig(), measures)
        self.start = self.engine.measure_positions()
        layout, outside = self.engine.layout, set(self.engine.layout.above(self.feeder.head_terminal))
        v_min = np.array([v_min if node.rpartition(".")[0] not in outside else np.nan for node in layout.nodes])
        none = np.full(len(layout.conductors), np.nan)
        self.limits = none, v_min, np.full(len(layout.nodes), 1.08)
        self.made = {}
        pods = self.feeder.pods.values()
        self.p_kw = load * np.array([max(pod.p_per_profile_kw, 0.0) for pod in pods])
        self.q_kvar = load * np.array([pod.q_per_profile_kvar if pod.kind == "load" else 0.0 for pod in pods])

    def models(self, positions):
        key = tuple(sorted(positions.items()))
        if key not in self.made:
            network = self.engine.unloaded(None, positions)
            self.made[key] = FeederModel(network, self.feeder.head_terminal, *self.limits)
        return self.made[key]

    def case(self, half_band=0.0):
        rows = self.models(self.start).linearise(0, self.p_kw, self.q_kvar)
        bids, resources = [], {}
        for pod, p, q in zip(rows.pods, self.p_kw.tolist(), self.q_kvar.tolist(), strict=True):
            if p > 0.0:
                resources[pod] = Resource(pod, pod, "load", "A", p, 0.0, kvar_per_kw=q / p)
                bids.append(Bid(pod, "A", "P", Direction.UP, 0, (p,), (PriceStep(p, 0.3),), resource=pod))
        band = Uncertainty(half_band * self.p_kw, half_band * self.q_kvar, box())
        return ClearingCase(tuple(bids), resources, (rows,), 0, 900, uncertainty=(band,))

    def choose(self, mode, half_band=0.0, **more):
        return choose_measures(
            self.case(half_band), self.measures, self.start, self.models, mode, allows=self.engine.allows, **more
        )

    def least_pu(self, positions, xi=0.0):
        """Lowest voltage less the limit, by OpenDSS."""
        engine = Engine(self.feeder, GridConfig(), self.measures)
        engine.set_measures(positions)
        vm_pu = engine.solve((1.0 + xi) * self.p_kw, (1.0 + xi) * self.q_kvar).vm_pu
        engine.close()
        return float(np.nanmin(vm_pu - self.limits[1]))

    def close(self):
        self.engine.close()


@pytest.fixture(scope="module")
def mv5():
    made = Feeder("mv5", (PRIMARY,), v_min=0.98)
    yield made
    made.close()


@pytest.mark.parametrize("half_band", [0.0, 0.2])
def test_a_tap_cures_a_low_voltage_and_nothing_is_bought(mv5, half_band):
    assert mv5.least_pu(mv5.start) < -0.005
    found = mv5.choose("before", half_band)
    cleared = clear_with_ac(found.case, mv5.models(found.positions).linearise, mv5.models(found.positions).magnitudes)
    assert (cleared.clearing.cost_eur, cleared.clearing.unsolved, cleared.excess) == (0.0, (), ())
    assert mv5.least_pu(found.positions, half_band) > -1e-4
    one_less = {"TR0": found.positions["TR0"] - 1}
    assert mv5.least_pu(one_less, half_band) < -1e-4
    assert found.cost_eur == 20.0 * found.moves["TR0"]


def test_a_wide_band_takes_one_more_move(mv5):
    assert mv5.choose("before", 0.2).moves["TR0"] > mv5.choose("before").moves["TR0"]


def test_with_is_no_dearer_than_either_alone(mv5):
    alone, before, both = clear(mv5.case()).objective_eur, mv5.choose("before"), mv5.choose("with")
    assert both.total_eur <= min(alone, before.cost_eur) + 1e-6
    least = min(
        abs(n - 2) * 20.0 + clear(case_at(mv5.case(), mv5.models({"TR0": n}))).objective_eur for n in PRIMARY.positions
    )
    assert both.total_eur == pytest.approx(least, abs=1e-6)


def test_a_position_that_a_measure_does_not_have_is_refused(mv5):
    with pytest.raises(FeederError, match=r"measures\.TR0: no such position; got 9; allowed: -5 to 5"):
        mv5.models({"TR0": 9})


def test_capacitors_and_switches_of_ieee123():
    """All combinations by brute force; those in which a switch would cut off buses are passed over."""
    measures = (
        CapacitorMeasure(name="C83", element="Capacitor.c83", high=1, eur_per_move=2.0),
        SwitchMeasure(name="SW4", element="Line.sw4", eur_per_move=1.0),
        SwitchMeasure(name="SW7", element="Line.sw7", eur_per_move=1.0),
    )
    made = Feeder("ieee123", measures, v_min=0.93, load=0.9)
    for mode in ("before", "with"):
        found = made.choose(mode)
        values = {}
        for each in product((0, 1), repeat=3):
            positions = dict(zip(("C83", "SW4", "SW7"), each, strict=True))
            moves = {name: abs(positions[name] - made.start[name]) for name in positions}
            if moves["SW4"] != moves["SW7"]:
                assert not made.engine.allows(positions)
                continue
            cost = 2.0 * moves["C83"] + moves["SW4"] + moves["SW7"]
            at = case_at(made.case(), made.models(positions))
            value = (forecast_excess_pu(at), cost) if mode == "before" else (cost + clear(at).objective_eur,)
            values[each] = value
        best = min(values, key=values.get)
        assert found.positions == dict(zip(("C83", "SW4", "SW7"), best, strict=True))
        assert len(values) == 4
    made.close()
