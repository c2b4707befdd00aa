"""Devices of a fleet in groups that are stepped together: those of a profile by kind, as columns; others in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cosim.domain.frames import Floats, Ints, frozen
from cosim.flexibility.band import Bands, flexibility_band
from cosim.flexibility.load import Load
from cosim.flexibility.pv import Pv
from cosim.flexibility.resources import (
    Conditions,
    Device,
    Dispatch,
    memory_from_json,
    memory_to_json,
    set_point_kw,
    step,
)

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Held:
    """What devices (n,) are held to in an MTU [kW], as `Dispatch`; NaN for those that are not."""

    baseline_kw: Floats
    change_kw: Floats

    def of(self, at: Ints) -> Held:
        """Those of some devices."""
        return Held(self.baseline_kw[at], self.change_kw[at])


class Group(Protocol):
    """Devices at ``at`` (n,) of a fleet. What acts on them is one `Conditions` with arrays (n,); their memory is one
    object."""

    @property
    def at(self) -> Ints: ...

    def start(self) -> Any:
        """The memory at the start of a run."""

    def able(self, state: Any, now: Conditions, duration_s: int) -> Bools:
        """Who takes a set-point for ``duration_s`` [s] (n,)."""

    def step(self, state: Any, held: Held | None, now: Conditions, step_s: int) -> tuple[Any, Floats]:
        """The memory after a step of ``step_s`` [s], and the powers in it (n,) [kW]; without ``held`` all run free."""

    def bands(self, state: Any, ahead: Sequence[Conditions], mtu_s: int, step_s: int) -> Bands:
        """Their bands over the MTUs ``ahead``."""

    def to_json(self, state: Any) -> Any:
        """The memory as what ``json`` can write, exactly."""

    def from_json(self, document: Any) -> Any:
        """The memory that `to_json` made."""


@dataclass(frozen=True)
class Alike:
    """Devices of one kind that follow the profiles of their PODs: ``device`` has their parameters as arrays (n,), and
    does with arrays what it does with numbers. They always take set-points, and store nothing."""

    at: Ints
    device: Device[Any]

    def start(self) -> Any:
        return self.device.start()

    def able(self, state: Any, now: Conditions, duration_s: int) -> Bools:
        return np.ones(len(self.at), dtype=bool)

    def step(self, state: Any, held: Held | None, now: Conditions, step_s: int) -> tuple[Any, Floats]:
        p_kw: Floats = self.device.free_kw(state, now, step_s)
        limits = None if held is None else self.device.limits_kw(state, now, step_s)
        if held is not None and limits is not None:
            wanted_kw = np.minimum(np.maximum(p_kw + held.change_kw, limits[0]), limits[1])
            p_kw = np.where(np.isnan(held.change_kw), p_kw, wanted_kw)
        return self.device.after(state, p_kw, now, step_s), p_kw

    def bands(self, state: Any, ahead: Sequence[Conditions], mtu_s: int, step_s: int) -> Bands:
        band = flexibility_band(self.device, state, ahead, mtu_s, step_s)
        return Bands(mtu_s, band.baseline_kw, band.up_kw, band.down_kw, {})

    def to_json(self, state: Any) -> Any:
        return memory_to_json(state)

    def from_json(self, document: Any) -> Any:
        return memory_from_json(self.device, document)


@dataclass(frozen=True)
class Each:
    """Devices of any kinds, one after the other; the memory is a tuple of theirs."""

    at: Ints
    devices: tuple[Device[Any], ...]

    def start(self) -> tuple[Any, ...]:
        return tuple(device.start() for device in self.devices)

    def able(self, state: Any, now: Conditions, duration_s: int) -> Bools:
        limits = [d.limits_kw(s, at, duration_s) for d, s, at in zip(self.devices, state, _each(now), strict=True)]
        return np.array([limit is not None for limit in limits])

    def step(self, state: Any, held: Held | None, now: Conditions, step_s: int) -> tuple[Any, Floats]:
        after, powers = [], []
        for device, each, at, hold in zip(self.devices, state, _each(now), self._held(held), strict=True):
            wanted_kw = set_point_kw(device, each, hold, at, step_s)
            then, p_kw = step(device, each, wanted_kw, at, step_s)
            after.append(then)
            powers.append(p_kw)
        return tuple(after), np.array(powers)

    def bands(self, state: Any, ahead: Sequence[Conditions], mtu_s: int, step_s: int) -> Bands:
        of_each = zip(*map(_each, ahead), strict=True)
        found = [
            flexibility_band(device, each, own, mtu_s, step_s)
            for device, each, own in zip(self.devices, state, of_each, strict=True)
        ]
        baseline_kw = np.array([band.baseline_kw for band in found]).T
        up_kw, down_kw = np.array([band.up_kw for band in found]).T, np.array([band.down_kw for band in found]).T
        stores = {k: band.store for k, band in enumerate(found) if band.store is not None}
        return Bands(mtu_s, baseline_kw, up_kw, down_kw, stores)

    def to_json(self, state: Any) -> Any:
        return [memory_to_json(each) for each in state]

    def from_json(self, document: Any) -> Any:
        return tuple(memory_from_json(*each) for each in zip(self.devices, document, strict=True))

    def _held(self, held: Held | None) -> Sequence[Dispatch | None]:
        if held is None:
            return [None] * len(self.devices)
        pairs = zip(held.baseline_kw.tolist(), held.change_kw.tolist(), strict=True)
        return [None if change_kw != change_kw else Dispatch(kw, change_kw) for kw, change_kw in pairs]


def _each(now: Conditions) -> Iterator[Conditions]:
    """Of each device what acts on all of them."""
    pairs = zip(now.p_kw.tolist(), now.temperature_c.tolist(), strict=True)
    return (Conditions(now.t_s, kw, outdoors_c) for kw, outdoors_c in pairs)


def groups_of(devices: Sequence[Device[Any]]) -> tuple[Group, ...]:
    """Loads, PV, and all others, each with the positions of its devices."""
    loads = [(k, device) for k, device in enumerate(devices) if isinstance(device, Load)]
    pvs = [(k, device) for k, device in enumerate(devices) if isinstance(device, Pv)]
    others = [(k, device) for k, device in enumerate(devices) if not isinstance(device, Load | Pv)]
    groups: list[Group] = []
    if loads:
        groups.append(Alike(_positions(loads), _loads([load for _, load in loads])))
    if pvs:
        groups.append(Alike(_positions(pvs), Pv(frozen([pv.curtailable for _, pv in pvs]))))
    if others:
        groups.append(Each(_positions(others), tuple(device for _, device in others)))
    return tuple(groups)


def _positions(found: Sequence[tuple[int, Any]]) -> Ints:
    return frozen([k for k, _ in found], np.int64)


def _loads(loads: Sequence[Load]) -> Load:
    """All loads as one; those that pay back for a shorter time owe nothing in the end."""
    rebounds = zip_longest(*(load.rebound for load in loads), fillvalue=0.0)
    return Load(frozen([load.curtailable for load in loads]), loads[0].mtu_s, tuple(map(frozen, rebounds)))
