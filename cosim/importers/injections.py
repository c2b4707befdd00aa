"""Loads, generation, storage and shunts of pandapower as OpenDSS elements and PODs.

Elements that OpenDSS has no like of keep the power they have in the base case, and are reported as changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from cosim.importers.buses import Buses
from cosim.importers.draft import Carried, Names, PodDraft, merged, number, rounded
from cosim.importers.result import Left
from cosim.importers.tables import Row, rows

LOADS, GENERATORS, STORAGE, SHUNTS = "Loads.dss", "Generators.dss", "Storage.dss", "Shunts.dss"
INJECTING = ("load", "sgen", "storage", "asymmetric_load", "asymmetric_sgen", "ward", "shunt", "motor", "gen", "xward")
"""Tables of pandapower whose elements stand at a single bus."""

_WIDE = "Vminpu=0.5 Vmaxpu=1.5"  # outside of these OpenDSS turns any element into an impedance
_LOW_KV = 1.0  # up to here elements connect between phases and neutral, above it between phases
_PHASES = {"a": 1, "b": 2, "c": 3}
_CONSTANT_IMPEDANCE, _CONSTANT_CURRENT, _CONSTANT_POWER = 2, 5, 1
_EFFICIENCY = 95.0


@dataclass(frozen=True)
class _Place:
    """Where an element connects: bus with its nodes, voltage [kV] as OpenDSS wants it, phases and connection."""

    bus: str
    kv: float
    phases: int = 3
    conn: str = "wye"

    @property
    def text(self) -> str:
        return f"phases={self.phases} bus1={self.bus} kV={number(self.kv)} conn={self.conn}"


def carry_injections(net: Any, buses: Buses) -> Carried:
    """Everything that stands at a single bus, external grids apart; ids of PODs are the names of the elements."""
    names, shunts = Names(), Names()
    parts: list[Carried] = []
    carry: tuple[Callable[[Row], Carried], ...] = (
        lambda row: _load(row, buses, names),
        lambda row: _sgen(row, buses, names),
        lambda row: _storage(row, buses, names),
        lambda row: _asymmetric(row, buses, names, 1.0),
        lambda row: _asymmetric(row, buses, names, -1.0),
        lambda row: _ward(row, buses, names, shunts),
        lambda row: _shunt(row, buses, shunts),
        lambda row: _solved(row, net.res_motor, buses, names, ""),
        lambda row: _solved(row, -net.res_gen, buses, names, "voltage control"),
        lambda row: _solved(row, net.res_xward, buses, names, "voltage source behind an impedance"),
    )
    for table, carried in zip(INJECTING, carry, strict=True):
        for row in rows(net, table):
            if not row.in_service:
                parts.append(Carried(left=(Left(row.label, row.name, "out of service"),)))
            elif row.bus() not in buses.name_of:
                parts.append(Carried(left=(Left(row.label, row.name, "at a bus without a path to the source"),)))
            else:
                parts.append(_with_profile(carried(row), row.text("profile")))
    return merged(parts)


def _with_profile(carried: Carried, profile: str) -> Carried:
    return replace(carried, pods={pod: replace(draft, profile=profile) for pod, draft in carried.pods.items()})


def _place(row: Row, buses: Buses) -> _Place:
    kv = buses.kv_of[row.bus()]
    return _Place(buses.name_of[row.bus()], kv, conn="wye" if kv <= _LOW_KV else "delta")


def _name(row: Row, buses: Buses, names: Names, prefix: str) -> str:
    return names.take(row.name, f"{prefix}_{buses.name_of[row.bus()]}")


def _consumer(name: str, place: _Place, p_kw: float, q_kvar: float, model: int = _CONSTANT_POWER) -> Carried:
    """A load that consumes ``p_kw``, ``q_kvar``; one that gives active power is a POD of kind ``generator``."""
    text = f"New Load.{name} {place.text} model={model} {_WIDE} kW={number(p_kw)} kvar={number(q_kvar)}"
    entry = _entry(f"Load.{name}", p_kw, q_kvar) if p_kw >= 0.0 else _entry(f"Load.{name}", -p_kw, -q_kvar, "generator")
    return Carried({LOADS: (text,)}, {name: PodDraft(entry, p_kw, q_kvar, place.kv)})


def _injector(name: str, place: _Place, p_kw: float, q_kvar: float, kind: str) -> Carried:
    """A generator that injects ``p_kw``, ``q_kvar``; where it consumes active power, a load."""
    if p_kw < 0.0:
        return _consumer(name, place, -p_kw, -q_kvar)
    text = f"New Generator.{name} {place.text} model=1 {_WIDE} kW={number(p_kw)} kvar={number(q_kvar)}"
    entry = _entry(f"Generator.{name}", p_kw, q_kvar, kind)
    return Carried({GENERATORS: (text,)}, {name: PodDraft(entry, -p_kw, -q_kvar, place.kv)})


def _entry(element: str, kw: float, kvar: float, kind: str = "load") -> dict[str, Any]:
    return {
        "element": element,
        "kind": kind,
        "kw": rounded(kw),
        **({"kvar": rounded(kvar)} if kvar else {}),
        "profile": "constant",
    }


def _load(row: Row, buses: Buses, names: Names) -> Carried:
    """A load of constant power; shares of constant impedance and current become loads of their own."""
    place, name = _place(row, buses), _name(row, buses, names, "LOAD")
    scaling = 1000.0 * row.number("scaling", 1.0)
    p_kw, q_kvar = scaling * row.number("p_mw", 0.0), scaling * row.number("q_mvar", 0.0)
    shares = {
        _CONSTANT_IMPEDANCE: (_percent(row, "z", "p"), _percent(row, "z", "q")),
        _CONSTANT_CURRENT: (_percent(row, "i", "p"), _percent(row, "i", "q")),
    }
    shares[_CONSTANT_POWER] = (1.0 - sum(p for p, _ in shares.values()), 1.0 - sum(q for _, q in shares.values()))
    present = {model: share for model, share in shares.items() if any(abs(part) > 1e-12 for part in share)}
    suffix = {_CONSTANT_IMPEDANCE: "_Z", _CONSTANT_CURRENT: "_I", _CONSTANT_POWER: "_P"}
    return merged(
        _consumer(
            name if len(present) == 1 else names.take(name + suffix[model], name), place, p * p_kw, q * q_kvar, model
        )
        for model, (p, q) in present.items()
    )


def _percent(row: Row, law: str, power: str) -> float:
    both = row.number(f"const_{law}_percent", 0.0)  # pandapower before 3.0: one share for P and Q
    return row.number(f"const_{law}_{power}_percent", both) / 100.0


def _sgen(row: Row, buses: Buses, names: Names) -> Carried:
    scaling = 1000.0 * row.number("scaling", 1.0)
    is_pv = "pv" in f"{row.text('type')} {row.text('profile')}".lower() or row.text("type").lower() == "solar"
    return _injector(
        _name(row, buses, names, "GEN"),
        _place(row, buses),
        scaling * row.number("p_mw", 0.0),
        scaling * row.number("q_mvar", 0.0),
        "pv" if is_pv else "generator",
    )


def _storage(row: Row, buses: Buses, names: Names) -> Carried:
    """A storage unit; positive power charges it."""
    place, name = _place(row, buses), _name(row, buses, names, "STORAGE")
    scaling = 1000.0 * row.number("scaling", 1.0)
    p_kw, q_kvar = scaling * row.number("p_mw", 0.0), scaling * row.number("q_mvar", 0.0)
    rated_kw = max(abs(p_kw), 1000.0 * row.number("max_p_mw", row.number("sn_mva", 0.0)))
    rated_kwh, lowest_kwh = 1000.0 * row.number("max_e_mwh", 0.0), 1000.0 * row.number("min_e_mwh", 0.0)
    missing = [key for key, value in {"rated power": rated_kw, "max_e_mwh": rated_kwh}.items() if not value > 0.0]
    if missing:
        reason = f"storage without {' and '.join(missing)}: here a load or generator of its power in the base case"
        return _consumer(name, place, p_kw, q_kvar).with_left(Left(row.label, row.name, reason))
    efficiency = row.number("efficiency_percent", _EFFICIENCY)
    text = (
        f"New Storage.{name} {place.text} kWrated={number(rated_kw)} kVA={number(rated_kw)} "
        f"kWhrated={number(rated_kwh)} %stored={number(row.number('soc_percent', 50.0))} "
        f"%reserve={number(100.0 * lowest_kwh / rated_kwh)}",
        f"~ %EffCharge={number(efficiency)} %EffDischarge={number(efficiency)} %IdlingkW=0 State=idling "
        f"DispMode=external {_WIDE}",
    )
    entry = {"element": f"Storage.{name}", "kind": "storage"}
    assumption = f"storage without efficiency in the source: {_EFFICIENCY:g} % in either direction"
    return Carried(
        {STORAGE: text},
        {name: PodDraft(entry, p_kw, q_kvar, place.kv)},
        assumptions=(assumption,) * math.isnan(row.number("efficiency_percent")),
    )


def _asymmetric(row: Row, buses: Buses, names: Names, sign: float) -> Carried:
    """Three single-phase elements; in the base case each has a third of the power, as pandapower's ``runpp`` has."""
    name, kv = _name(row, buses, names, "LOAD"), buses.kv_of[row.bus()]
    bus, is_delta = buses.name_of[row.bus()], row.text("type") == "delta"
    scaling = 1000.0 * row.number("scaling", 1.0)
    powers = {
        phase: (scaling * row.number(f"p_{phase}_mw", 0.0), scaling * row.number(f"q_{phase}_mvar", 0.0))
        for phase in _PHASES
    }
    mean_p, mean_q = (sign * sum(power[k] for power in powers.values()) / 3.0 for k in (0, 1))
    parts = []
    for phase, node in _PHASES.items():
        nodes = f"{bus}.{node}.{node % 3 + 1}" if is_delta else f"{bus}.{node}"
        place = _Place(nodes, kv if is_delta else kv / math.sqrt(3.0), 1, "delta" if is_delta else "wye")
        pod = names.take(f"{name}_{phase}", name)
        build = _consumer(pod, place, *powers[phase]) if sign > 0.0 else _injector(pod, place, *powers[phase], "pv")
        drafts = {pod: PodDraft(draft.entry, mean_p, mean_q, kv) for pod, draft in build.pods.items()}
        parts.append(Carried(build.lines, drafts))
    return merged(parts)


def _ward(row: Row, buses: Buses, names: Names, shunts: Names) -> Carried:
    place, name = _place(row, buses), _name(row, buses, names, "WARD")
    p_kw, q_kvar = 1000.0 * row.number("ps_mw", 0.0), 1000.0 * row.number("qs_mvar", 0.0)
    z_kw, z_kvar = 1000.0 * row.number("pz_mw", 0.0), 1000.0 * row.number("qz_mvar", 0.0)
    lines = tuple(_shunt_lines(shunts.take(name, name), place, z_kw, z_kvar))
    return merged([_consumer(name, place, p_kw, q_kvar), Carried({SHUNTS: lines})])


def _shunt(row: Row, buses: Buses, shunts: Names) -> Carried:
    """A constant impedance of its power at ``vn_kv``, times its steps."""
    bus_kv = buses.kv_of[row.bus()]
    place = _Place(buses.name_of[row.bus()], row.number("vn_kv", bus_kv), conn="wye" if bus_kv <= _LOW_KV else "delta")
    if row.flag("step_dependency_table"):
        return Carried(left=(Left(row.label, row.name, "a shunt whose power follows a table of steps", True),))
    step = 1000.0 * row.number("step", 1.0)
    p_kw, q_kvar = step * row.number("p_mw", 0.0), step * row.number("q_mvar", 0.0)
    return Carried({SHUNTS: tuple(_shunt_lines(_name(row, buses, shunts, "SHUNT"), place, p_kw, q_kvar))})


def _shunt_lines(name: str, place: _Place, p_kw: float, q_kvar: float) -> Iterator[str]:
    """A capacitor for the reactive power that is given, reactors for that consumed and for active power."""
    branches_per_phase_kv2 = 1000.0 * place.kv**2 * (3.0 if place.conn == "delta" else 1.0)
    if q_kvar < 0.0:
        yield f"New Capacitor.{name} {place.text} kvar={number(-q_kvar)}"
    elif q_kvar > 0.0:
        yield f"New Reactor.{name} {place.text} kvar={number(q_kvar)}"
    if p_kw != 0.0:
        r_ohm = branches_per_phase_kv2 / p_kw
        yield f"New Reactor.{name}_R phases=3 bus1={place.bus} conn={place.conn} X=1e9 Rp={number(r_ohm)}"


def _solved(row: Row, results: Any, buses: Buses, names: Names, lost: str) -> Carried:
    """An element as a load or generator of the power [MW, Mvar] that the source's solution gives it."""
    place, name = _place(row, buses), _name(row, buses, names, row.table.upper())
    found = results.loc[row.index]
    p_kw, q_kvar = 1000.0 * float(found.p_mw), 1000.0 * float(found.q_mvar)
    carried = _consumer(name, place, p_kw, q_kvar)
    if not lost:
        return carried
    reason = f"{lost}: here a constant power of {number(-p_kw)} kW and {number(-q_kvar)} kvar injected"
    return carried.with_left(Left(row.label, row.name, reason, True))
