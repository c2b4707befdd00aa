"""Adding network rows to a program, with their slacks, tolerated overloads and budgets of uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cosim.domain.frames import Floats, Ints
from cosim.market.case import ClearingCase
from cosim.market.offers import ColumnList, RowList
from cosim.market.program import Program, Rows, RowTag, joined_rows
from cosim.market.terms import BudgetTerms, LinearRows, MtuNetwork, Selected

_FIRST = 4  # limits of a kind and MTU that enter in the first round


class LimitKey(NamedTuple):
    """A limit: MTU, number of its family, and which of it."""

    mtu: int
    family: int
    limit: int


@dataclass(frozen=True)
class LimitColumns:
    """Columns of a limit [kW], -1 for none: what stays unmet, and the overload that is tolerated at a price."""

    slack: int
    overload: int


class NetworkGrowth:
    """Network rows of a program, added plane by plane. ``columns`` of each limit with a row, ``present`` its planes."""

    def __init__(self, case: ClearingCase, networks: Sequence[MtuNetwork], start: Floats) -> None:
        """``start``: values of the first columns with the locked awards alone."""
        self._case, self._networks = case, networks
        self._start = [network.state(start) for network in networks] if case.settings.no_worse else []
        self._most = _FIRST
        self.columns: dict[LimitKey, LimitColumns] = {}
        self._present: dict[LimitKey, set[int]] = {}

    def every(self) -> list[tuple[MtuNetwork, Selected]]:
        """All planes of all limits."""
        return [
            (network, Selected(number, *(each.ravel() for each in np.indices(family.weight.shape))))
            for network in self._networks
            for number, family in enumerate(network.families)
        ]

    def of(self, planes: Sequence[tuple[LimitKey, int]]) -> list[tuple[MtuNetwork, Selected]]:
        """Those planes, by MTU and family."""
        chosen: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for key, plane in planes:
            chosen.setdefault((key.mtu, key.family), []).append((key.limit, plane))
        return [
            (self._networks[mtu], Selected(family, *np.array(sorted(pairs), dtype=np.int64).T))
            for (mtu, family), pairs in sorted(chosen.items())
        ]

    def violated(self, x: Floats) -> list[tuple[MtuNetwork, Selected]]:
        """Planes that the values ``x`` violate, by limit, without those that the program has: the worst first, half as
        many more each time. Neighbours in the network are violated together, and what cures one mostly cures all."""
        found = []
        for network in self._networks:

            def known(family: int, limit: int, plane: int, mtu: int = network.mtu) -> bool:
                return plane in self._present.get(LimitKey(mtu, family, limit), ())

            chosen = network.violated(network.state(x), self._most, known)
            found += [(network, selected) for selected in chosen]
        self._most = math.ceil(1.5 * self._most)
        return found

    def grown(self, program: Program, planes: Sequence[tuple[MtuNetwork, Selected]]) -> Program:
        """The program with these planes."""
        parts = []
        new = ColumnList()
        for network, selected in planes:
            rows = network.rows(selected)
            keys = [LimitKey(network.mtu, selected.family, limit) for limit in selected.limit.tolist()]
            if fresh := [key for key in dict.fromkeys(keys) if key not in self.columns]:
                self.columns |= self._limit_columns(network, fresh, new, program.n_column)
            for key, plane in zip(keys, selected.plane.tolist(), strict=True):
                self._present.setdefault(key, set()).add(plane)
            parts.append(self._rows(network, rows, keys, new, program.n_column))
        return program.with_columns(new.columns()).with_rows(joined_rows(parts))

    def _limit_columns(
        self, network: MtuNetwork, keys: Sequence[LimitKey], new: ColumnList, first: int
    ) -> dict[LimitKey, LimitColumns]:
        """Of limits of one family."""
        settings, h = self._case.settings, self._case.mtu_h
        family, at = network.families[keys[0].family], np.array([key.limit for key in keys])
        scales, limits = network.scale_kw[family.quantity[at]].tolist(), family.limit[at].tolist()
        most_unmet = [math.inf] * len(keys)
        if settings.slack_eur_per_kwh is not None and settings.no_worse:
            most_unmet = self._unmet_before(network, keys[0].family, at).tolist()
        price = settings.limits.overload_eur_per_a_h if family.kind == "i_max" else None
        made = {}
        for key, scale_kw, limit, unmet in zip(keys, scales, limits, most_unmet, strict=True):
            slack = overload = -1
            if settings.slack_eur_per_kwh is not None:
                slack = first + new.add(settings.slack_eur_per_kwh * h, 0.0, unmet / scale_kw)
            if price is not None:
                overload = first + new.add(price * h * scale_kw, 0.0, settings.limits.overload * limit / scale_kw)
            made[key] = LimitColumns(slack, overload)
        return made

    def _unmet_before(self, network: MtuNetwork, family: int, at: Ints) -> Floats:
        """By how much limits (n,), in their unit, have to be raised for the locked awards alone to keep them."""
        over = network.exceeded(family, at, self._start[network.mtu])
        return np.asarray(np.maximum(over.max(axis=1), 0.0) / network.families[family].stretch)

    def _rows(
        self, network: MtuNetwork, rows: LinearRows, keys: Sequence[LimitKey], new: ColumnList, first: int
    ) -> Rows:
        family = network.families[rows.selected.family]
        names = self._case.networks[network.mtu].names
        tags = tuple(
            RowTag(family.kind, network.mtu, names[family.quantity[key.limit]], plane)
            for key, plane in zip(keys, rows.selected.plane.tolist(), strict=True)
        )
        own, limits = network.columns, [self.columns[key] for key in keys]
        if any(rows.budgets):
            return _with_budgets(rows, own, limits, tags, family.stretch, new, first)
        extra = np.array([(each.slack, each.overload) for each in limits], dtype=np.int64).reshape(-1, 2)
        column = np.hstack([np.broadcast_to(own, rows.coef.shape), extra])
        value = np.hstack([rows.coef, -family.stretch * (extra >= 0)])
        used = value != 0.0
        start = np.concatenate([[0], used.sum(axis=1).cumsum()])
        return Rows(start, column[used], value[used], np.full(len(tags), -np.inf), rows.room, tags)


def _with_budgets(
    rows: LinearRows,
    own: Ints,
    limits: Sequence[LimitColumns],
    tags: Sequence[RowTag],
    stretch: float,
    new: ColumnList,
    first: int,
) -> Rows:
    """Rows with the dual of the inner maximum over a budget: ``coef x + size z + sum p <= room``, ``z + p >= term``
    (D. Bertsimas, M. Sim, "The price of robustness", 2004)."""
    made = RowList()
    for coef, room, budgets, limit, tag in zip(rows.coef, rows.room, rows.budgets, limits, tags, strict=True):
        row = _terms(own, coef)
        row |= {column: -stretch for column in (limit.slack, limit.overload) if column >= 0}
        for terms in budgets:
            row |= _budget(terms, own, tag, made, new, first)
        made.add(row, -math.inf, room, tag)
    return made.rows()


def _budget(terms: BudgetTerms, own: Ints, tag: RowTag, made: RowList, new: ColumnList, first: int) -> dict[int, float]:
    """What a budget adds to its row; the columns and rows that define it are made."""
    level = first + new.add(0.0, 0.0, math.inf) if terms.size is not None else None
    added = {level: float(terms.size)} if level is not None and terms.size is not None else {}
    for constant, coef in zip(terms.constant.tolist(), terms.coef, strict=True):
        part = first + new.add(0.0, 0.0, math.inf)
        added[part] = 1.0
        for sign in (1.0,) if terms.positive else (1.0, -1.0):
            row = _terms(own, -sign * coef) | {part: 1.0}
            if level is not None:
                row[level] = 1.0
            made.add(row, sign * constant, math.inf, tag._replace(kind="budget"))
    return added


def _terms(columns: Ints, coef: Floats) -> dict[int, float]:
    used = coef.nonzero()[0]
    return dict(zip(columns[used].tolist(), coef[used].tolist(), strict=True))
