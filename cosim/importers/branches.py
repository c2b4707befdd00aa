"""Lines, transformers, switches and impedances of pandapower as OpenDSS branches.

A positive-sequence source becomes three-phase; its zero sequence is taken over where given, else assumed. Transformers:
pandapower's T model has half of the leakage impedance on either side of the magnetising branch, OpenDSS has that branch
at the terminals of the second winding. The two agree when the voltage of that winding is raised by the drop of the
magnetising current in the half next to it, some hundred-thousandths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from cosim.importers.buses import Buses, Terminal
from cosim.importers.draft import Carried, Names, merged, number, opendss_name
from cosim.importers.result import Left
from cosim.importers.tables import Row, rows

LINES, TRANSFORMERS = "Lines.dss", "Transformers.dss"
HEAD = "HEAD"
"""A line of ours before the network, where the head is none of its own branches."""

ZERO_SEQUENCE_FACTOR = 4.0
_ZERO_SEQUENCE = (
    f"zero sequence of lines without one in the source: R0, X0 = {ZERO_SEQUENCE_FACTOR:g} R1, X1 and C0 = C1; "
    "it acts in unbalanced states only"
)
_NO_RATING_KA = 90.0  # MATPOWER's "no limit" arrives as 99999 MVA or kA
_SWITCH_RX = 2.0  # pandapower's ratio of the R and X that z_ohm of a switch is made of
_HIGH_KV = 60.0  # from here on the high-voltage winding is the grounded star, below it the delta


def carry_branches(net: Any, buses: Buses) -> Carried:
    """All branches in service that are under voltage."""
    lines, transformers = Names(HEAD), Names()
    codes = _Codes()
    parts = [
        *(_line(row, buses, lines, codes) for row in rows(net, "line")),
        *(_switch(row, buses, lines) for row in rows(net, "switch")),
        *(_impedance(row, buses, lines) for row in rows(net, "impedance")),
        *(_transformer(row, buses, transformers) for row in rows(net, "trafo")),
        *(_three_windings(row, buses, transformers) for row in rows(net, "trafo3w")),
    ]
    return merged([Carried({LINES: codes.lines}), *parts])


class _Codes:
    """Line codes: one for all lines with the same figures."""

    def __init__(self) -> None:
        self._names, self._code = Names(), dict[str, str]()

    def code(self, figures: str, wanted: str) -> str:
        """The name of the line code with ``figures``."""
        if figures not in self._code:
            self._code[figures] = self._names.take(wanted, f"C{len(self._code) + 1}")
        return self._code[figures]

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(f"New LineCode.{name} nphases=3 {figures}" for figures, name in self._code.items())


def _gone(row: Row, ends: list[Terminal]) -> Carried | None:
    """What becomes of a branch that carries nothing."""
    if not row.in_service:
        return Carried(left=(Left(row.label, row.name, "out of service"),))
    if not any(end.live for end in ends):
        return Carried(left=(Left(row.label, row.name, "without a path to the source, or open at all ends"),))
    if len({end.bus for end in ends}) == 1:
        return Carried(left=(Left(row.label, row.name, "bridged by closed switches: its charging is lost", True),))
    return None


def _ends(row: Row, buses: Buses, branch: str, *keys: str) -> list[Terminal]:
    return [buses.terminal(row, key, branch) for key in keys]


def _default_name(row: Row, buses: Buses, prefix: str, *keys: str) -> str:
    between = [buses.name_of.get(row.bus(key), str(row.bus(key))) for key in keys]
    return "_".join([prefix, *between])


def _line(row: Row, buses: Buses, names: Names, codes: _Codes) -> Carried:
    name = names.take(row.name, _default_name(row, buses, "L", "from_bus", "to_bus"))
    ends = _ends(row, buses, name, "from_bus", "to_bus")
    if gone := _gone(row, ends):
        return gone
    parallel = row.number("parallel", 1.0)
    r, x, c = (row.number(key) for key in ("r_ohm_per_km", "x_ohm_per_km", "c_nf_per_km"))
    r0 = row.number("r0_ohm_per_km", ZERO_SEQUENCE_FACTOR * r)
    x0 = row.number("x0_ohm_per_km", ZERO_SEQUENCE_FACTOR * x)
    c0 = row.number("c0_nf_per_km", c)
    assumed = math.isnan(row.number("r0_ohm_per_km")) or math.isnan(row.number("x0_ohm_per_km"))
    i_a = 1000.0 * row.number("max_i_ka") * row.number("df", 1.0) * parallel
    rating = {"i_a": i_a} if 0.0 < i_a < 1000.0 * _NO_RATING_KA else None
    figures = (
        f"R1={number(r / parallel)} X1={number(x / parallel)} R0={number(r0 / parallel)} X0={number(x0 / parallel)} "
        f"C1={number(c * parallel)} C0={number(c0 * parallel)} Units=km"
    ) + (f" NormAmps={number(i_a)} EmergAmps={number(i_a)}" if rating else "")
    wanted = opendss_name(row.text("std_type")) + (f"_x{parallel:g}" if parallel != 1.0 else "")
    code = codes.code(figures, wanted)
    length_km = row.number("length_km")
    text = f"New Line.{name} bus1={ends[0].bus} bus2={ends[1].bus} LineCode={code} Length={number(length_km)} Units=km"
    return Carried(
        {LINES: (text,)},
        ratings={f"Line.{name}": rating},
        ends={f"Line.{name}": tuple(end.bus for end in ends)},
        left=tuple(_line_left(row)),
        assumptions=(_ZERO_SEQUENCE,) * assumed,
    )


def _line_left(row: Row) -> Iterator[Left]:
    if row.number("g_us_per_km", 0.0) != 0.0:
        yield Left(row.label, row.name, "conductance to ground (g_us_per_km): an OpenDSS line has none", True)


def _switch(row: Row, buses: Buses, names: Names) -> Carried:
    """A closed switch with impedance becomes a line; one without joins its buses, an open one parts them."""
    z_ohm = row.number("z_ohm", 0.0)
    if row.text("et") != "b" or not row.flag("closed") or not z_ohm > 0.0:
        return Carried()
    name = names.take(row.name, _default_name(row, buses, "SW", "bus", "element"))
    ends = _ends(row, buses, name, "bus", "element")
    if not all(end.live for end in ends):
        return Carried(left=(Left(row.label, row.name, "without a path to the source"),))
    x_ohm = z_ohm / math.hypot(1.0, _SWITCH_RX)
    return _series(name, ends, _SWITCH_RX * x_ohm, x_ohm)


def _series(name: str, ends: list[Terminal], r_ohm: float, x_ohm: float) -> Carried:
    """A line of length 1 with nothing but a series impedance, the same in all sequences."""
    figures = f"R1={number(r_ohm)} X1={number(x_ohm)} R0={number(r_ohm)} X0={number(x_ohm)} C1=0 C0=0"
    text = f"New Line.{name} bus1={ends[0].bus} bus2={ends[1].bus} phases=3 {figures} Length=1 Units=none"
    branch = f"Line.{name}"
    return Carried({LINES: (text,)}, ratings={branch: None}, ends={branch: (ends[0].bus, ends[1].bus)})


def _impedance(row: Row, buses: Buses, names: Names) -> Carried:
    name = names.take(row.name, _default_name(row, buses, "Z", "from_bus", "to_bus"))
    ends = _ends(row, buses, name, "from_bus", "to_bus")
    if gone := _gone(row, ends):
        return gone
    shunt = any(row.number(key, 0.0) != 0.0 for key in ("gf_pu", "bf_pu", "gt_pu", "bt_pu"))
    one_way = any(row.number(f"{part}ft_pu") != row.number(f"{part}tf_pu") for part in "rx")
    if shunt or one_way or ends[0].kv != ends[1].kv:
        reason = "an impedance with shunts, of different size in either direction, or between two voltage levels"
        return Carried(left=(Left(row.label, row.name, reason, True),))
    z_base = ends[0].kv ** 2 / row.number("sn_mva")
    return _series(name, ends, row.number("rft_pu") * z_base, row.number("xft_pu") * z_base)


def tap_pu(row: Row, side: str) -> tuple[float, tuple[Left, ...]]:
    """The tap [pu] of the winding at ``side`` (``hv``, ``mv``, ``lv``), as pandapower's power flow has it."""
    ratio, left = 1.0, []
    for which in ("tap", "tap2"):
        steps = row.number(f"{which}_pos") - row.number(f"{which}_neutral")
        if row.text(f"{which}_side") != side or not (math.isfinite(steps) and steps != 0.0):
            continue
        kind = row.text(f"{which}_changer_type")
        acts = kind in ("Ratio", "Symmetrical") or (not kind and f"{which}_changer_type" not in row.values)
        turns = row.number(f"{which}_step_degree", 0.0) != 0.0 or kind in ("Ideal", "Tabular")
        if row.flag("tap_dependency_table") or row.flag("tap_at_star_point") or turns:
            reason = f"tap changer at position {row.number(which + '_pos'):g} that turns the phase or follows a table"
            left.append(Left(row.label, row.name, reason, changes_solution=True, turns_angles=True))
        elif acts:
            ratio *= 1.0 + steps * row.number(f"{which}_step_percent", 0.0) / 100.0
        else:
            reason = (
                f"{which}_pos {row.number(which + '_pos'):g} has no effect, as in pandapower, "
                f"because {which}_changer_type is not given"
            )
            left.append(Left(row.label, row.name, reason))
    return ratio, tuple(left)


def _vectors(row: Row) -> tuple[str, str, str, str, tuple[Left, ...]]:
    """Connection of both windings, order of the nodes of the low-voltage one, and LeadLag, for the vector group: the
    low-voltage side lags by ``shift_degree``. Nodes in another order turn it by 120 degrees."""
    shift = row.number("shift_degree", 0.0) % 360.0
    star_delta = ("wye", "delta") if row.number("vn_hv_kv") >= _HIGH_KV else ("delta", "wye")
    orders = ("", ".3.1.2", ".2.3.1")
    for k, order in enumerate(orders):
        if shift == 120.0 * k:
            return "wye", "wye", order, "", ()
        if shift == 30.0 + 120.0 * k:
            return *star_delta, order, "", ()
        if shift == (330.0 + 120.0 * k) % 360.0:
            return *star_delta, order, " LeadLag=Lead", ()
    reason = f"phase shift of {shift:g} degrees: the windings are connected wye-wye without a shift"
    return "wye", "wye", "", "", (Left(row.label, row.name, reason, turns_angles=True),)


def _core(row: Row, sn_mva: float) -> tuple[float, float]:
    """No-load loss and magnetising current of a transformer [% of its rating]."""
    loss = row.number("pfe_kw", 0.0) / (10.0 * sn_mva)
    i0 = row.number("i0_percent", 0.0)
    return loss, math.sqrt(max(i0**2 - loss**2, 0.0))


def _transformer(row: Row, buses: Buses, names: Names) -> Carried:
    name = names.take(row.name, _default_name(row, buses, "T", "hv_bus", "lv_bus"))
    hv, lv = ends = _ends(row, buses, name, "hv_bus", "lv_bus")
    if gone := _gone(row, ends):
        return gone
    sn_mva, parallel = row.number("sn_mva"), row.number("parallel", 1.0)
    vk, vkr = row.number("vk_percent"), row.number("vkr_percent")
    x = math.copysign(math.sqrt(max(vk**2 - vkr**2, 0.0)), vk)
    loss, magnetising = _core(row, sn_mva)
    r_ratio, x_ratio = (row.number(f"leakage_{part}_ratio_hv", 0.5) for part in ("resistance", "reactance"))
    raised = 1.0 + ((1.0 - r_ratio) * vkr * loss + (1.0 - x_ratio) * x * magnetising) / 1e4
    (hv_tap, hv_left), (lv_tap, lv_left) = tap_pu(row, "hv"), tap_pu(row, "lv")
    hv_conn, lv_conn, order, lead, turned = _vectors(row)
    kva = 1000.0 * sn_mva * parallel
    text = (
        f"New Transformer.{name} phases=3 windings=2 XHL={number(x)}{_core_text(loss, magnetising)}{lead}",
        _winding(1, hv.bus, hv_conn, row.number("vn_hv_kv"), kva, vkr * r_ratio, hv_tap),
        _winding(2, lv.bus + order, lv_conn, row.number("vn_lv_kv") * raised, kva, vkr * (1.0 - r_ratio), lv_tap),
    )
    rated_kva = kva * row.number("df", 1.0)
    rating = {"s_kva": rated_kva} if rated_kva < 1e6 * _NO_RATING_KA else None
    branch, left = f"Transformer.{name}", (*hv_left, *lv_left, *turned)
    return Carried({TRANSFORMERS: text}, ratings={branch: rating}, ends={branch: (hv.bus, lv.bus)}, left=left)


def _core_text(loss: float, magnetising: float) -> str:
    return f" %NoLoadLoss={number(loss)} %imag={number(magnetising)}"


def _winding(k: int, bus: str, conn: str, kv: float, kva: float, r_percent: float, tap: float) -> str:
    text = f"~ wdg={k} bus={bus} conn={conn} kV={number(kv)} kVA={number(kva)} %R={number(r_percent)}"
    return text + (f" tap={number(tap)}" if tap != 1.0 else "")


def _three_windings(row: Row, buses: Buses, names: Names) -> Carried:
    """Windings in the order mv, hv, lv, so that the magnetising branch stands at hv, where pandapower has it."""
    name = names.take(row.name, _default_name(row, buses, "T", "hv_bus", "mv_bus", "lv_bus"))
    ends = dict(zip(("hv", "mv", "lv"), _ends(row, buses, name, "hv_bus", "mv_bus", "lv_bus"), strict=True))
    if gone := _gone(row, list(ends.values())):
        return gone
    sn = {side: row.number(f"sn_{side}_mva") for side in ends}
    r, x = {}, {}
    for key, pair in {"hv": ("hv", "mv"), "mv": ("mv", "lv"), "lv": ("hv", "lv")}.items():
        share = sn["mv"] / min(sn[side] for side in pair)  # OpenDSS refers all to its first winding
        vk, vkr = row.number(f"vk_{key}_percent"), row.number(f"vkr_{key}_percent")
        r[key], x[key] = vkr * share, math.sqrt(max(vk**2 - vkr**2, 0.0)) * share
    r_of = {
        "hv": (r["hv"] + r["lv"] - r["mv"]) / 2.0,
        "mv": (r["hv"] + r["mv"] - r["lv"]) / 2.0,
        "lv": (r["mv"] + r["lv"] - r["hv"]) / 2.0,
    }
    x_hv = (x["hv"] + x["lv"] - x["mv"]) / 2.0
    loss, magnetising = (share * sn["hv"] / sn["mv"] for share in _core(row, sn["hv"]))
    raised = 1.0 + (r_of["hv"] * loss + x_hv * magnetising) / 2e4
    taps = {side: tap_pu(row, side) for side in ends}
    left = [entry for _, of_side in taps.values() for entry in of_side]
    for side in ("mv", "lv"):
        if row.number(f"shift_{side}_degree", 0.0) % 360.0:
            reason = f"phase shift of the {side} winding of a three-winding transformer: all are connected wye"
            left.append(Left(row.label, row.name, reason, turns_angles=True))
    kv = {side: row.number(f"vn_{side}_kv") for side in ends} | {"hv": row.number("vn_hv_kv") * raised}
    text = [
        f"New Transformer.{name} phases=3 windings=3 XHL={number(x['hv'])} XHT={number(x['mv'])} "
        f"XLT={number(x['lv'])}{_core_text(loss, magnetising)}"
    ]
    for k, side in enumerate(("mv", "hv", "lv"), start=1):
        text.append(_winding(k, ends[side].bus, "wye", kv[side], 1000.0 * sn[side], r_of[side], taps[side][0]))
    return Carried(
        {TRANSFORMERS: tuple(text)},
        ratings={f"Transformer.{name}": {"s_kva": 1000.0 * sn["hv"]}},
        ends={f"Transformer.{name}": tuple(end.bus for end in ends.values())},
        left=tuple(left),
    )
