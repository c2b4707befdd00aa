"""Autotransformers against plain OpenDSS: powers, currents, loading and losses."""

import math

import numpy as np
import opendssdirect
import pytest
from feeder_folders import engine_in, feeder_in

from cosim.errors import FeederError
from cosim.grid.inventory import take_stock
from cosim.grid.switching import read_switching
from cosim.importers import import_feeder
from cosim.scenario.schema import GridConfig

TIGHT = GridConfig(tolerance_pu=1e-10)
SCRIPT = """\
Clear
New Circuit.t basekv=12.47 pu=1.02 bus1=src MVAsc3=500
New Line.l1 bus1=src bus2=b1 r1=0.3 x1=.4 c1=10 c0=5 length=3 units=km normamps=300
New Transformer.tx phases=3 windings=2 buses=[b1 b2] conns=[delta wye] kvs=[12.47 0.48] kvas=[500 500] xhl=4 %loadloss=1
New Line.l2 bus1=b2 bus2=b3 r1=0.1 x1=.08 c1=0 c0=0 length=0.1 units=km normamps=500
New Load.a bus1=b3 kv=0.48 kw=100 pf=0.95
{added}
Set voltagebases=[12.47 11 0.48 0.4]
CalcVoltageBases
"""
TWO = """\
New AutoTrans.at phases=3 windings=2 buses=[b1 b5] kvs=[12.47 11] kvas=[500 500] xhx=5
New Load.q bus1=b5 kv=11 kw=30"""
UNEVEN = TWO + "\nNew Load.r bus1=b5.2 phases=1 kv=6.35 kw=40"
TAPPED = UNEVEN.replace("xhx=5", "xhx=5 taps=[1.0 0.95] %noloadloss=0.5 %imag=1")
NEUTRAL = UNEVEN.replace("b1 b5]", "b1 b5.1.2.3.4]") + "\nNew Reactor.rn bus1=b5.4 phases=1 r=5 x=0"
THREE = """\
New AutoTrans.at phases=3 windings=3 buses=[b1 b5 b6] conns=[series wye {conn}] kvs=[12.47 11 0.4]
~ kvas=[500 500 100] xhx=5 xht=30 xxt=28
New Load.q bus1=b5.3 phases=1 kv=6.35 kw=30
New Load.r bus1=b6 kv=0.4 kw=20 conn=delta"""
SINGLE = """\
New AutoTrans.at phases=1 windings=2 buses=[b1.2 b5.2] kvs=[7.2 6.35] kvas=[100 100] xhx=5
New Load.q bus1=b5.2 phases=1 kv=6.35 kw=30"""
SEVERAL = """\
New AutoTrans.at phases=1 windings=2 buses=[b1.1 b5.1] kvs=[7.2 6.35] kvas=[100 100] xhx=5
New AutoTrans.au phases=1 windings=2 buses=[b1.2 b5.2] kvs=[7.2 6.35] kvas=[100 100] xhx=4
New AutoTrans.av phases=2 windings=2 buses=[b1.3.1 b7.3.1] kvs=[12.47 11] kvas=[100 100] xhx=4
New Load.q bus1=b5.1.2 phases=1 kv=11 kw=30
New Load.r bus1=b7.3.1 phases=1 kv=11 kw=20"""
ALL = {
    "two windings": TWO,
    "uneven": UNEVEN,
    "tapped": TAPPED,
    "neutral": NEUTRAL,
    "delta tertiary": THREE.format(conn="delta"),
    "wye tertiary": THREE.format(conn="wye"),
    "single phase": SINGLE,
    "several": SEVERAL,
}
YAML = "name: auto\nhead: {branch: Line.l1, end: src}\npods:\n"
ONE_POD = YAML + "  q: {element: Load.q, kind: load, kw: 1, profile: constant}\n"
RATINGS = "ratings: {AutoTrans.at: {s_kva: 500}}\n"
MODELLED = "Vminpu=0.5 Vmaxpu=1.5"


class Plain:
    """A script as OpenDSS alone solves it."""

    def __init__(self, script):
        self.dss = opendssdirect.NewContext()
        for line in (*script.splitlines(), "Set tolerance=1e-10 maxiterations=100", "Solve"):
            self.dss.Text.Command(line)

    def terminals(self, element):
        """Currents [A] and powers [kVA] of the phases at each terminal (n_terminal, n_phase)."""
        self.dss.Circuit.SetActiveElement(element)
        active = self.dss.CktElement
        shape = active.NumTerminals(), active.NumConductors()
        found = [np.asarray(each).view(complex).reshape(shape) for each in (active.Currents(), active.Powers())]
        return [each[:, : active.NumPhases()] for each in found]

    def loss_kw(self):
        return self.dss.Circuit.Losses()[0] / 1000.0

    def loads(self):
        """Powers of the loads [kW, kvar] by name."""
        loads = self.dss.Loads
        return {name: (loads.kW(), loads.kvar()) for name in loads.AllNames() if loads.Name(name) is None}


def script_of(added):
    lines = SCRIPT.format(added=added).splitlines()
    return "\n".join(f"{line} {MODELLED}" if line.startswith("New Load") else line for line in lines)


def solved(folder, added):
    """The engine, its state at the powers of the script, and OpenDSS alone."""
    plain = Plain(script_of(added))
    loads = plain.loads()
    pods = "".join(f"  {name}: {{element: Load.{name}, kind: load, kw: 1, profile: constant}}\n" for name in loads)
    engine = engine_in(folder, script_of(added), f"{YAML}{pods}{RATINGS}", TIGHT)
    return engine, engine.solve(*np.array(list(loads.values())).T), plain


def at(names, values):
    return dict(zip(names, values, strict=True))


@pytest.mark.parametrize("added", ALL.values(), ids=ALL)
def test_powers_currents_and_losses_are_those_of_opendss(tmp_path, added):
    engine, state, plain = solved(tmp_path / "a", added)
    layout = engine.layout
    engine.close()
    autos = [branch for branch in layout.branches if branch.startswith("Autotrans.")]
    for branch in autos:
        ends = [k for k, terminal in enumerate(layout.terminals) if terminal.startswith(f"{branch}@")]
        currents, powers = plain.terminals(branch)
        assert len(ends) == len(powers)
        for k, i, s_kva in zip(ends, currents, powers, strict=True):
            phases = np.flatnonzero(layout.conductor_terminal == k)[: len(i)]
            np.testing.assert_allclose(state.conductor_i_a[phases], abs(i), rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(state.conductor_p_kw[phases], s_kva.real, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(state.conductor_q_kvar[phases], s_kva.imag, rtol=1e-6, atol=1e-6)
    assert state.loss_kw == pytest.approx(plain.loss_kw() - neutral_kw(state, layout), abs=1e-6)
    assert state.head_p_kw == pytest.approx(plain.terminals("Line.l1")[1][0].sum().real, rel=1e-8)


def neutral_kw(state, layout):
    """What a reactor of 5 ohm between the neutral and ground takes: a shunt, no branch [kW]."""
    if "B5.4" not in layout.nodes:
        return 0.0
    return 5.0 * at(layout.conductors, state.conductor_i_a)["Autotrans.AT@B5.4"] ** 2 / 1000.0


def test_a_load_of_30_kw_behind_one_is_30_kw(tmp_path):
    engine, state, _ = solved(tmp_path / "a", TWO)
    p_kw, i_a = at(engine.layout.terminals, state.terminal_p_kw), at(engine.layout.terminals, state.terminal_i_a)
    engine.close()
    assert p_kw["Autotrans.AT@B5"] == pytest.approx(-30.0, abs=1e-6)
    assert i_a["Autotrans.AT@B5"] == pytest.approx(1.76, abs=0.01)
    assert state.loss_kw == pytest.approx(0.81, abs=0.01)


@pytest.mark.parametrize(
    ("added", "rated_a"),
    [
        (TWO, {"B1": 500.0 / (math.sqrt(3.0) * 12.47), "B5": 500.0 / (math.sqrt(3.0) * 11.0)}),
        (TWO.replace("12.47 11]", "12 10.5]"), {"B1": 500.0 / (12.0 * 3**0.5), "B5": 500.0 / (10.5 * 3**0.5)}),
        (THREE.format(conn="delta"), {"B6": 500.0 / (math.sqrt(3.0) * 0.4)}),
        (SINGLE, {"B1": 500.0 / 7.2, "B5": 500.0 / 6.35}),
    ],
)
def test_loading_is_by_the_rated_current_of_the_terminals(tmp_path, added, rated_a):
    """The rating is what passes through, so the current is that of a terminal, not of a winding."""
    engine, state, plain = solved(tmp_path / "a", added)
    layout = engine.layout
    engine.close()
    rated = at(layout.terminals, layout.rated_a)
    for bus, expected in rated_a.items():
        assert rated[f"Autotrans.AT@{bus}"] == pytest.approx(expected, rel=1e-12)
    highest_a = abs(plain.terminals("AutoTrans.at")[0]).max(axis=1)
    of_ends = [rated[name] for name in layout.terminals if name.startswith("Autotrans.AT@")]
    assert state.loading_pu[layout.branches.index("Autotrans.AT")] == pytest.approx((highest_a / of_ends).max())


@pytest.mark.parametrize("added", ALL.values(), ids=ALL)
def test_without_pods_the_conductors_carry_what_the_engine_says(tmp_path, added):
    engine, state, _ = solved(tmp_path / "a", added)
    none = np.zeros(len(engine.pods))
    state, network = engine.solve(none, none), engine.unloaded()
    engine.close()
    np.testing.assert_allclose(np.abs(network.v) / network.v_base, state.vm_pu, rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.abs(network.conductor_y @ network.v), state.conductor_i_a, rtol=1e-6, atol=1e-4)


def test_what_lies_behind_one_is_cut_off_with_it(tmp_path):
    engine, _, _ = solved(tmp_path / "a", TWO)
    behind = read_switching(engine._dss.ActiveCircuit, {"S": "line.l1"}, ())
    engine.close()
    assert behind.cut_off([]) == ("B1", "B2", "B3", "B5")
    assert behind.cut_off(["S"]) == ()


def test_one_is_told_of_among_the_transformers(tmp_path):
    stock = take_stock(feeder_in(tmp_path / "a", script_of(THREE.format(conn="delta")), ONE_POD), TIGHT)
    auto = stock.transformers[-1]
    assert (auto.name, auto.phases) == ("Autotrans.AT", 3)
    assert [(w.bus, w.connection, w.kv, w.kva) for w in auto.windings] == [
        ("B1", "series", 12.47, 500.0),
        ("B5", "wye", 11.0, 500.0),
        ("B6", "delta", 0.4, 100.0),
    ]


def test_one_at_the_source_is_the_head_of_an_imported_script(tmp_path):
    (tmp_path / "mine").mkdir()
    script = script_of(TWO).replace("bus1=src bus2=b1", "bus1=b0 bus2=b1").replace("b1 b5]", "src b0]")
    script = script.replace("bus1=b5 kv=11", "bus1=b1 kv=11").replace("12.47 0.48]", "11 0.48]")
    (tmp_path / "mine" / "M.dss").write_text(script.replace("[12.47 11 0.48 0.4]", "[12.47 11 0.48]"))
    imported = import_feeder(str(tmp_path / "mine" / "M.dss"), tmp_path / "out")
    assert imported.check.head_kw == pytest.approx(imported.check.source_head_kw, rel=1e-6)
    assert imported.check.head_kw > 130.0
    assert imported.check.loss_kw == pytest.approx(imported.check.source_loss_kw, rel=1e-4)


def test_a_tap_control_of_one_is_refused_by_name(tmp_path):
    added = TWO + "\nNew RegControl.rc transformer=at winding=2 vreg=120 ptratio=52.9 band=2"
    with pytest.raises(FeederError, match=r"RegControl\.rc: it moves a tap of AutoTrans\.at, which"):
        engine_in(tmp_path / "a", script_of(added), ONE_POD)
