"""Short runs of the main scenario for tests: a few hours of its deepest day, a fast estimator, no sizing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cosim import load_scenario, run
from cosim.runner import Finished

REPOSITORY = Path(__file__).parents[2]
SCENARIO = REPOSITORY / "scenarios" / "mv5_threshold.yaml"
FAST = (
    "start=2016-07-23T10:00:00+01:00",
    "duration=2h",
    "transport=memory",
    "estimator={method: wls, compare: []}",
    "operator.thresholds_kw={SS3.battery: -600}",
)
NO_FAULTS = "sensors.faults=null"
"""Takes the scenario's faults out: overrides are merged. Meters keep the noise of their class."""
EXACT = (NO_FAULTS, "sensors.faults={default: {noise: false}}")
"""Readings are the truth. The estimator still weighs them by their accuracy class, and its history still has errors."""
HUNG_S = 600.0
"""What no command takes, however slow the machine [s]: tests that wait longer end instead of hanging."""


def short_run(out: Path, *overrides: str) -> Finished:
    """Runs the main scenario as `FAST` says, and as ``overrides`` say after that."""
    return run(load_scenario(SCENARIO, [*FAST, *overrides]), out)


def settings(*overrides: str) -> list[str]:
    """The same as arguments of the command line."""
    return [part for override in (*FAST, *overrides) for part in ("--set", override)]


def start_cosim(*arguments: str | Path, **options: object) -> subprocess.Popen[str]:
    """The command line in a process of its own, with all warnings as errors."""
    command = [sys.executable, "-W", "error", "-m", "cosim.cli", *map(str, arguments)]
    paths = [str(REPOSITORY), str(REPOSITORY / "tests" / "integration")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen(command, **{**pipes, **options})  # type: ignore[call-overload]


def cosim(*arguments: str | Path, **options: object) -> tuple[int, str, str]:
    """Exit code, output and errors of a command in a process of its own."""
    with start_cosim(*arguments, **options) as process:
        out, err = process.communicate(timeout=HUNG_S)
    return process.returncode, out, err
