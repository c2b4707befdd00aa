import json

import numpy as np
import pytest

from cosim.domain.flexibility import StorageUnit
from cosim.flexibility.battery import Battery, BatteryState
from cosim.flexibility.heat_pump import HeatPump, HeatPumpState
from cosim.flexibility.load import Load
from cosim.flexibility.pv import Pv
from cosim.flexibility.resources import (
    Conditions,
    Dispatch,
    dispatch,
    free_mtu,
    memory_from_json,
    memory_to_json,
    set_point_kw,
    step,
)

QUARTER_S = 900
UNIT = StorageUnit(
    "S", p_max_kw=50.0, e_max_kwh=100.0, reserve_kwh=10.0, charge_efficiency=0.9, discharge_efficiency=0.8
)


def test_a_set_point_is_cut_to_what_is_possible_and_without_one_a_device_runs_free():
    battery = Battery(UNIT, initial_kwh=15.0)
    now = Conditions(0)
    assert step(battery, battery.start(), -50.0, now, 3600.0) == (BatteryState(10.0), pytest.approx(-4.0))
    assert step(battery, battery.start(), 70.0, now, 3600.0) == (BatteryState(60.0), 50.0)
    assert step(battery, battery.start(), None, now, 3600.0) == (BatteryState(15.0), 0.0)


def test_a_change_of_a_load_acts_on_what_it_turns_out_to_be_others_hold_what_was_declared():
    load, battery = Load(0.5, QUARTER_S), Battery(UNIT, 50.0)
    turned_out = Conditions(0, p_kw=12.0)
    held = Dispatch(baseline_kw=10.0, change_kw=-3.0)
    assert set_point_kw(load, load.start(), held, turned_out, QUARTER_S) == 9.0
    assert set_point_kw(battery, battery.start(), held, turned_out, QUARTER_S) == 7.0
    assert set_point_kw(battery, battery.start(), None, turned_out, QUARTER_S) is None


def test_a_device_that_takes_no_set_point_for_the_whole_mtu_is_not_held():
    """It warms up during the MTU: from then on it could be held, but has already drawn more than was declared."""
    pump = HeatPump(4.0, 3.0, 1.0, 5.0, initial_c=18.9)
    assert dispatch(pump, pump.start(), 3.0, 0.0, Conditions(0), QUARTER_S) is None
    assert dispatch(pump, HeatPumpState(19.1), 3.0, -0.5, Conditions(0), QUARTER_S) == Dispatch(3.0, -0.5)


def test_free_power_of_an_mtu_is_the_mean_over_its_steps():
    battery = Battery(UNIT, initial_kwh=14.0)
    after, p_kw = free_mtu(battery, battery.start(), Conditions(0, p_kw=-16.0), 3600, 900)
    assert (after, p_kw) == (BatteryState(10.0), pytest.approx(-3.2))


def test_memory_is_json_and_comes_back_exactly():
    load = Load(0.5, QUARTER_S, (0.5, 0.25))
    state, _ = step(load, load.start(), 2.0 / 3.0, Conditions(2700, p_kw=1.0), 60)
    text = json.dumps(memory_to_json(state))
    assert memory_from_json(load, json.loads(text)) == state
    assert json.loads(text)["mtu"] == 3


def test_pv_gives_up_its_share_and_draws_at_night():
    pv = Pv(curtailable=0.6)
    assert pv.limits_kw(pv.start(), Conditions(0, p_kw=-10.0), QUARTER_S) == (-10.0, -4.0)
    assert pv.limits_kw(pv.start(), Conditions(0, p_kw=0.1), QUARTER_S) == (0.1, 0.1)
    assert pv.store([], [], np.zeros(0), QUARTER_S) is None
