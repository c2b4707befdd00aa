"""An inventory as text, at most 100 columns wide, with few names and many counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap

import numpy as np

from cosim.domain.frames import Floats
from cosim.grid.inventory import Inventory
from cosim.grid.stock import Edge, Group

WIDTH = 100
_LABEL = 14
_NAMES, _ROWS = 4, 12
_DRAWN = {"line", "switch", "transformer", "regulator"}
_POWERED = {"generator": "generators", "pvsystem": "PV systems", "storage": "storage units"}

Rows = Sequence[Sequence[str]]


def as_text(inventory: Inventory) -> str:
    """What a feeder holds, for people."""
    file = inventory.feeder.file
    title = f"{file.name}: {file.description}" if file.description else file.name
    lines = wrap(title, WIDTH)
    lines += _block("script", [str(inventory.feeder.master)])
    lines += _block("head", [inventory.feeder.head_terminal])
    lines += _block("buses", _table(_bus_rows(inventory)))
    lines += _block("lines", _table(_line_rows(inventory), left=(0, 4)))
    lines += _block("transformers", _table(_transformer_rows(inventory), left=(2, 3, 4)))
    lines += _block("regulators", _table(_regulation_rows(inventory), left=(0, 1, 2)))
    lines += _block("capacitors", _table(_capacitor_rows(inventory), left=(0, 1, 4)))
    lines += _block("loads", _table(_load_rows(inventory), left=(0, 1)))
    lines += _block("generation", _table(_injecting_rows(inventory)))
    lines += _block("others", _other_lines(inventory))
    lines += _block("PODs", [*_table(_pod_rows(inventory)), *_pod_notes(inventory)])
    lines += _block("meters", _table(_meter_rows(inventory), left=(0, 1, 2)))
    lines += _block("zones", _table(_zone_rows(inventory), left=(0, 1, 3)))
    lines += _block("ratings", [_ratings(inventory)])
    lines += _block("coordinates", [_coordinates(inventory)])
    return "\n".join([*lines, "", *_block("base case", list(_base_lines(inventory)))])


def _block(label: str, lines: Sequence[str]) -> list[str]:
    """Lines behind a label, folded at the full width; none at all where there is nothing to tell."""
    folded = [part for line in lines for part in _folded(line)]
    return [f"{label if k == 0 else '':<{_LABEL}}{line}" for k, line in enumerate(folded)]


def _folded(line: str) -> list[str]:
    room = WIDTH - _LABEL
    return [line] if len(line) <= room else wrap(line, room, subsequent_indent="  ", break_on_hyphens=False)


def _table(rows: Rows, left: Sequence[int] = (0,)) -> list[str]:
    """Columns ``left`` to the left, the others to the right; after the heading at most so many rows as can be read."""
    if len(rows) < 2:
        return []
    shown = rows if len(rows) <= _ROWS + 1 else rows[:_ROWS]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = []
    for row in shown:
        sized = zip(row, widths, strict=True)
        cells = [cell.ljust(width) if k in left else cell.rjust(width) for k, (cell, width) in enumerate(sized)]
        lines.append("  ".join(cells).rstrip())
    return lines if len(shown) == len(rows) else [*lines, f"... and {len(rows) - len(shown)} more"]


def _few(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    every = list(names)
    more = len(every) - _NAMES
    return ", ".join(every[:_NAMES]) + (f" and {more} more" if more > 0 else "")


def _figure(value: float, decimals: int = 1) -> str:
    return "-" if math.isnan(value) else f"{value + 0.0:.{decimals}f}"


def _kv(value: float) -> str:
    return f"{value:.4g} kV"


def _levels(kv: Floats) -> list[str]:
    """Voltage levels as text, highest first."""
    return [_kv(level) for level in sorted({float(f"{each:.4g}") for each in kv}, reverse=True)]


def _bus_rows(inventory: Inventory) -> Rows:
    count = Counter((_kv(kv), len(phases)) for kv, phases in zip(inventory.bus_kv, inventory.bus_phases, strict=True))
    widths = sorted({phases for _, phases in count}, reverse=True)
    rows = [["", *(f"{phases}-phase" for phases in widths), "all"]]
    for level in _levels(inventory.bus_kv):
        of_level = [count[level, phases] for phases in widths]
        rows.append([level, *map(str, of_level), str(sum(of_level))])
    if len(rows) > 2:
        totals = [sum(count[level, phases] for level in _levels(inventory.bus_kv)) for phases in widths]
        rows.append(["all", *map(str, totals), str(sum(totals))])
    return rows


def _line_rows(inventory: Inventory) -> Rows:
    rows = [["", "count", "km", "open", ""]]
    for level in _levels(inventory.bus_kv):
        at_level = [edge for edge in inventory.edges if _kv(inventory.bus_kv[edge.start]) == level]
        rows += _edge_rows(f"{level} lines", [edge for edge in at_level if edge.kind == "line"])
        rows += _edge_rows(f"{level} switches", [edge for edge in at_level if edge.kind == "switch"])
    others = sorted({edge.kind for edge in inventory.edges} - _DRAWN)
    for kind in others:
        rows += _edge_rows(f"{kind}s in series", [edge for edge in inventory.edges if edge.kind == kind])
    return rows


def _edge_rows(label: str, edges: list[Edge]) -> list[list[str]]:
    if not edges:
        return []
    length_km = sum(edge.length_km for edge in edges) if edges[0].kind == "line" else math.nan
    opened = [edge.branch for edge in edges if edge.is_open]
    return [[label, str(len(edges)), _figure(length_km, 3), str(len(opened)), _few(opened)]]


def _transformer_rows(inventory: Inventory) -> Rows:
    regulated = {regulation.transformer for regulation in inventory.regulations}
    alike: dict[tuple[str, ...], list[str]] = {}
    plain = [each for each in inventory.transformers if not (each.is_series and each.name in regulated)]
    for each in sorted(plain, key=lambda each: (-each.windings[0].kv, -each.windings[0].kva)):
        ratings = "/".join(dict.fromkeys(f"{winding.kva:.5g}" for winding in each.windings))
        voltages = "/".join(f"{winding.kv:.5g}" for winding in each.windings)
        connections = "-".join(winding.connection for winding in each.windings)
        key = ratings, voltages, f"{each.phases}-phase {connections}"
        alike.setdefault(key, []).append(each.name.partition(".")[2])
    rows = [["count", "kVA", "kV", "connection", ""]]
    return rows + [[str(len(names)), *key, _few(names)] for key, names in alike.items()]


def _regulation_rows(inventory: Inventory) -> Rows:
    kva = {each.name: each.windings[0].kva for each in inventory.transformers}
    rows = [["", "transformer", "bus", "kVA", "V", "band V", "ratio", "tap"]]
    for each in inventory.regulations:
        place = [each.name.partition(".")[2], each.transformer.partition(".")[2], each.bus]
        figures = (kva[each.transformer], each.set_v, each.band_v, each.pt_ratio)
        rows.append([*place, *(f"{figure:.5g}" for figure in figures), f"{each.position:+d}"])
    return rows


def _capacitor_rows(inventory: Inventory) -> Rows:
    rows = [["", "bus", "phases", "kvar", ""]]
    for each in inventory.capacitors:
        state = [word for word, holds in (("switched", each.is_switched), ("open", each.is_open)) if holds]
        name = each.name.partition(".")[2]
        rows.append([name, each.bus, str(each.phases), _figure(each.kvar), ", ".join(state)])
    return rows


def _load_rows(inventory: Inventory) -> Rows:
    rows = [["", "", "count", "kW", "kvar"]]
    for (phases, connection, law), group in inventory.loads.items():
        rows.append([f"{phases}-phase {connection}", law, *_sums(group)])
    if len(rows) > 2:
        groups = inventory.loads.values()
        p_kw, q_kvar = sum(group.p_kw for group in groups), sum(group.q_kvar for group in groups)
        rows.append(["all", "", *_sums(Group(sum(group.count for group in groups), p_kw, q_kvar))])
    return rows


def _sums(group: Group) -> list[str]:
    return [str(group.count), _figure(group.p_kw), _figure(group.q_kvar)]


def _injecting_rows(inventory: Inventory) -> Rows:
    rows = [["", "count", "kW", "kWh"]]
    for kind, group in inventory.injecting.items():
        rows.append([_POWERED[kind], str(group.count), _figure(group.p_kw), _figure(group.e_kwh)])
    return rows


def _other_lines(inventory: Inventory) -> list[str]:
    lines = []
    for kind, names in inventory.others.items():
        lines.append(f"{len(names)} {kind}: {_few(name.partition('.')[2] for name in names)}")
    return lines + ([f"{len(inventory.idle)} out of service: {_few(inventory.idle)}"] if inventory.idle else [])


def _pod_rows(inventory: Inventory) -> Rows:
    rows = [["", "count", "kW", "kvar"]]
    return rows + [[kind, *_sums(group)] for kind, group in inventory.pods.items()]


def _pod_notes(inventory: Inventory) -> Iterator[str]:
    columns = len(inventory.feeder.profile_columns)
    yield f"{columns} profile column{'s' if columns != 1 else ''}; kW and kvar at profile value 1, consumption positive"
    if inventory.no_pods:
        yield f"{len(inventory.no_pods)} elements of the circuit are no PODs: {_few(inventory.no_pods)}"


def _meter_rows(inventory: Inventory) -> Rows:
    rows = [["", "at", "measures"]]
    for name, meter in inventory.feeder.meters.items():
        at = f"{meter.branch} at {meter.end}" if meter.branch else meter.bus or meter.storage or ""
        phases = f" by phase: {', '.join(map(str, meter.phases))}" if meter.phases else ""
        rows.append([name, at, ", ".join(meter.quantities) + phases])
    return rows


def _zone_rows(inventory: Inventory) -> Rows:
    rows = [["", "head", "buses", "transformer"]]
    for name, zone in inventory.feeder.file.zones.items():
        rows.append([name, zone.head, str(len(zone.buses)), zone.transformer or ""])
    return rows


def _ratings(inventory: Inventory) -> str:
    branches = len({edge.branch for edge in inventory.edges} - set(inventory.idle))
    missing = inventory.unrated
    if not missing:
        return "every branch has one"
    return f"missing at {len(missing)} of {branches} branches: {_few(missing)}"


def _coordinates(inventory: Inventory) -> str:
    without = [bus for bus, xy in zip(inventory.buses, inventory.xy, strict=True) if np.isnan(xy).any()]
    if not without:
        return "every bus has them"
    if len(without) == len(inventory.buses):
        return "none"
    return f"missing at {len(without)} of {len(inventory.buses)} buses: {_few(without)}"


def _base_lines(inventory: Inventory) -> Iterator[str]:
    base = inventory.base
    yield "powers of the script, controls at work"
    if base is None:
        yield inventory.failure
        return
    head = f"{_figure(base.head_p_kw, 3)} kW, {_figure(base.head_q_kvar, 3)} kvar"
    yield f"head {head}; losses of the whole circuit {_figure(base.loss_kw, 3)} kW"
    for word, node in (("lowest", np.nanargmin(base.vm_pu)), ("highest", np.nanargmax(base.vm_pu))):
        yield f"{word} voltage {base.vm_pu[node]:.5f} pu at {inventory.nodes[node]}"
