"""Rows of one MTU's network limits in terms of a program's columns, made when they are needed.

All rows are counted in kW of the resource with the largest effect on the quantity, so that coefficients are of the
order of 1 and a slack has the same price per kW everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from cosim.domain.frames import Complexes, Floats, Ints
from cosim.market.case import ClearingCase
from cosim.market.offers import AnySplit, Offers
from cosim.market.planes import CURRENTS, PlaneFamily, plane_families
from cosim.market.uncertainty import Uncertainty

VIOLATION_KW = 1e-7
_DUST = 1e-10  # of a row, whose largest coefficients are about 1
_LEAST_REACH = 1e-3  # of the limit, by all resources together
_NONE: Final = np.zeros(0, dtype=np.int64)
_NOTHING: Final = np.zeros((0, 1))


@dataclass(frozen=True)
class Selected:
    """Planes of one family: ``limit`` and ``plane`` (n,) indices."""

    family: int
    limit: Ints
    plane: Ints


@dataclass(frozen=True)
class LinearRows:
    """Rows ``coef @ x + budgets <= room`` [kW], x the columns of the MTU: ``coef`` (n, n_column), ``room`` (n,).

    ``budgets``: per row, the protections that depend on x.
    """

    selected: Selected
    coef: Floats
    room: Floats
    budgets: tuple[tuple[BudgetTerms, ...], ...]


@dataclass(frozen=True)
class BudgetTerms:
    """Sum of the ``size`` largest of the moduli of ``constant + coef @ x`` (n_term,), [kW]; of all if None.
    ``positive``: they cannot be negative."""

    constant: Floats
    coef: Floats
    size: float | None
    positive: bool


@dataclass(frozen=True)
class MtuState:
    """What a plan does in one MTU: complex quantities ``z`` (n_quantity,), change of consumption [kW] of each resource,
    its part upward and downward (n_resource,), scale of the bands (n_pod,) and kW of bids of any split (n_any,)."""

    z: Complexes
    delta_kw: Floats
    raised_kw: Floats
    lowered_kw: Floats
    scale: Floats | None
    any_kw: Floats


@dataclass(frozen=True)
class WorstCorner:
    """Where a row is largest: the forecast errors ``xi`` (n_xi,), and the net consumption of all PODs (n_pod,) [kW,
    kvar] with them, with the worst deliveries and the worst split of bids of any split."""

    xi: Floats
    p_kw: Floats
    q_kvar: Floats


class MtuNetwork:
    """Limits of the network in MTU ``t`` as planes; ``scale_kw`` (n_quantity,): what 1 kW of a row is in its unit."""

    def __init__(self, case: ClearingCase, offers: Offers, t: int) -> None:
        self.mtu, self._offers, self._network = t, offers.mtus[t], case.networks[t]
        self._any, self.columns = offers.any_split, offers.mtus[t].columns
        network = self._network
        self._uncertainty: Uncertainty = case.protections[t].uncertainty
        self.families = plane_families(network, case.settings.limits, None if case.margins is None else case.margins[t])
        self.protection = case.protections[t]
        self._kept_protection: dict[int, tuple[Ints, Floats]] = {}  # by number of a family: limits, and theirs
        units = [case.resources[name] for name in offers.resources]
        self._pod = np.array([case.pods[unit.pod] for unit in units], dtype=np.int64)
        self._kvar_per_kw = np.array([unit.kvar_per_kw for unit in units])
        self._risk = np.array([unit.delivery_risk for unit in units])
        self.by_delta = network.by_p[:, self._pod]
        if self._kvar_per_kw.any():
            self.by_delta += network.by_q[:, self._pod] * self._kvar_per_kw
        self.head_by_delta = network.head_by_p[self._pod] + network.head_by_q[self._pod] * self._kvar_per_kw
        delta = self._offers.delta
        self._raising, self._lowering = np.maximum(delta, 0.0), np.minimum(delta, 0.0)
        self._residual = self._residual_factors()
        self._open = bool(self._risk.any() or self._any)  # who delivers, or whether
        self._any_risk = np.array([self._risk[each.members].max(initial=0.0) for each in self._any])
        self._any_reach = np.array([np.abs(self.by_delta[:, each.members]).max(axis=1) for each in self._any])
        self.scale_kw = self._scales()

    def _scales(self) -> Floats:
        """What 1 kW does at the POD where it does most (n_quantity,), whoever offers: what stays unmet of a limit has
        the same price whatever the book, and a resource that does little is bought only if it costs little."""
        cap_kw = self._offers.cap_kw
        reach = np.abs(self._network.by_p).max(axis=1, initial=0.0)
        limit = np.ones(len(reach))
        limit[: len(self._network.conductors)] = np.where(np.isnan(self._network.i_max_a), 1.0, self._network.i_max_a)
        return np.asarray(np.maximum(reach, _LEAST_REACH * limit / max(float(cap_kw.sum()), 1.0)))

    def _residual_factors(self) -> Floats | None:
        """Change of the scale of a POD's band by 1 kW more consumption of each resource (n_resource,): one over its
        scheduled power. 0 where the band stays: on the baseline, without a schedule, or if the PODs' resources could
        reverse its power."""
        if self._uncertainty.base == "baseline":
            return None
        cap_kw = np.zeros(len(self._network.pods))
        np.add.at(cap_kw, self._pod, self._offers.cap_kw)
        p_kw = self._network.p_kw
        scales = (np.abs(p_kw) > 0.0) & (cap_kw <= np.abs(p_kw) * (1.0 + 1e-9))
        for each in self._any:
            scales[self._pod[each.members]] = False
        factor = np.divide(1.0, p_kw, out=np.zeros_like(p_kw), where=scales)
        return np.asarray(factor[self._pod])

    def state(self, x: Floats) -> MtuState:
        """State of the linear model for the values ``x`` of a program's columns."""
        part = x[self._offers.columns]
        delta = self._offers.delta @ part
        raised, lowered = self._raising @ part, self._lowering @ part
        scale = None
        if self._residual is not None:
            scale = np.ones(len(self._network.pods))
            np.add.at(scale, self._pod, self._residual * delta)
        z = self._network.base + self.by_delta @ delta
        return MtuState(z, delta, raised, lowered, scale, self._offers.any_kw @ part)

    def powers(self, state: MtuState) -> tuple[Floats, Floats]:
        """Net consumption of all PODs with the plan (n_pod,) [kW, kvar], bids of any split delivered in equal parts."""
        delta_kw = state.delta_kw.copy()
        for each, kw in zip(self._any, state.any_kw, strict=True):
            delta_kw[each.members] += each.direction.delta_p_kw(kw) / len(each.members)
        return self._with(delta_kw)

    def _with(self, delta_kw: Floats) -> tuple[Floats, Floats]:
        """Net consumption of all PODs with a change of the resources' (n_resource,)."""
        p_kw, q_kvar = self._network.p_kw.copy(), self._network.q_kvar.copy()
        np.add.at(p_kw, self._pod, delta_kw)
        np.add.at(q_kvar, self._pod, delta_kw * self._kvar_per_kw)
        return p_kw, q_kvar

    def worst(self, number: int, limit: int, plane: int, state: MtuState) -> WorstCorner:
        """What a plane's protection counts, forecast errors and deliveries, as powers."""
        family = self.families[number]
        quantity, weight = int(family.quantity[limit]), complex(family.weight[limit, plane])
        xi = self.protection.worst(quantity, weight, family.ceiling, state.scale)
        p_kw, q_kvar = self._with(self._delivered(quantity, weight, state))
        more_kw, more_kvar = self.errors(state, xi)
        return WorstCorner(xi, p_kw + more_kw, q_kvar + more_kvar)

    def _delivered(self, quantity: int, weight: complex, state: MtuState) -> Floats:
        """Change of consumption of the resources (n_resource,) [kW] at which a row is largest: as `_lost` counts."""
        alpha = self._alpha(np.array([quantity]), np.array([[weight]]))[0, 0]
        relief = np.where(alpha > 0.0, state.lowered_kw, 0.0) + np.where(alpha < 0.0, state.raised_kw, 0.0)
        lost = self._risk * relief
        at_most = np.argsort(alpha * lost, kind="stable")
        delta_kw = state.delta_kw.copy()
        delta_kw[at_most] -= lost[at_most] * self._shares(len(lost))
        for each, kw, risk in zip(self._any, state.any_kw, self._any_risk, strict=True):
            change = each.direction.delta_p_kw(alpha[each.members])
            sure = 1.0 - risk if change.max() < 0.0 else 1.0
            delta_kw[each.members[change.argmax()]] += each.direction.delta_p_kw(sure * kw)
        return delta_kw

    def errors(self, state: MtuState, xi: Floats) -> tuple[Floats, Floats]:
        """By how much all PODs consume more than planned (..., n_pod) [kW, kvar] at forecast errors (..., n_xi)."""
        more_kw, more_kvar = self._uncertainty.errors(xi)
        return (more_kw, more_kvar) if state.scale is None else (more_kw * state.scale, more_kvar * state.scale)

    def violated(
        self, state: MtuState, most: int | None = None, known: Callable[[int, int, int], bool] | None = None
    ) -> list[Selected]:
        """Of limits that do not hold the worst plane and its neighbours, without those that are ``known`` (family,
        limit, plane): of all limits with something new, or of the ``most`` worst of each family."""
        found = []
        lost = self._lost_reach(state)
        for number in range(len(self.families)):
            over, at = self._excess(number, state, lost)
            if len(at) and (pairs := self._worst_planes(number, over, at, most, known)):
                found.append(Selected(number, *np.array(sorted(pairs), dtype=np.int64).T))
        return found

    def _worst_planes(
        self, number: int, over: Floats, at: Ints, most: int | None, known: Callable[[int, int, int], bool] | None
    ) -> list[tuple[int, int]]:
        """Of a family what `violated` gives, as (limit, plane), where its limits ``at`` are exceeded by ``over``."""
        family, worst = self.families[number], over.argmax(axis=1)
        excess = over[np.arange(len(at)), worst]
        broken = np.flatnonzero(excess > VIOLATION_KW * self.scale_kw[family.quantity[at]])
        if not len(broken):
            return []
        excess_pu = excess[broken] / family.limit[at[broken]]
        pairs: list[tuple[int, int]] = []
        taken = 0
        for k in broken[np.argsort(-excess_pu, kind="stable")].tolist():
            limit, around = int(at[k]), {(int(worst[k]) + step) % family.weight.shape[1] for step in (-1, 0, 1)}
            new = [(limit, plane) for plane in around if known is None or not known(number, limit, plane)]
            pairs += new
            taken += bool(new)
            if taken == most:
                break
        return pairs

    def excess(self, number: int, state: MtuState, near_pu: float = 0.0) -> tuple[Floats, Ints]:
        """By how much the planes of a family are exceeded (n, n_plane) [unit of the quantity], for those limits (n,)
        for which one may be, or may come within ``near_pu`` of it."""
        return self._excess(number, state, self._lost_reach(state), near_pu)

    def _excess(self, number: int, state: MtuState, lost: Floats, near_pu: float = 0.0) -> tuple[Floats, Ints]:
        family = self.families[number]
        reach = self.protection.reach(family.ceiling, state.scale)
        if self._open:
            reach = reach + lost
        z = state.z[family.quantity]
        nearest = np.abs(z) if family.kind in CURRENTS else (family.weight * z[:, None]).real.max(axis=1)
        at = np.flatnonzero(nearest + reach[family.quantity] > family.least_bound - near_pu * family.limit)
        return self.exceeded(number, at, state) if len(at) else np.zeros((0, family.weight.shape[1])), at

    def exceeded(self, number: int, at: Ints, state: MtuState) -> Floats:
        """By how much the planes of the limits ``at`` of a family are exceeded (n, n_plane) [unit of the quantity]."""
        family = self.families[number]
        quantity, weight = family.quantity[at], family.weight[at]
        value = (weight * state.z[quantity][:, None]).real
        value += self._protected(number, at, state.scale)
        if self._open:
            value += self._lost(quantity, weight, state)
        return np.asarray(value - family.bound[at])

    def _protected(self, number: int, at: Ints, scale: Floats | None) -> Floats:
        """What forecast errors add to the planes of the limits ``at`` of a family (n, n_plane); what was asked for last
        is kept, if it does not depend on the plan."""
        family = self.families[number]
        kept_at, kept = self._kept_protection.get(number, (_NONE, _NOTHING))
        place = np.searchsorted(kept_at, at)
        if scale is None and (place < len(kept_at)).all() and np.array_equal(kept_at[place], at):
            return kept[place]
        found = self.protection.on(family.quantity[at], family.weight[at], family.ceiling, scale)
        if scale is None and (at[1:] > at[:-1]).all():
            self._kept_protection[number] = at, found
        return found

    def _lost_reach(self, state: MtuState) -> Floats:
        """No plane loses more by under-delivery, or moves more by bids of any split (n_quantity,)."""
        if not self._open:
            return np.zeros(len(state.z))
        lost = np.abs(self.by_delta) @ (self._risk * (state.raised_kw - state.lowered_kw))
        return np.asarray(lost + state.any_kw @ self._any_reach) if len(self._any) else np.asarray(lost)

    def _lost(self, quantity: Ints, weight: Complexes, state: MtuState) -> Floats:
        """What under-delivery and the worst split of bids of any split add to rows (n, n_plane)."""
        risky = np.flatnonzero(self._risk * (state.raised_kw - state.lowered_kw))
        total = np.zeros(weight.shape)
        if len(risky):
            alpha = self._alpha(quantity, weight)[:, :, risky]
            relief = np.maximum(alpha, 0.0) * state.lowered_kw[risky] + np.minimum(alpha, 0.0) * state.raised_kw[risky]
            lost = np.sort(-relief * self._risk[risky], axis=-1)[..., ::-1]
            total += lost @ self._shares(len(risky))
        for each, kw, risk in zip(self._any, state.any_kw, self._any_risk, strict=True):
            if kw:
                total += kw * _at_risk(self._worst_split(each, quantity, weight), risk)
        return total

    def _shares(self, n: int) -> Floats:
        size = self._uncertainty.delivery_budget
        return np.ones(n) if size is None else np.clip(size - np.arange(n), 0.0, 1.0)

    def _alpha(self, quantity: Ints, weight: Complexes) -> Floats:
        """Change of rows by 1 kW more consumption of each resource (n, n_plane, n_resource)."""
        by = self.by_delta[quantity][:, None, :]
        return np.asarray(weight.real[:, :, None] * by.real - weight.imag[:, :, None] * by.imag)

    def _worst_split(self, each: AnySplit, quantity: Ints, weight: Complexes) -> Floats:
        """Largest change of rows by 1 kW of a bid whoever delivers it (n, n_plane)."""
        return np.asarray(each.direction.delta_p_kw(self._alpha(quantity, weight)[:, :, each.members]).max(axis=-1))

    def rows(self, selected: Selected) -> LinearRows:
        """The selected planes as rows in the columns of this MTU."""
        family = self.families[selected.family]
        quantity = family.quantity[selected.limit]
        weight = family.weight[selected.limit, selected.plane][:, None]
        alpha, delta = self._alpha(quantity, weight)[:, 0], self._offers.delta
        coef = alpha @ delta
        for each, any_kw, risk in zip(self._any, self._offers.any_kw, self._any_risk, strict=True):
            coef += _at_risk(self._worst_split(each, quantity, weight), risk) * any_kw
        room = family.bound[selected.limit, selected.plane] - (weight[:, 0] * self._network.base[quantity]).real
        budgets: list[list[BudgetTerms]] = [[] for _ in quantity]
        coef += self._delivery(alpha, budgets)
        forecast_coef, forecast = self._forecast(quantity, weight, family, budgets)
        scale = self.scale_kw[quantity]
        return LinearRows(
            selected,
            _without_dust((coef + forecast_coef) / scale[:, None]),
            (room - forecast) / scale,
            tuple(tuple(_scaled(terms, kw) for terms in of_row) for of_row, kw in zip(budgets, scale, strict=True)),
        )

    def _delivery(self, alpha: Floats, budgets: list[list[BudgetTerms]]) -> Floats:
        """Relief that may not be delivered: coefficients (n, n_column) if all may fail, else terms for the budgets."""
        if not self._risk.any():
            return np.zeros((len(alpha), self._offers.delta.shape[1]))
        raised, lowered = self._raising, self._lowering
        up, down = np.maximum(alpha, 0.0) * self._risk, np.minimum(alpha, 0.0) * self._risk
        size = self._uncertainty.delivery_budget
        if size is None:
            return np.asarray(-(up @ lowered + down @ raised))
        risky = np.flatnonzero(self._risk)
        for of_row, u, d in zip(budgets, up[:, risky], down[:, risky], strict=True):
            lost = -(u[:, None] * lowered[risky] + d[:, None] * raised[risky])
            of_row.append(BudgetTerms(np.zeros(len(risky)), lost, size, positive=True))
        return np.zeros((len(alpha), self._offers.delta.shape[1]))

    def _forecast(
        self, quantity: Ints, weight: Complexes, family: PlaneFamily, budgets: list[list[BudgetTerms]]
    ) -> tuple[Floats, Floats]:
        """Protection against forecast errors: coefficients (n, n_column), constants (n,), or terms for the budgets."""
        no_coef, set_ = np.zeros((len(quantity), self._offers.delta.shape[1])), self._uncertainty.set
        of_pod = self._uncertainty.of_pod
        if self._residual is None:
            return no_coef, self.protection.on(quantity, weight, family.ceiling)[:, 0]
        effect = np.einsum("np,n->np", self.protection.effect(quantity), weight[:, 0]).real
        every = family.ceiling or set_.norm == "box"
        if set_.loadings is None:
            effect = np.abs(effect)
            if every:
                by_delta = of_pod(effect)[:, self._pod] * self._residual
                return by_delta @ self._offers.delta, effect.sum(axis=1)
        loadings = np.eye(self._uncertainty.n_xi) if set_.loadings is None else set_.loadings
        for of_row, u in zip(budgets, effect, strict=True):
            terms = (loadings * u[:, None]).T
            by_delta = of_pod(terms)[:, self._pod] * self._residual
            used = np.flatnonzero(terms.any(axis=1))
            size = None if every else set_.size
            positive = set_.loadings is None
            of_row.append(BudgetTerms(terms.sum(axis=1)[used], by_delta[used] @ self._offers.delta, size, positive))
        return no_coef, np.zeros(len(quantity))


def _at_risk(change: Floats, risk: float) -> Floats:
    """Relief (below zero) counts only as far as it is sure."""
    return np.where(change < 0.0, (1.0 - risk) * change, change)


def _without_dust(coef: Floats) -> Floats:
    """Effects that are nothing but rounding are none: solvers take them for pivots."""
    return np.where(np.abs(coef) < _DUST, 0.0, coef)


def _scaled(terms: BudgetTerms, scale_kw: float) -> BudgetTerms:
    return replace(terms, constant=terms.constant / scale_kw, coef=_without_dust(terms.coef / scale_kw))
