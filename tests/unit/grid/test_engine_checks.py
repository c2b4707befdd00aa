"""Broken circuits are refused at opening, with every fault, its place and what is available."""

import pytest
from feeder_folders import LINE, LINE_YAML, engine_in

from cosim.errors import FeederError

HEALTHY = LINE.split("New Storage")[0]
TAIL = "Set VoltageBases=[20]\nCalcVoltageBases\n"
YAML = LINE_YAML.replace("  B.battery: {element: Storage.S, kind: storage}\n", "")


def refusals(tmp_path, extra="", yaml=YAML, script=HEALTHY, tail=TAIL):
    with pytest.raises(FeederError) as caught:
        engine_in(tmp_path / "wrong", script + extra + tail, yaml)
    return [str(fault).replace(f"{tmp_path}/wrong/", "") for fault in caught.value.faults]


def test_a_pod_on_a_phase_that_nothing_brings(tmp_path):
    extra = (
        "New LineCode.two nphases=2 rmatrix=[0.3|0.1 0.3] xmatrix=[0.3|0.1 0.3] cmatrix=[0|0 0] units=km\n"
        "New Line.L3 bus1=B.1.3 bus2=C.1.3 linecode=two Length=1 units=km\n"
        "New Load.C bus1=C.2 phases=1 kV=11.547 kW=1\nNew Load.D bus1=C.3.2 phases=1 kV=20 conn=delta kW=1\n"
    )
    yaml = YAML.replace(
        "ratings:",
        "  C: {element: Load.C, kind: load, kw: 1, profile: constant}\n"
        "  D: {element: Load.D, kind: load, kw: 1, profile: constant}\nratings:",
    )
    assert refusals(tmp_path, extra, yaml) == [
        "feeder.yaml:6: pods.C.element: no branch brings phase 2 to bus C, which has 1, 3; got Load.C",
        "feeder.yaml:7: pods.D.element: no branch brings phase 2 to bus C, which has 1, 3; got Load.D",
    ]


def test_phases_that_only_act_on_each_other_are_no_path(tmp_path):
    """Mutual impedance puts a voltage on a phase of a line that nothing feeds."""
    extra = (
        "New LineCode.two nphases=2 rmatrix=[0.3|0.1 0.3] xmatrix=[0.3|0.1 0.3] cmatrix=[0|0 0] units=km\n"
        "New LineCode.one nphases=1 rmatrix=[0.3] xmatrix=[0.3] cmatrix=[0] units=km\n"
        "New Line.L3 bus1=B.1 bus2=C.1 linecode=one Length=1 units=km\n"
        "New Line.L4 bus1=C.1.2 bus2=D.1.2 linecode=two Length=1 units=km\n"
    )
    assert refusals(tmp_path, extra) == [
        "Master.dss: no branch brings phase 2 to bus C, which has 1",
        "Master.dss: no branch brings phase 2 to bus D, which has 1",
    ]


def test_buses_without_a_path_to_the_source(tmp_path):
    extra = "New Line.I bus1=X bus2=Y Length=1\nNew Line.Off bus1=B bus2=X Length=1 enabled=no\n"
    yaml = YAML.replace("Load.B,", "Load.Y,")
    assert refusals(tmp_path, extra + "New Load.Y bus1=Y kV=20 kW=3\n", yaml) == [
        "Master.dss: buses without a path to the source (with the PODs B.load); got X, Y"
    ]


def test_behind_an_open_switch_nothing_is_fed(tmp_path):
    extra = "New Line.S bus1=B bus2=X switch=y\nNew Load.X bus1=X kV=20 kW=3\n"
    opened = TAIL + "Open Line.S 1\n"
    assert refusals(tmp_path, extra, tail=opened) == ["Master.dss: buses without a path to the source; got X"]
    engine_in(tmp_path / "closed", HEALTHY + extra + TAIL, YAML).close()


def test_transformers_and_neutrals_are_paths(tmp_path):
    extra = (
        "New Transformer.T phases=3 buses=[B C.1.2.3.4] conns=[delta wye] kVs=[20 0.4] kVAs=[400 400] XHL=4\n"
        "New Reactor.N bus1=C.4 phases=1 R=1 X=0.01\nNew Load.C bus1=C.1.4 phases=1 kV=0.23 kW=1\n"
    )
    engine = engine_in(tmp_path / "fine", HEALTHY + extra + TAIL.replace("[20]", "[20 0.4]"), YAML)
    assert "C.4" in engine.layout.nodes
    engine.close()


@pytest.mark.parametrize("tail", [TAIL, "CalcVoltageBases\nSolve\n"])
def test_lines_without_impedance_are_all_named_with_their_line(tmp_path, tail):
    extra = (
        "New Line.Z1 bus1=B bus2=C Length=0\n\n"
        "New Line.Z2 bus1=B bus2=D Length=1 rmatrix=[0|0 0|0 0 0] xmatrix=[0|0 0|0 0 0]\n"
        "New Line.Z3 bus1=B bus2=E Length=0 enabled=no\n"
    )
    assert refusals(tmp_path, extra, tail=tail) == [
        "Master.dss:7: Line.z1: a line of length 0; allowed: length > 0",
        "Master.dss:9: Line.z2: a line without impedance; allowed: r or x > 0",
    ]


def test_zones_name_what_is_there(tmp_path):
    yaml = YAML + (
        "zones:\n  one: {head: A, buses: [B, Q, R]}\n  two: {head: Z, buses: [B], transformer: Transformer.T}\n"
        "  fine: {head: a, buses: [b]}\n"
    )
    assert refusals(tmp_path, yaml=yaml) == [
        "feeder.yaml:9: zones.one.buses: no such bus; got Q, R; allowed: SRC, A, B",
        "feeder.yaml:10: zones.two.head: no such bus; got Z; allowed: SRC, A, B",
        "feeder.yaml:10: zones.two.transformer: no such transformer; got Transformer.T",
    ]


def test_faults_of_all_kinds_come_together(tmp_path):
    extra = "New Fuse.F1 MonitoredObj=Line.L2\nNew Line.I bus1=X bus2=Y Length=1\n"
    yaml = YAML.replace("Load.A", "Load.AA").replace("end: SRC", "end: B")
    assert refusals(tmp_path, extra, yaml) == [
        "feeder.yaml:4: pods.A.load.element: no such element; got Load.AA; allowed: Load.a, Load.b",
        "Master.dss:7: Fuse.f1: a control with a memory that a restart cannot restore; allowed: RegControl, "
        "CapControl, or enabled=no",
        "Master.dss: buses without a path to the source; got X, Y",
        "feeder.yaml:2: head: no such end of a branch; got Line.L1@B; "
        "allowed: Line.L1@SRC, Line.L1@A, Line.L2@A, Line.L2@B, Line.I@X, Line.I@Y",
    ]


def test_a_circuit_without_any_line(tmp_path):
    script = (
        "Clear\nNew Circuit.t bus1=HV basekV=20 phases=3 MVAsc3=200 MVAsc1=200\n"
        "New Transformer.T phases=3 windings=2 XHL=4 buses=[HV LV] kVs=[20 0.4] kVAs=[400 400]\n"
        "New Load.A bus1=LV phases=3 kV=0.4 kW=100 PF=0.95 model=1 Vminpu=0.8 Vmaxpu=1.2\n"
        "Set VoltageBases=[20, 0.4]\nCalcVoltageBases\n"
    )
    yaml = (
        "name: t\nhead: {branch: Transformer.T, end: HV}\n"
        "pods:\n  A: {element: Load.A, kind: load, kw: 100, profile: constant}\n"
    )
    engine = engine_in(tmp_path / "one", script, yaml)
    assert engine.layout.branches == ("Transformer.T",)
    engine.close()
