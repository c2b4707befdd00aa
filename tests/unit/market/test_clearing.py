import numpy as np
import pytest
from small_market import DOWN, UP, bid, case, kw, network, resources

from cosim.domain.market import Bid, Need, PriceStep
from cosim.errors import MarketError
from cosim.market.case import HOLD
from cosim.market.clearing import binding_rows, clear
from cosim.market.highs import Highs
from cosim.market.planes import LimitSettings
from cosim.market.reference import Reference
from cosim.market.uncertainty import Uncertainty, box, budget

TWO = [bid("P0 a", 50.0, 1.0), bid("P1 b", 50.0, 2.0)]


def test_nothing_is_bought_when_nothing_is_violated():
    cleared = clear(case(TWO, network([40.0, 40.0])))
    assert cleared.awarded_kw.sum() == 0.0
    assert cleared.cost_eur == cleared.objective_eur == 0.0
    assert cleared.program.n_row == 0


def test_least_cost_first():
    cleared = clear(case(TWO, network([80.0, 80.0]))).require_solved()
    assert kw(cleared) == pytest.approx({"P0 a": 50.0, "P1 b": 10.0})
    assert cleared.cost_eur == pytest.approx(50.0 + 20.0)


def test_effect_counts_not_price_alone():
    cleared = clear(case(TWO, network([50.0, 50.0], i_max_a=80.0, effect=[0.4, 1.2])))
    assert kw(cleared) == pytest.approx({"P0 a": 0.0, "P1 b": 0.0})
    cleared = clear(case(TWO, network([50.0, 50.0], i_max_a=68.0, effect=[0.4, 1.2])))
    assert kw(cleared) == pytest.approx({"P0 a": 0.0, "P1 b": 10.0})


def test_reverse_flow_is_relieved_downward():
    cleared = clear(case([bid("P0 d", 50.0, 1.0, DOWN), *TWO], network([-80.0, -40.0])))
    assert kw(cleared) == pytest.approx({"P0 d": 20.0, "P0 a": 0.0, "P1 b": 0.0})


def test_price_steps_fill_from_the_cheapest():
    stepped = Bid("s", "A", "P", UP, 0, (35.0,), (PriceStep(20.0, 1.0), PriceStep(30.0, 3.0)), resource="P0")
    cleared = clear(case([stepped, bid("P1 b", 50.0, 2.0)], network([80.0, 80.0])))
    assert kw(cleared) == pytest.approx({"s": 20.0, "P1 b": 40.0})
    cleared = clear(case([stepped], network([80.0, 60.0])))
    assert kw(cleared) == pytest.approx({"s": 35.0})
    assert cleared.unsolved[0].excess == pytest.approx(5.0)


def test_voltage_limits_low_and_high():
    low = network([60.0, 20.0], v_drop_pu=[1e-3, 1.5e-3], v_limits=(0.92, 1.1))
    assert kw(clear(case(TWO, low))) == pytest.approx({"P0 a": 10.0, "P1 b": 0.0})
    high = network([-60.0, -20.0], v_drop_pu=[1e-3, 2e-3], v_limits=(0.9, 1.08))
    cleared = clear(case([bid("P0 d", 50.0, 1.0, DOWN), bid("P1 d", 50.0, 1.5, DOWN)], high))
    fan = np.cos(np.radians(1.0))  # three planes stay that much below an upper limit
    assert kw(cleared) == pytest.approx({"P0 d": 0.0, "P1 d": (1.1 - fan * 1.08) / 2e-3})


@pytest.mark.parametrize("voltage", ["projection", "norm"])
def test_both_voltage_rows_are_safe(voltage):
    low = network([60.0, 20.0], v_drop_pu=[1e-3, 2e-3], v_limits=(0.92, 1.1))
    cleared = clear(case(TWO, low, settings={"limits": LimitSettings(voltage=voltage)})).require_solved()
    z = cleared.networks[0].state(cleared.solution.x).z
    assert abs(z[1]) >= 0.92 - 1e-9


def test_what_cannot_be_solved_is_reported_with_the_plan_that_does_most():
    cleared = clear(case(TWO, [network([40.0, 40.0]), network([150.0, 80.0])][1:]))
    assert kw(cleared) == pytest.approx({"P0 a": 50.0, "P1 b": 50.0})
    (left,) = cleared.unsolved
    assert (left.mtu, left.kind, left.element, left.unit, left.limit) == (0, "i_max", "L@A.1", "A", 100.0)
    assert left.excess == left.missing_kw == pytest.approx(30.0)
    assert str(left) == "i_max of L@A.1 in MTU 0: 30 A (30 %) beyond 100"
    with pytest.raises(MarketError, match="30 A"):
        cleared.require_solved()


def test_a_violation_that_no_bid_reaches_is_reported_too():
    cleared = clear(case([bid("P0 a", 50.0, 1.0)], network([80.0, 80.0], effect=[0.0, 2.0])))
    assert kw(cleared) == {"P0 a": 0.0}
    assert cleared.unsolved[0].excess == pytest.approx(60.0)


def test_without_slack_the_rows_that_contradict_are_named():
    with pytest.raises(MarketError, match=r"no plan: .*i_max of L@A\.1 in MTU 0"):
        clear(case(TWO, network([150.0, 80.0]), settings={"slack_eur_per_kwh": None}))


def test_only_the_mtu_in_trouble_is_treated():
    days = [network([40.0, 40.0]), network([80.0, 40.0]), network([40.0, 40.0])]
    bids = [bid("P0 a", [50.0, 50.0, 50.0], 1.0)]
    assert kw(clear(case(bids, days))) == {"P0 a": pytest.approx([0.0, 20.0, 0.0])}


def test_of_equal_bids_the_earlier_is_taken_then_the_first_by_name():
    equal = [bid("P1 b", 50.0, 1.0, submitted_s=9), bid("P0 a", 50.0, 1.0, submitted_s=10)]
    assert kw(clear(case(equal, network([80.0, 50.0])))) == pytest.approx({"P1 b": 30.0, "P0 a": 0.0})
    equal = [bid("P1 b", 50.0, 1.0), bid("P0 a", 50.0, 1.0)]
    for solver in (Highs(), Reference("cbc"), Reference("highs")):
        for bids in (equal, equal[::-1]):
            found = kw(clear(case(bids, network([80.0, 50.0])), solver))
            assert found == pytest.approx({"P0 a": 30.0, "P1 b": 0.0}, abs=1e-5)


def test_a_used_solver_gives_bit_for_bit_what_a_fresh_one_does():
    rng = np.random.default_rng(1)
    cases = []
    for _ in range(12):
        p_kw = rng.uniform(0.0, 80.0, 6)
        bids = [bid(f"P{k} x", float(rng.uniform(5.0, 30.0)), float(rng.uniform(0.1, 1.0))) for k in range(6)]
        cases.append(case(bids, network(p_kw, i_max_a=150.0, effect=rng.uniform(0.5, 1.5, 6))))
    used = Highs()
    for each in (*cases, *cases[::-1]):
        again, fresh = clear(each, used), clear(each, Highs())
        np.testing.assert_array_equal(again.awarded_kw, fresh.awarded_kw)
        np.testing.assert_array_equal(again.solution.row_dual, fresh.solution.row_dual)


def test_linear_programs_have_no_integers():
    assert not clear(case(TWO, network([80.0, 80.0]))).program.columns.integer.any()


class TestUncertainty:
    BAND = np.array([8.0, 4.0])

    def cleared(self, **more):
        uncertain = Uncertainty(self.BAND, np.zeros(2), more.pop("set", box()), **more)
        return clear(case(TWO, network([80.0, 40.0]), uncertainty=(uncertain,)))

    def test_box(self):
        assert kw(self.cleared()) == pytest.approx({"P0 a": 32.0, "P1 b": 0.0})

    def test_budget(self):
        assert kw(self.cleared(set=budget(1.5)))["P0 a"] == pytest.approx(20.0 + 8.0 + 2.0)

    def test_residual_band_shrinks_with_the_load(self):
        x = kw(self.cleared(base="residual"))["P0 a"]
        assert 120.0 - x + 8.0 * (1.0 - x / 80.0) + 4.0 == pytest.approx(100.0)

    def test_residual_band_with_a_budget(self):
        x = kw(self.cleared(base="residual", set=budget(1.0)))["P0 a"]
        assert 120.0 - x + 8.0 * (1.0 - x / 80.0) == pytest.approx(100.0)

    def test_reim_is_the_box_where_all_effects_point_along_the_current(self):
        assert kw(self.cleared(worst_case="reim")) == pytest.approx(kw(self.cleared()))

    def test_delivery_at_risk_buys_more(self):
        own = resources(2, delivery_risk=0.2)
        uncertain = Uncertainty(np.zeros(2), np.zeros(2), box())
        cleared = clear(case(TWO, network([80.0, 40.0]), own, uncertainty=(uncertain,)))
        assert kw(cleared)["P0 a"] == pytest.approx(20.0 / 0.8)

    def test_delivery_budget_covers_the_largest_failure_only(self):
        own = resources(2, delivery_risk=0.5)
        bids = [bid("P0 a", 30.0, 1.0), bid("P1 b", 30.0, 1.0)]
        uncertain = Uncertainty(np.zeros(2), np.zeros(2), box(), delivery_budget=1.0)
        a, b = kw(clear(case(bids, network([80.0, 40.0]), own, uncertainty=(uncertain,)))).values()
        assert a + b - 0.5 * max(a, b) == pytest.approx(20.0)
        assert a == pytest.approx(b)

    def test_downward_delivery_at_risk_counts_for_what_it_relieves(self):
        own = resources(2, delivery_risk=0.2)
        uncertain = Uncertainty(np.zeros(2), np.zeros(2), box())
        down = [bid("P0 d", 50.0, 1.0, DOWN)]
        cleared = clear(case(down, network([-80.0, -40.0]), own, uncertainty=(uncertain,)))
        assert kw(cleared)["P0 d"] == pytest.approx(20.0 / 0.8)


class TestOverload:
    def test_priced_overload_is_used_while_it_is_cheaper_and_no_further(self):
        limits = LimitSettings(overload=0.05, overload_eur_per_a_h=1.5)
        cleared = clear(case(TWO, network([100.0, 60.0]), settings={"limits": limits})).require_solved()
        assert kw(cleared) == pytest.approx({"P0 a": 50.0, "P1 b": 5.0})
        assert cleared.objective_eur == pytest.approx(50.0 + 10.0 + 1.5 * 5.0)

    def test_two_tiers(self):
        """2 % with one deviation at a time, and never more than 110 % with all."""
        limits = LimitSettings(overload=0.02, overload_ceiling=1.1)
        uncertain = Uncertainty(np.array([10.0, 10.0]), np.zeros(2), budget(1.0))
        cleared = clear(case(TWO, network([80.0, 40.0]), uncertainty=(uncertain,), settings={"limits": limits}))
        assert kw(cleared)["P0 a"] == pytest.approx(max(130.0 - 102.0, 140.0 - 110.0))


class TestInterface:
    BIDS = (*TWO, bid("P2 d", 100.0, 0.5, DOWN))

    def test_hold_buys_as_much_downward_elsewhere(self):
        net = network([80.0, 40.0, 0.0], effect=[1.0, 1.0, 0.0])
        cleared = clear(case(self.BIDS, net, settings={"interface_kw": HOLD})).require_solved()
        assert kw(cleared) == pytest.approx({"P0 a": 20.0, "P1 b": 0.0, "P2 d": 20.0})

    def test_losses_count_at_the_interface(self):
        net = network([80.0, 40.0, 0.0], effect=[1.0, 1.0, 0.0], head=[1.1, 1.0, 1.0])
        cleared = clear(case(self.BIDS, net, settings={"interface_kw": HOLD}))
        assert kw(cleared)["P2 d"] == pytest.approx(22.0)

    def test_hold_that_cannot_be_says_why(self):
        net = network([80.0, 40.0, 0.0])
        settings = {"interface_kw": HOLD, "slack_eur_per_kwh": None}
        with pytest.raises(MarketError, match="All resources are downstream"):
            clear(case(self.BIDS, net, settings=settings))


class TestNeeds:
    NET = network([10.0, 10.0])

    def test_elastic_need_buys_up_to_its_price(self):
        need = Need("n", "BRP", 0, (70.0,), max_price_eur_per_kwh=1.5)
        cleared = clear(case(TWO, self.NET, needs=(need,)))
        assert kw(cleared) == pytest.approx({"P0 a": 50.0, "P1 b": 0.0})
        assert cleared.bought_kw == {"n": (pytest.approx(50.0),)}
        assert cleared.objective_eur == pytest.approx(50.0 * (1.0 - 1.5))

    @pytest.mark.parametrize("price", [0.1, 5.0])
    def test_elastic_need_does_not_stand_in_the_way_of_the_network(self, price):
        """The network needs 20 kW upward of a buyer who would have 5 downward."""
        need = Need("n", "BRP", 0, (-5.0,), max_price_eur_per_kwh=price)
        cleared = clear(case([*TWO, bid("P0 d", 50.0, 1.0, DOWN)], network([80.0, 40.0]), needs=(need,)))
        assert kw(cleared.require_solved()) == pytest.approx({"P0 a": 20.0, "P1 b": 0.0, "P0 d": 0.0})
        assert cleared.bought_kw == {"n": (0.0,)}
        assert cleared.objective_eur == pytest.approx(20.0 * (1.0 + price))

    def test_elastic_need_is_made_good_where_that_is_worth_its_price(self):
        """Upward flexibility of a resource beyond the limit; downward of one without effect on it."""
        need = Need("n", "BRP", 0, (-5.0,), max_price_eur_per_kwh=2.0)
        net = network([80.0, 40.0, 0.0], effect=[1.0, 1.0, 0.0])
        cleared = clear(case([*TWO, bid("P2 d", 100.0, 0.5, DOWN)], net, needs=(need,)))
        assert kw(cleared) == pytest.approx({"P0 a": 20.0, "P1 b": 0.0, "P2 d": 25.0})
        assert cleared.bought_kw == {"n": (pytest.approx(5.0),)}

    def test_firm_need_reports_what_is_missing(self):
        cleared = clear(case(TWO, self.NET, needs=(Need("n", "TSO", 0, (130.0,)),)))
        assert cleared.awarded_kw.sum() == pytest.approx(100.0)
        assert [(u.kind, u.element, u.unit) for u in cleared.unsolved] == [("need", "n", "kW")]
        assert cleared.unsolved[0].excess == pytest.approx(30.0)

    def test_a_long_buyer_gets_downward(self):
        need = Need("n", "BRP", 0, (-20.0,))
        cleared = clear(case([*TWO, bid("P0 d", 50.0, 1.0, DOWN)], self.NET, needs=(need,)))
        assert kw(cleared) == pytest.approx({"P0 a": 0.0, "P1 b": 0.0, "P0 d": 20.0})

    def test_only_resources_of_its_place_count(self):
        own = resources(1, perimeter="east") | {"P1": resources(2, perimeter="west")["P1"]}
        need = Need("n", "BRP", 0, (20.0,), where=("west",))
        assert kw(clear(case(TWO, self.NET, own, needs=(need,)))) == pytest.approx({"P0 a": 0.0, "P1 b": 20.0})

    def test_relief_that_the_network_needs_anyway_serves_the_buyer(self):
        need = Need("n", "BRP", 0, (15.0,), max_price_eur_per_kwh=0.5)
        cleared = clear(case(TWO, network([80.0, 40.0]), needs=(need,)))
        assert cleared.bought_kw["n"] == (pytest.approx(15.0),)
        assert cleared.awarded_kw.sum() == pytest.approx(20.0)


class TestBidsOfSeveralResources:
    NET = network([80.0, 40.0], effect=[1.0, 0.5])

    def test_fixed_shares(self):
        share = bid("s", 100.0, 1.0, shares=(("P0", 0.5), ("P1", 0.5)))
        assert kw(clear(case([share], self.NET, settings={}))) == pytest.approx({"s": 0.0})
        tight = network([80.0, 40.0], effect=[1.0, 0.5], i_max_a=85.0)
        assert kw(clear(case([share], tight))) == pytest.approx({"s": 15.0 / 0.75})

    def test_any_split_counts_the_worst(self):
        any_ = bid("s", 100.0, 1.0, any_of=("P0", "P1"))
        tight = network([80.0, 40.0], effect=[1.0, 0.5], i_max_a=85.0)
        assert kw(clear(case([any_], tight))) == pytest.approx({"s": 15.0 / 0.5})

    def test_any_split_is_as_sure_as_the_least_sure(self):
        own = resources(1) | {"P1": resources(2, delivery_risk=0.25)["P1"]}
        any_ = bid("s", 100.0, 1.0, any_of=("P0", "P1"))
        tight = network([80.0, 40.0], effect=[1.0, 0.5], i_max_a=85.0)
        assert kw(clear(case([any_], tight, own))) == pytest.approx({"s": 15.0 / 0.5 / 0.75})


def test_effects_that_are_nothing_but_rounding_are_none():
    """One of six planes is at a right angle to the current."""
    settings = {"limits": LimitSettings(planes=6), "lazy": False}
    value = clear(case(TWO, network([80.0, 80.0]), settings=settings)).program.rows.value
    assert np.abs(value[value != 0.0]).min() > 0.1


def test_locked_awards_stay_and_count():
    cleared = clear(case(TWO, network([80.0, 50.0]), locked={"P1 b": (12.0,)}))
    assert kw(cleared) == pytest.approx({"P0 a": 18.0, "P1 b": 12.0})


def test_binding_rows_have_the_price_of_the_marginal_bid():
    rows = binding_rows(clear(case(TWO, network([80.0, 80.0]))))
    assert sum(row.dual_eur_per_kw for row in rows) == pytest.approx(2.0 / np.cos(np.pi / 64), rel=0.01)


def test_negative_prices_never_pay_for_both_directions_of_one_resource():
    bids = [bid("P0 a", 50.0, -2.0), bid("P0 d", 50.0, 1.0, DOWN)]
    cleared = clear(case(bids, network([10.0, 10.0])))
    assert cleared.program.columns.integer.any()
    assert kw(cleared) == pytest.approx({"P0 a": 50.0, "P0 d": 0.0})
