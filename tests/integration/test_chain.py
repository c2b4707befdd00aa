"""The chain end to end: who steps when, known numbers, and what happens when a link of it is weak."""

from __future__ import annotations

import json
from datetime import UTC, datetime, time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from short_runs import EXACT, NO_FAULTS, SCENARIO, short_run

from cosim import load_scenario, open_results
from cosim.case import open_case
from cosim.domain.flexibility import StorageUnit
from cosim.domain.measurement import Quality
from cosim.errors import PowerFlowError
from cosim.estimation.history import history_window
from cosim.flexibility.thresholds import after, decide
from cosim.io.profiles import history
from cosim.report.accuracy import head_error, site_errors
from cosim.report.reading import Reading
from cosim.scenario.schema import Discharge
from simulators._base import Adapter

BATTERY = "SS3.battery"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every step of our simulators as ``simulator@step``, in order."""
    taken: list[str] = []
    original = Adapter.step

    def step(self, time, inputs, max_advance):
        taken.append(f"{self.sid}@{self.case.clock.step_index(time)}")
        return original(self, time, inputs, max_advance)

    monkeypatch.setattr(Adapter, "step", step)
    return taken


def in_order(steps: list[str], *names: str) -> str:
    """The steps of some simulators, as text."""
    return " ".join(step for step in steps if step.partition("@")[0] in names)


def test_order_of_steps_when_orders_act_in_the_next_mtu(tmp_path: Path, steps: list[str]) -> None:
    short_run(tmp_path / "run.h5", "duration=45min")
    assert in_order(steps, "profiles", "grid", "sensors", "gateway", "estimator", "operator") == (
        "profiles@0 grid@0 sensors@0 gateway@0 estimator@0 operator@0 "
        "profiles@1 grid@1 sensors@1 gateway@1 estimator@1 operator@1 "
        "profiles@2 grid@2 sensors@2 gateway@2 estimator@2 operator@2"
    )
    assert in_order(steps, "profiles", "counterfactual", "recorder") == (
        "profiles@0 counterfactual@0 recorder@0 profiles@1 counterfactual@1 recorder@1 "
        "profiles@2 counterfactual@2 recorder@2"
    )
    assert in_order(steps, "operator", "recorder") == (
        "operator@0 recorder@0 operator@1 recorder@1 operator@2 recorder@2"
    )


def test_order_of_steps_when_orders_act_at_once(tmp_path: Path, steps: list[str]) -> None:
    short_run(tmp_path / "run.h5", "duration=45min", "operator.action=same")
    assert in_order(steps, "grid", "sensors", "gateway", "estimator", "operator") == (
        "grid@0 sensors@0 gateway@0 estimator@0 operator@0 grid@0 "
        "grid@1 sensors@1 gateway@1 estimator@1 operator@1 grid@1 "
        "grid@2 sensors@2 gateway@2 estimator@2 operator@2 grid@2"
    )
    assert in_order(steps, "grid", "operator", "recorder") == (
        "grid@0 operator@0 grid@0 recorder@0 grid@1 operator@1 grid@1 recorder@1 grid@2 operator@2 grid@2 recorder@2"
    )


def table_of(path: Path, *signals: str) -> list[np.ndarray]:
    with open_results(path) as results:
        return [results.frame(signal).to_numpy()[:, 0] for signal in signals]


def test_order_reaches_the_grid_one_mtu_later(tmp_path: Path) -> None:
    finished = short_run(tmp_path / "run.h5", *EXACT)
    ordered_kw, stored_kw = table_of(finished.path, "operator/order/p_kw", "grid/storage/p_kw")
    assert stored_kw[0] == 0.0
    assert np.array_equal(stored_kw[1:], ordered_kw[:-1])
    assert len(np.unique(ordered_kw)) >= 6


def test_order_reaches_the_grid_at_once(tmp_path: Path) -> None:
    finished = short_run(tmp_path / "run.h5", *EXACT, "operator.action=same")
    ordered_kw, stored_kw = table_of(finished.path, "operator/order/p_kw", "grid/storage/p_kw")
    assert np.array_equal(stored_kw, ordered_kw)
    assert ordered_kw[0] > 0.0


@pytest.mark.parametrize("action", ["next", "same"])
def test_estimate_takes_out_exactly_the_orders_in_what_was_measured(tmp_path: Path, action: str) -> None:
    """Around noon the battery gets full and does less than it was doing: its old order must not be taken out again."""
    finished = short_run(tmp_path / "run.h5", *EXACT, f"operator.action={action}", "duration=4h")
    estimated_kw, idle_kw = table_of(finished.path, "estimator/head/idle_p_kw", "counterfactual/head/p_kw")
    stored_kwh, measured_kw = table_of(finished.path, "grid/storage/e_kwh", "sensors/reading/value")
    assert stored_kwh[-1] == 500.0
    assert estimated_kw == pytest.approx(idle_kw, abs=2.0)
    with open_results(finished.path) as results:
        head, sites = head_error(Reading(results)), site_errors(Reading(results))
    assert head is not None
    assert head.maximum_kw < 2.0
    assert sites[0].mean_absolute_kw < 10.0
    if action == "same":
        assert measured_kw == pytest.approx(idle_kw, abs=1e-9), "orders are decided on the state before them"


@pytest.mark.parametrize(("action", "deepest_kw"), [("same", -619.5), ("next", -674.0)])
def test_deepest_day_meets_its_prediction(tmp_path: Path, action: str, deepest_kw: float) -> None:
    """23 July from the reserve, and the morning after: `EXACT` readings, estimate by weighted least squares."""
    overrides = ["start=2016-07-23T00:00:00+01:00", "duration=31h", "operator.thresholds_kw=auto"]
    finished = short_run(tmp_path / "run.h5", *EXACT, f"operator.action={action}", *overrides)
    with open_results(finished.path) as results:
        head = results.series("grid/head/p_kw")
        idle = results.series("counterfactual/head/p_kw")
        stored = results.series("grid/storage/e_kwh")
        in_the_morning_kwh = results.series("grid/storage/e_kwh", start="2016-07-24T06:00+01:00").iloc[0]
        prepared = json.loads(results.attributes["prepared"])
    assert prepared["day"] == "2016-07-23"
    assert idle.min() == pytest.approx(-863.0, abs=0.05)
    assert prepared["head_min_idle_kw"] == pytest.approx(idle.min(), abs=0.01)
    assert prepared["head_min_kw"] == pytest.approx(deepest_kw, abs=0.5)
    assert head.min() == pytest.approx(prepared["head_min_kw"], abs=5.0)
    assert stored.max() == pytest.approx(500.0, abs=1.0)
    assert in_the_morning_kwh == pytest.approx(50.0, abs=0.01), "day 2 starts at the reserve"


UNIT = StorageUnit("battery", 250.0, 500.0, 50.0, 0.95, 0.95)


def activation_kw(*, sees_its_own_effect: bool) -> list[float]:
    """Orders for eight MTUs of a head at -700 kW, each decided in the MTU before."""
    head_idle_kw, p_kw, e_kwh, orders = -700.0, np.zeros(1), np.array([50.0]), []
    for _ in range(8):
        seen = np.array(head_idle_kw + p_kw[0] if sees_its_own_effect else head_idle_kw)
        e_kwh = after([UNIT], p_kw, e_kwh, 900)
        p_kw = decide([UNIT], np.array([-600.0]), Discharge(), seen, e_kwh, time(12, 0), 900)
        orders.append(float(p_kw[0]))
    return orders


def test_rule_settles_because_it_does_not_see_its_own_effect() -> None:
    assert activation_kw(sees_its_own_effect=False) == [100.0] * 8
    assert activation_kw(sees_its_own_effect=True) == [100.0, 0.0] * 4, "the trap: clearing on the activated state"


def test_activation_in_the_chain_does_not_oscillate(tmp_path: Path) -> None:
    finished = short_run(tmp_path / "run.h5", *EXACT)
    idle_kw, stored_kw = table_of(finished.path, "counterfactual/head/p_kw", "grid/storage/p_kw")
    wanted_kw = np.clip(-600.0 - idle_kw[:-1], 0.0, 250.0)
    assert stored_kw[1:] == pytest.approx(wanted_kw, abs=2.0)


@pytest.mark.parametrize("action", ["next", "same"])
def test_order_holds_for_a_whole_mtu_of_several_steps(tmp_path: Path, action: str) -> None:
    finished = short_run(tmp_path / "run.h5", *EXACT, "step=5min", f"operator.action={action}")
    ordered_kw, stored_kw, e_kwh = table_of(
        finished.path, "operator/order/p_kw", "grid/storage/p_kw", "grid/storage/e_kwh"
    )
    by_mtu_kw = stored_kw.reshape(-1, 3)
    assert np.ptp(by_mtu_kw, axis=1).max() == 0.0
    decided_kw = ordered_kw[2:-1:3] if action == "next" else ordered_kw[0::3]
    assert np.array_equal(by_mtu_kw[1:, 0] if action == "next" else by_mtu_kw[:, 0], decided_kw)
    assert np.count_nonzero(np.diff(by_mtu_kw[:, 0])) >= 5
    assert np.diff(e_kwh) == pytest.approx(0.95 * stored_kw[:-1] * 5 / 60, abs=1e-9)
    with open_results(finished.path) as results:
        assert set(results.table("operator/orders")["t_s"] % 900) == {0.0}


@pytest.mark.parametrize("method", ["wls", "genetic"])
def test_without_any_measurement_the_estimate_is_the_history(tmp_path: Path, method: str) -> None:
    overrides = [
        NO_FAULTS,
        "sensors.faults={default: {dropout: 1.0}}",
        "duration=30min",
        f"estimator={{method: {method}}}",
    ]
    finished = short_run(tmp_path / "run.h5", *overrides)
    case = open_case(load_scenario(SCENARIO, ["start=2016-07-23T10:00:00+01:00", *overrides]))
    window = history(case.history, datetime(2016, 7, 23, 9, tzinfo=UTC), 28, 2)
    with open_results(finished.path) as results:
        estimated = results.frame(f"estimator/{method}/p_kw").to_numpy()[0]
        assert np.all(results.frame("gateway/snapshot/quality").to_numpy() == Quality.MISSING)
        assert results.frame("gateway/snapshot/value").isna().all(axis=None)
        assert results.status == "complete"
    assert estimated == pytest.approx(history_window(window, 5).mean[: len(case.sites)], rel=1e-9)


def absurd_load(*values: float) -> str:
    return (
        "simulators={absurd: {start: {python: 'foreign.odd:Odd'}, model: Source, "
        f"params: {{values: {list(values)}}}, links: [{{attribute: p, pod: SS2.load}}]}}}}"
    )


def test_diverged_step_stops_the_run(tmp_path: Path) -> None:
    out = tmp_path / "run.h5"
    with pytest.raises(PowerFlowError, match=r"at 2016-07-23T09:30:00\+00:00 \(step 2\)") as told:
        short_run(out, absurd_load(100.0, 100.0, 1e6))
    with open_results(out) as results:
        assert results.status == "failed"
        assert results.attributes["error"] == str(told.value)
        assert list(results.frame("grid/pod/p_kw")["SS2.load"]) == [100.0] * len(results.time)
        assert len(results.time) <= 2


def test_diverged_step_is_recorded_and_the_run_goes_on(tmp_path: Path) -> None:
    finished = short_run(tmp_path / "run.h5", "grid.on_divergence=record", absurd_load(100.0, 100.0, 1e6, 100.0))
    with open_results(finished.path) as results:
        assert results.status == "complete"
        for grid in ("grid", "counterfactual"):
            assert list(results.series(f"{grid}/solution/converged")) == [1, 1, 0, 1, 1, 1, 1, 1]
            assert list(results.frame(f"{grid}/bus/vm_pu").isna().all(axis=1)) == [False, False, True] + [False] * 5
        quality = results.frame("gateway/snapshot/quality").to_numpy()
        assert np.all(quality[2, :3] == Quality.MISSING)
        assert results.frame("grid/pod/p_kw").iloc[2].isna().all()
        assert not results.frame("estimator/wls/p_kw").isna().any(axis=None)


def test_steps_follow_each_other_without_a_gap(tmp_path: Path) -> None:
    finished = short_run(tmp_path / "run.h5")
    with open_results(finished.path) as results:
        assert all((b - a).total_seconds() == 900 for a, b in pairwise(results.time))
        assert len(results.timing()) == 8
        assert (results.timing()["grid"] > 0.0).all()
