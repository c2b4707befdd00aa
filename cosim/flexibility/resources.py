"""Flexible devices: what all kinds have in common, one step of any of them, and their memory.

A device draws ``free_kw`` while nobody asks anything of it. A set-point is a constant power for a market time unit
(MTU); the device cuts it to what it can do. Powers have the passive sign: consumption, charging > 0; injection < 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from cosim.domain.frames import Floats, frozen

State = TypeVar("State")
Number = Any
"""A float of one device, or an array (n,) of ``n`` of them, all at once."""


@dataclass(frozen=True)
class Conditions:
    """What acts on a device from outside, from ``t_s`` [s since the start of the run] on, for the time asked about.

    ``p_kw``: the profile of a load or of PV, else the schedule of the device; ``temperature_c``: outdoors.
    """

    t_s: int
    p_kw: Number = 0.0
    temperature_c: Number = 0.0


@dataclass(frozen=True)
class NoState:
    """The memory of a device that remembers nothing."""


@dataclass(frozen=True)
class Store:
    """How far a device can depart from its baseline over ``n_mtu`` MTUs in a row, in one direction at a time.

    The departure of the stored energy ``d`` [kWh] starts at 0. UP by ``x`` [kW], at most ``up_max_kw``, makes it
    ``retention * d + up_kwh_per_kw * x`` at the end of the MTU, which must not be above ``up_room_kwh``; the same for
    DOWN. All arrays (n_mtu,). Where the baseline is not zero the rates of a battery are upper bounds: the set is then
    smaller than what is possible, never larger. A course of one direction that is feasible stays so when parts of it
    are left out or replaced by the other direction, as long as that is feasible for itself.
    """

    retention: float
    up_max_kw: Floats
    down_max_kw: Floats
    up_kwh_per_kw: Floats
    down_kwh_per_kw: Floats
    up_room_kwh: Floats
    down_room_kwh: Floats


class Device(Protocol[State]):
    """A kind of device, with its parameters. All methods are pure."""

    @property
    def kvar_per_kw(self) -> float:
        """Reactive power that comes with each kW of the device, by its registered power factor."""

    @property
    def of_profile(self) -> bool:
        """Whether the profile of its POD is the device itself, so that a change acts on whatever the profile is."""

    def start(self) -> State:
        """The memory at the start of a run."""

    def free_kw(self, state: State, now: Conditions, duration_s: float) -> Number:
        """Mean power [kW] for ``duration_s`` [s] without a set-point."""

    def limits_kw(self, state: State, now: Conditions, duration_s: float) -> tuple[Number, Number] | None:
        """Least and most constant power [kW] that it keeps up for ``duration_s`` [s]; None if it takes no set-point."""

    def after(self, state: State, p_kw: Number, now: Conditions, duration_s: float) -> State:
        """The memory after ``duration_s`` [s] at a power [kW] within its limits or its free one."""

    def store(
        self, states: Sequence[State], forecast: Sequence[Conditions], baseline_kw: Floats, mtu_s: int
    ) -> Store | None:
        """What couples MTUs, around ``baseline_kw`` (n_mtu,) that leads through ``states`` (n_mtu + 1,); None for
        nothing."""


def step(
    device: Device[State], state: State, p_kw: float | None, now: Conditions, step_s: float
) -> tuple[State, Number]:
    """The memory after one step of ``step_s`` [s], and the power [kW] delivered in it.

    ``p_kw`` is the set-point, cut to what is possible; without one (None) the device runs free.
    """
    limits = None if p_kw is None else device.limits_kw(state, now, step_s)
    if p_kw is None or limits is None:
        delivered_kw = device.free_kw(state, now, step_s)
    else:
        delivered_kw = min(max(p_kw, limits[0]), limits[1])
    return device.after(state, delivered_kw, now, step_s), delivered_kw


@dataclass(frozen=True)
class Dispatch:
    """What a device is held to for an MTU: a change (consumption positive) around the declared power [kW]."""

    baseline_kw: float
    change_kw: float


def dispatch(
    device: Device[State], state: State, baseline_kw: float, change_kw: float, now: Conditions, mtu_s: int
) -> Dispatch | None:
    """Decided at the beginning of an MTU: None for a device that takes no set-point for all of it and runs free."""
    return None if device.limits_kw(state, now, mtu_s) is None else Dispatch(baseline_kw, change_kw)


def set_point_kw(
    device: Device[State], state: State, held: Dispatch | None, now: Conditions, step_s: float
) -> float | None:
    """The set-point [kW] of a step in an MTU for which a device is held to something; None if it is not.

    A change of a load or of PV acts on what the profile turns out to be, so that errors of its forecast remain; other
    devices hold the declared power and the change. With a change of 0 they hold what was declared; without a set-point
    they would make up at once for what an activation before kept from them.
    """
    if held is None:
        return None
    return (device.free_kw(state, now, step_s) if device.of_profile else held.baseline_kw) + held.change_kw


def free_mtu(device: Device[State], state: State, now: Conditions, mtu_s: int, step_s: int) -> tuple[State, Number]:
    """The memory after an MTU without a set-point, in steps of ``step_s`` [s], and the mean power [kW] in it."""
    powers = []
    for begin_s in range(0, mtu_s, step_s):
        then = replace(now, t_s=now.t_s + begin_s) if begin_s else now
        state, p_kw = step(device, state, None, then, step_s)
        powers.append(p_kw)
    return state, sum(powers) / len(powers)


def memory_to_json(state: Any) -> dict[str, Any]:
    """The memory of a device, or of many as one, as what ``json`` can write, exactly."""
    return {field.name: _plain(getattr(state, field.name)) for field in fields(state)}


def memory_from_json(device: Device[State], document: Mapping[str, Any]) -> State:
    """The memory that ``memory_to_json`` made. Raises KeyError if an entry is missing."""
    kind: Any = type(device.start())
    restored: State = kind(**{field.name: _restored(document[field.name]) for field in fields(kind)})
    return restored


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _restored(value: Any) -> Any:
    """Lists are tuples, in which lists are arrays."""
    if not isinstance(value, list):
        return value
    return tuple(frozen(each) if isinstance(each, list) else each for each in value)
