"""Co-simulation of distribution-grid flexibility.

In a script: ``load_scenario`` reads a scenario, ``run`` runs it, ``resume`` goes on with a run that was interrupted,
``open_results`` reads what it left, of one run or a study of many; ``resample`` and ``kpis`` make hours, days, months
and key figures of it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# As in a run (cosim.threads), if this comes before the first import of NumPy: no memory for threads that have no work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if TYPE_CHECKING:
    from cosim.analysis.resample import coverage, resample
    from cosim.io.results import result_hash
    from cosim.io.study import open_results, open_study
    from cosim.report.kpis import kpis
    from cosim.runner import resume, run
    from cosim.scenario.load import load_scenario

__all__ = [
    "coverage",
    "kpis",
    "load_scenario",
    "open_results",
    "open_study",
    "resample",
    "result_hash",
    "resume",
    "run",
]

_HOMES = {
    "load_scenario": "cosim.scenario.load",
    "run": "cosim.runner",
    "resume": "cosim.runner",
    "open_results": "cosim.io.study",
    "open_study": "cosim.io.study",
    "resample": "cosim.analysis.resample",
    "coverage": "cosim.analysis.resample",
    "kpis": "cosim.report.kpis",
    "result_hash": "cosim.io.results",
}


def __getattr__(name: str) -> Any:
    """Imports a room only when something of it is used: a command starts in a tenth of the time."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cosim' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
