"""The OpenDSS engine: one circuit that takes the power of every POD and gives back the state of the grid.

Every solve starts the same way (snapshot mode, flat start), so a state depends on the powers and on the position of
taps and capacitors alone, never on the solve before it: that makes a restart exact to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import opendssdirect
import scipy.sparse
from dss import DSSException, SetterFlags

from cosim.domain.flexibility import StorageUnit
from cosim.domain.frames import Complexes, Floats, frozen
from cosim.domain.grid import GridLayout, GridState
from cosim.errors import Fault, FeederError, PowerFlowError
from cosim.grid.feeder import Feeder, canonical_branch
from cosim.scenario.schema import GridConfig
from cosim.units import rated_current_a

_KW, _KVAR = {"load": 4, "generator": 4}, {"load": 12, "generator": 6}  # OpenDSS property numbers
_SIGN = {"load": 1.0, "generator": -1.0}
_spare_contexts: list[Any] = []  # engine contexts cannot be freed without leaking, so closed ones are used again


@dataclass(frozen=True)
class PodBranch:
    """One phase branch of a POD: between ``nodes`` (0 = ground, else 1 + index of node), carrying ``share`` of its power.

    It draws constant power while its voltage is within ``v_min_pu..v_max_pu`` of ``v_rated`` [V].
    """

    pod: int
    nodes: tuple[int, int]
    share: float
    v_rated: float
    v_min_pu: float
    v_max_pu: float


@dataclass(frozen=True)
class Unloaded:
    """The network with all PODs taken out: system matrix ``y`` (n_node, n_node) [S] and node voltages ``v`` (n_node,) [V];
    ``v_base`` (n_node,) [V]. ``terminal_y`` gives for each terminal its conductors' nodes (0 = ground) and the rows
    (n_conductor, n_node) [S] that turn node voltages into the currents entering the branch there."""

    layout: GridLayout
    pods: tuple[str, ...]
    pod_branches: tuple[PodBranch, ...]
    y: scipy.sparse.csc_matrix
    v: Complexes
    v_base: Floats
    terminal_y: dict[str, tuple[list[int], Complexes]]


class Engine:
    """One circuit of a feeder. ``pods`` is the order of the powers given to `solve`."""

    def __init__(self, feeder: Feeder, config: GridConfig) -> None:
        self.feeder = feeder
        self._config = config
        self._dss = _spare_contexts.pop() if _spare_contexts else opendssdirect.NewContext().to_dss_python()
        self._dss.AllowChangeDir = False
        _compile(self._dss, feeder.master)
        self._circuit = self._dss.ActiveCircuit
        self.pods = tuple(feeder.pods)
        self.storage = self._replace_storage()
        self._check_elements()
        self.pod_buses = tuple(self._bus_of(element) for element in self._elements)
        self._setters = [_PowerSetter(self._dss, kind, self._elements) for kind in ("load", "generator")]
        self._configure()
        self._map_network()

    def close(self) -> None:
        """Gives the engine's context back; the object must not be used afterwards."""
        self._dss.ClearAll()
        _spare_contexts.append(self._dss)

    # --- one step -----------------------------------------------------------------------------------------------

    def solve(self, p_kw: Floats, q_kvar: Floats) -> GridState:
        """The state with net consumption ``p_kw``, ``q_kvar`` (n_pod,) [kW, kvar], in the order of ``pods``.

        Raises PowerFlowError if the power flow or its controls do not settle.
        """
        for setter in self._setters:
            setter.set(p_kw, q_kvar)
        solution = self._circuit.Solution
        self._dss.YMatrix.SolutionInitialized = False
        try:
            solution.Solve()
        except DSSException as error:
            raise PowerFlowError(f"feeder {self.feeder.name}: {_plain(error)}") from None
        if not solution.Converged:
            raise PowerFlowError(
                f"feeder {self.feeder.name}: power flow did not converge in {solution.Iterations} iterations; "
                f"{self._weakest(p_kw)}"
            )
        return self._read(solution.Iterations)

    def diverged(self) -> GridState:
        """What is recorded for a step that did not converge."""
        nan = [frozen(np.full(n, np.nan)) for n in (len(self.layout.nodes),) * 2 + (len(self.layout.terminals),) * 3]
        loading = frozen(np.full(len(self.layout.branches), np.nan))
        return GridState(*nan, loading, math.nan, math.nan, math.nan, False, self._config.max_iterations)

    def voltages(self) -> Complexes:
        """Complex node voltages [V] of the last solve, ground first: (1 + n_node,)."""
        buffer = self._dss._api_util.ffi.buffer(self._dss.YMatrix.GetVPointer(), 16 * (1 + len(self.layout.nodes)))
        return np.frombuffer(buffer, dtype=np.complex128).copy()

    def _read(self, iterations: int) -> GridState:
        v = self.voltages()
        i = np.asarray(self._circuit.PDElements.AllCurrents).view(np.complex128)
        s_kva = np.add.reduceat(v[self._conductor_node] * i.conj(), self._terminal_start)[self._kept] / 1000.0
        i_a = np.maximum.reduceat(np.abs(i), self._terminal_start)[self._kept]
        node_v = v[1:]
        losses = self._circuit.Losses
        return GridState(
            vm_pu=frozen(np.abs(node_v) / self.v_base),
            va_deg=frozen(np.degrees(np.angle(node_v))),
            terminal_p_kw=frozen(s_kva.real),
            terminal_q_kvar=frozen(s_kva.imag),
            terminal_i_a=frozen(i_a),
            loading_pu=frozen((i_a / self.layout.rated_a).reshape(-1, 2).max(axis=1)),
            head_p_kw=float(s_kva[self._head].real),
            head_q_kvar=float(s_kva[self._head].imag),
            loss_kw=float(losses[0]) / 1000.0,
            converged=True,
            iterations=int(iterations),
        )

    # --- what lasts from step to step ---------------------------------------------------------------------------

    def controls(self) -> dict[str, Any]:
        """Positions of taps and capacitors; with the powers of a step they determine its state exactly."""
        transformers, capacitors = self._circuit.Transformers, self._circuit.Capacitors
        taps = {}
        for _ in transformers:
            taps[transformers.Name] = [self._tap(winding) for winding in range(1, transformers.NumWindings + 1)]
        states = {}
        for _ in capacitors:
            self._circuit.SetActiveElement(f"Capacitor.{capacitors.Name}")
            is_open = bool(self._circuit.ActiveCktElement.IsOpen(1, 0))
            states[capacitors.Name] = [is_open, [int(s) for s in capacitors.States]]
        return {"taps": taps, "capacitors": states}

    def restore_controls(self, controls: dict[str, Any]) -> None:
        """Sets the positions that `controls` gave."""
        transformers, capacitors = self._circuit.Transformers, self._circuit.Capacitors
        for name, taps in controls["taps"].items():
            transformers.Name = name
            for winding, tap in enumerate(taps, start=1):
                transformers.Wdg = winding
                transformers.Tap = tap
        for name, (is_open, states) in controls["capacitors"].items():
            capacitors.Name = name
            capacitors.States = states
            self._circuit.SetActiveElement(f"Capacitor.{name}")
            element = self._circuit.ActiveCktElement
            (element.Open if is_open else element.Close)(1, 0)

    def _tap(self, winding: int) -> float:
        self._circuit.Transformers.Wdg = winding
        return float(self._circuit.Transformers.Tap)

    # --- the network without its PODs ------------------------------------------------------------------------------

    def _pod_branches(self) -> tuple[PodBranch, ...]:
        branches = []
        for pod, name in enumerate(self._elements):
            self._circuit.SetActiveElement(name)
            element = self._circuit.ActiveCktElement
            refs = [int(r) for r in element.NodeRef]
            phases, kv = element.NumPhases, float(element.Properties("kV").Val)
            delta = element.Properties("conn").Val.lower().startswith(("d", "ll"))
            v_rated = 1000.0 * kv / (math.sqrt(3.0) if phases > 1 and not delta else 1.0)
            v_min, v_max = (float(element.Properties(key).Val) for key in ("Vminpu", "Vmaxpu"))
            for k in range(phases):
                nodes = (refs[k], refs[(k + 1) % len(refs)] if delta else refs[-1])
                branches.append(PodBranch(pod, nodes, 1.0 / phases, v_rated, v_min, v_max))
        return tuple(branches)

    def unloaded(self) -> Unloaded:
        """Takes all PODs out and solves; afterwards the engine is only good for closing."""
        branches = self._pod_branches()
        for name in self._elements:
            self._circuit.SetActiveElement(name)
            self._circuit.ActiveCktElement.Enabled = False
        self._dss.YMatrix.SolutionInitialized = False
        self._circuit.Solution.Solve()
        data, indices, indptr = self._dss.YMatrix.GetCompressedYMatrix(False)
        n_node = len(self.layout.nodes)
        y = scipy.sparse.csc_matrix((data, indices, indptr), shape=(n_node, n_node))
        return Unloaded(self.layout, self.pods, branches, y, self.voltages()[1:], self.v_base, self._terminal_rows())

    def _terminal_rows(self) -> dict[str, tuple[list[int], Complexes]]:
        rows = {}
        n_node = len(self.layout.nodes)
        for name in dict.fromkeys(terminal.partition("@")[0] for terminal in self.layout.terminals):
            self._circuit.SetActiveElement(name)
            element = self._circuit.ActiveCktElement
            refs = [int(r) for r in element.NodeRef]
            y_prim = np.asarray(element.Yprim).view(np.complex128).reshape(len(refs), len(refs))
            y = np.zeros((len(refs), 1 + n_node), dtype=np.complex128)
            for column, node in enumerate(refs):
                y[:, node] += y_prim[:, column]
            n = element.NumConductors
            for k, bus in enumerate(element.BusNames):
                terminal = f"{name}@{str(bus).partition('.')[0].upper()}"
                rows[terminal] = (refs[k * n : (k + 1) * n], y[k * n : (k + 1) * n, 1:])
        return rows

    # --- set-up -------------------------------------------------------------------------------------------------

    def _replace_storage(self) -> tuple[StorageUnit, ...]:
        """Reads every storage POD and puts a generator in its place: stored energy is our own model, because the
        Storage element integrates at each solve and runs at full power through a step with room for a part of it."""
        self._elements = [pod.element.lower() for pod in self.feeder.pods.values()]
        units = []
        for k, (name, pod) in enumerate(self.feeder.pods.items()):
            if pod.kind != "storage" or self._circuit.SetActiveElement(pod.element) < 0:
                continue
            units.append(self._storage_unit(name))
            element = self._circuit.ActiveCktElement
            bus, phases, kv = element.BusNames[0], element.NumPhases, element.Properties("kV").Val
            conn = element.Properties("conn").Val
            element.Enabled = False
            self._elements[k] = f"generator.cosim_{pod.element.partition('.')[2].lower()}"
            self._dss.Text.Command = (
                f"New {self._elements[k]} phases={phases} bus1={bus} kV={kv} conn={conn} model=1 "
                "Vminpu=0.8 Vmaxpu=1.2 kW=0 kvar=0"
            )
        return tuple(units)

    def _storage_unit(self, pod: str) -> StorageUnit:
        def figure(key: str) -> float:
            return float(self._circuit.ActiveCktElement.Properties(key).Val)

        e_max_kwh = figure("kWhrated")
        return StorageUnit(
            pod=pod,
            p_max_kw=figure("kWrated"),
            e_max_kwh=e_max_kwh,
            reserve_kwh=e_max_kwh * figure("%reserve") / 100.0,
            charge_efficiency=figure("%EffCharge") / 100.0,
            discharge_efficiency=figure("%EffDischarge") / 100.0,
            idling_kw=figure("%IdlingkW") / 100.0 * figure("kWrated"),
        )

    def _check_elements(self) -> None:
        faults = []
        names = {str(name).lower() for name in self._circuit.AllElementNames}
        for (pod, entry), element in zip(self.feeder.pods.items(), self._elements, strict=True):
            if element not in names:
                known = sorted(n for n in names if n.split(".")[0] in ("load", "generator", "storage"))
                faults.append(
                    self.feeder.fault(f"pods.{pod}.element", "no such element", entry.element, ", ".join(known))
                )
            elif element.split(".")[0] not in _SIGN:
                faults.append(
                    self.feeder.fault(f"pods.{pod}.element", "not a POD", entry.element, "Load, Generator, Storage")
                )
        if faults:
            raise FeederError(faults)

    def _bus_of(self, element: str) -> str:
        self._circuit.SetActiveElement(element)
        return str(self._circuit.ActiveCktElement.BusNames[0]).partition(".")[0].upper()

    def _configure(self) -> None:
        for command in (
            "Set mode=snapshot",
            "Set controlmode=static",
            f"Set tolerance={self._config.tolerance_pu!r}",
            f"Set maxiterations={self._config.max_iterations}",
            f"Set maxcontroliter={self._config.max_control_iterations}",
        ):
            self._dss.Text.Command = command
        for name in self._circuit.CapControls.AllNames or []:
            if name.upper() != "NONE":
                self._dss.Text.Command = f"Edit CapControl.{name} deadtime=0"

    def _map_network(self) -> None:
        circuit = self._circuit
        circuit.Solution.BuildYMatrix(0, 1)
        nodes = tuple(str(n).upper() for n in circuit.YNodeOrder)
        bus_kv = {str(b).upper(): self._bus_kv(str(b)) for b in circuit.AllBusNames}
        self.v_base = frozen([1000.0 * bus_kv[n.rpartition(".")[0]] for n in nodes])
        terminals, rated_a, starts, conductors, kept = [], [], [], [], []
        for name in circuit.PDElements.AllNames:
            circuit.SetActiveElement(name)
            element = circuit.ActiveCktElement
            branch, buses = canonical_branch(name), [str(b).partition(".")[0].upper() for b in element.BusNames]
            refs = np.asarray(element.NodeRef).reshape(element.NumTerminals, element.NumConductors)
            for bus, row in zip(buses, refs, strict=True):
                starts.append(len(conductors))
                conductors.extend(int(r) for r in row)
                kept.append(len(buses) == 2 and buses[0] != buses[1])
                if kept[-1]:
                    terminals.append(f"{branch}@{bus}")
                    rated_a.append(self._rated_a(branch, bus_kv[bus] * math.sqrt(3.0)))
        self._conductor_node = np.array(conductors)
        self._terminal_start = np.array(starts)
        self._kept = np.array(kept)
        self.layout = GridLayout(
            nodes, tuple(dict.fromkeys(t.partition("@")[0] for t in terminals)), tuple(terminals), frozen(rated_a)
        )
        self._head = self._head_terminal()

    def _bus_kv(self, bus: str) -> float:
        self._circuit.SetActiveBus(bus)
        kv = float(self._circuit.ActiveBus.kVBase)
        if kv <= 0.0:
            raise FeederError(
                Fault(f"bus {bus} has no base voltage; add it to Set VoltageBases", str(self.feeder.master))
            )
        return kv

    def _rated_a(self, branch: str, v_kv: float) -> float:
        rating = self.feeder.rating(branch)
        if rating is None:
            return math.nan
        return rating.i_a if rating.i_a is not None else rated_current_a(rating.s_kva or math.nan, v_kv)

    def _head_terminal(self) -> int:
        head = self.feeder.head_terminal
        if head not in self.layout.terminals:
            known = ", ".join(self.layout.terminals)
            raise FeederError(self.feeder.fault("head", "no such end of a branch", head, known))
        return self.layout.terminals.index(head)

    def _weakest(self, p_kw: Floats) -> str:
        v_pu = np.abs(self.voltages()[1:]) / self.v_base
        node = int(np.nanargmin(v_pu)) if np.isfinite(v_pu).any() else 0
        pod = int(np.argmax(np.abs(p_kw)))
        return (
            f"lowest voltage {v_pu[node]:.3f} pu at node {self.layout.nodes[node]}, "
            f"largest POD {self.pods[pod]} with {p_kw[pod]:.1f} kW"
        )


class _PowerSetter:
    """Sets kW and kvar of all PODs of one element class in one call, without rebuilding the system matrix."""

    def __init__(self, dss: Any, kind: str, elements: list[str]) -> None:
        api = dss._api_util
        self._lib, self._ffi, self._kind = api.lib, api.ffi, kind
        names = {n.lower(): k for k, n in enumerate(_names(dss, kind), start=1)}
        chosen = [(pod, names[e.partition(".")[2]]) for pod, e in enumerate(elements) if e.startswith(kind + ".")]
        self._pods = np.array([pod for pod, _ in chosen], dtype=np.intp)
        self._batch, self._count = _batch(dss, kind, [index for _, index in chosen]) if chosen else (None, 0)
        self._buffer = np.zeros(self._count)
        self._pointer = self._ffi.cast("double*", self._buffer.ctypes.data)

    def set(self, p_kw: Floats, q_kvar: Floats) -> None:
        if self._batch is None:
            return
        for index, values in ((_KW[self._kind], p_kw), (_KVAR[self._kind], q_kvar)):
            np.multiply(values[self._pods], _SIGN[self._kind], out=self._buffer)
            self._lib.Batch_SetFloat64Array(
                self._batch, self._count, index, self._pointer, int(SetterFlags.AvoidFullRecalc)
            )


def _names(dss: Any, kind: str) -> list[str]:
    dss.SetActiveClass(kind)
    return list(dss.ActiveClass.AllNames)


def _batch(dss: Any, kind: str, indices: list[int]) -> tuple[Any, int]:
    api = dss._api_util
    pointer, dims = api.ffi.new("void***"), api.ffi.new("int32_t[4]")
    chosen = api.ffi.new("int32_t[]", indices)
    api.lib.Batch_CreateByIndexS(pointer, dims, kind.encode(), chosen, len(indices))
    return pointer[0], dims[0]


def _compile(dss: Any, master: Path) -> None:
    if not master.is_file():
        raise FeederError(Fault("no such file", str(master)))
    try:
        dss.ClearAll()
        dss.Text.Command = f'Redirect "{master}"'
    except DSSException as error:
        raise FeederError(Fault(f"OpenDSS refuses the circuit: {_plain(error)}", str(master))) from None
    if dss.NumCircuits == 0:
        raise FeederError(Fault("the script defines no circuit", str(master), allowed="New Circuit.<name> ..."))


def _plain(error: DSSException) -> str:
    return " ".join(str(error).split())
