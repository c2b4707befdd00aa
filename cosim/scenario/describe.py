"""A schema in words: what is expected at a key, which keys a part knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

_PLAIN_WORDS = {str: "text", Path: "path", Any: "anything"}
_BOUND_WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True)
class Place:
    """A place in the schema: its ``key`` as the user writes it, what is ``expected`` there, what it is for."""

    key: tuple[str, ...]
    expected: Any
    description: str = ""

    @property
    def words(self) -> str:
        """What is expected, e.g. ``number, at least 0: mean delay [s]``; empty where the schema knows nothing."""
        return ": ".join(part for part in (type_words(self.expected), self.description) if part)

    @property
    def known_keys(self) -> tuple[str, ...]:
        """Keys allowed in the mapping expected here; empty when any is."""
        bare, _ = bare_type(self.expected)
        if isinstance(bare, type) and issubclass(bare, BaseModel):
            return tuple(bare.model_fields)
        key_type = get_args(bare)[0] if get_origin(bare) is dict else None
        return tuple(map(str, get_args(key_type))) if get_origin(key_type) is Literal else ()


def field_type(field: FieldInfo) -> Any:
    """The annotation of a field with its metadata put back."""
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def bare_type(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The annotation without ``Annotated`` and ``| None``, and the metadata taken off."""
    metadata: tuple[Any, ...] = ()
    while True:
        if get_origin(annotation) is Annotated:
            metadata = (*_unpacked(annotation.__metadata__), *metadata)
            annotation = annotation.__origin__
        elif get_origin(annotation) in (Union, UnionType):
            members = [member for member in get_args(annotation) if member is not NoneType]
            if len(members) > 1:
                return annotation, metadata
            annotation = members[0]
        else:
            return annotation, metadata


def _unpacked(metadata: Sequence[Any]) -> list[Any]:
    return [part for entry in metadata for part in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]


def place_of(model: type[BaseModel], location: Sequence[str | int]) -> Place:
    """The place in ``model`` of a pydantic error location, which names the chosen branch of a union beside the keys."""
    key: list[str] = []
    expected: Any = model
    shown: Any = model
    description = ""
    for part in location:
        bare, _ = bare_type(expected)
        if get_origin(bare) in (Union, UnionType):
            tagged = (m for m in get_args(bare) if Tag(str(part)) in getattr(m, "__metadata__", ()))
            expected = next(tagged, None)
            continue
        if part == "[key]":
            continue
        key.append(str(part))
        if isinstance(bare, type) and issubclass(bare, BaseModel):
            field = bare.model_fields.get(str(part))
            expected = None if field is None else field_type(field)
            description = "" if field is None else field.description or ""
        else:
            arguments = get_args(bare) or (None,)
            expected = arguments[1] if get_origin(bare) is dict else arguments[0]
        shown = expected
    in_branch = isinstance(bare_type(expected)[0], type) and issubclass(bare_type(expected)[0], BaseModel)
    return Place(tuple(key), expected if in_branch else shown, description)


def type_words(annotation: Any) -> str:
    """A type in words, with its bounds; empty for ``None``."""
    bare, metadata = bare_type(annotation)
    words = next((text for text in metadata if isinstance(text, str)), None) or _structure_words(bare)
    return ", ".join([words, *_bounds(metadata)])


def _structure_words(bare: Any) -> str:
    origin, arguments = get_origin(bare), get_args(bare)
    if origin in (Union, UnionType):
        return " or ".join(type_words(member) for member in arguments)
    if origin is Literal:
        return " or ".join(str(choice) for choice in arguments)
    if origin is dict:
        choices = get_origin(arguments[0]) is Literal
        return f"mapping of {type_words(arguments[0]) if choices else 'name'} to {type_words(arguments[1])}"
    if origin is tuple:
        return f"list of {type_words(arguments[0])}"
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        return f"mapping with {', '.join(bare.model_fields)}"
    return _PLAIN_WORDS.get(bare, "")


def _bounds(metadata: tuple[Any, ...]) -> list[str]:
    limits = [
        f"{words} {getattr(entry, name):.16g}"
        for entry in metadata
        for name, words in _BOUND_WORDS.items()
        if hasattr(entry, name)
    ]
    forms = [f"of the form {entry.pattern}" for entry in metadata if getattr(entry, "pattern", None)]
    lengths = [f"with at least {entry.min_length}" for entry in metadata if hasattr(entry, "min_length")]
    return limits + forms + lengths
