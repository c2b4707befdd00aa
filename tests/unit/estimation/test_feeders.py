"""The estimator on feeders of the project, through the load flow that it has in a run: against the reference over node
voltages, faults of meters, and the genetic algorithm."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from node_voltage_wls import Network, estimate

from cosim.domain.frames import frozen
from cosim.domain.measurement import Channel, Place, Quality, Snapshot
from cosim.domain.site import site_sums, sites_of
from cosim.estimation import methods, wls
from cosim.estimation.baddata import screen
from cosim.estimation.history import HistoryWindow
from cosim.estimation.methods import voltage_band
from cosim.estimation.observability import observe
from cosim.estimation.problem import EstimationProblem, metered_power
from cosim.grid.engine import Engine
from cosim.grid.feeder import canonical_branch, load_feeder
from cosim.grid.site_flow import SiteFlow
from cosim.rng import rng_for
from cosim.scenario.schema import Genetic, GridConfig, Sensors
from cosim.sensing.channels import channels_of, meters_used

FEEDERS = Path(__file__).parents[3] / "dss_models"
SHARE = 0.4
"""Mean load [share of the rated one]."""


class Grid:
    """A feeder with all its meters; loads about `SHARE` of the rated ones, give or take 30 %, correlated by 0.3."""

    def __init__(self, name):
        self.feeder = load_feeder(FEEDERS / name)
        engine = Engine(self.feeder, GridConfig())
        self.pod_sites, self.network = engine.pod_sites, engine.unloaded()
        engine.close()
        self.channels = tuple(map(_canonical, channels_of(meters_used(self.feeder.meters, Sensors()), Sensors())))
        self.channels += (Channel("extra", "extra/i_a", "i_a", self.head, 2.0),)
        self.flow = SiteFlow(self.network, self.feeder, self.pod_sites, self.channels)
        self.sites, self.sigma = sites_of(self.pod_sites), np.array([c.sigma for c in self.channels])
        kw = np.array([pod.kw if pod.kind == "load" else 0.0 for pod in self.feeder.pods.values()])
        mean = SHARE * kw @ site_sums(self.pod_sites)
        mean = np.concatenate([mean, 0.5 * mean])
        spread = np.diag(0.3 * mean + 0.5)
        covariance = spread @ (0.7 * np.eye(len(mean)) + 0.3) @ spread
        self.window = HistoryWindow(mean - 4.0 * np.diag(spread), mean + 4.0 * np.diag(spread), mean, covariance)

    @property
    def head(self):
        branch, _, end = self.feeder.head_terminal.partition("@")
        return Place(branch=branch, end=end)

    def draw(self, seed):
        """A problem whose truth and errors are drawn, and that truth (2 n_site,)."""
        rng = rng_for(seed, "grid")
        truth = self.window.mean + np.linalg.cholesky(self.window.covariance) @ rng.standard_normal(2 * len(self.sites))
        value = self.flow.predict(*np.split(truth[np.newaxis], 2, axis=1))[0]
        value = value + self.sigma * rng.standard_normal(len(value))
        idle = frozen(np.zeros(2 * len(self.sites)))
        snapshot = Snapshot(frozen(value), frozen(np.where(np.isnan(value), Quality.MISSING, Quality.GOOD), np.int8))
        return EstimationProblem(self.flow, self.channels, snapshot, self.window, idle), truth

    def reference(self):
        """The same as equations in node voltages; for sites whose PODs are all loads."""
        layout, network = self.network.layout, self.network
        kw = np.array([pod.kw if pod.kind == "load" else 0.0 for pod in self.feeder.pods.values()])
        share = kw[:, np.newaxis] * site_sums(self.pod_sites)
        share = share / share.sum(axis=0)
        loads = [
            (*(node - 1 if node else None for node in b.nodes), site, b.share * share[b.pod, site])
            for b in network.pod_branches
            for site in np.flatnonzero(share[b.pod])
        ]
        loads = tuple((a, b, s, w) if a is not None else (b, a, s, w) for a, b, s, w in loads)
        readings = tuple(self._reading(channel, layout) for channel in self.channels if channel.place.storage is None)
        return Network(network.y, network.v, network.v_base, loads, len(self.sites), readings)

    def _reading(self, channel, layout):
        place, suffix = channel.place, f".{channel.place.phase}" if channel.place.phase else ""
        if channel.quantity == "vm_pu":
            where = f"{place.bus or place.end}{suffix}"
            return "v", [k for k, node in enumerate(layout.nodes) if where in (node, node.rpartition(".")[0])]
        if place.bus is not None:
            return "site", self.sites.index(f"{place.bus}{suffix}") + len(self.sites) * (channel.quantity == "q_kvar")
        where = f"{place.branch}@{place.end}{suffix}"
        rows = [k for k, name in enumerate(layout.conductors) if where in (name, name.rpartition(".")[0])]
        return channel.quantity[0], [(int(layout.conductor_node[k]), self.network.conductor_y[k]) for k in rows]


def _canonical(channel):
    place = channel.place
    return replace(
        channel,
        place=replace(
            place,
            bus=place.bus and place.bus.upper(),
            end=place.end and place.end.upper(),
            branch=place.branch and canonical_branch(place.branch),
        ),
    )


@pytest.fixture(scope="module")
def grid(request):
    return Grid(request.param)


@pytest.fixture(scope="module")
def ieee123():
    return Grid("ieee123")


@pytest.mark.parametrize("grid", ["mv5", "ieee123"], indirect=True)
def test_sites_and_node_voltages_give_one_estimate_and_one_covariance(grid):
    case, _ = grid.draw(1)
    found = wls.solve(case)
    x, covariance = estimate(
        grid.reference(), case.snapshot.value, grid.sigma, grid.window.mean, grid.window.covariance
    )
    assert found.converged
    v, y_max = np.abs(grid.network.v).max(), abs(grid.network.y).max()
    rounding = np.finfo(float).eps * y_max * v**2 / 1000.0  # of flows through switches of 1e6 S: 1e-6 kW on ieee123
    np.testing.assert_allclose(found.x, x, rtol=0.0, atol=1e-6 + rounding)
    product = np.outer(np.sqrt(np.diagonal(covariance)), np.sqrt(np.diagonal(covariance)))
    np.testing.assert_allclose(found.covariance / product, covariance / product, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("grid", ["mv5", "ieee123", "european_lv"], indirect=True)
def test_estimates_and_bands_are_as_good_as_they_say(grid):
    """Errors of estimates of one instant are correlated: the margin is that of 12 independent ones."""
    errors, before, inside, chi_square, volts = [], [], [], [], []
    for seed in range(12):
        case, truth = grid.draw(seed)
        found = wls.solve(case)
        errors.append(found.x - truth)
        before.append(grid.window.mean - truth)
        inside.append(np.abs(found.x - truth) < 1.96 * np.sqrt(np.diagonal(found.covariance)))
        chi_square.append(found.chi_square / len(found.row))
        slope = grid.flow.voltage_slope(*np.split(found.x, 2))
        band = voltage_band(slope, found.root)
        volts.append((np.abs(slope @ (found.x - truth)) <= 1.96 * band + 1e-12).mean())
    assert np.std(errors) < 0.7 * np.std(before)
    assert np.mean(inside) == pytest.approx(0.95, abs=4.0 * np.sqrt(0.05 * 0.95 / 12))
    assert np.mean(volts) == pytest.approx(0.95, abs=4.0 * np.sqrt(0.05 * 0.95 / 12))
    assert np.mean(chi_square) == pytest.approx(1.0, abs=4.0 * np.sqrt(2.0 / len(grid.channels) / 12))


def test_gross_errors_of_voltages_and_flows_between_meters_are_found(ieee123):
    """Behind switches every phase is metered again and again: 20 standard deviations are found, and nothing else is."""
    case, _ = ieee123.draw(2)
    suspects = [k for k, c in enumerate(ieee123.channels) if c.quantity == "vm_pu"][::4]
    for k in suspects:
        value = case.snapshot.value + np.where(np.arange(len(ieee123.sigma)) == k, 20.0 * ieee123.sigma, 0.0)
        found = screen(replace(case, snapshot=Snapshot(frozen(value), case.snapshot.quality)))
        assert [r.channel for r in found.rejected] == [k], ieee123.channels[k].topic


def test_no_sound_reading_is_rejected_beside_any_bad_one(ieee123):
    for k in range(0, len(ieee123.channels), 5):
        case, _ = ieee123.draw(k)
        value = case.snapshot.value - np.where(np.arange(len(ieee123.sigma)) == k, 20.0 * ieee123.sigma, 0.0)
        found = screen(replace(case, snapshot=Snapshot(frozen(value), case.snapshot.quality)))
        assert {r.channel for r in found.rejected} <= {k}


def test_metered_sites_are_observable_and_the_others_islands_by_phase(ieee123):
    case, _ = ieee123.draw(3)
    metered = np.isfinite(metered_power(case).x).reshape(2, -1).all(axis=0)
    found = observe(case)
    assert {site for site, known in zip(ieee123.sites, metered, strict=True) if known} <= set(found.observable)
    assert found.unobservable > 40
    # The lateral behind switch 3 has meters of its own at its head: phases do not mix with the rest of the feeder.
    everything = frozenset(sum(found.islands, ()))
    assert all(len(island) < len(everything) for island in found.islands)


def test_lost_meters_widen_the_bands(ieee123):
    case, _ = ieee123.draw(4)
    lost = np.array([c.meter.startswith("SW") for c in ieee123.channels])
    quality = frozen(np.where(lost, Quality.MISSING, case.snapshot.quality), np.int8)
    value = frozen(np.where(lost, np.nan, case.snapshot.value))
    fewer = replace(case, snapshot=Snapshot(value, quality))
    before, after = (np.diagonal(wls.solve(each).covariance) for each in (case, fewer))
    assert (after >= before * (1.0 - 1e-9)).all()
    assert after.sum() > 1.2 * before.sum()
    assert observe(fewer).unobservable >= observe(case).unobservable


def test_the_genetic_algorithm_still_serves(ieee123):
    """180 genes are many for 60 generations; it must still improve on the history, and least squares on it."""
    case, _ = ieee123.draw(5)
    cost = {m: methods.estimate(m, case, Genetic(), 1, 0).objective for m in ("genetic", "history", "wls")}
    assert cost["wls"] < cost["genetic"] < cost["history"]
