"""The study of the 12-bus market: its script runs, and its tables hold the numbers that they should."""

from __future__ import annotations

import csv
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import h5py
import numpy as np
import pytest

from cosim import open_results, result_hash

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = 1000
LIMIT_A = 117.0
TABLES = {
    "currents", "voltages", "activations", "polygons", "variants", "modes", "ranges",
    "gammas", "bands", "ellipsoids", "overloads",
}  # fmt: skip
FIGURES = {"price_of_robustness", "bands", "polygons", "ellipsoids", "overloads"}
KINDS = ("uniform", "normal", "corners", "correlated")


@pytest.fixture(scope="module")
def script(scenario_script):
    return scenario_script("lfm12_study")


@pytest.fixture(scope="module")
def out(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    assert script.main(["--out", str(folder), "--samples", str(SAMPLES), "--seed", "3"]) == 0
    return folder


def rows_of(path):
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def table(out):
    """Rows of a table with these cells; numbers as floats, missing ones NaN."""

    def number(cell):
        try:
            return float(cell or "nan")
        except ValueError:
            return cell

    def read(name, **cells):
        rows = [{key: number(cell) for key, cell in row.items()} for row in rows_of(out / f"{name}.csv")]
        return [row for row in rows if all(row[key] == cell for key, cell in cells.items())]

    return read


EXPECTED = {
    row["figure"]: (float(row["value"]), float(row["tolerance"]))
    for row in rows_of(ROOT / "tests" / "reference" / "lfm12_market" / "expected.csv")
}


def check(figure, found):
    value, tolerance = EXPECTED[figure]
    assert found == pytest.approx(value, abs=tolerance, rel=0.0), figure


def column(rows, name):
    return np.array([row[name] for row in rows])


def test_printed_currents(table):
    """To the last digit printed: as printed with the index slip, the changes by power flow without."""
    for quantity, rows in (("schedule", 11), ("change, index slip", 22), ("change by power flow", 22)):
        found = [row for row in table("currents", quantity=quantity) if not math.isnan(row["printed_re_a"])]
        assert len(found) == rows
        assert np.abs(column(found, "difference_re_a")).max() < 6e-5
        assert np.abs(column(found, "difference_im_a")).max() < 6e-5


@pytest.mark.parametrize("case", [1, 2])
def test_changes_with_the_right_index_differ_from_the_printed_ones(table, case):
    (right,) = table("currents", case=case, quantity="change", branch="2-3")
    (slip,) = table("currents", case=case, quantity="change, index slip", branch="2-3")
    for row, end in ((right, "_a"), (slip, "_slip_a")):
        check(f"case{case}_delta_re{end}", row["re_a"])
        check(f"case{case}_delta_im{end}", row["im_a"])
    assert right["difference_re_a"] == pytest.approx(right["re_a"] - right["printed_re_a"], abs=1e-10)
    assert 5e-4 * case < right["difference_re_a"] < 1.3e-3 * case


def test_case_3_stands_alone(table):
    rows = table("currents", case=3)
    assert len(rows) == 33
    assert all(math.isnan(row["printed_re_a"]) for row in rows)
    (twice,) = table("currents", case=3, quantity="change", branch="2-3")
    assert twice["re_a"] == pytest.approx(2.0 * EXPECTED["case2_delta_re_a"][0], abs=1e-5)


def test_voltages(table):
    printed = [row for row in table("voltages") if not math.isnan(row["printed_pu"])]
    assert len(printed) == 36
    assert np.abs(column(printed, "difference_pu")).max() < 6e-5
    assert np.abs(column(printed, "linear_pu") - column(printed, "ac_pu")).max() < 5e-6
    assert column(table("voltages", case=3), "ac_pu").min() < column(table("voltages", case=2), "ac_pu").min()


def test_activations(table):
    found = {(int(row["case"]), row["index"]): row for row in table("activations")}
    check("case1_pod4_kw", found[1, "right"]["pod4_kw"])
    check("case2_pod4_kw", found[2, "right"]["pod4_kw"])
    check("case2_pod4_slip_kw", found[2, "slip"]["pod4_kw"])
    assert found[2, "slip"]["difference_kw"] == pytest.approx(0.0, abs=0.002)
    assert found[2, "right"]["difference_kw"] == pytest.approx(0.0346, abs=0.001)
    for case in (1, 2):
        check(f"case{case}_linear_a", found[case, "right"]["linear_a"])
        check(f"case{case}_ac_a", found[case, "right"]["ac_a"])
        check(f"case{case}_ac_a", found[case, "right"]["opendss_a"])
        assert found[case, "right"]["linear_a"] == pytest.approx(found[case, "right"]["printed_linear_a"], abs=0.006)
        assert found[case, "right"]["opendss_a"] == pytest.approx(found[case, "right"]["printed_ac_a"], abs=0.006)
    assert found[2, "slip"]["ac_a"] == pytest.approx(116.475, abs=1e-3)


def test_case_3_by_the_same_code(table):
    right, slip = table("activations", case=3)
    assert right["pod4_kw"] == 150.0
    assert right["pod2_kw"] > 0.0 == right["pod7_kw"]
    assert slip["pod2_kw"] < right["pod2_kw"]
    assert LIMIT_A * math.cos(math.pi / 32) - 1e-3 < right["opendss_a"] < LIMIT_A
    assert right["opendss_a"] == pytest.approx(right["ac_a"], abs=1e-5)


def test_polygons(table):
    rows = {(row["polygon"], int(row["planes"])): row for row in table("polygons")}
    for planes in (8, 16, 32, 64, 128, 4096):
        check(f"planes{planes}_kw", rows["inscribed", planes]["bought_kw"])
    for planes in (32, 64, 128):
        check(f"planes{planes}_tangent_kw", rows["circumscribed", planes]["bought_kw"])
    check("planes64_ac_a", rows["inscribed", 64]["ac_a"])
    check("planes32_tangent_ac_a", rows["circumscribed", 32]["ac_a"])
    assert column(rows.values(), "checked_ac_a").max() <= LIMIT_A * (1.0 + 1e-4)
    exact, tolerance = EXPECTED["ac_exact_kw"]
    for row in rows.values():
        if row["planes"] >= 256 and row["rounds"] > 1:
            assert row["checked_kw"] == pytest.approx(exact, abs=tolerance)
    tight = [row for row in rows.values() if row["rounds"] > 1]
    assert all(row["ac_a"] > LIMIT_A * (1.0 + 1e-4) for row in tight)
    assert len(tight) >= 10


def test_variants(table):
    kw = {row["rule"]: row["bought_kw"] for row in table("variants")}
    check("case2_pod4_kw", kw["the study"])
    check("trap_both_ends_more_kw", kw["both ends of 2-3 limited"] - kw["the study"])
    check("trap_residual_kw", kw["band on the reduced load"])
    assert kw["sums of real and of imaginary parts"] == pytest.approx(kw["the study"], abs=1e-6)
    assert kw["P and Q err independently"] >= kw["the study"] - 1e-6


def test_modes(table):
    (free,), held = table("modes", case=2, mode=0), table("modes", case=2, mode=1)
    alone, helped = held
    check("case2_pod4_kw", free["pod4_kw"])
    assert free["import_change_kw"] < -50.0
    assert free["import_change_ac_kw"] == pytest.approx(free["import_change_kw"], abs=0.2)
    assert alone["pod4_kw"] == 0.0
    assert alone["unsolved_a"] > 4.0
    assert alone["hard"].startswith("hold infeasible")
    assert "All resources are downstream of the violated row Line.2-3@2.1" in alone["hard"]
    check("mode1_pod4_kw", helped["pod4_kw"])
    check("mode1_pod8_kw", helped["pod8_kw"])
    assert helped["hard"] == "a plan"
    assert helped["import_change_kw"] == pytest.approx(0.0, abs=1e-6)
    assert abs(helped["import_change_ac_kw"]) < 0.2
    assert {row["hard"] for row in table("modes", case=1)} == {"a plan"}
    assert table("modes", case=3, mode=1)[0]["hard"].startswith("hold infeasible")


def test_ranges(table):
    for case in (1, 2, 3):
        for pod8 in ("", "POD8"):
            curve = [row for row in table("ranges", case=case) if (row["counter_resource"] == "POD8") == bool(pod8)]
            assert curve[0]["from_kw"] == pytest.approx(curve[0]["least_kw"], abs=1e-5)
            assert curve[-1]["to_kw"] == pytest.approx(curve[-1]["most_kw"], abs=1e-5)
            np.testing.assert_allclose(column(curve, "to_kw")[:-1], column(curve, "from_kw")[1:])
            assert (np.diff(column(curve, "price_eur_per_kwh")) > 0.0).all()
            assert curve[-1]["most_kw"] == pytest.approx(650.0, rel=2e-3)
    local = {int(row["case"]): row["local_kw"] for row in table("ranges")}
    (free,) = table("modes", case=2, mode=0)
    assert local[2] == pytest.approx(-free["import_change_kw"], abs=1e-6)
    assert local[1] == 0.0


@pytest.mark.parametrize("stage", ["linear", "checked"])
def test_price_of_the_budget(table, stage):
    study = table("gammas", planes=32, stage=stage)
    for row in study:
        check(f"gamma{row['gamma']:g}_kw", row["bought_kw"])
        assert row["bound_percent"] == pytest.approx(100.0 * math.exp(-(row["gamma"] ** 2) / 14.0))
    np.testing.assert_allclose(column(study, "cost_eur"), column(study, "bought_kw"), atol=1e-6)
    fine = table("gammas", planes=4096, stage=stage)
    assert (np.diff(column(fine, "bought_kw")) >= -1e-9).all()
    assert (np.diff(column(fine, "box_ac_a")) <= 1e-6).all()
    assert (column(fine, "bought_kw") <= column(study, "bought_kw") + 1e-6).all()


def test_ac_loop_takes_the_worst_corner_back_to_the_limit(table):
    linear, checked = (table("gammas", planes=4096, stage=stage) for stage in ("linear", "checked"))
    binding = column(linear, "bought_kw") > 0.0
    assert binding.sum() == 9
    assert (column(linear, "own_ac_a")[binding] > LIMIT_A * (1.0 + 1e-4)).all()
    assert (column(checked, "own_ac_a") <= LIMIT_A * (1.0 + 1e-4)).all()
    more = column(checked, "bought_kw") - column(linear, "bought_kw")
    assert (more[binding] > 0.2).all()
    assert (more[~binding] == 0.0).all()
    assert (column(checked, "rounds")[binding] == 2.0).all()


def test_violation_rates_by_budget(table):
    """Nothing inside the band takes the plan for the box beyond the limit; without a plan, errors at the ends of the
    band do in 9 of 128 corners."""
    checked = table("gammas", planes=4096, stage="checked")
    first, last = checked[0], checked[-1]
    for kind in ("uniform", "corners"):
        assert last[f"{kind}_ac_percent"] == last[f"{kind}_linear_percent"] == 0.0
        assert last[f"{kind}_highest_a"] <= LIMIT_A * (1.0 + 1e-4)
    spread = 100.0 * math.sqrt(9 / 128 * (1.0 - 9 / 128) / SAMPLES)
    assert first["corners_ac_percent"] == pytest.approx(100.0 * 9 / 128, abs=4.0 * spread)
    for kind in KINDS:
        for way in ("linear", "ac"):
            assert (np.diff(column(checked, f"{kind}_{way}_percent")) <= 0.0).all()
        assert (np.abs(column(checked, f"{kind}_ac_percent") - column(checked, f"{kind}_linear_percent")) < 1.0).all()
    assert first["normal_ac_percent"] < first["correlated_ac_percent"]
    assert 0.0 < last["correlated_ac_percent"] < 2.5 + 100.0 * 4.0 * math.sqrt(0.025 / SAMPLES)


def test_price_of_the_band(table):
    study = table("bands", planes=32, stage="linear")
    by_band = {row["half_band_percent"]: row for row in study}
    check("case1_pod4_kw", by_band[2.0]["bought_kw"])
    check("case2_pod4_kw", by_band[5.0]["bought_kw"])
    (case_3,) = (row for row in table("activations", case=3) if row["index"] == "right")
    assert by_band[10.0]["bought_kw"] == pytest.approx(case_3["pod4_kw"] + case_3["pod2_kw"], abs=1e-6)
    assert (np.diff(column(study, "bought_kw")) >= 0.0).all()
    assert by_band[10.0]["box_ac_a"] < by_band[10.0]["own_ac_a"] < LIMIT_A
    assert by_band[0.0]["own_ac_a"] == pytest.approx(109.4742, abs=1e-3)
    assert not any(row["unsolved_a"] for row in study)
    assert by_band[4.0]["corners_ac_percent"] > 0.0 == by_band[5.0]["corners_ac_percent"]


def test_price_of_the_ellipsoid(table):
    """At rho = 1 and omega = 1 it is the box; the chance that was allowed is kept, and used up where a limit binds."""
    linear = table("ellipsoids", stage="linear")
    (like_box,) = (row for row in linear if (row["rho"], row["chance_percent"]) == (1.0, 2.5))
    check("planes4096_kw", like_box["bought_kw"])
    assert like_box["omega"] == pytest.approx(1.0)
    for row in table("ellipsoids", stage="checked"):
        chance = row["chance_percent"]
        room = 4.0 * math.sqrt(chance * (100.0 - chance) / SAMPLES)
        assert row["correlated_ac_percent"] <= chance + room
        if row["bought_kw"] > 0.0:
            assert row["correlated_ac_percent"] >= chance - room
    for chance in (10.0, 5.0, 2.5, 1.0):
        kw = column([row for row in linear if row["chance_percent"] == pytest.approx(chance)], "bought_kw")
        assert (np.diff(kw) >= -1e-6).all()
    assert all(row["bought_kw"] == 0.0 for row in linear if row["rho"] == 0.0)


def test_overloads(table):
    (by_2,) = table("overloads", rule="factor", overload_percent=2, stage="linear")
    check("overload2_kw", by_2["bought_kw"])
    assert by_2["own_linear_a"] == pytest.approx(1.02 * 116.45, abs=0.01)
    factors = table("overloads", rule="factor", stage="checked")
    assert (np.diff(column(factors, "bought_kw")) <= 0.0).all()
    assert factors[0]["corners_ac_percent"] == 0.0 < factors[-1]["corners_ac_percent"]
    tiers = {
        (r["ceiling_percent"], r["gamma"]): r["bought_kw"] for r in table("overloads", rule="two tiers", stage="linear")
    }
    assert tiers[120.0, 7.0] == pytest.approx(by_2["bought_kw"], abs=1e-6)
    assert tiers[120.0, 3.0] == 0.0 < tiers[120.0, 5.0] < tiers[120.0, 7.0]
    (by_3,) = table("overloads", rule="factor", overload_percent=3, stage="linear")
    assert tiers[103.0, 3.0] == pytest.approx(by_3["bought_kw"], abs=1e-6)
    prices = {r["price_eur_per_a_h"]: r["bought_kw"] for r in table("overloads", rule="price", stage="linear")}
    check("case2_pod4_kw", prices[13.0])
    assert prices[12.0] == pytest.approx(by_2["bought_kw"], abs=1e-6)


def test_hdf5_holds_the_same_tables_with_units(out, table):
    with open_results(out / "lfm12_study.h5") as results:
        assert {path.removeprefix("study/") for path in results.events()} == TABLES
        assert (results.attributes["seed"], results.attributes["samples"]) == (3, SAMPLES)
        for name in TABLES:
            frame = results.table(f"study/{name}")
            rows = table(name)
            assert len(frame) == len(rows)
            assert list(frame.columns) == list(rows[0])
            for key, unit in frame.attrs["units"].items():
                np.testing.assert_allclose(frame[key], column(rows, key), rtol=1e-11, atol=1e-11)
                assert unit != "1" or key in {"planes", "rounds", "gamma", "rho", "omega"}
    with h5py.File(out / "lfm12_study.h5") as file:
        assert file["study/ranges/price_eur_per_kwh"].attrs["units"] == "EUR/kWh"


def test_figures_show_the_tables(out, table):
    assert {path.stem for path in out.glob("*.svg")} == FIGURES
    for path in out.glob("*.svg"):
        text = "".join(ET.parse(path).getroot().itertext())
        assert "[" in text
        assert "nan" not in text.lower()
    shown = "".join(ET.parse(out / "polygons.svg").getroot().itertext())
    (eight,) = table("polygons", polygon="inscribed", planes=8)
    assert f"8 inscribed: {eight['bought_kw']:.1f} kW" in shown


def test_the_same_seed_gives_the_same_bytes_and_another_other_errors(script, out, tmp_path, capsys):
    again, other = tmp_path / "again", tmp_path / "other"
    assert script.main(["--out", str(again), "--samples", str(SAMPLES), "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert "CASE 2 with 2 % of overload tolerated: 25.3 kW" in said
    for path in out.iterdir():
        if path.suffix != ".h5":
            assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    assert result_hash(out / "lfm12_study.h5") == result_hash(again / "lfm12_study.h5")
    assert script.main(["--out", str(other), "--samples", "20", "--seed", "4"]) == 0
    assert (out / "activations.csv").read_bytes() == (other / "activations.csv").read_bytes()
    assert (out / "gammas.csv").read_bytes() != (other / "gammas.csv").read_bytes()


def test_wrong_use_is_answered_clearly(script, tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit) as refused:
        script.main(["--samples", "0"])
    assert refused.value.code == 2
    assert "--samples must be 1 or more" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(script, "study", lambda *_: {})
    assert script.main(["--out", str(tmp_path / "file")]) == 1
    assert "lfm12_study:" in capsys.readouterr().err
