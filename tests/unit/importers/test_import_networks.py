"""pandapower networks: the feeder that is written solves to the source's own voltages."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandapower as pp
import pytest
from importer_networks import cable, street, transformer

from cosim.errors import FeederError
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.importers import Imported, import_feeder
from cosim.importers.tables import solve
from cosim.scenario.schema import GridConfig


def _import(net: Any, tmp_path: Path, **options: Any) -> Imported:
    return import_feeder(net, tmp_path / "out", **options)


def _agrees(imported: Imported, vm_pu: float = 1e-5, va_deg: float = 0.02) -> None:
    assert imported.check.largest_vm_pu < vm_pu
    assert imported.check.largest_va_deg < va_deg
    assert imported.check.head_kw == pytest.approx(imported.check.source_head_kw, rel=1e-3, abs=0.05)


@pytest.mark.parametrize(
    "call",
    [
        "create_cigre_network_mv",
        "create_cigre_network_mv?with_der=pv_wind",
        "create_cigre_network_lv",
        "create_kerber_landnetz_freileitung_1",
        "mv_oberrhein",
    ],
)
def test_public_networks_solve_alike(call: str, tmp_path: Path) -> None:
    imported = import_feeder(f"pandapower:{call}", tmp_path / "out")
    assert imported.check.largest_vm_pu < 2e-5
    assert imported.check.largest_va_deg < 0.01
    assert imported.check.loss_kw == pytest.approx(imported.check.source_loss_kw, rel=2e-3)
    assert not any(left.changes_solution for left in imported.not_carried)


def test_street_is_readable_and_drafted(tmp_path: Path) -> None:
    imported = _import(street(), tmp_path)
    _agrees(imported)
    feeder = load_feeder(tmp_path / "out")
    assert feeder.head_terminal == "Transformer.T@MV"
    assert (feeder.pods["Shop"].kw, feeder.pods["Shop"].kvar, feeder.pods["Shop"].profile) == (40.0, 10.0, "constant")
    assert feeder.rating("Transformer.T").s_kva == 250.0  # type: ignore[union-attr]
    assert feeder.meters["HEAD"].branch == "Transformer.T"
    assert imported.buses == {"MV": "MV", "LV": "LV", "Street 1": "STREET_1", "Street 2": "STREET_2"}
    lines = (tmp_path / "out" / "Lines.dss").read_text()
    assert "R1=0.2 X1=0.08 R0=0.8 X0=0.32 C1=300 C0=300 Units=km NormAmps=270" in lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_swapping_a_figure_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is alive: a converter that confuses r and x is refused, and leaves nothing behind."""
    from cosim.importers import branches

    original = branches.number

    def crossed(value: float) -> str:
        return original({0.2: 0.08, 0.08: 0.2}.get(value, value))

    monkeypatch.setattr(branches, "number", crossed)
    with pytest.raises(FeederError, match="voltages differ by") as refused:
        _import(street(), tmp_path)
    assert "bus STREET_2" in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("shift", "primary_kv"),
    [*((shift, 20.0) for shift in (0, 30, 90, 120, 150, 210, 240, 270, 330)), (30, 110.0), (150, 110.0), (330, 110.0)],
)
def test_vector_groups_turn_the_angles(shift: float, primary_kv: float, tmp_path: Path) -> None:
    net = street()
    net.bus.loc[0, "vn_kv"] = primary_kv
    net.trafo[["vn_hv_kv", "shift_degree"]] = [[primary_kv, float(shift)]]
    _agrees(_import(net, tmp_path))


def test_phase_shift_without_connection_is_listed(tmp_path: Path) -> None:
    net = street()
    net.trafo["shift_degree"] = 180.0
    imported = _import(net, tmp_path)
    assert imported.check.largest_vm_pu < 1e-5
    assert math.isnan(imported.check.largest_va_deg)
    assert [left.element for left in imported.not_carried if "180 degrees" in left.reason] == ["trafo 0"]


@pytest.mark.parametrize("side", ["hv", "lv"])
@pytest.mark.parametrize("position", [-2, 3])
def test_taps_on_either_side(side: str, position: int, tmp_path: Path) -> None:
    net = street()
    net.trafo["tap_side"], net.trafo["tap_pos"] = side, float(position)
    net.trafo["tap_neutral"], net.trafo["tap_step_percent"], net.trafo["tap_changer_type"] = 0.0, 2.5, "Ratio"
    _agrees(_import(net, tmp_path))


def test_tap_without_type_does_nothing_and_says_so(tmp_path: Path) -> None:
    net = street()
    net.trafo["tap_side"], net.trafo["tap_pos"], net.trafo["tap_neutral"] = "hv", 2.0, 0.0
    net.trafo["tap_step_percent"] = 2.5
    imported = _import(net, tmp_path)
    _agrees(imported)
    assert any("tap_pos 2 has no effect" in left.reason for left in imported.not_carried)


def test_tap_that_turns_the_phase_is_refused(tmp_path: Path) -> None:
    net = street()
    net.trafo["tap_side"], net.trafo["tap_pos"], net.trafo["tap_neutral"] = "hv", 2.0, 0.0
    net.trafo["tap_step_percent"], net.trafo["tap_step_degree"], net.trafo["tap_changer_type"] = 1.0, 90.0, "Ratio"
    with pytest.raises(FeederError, match="trafo 0: cannot be carried over: tap changer at position 2 that turns"):
        _import(net, tmp_path)


def test_parallel_elements_open_ends_and_switches(tmp_path: Path) -> None:
    net = street()
    mv, lv, first, second = range(4)
    net.trafo["parallel"] = 2
    net.line.loc[0, ["parallel", "c_nf_per_km"]] = [3, 3e5]
    dangling = cable(net, second, first, length_km=5.0)
    pp.create_switch(net, first, dangling, et="l", closed=False)
    idle = transformer(net, mv, lv, name="Idle")
    pp.create_switch(net, lv, idle, et="t", closed=False)
    joined = pp.create_bus(net, 0.4, name="Joined")
    behind = pp.create_bus(net, 0.4, name="Behind")
    parted = pp.create_bus(net, 0.4, name="Parted")
    pp.create_switch(net, second, joined, et="b", closed=True)
    pp.create_switch(net, joined, behind, et="b", closed=True, z_ohm=0.02)
    pp.create_switch(net, joined, parted, et="b", closed=False)
    for bus in (joined, behind, parted):
        pp.create_load(net, bus, p_mw=0.005)
    cable(net, lv, first, in_service=False)
    imported = _import(net, tmp_path)
    _agrees(imported)
    assert imported.buses["Joined"] == imported.buses["Street 2"] == "STREET_2"
    left = {left.element: left.reason for left in imported.not_carried}
    assert left == {
        f"bus {parted}": "without a path to the source",
        "line 3": "out of service",
        "load 3": "at a bus without a path to the source",
    }
    assert load_feeder(tmp_path / "out").head.branch == "Line.HEAD"


def test_loads_of_mixed_laws_are_split(tmp_path: Path) -> None:
    net = street()
    pp.create_load(
        net, 3, p_mw=0.05, q_mvar=0.03, const_z_p_percent=40, const_i_p_percent=25, const_z_q_percent=10, name="Mix"
    )
    pp.create_load(net, 2, p_mw=0.03, q_mvar=0.01, const_z_p_percent=100, const_z_q_percent=100, name="Oven")
    imported = _import(net, tmp_path)
    _agrees(imported)
    pods = load_feeder(tmp_path / "out").pods
    assert {name: pods[name].kw for name in pods if name.startswith("Mix")} == {
        "Mix_Z": 20.0, "Mix_I": 12.5, "Mix_P": 17.5
    }  # fmt: skip
    assert pods["Mix_P"].kvar == 27.0
    assert "model=2" in next(
        line for line in (tmp_path / "out" / "Loads.dss").read_text().splitlines() if "Load.Oven " in line
    )


def test_injections_of_every_kind(tmp_path: Path) -> None:
    net = street()
    pp.create_sgen(net, 3, p_mw=0.03, q_mvar=0.004, type="PV", name="Roof", scaling=0.5)
    pp.create_sgen(net, 2, p_mw=0.01, type="CHP", name="Motor plant")
    pp.create_load(net, 2, p_mw=-0.01, q_mvar=0.002, name="Net producer")
    pp.create_sgen(net, 2, p_mw=-0.004, name="Own use")
    pp.create_storage(net, 3, p_mw=-0.02, max_e_mwh=0.1, min_e_mwh=0.01, soc_percent=60.0, sn_mva=0.05, name="Battery")
    pp.create_shunt(net, 1, q_mvar=-0.03, p_mw=0.001, name="Bank", step=2)
    pp.create_shunt(net, 0, q_mvar=0.05, p_mw=0.02, name="Coil")
    pp.create_ward(net, 1, 0.01, 0.002, 0.003, 0.004, name="Rest")
    pp.create_motor(net, 2, pn_mech_mw=0.01, cos_phi=0.85, efficiency_percent=92.0, name="Pump")
    imported = _import(net, tmp_path)
    _agrees(imported)
    feeder = load_feeder(tmp_path / "out")
    assert {pod: entry.kind for pod, entry in feeder.pods.items()} == {
        "Shop": "load", "Net_producer": "generator", "Roof": "pv", "Motor_plant": "generator", "Own_use": "load",
        "Battery": "storage", "Rest": "load", "Pump": "load",
    }  # fmt: skip
    assert (feeder.pods["Roof"].kw, feeder.pods["Roof"].kvar) == (15.0, 2.0)
    solve(net)
    p_kw, q_kvar = feeder.powers((), np.empty(0))
    of = dict(zip(feeder.pods, zip(p_kw, q_kvar, strict=True), strict=True))
    assert of["Net_producer"] == pytest.approx((-10.0, 2.0))
    assert of["Pump"] == pytest.approx((1000 * net.res_motor.p_mw[0], 1000 * net.res_motor.q_mvar[0]))
    assert "kWrated=50 kVA=50 kWhrated=100 %stored=60 %reserve=10" in (tmp_path / "out" / "Storage.dss").read_text()


def test_asymmetric_loads_become_single_phase(tmp_path: Path) -> None:
    net = street()
    pp.create_asymmetric_load(net, 3, p_a_mw=0.02, p_b_mw=0.005, q_a_mvar=0.006, name="House", type="wye")
    pp.create_asymmetric_load(net, 2, p_b_mw=0.009, name="Welder", type="delta")
    pp.create_asymmetric_sgen(net, 3, p_c_mw=0.004, name="Balcony")
    imported = _import(net, tmp_path)
    _agrees(imported)
    pods = load_feeder(tmp_path / "out").pods
    assert [pods[f"House_{phase}"].kw for phase in "abc"] == [20.0, 5.0, 0.0]
    assert (pods["Balcony_c"].kind, pods["Balcony_c"].kw) == ("pv", 4.0)
    text = (tmp_path / "out" / "Loads.dss").read_text()
    assert "New Load.House_b phases=1 bus1=Street_2.2 kV=0.2309401077 conn=wye" in text
    assert "New Load.Welder_b phases=1 bus1=Street_1.2.3 kV=0.4 conn=delta" in text


def test_three_windings_and_impedance(tmp_path: Path) -> None:
    net = pp.create_empty_network()
    hv, mv, lv, end = (pp.create_bus(net, kv) for kv in (110.0, 20.0, 10.0, 10.0))
    pp.create_ext_grid(net, hv, vm_pu=1.01)
    pp.create_transformer3w_from_parameters(
        net, hv, mv, lv, 110.0, 21.0, 10.5, 40.0, 25.0, 15.0, 12.0, 9.0, 17.0, 0.4, 0.3, 0.5, 30.0, 0.2,
        tap_side="hv", tap_neutral=0, tap_pos=-2, tap_step_percent=1.5, tap_changer_type="Ratio",
    )  # fmt: skip
    pp.create_impedance(net, lv, end, rft_pu=0.02, xft_pu=0.05, sn_mva=10.0)
    pp.create_load(net, mv, p_mw=15.0, q_mvar=4.0)
    pp.create_load(net, end, p_mw=6.0, q_mvar=2.0)
    _agrees(_import(net, tmp_path), vm_pu=3e-5)


def test_what_changes_the_network_is_refused_and_can_be_allowed(tmp_path: Path) -> None:
    net = street()
    pp.create_gen(net, 2, p_mw=0.01, vm_pu=1.01, name="Turbine")
    cable(net, 2, 3, g_us_per_km=5e4)
    pp.create_svc(net, 3, x_l_ohm=1, x_cvar_ohm=-10, set_vm_pu=1.0, thyristor_firing_angle_degree=90, in_service=False)
    with pytest.raises(FeederError) as refused:
        _import(net, tmp_path)
    assert [fault.key for fault in refused.value.faults] == ["line 2", "gen 0"]
    assert "voltage control: here a constant power of 10 kW" in str(refused.value)
    imported = _import(net, tmp_path, allow_losses=True)
    assert {left.element for left in imported.not_carried} == {"line 2", "gen 0", "svc 0"}
    assert 1e-6 < imported.check.largest_vm_pu < 1e-3


def test_controllers_are_listed(tmp_path: Path) -> None:
    from pandapower.control import ContinuousTapControl

    net = street()
    net.trafo["tap_side"], net.trafo["tap_pos"], net.trafo["tap_neutral"] = "hv", 0.0, 0.0
    net.trafo["tap_min"], net.trafo["tap_max"], net.trafo["tap_step_percent"] = -2.0, 2.0, 2.5
    net.trafo["tap_changer_type"] = "Ratio"
    ContinuousTapControl(net, 0, 1.0)
    imported = _import(net, tmp_path)
    assert [str(left) for left in imported.not_carried] == [
        "controller 0 (ContinuousTapControl): a controller: taps and set points stay where the network has them"
    ]


def test_several_sources(tmp_path: Path) -> None:
    net = street()
    far = pp.create_bus(net, 0.4, name="Far")
    pp.create_ext_grid(net, far, vm_pu=1.0, va_degree=-150.0)
    cable(net, far, 2, length_km=0.4)
    imported = _import(net, tmp_path)
    _agrees(imported)
    assert any("2 external grids" in text for text in imported.assumptions)


def test_sixty_hertz_and_close_voltages(tmp_path: Path) -> None:
    net = street(f_hz=60.0)
    net.line["c_nf_per_km"] = 4e5
    strange = pp.create_bus(net, 0.42, name="Strange")
    transformer(net, 0, strange, vn_lv_kv=0.42)
    pp.create_load(net, strange, p_mw=0.02)
    _agrees(_import(net, tmp_path), va_deg=0.05)
    assert "SetkVBase bus=Strange kVLL=0.42" in (tmp_path / "out" / "Master.dss").read_text()


def test_names_that_opendss_cannot_read(tmp_path: Path) -> None:
    net = street()
    net.bus["name"] = ["Süd/1 (a)", None, "süd 1 A", "x.y"]
    net.load["name"] = "1e5"
    pp.create_load(net, 2, p_mw=0.001, name="1E5")
    imported = _import(net, tmp_path)
    _agrees(imported)
    assert imported.buses == {"Süd/1 (a)": "S_D_1_A", "1": "B1", "süd 1 A": "S_D_1_A_2", "x.y": "X_Y"}
    assert list(load_feeder(tmp_path / "out").pods) == ["1e5", "1E5_2"]


def test_a_line_bridged_by_a_switch_is_refused(tmp_path: Path) -> None:
    net = street()
    pp.create_switch(net, 2, 3, et="b", closed=True)
    with pytest.raises(FeederError, match="line 1: cannot be carried over: bridged by closed switches"):
        _import(net, tmp_path)


def test_a_transformer_off_the_voltages_of_its_buses_is_loaded_as_in_pandapower(tmp_path: Path) -> None:
    net = pp.create_empty_network()
    mv, lv = pp.create_bus(net, 10.0, name="MV"), pp.create_bus(net, 0.4, name="LV")
    pp.create_ext_grid(net, mv)
    transformer(net, mv, lv, name="T", vn_hv_kv=10.5, vn_lv_kv=0.42, vk_percent=4.5, i0_percent=0.3, parallel=2)
    pp.create_load(net, lv, p_mw=0.3, q_mvar=0.1, scaling=0.9)
    pp.create_sgen(net, lv, p_mw=0.05)
    _import(net, tmp_path)
    feeder = load_feeder(tmp_path / "out")
    engine = Engine(feeder, GridConfig(tolerance_pu=1e-10))
    state = engine.solve(*feeder.powers((), np.empty(0)))
    loading_pu = state.loading_pu[engine.layout.branches.index("Transformer.T")]
    engine.close()
    solve(net)
    expected = float(net.res_trafo.loading_percent.iloc[0]) / 100.0
    assert expected > 0.5
    assert loading_pu == pytest.approx(expected, rel=1e-4)
