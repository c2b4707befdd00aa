"""Key figures against values worked out by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cosim.analysis import measures
from cosim.analysis.resample import resample
from cosim.errors import InputError

TIME = pd.date_range("2016-07-22T00:00", periods=6, freq="30min", tz="UTC")
HEAD = pd.Series([10.0, -4.0, np.nan, -20.0, 0.0, 6.0], index=TIME)
HEAD.attrs["units"] = "kW"
VIOLATIONS = pd.DataFrame(
    {
        "t_s": [0.0, 0.0, 1800.0, 3600.0],
        "element": ["b1", "b2", "b1", "L@b1"],
        "quantity": ["vm_pu", "vm_pu", "vm_pu", "i_a"],
    }
)
AWARDS = pd.DataFrame(
    {
        "seller": ["s1", "s2", "s1"],
        "buyer": ["DSO", "TSO", "DSO"],
        "quantity_kw": [100.0, 40.0, -10.0],
        "price_eur_per_kwh": [0.2, 0.5, 0.2],
        "bid_price_eur_per_kwh": [0.1, 0.4, 0.1],
    }
)


def test_energy_at_the_head() -> None:
    assert measures.imported_kwh(HEAD) == 8.0
    assert measures.exported_kwh(HEAD) == 12.0
    assert measures.total_kwh(HEAD) == -4.0
    assert measures.reverse_flow_h(HEAD) == 1.0
    assert measures.imported_kwh(HEAD.to_numpy(), 900.0) == 4.0
    assert np.isnan(measures.imported_kwh(np.full(3, np.nan), 900.0))
    with pytest.raises(InputError, match="nothing tells the length of a step; allowed: seconds"):
        measures.imported_kwh(HEAD.to_numpy())


def test_the_recorded_step_counts_even_where_rows_are_missing() -> None:
    two = HEAD.iloc[[0, 5]]
    two.attrs["step_s"] = 1800.0
    assert measures.imported_kwh(two) == 8.0


def test_lengths_of_steps_that_cannot_be_told() -> None:
    hours = pd.Series(1.0, index=pd.date_range("2016-01-01", "2016-03-31 23:00", freq="h", tz="UTC"))
    hours.attrs["units"] = "kW"
    assert measures.imported_kwh(hours) == measures.imported_kwh(hours.drop(hours.index[5:9])) + 4.0 == 2184.0
    assert measures.imported_kwh(resample(hours, "1d")) == 2184.0
    months = resample(hours, "month")
    days = months.rename_axis("day")
    days.attrs.clear()
    for course in (months, months.iloc[:2], days):
        with pytest.raises(InputError, match="nothing tells the length of a step"):
            measures.imported_kwh(course)


@pytest.mark.parametrize("figure", [measures.imported_kwh, measures.exported_kwh, measures.peak_import])
def test_energies_are_no_powers(figure: Callable[[Any], object]) -> None:
    with pytest.raises(InputError, match="units: not a course of powers; got kWh; allowed: kW"):
        figure(resample(HEAD, "1h", "energy", step_s=1800.0).rename("p"))


def test_peaks() -> None:
    assert measures.peak_import(HEAD) == (10.0, TIME[0])
    assert measures.peak_export(HEAD) == (20.0, TIME[3])
    none = measures.peak_import(HEAD * np.nan)
    assert np.isnan(none.value_kw)
    assert none.at is pd.NaT


def test_hours_of_violation_count_a_step_once() -> None:
    assert measures.violation_h(VIOLATIONS, 1800.0) == 1.5
    by_kind = measures.violation_h_by(VIOLATIONS, 1800.0, "quantity")
    assert by_kind.to_dict() == {"vm_pu": 1.0, "i_a": 0.5}
    assert by_kind.attrs["units"] == "h"
    assert measures.violation_h_by(VIOLATIONS, 1800.0, ["quantity", "element"]).to_dict() == {
        ("vm_pu", "b1"): 1.0,
        ("vm_pu", "b2"): 0.5,
        ("i_a", "L@b1"): 0.5,
    }
    assert measures.violation_h(VIOLATIONS.iloc[:0], 1800.0) == 0.0
    with pytest.raises(InputError, match="by: no such column; got 'kind'; allowed: t_s, element, quantity"):
        measures.violation_h_by(VIOLATIONS, 1800.0, ["element", "kind"])


def test_cost() -> None:
    assert measures.cost_eur(AWARDS, 900.0) == pytest.approx(25.0 * 0.2 + 10.0 * 0.5 - 2.5 * 0.2)
    buyers = measures.cost_eur_by(AWARDS, 900.0)
    assert buyers.to_dict() == pytest.approx({"DSO": 4.5, "TSO": 5.0})
    assert buyers.attrs["units"] == "EUR"
    sellers = measures.cost_eur_by(AWARDS, 900.0, "seller", "bid_price_eur_per_kwh")
    assert sellers.to_dict() == pytest.approx({"s1": 2.25, "s2": 4.0})
    with pytest.raises(InputError, match="by: no such column; got 'party'; allowed: seller, buyer, "):
        measures.cost_eur_by(AWARDS, 900.0, "party")
    with pytest.raises(InputError, match="price: no such column; got 'q'; allowed: seller, buyer, "):
        measures.cost_eur(AWARDS, 900.0, price="q")


def test_activated_and_delivered() -> None:
    activations = pd.DataFrame({"change_kw": [-40.0, 20.0, -8.0]})
    assert measures.activated_kwh(activations, 900.0, "up") == 12.0
    assert measures.activated_kwh(activations, 900.0, "down") == 5.0
    with pytest.raises(InputError, match="no such direction; got 'left'; allowed: up, down"):
        measures.activated_kwh(activations, 900.0, "left")
    missing = np.array([[5.0, np.nan], [0.0, np.nan]])
    assert measures.delivered_share(missing, np.array([[-40.0, 0.0], [-10.0, 0.0]])) == 0.9
    assert np.isnan(measures.delivered_share(np.empty((0, 2)), np.empty((0, 2))))


def test_errors_of_an_estimate() -> None:
    truth = pd.DataFrame({"a": [1.0, 1.0, 1.0], "b": [0.0, 0.0, 0.0]}, index=TIME[:3])
    estimate = pd.DataFrame({"b": [3.0, -1.0, np.nan], "c": [9.0, 9.0, 9.0]}, index=TIME[:3])
    found = measures.estimate_errors(estimate, truth)
    assert list(found.index) == ["b"]
    assert found.loc["b"].tolist() == pytest.approx([2.0, np.sqrt(5.0), 1.0, 3.0])
    assert found.attrs["units"] == "kW"
    with pytest.raises(InputError, match="share no column; got c"):
        measures.estimate_errors(estimate[["c"]], truth)
    with pytest.raises(InputError, match="have other steps; got b, c"):
        measures.estimate_errors(estimate.iloc[:2], truth)
