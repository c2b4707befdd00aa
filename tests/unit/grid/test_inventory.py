"""What a feeder holds, read from a small unbalanced circuit."""

from dataclasses import replace

import numpy as np
import pytest

from cosim.errors import FeederError
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.grid.inventory import take_stock
from cosim.grid.inventory_text import WIDTH, as_text
from cosim.scenario.schema import GridConfig

SCRIPT = """\
Clear
Set DefaultBaseFrequency=50
New Circuit.small bus1=SRC basekV=20 pu=1.0 phases=3 MVAsc3=500 MVAsc1=500
New Transformer.T1 phases=3 windings=2 XHL=4 wdg=1 bus=SRC conn=delta kV=20 kVA=400 wdg=2 bus=A conn=wye kV=0.4 kVA=400
New LineCode.C4 nphases=3 R1=0.2 X1=0.08 R0=0.6 X0=0.3 C1=0 C0=0 Units=km
New LineCode.C1 nphases=1 R1=0.4 X1=0.1 R0=0.4 X0=0.1 C1=0 C0=0 Units=km
New Line.L1 bus1=A bus2=B LineCode=C4 Length=0.25 Units=km
New Line.L2 bus1=B.2 bus2=C.2 phases=1 LineCode=C1 Length=100 Units=m
New Line.L3 bus1=B bus2=E LineCode=C4 Length=500 Units=ft
New Transformer.R1 phases=1 windings=2 XHL=0.1 wdg=1 bus=B.1 kV=0.23094 kVA=50 wdg=2 bus=D.1 kV=0.23094 kVA=50
New RegControl.CR1 transformer=R1 winding=2 vreg=234 band=2 ptratio=1
New Line.SW1 bus1=E bus2=F switch=yes
New Line.SW2 bus1=A bus2=F switch=yes
New Line.SW3 bus1=A.1 bus2=D.1 phases=1 switch=yes enabled=no
Open Line.SW2 1
New Capacitor.K1 bus1=B kV=0.4 kvar=30
New Capacitor.K2 bus1=E.3 phases=1 kV=0.23094 kvar=5
New Reactor.X1 bus1=E kV=0.4 kvar=1
New Load.U bus1=E phases=3 kV=0.4 kW=30 kvar=10 model=1
New Load.V bus1=C.2 phases=1 kV=0.23094 kW=4 kvar=1 model=2
New Load.W bus1=E.1.2 phases=1 conn=delta kV=0.4 kW=6 kvar=2 model=1
New Load.X bus1=D.1 phases=1 kV=0.23094 kW=2 kvar=0 model=5
New Load.Y bus1=E.1 phases=1 kV=0.23094 kW=3 kvar=1 model=1
New Load.Z bus1=E.1 phases=1 kV=0.23094 kW=99 kvar=1 model=1 enabled=no
New Generator.G bus1=E phases=3 kV=0.4 kW=8 kvar=0
New Storage.S bus1=B phases=3 kV=0.4 kWrated=10 kWhrated=20 %IdlingkW=0 State=idling DispMode=external
Set VoltageBases=[20, 0.4]
CalcVoltageBases
SetBusXY bus=A x=1 y=2
SetBusXY bus=B x=3 y=2.5
"""

YAML = """\
name: small
description: unbalanced and tiny
head: {branch: Transformer.T1, end: SRC}
pods:
  u: {element: Load.U, kind: load, kw: 30, kvar: 10, profile: p1}
  v: {element: Load.V, kind: load, kw: 4, kvar: 1, profile: p2, q_profile: p1}
  w: {element: Load.W, kind: load, kw: 6, kvar: 2, profile: constant}
  x: {element: Load.X, kind: load, kw: 2, profile: p1}
  g: {element: Generator.G, kind: pv, kw: 8, profile: p3}
  s: {element: Storage.S, kind: storage}
ratings:
  Transformer.T1: {s_kva: 400}
  Line.L1: {i_a: 200}
zones:
  far: {head: B, buses: [C, E]}
meters:
  M1: {type: sub, number: 1, bus: E, quantities: [p_kw], phases: [1, 2], full_scale: {p_kw: 50}}
"""

PHASES = {"SRC": "123", "A": "123", "B": "123", "C": "2", "D": "1", "E": "123", "F": "123"}


def feeder_in(folder, script=SCRIPT, yaml=YAML):
    (folder / "Master.dss").write_text(script)
    (folder / "feeder.yaml").write_text(yaml)
    return load_feeder(folder)


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return take_stock(feeder_in(tmp_path_factory.mktemp("small")), GridConfig())


def edge_of(stock, branch):
    return next(edge for edge in stock.edges if edge.branch == branch)


def test_buses(stock):
    assert dict(zip(stock.buses, stock.bus_phases, strict=True)) == PHASES
    kv = dict(zip(stock.buses, stock.bus_kv, strict=True))
    assert kv["SRC"] == pytest.approx(20.0)
    assert {bus: round(each, 9) for bus, each in kv.items() if bus != "SRC"} == dict.fromkeys("ABCDEF", 0.4)
    assert stock.buses[stock.source] == "SRC"
    xy = dict(zip(stock.buses, stock.xy.tolist(), strict=True))
    assert (xy["A"], xy["B"]) == ([1.0, 2.0], [3.0, 2.5])
    assert np.isnan([xy[bus] for bus in ("SRC", "C", "D", "E", "F")]).all()


def test_edges(stock):
    found = {edge.branch: (edge.kind, edge.phases, edge.is_open) for edge in stock.edges}
    assert found == {
        "Transformer.T1": ("transformer", 3, False),
        "Line.L1": ("line", 3, False),
        "Line.L2": ("line", 1, False),
        "Line.L3": ("line", 3, False),
        "Transformer.R1": ("regulator", 1, False),
        "Line.SW1": ("switch", 3, False),
        "Line.SW2": ("switch", 3, True),
        "Line.SW3": ("switch", 1, True),
    }
    lengths = [edge_of(stock, f"Line.L{k}").length_km for k in (1, 2, 3)]
    assert lengths == pytest.approx([0.25, 0.1, 0.1524])
    line = edge_of(stock, "Line.L2")
    assert (stock.buses[line.start], stock.buses[line.end]) == ("B", "C")


def test_elements(stock):
    transformer, regulator = stock.transformers
    assert [(w.bus, w.connection, w.kv, w.kva) for w in transformer.windings] == [
        ("SRC", "delta", 20.0, 400.0),
        ("A", "wye", 0.4, 400.0),
    ]
    assert regulator.is_series
    assert not transformer.is_series
    (control,) = stock.regulations
    assert (control.transformer, control.bus, control.set_v, control.band_v) == ("Transformer.R1", "D", 234.0, 2.0)
    assert regulator.windings[1].tap_pu == pytest.approx(1.0 + 0.00625 * control.position)
    assert [(c.bus, c.phases, c.kvar, c.is_open) for c in stock.capacitors] == [
        ("B", 3, 30.0, False),
        ("E", 1, 5.0, False),
    ]
    loads = {key: (group.count, group.p_kw, group.q_kvar) for key, group in stock.loads.items()}
    assert loads == {
        (1, "delta", "constant power"): (1, 6.0, 2.0),
        (1, "wye", "constant current"): (1, 2.0, 0.0),
        (1, "wye", "constant impedance"): (1, 4.0, 1.0),
        (1, "wye", "constant power"): (1, 3.0, 1.0),
        (3, "wye", "constant power"): (1, 30.0, 10.0),
    }
    assert (stock.injecting["generator"].count, stock.injecting["generator"].p_kw) == (1, 8.0)
    assert (stock.injecting["storage"].p_kw, stock.injecting["storage"].e_kwh) == (10.0, 20.0)
    assert stock.others == {"Reactor": ("Reactor.X1",)}


def test_what_feeder_yaml_says_of_it(stock):
    pods = {kind: (group.count, group.p_kw, group.q_kvar) for kind, group in stock.pods.items()}
    assert pods == {"load": (4, 42.0, 13.0), "pv": (1, -8.0, 0.0), "storage": (1, 0.0, 0.0)}
    assert stock.no_pods == ("Load.Y",)
    assert set(stock.idle) == {"Load.Z", "Line.SW3"}
    assert set(stock.unrated) == {"Line.L2", "Line.L3", "Transformer.R1", "Line.SW1", "Line.SW2"}


def test_base_case(stock):
    base = stock.base
    assert stock.failure == ""
    assert base.loss_kw > 0.0
    drawn_kw = 30.0 + 4.0 + 6.0 + 2.0 + 3.0 - 8.0
    assert base.head_p_kw == pytest.approx(drawn_kw + base.loss_kw, rel=0.02)
    vm = dict(zip(stock.nodes, base.vm_pu, strict=True))
    lowest = dict(zip(stock.buses, stock.vm_pu, strict=True))
    assert lowest["E"] == min(vm["E.1"], vm["E.2"], vm["E.3"]) < max(vm["E.1"], vm["E.2"], vm["E.3"])
    assert lowest["C"] == vm["C.2"]
    assert np.isnan(base.edge_a[stock.edges.index(edge_of(stock, "Line.SW3"))])
    assert base.edge_a[stock.edges.index(edge_of(stock, "Line.SW2"))] < 1e-3


def test_base_case_is_the_state_of_the_engine_with_the_powers_of_the_script(stock):
    engine = Engine(stock.feeder, GridConfig())
    try:
        state = engine.solve(np.array([30.0, 4.0, 6.0, 2.0, -8.0, 0.0]), np.array([10.0, 1.0, 2.0, 0.0, 0.0, 0.0]))
    finally:
        engine.close()
    assert stock.base.vm_pu == pytest.approx(state.vm_pu, abs=1e-8)
    assert (stock.base.head_p_kw, stock.base.head_q_kvar) == pytest.approx(
        (state.head_p_kw, state.head_q_kvar), abs=1e-4
    )
    current_a = dict(zip(engine.layout.terminals, state.terminal_i_a, strict=True))
    for edge, found_a in zip(stock.edges, stock.base.edge_a, strict=True):
        if edge.branch not in stock.idle:
            assert found_a == pytest.approx(current_a[f"{edge.branch}@{stock.buses[edge.start]}"], abs=1e-4)


def test_text(stock):
    lines = [" ".join(line.split()) for line in as_text(stock).splitlines()]
    for line in (
        "small: unbalanced and tiny",
        "head Transformer.T1@SRC",
        "buses 3-phase 1-phase all",
        "20 kV 1 0 1",
        "0.4 kV 4 2 6",
        "all 5 2 7",
        "0.4 kV lines 3 0.502 0",
        "0.4 kV switches 3 - 2 Line.SW2, Line.SW3",
        "1 400 20/0.4 3-phase delta-wye T1",
        "1-phase delta constant power 1 6.0 2.0",
        "all 5 45.0 14.0",
        "generators 1 8.0 -",
        "storage units 1 10.0 20.0",
        "others 1 Reactor: X1",
        "load 4 42.0 13.0",
        "pv 1 -8.0 0.0",
        "3 profile columns; kW and kvar at profile value 1, consumption positive",
        "1 elements of the circuit are no PODs: Load.Y",
        "M1 E p_kw by phase: 1, 2",
        "far B 2",
        "ratings missing at 5 of 7 branches: Line.L2, Line.L3, Transformer.R1, Line.SW1 and 1 more",
        "coordinates missing at 5 of 7 buses: SRC, C, E, D and 1 more",
    ):
        assert line in lines
    lowest = int(np.nanargmin(stock.base.vm_pu))
    assert f"lowest voltage {stock.base.vm_pu[lowest]:.5f} pu at {stock.nodes[lowest]}" in lines


def test_text_fits_its_width_and_cuts_long_lists(stock):
    many = tuple(replace(stock.capacitors[0], name=f"Capacitor.K{k}") for k in range(40))
    others = {"Monitor": tuple(f"Monitor.{'N' * 30}{k}" for k in range(50))}
    text = as_text(replace(stock, capacitors=many, others=others))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "... and 29 more" in text
    assert "K10 " in text
    assert "K11 " not in text
    assert "and 46 more" in text


def test_a_power_flow_that_fails_is_told_and_the_rest_still_there(tmp_path):
    stock = take_stock(feeder_in(tmp_path), GridConfig(max_iterations=2, tolerance_pu=1e-12))
    assert stock.base is None
    assert stock.failure == "the power flow does not converge in 2 iterations"
    assert np.isnan(stock.vm_pu).all()
    assert stock.failure in as_text(stock)
    assert stock.loads[(3, "wye", "constant power")].p_kw == 30.0


def test_controls_that_do_not_settle_are_told(tmp_path):
    script = SCRIPT.replace("vreg=234 band=2", "vreg=215 band=2 maxtapchange=1")
    stock = take_stock(feeder_in(tmp_path, script), GridConfig(max_control_iterations=2))
    assert stock.base is None
    assert stock.failure.startswith("controls do not settle")


def test_multiplier_of_the_script(tmp_path, stock):
    doubled = take_stock(feeder_in(tmp_path, SCRIPT + "Set LoadMult=2\n"), GridConfig())
    assert doubled.loads[(3, "wye", "constant power")].p_kw == 60.0
    assert doubled.base.head_p_kw > stock.base.head_p_kw + 40.0


def test_refused_as_by_the_engine(tmp_path):
    with pytest.raises(FeederError, match=r"Load\.NONE"):
        take_stock(feeder_in(tmp_path, yaml=YAML.replace("Load.U", "Load.NONE")), GridConfig())
