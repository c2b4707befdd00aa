"""The only reader of YAML: ``extends``, ``--set`` overrides, and where every key is written.

Of YAML it knows mappings, lists and five kinds of scalars: null, true and false, whole numbers, numbers (also
``1e-8``), text. So ``18:00``, ``on`` and time stamps stay text and mean what they say, unlike in YAML 1.1.

Merging follows RFC 7396 (JSON merge patch): mappings are merged key by key, lists and scalars are replaced, and an
explicit ``null`` takes an inherited key out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cosim.errors import Fault, InputError
from cosim.scenario.faults import finding, shown

Model = TypeVar("Model", bound=BaseModel)

_SCALARS: dict[str, tuple[str | None, str, Callable[[str], Any]]] = {
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", "~nN", lambda _: None),
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", "tTfF", lambda text: text.lower() == "true"),
    "tag:yaml.org,2002:int": (r"[-+]?[0-9]+", "-+0123456789", int),
    "tag:yaml.org,2002:float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
        lambda text: float(re.sub(r"\.(?=[inIN])", "", text)),
    ),
    "tag:yaml.org,2002:str": (None, "", str),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (filled below; yaml's own name)


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same by libyaml, where yaml is built with it: ten times as fast, but it words errors otherwise."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


for _tag, (_form, _first, _) in _SCALARS.items():
    if _form is not None:
        # yaml looks an empty scalar up under the first character "".
        _Loader.add_implicit_resolver(
            _tag, re.compile(rf"(?:{_form})\Z"), [*_first, ""] if "~" in _first else [*_first]
        )


@dataclass(frozen=True)
class Origin:
    """Where something is written: the file (or ``--set a.b=c``) as shown to the user, the 1-based line, and the
    folder that relative paths start from."""

    file: str
    line: int | None
    folder: Path

    @property
    def is_override(self) -> bool:
        return self.file.startswith("--set ")


@dataclass(frozen=True)
class _Item:
    """A value with its origin: a scalar, a list of items or a mapping of texts to items."""

    value: Any
    origin: Origin
    removes: bool = False


@dataclass(frozen=True)
class Document:
    """What a YAML file and the files it extends say, not yet validated.

    ``origins`` maps every dotted key (``remote.0`` for the first entry of a list) that is written somewhere, and ``""``
    for the file itself, to its origin. ``faults`` are those found in reading; ``validate`` reports them with its own.
    """

    content: Any
    origins: Mapping[str, Origin]
    faults: tuple[Fault, ...] = ()

    def validate(self, model: type[Model], error: type[InputError]) -> Model:
        """The content as ``model``; raises ``error`` with all faults of reading and of content."""
        located: list[Fault] = []
        try:
            valid = model.model_validate(self.content)
        except ValidationError as refused:
            found = [finding(each, model) for each in refused.errors(include_url=False)]
            located = [self.fault(each.key, each.problem, each.value, each.allowed) for each in found]
        if self.faults or located:
            raise error([*self.faults, *sorted(located, key=lambda fault: (fault.file, fault.line or 0))])
        return valid

    def fault(self, key: str, problem: str, value: str = "", allowed: str = "") -> Fault:
        """A fault at a dotted key, located at it or at the nearest parent that is written."""
        place = self.nearest(key)
        return Fault(problem, place.file, place.line, key, value, allowed)

    def resolve(self, key: str, path: str | Path) -> Path:
        """The absolute path of ``path``, which stands at ``key``: relative to the file it is written in, or to the
        working directory if given by ``--set``."""
        return (self.nearest(key).folder / path).resolve()

    def nearest(self, key: str) -> Origin:
        """The origin of a dotted key, or of the nearest parent that is written."""
        while key not in self.origins:
            key = key.rpartition(".")[0]
        return self.origins[key]


def as_yaml(tree: Mapping[str, Any], leaves_in_line: bool = False) -> str:
    """``tree`` of plain values as YAML text, keys in their order; mappings and lists of scalars in a line each if
    ``leaves_in_line``."""
    style, width = (None, 10_000) if leaves_in_line else (False, None)
    return yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True, default_flow_style=style, width=width)


def read_document(path: str | Path, error: type[InputError], overrides: Sequence[str] = ()) -> Document:
    """The content of a YAML file, with ``overrides`` such as ``operator.action=same`` (the value is YAML).

    Raises ``error`` when a file cannot be read or is not a YAML mapping.
    """
    faults: list[Fault] = []
    tree = _read_chain(Path(path), Origin(str(path), None, Path.cwd()), (), faults)
    if tree is None:
        raise error(faults)
    for text in overrides:
        override = _read_override(text, faults)
        tree = tree if override is None else _merge(tree, override, keep_origin=True)
    return Document(_plain(tree), dict(_origins(tree, "")), tuple(faults))


def _read_chain(path: Path, named_at: Origin, chain: tuple[Path, ...], faults: list[Fault]) -> _Item | None:
    """The content of a file merged over the files it extends; None when one of them cannot be read."""
    key = "extends" if chain else ""
    here = (*chain, path.resolve())
    if path.resolve() in chain:
        circle = " -> ".join(link.name for link in here)
        faults.append(Fault("the files extend each other in a circle", named_at.file, named_at.line, key, circle))
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(_unreadable(path, error, named_at, key))
        return None
    item = _parse(text, Origin(str(path), None, path.resolve().parent), faults)
    if item is None or not isinstance(item.value, dict):
        if item is not None:
            problem = "the file is empty" if item.value is None else "a mapping of keys to values is expected"
            faults.append(Fault(problem, str(path), value=shown(_plain(item))))
        return None
    if "extends" not in item.value:
        return item
    extends = item.value["extends"]
    if not isinstance(extends.value, str):
        place = extends.origin
        faults.append(
            Fault("the path of one YAML file is expected", place.file, place.line, "extends", shown(_plain(extends)))
        )
        return None
    base = _read_chain(path.parent / extends.value, extends.origin, here, faults)
    own = replace(item, value={key: entry for key, entry in item.value.items() if key != "extends"})
    return None if base is None else _merge(base, own)


def _unreadable(path: Path, error: OSError | UnicodeDecodeError, named_at: Origin, key: str) -> Fault:
    if isinstance(error, UnicodeDecodeError):
        return Fault(f"not UTF-8 text (byte {error.start})", str(path))
    present = sorted(entry.name for entry in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    close = get_close_matches(path.name, present, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    problem = f"cannot be read: {error.strerror}{hint}"
    return Fault(problem, named_at.file, named_at.line, key, str(path) if key else "", ", ".join(present))


def _read_override(text: str, faults: list[Fault]) -> _Item | None:
    origin = Origin(f"--set {text}", None, Path.cwd())
    key, equals, value = text.partition("=")
    names = [name.strip() for name in key.split(".")]
    if not equals or not all(names):
        faults.append(Fault("not of the form key=value with a dotted key, e.g. operator.action=same", origin.file))
        return None
    item = _parse(value, origin, faults)
    for name in reversed(names):
        item = None if item is None else _Item({name: item}, origin)
    return item


def _parse(text: str, origin: Origin, faults: list[Fault]) -> _Item | None:
    """The items of a YAML text; None, with a fault, when it is not YAML."""
    try:
        node = _composed(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        row = text.count("\n", 0, getattr(error, "position", 0)) if mark is None else mark.line
        line = None if origin.is_override else row + 1
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        faults.append(Fault(f"not YAML: {problem}", origin.file, line))
        return None
    return _Item(None, origin) if node is None else _Reader(origin, faults).item(node, "", origin.line, ())


def _composed(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_FastLoader)
    except yaml.YAMLError:
        return yaml.compose(text, Loader=_Loader)


@dataclass(frozen=True)
class _Reader:
    """Turns YAML nodes of one file into items; adds to ``faults``."""

    origin: Origin
    faults: list[Fault]

    def item(self, node: yaml.Node, key: str, line: int | None, within: tuple[yaml.Node, ...]) -> _Item:
        origin = replace(self.origin, line=line)
        if node in within:
            return self._faulty("a value cannot contain itself", key, origin)
        if isinstance(node, yaml.MappingNode):
            return _Item(self._mapping(node, key, (*within, node)), origin)
        if isinstance(node, yaml.SequenceNode):
            entries = [
                self.item(entry, f"{key}.{i}", self._line(entry), (*within, node)) for i, entry in enumerate(node.value)
            ]
            return _Item(entries, origin)
        if node.tag not in _SCALARS:
            return self._faulty(f"tag {node.tag} is not understood", key, origin)
        try:
            value = _SCALARS[node.tag][2](node.value)
        except ValueError:
            return self._faulty(f"not a value of {node.tag}", key, origin, shown(node.value))
        return _Item(value, origin, removes=value is None and node.value != "")

    def _mapping(self, node: yaml.MappingNode, key: str, within: tuple[yaml.Node, ...]) -> dict[str, _Item]:
        entries: dict[str, _Item] = {}
        for key_node, value_node in node.value:
            line = self._line(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._faulty("a key must be plain text", key, replace(self.origin, line=line))
                continue
            name = str(key_node.value)
            dotted = f"{key}.{name}" if key else name
            if name in entries:
                first = entries[name].origin.line
                place = f", first given in line {first}" if first is not None else ""
                self._faulty(f"the key is given twice{place}", dotted, replace(self.origin, line=line))
                continue
            entries[name] = self.item(value_node, dotted, line, within)
        return entries

    def _line(self, node: yaml.Node) -> int | None:
        return None if self.origin.is_override else node.start_mark.line + 1

    def _faulty(self, problem: str, key: str, origin: Origin, value: str = "") -> _Item:
        self.faults.append(Fault(problem, origin.file, origin.line, key, value))
        return _Item(None, origin)


def _merge(base: _Item, over: _Item, keep_origin: bool = False) -> _Item:
    """``over`` merged into ``base``; ``keep_origin`` leaves the origin of merged mappings where they were."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for name, entry in over.value.items():
        if entry.removes and name in merged:
            del merged[name]
        else:
            merged[name] = _merge(merged[name], entry, keep_origin) if name in merged else entry
    return _Item(merged, base.origin if keep_origin else over.origin)


def _plain(item: _Item) -> Any:
    if isinstance(item.value, dict):
        return {name: _plain(entry) for name, entry in item.value.items()}
    return [_plain(entry) for entry in item.value] if isinstance(item.value, list) else item.value


def _origins(item: _Item, key: str) -> list[tuple[str, Origin]]:
    if isinstance(item.value, dict):
        entries = list(item.value.items())
    else:
        entries = list(enumerate(item.value)) if isinstance(item.value, list) else []
    inner = [pair for name, entry in entries for pair in _origins(entry, f"{key}.{name}" if key else str(name))]
    return [(key, item.origin), *inner]
