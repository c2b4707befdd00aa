"""Schemes that come with the project, in ``schemes/``, and those in files of a user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cosim.coordination.scheme import Scheme
from cosim.coordination.scheme_checks import scheme_faults
from cosim.errors import Fault, SchemeError
from cosim.scenario.document import Document, Origin, read_document

SCHEMES: Final = Path(__file__).parent / "schemes"
_FILES: Final = (".yaml", ".yml")


def shipped() -> tuple[str, ...]:
    """Names of all schemes in the folder: a file added there is one more."""
    return tuple(sorted(path.stem for path in SCHEMES.glob("*.yaml")))


def load_scheme(name: str | Path, overrides: Sequence[str] = ()) -> Scheme:
    """A scheme by name, or that of a YAML file, with ``overrides`` such as ``stages.MSD.admit=caps``.

    Raises SchemeError with all faults, each with file and line.
    """
    path = Path(name)
    if path.suffix not in _FILES:
        path = SCHEMES / f"{name}.yaml"
        if path.stem not in shipped():
            allowed = f"{', '.join(shipped())}, or a YAML file"
            raise SchemeError(Fault("no scheme of that name", key="scheme", value=str(name), allowed=allowed))
    return _checked(read_document(path, SchemeError, overrides))


def scheme_of(tree: Mapping[str, Any]) -> Scheme:
    """A scheme from plain values, as its file would hold them. Raises SchemeError."""
    return _checked(Document(dict(tree), {"": Origin("", None, Path())}))


def _checked(document: Document) -> Scheme:
    scheme: Scheme = document.validate(Scheme, SchemeError)
    faults = [document.fault(each.key, each.problem, each.value, each.allowed) for each in scheme_faults(scheme)]
    if faults:
        raise SchemeError(faults)
    return scheme
