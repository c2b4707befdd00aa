"""Foreign simulators: what their start entries mean, and what is expected of them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

from mosaik.starters import ConnectStarter, PythonStarter, Starter

from cosim.errors import Fault, ScenarioError
from cosim.scenario.load import LoadedScenario
from cosim.scenario.schema import ForeignSimulator
from cosim.world.process import ProcessStarter, split

_NOTHING: dict[str, Any] = {}


def foreign_starter(loaded: LoadedScenario, name: str) -> Starter:
    """How the simulator ``name`` is started. A ``cmd`` is split as a shell would and runs under a launcher that ends it
    when the runner dies.

    Raises ScenarioError if its entry does not lead to a simulator.
    """
    start = loaded.scenario.simulators[name].start
    (way,) = set(start) - {"cwd"}
    entry = start[way]
    try:
        if way == "connect":
            host, _, port = entry.rpartition(":")
            return ConnectStarter(host, int(port))
        if way == "cmd":
            launcher = ["%(python)s", "-m", "simulators.lifeline"]
            return ProcessStarter([*launcher, *split(entry)], start.get("cwd", "."))
        module, _, class_name = entry.partition(":")
        return PythonStarter(getattr(importlib.import_module(module), class_name))
    except Exception as error:  # whatever the import of a foreign module raises
        form = {"connect": "host:port", "cmd": "%(python)s file.py %(addr)s", "python": "module:Class"}[way]
        problem = f"does not lead to a simulator ({type(error).__name__}: {error})"
        raise ScenarioError(loaded.fault(f"simulators.{name}.start.{way}", problem, entry, form)) from None


def names_checked(loaded: LoadedScenario, name: str, meta: Mapping[str, Any]) -> None:
    """Raises ScenarioError if the model, its parameters or an attribute linked are not among those of ``meta``."""
    faults = list(_faults_of_names(loaded, name, loaded.scenario.simulators[name], meta["models"]))
    if faults:
        raise ScenarioError(faults)


def _faults_of_names(
    loaded: LoadedScenario, name: str, foreign: ForeignSimulator, models: Mapping[str, Any]
) -> Iterator[Fault]:
    model = models.get(foreign.model)
    if model is None:
        yield loaded.fault(f"simulators.{name}.model", "no such model", foreign.model, ", ".join(models))
        return
    params = model.get("params", [])
    for param in foreign.model_params:
        if param not in params:
            key = f"simulators.{name}.model_params.{param}"
            yield loaded.fault(key, "no such parameter of the model", param, ", ".join(params) or "none")
    for k, link in enumerate(foreign.links):
        if link.attribute not in model.get("attrs", []):
            key = f"simulators.{name}.links.{k}.attribute"
            yield loaded.fault(key, "no such attribute", link.attribute, ", ".join(model.get("attrs", [])))


def fault_in(method: str, arguments: Any, answer: Any, kind: str) -> str | None:
    """What is wrong with a foreign simulator's ``answer``: a step must lead on, an output must be a number."""
    if method == "step" and not (isinstance(answer, int) and answer > arguments[0]):
        return None if answer is None and kind != "time-based" else f"{answer!r} is not a time of a next step [s]"
    if method == "get_data":
        for entity, attributes in arguments[0].items():
            given = answer.get(entity, _NOTHING) if isinstance(answer, dict) else _NOTHING
            for attribute in attributes:
                value = given.get(attribute, None if kind == "time-based" else 0.0)
                if not isinstance(value, Real) or not math.isfinite(value):
                    return f"{entity}.{attribute} is {value!r}, not a finite number"
    return None
