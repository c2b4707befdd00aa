"""The network with all its PODs taken out: what the batch power flow starts from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from cosim.domain.frames import Complexes, Floats
from cosim.domain.grid import GridLayout
from cosim.errors import FeederError
from cosim.grid.circuit import node_voltages, solve_flat
from cosim.grid.feeder import Feeder

CONSTANT_POWER = 1  # OpenDSS's load and generator model
_LINEAR = ("vsource", "isource", "line", "transformer", "autotrans", "capacitor", "reactor", "fault")
_CONTROLS = ("regcontrol", "capcontrol", "swtcontrol", "energymeter", "monitor", "sensor")


@dataclass(frozen=True)
class PodBranch:
    """One phase branch of a POD: between ``nodes`` (0 = ground, else 1 + index of node), with ``share`` of its power.

    It draws constant power while its voltage is within ``v_min_pu..v_max_pu`` of ``v_rated`` [V].
    """

    pod: int
    nodes: tuple[int, int]
    share: float
    v_rated: float
    v_min_pu: float
    v_max_pu: float


@dataclass(frozen=True)
class Port:
    """One end of a branch: ``nodes`` (n_conductor,) of its conductors there (0 = ground, else 1 + index of node), and
    ``y`` (n_conductor, n_all) [S], which turns the voltages of ``all_nodes`` (n_all,), the conductors of all ends of
    the branch, into the currents that enter it here."""

    nodes: tuple[int, ...]
    all_nodes: tuple[int, ...]
    y: Complexes


@dataclass(frozen=True)
class Unloaded:
    """System matrix ``y`` (n_node, n_node) [S] and node voltages ``v`` (n_node,) [V] without the PODs; ``v_base``
    (n_node,) [V], phase to ground; ``ports`` by terminal."""

    layout: GridLayout
    pods: tuple[str, ...]
    pod_branches: tuple[PodBranch, ...]
    y: scipy.sparse.csc_matrix
    v: Complexes
    v_base: Floats
    ports: dict[str, Port]


def take_out_pods(dss: Any, feeder: Feeder, elements: Sequence[str], layout: GridLayout, v_base: Floats) -> Unloaded:
    """Takes the PODs' ``elements`` (n_pod,) out of the circuit and solves it.

    Raises FeederError if a POD does not draw constant power, or if something else in the circuit is not linear.
    """
    _check_models(dss, feeder, elements)
    branches = tuple(branch for pod, name in enumerate(elements) for branch in _pod_branches(dss, pod, name))
    for name in elements:
        dss.ActiveCircuit.SetActiveElement(name)
        dss.ActiveCircuit.ActiveCktElement.Enabled = False
    solve_flat(dss)
    n_node = len(layout.nodes)
    data, indices, indptr = dss.YMatrix.GetCompressedYMatrix(False)
    y = scipy.sparse.csc_matrix((data, indices, indptr), shape=(n_node, n_node))
    ports = {terminal: _port(dss, terminal) for terminal in layout.terminals}
    return Unloaded(layout, tuple(feeder.pods), branches, y, node_voltages(dss, n_node)[1:], v_base, ports)


def _check_models(dss: Any, feeder: Feeder, elements: Sequence[str]) -> None:
    faults, pods = [], set(elements)
    for (pod, entry), name in zip(feeder.pods.items(), elements, strict=True):
        dss.ActiveCircuit.SetActiveElement(name)
        model = int(dss.ActiveCircuit.ActiveCktElement.Properties("model").Val)
        if model != CONSTANT_POWER:
            problem = f"{entry.element} is not of constant power, as the batch power flow needs it"
            faults.append(feeder.fault(f"pods.{pod}.element", problem, f"model={model}", f"model={CONSTANT_POWER}"))
    for element in map(str, dss.ActiveCircuit.AllElementNames):
        kind = element.partition(".")[0].lower()
        if kind in (*_LINEAR, *_CONTROLS) or element.lower() in pods:
            continue
        dss.ActiveCircuit.SetActiveElement(element)
        if dss.ActiveCircuit.ActiveCktElement.Enabled:
            problem = f"{element} is no POD and not linear, so the batch power flow cannot leave it in the network"
            faults.append(feeder.fault("pods", problem, allowed="list it under pods, or set enabled=no"))
    if faults:
        raise FeederError(faults)


def _pod_branches(dss: Any, pod: int, name: str) -> list[PodBranch]:
    dss.ActiveCircuit.SetActiveElement(name)
    element = dss.ActiveCircuit.ActiveCktElement
    refs = [int(r) for r in element.NodeRef]
    phases, kv = int(element.NumPhases), float(element.Properties("kV").Val)
    delta = element.Properties("conn").Val.lower().startswith(("d", "ll"))
    v_rated = 1000.0 * kv / (math.sqrt(3.0) if phases > 1 and not delta else 1.0)
    v_min, v_max = (float(element.Properties(key).Val) for key in ("Vminpu", "Vmaxpu"))
    ends = [refs[(k + 1) % len(refs)] if delta else refs[-1] for k in range(phases)]
    return [PodBranch(pod, (refs[k], end), 1.0 / phases, v_rated, v_min, v_max) for k, end in enumerate(ends)]


def _port(dss: Any, terminal: str) -> Port:
    branch, _, bus = terminal.partition("@")
    dss.ActiveCircuit.SetActiveElement(branch)
    element = dss.ActiveCircuit.ActiveCktElement
    refs = tuple(int(r) for r in element.NodeRef)
    y = np.asarray(element.Yprim).view(np.complex128).reshape(len(refs), len(refs))
    end = [str(name).partition(".")[0].upper() for name in element.BusNames].index(bus)
    own = slice(end * element.NumConductors, (end + 1) * element.NumConductors)
    return Port(refs[own], refs, y[own])
