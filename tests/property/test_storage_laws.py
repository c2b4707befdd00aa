"""Laws of the storage model and of the threshold rule, for any unit and any course of orders."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.domain.flexibility import StorageUnit
from cosim.flexibility.sizing import Day, simulate
from cosim.flexibility.storage import feasible_kw, stored_kwh
from cosim.flexibility.thresholds import after
from cosim.scenario.schema import Discharge, OperatorConfig

efficiencies = st.floats(0.3, 1.0)
powers = st.floats(-2000.0, 2000.0)
ROUNDING = 1e-12
durations = st.sampled_from([60.0, 900.0, 3600.0])


@st.composite
def units(draw, pod="S", idling=False):
    e_max_kwh = draw(st.floats(1.0, 2000.0))
    return StorageUnit(
        pod=pod,
        p_max_kw=draw(st.floats(0.1, 1000.0)),
        e_max_kwh=e_max_kwh,
        reserve_kwh=draw(st.floats(0.0, 1.0)) * e_max_kwh,
        charge_efficiency=draw(efficiencies),
        discharge_efficiency=draw(efficiencies),
        idling_kw=draw(st.floats(0.0, 5.0)) if idling else 0.0,
    )


@given(unit=units(), start=st.floats(0.0, 1.0), orders=st.lists(powers, max_size=30), duration_s=durations)
def test_energy_stays_between_reserve_or_start_and_capacity(unit, start, orders, duration_s):
    e_kwh = start * unit.e_max_kwh
    lowest = min(unit.reserve_kwh, e_kwh)
    for order in orders:
        e_kwh = stored_kwh(unit, feasible_kw(unit, order, e_kwh, duration_s), e_kwh, duration_s)
        assert lowest - ROUNDING * unit.e_max_kwh <= e_kwh <= unit.e_max_kwh


@given(unit=units(idling=True), start=st.floats(0.0, 1.0), orders=st.lists(powers, max_size=30), duration_s=durations)
def test_energy_is_never_created(unit, start, orders, duration_s):
    """What is stored at the end is at most what was there plus what came in at the terminals less what went out."""
    e_kwh = first_kwh = start * unit.e_max_kwh
    through_kwh = 0.0
    for order in orders:
        p_kw = feasible_kw(unit, order, e_kwh, duration_s)
        through_kwh += float(p_kw) * duration_s / 3600.0
        e_kwh = stored_kwh(unit, p_kw, e_kwh, duration_s)
        assert e_kwh <= first_kwh + through_kwh + 1e-9 * unit.e_max_kwh
        assert 0.0 <= e_kwh <= unit.e_max_kwh


@given(unit=units(), start=st.floats(0.0, 1.0), order=powers, duration_s=durations)
def test_feasible_is_idempotent_and_never_more_than_asked(unit, start, order, duration_s):
    e_kwh = start * unit.e_max_kwh
    p_kw = feasible_kw(unit, order, e_kwh, duration_s)
    assert feasible_kw(unit, p_kw, e_kwh, duration_s) == p_kw
    assert abs(p_kw) <= min(abs(order), unit.p_max_kw)
    assert p_kw * order >= 0.0


@given(unit=units(), share=st.floats(0.01, 1.0), duration_s=durations)
def test_charging_and_discharging_loses_exactly_the_efficiencies(unit, share, duration_s):
    e_kwh = unit.reserve_kwh
    in_kw = float(feasible_kw(unit, share * unit.p_max_kw, e_kwh, duration_s))
    full_kwh = stored_kwh(unit, in_kw, e_kwh, duration_s)
    taken_kwh, out_kwh = in_kw * duration_s / 3600.0, 0.0
    for _ in range(200):
        p_kw = feasible_kw(unit, -unit.p_max_kw, full_kwh, duration_s)
        out_kwh -= float(p_kw) * duration_s / 3600.0
        full_kwh = stored_kwh(unit, p_kw, full_kwh, duration_s)
        if p_kw == 0.0:
            break
    expected_kwh = taken_kwh * unit.charge_efficiency * unit.discharge_efficiency
    assert out_kwh == pytest.approx(expected_kwh, rel=1e-9, abs=1e-9 * unit.e_max_kwh)


@given(
    both=st.tuples(units("S"), units("T")),
    thresholds_kw=st.lists(st.floats(-800.0, 100.0), min_size=2, max_size=2),
    idle_kw=st.lists(st.one_of(st.floats(-1000.0, 1000.0), st.just(float("nan"))), min_size=4, max_size=40),
    action=st.sampled_from(["same", "next"]),
    day_hours=st.booleans(),
)
def test_the_rule_keeps_within_what_is_possible(both, thresholds_kw, idle_kw, action, day_hours):
    """Orders are feasible, follow a known head only, and charging never lifts the head above the threshold."""
    window = Discharge(power_kw=100.0) if day_hours else Discharge()
    operator = OperatorConfig(action=action, discharge=window)
    idle = np.array(idle_kw)
    begins = tuple(datetime(2016, 7, 23, 6) + timedelta(minutes=30 * k) for k in range(len(idle)))
    day = Day(begins, 1800, idle, lambda p_kw: idle + p_kw.sum(axis=2))
    e_kwh = np.array([unit.reserve_kwh for unit in both])
    course = simulate(day, both, operator, np.array([thresholds_kw]), e_kwh)
    delay = 1 if action == "next" else 0
    for m, p_kw in enumerate(course.p_kw[0]):
        for unit, power, energy in zip(both, p_kw, e_kwh, strict=True):
            assert power == pytest.approx(feasible_kw(unit, power, energy, 1800.0), abs=1e-9)
        seen = idle[m - delay] if m >= delay else np.nan
        if np.isnan(seen):
            assert (p_kw == 0.0).all()
        elif (p_kw > 0.0).any():
            assert seen + p_kw[p_kw > 0.0].sum() <= max(thresholds_kw) + 1e-6
        e_kwh = after(both, p_kw, e_kwh, 1800.0)
