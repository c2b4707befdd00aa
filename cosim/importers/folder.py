"""Writes a feeder folder: the scripts, and ``feeder.yaml`` as a draft to edit."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from cosim.errors import Fault, FeederError
from cosim.importers.branches import LINES, TRANSFORMERS
from cosim.importers.draft import Carried, number, rounded
from cosim.importers.injections import GENERATORS, LOADS, SHUNTS, STORAGE
from cosim.importers.network import Conversion, bases_are_close, voltage_bases
from cosim.importers.result import Left
from cosim.scenario.document import as_yaml

Result = TypeVar("Result")

_FORCE = "force (--force), to replace it"
MASTER, COORDINATES, FEEDER = "Master.dss", "BusCoords.csv", "feeder.yaml"
_SCRIPTS = {
    TRANSFORMERS: "Transformers: windings hv, lv; of three mv, hv, lv. The kV of the second is raised by the drop of\n"
    "! the magnetising current in half of the leakage impedance: OpenDSS has that current at its terminals, the\n"
    "! source (T model) midway",
    LINES: "Lines: ohm/km, nF/km, A",
    SHUNTS: "Shunts: constant impedances",
    LOADS: "Loads: kW and kvar of the base case at rated voltage; model 1 constant power, 2 impedance, 5 current",
    GENERATORS: "Generation: kW and kvar of the base case, constant power",
    STORAGE: "Storage: the framework reads these figures for its own model of stored energy",
}
_SHOWN = 25


def require_free(out: Path, source: Path | None, force: bool) -> None:
    """Raises FeederError if ``out`` exists, unless ``force`` and it is a feeder's folder without ``source`` in it."""
    if not out.exists():
        return
    if not force:
        raise FeederError(Fault("the folder exists already", value=str(out), allowed=_FORCE))
    if source is not None and out.resolve() in source.resolve().parents:
        raise FeederError(Fault("the folder holds the source, it cannot be replaced", value=str(out)))
    if not out.is_dir() or (any(out.iterdir()) and not (out / FEEDER).is_file()):
        raise FeederError(Fault(f"not a feeder's folder (no {FEEDER} in it), it is not replaced", value=str(out)))


def write_folder(out: Path, fill: Callable[[Path], Result]) -> Result:
    """Lets ``fill`` write a temporary folder beside ``out``, and puts it in the place of ``out`` when that succeeds;
    what ``fill`` raises leaves nothing behind."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        result = fill(fresh)
        fresh.chmod(0o755)
        if out.exists():
            aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
            os.replace(out, aside / out.name)
            os.replace(fresh, out)
            shutil.rmtree(aside)
        else:
            os.replace(fresh, out)
        return result
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(fresh)


def write_beside_script(out: Path, force: bool, fill: Callable[[Path], Result]) -> Result:
    """Like `write_folder` where ``out`` is the script's own folder: lets ``fill`` write a temporary folder in it, then
    moves ``feeder.yaml`` from there. Raises FeederError if there is one, unless ``force``."""
    if (out / FEEDER).exists() and not force:
        raise FeederError(Fault("the file exists already", value=str(out / FEEDER), allowed=_FORCE))
    with tempfile.TemporaryDirectory(prefix=".import-", dir=out) as temporary:
        result = fill(Path(temporary))
        os.replace(Path(temporary) / FEEDER, out / FEEDER)
        return result


def write_scripts(folder: Path, name: str, title: str, conversion: Conversion) -> None:
    """The OpenDSS scripts of a network."""
    lines = conversion.carried.lines
    parts = [file for file in _SCRIPTS if lines.get(file)]
    for file in parts:
        _write(folder / file, [f"! {_SCRIPTS[file]}", *lines[file]])
    bases = voltage_bases(conversion.buses)
    master = [
        f"! {name}: {title}",
        "Clear",
        f"Set DefaultBaseFrequency={number(conversion.f_hz)}",
        "",
        *(text.replace("{name}", name) for text in conversion.source_lines),
        "",
        *(f"Redirect {file}" for file in parts),
        "",
        f"Set VoltageBases=[{', '.join(map(number, bases))}]",
        "CalcVoltageBases",
        *(_explicit_bases(conversion) if bases_are_close(bases) else ()),
    ]
    if places := conversion.buses.places:
        _write(folder / COORDINATES, [f"{bus}, {number(x)}, {number(y)}" for bus, (x, y) in places.items()])
        master.append(f"BusCoords {COORDINATES}")
    _write(folder / MASTER, master)
    _write(
        folder / "Run.dss",
        [
            "! Solves the feeder once by itself:  opendsscmd Run.dss",
            f"Redirect {MASTER}",
            "Set mode=snapshot controlmode=static tolerance=1e-8",
            "Solve",
            "Show Voltages LN Nodes",
        ],
    )


def _explicit_bases(conversion: Conversion) -> Iterator[str]:
    """Base voltages bus by bus, where OpenDSS might confuse two that are close."""
    buses = conversion.buses
    for bus, kv in {buses.name_of[bus]: buses.kv_of[bus] for bus in buses.name_of}.items():
        yield f"SetkVBase bus={bus} kVLL={number(kv)}"


def write_feeder_yaml(
    folder: Path,
    about: Mapping[str, Any],
    head: tuple[str, str],
    carried: Carried,
    meters: Mapping[str, Any],
    notes: Sequence[str],
) -> None:
    """``feeder.yaml``; ``about`` are the keys that come first, ``notes`` stand in the comment at the top."""
    missing = [branch for branch, rating in carried.ratings.items() if rating is None]
    ratings = {
        branch: {key: rounded(value) for key, value in rating.items()}
        for branch, rating in carried.ratings.items()
        if rating is not None
    }
    sections: list[tuple[str, dict[str, Any]]] = [
        ("Power at the head, positive = import.", {"head": {"branch": head[0], "end": head[1]}}),
        (
            "Points of delivery. kw, kvar: factors of the profiles; `constant` holds the base case: give each its own.",
            {"pods": {pod: dict(draft.entry) for pod, draft in carried.pods.items()}},
        ),
        (
            "Ratings as the source gives them." + (f" Without one: {_some(missing)}." if missing else ""),
            {"ratings": ratings} if ratings else {},
        ),
        (
            "Meters installed: a draft, the head alone; full scale is twice the power of the base case.",
            {"meters": dict(meters)},
        ),
    ]
    texts = [f"# {line}".rstrip() for line in notes]
    texts += ["", as_yaml({key: value for key, value in about.items() if key != "sources"})]
    for comment, tree in sections:
        texts += ["", f"# {comment}", *([as_yaml(tree, leaves_in_line=True)] if tree else [])]
    texts += ["", as_yaml({"sources": about["sources"]})]
    _write(folder / FEEDER, ["\n".join(text.rstrip("\n") for text in texts)])


def head_meter(head: tuple[str, str], s_kva: float, phases: Sequence[int] = ()) -> dict[str, Any]:
    """The draft of a meter at the head, full scale twice ``s_kva`` in all phases; one value for each of ``phases``."""
    scale = 2.0 * s_kva / max(1, len(phases))
    full = float(f"{max(scale, 1.0):.2g}")
    entry: dict[str, Any] = {"type": "pri", "number": 0, "branch": head[0], "end": head[1]}
    entry["quantities"] = ["p_kw", "q_kvar", "vm_pu"]
    if phases:
        entry["phases"] = list(phases)
    return {"HEAD": {**entry, "class_percent": 0.5, "full_scale": {"p_kw": full, "q_kvar": full, "vm_pu": 1}}}


def notes_of(title: str, not_carried: Sequence[Left], assumptions: Sequence[str], further: Sequence[str]) -> list[str]:
    """The comment at the top of ``feeder.yaml``."""
    notes = [
        f"Imported from {title}. A draft to edit; names are OpenDSS names (case is ignored).",
        "",
        "To be checked:",
    ]
    notes += [f"- {line}" for line in (*further, *assumptions)]
    if not_carried:
        notes += ["", f"Not carried over ({len(not_carried)}):", *(f"- {left}" for left in not_carried[:_SHOWN])]
        if len(not_carried) > _SHOWN:
            notes.append(f"- and {len(not_carried) - _SHOWN} more")
    return notes


def base_kva(carried: Carried) -> float:
    """Apparent power of all PODs in the base case [kVA], added up as complex powers."""
    pods = carried.pods.values()
    return math.hypot(sum(pod.p_kw for pod in pods), sum(pod.q_kvar for pod in pods))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
