"""Clearing: buy the flexibility of least cost that keeps the network within its limits whatever the forecast errors.

A linear program (with integers only where bids or storage need them) whose network rows are added when a plan violates
them. Of several plans of least cost the one that a second objective prefers is taken, so that the plan does not depend
on the solver's path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cosim.domain.frames import Floats
from cosim.domain.market import Need
from cosim.errors import MarketError, SolverError
from cosim.market.case import ClearingCase
from cosim.market.coupling import COMPLEMENTARITY_KW, CouplingRows, StorageColumns, one_way
from cosim.market.explain import conflict, without_bound
from cosim.market.growth import LimitKey, NetworkGrowth
from cosim.market.highs import Highs
from cosim.market.offers import ColumnList, Offers, RowList, offers_of, tie_weights
from cosim.market.outcome import UNITS, UNSOLVED_KW, BindingRow, Clearing, NeedColumns, Unsolved
from cosim.market.program import Columns, Program, RowTag, Solution, Solver, Status, joined_rows
from cosim.market.terms import MtuNetwork, WorstCorner

_MAX_ROUNDS = 200
_PRICED = 1e-9
_ROUGH_DIGITS = 6  # a solver of so few digits may find rows contradictory that leave no room
_ROOM_KW = 1e-8
_LEAST_EUR = 1e-9


def clear(case: ClearingCase, solver: Solver | None = None, begin: Sequence[tuple[LimitKey, int]] = ()) -> Clearing:
    """The plan of least cost (or of the case's other objective) and all that is known of it.

    ``begin``: limits and planes to start with, those that bound in a plan for nearly the same case; the plan is the
    same without, only later.

    When a solver's time ends before a plan with integers is proven the best, its decisions stay as they are and only
    the rest is adjusted to limits found later; `Clearing.stopped` and `gap` tell. Raises MarketError naming the rows if
    hard rows contradict each other or the cost has no bound, SolverError if no plan is found in time.
    """
    search = _Search(case, solver or Highs(), begin)
    solution = search.run()
    return _outcome(search, solution)


class _Search:
    """A program on its way to a plan that violates nothing."""

    def __init__(self, case: ClearingCase, solver: Solver, begin: Sequence[tuple[LimitKey, int]]) -> None:
        self.case, self.solver = case, solver
        self.offers = offers_of(case)
        self.networks = tuple(MtuNetwork(case, self.offers, t) for t in range(case.n_mtu))
        self.growth = NetworkGrowth(case, self.networks, self.offers.columns.lower)
        self.program, self.storages, self.needs = _first_program(case, self.offers, self.networks)
        self.bound_eur: float | None = None  # no plan costs less; known when the solver's time has ended
        if not case.settings.lazy:
            self.program = self.growth.grown(self.program, self.growth.every())
        elif begin:
            self.program = self.growth.grown(self.program, self.growth.of(begin))

    def run(self) -> Solution:
        """Solve, add what the solution violates, and again."""
        for _ in range(_MAX_ROUNDS):
            solution = self._solved()
            planes = self.growth.violated(solution.x)
            if not planes:
                found, solution = solution.x, self._settled(solution)
                planes = [] if np.array_equal(found, solution.x) else self.growth.violated(solution.x)
            if planes:
                self.program = self.growth.grown(self.program, planes)
            elif not self._both_ways(solution):
                return solution
        raise MarketError(f"clearing does not settle in {_MAX_ROUNDS} rounds")

    def _solved(self) -> Solution:
        solution = self._checked(self.solver.solve(self.program))
        if solution.status is Status.FEASIBLE:
            if self.bound_eur is None:
                cost_eur = float(self.program.columns.cost @ solution.x)
                self.bound_eur = cost_eur - solution.gap * abs(cost_eur)
            self.program = decided(self.program, solution.x)
            solution = self._checked(self.solver.solve(self.program))
        return solution

    def gap(self, solution: Solution) -> float:
        """How far a plan is from the best at most, of its own cost [1]."""
        if self.bound_eur is None:
            return solution.gap
        cost_eur = float(self.program.columns.cost @ solution.x)
        return max(0.0, cost_eur - self.bound_eur) / max(abs(cost_eur), 1e-9)

    def _checked(self, solution: Solution) -> Solution:
        if solution.status is Status.UNBOUNDED:
            raise MarketError(without_bound(self.program, self.offers))
        if solution.status is Status.INFEASIBLE and self.bound_eur is not None:
            raise SolverError("the solver's time ended with decisions that cannot keep all limits, which are hard")
        if solution.status is Status.INFEASIBLE:
            raise MarketError(conflict(self.case, self.program, self.offers, self.networks))
        return solution

    def _settled(self, solution: Solution) -> Solution:
        """With duals, and of equal plans the preferred one."""
        program, gap = self.program, solution.gap
        if len(program.integers):
            program = decided(program, solution.x)
            solution = self._checked(self.solver.solve(program))
        return replace(
            solution, x=preferred(program, solution, self.solver, self._preference(program.n_column)), gap=gap
        )

    def _preference(self, n_column: int) -> Floats:
        """Second objective (n_column,): as little activated, charged and discharged as can be."""
        weights = np.zeros(n_column)
        weights[: len(self.offers.columns.cost)] = tie_weights(len(self.offers.columns.cost))
        weights[[column for s in self.storages for column in (s.charge, s.discharge)]] = 1.0
        return weights

    def _both_ways(self, solution: Solution) -> bool:
        """Forbids storage to charge and discharge at once where the plan has it do so; whether there was any."""
        x, columns, rows = solution.x, ColumnList(), RowList()
        broken = [s for s in self.storages if min(x[s.charge], x[s.discharge]) > COMPLEMENTARITY_KW]
        for storage in broken:
            one_way(storage, columns, rows, self.program.n_column)
        if broken:
            self.program = self.program.with_columns(columns.columns()).with_rows(rows.rows())
        return bool(broken)


def _first_program(
    case: ClearingCase, offers: Offers, networks: Sequence[MtuNetwork]
) -> tuple[Program, list[StorageColumns], list[NeedColumns]]:
    """Bids, couplings, interface and needs: all but the network's limits."""
    columns, rows = ColumnList(offers.columns), RowList()
    couplings = CouplingRows(offers, columns, rows, case.mtu_h)
    for coupling in case.couplings:
        couplings.add(coupling)
    for network in networks:
        _interface(case, offers, network, rows)
        _joint_limits(case, offers, network.mtu, rows)
    needs = [made for need in case.needs for made in _need_rows(case, need, offers, columns, rows)]
    made = columns.columns()
    if case.settings.objective != "least_cost":
        made = _outward(case, offers, networks, made)
    return Program(made, joined_rows([offers.rows, rows.rows()])), couplings.storages, needs


def _interface(case: ClearingCase, offers: Offers, network: MtuNetwork, rows: RowList) -> None:
    if case.settings.interface_kw is None:
        return
    own = offers.mtus[network.mtu]
    by = network.head_by_delta @ own.delta
    terms = dict(zip(own.columns.tolist(), by.tolist(), strict=True))
    rows.add(terms, *case.settings.interface_kw, RowTag("interface", network.mtu, "head"))


def _joint_limits(case: ClearingCase, offers: Offers, mtu: int, rows: RowList) -> None:
    number = {bid.id: mtu * len(offers.bids) + b for b, bid in enumerate(offers.bids)}
    for limit in case.joint_limits:
        total = offers.quantity[[number[bid] for bid in limit.bids]].sum(axis=0)
        terms = {column: float(total[0, column]) for column in total.nonzero()[1].tolist()}
        rows.add(terms, -math.inf, limit.limit_kw, RowTag("joint_limit", mtu, limit.name))


def _outward(case: ClearingCase, offers: Offers, networks: Sequence[MtuNetwork], columns: Columns) -> Columns:
    """Instead of cost, the energy imported from above [kWh] (mode 2), or its negative."""
    sign = 1.0 if case.settings.objective == "most_up" else -1.0
    cost = columns.cost.copy()
    cost[: len(offers.columns.cost)] = 0.0
    for network, own in zip(networks, offers.mtus, strict=True):
        cost[own.columns] += sign * case.mtu_h * (network.head_by_delta @ own.delta)
    return replace(columns, cost=cost)


def _need_rows(case: ClearingCase, need: Need, offers: Offers, columns: ColumnList, rows: RowList) -> list[NeedColumns]:
    """Net flexibility of the resources in its place, per MTU, at least what is bought, or needed and not missing.

    An elastic need forbids nothing: net flexibility against it costs its buyer as much as the other way is worth.
    """
    units = [case.resources[name] for name in offers.resources]
    inside = np.array([not {"system", unit.perimeter, unit.brp}.isdisjoint(need.where) for unit in units], dtype=float)
    made = []
    for t, (kw, own) in enumerate(zip(need.need_kw, offers.mtus, strict=True)):
        sign = math.copysign(1.0, kw)
        given = -sign * (inside @ own.delta)
        for each, quantity in zip(offers.any_split, own.any_kw, strict=True):
            if inside[each.members].all():
                given += -sign * each.direction.delta_p_kw(quantity)
        elastic = need.max_price_eur_per_kwh is not None
        price = -float(need.max_price_eur_per_kwh or 0.0) if elastic else float(case.settings.slack_eur_per_kwh or 0.0)
        hard = not elastic and case.settings.slack_eur_per_kwh is None
        column = columns.add(price * case.mtu_h, -math.inf if elastic else 0.0, 0.0 if hard else abs(kw))
        terms = dict(zip(own.columns.tolist(), given.tolist(), strict=True))
        terms[column] = -1.0 if elastic else 1.0
        rows.add(terms, 0.0 if elastic else abs(kw), math.inf, RowTag("need", t, need.id))
        made.append(NeedColumns(need.id, t, column, elastic))
    return made


def decided(program: Program, x: Floats) -> Program:
    """The program with its integers fixed."""
    columns = program.columns
    fixed = np.where(columns.integer, np.round(x), 0.0)
    return replace(
        program,
        columns=Columns(
            columns.cost,
            np.where(columns.integer, fixed, columns.lower),
            np.where(columns.integer, fixed, columns.upper),
            np.zeros_like(columns.integer),
        ),
    )


def preferred(program: Program, solution: Solution, solver: Solver, preference: Floats) -> Floats:
    """Of all optimal solutions the one (n_column,) that a second objective prefers.

    What counts as a price of zero depends on the other prices; where too much did, the plan costs more and the line is
    drawn at less.
    """
    cost = program.columns.cost
    most = float(cost @ solution.x) + 10.0**-solver.digits * float(np.abs(cost) @ np.abs(solution.x)) + _LEAST_EUR
    for zero in (10.0**-solver.digits, 0.0):
        priced = _priced(program, solution, zero)
        if np.count_nonzero(priced.reduced_cost == 0.0) == np.count_nonzero(priced.row_dual):
            return solution.x  # in a vertex as many columns as rows are without a price: here no other is as good
        found = solver.solve(_optimal_face(program, priced, solver.digits, preference), with_duals=False)
        if found.status is Status.OPTIMAL and float(cost @ found.x) <= most:
            return found.x
    return solution.x


def _priced(program: Program, solution: Solution, tolerance: float) -> Solution:
    """With 0 for all prices below ``tolerance`` of the others."""
    columns, rows = program.columns, program.rows
    price = np.abs(solution.row_dual)
    worth = np.abs(rows.value) * np.repeat(price, np.diff(rows.start))
    size = np.abs(columns.cost) + np.bincount(rows.column, weights=worth, minlength=program.n_column)
    reduced = np.where(np.abs(solution.reduced_cost) > tolerance * size, solution.reduced_cost, 0.0)
    dual = np.where(price > tolerance * price.max(initial=0.0), solution.row_dual, 0.0)
    return Solution(solution.status, solution.x, dual, reduced, solution.gap)


def _optimal_face(program: Program, priced: Solution, digits: int, preference: Floats) -> Program:
    """A second objective over all optimal solutions: columns and rows with a price stay where they are
    (complementary slackness), which needs no tolerance on the cost."""
    columns, rows, reduced, dual = program.columns, program.rows, priced.reduced_cost, priced.row_dual
    room = 0.0 if digits > _ROUGH_DIGITS else _ROOM_KW
    return replace(
        program,
        columns=Columns(
            preference,
            np.where(reduced < 0.0, columns.upper, columns.lower),
            np.where(reduced > 0.0, columns.lower, columns.upper),
            columns.integer,
        ),
        rows=replace(
            rows,
            lower=np.where(dual < 0.0, rows.upper - room, rows.lower),
            upper=np.where(dual > 0.0, rows.lower + room, rows.upper),
        ),
    )


def _outcome(search: _Search, solution: Solution) -> Clearing:
    case, offers, x = search.case, search.offers, solution.x
    bought: dict[str, list[float]] = {}
    for need in search.needs:
        if need.elastic:
            bought.setdefault(need.need, []).append(max(0.0, float(x[need.column])))
    return Clearing(
        case=case,
        bids=offers.bids,
        awarded_kw=offers.awarded_kw(x),
        cost_eur=float(offers.columns.cost @ x[: len(offers.columns.cost)]),
        objective_eur=float(search.program.columns.cost @ x),
        unsolved=tuple(_unsolved(search, x)),
        bought_kw={need: tuple(kw) for need, kw in bought.items()},
        gap=search.gap(solution),
        stopped=search.bound_eur is not None,
        offers=offers,
        networks=search.networks,
        growth=search.growth,
        program=search.program,
        solution=solution,
    )


def _unsolved(search: _Search, x: Floats) -> list[Unsolved]:
    found = []
    for key, columns in sorted(search.growth.columns.items()):
        if columns.slack >= 0 and x[columns.slack] > UNSOLVED_KW:
            network = search.networks[key.mtu]
            family = network.families[key.family]
            quantity = int(family.quantity[key.limit])
            excess = float(x[columns.slack] * network.scale_kw[quantity])
            name = search.case.networks[key.mtu].names[quantity]
            limit = float(family.limit[key.limit])
            found.append(
                Unsolved(key.mtu, family.kind, name, excess, UNITS[family.kind], limit, float(x[columns.slack]))
            )
    by_id = {need.id: need for need in search.case.needs}
    for made in search.needs:
        missing = float(x[made.column])
        if not made.elastic and missing > UNSOLVED_KW:
            asked = abs(by_id[made.need].need_kw[made.mtu])
            found.append(Unsolved(made.mtu, "need", made.need, missing, "kW", asked, missing))
    return found


def binding_rows(clearing: Clearing) -> list[BindingRow]:
    """Network rows whose room has a price."""
    dual, tags = clearing.solution.row_dual, clearing.program.rows.tags
    named = _keys(clearing)
    return [
        BindingRow(named[tag.kind, tag.mtu, tag.element], tag.plane, -float(dual[k]))
        for k, tag in enumerate(tags)
        if (tag.kind, tag.mtu, tag.element) in named and -dual[k] > _PRICED
    ]


def _keys(clearing: Clearing) -> dict[tuple[str, int, str], LimitKey]:
    keys: dict[tuple[str, int, str], LimitKey] = {}
    for key in clearing.growth.columns:
        family = clearing.networks[key.mtu].families[key.family]
        name = clearing.case.networks[key.mtu].names[int(family.quantity[key.limit])]
        keys[family.kind, key.mtu, name] = key
    return keys


@dataclass(frozen=True)
class Corner:
    """What is worst for one row, and the row's limit."""

    key: LimitKey
    limit: float
    at: WorstCorner

    @property
    def xi(self) -> Floats:
        """The forecast errors (n_xi,)."""
        return self.at.xi


def worst_corners(clearing: Clearing) -> list[Corner]:
    """Of every binding row."""
    corners = []
    for row in binding_rows(clearing):
        network = clearing.networks[row.key.mtu]
        at = network.worst(row.key.family, row.key.limit, row.plane, network.state(clearing.solution.x))
        limit = float(network.families[row.key.family].limit[row.key.limit])
        corners.append(Corner(row.key, limit, at))
    return corners
