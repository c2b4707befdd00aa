"""What ``feeder.yaml`` of the standard feeders says beside the scripts agrees with them, and with its own comments."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from cosim.grid.engine import Engine
from cosim.grid.feeder import canonical_branch, load_feeder
from cosim.io.profiles import read_simbench
from cosim.scenario.schema import GridConfig

NAMES = ("lfm12", "ieee123", "european_lv")
BASE_DAY = datetime(2016, 1, 20, tzinfo=timezone(timedelta(hours=1)))
QUARTERS = 96
CHARGING_A = 0.5  # branches that carry less have no rating: charging currents of lines


@pytest.fixture(scope="module", params=NAMES)
def feeder(request, feeders):
    return load_feeder(feeders / request.param)


@pytest.fixture(scope="module")
def ieee123(feeders):
    return load_feeder(feeders / "ieee123")


@pytest.fixture(scope="module")
def european_lv(feeders):
    return load_feeder(feeders / "european_lv")


def test_every_load_is_a_pod_and_has_its_power_factor(feeder, opendss):
    dss = opendss(feeder.name, "Redirect Master.dss")
    loads = {f"load.{load.Name}": (load.kW, load.kvar) for load in dss.ActiveCircuit.Loads}
    assert [pod.element.lower() for pod in feeder.pods.values()] == list(loads)
    for pod in feeder.pods.values():
        kw, kvar = loads[pod.element.lower()]
        assert pod.q_per_profile_kvar / pod.kw == pytest.approx(kvar / kw, rel=1e-12)
        assert pod.kw == kw or feeder.name == "european_lv"


@pytest.fixture(scope="module")
def base_day(feeder):
    """Layout and the highest current of each branch over the base day (n_branch,) [A]."""
    profiles = read_simbench("1-complete_data-mixed-all-1-sw", feeder.profile_columns)
    first = int((BASE_DAY.astimezone(UTC) - profiles.start).total_seconds()) // profiles.step_s
    p_kw, q_kvar = feeder.powers(profiles.names, profiles.values[first : first + QUARTERS])
    engine = Engine(feeder, GridConfig())
    states = [engine.solve(p, q) for p, q in zip(p_kw, q_kvar, strict=True)]
    engine.close()
    i_a = np.max([state.terminal_i_a for state in states], axis=0)
    return engine.layout, np.maximum.reduceat(i_a, engine.layout.branch_start), states


def test_ratings_are_those_of_the_base_day(feeder, base_day):
    """1.25 times the highest current, to three digits; branch 2-3 of lfm12 has the study's own limit."""
    layout, highest_a, _ = base_day
    published = {"Line.2-3": 117.0} if feeder.name == "lfm12" else {}
    assert {canonical_branch(branch) for branch in feeder.file.ratings} <= set(layout.branches)
    for branch, i_a in zip(layout.branches, highest_a, strict=True):
        rating = feeder.rating(branch)
        if i_a < CHARGING_A:
            assert rating is None, branch
        elif branch in published:
            assert rating.i_a == published[branch]
        else:
            assert rating.i_a == pytest.approx(1.25 * i_a, rel=0.0051), branch
            assert rating.i_a == float(f"{rating.i_a:.3g}"), branch


def test_the_base_day_keeps_to_usual_voltages_and_to_the_ratings(base_day):
    _, _, states = base_day
    vm_pu = np.array([state.vm_pu for state in states])
    loading_pu = np.array([state.loading_pu for state in states])
    np.testing.assert_array_less(np.abs(vm_pu - 1.0), 0.06)
    assert 0.79 < np.nanmax(loading_pu) < 0.95


def test_profiles_of_ieee123_are_the_draw_that_the_file_states(ieee123):
    comment = (
        (ieee123.folder / "feeder.yaml").read_text().partition("# from the columns")[2].partition("# None exceeds")[0]
    )
    columns = [column for line in comment.splitlines()[1:] for column in line.removeprefix("#").split()]
    drawn = np.random.default_rng(123).choice(columns, size=91)
    assert [pod.profile for pod in ieee123.pods.values()] == [f"{column}_pload" for column in drawn]


def test_profiles_and_peaks_of_european_lv_are_the_draw_that_the_file_states(european_lv):
    rng = np.random.default_rng(906)
    drawn = rng.choice(["H0-A", "H0-B", "H0-C", "H0-G", "H0-L"], size=55)
    assert [pod.profile for pod in european_lv.pods.values()] == [f"{column}_pload" for column in drawn]
    assert [pod.kw for pod in european_lv.pods.values()] == list(rng.integers(3, 8, size=55))


@pytest.mark.parametrize(("name", "type_", "drawn"), [("ieee123", "sub", 18), ("european_lv", "customer", 11)])
def test_metered_loads_are_the_draw_that_the_file_states(name, type_, drawn, feeders):
    feeder = load_feeder(feeders / name)
    pods = list(feeder.pods)
    chosen = sorted(np.random.default_rng(20).choice(len(pods), size=drawn, replace=False))
    metered = [meter for meter, at in feeder.meters.items() if at.type == type_]
    assert metered == [pods[k].upper() for k in chosen]
    engine = Engine(feeder, GridConfig())
    sites = dict(zip(map(str.upper, engine.pods), engine.pod_sites, strict=True))
    engine.close()
    for meter in metered:
        at = feeder.meters[meter]
        assert sites[meter] == ".".join([at.bus.upper(), *map(str, at.phases)])


def neighbours(layout):
    """Buses joined by each branch, by bus."""
    joined = {bus: set() for bus in layout.buses}
    ends = {}
    for terminal in layout.terminals:
        branch, _, bus = terminal.partition("@")
        ends.setdefault(branch, set()).add(bus)
    for buses in ends.values():
        for bus in buses:
            joined[bus] |= buses - {bus}
    return joined


def reached(joined, start, within):
    found, ahead = {start}, [start]
    while ahead:
        new = (joined[ahead.pop()] & within) - found
        found |= new
        ahead += new
    return found


def test_zones_are_connected_and_fed_through_their_heads_alone(ieee123):
    engine = Engine(ieee123, GridConfig())
    engine.close()
    joined = neighbours(engine.layout)
    everything = set(joined)
    seen = []
    for name, zone in ieee123.file.zones.items():
        head, buses = zone.head.upper(), {bus.upper() for bus in zone.buses}
        assert head in buses
        assert reached(joined, head, buses) == buses, name
        assert not reached(joined, "150", everything - {head}) & buses, name
        seen += buses
    assert len(seen) == len(set(seen))
    assert everything - set(seen) == {"150", "150R"}
    assert set(engine.pod_buses) <= set(seen)


def test_transformers_of_zones_are_at_their_heads(ieee123):
    engine = Engine(ieee123, GridConfig())
    engine.close()
    fed = {name: zone for name, zone in ieee123.file.zones.items() if zone.transformer is not None}
    assert list(fed) == ["lateral_9r", "service_610"]
    for zone in fed.values():
        assert f"{canonical_branch(zone.transformer)}@{zone.head.upper()}" in engine.layout.terminals
