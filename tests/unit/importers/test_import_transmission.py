"""Transmission networks from pandapower and MATPOWER: what is taken, and what is refused."""

import copy

import numpy as np
import pytest

from cosim.errors import FeederError, ScenarioError
from cosim.importers.tables import quiet_pandapower
from cosim.importers.transmission import read_transmission

BUSES = """
	1	3	0	0	0	0	1	1	0	220	1	1.1	0.9;
	2	1	80	20	0	0	1	1	0	220	1	1.1	0.9;
	3	2	30	10	0	0	1	1	0	220	1	1.1	0.9;
"""
CASE = f"""function mpc = small
mpc.version = '2';
mpc.baseMVA = 100;
mpc.bus = [{BUSES}];
mpc.gen = [
	1	60	0	90	-90	1	100	1	120	10	0	0	0	0	0	0	0	0	0	0	0;
	3	50	0	90	-90	1	100	1	70	0	0	0	0	0	0	0	0	0	0	0	0;
];
mpc.branch = [
	1	2	0.01	0.1	0	100	0	0	0	0	1	-360	360;
	1	2	0.01	0.2	0	0	0	0	0	0	1	-360	360;
	2	3	0.01	0.1	0	90	0	0	0	0	1	-360	360;
	1	3	0.01	0.1	0	90	0	0	0	0	1	-360	360;
];
mpc.gencost = [
	2	0	0	3	0.05	20	0;
	2	0	0	2	30	5	0;
];
"""


@pytest.fixture
def matpower(tmp_path):
    def write(text=CASE):
        path = tmp_path / "small.m"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture(scope="module")
def shipped_case9():
    """Read once, which takes a second; not to be changed."""
    with quiet_pandapower():
        from pandapower import networks

        return networks.case9()


@pytest.fixture
def case9(shipped_case9):
    return copy.deepcopy(shipped_case9)


@pytest.fixture
def saved(tmp_path):
    def save(net):
        with quiet_pandapower():
            import pandapower

            pandapower.to_json(net, str(tmp_path / "net.json"))
        return str(tmp_path / "net.json")

    return save


def test_a_matpower_case_with_parallel_branches_and_costs(matpower):
    found = read_transmission(matpower())
    assert (found.slack, found.buses, found.feeder_bus) == ("1", ("1", "2", "3"), "2")
    assert found.grid.rows.conductors == ("1-2", "1-2 2", "2-3", "1-3")
    assert found.grid.rows.i_max_a == pytest.approx([1e5, np.nan, 9e4, 9e4], nan_ok=True)
    assert found.load_kw == pytest.approx({"2": 80_000.0, "3": 30_000.0})
    first, second = found.generators
    assert (first.bus, first.p_kw, first.p_min_kw, first.p_max_kw) == ("1", pytest.approx(6e4), 1e4, 1.2e5)
    assert first.marginal_eur_per_kwh(0.0) == pytest.approx(0.02)
    assert first.marginal_eur_per_kwh(1000.0) == pytest.approx(0.0201)  # 0.05 P^2 + 20 P
    assert second.marginal_eur_per_kwh(5e4) == pytest.approx(0.03)


def test_a_file_of_pandapower_is_the_case_of_that_name(case9, saved):
    found, expected = read_transmission(saved(case9)), read_transmission("case9")
    assert found.grid.rows.by_p == pytest.approx(expected.grid.rows.by_p)
    assert found.grid.rows.by_q == pytest.approx(expected.grid.rows.by_q)
    assert (found.load_kw, found.generators, found.slack) == (expected.load_kw, expected.generators, expected.slack)


def test_what_is_out_of_service_is_left_out(case9, saved):
    case9.line.loc[1, "in_service"] = False
    case9.gen.loc[1, "in_service"] = False
    case9.load["scaling"] = 0.6
    found = read_transmission(saved(case9))
    assert "4-5" not in found.grid.rows.conductors
    assert [unit.id for unit in found.generators] == ["ext_grid 0", "gen 0"]
    assert found.generators[0].p_kw == pytest.approx(26_000.0)


def test_what_else_injects_counts_as_negative_load(case9, saved):
    with quiet_pandapower():
        import pandapower

        pandapower.create_sgen(case9, 4, 25.0)
        pandapower.create_shunt(case9, 5, 0.0, p_mw=3.0)
    found = read_transmission(saved(case9))
    rows = found.grid.rows
    assert rows.p_kw[[rows.pods.index(bus) for bus in ("5", "6")]] == pytest.approx([65_000.0, 3_000.0])
    assert found.load_kw["5"] == pytest.approx(90_000.0)


def test_a_generator_without_a_cost_keeps_its_power(case9, saved):
    case9.poly_cost = case9.poly_cost[case9.poly_cost.et != "gen"]
    found = read_transmission(saved(case9))
    assert [unit.id for unit in found.generators] == ["ext_grid 0"]
    assert found.grid.rows.p_kw[found.grid.rows.pods.index("2")] == pytest.approx(-163_000.0)


def test_names_that_do_not_differ_give_way_to_indices(case9, saved):
    case9.bus["name"] = "bus"
    assert read_transmission(saved(case9)).buses[:2] == ("0", "3")


@pytest.mark.parametrize("name", ["case14", "case118"])
def test_a_case_without_ratings_is_refused(name):
    with pytest.raises(ScenarioError, match=r"transmission\.network: none of its \d+ branches has a rating below 9900"):
        read_transmission(name)


def test_a_case_in_which_nobody_could_offer_is_refused(case9, saved):
    case9.poly_cost = case9.poly_cost.iloc[:0]
    with pytest.raises(ScenarioError, match=r"transmission\.network: no generator .* polynomial cost"):
        read_transmission(saved(case9))


def test_a_phase_shifter_in_a_mesh_is_refused(matpower):
    line = "2\t3\t0.01\t0.1\t0\t90\t0\t0"
    assert f"{line}\t0\t0" in CASE
    shifted = CASE.replace(f"{line}\t0\t0", f"{line}\t1\t10")
    with pytest.raises(ScenarioError, match=r"transmission\.network: flows that .* phase shifters .* kW in"):
        read_transmission(matpower(shifted))


@pytest.mark.parametrize(
    ("source", "words"), [("case10", "case"), ("none.m", "no such file"), ("none.json", "no such file")]
)
def test_what_cannot_be_read(source, words):
    with pytest.raises(FeederError, match=words):
        read_transmission(source)


def test_without_a_solution_there_are_no_voltages(matpower, caplog):
    far = CASE.replace("2	1	80	20", "2	1	80	2000")
    found = read_transmission(matpower(far))
    assert found.grid.rows.nodes == ()
    assert "voltages of transmission are not looked at" in caplog.text
