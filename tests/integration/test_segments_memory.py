"""Memory over a few hundred segments, as many as a year has of a day each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from short_runs import FAST, REPOSITORY, SCENARIO

WATCHED = """
import json, sys
from pathlib import Path
import psutil
from cosim import load_scenario, run
from cosim.io.store import ResultWriter

end_step, process, seen = ResultWriter.end_step, psutil.Process(), []

def ending(self, step):
    end_step(self, step)
    if step % 20 == 19:
        seen.append(process.memory_info().rss / 2**20)

ResultWriter.end_step = ending
run(load_scenario(sys.argv[1], json.loads(sys.argv[2])), Path(sys.argv[3]))
print(json.dumps(seen))
"""


def test_memory_does_not_grow_with_segments(tmp_path: Path) -> None:
    """A step each: 100 of them are the segments of 9,600 steps by the day. HDF5 first fills what memory it may have."""
    overrides = [*FAST, "start=2016-07-20T00:00:00+01:00", "duration=75h", "recorder.checkpoint=15min"]
    command = [sys.executable, "-c", WATCHED, str(SCENARIO), json.dumps(overrides), str(tmp_path / "run.h5")]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert said.returncode == 0, said.stderr
    rss_mib = json.loads(said.stdout)
    assert len(rss_mib) == 15
    assert rss_mib[-1] - rss_mib[9] <= 1.0, str(rss_mib)
