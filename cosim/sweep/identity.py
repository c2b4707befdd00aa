"""What makes two runs the same: the resolved scenario, the files that it names, and the version of this package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cosim.case import FEEDERS
from cosim.case_coordination import coordination_files
from cosim.errors import InputError
from cosim.grid.feeder import find_feeder
from cosim.scenario.load import LoadedScenario

_DIGITS = 12


def run_hash(loaded: LoadedScenario) -> str:
    """12 hexadecimal digits that differ where a result may differ: values of the scenario, contents of the feeder's
    folder and of every file named, version. Description and name of the result file do not count."""
    scenario = loaded.scenario.model_dump(mode="json", exclude={"description": True, "recorder": {"file"}})
    files = {key: _content(path) for key, path in sorted(_files(loaded))}
    told = {"scenario": scenario, "files": files, "cosim": version("cosim")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _files(loaded: LoadedScenario) -> Iterator[tuple[str, Path]]:
    """Files and folders that a scenario names, by dotted key; what is not there is told when the case is opened."""
    scenario = loaded.scenario.model_dump(exclude={"recorder": {"file"}})
    for key, path in _paths(scenario, ""):
        yield key, loaded.resolve(key, path)
    for keys, path in coordination_files(loaded).items():
        yield ".".join(keys), path
    try:
        yield "feeder", find_feeder(loaded.scenario.feeder, loaded.resolve("feeder", "."), FEEDERS)
    except InputError:
        return


def _paths(value: Any, key: str) -> Iterator[tuple[str, Path]]:
    if isinstance(value, Path):
        yield key, value
    entries = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, tuple) else ()
    for name, entry in entries:
        yield from _paths(entry, f"{key}.{name}" if key else str(name))


def _content(path: Path) -> str:
    """The hash of a file, or of all files of a folder with their names; empty if it cannot be read."""
    try:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            told = "\n".join(f"{file.relative_to(path)} {_of_file(file, *_state(file))}" for file in files)
            return hashlib.sha256(told.encode()).hexdigest()
        return _of_file(path, *_state(path))
    except OSError:
        return ""


def _state(file: Path) -> tuple[int, int]:
    known = file.stat()
    return known.st_mtime_ns, known.st_size


@cache
def _of_file(file: Path, changed_ns: int, size: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
