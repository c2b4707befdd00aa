"""Every scenario and study that comes along can be opened, and every scheme of coordination has a scenario."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from short_runs import REPOSITORY

from cosim import load_scenario
from cosim.case import open_case
from cosim.coordination.catalogue import shipped
from cosim.scenario.study import load_study
from cosim.sweep.plan import plan

FOLDER = REPOSITORY / "scenarios"
FILES = [path for path in sorted(FOLDER.rglob("*.yaml")) if path.parent.name != "cases"]
STUDIES = [path for path in FILES if "vary" in yaml.safe_load(path.read_text(encoding="utf-8"))]
SCENARIOS = [path for path in FILES if path not in STUDIES]


def named(path: Path) -> str:
    return str(path.relative_to(FOLDER))


@pytest.mark.parametrize("path", [p for p in SCENARIOS if p.parent == FOLDER], ids=named)
def test_scenario_opens(path: Path) -> None:
    case = open_case(load_scenario(path))
    assert case.scenario.name == path.stem
    assert case.scenario.description


@pytest.mark.parametrize("path", STUDIES, ids=named)
def test_study_has_runs(path: Path) -> None:
    assert len(plan(load_study(path)).runs) > 1


def test_every_scheme_has_a_scenario_of_the_same_week() -> None:
    """Nothing but the scheme differs, and what only it needs."""
    loaded = [load_scenario(path).scenario for path in SCENARIOS]
    week = load_scenario(FOLDER / "dso_priority.yaml").scenario
    of_week = [each for each in loaded if each.coordination is not None and each.start == week.start]
    assert sorted(each.coordination.scheme for each in of_week if each.coordination) == list(shipped())
    apart = {"name": "", "description": "", "coordination": None}
    assert all(each.model_copy(update=apart) == week.model_copy(update=apart) for each in of_week)
