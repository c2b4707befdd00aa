"""OpenDSS scripts, command by command: every error has its file and line, and nothing is shown, saved or solved."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dss import DSSException

from cosim.errors import Fault, FeederError

_log = logging.getLogger(__name__)

_REDIRECT = re.compile(r"""\s*(?:redirect|compile)\s+(?:file\s*=\s*)?["'(\[{]?(?P<name>[^"')\]}!]+)""", re.IGNORECASE)
_VERB = re.compile(r"\s*(?:command\s*=\s*)?(?P<verb>[a-z_]+)", re.IGNORECASE)
_NEW = re.compile(r"""\s*new\s+(?:object\s*=\s*)?["'(\[{]?(?P<element>\w+\.[^\s"'=,)\]}]+)""", re.IGNORECASE)
_OUTPUT = frozenset(
    {"closedi", "comparecases", "cvrtloadshapes", "di_plot", "doscmd", "dump", "export", "fileedit", "formedit"}
    | {"panel", "plot", "save", "show", "solve", "top", "visualize", "yearlycurves"}
)
"""Commands that show or write something, or solve: a feeder's state comes from the engine's own solves."""


_SHOWN = 30


@dataclass(frozen=True)
class Command:
    """One line of a script and where it stands."""

    text: str
    file: Path
    line: int


class Script:
    """The script of a circuit. Remembers which command made which element."""

    def __init__(self, master: Path) -> None:
        self.master = master
        self._places: dict[str, Command] = {}

    def run(self, dss: Any) -> None:
        """Gives the script and those that it redirects to, to an engine context; relative names are those of each
        script's folder. Commands that show, write or solve are left out.

        Raises FeederError with OpenDSS's own message, file and line.
        """
        folder = None
        for command in commands(self.master.resolve()):
            if _verb(command.text) in _OUTPUT:
                _log.info("%s:%d: left out: %s", command.file, command.line, command.text.strip())
                continue
            try:
                if _verb(command.text) == "setkvbase":
                    dss.Text.Command = "MakeBusList"  # which a solve that is left out would have done
                if folder != command.file.parent:
                    folder = command.file.parent
                    dss.Text.Command = f'cd "{folder}"'
                dss.Text.Command = command.text
            except DSSException as error:
                problem = f"OpenDSS refuses the circuit: {plain(error)}"
                raise FeederError(Fault(problem, str(command.file), command.line)) from None
            if new := _NEW.match(command.text):
                self._places[new["element"].lower()] = command

    def fault(self, problem: str, element: str = "", value: str = "", allowed: str = "") -> Fault:
        """A fault of the circuit; at the line that makes the ``element``, if it is one element's."""
        place = self._places.get(element.lower())
        file, line = (str(place.file), place.line) if place else (str(self.master), None)
        return Fault(problem, file, line, key=element, value=value, allowed=allowed)


def commands(script: Path, above: tuple[Path, ...] = ()) -> Iterator[Command]:
    """The lines of a script and of those that it redirects to, without comment blocks, in the order of their effect.

    Raises FeederError naming a script that redirects to itself.
    """
    in_comment = False
    for number, text in enumerate(_text(script).splitlines(), start=1):
        in_comment = in_comment or text.startswith("/*")
        if in_comment:
            in_comment = "*/" not in text
            continue
        part = _part(script, text)
        if part in (script, *above):
            raise FeederError(Fault("the script redirects to itself", str(script), number, value=text.strip()))
        if part is not None:
            yield from commands(part, (script, *above))
        elif text.strip():
            yield Command(text, script, number)


def _text(script: Path) -> str:
    """UTF-8, or else the Latin-1 of older editors, of which any bytes are text: names stay as different as they are."""
    raw = script.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _part(script: Path, text: str) -> Path | None:
    """The script that a line redirects to; None for any other line, and for a file that is not there."""
    redirect = _REDIRECT.match(text)
    if redirect is None:
        return None
    name = redirect["name"].strip().replace("\\", "/")
    found = (script.parent / f"{name}{suffix}" for suffix in ("", ".dss"))
    return next((path.resolve() for path in found if path.is_file()), None)


def _verb(text: str) -> str:
    verb = _VERB.match(text)
    return verb["verb"].lower() if verb else ""


def shown(names: Sequence[str]) -> str:
    """Names as part of a message, the first of them if there are many."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def plain(error: object) -> str:
    """A message in one line."""
    return " ".join(str(error).split())
