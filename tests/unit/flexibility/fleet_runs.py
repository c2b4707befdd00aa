"""An aggregator's units driven MTU by MTU as its simulator does, with profiles that hold as forecast."""

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np

from cosim.clock import Clock
from cosim.domain.flexibility import StorageUnit
from cosim.domain.frames import frozen
from cosim.domain.market import Award
from cosim.flexibility.fleet import Fleet
from cosim.flexibility.pod_forecast import PowerForecast
from cosim.flexibility.portfolio import PodData, portfolio
from cosim.scenario.market import AggregatorConfig, ResourceConfig

START = datetime(2016, 1, 20, tzinfo=UTC)
MTU_S = 900
PODS = (
    PodData("A", "load", 900.0, 300.0, 300.0),
    PodData("B", "load", 400.0, 0.0, 300.0),
    PodData("C", "pv", -150.0, 0.0, 150.0),
    PodData("S", "storage", 0.0, 0.0, 0.0, StorageUnit("S", 100.0, 200.0, 20.0, 0.9, 0.8)),
)
P_KW, Q_KVAR = np.array([120.0, 80.0, -50.0, 0.0]), np.array([40.0, 0.0, 0.0, 0.0])
BATTERY = {"pods": ["S"], "battery": {"rest": 0.5, "rest_kw": 30}}


def fleet_of(sellers=None, step_s=MTU_S, seed=1, days=3, **resources):
    configs = {name: ResourceConfig.model_validate(given) for name, given in resources.items()}
    clock = Clock(START, step_s, days * 86_400 // step_s, MTU_S)
    units = portfolio(configs, PODS, "feeder", clock, START, seed)
    offering = {name: AggregatorConfig.model_validate(given) for name, given in (sellers or {}).items()}
    return Fleet(units, offering, seed, MTU_S, step_s, lambda unit, t_s: 5.0)


def expected(n_mtu=1, half=0.0, p_kw=P_KW):
    """The profiles, with half-bands of a share of them."""
    p, q = (np.tile(power, (n_mtu, 1)) for power in (p_kw, Q_KVAR))
    return PowerForecast(frozen(p), frozen(q), frozen(half * np.abs(p)), frozen(half * np.abs(q)))


def award_of(bid, *quantity_kw):
    """All of what is given, or of what is offered, at the bid's first price."""
    kw = quantity_kw or bid.quantity_kw
    price = (bid.steps[0].price_eur_per_kwh,) * len(kw)
    return Award(bid.id, "local", "dso", bid.t_s, tuple(map(float, kw)), price, price)


def bids_of(session, direction=None):
    """Quantities by resource or seller, of one direction."""
    return {
        bid.resource or bid.seller: bid.quantity_kw if session.n_mtu > 1 else bid.quantity_kw[0]
        for bid in session.bids
        if direction in (None, bid.direction)
    }


class Course:
    """A fleet in the course of a run: ``drawn_kw``, ``free_kw``, ``planned_kw`` by resource of every step so far."""

    def __init__(self, fleet, half=0.0):
        self.fleet, self.half, self.memory, self.t_s = fleet, half, fleet.start(), 0
        self.names = [unit.resource.id for unit in fleet.units]
        self.drawn_kw, self.free_kw, self.planned, self.sessions = [], [], [], []

    def mtu(self, p_kw=P_KW, ahead=()):
        """One MTU; at its end a session for the next one and those of ``ahead`` (beginning [s], number of MTUs)."""
        fleet = self.fleet
        self.memory = fleet.begun(self.memory, fleet.conditions(self.t_s, p_kw))
        for t_s in range(self.t_s, self.t_s + MTU_S, fleet.step_s):
            self.planned.append(fleet.planned(self.memory, t_s, len(PODS)))
            now = fleet.conditions(t_s, p_kw)
            self.memory, drawn_kw, free_kw = fleet.stepped(self.memory, now)
            self.drawn_kw.append(drawn_kw)
            self.free_kw.append(free_kw)
        last_s, self.t_s, self.sessions = self.t_s + MTU_S - fleet.step_s, self.t_s + MTU_S, []
        for begin_s, n_mtu in (*ahead, (self.t_s, 1)):
            forecast = expected(n_mtu, self.half, p_kw)
            self.sessions.append(fleet.offered(self.memory, begin_s, forecast, last_s, self.sessions))
        self.memory = fleet.declaring(self.memory, self.sessions[-1])
        return self.sessions[0]

    def mtus(self, n):
        for _ in range(n):
            self.mtu()
        return self.sessions[-1]

    def award(self, *awards):
        self.memory = self.fleet.ordered(self.memory, self.sessions, awards)

    def drawn(self, name, last=1):
        """Power of a resource in the last steps [kW]."""
        return [float(kw[self.names.index(name)]) for kw in self.drawn_kw[-last:]]

    def one(self, name):
        """What lasts of a resource."""
        at, memory = self.names.index(name), self.memory
        group = next(g for g, group in enumerate(self.fleet.groups) if at in group.at)
        place = self.fleet.groups[group].at.tolist().index(at)
        state, free = (
            s[group][place] if isinstance(s[group], tuple) else s[group] for s in (memory.states, memory.free)
        )
        return SimpleNamespace(
            state=state,
            free=free,
            plan_kw={mtu: float(kw[at]) for mtu, kw in memory.plan_kw.items() if kw[at] != 0.0},
            fixed_kw={mtu: float(kw[at]) for mtu, kw in memory.fixed_kw.items() if not np.isnan(kw[at])},
            unreached=bool(memory.out_of_reach[at]),
        )

    def plan(self, name, plan_kw):
        """Lets a resource have sold what it is to deliver, by MTU."""
        own = np.arange(len(self.names)) == self.names.index(name)
        self.memory = replace(self.memory, plan_kw={mtu: np.where(own, kw, 0.0) for mtu, kw in plan_kw.items()})
