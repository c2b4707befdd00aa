import logging

import pytest
from feeder_folders import LINE, LINE_YAML, engine_in

from cosim.errors import FeederError
from cosim.grid.script import Script, commands, shown


def written(folder, **scripts):
    for name, text in scripts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".dss").write_text(text)
    return folder / "Master.dss"


def test_redirects_are_followed_and_places_kept(tmp_path):
    master = written(
        tmp_path,
        Master='Clear\n/* Redirect no.dss\n*/\nredirect "sub\\Parts.dss" ! all\nNew Load.C\n',
        sub__Parts="New Load.A\n\nCompile (More)\n",
        sub__More="New Load.B\n~ kW=3\n",
    )
    found = [(command.file.name, command.line, command.text.strip()) for command in commands(master)]
    assert found == [
        ("Master.dss", 1, "Clear"),
        ("Parts.dss", 1, "New Load.A"),
        ("More.dss", 1, "New Load.B"),
        ("More.dss", 2, "~ kW=3"),
        ("Master.dss", 5, "New Load.C"),
    ]


def test_a_script_that_redirects_to_itself(tmp_path):
    master = written(tmp_path, Master="Clear\nRedirect Part.dss\n", Part="Redirect Master.dss\n")
    with pytest.raises(FeederError, match=r"Part\.dss:1: the script redirects to itself; got Redirect Master\.dss"):
        list(commands(master))


def test_a_missing_part_is_named_with_its_line(tmp_path):
    with pytest.raises(FeederError, match=r"Master\.dss:11: OpenDSS refuses the circuit: \(#243\).*absent\.dss"):
        engine_in(tmp_path / "a", LINE + "Redirect absent.dss\n", LINE_YAML)


def test_files_are_found_beside_the_script_that_names_them(tmp_path):
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "a" / "sub" / "Shape.dss").write_text("New LoadShape.S npts=2 interval=1 csvfile=shape.csv\n")
    (tmp_path / "a" / "sub" / "shape.csv").write_text("1\n0.5\n")
    (tmp_path / "a" / "places.csv").write_text("A, 1, 2\n")
    script = LINE + "Redirect sub/Shape.dss\nBusCoords places.csv\n"
    engine = engine_in(tmp_path / "a", script, LINE_YAML)
    circuit = engine._dss.ActiveCircuit
    circuit.LoadShapes.Name = "s"
    assert list(circuit.LoadShapes.Pmult) == [1.0, 0.5]
    circuit.SetActiveBus("A")
    assert (circuit.ActiveBus.x, circuit.ActiveBus.y) == (1.0, 2.0)
    engine.close()


def test_what_is_left_out_is_logged(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "cosim.grid.script"):
        engine_in(tmp_path / "a", LINE + "Solve\n  show voltages LN nodes\n", LINE_YAML).close()
    left_out = [record.getMessage().rpartition("/")[2] for record in caplog.records]
    assert left_out == ["Master.dss:11: left out: Solve", "Master.dss:12: left out: show voltages LN nodes"]


def test_a_fault_knows_where_its_element_is_made(tmp_path):
    assert str(Script(tmp_path / "M.dss").fault("wrong", "Line.X")) == f"{tmp_path}/M.dss: Line.X: wrong"
    assert shown([str(k) for k in range(31)]).endswith("28, 29, ...")
