"""MATPOWER cases: read strictly, solved alike, and refused when their tables lie or end early."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st

from cosim.errors import FeederError
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.importers import Imported, import_feeder
from cosim.importers.matpower import read_matpower
from cosim.scenario.schema import GridConfig

CASE = """function mpc = small
%SMALL  a feeder of four buses behind a transformer; '%' in text
mpc.version = '2';
mpc.baseMVA = 10;
%% bus data
%	bus_i	type	Pd	Qd	Gs	Bs	area	Vm	Va	baseKV	zone	Vmax	Vmin
mpc.bus = [
	10	3	0	0	0	0	1	1	0	66	1	1.1	0.9;
	20	1	0	0	0	0.6	1	1	0	11	1	1.1	0.9;  % the substation
	30	1	1.2	0.4	0	0	1	1	0	11	1	1.1	0.9;
	40	1	0.8	0.3	0	0	1	1	0	11	1	1.1	0.9;
];
mpc.gen = [
	10	0	0	10	-10	1.02	100	1	10	0	0	0	0	0	0	0	0	0	0	0	0;
	40	0.5	0.1	1	-1	1	100	1	1	0	0	0	0	0	0	0	0	0	0	0	0;
];
mpc.branch = [
	10	20	0.004	0.08	0	12	0	0	0.975	0	1	-360	360;
	20	30	0.03	0.04	0.0002	5	0	0	0	0	1	-360	360;
	30	40	0.05	0.05	0.0001	0	0	0	0	0	1	-360	360;
	20	40	0.05	0.05	0	0	0	0	0	0	0	-360	360;
];
mpc.gencost = [
	2	0	0	3	0	20	0;
	2	0	0	3	0	20	0;
];
"""


def _import(text: str, tmp_path: Path, **options: float) -> Imported:
    (tmp_path / "case.m").write_text(text, encoding="utf-8")
    return import_feeder(str(tmp_path / "case.m"), tmp_path / "out", **options)  # type: ignore[arg-type]


def _refusal(text: str, tmp_path: Path) -> str:
    with pytest.raises(FeederError) as refused:
        _import(text, tmp_path)
    assert not (tmp_path / "out").exists()
    return str(refused.value)


def _newton(bus: np.ndarray, branch: np.ndarray, base_mva: float) -> np.ndarray:
    """Voltages by the bus admittance matrix and fixed-point iteration: written here as MATPOWER's manual defines it."""
    at = {int(number): k for k, number in enumerate(bus[:, 0])}
    y = np.diag((bus[:, 4] + 1j * bus[:, 5]) / base_mva).astype(complex)
    for f, t, r, x, b, *_, ratio, _shift, status, _low, _high in branch:
        if status:
            f, t, tap = at[int(f)], at[int(t)], ratio or 1.0
            series = 1.0 / (r + 1j * x)
            y[f, f] += (series + 0.5j * b) / tap**2
            y[t, t] += series + 0.5j * b
            y[f, t] -= series / tap
            y[t, f] -= series / tap
    s = -(bus[:, 2] + 1j * bus[:, 3]) / base_mva
    s[at[40]] += (0.5 + 0.1j) / base_mva
    v = np.full(len(bus), 1.02 + 0j)
    for _ in range(200):
        v[1:] = np.linalg.solve(y[1:, 1:], np.conj(s[1:] / v[1:]) - y[1:, 0] * v[0])
    return v


def test_case_solves_like_the_manual(tmp_path: Path) -> None:
    imported = _import(CASE, tmp_path)
    assert imported.check.largest_vm_pu < 1e-6
    assert imported.buses == {"10": "10", "20": "20", "30": "30", "40": "40"}
    table = {}
    for name in ("bus", "branch"):
        rows = CASE.partition(f"mpc.{name} = [")[2].partition("];")[0].strip().splitlines()
        table[name] = np.array([[float(word) for word in row.partition(";")[0].split()] for row in rows])
    v = _newton(table["bus"], table["branch"], 10.0)
    feeder = load_feeder(tmp_path / "out")
    engine = Engine(feeder, GridConfig())
    p_kw, q_kvar = feeder.powers((), np.empty(0))
    state = engine.solve(p_kw, q_kvar)
    engine.close()
    found = {node: vm for node, vm in zip(engine.layout.nodes, state.vm_pu, strict=True) if node.endswith(".1")}
    assert found == pytest.approx({f"{int(n)}.1": abs(u) for n, u in zip(table["bus"][:, 0], v, strict=True)}, abs=2e-6)
    assert {pod: (entry.kind, entry.kw, entry.kvar) for pod, entry in feeder.pods.items()} == {
        "LOAD_30": ("load", 1200.0, 400.0), "LOAD_40": ("load", 800.0, 300.0), "GEN_40": ("generator", 500.0, 100.0)
    }  # fmt: skip
    assert feeder.rating("Transformer.T_10_20").s_kva == 12000.0  # type: ignore[union-attr]
    assert imported.ratings_missing == ("Line.L_30_40",)


def test_frequency_changes_nothing_but_the_capacitance_in_farad(tmp_path: Path) -> None:
    imported = _import(CASE, tmp_path, f_hz=60.0)
    assert imported.check.largest_vm_pu < 1e-6
    assert "Set DefaultBaseFrequency=60" in (tmp_path / "out" / "Master.dss").read_text()


def test_mat_file_is_the_same_case(tmp_path: Path) -> None:
    case = {"version": "2", "baseMVA": 10.0}
    for name in ("bus", "gen", "branch"):
        rows = CASE.partition(f"mpc.{name} = [")[2].partition("];")[0].strip().splitlines()
        case[name] = np.array([[float(word) for word in row.partition(";")[0].split()] for row in rows])  # type: ignore[assignment]
    scipy.io.savemat(tmp_path / "case.mat", {"mpc": case})
    imported = import_feeder(str(tmp_path / "case.mat"), tmp_path / "out")
    assert imported.check.largest_vm_pu < 1e-6
    content = (tmp_path / "case.mat").read_bytes()
    (tmp_path / "half.mat").write_bytes(content[: len(content) // 2])
    with pytest.raises(FeederError, match=r"half\.mat: not a MATLAB file, or cut off"):
        import_feeder(str(tmp_path / "half.mat"), tmp_path / "other")


LYING = """
%% convert loads from kW to MW
mpc.bus(:, [3, 4]) = mpc.bus(:, [3, 4]) / 1e3;
Vbase = mpc.bus(1, 10) * 1e3;
mpc.branch(:, [3 4]) = mpc.branch(:, [3 4]) / (Vbase^2 / 1e7);
"""


def test_statements_after_the_tables_are_refused(tmp_path: Path) -> None:
    message = _refusal(CASE + LYING, tmp_path)
    lines, line = message.splitlines(), (CASE + LYING).partition("mpc.bus(:")[0].count("\n") + 1
    assert f"case.m:{line}: the case computes something that its tables do not show (loads in kW and kvar" in lines[0]
    assert "savecase()" in lines[0]
    assert "got mpc.bus(:, [3, 4]) = mpc.bus(:, [3, 4]) / 1e3;" in lines[0]
    assert len(lines) == 3
    assert "impedances in ohm" in lines[2]


def test_loads_in_kw_are_refused(tmp_path: Path) -> None:
    text = CASE.replace("1.2	0.4", "1200	400").replace("0.8	0.3", "800	300")
    assert "which at 66 kV is a current of 19 kA" not in _refusal(text, tmp_path)
    flat = text.replace("	66	", "	11	")
    assert "the loads add up to 2119.0 MVA, which at 11 kV is a current of 111 kA: they are in kW" in _refusal(
        flat, tmp_path
    )


def test_impedances_in_ohm_are_refused(tmp_path: Path) -> None:
    ohm = CASE.replace("0.03	0.04", "3.6	4.8").replace("0.05	0.05", "6	6")
    assert "impedances up to 6 + j6 pu on 10 MVA: impedances in ohm in place of per unit" in _refusal(ohm, tmp_path)


@given(end=st.integers(0, CASE.index("mpc.gencost") - 10))
def test_a_case_cut_anywhere_is_refused(end: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cut.m"
        path.write_text(CASE[:end], encoding="utf-8")
        with pytest.raises(FeederError, match=r"cut off|missing|figures, where|computes something"):
            read_matpower(path, 50.0)


def test_cut_table_is_named_with_its_line(tmp_path: Path) -> None:
    cut = CASE.index("30	40	0.05")
    message = _refusal(CASE[: cut + 8], tmp_path)
    assert "case.m:17: the file ends inside table mpc.branch, which begins here: the file is cut off" in message


def test_missing_tables_are_named(tmp_path: Path) -> None:
    message = _refusal(CASE[: CASE.index("mpc.branch")], tmp_path)
    assert "not a whole MATPOWER case: mpc.branch missing" in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("	30	40	0.05", "	30	41	0.05", "mpc.branch names buses that mpc.bus does not have; got [41]"),
        ("	30	1	1.2", "	40	1	1.2", "mpc.bus has a bus number twice"),
        (
            "	11	1	1.1	0.9;  %",
            "	0	1	1.1	0.9;  %",
            "buses without a base voltage (baseKV); got [20]",
        ),
        ("	10	3	0", "	10	1	0", "no bus of type 3"),
        ("version = '2'", "version = '1'", "mpc.version: not of case format 2"),
        ("	0.8	0.3	", "	0.8	", "case.m:11: a row of mpc.bus with 12 figures, where 13 belong"),
        ("	0.8	0.3	", "	0.8	x	", "case.m:11: a row of mpc.bus is not of numbers"),
    ],
)
def test_tables_that_do_not_fit(old: str, new: str, expected: str, tmp_path: Path) -> None:
    assert old in CASE
    assert expected in _refusal(CASE.replace(old, new, 1), tmp_path)


def test_generators_that_hold_a_voltage_need_permission(tmp_path: Path) -> None:
    text = CASE.replace("	40	1	0.8", "	40	2	0.8")
    assert "gen 0: cannot be carried over: voltage control" in _refusal(text, tmp_path)
    imported = _import(text, tmp_path, allow_losses=True)
    assert imported.check.largest_vm_pu < 1e-6
    assert [left.element for left in imported.not_carried if left.changes_solution] == ["gen 0"]
