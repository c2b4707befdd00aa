"""Laws of flexible devices and their bands: any device, any state, any course of set-points."""

import json

import numpy as np
import pytest
from device_strategies import (
    EXACT,
    MTU_S,
    STEPS_S,
    batteries,
    course,
    directions,
    heat_pumps,
    loads,
    powers,
    shares,
    situations,
    vehicles,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from cosim.domain.market import Direction
from cosim.flexibility.band import energy_band, flexibility_band
from cosim.flexibility.battery import Battery
from cosim.flexibility.electric_vehicle import VehicleState
from cosim.flexibility.resources import (
    Conditions,
    free_mtu,
    memory_from_json,
    memory_to_json,
    step,
)


@given(situation=situations(), step_s=STEPS_S, direction=directions, share=shares)
def test_any_change_within_the_band_is_delivered_for_the_mtu(situation, step_s, direction, share):
    device, state, forecast = situation
    band = flexibility_band(device, state, forecast[:1], MTU_S, step_s)
    change_kw = direction.delta_p_kw(share * band.alone_kw(direction)[0])
    departed_kw, _ = course(device, state, forecast[:1], [change_kw], band.baseline_kw, step_s)
    assert departed_kw[0] == pytest.approx(change_kw, abs=EXACT)


@given(situation=situations(), step_s=STEPS_S, direction=directions, data=st.data())
def test_any_course_up_to_what_is_sustained_is_delivered(situation, step_s, direction, data):
    device, state, forecast = situation
    band = flexibility_band(device, state, forecast, MTU_S, step_s)
    part = np.array(data.draw(st.lists(shares, min_size=len(forecast), max_size=len(forecast))))
    changes_kw = direction.delta_p_kw(part * band.sustained_kw(direction))
    departed_kw, _ = course(device, state, forecast, changes_kw, band.baseline_kw, step_s)
    np.testing.assert_allclose(departed_kw, changes_kw, rtol=0.0, atol=EXACT)


@given(situation=situations(), step_s=STEPS_S, direction=directions)
def test_the_band_is_no_smaller_than_it_must_be(situation, step_s, direction):
    """One hundredth more than the band is not delivered."""
    device, state, forecast = situation
    band = flexibility_band(device, state, forecast[:1], MTU_S, step_s)
    most_kw = band.alone_kw(direction)[0]
    beyond_kw = direction.delta_p_kw(1.01 * most_kw + 0.01)
    departed_kw, _ = course(device, state, forecast[:1], [beyond_kw], band.baseline_kw, step_s)
    if device.limits_kw(state, forecast[0], MTU_S) is not None:
        assert abs(departed_kw[0] - beyond_kw) > 1e-6


@given(situation=situations(), step_s=STEPS_S)
def test_the_baseline_is_what_happens_without_activation(situation, step_s):
    device, state, forecast = situation
    band = flexibility_band(device, state, forecast, MTU_S, step_s)
    assert (band.up_kw >= 0.0).all()
    assert (band.down_kw >= 0.0).all()
    _, free_kw = free_mtu(device, state, forecast[0], MTU_S, step_s)
    # a battery that is empty before the end idles for a shorter time than one that holds a constant power
    idling_kw = device.unit.idling_kw if isinstance(device, Battery) else 0.0
    assert band.baseline_kw[0] == pytest.approx(free_kw, abs=idling_kw + EXACT)
    at_its_baseline, _ = step(device, state, None, forecast[0], MTU_S)
    assert at_its_baseline == device.after(state, device.free_kw(state, forecast[0], MTU_S), forecast[0], MTU_S)


@given(situation=situations(batteries()), orders=st.lists(st.none() | powers, max_size=20), step_s=STEPS_S)
def test_battery_books_what_it_moves(situation, orders, step_s):
    battery, state, forecast = situation
    unit, hours = battery.unit, step_s / 3600.0
    lowest_kwh = min(unit.reserve_kwh, state.e_kwh)
    for order in orders:
        before_kwh = state.e_kwh
        state, p_kw = step(battery, state, order, forecast[0], step_s)
        into_kwh = hours * (p_kw * unit.charge_efficiency if p_kw > 0.0 else p_kw / unit.discharge_efficiency)
        lost_kwh = before_kwh + into_kwh - state.e_kwh
        assert -EXACT <= lost_kwh <= unit.idling_kw * hours + EXACT
        assert abs(p_kw) <= unit.p_max_kw
        assert min(lowest_kwh, before_kwh) - unit.idling_kw * hours - EXACT <= state.e_kwh <= unit.e_max_kwh


@given(vehicle=vehicles(), orders=st.lists(st.none() | st.floats(-5.0, 30.0), min_size=60, max_size=60))
def test_a_vehicle_leaves_with_what_it_needs_if_the_charger_can_do_it(vehicle, orders):
    """Whatever the orders; energy booked is energy moved; nothing is drawn while it is away."""
    state, moved_kwh = vehicle.start(), {}
    for k, order in enumerate(orders):
        now = Conditions(k * MTU_S)
        state, p_kw = step(vehicle, state, order, now, MTU_S)
        here = [i for i, s in enumerate(vehicle.sessions) if s.arrive_s <= now.t_s < s.depart_s]
        assert 0.0 <= p_kw <= (vehicle.p_max_kw if here else 0.0)
        for i in here:
            moved_kwh[i] = moved_kwh.get(i, 0.0) + vehicle.efficiency * p_kw * MTU_S / 3600.0
            assert state == VehicleState(i, pytest.approx(moved_kwh[i], abs=EXACT))
    for i, session in enumerate(vehicle.sessions):
        if session.depart_s <= len(orders) * MTU_S:
            most_kwh = vehicle.efficiency * vehicle.p_max_kw * (session.depart_s - session.arrive_s) / 3600.0
            assert moved_kwh[i] == pytest.approx(min(session.need_kwh, most_kwh), abs=EXACT)


@given(
    situation=situations(heat_pumps()), orders=st.lists(st.none() | st.floats(-2.0, 12.0), max_size=30), step_s=STEPS_S
)
def test_heat_is_conserved_and_comfort_kept(situation, orders, step_s):
    """Stored heat changes by what the pump gives less what leaks at the mean temperature of the step."""
    pump, state, forecast = situation
    now, hours = forecast[0], step_s / 3600.0
    constant_h = pump.resistance_k_per_kw * pump.capacity_kwh_per_k
    for order in orders:
        before_c = state.temperature_c
        was_comfortable = abs(before_c - pump.set_c) <= pump.comfort_k
        state, p_kw = step(pump, state, order, now, step_s)
        final_c = now.temperature_c + pump.resistance_k_per_kw * pump.cop * p_kw
        mean_c = final_c + (before_c - state.temperature_c) * constant_h / hours
        gained_kwh = pump.capacity_kwh_per_k * (state.temperature_c - before_c)
        leaked_kwh = (mean_c - now.temperature_c) / pump.resistance_k_per_kw * hours
        assert 0.0 <= p_kw <= pump.p_max_kw
        assert gained_kwh == pytest.approx(pump.cop * p_kw * hours - leaked_kwh, abs=1e-7)
        if was_comfortable and 0.0 < p_kw < pump.p_max_kw:
            assert abs(state.temperature_c - pump.set_c) <= pump.comfort_k + EXACT


@given(load=loads(), profile=st.lists(st.floats(0.0, 50.0), min_size=3, max_size=3), data=st.data(), step_s=STEPS_S)
def test_a_load_pays_back_the_share_that_it_owes_and_nothing_else(load, profile, data, step_s):
    state, shed_kwh, paid_kwh = load.start(), 0.0, 0.0
    wished = data.draw(st.lists(st.none() | st.floats(0.0, 60.0), min_size=3, max_size=3))
    for k in range(3 + len(load.rebound)):
        p_profile, wish = (profile[k], wished[k]) if k < 3 else (7.0, None)
        for begin_s in range(0, MTU_S, step_s):
            now = Conditions(k * MTU_S + begin_s, p_profile)
            free_kw = load.free_kw(state, now, step_s)
            state, p_kw = step(load, state, wish, now, step_s)
            shed_kwh += (free_kw - p_kw) * step_s / 3600.0
            paid_kwh += (free_kw - p_profile) * step_s / 3600.0
            assert free_kw - load.curtailable * p_profile - EXACT <= p_kw <= free_kw
    assert paid_kwh == pytest.approx(sum(load.rebound) * shed_kwh, abs=EXACT)


@given(situation=situations(), orders=st.lists(powers, max_size=4))
def test_memory_survives_json(situation, orders):
    device, state, forecast = situation
    for order in orders:
        state, _ = step(device, state, order, forecast[0], MTU_S)
    assert memory_from_json(device, json.loads(json.dumps(memory_to_json(state)))) == state


@given(situation=situations(st.one_of(vehicles(), heat_pumps())), data=st.data())
def test_a_course_within_the_energy_band_of_the_market_is_delivered(situation, data):
    """Up and down mixed, as the clearing may order, within the rated powers and the cumulative bounds."""
    device, state, forecast = situation
    assume(len(forecast) > 1)
    band = flexibility_band(device, state, forecast, MTU_S, 300)
    bounds, hours = energy_band("R", band), MTU_S / 3600.0
    drawn_kwh, changes_kw = 0.0, []
    for k, baseline_kw in enumerate(band.baseline_kw):
        low_kw = max((bounds.low_kwh[k] - drawn_kwh) / hours, baseline_kw - band.rated_kw(Direction.UP)[k])
        high_kw = min((bounds.high_kwh[k] - drawn_kwh) / hours, baseline_kw + band.rated_kw(Direction.DOWN)[k])
        assume(low_kw <= high_kw)
        p_kw = low_kw + data.draw(shares) * (high_kw - low_kw)
        drawn_kwh += hours * p_kw
        changes_kw.append(p_kw - baseline_kw)
    departed_kw, _ = course(device, state, forecast, changes_kw, band.baseline_kw, 300)
    np.testing.assert_allclose(departed_kw, changes_kw, rtol=0.0, atol=1e-8)
