"""Brings a network of the user's into a feeder folder, and checks it by solving both."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cosim.errors import Fault, FeederError
from cosim.importers.assign import drawn, named
from cosim.importers.check import TOLERANCE_PU, compare, solve_folder
from cosim.importers.draft import Carried, PodDraft, opendss_name
from cosim.importers.folder import (
    base_kva,
    head_meter,
    notes_of,
    require_free,
    write_beside_script,
    write_feeder_yaml,
    write_folder,
    write_scripts,
)
from cosim.importers.network import Conversion, convert, solution
from cosim.importers.opendss_script import ScriptDraft, read_script
from cosim.importers.result import Check, Imported, Left
from cosim.importers.source import Network, read_network

ProfileChoice = Literal["constant", "simbench"]
_SIMBENCH = "SimBench (simbench.de), data set 1-complete_data-mixed-all-1-sw, Open Database License 1.0"


def import_feeder(
    source: Any,
    out: Path,
    *,
    name: str = "",
    profiles: ProfileChoice = "constant",
    seed: int = 1,
    f_hz: float = 50.0,
    allow_losses: bool = False,
    force: bool = False,
) -> Imported:
    """Writes the feeder folder ``out`` from ``source``, in the end and as a whole, or not at all.

    ``source`` is an OpenDSS script (``.dss``, left as it is: ``feeder.yaml`` refers to it), a pandapower network
    (``.json``, ``.xlsx``, the object itself, or ``pandapower:create_cigre_network_mv?with_der=pv_wind``, a function of
    ``pandapower.networks``), a SimBench network (``simbench:1-LV-rural1--0-sw``, with its profiles), or a MATPOWER
    case (``.m``, ``.mat``; ``f_hz`` [Hz] is taken as its frequency). ``profiles``: PODs without a profile in the
    source stay ``constant``, or are given SimBench columns by a draw under ``seed``.

    The feeder is solved with all PODs at their base power. Raises FeederError when a voltage differs from the
    source's own solution by more than 1e-4 pu, or an element that changes the network could not be carried over,
    unless ``allow_losses``; when ``out`` exists, unless ``force``; and for whatever is wrong with the source.
    """
    name = opendss_name(name or out.resolve().name)
    if not name:
        raise FeederError(Fault("not a name for a feeder", key="name", value=str(out)))
    options = _Options(name, profiles, seed, allow_losses, force)
    path = Path(source) if isinstance(source, str) else None
    if path is not None and path.suffix.lower() == ".dss":
        return _import_script(read_script(path), out, options)
    require_free(out, path, force)
    return _import_network(read_network(source, f_hz), out, options)


@dataclass(frozen=True)
class _Options:
    name: str
    profiles: ProfileChoice
    seed: int
    allow_losses: bool
    force: bool


def _import_network(network: Network, out: Path, options: _Options) -> Imported:
    conversion = convert(network.net)
    carried = _with_profiles(conversion.carried, network.has_profiles, options)
    _require_no_losses(network.title, carried.left, options.allow_losses)

    def fill(folder: Path) -> Check:
        _write_network(folder, network, replace(conversion, carried=carried), options)
        solved, state = solve_folder(folder, carried.pods)
        check = compare(
            _expected(network, conversion),
            solved,
            state,
            conversion.head_kw,
            conversion.loss_kw,
            with_angles=not any(left.turns_angles for left in carried.left),
        )
        _require_agreement(network.title, check, options.allow_losses)
        return check

    return _imported(out, write_folder(out, fill), carried, _bus_names(network, conversion))


def _with_profiles(carried: Carried, has_own: bool, options: _Options) -> Carried:
    pods: Mapping[str, PodDraft] = named(carried.pods) if has_own else carried.pods
    return replace(carried, pods=drawn(pods, options.seed) if options.profiles == "simbench" else pods)


def _write_network(folder: Path, network: Network, conversion: Conversion, options: _Options) -> None:
    carried = conversion.carried
    write_scripts(folder, options.name, network.title, conversion)
    about = {"name": options.name, "description": network.title, "sources": _sources(network.title, carried)}
    further = [*_profile_notes(carried, options), "head, ratings, meters and zones"]
    notes = notes_of(network.title, carried.left, carried.assumptions, further)
    meters = head_meter(conversion.head, base_kva(carried))
    write_feeder_yaml(folder, about, conversion.head, carried, meters, notes)


def _sources(title: str, carried: Carried) -> dict[str, str]:
    columns = {str(pod.entry.get("profile", "constant")) for pod in carried.pods.values()} - {"constant"}
    return {"network": title, **({"profiles": _SIMBENCH} if columns else {})}


def _profile_notes(carried: Carried, options: _Options) -> list[str]:
    constant = [pod for pod, draft in carried.pods.items() if draft.entry.get("profile") == "constant"]
    of_all = f"{len(constant)} of {len(carried.pods)} PODs are constant, at their power of the base case"
    notes = [of_all] if constant else []
    if options.profiles == "simbench":
        notes.append(f"SimBench profiles were drawn with seed {options.seed}: an assumption, not a measurement")
    return notes


def _expected(network: Network, conversion: Conversion) -> dict[str, tuple[float, float]]:
    """Voltage and angle of each node of the feeder by the source's balanced solution."""
    expected = {}
    for bus, (vm_pu, va_deg) in solution(network.net, conversion.buses).items():
        for phase, turn in ((1, 0.0), (2, -120.0), (3, 120.0)):
            expected[f"{conversion.buses.name_of[bus].upper()}.{phase}"] = (vm_pu, va_deg + turn)
    return expected


def _bus_names(network: Network, conversion: Conversion) -> dict[str, str]:
    """OpenDSS bus by the source's name of the bus, or its index where the name is missing or not unique."""
    names = network.net.bus.name
    given = [str(name) for name in names[list(conversion.buses.name_of)]]
    found = {}
    for (index, bus), name in zip(conversion.buses.name_of.items(), given, strict=True):
        found[name if name not in ("None", "nan", "") and given.count(name) == 1 else str(index)] = bus.upper()
    return found


def _import_script(draft: ScriptDraft, out: Path, options: _Options) -> Imported:
    draft = replace(draft, carried=_with_profiles(draft.carried, False, options))

    def fill(folder: Path) -> Check:
        _write_draft(folder, folder, draft, options)
        solved, state = solve_folder(folder, draft.carried.pods)
        check = compare(draft.solution, solved, state, draft.head_kw, draft.loss_kw, with_angles=True)
        _require_agreement(str(draft.script), check, options.allow_losses)
        _write_draft(folder, out, draft, options)
        return check

    if out.resolve() == draft.script.resolve().parent:
        check = write_beside_script(out, options.force, fill)
    else:
        require_free(out, draft.script, options.force)
        check = write_folder(out, fill)
    buses = {bus: bus for bus in dict.fromkeys(node.rpartition(".")[0] for node in draft.solution)}
    return _imported(out, check, draft.carried, buses)


def _write_draft(folder: Path, final: Path, draft: ScriptDraft, options: _Options) -> None:
    """``feeder.yaml`` in ``folder``, with the path of the script as from ``final``."""
    carried, title = draft.carried, f"the OpenDSS script {draft.script.name}"
    script = Path(os.path.relpath(draft.script.resolve(), final.resolve())).as_posix()
    about = {"name": options.name, "description": title, "script": script, "sources": _sources(title, carried)}
    further = [*_profile_notes(carried, options), "head, ratings, meters and zones", *draft.notes]
    notes = notes_of(title, carried.left, carried.assumptions, further)
    meters = head_meter(draft.head, draft.head_kva, draft.head_phases)
    write_feeder_yaml(folder, about, draft.head, carried, meters, notes)


def _imported(out: Path, check: Check, carried: Carried, buses: Mapping[str, str]) -> Imported:
    missing = tuple(branch for branch, rating in carried.ratings.items() if rating is None)
    return Imported(out, check, carried.left, carried.assumptions, missing, buses)


def _require_no_losses(source: str, left: Sequence[Left], allow_losses: bool) -> None:
    changed = [entry for entry in left if entry.changes_solution]
    if changed and not allow_losses:
        allowed = "allow_losses (--allow-losses), to go on without them"
        raise FeederError(
            [
                Fault(f"cannot be carried over: {e.reason}", source, key=e.element, value=e.name, allowed=allowed)
                for e in changed
            ]
        )


def _require_agreement(source: str, check: Check, allow_losses: bool) -> None:
    if check.largest_vm_pu > TOLERANCE_PU and not allow_losses:
        problem = f"the imported feeder is not the source: voltages differ by {check.largest_vm_pu:.2e} pu"
        allowed = f"{TOLERANCE_PU:g} pu, or allow_losses (--allow-losses)"
        raise FeederError(Fault(problem, source, key=f"bus {check.bus}", allowed=allowed))
