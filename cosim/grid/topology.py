"""The names and ratings of a compiled circuit's nodes and branches, and where their voltages and currents stand."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.domain.frames import Complexes, Floats, Ints, frozen
from cosim.domain.grid import GridLayout
from cosim.errors import Fault
from cosim.grid.feeder import Feeder, canonical_branch
from cosim.grid.script import Script, shown
from cosim.grid.stock import Winding, read_transformers, terminal_nodes


@dataclass(frozen=True)
class End:
    """A branch at one of its buses, all its windings there together: ``phases`` of the element, and its live
    conductors: ``nodes`` (1 + index of node), each with ``positions`` among all conductors of all elements (more than
    one where windings share a node)."""

    branch: str
    bus: str
    phases: int
    nodes: tuple[int, ...]
    positions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Topology:
    """``v_base`` (n_node,) [V], phase to ground, NaN where unknown, and ``head``, the index of the head among the
    terminals of ``layout``, -1 if it is none.

    OpenDSS gives the currents of all conductors at all ends of all elements in one list: ``taken`` (n_taken,) of it
    make up the conductors of ``layout``, which begin at ``taken_start`` (n_conductor,) of them, None where each is one.
    """

    layout: GridLayout
    v_base: Floats
    head: int
    taken: Ints
    taken_start: Ints | None

    def conductor_a(self, currents: Complexes) -> Complexes:
        """Current [A] into the branch of each conductor (n_conductor,) from OpenDSS's list."""
        taken = currents.take(self.taken)
        return taken if self.taken_start is None else np.add.reduceat(taken, self.taken_start)


def read_topology(circuit: Any, feeder: Feeder) -> Topology:
    """What the active circuit is made of, in the names and with the ratings of ``feeder``."""
    circuit.Solution.BuildYMatrix(0, 1)
    nodes = tuple(str(name).upper() for name in circuit.YNodeOrder)
    bus_kv = _bus_kv(circuit)
    windings = {each.name: each.windings for each in read_transformers(circuit)}
    ends = list(_ends(circuit, nodes))
    branches = tuple(dict.fromkeys(end.branch for end in ends))
    branch_index = {branch: k for k, branch in enumerate(branches)}
    layout = GridLayout(
        nodes=nodes,
        branches=branches,
        terminals=tuple(f"{end.branch}@{end.bus}" for end in ends),
        terminal_branch=frozen([branch_index[end.branch] for end in ends], np.int64),
        conductors=tuple(f"{end.branch}@{nodes[node - 1]}" for end in ends for node in end.nodes),
        conductor_terminal=frozen([k for k, end in enumerate(ends) for _ in end.nodes], np.int64),
        conductor_node=frozen([node - 1 for end in ends for node in end.nodes], np.int64),
        rated_a=frozen([_rated_a(feeder, end, bus_kv[end.bus], windings.get(end.branch, ())) for end in ends]),
    )
    positions = [found for end in ends for found in end.positions]
    several = any(len(found) > 1 for found in positions)
    return Topology(
        layout=layout,
        v_base=frozen([1000.0 * bus_kv[node.rpartition(".")[0]] for node in nodes]),
        head=layout.terminals.index(feeder.head_terminal) if feeder.head_terminal in layout.terminals else -1,
        taken=np.array([position for found in positions for position in found], dtype=np.int64),
        taken_start=np.cumsum([0, *(len(found) for found in positions[:-1])]) if several else None,
    )


def _ends(circuit: Any, nodes: tuple[str, ...]) -> Iterator[End]:
    """The ends of all elements in service that lie in series between buses, in OpenDSS's order."""
    counts = zip(
        circuit.PDElements.AllNames,
        circuit.PDElements.AllNumPhases,
        circuit.PDElements.AllNumTerminals,
        circuit.PDElements.AllNumConductors,
        strict=True,
    )
    first = 0
    for name, phases, n_terminal, n_conductor in counts:
        circuit.SetActiveElement(name)
        element = circuit.ActiveCktElement
        if element.Enabled:
            found = _at_buses(terminal_nodes(element), first, nodes)
            if len(found) > 1:
                for bus, conductors in found.items():
                    positions = tuple(tuple(each) for each in conductors.values())
                    yield End(canonical_branch(str(name)), bus, int(phases), tuple(conductors), positions)
        first += int(n_terminal * n_conductor)


def _at_buses(refs: Ints, first: int, nodes: tuple[str, ...]) -> dict[str, dict[int, list[int]]]:
    """Live conductors of an element at each of its buses, from its nodes ``refs`` (terminal, conductor): positions by
    node, counted from ``first``."""
    found: dict[str, dict[int, list[int]]] = {}
    for position, ref in enumerate(map(int, refs.ravel()), start=first):
        if ref:
            bus = nodes[ref - 1].rpartition(".")[0]
            found.setdefault(bus, {}).setdefault(ref, []).append(position)
    return found


def _bus_kv(circuit: Any) -> dict[str, float]:
    """Base voltage of each bus [kV], phase to ground; NaN if unknown."""
    bus_kv = {}
    for name in map(str, circuit.AllBusNames):
        circuit.SetActiveBus(name)
        bus_kv[name.upper()] = float(circuit.ActiveBus.kVBase) or math.nan
    return bus_kv


def _rated_a(feeder: Feeder, end: End, v_phase_kv: float, windings: Sequence[Winding]) -> float:
    """Rated current [A] of a conductor at an end; NaN if no rating is known.

    A rated power has it at the rated voltage of the winding there (IEC 60076-1: rated current), or of two windings of a
    single phase that of both in series (split phase). A branch without ``windings``, and several windings of several
    phases at one bus, of which none need have the voltage of the bus (zigzag), take ``v_phase_kv``, its base voltage.
    """
    rating = feeder.rating(end.branch)
    if rating is None:
        return math.nan
    if rating.i_a is not None:
        return rating.i_a
    assert rating.s_kva is not None
    here = [winding for winding in windings if winding.bus == end.bus]
    if end.phases == 1 and here:
        voltages_kv = [winding.kv for winding in here]
        return rating.s_kva / (sum(voltages_kv) if len(end.nodes) > 1 else max(voltages_kv))
    return rating.s_kva / (end.phases * (_phase_kv(end.phases, here[0]) if len(here) == 1 else v_phase_kv))


def _phase_kv(phases: int, winding: Winding) -> float:
    """Power of a phase over the current of a line conductor, both rated [kV]. Lines of a delta of three phases carry
    sqrt(3) times the current of its windings, the outer ones of a delta of two (open delta) that current itself."""
    is_line_kv = phases == 3 or (phases == 2 and winding.connection != "delta")
    return winding.kv / math.sqrt(3.0) if is_line_kv else winding.kv


def topology_faults(topology: Topology, feeder: Feeder, script: Script, dead: Collection[str]) -> Iterator[Fault]:
    """Buses without base voltage other than the ``dead`` ones, ratings of branches that do not exist, and a head that
    does not exist."""
    layout = topology.layout
    unknown = zip(layout.nodes, np.isnan(topology.v_base), strict=True)
    without = dict.fromkeys(node.rpartition(".")[0] for node, is_unknown in unknown if is_unknown)
    if missing := [bus for bus in without if bus not in dead]:
        problem = "buses without base voltage; add Set VoltageBases and CalcVoltageBases"
        yield script.fault(problem, value=", ".join(missing))
    for branch in feeder.file.ratings:
        if canonical_branch(branch) not in layout.branches:
            yield feeder.fault(f"ratings.{branch}", "no such branch", branch, shown(layout.branches))
    if topology.head < 0:
        yield feeder.fault("head", "no such end of a branch", feeder.head_terminal, shown(layout.terminals))
