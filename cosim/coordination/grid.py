"""Networks as a stage sees them: an area of distribution, the transmission network, or both joined at interfaces.

Whatever belongs to an area bears its name, ``AREA/POD`` and ``AREA/ELEMENT``; at transmission a POD is a bus. A flow of
active power in kW (direct-current model) stands for a current along the real axis, for which an inscribed polygon with
an even number of planes is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from cosim.domain.frames import Complexes, Floats
from cosim.domain.market import Resource
from cosim.errors import BidError, Fault
from cosim.market.network import Mask, NetworkRows, network_part, with_quantities
from cosim.market.uncertainty import Uncertainty, UncertaintySet

COUNTERPART: Final = "counterpart"
"""A POD without a place: whoever stands on the other side of a balance."""
INTERFACE: Final = "interface"
_REACTIVE: Final = ":q"
_FAR_KW: Final = 1e4


@dataclass(frozen=True)
class Grid:
    """An area of distribution or the transmission network around a schedule.

    ``rows``: limited quantities, and the active power at its head by consumption; ``q_head_by_p``, ``q_head_by_q``
    (n_pod,) the same of its reactive power [kvar per kW, per kvar]; ``uncertainty`` of the schedule, None for none;
    ``unit``: of currents, A, or kW in a direct-current model; ``import_kw``: at the head, at the schedule.
    """

    rows: NetworkRows
    q_head_by_p: Floats
    q_head_by_q: Floats
    uncertainty: Uncertainty | None = None
    unit: str = "A"
    import_kw: float = 0.0


@dataclass(frozen=True)
class Line:
    """A line of a direct-current model between two buses; ``limit_kw`` is infinite for none."""

    name: str
    buses: tuple[str, str]
    x_pu: float
    limit_kw: float


def area_of(pod: str) -> str:
    """The area of a POD or an element; empty at transmission."""
    area, slash, _ = pod.partition("/")
    return area if slash else ""


def reactive(pod: str) -> str:
    """The twin of a POD that stands for its reactive power: 1 "kW" there is 1 kvar at the POD."""
    return pod + _REACTIVE


def is_reactive(resource: Resource) -> bool:
    return resource.pod.endswith(_REACTIVE)


def dc_grid(prefix: str, lines: Sequence[Line], slack: str, p_kw: Mapping[str, float]) -> Grid:
    """A direct-current model with consumption ``p_kw`` by bus, balanced at the bus ``slack``, which is the head."""
    buses = list(dict.fromkeys([slack, *(bus for line in lines for bus in line.buses), *p_kw]))
    incidence = np.array([[float(b == line.buses[0]) - float(b == line.buses[1]) for b in buses] for line in lines])
    incidence = incidence.reshape(len(lines), len(buses))
    weighted = incidence / np.array([line.x_pu for line in lines]).reshape(-1, 1)
    angles = np.zeros((len(buses), len(buses)))
    angles[1:, 1:] = np.linalg.inv((incidence.T @ weighted)[1:, 1:])
    by_p = -(weighted @ angles)  # consumption is a negative injection
    load = np.array([p_kw.get(bus, 0.0) for bus in buses])
    n, none = len(buses), np.zeros(len(buses))
    limit = np.array([line.limit_kw for line in lines])
    rows = NetworkRows(
        pods=tuple(prefix + bus for bus in buses),
        p_kw=load,
        q_kvar=none,
        conductors=tuple(prefix + line.name for line in lines),
        nodes=(),
        base=(by_p @ load).astype(complex),
        by_p=by_p.astype(complex),
        by_q=np.zeros_like(by_p, dtype=complex),
        upper=np.where(np.isfinite(limit), limit, np.nan),
        lower=np.full(len(lines), np.nan),
        head_by_p=np.ones(n),
        head_by_q=none,
    )
    return Grid(rows, none, np.ones(n), unit="kW", import_kw=float(load.sum()))


def unconnected(lines: Sequence[Line], slack: str, buses: Sequence[str]) -> tuple[str, ...]:
    """Buses that no line connects to the slack."""
    reached, ahead = {slack}, [slack]
    while ahead:
        here = ahead.pop()
        found = {b for line in lines if here in line.buses for b in line.buses} - reached
        reached |= found
        ahead += sorted(found)
    return tuple(bus for bus in dict.fromkeys(buses) if bus not in reached)


def with_voltages(
    grid: Grid, lines: Sequence[Line], base_kva: float, vm_pu: Mapping[str, float], band_pu: tuple[float, float]
) -> Grid:
    """Voltages of a direct-current model that follow reactive power alone, ``dV = X dQ`` (fast decoupled power flow: B.
    Stott, O. Alsac, 1974); the head's is fixed."""
    names = [pod.rpartition("/")[2] for pod in grid.rows.pods]
    incidence = np.array([[float(b == line.buses[0]) - float(b == line.buses[1]) for b in names] for line in lines])
    reactance = np.linalg.inv((incidence.T @ (incidence / np.array([[line.x_pu] for line in lines])))[1:, 1:])
    by_q = np.zeros((len(names) - 1, len(names)))
    by_q[:, 1:] = -reactance / base_kva
    vm = np.array([vm_pu.get(name, 1.0) for name in names[1:]])
    low, high = (np.full(len(by_q), limit) for limit in band_pu)
    return with_sensitivities(grid, grid.rows.pods[1:], by_q, vm, (low, high))


def with_sensitivities(
    grid: Grid, nodes: Sequence[str], by_q: Floats, vm_pu: Floats, band_pu: tuple[Floats, Floats]
) -> Grid:
    """Voltages that follow reactive power alone: ``by_q`` (n_node, n_pod) [pu per kvar of consumption], ``vm_pu`` and
    the band (n_node,)."""
    low, high = band_pu
    voltages = replace(
        grid.rows,
        conductors=(),
        nodes=tuple(nodes),
        base=vm_pu.astype(complex),
        by_p=np.zeros_like(by_q, dtype=complex),
        by_q=by_q.astype(complex),
        upper=high,
        lower=low,
    )
    return replace(grid, rows=with_quantities(without_voltages(grid).rows, voltages))


def part_of(grid: Grid, systems: int) -> Grid:
    """One of ``systems`` equal parts of a direct-current model: powers and limits are divided, and 1 kvar in a part
    stands for as many in the whole. Raises ValueError unless there is at least one."""
    if systems < 1:
        raise ValueError(f"at least one system, got {systems}")
    rows = grid.rows
    flows = _of_conductors(rows)
    less, more = np.where(flows, systems, 1), np.where(flows, 1, systems)[:, None]
    part = replace(
        rows,
        p_kw=rows.p_kw / systems,
        q_kvar=rows.q_kvar / systems,
        base=rows.base / less,
        by_p=rows.by_p * more,
        by_q=rows.by_q * more,
        upper=rows.upper / less,
    )
    return replace(grid, rows=part, import_kw=grid.import_kw / systems)


def with_reactive_pods(grid: Grid, pods: Sequence[str]) -> Grid:
    """With a twin of each of ``pods`` for its reactive power (`reactive`)."""
    rows = grid.rows
    own = [rows.pods.index(pod) for pod in dict.fromkeys(pods)]
    effect = _Effect(rows.by_q[:, own], rows.head_by_q[own], grid.q_head_by_q[own])
    return _with_pods(grid, [reactive(rows.pods[k]) for k in own], effect, _no_effect(rows, len(own)))


def with_counterpart(grid: Grid) -> Grid:
    """With the POD `COUNTERPART`, which changes the balance and nothing else."""
    none = _no_effect(grid.rows, 1)
    return _with_pods(grid, [COUNTERPART], replace(none, head=np.ones(1)), none)


def held_in_kvar(grid: Grid, import_kw: float) -> Grid:
    """Its head counted in reactive power; active power there is limited: no more, no less than a change by
    ``import_kw``, each side a quantity that is at its limit when it is kept, whatever the forecast errors. Raises
    BidError as `joined` does."""
    rows = grid.rows
    far_kw = _FAR_KW + 10.0 * float(np.abs(rows.p_kw).sum())
    sides = replace(
        rows,
        conductors=tuple(f"{INTERFACE} {side}" for side in ("import", "export")),
        nodes=(),
        base=np.array([far_kw - import_kw, far_kw + import_kw], dtype=complex),
        by_p=np.array([rows.head_by_p, -rows.head_by_p], dtype=complex),
        by_q=np.array([rows.head_by_q, -rows.head_by_q], dtype=complex),
        upper=np.full(2, far_kw),
        lower=np.full(2, np.nan),
    )
    held = replace(with_quantities(rows, sides), head_by_p=grid.q_head_by_p, head_by_q=grid.q_head_by_q)
    turned = replace(grid, rows=held, q_head_by_p=rows.head_by_p, q_head_by_q=rows.head_by_q, uncertainty=None)
    return _with_errors(turned, grid)


def without_limits(grid: Grid) -> Grid:
    """The same PODs in a network without any limit."""
    return replace(grid, rows=network_part(grid.rows, np.zeros(len(grid.rows.names), dtype=bool)))


def without_voltages(grid: Grid) -> Grid:
    """Its currents alone are limited."""
    return replace(grid, rows=network_part(grid.rows, _of_conductors(grid.rows)))


def _of_conductors(rows: NetworkRows) -> Mask:
    return np.arange(len(rows.names)) < len(rows.conductors)


def shifted(grid: Grid, consumption_kw: Mapping[str, float]) -> Grid:
    """Around a schedule with that much more consumption at some PODs."""
    if not any(consumption_kw.values()):
        return grid
    rows = grid.rows
    delta = np.array([consumption_kw.get(pod, 0.0) for pod in rows.pods])
    return replace(grid, rows=replace(rows, p_kw=rows.p_kw + delta, base=rows.at(delta, np.zeros(len(delta)))))


def joined(transmission: Grid, areas: Sequence[tuple[str, Grid]]) -> Grid:
    """Areas below their buses of the transmission network, with all limits of both; the head is the whole system's.

    Forecast errors of an area count against its own limits only: they are those of PODs that no resource is at. Raises
    BidError where that cannot be.
    """
    whole = transmission
    for bus, area in areas:
        whole = _below(whole, bus, area)
    for _, area in areas:
        whole = _with_errors(whole, area)
    return whole


@dataclass(frozen=True)
class _Effect:
    """What PODs do, by one of their powers: to quantities (n_quantity, n_pod), to the head's P and Q (n_pod,)."""

    on: Complexes
    head: Floats
    q_head: Floats


def _no_effect(rows: NetworkRows, n: int) -> _Effect:
    none = np.zeros(n)
    return _Effect(np.zeros((len(rows.names), n), dtype=complex), none, none)


def _with_pods(grid: Grid, names: Sequence[str], by_p: _Effect, by_q: _Effect) -> Grid:
    """With more PODs, which consume nothing."""
    rows, none, band = grid.rows, np.zeros(len(names)), grid.uncertainty
    wide = replace(
        rows,
        pods=(*rows.pods, *names),
        p_kw=np.concatenate([rows.p_kw, none]),
        q_kvar=np.concatenate([rows.q_kvar, none]),
        by_p=np.hstack([rows.by_p, by_p.on]),
        by_q=np.hstack([rows.by_q, by_q.on]),
        head_by_p=np.concatenate([rows.head_by_p, by_p.head]),
        head_by_q=np.concatenate([rows.head_by_q, by_q.head]),
    )
    q_head = np.concatenate([grid.q_head_by_p, by_p.q_head]), np.concatenate([grid.q_head_by_q, by_q.q_head])
    return replace(
        grid, rows=wide, q_head_by_p=q_head[0], q_head_by_q=q_head[1], uncertainty=band and _wider(band, none, none)
    )


def _wider(band: Uncertainty, half_p_kw: Floats, half_q_kvar: Floats) -> Uncertainty:
    """With the half-bands of more PODs. Of a set whose errors have something in common they have no part in it."""
    half = np.append(band.half_p_kw, half_p_kw), np.append(band.half_q_kvar, half_q_kvar)
    loadings = band.set.loadings
    if loadings is not None:
        apart = np.zeros((len(half_p_kw), loadings.shape[1]))
        blocks = np.split(loadings, band.n_xi // band.n_pod)  # of P, and of Q where it has errors of its own
        loadings = np.vstack([part for block in blocks for part in (block, apart)])
    return replace(
        band, half_p_kw=half[0], half_q_kvar=half[1], set=UncertaintySet(band.set.norm, band.set.size, loadings)
    )


def _below(whole: Grid, bus: str, area: Grid) -> Grid:
    """The quantities of an area, and its PODs, which change those above through its import."""
    upper, lower, at = whole.rows, area.rows, whole.rows.pods.index(bus)

    def above(head: Floats, q_head: Floats) -> _Effect:
        return _Effect(np.outer(upper.by_p[:, at], head) + np.outer(upper.by_q[:, at], q_head), head, q_head)

    wide = _with_pods(
        whole, lower.pods, above(lower.head_by_p, area.q_head_by_p), above(lower.head_by_q, area.q_head_by_q)
    )
    none = np.zeros((len(lower.names), len(upper.pods)), dtype=complex)
    below = replace(lower, pods=wide.rows.pods, by_p=np.hstack([none, lower.by_p]), by_q=np.hstack([none, lower.by_q]))
    return replace(wide, rows=with_quantities(wide.rows, below))


def _with_errors(whole: Grid, area: Grid) -> Grid:
    """With PODs for the forecast errors of an area."""
    band, before, rows, own = area.uncertainty, whole.uncertainty, whole.rows, area.rows
    if band is None:
        return whole
    if band.base == "residual" or band.set.loadings is not None or (before is not None and before.set != band.set):
        problem = (
            "with transmission, or by reactive power, areas have forecast errors of one kind, of each POD by itself"
        )
        raise BidError(Fault(problem, key="uncertainty", allowed="a box or a budget on the baseline, the same in all"))
    at = np.concatenate([np.isin(rows.conductors, own.conductors), np.isin(rows.nodes, own.nodes)])
    none = np.zeros(len(own.pods))
    by_p, by_q = (_Effect(_placed(at, effect), none, none) for effect in (own.by_p, own.by_q))
    names = [f"error of {pod}" for pod in own.pods]
    wide = _with_pods(replace(whole, uncertainty=None), names, by_p, by_q)
    no_error = np.zeros(len(rows.pods))
    start = before or replace(band, half_p_kw=no_error, half_q_kvar=no_error)
    return replace(wide, uncertainty=_wider(start, band.half_p_kw, band.half_q_kvar))


def _placed(at: Mask, effect: Complexes) -> Complexes:
    placed = np.zeros((len(at), effect.shape[1]), dtype=complex)
    placed[at] = effect
    return placed
