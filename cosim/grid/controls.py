"""Regulators and capacitor controls: what of a circuit lasts from one step to the next."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from cosim.errors import Fault, FeederError, PowerFlowError
from cosim.grid.circuit import solve_flat

LASTING = ("fuse", "relay", "recloser", "invcontrol", "expcontrol", "storagecontroller", "gendispatcher", "upfccontrol")
"""Classes of controls with a memory of their own that `Controls.positions` does not hold."""


class Controls:
    """Taps and capacitors that controls move; all others stay as the script ``master`` and its parts set them.
    ``present`` tells whether there are any controls.

    Raises FeederError naming every control whose state could not be restored.
    """

    def __init__(self, dss: Any, master: Path) -> None:
        self._dss, self._circuit = dss, dss.ActiveCircuit
        circuit = self._circuit
        _refuse_others(circuit, master)
        self._names = [f"RegControl.{control.Name}" for control in circuit.RegControls]
        self._names += [f"CapControl.{control.Name}" for control in circuit.CapControls]
        self.present = bool(self._names)
        self._transformers = list(dict.fromkeys(str(control.Transformer) for control in circuit.RegControls))
        self._capacitors = list(dict.fromkeys(str(control.Capacitor) for control in circuit.CapControls))
        for control in list(circuit.CapControls.AllNames) if self._capacitors else []:
            dss.Text.Command = f"Edit CapControl.{control} deadtime=0"  # else it depends on the time since opening

    def positions(self) -> dict[str, Any]:
        """``taps``: of each winding [pu], by transformer; ``capacitors``: whether open, and the state of each step."""
        return {
            "taps": {name: self._taps(name) for name in self._transformers},
            "capacitors": {name: self._capacitor(name) for name in self._capacitors},
        }

    def restore(self, positions: dict[str, Any]) -> None:
        """Sets what `positions` gave."""
        transformers, capacitors = self._circuit.Transformers, self._circuit.Capacitors
        for name, taps in positions["taps"].items():
            transformers.Name = name
            for winding, tap in enumerate(taps, start=1):
                transformers.Wdg = winding
                transformers.Tap = tap
        for name, (is_open, states) in positions["capacitors"].items():
            capacitors.Name = name
            capacitors.States = states
            self._circuit.SetActiveElement(f"Capacitor.{name}")
            element = self._circuit.ActiveCktElement
            (element.Open if is_open else element.Close)(1, 0)

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
        for name in self._names:
            self._dss.Text.Command = f"Edit {name} eventlog={switch}"

    def _taps(self, name: str) -> list[float]:
        transformers = self._circuit.Transformers
        transformers.Name = name
        taps = []
        for winding in range(1, transformers.NumWindings + 1):
            transformers.Wdg = winding
            taps.append(float(transformers.Tap))
        return taps

    def _capacitor(self, name: str) -> list[Any]:
        capacitors = self._circuit.Capacitors
        capacitors.Name = name
        self._circuit.SetActiveElement(f"Capacitor.{name}")
        is_open = bool(self._circuit.ActiveCktElement.IsOpen(1, 0))
        return [is_open, [int(state) for state in capacitors.States]]


def _refuse_others(circuit: Any, master: Path) -> None:
    problem, allowed = "a control with a memory that a restart cannot restore", "RegControl, CapControl"
    faults = [
        Fault(problem, str(master), value=str(name), allowed=allowed)
        for name in circuit.AllElementNames
        if str(name).partition(".")[0].lower() in LASTING
    ]
    if faults:
        raise FeederError(faults)
