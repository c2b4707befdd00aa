"""The engine on circuits that are not balanced: single-phase, delta, three windings, split phase, any load law."""

import math

import numpy as np
import pytest
from feeder_folders import engine_in

from cosim.scenario.schema import GridConfig

TIGHT = GridConfig(tolerance_pu=1e-11)
HEAD = """\
Clear
New Circuit.small bus1=SRC basekV=20 pu=1.0 phases=3 MVAsc3=20000 MVAsc1=20000
New Line.L bus1=SRC bus2=A phases=3 R1=0.3 X1=0.3 R0=0.9 X0=0.9 C1=0 C0=0 Length=5 Units=km
Set LoadMult=0.5
"""
TAIL = """
Set VoltageBases=[20, 0.4, 0.208]
CalcVoltageBases
"""


def solved(folder, script, pods, p_kw, q_kvar=None, ratings="", tail=TAIL):
    """Engine, state at these powers, and the voltages and currents of the state by name."""
    listed = "\n".join(
        f"  {name}: {{element: {element}, kind: {kind}" + ("}" if kind == "storage" else ", kw: 1, profile: constant}")
        for name, (element, kind) in pods.items()
    )
    yaml = f"name: small\nhead: {{branch: Line.L, end: SRC}}\npods:\n{listed}\n{ratings}"
    engine = engine_in(folder, HEAD + script + tail, yaml, TIGHT)
    q = [0.0] * len(p_kw) if q_kvar is None else q_kvar
    state = engine.solve(np.array(p_kw, float), np.array(q, float))
    return engine, state


def at(names, values):
    return dict(zip(names, values, strict=True))


def test_a_single_phase_lateral_by_hand(tmp_path):
    """One phase at unity power factor: |V_B| solves V^2 - E V cos + ... = 0 of a source, an impedance and a load."""
    script = (
        "New Line.B bus1=A.2 bus2=B.2 phases=1 R1=2 X1=1 R0=2 X0=1 C1=0 C0=0 Length=1 Units=km\n"
        "New Load.B bus1=B.2 phases=1 kV=11.547 kW=100 PF=1 model=1 Vminpu=0.5 Vmaxpu=1.5"
    )
    engine, state = solved(tmp_path / "a", script, {"B": ("Load.B", "load")}, [500.0])
    vm, layout = at(engine.layout.nodes, state.vm_pu), engine.layout
    engine.close()
    assert layout.conductors[-2:] == ("Line.B@A.2", "Line.B@B.2")
    assert (engine.pod_sites, engine.pod_buses) == (("B.2",), ("B",))
    base_v, s_va, z = 20e3 / math.sqrt(3.0), 500e3, 2 + 1j
    v_a = vm["A.2"] * base_v  # V_A V_B cos(d) = V_B^2 + R P, V_A V_B sin(d) = X P
    half = v_a**2 / 2.0 - z.real * s_va
    v_b = math.sqrt(half + math.sqrt(half**2 - abs(z * s_va) ** 2))
    assert vm["B.2"] == pytest.approx(v_b / base_v, abs=1e-9)
    assert state.conductor_i_a[-1] == pytest.approx(s_va / v_b, rel=1e-9)
    assert state.terminal_p_kw[-1] == pytest.approx(-500.0, abs=1e-6)
    assert state.loss_kw - (s_va / v_b) ** 2 * z.real / 1e3 == pytest.approx(sum(state.terminal_p_kw[:2]), abs=1e-6)


def test_a_delta_load_draws_from_two_phases(tmp_path):
    script = "New Load.D bus1=A.3.1 phases=1 kV=20 conn=delta kW=100 PF=1 model=1 Vminpu=0.5 Vmaxpu=1.5"
    engine, state = solved(tmp_path / "a", script, {"D": ("Load.D", "load")}, [900.0], [300.0])
    i = at(engine.layout.conductors, state.conductor_i_a)
    engine.close()
    assert engine.pod_sites == ("A.1.3",)
    assert i["Line.L@A.2"] == pytest.approx(0.0, abs=1e-6)
    assert i["Line.L@A.1"] == pytest.approx(i["Line.L@A.3"], rel=1e-9)
    vm, va = at(engine.layout.nodes, state.vm_pu), at(engine.layout.nodes, np.radians(state.va_deg))
    across = abs(vm["A.3"] * np.exp(1j * va["A.3"]) - vm["A.1"] * np.exp(1j * va["A.1"])) * 20e3 / math.sqrt(3.0)
    assert i["Line.L@A.1"] == pytest.approx(math.hypot(900e3, 300e3) / across, rel=1e-8)
    assert state.terminal_p_kw[1] == pytest.approx(-900.0, abs=1e-5)
    assert state.conductor_p_kw.reshape(2, 3)[1].sum() == pytest.approx(-900.0, abs=1e-5)


def test_a_three_winding_transformer_has_three_ends(tmp_path):
    script = (
        "New Transformer.T phases=3 windings=3 XHL=6 XHT=7 XLT=4 %loadloss=0 buses=[A B C] kVs=[20 0.4 0.4] "
        "kVAs=[800 800 800] conns=[delta wye wye]\n"
        "New Load.B bus1=B kV=0.4 kW=1 model=1 Vminpu=0.5 Vmaxpu=1.5\n"
        "New Load.C bus1=C.2 phases=1 kV=0.23 kW=1 model=1 Vminpu=0.5 Vmaxpu=1.5"
    )
    pods = {"B": ("Load.B", "load"), "C": ("Load.C", "load")}
    engine, state = solved(
        tmp_path / "a", script, pods, [300.0, 60.0], ratings="ratings: {Transformer.T: {s_kva: 800}}"
    )
    layout = engine.layout
    engine.close()
    assert layout.terminals[2:] == ("Transformer.T@A", "Transformer.T@B", "Transformer.T@C")
    np.testing.assert_array_equal(layout.terminal_branch, [0, 0, 1, 1, 1])
    assert len(layout.conductors) == 6 + 9  # neutrals are at ground
    p = at(layout.terminals, state.terminal_p_kw)
    assert p["Transformer.T@B"] == pytest.approx(-300.0, abs=1e-5)
    assert p["Transformer.T@C"] == pytest.approx(-60.0, abs=1e-5)
    assert p["Transformer.T@A"] == pytest.approx(360.0, abs=0.1)
    rated = at(layout.terminals, layout.rated_a)
    assert rated["Transformer.T@C"] == pytest.approx(800.0 / (math.sqrt(3.0) * 0.4))
    i = at(layout.terminals, state.terminal_i_a)
    assert state.loading_pu[1] == max(i[name] / rated[name] for name in layout.terminals[2:])


def test_a_split_phase_transformer_has_both_legs_at_one_end(tmp_path):
    script = (
        "New Transformer.S phases=1 windings=3 buses=[A.1 X.1.0 X.0.2] kVs=[11.547 0.12 0.12] kVAs=[25 25 25] "
        "XHL=2 XHT=2 XLT=1\n"
        "New Load.X bus1=X.1.2 phases=1 kV=0.24 kW=1 model=1 Vminpu=0.5 Vmaxpu=1.5"
    )
    engine, state = solved(
        tmp_path / "a", script, {"X": ("Load.X", "load")}, [12.0], ratings="ratings: {Transformer.S: {s_kva: 25}}"
    )
    layout = engine.layout
    engine.close()
    assert layout.terminals[2:] == ("Transformer.S@A", "Transformer.S@X")
    assert layout.conductors[-3:] == ("Transformer.S@A.1", "Transformer.S@X.1", "Transformer.S@X.2")
    assert state.terminal_p_kw[-1] == pytest.approx(-12.0, abs=1e-6)
    assert state.conductor_i_a[-1] == pytest.approx(state.conductor_i_a[-2], rel=1e-9)
    assert layout.rated_a[-1] == pytest.approx(25.0 / 0.2402, rel=1e-3)  # 2 x 0.208 / sqrt(3) kV


def test_shunts_are_no_branches_but_count(tmp_path):
    script = (
        "New Capacitor.C bus1=A kV=20 kvar=300\nNew Reactor.R bus1=A kV=20 kvar=100\n"
        "New Load.A bus1=A kV=20 kW=1 model=1 Vminpu=0.5 Vmaxpu=1.5"
    )
    engine, state = solved(tmp_path / "a", script, {"A": ("Load.A", "load")}, [0.0])
    engine.close()
    assert engine.layout.branches == ("Line.L",)
    vm2 = np.mean(state.vm_pu[3:]) ** 2
    assert state.terminal_q_kvar[1] == pytest.approx(200.0 * vm2, rel=1e-6)


def test_a_pvsystem_gives_what_it_is_told(tmp_path):
    script = (
        "New PVSystem.P bus1=A phases=3 kV=20 kVA=500 Pmpp=400 irradiance=0.1 Vminpu=0.5 Vmaxpu=1.5\n"
        "New Generator.G bus1=A.1 phases=1 kV=11.547 kW=5 model=1 Vminpu=0.5 Vmaxpu=1.5\n"
        "New Load.N bus1=A.2 phases=1 kV=11.547 kW=5 model=1 Vminpu=0.5 Vmaxpu=1.5"
    )
    pods = {"P": ("PVSystem.P", "pv"), "G": ("Generator.G", "generator"), "N": ("Load.N", "pv")}
    engine, state = solved(tmp_path / "a", script, pods, [-390.0, -40.0, -20.0], [30.0, 0.0, 5.0])
    engine.close()
    assert engine.pod_sites == ("A", "A.1", "A.2")
    assert state.terminal_p_kw[1] == pytest.approx(450.0, abs=1e-5)
    assert state.terminal_q_kvar[1] == pytest.approx(-35.0, abs=1e-5)
    np.testing.assert_array_equal(state.pod_p_kw, [-390.0, -40.0, -20.0])


@pytest.mark.parametrize(("model", "drawn"), [(1, lambda u: 1.0), (2, lambda u: u * u), (5, lambda u: u)])
def test_what_is_drawn_follows_the_load_law(tmp_path, model, drawn):
    script = f"New Load.A bus1=A.1 phases=1 kV=11.547005383792516 kW=1 model={model} Vminpu=0.5 Vmaxpu=1.5"
    engine, state = solved(tmp_path / "a", script, {"A": ("Load.A", "load")}, [4000.0], [1000.0])
    u = at(engine.layout.nodes, state.vm_pu)["A.1"]
    engine.close()
    assert u < 0.99
    assert state.pod_p_kw[0] == pytest.approx(4000.0 * drawn(u), rel=1e-9)
    assert state.pod_q_kvar[0] == pytest.approx(1000.0 * drawn(u), rel=1e-9)
    assert state.terminal_p_kw[1] == pytest.approx(-state.pod_p_kw[0], rel=1e-7)


@pytest.mark.parametrize("model", ["model=4 CVRwatts=0.8 CVRvars=2", "model=8 ZIPV=[0.2 0.3 0.5 0.2 0.3 0.5 0.5]"])
def test_other_laws_are_read_from_the_engine(tmp_path, model):
    script = (
        f"New Load.A bus1=A kV=20 kW=1 {model} Vminpu=0.5 Vmaxpu=1.5\n"
        "New Load.B bus1=A.2 phases=1 kV=11.547 kW=1 model=1 Vminpu=0.5 Vmaxpu=1.5"
    )
    engine, state = solved(
        tmp_path / "a", script, {"A": ("Load.A", "load"), "B": ("Load.B", "load")}, [4000.0, 100.0], [1000.0, 0.0]
    )
    engine.close()
    assert state.pod_p_kw[0] != pytest.approx(4000.0, rel=1e-4)
    assert state.pod_p_kw.sum() == pytest.approx(-state.terminal_p_kw[1], rel=1e-6)
    assert state.pod_q_kvar.sum() == pytest.approx(-state.terminal_q_kvar[1], rel=1e-6)


def test_outside_its_limits_a_load_is_an_impedance(tmp_path):
    script = "New Load.A bus1=A kV=20 kW=1 model=1 Vminpu=0.95 Vmaxpu=0.97"
    engine, state = solved(tmp_path / "a", script, {"A": ("Load.A", "load")}, [1000.0])
    u = np.mean(state.vm_pu[3:])
    engine.close()
    assert u > 0.97
    assert state.pod_p_kw[0] == pytest.approx(1000.0 * (u / 0.97) ** 2, rel=1e-6)


def test_elements_that_are_no_pods_draw_what_the_script_says(tmp_path):
    """LoadMult=0.5 of the script holds for them and for nothing else."""
    script = (
        "New Load.A bus1=A kV=20 kW=100 kvar=0 model=1 Vminpu=0.5 Vmaxpu=1.5\n"
        "New Load.Other bus1=A kV=20 kW=300 kvar=80 model=1 Vminpu=0.5 Vmaxpu=1.5"
    )
    engine, state = solved(tmp_path / "a", script, {"A": ("Load.A", "load")}, [100.0])
    engine.close()
    assert state.terminal_p_kw[1] == pytest.approx(-250.0, abs=1e-5)
    assert state.terminal_q_kvar[1] == pytest.approx(-40.0, abs=1e-5)


def test_options_and_solves_of_the_script_do_not_matter(tmp_path):
    script = "New Load.A bus1=A kV=20 kW=100 model=1 Vminpu=0.5 Vmaxpu=1.5"
    extra = (
        "New EnergyMeter.M element=Line.L\nNew Monitor.M element=Line.L\nSet mode=daily controlmode=time number=24\n"
        "Set loadmodel=admittance year=9 genmult=3 maxiterations=2 algorithm=newton tolerance=0.1\n"
        "Solve\nShow Voltages LN Nodes\nExport Voltages here.csv\nSave circuit dir=saved\nPlot Profile\n"
    )
    pods = {"A": ("Load.A", "load")}
    plain, expected = solved(tmp_path / "a", script, pods, [700.0], [200.0])
    other, state = solved(tmp_path / "b", script, pods, [700.0], [200.0], tail=TAIL + extra)
    for engine in (plain, other):
        engine.close()
    assert state.vm_pu.tobytes() == expected.vm_pu.tobytes()
    assert sorted(path.name for path in (tmp_path / "b").rglob("*")) == ["Master.dss", "feeder.yaml"]


GROUND = "\nNew Reactor.G bus1=B.4 phases=1 R=0.01 X=0"
RATED = {
    "three phases": (
        "phases=3 buses=[A B] conns=[delta wye] kVs=[21 0.42]",
        200 / (21 / 3**0.5),
        200 / (0.42 / 3**0.5),
    ),
    "one phase": ("phases=1 buses=[A.1 B.1] conns=[wye wye] kVs=[12 0.24]", 600 / 12, 600 / 0.24),
    "between phases": ("phases=1 buses=[A.1.2 B.1] conns=[delta wye] kVs=[21 0.24]", 600 / 21, 600 / 0.24),
    "own neutral": ("phases=1 buses=[A.1 B.1.4] conns=[wye wye] kVs=[12 0.24]" + GROUND, 600 / 12, 600 / 0.24),
    "two phases": ("phases=2 buses=[A.1.2 B.1.2] kVs=[21 0.42]", 300 / (21 / 3**0.5), 300 / (0.42 / 3**0.5)),
    "open delta": ("phases=2 buses=[A.1.2.3 B.1.2] conns=[delta wye] kVs=[21 0.42]", 300 / 21, 300 / (0.42 / 3**0.5)),
}


@pytest.mark.parametrize(("winding", "high_a", "low_a"), RATED.values(), ids=RATED)
def test_a_winding_is_rated_by_its_own_voltage(tmp_path, winding, high_a, low_a):
    """600 kVA by hand, at windings of 21/0.42 kV between buses of 20/0.4 kV; other branches have their bus's."""
    script = (
        f"New Transformer.T windings=2 kVAs=[600 600] XHL=4 {winding}\n"
        "New Load.B bus1=B.1 phases=1 kV=0.24 kW=1 model=1 Vminpu=0.5 Vmaxpu=1.5"
    )
    ratings = "ratings: {Transformer.T: {s_kva: 600}, Line.L: {s_kva: 600}}"
    engine, state = solved(tmp_path / "a", script, {"B": ("Load.B", "load")}, [10.0], ratings=ratings)
    rated, i_a = at(engine.layout.terminals, engine.layout.rated_a), at(engine.layout.terminals, state.terminal_i_a)
    engine.close()
    assert rated["Transformer.T@A"] == pytest.approx(high_a, rel=1e-12)
    assert rated["Transformer.T@B"] == pytest.approx(low_a, rel=1e-12)
    assert rated["Line.L@A"] == pytest.approx(600.0 / (math.sqrt(3.0) * 20.0), rel=1e-9)
    assert state.loading_pu[1] == max(i_a[f"Transformer.T@{bus}"] / rated[f"Transformer.T@{bus}"] for bus in "AB")


def test_a_split_phase_winding_is_rated_by_both_of_its_halves(tmp_path):
    script = (
        "New Transformer.S phases=1 windings=3 buses=[A.1 X.1.0 X.0.2] kVs=[12 0.11 0.11] kVAs=[25 25 25] "
        "XHL=2 XHT=2 XLT=1\n"
        "New Load.X bus1=X.1.2 phases=1 kV=0.22 kW=1 model=1 Vminpu=0.5 Vmaxpu=1.5"
    )
    engine, _ = solved(
        tmp_path / "a", script, {"X": ("Load.X", "load")}, [12.0], ratings="ratings: {Transformer.S: {s_kva: 25}}"
    )
    rated = engine.layout.rated_a[2:]
    engine.close()
    np.testing.assert_allclose(rated, [25.0 / 12.0, 25.0 / 0.22], rtol=1e-12)
