"""The files that a scenario names: where they are, and what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from cosim.case_coordination import scheme_file
from cosim.errors import InputError, ScenarioError
from cosim.grid.feeder import find_feeder
from cosim.scenario.load import LoadedScenario

FEEDERS = Path(__file__).resolve().parents[1] / "dss_models"
Keys = tuple[str | int, ...]


def feeder_folder(loaded: LoadedScenario) -> Path:
    """The folder of the feeder. Raises ScenarioError if there is no such feeder."""
    try:
        return find_feeder(loaded.scenario.feeder, loaded.resolve("feeder", "."), FEEDERS)
    except InputError as error:
        raise ScenarioError([loaded.fault("feeder", f.problem, f.value, f.allowed) for f in error.faults]) from None


def named_files(loaded: LoadedScenario) -> dict[Keys, Path]:
    """Absolute paths of the files that a scenario names, whether they are there or not, by the parts of their keys;
    neither the feeder nor the result file."""
    scenario = loaded.scenario
    found = dict(_paths(scenario.model_dump(exclude={"recorder": {"file"}}), ()))
    texts: dict[Keys, Path | None] = {
        ("coordination", "scheme"): scheme_file(scenario),
        ("transmission", "network"): scenario.transmission.network_file,
    }
    found |= {keys: path for keys, path in texts.items() if path is not None}
    return {keys: loaded.resolve(_dotted(keys), path) for keys, path in found.items()}


def folders_of(loaded: LoadedScenario) -> dict[str, str]:
    """The absolute folders that feeder and files of a scenario are relative to, by dotted key."""
    keys = ("feeder", *map(_dotted, named_files(loaded)))
    return {key: str(loaded.resolve(key, ".")) for key in keys}


def input_digests(loaded: LoadedScenario) -> dict[str, str]:
    """SHA-256 (hex) of every file that a run reads besides its scenario, by dotted key; files of the feeder by their
    place in its folder. What cannot be read is left out: `cosim.case.open_case` tells."""
    found = {}
    for name, path in sorted(_input_files(loaded)):
        with suppress(OSError):
            known = path.stat()
            found[name] = _digest(path, known.st_mtime_ns, known.st_size)
    return found


def _input_files(loaded: LoadedScenario) -> Iterator[tuple[str, Path]]:
    with suppress(InputError):
        folder = feeder_folder(loaded)
        for path in folder.rglob("*"):
            if path.is_file():
                yield f"feeder/{path.relative_to(folder).as_posix()}", path
    for keys, path in named_files(loaded).items():
        if keys[0] != "transport":  # how values travel changes none of them
            yield _dotted(keys), path


def _paths(value: Any, keys: Keys) -> Iterator[tuple[Keys, Path]]:
    if isinstance(value, Path):
        yield keys, value
    entries = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, tuple) else ()
    for name, entry in entries:
        yield from _paths(entry, (*keys, name))


def _dotted(keys: Keys) -> str:
    return ".".join(map(str, keys))


@cache
def _digest(file: Path, changed_ns: int, size: int) -> str:
    """Of a file that was last changed at that time: the runs of a sweep share most of theirs."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
