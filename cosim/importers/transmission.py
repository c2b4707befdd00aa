"""A transmission network from pandapower: a case of its own by name, its JSON, or a MATPOWER case.

What is taken is the direct-current model that pandapower itself solves: reactances with transformer ratios, ratings,
what every bus consumes; generators with bounds and polynomial costs; and, at the alternating-current solution, how
voltages follow reactive power. Source of the names: L. Thurner et al., pandapower, IEEE Trans. Power Systems 33(6),
2018.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cosim.coordination.grid import Grid, Line, dc_grid, unconnected, with_sensitivities
from cosim.coordination.transmission_network import Generator, TransmissionNetwork
from cosim.domain.frames import Floats
from cosim.errors import Fault, FeederError, PowerFlowError, ScenarioError
from cosim.importers.matpower import read_matpower
from cosim.importers.source import read_network
from cosim.importers.tables import Row, plain, quiet_pandapower, rows, solve
from cosim.units import KW_PER_MW

_KEY: Final = "transmission.network"
_UNLIMITED_MVA = 9900.0
_FROM, _TO, _X, _RATING, _TAP, _P_FROM = 0, 1, 3, 5, 8, 13
_AGREE = 1e-6
_F_HZ = 50.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Model:
    """A solved network in pandapower's internal order of buses: ``names`` (n_bus,), ``bus`` by pandapower's own index,
    the table of branches."""

    net: Any
    names: tuple[str, ...]
    bus: Mapping[int, int]
    slack: int
    branches: Floats


def read_transmission(source: str) -> TransmissionNetwork:
    """The network of ``source``, a name of pandapower such as ``case9`` or the path of a ``.json``, ``.m`` or ``.mat``
    file.

    Raises FeederError if it cannot be read or solved, and ScenarioError if it cannot be used: no branch with a rating,
    a part without a connection, phase shifters that drive a flow, no generator that could offer.
    """
    net = _read(source)
    model = _solved(net, source)
    lines = _lines(model)
    if not any(np.isfinite(line.limit_kw) for line in lines):
        problem = f"none of its {len(lines)} branches has a rating below {_UNLIMITED_MVA:g} MVA, which stands for none"
        raise ScenarioError(Fault(problem, key=_KEY, value=source, allowed="a network with ratings: case9, case30"))
    generators = _generators(model)
    if not generators:
        problem = "no generator in service has bounds (min_p_mw, max_p_mw) and a polynomial cost, so none could offer"
        raise ScenarioError(Fault(problem, key=_KEY, value=source))
    load_kw = _load_kw(model)
    slack = model.names[model.slack]
    grid = _grid(model, lines, slack, load_kw, source)
    return TransmissionNetwork(
        name=source,
        grid=_with_voltages(grid, model, source),
        slack=slack,
        load_kw=_own_loads_kw(model),
        feeder_bus=max(_own_loads_kw(model).items(), key=lambda item: item[1], default=(slack, 0.0))[0],
        generators=generators,
    )


def _read(source: str) -> Any:
    suffix = Path(source).suffix.lower()
    if suffix not in (".m", ".mat"):
        return read_network(source if suffix else f"pandapower:{source}", _F_HZ).net
    if not Path(source).is_file():
        raise FeederError(Fault("no such file", source))
    return read_matpower(Path(source), _F_HZ, costs=True)


def _solved(net: Any, source: str) -> _Model:
    """The direct-current solution, by bus and branch in service."""
    with quiet_pandapower():
        import pandapower

        try:
            pandapower.rundcpp(net)
        except Exception as error:
            # pandapower has no tree of errors of its own; what it finds wrong may be any of Python's.
            raise FeederError(Fault(f"no direct-current power flow: {plain(error)}", source)) from error
    inside = net._ppc["internal"]
    lookup = net._pd2ppc_lookups["bus"]
    bus = {row.index: int(lookup[row.index]) for row in rows(net, "bus") if row.in_service}
    known = {index: k for index, k in bus.items() if 0 <= k < len(inside["bus"])}
    return _Model(
        net,
        _names(net, known, len(inside["bus"])),
        known,
        int(inside["ref"][0]),
        np.array(inside["branch"].real, dtype=np.float64),
    )


def _names(net: Any, bus: Mapping[int, int], n: int) -> tuple[str, ...]:
    """Names of buses that can stand in a scenario; pandapower's indices if those of the network do not differ or use
    signs that have a meaning here."""
    first = dict[int, Row]()
    for row in rows(net, "bus"):
        if row.index in bus:
            first.setdefault(bus[row.index], row)
    given = [first[k].name if k in first else f"inside {k}" for k in range(n)]
    if len(set(given)) == n and all(given) and not any(sign in name for name in given for sign in "/:#"):
        return tuple(given)
    return tuple(str(first[k].index) if k in first else f"inside {k}" for k in range(n))


def _lines(model: _Model) -> tuple[Line, ...]:
    found, count = list[Line](), dict[str, int]()
    for branch in model.branches:
        ends = model.names[int(branch[_FROM])], model.names[int(branch[_TO])]
        name = "-".join(ends)
        count[name] = count.get(name, 0) + 1
        rating_mva = branch[_RATING]
        rated = 0.0 < rating_mva < _UNLIMITED_MVA * (1.0 - _AGREE)
        found.append(
            Line(
                name if count[name] == 1 else f"{name} {count[name]}",
                ends,
                float(branch[_X] * (branch[_TAP] or 1.0)),
                KW_PER_MW * float(rating_mva) if rated else np.inf,
            )
        )
    return tuple(found)


def _generators(model: _Model) -> tuple[Generator, ...]:
    """Those that have bounds and a cost; the others keep their power and count as negative consumption."""
    costs = {(row.text("et"), int(row.number("element"))): row for row in rows(model.net, "poly_cost")}
    found = list[Generator]()
    for row in _sources(model):
        cost = costs.get((row.table, row.index))
        bounds_mw = row.number("min_p_mw"), row.number("max_p_mw")
        if cost is None or not np.isfinite(bounds_mw).all() or bounds_mw[0] > bounds_mw[1]:
            continue
        found.append(
            Generator(
                id=row.label,
                bus=model.names[model.bus[row.bus()]],
                p_kw=KW_PER_MW * _power_mw(model, row),
                p_min_kw=KW_PER_MW * bounds_mw[0],
                p_max_kw=KW_PER_MW * bounds_mw[1],
                cost_eur_per_kwh=cost.number("cp1_eur_per_mw", 0.0) / KW_PER_MW,
                slope_eur_per_kwh_kw=2.0 * cost.number("cp2_eur_per_mw2", 0.0) / KW_PER_MW**2,
            )
        )
    return tuple(found)


def _sources(model: _Model) -> list[Row]:
    tables = [row for table in ("ext_grid", "gen") for row in rows(model.net, table)]
    return [row for row in tables if row.in_service and row.bus() in model.bus]


def _power_mw(model: _Model, row: Row) -> float:
    return float(model.net[f"res_{row.table}"].p_mw[row.index])


def _load_kw(model: _Model) -> dict[str, float]:
    """What every bus consumes beside `_generators`: what these inject less what flows away."""
    p_mw = np.zeros(len(model.names))
    np.add.at(p_mw, model.branches[:, _FROM].astype(int), -model.branches[:, _P_FROM])
    np.add.at(p_mw, model.branches[:, _TO].astype(int), model.branches[:, _P_FROM])
    load_kw = dict(zip(model.names, (KW_PER_MW * p_mw).tolist(), strict=True))
    for unit in _generators(model):
        load_kw[unit.bus] += unit.p_kw
    return load_kw


def _own_loads_kw(model: _Model) -> dict[str, float]:
    """Consumption of the loads themselves by bus."""
    load_kw = dict[str, float]()
    for row in rows(model.net, "load"):
        if row.in_service and row.bus() in model.bus:
            name = model.names[model.bus[row.bus()]]
            load_kw[name] = load_kw.get(name, 0.0) + KW_PER_MW * row.number("p_mw") * row.number("scaling", 1.0)
    return load_kw


def _grid(model: _Model, lines: Sequence[Line], slack: str, load_kw: Mapping[str, float], source: str) -> Grid:
    """The direct-current model, found to carry the flows that pandapower finds."""
    apart = unconnected(lines, slack, model.names)
    if apart:
        problem = f"no branch connects these buses to the reference bus {slack}"
        raise ScenarioError(Fault(problem, key=_KEY, value=f"{source}: {', '.join(apart)}"))
    given = dict(load_kw)
    for unit in _generators(model):
        given[unit.bus] -= unit.p_kw
    flow_kw = dc_grid("", lines, slack, given).rows.i_a.real
    wrong_kw = np.abs(flow_kw - KW_PER_MW * model.branches[:, _P_FROM])
    if wrong_kw.max() > _AGREE * np.abs(flow_kw).max():
        name = lines[int(wrong_kw.argmax())].name
        problem = "flows that loads and generation do not explain, of phase shifters in a mesh, are not modelled"
        raise ScenarioError(Fault(problem, key=_KEY, value=f"{source}: {wrong_kw.max():.0f} kW in {name}"))
    return dc_grid("", lines, slack, load_kw)


def _with_voltages(grid: Grid, model: _Model, source: str) -> Grid:
    """With voltages that follow reactive power as at the alternating-current solution, generators holding theirs and
    powers being held; as it is where there is no such solution."""
    try:
        solve(model.net)
    except PowerFlowError as error:
        _log.warning("%s: voltages of transmission are not looked at: %s", source, error)
        return grid
    inside = model.net._ppc["internal"]
    pv, pq = (np.asarray(inside[kind], dtype=np.int64) for kind in ("pv", "pq"))
    sensitivity = _dv_by_dq(inside["J"].toarray(), len(pv) + len(pq)) / (float(inside["baseMVA"]) * KW_PER_MW)
    nodes = [model.names[k] for k in pq]
    by_q = np.zeros((len(pq), len(grid.rows.pods)))
    by_q[:, [grid.rows.pods.index(name) for name in nodes]] = -sensitivity  # consumption is a negative injection
    vm_pu = np.abs(np.asarray(inside["V"]))[pq]
    return with_sensitivities(grid, nodes, by_q, vm_pu, _band_pu(model, nodes))


def _band_pu(model: _Model, nodes: Sequence[str]) -> tuple[Floats, Floats]:
    """Lowest and highest voltages of ``nodes``, NaN where none is given; of several buses that are one, what all of
    them allow."""
    low, high = dict.fromkeys(nodes, np.nan), dict.fromkeys(nodes, np.nan)
    for row in rows(model.net, "bus"):
        name = model.names[model.bus[row.index]] if row.index in model.bus else ""
        if name in low:
            low[name] = float(np.fmax(low[name], row.number("min_vm_pu")))
            high[name] = float(np.fmin(high[name], row.number("max_vm_pu")))
    return np.array(list(low.values())), np.array(list(high.values()))


def _dv_by_dq(jacobian: Floats, n_angle: int) -> Floats:
    """Voltages by reactive injection [pu per pu] at buses whose voltage nobody holds (n_pq, n_pq), with active powers
    held: the angles are taken out of the Jacobian of a power flow."""
    p_angle, p_v = jacobian[:n_angle, :n_angle], jacobian[:n_angle, n_angle:]
    q_angle, q_v = jacobian[n_angle:, :n_angle], jacobian[n_angle:, n_angle:]
    return np.asarray(np.linalg.inv(q_v - q_angle @ np.linalg.solve(p_angle, p_v)), dtype=np.float64)
