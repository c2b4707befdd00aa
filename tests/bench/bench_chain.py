"""Chain: what each simulator costs in a whole run of the first scenario, one day, by transport (wall-clock time)."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple
from unittest.mock import patch

from ratios import Row, not_measured, share, times_as_fast

from cosim.io.results import open_results, result_hash
from cosim.runner import run
from cosim.scenario.load import load_scenario
from cosim.world.calls import Calls

TESTS = Path(__file__).resolve().parents[1]
SCENARIO = TESTS.parent / "scenarios" / "mv5_threshold.yaml"
ROUNDS = 3
ESTIMATORS = {
    "as shipped": (),
    "least squares alone": ("estimator.method=wls", "estimator.compare=[]"),
}
"""Overrides: what the scenario estimates (genetic, compared with all other methods), and the least that it could."""

sys.path.append(str(TESTS / "integration"))
from mosquitto_server import MOSQUITTO, Mosquitto  # noqa: E402 (found by the line above)


class Measured(NamedTuple):
    """Milliseconds a step: of the whole chain, and within each simulator; the hash of what was computed."""

    wall_ms: float
    simulator_ms: dict[str, float]
    result: str


def measured(overrides: tuple[str, ...], out: Path) -> Measured:
    """One run. Its first step is left out: everything is used for the first time there."""
    ends_s: list[float] = []

    class Stamping(Calls):
        """Notes when the runner takes the times, which is at the end of each step."""

        def take(self) -> dict[str, float]:
            ends_s.append(time.perf_counter())
            return super().take()

    with patch("cosim.runner.Calls", Stamping):
        run(load_scenario(SCENARIO, ("duration=1d", *overrides)), out)
    with open_results(out) as results:
        simulator_ms = (1e3 * results.timing().iloc[1:].mean()).to_dict()
    wall_ms = 1e3 * (ends_s[-1] - ends_s[0]) / (len(ends_s) - 1)
    return Measured(wall_ms, {str(name): float(ms) for name, ms in simulator_ms.items()}, result_hash(out))


@contextmanager
def transports(folder: Path) -> Iterator[dict[str, str]]:
    """Overrides of the scenario by name; mosquitto runs meanwhile, if it is installed."""
    found = {"memory": "transport=memory", "embedded broker": "transport=embedded"}
    if MOSQUITTO is None:
        yield found
        return
    with Mosquitto(folder) as broker:
        yield found | {"mosquitto": f"transport={{mqtt: {{host: 127.0.0.1, port: {broker.port}}}}}"}


def main() -> list[Row]:
    """Rows in milliseconds a step; medians over runs in turn."""
    runs: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, transports(Path(folder)) as overrides:
        for _ in range(ROUNDS):
            for (estimator, methods), (transport, given) in product(ESTIMATORS.items(), overrides.items()):
                runs[estimator, transport].append(measured((given, *methods), Path(folder, "result.h5")))
    for (estimator, transport), found in runs.items():
        assert {each.result for each in found} == {runs[estimator, "memory"][0].result}, f"{transport} differs"
    shipped, least = ESTIMATORS
    rows = [row for transport in overrides for row in split(f"{shipped}, {transport}", runs[shipped, transport])]
    rows += split(f"{least}, memory", runs[least, "memory"])
    # With the genetic algorithm, differences between transports drown in the estimator's time.
    wall_ms = {transport: median(each.wall_ms for each in runs[least, transport]) for transport in overrides}
    for transport in (name for name in overrides if name != "memory"):
        name, note = f"{least}, {transport}: whole chain", "times as fast as with memory"
        rows.append(times_as_fast(name, wall_ms[transport], wall_ms["memory"], "ms/step", note))
    return rows if MOSQUITTO else [*rows, not_measured("mosquitto", "it is not installed")]


def split(variant: str, found: list[Measured]) -> list[Row]:
    """Shares of the simulators, the largest first, and what is left for mosaik."""
    wall_ms = median(each.wall_ms for each in found)
    part = "share of a step"
    ms = {name: median(each.simulator_ms[name] for each in found) for name in found[0].simulator_ms}
    mosaik_ms = median(each.wall_ms - sum(each.simulator_ms.values()) for each in found)
    largest_first = sorted(ms.items(), key=lambda entry: -entry[1])
    return [
        *(share(f"{variant}: {name}", each, wall_ms, "ms/step", part) for name, each in largest_first),
        share(f"{variant}: mosaik itself", mosaik_ms, wall_ms, "ms/step", part),
    ]


if __name__ == "__main__":
    for row in main():
        print(row)
