"""The network with all its PODs taken out: what batch power flows and sensitivities start from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from cosim.domain.frames import Complexes, Floats, Ints
from cosim.domain.grid import GridLayout
from cosim.errors import Fault, FeederError
from cosim.grid.circuit import rebuild_system, solve_flat
from cosim.grid.feeder import Feeder
from cosim.grid.law import UNKNOWN, VoltageLaw, generator_law, load_law

_MODELS = {"load": (1, 2, 5), "generator": (1, 2)}
_SOURCES = ("vsource", "isource")
_LINEAR = (*_SOURCES, "line", "transformer", "autotrans", "capacitor", "reactor", "fault")
_ABLE_TO_BE_PODS = ("load", "generator", "pvsystem", "storage")
_CONTROLS = ("regcontrol", "capcontrol", "swtcontrol", "energymeter", "monitor", "sensor")
_FIXED = ("Line", "Reactor", "Fault")
_BY_LINE_VOLTAGE = (2, 3)  # phases of a wye element whose rated voltage is given between lines


@dataclass(frozen=True)
class PodBranch:
    """One phase branch of a POD: between ``nodes`` (0 = ground, else 1 + index of node; the higher first, as power has
    no direction), with ``share`` of the POD's power, drawn by ``law`` at its voltage over ``v_rated`` [V]."""

    pod: int
    nodes: tuple[int, int]
    share: float
    v_rated: float
    law: VoltageLaw


@dataclass(frozen=True)
class Unloaded:
    """The network without its PODs at one position of its controls.

    System matrix ``y`` (n_node, n_node) [S], node voltages ``v`` (n_node,) [V], ``v_base`` (n_node,) [V], phase to
    ground; ``conductor_y`` (n_conductor, n_node) [S] turns node voltages into the currents from the buses into the
    branches. ``unknown_laws`` has a fault for each POD whose load law only OpenDSS knows, `UNKNOWN` in its branches.
    """

    layout: GridLayout
    pods: tuple[str, ...]
    pod_branches: tuple[PodBranch, ...]
    y: scipy.sparse.csc_matrix
    v: Complexes
    v_base: Floats
    conductor_y: scipy.sparse.csr_matrix
    unknown_laws: tuple[Fault, ...] = ()

    def require_laws(self) -> Self:
        """Itself; raises FeederError naming every POD whose load law is not known here."""
        if self.unknown_laws:
            raise FeederError(self.unknown_laws)
        return self

    def factor(self) -> Any:
        """SuperLU of ``y``: its ``solve`` turns currents into the nodes [A] into voltages [V]. It is not kept: it
        takes little time, and ten times the memory of all else here."""
        return scipy.sparse.linalg.splu(self.y)


class PodFreeCircuit:
    """A circuit whose PODs are out of service for good, and whose controls stay where they are put.

    ``elements`` (n_pod,) are those of the PODs, ``switches`` the lines that may be opened. Raises FeederError if
    something else in the circuit is not linear, if a POD grounds a neutral, or if a node hangs on PODs alone.
    """

    def __init__(
        self,
        dss: Any,
        feeder: Feeder,
        elements: Sequence[str],
        layout: GridLayout,
        v_base: Floats,
        switches: Sequence[str] = (),
    ) -> None:
        faults = [*_grounded_neutrals(dss, feeder, elements), *_not_linear(dss, feeder, elements)]
        if faults:
            raise FeederError(faults)
        self._dss, self._layout, self._v_base, self._pods = dss, layout, v_base, tuple(feeder.pods)
        self._pod_branches = pod_branches(dss, elements)
        self._unknown_laws = tuple(_unknown_laws(dss, feeder, elements))
        dss.Text.Command = "Set controlmode=off"
        for name in elements:
            dss.ActiveCircuit.SetActiveElement(name)
            dss.ActiveCircuit.ActiveCktElement.Enabled = False
        solve_flat(dss)
        self._refuse_hanging(feeder)
        self._source_a = _source_currents(dss)
        self._admittances = _BranchAdmittances(dss, layout, switches)

    def read(self) -> Unloaded:
        """The network at the present positions of taps, capacitors and switches."""
        rebuild_system(self._dss)
        y = self._y()
        v = scipy.sparse.linalg.splu(y).solve(self._source_a)
        conductor_y = self._admittances.read()
        return Unloaded(
            self._layout, self._pods, self._pod_branches, y, v, self._v_base, conductor_y, self._unknown_laws
        )

    def _y(self) -> scipy.sparse.csc_matrix:
        n_node = len(self._layout.nodes)
        data, indices, indptr = self._dss.YMatrix.GetCompressedYMatrix(True)
        return scipy.sparse.csc_matrix((data, indices, indptr), shape=(n_node, n_node))

    def _refuse_hanging(self, feeder: Feeder) -> None:
        """Nodes that left with the PODs, as nothing else connects to them: e.g. neutrals."""
        left = {str(name).upper() for name in self._dss.ActiveCircuit.YNodeOrder}
        problem = "a node that nothing but PODs connects to, which the batch power flow cannot do without them"
        faults = [
            feeder.fault(f"pods.{self._pods[branch.pod]}.element", problem, self._layout.nodes[ref - 1])
            for branch in self._pod_branches
            for ref in branch.nodes
            if ref and self._layout.nodes[ref - 1] not in left
        ]
        if faults:
            raise FeederError(tuple(dict.fromkeys(faults)))


class _BranchAdmittances:
    """The primitive admittances of all branches of a circuit, by conductor; those that cannot change are read once."""

    def __init__(self, dss: Any, layout: GridLayout, switches: Sequence[str]) -> None:
        self._circuit, self._shape = dss.ActiveCircuit, (len(layout.conductors), len(layout.nodes))
        branch = layout.terminal_branch[layout.conductor_terminal]
        ends = zip(branch.tolist(), layout.conductor_node.tolist(), strict=True)
        row_of = {(layout.branches[b], node): row for row, (b, node) in enumerate(ends)}
        self._places: dict[str, Ints] = {}
        self._slices: dict[str, slice] = {}
        rows, columns, first = [], [], 0
        for name in layout.branches:
            self._circuit.SetActiveElement(name)
            refs = [int(ref) for ref in self._circuit.ActiveCktElement.NodeRef]
            live = [(i, j) for i, own in enumerate(refs) for j, other in enumerate(refs) if own and other]
            rows += [row_of[name, refs[i] - 1] for i, _ in live]
            columns += [refs[j] - 1 for _, j in live]
            self._places[name] = np.array([i * len(refs) + j for i, j in live])
            self._slices[name] = slice(first, first + len(live))
            first += len(live)
        self._rows, self._columns = np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64)
        self._siemens = np.zeros(first, dtype=np.complex128)
        self._refresh(layout.branches)
        self._moving = [name for name in layout.branches if name.partition(".")[0] not in _FIXED or name in switches]

    def read(self) -> scipy.sparse.csr_matrix:
        """(n_conductor, n_node) [S]."""
        self._refresh(self._moving)
        return scipy.sparse.csr_matrix((self._siemens, (self._rows, self._columns)), shape=self._shape)

    def _refresh(self, names: Sequence[str]) -> None:
        for name in names:
            self._circuit.SetActiveElement(name)
            y = np.asarray(self._circuit.ActiveCktElement.Yprim).view(np.complex128)
            self._siemens[self._slices[name]] = y[self._places[name]]


def has_known_law(dss: Any, element: str) -> bool:
    """Whether a Load or Generator (full name in lower case) has a load law that is known here."""
    return _model(dss, element) in _MODELS[element.partition(".")[0]]


def pod_branches(dss: Any, elements: Sequence[str]) -> tuple[PodBranch, ...]:
    """The phase branches of the PODs' ``elements`` (n_pod,), of the law `UNKNOWN` where it is not known here."""
    return tuple(branch for pod, name in enumerate(elements) for branch in _pod_branches(dss, pod, name))


def _model(dss: Any, element: str) -> int:
    dss.ActiveCircuit.SetActiveElement(element)
    return int(dss.ActiveCircuit.ActiveCktElement.Properties("model").Val)


def _unknown_laws(dss: Any, feeder: Feeder, elements: Sequence[str]) -> Iterator[Fault]:
    for (pod, entry), name in zip(feeder.pods.items(), elements, strict=True):
        model = _model(dss, name)
        known = _MODELS[name.partition(".")[0]]
        if model not in known:
            problem = f"{entry.element} has a load law that only OpenDSS knows, so a market has no sensitivities to it"
            allowed = ", ".join((*(f"model={number}" for number in known), "or a run without a market"))
            yield feeder.fault(f"pods.{pod}.element", problem, f"model={model}", allowed)


def _grounded_neutrals(dss: Any, feeder: Feeder, elements: Sequence[str]) -> Iterator[Fault]:
    for (pod, entry), name in zip(feeder.pods.items(), elements, strict=True):
        if _grounds_its_neutral(dss, name):
            problem = f"{entry.element} connects a neutral to ground, which would leave the network with it"
            yield feeder.fault(f"pods.{pod}.element", problem, allowed="a Reactor to ground in its place")


def _grounds_its_neutral(dss: Any, element: str) -> bool:
    dss.ActiveCircuit.SetActiveElement(element)
    load = dss.ActiveCircuit.ActiveCktElement
    wye = load.Properties("conn").Val.lower().startswith(("w", "y", "ln"))
    is_load = element.partition(".")[0] == "load"
    return bool(is_load and wye and load.NodeRef[-1] and float(load.Properties("Rneut").Val) >= 0.0)


def _not_linear(dss: Any, feeder: Feeder, elements: Sequence[str]) -> Iterator[Fault]:
    pods = set(elements)
    for element in map(str, dss.ActiveCircuit.AllElementNames):
        kind = element.partition(".")[0].lower()
        if kind in (*_LINEAR, *_CONTROLS) or element.lower() in pods:
            continue
        dss.ActiveCircuit.SetActiveElement(element)
        if dss.ActiveCircuit.ActiveCktElement.Enabled:
            problem = f"{element} is no POD and not linear, so the batch power flow cannot leave it in the network"
            as_pod = "list it under pods, or " if kind in _ABLE_TO_BE_PODS else ""
            yield feeder.fault("pods", problem, allowed=f"{as_pod}set enabled=no")


def _source_currents(dss: Any) -> Complexes:
    """Currents [A] into the nodes (n_node,) of the sources with their impedances in the system matrix: the same at all
    positions of what moves, to the last bit."""
    dss.YMatrix.ZeroInjCurr()
    dss.YMatrix.GetSourceInjCurrents()
    return np.array(dss.YMatrix.getI()).view(np.complex128)[1:]


def _pod_branches(dss: Any, pod: int, name: str) -> list[PodBranch]:
    dss.ActiveCircuit.SetActiveElement(name)
    element = dss.ActiveCircuit.ActiveCktElement
    refs = [int(r) for r in element.NodeRef]
    phases, kv = int(element.NumPhases), float(element.Properties("kV").Val)
    delta = element.Properties("conn").Val.lower().startswith(("d", "ll"))
    v_rated = 1000.0 * kv / (math.sqrt(3.0) if phases in _BY_LINE_VOLTAGE and not delta else 1.0)
    law = _law(element, name, phases == 1 and delta)
    ends = [refs[(k + 1) % len(refs)] if delta else refs[-1] for k in range(phases)]
    return [
        PodBranch(pod, (max(refs[k], end), min(refs[k], end)), 1.0 / phases, v_rated, law) for k, end in enumerate(ends)
    ]


def _law(element: Any, name: str, single_phase_delta: bool) -> VoltageLaw:
    model = int(element.Properties("model").Val)
    if model not in _MODELS[name.partition(".")[0]]:
        return UNKNOWN
    v_min, v_max = (float(element.Properties(key).Val) for key in ("Vminpu", "Vmaxpu"))
    if name.partition(".")[0] == "generator":
        return generator_law(model, v_min, v_max, single_phase_delta)
    return load_law(model, v_min, v_max, float(element.Properties("Vlowpu").Val))
