"""Why a clearing has no plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cosim.market.case import ClearingCase
from cosim.market.highs import Highs
from cosim.market.offers import Offers
from cosim.market.planes import LIMIT_KINDS
from cosim.market.program import Columns, Program, Rows, RowTag
from cosim.market.terms import MtuNetwork

_MOST_NAMED = 10
_SAME = 0.05  # relative spread of relief per kW at the interface below which resources count as one
_BROKEN = 1e-6
_OTHERS = 100.0  # price of breaking a row that is not the network's, against 1: limits are what a user can act on


def conflict(case: ClearingCase, program: Program, offers: Offers, networks: Sequence[MtuNetwork]) -> str:
    """Names hard rows that cannot hold together: those that break when all may at a price."""
    broken = _least_broken(program)
    rows = list(dict.fromkeys(f"{tag.kind} of {tag.element} in MTU {tag.mtu}" for tag in broken))
    named = "; ".join(rows[:_MOST_NAMED])
    more = f" and {len(rows) - _MOST_NAMED} more" if len(rows) > _MOST_NAMED else ""
    interface = case.settings.interface_kw
    held = interface is not None and interface[0] == interface[1]
    why = _behind_the_head(case, offers, networks, broken) if held else ""
    what = "hold infeasible" if held else "no plan"
    if not rows:
        return f"{what}: all rows hold to within {_BROKEN:g}, but not as exactly as the solver is asked to{why}"
    return f"{what}: these cannot be met together with all other rows: {named}{more}{why}"


def without_bound(program: Program, offers: Offers) -> str:
    """Names bids whose columns may lower the cost without end."""
    columns = program.columns
    endless = ((columns.cost < 0.0) & np.isinf(columns.upper)) | ((columns.cost > 0.0) & np.isinf(columns.lower))
    n = offers.quantity.shape[1]
    of_row = np.flatnonzero(abs(offers.quantity[:, np.flatnonzero(endless[:n])]).sum(axis=1))
    named = ", ".join(dict.fromkeys(offers.bids[row % len(offers.bids)].id for row in of_row.tolist()))
    whose = f": bid {named}" if named else ""
    return f"the cost of the clearing has no bound: a price below zero without a limit on its quantity{whose}"


def _least_broken(program: Program) -> list[RowTag]:
    n, m = program.n_column, program.n_row
    price = np.repeat([1.0 if tag.kind in LIMIT_KINDS else _OTHERS for tag in program.rows.tags], 2)
    slack = Columns(price, np.zeros(2 * m), np.full(2 * m, np.inf), np.zeros(2 * m, dtype=bool))
    columns = replace(program.columns, cost=np.zeros(n))
    elastic = Program(columns, program.rows).with_columns(slack)
    x = Highs().solve(replace(elastic, rows=_elastic_rows(program.rows, n))).x
    return [tag for k, tag in enumerate(program.rows.tags) if max(x[n + 2 * k], x[n + 2 * k + 1]) > _BROKEN]


def _elastic_rows(rows: Rows, n: int) -> Rows:
    """Every row with a slack up and one down, whose columns begin at ``n``."""
    m = len(rows.tags)
    at = np.repeat(rows.start[1:], 2)
    slack = n + np.arange(2 * m)
    return replace(
        rows,
        start=rows.start + 2 * np.arange(m + 1),
        column=np.insert(rows.column, at, slack),
        value=np.insert(rows.value, at, np.tile([1.0, -1.0], m)),
    )


def _behind_the_head(
    case: ClearingCase, offers: Offers, networks: Sequence[MtuNetwork], broken: Sequence[RowTag]
) -> str:
    """Said when all resources relieve a row in step with what they change at the interface."""
    for tag in broken:
        network = networks[tag.mtu]
        names = case.networks[tag.mtu].names
        if tag.kind not in LIMIT_KINDS or tag.element not in names:
            continue
        quantity = names.index(tag.element)
        family = next(each for each in network.families if each.kind == tag.kind)
        limit = int(np.flatnonzero(family.quantity == quantity)[0])
        offering = offers.mtus[tag.mtu].cap_kw > 0.0
        relief = (family.weight[limit, tag.plane] * network.by_delta[quantity, offering]).real
        at_head = network.head_by_delta[offering]
        if not at_head.all():
            continue
        per_kw = relief / at_head
        if len(per_kw) and np.ptp(per_kw) <= _SAME * np.abs(per_kw).max():
            return (
                f". All resources are downstream of the violated row {tag.element}: whatever relieves it changes the "
                f"interface by as much. A counter-resource on another feeder or at the busbar is needed"
            )
    return ""
