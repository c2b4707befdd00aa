"""One session of the local market: is there a need, and what is bought for it.

The network operator's schedule, without what is to be bought, and its half-bands in; awards and all that is left
unsolved out. The same function clears one market time unit (MTU) in real time and all of a day ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from cosim.domain.frames import Floats
from cosim.domain.market import Award, Bid, Coupling, Need, Resource
from cosim.grid.linear import Linearisation
from cosim.grid.measures import Measure, Positions
from cosim.market.ac_loop import AcClearing, AcExcess, clear_with_ac
from cosim.market.book import check_case
from cosim.market.case import HOLD, ClearingCase, ClearingSettings
from cosim.market.clearing import clear
from cosim.market.feeder_model import FeederModel
from cosim.market.grid_side import MeasureChoice, Mode, choose_measures
from cosim.market.highs import Highs
from cosim.market.network import Mask, NetworkRows, network_part
from cosim.market.outcome import Clearing, Unsolved
from cosim.market.planes import LimitSettings
from cosim.market.pricing import awards
from cosim.market.program import Solver
from cosim.market.uncertainty import (
    Protection,
    Uncertainty,
    UncertaintySet,
    box,
    budget,
    certain,
    ellipsoid,
    factor_set,
)
from cosim.scenario.market import MarketConfig, UncertaintyConfig

_MIP_GAP = 1e-4
_CLOSE = 0.995
"""Of its limit: quantities below this with all forecast errors need no flexibility, whatever the power flow adds."""


@dataclass(frozen=True, eq=False)
class Situation:
    """The schedule without what is to be bought over the MTUs from ``t_s`` on, and half-bands of its error, all
    (n_mtu, n_pod) [kW, kvar]; ``position`` (n_control,) of taps and capacitors, and of the operator's measures last.
    None equals another."""

    t_s: int
    p_kw: Floats
    q_kvar: Floats
    half_p_kw: Floats
    half_q_kvar: Floats
    position: tuple[float, ...]


class Known(NamedTuple):
    """One MTU of a situation: all derivatives there, what they say of the limited quantities, and what forecast errors
    can do to these."""

    linear: Linearisation
    rows: NetworkRows
    protection: Protection


@dataclass(frozen=True)
class Foreseen:
    """A limit that the schedule does not keep in an MTU with all forecast errors, in its unit: the value expected, and
    with the errors that are worst for it at most."""

    mtu: int
    kind: str
    element: str
    expected: float
    worst: float
    limit: float


@dataclass(frozen=True)
class SessionResult:
    """What was bought, for which limits, at what cost [EUR]; what is unsolved; limits that the power flow exceeds."""

    awards: tuple[Award, ...]
    cost_eur: float
    unsolved: tuple[Unsolved, ...]
    excess: tuple[AcExcess, ...]
    rounds: int
    gap: float
    clearing: Clearing | None


@dataclass(frozen=True)
class Book:
    """What is offered in a session, what couples its MTUs, and what others than the operator of the grid need."""

    bids: tuple[Bid, ...] = ()
    couplings: tuple[Coupling, ...] = ()
    needs: tuple[Need, ...] = ()


NOTHING_BOUGHT = SessionResult((), 0.0, (), (), 0, 0.0, None)


@dataclass(frozen=True)
class LocalMarket:
    """The rules of one market on one feeder. ``model_at(position)``: the feeder at positions of its controls; ``kinds``
    (n_pod,): kinds of its PODs, whose errors have a factor in common; ``buyer``: who pays for limits."""

    config: MarketConfig
    model_at: Callable[[tuple[float, ...]], FeederModel]
    kinds: tuple[str, ...]
    mtu_s: int
    buyer: str = "dso"

    def foreseen(self, situation: Situation) -> tuple[Foreseen, ...]:
        """Limits that are not kept without flexibility, with all forecast errors. Raises PowerFlowError."""
        return tuple(found for t in range(len(situation.p_kw)) for found in _foreseen(t, self.known(situation, t)))

    def clear(
        self,
        situation: Situation,
        bids: Sequence[Bid],
        resources: Mapping[str, Resource],
        couplings: Sequence[Coupling] = (),
        stage: str = "local",
        gate_s: int | None = None,
        needs: Sequence[Need] = (),
    ) -> SessionResult:
        """Buys what keeps all limits and meets all ``needs``, or leaves the least unmet; ``gate_s``: when the gate
        closed, bids that came later are a fault. Raises BidError with all that is wrong with the book, PowerFlowError,
        MarketError."""
        model, keep = self.model_at(situation.position), list[Mask]()
        book, solver = Book(tuple(bids), tuple(couplings), tuple(needs)), self._solver()

        def in_question() -> Iterator[tuple[NetworkRows, Uncertainty]]:
            reach_kw: list[tuple[Floats, Floats]] = []
            for t in range(len(situation.p_kw)):
                known = self.known(situation, t)
                reach_kw = reach_kw or _capability_kw(bids, resources, known.rows.pods, len(situation.p_kw))
                keep.append(_in_question(known, reach_kw[t]))
                yield network_part(known.rows, keep[-1]), known.protection.uncertainty

        def case() -> ClearingCase:  # nothing here keeps it: over a day ahead it is large, and its networks change
            made = self._case(situation, book, resources, tuple(in_question()), gate_s)
            check_case(made)
            return made

        def linearise(t: int, p_kw: Floats, q_kvar: Floats) -> NetworkRows:
            return network_part(model.linearise(t, p_kw, q_kvar), keep[t])

        def magnitudes(t: int, p_kw: Floats, q_kvar: Floats) -> Floats:
            return model.magnitudes(t, p_kw, q_kvar)[:, keep[t]]

        if self.config.outer_loop:
            found = clear_with_ac(case(), linearise, magnitudes, solver)
        else:
            found = AcClearing(clear(case(), solver), 1, (), ())
        clearing = found.clearing
        bought = awards(clearing, self.config.pricing, stage, self.buyer)
        return SessionResult(
            bought, clearing.cost_eur, clearing.unsolved, found.excess, found.rounds, clearing.gap, clearing
        )

    def in_question(
        self, situation: Situation, capability_kw: tuple[Floats, Floats]
    ) -> tuple[NetworkRows, Uncertainty]:
        """Of the quantities in the one MTU of a situation those that may leave their limits with changes of P and of Q
        of each POD (n_pod,) [kW, kvar] up to ``capability_kw``, and its forecast errors."""
        known = self.known(situation, 0)
        return network_part(known.rows, _in_question(known, capability_kw)), known.protection.uncertainty

    def choose(
        self,
        situation: Situation,
        measures: Sequence[Measure],
        mode: Mode,
        allows: Callable[[Positions], bool],
        moved: Mapping[str, int],
        book: Book,
        resources: Mapping[str, Resource],
    ) -> tuple[MeasureChoice, Situation]:
        """Which ``measures`` the operator moves, and the situation then; the ``book`` counts in the mode ``with`` only.
        See `choose_measures`. Raises PowerFlowError, MarketError, BidError."""
        controls = situation.position[: len(situation.position) - len(measures)]
        own = situation.position[len(controls) :]
        start = {measure.name: round(position) for measure, position in zip(measures, own, strict=True)}

        def position(at: Positions) -> tuple[float, ...]:
            return (*controls, *(float(at[measure.name]) for measure in measures))

        ahead = (self.known(situation, t) for t in range(len(situation.p_kw)))
        choice = choose_measures(
            self._case(situation, book, resources, [(known.rows, known.protection.uncertainty) for known in ahead]),
            measures,
            start,
            lambda at: self.model_at(position(at)),
            mode,
            allows=allows,
            moved=moved,
            solver=self._solver(),
        )
        return choice, replace(situation, position=position(choice.positions))

    def _case(
        self,
        situation: Situation,
        book: Book,
        resources: Mapping[str, Resource],
        rows: Sequence[tuple[NetworkRows, Uncertainty]],
        gate_s: int | None = None,
    ) -> ClearingCase:
        return ClearingCase(
            bids=book.bids,
            resources=resources,
            networks=tuple(network for network, _ in rows),
            t_s=situation.t_s,
            mtu_s=self.mtu_s,
            uncertainty=tuple(uncertainty for _, uncertainty in rows),
            needs=book.needs,
            couplings=book.couplings,
            settings=self._settings(),
            gate_s=gate_s,
        )

    def known(self, situation: Situation, t: int) -> Known:
        """The network in an MTU of a situation, and what forecast errors can do to it. Raises PowerFlowError."""
        return self._known(self.model_at(situation.position), situation, t)

    @cached_property
    def _known(self) -> Callable[[FeederModel, Situation, int], Known]:
        """What was asked for last is kept, and no more: it is large."""

        def known(model: FeederModel, situation: Situation, t: int) -> Known:
            half = situation.half_p_kw[t], situation.half_q_kvar[t]
            linear, rows = model.around(situation.p_kw[t], situation.q_kvar[t])
            return Known(linear, rows, Protection(rows, uncertainty_of(self.config.uncertainty, *half, self.kinds)))

        return lru_cache(1)(known)

    def _solver(self) -> Solver:
        if self.config.solver == "highs":
            return Highs(self.config.time_limit_s, _MIP_GAP)
        from cosim.market.reference import Reference  # Pyomo takes a second to import

        return Reference("cbc", self.config.time_limit_s, _MIP_GAP)

    def _settings(self) -> ClearingSettings:
        interface = HOLD if self.config.interface == "hold" else None
        return ClearingSettings(limit_settings(self.config), interface, slack_eur_per_kwh=self.config.slack_eur_per_kwh)


def limit_settings(config: MarketConfig) -> LimitSettings:
    """How limits become rows."""
    return LimitSettings(config.planes, config.polygon, config.voltage, overload=config.overload)


def uncertainty_of(
    config: UncertaintyConfig, half_p_kw: Floats, half_q_kvar: Floats, kinds: Sequence[str]
) -> Uncertainty:
    """Forecast errors with half-bands (n_pod,) that a plan has to survive; PODs of one of ``kinds`` (n_pod,) have a
    factor in common."""
    if config.set == "none":
        return certain(len(half_p_kw))
    return Uncertainty(half_p_kw, half_q_kvar, _set_of(config, kinds), base=config.base, reactive=config.reactive)


def _set_of(config: UncertaintyConfig, kinds: Sequence[str]) -> UncertaintySet:
    if config.set == "budget":
        return budget(config.gamma)
    repeated = 2 if config.reactive == "independent" else 1
    n = repeated * len(kinds)
    if config.set == "ellipsoid":
        return ellipsoid(np.full((n, n), config.correlation) + (1.0 - config.correlation) * np.eye(n), config.omega)
    if config.set == "factors":
        classes = list(dict.fromkeys(kinds))
        one = np.array([[config.common * (kind == each) for each in classes] for kind in kinds])
        return factor_set(np.kron(np.eye(repeated), one), np.full(n, 1.0 - config.common))
    return box()


def _foreseen(mtu: int, known: Known) -> list[Foreseen]:
    rows, reach = known.rows, known.protection.reach(ceiling=False)
    size, n, highest, lowest = np.abs(rows.base), len(rows.conductors), rows.upper, rows.lower
    over, under = np.flatnonzero(size + reach > highest).tolist(), np.flatnonzero(size - reach < lowest).tolist()
    return [
        Foreseen(mtu, "i_max" if k < n else "v_max", rows.names[k], *_figures(size[k], size[k] + reach[k], highest[k]))
        for k in over
    ] + [Foreseen(mtu, "v_min", rows.names[k], *_figures(size[k], size[k] - reach[k], lowest[k])) for k in under]


def _figures(*values: np.float64) -> tuple[float, float, float]:
    expected, worst, limit = map(float, values)
    return expected, worst, limit


def _in_question(known: Known, capability_kw: tuple[Floats, Floats]) -> Mask:
    """Quantities (n_quantity,) that may leave their limits with some errors and some of the flexibility offered, which
    is ``capability_kw``: changes of P and of Q of each POD at most (n_pod,)."""
    (by_kw, by_kvar), rows, protection = capability_kw, known.rows, known.protection
    widest = None
    if protection.uncertainty.base == "residual":  # what is sold turns no POD's power
        size_kw = np.abs(rows.p_kw)
        widest = 1.0 + np.minimum(np.divide(by_kw, size_kw, out=np.zeros_like(by_kw), where=size_kw > 0.0), 1.0)
    reach = protection.reach(ceiling=True, scale=widest)
    reach = reach + np.abs(rows.by_p) @ by_kw
    if by_kvar.any():
        reach += np.abs(rows.by_q) @ by_kvar
    size = np.abs(rows.base)
    return np.asarray((size + reach > _CLOSE * rows.upper) | (size - reach < rows.lower / _CLOSE))


def registered_kw(resources: Mapping[str, Resource], pods: Sequence[str]) -> tuple[Floats, Floats]:
    """How far resources can move P and Q of each POD (n_pod,) [kW, kvar], at most."""
    index = {pod: k for k, pod in enumerate(pods)}
    p_kw, q_kvar = np.zeros(len(index)), np.zeros(len(index))
    for unit in resources.values():
        kw = max(unit.up_kw, unit.down_kw)
        p_kw[index[unit.pod]] += kw
        q_kvar[index[unit.pod]] += abs(unit.kvar_per_kw) * kw
    return p_kw, q_kvar


def _capability_kw(
    bids: Sequence[Bid], resources: Mapping[str, Resource], pods: Sequence[str], n_mtu: int
) -> list[tuple[Floats, Floats]]:
    """How far the bids can move P and Q of each POD in each MTU (n_pod,) [kW, kvar], at most."""
    index = {pod: k for k, pod in enumerate(pods)}
    p_kw, q_kvar = np.zeros((n_mtu, len(pods))), np.zeros((n_mtu, len(pods)))
    for bid in bids:
        shares = dict(bid.shares)
        for member in bid.members:
            resource = resources[member]
            kw = np.array(bid.quantity_kw) * shares.get(member, 1.0) * (1.0 + sum(resource.rebound))
            p_kw[:, index[resource.pod]] += kw
            q_kvar[:, index[resource.pod]] += abs(resource.kvar_per_kw) * kw
    return list(zip(p_kw, q_kvar, strict=True))
