"""Regulators and capacitor controls: what of a circuit lasts from one step to the next."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from cosim.domain.frames import Floats, frozen
from cosim.errors import Fault, PowerFlowError
from cosim.grid.circuit import solve_flat
from cosim.grid.script import Script

LASTING = ("fuse", "relay", "recloser", "invcontrol", "expcontrol", "storagecontroller", "gendispatcher", "upfccontrol")
"""Classes of controls with a memory of their own that `Controls.positions` does not hold."""
BY_THE_CLOCK = ("time", "follow")
"""Types of CapControl that look at the time of day, of which a solve knows nothing."""
_NO_CLOCK = "a control by the time of day, which a solve does not know"


class Controls:
    """Taps and capacitors that controls move; all others stay as the scripts set them.

    ``names`` (n_control,) are the elements that move: the transformer (with ``.winding`` where several of it are
    controlled) or the capacitor. ``moved`` tells whether any position may differ from those of the system matrix.
    """

    def __init__(self, dss: Any) -> None:
        self._dss, self._circuit = dss, dss.ActiveCircuit
        circuit = self._circuit
        self._events = [f"RegControl.{name}" for name in _names(circuit.RegControls)]
        self._events += [f"CapControl.{name}" for name in _names(circuit.CapControls)]
        self._taps = sorted({(str(c.Transformer), int(c.TapWinding)) for c in circuit.RegControls})
        self._transformers = list(dict.fromkeys(name for name, _ in self._taps))
        self._capacitors = sorted({str(control.Capacitor) for control in circuit.CapControls})
        several = len(self._taps) > len(self._transformers)
        taps = [f"Transformer.{name.upper()}" + (f".{winding}" if several else "") for name, winding in self._taps]
        self.names = (*taps, *(f"Capacitor.{name.upper()}" for name in self._capacitors))
        self.moved = bool(self.names)
        self._positions: dict[str, Any] | None = None
        for name in _names(circuit.CapControls):
            dss.Text.Command = f"Edit CapControl.{name} deadtime=0"  # else it depends on the time since opening

    def positions(self) -> dict[str, Any]:
        """``taps``: of each winding [pu], by transformer; ``capacitors``: whether open, and the state of each step.
        Not to be changed."""
        if self._positions is None:
            self._positions = {
                "taps": {name: self._read_taps(name) for name in self._transformers},
                "capacitors": {name: read_capacitor(self._circuit, name) for name in self._capacitors},
            }
        return self._positions

    def values(self, positions: dict[str, Any]) -> Floats:
        """Positions as numbers (n_control,), in the order of ``names``: tap [pu], share of a capacitor's steps that is
        in service."""
        taps = [positions["taps"][name][winding - 1] for name, winding in self._taps]
        shares = [_share(*positions["capacitors"][name]) for name in self._capacitors]
        return frozen([*taps, *shares])

    def at(self, values: Floats) -> dict[str, Any]:
        """The positions that `values` turned into numbers. Steps of a capacitor go into service from the first on."""
        positions = copy.deepcopy(self.positions())
        for (name, winding), tap in zip(self._taps, values, strict=False):
            positions["taps"][name][winding - 1] = float(tap)
        for name, share in zip(self._capacitors, values[len(self._taps) :], strict=True):
            n_step = len(positions["capacitors"][name][1])
            n_on = round(float(share) * n_step)
            positions["capacitors"][name] = [n_on == 0, [int(step < n_on) for step in range(n_step)]]
        return positions

    def solved(self, settled: bool) -> None:
        """Takes notice of a solve; not ``settled`` if it failed."""
        self.moved = bool(self.names) and not (settled and self._dss._api_util.lib.Solution_Get_ControlIterations() < 2)
        if self.moved:
            self._positions = None

    def restore(self, positions: dict[str, Any]) -> None:
        """Sets what `positions` gave."""
        for name, taps in positions["taps"].items():
            for winding, tap in enumerate(taps, start=1):
                put_tap(self._circuit, name, winding, tap)
        for name, (is_open, states) in positions["capacitors"].items():
            put_capacitor(self._circuit, name, is_open, states)
        self._positions, self.moved = None, bool(self.names)

    def hunting(self) -> list[str]:
        """Elements that still move at the end of one more solve of the same powers."""
        seen = len(self._circuit.Solution.EventLog)
        self._log_events("yes")
        with suppress(PowerFlowError):
            solve_flat(self._dss, rebuild=True)
        self._log_events("no")
        lines = [str(line) for line in self._circuit.Solution.EventLog][seen:]
        events = [dict(part.strip().partition("=")[::2] for part in line.split(",")) for line in lines]
        return sorted({e["Element"] for e in events if e["ControlIter"] == events[-1]["ControlIter"]})

    def _log_events(self, switch: str) -> None:
        for name in self._events:
            self._dss.Text.Command = f"Edit {name} eventlog={switch}"

    def _read_taps(self, name: str) -> list[float]:
        transformers = self._circuit.Transformers
        transformers.Name = name
        taps = []
        for winding in range(1, transformers.NumWindings + 1):
            transformers.Wdg = winding
            taps.append(float(transformers.Tap))
        return taps


def put_tap(circuit: Any, transformer: str, winding: int, tap_pu: float) -> None:
    """Sets the tap of a transformer's winding."""
    transformers = circuit.Transformers
    transformers.Name = transformer
    transformers.Wdg = winding
    transformers.Tap = tap_pu


def put_capacitor(circuit: Any, capacitor: str, is_open: bool, states: Sequence[int]) -> None:
    """Opens or closes a capacitor, and sets which of its steps are in service."""
    capacitors = circuit.Capacitors
    capacitors.Name = capacitor
    capacitors.States = states
    circuit.SetActiveElement(f"Capacitor.{capacitor}")
    element = circuit.ActiveCktElement
    (element.Open if is_open else element.Close)(1, 0)


def read_capacitor(circuit: Any, capacitor: str) -> list[Any]:
    """What `put_capacitor` set: whether it is open, and the state of each step."""
    capacitors = circuit.Capacitors
    capacitors.Name = capacitor
    circuit.SetActiveElement(f"Capacitor.{capacitor}")
    return [bool(circuit.ActiveCktElement.IsOpen(1, 0)), [int(state) for state in capacitors.States]]


def control_faults(circuit: Any, script: Script) -> list[Fault]:
    """Controls in service whose state could not be restored, or that would never act."""
    problem, allowed = "a control with a memory that a restart cannot restore", "RegControl, CapControl, or enabled=no"
    faults = []
    for name in map(str, circuit.AllElementNames):
        circuit.SetActiveElement(name)
        kind, element = name.partition(".")[0].lower(), circuit.ActiveCktElement
        if not element.Enabled:
            continue
        if kind in LASTING:
            faults.append(script.fault(problem, name, allowed=allowed))
        elif kind == "capcontrol" and (by := str(element.Properties("type").Val)).lower() in BY_THE_CLOCK:
            faults.append(script.fault(_NO_CLOCK, name, value=f"type={by}", allowed="current, voltage, kvar, PF"))
    transformers = {name.lower() for name in _names(circuit.Transformers)}
    for control in circuit.RegControls:
        if str(control.Transformer).lower() not in transformers:
            problem = f"it moves a tap of AutoTrans.{control.Transformer}, which a restart cannot restore"
            faults.append(script.fault(problem, f"RegControl.{control.Name}", allowed="a RegControl of a Transformer"))
    return faults


def _names(controls: Any) -> list[str]:
    return [str(name) for name in controls.AllNames if str(name).lower() != "none"]


def _share(is_open: bool, states: list[int]) -> float:
    return 0.0 if is_open else sum(states) / len(states)
