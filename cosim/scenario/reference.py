"""docs/scenario.md, rendered from the schema: ``python -m cosim.scenario.reference > docs/scenario.md``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from cosim.scenario.describe import bare_type, field_type, type_words
from cosim.scenario.schema import Scenario

_INTRODUCTION = """# Scenario reference

Generated from `cosim/scenario/schema.py` by `python -m cosim.scenario.reference > docs/scenario.md`; do not edit.

A scenario is one YAML file. Unknown keys, text in place of numbers and keys given twice are refused, and all faults
are reported at once. Text such as `18:00`, `on` or a time stamp is taken as written.

- `extends: other.yaml` (relative to this file; chains are allowed) takes the keys of another file. Mappings are merged
  key by key, lists and single values are replaced, and an explicit `null` takes an inherited key out.
- `--set a.b=c` on the command line overrides one key; the value is YAML.
- Paths are relative to the file they are written in; those given by `--set` to the working directory.
"""


def scenario_reference() -> str:
    """The Markdown text: a section for each part of the scenario, with key, type, default and meaning of each field."""
    return "\n".join([_INTRODUCTION, *sections(Scenario)])


def sections(model: type[BaseModel]) -> list[str]:
    """A section for each part of a schema."""
    return [_section(path, part, defaults) for path, part, defaults in _parts("", model, None)]


def _parts(
    path: str, model: type[BaseModel], defaults: BaseModel | None
) -> Iterator[tuple[str, type[BaseModel], BaseModel | None]]:
    """Every mapping of the schema in order, with its dotted path and the record its defaults are taken from."""
    yield path, model, defaults
    for name, field in model.model_fields.items():
        default = _default(name, field, defaults)
        for suffix, part in _models(field_type(field)):
            given = default if isinstance(default, part) else None
            yield from _parts(f"{path}.{name}{suffix}".lstrip("."), part, given)


def _models(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """The mappings that a type may hold, with what stands between its key and theirs."""
    bare, _ = bare_type(annotation)
    origin, arguments = get_origin(bare), get_args(bare)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        yield "", bare
    elif origin is dict:
        yield from ((f".<name>{suffix}", model) for suffix, model in _models(arguments[1]))
    elif origin is tuple:
        yield from ((f".<number>{suffix}", model) for suffix, model in _models(arguments[0]))
    elif origin is Union:
        yield from (pair for member in arguments for pair in _models(member))


def _section(path: str, model: type[BaseModel], defaults: BaseModel | None) -> str:
    rows = [_row(name, field, defaults) for name, field in model.model_fields.items()]
    purpose = " ".join((model.__doc__ or "").split())
    title = f"## `{path}`" if path else "## The file"
    return "\n".join([title, "", purpose, "", "| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _row(name: str, field: FieldInfo, defaults: BaseModel | None) -> str:
    bare, _ = bare_type(field_type(field))
    words = (
        "mapping, see below"
        if isinstance(bare, type) and issubclass(bare, BaseModel)
        else type_words(field_type(field))
    )
    cells = (f"`{name}`", words, _default_text(name, field, defaults), field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(name: str, field: FieldInfo, defaults: BaseModel | None) -> Any:
    return field.default if defaults is None else getattr(defaults, name)


def _default_text(name: str, field: FieldInfo, defaults: BaseModel | None) -> str:
    if field.is_required() and defaults is None:
        return "required"
    default = _default(name, field, defaults)
    if default is None:
        return "none"
    if isinstance(default, BaseModel):
        return "see below"
    text = TypeAdapter(field_type(field)).dump_python(default, mode="json")
    return f"`{text}`" if isinstance(text, str) and text else f"`{json.dumps(text)}`"


if __name__ == "__main__":
    sys.stdout.write(scenario_reference())
