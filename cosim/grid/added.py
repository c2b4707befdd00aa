"""PODs that a scenario adds to a feeder: photovoltaics on roofs, new loads."""

from __future__ import annotations

import re

from cosim.errors import Fault, ScenarioError
from cosim.grid.feeder import Feeder, Pod
from cosim.rng import rng_for
from cosim.scenario.schema import AddedPods, Scenario

_CLASSES = {"load": "Load", "pv": "Generator"}


def added_pods(scenario: Scenario, feeder: Feeder) -> dict[str, tuple[str, Pod]]:
    """The PODs that a scenario adds, by name ``<entry>:<POD beside>``: the POD beside which each is, and its data.

    What is drawn of one depends on its name and the scenario's seed alone. Raises ScenarioError naming PODs that the
    feeder does not have.
    """
    faults: list[Fault] = []
    found: dict[str, tuple[str, Pod]] = {}
    for entry, config in scenario.added.items():
        for host in _hosts(entry, config, feeder, faults):
            name, draw = f"{entry}:{host}", rng_for(scenario.seed, "added", entry, host)
            wanted, size, column = draw.random(), draw.uniform(-1.0, 1.0), int(draw.integers(len(config.profiles)))
            if wanted < config.share:
                found[name] = (host, _pod(config, name, config.kw * (1.0 + config.spread * size), column))
    if faults:
        raise ScenarioError(faults)
    return found


def _hosts(entry: str, config: AddedPods, feeder: Feeder, faults: list[Fault]) -> list[str]:
    at = f"added.{entry}.beside"
    connected = [name for name, pod in feeder.pods.items() if pod.kind != "storage"]
    if isinstance(config.beside, str):
        kind = config.beside.removeprefix("all_")
        hosts = [name for name, pod in feeder.pods.items() if pod.kind == kind]
        if not hosts:
            faults.append(Fault(f"the feeder has no POD of kind {kind}", key=at, value=config.beside))
        return hosts
    unknown = [(k, name) for k, name in enumerate(config.beside) if name not in connected]
    faults += [Fault("no such POD", key=f"{at}.{k}", value=name, allowed=", ".join(connected)) for k, name in unknown]
    return [name for name in config.beside if name in connected]


def _pod(config: AddedPods, name: str, kw: float, column: int) -> Pod:
    element = f"{_CLASSES[config.kind]}.added_{re.sub(r'[^A-Za-z0-9]', '_', name)}"
    return Pod(
        element=element, kind=config.kind, kw=kw, power_factor=config.power_factor, profile=config.profiles[column]
    )
