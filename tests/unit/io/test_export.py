"""``cosim export``: CSV and Parquet with units and UTC, of a run and of a study."""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_results import make
from test_study import result

from cosim.analysis_cli import add_commands
from cosim.errors import InputError, ResultError
from cosim.io.export import export, wide
from cosim.io.results import open_results


def cosim(*arguments: str | Path) -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()

    def command(name: str, what: str, function: object) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what)
        added.set_defaults(command=function)
        return added

    add_commands(command)
    options = parser.parse_args([str(argument) for argument in arguments])
    options.command(options)


def test_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = make(tmp_path / "run.h5"), tmp_path / "new" / "x.csv"
    cosim("export", run, "--signal", "grid/head/p_kw", "grid/bus/vm_pu", "--out", out)
    lines = out.read_text().splitlines()
    head, *nodes = ("grid/head/p_kw:head [kW]", *(f"grid/bus/vm_pu:n{k} [pu]" for k in (1, 2, 3)))
    assert lines[0] == ",".join(["time", head, *nodes])
    assert lines[2] == "2016-07-21T23:15:00Z,-1.0,1.0,1.1,1.2"
    assert lines[3] == "2016-07-21T23:30:00Z,-2.0,,,", "missing is empty"
    assert len(lines) == 9
    assert capsys.readouterr().out == f"{out}: 8 rows, 4 columns\n"
    assert [path.name for path in out.parent.iterdir()] == ["x.csv"]


def test_parquet_keeps_types(tmp_path: Path) -> None:
    run, out = make(tmp_path / "run.h5"), tmp_path / "x.parquet"
    cosim("export", run, "--signal", "grid/bus/converged", "--out", out)
    read = pd.read_parquet(out)
    assert str(read["time"].dtype) == "datetime64[ns, UTC]"
    assert read["grid/bus/converged:n1"].tolist() == ["yes"] * 8
    assert read["grid/bus/converged:n3"].tolist() == ["no"] * 8


def test_parts_and_periods(tmp_path: Path) -> None:
    run, out = result(tmp_path / "run.h5", 1), tmp_path / "x.csv"
    cosim("export", run, "--signal", "grid/bus/vm_pu", "--element", "n2", "--start", "2016-07-21T23:30", "--out", out)
    assert out.read_text().splitlines()[:2] == ["time,grid/bus/vm_pu:n2 [pu]", "2016-07-21T23:30:00Z,1.12"]
    cosim("export", run, "--signal", "grid/head/p_kw", "--every", "1h", "--out", out)
    assert out.read_text().splitlines() == [
        "time,grid/head/p_kw:demo [kW]",
        "2016-07-21T23:00:00Z,101.5",
        "2016-07-22T00:00:00Z,105.5",
    ]


def test_options_given_twice_and_such_that_do_not_count(tmp_path: Path) -> None:
    run, out = result(tmp_path / "run.h5", 1), tmp_path / "x.csv"
    same = ["--signal", "grid/bus/vm_pu", "--signal", "grid/bus/vm_pu", "--element", "n2", "--element", "n1"]
    cosim("export", run, *same, "--element", "n2", "--out", out)
    assert out.read_text().splitlines()[0] == "time,grid/bus/vm_pu:n2 [pu],grid/bus/vm_pu:n1 [pu]"
    cosim("export", run, "--signal", "grid/bus/vm_pu", "--signal", "grid/head/p_kw", "--out", out)
    assert out.read_text().splitlines()[0].endswith(",grid/head/p_kw:demo [kW]")
    out.unlink()
    for option in ("--element", "--start", "--stop", "--every"):
        with pytest.raises(InputError, match=f"^{option}: is for signals"):
            cosim("export", run, "--kpis", option, "1h", "--out", out)
    assert not out.exists()


def test_a_study_has_a_column_of_runs(tmp_path: Path) -> None:
    for number in (1, 2):
        result(tmp_path / f"run{number}.h5", number)
    out = tmp_path / "x.csv"
    cosim("export", tmp_path, "--signal", "grid/head/p_kw", "--every", "2h", "--out", out)
    lines = out.read_text().splitlines()
    assert lines[0] == "run,time,grid/head/p_kw:demo [kW]"
    assert lines[1:] == ["run1,2016-07-21T23:00:00Z,103.5", "run2,2016-07-21T23:00:00Z,203.5"]
    cosim("export", tmp_path, "--kpis", "--out", out)
    table = pd.read_csv(out)
    assert table["run"].tolist() == ["run1", "run2"]
    assert table["imported_kwh"].tolist() == [207.0, 407.0]
    cosim("export", tmp_path / "run2.h5", "--kpis", "--out", out)
    assert pd.read_csv(out)["imported_kwh"].tolist() == [407.0]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [1.0]}, index=pd.Index([0], name="run"))
    with pytest.raises(InputError, match=r"unknown kind of file; got .xlsx; allowed: .csv, .parquet"):
        export(table, tmp_path / "x.xlsx")
    with pytest.raises(InputError, match=r"x.csv: a column is there twice; got x"):
        export(table[["x", "x"]], tmp_path / "x.csv")
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(ResultError, match=r"x.csv: cannot be written: Is a directory"):
        export(table, tmp_path / "x.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]
    with open_results(make(tmp_path / "run.h5")) as results:
        frames = [results.frame("grid/head/p_kw"), results.frame("grid/bus/vm_pu", stop="2016-07-22")]
    with pytest.raises(InputError, match="other steps or runs; got grid/head/p_kw, grid/bus/vm_pu"):
        wide(frames)


def test_missing_codes_are_missing(tmp_path: Path) -> None:
    codes = pd.DataFrame({"a": np.array([0, -1], dtype=np.int8)}, index=pd.Index([0, 1], name="row"))
    codes.attrs.update({"signal": "x/y/z", "flag_values": [0], "flag_meanings": ["good"], "units": "1"})
    export(wide([codes]), tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text().splitlines() == ["row,x/y/z:a", "0,good", "1,"]
