"""Flexible devices of all kinds, in all states, and courses of activations, for the laws about them."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from cosim.domain.flexibility import StorageUnit
from cosim.domain.market import Direction
from cosim.flexibility.battery import Battery
from cosim.flexibility.electric_vehicle import ElectricVehicle, Session
from cosim.flexibility.heat_pump import HeatPump
from cosim.flexibility.load import Load
from cosim.flexibility.pv import Pv
from cosim.flexibility.resources import Conditions, dispatch, set_point_kw, step

MTU_S = 900
STEPS_S = st.sampled_from([60, 300, 450, 900])
EXACT = 1e-9
"""Rounding of powers and energies of some hundred kW and kWh."""

powers = st.floats(-50.0, 50.0)
shares = st.floats(0.0, 1.0)
directions = st.sampled_from(Direction)


@st.composite
def batteries(draw, idling=True):
    e_max_kwh = draw(st.floats(1.0, 200.0))
    unit = StorageUnit(
        pod="S",
        p_max_kw=draw(st.floats(0.5, 100.0)),
        e_max_kwh=e_max_kwh,
        reserve_kwh=draw(st.floats(0.0, 0.5)) * e_max_kwh,
        charge_efficiency=draw(st.floats(0.5, 1.0)),
        discharge_efficiency=draw(st.floats(0.5, 1.0)),
        idling_kw=draw(st.sampled_from([0.0, 0.3])) if idling else 0.0,
    )
    rest_kwh = draw(st.none() | st.floats(0.0, 1.0).map(lambda share: share * e_max_kwh))
    return Battery(unit, draw(shares) * e_max_kwh, rest_kwh, rest_kw=draw(st.floats(0.0, 20.0)), kvar_per_kw=0.2)


@st.composite
def vehicles(draw):
    """Sessions on whole MTUs, so that every kind of step lies in one or in none."""
    sessions, end_s = [], 0
    for _ in range(draw(st.integers(0, 3))):
        begin_s = end_s + MTU_S * draw(st.integers(0, 6))
        end_s = begin_s + MTU_S * draw(st.integers(1, 12))
        sessions.append(Session(begin_s, end_s, draw(st.floats(0.0, 30.0))))
    return ElectricVehicle(
        p_max_kw=draw(st.floats(1.0, 22.0)),
        sessions=tuple(sessions),
        efficiency=draw(st.floats(0.7, 1.0)),
        charging=draw(st.sampled_from(["at_once", "evenly"])),
    )


@st.composite
def heat_pumps(draw):
    return HeatPump(
        p_max_kw=draw(st.floats(0.5, 10.0)),
        cop=draw(st.floats(1.0, 5.0)),
        capacity_kwh_per_k=draw(st.floats(0.5, 20.0)),
        resistance_k_per_kw=draw(st.floats(1.0, 15.0)),
        comfort_k=draw(st.floats(0.3, 3.0)),
        recovery_s=draw(st.sampled_from([900.0, 3600.0, 14400.0])),
        initial_c=draw(st.floats(17.0, 23.0)),
    )


@st.composite
def loads(draw):
    rebound = draw(st.sampled_from([(), (1.0,), (0.5, 0.3, 0.2), (0.4,)]))
    return Load(draw(shares), MTU_S, rebound, kvar_per_kw=0.3)


pvs = st.builds(Pv, curtailable=shares)
devices = st.one_of(batteries(), vehicles(), heat_pumps(), loads(), pvs)
storing = st.one_of(batteries(), vehicles(), heat_pumps())


@st.composite
def forecasts(draw, device, most=12):
    """Conditions of consecutive MTUs. A battery's schedule, a load's consumption, the generation of PV."""
    n = draw(st.integers(1, most))
    p_kw = {Battery: st.one_of(st.just(0.0), powers), Load: st.floats(-5.0, 50.0), Pv: st.floats(-50.0, 2.0)}
    drawn = p_kw.get(type(device), st.just(0.0))
    outdoors_c = draw(st.floats(-15.0, 30.0))
    return [Conditions(k * MTU_S, draw(drawn), outdoors_c + draw(st.floats(-3.0, 3.0))) for k in range(n)]


@st.composite
def situations(draw, kinds=devices, most=12):
    """A device with a forecast of MTUs and the state at its beginning, possibly after something happened."""
    device = draw(kinds)
    forecast = draw(forecasts(device, most))
    state = device.start()
    for _ in range(draw(st.integers(0, 3))):
        state, _ = step(device, state, draw(powers), forecast[0], MTU_S)
        forecast = [replace(now, t_s=now.t_s + MTU_S) for now in forecast]
    return device, state, forecast


def course(device, state, forecast, changes_kw, baseline_kw, step_s):
    """Activates ``changes_kw`` MTU by MTU in sub-steps; what each MTU's power departs from what it would have been."""
    departed_kw = []
    for now, change_kw, declared_kw in zip(forecast, changes_kw, baseline_kw, strict=True):
        delivered, free = [], []
        held = dispatch(device, state, declared_kw, change_kw, now, MTU_S)
        for begin_s in range(0, MTU_S, step_s):
            then = replace(now, t_s=now.t_s + begin_s)
            free.append(device.free_kw(state, then, step_s) if device.of_profile else declared_kw)
            wanted_kw = set_point_kw(device, state, held, then, step_s)
            state, p_kw = step(device, state, wanted_kw, then, step_s)
            delivered.append(p_kw)
        departed_kw.append(np.mean(delivered) - np.mean(free))
    return np.array(departed_kw), state
