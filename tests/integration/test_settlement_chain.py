"""Settlement at the end of the chain: what is paid in real short runs, and what must be true of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from market_runs import LINE_SCENARIO, constant_line, line, midday
from short_runs import REPOSITORY

from cosim import load_scenario, open_results, result_hash, run
from cosim.case import open_case
from cosim.errors import ScenarioError, SimulatorError
from simulators.aggregator import Aggregator

TRUTH = "settlement={baseline: model}"
WEEK = REPOSITORY / "scenarios" / "lfm_mv5.yaml"


def table(path: Path, name: str) -> pd.DataFrame:
    with open_results(path) as results:
        return results.table(name)


def frame(path: Path, name: str) -> pd.DataFrame:
    with open_results(path) as results:
        return results.frame(name)


def check_laws(path: Path, *, closes: bool = True) -> pd.DataFrame:
    """Cash adds up to zero in every period, exactly; the signal says what the lines say; energy closes."""
    lines, cash = table(path, "settlement/lines"), frame(path, "settlement/party/cash_eur")
    assert len(lines) > 0
    assert (lines["amount"] == lines["amount"].round()).all()
    paid = pd.concat(
        [
            lines.assign(party=lines["payer"], eur=-lines["amount"]),
            lines.assign(party=lines["payee"], eur=lines["amount"]),
        ]
    )
    assert (paid.groupby("t_s")["eur"].sum() == 0.0).all()
    assert set(paid["party"]) <= set(cash.columns)
    by_party = paid.groupby("party")["eur"].sum().reindex(cash.columns).fillna(0.0) / 10_000
    np.testing.assert_allclose(cash.sum().to_numpy(), by_party.to_numpy(), atol=1e-9)
    np.testing.assert_allclose(cash.dropna().sum(axis=1), 0.0, atol=1e-9)
    closing = frame(path, "settlement/interface/closing_kwh").to_numpy()
    if closes:
        assert (closing == 0.0).all()
    return lines  # fmt: skip


def test_laws_of_a_midday(tmp_path: Path) -> None:
    """Full delivery costs what the clearings asked for under pay-as-bid, and imbalances are those of the interface."""
    path = midday(tmp_path / "run.h5", TRUTH).path
    lines = check_laws(path)
    paid_eur = lines.loc[lines["kind"] == "utilisation", "amount"].sum() / 10_000
    cost_eur = frame(path, "market/session/cost_eur").to_numpy().sum()
    assert cost_eur > 1.0
    assert paid_eur == pytest.approx(cost_eur, abs=0.5e-4 * 8)
    deliveries = table(path, "settlement/deliveries")
    np.testing.assert_allclose(deliveries["given_kwh"], deliveries["awarded_kwh"], atol=1e-9)
    assert (deliveries["short_kwh"] == 0.0).all()
    awards = table(path, "market/awards")
    awarded = awards.set_index(["t_s", "bid"])["quantity_kw"].sort_index() / 4.0
    settled = deliveries.set_index(["t_s", "bid"])["awarded_kwh"].sort_index()
    pd.testing.assert_series_equal(settled, awarded, check_names=False, rtol=1e-9)
    imbalance = frame(path, "settlement/party/imbalance_kwh")
    scheduled_kw = frame(path, "aggregator/pod/scheduled_p_kw")
    head_kw, pods_kw = frame(path, "grid/head/p_kw").to_numpy()[:, 0], frame(path, "grid/pod/p_kw").sum(axis=1)
    losses_kw = head_kw - pods_kw.to_numpy()
    planned_kw = scheduled_kw.sum(axis=1).to_numpy()[:-1] + losses_kw[:-1]
    np.testing.assert_allclose(imbalance.sum(axis=1)[1:], (planned_kw - head_kw[1:]) / 4.0, atol=1e-9)


def test_corrected_by_what_was_delivered_a_brp_bears_its_forecast_error_only(tmp_path: Path) -> None:
    """And the buyer the activation. Without correction the BRP sees activations one for one."""
    corrected, plain = (
        midday(tmp_path / f"{name}.h5", "duration=1h", f"settlement={{baseline: model, correction: {name}}}").path
        for name in ("delivered", "none")
    )
    with open_results(corrected) as results:
        free = results.frame("counterfactual/pod/p_kw").sum(axis=1)
        changed = results.frame("grid/pod/p_kw").sum(axis=1) - free
        scheduled = results.frame("aggregator/pod/scheduled_p_kw").sum(axis=1).shift(1)
    assert changed.max() > 10.0
    for path, moved in ((corrected, 0.0), (plain, changed)):
        brp = frame(path, "settlement/party/imbalance_kwh")["brp"]
        np.testing.assert_allclose(brp[1:], ((scheduled - free - moved) / 4.0)[1:], atol=1e-9)
        check_laws(path)
    dso = [frame(path, "settlement/party/imbalance_kwh")["dso"] for path in (corrected, plain)]
    np.testing.assert_allclose((dso[1] - dso[0]).to_numpy(), changed / 4.0, atol=1e-9)


def test_every_kind_of_line_in_an_evening_of_many(tmp_path: Path) -> None:
    """Loads, a battery and vehicles, some out of reach, metered with gaps: money and energy close all the same."""
    path = run(
        load_scenario(
            WEEK,
            [
                "start=2016-05-16T15:00:00+01:00",
                "duration=6h",
                "resources.industry.delivery={shortfall: 0.6, between_outages: 2h, outage: 1h}",
                "resources.chargers.brp=fleet",
                "resources.industry.brp=fleet",
                "settlement={missing: 0.05, compensation_eur_per_kwh: 0.06, penalty_factor: 1.5, "
                "penalty_eur_per_kwh: 0.01, penalty_basis: raw, two_sided: true}",
                "recorder.bids=true",
            ],
        ),
        tmp_path / "run.h5",
    ).path
    lines = check_laws(path, closes=False)
    assert set(lines["kind"]) == {"utilisation", "penalty", "supplier_compensation", "imbalance"}
    closing, missing = (frame(path, f"settlement/interface/{name}").to_numpy() for name in ("closing_kwh", "estimated"))
    assert ((closing == 0.0) | np.isnan(closing)).all()
    told = table(path, "settlement/estimates")["told"]
    assert missing.sum() == told.str.startswith("measurement of ").sum() >= 10
    assert told.str.contains("estimated, taken from the schedule of SS").any()
    assert np.isnan(closing).sum() == told.str.contains("measurement of head").sum()
    guessed = lines.loc[lines["estimated"] == 1.0, "t_s"].unique()
    assert 0 < len(guessed) < 24
    assert set(guessed) <= set(np.flatnonzero(missing[:, 0] > 0.0) * 900.0)
    assert set(frame(path, "settlement/party/cash_eur").columns) == {
        "dso", "consumers", "producers", "storage", "brp", "fleet", "supplier", "tso",
    }  # fmt: skip
    check_bids(path)


def check_bids(path: Path) -> None:
    """All that was bought was offered, at the prices asked, and split among resources."""
    bids, awards, parts = (table(path, name) for name in ("aggregator/bids", "market/awards", "aggregator/splits"))
    assert len(awards) > 5
    offered = bids.groupby(["t_s", "bid"])["quantity_kw"].sum()
    bought = awards.groupby(["t_s", "bid"])["quantity_kw"].sum()
    assert (bought <= offered.reindex(bought.index) + 1e-6).all()
    split = parts.groupby(["t_s", "bid"])["quantity_kw"].sum()
    pd.testing.assert_series_equal(split, bought, check_names=False, rtol=1e-9)


def test_bids_are_recorded_only_where_asked_for(tmp_path: Path) -> None:
    with open_results(midday(tmp_path / "run.h5", "duration=30min").path) as results:
        assert "aggregator/bids" not in results.events()
        assert "aggregator/splits" in results.events()
        assert not any(path.startswith("settlement/") for path in results.signals())


def test_several_steps_to_an_mtu(tmp_path: Path) -> None:
    """Energy is the mean of the steps; values come with the step that ends an MTU."""
    path = midday(tmp_path / "run.h5", "duration=1h", "step=5min", TRUTH).path
    check_laws(path, closes=False)
    closing = frame(path, "settlement/interface/closing_kwh").to_numpy().ravel()
    assert np.isnan(closing).tolist() == [k % 3 != 2 for k in range(12)]
    assert (closing[2::3] == 0.0).all()
    with open_results(path) as results:
        changed = (results.frame("grid/pod/p_kw") - results.frame("counterfactual/pod/p_kw")).sum(axis=1)
    by_mtu = changed.to_numpy().reshape(-1, 3).mean(axis=1) / 4.0
    given = table(path, "settlement/deliveries").groupby("t_s")["given_kwh"].sum()
    np.testing.assert_allclose(given, by_mtu[(given.index / 900).astype(int)], atol=1e-9)


def test_a_day_ahead_and_its_corrections_are_settled_apart(tmp_path: Path) -> None:
    """Two gates sell the same MTU; each bid has its own id, award, split and delivery."""
    path = midday(
        tmp_path / "run.h5",
        "start=2016-07-20T23:00:00+01:00",
        "duration=14h",
        "market={gate: day_ahead, gate_time: '23:30'}",
        "resources.homes={pods: all_load, load: {curtailable: 0.3}, aggregator: homes}",
        "aggregators={default: {delivery: fixed_shares}}",
        "limits.derated={Transformer.T4: 0.15}",
        TRUTH,
        "recorder.bids=true",
    ).path
    check_laws(path)
    awards, deliveries = table(path, "market/awards"), table(path, "settlement/deliveries")
    gates = awards.groupby("t_s")["gate_s"].nunique()
    assert gates.max() == 2
    assert awards.groupby(["t_s", "bid"]).size().max() == 1
    settled = deliveries.set_index(["t_s", "bid"])["awarded_kwh"].sort_index()
    awarded = awards.set_index(["t_s", "bid"])["quantity_kw"].sort_index() / 4.0
    pd.testing.assert_series_equal(settled, awarded, check_names=False, rtol=1e-6, atol=1e-9)
    check_bids(path)


def contract(**more: Any) -> str:
    terms = {
        "resource": "roofs:SS4.pv",
        "direction": "down",
        "committed_kw": 200.0,
        "strike_eur_per_kwh": 0.3,
        "availability_eur_per_kw": 2.0,
        "window": {"begin": "11:30", "end": "12:30"},
        "availability_full": 1.0,
    } | more
    return f"market.contracts.roof={json.dumps(terms)}"


def test_being_ready_is_paid_when_the_window_has_ended(tmp_path: Path) -> None:
    """In four MTUs of the window 200 kW were on offer, called or not; 2 EUR/kW for all of it."""
    path = midday(tmp_path / "run.h5", contract(), "settlement={}").path
    lines = check_laws(path)
    ready = lines[lines["kind"] == "availability"]
    assert ready[["t_s", "duration_s", "payer", "payee", "refs"]].to_numpy().tolist() == [
        [1800.0, 3600.0, "dso", "aggregator", "roof"]
    ]
    offered = table(path, "market/availability").groupby("t_s")["offered_kw"].max()
    assert len(offered) == 4
    assert ready["amount"].iloc[0] / 10_000 == pytest.approx(2.0 * offered.clip(upper=200.0).mean(), abs=1e-4)
    cash = frame(path, "settlement/party/cash_eur")["aggregator"]
    assert cash.iloc[5] > 100.0 > cash.drop(cash.index[5]).max()


def test_a_window_that_the_run_does_not_reach_the_end_of_is_paid_in_part(tmp_path: Path) -> None:
    path = midday(tmp_path / "run.h5", contract(), "settlement={}", "duration=1h").path
    lines = check_laws(path)
    (amount,) = lines.loc[lines["kind"] == "availability", "amount"]
    offered = table(path, "market/availability")["offered_kw"]
    assert len(offered) == 2
    assert amount / 10_000 == pytest.approx(2.0 * offered.clip(upper=200.0).mean() * 2 / 4, abs=1e-4)


def test_baselines_are_compared_with_the_truth(tmp_path: Path) -> None:
    path = midday(tmp_path / "run.h5", "settlement={baseline: meter_before_after}").path
    check_laws(path)
    found, deliveries = table(path, "settlement/baselines"), table(path, "settlement/deliveries")
    assert set(found["method"]) == {"schedule", "model", "meter_before_after", "high_x_of_y", "zero"}
    assert set(found.loc[found["paid"] == 1.0, "method"]) == {"meter_before_after"}
    truth_kw, drawn_kw = frame(path, "counterfactual/pod/p_kw"), frame(path, "grid/pod/p_kw")
    for row in found.itertuples():
        at = int(row.t_s) // 900
        expected = {
            "model": truth_kw[row.pod].iloc[at],
            "meter_before_after": drawn_kw[row.pod].iloc[at - 1],
            "zero": 0.0,
            "schedule": frame(path, "aggregator/pod/scheduled_p_kw")[row.pod].iloc[at - 1],
        }
        assert row.baseline_kw == pytest.approx(expected.get(row.method, row.baseline_kw), abs=1e-9)
        assert row.bias_kw == pytest.approx(row.baseline_kw - expected["model"], abs=1e-9)
    paid = found[found["paid"] == 1.0].set_index(["t_s", "pod"])
    given = deliveries.assign(pod=deliveries["bid"].str.split("/").str[2].str.split(":").str[1])
    given_kwh = given.groupby(["t_s", "pod"])["given_kwh"].sum()
    drawn = [drawn_kw[pod].iloc[int(t_s) // 900] for t_s, pod in given_kwh.index]
    np.testing.assert_allclose(given_kwh, (drawn - paid["baseline_kw"].reindex(given_kwh.index)) / 4.0, atol=1e-9)


def test_a_missing_measurement_is_said_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="simulators.settlement"):
        path = midday(tmp_path / "run.h5", "duration=30min", "settlement={missing: 1.0}").path
    assert frame(path, "settlement/interface/estimated").to_numpy().ravel().tolist() == [12.0, 12.0]
    assert caplog.text.count("missing from 0 to 900 s: estimated") == 12
    imbalance = frame(path, "settlement/party/imbalance_kwh")
    np.testing.assert_allclose(imbalance["brp"], 0.0, atol=1e-9)
    assert frame(path, "settlement/interface/closing_kwh").isna().all().all()


def test_who_fails_is_suspended(tmp_path: Path) -> None:
    """The roof delivers a part of what it sells: it fails at once, and sells nothing from the next gate on."""
    share = "resources.roofs.delivery={shortfall: 1.0}"
    rule = "settlement={baseline: model, tolerance: 0.0, failures: 1}"
    path = midday(tmp_path / "run.h5", share, rule, "duration=1h").path
    rows = table(path, "settlement/suspensions")
    failed = table(path, "settlement/deliveries")
    first_s = failed["t_s"].min()
    assert set(rows["t_s"]) == {first_s, first_s + 900.0}, "the gate for the MTU after has closed already"
    assert set(rows["pod"]) == {"SS4.pv"}
    assert (rows["until_s"] == rows["t_s"] + 900.0 + 86_400.0).all()
    awards = table(path, "market/awards")
    sold = awards[awards["bid"].str.contains("SS4.pv")]
    assert sold["t_s"].max() == first_s + 900.0
    free = midday(tmp_path / "free.h5", share, "duration=1h").path
    assert table(free, "market/awards")["t_s"].max() > first_s + 900.0


def test_two_runs_settle_alike(tmp_path: Path) -> None:
    overrides = ("duration=45min", "settlement={missing: 0.2}")
    first, second = (midday(tmp_path / f"{k}.h5", *overrides).path for k in range(2))
    assert result_hash(first) == result_hash(second)
    other = midday(tmp_path / "other.h5", *overrides, "seed=2").path
    assert (
        table(first, "settlement/estimates")["told"].tolist() != table(other, "settlement/estimates")["told"].tolist()
    )


def test_in_a_process_of_its_own_it_settles_the_same(tmp_path: Path) -> None:
    here, there = (
        constant_line(tmp_path / where, "duration=1h", "settlement={missing: 0.1}", f"remote={remote}").path
        for where, remote in (("here", "[]"), ("there", "[settlement]"))
    )
    assert len(table(here, "settlement/deliveries")) > 0
    for name in ("lines", "deliveries", "baselines", "estimates"):
        pd.testing.assert_frame_equal(table(here, f"settlement/{name}"), table(there, f"settlement/{name}"))


def test_what_cannot_be_settled_is_refused(tmp_path: Path) -> None:
    text = LINE_SCENARIO.replace("market: {}\n", "").replace(
        "resources: {load: {pods: [A], load: {curtailable: 0.5}}}\n", ""
    )
    with pytest.raises(ScenarioError, match="settlement: a settlement needs a market"):
        open_case(line(tmp_path / "none", "settlement={}", text=text))
    twice = "resources.cell={pods: [A], battery: {p_max_kw: 5, e_max_kwh: 5}, brp: other}"
    with pytest.raises(ScenarioError) as two:
        open_case(line(tmp_path / "two", "settlement={loss_party: brp}", "resources.load.brp=one", twice))
    assert "resources.cell.brp: one answers for A already; got other" in str(two.value)
    assert "settlement.loss_party: answers for losses and for PODs" in str(two.value)
    with pytest.raises(ScenarioError, match=r"settlement\.tolerance"):
        line(tmp_path / "bad", "settlement={tolerance: 1.5}")


def test_a_buyer_that_is_no_party_of_the_scenario_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Aggregator._take

    def take(self: Aggregator, awards: list[dict[str, Any]]) -> Any:
        return original(self, [award | {"buyer": "stranger"} for award in awards])

    monkeypatch.setattr(Aggregator, "_take", take)
    with pytest.raises(SimulatorError, match="stranger pays or is paid, but is no party of the scenario: dso, "):
        constant_line(tmp_path, "settlement={}", "duration=45min")
