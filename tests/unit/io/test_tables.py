"""Tables of a study as CSV files and in a result file."""

import math

import h5py
import pytest

from cosim.errors import ResultError
from cosim.io.results import open_results
from cosim.io.tables import Table, table_of, write_csv, write_hdf5

ROWS = [
    {"case": "1", "planes": 32, "bought_kw": 54.25, "i_a": None, "price_eur_per_kwh": 1.0},
    {"case": "", "planes": 64, "bought_kw": -0.0, "i_a": 1.0 / 3.0, "price_eur_per_kwh": math.nan},
]


@pytest.fixture
def table() -> Table:
    return table_of("plans", "plans, one a row", ROWS)


def test_units_follow_from_names(table):
    assert table.form.columns == {
        "case": None,
        "planes": "1",
        "bought_kw": "kW",
        "i_a": "A",
        "price_eur_per_kwh": "EUR/kWh",
    }


def test_rows_and_columns_are_found(table):
    assert table.column("planes") == [32, 64]
    assert table.where(case="1", planes=32).column("bought_kw") == [54.25]
    assert table.where(planes=7).rows == ()


def test_csv(table, tmp_path):
    (path,) = write_csv(tmp_path / "new", [table])
    assert path.read_text() == ("case,planes,bought_kw,i_a,price_eur_per_kwh\n1,32,54.25,,1\n,64,0,0.333333333333,\n")


def test_text_with_commas_is_quoted(tmp_path):
    (path,) = write_csv(tmp_path, [table_of("said", "", [{"what": 'no plan: "a", b'}])])
    assert path.read_text() == 'what\n"no plan: ""a"", b"\n'


def test_hdf5(table, tmp_path):
    path = tmp_path / "study.h5"
    write_hdf5(path, "study", [table], {"seed": 3})
    with open_results(path) as results:
        assert results.status == "complete"
        assert results.attributes["seed"] == 3
        assert results.events() == ("study/plans",)
        found = results.table("study/plans")
    assert found["bought_kw"].tolist() == [54.25, 0.0]
    assert found["case"].tolist() == ["1", ""]
    assert math.isnan(found["i_a"][0])
    assert found.attrs["units"] == {"planes": "1", "bought_kw": "kW", "i_a": "A", "price_eur_per_kwh": "EUR/kWh"}
    with h5py.File(path) as file:
        assert file["study/plans/bought_kw"].attrs["units"] == "kW"
        assert file["study/plans"].attrs["long_name"] == "plans, one a row"


def test_a_file_in_the_way_is_named(table, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ResultError, match=r"out/plans\.csv: cannot be written"):
        write_csv(tmp_path / "out", [table])
