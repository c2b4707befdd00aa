"""The plan of a sweep: which runs a study means, in which order, each with its valid scenario. Nothing is opened."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, product
from typing import Any

from cosim.errors import Fault, InputError, ScenarioError
from cosim.rng import rng_for
from cosim.scenario.document import Document
from cosim.scenario.load import LoadedScenario
from cosim.scenario.schema import Scenario
from cosim.scenario.study import Draw, LoadedStudy, Vary, placed, set_for_all, value_at
from cosim.scenario.values import LARGEST_WHOLE

MOST_RUNS = 100_000


@dataclass(frozen=True)
class Setting:
    """A value for a field of the scenario, and the key of the study at which it stands."""

    key: str
    value: Any
    where: str


Point = tuple[Setting, ...]
Axis = tuple[Point, ...]


@dataclass(frozen=True)
class Run:
    """One run: its number from 0, the values of the varied fields, its scenario."""

    number: int
    varied: Mapping[str, Any]
    loaded: LoadedScenario


@dataclass(frozen=True)
class Plan:
    """``keys``: the varied fields, in the order of the study."""

    keys: tuple[str, ...]
    runs: tuple[Run, ...]


def plan(loaded: LoadedStudy, until: str | None = None) -> Plan:
    """The runs of a study; ``until`` is a duration for all of them, such as ``1h``.

    Seeds vary slowest, then random draws, the Latin hypercube, the list, the grid (its last key fastest). So more
    seeds, or more random draws where there are no seeds, leave the runs before them as they are.

    Raises ScenarioError with all faults: a field that varies twice or is set for all runs too, values given twice, and
    whatever is wrong with the scenario of any run.
    """
    base = loaded.base if until is None else set_for_all(loaded.base, "duration", until, f"--until {until}")
    faults = [*_faults_of_keys(loaded, until), *_faults_of_values(loaded), *_faults_of_sizes(loaded)]
    if faults:
        raise ScenarioError(faults)
    points = tuple(tuple(chain(*parts)) for parts in product(*axes(loaded.study.vary, *_seeds(loaded))))
    keys = tuple(dict.fromkeys(setting.key for point in points for setting in point))
    return Plan(keys, tuple(_runs(points, keys, loaded.document, base)))


def seed_of_run(seed: int, k: int) -> int:
    """The ``k``-th seed of a study: from a stream of its own, so that more seeds change none before."""
    return int(rng_for(seed, "study", "seed", k).integers(LARGEST_WHOLE))


def axes(vary: Vary, seeds: Sequence[int], seed: int) -> tuple[Axis, ...]:
    """The axes that are crossed, the slowest first; without ``seeds`` all runs keep the scenario's."""
    with_seeds = [_samples(vary, len(seeds), seed, together=True)] if seeds else []
    seed_points = tuple((Setting("seed", each, "seeds"),) for each in seeds)
    zipped = tuple(tuple(chain(*parts)) for parts in zip(seed_points, *chain(*with_seeds), strict=True))
    found = [zipped] if seeds else []
    found += _samples(vary, len(seeds), seed, together=False)
    if vary.list:
        found.append(tuple(_entry(k, entry) for k, entry in enumerate(vary.list)))
    for key, values in vary.grid.items():
        found.append(tuple((Setting(key, value, f"vary.grid.{key}.{k}"),) for k, value in enumerate(values)))
    return tuple(found)


def _seeds(loaded: LoadedStudy) -> tuple[Sequence[int], int]:
    """The seeds of the runs, none if all keep the scenario's; and the seed of the study itself."""
    study = loaded.study
    if isinstance(study.seeds, int):
        return [seed_of_run(study.seed, k) for k in range(study.seeds)], study.seed
    return study.seeds or (), study.seed


def _samples(vary: Vary, n_seed: int, seed: int, together: bool) -> list[Axis]:
    """The axes of random draws and of the Latin hypercube: those drawn together with seeds, or the others."""
    found: list[Axis] = []
    if vary.random is not None and (vary.random.n is None) == together:
        found.append(random_axis(vary.random.fields, vary.random.n or n_seed, seed))
    if vary.latin_hypercube is not None and (vary.latin_hypercube.n is None) == together:
        found.append(latin_axis(vary.latin_hypercube.fields, vary.latin_hypercube.n or n_seed, seed))
    return found


def _entry(k: int, entry: Mapping[str, Any]) -> Point:
    return tuple(Setting(key, value, f"vary.list.{k}.{key}") for key, value in entry.items())


def random_axis(fields: Mapping[str, Draw], n: int, seed: int) -> Axis:
    """``n`` draws of each field. Draw ``k`` of a field is the first of the stream (seed, "study", "random", key, k): it
    depends neither on ``n`` nor on the other fields."""
    where = "vary.random.fields"
    return tuple(
        tuple(Setting(key, _drawn(draw, seed, key, k), f"{where}.{key}") for key, draw in fields.items())
        for k in range(n)
    )


def _drawn(draw: Draw, seed: int, key: str, k: int) -> Any:
    stream = rng_for(seed, "study", "random", key, k)
    if draw.uniform is not None:
        return float(stream.uniform(*draw.uniform))
    if draw.normal is not None:
        return float(stream.normal(*draw.normal))
    if draw.integers is not None:
        return int(stream.integers(*draw.integers, endpoint=True))
    assert draw.choice is not None
    return draw.choice[int(stream.integers(len(draw.choice)))]


def latin_axis(fields: Mapping[str, tuple[float, float]], n: int, seed: int) -> Axis:
    """``n`` points with one value of each field in each ``n``-th of its range (McKay, Beckman, Conover 1979).

    A field's values come from the stream (seed, "study", "latin_hypercube", key): they do not depend on the other
    fields, but all of them on ``n``.
    """
    columns = {}
    for key, (low, high) in fields.items():
        stream = rng_for(seed, "study", "latin_hypercube", key)
        parts = (stream.permutation(n) + stream.uniform(size=n)) / n
        columns[key] = [low + float(part) * (high - low) for part in parts]
    where = "vary.latin_hypercube.fields"
    return tuple(tuple(Setting(key, values[k], f"{where}.{key}") for key, values in columns.items()) for k in range(n))


def _runs(points: Sequence[Point], keys: Sequence[str], study: Document, base: Document) -> Iterator[Run]:
    """Raises ScenarioError with the faults of all runs, each told once."""
    faults: dict[tuple[str, int | None, str, str], Fault] = {}
    runs = list[Run]()
    for number, point in enumerate(points):
        document = base
        for setting in point:
            document = placed(document, setting.key, setting.value, study, setting.where)
        try:
            scenario = document.validate(Scenario, ScenarioError)
        except InputError as error:
            for fault in (_with_hint(each, keys) for each in error.faults):
                faults.setdefault((fault.file, fault.line, fault.key, fault.problem), fault)
            continue
        directory = document.nearest("").folder
        varied = {key: value_at(document.content, key) for key in keys}
        runs.append(Run(number, varied, LoadedScenario(scenario, directory, document)))
    if faults:
        raise ScenarioError(list(faults.values()))
    yield from runs


def _with_hint(fault: Fault, keys: Iterable[str]) -> Fault:
    """How to write a key whose last name holds dots, where a part of that name was taken for a mapping."""
    parent = fault.key.rpartition(".")[0]
    for key in keys:
        if parent and key.startswith(f"{fault.key}.") and fault.value == "a mapping":
            name = key.removeprefix(f"{parent}.")
            return replace(fault, problem=f"{fault.problem}; if the name is {name}: {parent}: [{{{name}: ...}}, ...]")
    return fault


def _faults_of_keys(loaded: LoadedStudy, until: str | None) -> Iterator[Fault]:
    """Fields that vary in two ways, and such that are also set for all runs."""
    study, document = loaded.study, loaded.document
    ways, entries = list(_ways(loaded)), [list(entry) for entry in _entry_keys(loaded)]
    listed = {key: (where, key) for entry in entries for where, key in entry}
    pairs = [*combinations(ways, 2), *product(listed.values(), ways)]
    for entry in entries:
        pairs += combinations(entry, 2)
    for (where, key), (at, other) in pairs:
        if key == other or key.startswith(f"{other}.") or other.startswith(f"{key}."):
            yield document.fault(at, f"varies already by {where}")
    for_all = {key: f"overrides.{key}" for key in study.overrides}
    for_all |= {} if until is None else {"duration": "--until"}
    for at, key in [*listed.values(), *ways]:
        if key in for_all:
            yield document.fault(at, f"is set for all runs by {for_all[key]}")


def _ways(loaded: LoadedStudy) -> Iterator[tuple[str, str]]:
    """Each key of the study that varies a field in all runs, and the field."""
    study, vary = loaded.study, loaded.study.vary
    if study.seeds is not None:
        yield "seeds", "seed"
    for name, way in (("random", vary.random), ("latin_hypercube", vary.latin_hypercube)):
        if way is not None:
            yield from ((f"vary.{name}.fields.{key}", key) for key in way.fields)
    yield from ((f"vary.grid.{key}", key) for key in vary.grid)


def _entry_keys(loaded: LoadedStudy) -> Iterator[Iterator[tuple[str, str]]]:
    """The same for each entry of the list."""
    for k, entry in enumerate(loaded.study.vary.list):
        yield ((f"vary.list.{k}.{key}", key) for key in entry)


def _faults_of_values(loaded: LoadedStudy) -> Iterator[Fault]:
    """Values, entries and seeds that are given twice."""
    study = loaded.study
    lists: list[tuple[str, Iterable[Any]]] = [(f"vary.grid.{key}", values) for key, values in study.vary.grid.items()]
    lists.append(("vary.list", study.vary.list))
    if not isinstance(study.seeds, int | None):
        lists.append(("seeds", study.seeds))
    for where, values in lists:
        seen = list[Any]()
        for k, value in enumerate(values):
            if any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in seen):
                yield loaded.document.fault(
                    f"{where}.{k}", "is given twice", "" if where == "vary.list" else str(value)
                )
            seen.append(value)


def _faults_of_sizes(loaded: LoadedStudy) -> Iterator[Fault]:
    """Draws that nothing tells the number of, and too many runs."""
    study, vary = loaded.study, loaded.study.vary
    n_seed = study.seeds if isinstance(study.seeds, int) else len(study.seeds or ())
    sizes = [max(n_seed, 1), max(len(vary.list), 1), *(len(values) for values in vary.grid.values())]
    for name, way in (("random", vary.random), ("latin_hypercube", vary.latin_hypercube)):
        if way is not None and way.n is None and not n_seed:
            yield loaded.document.fault(f"vary.{name}", "gives no n, and there are no seeds to draw for")
        if way is not None:
            sizes.append(way.n or 1)
    if math.prod(sizes) > MOST_RUNS:
        yield loaded.document.fault("vary", "too many runs", str(math.prod(sizes)), f"at most {MOST_RUNS}")
