"""A feeder: a folder of OpenDSS scripts and the ``feeder.yaml`` that says what the scripts cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from cosim.domain.frames import Floats
from cosim.errors import Fault, FeederError
from cosim.scenario.document import Document, read_document
from cosim.scenario.schema import Meter
from cosim.scenario.values import NonNegative, Number, Part, Positive
from cosim.units import kvar_per_kw

CONSTANT_PROFILE = "constant"


class Head(Part):
    """Where the power of the whole feeder is counted, import positive."""

    branch: str = Field(description="OpenDSS branch, e.g. Line.L01")
    end: str = Field(description="bus at that end of the branch")


class Pod(Part):
    """A point of delivery: one OpenDSS element with a profile."""

    element: str = Field(pattern=r"^\w+\.\S(.*\S)?$", description="OpenDSS element, e.g. Load.SS1")
    kind: Literal["load", "pv", "generator", "storage"] = Field(
        description="load consumes, pv and generator inject, storage follows orders"
    )
    kw: NonNegative = Field(0.0, description="factor of the profile [kW]")
    power_factor: Number = Field(
        1.0, gt=0.0, le=1.0, description="consumption of reactive power follows active power, by this"
    )
    kvar: Number | None = Field(
        None,
        description="in place of power_factor: factor of the profile of reactive power [kvar], of a load consumed if "
        "positive, of pv and generator injected if positive",
    )
    profile: str | None = Field(None, description="profile column, or `constant`")
    q_profile: str | None = Field(None, description="profile column of reactive power; default: that of active power")

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        of_profile = {"kw", "profile"}
        given = self.model_fields_set & {*of_profile, "power_factor", "kvar", "q_profile"}
        if self.kind == "storage" and given:
            raise ValueError(f"storage follows orders, it takes no {', '.join(sorted(given))}")
        if self.kind != "storage" and (missing := of_profile - given):
            raise ValueError(f"a POD of kind {self.kind} needs {', '.join(sorted(missing))}")
        if "power_factor" in given and given & {"kvar", "q_profile"}:
            raise ValueError("reactive power comes from power_factor, or from kvar and q_profile, not from both")
        if self.q_profile is not None and self.kvar is None:
            raise ValueError("q_profile needs kvar, the factor of that profile")
        return self

    @property
    def p_per_profile_kw(self) -> float:
        """Net consumption of active power [kW] at profile value 1."""
        return self.kw if self.kind == "load" else -self.kw

    @property
    def q_per_profile_kvar(self) -> float:
        """Net consumption of reactive power [kvar] at profile value 1."""
        if self.kvar is None:
            return self.p_per_profile_kw * kvar_per_kw(self.power_factor)
        return self.kvar if self.kind == "load" else -self.kvar


class Rating(Part):
    """What a branch may carry: a current or, for a transformer, an apparent power."""

    i_a: Positive | None = Field(None, description="rated current of a phase [A]")
    s_kva: Positive | None = Field(None, description="rated apparent power [kVA]")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.i_a is None) == (self.s_kva is None):
            raise ValueError("give either i_a or s_kva")
        return self


class Zone(Part):
    """A part of the feeder that is fed from one place, e.g. a neighbourhood behind a transformer."""

    head: str = Field(description="bus from which the zone is fed")
    buses: tuple[str, ...] = Field(min_length=1, description="buses of the zone")
    transformer: str | None = Field(None, description="OpenDSS transformer that feeds it, if there is one")


class FeederFile(Part):
    """``feeder.yaml``."""

    name: str = Field(description="name of the feeder")
    description: str = Field("", description="what it is")
    script: Path = Field(Path("Master.dss"), description="OpenDSS script of the circuit, beside this file")
    head: Head
    pods: dict[str, Pod] = Field(min_length=1, description="points of delivery, by id")
    ratings: dict[str, Rating] = Field({}, description="ratings by OpenDSS branch")
    meters: dict[str, Meter] = Field({}, description="meters installed, by name")
    zones: dict[str, Zone] = Field({}, description="parts of the feeder, e.g. neighbourhoods, by name")
    sources: dict[str, str] = Field({}, description="where the figures come from")


class _Law:
    """Powers of PODs as factors of profile columns; 0 for those without."""

    def __init__(self, columns: Sequence[str | None], factors: Sequence[float]) -> None:
        following = {k: column for k, column in enumerate(columns) if column and column != CONSTANT_PROFILE}
        self._following, self._columns = list(following), list(following.values())
        self._factors = np.array([factors[k] for k in following])
        self._fixed = np.where([column == CONSTANT_PROFILE for column in columns], factors, 0.0)

    def powers(self, position: Mapping[str, int], profiles: Floats) -> Floats:
        """Powers (..., n_pod) at profile values (..., n_name), by the position of their names."""
        values: Floats = np.take(profiles, np.array([position[c] for c in self._columns], np.intp), axis=-1)
        values *= self._factors
        if len(self._following) == len(self._fixed):
            return values
        found = np.empty((*profiles.shape[:-1], len(self._fixed)))
        found[:] = self._fixed
        found[..., self._following] = values
        return found


class Feeder:
    """A feeder folder that has been read; the circuit itself is compiled by the engine.

    ``beside``: PODs that a scenario adds, and for each the POD of the folder whose connection it has.
    """

    def __init__(self, folder: Path, document: Document, file: FeederFile) -> None:
        self.folder, self._document, self.file = folder, document, file
        self.name, self.pods, self.head, self.meters = file.name, file.pods, file.head, file.meters
        self.beside: Mapping[str, str] = {}
        self._ratings = {branch.lower(): rating for branch, rating in file.ratings.items()}

    def with_pods(self, added: Mapping[str, tuple[str, Pod]]) -> Feeder:
        """The same with further PODs, by name: the POD beside which each is, and its data."""
        extended = Feeder(self.folder, self._document, self.file)
        extended.pods = {**self.pods, **{name: pod for name, (_, pod) in added.items()}}
        extended.beside = {name: host for name, (host, _) in added.items()}
        return extended

    @property
    def master(self) -> Path:
        """The script that defines the circuit."""
        return self.folder / self.file.script

    @property
    def head_terminal(self) -> str:
        """The head as ``branch@BUS``."""
        return f"{canonical_branch(self.head.branch)}@{self.head.end.upper()}"

    @property
    def profile_columns(self) -> tuple[str, ...]:
        """Profile columns that the PODs need, each once."""
        columns = (column for pod in self.pods.values() for column in (pod.profile, pod.q_profile))
        return tuple(dict.fromkeys(c for c in columns if c is not None and c != CONSTANT_PROFILE))

    def rating(self, branch: str) -> Rating | None:
        """The rating of an OpenDSS branch in any spelling; None if it has none."""
        return self._ratings.get(branch.lower())

    def fault(self, key: str, problem: str, value: str = "", allowed: str = "") -> Fault:
        """A fault at a key of ``feeder.yaml``."""
        return self._document.fault(key, problem, value, allowed)

    def powers(self, names: tuple[str, ...], profiles: Floats) -> tuple[Floats, Floats]:
        """Net consumption ``p_kw``, ``q_kvar`` (..., n_pod) at profile values (..., n_name); storage is 0."""
        position = {name: k for k, name in enumerate(names)}
        p_law, q_law = self._laws
        return p_law.powers(position, profiles), q_law.powers(position, profiles)

    @cached_property
    def _laws(self) -> tuple[_Law, _Law]:
        """Of active and of reactive power."""
        pods = self.pods.values()
        return (
            _Law([pod.profile for pod in pods], [pod.p_per_profile_kw for pod in pods]),
            _Law([pod.q_profile or pod.profile for pod in pods], [pod.q_per_profile_kvar for pod in pods]),
        )


def canonical_branch(element: str) -> str:
    """``line.l01`` -> ``Line.L01``: OpenDSS ignores case, names are written in one way."""
    kind, _, name = element.partition(".")
    return f"{kind.capitalize()}.{name.upper()}"


def find_feeder(feeder: str, beside: Path, library: Path) -> Path:
    """The folder of a feeder: a path relative to ``beside``, or a name in ``library``.

    Raises FeederError naming the feeders available.
    """
    for folder in (beside / feeder, library / feeder):
        if (folder / "feeder.yaml").is_file():
            return folder
    known = ", ".join(sorted(path.parent.name for path in library.glob("*/feeder.yaml")))
    raise FeederError(Fault("unknown feeder", key="feeder", value=feeder, allowed=f"{known}, or a feeder's folder"))


def load_feeder(folder: Path) -> Feeder:
    """Reads ``feeder.yaml`` of a feeder folder.

    Raises FeederError with every fault found.
    """
    document = read_document(folder / "feeder.yaml", FeederError)
    return Feeder(folder, document, document.validate(FeederFile, FeederError))
