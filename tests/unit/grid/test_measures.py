"""Measures on a ring: B feeds C and D, a tie joins them; a transformer moved by hand, a capacitor, and a regulator."""

import json
from itertools import product

import numpy as np
import pytest
from feeder_folders import CONFIG, MV5, feeder_in

from cosim.errors import FeederError
from cosim.grid.batch import BatchPowerFlow
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.grid.linear import LinearNetwork
from cosim.grid.measures import CapacitorMeasure, SwitchMeasure, TapMeasure, moves_eur, moves_of
from cosim.rng import rng_for
from cosim.scenario.schema import GridConfig

IEEE123 = MV5.parent / "ieee123"
TIGHT = GridConfig(tolerance_pu=1e-12)
OHM = "R1=0.3 X1=0.3 R0=0.9 X0=0.9 C1=200 C0=150 Units=km"
RING = f"""\
Clear
New Circuit.ring bus1=SRC basekV=20 pu=1.0 phases=3 MVAsc3=300 MVAsc1=300
New Line.L1 bus1=SRC bus2=A {OHM} Length=3
New Transformer.REG phases=3 windings=2 XHL=4 wdg=1 bus=A kV=20 kVA=9000 wdg=2 bus=B kV=20 kVA=9000
New RegControl.RC transformer=REG winding=2 vreg=120 band=2 ptratio=96.225
New Line.S1 bus1=B bus2=C {OHM} Length=4
New Line.S2 bus1=B bus2=D {OHM} Length=2
New Line.TIE bus1=C bus2=D {OHM} Length=1 enabled=no
New Transformer.T phases=3 windings=2 XHL=4 wdg=1 bus=D kV=20 kVA=800 wdg=2 bus=E kV=0.4 kVA=800 tap=1.025
New Capacitor.K bus1=C kV=20 kvar=900 numsteps=3 states=[1 0 0]
New Load.C bus1=C phases=3 kV=20 kW=1000 PF=0.9 model=1 Vminpu=0.5 Vmaxpu=1.5
New Load.D bus1=D phases=3 kV=20 kW=1000 PF=0.9 model=2 Vminpu=0.5 Vmaxpu=1.5
New Load.E bus1=E phases=3 kV=0.4 kW=300 PF=0.9 model=1 Vminpu=0.5 Vmaxpu=1.5
Set VoltageBases=[20, 0.4]
CalcVoltageBases
"""
RING_YAML = """\
name: ring
head: {branch: Line.L1, end: SRC}
pods:
  C: {element: Load.C, kind: load, kw: 1000, profile: constant}
  D: {element: Load.D, kind: load, kw: 1000, profile: constant}
  E: {element: Load.E, kind: load, kw: 300, profile: constant}
"""
TAP = TapMeasure(name="T", element="Transformer.T", low=-2, high=2, step_pu=0.025, winding=2, eur_per_move=50.0)
CAPACITOR = CapacitorMeasure(name="K", element="capacitor.k", high=3, eur_per_move=5.0)
S1 = SwitchMeasure(name="S1", element="Line.S1", eur_per_move=10.0)
TIE = SwitchMeasure(name="TIE", element="line.tie", eur_per_move=10.0)
ALL = (TAP, CAPACITOR, S1, TIE)
START = {"T": 1, "K": 1, "S1": 1, "TIE": 0}
POSITIONS = [
    START,
    {"T": -2, "K": 1, "S1": 1, "TIE": 0},
    {"T": 1, "K": 0, "S1": 1, "TIE": 0},
    {"T": 2, "K": 3, "S1": 0, "TIE": 1},
    {"T": -1, "K": 2, "S1": 0, "TIE": 1},
]


@pytest.fixture
def ring_in(tmp_path):
    """Makes engines of the ring, and closes them."""
    engines = []

    def make(measures=ALL, script=RING, config=CONFIG):
        engines.append(Engine(feeder_in(tmp_path / f"ring{len(engines)}", script, RING_YAML), config, measures))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def written(positions):
    """The script with these positions, and nothing that moves."""
    states = " ".join(str(int(step < positions["K"])) for step in range(3))
    script = RING.replace("tap=1.025", f"tap={1.0 + 0.025 * positions['T']}").replace(
        "states=[1 0 0]", f"states=[{states}]"
    )
    script = script.replace("New RegControl.RC", "!")
    if not positions["S1"]:
        script = script.replace(f"New Line.S1 bus1=B bus2=C {OHM} Length=4", "")
    return script.replace("enabled=no", "") if positions["TIE"] else script


def faults(ring_in, measures, script=RING):
    with pytest.raises(FeederError) as caught:
        ring_in(measures, script)
    return [str(fault).partition("feeder.yaml: ")[2] for fault in caught.value.faults]


def course(n=24):
    """Powers, and where the measures are in each step."""
    rng = rng_for(11, "course")
    p_kw = rng.uniform(-1500.0, 2500.0, (n, 3)) * [1.0, 1.0, 0.2]
    return list(zip(p_kw, rng.integers(0, len(POSITIONS), n).tolist(), strict=True))


def solved(engine, p_kw):
    state = engine.solve(p_kw, 0.4 * p_kw)
    return b"".join(each.tobytes() for each in (state.vm_pu, state.va_deg, state.conductor_i_a, state.pod_p_kw))


def stepped(engine, steps):
    done = []
    for p_kw, k in steps:
        engine.set_measures(POSITIONS[k])
        done.append((solved(engine, p_kw), engine.controls(), dict(engine.measure_positions())))
    return done


def test_measures_begin_where_the_script_has_them(ring_in):
    engine = ring_in()
    assert engine.measure_positions() == START
    assert engine.measures == ALL
    assert "Line.TIE" in engine.layout.branches


def test_measures_that_do_not_move_change_nothing(ring_in):
    loops = [SwitchMeasure(name=each.name, element=each.element, may_loop=True) for each in (S1, TIE)]
    script = RING.replace("enabled=no", "")
    measured, plain = ring_in((TAP, CAPACITOR, *loops), script), ring_in((), script)
    for p_kw, _ in course(6):
        measured.set_measures({**START, "TIE": 1})
        assert solved(measured, p_kw) == solved(plain, p_kw)


@pytest.mark.parametrize("positions", POSITIONS[1:])
def test_positions_are_those_of_a_script_with_them(ring_in, positions):
    engine, fixed = (
        ring_in(script=written(START).replace(" E {OHM}", ""), config=TIGHT),
        ring_in((), written(positions), TIGHT),
    )
    p_kw = np.array([900.0, 1200.0, 250.0])
    engine.set_measures(positions)
    state, expected = engine.solve(p_kw, 0.3 * p_kw), fixed.solve(p_kw, 0.3 * p_kw)
    vm_pu = dict(zip(engine.layout.nodes, state.vm_pu, strict=True))
    assert vm_pu == pytest.approx(dict(zip(fixed.layout.nodes, expected.vm_pu, strict=True)), rel=0, abs=1e-9)
    own = dict(zip(engine.layout.conductors, state.conductor_i_a, strict=True))
    for name, i_a in zip(fixed.layout.conductors, expected.conductor_i_a, strict=True):
        assert own.pop(name) == pytest.approx(i_a, abs=1e-5)
    assert all(i_a < 1e-6 for i_a in own.values())  # of switches that are open
    assert {name.partition("@")[0] for name in own} == {"Line.S1" if positions["TIE"] else "Line.TIE"}


def test_a_run_cut_anywhere_goes_on_to_the_last_bit(ring_in):
    steps = course()
    whole = stepped(ring_in(), steps)
    assert len({json.dumps(controls) for _, controls, _ in whole}) > 3
    for cut in range(1, len(steps)):
        _, controls, positions = json.loads(json.dumps([None, *whole[cut - 1][1:]]))
        resumed = ring_in()
        resumed.restore_controls(controls)
        resumed.set_measures(positions)
        assert stepped(resumed, steps[cut : cut + 3]) == whole[cut : cut + 3]


def test_a_state_does_not_depend_on_where_measures_were_before(ring_in):
    engine, fresh = ring_in(), ring_in()
    p_kw = np.array([700.0, -400.0, 100.0])
    before = engine.controls()
    for positions in (*POSITIONS, POSITIONS[3]):
        engine.restore_controls(before)
        engine.set_measures(positions)
        last = solved(engine, p_kw)
    fresh.set_measures(POSITIONS[3])
    assert solved(fresh, p_kw) == last


def test_batch_flow_and_linear_model_at_every_position(ring_in):
    engine, planner = ring_in(config=TIGHT), ring_in()
    p_kw = np.array([900.0, 1100.0, 200.0])
    for positions in POSITIONS:
        engine.set_measures(positions)
        state = engine.solve(p_kw, 0.3 * p_kw)
        network = planner.unloaded(engine.controls(), positions)
        flow = BatchPowerFlow(network, network.layout.nodes, network.layout.terminals).solve(
            p_kw[None], 0.3 * p_kw[None]
        )
        np.testing.assert_allclose(flow.vm_pu[0], state.vm_pu, rtol=0, atol=1e-8)
        np.testing.assert_allclose(flow.conductor_i_a[0], state.conductor_i_a, rtol=1e-6, atol=1e-4)
        model = LinearNetwork(network, engine.feeder.head_terminal).exact(p_kw, 0.3 * p_kw)
        np.testing.assert_allclose(np.abs(model.state.v) / network.v_base, state.vm_pu, rtol=0, atol=1e-8)
        more_kw = np.array([10.0, 0.0, 0.0])
        by_step = engine.solve(p_kw + more_kw, 0.3 * p_kw).vm_pu - state.vm_pu
        predicted = np.abs(model.predict(p_kw + more_kw, 0.3 * p_kw).v) / network.v_base - state.vm_pu
        np.testing.assert_allclose(predicted, by_step, rtol=0, atol=2e-6)


def test_a_network_without_pods_depends_on_positions_alone(ring_in):
    one, other = ring_in(), ring_in()
    controls = one.controls()
    other.set_measures(POSITIONS[4])
    other.solve(np.array([2500.0, 2500.0, 500.0]), np.zeros(3))
    assert other.controls() != controls
    for positions in (*POSITIONS, START):
        first, second = one.unloaded(controls, positions), other.unloaded(controls, positions)
        assert first.y.toarray().tobytes() == second.y.toarray().tobytes()
        assert first.v.tobytes() == second.v.tobytes()
        assert first.conductor_y.toarray().tobytes() == second.conductor_y.toarray().tobytes()
        other.unloaded(controls, POSITIONS[3])


def test_positions_that_are_not_allowed_are_all_named_and_change_nothing(ring_in):
    engine = ring_in()
    with pytest.raises(FeederError) as caught:
        engine.set_measures({"T": 3, "X": 1, "S1": 0, "TIE": 0})
    assert [str(fault).partition("feeder.yaml: ")[2] for fault in caught.value.faults] == [
        "measures.X: no such measure; got X; allowed: T, K, S1, TIE",
        "measures.T: no such position; got 3; allowed: -2 to 2",
        "measures.K: a position is missing",
        "measures: buses cut off with the switches S1, TIE open; got C",
    ]
    assert engine.measure_positions() == START
    with pytest.raises(FeederError, match=r"measures\.S1: part of a loop with the switches S1, TIE closed"):
        engine.unloaded(measures={**START, "TIE": 1})
    assert [engine.allows(each) for each in POSITIONS] == [True] * 5
    assert not engine.allows({**START, "S1": 0})


def test_a_ring_may_be_closed_where_both_switches_may_loop(ring_in):
    loops = [SwitchMeasure(name=each.name, element=each.element, may_loop=True) for each in (S1, TIE)]
    engine = ring_in((TAP, CAPACITOR, *loops))
    engine.set_measures({**START, "TIE": 1})
    p_kw = np.array([1000.0, 1000.0, 300.0])
    closed = engine.solve(p_kw, np.zeros(3))
    engine.set_measures(START)
    apart = engine.solve(p_kw, np.zeros(3))
    at_c = engine.layout.nodes.index("C.1")
    assert closed.vm_pu[at_c] > apart.vm_pu[at_c] + 1e-4
    assert closed.loss_kw < apart.loss_kw


def test_a_switch_that_would_island_or_only_close_a_loop_is_refused(ring_in):
    s2 = SwitchMeasure(name="S2", element="Line.S2")
    assert faults(ring_in, (S1, s2)) == [
        "measures.S1.element: opening Line.S1 would cut off buses; got C",
        "measures.S2.element: opening Line.S2 would cut off buses; got D, E",
    ]
    assert faults(ring_in, (TIE,)) == [
        "measures.TIE.may_loop: closing line.tie would close a loop; got false; allowed: true"
    ]
    assert ring_in((S1, s2, TIE)).measure_positions() == {"S1": 1, "S2": 1, "TIE": 0}
    assert faults(ring_in, (S1, TIE), RING.replace("enabled=no", "")) == [
        f"measures.{name}.may_loop: the script closes it as part of a loop; got false; allowed: true"
        for name in ("S1", "TIE")
    ]


def test_a_bus_that_only_open_switches_reach_is_named(ring_in):
    script = RING.replace(" enabled=no", "").replace("bus1=C bus2=D", "bus1=C bus2=X enabled=no")
    script = script.replace(
        "New Transformer.T ", f"New Line.T2 bus1=X bus2=D {OHM} Length=1 enabled=no\nNew Transformer.T "
    )
    tie2 = SwitchMeasure(name="TIE2", element="Line.T2")
    assert faults(ring_in, (S1, TIE, tie2), script) == [
        "measures: buses cut off while the switches are as the script has them; got X"
    ]


def test_all_faults_of_records_and_elements_at_once(ring_in):
    found = faults(
        ring_in,
        (
            TapMeasure(
                name="a", element="Transformer.T", low=2, high=-2, step_pu=0.0, eur_per_move=-1.0, moves_per_day=-1
            ),
            TapMeasure(name="b", element="Transformer.REG", low=-2, high=2, step_pu=0.025),
            TapMeasure(name="c", element="Transformer.T", low=-5, high=2, step_pu=0.02, winding=2),
            TapMeasure(name="d", element="Transformer.T", low=0, high=2, step_pu=0.025, winding=3),
            CapacitorMeasure(name="e", element="Capacitor.K", low=-1, high=4),
            CapacitorMeasure(name="f", element="Capacitor.K", high=3),
            CapacitorMeasure(name="g", element="Load.C", high=3),
            SwitchMeasure(name="h", element="Line.nowhere"),
            SwitchMeasure(name="h", element="Line.S1"),
            SwitchMeasure(name="i", element="Line.L1", eur_per_move=float("inf")),
        ),
    )
    assert found == [
        "measures.a.eur_per_move: must be 0 or more; got -1",
        "measures.a.moves_per_day: must be 0 or more; got -1",
        "measures.a.high: must not be below low; got -2; allowed: 2 or more",
        "measures.a.step_pu: must be above 0; got 0",
        "measures.b.element: Transformer.REG is under automatic control by RegControl.rc; allowed: elements without a "
        "control",
        "measures.c.element: the script puts Transformer.T to none of the positions; got 1.025 pu; allowed: "
        "1 + n * 0.02 pu, n from -5 to 2",
        "measures.d.winding: no such winding; got 3; allowed: 1 to 2",
        "measures.e.low: no such number of steps; got -1; allowed: 0 to 3",
        "measures.e.high: no such number of steps; got 4; allowed: 0 to 3",
        "measures.f.element: the element already belongs to measure e; got Capacitor.K",
        "measures.g.element: not an element for a CapacitorMeasure; got Load.C; allowed: Capacitor.k",
        "measures.h.element: no such element; got Line.nowhere; allowed: Line.l1, Line.s1, Line.s2, Line.tie",
        "measures.h.name: another measure has this name; got h",
        "measures.i.eur_per_move: must be 0 or more; got inf",
    ]


@pytest.mark.parametrize(
    ("change", "measure", "fault"),
    [
        (
            ("New Capacitor.K", "New Line.X bus1=C bus2=F R1=1 X1=1 Length=1\nNew Capacitor.K bus2=F"),
            CAPACITOR,
            "measures.K.element: capacitor.k lies in series between buses; allowed: shunt capacitors",
        ),
        (
            ("states=[1 0 0]", "states=[0 1 0]"),
            CAPACITOR,
            "measures.K.element: the script puts capacitor.k to none of the positions; got states=[0, 1, 0]; allowed: "
            "the first n steps in service, n from 0 to 3",
        ),
        (
            ("states=[1 0 0]", "states=[1 0 0] enabled=no"),
            CAPACITOR,
            "measures.K.element: capacitor.k is out of service; allowed: enabled=yes in the script",
        ),
        (
            (
                "New Load.C",
                "New CapControl.CC element=Line.S1 capacitor=K type=kvar onsetting=3 offsetting=1\nNew Load.C",
            ),
            CAPACITOR,
            "measures.K.element: capacitor.k is under automatic control by CapControl.cc; allowed: elements without a "
            "control",
        ),
        (
            ("New Load.C", "New SwtControl.SC SwitchedObj=Line.S1 SwitchedTerm=1\nNew Load.C"),
            S1,
            "measures.S1.element: Line.S1 is under automatic control by SwtControl.sc; allowed: elements without a "
            "control",
        ),
        (
            ("tap=1.025", "tap=1.025 MaxTap=1.04"),
            TAP,
            "measures.T.high: position 2 is out of the winding's range; got 1.05 pu; allowed: 0.9 to 1.04 pu",
        ),
    ],
)
def test_elements_that_cannot_be_moved_by_hand(ring_in, change, measure, fault):
    assert fault in faults(ring_in, (measure, TIE, S1) if measure is not S1 else (S1, TIE), RING.replace(*change))


def test_moves_and_their_cost():
    then = {"T": -1, "K": 1, "S1": 0, "TIE": 1}
    assert moves_of(ALL, START, then) == {"T": 2, "S1": 1, "TIE": 1}
    assert moves_eur(ALL, START, then) == 2 * 50.0 + 10.0 + 10.0
    assert moves_of(ALL, START, START) == {}


def test_the_primary_of_mv5_is_moved_by_hand():
    """Its tap of 1.02 is position 2 of steps of 0.01: voltages follow it."""
    feeder = load_feeder(MV5)
    primary = TapMeasure(name="TR0", element="Transformer.TR0", low=-5, high=5, step_pu=0.01, winding=2)
    engine = Engine(feeder, CONFIG, (primary,))
    assert engine.measure_positions() == {"TR0": 2}
    none = np.zeros(len(engine.pods))
    first = engine.solve(none, none).vm_pu
    engine.set_measures({"TR0": 5})
    raised = engine.solve(none, none).vm_pu
    engine.close()
    at = engine.layout.nodes.index("MV5.1")
    assert raised[at] / first[at] == pytest.approx(1.05 / 1.02, abs=1e-3)


def test_the_ties_of_ieee123():
    """With a tie closed, a sectionaliser may be open."""
    feeder = load_feeder(IEEE123)
    switches = [SwitchMeasure(name=f"sw{k}", element=f"Line.sw{k}") for k in (2, 4, 7)]
    engine = Engine(feeder, CONFIG, switches)
    start = engine.measure_positions()
    assert start == {"sw2": 1, "sw4": 1, "sw7": 0}
    p_kw = np.array([pod.p_per_profile_kw for pod in feeder.pods.values()])
    loss_kw = [engine.solve(p_kw, 0.3 * p_kw).loss_kw]
    engine.set_measures({**start, "sw4": 0, "sw7": 1})
    loss_kw.append(engine.solve(p_kw, 0.3 * p_kw).loss_kw)
    engine.close()
    assert not engine.allows({**start, "sw4": 0})
    assert loss_kw[1] != pytest.approx(loss_kw[0], rel=0.02)


def test_a_tie_of_one_phase_never_closes_without_a_loop():
    """It would leave the other phases of what it feeds without a source."""
    switches = [SwitchMeasure(name=f"sw{k}", element=f"Line.sw{k}") for k in (2, 4, 7, 8)]
    engine = Engine(load_feeder(IEEE123), CONFIG, switches)
    engine.close()
    names = [switch.name for switch in switches]
    allowed = [each for each in product((0, 1), repeat=4) if engine.allows(dict(zip(names, each, strict=True)))]
    assert allowed == [(0, 1, 1, 0), (1, 0, 1, 0), (1, 1, 0, 0)]
