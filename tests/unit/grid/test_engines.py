"""Engines used again: as good as new to the last bit, whatever they were used for before."""

import gc
import threading
from functools import partial

import numpy as np
import pytest
from feeder_folders import CONFIG, LINE, LINE_YAML, MV5, REGULATED, REGULATED_YAML, feeder_in

from cosim.errors import PowerFlowError
from cosim.grid import circuit
from cosim.grid.engine import Engine
from cosim.grid.engines import Engines
from cosim.grid.feeder import load_feeder
from cosim.rng import rng_for

IEEE123 = MV5.parent / "ieee123"


@pytest.fixture(params=["regulated", "ieee123", "mv5"])
def feeder(request, tmp_path):
    if request.param == "regulated":
        return feeder_in(tmp_path / "regulated", REGULATED, REGULATED_YAML)
    return load_feeder({"ieee123": IEEE123, "mv5": MV5}[request.param])


def powers(feeder, n_step, name):
    """Powers (n_step, n_pod) that make regulators and capacitors move."""
    kw = np.array([pod.kw or 100.0 for pod in feeder.pods.values()])
    most = 1.1 if feeder.name == "ieee123" else 2.5
    level = rng_for(3, name).uniform(0.0, most, (n_step, 1))
    return level * kw * rng_for(3, name, "each").uniform(0.8, 1.2, (n_step, len(kw)))


def course(engine, p_kw):
    """Everything that a walk over the powers gives, as bytes."""
    found = []
    for row in p_kw:
        state = engine.solve(row, 0.3 * row)
        values = engine.control_values(engine.controls())
        parts = (state.vm_pu, state.va_deg, state.terminal_i_a, state.loading_pu, values)
        found.append(b"".join(np.asarray(part).tobytes() for part in parts))
    return found


def test_an_engine_that_comes_back_is_as_good_as_new(feeder):
    engines = Engines(partial(Engine, feeder, CONFIG))
    fresh, used = Engine(feeder, CONFIG), engines.take()
    at_first = used.controls()
    course(used, powers(feeder, 60, "before"))
    moved = used.controls() != at_first
    engines.give_back(used)
    again = engines.take()
    assert again is used
    assert moved == bool(used.control_names), "the test would show nothing if nothing had moved"
    assert again.controls() == fresh.controls() == at_first
    p_kw = powers(feeder, 40, "after")
    assert course(again, p_kw) == course(fresh, p_kw)
    engines.give_back(again)
    engines.close()
    fresh.close()


def test_positions_given_to_a_used_engine_mean_the_same_as_to_a_new_one(feeder):
    engines, whole = Engines(partial(Engine, feeder, CONFIG)), Engine(feeder, CONFIG)
    p_kw = powers(feeder, 40, "course")
    course(whole, p_kw[:20])
    saved = whole.controls()
    used = engines.take()
    course(used, powers(feeder, 30, "before"))
    engines.give_back(used)
    used = engines.take()
    used.restore_controls(saved)
    assert course(used, p_kw[20:]) == course(whole, p_kw[20:])
    engines.give_back(used)
    engines.close()
    whole.close()


def test_an_engine_in_which_a_solve_failed_is_not_used_again(tmp_path):
    engines = Engines(partial(Engine, feeder_in(tmp_path / "line", LINE, LINE_YAML), CONFIG))
    engine = engines.take()
    with pytest.raises(PowerFlowError):
        engine.solve(np.array([200_000.0, 0.0, 0.0]), np.zeros(3))
    engines.give_back(engine)
    other = engines.take()
    assert other is not engine
    engines.give_back(other)
    engines.close()


def test_networks_do_not_depend_on_those_asked_for_before(feeder):
    engines, order = Engines(partial(Engine, feeder, CONFIG)), rng_for(5, "order")
    walker = Engine(feeder, CONFIG)
    positions = [tuple(walker.control_values(walker.controls()).tolist())]
    for row in powers(feeder, 30, "positions"):
        walker.solve(row, 0.3 * row)
        positions.append(tuple(walker.control_values(walker.controls()).tolist()))
    positions = list(dict.fromkeys(positions))
    assert len(positions) > (3 if walker.control_names else 0)
    walker.close()
    for k in order.permutation(len(positions)):
        engines.network(positions[k])
    for position in positions[:: max(1, len(positions) // 6)]:
        alone = Engines(partial(Engine, feeder, CONFIG))
        found, expected = engines.network(position), alone.network(position)
        assert engines.network(position) is found
        for part in ("v", "v_base"):
            assert getattr(found, part).tobytes() == getattr(expected, part).tobytes()
        for part in ("y", "conductor_y"):
            one, other = getattr(found, part), getattr(expected, part)
            assert (one.data.tobytes(), one.indices.tolist()) == (other.data.tobytes(), other.indices.tolist())
        alone.close()
    engines.close()


def test_contexts_are_given_back_once(tmp_path, monkeypatch):
    monkeypatch.setattr(circuit, "_spare_contexts", [])
    engines = Engines(partial(Engine, feeder_in(tmp_path / "line", LINE, LINE_YAML), CONFIG))
    engines.give_back(engines.take())
    engines.network()
    assert circuit._spare_contexts == []
    engines.close()
    engines.close()
    assert len(circuit._spare_contexts) == 2


def test_of_engines_that_nobody_holds_the_next_frees_the_circuits(tmp_path, monkeypatch):
    """Python may find them in any thread, such as that of an MQTT connection; OpenDSS must not be called there."""
    for contexts in ("_spare_contexts", "_left_contexts"):
        monkeypatch.setattr(circuit, contexts, [])
    make = partial(Engine, feeder_in(tmp_path / "line", LINE, LINE_YAML), CONFIG)
    forgotten = Engines(make)
    forgotten.give_back(forgotten.take())
    forgotten.network()
    del forgotten
    collector = threading.Thread(target=gc.collect)
    collector.start()
    collector.join()
    assert (len(circuit._spare_contexts), len(circuit._left_contexts)) == (0, 2)
    engine = make()
    assert (len(circuit._spare_contexts), len(circuit._left_contexts)) == (1, 0)
    engine.close()
