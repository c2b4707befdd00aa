"""What a feeder holds, and the state of its circuit with the powers that the script sets."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.domain.frames import Floats, Ints, frozen
from cosim.errors import PowerFlowError
from cosim.grid.circuit import compile_circuit, give_back, node_voltages, solve_flat
from cosim.grid.engine import refuse_faults
from cosim.grid.feeder import Feeder
from cosim.grid.stock import (
    POWERED,
    Capacitor,
    Edge,
    Group,
    Regulation,
    Transformer,
    bus_name,
    read_capacitors,
    read_edges,
    read_injecting,
    read_loads,
    read_regulations,
    read_transformers,
)
from cosim.grid.topology import Topology, read_topology
from cosim.scenario.schema import GridConfig

_PHASES = 3  # nodes with higher numbers are neutrals


@dataclass(frozen=True)
class BaseCase:
    """The solved state with the powers of the script and all controls at work.

    ``vm_pu`` (n_node,), NaN of neutrals, which have no voltage to compare with; ``edge_a`` (n_edge,) current of the
    highest-loaded phase at the start of an edge [A], NaN out of service; power at the head [kW, kvar], import
    positive; losses of the whole circuit [kW].
    """

    vm_pu: Floats
    edge_a: Floats
    head_p_kw: float
    head_q_kvar: float
    loss_kw: float


@dataclass(frozen=True)
class Inventory:
    """What a feeder holds.

    ``bus_kv`` (n_bus,) rated line-to-line voltages [kV]; ``bus_phases`` (n_bus,) the phases at each bus, e.g. ``123``;
    ``xy`` (n_bus, 2) coordinates in the script's own unit, NaN where it gives none; ``node_bus`` (n_node,) the bus of
    each node; ``source`` the bus of the grid, by index. ``loads`` are by (phases, connection, law), ``injecting`` by
    OpenDSS class, ``pods`` by kind: the sums of their profiles' factors, passive sign. ``others`` are the names of all
    elements of further classes (CapControl, Monitor, shunt Reactor ...), ``no_pods`` the loads and generating elements
    that no POD uses, ``idle`` all elements out of service, ``unrated`` the branches without rating. ``base`` is None
    where the power flow or the controls fail, ``failure`` says how.
    """

    feeder: Feeder
    buses: tuple[str, ...]
    bus_kv: Floats
    bus_phases: tuple[str, ...]
    xy: Floats
    source: int
    nodes: tuple[str, ...]
    node_bus: Ints
    edges: tuple[Edge, ...]
    transformers: tuple[Transformer, ...]
    regulations: tuple[Regulation, ...]
    capacitors: tuple[Capacitor, ...]
    loads: dict[tuple[int, str, str], Group]
    injecting: dict[str, Group]
    pods: dict[str, Group]
    others: dict[str, tuple[str, ...]]
    no_pods: tuple[str, ...]
    idle: tuple[str, ...]
    unrated: tuple[str, ...]
    base: BaseCase | None
    failure: str

    @property
    def vm_pu(self) -> Floats:
        """Voltage of the lowest phase at each bus (n_bus,) [pu]; NaN where there is none."""
        lowest = np.full(len(self.buses), np.nan)
        if self.base is not None:
            np.fmin.at(lowest, self.node_bus, self.base.vm_pu)
        return lowest


def take_stock(feeder: Feeder, config: GridConfig) -> Inventory:
    """What a feeder holds, and its state with the powers of the script, solved with ``config``.

    Raises FeederError with all that is wrong with the circuit or its ``feeder.yaml``, as the engine does.
    """
    dss, script = compile_circuit(feeder.master)
    try:
        refuse_faults(dss.ActiveCircuit, feeder, script)
        return _inventory(dss, feeder, config)
    finally:
        give_back(dss)


def _inventory(dss: Any, feeder: Feeder, config: GridConfig) -> Inventory:
    circuit = dss.ActiveCircuit
    topology = read_topology(circuit, feeder)
    layout = topology.layout
    index = {bus: k for k, bus in enumerate(layout.buses)}
    edges = tuple(read_edges(circuit, index))
    base, failure = _solved(dss, topology, edges, config)
    elements = {str(name).lower(): _written(str(name)) for name in circuit.AllElementNames}
    idle = {name for name in elements if not _in_service(circuit, name)}
    taken = {pod.element.lower() for pod in feeder.pods.values()} | idle
    return Inventory(
        feeder=feeder,
        buses=layout.buses,
        bus_kv=_bus_kv(topology, index),
        bus_phases=_bus_phases(layout.nodes, index),
        xy=_coordinates(circuit, index),
        source=index[bus_name(circuit.ActiveCktElement.BusNames[0])] if circuit.Vsources.First else 0,
        nodes=layout.nodes,
        node_bus=frozen([index[bus_name(node)] for node in layout.nodes], np.int64),
        edges=edges,
        transformers=tuple(read_transformers(circuit)),
        regulations=tuple(read_regulations(circuit)),
        capacitors=tuple(read_capacitors(circuit)),
        loads=read_loads(circuit),
        injecting=read_injecting(circuit),
        pods=_pods(feeder),
        others=_others([shown for name, shown in elements.items() if name not in idle], edges),
        no_pods=tuple(
            shown for name, shown in elements.items() if name.partition(".")[0] in POWERED and name not in taken
        ),
        idle=tuple(elements[name] for name in elements if name in idle),
        unrated=tuple(branch for branch in layout.branches if feeder.rating(branch) is None),
        base=base,
        failure=failure,
    )


def _written(element: str) -> str:
    kind, _, name = element.partition(".")
    return f"{kind}.{name.upper()}"


def _in_service(circuit: Any, element: str) -> bool:
    circuit.SetActiveElement(element)
    return bool(circuit.ActiveCktElement.Enabled)


def _solved(dss: Any, topology: Topology, edges: tuple[Edge, ...], config: GridConfig) -> tuple[BaseCase | None, str]:
    for command in (
        "Set mode=snapshot",
        f"Set tolerance={config.tolerance_pu!r}",
        f"Set maxiterations={config.max_iterations}",
        f"Set maxcontroliter={config.max_control_iterations}",
        "Set algorithm=normal loadmodel=powerflow",
        "Set controlmode=static",
    ):
        dss.Text.Command = command
    try:
        solve_flat(dss)
    except PowerFlowError as error:
        return None, f"controls do not settle: {error}"
    if not dss.ActiveCircuit.Solution.Converged:
        return None, f"the power flow does not converge in {config.max_iterations} iterations"
    return _base_case(dss, topology, edges), ""


def _base_case(dss: Any, topology: Topology, edges: tuple[Edge, ...]) -> BaseCase:
    circuit, layout = dss.ActiveCircuit, topology.layout
    v = node_voltages(dss, len(layout.nodes))[1:]
    i = topology.conductor_a(np.asarray(circuit.PDElements.AllCurrents).view(np.complex128))
    s_kva = np.add.reduceat(v[layout.conductor_node] * i.conj(), layout.terminal_start)[topology.head] / 1000.0
    highest_a = dict(zip(layout.terminals, layout.highest_a(np.abs(i)), strict=True))
    is_phase = np.array([_phase(node) <= _PHASES for node in layout.nodes])
    return BaseCase(
        vm_pu=frozen(np.where(is_phase, np.abs(v) / topology.v_base, np.nan)),
        edge_a=frozen([highest_a.get(f"{edge.branch}@{layout.buses[edge.start]}", math.nan) for edge in edges]),
        head_p_kw=float(s_kva.real),
        head_q_kvar=float(s_kva.imag),
        loss_kw=float(circuit.Losses[0]) / 1000.0,
    )


def _phase(node: str) -> int:
    return int(node.rpartition(".")[2])


def _bus_kv(topology: Topology, index: dict[str, int]) -> Floats:
    kv = np.zeros(len(index))
    for node, v_base in zip(topology.layout.nodes, topology.v_base, strict=True):
        kv[index[bus_name(node)]] = math.sqrt(3.0) * v_base / 1000.0
    return frozen(kv)


def _bus_phases(nodes: tuple[str, ...], index: dict[str, int]) -> tuple[str, ...]:
    phases: list[list[int]] = [[] for _ in index]
    for node in nodes:
        if _phase(node) <= _PHASES:
            phases[index[bus_name(node)]].append(_phase(node))
    return tuple("".join(map(str, sorted(found))) for found in phases)


def _coordinates(circuit: Any, index: dict[str, int]) -> Floats:
    xy = np.full((len(index), 2), np.nan)
    for bus, k in index.items():
        circuit.SetActiveBus(bus)
        if circuit.ActiveBus.Coorddefined:
            xy[k] = circuit.ActiveBus.x, circuit.ActiveBus.y
    return frozen(xy)


def _pods(feeder: Feeder) -> dict[str, Group]:
    found: dict[str, Group] = {}
    for kind in dict.fromkeys(pod.kind for pod in feeder.pods.values()):
        pods = [pod for pod in feeder.pods.values() if pod.kind == kind]
        p_kw, q_kvar = sum(pod.p_per_profile_kw for pod in pods), sum(pod.q_per_profile_kvar for pod in pods)
        found[kind] = Group(len(pods), p_kw, q_kvar)
    return found


def _others(elements: list[str], edges: tuple[Edge, ...]) -> dict[str, tuple[str, ...]]:
    told = {*POWERED, "vsource", "line", "transformer", "capacitor", "regcontrol"}
    series = {edge.branch for edge in edges}
    by_class = defaultdict(list)
    for name in elements:
        if name.partition(".")[0].lower() not in told and name not in series:
            by_class[name.partition(".")[0]].append(name)
    return {kind: tuple(names) for kind, names in by_class.items()}
