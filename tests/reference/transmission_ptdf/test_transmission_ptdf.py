"""The direct-current model of transmission against pandapower; see README.md."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from cosim.clock import Clock
from cosim.coordination.transmission import transmission_side
from cosim.coordination.transmission_network import least_cost
from cosim.importers.tables import quiet_pandapower, solve
from cosim.importers.transmission import read_transmission
from cosim.scenario.transmission import TransmissionConfig

HERE = Path(__file__).parent
CASES = ("case9", "case30")
MW = 1000.0


@pytest.fixture(scope="module", params=CASES)
def network(request):
    return read_transmission(request.param)


def stored(name):
    with (HERE / name).open(newline="") as lines:
        head, *rows = csv.reader(lines)
    return head[2:], ["-".join(row[:2]) for row in rows], np.array([[float(x) for x in row[2:]] for row in rows])


def solved(case):
    with quiet_pandapower():
        import pandapower
        from pandapower import networks

        net = getattr(networks, case)()
        pandapower.rundcpp(net)
        return net


def names_of(net):
    return [str(name) for name in net.bus.name]


def by_injection(rows, buses):
    n = len(rows.conductors)
    return -rows.by_p.real[:n, [rows.pods.index(bus) for bus in buses]]


def state(network, **config):
    """The system as it is: the load of its bus is what the feeder imports."""
    clock = Clock(datetime(2020, 1, 1, tzinfo=UTC), 900, 96, 900)
    side = transmission_side(TransmissionConfig(network=network.name, **config), network, clock, 1, 1.0)
    return side.at(0, network.load_kw[side.bus])


def test_stored_factors_and_flows(network):
    rows = network.grid.rows
    buses, branches, factors = stored(f"expected_ptdf_{network.name}.csv")
    assert list(rows.conductors) == branches
    assert by_injection(rows, buses) == pytest.approx(factors, abs=1e-9)
    _, _, flows = stored(f"expected_flows_{network.name}.csv")
    found = state(network, dispatch="given").grid.rows.i_a.real / MW
    assert found == pytest.approx(flows[:, 0], abs=1e-6)


def test_factors_flows_and_ratings_of_the_installed_pandapower(network):
    net = solved(network.name)
    from pandapower.pypower.makePTDF import makePTDF

    inside = net._ppc["internal"]
    factors = makePTDF(inside["baseMVA"], inside["bus"].real, inside["branch"].real)
    rows = network.grid.rows
    assert by_injection(rows, names_of(net)) == pytest.approx(factors, abs=1e-9)
    found = state(network, dispatch="given").grid.rows
    assert found.i_a.real / MW == pytest.approx(net.res_line.p_from_mw.to_numpy(), abs=1e-6)
    kv = net.bus.vn_kv[net.line.from_bus].to_numpy()
    assert found.i_max_a / MW == pytest.approx(np.sqrt(3.0) * kv * net.line.max_i_ka.to_numpy(), rel=1e-9)


def test_voltages_by_reactive_power(network):
    net, rows, step_mvar = solved(network.name), network.grid.rows, 0.1
    names, n = names_of(net), len(rows.conductors)
    held = {names[bus] for bus in (*net.gen.bus, *net.ext_grid.bus)}
    assert set(rows.nodes) == set(names) - held
    with quiet_pandapower():
        import pandapower

        probe = pandapower.create_load(net, 0, 0.0)
    found, expected = [], []
    for bus, name in enumerate(names):
        net.load.loc[probe, "bus"] = bus
        vm = []
        for sign in (-1.0, 1.0):
            net.load.loc[probe, "q_mvar"] = sign * step_mvar
            solve(net)
            vm.append(net.res_bus.vm_pu[[names.index(node) for node in rows.nodes]].to_numpy())
        expected.append((vm[1] - vm[0]) / (2.0 * step_mvar * MW))
        found.append(rows.by_q.real[n:, rows.pods.index(name)])
    scale = np.abs(expected).max()
    assert scale > 0.0
    assert np.array(found) / scale == pytest.approx(np.array(expected) / scale, abs=1e-4)
    assert rows.by_p[n:] == pytest.approx(0.0)


def test_voltages_and_their_band_are_those_of_the_case(network):
    net, rows = solved(network.name), network.grid.rows
    solve(net)
    at, n = [names_of(net).index(node) for node in rows.nodes], len(rows.conductors)
    assert rows.base[n:].real == pytest.approx(net.res_bus.vm_pu.to_numpy()[at], abs=1e-9)
    assert rows.lower[n:] == pytest.approx(net.bus.min_vm_pu.to_numpy()[at])
    assert rows.upper[n:] == pytest.approx(net.bus.max_vm_pu.to_numpy()[at])


def test_schedule_of_least_cost_costs_less_than_that_of_the_case(network):
    def cost(kw):
        return sum(
            u.cost_eur_per_kwh * kw[u.id] + 0.5 * u.slope_eur_per_kwh_kw * kw[u.id] ** 2 for u in network.generators
        )

    given = {unit.id: unit.p_kw for unit in network.generators}
    cheap = least_cost(network.generators, sum(given.values()))
    assert sum(cheap.values()) == pytest.approx(sum(given.values()), abs=1e-3)
    assert cost(cheap) < 0.999 * cost(given)
    inside = [unit for unit in network.generators if unit.p_min_kw < cheap[unit.id] < unit.p_max_kw]
    marginal = [unit.marginal_eur_per_kwh(cheap[unit.id]) for unit in inside]
    assert marginal == pytest.approx([marginal[0]] * len(marginal), rel=1e-6)
