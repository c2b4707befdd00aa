"""OpenDSS by itself, for feeders whose scripts must give the reference values without the framework."""

from contextlib import chdir
from pathlib import Path

import opendssdirect
import pytest

FEEDERS = Path(__file__).parents[2] / "dss_models"


@pytest.fixture(scope="session")
def context():
    with chdir("."):  # OpenDSS goes to the directory in which it was imported
        return opendssdirect.NewContext().to_dss_python()


@pytest.fixture
def opendss(context):
    """Runs commands in a feeder's folder; with none, those of its Run.dss without what is shown. Gives the context."""

    def run(feeder, *commands):
        if not commands:
            lines = (FEEDERS / feeder / "Run.dss").read_text().splitlines()
            commands = [line for line in lines if not line.startswith(("!", "Show"))]
        with chdir(FEEDERS / feeder):
            context.ClearAll()
            for command in commands:
                context.Text.Command = command
        return context

    yield run
    context.ClearAll()


@pytest.fixture(scope="session")
def feeders():
    return FEEDERS
