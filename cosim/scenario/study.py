"""A study: one scenario, the fields that vary over its runs, and how.

Keys of fields are dotted, as in ``--set``. Where a name holds dots itself, the longest name that the scenario has at
that place counts: ``limits.derated.Transformer.T4``. One that it has not yet is given with its value: key
``limits.derated``, value ``{Transformer.T9: 0.4}``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from cosim.errors import ScenarioError
from cosim.scenario.document import Document, Origin, read_document
from cosim.scenario.values import LARGEST_WHOLE, Number, Part, Seed, Whole, form

Exact = Annotated[Whole, Field(ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)]


class Draw(Part):
    """How a value is drawn: by exactly one of these."""

    uniform: tuple[Number, Number] | None = Field(None, description="[low, high]")
    normal: tuple[Number, Number] | None = Field(None, description="[mean, standard deviation]")
    integers: tuple[Exact, Exact] | None = Field(None, description="[lowest, highest], both may be drawn")
    choice: Annotated[tuple[Any, ...], Field(min_length=1)] | None = Field(None, description="values, equally likely")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = sorted(self.model_fields_set)
        if len(ways) != 1:
            raise ValueError(f"exactly one of uniform, normal, integers, choice; here: {', '.join(ways) or 'none'}")
        for name in ("uniform", "integers"):
            bounds = getattr(self, name)
            if bounds is not None and not bounds[0] < bounds[1]:
                raise ValueError(f"{name} [low, high] needs low < high, here [{bounds[0]}, {bounds[1]}]")
        if self.uniform is not None and not math.isfinite(self.uniform[1] - self.uniform[0]):
            raise ValueError(f"uniform [low, high] is too wide, here [{self.uniform[0]}, {self.uniform[1]}]")
        if self.normal is not None and self.normal[1] <= 0.0:
            raise ValueError(f"the standard deviation must be above 0, here {self.normal[1]}")
        return self


Fields = Annotated[dict[str, Draw], Field(min_length=1)]
Size = Annotated[Whole, Field(ge=1, le=100_000)]


class RandomDraws(Part):
    """Each field drawn on its own, from a random stream of its own."""

    n: Size | None = Field(None, description="draws; default: one for each of the seeds, together with it")
    fields: Fields = Field(description="how each is drawn, by dotted key")


class LatinHypercube(Part):
    """Each range cut into n equal parts, one value drawn in each part, parts of different fields paired at random."""

    n: Size | None = Field(None, description="draws; default: one for each of the seeds, together with it")
    fields: Annotated[dict[str, tuple[Number, Number]], Field(min_length=1)] = Field(
        description="[low, high] by dotted key"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        wrong = [f"{key} [{low}, {high}]" for key, (low, high) in self.fields.items() if not low < high]
        if wrong:
            raise ValueError(f"[low, high] needs low < high, here {', '.join(wrong)}")
        wide = [f"{key} [{low}, {high}]" for key, (low, high) in self.fields.items() if not math.isfinite(high - low)]
        if wide:
            raise ValueError(f"[low, high] is too wide, here {', '.join(wide)}")
        return self


class Vary(Part):
    """What varies; ways given together are crossed: every combination is run."""

    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        {}, description="values by dotted key; every combination"
    )
    list: tuple[dict[str, Any], ...] = Field((), description="mappings of dotted keys to values; one after the other")
    random: RandomDraws | None = Field(None, description="fields drawn at random")
    latin_hypercube: LatinHypercube | None = Field(None, description="fields drawn evenly over their ranges")


class Study(Part):
    """Many runs of one scenario."""

    description: str = Field("", description="what this study asks")
    scenario: Path = Field(description="scenario file, relative to this one")
    out: Path | None = Field(
        None, description="folder of results, relative to the working directory; default: results/<name of the file>"
    )
    overrides: dict[str, Any] = Field({}, description="values for all runs, by dotted key")
    vary: Vary = Field(Vary(), description="what varies over the runs")
    seeds: (
        Annotated[
            Annotated[tuple[Seed, ...], Field(min_length=1), Tag("structure")] | Annotated[Size, Tag("word")],
            Discriminator(form),
        ]
        | None
    ) = Field(None, description="how many seeds, or which; default: the scenario's own")
    seed: Whole = Field(1, ge=0, description="seed of the random streams of the study itself")


@dataclass(frozen=True)
class LoadedStudy:
    """A valid study with its document, and the document of its scenario with the study's overrides."""

    name: str
    study: Study
    document: Document
    base: Document

    @property
    def folder(self) -> Path:
        """The absolute folder of results."""
        return (self.study.out or Path("results") / self.name).resolve()


def load_study(path: str | Path, overrides: tuple[str, ...] = ()) -> LoadedStudy:
    """The study of a YAML file, with ``overrides`` of it such as ``seeds=2``.

    Raises ScenarioError with all faults found in the study, or when its scenario cannot be read. What the scenario
    holds is not validated here: that depends on the run.
    """
    document = read_document(path, ScenarioError, overrides)
    study = document.validate(Study, ScenarioError)
    scenario = document.resolve("scenario", study.scenario)
    shown = scenario.relative_to(Path.cwd()) if scenario.is_relative_to(Path.cwd()) else scenario
    base = read_document(shown, ScenarioError)
    for key, value in study.overrides.items():
        base = placed(base, key, value, document, f"overrides.{key}")
    return LoadedStudy(Path(path).stem, study, document, base)


def placed(base: Document, key: str, value: Any, source: Document, where: str) -> Document:
    """``base`` with ``value`` merged in at a dotted key; it is written at the key ``where`` of ``source``.

    Merging is that of ``extends``: mappings key by key, lists and scalars are replaced, null takes a key out.
    """
    content = _put(base.content, key.split("."), value)
    written = source.nearest(where)
    fresh = (parent for parent in _parents(key) if value_at(base.content, parent) is None)
    origins = {**dict.fromkeys(fresh, written), **base.origins}
    for below, replaces in _paths(value, ""):
        if replaces:
            stale = f"{key}{below}."
            origins = {known: origin for known, origin in origins.items() if not known.startswith(stale)}
        origins[f"{key}{below}"] = source.nearest(f"{where}{below}")
    return replace(base, content=content, origins=origins)


def set_for_all(base: Document, key: str, value: Any, option: str) -> Document:
    """``base`` with ``value`` at a key, as an option of the command line says."""
    return placed(base, key, value, Document({}, {"": Origin(option, None, Path.cwd())}), "")


def _parents(key: str) -> Iterator[str]:
    names = key.split(".")
    return (".".join(names[:count]) for count in range(1, len(names)))


def value_at(content: Any, key: str) -> Any:
    """The value at a dotted key, None where there is none."""
    names = key.split(".")
    while names:
        if not isinstance(content, Mapping):
            return None
        name, names = _next_name(content, names)
        content = content.get(name)
    return content


def _next_name(tree: Mapping[str, Any], names: list[str]) -> tuple[str, list[str]]:
    """The longest start of ``names`` that is a key of ``tree``, else the first name; and the names left."""
    for count in range(len(names), 1, -1):
        if ".".join(names[:count]) in tree:
            return ".".join(names[:count]), names[count:]
    return names[0], names[1:]


def _put(tree: Any, names: list[str], value: Any) -> Any:
    if names:
        inner = dict(tree) if isinstance(tree, Mapping) else {}
        name, rest = _next_name(inner, names)
        if rest or value is not None:
            inner[name] = _put(inner.get(name), rest, value)
        else:
            inner.pop(name, None)
        return inner
    if not isinstance(value, Mapping):
        return value
    for name, entry in value.items():
        tree = _put(tree if isinstance(tree, Mapping) else {}, [name], entry)
    return tree if isinstance(tree, Mapping) else {}


def _paths(value: Any, key: str) -> Iterator[tuple[str, bool]]:
    """The dotted paths in a value, each after a dot, and whether what was there before goes."""
    yield key, not isinstance(value, Mapping)
    entries = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        yield from _paths(entry, f"{key}.{name}")
