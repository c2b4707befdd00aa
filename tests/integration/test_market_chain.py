"""The local market in the chain: who steps when, what is bought and delivered, and what must not be seen twice."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from market_runs import LINE_SCENARIO, constant_line, line, midday
from short_runs import NO_FAULTS

from cosim import open_results, result_hash
from cosim.case import open_case
from cosim.cli import main
from cosim.errors import ScenarioError
from simulators._base import Adapter
from simulators.dso import Dso
from simulators.estimator import Estimator

SIMULATORS = ("profiles", "aggregator", "grid", "estimator", "dso", "market")
BRIEF = "duration=45min"
ALL_KINDS = (
    "resources.roofs.delivery={shortfall: 0.3, between_outages: 90min, outage: 20min}",
    "resources.shed={pods: all_load, load: {curtailable: 0.3, rebound: [0.3]}, price_spread: 0.2, aggregator: homes}",
    "resources.battery={pods: [SS3.battery], battery: {rest: 0.5, rest_kw: 40}, delivery: {shortfall: 0.3}}",
    "resources.store={pods: [SS4.load], battery: {p_max_kw: 60, e_max_kwh: 80, rest: 0.5, rest_kw: 10}, "
    "down_eur_per_kwh: 0.1, aggregator: cells}",
    "resources.car={pods: [SS4.load], vehicle: {p_max_kw: 22, stays: [{arrive: '09:00', depart: '15:00', "
    "need_kwh: 70}], charging: evenly}, down_eur_per_kwh: 0.1, aggregator: cells, "
    "delivery: {between_outages: 90min, outage: 20min}}",
    "aggregators={homes: {delivery: fixed_shares}, cells: {delivery: any_split}}",
)


def heat_pump(folder: Path) -> str:
    """A heat pump whose outdoor temperature comes from a file."""
    times = pd.date_range("2016-07-21T00:00", "2016-07-22T00:00", freq="15min")
    rows = "".join(f"{time.isoformat()},{4.0 + 0.1 * k}\n" for k, time in enumerate(times))
    (folder / "outdoor.csv").write_text("time,temperature_c\n" + rows)
    return (
        "resources.pump={pods: [SS4.load], heat_pump: {p_max_kw: 9, capacity_kwh_per_k: 5, resistance_k_per_kw: 2, "
        f"outdoor: {{file: {folder / 'outdoor.csv'}, timezone: UTC}}}}, down_eur_per_kwh: 0.1}}"
    )


def signal(path: Path, name: str, element: str | None = None) -> np.ndarray:
    with open_results(path) as results:
        values = results.frame(name)
        return (values if element is None else values[element]).to_numpy().squeeze()


def table(path: Path, name: str) -> pd.DataFrame:
    with open_results(path) as results:
        return results.table(name)


# --- who steps when ---------------------------------------------------------------------------------------------


def steps_of(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> str:
    """The steps of some simulators in a run, as text."""
    taken: list[str] = []
    original = Adapter.step

    def step(self, time, inputs, max_advance):
        taken.append(f"{self.sid}@{self.case.clock.step_index(time)}")
        return original(self, time, inputs, max_advance)

    monkeypatch.setattr(Adapter, "step", step)
    run()
    return " ".join(each for each in taken if each.partition("@")[0] in SIMULATORS)


def test_order_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The market clears at the end of a step; its awards reach the aggregators in the next."""
    assert steps_of(monkeypatch, lambda: midday(tmp_path / "run.h5", BRIEF)) == (
        "profiles@0 aggregator@0 grid@0 estimator@0 dso@0 market@0 "
        "profiles@1 aggregator@1 grid@1 estimator@1 dso@1 market@1 "
        "profiles@2 aggregator@2 grid@2 estimator@2 dso@2 market@2"
    )


def test_order_of_steps_when_orders_to_storage_act_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The DSO looks at the state before the orders, like the operator, and once."""
    same = "operator={enabled: true, action: same, thresholds_kw: {SS3.battery: -100}}"
    assert steps_of(monkeypatch, lambda: midday(tmp_path / "run.h5", BRIEF, same)) == (
        "profiles@0 aggregator@0 grid@0 estimator@0 grid@0 dso@0 market@0 "
        "profiles@1 aggregator@1 grid@1 estimator@1 grid@1 dso@1 market@1 "
        "profiles@2 aggregator@2 grid@2 estimator@2 grid@2 dso@2 market@2"
    )


# --- what is bought is delivered --------------------------------------------------------------------------------


def test_what_is_bought_at_a_gate_is_delivered_in_the_next_mtu(tmp_path: Path) -> None:
    path = midday(tmp_path / "run.h5").path
    awards, orders = table(path, "market/awards"), table(path, "aggregator/activations")
    assert len(awards) >= 6
    assert (awards["t_s"] - awards["gate_s"] == 900).all()
    assert set(awards["direction"]) == {"down"}
    sold = awards.assign(resource=awards["bid"].str.split("/").str[2]).groupby(["t_s", "resource"])["quantity_kw"].sum()
    ordered = orders.set_index(["t_s", "resource"])["change_kw"]
    pd.testing.assert_series_equal(ordered, sold, check_names=False)
    profile_kw, drawn_kw = (signal(path, f"{grid}/pod/p_kw", "SS4.pv") for grid in ("counterfactual", "grid"))
    changed_kw = pd.Series(drawn_kw - profile_kw, index=900.0 * np.arange(len(drawn_kw)))
    at = ordered.loc[:, "roofs:SS4.pv"]
    assert changed_kw[at.index].to_numpy() == pytest.approx(at.to_numpy(), abs=1e-9)
    assert changed_kw[0.0] == 0.0
    assert len(table(path, "grid/violations")) == 0
    assert len(table(path, "counterfactual/violations")) > 0
    assert signal(path, "market/session/bought_kw")[:-1] == pytest.approx(
        at.reindex(900.0 * np.arange(1, 8)).fillna(0.0)
    )


def test_steps_within_an_mtu(tmp_path: Path) -> None:
    """Gates close with the last step of an MTU; an order holds for all steps of the next."""
    path = midday(tmp_path / "run.h5", "duration=1h", "step=5min").path
    awards = table(path, "market/awards")
    assert set(awards["gate_s"]) <= {600.0, 1500.0, 2400.0}
    assert (awards["t_s"] - awards["gate_s"] == 300).all()
    ordered_kw = signal(path, "aggregator/resource/ordered_kw", "roofs:SS4.pv").reshape(-1, 3)
    assert np.ptp(ordered_kw, axis=1).max() == 0.0
    assert len(np.unique(ordered_kw[:, 0])) >= 3
    with open_results(path) as results:
        changed_kw = (results.frame("grid/pod/p_kw") - results.frame("counterfactual/pod/p_kw"))["SS4.pv"]
    assert changed_kw.to_numpy() == pytest.approx(ordered_kw.ravel(), abs=1e-9)
    forecast = signal(path, "dso/forecast/p_kw")
    assert np.isfinite(forecast).all(axis=1).tolist() == [k % 3 == 2 and k < 11 for k in range(12)]


def test_estimate_knows_what_is_declared_and_sold(tmp_path: Path) -> None:
    """Also of vehicles and batteries that no history has seen. Errors of the history are a share of the profiles, so
    that nothing of 200 kW that are ordered may be left in the error of a site."""
    path = midday(tmp_path / "run.h5", *ALL_KINDS[1:], "estimator.history.error_percent=0.1").path
    ordered_kw = signal(path, "aggregator/resource/ordered_kw")
    assert np.abs(ordered_kw).sum(axis=1).max() > 150.0
    with open_results(path) as results:
        estimated, drawn = results.frame("estimator/wls/p_kw"), results.frame("grid/pod/p_kw")
        for site in estimated:
            pods = [pod for pod in drawn if pod.split(".")[0].replace("SS", "LV") == site]
            assert pods
            assert estimated[site].to_numpy() == pytest.approx(drawn[pods].sum(axis=1).to_numpy(), abs=8.0), site


def test_half_bands_cover_the_error_of_what_is_behind_each_transformer(tmp_path: Path) -> None:
    """Load and PV behind one meter are told apart badly, which matters to no limit: their sum is what flows."""
    path = midday(tmp_path / "run.h5", "start=2016-07-21T08:00:00+01:00", "duration=8h", NO_FAULTS).path
    with open_results(path) as results:
        drawn_kw = results.frame("counterfactual/pod/p_kw").to_numpy()[1:]
        expected_kw, half_kw = (results.frame(f"dso/forecast/{name}").iloc[:-1] for name in ("p_kw", "half_p_kw"))
    error_kw, sites = drawn_kw - expected_kw.to_numpy(), [pod.partition(".")[0] for pod in half_kw]
    within = [
        np.abs(error_kw[:, own].sum(axis=1)) <= half_kw.to_numpy()[:, own].sum(axis=1)
        for own in ([k for k, of in enumerate(sites) if of == site] for site in sorted(set(sites)))
    ]
    assert len(within) == 5
    assert np.mean(within) >= 0.95


# --- the trap: a state that already holds the awards ---------------------------------------------------------------


def loading(path: Path) -> np.ndarray:
    return signal(path, "grid/branch/loading_pu")


def test_clearing_settles_because_what_was_sold_is_taken_out(tmp_path: Path) -> None:
    path = constant_line(tmp_path).path
    assert loading(path)[0] == pytest.approx(1.4, abs=1e-4)
    assert loading(path)[1:] == pytest.approx(1.0, abs=2e-3)
    assert (loading(path)[1:] <= 1.0).all()
    assert signal(path, "market/session/bought_kw")[:-1] == pytest.approx(286.0, abs=2.0)


def test_what_comes_back_and_what_is_declared_is_in_the_schedule(tmp_path: Path) -> None:
    """Three tenths of what is shed come back in the next MTU, and a vehicle charges 40 kW from the second one on."""
    car = "{p_max_kw: 40, stays: [{arrive: '00:15', depart: '12:00', need_kwh: 99}], spread: 1s}"
    path = constant_line(
        tmp_path,
        "resources.load.load.rebound=[0.3]",
        f"resources.car={{pods: [A], vehicle: {car}, up_eur_per_kwh: 9, aggregator: other}}",
        "duration=90min",
    ).path
    bought_kw, more_kw = [0.0], 40.0
    for _ in range(5):
        bought_kw.append(286.0 + more_kw + 0.3 * bought_kw[-1])
    at_car, load = (signal(path, "aggregator/resource/p_kw", name) for name in ("car", "load"))
    assert at_car == pytest.approx([0.0, *[40.0] * 5])
    assert signal(path, "aggregator/resource/ordered_kw", "load") == pytest.approx([-kw for kw in bought_kw], abs=2.0)
    assert load[1:] + at_car[1:] == pytest.approx(714.0, abs=2.0)
    assert signal(path, "dso/forecast/p_kw")[:-1] == pytest.approx(
        [1040.0 + 0.3 * kw for kw in bought_kw[:-1]], abs=2.0
    )


def test_clearing_on_the_activated_state_oscillates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DSO that takes the state as it is for what would be without flexibility buys in every other MTU only."""
    original = Dso.advance

    def advance(self, t_s, inputs):
        return original(self, t_s, {**inputs, **{("plan", q): 0.0 * inputs["plan", q] for q in ("p_kw", "q_kvar")}})

    monkeypatch.setattr(Dso, "advance", advance)
    path = constant_line(tmp_path).path
    assert loading(path) == pytest.approx([1.4, 1.0] * 4, abs=2e-3)


def test_an_estimator_that_forgets_what_was_sold_finds_it_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without meters the estimate is the history. Taking 286 kW out of what does not hold them makes a second need."""
    original = Estimator.advance

    def advance(self, t_s, inputs):
        return original(self, t_s, {key: value for key, value in inputs.items() if key[0] != "plan"})

    overrides = ("sensors.meters=[]", "duration=1h", "market.uncertainty.set=none")
    told = constant_line(tmp_path / "told", *overrides).path
    monkeypatch.setattr(Estimator, "advance", advance)
    untold = constant_line(tmp_path / "untold", *overrides).path
    bought, more = (signal(path, "market/session/bought_kw")[:-1] for path in (told, untold))
    assert bought == pytest.approx(286.0, abs=10.0)
    assert (more[1:] > bought[1:] + 200.0).all()


# --- one result ---------------------------------------------------------------------------------------------------


def test_same_result_wherever_the_simulators_run(tmp_path: Path) -> None:
    overrides = (*ALL_KINDS, heat_pump(tmp_path), "duration=75min", "step=5min")
    here = midday(tmp_path / "here.h5", *overrides).path
    assert set(table(here, "market/awards")["seller"]) == {"aggregator", "cells"}
    apart = midday(tmp_path / "apart.h5", *overrides, "remote=[aggregator, dso, market]", "transport=embedded").path
    assert result_hash(apart) == result_hash(here)


def test_another_resource_that_nobody_buys_changes_nothing(tmp_path: Path) -> None:
    """Neither prices nor what fails: every draw has a stream of its own name."""
    risky = "resources.roofs.delivery={shortfall: 0.5, between_outages: 2h, outage: 30min}"
    dear = "resources.aaa={pods: all_load, load: {curtailable: 0.1}, price_spread: 0.5, up_eur_per_kwh: 90, " + (
        "delivery: {shortfall: 0.5, between_outages: 2h, outage: 30min}}"
    )
    alone, beside = (midday(tmp_path / f"{len(more)}.h5", risky, *more).path for more in ((), (dear,)))
    with open_results(alone) as one, open_results(beside) as other:
        for name in ("p_kw", "ordered_kw"):
            expected = one.frame(f"aggregator/resource/{name}")
            pd.testing.assert_frame_equal(other.frame(f"aggregator/resource/{name}")[list(expected)], expected)
        orders = one.table("aggregator/activations")
        pd.testing.assert_frame_equal(other.table("aggregator/activations"), orders)
        delivered = one.frame("aggregator/resource/p_kw") - one.frame("aggregator/resource/free_p_kw")
        short = delivered["roofs:SS4.pv"] / one.frame("aggregator/resource/ordered_kw")["roofs:SS4.pv"]
        assert short.nunique() >= 4


# --- robust against errors that are known -------------------------------------------------------------------------

KNOWN = "dso.forecast={method: perfect, half_share: 0.15}"


def test_a_robust_plan_survives_what_breaks_a_deterministic_one(tmp_path: Path) -> None:
    found, cost = {}, {}
    for name in ("none", "box"):
        path = midday(tmp_path / f"{name}.h5", KNOWN, f"market.uncertainty.set={name}", "duration=4h").path
        violations = table(path, "grid/violations")
        found[name] = set(violations["t_s"][violations["t_s"] > 0])
        cost[name] = signal(path, "market/session/cost_eur").sum()
        assert len(table(path, "market/unsolved")) == 0
    assert len(found["none"]) >= 3
    assert found["box"] == set()
    assert cost["box"] > cost["none"] > 0.0


def test_errors_beyond_the_bands_break_a_robust_plan(tmp_path: Path) -> None:
    beyond = "dso.forecast={method: perfect, half_share: 0.15, beyond: 3}"
    path = midday(tmp_path / "run.h5", beyond, "duration=4h").path
    assert len(table(path, "grid/violations")) > 0


# --- a day ahead --------------------------------------------------------------------------------------------------

AHEAD = (
    "start=2016-07-21T21:00:00+12:00",  # at ten in the morning by the sun: its local midnight is at one
    "duration=6h",
    "dso.forecast={method: perfect, half_share: 0.1}",
    "market={gate: day_ahead, gate_time: '22:00', correct: false}",
    "resources.battery={pods: [SS3.battery], battery: {rest: 0.5, rest_kw: 40}, down_eur_per_kwh: 0.2}",
    "resources.car={pods: [SS4.load], vehicle: {p_max_kw: 22, stays: [{arrive: '20:00', depart: '02:00', "
    "need_kwh: 70}], charging: evenly}, down_eur_per_kwh: 0.1}",
)
GATE_S, MIDNIGHT_S = 3600.0, 3 * 3600.0


@pytest.fixture(scope="module")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return midday(tmp_path_factory.mktemp("ahead") / "run.h5", *AHEAD).path


def test_a_day_ahead_is_bought_at_its_gate_and_delivered_the_next_day(ahead: Path) -> None:
    path, awards = ahead, table(ahead, "market/awards")
    assert set(awards["gate_s"]) == {GATE_S}
    assert awards["t_s"].min() == MIDNIGHT_S
    assert awards["t_s"].nunique() >= 4
    ordered_kw, drawn_kw = (
        signal(path, f"aggregator/resource/{name}", "roofs:SS4.pv") for name in ("ordered_kw", "p_kw")
    )
    profile_kw = signal(path, "counterfactual/pod/p_kw", "SS4.pv")
    assert drawn_kw - profile_kw == pytest.approx(ordered_kw, abs=1e-9)
    assert np.flatnonzero(ordered_kw)[0] >= 12
    assert len(table(path, "grid/violations")["t_s"][lambda t_s: t_s >= MIDNIGHT_S]) == 0


def test_what_is_drawn_is_declared_also_where_nothing_is_offered_in_real_time(ahead: Path) -> None:
    planned_kw, drawn_kw = (signal(ahead, f"aggregator/pod/{name}", "SS4.load") for name in ("planned_p_kw", "p_kw"))
    assert drawn_kw.max() > 10.0
    assert planned_kw[1:] == pytest.approx(drawn_kw[1:], abs=1e-6)


def test_a_day_ahead_is_corrected_in_real_time(tmp_path: Path) -> None:
    """Similar days leave too much of the sun unsure a day ahead; a quarter of an hour ahead it is there."""
    path = midday(tmp_path / "run.h5", *AHEAD, "dso=null", "market.correct=true", "duration=4h").path
    awards = table(path, "market/awards")
    ahead = awards["t_s"] - awards["gate_s"] > 900
    assert set(awards["gate_s"][ahead]) == {GATE_S}
    assert 0 < ahead.sum() < len(awards)
    assert (awards["t_s"][~ahead] >= MIDNIGHT_S).any()
    assert set(table(path, "market/unsolved")["gate_s"]) == {GATE_S}
    assert len(table(path, "grid/violations")["t_s"][lambda t_s: t_s >= MIDNIGHT_S]) == 0
    ordered_kw, drawn_kw = (
        signal(path, f"aggregator/resource/{name}", "roofs:SS4.pv") for name in ("ordered_kw", "p_kw")
    )
    assert drawn_kw - signal(path, "counterfactual/pod/p_kw", "SS4.pv") == pytest.approx(ordered_kw, abs=1e-9)


# --- gates --------------------------------------------------------------------------------------------------------

DAY_AHEAD = "market={gate: day_ahead, gate_time: '12:00'}"


def gates(folder: Path, *overrides: str) -> dict[str, list[tuple[float, int]]]:
    """Sessions by the time of day at which their gate closes, in hours: beginning [h after the start], MTUs."""
    case = open_case(line(folder, "duration=2d", *overrides))
    clock, found = case.clock, {}
    for t_s in range(0, clock.until_s, clock.step_s):
        for begin_s, n_mtu in case.gates(t_s):
            local = case.scenario.local(clock.instant(t_s))
            found.setdefault(f"{local:%d %H:%M}", []).append((begin_s / 3600.0, n_mtu))
    return found


def test_a_gate_closes_with_the_last_step_before_each_mtu_but_the_first(tmp_path: Path) -> None:
    found = gates(tmp_path, "duration=1h", "step=5min")
    assert found == {"21 00:10": [(0.25, 1)], "21 00:25": [(0.5, 1)], "21 00:40": [(0.75, 1)]}


@pytest.mark.parametrize(("start", "midnight_h"), [("00:00:00+00:00", 24.0), ("07:00:00-05:00", 17.0)])
def test_a_day_ahead_is_that_of_local_time_and_ends_with_the_run(tmp_path: Path, start: str, midnight_h: float) -> None:
    alone = gates(tmp_path, DAY_AHEAD, "market.correct=false", f"start=2016-07-21T{start}")
    rest = int(4 * (48.0 - midnight_h)) - 96
    assert alone == {
        "21 12:00": [(midnight_h, 96)],
        **({"22 12:00": [(midnight_h + 24.0, rest)]} if rest else {}),
    }
    both = gates(tmp_path / "both", DAY_AHEAD, f"start=2016-07-21T{start}")
    assert both["21 12:00"] == [(midnight_h, 96), (midnight_h - 24.0 + 12.25, 1)]
    assert len(both) == 191


def test_a_gate_at_the_end_of_the_day_leaves_nothing_to_correct_at_once(tmp_path: Path) -> None:
    found = gates(tmp_path, "market={gate: day_ahead, gate_time: '23:45'}")
    assert found["21 23:45"] == [(24.0, 96)]
    assert found["21 23:30"] == [(23.75, 1)]


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "at", "said"),
    [
        (("resources: {load: {pods: [A], load: {curtailable: 0.5}}}\n", ""), 10, "market: a market needs resources"),
        (("market: {}\n", ""), 9, "resources: resources need a market; the scenario has none; got load"),
        (("market: {}", "market: {}\naggregators: {agg: {}}"), 12, "aggregators.agg: no resource has this aggregator"),
        (("pods: [A]", "pods: [B]"), 9, "resources.load.pods.0: no such POD; got B; allowed: A"),
        (("load: {curtailable: 0.5}", "battery: {}"), 9, "needs p_max_kw and e_max_kwh; got A"),
        (
            ("persistence", "corrected, half_share: 0.1"),
            10,
            "dso.forecast.method: half_share: errors are known of method perfect",
        ),
        (("persistence", "perfect, half_share: 0.5, beyond: 2"), 10, "dso.forecast.beyond: errors would reach"),
        (
            ("market: {}", "market: {gate: day_ahead, gate_time: '23:50'}"),
            11,
            "market.gate_time: closes after the last step",
        ),
        (("T00:00:00", "T00:10:00"), 11, "market.gate: a day ahead begins at midnight"),
        (("0.5}}}", "0.5, rebound: [1]}}}\naggregators: {default: {delivery: any_split}}"), 9, "cannot be in a bid of"),
        (("market: {}", "market: {planes: 1}"), 11, "market.planes: out of range; got 1; allowed: whole number"),
    ],
)
def test_a_market_that_cannot_be_is_refused_with_file_and_line(
    tmp_path: Path, change: tuple[str, str], at: int, said: str
) -> None:
    text = LINE_SCENARIO.replace(*change)
    if "T00:10" in text:
        text = text.replace("market: {}", "market: {gate: day_ahead}")
    with pytest.raises(ScenarioError, match=re.escape(f"{tmp_path / 'line.yaml'}:{at}: ")) as caught:
        constant_line(tmp_path, text=text)
    assert said in str(caught.value)
    assert len(caught.value.faults) == 1
    assert not (tmp_path / "line.h5").exists()


def test_the_command_line_tells_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    constant_line(tmp_path, "duration=15min")
    file = tmp_path / "line.yaml"
    assert main(["check", str(file)]) == 0
    file.write_text(LINE_SCENARIO.replace("pods: [A]", "pods: [B]"))
    for command in (["check"], ["run", "--no-report", "--out", str(tmp_path / "new.h5")]):
        capsys.readouterr()
        assert main([*command, str(file)]) == 2
        assert f"{file}:9: resources.load.pods.0: no such POD; got B; allowed: A" in capsys.readouterr().err
    assert not (tmp_path / "new.h5").exists()
