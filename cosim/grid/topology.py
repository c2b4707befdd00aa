"""The names and ratings of a compiled circuit's nodes and branches, and where their voltages and currents stand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cosim.domain.frames import Complexes, Floats, Ints, frozen
from cosim.domain.grid import GridLayout
from cosim.errors import Fault, FeederError
from cosim.grid.feeder import Feeder, canonical_branch
from cosim.units import rated_current_a


@dataclass(frozen=True)
class Topology:
    """``v_base`` (n_node,) [V], phase to ground, and ``head``, the index of the head among the terminals of ``layout``.

    OpenDSS gives the currents of all conductors at all ends of all elements in one list, of which ends that belong to
    a branch between two buses are ``kept`` (n_end,); ``conductor_node`` (n_conductor,) is 0 for ground, else 1 + index
    of node; ``end_start`` (n_end,) is the first conductor of each end.
    """

    layout: GridLayout
    v_base: Floats
    head: int
    conductor_node: Ints
    end_start: Ints
    kept: npt.NDArray[np.bool_]

    def terminal_flows(self, v: Complexes, i: Complexes) -> tuple[Complexes, Floats]:
        """Power [kVA] into the branch and current [A] of the highest-loaded conductor, each (n_terminal,), from node
        voltages, ground first (1 + n_node,) [V], and conductor currents (n_conductor,) [A]."""
        s_va: Complexes = np.add.reduceat(v[self.conductor_node] * i.conj(), self.end_start)
        i_a: Floats = np.maximum.reduceat(np.abs(i), self.end_start)
        return s_va[self.kept] / 1000.0, i_a[self.kept]


def read_topology(circuit: Any, feeder: Feeder) -> Topology:
    """What the active circuit is made of.

    Raises FeederError naming every bus without base voltage, every rating of a branch that does not exist, and a head
    that does not exist.
    """
    circuit.Solution.BuildYMatrix(0, 1)
    nodes = tuple(str(name).upper() for name in circuit.YNodeOrder)
    bus_kv = _bus_kv(circuit, feeder)
    terminals, rated_a, starts, conductors, kept = [], [], [], list[int](), []
    for name in circuit.PDElements.AllNames:
        circuit.SetActiveElement(name)
        element = circuit.ActiveCktElement
        buses = [str(bus).partition(".")[0].upper() for bus in element.BusNames]
        refs = np.asarray(element.NodeRef).reshape(element.NumTerminals, element.NumConductors)
        for bus, row in zip(buses, refs, strict=True):
            starts.append(len(conductors))
            conductors.extend(int(ref) for ref in row)
            kept.append(len(buses) == 2 and buses[0] != buses[1])
            if kept[-1]:
                terminals.append(f"{canonical_branch(name)}@{bus}")
                rated_a.append(_rated_a(feeder, name, bus_kv[bus], element.NumPhases, int(np.count_nonzero(row))))
    branches = tuple(dict.fromkeys(terminal.partition("@")[0] for terminal in terminals))
    layout = GridLayout(nodes, branches, tuple(terminals), frozen(rated_a))
    return Topology(
        layout=layout,
        v_base=frozen([1000.0 * bus_kv[node.rpartition(".")[0]] for node in nodes]),
        head=_head(feeder, layout),
        conductor_node=np.array(conductors),
        end_start=np.array(starts),
        kept=np.array(kept),
    )


def _bus_kv(circuit: Any, feeder: Feeder) -> dict[str, float]:
    """Base voltage of each bus [kV], phase to ground."""
    bus_kv = {}
    for name in map(str, circuit.AllBusNames):
        circuit.SetActiveBus(name)
        bus_kv[name.upper()] = float(circuit.ActiveBus.kVBase)
    without = [bus for bus, kv in bus_kv.items() if not kv > 0.0]
    if without:
        problem = "buses without base voltage; add Set VoltageBases and CalcVoltageBases"
        raise FeederError(Fault(problem, str(feeder.master), value=", ".join(without)))
    return bus_kv


def _rated_a(feeder: Feeder, branch: str, v_phase_kv: float, phases: int, live: int) -> float:
    """Rated current [A] at an end with ``live`` conductors that are not grounded; NaN if no rating is known."""
    rating = feeder.rating(branch)
    if rating is None:
        return math.nan
    if rating.i_a is not None:
        return rating.i_a
    assert rating.s_kva is not None
    if phases == 1:
        return rating.s_kva / (v_phase_kv if live == 1 else math.sqrt(3.0) * v_phase_kv)
    return rated_current_a(rating.s_kva, math.sqrt(3.0) * v_phase_kv)


def _head(feeder: Feeder, layout: GridLayout) -> int:
    faults = [
        feeder.fault(f"ratings.{branch}", "no such branch", branch, ", ".join(layout.branches))
        for branch in feeder.file.ratings
        if canonical_branch(branch) not in layout.branches
    ]
    if feeder.head_terminal not in layout.terminals:
        faults.append(
            feeder.fault("head", "no such end of a branch", feeder.head_terminal, ", ".join(layout.terminals))
        )
    if faults:
        raise FeederError(faults)
    return layout.terminals.index(feeder.head_terminal)
