from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pytest

from cosim.clock import Clock
from cosim.domain.flexibility import StorageUnit
from cosim.flexibility.sizing import Day, bound_by_lp, simulate, size
from cosim.grid.batch import BatchPowerFlow
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.io.profiles import read_simbench, sample
from cosim.scenario.schema import Discharge, Genetic, GridConfig, OperatorConfig, Sizing

HOURLY_S, QUARTER_S = 3600, 900
MIDNIGHT = datetime(2016, 7, 22, 23, 0, tzinfo=UTC)  # 2016-07-23 in UTC+1
NO_DISCHARGE = Discharge(start=time(0, 0), end=time(0, 0))
FAST = Genetic(population=40, generations=80)


def hand_day(head_idle_kw, mtu_s=HOURLY_S, gain=1.0):
    """A day whose head gains ``gain`` per kW charged."""
    idle = np.array(head_idle_kw)
    begins = tuple(datetime(2016, 7, 23, tzinfo=UTC) + timedelta(seconds=k * mtu_s) for k in range(len(idle)))
    return Day(begins, mtu_s, idle, lambda p_kw: idle + gain * p_kw.sum(axis=2))


def unit(pod="S", **figures):
    given = {"p_max_kw": 100.0, "e_max_kwh": 110.0, "reserve_kwh": 10.0, "charge_efficiency": 1.0}
    return StorageUnit(pod, **(given | {"discharge_efficiency": 1.0} | figures))


def config(action="same", limit_kw=None, discharge=NO_DISCHARGE):
    return OperatorConfig(action=action, discharge=discharge, sizing=Sizing(limit_kw=limit_kw, genetic=FAST))


def e_of(*units):
    return np.array([each.reserve_kwh for each in units])


# --- days that can be reckoned by hand ------------------------------------------------------------------------------


def test_the_linear_programme_levels_the_head_with_the_energy_there_is():
    """100 kWh of room: levelling -80, -120, -60 at -40 would take 140 kWh; at -60 it takes 20 + 60 = 80; at -160/3 it
    takes all: (z + 80) + (z + 120) + (z + 60) = 100 -> z = -160/3."""
    day = hand_day([0.0, -80.0, -120.0, -60.0])
    z, charged_kwh = bound_by_lp(day, [unit()], config(), e_of(unit()), 0.0)
    assert z == pytest.approx(-160.0 / 3.0, abs=1e-5)
    assert charged_kwh == pytest.approx(100.0, abs=1e-4)


def test_the_linear_programme_knows_rating_efficiency_gain_and_two_units():
    day = hand_day([0.0, -300.0])
    assert bound_by_lp(day, [unit()], config(), e_of(unit()), 0.0)[0] == pytest.approx(-200.0, abs=1e-5)
    lossy = unit(charge_efficiency=0.5, p_max_kw=500.0)
    assert bound_by_lp(day, [lossy], config(), e_of(lossy), 0.0)[0] == pytest.approx(-100.0, abs=1e-5)
    gaining = hand_day([0.0, -300.0], gain=1.1)
    assert bound_by_lp(gaining, [unit()], config(), e_of(unit()), 0.0)[0] == pytest.approx(-190.0, abs=1e-5)
    both = [unit("S"), unit("T", p_max_kw=50.0)]
    assert bound_by_lp(day, both, config(), e_of(*both), 0.0)[0] == pytest.approx(-150.0, abs=1e-5)


def test_the_linear_programme_may_empty_in_the_window_in_between():
    day = hand_day([-100.0, 200.0, -100.0])
    assert bound_by_lp(day, [unit()], config(), e_of(unit()), 0.0)[0] == pytest.approx(-50.0, abs=1e-5)
    window = Discharge(start=time(1, 0), end=time(2, 0), power_kw=60.0)
    assert bound_by_lp(day, [unit()], config(discharge=window), e_of(unit()), 0.0)[0] == pytest.approx(-20.0, abs=1e-5)


def test_sizing_by_hand_same_mtu():
    day = hand_day([0.0, -80.0, -120.0, -60.0])
    sized = size(day, [unit()], config(), e_of(unit()), seed=1)
    assert sized.thresholds_kw["S"] == pytest.approx(-160.0 / 3.0, abs=0.5)
    assert sized.head_min_kw == pytest.approx(-160.0 / 3.0, abs=0.5)
    assert sized.head_min_idle_kw == -120.0
    assert sized.head_min_kw <= sized.bound_head_min_kw + 1e-6


def test_with_a_limit_the_least_activation_that_meets_it():
    """Limit -70: 10 + 50 kWh of charging, no more."""
    day = hand_day([0.0, -80.0, -120.0, -60.0])
    sized = size(day, [unit()], config(limit_kw=-70.0), e_of(unit()), seed=1)
    assert sized.head_min_kw == pytest.approx(-70.0, abs=0.5)
    assert sized.head_min_kw >= -70.0 - 0.05
    assert sized.activated_kwh == pytest.approx(60.0, abs=0.5)
    assert (sized.bound_head_min_kw, sized.bound_activated_kwh) == pytest.approx((-70.0, 60.0), abs=1e-4)


def test_an_order_of_the_mtu_before_needs_a_threshold_above_the_limit():
    """On the fall from -50 to -150 only a threshold of -50 + 50 orders the 50 kW that hold -100."""
    day = hand_day([0.0, -50.0, -150.0, -150.0, 0.0])
    roomy = unit(e_max_kwh=1000.0)
    sized = size(day, [roomy], config("next", limit_kw=-100.0), e_of(roomy), seed=1)
    assert sized.thresholds_kw["S"] == pytest.approx(0.0, abs=0.5)
    assert sized.head_min_kw == pytest.approx(-100.0, abs=0.5)


def test_a_limit_never_undercut_needs_no_activation():
    sized = size(hand_day([50.0, 20.0, 80.0]), [unit()], config(), e_of(unit()), seed=1)
    assert (sized.head_min_kw, sized.activated_kwh) == (20.0, 0.0)
    assert (sized.bound_head_min_kw, sized.bound_activated_kwh) == pytest.approx((0.0, 0.0), abs=1e-6)


def test_two_units_are_sized_together():
    day = hand_day([0.0, -80.0, -240.0, -60.0])
    both = [unit("S"), unit("T", e_max_kwh=60.0)]
    sized = size(day, both, config(), e_of(*both), seed=1)
    assert set(sized.thresholds_kw) == {"S", "T"}
    assert sized.bound_head_min_kw == pytest.approx(-90.0, abs=1e-4)
    assert sized.head_min_kw == pytest.approx(-90.0, abs=1.0)


def test_the_course_follows_the_rule_of_the_scenario():
    day = hand_day([-100.0, -60.0, 50.0, 50.0])
    window = Discharge(start=time(3, 0), end=time(4, 0), power_kw=40.0)
    thresholds_kw = np.array([[-70.0], [-np.inf]])
    same = simulate(day, [unit()], config("same", discharge=window), thresholds_kw, e_of(unit()))
    np.testing.assert_allclose(same.p_kw[:, :, 0], [[30.0, 0.0, 0.0, -30.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(same.head_kw[0], [-70.0, -60.0, 50.0, 20.0])
    late = simulate(day, [unit()], config("next", discharge=window), thresholds_kw, e_of(unit()))
    np.testing.assert_allclose(late.p_kw[0, :, 0], [0.0, 30.0, 0.0, -30.0])


def test_same_seed_same_thresholds():
    day = hand_day([0.0, -80.0, -120.0, -60.0])
    runs = [size(day, [unit()], config(), e_of(unit()), seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0].thresholds_kw != runs[2].thresholds_kw


# --- the design day of mv5 --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mv5_day():
    feeder = load_feeder(Path(__file__).parents[3] / "dss_models" / "mv5")
    engine = Engine(feeder, GridConfig())
    units = engine.storage
    flow = BatchPowerFlow(engine.unloaded(), [], [feeder.head_terminal])
    engine.close()
    clock = Clock(MIDNIGHT, QUARTER_S, 96, QUARTER_S)
    profiles = read_simbench("1-complete_data-mixed-all-1-sw", feeder.profile_columns)
    p_kw, q_kvar = feeder.powers(profiles.names, sample(profiles, clock))
    battery = list(feeder.pods).index(units[0].pod)

    def head_of(storage_kw):
        p = np.repeat(p_kw[None], len(storage_kw), axis=0)
        p[:, :, battery] = storage_kw[:, :, 0]
        q = np.broadcast_to(q_kvar, p.shape)
        state = flow.solve(p.reshape(-1, p.shape[2]), q.reshape(-1, p.shape[2])).require_converged()
        return state.p_kw[:, 0].reshape(p.shape[:2])

    begins = tuple(datetime(2016, 7, 23) + timedelta(seconds=QUARTER_S * k) for k in range(96))
    return Day(begins, QUARTER_S, head_of(np.zeros((1, 96, 1)))[0], head_of), units


NIGHTLY = Discharge(start=time(18, 0), end=time(6, 0), power_kw=100.0)


def best_of_scan(day, units, operator):
    thresholds_kw = np.arange(-870.0, -450.0, 0.5)[:, None]
    course = simulate(day, units, operator, thresholds_kw, e_of(*units))
    return float(course.head_kw.min(axis=1).max())


@pytest.mark.parametrize(("action", "deepest_kw"), [("same", -619.54), ("next", -673.87)])
def test_design_day_of_mv5(mv5_day, action, deepest_kw):
    """-863.0 kW without orders. A threshold that acts in the same MTU comes within 1 kW of what the linear programme
    reaches knowing the whole day; acting one MTU later costs 54 kW."""
    day, units = mv5_day
    operator = config(action, discharge=NIGHTLY)
    sized = size(day, units, operator, e_of(*units), seed=1)
    assert sized.head_min_idle_kw == pytest.approx(-863.035, abs=0.005)
    assert sized.bound_head_min_kw == pytest.approx(-619.11, abs=0.01)
    assert sized.head_min_kw == pytest.approx(best_of_scan(day, units, operator), abs=1.0)
    assert sized.head_min_kw == pytest.approx(deepest_kw, abs=1.0)
    if action == "same":
        assert sized.bound_head_min_kw - 1.0 < sized.head_min_kw <= sized.bound_head_min_kw


def test_a_limit_on_the_design_day_of_mv5(mv5_day):
    day, units = mv5_day
    sized = size(day, units, config(limit_kw=-700.0, discharge=NIGHTLY), e_of(*units), seed=1)
    assert sized.head_min_kw == pytest.approx(-700.0, abs=0.5)
    assert sized.bound_head_min_kw == pytest.approx(-700.0, abs=1e-4)
    assert sized.bound_activated_kwh - 1.0 < sized.activated_kwh < 1.02 * sized.bound_activated_kwh


def test_a_fixed_threshold_fills_the_battery_early_and_leaves_the_peak(mv5_day):
    day, units = mv5_day
    course = simulate(day, units, config(discharge=NIGHTLY), np.array([[-300.0]]), e_of(*units))
    assert course.head_kw.min() == pytest.approx(-863.035, abs=0.005)
