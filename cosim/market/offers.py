"""Bids as columns of a program: what each variable costs, and what it changes at which resource in which MTU."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.sparse

from cosim.domain.frames import Floats, Ints
from cosim.domain.market import Bid, Direction
from cosim.market.case import ClearingCase
from cosim.market.program import Columns, Rows, RowTag, joined_columns, no_rows

_TIE_SPREAD = 1e-3


class ColumnList:
    """Columns in the making, after ``first`` if given."""

    def __init__(self, first: Columns | None = None) -> None:
        self._first, self._n_first = first, 0 if first is None else len(first.cost)
        self.cost, self.lower, self.upper = list[float](), list[float](), list[float]()
        self.integer = list[bool]()

    def add(self, cost: float, lower: float, upper: float, integer: bool = False) -> int:
        """Index of a new column."""
        self.cost.append(cost)
        self.lower.append(lower)
        self.upper.append(upper)
        self.integer.append(integer)
        return self._n_first + len(self.cost) - 1

    def columns(self) -> Columns:
        new = Columns(
            np.array(self.cost), np.array(self.lower), np.array(self.upper), np.array(self.integer, dtype=bool)
        )
        return new if self._first is None else joined_columns(self._first, new)


class RowList:
    """Rows in the making."""

    def __init__(self) -> None:
        self._start, self._column, self._value = [0], list[int](), list[float]()
        self._lower: list[float] = []
        self._upper: list[float] = []
        self._tags: list[RowTag] = []

    def add(self, terms: Mapping[int, float], lower: float, upper: float, tag: RowTag) -> None:
        """``lower <= sum of factor * column <= upper``."""
        self._column += terms.keys()
        self._value += terms.values()
        self._start.append(len(self._column))
        self._lower.append(lower)
        self._upper.append(upper)
        self._tags.append(tag)

    def rows(self) -> Rows:
        if not self._tags:
            return no_rows()
        return Rows(
            np.array(self._start),
            np.array(self._column, dtype=np.int64),
            np.array(self._value, dtype=np.float64),
            np.array(self._lower),
            np.array(self._upper),
            tuple(self._tags),
        )


@dataclass(frozen=True)
class MtuOffers:
    """What happens in one MTU: ``columns`` (n,) those with an effect in it; ``delta`` (n_resource, n) change of
    consumption [kW] by one unit of each; ``any_kw`` (n_any, n) quantity [kW] of bids delivered in any split; ``cap_kw``
    (n_resource,) the most that each resource may change."""

    columns: Ints
    delta: Floats
    any_kw: Floats
    cap_kw: Floats


@dataclass(frozen=True)
class AnySplit:
    """A bid that any of ``members`` (indices of resources) may deliver."""

    bid: int
    direction: Direction
    members: Ints


class Cells(NamedTuple):
    """What variables stand for, all (n,): ``kw`` of a bid in an MTU (``row`` is MTU * n_bid + bid) by one unit of a
    ``column``."""

    row: Ints
    column: Ints
    kw: Floats


@dataclass(frozen=True)
class Offers:
    """All bids in canonical order (price, time of submission, id) and their variables, the first of a program."""

    bids: tuple[Bid, ...]
    resources: tuple[str, ...]
    columns: Columns
    rows: Rows
    cells: Cells
    mtus: tuple[MtuOffers, ...]
    any_split: tuple[AnySplit, ...]

    @cached_property
    def quantity(self) -> scipy.sparse.csr_matrix:
        """(n_mtu * n_bid, n_column): kW of each bid by one unit of each column."""
        row, column, kw = self.cells
        shape = (len(self.mtus) * len(self.bids), len(self.columns.cost))
        return scipy.sparse.csr_matrix((kw, (row, column)), shape=shape)

    def awarded_kw(self, x: Floats) -> Floats:
        """(n_mtu, n_bid)."""
        shape = len(self.mtus), len(self.bids)
        row, column, kw = self.cells
        total = np.bincount(row, weights=kw * x[column], minlength=shape[0] * shape[1])
        return np.asarray(total, dtype=np.float64).reshape(shape)


def canonical(bids: Sequence[Bid]) -> tuple[Bid, ...]:
    """By price, time of submission and id, so that the order of arrival changes nothing."""
    return tuple(sorted(bids, key=lambda bid: (bid.steps[0].price_eur_per_kwh, bid.submitted_s, bid.id)))


def tie_weights(n: int) -> Floats:
    """Second objective of columns in their order (n,): as little as possible, of equals the first."""
    return 1.0 + _TIE_SPREAD * np.arange(n) / max(n, 1)


@dataclass
class _Making:
    """Variables and effects while bids are gone through."""

    case: ClearingCase
    bids: tuple[Bid, ...]
    columns: ColumnList = field(default_factory=ColumnList)
    rows: RowList = field(default_factory=RowList)
    cells: list[tuple[int, int, int, float]] = field(default_factory=list)  # bid, mtu, column, kW
    ratio: dict[int, int] = field(default_factory=dict)  # bid -> column of a block's accepted share
    group: dict[str, list[int]] = field(default_factory=dict)  # exclusive group -> its decisions


def offers_of(case: ClearingCase) -> Offers:
    """Variables of all bids of a case. Blocks have one, their accepted share; others one per MTU and price step."""
    making = _Making(case, canonical(case.bids))
    for b, bid in enumerate(making.bids):
        chosen = making.columns.add(0.0, 0.0, 1.0, integer=True) if bid.exclusive_group is not None else None
        if chosen is not None:
            making.group.setdefault(str(bid.exclusive_group), []).append(chosen)
        (_block if bid.block else _steps)(making, b, bid, chosen)
    for group, members in making.group.items():
        making.rows.add(dict.fromkeys(members, 1.0), -math.inf, 1.0, RowTag("exclusive_group", 0, group, priced=False))
    index = {bid.id: b for b, bid in enumerate(making.bids)}
    for b, bid in enumerate(making.bids):
        if bid.parent is not None:
            terms = {making.ratio[b]: 1.0, making.ratio[index[bid.parent]]: -1.0}
            making.rows.add(terms, -math.inf, 0.0, RowTag("parent", 0, bid.id, priced=False))
    return _finished(making)


def _block(making: _Making, b: int, bid: Bid, chosen: int | None) -> None:
    case = making.case
    energy_kwh = sum(bid.quantity_kw) * case.mtu_h
    locked = case.locked.get(bid.id)
    least = (
        max((x / q for x, q in zip(locked, bid.quantity_kw, strict=True) if q > 0.0), default=0.0) if locked else 0.0
    )
    column = making.columns.add(bid.steps[0].price_eur_per_kwh * energy_kwh, least, 1.0)
    making.ratio[b] = column
    making.cells += [(b, t, column, kw) for t, kw in enumerate(bid.quantity_kw)]
    _all_or_nothing(making, RowTag("min_accept", 0, bid.id, priced=False), {column: 1.0}, 1.0, bid, chosen)


def _steps(making: _Making, b: int, bid: Bid, chosen: int | None) -> None:
    case = making.case
    locked = case.locked.get(bid.id) or (0.0,) * len(bid.quantity_kw)
    for t, (offered, fixed) in enumerate(zip(bid.quantity_kw, locked, strict=True)):
        used = []
        for step in bid.steps:
            size = min(step.quantity_kw, offered)
            offered -= size
            least = min(fixed, size)
            fixed -= least
            if size > 0.0:
                column = making.columns.add(step.price_eur_per_kwh * case.mtu_h, least, size)
                used.append(column)
                making.cells.append((b, t, column, 1.0))
        if used and bid.whole:
            tag = RowTag("min_accept", t, bid.id, priced=False)
            _all_or_nothing(making, tag, dict.fromkeys(used, 1.0), bid.quantity_kw[t], bid, chosen)


def _all_or_nothing(
    making: _Making, tag: RowTag, terms: Mapping[int, float], whole: float, bid: Bid, chosen: int | None
) -> None:
    """Either none of ``whole`` is accepted or at least the bid's least share, and none unless it is chosen."""
    if chosen is not None:
        making.rows.add({**terms, chosen: -whole}, -math.inf, 0.0, tag._replace(kind="exclusive"))
    if bid.min_accept > 0.0:
        taken = making.columns.add(0.0, 0.0, 1.0, integer=True)
        making.rows.add({**terms, taken: -whole}, -math.inf, 0.0, tag)
        making.rows.add({**terms, taken: -whole * bid.min_accept}, 0.0, math.inf, tag)


def _finished(making: _Making) -> Offers:
    case, bids = making.case, making.bids
    _one_direction(making)
    resources = tuple(dict.fromkeys(name for bid in bids for name in bid.members))
    index = {name: k for k, name in enumerate(resources)}
    any_split = tuple(
        AnySplit(b, bid.direction, np.array([index[name] for name in bid.any_of]))
        for b, bid in enumerate(bids)
        if bid.any_of
    )
    columns = making.columns.columns()
    effects: list[list[tuple[int, int, float]]] = [[] for _ in range(case.n_mtu)]
    for t, k, column, kw in _effects(making, index):
        effects[t].append((k, column, kw))
    place = {each.bid: k for k, each in enumerate(any_split)}
    in_any: list[list[tuple[int, int, float]]] = [[] for _ in range(case.n_mtu)]
    for b, t, column, kw in making.cells:
        if b in place:
            in_any[t].append((place[b], column, kw))
    mtus = tuple(
        _mtu_offers(effects[t], in_any[t], any_split, len(resources), columns.upper) for t in range(case.n_mtu)
    )
    return Offers(bids, resources, columns, making.rows.rows(), _cells(making.cells, len(bids)), mtus, any_split)


def _cells(made: Sequence[tuple[int, int, int, float]], n_bid: int) -> Cells:
    row, column = (
        np.array(each, dtype=np.int64) for each in ([t * n_bid + b for b, t, *_ in made], [c for *_, c, _ in made])
    )
    return Cells(row, column, np.array([kw for *_, kw in made], dtype=np.float64))


def _effects(making: _Making, index: Mapping[str, int]) -> Iterator[tuple[int, int, int, float]]:
    """(MTU, resource, column, change of consumption [kW]), with what is paid back later in the other direction."""
    case = making.case
    for b, t, column, kw in making.cells:
        bid = making.bids[b]
        for name, share in ((bid.resource, 1.0),) if bid.resource is not None else bid.shares:
            change = bid.direction.delta_p_kw(share * kw)
            yield t, index[name], column, change
            for later, paid_back in enumerate(case.resources[name].rebound, start=t + 1):
                if later < case.n_mtu and paid_back:
                    yield later, index[name], column, -paid_back * change


def _mtu_offers(
    effects: Sequence[tuple[int, int, float]],
    in_any: Sequence[tuple[int, int, float]],
    any_split: Sequence[AnySplit],
    n_resource: int,
    all_upper: Floats,
) -> MtuOffers:
    """``effects`` by resource and ``in_any`` by bid of any split: which, column and kW by one unit of it."""
    columns = np.array(sorted({c for _, c, _ in (*effects, *in_any)}), dtype=np.int64)
    delta, any_kw = (_spread(part, n, columns) for part, n in ((effects, n_resource), (in_any, len(any_split))))
    upper = all_upper[columns]
    cap_kw = _most(np.abs(delta), upper)
    if any_split:
        for each, kw in zip(any_split, _most(any_kw, upper), strict=True):
            cap_kw[each.members] += kw
    return MtuOffers(columns, delta, any_kw, cap_kw)


def _spread(cells: Sequence[tuple[int, int, float]], n: int, columns: Ints) -> Floats:
    """Sums of (row, column, kW) as an array (n, n_column)."""
    sums = np.zeros((n, len(columns)))
    if cells:
        row, column, kw = (np.array(each) for each in zip(*cells, strict=True))
        np.add.at(sums, (row, np.searchsorted(columns, column)), kw)
    return sums


def _most(amount: Floats, upper: Floats) -> Floats:
    """``amount @ upper``, where nothing of something endless is nothing."""
    return np.asarray(np.multiply(amount, upper, out=np.zeros_like(amount), where=amount > 0.0).sum(axis=1))


def _one_direction(making: _Making) -> None:
    """A yes-or-no decision for each resource and MTU with bids in both directions that it could pay to accept
    together: prices that add up to less than nothing, or bids that cannot be accepted in part."""
    of_resource: dict[str, list[int]] = {}
    for b, bid in enumerate(making.bids):
        for name in bid.members:
            of_resource.setdefault(name, []).append(b)
    for name, own in of_resource.items():
        if len(own) > 1 and _tempting([making.bids[b] for b in own]):
            cells = [cell for cell in making.cells if cell[0] in own]
            for t in range(making.case.n_mtu):
                _decide_direction(making, name, t, [(b, column, kw) for b, at, column, kw in cells if at == t])


def _decide_direction(making: _Making, resource: str, t: int, cells: Sequence[tuple[int, int, float]]) -> None:
    """Upward <= most * decision, downward <= most * (1 - decision)."""
    decision = making.columns.add(0.0, 0.0, 1.0, integer=True)
    tag = RowTag("one_direction", t, resource, priced=False)
    for direction in Direction:
        terms = {column: kw for b, column, kw in cells if making.bids[b].direction is direction}
        most = sum(making.columns.upper[column] * kw for column, kw in terms.items())
        if direction is Direction.UP:
            making.rows.add({**terms, decision: -most}, -math.inf, 0.0, tag)
        else:
            making.rows.add({**terms, decision: most}, -math.inf, most, tag)


def _tempting(bids: Sequence[Bid]) -> bool:
    sides = [[bid for bid in bids if bid.direction is direction] for direction in Direction]
    if not all(sides):
        return False
    cheapest = sum(min(bid.steps[0].price_eur_per_kwh for bid in side) for side in sides)
    return cheapest < 0.0 or any(bid.whole or bid.block for bid in bids)
