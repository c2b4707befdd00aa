"""What pydantic finds wrong with a document, in plain words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from cosim.scenario.describe import Place, place_of

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

_PROBLEMS = {
    "missing": "required key is missing",
    "float_type": "a number is expected",
    "int_type": "a whole number is expected",
    "bool_type": "true or false is expected",
    "string_type": "text is expected",
    "path_type": "a path is expected",
    "model_type": "a mapping is expected",
    "dict_type": "a mapping is expected",
    "tuple_type": "a list is expected",
    "finite_number": "a finite number is expected",
    "literal_error": "not one of the choices",
    "greater_than": "out of range",
    "greater_than_equal": "out of range",
    "less_than": "out of range",
    "less_than_equal": "out of range",
    "too_short": "too few entries",
    "string_pattern_mismatch": "not of the form expected",
    "timezone_aware": "the offset from UTC is missing",
}


@dataclass(frozen=True)
class Finding:
    """A fault that has not been located yet: ``key`` is dotted."""

    key: str
    problem: str
    value: str = ""
    allowed: str = ""


def finding(error: ErrorDetails, model: type[BaseModel]) -> Finding:
    """One error of pydantic against ``model`` in plain words, with what is allowed in its place."""
    kind, context = error["type"], error.get("ctx", {})
    place = place_of(model, error["loc"])
    key = ".".join(place.key)
    if kind == "extra_forbidden":
        return _unknown_key(place, place_of(model, error["loc"][:-1]), error["input"])
    if error["loc"][-1:] == ("[key]",):
        return _unknown_key(place, place_of(model, error["loc"][:-2]), error["input"])
    if kind == "value_error":
        return Finding(key, str(context["error"]), _scalar(error["input"]))
    if kind == "times":
        return Finding(str(context["key"]), str(context["problem"]))
    if kind == "missing":
        return Finding(key, _PROBLEMS[kind], allowed=place.words)
    value = error["input"]
    problem = "no value is given" if value is None else _PROBLEMS.get(kind) or _worded(error)
    if kind == "string_type" and _scalar(value):
        problem += "; put it in quotes"
    return Finding(key, problem, shown(value), place.words)


def shown(value: Any) -> str:
    """A value as it looks in the file; only its kind for a list or a mapping."""
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else _scalar(value)


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, dict | list):
        return ""
    return json.dumps(value, ensure_ascii=False)


def _unknown_key(place: Place, parent: Place, value: Any) -> Finding:
    known = parent.known_keys
    close = get_close_matches(place.key[-1], known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return Finding(".".join(place.key), f"unknown key{hint}", shown(value), ", ".join(known))


def _worded(error: ErrorDetails) -> str:
    return str(error.get("ctx", {}).get("error", error["msg"]))
