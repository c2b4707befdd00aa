"""Random small systems to coordinate: a ring or tree at transmission, areas of distribution with limits that may be
violated, resources on both sides."""

from dataclasses import replace

import numpy as np
from random_market import limited, network_of, random_grid, with_currents_up_to

from cosim.coordination.case import Area, CoordinationCase
from cosim.coordination.grid import Grid, Line, area_of, dc_grid, reactive, with_reactive_pods
from cosim.coordination.topology import Placed, TopologicalMatrix
from cosim.domain.market import Bid, Direction, PriceStep, Resource
from cosim.market.uncertainty import Uncertainty, box

V = 230.0


def named(grid, area):
    """A grid whose PODs and elements bear the name of their area."""
    rows = grid.rows
    return replace(
        grid,
        rows=replace(
            rows, **{n: tuple(f"{area}/{e}" for e in getattr(rows, n)) for n in ("pods", "conductors", "nodes")}
        ),
    )


def ac_area(area, seed, share, drop_pu, half_band):
    """Complex currents and voltages, with what crosses the interface to first order."""
    grid = random_grid(seed)
    rows = limited(network_of(grid), share, drop_pu)
    from_source = [k for k, (i, _) in enumerate(grid.ends.tolist()) if i == 0]
    per_kw = 3.0 * V / 1000.0 * (rows.by_p[from_source].sum(axis=0)).conj()
    per_kvar = 3.0 * V / 1000.0 * (rows.by_q[from_source].sum(axis=0)).conj()
    first = np.arange(len(rows.i_a)) < len(rows.i_a) // 2
    rows = with_currents_up_to(rows, np.where(first, rows.i_max_a, np.nan))
    band = Uncertainty(half_band * np.abs(grid.p_kw), half_band * np.abs(grid.q_kvar), box()) if half_band else None
    return named(Grid(rows, per_kw.imag, per_kvar.imag, band, import_kw=float(grid.p_kw.sum())), area)


def dc_area(area, seed, share):
    """A tree of buses without losses; limits are a share of the flows in it, or 5 kW."""
    rng = np.random.default_rng([seed, 7])
    n = int(rng.integers(2, 6))
    lines = [
        Line(f"L{k}", ("head" if (i := int(rng.integers(0, k))) == 0 else f"B{i}", f"B{k}"), 0.1, np.inf)
        for k in range(1, n + 1)
    ]
    loads = {f"B{k}": float(rng.uniform(5.0, 20.0) * rng.choice([-1.0, 1.0], p=[0.3, 0.7])) for k in range(1, n + 1)}
    grid = dc_grid(f"{area}/", lines, "head", loads)
    limit = np.maximum(share * np.abs(grid.rows.i_a), 5.0)
    return replace(grid, rows=replace(grid.rows, upper=limit))


def transmission(seed, share, imports_kw):
    """A ring of buses, its dispatch somewhere, the areas at random buses; which bus each is at."""
    rng = np.random.default_rng([seed, 11])
    n = int(rng.integers(2, 6))
    names = [f"T{k}" for k in range(n)]
    pairs = [(names[k], names[k + 1]) for k in range(n - 1)] + ([(names[-1], names[0])] if n > 2 else [])
    lines = [Line("-".join(pair), pair, float(rng.uniform(0.1, 1.0)), np.inf) for pair in pairs]
    at = {area: names[int(rng.integers(0, n))] for area in imports_kw}
    loads = {name: float(rng.uniform(0.0, 60.0)) for name in names}
    for area, kw in imports_kw.items():
        loads[at[area]] += kw
    loads[names[int(rng.integers(0, n))]] -= sum(loads.values())
    grid = dc_grid("", lines, names[0], loads)
    limit = np.maximum(share * np.abs(grid.rows.i_a), 10.0)
    return replace(grid, rows=replace(grid.rows, upper=limit)), names, at


def random_system(seed, share=1.0, areas=1, ac=False, need_kw=None, half_band=0.0, drop_pu=None, reactive_bids=False):
    """``share``: limits of what flows now; ``ac``: areas with complex currents and voltages, else without losses."""
    rng = np.random.default_rng([seed, 13])
    names = ["north", "south"][:areas]
    grids = {
        name: ac_area(name, 10 * seed + k, share, drop_pu, half_band) if ac else dc_area(name, 10 * seed + k, share)
        for k, name in enumerate(names)
    }
    upper, buses, at = transmission(seed, share, {name: grid.import_kw for name, grid in grids.items()})
    resources, bids = {}, []

    def offer(name, pod, kw, kvar_per_kw=0.0, product="active"):
        perimeter = area_of(pod) and f"{area_of(pod)} {int(rng.integers(0, 2))}"
        resources[name] = Resource(name, pod, "load", name, kw, kw / 2.0, kvar_per_kw=kvar_per_kw, perimeter=perimeter)
        for direction, size in ((Direction.UP, kw), (Direction.DOWN, kw / 2.0)):
            prices = np.sort(np.round(rng.uniform(0.05, 0.5, 2), 3))
            steps = tuple(PriceStep(size / 2.0, float(price)) for price in prices)
            bids.append(Bid(f"{name} {direction.value}", name, product, direction, 0, (size,), steps, resource=name))

    for k, bus in enumerate(buses):
        offer(f"G{k}", bus, float(rng.uniform(20.0, 80.0)))
    for area, grid in grids.items():
        rows = grid.rows
        for k, (pod, p, q) in enumerate(zip(rows.pods, rows.p_kw, rows.q_kvar, strict=True)):
            if p and rng.random() < 0.8:
                offer(f"{area} F{k}", pod, float(abs(p)), float(q / p))
        if reactive_bids:
            for k, pod in enumerate(rows.pods[:2]):
                offer(f"{area} Q{k}", reactive(pod), 4.0, product="reactive")
    made = {}
    for name, grid in grids.items():
        inside = [unit for unit in resources.values() if area_of(unit.pod) == name]
        entries = tuple(Placed(u.id, u.pod, u.aggregator, u.perimeter, "", u.up_kw, u.down_kw) for u in inside)
        twins = [u.pod.removesuffix(reactive("")) for u in inside if u.pod.endswith(reactive(""))]
        made[name] = Area(name, at[name], with_reactive_pods(grid, twins), TopologicalMatrix(1, entries))
    need = float(rng.uniform(-20.0, 20.0)) if need_kw is None else need_kw
    return CoordinationCase("random", 0, 3600, upper, need, made, resources, tuple(bids))
