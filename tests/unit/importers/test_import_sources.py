"""Where networks come from, the profiles they bring, and the folder that is written or left alone."""

from __future__ import annotations

from pathlib import Path

import pandapower as pp
import pandas
import pytest
from importer_networks import saved, street
from pandapower.io_utils import to_dict_of_dfs

from cosim.errors import FeederError
from cosim.grid.feeder import load_feeder
from cosim.importers import import_feeder
from cosim.importers.tables import quiet_pandapower
from cosim.io.profiles import read_simbench

DATASET = "1-complete_data-mixed-all-1-sw"


def test_json_and_excel_files(tmp_path: Path) -> None:
    net = street()
    import_feeder(saved(net, tmp_path), tmp_path / "json")
    with quiet_pandapower(), pandas.ExcelWriter(tmp_path / "net.xlsx", engine="openpyxl") as writer:
        for name, table in to_dict_of_dfs(net).items():  # pandapower's own to_excel wants one more package
            table.to_excel(writer, sheet_name=name)
    import_feeder(str(tmp_path / "net.xlsx"), tmp_path / "xlsx", name="json")
    for name in ("Lines.dss", "Transformers.dss", "Loads.dss"):
        assert (tmp_path / "json" / name).read_text() == (tmp_path / "xlsx" / name).read_text()


def test_a_simbench_network_brings_its_year(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import simbench

    with quiet_pandapower():
        net = simbench.get_simbench_net("1-LV-rural1--0-sw")
    monkeypatch.setattr(simbench, "get_simbench_net", lambda code: net)
    imported = import_feeder("simbench:1-LV-rural1--0-sw", tmp_path / "out")
    assert imported.check.largest_vm_pu < 1e-5
    feeder = load_feeder(tmp_path / "out")
    columns = feeder.profile_columns
    profiles = read_simbench(DATASET, columns)
    row = 96 * 200 + 50
    p_kw, q_kvar = feeder.powers(columns, profiles.values[row])
    own = {table: net.profiles[table].loc[row] for table in ("load", "renewables")}
    expected = [
        *(1000.0 * net.load.p_mw * own["load"][[f"{name}_pload" for name in net.load.profile]].to_numpy(float)),
        *(-1000.0 * net.sgen.p_mw * own["renewables"][list(net.sgen.profile)].to_numpy(float)),
    ]
    assert p_kw.tolist() == pytest.approx(expected)
    assert min(expected) < -5.0
    reactive = 1000.0 * net.load.q_mvar * own["load"][[f"{name}_qload" for name in net.load.profile]].to_numpy(float)
    assert q_kvar.tolist() == pytest.approx([*reactive, *[0.0] * len(net.sgen)])
    assert {pod.kind for pod in feeder.pods.values()} == {"load", "pv"}


def test_a_simbench_network_of_medium_voltage(tmp_path: Path) -> None:
    imported = import_feeder("simbench:1-MV-urban--0-sw", tmp_path / "out")
    assert imported.check.largest_vm_pu < 1e-5
    assert [str(left)[:59] for left in imported.not_carried if left.element.startswith("trafo")] == [
        f"trafo {k} (HV1-MV3.101-Trafo{k + 1}): tap_pos -1 has no effect, as " for k in (0, 1)
    ]
    feeder = load_feeder(tmp_path / "out")
    assert feeder.head.branch == "Line.HEAD"
    assert "RESProfile/lv_semiurb4" in feeder.profile_columns
    assert read_simbench(DATASET, feeder.profile_columns).values.shape[1] == len(feeder.profile_columns)


def test_profiles_are_drawn_by_seed_and_name(tmp_path: Path) -> None:
    net = street()
    pp.create_load(net, 0, p_mw=0.3, name="Village")
    pp.create_sgen(net, 3, p_mw=0.02, type="PV", name="Roof")
    pp.create_sgen(net, 3, p_mw=0.02, type="CHP", name="Plant")
    drawn = {}
    for k, seed in enumerate((1, 1, 2)):
        import_feeder(net, tmp_path / f"out{k}", profiles="simbench", seed=seed)
        drawn[k] = {pod: entry.profile for pod, entry in load_feeder(tmp_path / f"out{k}").pods.items()}
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0]["Plant"] == "constant"
    assert str(drawn[0]["Village"]).startswith("lv_")
    assert str(drawn[0]["Roof"]).startswith("PV")
    assert str(drawn[0]["Shop"])[0] in "HGL"
    text = (tmp_path / "out0" / "feeder.yaml").read_text()
    assert "SimBench profiles were drawn with seed 1: an assumption" in text
    read_simbench(DATASET, load_feeder(tmp_path / "out0").profile_columns)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("feeder.txt", "not a source of a feeder; got feeder.txt; allowed: a file .dss, .json"),
        ("absent.json", "absent.json: no such file"),
        ("absent.dss", "absent.dss: no such file"),
        (
            "pandapower:create_cigre_network_hw",
            "in pandapower.networks; got create_cigre_network_hw; allowed: ",
        ),
        ("pandapower:create_cigre_network_mv?der=1", "unexpected keyword argument 'der'"),
        ("pandapower:runpp", "no such function in pandapower.networks"),
        ("simbench:1-LV-rural9--0-sw", "unknown SimBench code; got 1-LV-rural9--0-sw; allowed: 1-LV-rural"),
    ],
)
def test_sources_that_are_not_there(source: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(FeederError) as refused:
        import_feeder(source, tmp_path / "out")
    assert expected in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = Path(saved(street(), tmp_path))
    path.write_text(path.read_text()[:5000])
    with pytest.raises(FeederError, match=r"net\.json: not a pandapower network"):
        import_feeder(str(path), tmp_path / "out")
    path.write_text("{}")
    with pytest.raises(FeederError, match=r"net\.json: not a pandapower network"):
        import_feeder(str(path), tmp_path / "out")


def test_networks_that_do_not_solve(tmp_path: Path) -> None:
    net = street()
    net.load["p_mw"] = 40.0
    with pytest.raises(FeederError, match="power flow does not converge"):
        import_feeder(net, tmp_path / "out")
    net.ext_grid["in_service"] = False
    with pytest.raises(FeederError, match="no external grid in service"):
        import_feeder(net, tmp_path / "out")


def test_an_existing_folder_is_safe(tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_feeder(street(), out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(FeederError, match=r"the folder exists already; got .*out; allowed: force"):
        import_feeder(street(), out)
    net = street()
    net.load["p_mw"] = 40.0
    with pytest.raises(FeederError, match="does not converge"):
        import_feeder(net, out, force=True)
    assert (out / "notes.txt").read_text() == "mine"
    import_feeder(street(), out, force=True)
    assert not (out / "notes.txt").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(FeederError, match=r"not a feeder's folder \(no feeder\.yaml in it\)"):
        import_feeder(street(), other, force=True)
    source = saved(street(), out)
    with pytest.raises(FeederError, match="the folder holds the source"):
        import_feeder(source, out, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_a_network_in_memory_is_not_changed(tmp_path: Path) -> None:
    net = street()
    net.load["const_z_p_percent"] = 50.0
    before = net.load.copy()
    import_feeder(net, tmp_path / "out")
    assert before.equals(net.load)
    assert len(net.res_bus) == 0
