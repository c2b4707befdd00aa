"""The contract of every adapter: one shape, outputs as declared, and a state that can be saved and given back.

Each adapter is driven by itself with the inputs that it got in a short run; the recorder, which keeps nothing but what
the result file holds, is left out where it comes to state.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosim import load_scenario, run
from cosim.case import Case, open_case
from cosim.coordination.messages import Message as Told
from cosim.coordination.messages import message_to_plain
from cosim.domain.frames import EventTable, Floats, Message, Signal, frozen
from cosim.io.transport import MemoryBus
from cosim.wiring import CLASSES, links_of
from simulators._base import Adapter, Output
from simulators.wire import decode, encode

SCENARIO = Path(__file__).parents[2] / "scenarios" / "mv5_threshold.yaml"
THRESHOLDS_KW = {"SS3.battery": -600.0}
OVERRIDES = (
    "start=2016-07-23T10:00:00+01:00",
    "duration=150min",
    "step=5min",
    "transport=memory",
    "estimator={method: wls, compare: [history, genetic], genetic: {population: 12, generations: 3, parents: 4}}",
    f"operator.thresholds_kw={json.dumps(THRESHOLDS_KW)}",
    "sensors.faults={default: {delay_s: 4, delay_jitter_s: 4, dropout: 0.1, stuck: 0.2, stuck_steps: 6}}",
    "limits.loading_max_pu=0.4",
    "market={}",
    "settlement={missing: 0.05, compensation_eur_per_kwh: 0.05, failures: 2}",
    "aggregators={homes: {delivery: any_split}}",
    "resources.pv={pods: all_pv, pv: {}, delivery: {shortfall: 0.3, between_outages: 2h, outage: 30min}}",
    "resources.loads={pods: all_load, load: {curtailable: 0.5, rebound: [0.4, 0.2]}, price_spread: 0.2}",
    "resources.store={pods: [SS4.load], battery: {p_max_kw: 60, e_max_kwh: 80, rest: 0.5, rest_kw: 10}, "
    "aggregator: homes, down_eur_per_kwh: 0.1}",
    "resources.car={pods: [SS4.load], vehicle: {p_max_kw: 22, stays: [{arrive: '09:00', depart: '15:00', "
    "need_kwh: 70}], charging: evenly}, aggregator: homes, down_eur_per_kwh: 0.1}",
    "resources.heat={pods: [SS4.load], heat_pump: {p_max_kw: 9, capacity_kwh_per_k: 5, resistance_k_per_kw: 2}, "
    "aggregator: homes, down_eur_per_kwh: 0.1}",
)
COORDINATED = (
    "coordination.same_aggregator=false",
    "estimator={method: wls, compare: []}",
    "transmission.need.share=0.6",
)
BRP = "market.needs.brp={buyer: brp, direction: up, need_kw: 30, max_price_eur_per_kwh: 0.5, window: {}}"
VARIANTS = {
    "next": ("operator.action=next",),
    "same": ("operator.action=same",),
    "cycle": (*COORDINATED, "coordination.scheme=givisiez_hybrid"),
    "common": (*COORDINATED, "coordination.scheme=smartnet_integrated", BRP),
}
"""Runs in which adapters are watched: a market with orders to storage that act later or at once, and schemes of
coordination in which operators go back and forth, and in which a market operator clears for all."""
PARTIES = ("generators", "brp", "tso", "imo")
AT_MARKET = [name for name in CLASSES if name not in ("recorder", *PARTIES)]
DRIVEN = [
    *(("next", name) for name in AT_MARKET),
    *(("same", name) for name in AT_MARKET),
    *(("cycle", name) for name in ("aggregator", "generators", "dso", "tso")),
    *(("common", name) for name in ("aggregator", "generators", "brp", "dso", "tso", "imo")),
]
EACH = pytest.mark.parametrize(("recorded", "name"), DRIVEN, indirect=["recorded"])
WITH_A_MARKET = pytest.mark.parametrize("recorded", ["next", "same"], indirect=True)
Outputs = list[dict[str, dict[str, Any]]]


def adapter_class(name: str) -> type[Adapter]:
    module, _, class_name = CLASSES[name].partition(":")
    return getattr(importlib.import_module(module), class_name)


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What happened in a run: its case, the steps (time, inputs) of each simulator, and the packets that were waiting
    at each step of the gateway."""

    case: Case
    steps: dict[str, list[tuple[int, Any]]]
    packets: list[list[tuple[str, bytes]]]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Recorded]:
    """A variant's run, made once: pytest would make a fixture with parameters again and again."""
    return functools.cache(lambda variant: recording(variant, tmp_path_factory.mktemp("contract")))


@pytest.fixture
def recorded(request: pytest.FixtureRequest, record: Callable[[str], Recorded]) -> Recorded:
    return record(request.param)


def recording(variant: str, folder: Path) -> Recorded:
    with pytest.MonkeyPatch.context() as patch:
        loaded = load_scenario(SCENARIO, [*OVERRIDES, *VARIANTS[variant]])
        found = Recorded(open_case(loaded), {}, [])
        step, receive = Adapter.step, adapter_class("gateway").advance

        def spy_step(self: Adapter, time: int, inputs: Any, max_advance: int) -> int | None:
            found.steps.setdefault(self.sid, []).append((time, _copied(inputs)))
            return step(self, time, inputs, max_advance)

        def spy_advance(self: Any, t_s: int, inputs: Any) -> Any:
            found.packets.append(list(self._transport._arrived))
            return receive(self, t_s, inputs)

        patch.setattr(Adapter, "step", spy_step)
        patch.setattr(adapter_class("gateway"), "advance", spy_advance)
        run(loaded, folder / "run.h5")
    return found


def _copied(inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return {key: _copied(value) for key, value in inputs.items()}
    return frozen(inputs, inputs.dtype) if isinstance(inputs, np.ndarray) else copy.deepcopy(inputs)


class Driver:
    """One adapter by itself, fed with what was recorded."""

    def __init__(self, name: str, recorded: Recorded, *, wire: bool = False) -> None:
        self.name, self.recorded, self.bus = name, recorded, MemoryBus()
        self.adapter = adapter_class(name)()
        options: dict[str, Any] = {"operator": {"thresholds_kw": THRESHOLDS_KW}}
        if name in ("sensors", "gateway"):
            run_id = json.loads(recorded.packets[0][0][1])["run"]
            options[name] = {"run": run_id, "bus": self.bus}
        if name == "sensors":
            options[name]["began"] = (0, 0.0)
        self.meta = self.adapter.init(name, case=recorded.case, wire=wire, **options.get(name, {}))
        self.models = {m for m, d in self.meta["models"].items() if d["public"] and m != "foreign_pod"}
        self.created = {model: self.adapter.create(1, model)[0] for model in self.models}
        self.publisher, self.heard = self.bus.connect(), self.bus.connect()
        self.heard.subscribe()

    def drive(self, first: int, last: int) -> Outputs:
        """All outputs of the recorded steps from ``first`` to, exclusive, ``last``."""
        return [self.step(k) for k in range(first, last)]

    def step(self, k: int) -> dict[str, dict[str, Any]]:
        time, inputs = self.recorded.steps[self.name][k]
        if self.name == "gateway":
            for topic, payload in self.recorded.packets[k]:
                self.publisher.publish(topic, payload)
        before = _copied(inputs)
        assert self.adapter.step(time, inputs, time + 1) == time + self.recorded.case.clock.step_s
        assert_equal(inputs, before)
        given = self.adapter.get_data({m: [_name(o) for o in self.outputs(m)] for m in self.models if self.outputs(m)})
        packets = self.heard.receive(0.0) if self.name == "sensors" else []
        return {**given, "packets": dict(enumerate(packets))}

    def outputs(self, model: str) -> tuple[Output, ...]:
        return self.adapter.outputs.get(model, ())


@pytest.fixture
def driver(recorded: Recorded) -> Iterator[Callable[..., Driver]]:
    drivers: list[Driver] = []

    def make(name: str, **options: Any) -> Driver:
        drivers.append(Driver(name, recorded, **options))
        return drivers[-1]

    yield make
    for made in drivers:
        made.adapter.finalize()


def assert_equal(found: Any, expected: Any, place: str = "") -> None:
    """Bit for bit, NaN included."""
    assert type(found) is type(expected), place
    if isinstance(found, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), place
        assert found.tobytes() == expected.tobytes(), place
    elif isinstance(found, dict):
        assert list(found) == list(expected), place
        for key, value in found.items():
            assert_equal(value, expected[key], f"{place}/{key}")
    elif isinstance(found, list | tuple):
        assert len(found) == len(expected), place
        for k, (mine, other) in enumerate(zip(found, expected, strict=True)):
            assert_equal(mine, other, f"{place}/{k}")
    elif isinstance(found, Told):
        assert_equal(message_to_plain(found), message_to_plain(expected), place)
    else:
        assert found == expected or found != found, place


def _name(output: Output) -> str:
    return output.attribute if isinstance(output, Signal) else output.name


@pytest.mark.parametrize("name", CLASSES)
def test_adapter_has_the_one_shape(name: str) -> None:
    adapter = adapter_class(name)()
    assert isinstance(adapter, Adapter)
    for method in ("init", "create", "step", "get_data", "state", "restore", "finalize"):
        assert callable(getattr(adapter, method))
    overridden = {m for m in ("step", "get_data", "finalize", "next_step") if m in vars(type(adapter))}
    assert overridden == set(), "mosaik's protocol is the base's affair"
    assert type(adapter).__module__ == CLASSES[name].partition(":")[0]


@EACH
def test_memory_is_a_frozen_dataclass(driver: Callable[..., Driver], name: str) -> None:
    memory = driver(name).adapter.memory
    assert dataclasses.is_dataclass(memory)
    assert type(memory).__dataclass_params__.frozen  # type: ignore[union-attr]


@EACH
def test_every_link_leads_to_a_declared_attribute(driver: Callable[..., Driver], name: str) -> None:
    made = driver(name)
    models = made.meta["models"]
    for link in links_of(made.recorded.case.scenario, made.recorded.case.scheme):
        for port in (link.source, link.target):
            if port.simulator == name:
                assert port.attribute in models[port.entity.partition(":")[0]]["attrs"], str(port)


@EACH
def test_outputs_are_as_declared(driver: Callable[..., Driver], name: str) -> None:
    made = driver(name)
    for k in range(len(made.recorded.steps[name])):
        given = made.step(k)
        for model in made.models:
            for output in made.outputs(model):
                place = f"{name}/{model}/{_name(output)}"
                if isinstance(output, Message) and output.once and _name(output) not in given[model]:
                    continue
                value = given[model][_name(output)]
                if isinstance(output, EventTable):
                    check_rows(output, value, place)
                elif isinstance(output, Message):
                    check_message(value, place)
                else:
                    assert isinstance(value, np.ndarray), place
                    assert value.shape == (len(output.elements),), place
                    assert not value.flags.writeable, place
                    assert value.dtype == output.dtype, place
                    if output.codes:
                        assert set(value.tolist()) <= set(range(len(output.codes))), place
    assert given


def check_rows(table: EventTable, rows: Any, place: str) -> None:
    assert isinstance(rows, list), place
    for row in rows:
        assert set(row) == set(table.columns), place
        assert all(isinstance(row[c], str) == (unit is None) for c, unit in table.columns.items()), place


def check_message(value: Any, place: str) -> None:
    """Plain JSON but for arrays and messages of parties."""
    assert isinstance(value, list), place
    assert_equal(decode(json.loads(json.dumps(encode(value), allow_nan=False))), decode(value), place)


@EACH
def test_entities_describe_their_outputs_in_plain_json(driver: Callable[..., Driver], name: str) -> None:
    made = driver(name)
    assert made.models
    for model, created in made.created.items():
        assert created["eid"] == model
        described = json.loads(json.dumps(created["extra_info"]))
        assert [d["kind"] for d in described] == [type(o).__name__ for o in made.outputs(model)]


@EACH
def test_state_given_back_continues_bit_for_bit(driver: Callable[..., Driver], name: str) -> None:
    times = [time for time, _ in driver(name).recorded.steps[name]]
    steps = len(times)
    between = [k for k in range(1, steps) if times[k] != times[k - 1]]
    for cut in {between[0], between[len(between) // 3 - 1], between[len(between) // 2 + 1], between[-1]}:
        whole, first, second = driver(name), driver(name), driver(name)
        expected = whole.drive(0, steps)
        found = first.drive(0, cut)
        saved = json.dumps(first.adapter.state())
        second.adapter.restore(json.loads(saved))
        assert json.dumps(second.adapter.state()) == saved
        assert_equal(found + second.drive(cut, steps), expected)


@WITH_A_MARKET
def test_state_given_back_between_offer_and_award(driver: Callable[..., Driver]) -> None:
    """Every cut right after a gate has closed, with offers open that are awarded in the next step."""
    whole = driver("aggregator")
    steps = whole.recorded.steps["aggregator"]
    awarded = [k for k, (_, inputs) in enumerate(steps) if any(inputs["award"]["from_market"].values())]
    assert {whole.recorded.case.clock.begins_mtu(steps[k][0]) for k in awarded} == {True}
    assert len(awarded) >= 3
    expected = whole.drive(0, len(steps))
    for cut in awarded:
        first, second = driver("aggregator"), driver("aggregator")
        first.drive(0, cut)
        saved = json.dumps(first.adapter.state(), allow_nan=False)
        assert len(json.loads(saved)["sessions"]) == 1
        second.adapter.restore(json.loads(saved))
        assert json.dumps(second.adapter.state()) == saved
        assert_equal(second.drive(cut, len(steps)), expected[cut:])
        assert expected[cut]["resource"]["activations"], "what was awarded is activated"


@WITH_A_MARKET
def test_market_messages_are_not_empty(recorded: Recorded) -> None:
    """The tests of messages would pass for a market in which nothing happens."""
    for name, model, attribute in (
        ("dso", "declaration", "sessions"),
        ("market", "request", "situations"),
        ("market", "book", "sessions"),
        ("aggregator", "award", "from_market"),
    ):
        taken = [value for _, inputs in recorded.steps[name] for value in inputs[model][attribute].values()]
        assert sum(len(value) > 0 for value in taken) >= 3, f"{name}/{model}"
    awards = [
        award for _, inputs in recorded.steps["aggregator"] for award in inputs["award"]["from_market"]["market.award"]
    ]
    sellers = {award["bid"].partition("/")[0] for award in awards}
    assert sellers == {"aggregator", "homes"}


@pytest.mark.parametrize("recorded", ["cycle", "common"], indirect=True)
def test_parties_hear_and_answer(recorded: Recorded) -> None:
    """The tests of messages would pass for schemes in which nothing happens."""
    boxes = {
        "cycle": {"dso": ["tso"], "tso": ["dso", "aggregator", "generators"]},
        "common": {"dso": ["imo"], "tso": ["imo"], "imo": ["dso", "tso", "aggregator", "generators", "brp"]},
    }["cycle" if "imo" not in recorded.steps else "common"]
    for name, senders in boxes.items():
        steps = recorded.steps[name]
        assert len({time for time, _ in steps}) < len(steps) or name == "imo", f"{name} answers within the step"
        for sender in senders:
            mail = [
                m
                for _, i in steps
                for box in i.values()
                for m in box.get(f"from_{sender}", {}).get(f"{sender}.mail", [])
            ]
            assert len({message.t_s for message in mail}) >= 9, f"{sender} to {name}"
    for name in ("aggregator", "generators"):
        buyer = "imo" if "imo" in recorded.steps else "tso"
        awarded = [inputs["award"][f"from_{buyer}"][f"{buyer}.award"] for _, inputs in recorded.steps[name]]
        assert sum(map(bool, awarded)) >= 3, name


@pytest.mark.parametrize(
    ("recorded", "name"),
    [
        *(("next", name) for name in ("grid", "counterfactual", "sensors", "operator", "aggregator")),
        ("cycle", "generators"),
    ],
    indirect=["recorded"],
)
def test_state_matters(driver: Callable[..., Driver], name: str) -> None:
    """The test above would pass for any adapter that remembers nothing."""
    made = driver(name)
    fresh, steps = json.dumps(made.adapter.state()), len(made.recorded.steps[name])
    made.drive(0, steps)
    assert json.dumps(made.adapter.state()) != fresh


@EACH
def test_over_the_wire_the_values_are_the_same(driver: Callable[..., Driver], name: str) -> None:
    here, there = driver(name), driver(name, wire=True)
    for k in range(12):
        sent = {key: value for key, value in there.step(k).items() if key != "packets"}
        received = decode(json.loads(json.dumps(sent)))
        assert_equal(received, {key: value for key, value in here.step(k).items() if key != "packets"})


@EACH
def test_nothing_hides_in_globals(driver: Callable[..., Driver], name: str) -> None:
    shared = ("simulators._base", "simulators._party")
    modules = {m: importlib.import_module(m) for m in (CLASSES[name].partition(":")[0], *shared)}
    made = driver(name)

    def globals_now() -> dict[tuple[str, str], Any]:
        values = {(m, key): value for m, module in modules.items() for key, value in vars(module).items()}
        classes = {(m, f"{c.__name__}.{k}"): v for m, c in _classes(modules) for k, v in vars(c).items()}
        both = values | classes
        return {key: repr(value) for key, value in both.items() if key[1] != "__builtins__"}

    before = globals_now()
    made.drive(0, 4)
    assert globals_now() == before


REGULATED = """\
Clear
New Circuit.regulated bus1=SRC basekV=20 pu=1.0 phases=3 MVAsc3=200 MVAsc1=200
New Line.L1 bus1=SRC bus2=A R1=0.3 X1=0.3 R0=0.9 X0=0.9 C1=0 C0=0 Length=5 Units=km
New Transformer.REG phases=3 windings=2 XHL=4 wdg=1 bus=A kV=20 kVA=4000 wdg=2 bus=B kV=20 kVA=4000
New RegControl.RC transformer=REG winding=2 vreg=120 band=2 ptratio=96.225
New Line.L2 bus1=B bus2=C R1=0.3 X1=0.3 R0=0.9 X0=0.9 C1=0 C0=0 Length=5 Units=km
New Capacitor.C1 bus1=C kV=20 kvar=600 numsteps=2
New CapControl.CC element=Line.L2 terminal=1 capacitor=C1 type=kvar onsetting=300 offsetting=-200
New Load.A bus1=C phases=3 kV=20 kW=1000 PF=0.9 model=1 Vminpu=0.5 Vmaxpu=1.5
New Storage.S bus1=C phases=3 kV=20 kWrated=300 kVA=300 kWhrated=600 %reserve=20 %EffCharge=90 %EffDischarge=80
~ %IdlingkW=1 State=idling DispMode=external Vminpu=0.5 Vmaxpu=1.5
Set VoltageBases=[20]
CalcVoltageBases
"""
REGULATED_YAML = """\
name: regulated
head: {branch: Line.L1, end: SRC}
pods:
  A: {element: Load.A, kind: load, kw: 1000, profile: constant}
  S: {element: Storage.S, kind: storage}
"""


def regulated_case(folder: Path) -> Case:
    feeder, scenario = folder / "regulated", folder / "scenario.yaml"
    feeder.mkdir()
    (feeder / "Master.dss").write_text(REGULATED)
    (feeder / "feeder.yaml").write_text(REGULATED_YAML)
    scenario.write_text("name: regulated\nstart: 2016-07-21T00:00:00+00:00\nduration: 1d\nfeeder: regulated\n")
    return open_case(load_scenario(scenario))


def grid_of(case: Case) -> Adapter:
    grid = adapter_class("grid")()
    grid.init("grid", case=case, wire=False)
    return grid


def walk(grid: Adapter, first: int, last: int, load_kw: Floats, order_kw: Floats) -> Outputs:
    """Steps of a grid under a wandering load; every seventh step a foreign simulator sets the reactive power."""
    given = []
    for k in range(first, last):
        inputs = {
            "pod": {
                "profile_p_kw": {"profiles.pod": frozen([load_kw[k], 0.0])},
                "profile_q_kvar": {"profiles.pod": frozen([0.4 * load_kw[k], 0.0])},
            },
            "order": {"p_kw": {"operator.order": frozen([order_kw[k]])}},
        }
        if k % 7 == 3:
            inputs["foreign_pod:A"] = {"q_kvar": {"plant.0": 0.3 * load_kw[k]}}
        grid.step(900 * k, inputs, 900 * k + 1)
        given.append({"bus": {"vm_pu": grid._produced["bus", "vm_pu"]}, "all": dict(grid._produced)})
    return given


def test_taps_capacitors_energy_and_foreign_values_are_given_back(tmp_path: Path) -> None:
    case, chance = regulated_case(tmp_path), np.random.default_rng(3)
    load_kw, order_kw = chance.uniform(200.0, 3500.0, 60), chance.uniform(-300.0, 300.0, 60)
    whole = grid_of(case)
    expected, states = [], []
    for k in range(60):
        states.append(json.dumps(whole.state()))
        expected += walk(whole, k, k + 1, load_kw, order_kw)
    controls = {json.dumps(json.loads(state)["controls"]) for state in states}
    assert len(controls) > 10, "taps and capacitors move"
    assert json.loads(states[40])["foreign"]["q_kvar"] == {"A": 0.3 * load_kw[38]}
    assert_equal(walk(grid_of(case), 0, 60, load_kw, order_kw), expected)
    for cut in (1, 17, 40, 59):
        resumed = grid_of(case)
        resumed.restore(json.loads(states[cut]))
        assert_equal(walk(resumed, cut, 60, load_kw, order_kw), expected[cut:])
    moved = grid_of(case)
    differing = walk(moved, 40, 60, load_kw, order_kw)
    assert any(
        a["bus"]["vm_pu"].tobytes() != b["bus"]["vm_pu"].tobytes()
        for a, b in zip(differing, expected[40:], strict=True)
    )


def _classes(modules: dict[str, Any]) -> list[tuple[str, type]]:
    return [(m, v) for m, module in modules.items() for v in vars(module).values() if isinstance(v, type)]
