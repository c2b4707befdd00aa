"""The outer loop: a plan made on the linear model is checked by the power flow itself, and limits are tightened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cosim.domain.frames import Floats
from cosim.market.case import ClearingCase
from cosim.market.clearing import binding_rows, clear
from cosim.market.growth import LimitKey
from cosim.market.highs import Highs
from cosim.market.network import NetworkRows
from cosim.market.outcome import Clearing
from cosim.market.program import Solver
from cosim.market.terms import MtuNetwork, MtuState, WorstCorner

EXCESS_PU = 1e-4
NEAR_PU = 1e-3
MAX_ROUNDS = 20

Linearise = Callable[[int, Floats, Floats], NetworkRows]
"""The network of an MTU linearised at net consumption (n_pod,) [kW, kvar]."""

Magnitudes = Callable[[int, Floats, Floats], Floats]
"""Magnitudes (n_case, n_quantity) [A, pu] by the power flow, in the order of `NetworkRows.names`, of an MTU at net
consumption (n_case, n_pod) [kW, kvar]."""


@dataclass(frozen=True)
class AcExcess:
    """A limit that the power flow finds exceeded, by so much of it; at the schedule with awards or at the worst corner
    of forecast errors and deliveries."""

    mtu: int
    element: str
    excess_pu: float
    nominal: bool


@dataclass(frozen=True)
class AcClearing:
    """The last plan, how many were made, the limits it still exceeds by more than `EXCESS_PU` (none if settled), and
    the largest excess of each round [of the limit]."""

    clearing: Clearing
    rounds: int
    excess: tuple[AcExcess, ...]
    largest_pu: tuple[float, ...]


def rebased(network: NetworkRows, p_kw: Floats, q_kvar: Floats) -> NetworkRows:
    """The same linear model seen from another schedule."""
    base = network.at(p_kw - network.p_kw, q_kvar - network.q_kvar)
    return replace(network, p_kw=p_kw, q_kvar=q_kvar, base=base)


def clear_with_ac(
    case: ClearingCase, linearise: Linearise, magnitudes: Magnitudes, solver: Solver | None = None
) -> AcClearing:
    """Clear, run the power flow with the awards, at the schedule and at the worst corner of every limit that is close,
    linearise there, tighten what is close by what the model is short of the power flow, and again until no limit is
    exceeded by more than `EXCESS_PU`.

    What is left unsolved at a price, or tolerated, is no excess.
    """
    solver = solver or Highs()
    schedule = [(network.p_kw, network.q_kvar) for network in case.networks]
    margins = [np.zeros((len(network.names), 2)) for network in case.networks]
    largest: list[float] = []
    binding: list[tuple[LimitKey, int]] = []
    while True:
        clearing = clear(replace(case, margins=tuple(margins)), solver, binding)
        binding = [(row.key, row.plane) for row in binding_rows(clearing)]
        states = [network.state(clearing.solution.x) for network in clearing.networks]
        points = [network.powers(state) for network, state in zip(clearing.networks, states, strict=True)]
        checks = [
            _checked(clearing, network, state, magnitudes)
            for network, state in zip(clearing.networks, states, strict=True)
        ]
        found = [check for of_mtu in checks for check in of_mtu]
        above = tuple(check.described(clearing) for check in found if check.excess_pu > EXCESS_PU)
        largest.append(max((check.excess_pu for check in found), default=0.0))
        if not above or len(largest) == MAX_ROUNDS:
            return AcClearing(clearing, len(largest), above, tuple(largest))
        offers, x, case = clearing.offers, clearing.solution.x, replace(case, networks=())
        del clearing  # its networks are as large as the new ones
        networks = [
            rebased(linearise(t, *point), *start) for t, (point, start) in enumerate(zip(points, schedule, strict=True))
        ]
        case = replace(case, networks=tuple(networks))
        for t, of_mtu in enumerate(checks):
            _tighten(margins[t], MtuNetwork(case, offers, t), x, of_mtu)


@dataclass(frozen=True)
class _Check:
    """A limit that was looked at: by how much the power flow is above it [unit], 0 or less if it holds, and how much of
    that is neither unsolved at a price nor tolerated, of the limit."""

    key: LimitKey
    above: float
    excess_pu: float
    nominal: bool

    def described(self, clearing: Clearing) -> AcExcess:
        quantity = clearing.networks[self.key.mtu].families[self.key.family].quantity[self.key.limit]
        return AcExcess(
            self.key.mtu, clearing.case.networks[self.key.mtu].names[quantity], self.excess_pu, self.nominal
        )


def _checked(clearing: Clearing, network: MtuNetwork, state: MtuState, magnitudes: Magnitudes) -> list[_Check]:
    """Every limit that is close, at its own worst corner, and those that the power flow exceeds at the schedule."""
    corners = _corners(network, state)
    p_kw, q_kvar = network.powers(state)
    all_p_kw = np.stack([p_kw, *(corner.p_kw for corner in corners.values())])
    all_q_kvar = np.stack([q_kvar, *(corner.q_kvar for corner in corners.values())])
    size = magnitudes(network.mtu, all_p_kw, all_q_kvar)
    row_of = {key: row for row, key in enumerate(corners, start=1)}
    checks = []
    for number, family in enumerate(network.families):
        sign = -1.0 if family.kind == "v_min" else 1.0
        nominal = sign * (size[0, family.quantity] - family.limit)
        for limit, quantity in enumerate(family.quantity.tolist()):
            key = LimitKey(network.mtu, number, limit)
            row = row_of.get(key, 0)
            if row == 0 and nominal[limit] <= 0.0:
                continue
            above = sign * float(size[row, quantity] - family.limit[limit])
            worst = max(above, float(nominal[limit]))
            excess = (worst - _given(clearing, network, key)) / float(family.limit[limit])
            checks.append(_Check(key, worst, excess, nominal=float(nominal[limit]) >= above))
    return checks


def _corners(network: MtuNetwork, state: MtuState) -> dict[LimitKey, WorstCorner]:
    """The worst forecast errors and deliveries of every limit that the linear model finds close."""
    corners = {}
    for number, family in enumerate(network.families):
        over, at = network.excess(number, state, NEAR_PU)
        for limit, planes in zip(at.tolist(), over, strict=True):
            plane = int(planes.argmax())
            if planes[plane] > -NEAR_PU * family.limit[limit]:
                corners[LimitKey(network.mtu, number, limit)] = network.worst(number, limit, plane, state)
    return corners


def _given(clearing: Clearing, network: MtuNetwork, key: LimitKey) -> float:
    """What is unsolved or tolerated of a limit, in its unit."""
    columns = clearing.growth.columns.get(key)
    used = [] if columns is None else [column for column in (columns.slack, columns.overload) if column >= 0]
    scale_kw = float(network.scale_kw[network.families[key.family].quantity[key.limit]])
    return float(clearing.solution.x[used].sum()) * scale_kw


def _tighten(margin: Floats, network: MtuNetwork, x: Floats, checks: Sequence[_Check]) -> None:
    """Sets the margins (n_quantity, 2) of the limits that were looked at so that the new model, at the present plan
    ``x``, is as far above each as the power flow is."""
    state = network.state(x)
    short: dict[tuple[int, int], float] = {}
    for check in checks:
        family = network.families[check.key.family]
        row = np.array([check.key.limit])
        over = float(network.exceeded(check.key.family, row, state).max())
        place = (int(family.quantity[check.key.limit]), 1 if family.kind == "v_min" else 0)
        short[place] = max(short.get(place, 0.0), check.above - over)
    for place, value in short.items():
        margin[place] = value
