"""Grid-side measures: where the operator puts its own taps, capacitors and switches before it buys flexibility.

Combinations of positions are gone through from the cheapest moves on. One of them holds in all MTUs of a clearing; what
it leaves to be bought is for the clearing (`clear`, `clear_with_ac`) of the case at these positions.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from cosim.domain.frames import Floats
from cosim.errors import BidError, Fault, MarketError, PowerFlowError, SolverError
from cosim.grid.measures import Measure, Positions, moves_eur, moves_of
from cosim.market.case import ClearingCase
from cosim.market.clearing import clear
from cosim.market.highs import Highs
from cosim.market.network import NetworkRows
from cosim.market.offers import offers_of
from cosim.market.outcome import Clearing
from cosim.market.program import Solver
from cosim.market.terms import MtuNetwork

Mode = Literal["before", "with"]

_SAME = 1e-6  # costs [EUR; of large ones: of them] and excesses over all limits [pu] that differ by less are equal
_DIGITS = 9  # of costs that are sums in another order


class GridModel(Protocol):
    """A network at one position of its measures, e.g. a `FeederModel`."""

    def linearise(self, mtu: int, p_kw: Floats, q_kvar: Floats) -> NetworkRows:
        """The network of an MTU at net consumption (n_pod,) [kW, kvar]."""
        ...


@dataclass(frozen=True)
class MeasureChoice:
    """Where the measures go: ``positions``, the ``moves`` of those that move, and their ``cost_eur``.

    ``excess_pu``: by how much limits are exceeded there without more flexibility (see `forecast_excess_pu`); ``case``:
    the case there, and ``clearing`` that of the mode ``with``. ``looked_at``: number of combinations of positions;
    ``failed``: why some of them are none to choose, as their power flow or their clearing has no answer.
    ``unseen_from_eur``: if there were more than could be looked at, the least that moves of the others cost, else None.
    """

    positions: Positions
    moves: Mapping[str, int]
    cost_eur: float
    excess_pu: float
    case: ClearingCase
    clearing: Clearing | None
    looked_at: int
    failed: tuple[str, ...]
    unseen_from_eur: float | None

    @property
    def total_eur(self) -> float:
        """Cost of the moves and of the clearing, with the price of what stays unsolved."""
        return self.cost_eur + (self.clearing.objective_eur if self.clearing is not None else 0.0)


def choose_measures(
    case: ClearingCase,
    measures: Sequence[Measure],
    start: Positions,
    model_at: Callable[[Positions], GridModel],
    mode: Mode,
    *,
    allows: Callable[[Positions], bool] = lambda _: True,
    moved: Mapping[str, int] | None = None,
    solver: Solver | None = None,
    max_combinations: int = 1000,
) -> MeasureChoice:
    """The measures to take from the positions ``start``, for the schedules in the networks of ``case``.

    ``before``: the cheapest moves with which no limit is exceeded at the forecast, whatever its errors, by the linear
    model and without buying; if there are none, those that leave the least excess. ``with``: the moves of which the
    cost and that of the clearing on the linear model are least together. Of equals the choice has the fewest moves,
    then those of measures named first.

    ``allows`` tells whether positions may be taken together (`Engine.allows`); ``moved`` counts the moves already made
    today. Raises BidError if a clearing with measures has an objective other than cost, and the first error met if the
    power flow or the clearing has no answer in any combination.
    """
    if mode == "with" and case.settings.objective != "least_cost":
        problem = "measures and flexibility are weighed by their cost"
        raise BidError(Fault(problem, key="objective", value=case.settings.objective, allowed="least_cost"))
    search = _Search(case, measures, start, model_at, mode, solver or Highs())
    left = _moves_left(measures, moved or {})
    for combination in _cheapest_first(measures, start, left, search.hopeless):
        if search.looked_at == max_combinations:
            search.unseen_from_eur = combination.cost_eur
            break
        search.look_at(combination, allows)
        if search.done:
            break
    return search.choice()


def forecast_excess_pu(case: ClearingCase) -> float:
    """By how much the limits of all MTUs are exceeded in all [of each limit] at the schedule, with awards of earlier
    stages only, each with the forecast errors that are worst for it."""
    offers = offers_of(case)
    total = 0.0
    for t in range(case.n_mtu):
        network = MtuNetwork(case, offers, t)
        state = network.state(offers.columns.lower)
        for number, family in enumerate(network.families):
            over, at = network.excess(number, state)
            total += float((over.max(axis=1, initial=0.0) / (family.stretch * family.limit[at])).sum())
    return total


def at_positions(case: ClearingCase, model: GridModel) -> ClearingCase:
    """The case with the same schedules in another network."""
    networks = [model.linearise(t, network.p_kw, network.q_kvar) for t, network in enumerate(case.networks)]
    return replace(case, networks=tuple(networks))


@dataclass(frozen=True)
class _Combination:
    """Positions, in order of ``key``: their cost, and then their ``rank``, which is the number of moves, the moves of
    each measure (the first one's before the others'), and the positions among those of a measure."""

    positions: Positions
    cost_eur: float
    rank: tuple[int, tuple[int, ...], tuple[int, ...]]

    @property
    def key(self) -> tuple[float, tuple[int, tuple[int, ...], tuple[int, ...]]]:
        return self.cost_eur, self.rank


def _moves_left(measures: Sequence[Measure], moved: Mapping[str, int]) -> dict[str, float]:
    return {
        measure.name: math.inf if measure.moves_per_day is None else measure.moves_per_day - moved.get(measure.name, 0)
        for measure in measures
    }


def _cheapest_first(
    measures: Sequence[Measure],
    start: Positions,
    moves_left: Mapping[str, float],
    hopeless: Callable[[_Combination], bool],
) -> Iterator[_Combination]:
    """All combinations of positions within the moves left, in order of their key, without those that are ``hopeless``
    and all that move as much or more."""
    options = [_options(measure, start[measure.name], moves_left[measure.name]) for measure in measures]

    def made(index: tuple[int, ...]) -> _Combination:
        positions = {m.name: own[k] for m, own, k in zip(measures, options, index, strict=True)}
        moves = moves_of(measures, start, positions)
        fewest = tuple(-moves.get(measure.name, 0) for measure in measures)
        cost_eur = round(moves_eur(measures, start, positions), _DIGITS)
        return _Combination(positions, cost_eur, (sum(moves.values()), fewest, index))

    first = made((0,) * len(measures))
    ahead = [(first.key, 0, first)]
    while ahead:
        _, last, combination = heapq.heappop(ahead)
        if hopeless(combination):
            continue
        yield combination
        index = combination.rank[-1]
        for k in range(last, len(measures)):  # what was not moved on since: so each combination is made once
            if index[k] + 1 < len(options[k]):
                then = made((*index[:k], index[k] + 1, *index[k + 1 :]))
                heapq.heappush(ahead, (then.key, k, then))


def _options(measure: Measure, start: int, moves_left: float) -> list[int]:
    """Positions of a measure from the fewest moves on; where it is now, always."""
    reached = [n for n in measure.positions if n == start or abs(n - start) <= moves_left]
    return sorted(reached, key=lambda n: (abs(n - start), n))


@dataclass(frozen=True)
class _Candidate:
    """A combination and what it would lead to; ``value``: excess [pu], or cost of moves and clearing [EUR]."""

    combination: _Combination
    case: ClearingCase
    clearing: Clearing | None
    value: float


@dataclass
class _Search:
    """The best of the combinations looked at so far."""

    case: ClearingCase
    measures: Sequence[Measure]
    start: Positions
    model_at: Callable[[Positions], GridModel]
    mode: Mode
    solver: Solver
    looked_at: int = 0
    unseen_from_eur: float | None = None
    best: _Candidate | None = None
    errors: list[tuple[Positions, MarketError | PowerFlowError]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether no combination that costs more can be better."""
        return self.mode == "before" and self.best is not None and self.best.value <= _SAME

    def look_at(self, combination: _Combination, allows: Callable[[Positions], bool]) -> None:
        self.looked_at += 1
        if not allows(combination.positions):
            return
        try:
            candidate = self._candidate(combination)
        except SolverError:
            raise
        except (MarketError, PowerFlowError) as error:
            self.errors.append((combination.positions, error))
            return
        if self.best is None or self._better(candidate, self.best):
            self.best = candidate

    def _candidate(self, combination: _Combination) -> _Candidate:
        case = at_positions(self.case, self.model_at(combination.positions))
        if self.mode == "before":
            return _Candidate(combination, case, None, forecast_excess_pu(case))
        clearing = clear(case, self.solver)
        return _Candidate(combination, case, clearing, combination.cost_eur + clearing.objective_eur)

    def _better(self, new: _Candidate, old: _Candidate) -> bool:
        if abs(new.value - old.value) > self._same(old.value):
            return new.value < old.value
        return self.mode == "with" and new.combination.rank < old.combination.rank

    def _same(self, value: float) -> float:
        return _SAME if self.mode == "before" else _SAME * max(1.0, abs(value))

    def hopeless(self, combination: _Combination) -> bool:
        """Whether neither this combination nor one that moves more can be better, whatever its clearing costs."""
        if self.mode == "before" or self.best is None:
            return False
        least, most = combination.cost_eur + self._floor_eur, self.best.value
        same = self._same(most)
        return least > most + same or (least >= most - same and combination.rank > self.best.combination.rank)

    @property
    def _floor_eur(self) -> float:
        """No clearing of the case costs less: bids below zero and buyers with a price limit are served in full."""
        paid = sum(
            min(0.0, min(step.price_eur_per_kwh for step in bid.steps)) * sum(bid.quantity_kw) for bid in self.case.bids
        )
        paid -= sum(max(0.0, n.max_price_eur_per_kwh or 0.0) * sum(map(abs, n.need_kw)) for n in self.case.needs)
        return paid * self.case.mtu_h

    def choice(self) -> MeasureChoice:
        """What is to be done; raises the first error if nothing is."""
        best = self.best
        if best is None:
            if self.errors:
                raise self.errors[0][1]
            raise MarketError(f"none of {self.looked_at} combinations of positions is allowed")
        positions = best.combination.positions
        return MeasureChoice(
            positions=positions,
            moves=moves_of(self.measures, self.start, positions),
            cost_eur=best.combination.cost_eur,
            excess_pu=best.value if self.mode == "before" else forecast_excess_pu(best.case),
            case=best.case,
            clearing=best.clearing,
            looked_at=self.looked_at,
            failed=tuple(f"{_shown(at)}: {error}" for at, error in self.errors),
            unseen_from_eur=self.unseen_from_eur,
        )


def _shown(positions: Positions) -> str:
    return ", ".join(f"{name}={position}" for name, position in positions.items())
