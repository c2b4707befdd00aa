"""What makes two runs the same: the resolved scenario, the files that it names, and the version of this package."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version

from cosim.case_files import input_digests
from cosim.scenario.load import LoadedScenario

_DIGITS = 12


def run_hash(loaded: LoadedScenario) -> str:
    """12 hexadecimal digits that differ where a result may differ: values of the scenario, contents of the feeder's
    folder and of every file named, version. Description and name of the result file do not count."""
    scenario = loaded.scenario.model_dump(mode="json", exclude={"description": True, "recorder": {"file"}})
    told = {"scenario": scenario, "files": input_digests(loaded), "cosim": version("cosim")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:_DIGITS]
