import math

import numpy as np
import pytest
from feeder_folders import LINE, LINE_YAML, MV5, REGULATED, REGULATED_YAML, engine_in

from cosim.errors import FeederError
from cosim.grid.batch import BatchPowerFlow
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.scenario.schema import GridConfig

TIGHT = GridConfig(tolerance_pu=1e-12)

THREE_WINDINGS = """\
Clear
New Circuit.three bus1=SRC basekV=20 pu=1.0 phases=3 MVAsc3=200 MVAsc1=200
New Transformer.T phases=3 windings=3 XHL=4 XHT=5 XLT=3 buses=[SRC M L] conns=[delta wye wye] kVs=[20 3 0.4]
~ kVAs=[2000 1500 500]
New Line.L1 bus1=L bus2=E R1=0.01 X1=0.01 R0=0.03 X0=0.03 C1=0 C0=0 Length=0.1 Units=km
New Load.A bus1=M phases=3 kV=3 kW=300 PF=0.9 model=1 Vminpu=0.5 Vmaxpu=1.5
New Load.B bus1=E.2 phases=1 kV=0.23094 kW=30 PF=0.9 model=1 Vminpu=0.5 Vmaxpu=1.5
Set VoltageBases=[20, 3, 0.4]
CalcVoltageBases
"""
THREE_YAML = """\
name: three
head: {branch: Transformer.T, end: SRC}
pods:
  A: {element: Load.A, kind: load, kw: 300, profile: constant}
  B: {element: Load.B, kind: load, kw: 30, profile: constant}
"""


def positions(tap, is_open, state):
    return {"taps": {"reg": [1.0, tap]}, "capacitors": {"c1": [is_open, [state, state]]}}


def held_without_controls(tap, is_open, state):
    """The same feeder with those positions written into its script, and nothing that moves them."""
    return (
        REGULATED.replace("New RegControl.RC", "!")
        .replace("New CapControl.CC", "!")
        .replace("New Load", f"Transformer.REG.wdg=2 tap={tap}\nCapacitor.C1.states=[{state} {state}]\nNew Load")
    )


def assert_no_load_state(network, state, atol_pu=1e-9):
    np.testing.assert_allclose(np.abs(network.v) / network.v_base, state.vm_pu, rtol=0, atol=atol_pu)
    angle = np.degrees(np.angle(network.v * np.exp(-1j * np.radians(state.va_deg))))
    np.testing.assert_allclose(angle, 0.0, atol=1e-6)
    np.testing.assert_allclose(np.abs(network.conductor_y @ network.v), state.conductor_i_a, rtol=1e-7, atol=1e-4)


def test_the_network_at_given_positions_is_that_of_a_script_with_them(tmp_path):
    engine = engine_in(tmp_path / "a", REGULATED, REGULATED_YAML)
    for k, where in enumerate([(1.05, False, 1), (0.9, True, 0), (1.05, False, 1)]):
        fixed = engine_in(tmp_path / f"fixed{k}", held_without_controls(where[0], *where[1:]), REGULATED_YAML, TIGHT)
        assert_no_load_state(engine.unloaded(positions(*where)), fixed.solve(np.zeros(1), np.zeros(1)))
        fixed.close()
    engine.close()


def test_reading_again_at_the_same_positions_gives_the_same_bytes(tmp_path):
    engine = engine_in(tmp_path / "a", REGULATED, REGULATED_YAML)
    first = engine.unloaded(positions(1.05, False, 1))
    moved = engine.unloaded(positions(0.95, True, 0))
    again = engine.unloaded(positions(1.05, False, 1))
    engine.close()
    assert moved.v.tobytes() != first.v.tobytes()
    assert again.v.tobytes() == first.v.tobytes()
    assert again.conductor_y.data.tobytes() == first.conductor_y.data.tobytes()


def test_controls_do_not_move_while_the_pods_are_taken_out(tmp_path):
    """Without its load this feeder's regulator would step down."""
    engine = engine_in(tmp_path / "a", REGULATED, REGULATED_YAML)
    engine.solve(np.array([3000.0]), np.array([1500.0]))
    before = engine.controls()
    network = engine.unloaded()
    assert engine.controls() == before
    fixed = engine_in(
        tmp_path / "fixed",
        held_without_controls(
            before["taps"]["reg"][1], *before["capacitors"]["c1"][:1], before["capacitors"]["c1"][1][0]
        ),
        REGULATED_YAML,
        TIGHT,
    )
    assert_no_load_state(network, fixed.solve(np.zeros(1), np.zeros(1)))
    engine.close()
    fixed.close()


@pytest.mark.parametrize(("script", "yaml"), [(LINE, LINE_YAML), (THREE_WINDINGS, THREE_YAML)])
def test_conductors_carry_what_the_engine_says(tmp_path, script, yaml):
    engine, other = engine_in(tmp_path / "a", script, yaml, TIGHT), engine_in(tmp_path / "b", script, yaml)
    none = np.zeros(len(engine.pods))
    assert_no_load_state(other.unloaded(), engine.solve(none, none))
    engine.close()
    other.close()


def test_mv5_at_no_load():
    feeder = load_feeder(MV5)
    engine, other = Engine(feeder, TIGHT), Engine(feeder, TIGHT)
    none = np.zeros(len(engine.pods))
    assert_no_load_state(other.unloaded(), engine.solve(none, none))
    engine.close()
    other.close()


def pods_script(connection):
    return LINE.replace("New Load.A bus1=A phases=3 kV=20", f"New Load.A {connection}")


@pytest.mark.parametrize(
    ("connection", "ends", "v_rated"),
    [
        ("bus1=A phases=3 kV=20 conn=wye", [("A.1", 0), ("A.2", 0), ("A.3", 0)], 20_000.0 / math.sqrt(3.0)),
        ("bus1=A phases=3 kV=20 conn=delta", [("A.1", "A.2"), ("A.2", "A.3"), ("A.3", "A.1")], 20_000.0),
        ("bus1=A.2 phases=1 kV=11.5", [("A.2", 0)], 11_500.0),
        ("bus1=A.3.1 phases=1 kV=20 conn=delta", [("A.3", "A.1")], 20_000.0),
        ("bus1=A.1.3 phases=2 kV=20 conn=wye", [("A.1", 0), ("A.3", 0)], 20_000.0 / math.sqrt(3.0)),
    ],
)
def test_branches_of_a_pod(tmp_path, connection, ends, v_rated):
    engine = engine_in(tmp_path / "a", pods_script(connection))
    network = engine.unloaded()
    engine.close()
    index_of = {name: k for k, name in enumerate(network.layout.nodes, start=1)} | {0: 0}
    branches = [branch for branch in network.pod_branches if branch.pod == 0]
    assert [set(b.nodes) for b in branches] == [{index_of[a], index_of[b]} for a, b in ends]
    assert [b.v_rated for b in branches] == pytest.approx([v_rated] * len(ends))
    assert [b.share for b in branches] == pytest.approx([1.0 / len(ends)] * len(ends))


def test_load_laws_that_are_not_known_are_refused_by_name_where_they_are_needed(tmp_path):
    script = LINE.replace("kW=1000 PF=0.95 model=1", "kW=1000 PF=0.95 model=3").replace(
        "kW=500 PF=0.95 model=1", "kW=500 PF=0.95 model=4"
    )
    engine = engine_in(tmp_path / "line", script)
    network = engine.unloaded()
    engine.close()
    for needs_laws in (network.require_laws, lambda: BatchPowerFlow(network, [], [])):
        with pytest.raises(FeederError) as caught:
            needs_laws()
        assert [str(fault).replace(f"{tmp_path}/line/", "") for fault in caught.value.faults] == [
            f"feeder.yaml:{line}: pods.{pod}.load.element: Load.{pod} has a load law that only OpenDSS knows, so a "
            f"market has no sensitivities to it; got model={model}; allowed: model=1, model=2, model=5, or a run "
            "without a market"
            for line, pod, model in ((4, "A", 3), (5, "B", 4))
        ]


def test_a_machine_that_cannot_be_a_pod_is_refused(tmp_path):
    engine = engine_in(tmp_path / "line", LINE + "New IndMach012.M bus1=A kV=20 kW=10 kVA=15 conn=delta\n")
    with pytest.raises(FeederError, match=r"pods: IndMach012\.m is no POD and not linear.*allowed: set enabled=no"):
        engine.unloaded()
    engine.close()


def test_a_generator_that_does_not_take_its_power_is_refused(tmp_path):
    generator = "New Generator.G bus1=B phases=3 kV=20 kW=100 kvar=10 model=3\n"
    pods = LINE_YAML.replace(
        "ratings:", "  G: {element: Generator.G, kind: generator, kw: 100, profile: constant}\nratings:"
    )
    with pytest.raises(
        FeederError, match=r"pods\.G\.element: Generator\.G does not take.*got model=3; allowed: model=1"
    ):
        engine_in(tmp_path / "line", LINE + generator, pods)


def test_a_load_that_is_no_pod_is_refused(tmp_path):
    engine = engine_in(tmp_path / "line", LINE + "New Load.Extra bus1=A phases=3 kV=20 kW=10\n")
    with pytest.raises(FeederError, match=r"pods: Load\.extra is no POD and not linear.*allowed: list it under pods"):
        engine.unloaded()
    engine.close()


def test_a_neutral_that_hangs_on_its_load_alone_is_refused(tmp_path):
    engine = engine_in(tmp_path / "line", pods_script("bus1=A.1.2.3.4 phases=3 kV=20"))
    with pytest.raises(
        FeederError, match=r"pods\.A\.load\.element: a node that nothing but PODs connects to.*got A\.4"
    ):
        engine.unloaded()
    engine.close()


def test_a_load_that_grounds_a_neutral_is_refused(tmp_path):
    script = pods_script("bus1=A.1.2.3.4 phases=3 kV=20 Rneut=5").replace(
        "New Storage", "New Reactor.N phases=1 bus1=A.4 R=1 X=0\nNew Storage"
    )
    engine = engine_in(tmp_path / "line", script)
    with pytest.raises(FeederError, match=r"pods\.A\.load\.element: Load\.A connects a neutral to ground"):
        engine.unloaded()
    engine.close()


def test_an_engine_closed_after_unloading_serves_the_next(tmp_path):
    first = engine_in(tmp_path / "line")
    before = first.solve(np.full(3, 100.0), np.zeros(3)).vm_pu
    first.unloaded()
    first.close()
    second = engine_in(tmp_path / "line")
    np.testing.assert_array_equal(second.solve(np.full(3, 100.0), np.zeros(3)).vm_pu, before)
    second.close()
