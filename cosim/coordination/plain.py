"""Frozen dataclasses as mappings and lists, which another process can be sent, and back."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import types
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np


def to_plain(value: Any) -> Any:
    """``value`` as mappings, lists and scalars that JSON knows, so that what is not finite is a text; arrays stay as
    they are."""
    kind: Any = type(value)
    if kind is float:
        return value if math.isfinite(value) else str(value)
    if kind in _AS_IT_IS:
        return value
    if (names := _parts(kind)) is not None:
        return {name: to_plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: to_plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(entry) for entry in value]
    if isinstance(value, Enum):
        return value.value
    return to_plain(value.item()) if isinstance(value, np.generic) else value


def json_of(value: Any) -> str:
    """`to_plain` of ``value`` as JSON with sorted keys, arrays in base64."""
    try:
        return _ENCODER.encode(value)
    except ValueError:  # JSON has no word for what is not finite, `to_plain` has
        return _ENCODER.encode(to_plain(value))


def number_json(value: float) -> str:
    """`json_of` of a number, many times as fast."""
    return float.__repr__(value) if isinstance(value, float) and math.isfinite(value) else json_of(value)


def _shallow(value: Any) -> Any:
    """What JSON is to write for a value that it does not know."""
    if isinstance(value, np.ndarray):
        return base64.b64encode(value.tobytes()).decode()
    if isinstance(value, Enum):
        return value.value
    kind: Any = type(value)
    names = _parts(kind)
    if names is None:
        return to_plain(value)
    own = vars(value)
    return own if len(own) == len(names) else {name: own[name] for name in names}


_ENCODER = json.JSONEncoder(default=_shallow, sort_keys=True, allow_nan=False, check_circular=False)
_AS_IT_IS = frozenset({str, int, bool, type(None), np.ndarray})


@cache
def _parts(kind: Any) -> tuple[str, ...] | None:
    """Names of the fields of dataclasses and named tuples."""
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return tuple(kind._fields) if issubclass(kind, tuple) and hasattr(kind, "_fields") else None


def from_plain(kind: Any, plain: Any) -> Any:
    """The value of type ``kind`` that `to_plain` made."""
    origin, arguments = get_origin(kind), get_args(kind)
    if plain is None or kind is Any:
        return plain
    if kind is float:
        return float(plain)
    if origin in (Union, types.UnionType):
        (inner,) = (each for each in arguments if each is not type(None))
        return from_plain(inner, plain)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        return kind(**{name: from_plain(hints[name], entry) for name, entry in plain.items()})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(plain)
    if origin is tuple:
        each = arguments[:1] * len(plain) if arguments[-1] is Ellipsis else arguments
        return tuple(from_plain(inner, entry) for inner, entry in zip(each, plain, strict=True))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: from_plain(arguments[1], entry) for key, entry in plain.items()}
    return plain


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)
