import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.units import energy_kwh, kvar_per_kw, power_kw, rated_current_a


def test_energy_and_power():
    assert energy_kwh(100.0, 900.0) == 25.0
    assert power_kw(25.0, 900.0) == 100.0


@given(st.floats(-1e6, 1e6), st.floats(1.0, 1e6))
def test_power_moves_the_energy_it_came_from(p_kw, duration_s):
    assert power_kw(energy_kwh(p_kw, duration_s), duration_s) == pytest.approx(p_kw, rel=1e-12)


def test_reactive_power_of_a_power_factor():
    assert kvar_per_kw(1.0) == 0.0
    assert kvar_per_kw(0.8) == pytest.approx(0.75)


@pytest.mark.parametrize("power_factor", [0.0, -0.9, 1.01, math.nan])
def test_power_factors_out_of_range(power_factor):
    with pytest.raises(ValueError, match=r"power factor must be in \(0, 1\], got"):
        kvar_per_kw(power_factor)


def test_rated_current_of_a_transformer():
    assert rated_current_a(630.0, 0.4) == pytest.approx(909.33, abs=0.01)
