"""The files that a scenario names, in every way that it can name them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from cosim.case_files import FEEDERS, feeder_folder, input_digests, named_files
from cosim.errors import ScenarioError
from cosim.resuming import Unfinished, source_of
from cosim.scenario.load import LoadedScenario, load_scenario

REPOSITORY = Path(__file__).resolve().parents[3]
NAMES = {
    "profiles.file": "profiles.csv",
    "estimator.history.data.file": "history.csv",
    "sensors.replay.file": "readings.csv",
    "resources.heat.heat_pump.outdoor.file": "outdoor.csv",
    "transmission.network": "grid.m",
    "transmission.need.file": "need.csv",
    "coordination.scheme": "mine.yaml",
}
CA = "transport.mqtt.ca_file"


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedScenario:
    """A scenario that names all kinds of files, relative to its own folder; some of them are not there."""
    shutil.copytree(FEEDERS / "mv5", tmp_path / "grid")
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"""
extends: {REPOSITORY / "scenarios" / "dso_priority.yaml"}
feeder: grid
profiles: {{file: profiles.csv, timezone: UTC}}
estimator: {{history: {{data: {{file: history.csv, timezone: UTC}}}}}}
sensors: {{replay: {{file: readings.csv}}}}
transport: {{mqtt: {{ca_file: ca.pem, tls: true}}}}
resources:
  heat: {{pods: [SS4.load], aggregator: homes, down_eur_per_kwh: 0.1, heat_pump: {{p_max_kw: 9, capacity_kwh_per_k: 5,
    resistance_k_per_kw: 2, outdoor: {{file: outdoor.csv, timezone: UTC}}}}}}
transmission: {{case: null, network: grid.m, need: {{share: null, persistence: null, file: need.csv, timezone: UTC}}}}
coordination: {{scheme: mine.yaml}}
recorder: {{file: result.h5}}
"""
    )
    for name in ("profiles.csv", "ca.pem"):
        (tmp_path / name).write_text(name)
    return load_scenario(file)


def test_all_files_are_found_where_they_are_written(loaded: LoadedScenario, tmp_path: Path) -> None:
    found = {".".join(map(str, keys)): path for keys, path in named_files(loaded).items()}
    assert found == {key: tmp_path / name for key, name in {**NAMES, CA: "ca.pem"}.items()}


def test_digests_of_what_a_run_reads(loaded: LoadedScenario, tmp_path: Path) -> None:
    """Those of the feeder, the two that are there, not the certificate; a change shows."""
    found = input_digests(loaded)
    feeder = {name for name in found if name.startswith("feeder/")}
    assert feeder == {f"feeder/{path.name}" for path in (tmp_path / "grid").iterdir()}
    assert found.keys() - feeder == {"profiles.file", "coordination.scheme"}
    assert found["profiles.file"] == sha256(b"profiles.csv").hexdigest()
    (tmp_path / "profiles.csv").write_text("something else")
    (tmp_path / "grid" / "Lines.dss").unlink()
    after = input_digests(loaded)
    assert after["profiles.file"] == sha256(b"something else").hexdigest()
    assert found.keys() - after.keys() == {"feeder/Lines.dss"}


def test_a_run_whose_scenario_has_no_file_finds_files_of_all_folders_again(
    loaded: LoadedScenario, tmp_path: Path
) -> None:
    """As one of a sweep, whose paths come from the study, its base and what that extends."""
    (tmp_path / "above").mkdir()
    extending = tmp_path / "above" / "more.yaml"
    extending.write_text("extends: ../mine.yaml\nsensors: {replay: {file: mine.csv}}\n")
    run = replace(load_scenario(extending), file=None)
    attributes = {"scenario": run.scenario.model_dump_json(), "source": json.dumps(source_of(run))}
    again = Unfinished(tmp_path / "run.h5", attributes, None).load()
    assert named_files(again) == named_files(run)
    assert named_files(again)["sensors", "replay", "file"] == tmp_path / "above" / "mine.csv"
    assert feeder_folder(again) == tmp_path / "grid"
    assert again.scenario == run.scenario


def test_feeder_that_is_not_there(tmp_path: Path) -> None:
    loaded = load_scenario(REPOSITORY / "scenarios" / "mv5_threshold.yaml", ["feeder=mv6"])
    with pytest.raises(ScenarioError, match=r"--set feeder=mv6: feeder: unknown feeder; got mv6"):
        feeder_folder(loaded)
    assert input_digests(loaded) == {}
