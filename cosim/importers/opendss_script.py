"""What can be read of a circuit in OpenDSS: PODs, head, ratings and its own solution. The script is left as it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosim.errors import Fault, FeederError, PowerFlowError
from cosim.grid.circuit import compile_circuit, give_back, load_multiplier, solve_flat
from cosim.grid.feeder import canonical_branch
from cosim.grid.stock import terminal_nodes
from cosim.importers.draft import Carried, PodDraft, merged, rounded
from cosim.importers.result import Left

_DEFAULT_LINE_A = 400.0  # OpenDSS's NormAmps of a line whose script gives none
_OTHERS = ("vccs", "indmach012", "upfc", "isource", "gicsource", "windgen", "vsconverter", "generic5")


@dataclass(frozen=True)
class ScriptDraft:
    """A circuit of OpenDSS: ``head`` (branch, bus), its phases and power, and voltage [pu] and angle [degrees] of every
    node as the script itself solves, with its controls; ``notes`` on what should be checked."""

    script: Path
    carried: Carried
    head: tuple[str, str]
    head_phases: tuple[int, ...]
    head_kw: float
    head_kva: float
    loss_kw: float
    solution: Mapping[str, tuple[float, float]]
    notes: tuple[str, ...]


def read_script(script: Path) -> ScriptDraft:
    """The draft of a feeder from a script and its own solution.

    Raises FeederError with OpenDSS's message, file and line, or when the circuit has no load, generator or storage,
    nothing at its source, or does not solve.
    """
    dss, _ = compile_circuit(script)
    try:
        return _read(dss, script)
    finally:
        give_back(dss)


def _read(dss: Any, script: Path) -> ScriptDraft:
    circuit = dss.ActiveCircuit
    year = int(circuit.Solution.Year)
    _solve(dss, script)
    carried = merged(
        [Carried(pods=dict(_pods(circuit))), Carried(ratings=dict(_ratings(circuit)), left=_left(circuit))]
    )
    if not carried.pods:
        raise FeederError(Fault("the circuit has no load, generator or storage in service, so no POD", str(script)))
    sources = _sources(circuit, script)
    head, others = _head(circuit, script, sources[0])
    phases, s_kva = _flow(circuit, *head)
    notes = [f"{', '.join(others)} leave the source as well, and are not counted at the head"] if others else []
    if sources[1:]:
        notes.append(f"the power of {', '.join(sources[1:])} is not counted at the head, which is at {sources[0]}")
    if year:
        notes.append(f"loads are those of year 0, not grown until year {year}")
    if any(branch.startswith("Line.") and rating is None for branch, rating in carried.ratings.items()):
        notes.append("lines with OpenDSS's default of 400 A were taken to have no rating")
    return ScriptDraft(
        script=script,
        carried=carried,
        head=head,
        head_phases=phases,
        head_kw=s_kva.real,
        head_kva=abs(s_kva),
        loss_kw=float(circuit.Losses[0]) / 1000.0,
        solution=_voltages(circuit),
        notes=tuple(notes),
    )


def _solve(dss: Any, script: Path) -> None:
    for options in ("mode=snapshot year=0 controlmode=static", "tolerance=1e-9 maxiterations=200 maxcontroliter=100"):
        dss.Text.Command = f"Set {options}"
    try:
        solve_flat(dss)
    except PowerFlowError as error:
        raise FeederError(Fault(f"the circuit does not solve: {error}", str(script))) from None
    if not dss.ActiveCircuit.Solution.Converged:
        raise FeederError(Fault("the circuit does not solve: no convergence", str(script)))


def _pods(circuit: Any) -> Iterator[tuple[str, PodDraft]]:
    """PODs by id, the OpenDSS name in capitals; with the class before it where two classes share a name."""
    elements = [str(name) for name in circuit.AllElementNames]
    wanted = [name for name in elements if name.partition(".")[0].lower() in _READ]
    bare = [name.partition(".")[2].lower() for name in wanted]
    for name, short in zip(wanted, bare, strict=True):
        circuit.SetActiveElement(name)
        element = circuit.ActiveCktElement
        if element.Enabled:
            kind = name.partition(".")[0].lower()
            pod = short.upper() if bare.count(short) == 1 else f"{kind}_{short}".upper()
            yield pod, _READ[kind](circuit, canonical_branch(name))


def _entry(element: str, kind: str, kw: float, kvar: float) -> dict[str, Any]:
    reactive = {"kvar": rounded(kvar)} if kvar else {}
    return {"element": element, "kind": kind, "kw": rounded(kw), **reactive, "profile": "constant"}


def _load(circuit: Any, element: str) -> PodDraft:
    loads = circuit.Loads
    loads.Name = element.partition(".")[2]
    multiplier = load_multiplier(circuit)
    p_kw, q_kvar = multiplier * float(loads.kW), multiplier * float(loads.kvar)
    entry = _entry(element, "load", p_kw, q_kvar) if p_kw >= 0.0 else _entry(element, "generator", -p_kw, -q_kvar)
    return PodDraft(entry, p_kw, q_kvar, _line_kv(circuit))


def _generator(circuit: Any, element: str) -> PodDraft:
    fixed = str(circuit.ActiveCktElement.Properties("status").Val).lower() == "fixed"
    multiplier = 1.0 if fixed else float(circuit.Solution.GenMult)
    p_kw, q_kvar = multiplier * _property(circuit, "kW"), multiplier * _property(circuit, "kvar")
    entry = _entry(element, "generator", p_kw, q_kvar) if p_kw >= 0.0 else _entry(element, "load", -p_kw, -q_kvar)
    return PodDraft(entry, -p_kw, -q_kvar, _line_kv(circuit))


def _pv(circuit: Any, element: str) -> PodDraft:
    """A PVSystem: at full sun for a profile of 1, in the base case as its irradiance and temperature have it."""
    s_kva = -_power_kva(circuit)
    rated_kw = _property(circuit, "Pmpp")
    kvar = s_kva.imag * rated_kw / s_kva.real if s_kva.real else 0.0
    entry = _entry(element, "pv", rated_kw, kvar if abs(kvar) > 1e-6 * rated_kw else 0.0)
    return PodDraft(entry, -s_kva.real, -s_kva.imag, _line_kv(circuit))


def _storage(circuit: Any, element: str) -> PodDraft:
    s_kva = _power_kva(circuit)
    return PodDraft({"element": element, "kind": "storage"}, s_kva.real, s_kva.imag, _line_kv(circuit))


_READ = {"load": _load, "generator": _generator, "pvsystem": _pv, "storage": _storage}


def _property(circuit: Any, key: str) -> float:
    return float(circuit.ActiveCktElement.Properties(key).Val)


def _power_kva(circuit: Any) -> complex:
    """What the active element draws in the solution."""
    powers = np.asarray(circuit.ActiveCktElement.Powers).view(np.complex128)
    return complex(powers[: circuit.ActiveCktElement.NumConductors].sum())


def _line_kv(circuit: Any) -> float:
    """Base voltage of the active element's bus [kV], between phases."""
    bus = str(circuit.ActiveCktElement.BusNames[0]).partition(".")[0]
    circuit.SetActiveBus(bus)
    return math.sqrt(3.0) * float(circuit.ActiveBus.kVBase)


def _left(circuit: Any) -> tuple[Left, ...]:
    """Elements that inject and cannot be PODs: they stay as they are."""
    reason = "an element that is no POD; it stays as the script has it"
    names = [str(name) for name in circuit.AllElementNames]
    return tuple(Left(name, "", reason) for name in names if name.partition(".")[0].lower() in _OTHERS)


def _ratings(circuit: Any) -> Iterator[tuple[str, dict[str, float] | None]]:
    """NormAmps of lines [A] and kVA of transformers; None for lines with OpenDSS's default."""
    for name in map(str, circuit.PDElements.AllNames):
        circuit.SetActiveElement(name)
        element = circuit.ActiveCktElement
        buses = {str(bus).partition(".")[0].lower() for bus in element.BusNames}
        kind = name.partition(".")[0].lower()
        if not element.Enabled or len(buses) < 2:
            continue
        rating: dict[str, float] | None = None
        if kind == "line" and float(element.NormalAmps) not in (_DEFAULT_LINE_A, 0.0):
            rating = {"i_a": float(element.NormalAmps)}
        elif kind == "transformer":
            circuit.Transformers.Name = name.partition(".")[2]
            circuit.Transformers.Wdg = 1
            rating = {"s_kva": float(circuit.Transformers.kVA)}
        yield canonical_branch(name), rating


def _sources(circuit: Any, script: Path) -> list[str]:
    """Voltage sources in service; raises FeederError if there is none."""
    found = []
    for name in circuit.Vsources.AllNames:
        circuit.SetActiveElement(f"Vsource.{name}")
        if circuit.ActiveCktElement.Enabled:
            found.append(f"Vsource.{name}")
    if not found:
        raise FeederError(Fault("no voltage source in service", str(script)))
    return found


def _head(circuit: Any, script: Path, source: str) -> tuple[tuple[str, str], list[str]]:
    """The branch at a source with the largest power, and the others there."""
    circuit.SetActiveElement(source)
    bus = str(circuit.ActiveCktElement.BusNames[0]).partition(".")[0].lower()
    found: dict[str, float] = {}
    for name in map(str, circuit.PDElements.AllNames):
        circuit.SetActiveElement(name)
        element = circuit.ActiveCktElement
        buses = [str(end).partition(".")[0].lower() for end in element.BusNames]
        if element.Enabled and bus in buses and set(buses) != {bus}:
            _, s_kva = _flow(circuit, name, bus)
            found[canonical_branch(name)] = abs(s_kva)
    if not found:
        raise FeederError(Fault("no branch at the source", str(script), value=bus.upper()))
    head = max(found, key=lambda branch: found[branch])
    return (head, bus.upper()), [branch for branch in found if branch != head]


def _flow(circuit: Any, branch: str, bus: str) -> tuple[tuple[int, ...], complex]:
    """Phases of a branch at its end at ``bus``, and the power [kVA] that flows into it there."""
    circuit.SetActiveElement(branch)
    element = circuit.ActiveCktElement
    end = [str(name).partition(".")[0].lower() for name in element.BusNames].index(bus.lower())
    per_end = int(element.NumConductors)
    live = terminal_nodes(element)[end] != 0
    powers = np.asarray(element.Powers).view(np.complex128).reshape(-1, per_end)[end][live]
    order = [int(node) for node in np.asarray(element.NodeOrder).reshape(-1, per_end)[end]]
    return tuple(sorted({node for node in order if 1 <= node <= 3})), complex(powers.sum())


def _voltages(circuit: Any) -> dict[str, tuple[float, float]]:
    nodes = [str(name).upper() for name in circuit.YNodeOrder]
    v = np.asarray(circuit.YNodeVarray).view(np.complex128)
    base = {}
    for bus in dict.fromkeys(node.rpartition(".")[0] for node in nodes):
        circuit.SetActiveBus(bus)
        base[bus] = 1000.0 * float(circuit.ActiveBus.kVBase)
    return {
        node: (abs(u) / base[bus], math.degrees(math.atan2(u.imag, u.real)))
        for node, u in zip(nodes, v, strict=True)
        if (bus := node.rpartition(".")[0]) and base[bus] > 0.0
    }
