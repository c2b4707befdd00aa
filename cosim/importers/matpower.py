"""MATPOWER cases (format version 2), read strictly: a case whose tables are not the whole truth is refused.

A ``.m`` file is a program. Readers of its tables ignore what is computed after them, and some distribution cases give
loads in kW and impedances in ohm and convert them there: their tables alone are wrong by orders of magnitude.

Source: Zimmerman, Murillo-Sanchez, Thomas, MATPOWER: Steady-State Operations, Planning, and Analysis Tools, IEEE
Transactions on Power Systems 26(1), 2011; format: MATPOWER manual, appendix B.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosim.domain.frames import Floats
from cosim.errors import Fault, FeederError, PowerFlowError
from cosim.importers.tables import quiet_pandapower, rows, solve

_COLUMNS = {"bus": 13, "gen": 10, "branch": 11}
_COSTS, _LEAST_COSTS = "gencost", 5
_OPEN = re.compile(r"mpc\.(?P<name>\w+)\s*=\s*(?P<bracket>[\[{])(?P<rest>.*)$")
_SCALAR = re.compile(r"mpc\.(?P<name>\w+)\s*=\s*(?P<value>'[^']*'|\"[^\"]*\"|[-+0-9.eE]+)\s*;?$")
_HARMLESS = re.compile(r"(function\b.*|end|return|clear\b.*|define_constants)\s*;?$")
_BUS, _TYPE, _PD, _BASE_KV, _FROM, _TO, _TAP = 0, 1, 2, 9, 0, 1, 8
_SLACK = 3
_IMPLAUSIBLE_KA = 20.0
_IMPLAUSIBLE_PU = 0.7
_ADVICE = "save the case from MATPOWER with savecase(), which writes MW and per unit, and import that file"


@dataclass(frozen=True)
class _Table:
    name: str
    line: int
    rows: tuple[tuple[int, str], ...]


def read_matpower(path: Path, f_hz: float, costs: bool = False) -> Any:
    """A pandapower network from a ``.m`` or ``.mat`` file; buses and branches named by the numbers in the case;
    ``costs``: with those of generators, if it has any.

    Raises FeederError for a file that is cut off, whose rows differ in length, that lacks a table, that computes
    something after its tables, or whose tables do not fit each other.
    """
    case = _read_m(path, costs) if path.suffix.lower() == ".m" else _read_mat(path, costs)
    _require_consistent(case, str(path))
    bus, branch = case["bus"], case["branch"]
    branch[branch[:, _TAP] == 0.0, _TAP] = 1.0
    case["bus_name"] = np.array([f"{int(number)}" for number in bus[:, _BUS]])
    with quiet_pandapower():
        from pandapower.converter.pypower import from_ppc

        return from_ppc(case, f_hz=f_hz)


def _read_m(path: Path, costs: bool) -> dict[str, Any]:
    tables, scalars, faults = _parse(path)
    missing = [name for name in ("baseMVA", *_COLUMNS) if name not in {*tables, *scalars}]
    if missing and not any("ends" in fault.problem for fault in faults):
        found = ", ".join([*scalars, *tables]) or "nothing"
        faults.append(
            Fault(f"not a whole MATPOWER case: mpc.{', mpc.'.join(missing)} missing", str(path), value=f"only {found}")
        )
    if faults:
        raise FeederError(faults)
    case: dict[str, Any] = {"baseMVA": float(scalars["baseMVA"]), "version": scalars.get("version", "2")}
    for name, least in _COLUMNS.items():
        case[name] = _figures(tables[name], least, path)
    if costs and _COSTS in tables:
        case[_COSTS] = _figures(tables[_COSTS], _LEAST_COSTS, path)
    return case


def _parse(path: Path) -> tuple[dict[str, _Table], dict[str, str], list[Fault]]:
    """Tables and scalars of a case, and what is wrong with its form."""
    tables, scalars, faults = dict[str, _Table](), dict[str, str](), list[Fault]()
    lines = iter(_code(path))
    for number, text in lines:
        if opened := _OPEN.match(text):
            table = _table(opened["name"], number, opened["bracket"], opened["rest"], lines)
            if table is None:
                problem = f"the file ends inside table mpc.{opened['name']}, which begins here: the file is cut off"
                faults.append(Fault(problem, str(path), number))
            else:
                tables[table.name] = table
        elif scalar := _SCALAR.match(text):
            scalars[scalar["name"]] = scalar["value"].strip("'\"")
        elif not _HARMLESS.match(text):
            problem = f"the case computes something that its tables do not show ({_hint(text)}); {_ADVICE}"
            faults.append(Fault(problem, str(path), number, value=text))
            if len(faults) >= 10:
                break
    return tables, scalars, faults


def _hint(text: str) -> str:
    if "mpc.bus" in text:
        return "loads in kW and kvar that are turned into MW and Mvar here, for example"
    if "mpc.branch" in text:
        return "impedances in ohm that are turned into per unit here, for example"
    return "statements beside the tables"


def _code(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without comments and blank lines; a line continued by ``...`` is one."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FeederError(Fault(f"not a text file (byte {error.start})", str(path))) from None
    begun, first = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        code = re.sub(r"%.*$", "", line) if "'" not in line else _uncommented(line)
        if code.rstrip().endswith("..."):
            begun, first = begun + code.rstrip()[:-3] + " ", first or number
            continue
        if whole := (begun + code).strip():
            yield first or number, whole
        begun, first = "", 0


def _uncommented(line: str) -> str:
    """A line up to the first ``%`` outside of quotes."""
    quoted = False
    for k, character in enumerate(line):
        quoted ^= character == "'"
        if character == "%" and not quoted:
            return line[:k]
    return line


def _table(name: str, line: int, bracket: str, rest: str, lines: Iterator[tuple[int, str]]) -> _Table | None:
    """The rows of a table up to its closing bracket; None if the file ends before."""
    close = {"[": "]", "{": "}"}[bracket]
    found: list[tuple[int, str]] = []
    number, text = line, rest
    while close not in text:
        found += [(number, part.strip()) for part in text.split(";") if part.strip()]
        if (following := next(lines, None)) is None:
            return None
        number, text = following
    found += [(number, part.strip()) for part in text.partition(close)[0].split(";") if part.strip()]
    return _Table(name, line, tuple(found))


def _figures(table: _Table, least: int, path: Path) -> Floats:
    """A table as numbers (n_row, n_column)."""
    found, faults = [], []
    width = len(re.split(r"[\s,]+", table.rows[0][1])) if table.rows else 0
    for line, text in table.rows:
        words = re.split(r"[\s,]+", text)
        if len(words) != width or width < least:
            problem = f"a row of mpc.{table.name} with {len(words)} figures, where {max(width, least)} belong"
            faults.append(Fault(problem, str(path), line, value=text))
            continue
        try:
            found.append([float(word) for word in words])
        except ValueError:
            faults.append(Fault(f"a row of mpc.{table.name} is not of numbers", str(path), line, value=text))
    if not table.rows:
        faults.append(Fault(f"mpc.{table.name} is empty", str(path), table.line))
    if faults:
        raise FeederError(faults)
    return np.array(found)


def _read_mat(path: Path, costs: bool) -> dict[str, Any]:
    import scipy.io

    try:
        content = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)
    except Exception as error:
        # A damaged file makes scipy raise nearly anything.
        raise FeederError(Fault(f"not a MATLAB file, or cut off: {error}", str(path))) from error
    if "mpc" not in content:
        present = ", ".join(name for name in content if name[0] != "_")
        raise FeederError(Fault("no variable mpc in the file", str(path), value=present))
    mpc = content["mpc"]
    missing = [name for name in ("baseMVA", *_COLUMNS) if not hasattr(mpc, name)]
    if missing:
        raise FeederError(Fault(f"not a whole MATPOWER case: mpc.{', mpc.'.join(missing)} missing", str(path)))
    case: dict[str, Any] = {"baseMVA": float(mpc.baseMVA), "version": str(getattr(mpc, "version", "2"))}
    for name, least in _COLUMNS.items():
        case[name] = np.atleast_2d(np.array(getattr(mpc, name), dtype=float))
        if case[name].shape[1] < least:
            raise FeederError(Fault(f"mpc.{name} has {case[name].shape[1]} columns of {least}", str(path)))
    if costs and hasattr(mpc, _COSTS):
        case[_COSTS] = np.atleast_2d(np.array(mpc.gencost, dtype=float))
    return case


def _require_consistent(case: dict[str, Any], file: str) -> None:
    faults = []
    if str(case["version"]) != "2":
        faults.append(Fault("not of case format 2", file, key="mpc.version", value=str(case["version"]), allowed="2"))
    numbers = case["bus"][:, _BUS]
    for name, columns in {"branch": (_FROM, _TO), "gen": (_BUS,)}.items():
        unknown = sorted({int(n) for column in columns for n in case[name][:, column]} - {int(n) for n in numbers})
        if unknown:
            faults.append(Fault(f"mpc.{name} names buses that mpc.bus does not have", file, value=f"{unknown}"))
    if len(set(numbers)) != len(numbers):
        faults.append(Fault("mpc.bus has a bus number twice", file))
    if not (case["bus"][:, _BASE_KV] > 0.0).all():
        where = case["bus"][~(case["bus"][:, _BASE_KV] > 0.0), _BUS].astype(int).tolist()
        faults.append(Fault("buses without a base voltage (baseKV)", file, value=f"{where}"))
    if not (case["bus"][:, _TYPE] == _SLACK).any():
        faults.append(Fault("no bus of type 3 (reference), so no source", file))
    if faults:
        raise FeederError(faults)


def require_plausible(net: Any, file: str) -> None:
    """Solves a network from a MATPOWER case.

    Raises FeederError if its figures cannot be in MW and per unit: a current that no feeder carries, a power flow that
    has no solution, or voltages far below any that a network is run at.
    """
    load_mva = math.hypot(*(sum(row.number(key) for row in rows(net, "load")) for key in ("p_mw", "q_mvar")))
    kv = max(row.number("vn_kv") for row in rows(net, "bus"))
    i_ka = load_mva / (math.sqrt(3.0) * kv)
    if i_ka > _IMPLAUSIBLE_KA:
        problem = (
            f"the loads add up to {load_mva:.1f} MVA, which at {kv:g} kV is a current of {i_ka:.0f} kA: "
            f"they are in kW and kvar, not in MW and Mvar"
        )
        raise FeederError(Fault(f"{problem}; {_ADVICE}", file, key="mpc.bus"))
    r_pu, x_pu = _largest_impedance_pu(net)
    figures = (
        f"loads of {load_mva:.3f} MVA at {kv:g} kV, impedances up to {r_pu:.3g} + j{x_pu:.3g} pu on "
        f"{net.sn_mva:g} MVA: impedances in ohm in place of per unit, or loads in kW in place of MW?"
    )
    try:
        solve(net)
    except PowerFlowError as error:
        raise FeederError(Fault(f"{error}, with {figures} {_ADVICE}", file)) from None
    low = net.res_bus.vm_pu.idxmin()
    if net.res_bus.vm_pu[low] < _IMPLAUSIBLE_PU:
        problem = f"the voltage falls to {net.res_bus.vm_pu[low]:.3f} pu at bus {low} with {figures} {_ADVICE}"
        raise FeederError(Fault(problem, file, key="mpc.branch"))


def _largest_impedance_pu(net: Any) -> tuple[float, float]:
    """R and X [pu] of the line with the largest impedance."""
    found = [(0.0, 0.0)]
    for row in rows(net, "line"):
        z_base = float(net.bus.vn_kv[row.bus("to_bus")]) ** 2 / net.sn_mva
        length_km = row.number("length_km")
        found.append((row.number("r_ohm_per_km") * length_km / z_base, row.number("x_ohm_per_km") * length_km / z_base))
    return max(found, key=lambda z: math.hypot(*z))
