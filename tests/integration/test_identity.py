"""One scenario and seed: one result, whatever carries the messages and wherever the simulators run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mosquitto_server import NEEDS_MOSQUITTO, Mosquitto
from short_runs import FAST, SCENARIO, cosim, short_run

from cosim import result_hash

GENETIC = "estimator={method: genetic, compare: [wls], genetic: {population: 16, generations: 8, parents: 6}}"
SAME = "operator.action=same"
FLOOD = "sensors.faults={default: {quantum: 0.05, delay_s: 4, delay_jitter_s: 4, dropout: 0.2, stuck: 0.2}}"


def hash_of(folder: Path, *overrides: str) -> str:
    return result_hash(short_run(folder / "run.h5", *overrides).path)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    return hash_of(tmp_path_factory.mktemp("reference"), FLOOD)


@pytest.fixture(scope="module")
def same_mtu_reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    return hash_of(tmp_path_factory.mktemp("reference"), FLOOD, SAME)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["transport=embedded"],
        ["remote=[grid]"],
        ["remote=[estimator]"],
        ["remote=[profiles, counterfactual, operator]"],
        ["transport=embedded", "remote=[sensors, gateway]"],
        ["recorder={flush_steps: 3, compression: none}"],
    ],
    ids=", ".join,
)
def test_same_result(tmp_path: Path, reference: str, overrides: list[str]) -> None:
    assert hash_of(tmp_path, FLOOD, *overrides) == reference


@pytest.mark.parametrize(
    "overrides", [["transport=embedded"], ["remote=[grid, estimator]"], ["remote=[operator]"]], ids=", ".join
)
def test_same_result_with_orders_that_act_at_once(
    tmp_path: Path, same_mtu_reference: str, overrides: list[str]
) -> None:
    assert hash_of(tmp_path, FLOOD, SAME, *overrides) == same_mtu_reference


class TestMosquitto:
    pytestmark = NEEDS_MOSQUITTO

    @pytest.mark.parametrize("overrides", [[], [SAME], ["remote=[gateway]"]], ids=str)
    def test_same_result(self, tmp_path: Path, reference: str, same_mtu_reference: str, overrides: list[str]) -> None:
        expected = same_mtu_reference if SAME in overrides else reference
        with Mosquitto(tmp_path) as broker:
            over = f"transport={{mqtt: {{port: {broker.port}, topic_prefix: site/a/}}}}"
            assert hash_of(tmp_path, FLOOD, over, *overrides) == expected


def test_genetic_estimate_is_the_same_in_another_process(tmp_path: Path) -> None:
    short = "duration=1h"
    assert hash_of(tmp_path, GENETIC, short) == hash_of(tmp_path, GENETIC, short, "remote=[estimator]")


def test_command_line_in_another_folder_with_other_hash_seed(tmp_path: Path, reference: str) -> None:
    out = tmp_path / "elsewhere.h5"
    overrides = [part for override in (*FAST, FLOOD) for part in ("--set", override)]
    code, _, err = cosim("run", SCENARIO, "--out", out, "--no-report", *overrides, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert result_hash(out) == reference


def test_another_seed_gives_another_result(tmp_path: Path, reference: str) -> None:
    assert hash_of(tmp_path, FLOOD, "seed=2") != reference


def test_orders_at_once_give_another_result(reference: str, same_mtu_reference: str) -> None:
    assert reference != same_mtu_reference


def test_threads_of_linear_algebra_change_nothing(tmp_path: Path) -> None:
    """NumPy may come before cosim, and the environment may ask for threads: two add sums up in another order."""
    scenario, short = SCENARIO.parent / "coordination_ieee123.yaml", ["duration=15min", "settlement={}"]
    script = (
        "import numpy, pathlib, sys, cosim;"
        "cosim.run(cosim.load_scenario(sys.argv[1], sys.argv[3:]), pathlib.Path(sys.argv[2]))"
    )
    files = {threads: tmp_path / f"{threads}.h5" for threads in ("1", "2")}
    for threads, out in files.items():
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", script, scenario, out, *short], env=environment, check=True, cwd=tmp_path)
    assert result_hash(files["1"]) == result_hash(files["2"])
