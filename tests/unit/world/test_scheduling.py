"""Less arithmetic in mosaik's scheduler changes no step: what every simulator did and heard, with and without."""

import asyncio
from contextlib import nullcontext, suppress

import mosaik
import mosaik_api_v3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mosaik.exceptions import SimulationError
from mosaik.tiered_time import TieredDuration, TieredTime

from cosim.world import scheduling
from cosim.world.scheduling import lean_scheduling

LOG: list[str] = []


class Toy(mosaik_api_v3.Simulator):
    """Counts; a hybrid one speaks until its count within a step is ``talks``, an event-based one only answers."""

    def __init__(self) -> None:
        super().__init__({"api_version": "3.0", "type": "time-based", "models": {}})

    def init(self, sid, time_resolution=1.0, *, kind="time-based", every=1, talks=0):
        self._sid, self._kind, self._every, self._talks = sid, kind, every, talks
        self._time, self._said = -1, 0
        model = {"public": True, "params": [], "attrs": ["heard", "said", "state"]}
        if kind == "hybrid":
            model |= {"trigger": ["heard"], "non-persistent": ["said"]}
        if kind == "event-based":
            model["attrs"] = ["heard"]
        self.meta |= {"type": kind, "models": {"toy": model}}
        return self.meta

    def create(self, num, model):
        return [{"eid": "toy", "type": model}]

    def step(self, time, inputs, max_advance):
        self._said = self._said + 1 if time == self._time else 0
        self._time = time
        heard = {name: dict(sorted(given.items())) for name, given in inputs.get("toy", {}).items()}
        LOG.append(f"{self._sid}@{time}.{self._said} {heard}")
        return None if self._kind == "event-based" else time + self._every

    def get_data(self, outputs):
        told = {"said": f"{self._time}.{self._said}", "state": self._said}
        speaks = self._kind == "time-based" or self._said < self._talks
        return {"toy": {name: told[name] for name in outputs["toy"] if name != "said" or speaks}}


def _steps(until: int, most_answers: int = 100) -> list[str]:
    """Time-based simulators at two rates, two hybrid ones that answer each other, one woken by events, and one that
    hears of it a step later."""
    LOG.clear()
    try:
        with mosaik.World(
            {"Toy": {"python": f"{__name__}:Toy"}},
            skip_greetings=True,
            configure_logging=False,
            cache=False,
            max_loop_iterations=most_answers,
        ) as world:
            meter = world.start("Toy", sim_id="meter").toy()
            slow = world.start("Toy", sim_id="slow", every=3).toy()
            with world.group():
                dso = world.start("Toy", sim_id="dso", kind="hybrid", talks=3).toy()
                tso = world.start("Toy", sim_id="tso", kind="hybrid", talks=2).toy()
            clerk = world.start("Toy", sim_id="clerk", kind="event-based").toy()
            recorder = world.start("Toy", sim_id="recorder").toy()
            world.connect(meter, slow, ("state", "heard"))
            world.connect(meter, dso, ("state", "heard"))
            world.connect(dso, tso, ("said", "heard"))
            world.connect(tso, dso, ("said", "heard"), weak=True)
            world.connect(tso, clerk, ("said", "heard"))
            world.connect(dso, meter, ("state", "heard"), time_shifted=True, initial_data={"state": -1})
            for source in (meter, slow, dso, tso):
                world.connect(source, recorder, ("state", "heard"))
            world.run(until=until, print_progress=False)
    finally:
        asyncio.set_event_loop(None)
    return list(LOG)


def _of(simulator: str, steps: list[str]) -> str:
    return "\n".join(step for step in steps if step.startswith(f"{simulator}@"))


@pytest.mark.filterwarnings("ignore:.*is not recommended")
@pytest.mark.parametrize("until", [1, 2, 7, 24])
def test_every_simulator_does_and_hears_the_same(until):
    theirs = _steps(until)
    with lean_scheduling():
        ours = _steps(until)
    for who in ("meter", "slow", "dso", "tso", "clerk", "recorder"):
        assert _of(who, ours) == _of(who, theirs)
        assert _of(who, ours)
    assert f"dso@{until - 1}.2 " in "\n".join(ours)
    assert sum(step.startswith("recorder") for step in ours) == until


@pytest.mark.filterwarnings("ignore:.*is not recommended")
@pytest.mark.parametrize("scheduling_of", [nullcontext, lean_scheduling])
def test_who_answers_too_often_is_named(scheduling_of):
    named = r"Simulator dso has performed a sub-step more than 2 times. \(The complete now is 0:2\.\)"
    with scheduling_of(), pytest.raises(SimulationError, match=named):
        _steps(3, most_answers=2)


_tier = st.integers(0, 5)


@st.composite
def _sums(draw):
    time = draw(st.lists(_tier, min_size=1, max_size=3))
    cutoff = draw(st.integers(1, len(time)))
    tiers = draw(st.lists(_tier, min_size=cutoff, max_size=4))
    return TieredTime(*time), TieredDuration(*tiers, cutoff=cutoff, pre_length=len(time))


@given(_sums())
def test_times_add_up_alike(terms):
    time, duration = terms
    theirs = time + duration
    with lean_scheduling():
        assert time + duration == theirs


def test_wrong_lengths_do_not_add_up():
    with lean_scheduling(), pytest.raises(AssertionError, match="1 tiers and an interval from 2"):
        TieredTime(1) + TieredDuration(1, 0)


def _in_place():
    return tuple(getattr(place, name) for place, name, _, _ in scheduling._REPLACED)


def test_mosaik_is_left_as_it_was():
    before = _in_place()
    with suppress(KeyError), lean_scheduling():
        assert all(now is not old for now, old in zip(_in_place(), before, strict=True))
        raise KeyError
    assert _in_place() == before


def test_another_version_runs_as_it_comes(monkeypatch):
    monkeypatch.setattr(scheduling, "version", lambda name: "3.8.0")
    before = _in_place()
    with lean_scheduling():
        assert _in_place() == before
