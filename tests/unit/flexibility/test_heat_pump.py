import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from cosim.flexibility.band import flexibility_band
from cosim.flexibility.heat_pump import HeatPump, HeatPumpState
from cosim.flexibility.resources import Conditions, step

HOUSE = HeatPump(p_max_kw=4.0, cop=3.0, capacity_kwh_per_k=5.0, resistance_k_per_kw=5.0, comfort_k=1.0)
COLD = Conditions(0, temperature_c=-5.0)


def test_a_step_solves_the_differential_equation():
    """Against a numerical integration of C dT/dt = (T_out - T) / R + COP p."""

    def slope(_, temperature_c):
        return ((-5.0 - temperature_c) / 5.0 + 3.0 * 2.5) / 5.0

    numerical = solve_ivp(slope, (0.0, 1.5), [20.0], rtol=1e-10, atol=1e-10).y[0, -1]
    assert HOUSE.after(HeatPumpState(20.0), 2.5, COLD, 5400.0).temperature_c == pytest.approx(numerical, abs=1e-8)


def test_at_rest_it_makes_up_for_the_leak():
    state, p_kw = step(HOUSE, HOUSE.start(), None, COLD, 900)
    assert p_kw == pytest.approx(25.0 / 5.0 / 3.0)
    assert state.temperature_c == pytest.approx(20.0)


def test_away_from_its_temperature_it_comes_back_with_its_time_constant():
    state = HeatPumpState(19.5)
    for _ in range(60):
        state, _ = step(HOUSE, state, None, COLD, 60)
    assert state.temperature_c == pytest.approx(20.0 - 0.5 * math.exp(-1.0))


def test_it_guards_comfort_whatever_the_set_point():
    cold, warm = HeatPumpState(19.01), HeatPumpState(20.99)
    for _ in range(8):
        cold, _ = step(HOUSE, cold, 0.0, COLD, 900)
        warm, _ = step(HOUSE, warm, 4.0, COLD, 900)
    assert (cold.temperature_c, warm.temperature_c) == (pytest.approx(19.0), pytest.approx(21.0))


def test_out_of_comfort_it_takes_no_set_point():
    frozen = HeatPumpState(15.0)
    assert HOUSE.limits_kw(frozen, COLD, 900) is None
    assert step(HOUSE, frozen, 0.0, COLD, 900)[1] == 4.0
    hot = Conditions(0, temperature_c=35.0)
    assert step(HOUSE, HeatPumpState(25.0), 4.0, hot, 900)[1] == 0.0


def test_band_of_a_cold_morning():
    """One hour off costs 1 K at most in this house: off for a while is possible, for the MTU it is all of it."""
    forecast = [COLD] * 8
    band = flexibility_band(HOUSE, HOUSE.start(), forecast, 900, 900)
    steady_kw = 25.0 / 15.0
    np.testing.assert_allclose(band.baseline_kw, steady_kw)
    np.testing.assert_allclose(band.up_kw, steady_kw)
    np.testing.assert_allclose(band.down_kw, 4.0 - steady_kw)
    np.testing.assert_allclose(band.store.up_room_kwh, 5.0)
    assert band.store.retention == pytest.approx(math.exp(-0.25 / 25.0))
