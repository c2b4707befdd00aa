import numpy as np
import pytest
from feeder_folders import LINE_YAML, MV5, feeder_in

from cosim.errors import FeederError
from cosim.grid.feeder import canonical_branch, find_feeder, load_feeder


def faults_of(tmp_path, old, new):
    with pytest.raises(FeederError) as caught:
        feeder_in(tmp_path, yaml=LINE_YAML.replace(old, new))
    return [str(fault).replace(f"{tmp_path}/", "") for fault in caught.value.faults]


def test_unknown_key(tmp_path):
    assert faults_of(tmp_path, "kw: 500, power_factor", "kw: 500, power_faktor") == [
        "feeder.yaml:5: pods.B.load.power_faktor: unknown key; did you mean power_factor?; got 0.95; "
        "allowed: element, kind, kw, power_factor, kvar, profile, q_profile"
    ]


def test_wrong_type_of_a_number(tmp_path):
    assert faults_of(tmp_path, "kw: 500", "kw: 500kW") == [
        'feeder.yaml:5: pods.B.load.kw: a number is expected; got "500kW"; '
        "allowed: number, at least 0: factor of the profile [kW]"
    ]


def test_a_number_in_quotes_is_text(tmp_path):
    (fault,) = faults_of(
        tmp_path, "power_factor: 0.95, profile: constant}\n  B.b", 'power_factor: "1", profile: x}\n  B.b'
    )
    assert fault.startswith('feeder.yaml:5: pods.B.load.power_factor: a number is expected; got "1"')


def test_power_factor_out_of_range(tmp_path):
    (fault,) = faults_of(tmp_path, "kw: 500, power_factor: 0.95", "kw: 500, power_factor: 95")
    assert fault.startswith("feeder.yaml:5: pods.B.load.power_factor: out of range; got 95")


def test_unknown_kind(tmp_path):
    (fault,) = faults_of(tmp_path, "kind: storage", "kind: battery")
    assert fault.startswith('feeder.yaml:6: pods.B.battery.kind: not one of the choices; got "battery"; allowed: load')


@pytest.mark.parametrize(
    ("new", "problem"),
    [
        ("kind: storage, profile: constant", "storage follows orders, it takes no profile"),
        ("kind: storage, kw: 5, power_factor: 1", "storage follows orders, it takes no kw, power_factor"),
        ("kind: load, profile: constant", "a POD of kind load needs kw"),
        ("kind: pv", "a POD of kind pv needs kw, profile"),
    ],
)
def test_what_a_pod_takes_depends_on_its_kind(tmp_path, new, problem):
    assert faults_of(tmp_path, "kind: storage", new) == [f"feeder.yaml:6: pods.B.battery: {problem}"]


def test_a_rating_is_either_a_current_or_a_power(tmp_path):
    assert faults_of(tmp_path, "{i_a: 100}", "{i_a: 100, s_kva: 5}") == [
        "feeder.yaml:8: ratings.Line.L1: give either i_a or s_kva"
    ]
    assert len(faults_of(tmp_path, "{i_a: 100}", "{}")) == 1


def test_all_faults_at_once(tmp_path):
    with pytest.raises(FeederError) as caught:
        feeder_in(tmp_path, yaml="name: x\nhead: {branch: Line.L1}\npods: {}\n")
    assert [(fault.line, fault.key) for fault in caught.value.faults] == [(2, "head.end"), (3, "pods")]


def test_powers_by_profile(tmp_path):
    yaml = LINE_YAML.replace(
        "  B.battery", "  B.pv: {element: Generator.G, kind: pv, kw: 40, profile: sun}\n  B.battery"
    ).replace("kw: 500, power_factor: 0.95, profile: constant", "kw: 500, power_factor: 0.8, profile: town")
    feeder = feeder_in(tmp_path, yaml=yaml)
    assert feeder.profile_columns == ("town", "sun")
    p_kw, q_kvar = feeder.powers(("sun", "town"), np.array([[0.5, 0.1], [1.0, 0.2]]))
    np.testing.assert_allclose(p_kw, [[1000.0, 50.0, -20.0, 0.0], [1000.0, 100.0, -40.0, 0.0]])
    np.testing.assert_allclose(q_kvar[:, 1:], [[37.5, 0.0, 0.0], [75.0, 0.0, 0.0]], atol=1e-12)
    np.testing.assert_allclose(q_kvar[:, 0], 1000.0 * np.sqrt(1.0 / 0.95**2 - 1.0))


def test_names_of_branches_are_written_in_one_way(tmp_path):
    feeder = feeder_in(tmp_path, yaml=LINE_YAML.replace("Line.L1, end: SRC", "line.l1, end: src"))
    assert feeder.head_terminal == "Line.L1@SRC"
    assert canonical_branch("TRANSFORMER.sub_1") == "Transformer.SUB_1"
    assert feeder.rating("LINE.l1").i_a == 100.0
    assert feeder.rating("Line.L2") is None


def test_a_feeder_is_found_beside_the_scenario_first_then_in_the_library(tmp_path):
    feeder_in(tmp_path / "own")
    assert find_feeder("own", tmp_path, MV5.parent) == tmp_path / "own"
    assert find_feeder("mv5", tmp_path, MV5.parent) == MV5
    feeder_in(tmp_path / "mv5")
    assert find_feeder("mv5", tmp_path, MV5.parent) == tmp_path / "mv5"
    assert find_feeder(str(MV5), tmp_path, tmp_path) == MV5


def test_an_unknown_feeder_names_those_there_are(tmp_path):
    feeder_in(tmp_path / "north")
    feeder_in(tmp_path / "south")
    with pytest.raises(
        FeederError, match=r"feeder: unknown feeder; got nort; allowed: north, south, or a feeder's folder"
    ):
        find_feeder("nort", tmp_path / "elsewhere", tmp_path)


def test_mv5_has_the_pods_of_its_design():
    feeder = load_feeder(MV5)
    assert [pod for pod, entry in feeder.pods.items() if entry.kind == "storage"] == ["SS3.battery"]
    assert len(feeder.profile_columns) == 9
    assert {meter.topic for meter in feeder.meters.values()} == {"pri/0", "sub/1", "sub/3", "sub/4"}
