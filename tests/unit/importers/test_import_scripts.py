"""OpenDSS scripts: left as they are, PODs, head and ratings read from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.errors import FeederError
from cosim.grid.feeder import load_feeder
from cosim.importers import Imported, import_feeder

MODELS = Path(__file__).parents[3] / "dss_models"

SCRIPT = """Clear
Set DefaultBaseFrequency=50
New Circuit.own bus1=src basekV=11 pu=1.02 MVAsc3=200 MVAsc1=200
New Transformer.sub phases=3 windings=2 XHL=5 %imag=1 %NoLoadLoss=0.5
~ wdg=1 bus=src conn=delta kV=11 kVA=400
~ wdg=2 bus=head conn=wye kV=0.4 kVA=400
New Line.rated bus1=head bus2=mid R1=0.1 X1=0.05 C1=0 R0=0.3 X0=0.15 C0=0 Length=1 NormAmps=210
New Line.plain bus1=mid bus2=end R1=0.1 X1=0.05 C1=0 R0=0.3 X0=0.15 C0=0 Length=1
New Line.service phases=1 bus1=mid.2 bus2=house.2 R1=0.2 X1=0.05 C1=0 R0=0.3 X0=0.15 C0=0 Length=1
New Load.a bus1=end kV=0.4 kW=20 kvar=5 model=2
New Load.b phases=1 bus1=house.2 kV=0.23 kW=4 PF=0.95 Vminpu=0.8
New Load.gone bus1=mid kV=0.4 kW=10 enabled=no
New Load.feedin bus1=mid kV=0.4 kW=-3 kvar=1
New Generator.a bus1=mid kV=0.4 kW=6 kvar=1
New PVSystem.roof bus1=end kV=0.4 kVA=12 Pmpp=10 irradiance=0.8 PF=0.98
New Storage.cell bus1=mid kV=0.4 kWrated=5 kWhrated=20 kWhstored=10 %IdlingkW=0
Set LoadMult=1.5
Set VoltageBases=[11, 0.4]
CalcVoltageBases
Solve
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "Feeder.dss"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    return path


def test_pods_head_and_ratings(script: Path, tmp_path: Path) -> None:
    imported = import_feeder(str(script), tmp_path / "out")
    assert imported.check.largest_vm_pu < 1e-6
    assert imported.check.head_kw == pytest.approx(imported.check.source_head_kw, abs=1e-3)
    feeder = load_feeder(tmp_path / "out")
    assert feeder.master.resolve() == script
    assert str(feeder.file.script) == "../mine/Feeder.dss"
    assert feeder.head_terminal == "Transformer.SUB@SRC"
    kinds = {pod: (entry.element, entry.kind, entry.kw) for pod, entry in feeder.pods.items()}
    assert kinds == {
        "LOAD_A": ("Load.A", "load", 30.0),
        "B": ("Load.B", "load", 6.0),
        "FEEDIN": ("Load.FEEDIN", "generator", 4.5),
        "GENERATOR_A": ("Generator.A", "generator", 6.0),
        "ROOF": ("Pvsystem.ROOF", "pv", 10.0),
        "CELL": ("Storage.CELL", "storage", 0.0),
    }
    assert feeder.pods["LOAD_A"].kvar == 7.5
    assert feeder.pods["ROOF"].kvar == pytest.approx(10.0 * 0.98**-1 * (1 - 0.98**2) ** 0.5, rel=1e-4)
    assert {branch: (r.i_a, r.s_kva) for branch, r in feeder.file.ratings.items()} == {
        "Line.RATED": (210.0, None),
        "Transformer.SUB": (None, 400.0),
    }
    assert imported.ratings_missing == ("Line.PLAIN", "Line.SERVICE")
    assert feeder.meters["HEAD"].phases == (1, 2, 3)
    text = (tmp_path / "out" / "feeder.yaml").read_text()
    assert "# - lines with OpenDSS's default of 400 A were taken to have no rating" in text
    assert "Without one: Line.PLAIN, Line.SERVICE." in text


def test_into_the_scripts_own_folder(script: Path) -> None:
    import_feeder(str(script), script.parent)
    assert sorted(path.name for path in script.parent.iterdir()) == ["Feeder.dss", "feeder.yaml"]
    assert load_feeder(script.parent).master == script.parent / "Feeder.dss"
    with pytest.raises(FeederError, match=r"the file exists already.*force"):
        import_feeder(str(script), script.parent)
    import_feeder(str(script), script.parent, force=True, name="again")
    assert load_feeder(script.parent).name == "again"
    assert script.read_text() == SCRIPT


@pytest.mark.parametrize("feeder", ["mv5"])
def test_models_of_this_project(feeder: str, tmp_path: Path) -> None:
    imported = import_feeder(str(MODELS / feeder / "Master.dss"), tmp_path / "out")
    assert imported.check.largest_vm_pu < 1e-9
    assert set(load_feeder(tmp_path / "out").pods) == {*(f"{k}{n}" for k in ("SS", "PV") for n in range(1, 6)), "B3"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("New Line.service", "New Lime.service", "Feeder.dss:9: OpenDSS refuses the circuit"),
        ("New Load", "! New Load", "the circuit has no load, generator or storage in service"),
        ("New Circuit", "! New Circuit", "Feeder.dss"),
    ],
)
def test_scripts_that_are_wrong(old: str, new: str, expected: str, script: Path, tmp_path: Path) -> None:
    text = SCRIPT if "! New Load" not in new else SCRIPT[: SCRIPT.index("New Load")] + "Set VoltageBases=[11, 0.4]\n"
    script.write_text(text.replace(old, new))
    with pytest.raises(FeederError) as refused:
        import_feeder(str(script), tmp_path / "out")
    assert expected in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_an_element_that_the_framework_does_not_model_is_noticed(script: Path, tmp_path: Path) -> None:
    """A storage that discharges in the script follows orders here; in the base case it has the script's power."""
    script.write_text(SCRIPT.replace("%IdlingkW=0", "%IdlingkW=0 State=discharging kW=4"))
    imported = import_feeder(str(script), tmp_path / "out")
    assert imported.check.largest_vm_pu < 1e-6


SMALL = """Clear
New Circuit.small basekV=12.47 pu=1.02 bus1=src MVAsc3=500
New Line.l1 bus1=src bus2=b1 R1=0.3 X1=0.4 C1=10 C0=5 Length=3 Units=km NormAmps=300
New Transformer.tx buses=[b1 b2] conns=[delta wye] kVs=[12.47 0.48] kVAs=[500 500] XHL=4
New Load.a bus1=b2 kV=0.48 kW=100 PF=0.95
"""
BASES = "Set VoltageBases=[12.47 0.48]\nCalcVoltageBases\nSolve\n"


def taken(folder: Path, script: str, encoding: str = "utf-8") -> tuple[Imported, str]:
    """What an import of a script says, and the file that it leaves."""
    folder.mkdir()
    (folder / "Master.dss").write_text(script, encoding=encoding)
    imported = import_feeder(str(folder / "Master.dss"), folder)
    assert imported.check.head_kw == pytest.approx(imported.check.source_head_kw, abs=1e-3)
    return imported, (folder / "feeder.yaml").read_text(encoding="utf-8")


def test_buses_that_differ_by_an_umlaut_stay_apart_in_latin_1(tmp_path: Path) -> None:
    further = "".join(
        f"New Line.{name} bus1=b2 bus2={name} R1=0.1 X1=0.08 C1=0 C0=0 Length=0.1 Units=km\n"
        f"New Load.{name} bus1={name} kV=0.48 kW={kw}\n"
        for name, kw in (("müller", 20), ("möller", 5))
    )
    latin, _ = taken(tmp_path / "latin", SMALL + further + BASES, "latin-1")
    utf_8, _ = taken(tmp_path / "utf-8", SMALL + further + BASES)
    assert latin.check == utf_8.check
    assert {"MÜLLER", "MÖLLER"} < set(load_feeder(tmp_path / "latin").pods)


def test_loads_and_generators_that_follow_no_multiplier(tmp_path: Path) -> None:
    further = (
        "New Load.fixed bus1=b2 kV=0.48 kW=50 PF=1 Status=fixed\nNew Load.exempt bus1=b2 kV=0.48 kW=20 Status=exempt\n"
        "New Generator.g bus1=b2 kV=0.48 kW=80\nNew Generator.own bus1=b2 kV=0.48 kW=8 Status=fixed\n"
        "Set LoadMult=0.7 GenMult=0.5\n"
    )
    taken(tmp_path / "a", SMALL + further + BASES)
    kw = {name: pod.kw for name, pod in load_feeder(tmp_path / "a").pods.items()}
    assert kw == pytest.approx({"A": 70.0, "FIXED": 50.0, "EXEMPT": 20.0, "G": 40.0, "OWN": 8.0})


def test_the_head_is_at_a_source_in_service(tmp_path: Path) -> None:
    second = "New Vsource.second bus1=zz basekV=12.47\nNew Line.tie bus1=zz bus2=b1 Length=2 Units=km R1=0.3 X1=0.4\n"
    taken(tmp_path / "one", SMALL + second + "Disable Vsource.source\n" + BASES)
    assert load_feeder(tmp_path / "one").head_terminal == "Line.TIE@ZZ"
    _, text = taken(tmp_path / "two", SMALL + second + BASES)
    assert "# - the power of Vsource.second is not counted at the head, which is at Vsource.source" in text
    (tmp_path / "none.dss").write_text(SMALL + "Disable Vsource.source\n" + BASES)
    with pytest.raises(FeederError, match="no voltage source in service"):
        import_feeder(str(tmp_path / "none.dss"), tmp_path / "none")


def test_loads_are_those_of_year_0(tmp_path: Path) -> None:
    _, text = taken(tmp_path / "a", SMALL + "Set Year=5\n" + BASES)
    assert "# - loads are those of year 0, not grown until year 5" in text


def test_names_with_spaces(tmp_path: Path) -> None:
    taken(tmp_path / "a", SMALL + 'New "Load.House 1" bus1=b2 kV=0.48 kW=5\n' + BASES)
    assert load_feeder(tmp_path / "a").pods["HOUSE 1"].element == "Load.HOUSE 1"


def test_base_voltages_that_need_the_solve_left_out(tmp_path: Path) -> None:
    given = "".join(f"SetkVBase bus={bus} kvll={kv}\n" for bus, kv in (("src", 12.47), ("b1", 12.47), ("b2", 0.48)))
    imported, _ = taken(tmp_path / "a", SMALL + "Solve\n" + given + "Solve\n")
    assert imported.check == taken(tmp_path / "b", SMALL + BASES)[0].check
