"""Studies of short runs for tests of sweeps."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml
from short_runs import SCENARIO

SETTINGS = {
    "start": "2016-07-23T10:00:00+01:00",
    "duration": "1h",
    "transport": "memory",
    "estimator": {"method": "wls", "compare": []},
    "operator.thresholds_kw": {"SS3.battery": -600},
}
DROPOUT = "sensors.faults.default.dropout"
NOWHERE = "tcp://127.0.0.1:9"


def study_file(folder: Path, name: str = "study", **parts: object) -> Path:
    """A study of two values and two seeds, or as ``parts`` say; its results go into ``folder``/``name``."""
    given = {"vary": {"grid": {DROPOUT: [0.0, 0.2]}}, "seeds": 2, **parts}
    path = folder / f"{name}.yaml"
    told = {"scenario": str(SCENARIO), "out": str(folder / name), "overrides": SETTINGS, **given}
    path.write_text(yaml.safe_dump(told))
    return path


def index_of(folder: Path) -> pd.DataFrame:
    """The index without wall-clock times."""
    return pd.read_parquet(folder / "index.parquet").drop(columns="wall_s")
