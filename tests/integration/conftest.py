"""What tests of whole runs share: scripts of studies, and runs that nobody interrupts."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from resumed_runs import Undisturbed, undisturbed_runs
from short_runs import REPOSITORY


@pytest.fixture(scope="module")
def scenario_script() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script of ``scenarios/`` by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "scenarios"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Runs without interruption, each done once."""
    return undisturbed_runs(tmp_path_factory.mktemp)
