"""Ratings drawn from a run: what a feeder without name plates is assumed to carry."""

from __future__ import annotations

import numpy as np

from cosim.errors import CosimError
from cosim.io.results import Results
from cosim.report.reading import WITHOUT, Reading


def ratings_text(results: Results, factor: float) -> str:
    """The key ``ratings`` of a feeder.yaml: ``factor`` times the highest current of each branch in a run without orders
    [A], to three digits. Branches that carried none are named in a comment.

    Raises CosimError if the file holds no currents.
    """
    path = f"{WITHOUT}/terminal/i_a"
    highest_a: dict[str, float] = {}
    for _, frame in Reading(results).blocks(path):
        for terminal, peak_a in frame.max().items():
            branch = str(terminal).partition("@")[0]
            highest_a[branch] = float(np.fmax(highest_a.get(branch, 0.0), peak_a))
    if not highest_a:
        raise CosimError(f"{path}: no currents recorded")
    carrying = {branch: peak_a for branch, peak_a in highest_a.items() if peak_a > 0.0}
    idle = [branch for branch in highest_a if branch not in carrying]
    name = Reading(results).name
    lines = [f"# Assumption, not name plates: {factor:g} times the highest current of the run {name}", "ratings:"]
    lines += [f"  {branch}: {{i_a: {factor * peak_a:.3g}}}" for branch, peak_a in carrying.items()]
    lines += [f"# without current, so without rating: {', '.join(idle)}"] if idle else []
    return "\n".join(lines)
