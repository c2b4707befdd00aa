"""Parts of a feeder folder in the making: script lines, PODs with their power in the base case, ratings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cosim.importers.result import Left


@dataclass(frozen=True)
class PodDraft:
    """A POD: its entry in ``feeder.yaml``, and its net consumption [kW, kvar] in the base case; ``kv`` of its bus;
    ``profile`` that the source names for it."""

    entry: Mapping[str, Any]
    p_kw: float
    q_kvar: float
    kv: float
    profile: str = ""


@dataclass(frozen=True)
class Carried:
    """What becomes of one or more elements: ``lines`` by script, PODs by id, ratings (None where the source has none)
    and buses by OpenDSS branch, and what is left behind."""

    lines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pods: Mapping[str, PodDraft] = field(default_factory=dict)
    ratings: Mapping[str, Mapping[str, float] | None] = field(default_factory=dict)
    ends: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left: tuple[Left, ...] = ()
    assumptions: tuple[str, ...] = ()

    def with_left(self, *left: Left) -> Carried:
        return replace(self, left=(*self.left, *left))


def merged(parts: Iterable[Carried]) -> Carried:
    """All parts as one, in their order; an assumption made several times is given once."""
    lines: dict[str, list[str]] = {}
    pods: dict[str, PodDraft] = {}
    ratings: dict[str, Mapping[str, float] | None] = {}
    ends: dict[str, tuple[str, ...]] = {}
    left: list[Left] = []
    assumptions: dict[str, None] = {}
    for part in parts:
        for file, texts in part.lines.items():
            lines.setdefault(file, []).extend(texts)
        pods.update(part.pods)
        ratings.update(part.ratings)
        ends.update(part.ends)
        left += part.left
        assumptions.update(dict.fromkeys(part.assumptions))
    texts_of = {file: tuple(texts) for file, texts in lines.items()}
    return Carried(texts_of, pods, ratings, ends, tuple(left), tuple(assumptions))


def number(value: float) -> str:
    """A number of a script, to ten digits."""
    return format(float(value), ".10g")


def rounded(value: float) -> float:
    """A number of ``feeder.yaml``, to ten digits."""
    return float(number(value))


def opendss_name(text: str) -> str:
    """``text`` as OpenDSS can read it as a name; empty when nothing is left of it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-")


class Names:
    """Gives out names that differ by more than case, from each other and from those ``reserved``."""

    def __init__(self, *reserved: str) -> None:
        self._taken = {name.lower() for name in reserved}

    def take(self, wanted: str, otherwise: str) -> str:
        """An OpenDSS name like ``wanted``, or like ``otherwise`` when nothing is left of that."""
        base = opendss_name(wanted) or opendss_name(otherwise)
        name, count = base, 1
        while name.lower() in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name.lower())
        return name
