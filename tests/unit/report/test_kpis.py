"""Key figures of runs and studies: they agree with the indicators of the report."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from market_results import market_file
from small_result import bare_file, killed_file, result_file

from cosim.clock import Clock
from cosim.domain.frames import Signal
from cosim.errors import ResultError
from cosim.io.results import open_results
from cosim.io.store import ResultWriter
from cosim.io.study import open_study
from cosim.report.indicators import indicators_of
from cosim.report.kpis import kpis, unit_of
from cosim.report.reading import Reading
from simulators._party import AWARDS
from simulators.settlement import BASELINES, DELIVERIES, ESTIMATES, LINES

AGREE = {
    "imported_kwh": ("energy imported", 1.0),
    "exported_kwh": ("energy exported", 1.0),
    "peak_import_kw": ("highest import", 1.0),
    "peak_export_kw": ("deepest head power", -1.0),
    "reverse_flow_h": ("reverse flow", 1.0),
    "loss_kwh": ("losses", 1.0),
    "violation_h/vm_pu": ("time outside the voltage band", 1.0),
    "violation_h/i_a": ("time above a rating", 1.0),
    "cost_as_bid_eur": ("cost as bid", 1.0),
    "cost_as_paid_eur": ("cost as paid", 1.0),
    "activated_up_kwh": ("energy activated up", 1.0),
    "activated_down_kwh": ("energy activated down", 1.0),
    "delivered_share": ("delivered", 0.01),
    "estimate_mae_kw/wls": ("wls: mean absolute error", 1.0),
    "estimate_mae_kw/history": ("history: mean absolute error", 1.0),
    "estimate_mae_kw/head": ("head: mean absolute error", 1.0),
}
"""The indicator of the report that is a figure, times a factor."""


def assert_agree(path: Path) -> set[str]:
    """Every figure that the report shows too has its value, with and without orders; returns their names."""
    with open_results(path) as results:
        figures, shown = kpis(results), {each.name: each for each in indicators_of(Reading(results))}
    there = {name: shown[title] for name, (title, _) in AGREE.items() if title in shown}
    assert there.keys() == AGREE.keys() & set(figures.index)
    for name, indicator in there.items():
        factor = AGREE[name][1]
        assert figures[name] == pytest.approx(factor * indicator.value, nan_ok=True), name
        if indicator.without_orders is not None:
            change = factor * (indicator.value - indicator.without_orders)
            assert figures[f"change_{name}"] == pytest.approx(change, nan_ok=True), name
    return set(there)


def test_the_report_agrees_about_the_grid_and_the_estimate(tmp_path: Path) -> None:
    agreed = assert_agree(result_file(tmp_path / "run.h5"))
    assert agreed >= {"imported_kwh", "peak_export_kw", "loss_kwh", "estimate_mae_kw/wls", "estimate_mae_kw/head"}
    assert assert_agree(killed_file(tmp_path / "killed.h5")) >= {"imported_kwh"}


def test_the_report_agrees_about_the_market(tmp_path: Path) -> None:
    agreed = assert_agree(market_file(tmp_path / "run.h5"))
    assert agreed >= {"cost_as_paid_eur", "activated_up_kwh", "delivered_share", "violation_h/i_a"}


def test_values_worked_out_by_hand(tmp_path: Path) -> None:
    with open_results(result_file(tmp_path / "run.h5")) as results:
        found = kpis(results)
    assert found["exported_kwh"] == 440.0 * 6.0
    assert found["change_exported_kwh"] == -200.0 * 6.0
    assert found["peak_export_kw"] == 300.0
    assert found["change_peak_export_kw"] == -200.0
    assert found["estimate_bias_kw/head"] == pytest.approx(3.0)
    assert found.name == "demo"
    units = found.attrs["units"]
    assert units["exported_kwh"] == "kWh"
    assert units["change_peak_export_kw"] == "kW"
    assert units["estimate_rmse_kw/wls"] == "kW"
    assert units["reverse_flow_h"] == "h"


def test_market_by_hand(tmp_path: Path) -> None:
    with open_results(market_file(tmp_path / "run.h5")) as results:
        found = kpis(results)
    assert found["activated_up_kwh"] == pytest.approx((20.0 + 50.0) * 6.0)
    assert found["activated_down_kwh"] == pytest.approx((40.0 + 60.0) * 6.0)
    assert found["cost_eur/dso"] == pytest.approx(0.3 * 170.0 * 6.0)
    assert found["cost_as_paid_eur"] == found["cost_eur/dso"]
    assert unit_of("cost_eur/dso") == "EUR"
    assert unit_of("delivered_share") == "1"


def test_a_file_with_nothing_in_it(tmp_path: Path) -> None:
    with open_results(bare_file(tmp_path / "bare.h5")) as results:
        found = kpis(results)
    assert found["reverse_flow_h"] == 0.0
    assert np.isnan(found["imported_kwh"])
    assert np.isnan(found["peak_import_kw"])
    with open_results(bare_file(tmp_path / "empty.h5", steps=0)) as results:
        assert kpis(results).empty


def test_cash_by_party_and_cost_by_buyer(tmp_path: Path) -> None:
    clock = Clock(datetime(2016, 7, 22, tzinfo=UTC), step_s=900, steps=2, mtu_s=900)
    path = tmp_path / "run.h5"
    with ResultWriter(path, clock, 1, "none", {"scenario": json.dumps({"step": "15min", "mtu": "15min"})}) as writer:
        writer.declare("grid", "head", [Signal("p_kw", "kW", "head", "feeder", ("f",))])
        writer.declare("settlement", "party", [Signal("cash_eur", "EUR", "cash", "party", ("dso", "agg"))])
        for table in (LINES, DELIVERIES, BASELINES, ESTIMATES):
            writer.declare_events("settlement", table)
        line = dict.fromkeys(LINES.columns, None) | {
            "payer": "dso",
            "payee": "agg",
            "kind": "award",
            "amount": 12_500.0,
        }
        writer.append_event("settlement", "lines", line | {"t_s": 0.0})
        for step in range(2):
            writer.write(step, "grid", "head", "p_kw", [-3.0 if step else 1.0])
            writer.end_step(step)
        writer.finish("complete")
    with open_results(path) as results:
        found = kpis(results)
    assert found["cash_eur/agg"] == 1.25
    assert found["cash_eur/dso"] == -1.25
    assert "cost_as_paid_eur" not in found
    assert found["imported_kwh"] == 0.25
    assert "buyer" in AWARDS.columns, "what costs of schemes are told apart by"


def test_a_study_has_a_row_for_each_run(tmp_path: Path) -> None:
    whole = result_file(tmp_path / "whole.h5")
    market_file(tmp_path / "market.h5")
    bare_file(tmp_path / "failed.h5")
    study = open_study(tmp_path)
    table = kpis(study)
    assert list(table.index) == ["market", "whole"]
    assert table.index.name == "run"
    with open_results(whole) as results:
        alone = kpis(results)
    pd.testing.assert_series_equal(table.loc["whole"].dropna(), alone.dropna(), check_names=False, check_like=True)
    assert np.isnan(table.loc["whole", "cost_as_paid_eur"])
    assert table.attrs["units"]["cost_as_paid_eur"] == "EUR"
    assert list(kpis(study, ["failed"]).index) == ["failed"]
    with pytest.raises(ResultError, match="no run 'none'"):
        kpis(study, ["none"])
