"""What an unfinished result file says of its run, and whether the run can go on: with the same scenario on the same
input files only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosim.case import Case
from cosim.case_files import folders_of, input_digests
from cosim.errors import Fault, ResumeError, ScenarioError
from cosim.io.results import open_results
from cosim.io.takeover import Earlier
from cosim.io.target import held
from cosim.prepare import Prepared, prepared_from_plain
from cosim.scenario.load import LoadedScenario, load_scenario
from cosim.scenario.schema import Scenario

_NOTHING = "nothing"


@dataclass(frozen=True)
class Unfinished:
    """An unfinished result file: its root attributes, and where the run can go on; None: from its first step."""

    path: Path
    attributes: Mapping[str, Any]
    earlier: Earlier | None

    @property
    def prepared(self) -> Prepared:
        """What was prepared for the run, which is not computed again."""
        return prepared_from_plain(json.loads(self.attributes["prepared"]))

    def load(self, file: Path | None = None) -> LoadedScenario:
        """The scenario of the run, read again, from ``file`` if it has moved. Raises ScenarioError."""
        source = json.loads(self.attributes["source"])
        if source["file"] is None and file is None:
            scenario = Scenario.model_validate(json.loads(self.attributes["scenario"]))
            return LoadedScenario.of(scenario, Path(source["folder"]), source.get("folders"))
        there, written = Path(source["folder"]), Path(source["file"]) if file is None else file.absolute()
        with chdir(there) if there.is_dir() else nullcontext():
            return load_scenario(written, source["overrides"])

    def require_unchanged(self, case: Case) -> None:
        """Raises ScenarioError with every key and file that is not what it was: key, then, now."""
        then, now = json.loads(self.attributes["scenario"]), case.scenario.model_dump(mode="json")
        faults = [
            Fault(f"the scenario has changed since the run began: then {old}, now {new}", str(self.path), key=key)
            for key, old, new in _differences(then, now)
        ]
        before, files = json.loads(self.attributes["inputs"]), input_digests(case.loaded)
        for name in sorted(before.keys() | files.keys()):
            if before.get(name) != files.get(name):
                what = "is new" if name not in before else "is gone" if name not in files else "has changed"
                digests = f"then {before.get(name, _NOTHING)}, now {files.get(name, _NOTHING)}"
                faults.append(Fault(f"the file {what} since the run began: {digests}", str(self.path), key=name))
        if faults:
            raise ScenarioError(faults)


def unfinished(path: Path) -> Unfinished:
    """The unfinished result file at ``path``.

    Raises ResultError if it is being written or is no result file of this version; its ResumeError if it is complete,
    or was not left by a run that can be resumed.
    """
    with open_results(path) as results, held(path):
        attributes = results.attributes
        if results.status == "complete":
            raise ResumeError(f"{path}: is complete, there is nothing to resume")
        missing = [name for name in ("scenario", "prepared", "source", "inputs") if name not in attributes]
        if missing:
            raise ResumeError(f"{path}: lacks {', '.join(missing)}, so its run cannot be resumed")
        checkpoint = results.checkpoint()
    return Unfinished(path, attributes, None if checkpoint is None else Earlier(path, checkpoint))


def source_of(loaded: LoadedScenario) -> dict[str, Any]:
    """How `Unfinished.load` finds the scenario again: its file, overrides, and the folder that their paths are relative
    to; for one without a file, those that its own paths are."""
    if loaded.file is None:
        return {"file": None, "overrides": [], "folder": str(loaded.directory), "folders": folders_of(loaded)}
    return {"file": str(loaded.file), "overrides": list(loaded.overrides), "folder": str(Path.cwd())}


def _differences(then: Any, now: Any, key: str = "") -> Iterator[tuple[str, str, str]]:
    """Dotted keys whose values differ, with both as JSON."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in dict.fromkeys((*then, *now)):
            inner = f"{key}.{name}" if key else name
            yield from _differences(then.get(name, _Absent), now.get(name, _Absent), inner)
    elif _is_list(then) and _is_list(now) and len(then) == len(now):
        for k, (old, new) in enumerate(zip(then, now, strict=True)):
            yield from _differences(old, new, f"{key}.{k}")
    elif then != now:
        yield key, _shown(then), _shown(now)


class _Absent:
    """Stands for a key that is not there."""


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _shown(value: Any) -> str:
    return _NOTHING if value is _Absent else json.dumps(value, ensure_ascii=False)
