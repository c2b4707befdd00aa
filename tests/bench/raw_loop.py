"""The reference for the grid: OpenDSS driven in a plain loop by opendssdirect, without anything of cosim around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import opendssdirect
from dss import SetterFlags

from cosim.domain.frames import Complexes, Floats

FEEDERS = Path(__file__).resolve().parents[2] / "dss_models"


class RawLoop:
    """A feeder's circuit with its storage switched off. ``loads``, ``generators`` are their names in OpenDSS's order,
    ``nodes`` those of the voltages, ``v_base`` (n_node,) their base voltages [V]."""

    def __init__(self, feeder: str) -> None:
        self.dss = opendssdirect.NewContext()
        self.dss.Basic.AllowChangeDir(False)
        self.dss.Text.Command(f'Redirect "{FEEDERS / feeder / "Master.dss"}"')
        self.dss.Text.Command("Set mode=snapshot controlmode=static tolerance=1e-8 maxiterations=100 maxcontroliter=20")
        for name in self.dss.Storages.AllNames() if self.dss.Storages.Count() else ():
            self.dss.Circuit.Disable(f"Storage.{name}")
        self.dss.Solution.Solve()
        self.loads = tuple(f"load.{name}".lower() for name in self.dss.Loads.AllNames())
        self.generators = tuple(f"generator.{name}".lower() for name in self.dss.Generators.AllNames())
        self.nodes = tuple(str(node).upper() for node in self.dss.Circuit.YNodeOrder())
        self.v_base = np.array([self._base_v(node) for node in self.nodes])

    def set_loads(self, p_kw: list[float], q_kvar: list[float]) -> None:
        """Consumption of all loads, in the order of ``loads``."""
        loads = self.dss.Loads
        for k, (p, q) in enumerate(zip(p_kw, q_kvar, strict=True), start=1):
            loads.Idx(k)
            loads.kW(p)
            loads.kvar(q)

    def set_generators(self, p_kw: list[float], q_kvar: list[float]) -> None:
        """Injection of all generators, in the order of ``generators``."""
        generators = self.dss.Generators
        for k, (p, q) in enumerate(zip(p_kw, q_kvar, strict=True), start=1):
            generators.Idx(k)
            generators.kW(p)
            generators.kvar(q)

    def _base_v(self, node: str) -> float:
        self.dss.Circuit.SetActiveBus(node.rpartition(".")[0])
        return 1000.0 * float(self.dss.Bus.kVBase())

    def solve(self) -> None:
        """From a flat start, as the engine does, so that both find the same last digits."""
        self.dss.YMatrix.SolutionInitialized(False)
        self.dss.Solution.Solve()

    def voltages(self) -> Complexes:
        """Node voltages (n_node,) [V]."""
        return np.asarray(self.dss.Circuit.YNodeVArray(), dtype=np.float64).view(np.complex128)

    def terminal_kva(self, branch: str) -> tuple[complex, ...]:
        """Complex power [kVA] flowing into ``branch`` at each of its terminals."""
        self.dss.Circuit.SetActiveElement(branch)
        element = self.dss.CktElement
        powers = np.asarray(element.Powers()).view(np.complex128).reshape(element.NumTerminals(), -1)
        return tuple(complex(total) for total in powers.sum(axis=1))

    def currents(self, branch: str) -> Floats:
        """Current [A] of each conductor of ``branch``."""
        self.dss.Circuit.SetActiveElement(branch)
        return np.abs(np.asarray(self.dss.CktElement.Currents()).view(np.complex128))

    def close(self) -> None:
        self.dss.Basic.ClearAll()


class RawBatchLoop:
    """The shortest fast loop: all powers by OpenDSS's batch setters that leave the system matrix alone, a solve, copies
    of node voltages and of the currents of all branches. ``elements`` (n_pod,) is the order of the powers."""

    def __init__(self, feeder: str, elements: Sequence[str]) -> None:
        raw = RawLoop(feeder)
        self.dss = raw.dss.to_dss_python()
        self._api = self.dss._api_util
        self._buffers: list[tuple[Any, int, Any, float, tuple[int, int]]] = []
        for kind, sign, numbers in (("load", 1.0, (4, 12)), ("generator", -1.0, (4, 6))):
            order = [elements.index(name) for name in getattr(raw, f"{kind}s") if name in elements]
            if order:
                pointer, dims = self._api.ffi.new("void***"), self._api.ffi.new("int32_t[4]")
                self._api.lib.Batch_CreateByClassS(pointer, dims, kind.encode())
                self._buffers.append((pointer[0], dims[0], np.array(order), sign, numbers))
        self._n_node = 1 + len(raw.nodes)

    def step(self, p_kw: Floats, q_kvar: Floats) -> tuple[Complexes, Complexes]:
        """Node voltages [V], ground first, and currents [A] of all conductors, at net consumption (n_pod,)."""
        lib, ffi = self._api.lib, self._api.ffi
        for batch, count, order, sign, numbers in self._buffers:
            for number, power in zip(numbers, (p_kw, q_kvar), strict=True):
                values = sign * power[order]
                pointer = ffi.cast("double*", values.ctypes.data)
                lib.Batch_SetFloat64Array(batch, count, number, pointer, int(SetterFlags.AvoidFullRecalc))
        self.dss.YMatrix.SolutionInitialized = False
        self.dss.ActiveCircuit.Solution.Solve()
        voltages = np.frombuffer(ffi.buffer(self.dss.YMatrix.GetVPointer(), 16 * self._n_node), np.complex128)
        return voltages.copy(), self.dss.ActiveCircuit.PDElements.AllCurrents.view(np.complex128)
