"""Load a scenario: read, merged, overridden and validated; every fault found is reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cosim.errors import Fault, ScenarioError
from cosim.scenario.document import Document, Origin, read_document
from cosim.scenario.schema import Scenario


@dataclass(frozen=True)
class LoadedScenario:
    """A valid scenario, the absolute folder of its file, and the document that knows where its keys are written.

    Paths in ``scenario`` are as written, so that it does not depend on the machine; ``resolve`` makes them usable.
    ``file`` is where it comes from, if from a file, with which ``overrides``.
    """

    scenario: Scenario
    directory: Path
    document: Document
    file: Path | None = None
    overrides: tuple[str, ...] = ()

    @classmethod
    def of(cls, scenario: Scenario, directory: Path, folders: Mapping[str, str] | None = None) -> Self:
        """A scenario that comes from no file; its paths are relative to ``directory``, those at the dotted keys in
        ``folders`` to the folder there."""
        places = {"": directory} | {key: Path(folder) for key, folder in (folders or {}).items()}
        origins = {key: Origin("", None, folder.resolve()) for key, folder in places.items()}
        return cls(scenario, directory.resolve(), Document({}, origins))

    def fault(self, key: str, problem: str, value: str = "", allowed: str = "") -> Fault:
        """A fault at a dotted key, located at it or at the nearest parent that is written."""
        return self.document.fault(key, problem, value, allowed)

    def resolve(self, key: str, path: str | Path) -> Path:
        """The absolute path of ``path``, which stands at ``key``: relative to the file it is written in, or to the
        working directory if given by ``--set``."""
        return self.document.resolve(key, path)


def is_scenario(path: Path) -> bool:
    """Whether a YAML file names a feeder, as every scenario does: neither a study nor a case of `cosim clear`."""
    try:
        return "feeder" in read_document(path, ScenarioError).content
    except ScenarioError:
        return False


def load_scenario(path: str | Path, overrides: Sequence[str] = ()) -> LoadedScenario:
    """The scenario of a YAML file, with ``overrides`` such as ``operator.action=same`` (the value is YAML).

    Raises ScenarioError with all faults found: unreadable or malformed files, repeated keys, unknown keys, wrong
    types, values out of range.
    """
    document = read_document(path, ScenarioError, overrides)
    file = Path(path).resolve()
    return LoadedScenario(document.validate(Scenario, ScenarioError), file.parent, document, file, tuple(overrides))
