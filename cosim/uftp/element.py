"""A message, or an element of one, as values; and its text, both ways.

Reading refuses document type declarations, and with them entities, whatever they would hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from cosim.errors import BidError, Fault
from cosim.uftp.facts import MESSAGES, Facts
from cosim.uftp.kinds import SPACES, Value

LARGEST_BYTES: Final = 20_000_000
_NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_INSTANCE: Final = "http://www.w3.org/2001/XMLSchema-instance"
_HINTS: Final = frozenset({f"{_INSTANCE} schemaLocation", f"{_INSTANCE} noNamespaceSchemaLocation"})


@dataclass(frozen=True)
class Element:
    """``values`` by name of the attribute, defaults included. ``line`` is where it was read, if it was."""

    name: str
    values: Mapping[str, Value]
    children: tuple[Element, ...] = ()
    line: int | None = field(default=None, compare=False)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def get(self, name: str) -> Any:
        """The value, None if it was left out and nothing counts instead."""
        return self.values.get(name)

    def all(self, name: str) -> tuple[Element, ...]:
        """Children of a name."""
        return tuple(child for child in self.children if child.name == name)


def message(name: str, values: Mapping[str, Value | None], *children: Element) -> Element:
    """A message with defaults filled in; values that are None are left out. See `part` for its elements."""
    return _filled(MESSAGES[name], values, children)


def part(path: str, values: Mapping[str, Value | None], *children: Element) -> Element:
    """An element inside a message, by the names from the message on, such as ``FlexOffer/OfferOption/ISP``."""
    root, *names = path.split("/")
    facts = MESSAGES[root]
    for name in names:
        found = facts.child(name)
        if found is None:
            raise KeyError(path)
        facts = found
    return _filled(facts, values, children)


def _filled(facts: Facts, values: Mapping[str, Value | None], children: tuple[Element, ...]) -> Element:
    given = {name: value for name, value in values.items() if value is not None}
    unknown = given.keys() - facts.attributes.keys()
    if unknown:
        raise KeyError(f"{facts.name} has no {', '.join(sorted(unknown))}")
    ordered = {name: (facts.defaults | given)[name] for name in facts.attributes if name in facts.defaults | given}
    return Element(facts.name, MappingProxyType(ordered), children)


def write(root: Element, file: str = "") -> bytes:
    """The message as XML, UTF-8, two spaces a level; the same for equal messages.

    Raises BidError with all that cannot be written so that it is read back as it is.
    """
    facts = MESSAGES.get(root.name)
    if facts is None:
        raise BidError(_unknown_message(root.name, file, None))
    faults: list[Fault] = []
    text = "".join(_lines(root, facts, root.name, 0, faults, file))
    if faults:
        raise BidError(faults)
    return ('<?xml version="1.0" encoding="UTF-8"?>\n' + text).encode()


def _lines(one: Element, facts: Facts, place: str, depth: int, faults: list[Fault], file: str) -> Iterator[str]:
    faults.extend(_of_structure(one.name, [child.name for child in one.children], facts, place, file, one.line))
    faults.extend(_missing(one.values, facts, place, file, one.line))
    written = ""
    for name, value in one.values.items():
        attribute = facts.attributes.get(name)
        try:
            if attribute is None:
                raise ValueError
            written += f" {name}={_quoted(attribute.kind.text_of(value))}"
        except ValueError:
            allowed = attribute.kind.allowed if attribute else ", ".join(facts.attributes)
            faults.append(Fault("cannot be written", file, one.line, f"{place}/@{name}", repr(value), allowed))
    indent = "  " * depth
    if not one.children:
        yield f"{indent}<{one.name}{written}/>\n"
        return
    yield f"{indent}<{one.name}{written}>\n"
    for child, at in zip(one.children, _places(place, [child.name for child in one.children]), strict=True):
        below = facts.child(child.name)
        if below is not None:
            yield from _lines(child, below, at, depth + 1, faults, file)
    yield f"{indent}</{one.name}>\n"


def _quoted(text: str) -> str:
    if _NOT_XML.search(text):
        raise ValueError(text)
    return quoteattr(text, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


@dataclass
class _Raw:
    """An element as it stands in a file."""

    name: str
    texts: dict[str, str]
    line: int
    children: list[_Raw] = field(default_factory=list)
    said: str = ""


def read(content: bytes, file: str = "message") -> Element:
    """The message of a file. Raises BidError with all faults: file, line, element or attribute, value and rule."""
    root = _parsed(content, file)
    facts = MESSAGES.get(root.name)
    if facts is None:
        raise BidError(_unknown_message(root.name, file, root.line))
    faults: list[Fault] = []
    found = _checked(root, facts, root.name, file, faults)
    if faults:
        raise BidError(faults)
    return found


def _parsed(content: bytes, file: str) -> _Raw:
    if len(content) > LARGEST_BYTES:
        raise BidError(
            Fault("is too large for a message", file, value=f"{len(content)} bytes", allowed=f"{LARGEST_BYTES}")
        )
    parser = expat.ParserCreate(namespace_separator=" ")
    top = _Raw("", {}, 0)
    stack = [top]

    def begin(name: str, texts: dict[str, str]) -> None:
        stack.append(_Raw(name, texts, parser.CurrentLineNumber))
        stack[-2].children.append(stack[-1])

    def end(_: str) -> None:
        stack.pop()

    def say(text: str) -> None:
        stack[-1].said += text

    def refuse(*_: object) -> None:
        line = parser.CurrentLineNumber
        raise BidError(Fault("document type declarations are refused, entities with them", file, line, "<!DOCTYPE>"))

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = say, refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise BidError(Fault(f"is not XML: {expat.ErrorString(error.code)}", file, error.lineno)) from error
    except (LookupError, ValueError) as error:
        raise BidError(Fault(f"is not XML: {error}", file, parser.CurrentLineNumber)) from error
    return top.children[0]


def _checked(raw: _Raw, facts: Facts, place: str, file: str, faults: list[Fault]) -> Element:
    values: dict[str, Value] = facts.defaults
    for name, text in raw.texts.items():
        attribute = facts.attributes.get(name)
        try:
            if attribute is not None:
                values[name] = attribute.kind.read(text)
            elif name not in _HINTS:
                names = ", ".join(facts.attributes)
                faults.append(Fault("unknown attribute", file, raw.line, f"{place}/@{name}", text, names))
        except ValueError:
            allowed = attribute.kind.allowed if attribute else ""
            faults.append(Fault("is not a value of this attribute", file, raw.line, f"{place}/@{name}", text, allowed))
    faults.extend(_missing(raw.texts, facts, place, file, raw.line))
    if raw.said.strip(SPACES) or (raw.said and not facts.children):
        faults.append(Fault("holds text", file, raw.line, place, repr(raw.said[:40]), "attributes and elements only"))
    inner = [child.name for child in raw.children]
    faults.extend(_of_structure(raw.name, inner, facts, place, file, raw.line, [child.line for child in raw.children]))
    inside = []
    for child, at in zip(raw.children, _places(place, inner), strict=True):
        below = facts.child(child.name)
        if below is not None:
            inside.append(_checked(child, below, at, file, faults))
    ordered = {name: values[name] for name in facts.attributes if name in values}
    return Element(facts.name, MappingProxyType(ordered), tuple(inside), raw.line)


def _unknown_message(name: str, file: str, line: int | None) -> Fault:
    return Fault("is not a message that is known", file, line, name, allowed=", ".join(MESSAGES))


def _missing(given: Mapping[str, object], facts: Facts, place: str, file: str, line: int | None) -> Iterator[Fault]:
    for attribute in facts.attributes.values():
        if attribute.required and attribute.name not in given:
            allowed = attribute.kind.allowed
            yield Fault("required attribute is missing", file, line, f"{place}/@{attribute.name}", allowed=allowed)


def _of_structure(
    name: str,
    names: list[str],
    facts: Facts,
    place: str,
    file: str,
    line: int | None,
    lines: list[int] | None = None,
) -> Iterator[Fault]:
    """Children that are unknown, out of order or too few."""
    order = [child.name for child, _ in facts.children]
    allowed = ", then ".join(order) or "no elements"
    last = 0
    for k, child in enumerate(names):
        at = lines[k] if lines else line
        if child not in order:
            yield Fault("unknown element", file, at, f"{place}/{child}", allowed=allowed)
        elif order.index(child) < last:
            yield Fault("element is out of order", file, at, f"{place}/{child}", allowed=allowed)
        else:
            last = order.index(child)
    for child_facts, least in facts.children:
        if names.count(child_facts.name) < least:
            yield Fault(f"needs at least {least} of an element", file, line, f"{place}/{child_facts.name}")


def _places(place: str, names: list[str]) -> list[str]:
    """Where each child is, counted from 1 among those of its name."""
    counted: Counter[str] = Counter()
    found = []
    for name in names:
        counted[name] += 1
        found.append(f"{place}/{name}[{counted[name]}]")
    return found
