"""A ring of three buses without limits above one area: head - B1 - B2, 10 kW each, 15 kW allowed in the first line."""

from dataclasses import replace

import numpy as np

from cosim.coordination.case import Area, CoordinationCase
from cosim.coordination.catalogue import scheme_of
from cosim.coordination.flows import flows
from cosim.coordination.grid import Line, dc_grid
from cosim.coordination.scheme import Scheme
from cosim.coordination.topology import Placed, TopologicalMatrix
from cosim.domain.market import Bid, Direction, PriceStep, Resource

LINES = (
    Line("A-B", ("A", "B"), 1.0, np.inf),
    Line("B-C", ("B", "C"), 1.0, np.inf),
    Line("A-C", ("A", "C"), 1.0, np.inf),
)
AREA_LINES = (Line("first", ("head", "B1"), 1.0, 15.0), Line("second", ("B1", "B2"), 1.0, 30.0))


def unit(name, pod, up_kw=10.0, down_kw=10.0, perimeter="area"):
    return Resource(name, pod, "load", name, up_kw, down_kw, perimeter=perimeter if "/" in pod else "")


def bid(resource, direction, kw, price, **more):
    steps = price if isinstance(price, tuple) else (PriceStep(kw, price),)
    return Bid(
        f"{resource} {direction.value}", resource, "active", direction, 0, (kw,), steps, resource=resource, **more
    )


UP, DOWN = Direction.UP, Direction.DOWN
UNITS = {u.id: u for u in (unit("G", "B", 100.0, 100.0), unit("F1", "area/B1"), unit("F2", "area/B2"))}
BIDS = (
    bid("G", UP, 100.0, 0.10),
    bid("G", DOWN, 100.0, 0.05),
    bid("F1", UP, 10.0, 0.20),
    bid("F1", DOWN, 10.0, 0.03),
    bid("F2", UP, 10.0, 0.30),
    bid("F2", DOWN, 10.0, 0.02),
)


def area(name="area", bus="C", load_kw=(10.0, 10.0), **more):
    grid = dc_grid(f"{name}/", AREA_LINES, "head", {"B1": load_kw[0], "B2": load_kw[1]})
    entries = tuple(
        Placed(u.id, u.id, u.aggregator, u.perimeter, "", u.up_kw, u.down_kw)
        for u in UNITS.values()
        if u.pod.startswith(name)
    )
    return Area(name, bus, grid, TopologicalMatrix(1, entries), **more)


def system(need_kw=0.0, bids=BIDS, units=UNITS, loads=(10.0, 10.0), **area_terms):
    own = area(load_kw=loads, **area_terms)
    upper = dc_grid("", LINES, "A", {"C": own.grid.import_kw})
    return CoordinationCase("small", 0, 3600, upper, need_kw, {"area": own}, dict(units), tuple(bids))


def limited(case, line, kw):
    """With a limit on a line at transmission."""
    rows = case.transmission.rows
    limit = np.where([name == line for name in rows.conductors], kw, rows.upper)
    return replace(case, transmission=replace(case.transmission, rows=replace(rows, upper=limit)))


LOCAL = {"solver": "DSO", "buyers": ["DSO"], "resources": "D", "network": "D"}
GLOBAL = {"solver": "TSO", "buyers": ["TSO"], "resources": "DT", "network": "T", "balance": "system"}


def scheme(stages):
    """A scheme of these stages that declares what they send."""
    tree = {"name": "test", "description": "", "stages": stages}
    declared = {}
    for flow in flows(Scheme.model_validate({**tree, "messages": {}})):
        declared.setdefault(f"{flow.sender} to {flow.receiver}", set()).add(flow.type)
    return scheme_of({**tree, "messages": {pair: sorted(kinds) for pair, kinds in declared.items()}})
