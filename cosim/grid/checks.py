"""What is wrong with a circuit, found before the first solve and all at once: OpenDSS itself would solve most of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from cosim.domain.frames import Complexes, Ints
from cosim.domain.grid import GridLayout
from cosim.errors import Fault
from cosim.grid.feeder import Feeder, canonical_branch
from cosim.grid.script import Script, shown

_PHASES = 3  # nodes with higher numbers are neutrals, which may float
_WOUND = ("transformer", "autotrans")


def line_faults(circuit: Any, script: Script) -> list[Fault]:
    """Lines in service without impedance, for which OpenDSS finds no admittance."""
    faults, lines = [], circuit.Lines
    for name in map(str, lines.AllNames if lines.Count else ()):  # without any, the list is ["NONE"]
        lines.Name = name
        if not circuit.ActiveCktElement.Enabled:
            continue
        if not lines.Length > 0.0:
            faults.append(script.fault("a line of length 0", f"Line.{name}", allowed="length > 0"))
        elif not (np.any(lines.Rmatrix) or np.any(lines.Xmatrix)):
            faults.append(script.fault("a line without impedance", f"Line.{name}", allowed="r or x > 0"))
    return faults


def path_faults(circuit: Any, nodes: Sequence[str], feeder: Feeder) -> list[Fault]:
    """Buses, and phases of buses, that no branch in service connects to the source, with the PODs there.

    The system matrix must have been built.
    """
    reached = _reached(circuit, len(nodes))
    phases: dict[str, dict[int, bool]] = {}
    for node, is_reached in zip(nodes, reached, strict=True):
        bus, _, phase = node.rpartition(".")
        if int(phase) <= _PHASES:
            phases.setdefault(bus, {})[int(phase)] = bool(is_reached)
    pods_at = _pods_at(circuit, nodes, feeder)
    return [*_dead_buses(feeder, phases, pods_at), *_dead_phases(feeder, phases, pods_at)]


def dead_buses(circuit: Any, nodes: Sequence[str]) -> set[str]:
    """Buses without any path to the source."""
    buses = [node.rpartition(".")[0] for node in nodes]
    reached = _reached(circuit, len(nodes))
    return set(buses) - {bus for bus, is_reached in zip(buses, reached, strict=True) if is_reached}


def zone_faults(feeder: Feeder, layout: GridLayout) -> Iterator[Fault]:
    """Zones whose buses or transformer are not part of the circuit."""
    buses = set(layout.buses)
    transformers = [branch for branch in layout.branches if branch.partition(".")[0].lower() in _WOUND]
    for name, zone in feeder.file.zones.items():
        if zone.head.upper() not in buses:
            yield feeder.fault(f"zones.{name}.head", "no such bus", zone.head, shown(layout.buses))
        missing = [bus for bus in zone.buses if bus.upper() not in buses]
        if missing:
            yield feeder.fault(f"zones.{name}.buses", "no such bus", shown(missing), shown(layout.buses))
        if zone.transformer is not None and canonical_branch(zone.transformer) not in transformers:
            yield feeder.fault(
                f"zones.{name}.transformer", "no such transformer", zone.transformer, shown(transformers)
            )


def links(circuit: Any, left_out: Collection[str] = ()) -> list[tuple[int, int]]:
    """Pairs of nodes (1 + index of node) that a conductor or a winding in service connects, and of 0 with the nodes of
    the sources. Elements ``left_out`` are full names in lower case."""
    kept = (name for name in map(str, circuit.PDElements.AllNames) if name.lower() not in left_out)
    pairs = [pair for name in kept for pair in _linked(circuit, name)]
    sources = [node for name in map(str, circuit.Vsources.AllNames) for node in _terminal_nodes(circuit, name)]
    return [*pairs, *((0, node) for node in sources)]


def _reached(circuit: Any, n_node: int) -> Ints:
    """Whether each node (n_node,) has a path to a source by conductors and windings."""
    rows, columns = np.array(links(circuit)).reshape(-1, 2).T
    graph = scipy.sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(1 + n_node, 1 + n_node))
    _, island = connected_components(graph, directed=False)
    return np.asarray(island[1:] == island[0])


def _terminal_nodes(circuit: Any, source: str) -> list[int]:
    circuit.SetActiveElement(f"Vsource.{source}")
    element = circuit.ActiveCktElement
    return [int(ref) for ref in element.NodeRef if ref] if element.Enabled else []


def _linked(circuit: Any, name: str) -> list[tuple[int, int]]:
    """Pairs of nodes that an element connects: the ends of its conductors, of a transformer those of all windings that
    act on each other. Node 0 is ground and connects nothing."""
    circuit.SetActiveElement(name)
    element = circuit.ActiveCktElement
    if not element.Enabled:
        return []
    refs = np.asarray(element.NodeRef)
    y = np.asarray(element.Yprim).view(np.complex128).reshape(len(refs), len(refs)).T
    linked = y != 0.0 if name.partition(".")[0].lower() in _WOUND else _along(y, int(element.NumConductors))
    live = refs != 0
    return [(int(refs[a]), int(refs[b])) for a, b in np.argwhere(linked & live[:, None] & live) if a < b]


def _along(y: Complexes, n_conductor: int) -> Ints:
    """Which conductors are the same one at another terminal, and not open: phases act on each other, too."""
    at = np.arange(len(y))
    return np.asarray((y != 0.0) & (at[:, None] % n_conductor == at % n_conductor))


def _pods_at(circuit: Any, nodes: Sequence[str], feeder: Feeder) -> dict[str, list[str]]:
    """PODs at each node."""
    names = {str(name).lower() for name in circuit.AllElementNames}
    pods_at: dict[str, list[str]] = {}
    for pod, entry in feeder.pods.items():
        if entry.element.lower() in names:
            circuit.SetActiveElement(entry.element)
            if circuit.ActiveCktElement.Enabled:
                for ref in sorted({int(ref) for ref in circuit.ActiveCktElement.NodeRef if ref}):
                    pods_at.setdefault(nodes[ref - 1], []).append(pod)
    return pods_at


def _dead_buses(
    feeder: Feeder, phases: Mapping[str, Mapping[int, bool]], pods_at: Mapping[str, Sequence[str]]
) -> Iterator[Fault]:
    dead = {bus: of_bus for bus, of_bus in phases.items() if not any(of_bus.values())}
    pods = dict.fromkeys(pod for bus, of_bus in dead.items() for k in of_bus for pod in pods_at.get(f"{bus}.{k}", ()))
    if dead:
        problem = "buses without a path to the source" + (f" (with the PODs {shown(list(pods))})" if pods else "")
        yield Fault(problem, str(feeder.master), value=shown(list(dead)))


def _dead_phases(
    feeder: Feeder, phases: Mapping[str, Mapping[int, bool]], pods_at: Mapping[str, Sequence[str]]
) -> Iterator[Fault]:
    for bus, of_bus in phases.items():
        has = ", ".join(str(phase) for phase, is_reached in of_bus.items() if is_reached)
        for phase in [phase for phase, is_reached in of_bus.items() if has and not is_reached]:
            problem = f"no branch brings phase {phase} to bus {bus}, which has {has}"
            pods = pods_at.get(f"{bus}.{phase}", ())
            for pod in pods:
                yield feeder.fault(f"pods.{pod}.element", problem, feeder.pods[pod].element)
            if not pods:
                yield Fault(problem, str(feeder.master))
