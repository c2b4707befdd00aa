"""Clearing of the local flexibility market: HiGHS on arrays with lazily added planes against a program written in Pyomo
for every solve and CBC.

Real feeders at their base load, each POD selling its load upward at a price of its own, half-bands of 10 %; the limit
of the conductors at the head is what flows there, of all others 1.3 times that; one end of each branch, 32 planes.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from ratios import Row, alternated, share, times_as_fast

from cosim.domain.market import Bid, Direction, PriceStep, Resource
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.grid.linear import LinearNetwork
from cosim.market.ac_loop import clear_with_ac
from cosim.market.case import ClearingCase, ClearingSettings
from cosim.market.clearing import clear
from cosim.market.feeder_model import FeederModel
from cosim.market.highs import Highs
from cosim.market.planes import LimitSettings
from cosim.market.program import Program
from cosim.market.reference import Reference
from cosim.market.uncertainty import Uncertainty, box
from cosim.scenario.schema import GridConfig

FEEDERS = {"lfm12": 12, "ieee123": 123, "european_lv": 906}
MODELS = Path(__file__).resolve().parents[2] / "dss_models"
HALF_BAND = 0.1
PLANES = 32
ROUNDS = 5
MTUS = 96
MANY_BUSES = 500
"""From here CBC takes a minute for all planes: once is enough."""
SAME_ROWS = "times as fast as the same rows through Pyomo and CBC (wall clock: CBC is a process of its own)"
WHOLE = "times as fast as the same through Pyomo and CBC"


def feeder_of(name: str) -> tuple[ClearingCase, FeederModel]:
    """One congested clearing on a feeder."""
    feeder = load_feeder(MODELS / name)
    engine = Engine(feeder, GridConfig())
    network = engine.unloaded()
    engine.close()
    p_kw = np.array([pod.kw for pod in feeder.pods.values()])
    q_kvar = np.array([pod.kvar or 0.0 for pod in feeder.pods.values()])
    layout, none = network.layout, np.full(len(network.layout.nodes), np.nan)
    i_a = np.abs(LinearNetwork(network, feeder.head_terminal).exact(p_kw, q_kvar).state.i_a)
    first = np.isin(layout.conductor_terminal, layout.branch_start)
    head = layout.conductor_terminal == layout.terminals.index(feeder.head_terminal)
    limit = np.where(head, i_a, np.where(first & (i_a > 1e-3 * i_a.max()), 1.3 * i_a, np.nan))
    model = FeederModel(network, feeder.head_terminal, limit, none, none)
    pods = tuple(feeder.pods)
    resources = {
        pod: Resource(pod, pod, "load", "A", max(p, 0.0), 0.0, kvar_per_kw=q / p if p else 0.0)
        for pod, p, q in zip(pods, p_kw, q_kvar, strict=True)
    }
    bids = tuple(
        Bid(pod, "A", "P", Direction.UP, 0, (p,), (PriceStep(p, 0.1 + 0.001 * k),), resource=pod)
        for k, (pod, p) in enumerate(zip(pods, p_kw.tolist(), strict=True))
        if p > 0.0
    )
    band = Uncertainty(HALF_BAND * np.abs(p_kw), HALF_BAND * np.abs(q_kvar), box())
    settings = ClearingSettings(limits=LimitSettings(planes=PLANES))
    rows = model.linearise(0, p_kw, q_kvar)
    return ClearingCase(bids, resources, (rows,), 0, 900, uncertainty=(band,), settings=settings), model


def many(case: ClearingCase, mtus: int) -> ClearingCase:
    """The same in so many MTUs."""
    assert case.uncertainty is not None
    bids = tuple(replace(bid, quantity_kw=bid.quantity_kw * mtus) for bid in case.bids)
    return replace(case, bids=bids, networks=case.networks * mtus, uncertainty=case.uncertainty * mtus)


def full(case: ClearingCase) -> ClearingCase:
    """The same with all planes from the start."""
    return replace(case, settings=replace(case.settings, lazy=False))


def fresh(program: Program) -> Program:
    """A program that a solver has not seen."""
    return Program(program.columns, program.rows)


def check_same(ours: float, other: float) -> None:
    """Raises AssertionError unless two objectives [EUR] agree."""
    assert abs(ours - other) <= 1e-6 * max(1.0, abs(ours)), (ours, other)


def same_rows(label: str, program: Program, objective_eur: float, rounds: int) -> Row:
    """One program handed to HiGHS anew, and written in Pyomo anew for CBC."""
    fast, cbc = Highs(), Reference("cbc")

    def slow() -> None:
        check_same(objective_eur, float(program.columns.cost @ cbc.solve(program).x))

    seconds = alternated({"ours": lambda: fast.solve(fresh(program)), "cbc": slow}, rounds, time.perf_counter)
    return times_as_fast(label, 1e3 * seconds["ours"], 1e3 * seconds["cbc"], "ms", SAME_ROWS)


def whole(label: str, case: ClearingCase, rounds: int) -> Row:
    """A clearing from bids to plan, planes added as needed, both ways."""
    fast, cbc = Highs(), Reference("cbc")
    check_same(clear(case, fast).objective_eur, clear(case, cbc).objective_eur)
    ways = {"ours": lambda: clear(case, fast), "cbc": lambda: clear(case, cbc)}
    seconds = alternated(ways, rounds, time.perf_counter)
    return times_as_fast(label, 1e3 * seconds["ours"], 1e3 * seconds["cbc"], "ms", WHOLE)


def outer_loop(label: str, case: ClearingCase, model: FeederModel) -> Row:
    """What one clearing is of the loop that checks it by the power flow."""
    ways = {"one": lambda: clear(case), "loop": lambda: clear_with_ac(case, model.linearise, model.magnitudes)}
    seconds = alternated(ways, ROUNDS, time.perf_counter)
    return share(label, 1e3 * seconds["one"], 1e3 * seconds["loop"], "ms", "share that one clearing is of the AC loop")


def main() -> list[Row]:
    rows = []
    for name, buses in FEEDERS.items():
        case, model = feeder_of(name)
        found, every = clear(case), clear(full(case))
        check_same(found.objective_eur, every.objective_eur)
        size = f"{every.program.n_row} rows, {len(case.bids)} bids"
        label = f"{buses} buses, one LP, all planes ({size})"
        rows += [
            same_rows(label, every.program, every.objective_eur, ROUNDS if buses < MANY_BUSES else 1),
            same_rows(f"{buses} buses, one LP, planes needed", found.program, found.objective_eur, ROUNDS),
            whole(f"{buses} buses, a whole clearing, planes as needed", case, ROUNDS),
            outer_loop(f"{buses} buses, a whole clearing in the AC loop", case, model),
        ]
        if name == "ieee123":
            rows.append(whole(f"{buses} buses, {MTUS} MTUs, a whole clearing", many(case, MTUS), 1))
    return rows


if __name__ == "__main__":
    for row in main():
        print(row)
