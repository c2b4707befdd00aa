"""Solves a feeder folder with the base power of every POD, and compares it with what its source says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cosim.domain.grid import GridState
from cosim.errors import Fault, FeederError, PowerFlowError
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.importers.draft import PodDraft
from cosim.importers.result import Check
from cosim.scenario.schema import GridConfig

TOLERANCE_PU = 1e-4
_CONFIG = GridConfig(tolerance_pu=1e-9, max_iterations=200, max_control_iterations=100)


def solve_folder(folder: Path, pods: Mapping[str, PodDraft]) -> tuple[dict[str, tuple[float, float]], GridState]:
    """Voltage [pu] and angle [degrees] of every node, and the whole state, of the feeder in ``folder``.

    Raises FeederError for whatever is wrong with the folder, or if its power flow does not converge.
    """
    engine = Engine(load_feeder(folder), _CONFIG)
    try:
        p_kw = np.array([pods[pod].p_kw for pod in engine.pods])
        q_kvar = np.array([pods[pod].q_kvar for pod in engine.pods])
        state = engine.solve(p_kw, q_kvar)
        nodes = engine.layout.nodes
    except PowerFlowError as error:
        raise FeederError(Fault(f"the imported feeder does not solve in its base case: {error}")) from None
    finally:
        engine.close()
    pairs = zip(state.vm_pu.tolist(), state.va_deg.tolist(), strict=True)
    return dict(zip(nodes, pairs, strict=True)), state


def compare(
    expected: Mapping[str, tuple[float, float]],
    solved: Mapping[str, tuple[float, float]],
    state: GridState,
    source_head_kw: float,
    source_loss_kw: float,
    with_angles: bool,
) -> Check:
    """The largest differences over the nodes ``expected``: voltage [pu] and angle [degrees] in the source."""
    worst, bus, worst_deg = 0.0, "", 0.0
    for node, (vm_pu, va_deg) in expected.items():
        if node not in solved:
            raise FeederError(Fault("the imported feeder lacks a node of its source", value=node))
        found_vm, found_va = solved[node]
        difference = abs(found_vm - vm_pu)
        if difference >= worst or not bus:
            worst, bus = difference, node
        worst_deg = max(worst_deg, abs((found_va - va_deg + 180.0) % 360.0 - 180.0))
    return Check(
        largest_vm_pu=worst,
        bus=bus.rpartition(".")[0],
        largest_va_deg=worst_deg if with_angles else math.nan,
        source_head_kw=source_head_kw,
        head_kw=state.head_p_kw,
        source_loss_kw=source_loss_kw,
        loss_kw=state.loss_kw,
    )
