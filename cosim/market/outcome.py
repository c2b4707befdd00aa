"""What a clearing found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cosim.domain.frames import Floats
from cosim.domain.market import Bid
from cosim.errors import MarketError
from cosim.market.case import ClearingCase
from cosim.market.growth import LimitKey, NetworkGrowth
from cosim.market.offers import Offers
from cosim.market.program import Program, Solution
from cosim.market.terms import MtuNetwork

UNITS = {"i_max": "A", "i_ceiling": "A", "v_min": "pu", "v_max": "pu", "need": "kW"}
UNSOLVED_KW = 1e-5


@dataclass(frozen=True)
class Unsolved:
    """A limit that the plan does not keep in an MTU, forecast errors included, or a firm need that is not met.

    ``excess`` in ``unit``, ``missing_kw`` that much in kW at the POD where it does most for it.
    """

    mtu: int
    kind: str
    element: str
    excess: float
    unit: str
    limit: float
    missing_kw: float

    def __str__(self) -> str:
        share = f" ({100.0 * self.excess / self.limit:.2g} %)" if self.limit else ""
        over = "short of" if self.kind == "need" else "beyond"
        where = f"{self.kind} of {self.element} in MTU {self.mtu}"
        return f"{where}: {self.excess:.4g} {self.unit}{share} {over} {self.limit:g}"


class BindingRow(NamedTuple):
    """A row that holds with equality and has a price: its limit, plane, and what 1 kW of room would save [EUR]."""

    key: LimitKey
    plane: int
    dual_eur_per_kw: float


@dataclass(frozen=True)
class NeedColumns:
    """Columns of a need [kW] in one MTU: what is bought (elastic) or what is missing (firm)."""

    need: str
    mtu: int
    column: int
    elastic: bool


@dataclass(frozen=True)
class Clearing:
    """A plan: ``awarded_kw`` (n_mtu, n_bid) of ``bids`` in canonical order.

    ``cost_eur``: what the bids ask for it; ``objective_eur``: with the price of what is unsolved and tolerated, less
    what buyers with a price limit would pay at it. ``bought_kw``: of each elastic need, per MTU. ``gap``: with
    integers, how far the objective is from the best at most, as a share of it; ``stopped``: the solver's time ended
    before it was proven the best.
    """

    case: ClearingCase
    bids: tuple[Bid, ...]
    awarded_kw: Floats
    cost_eur: float
    objective_eur: float
    unsolved: tuple[Unsolved, ...]
    bought_kw: dict[str, tuple[float, ...]]
    gap: float
    stopped: bool
    offers: Offers
    networks: tuple[MtuNetwork, ...]
    growth: NetworkGrowth
    program: Program
    solution: Solution

    def require_solved(self) -> Clearing:
        """Itself; raises MarketError if limits or needs stay unmet, naming each."""
        if self.unsolved:
            raise MarketError("\n".join(str(each) for each in self.unsolved))
        return self

    def of(self, bid: str) -> Floats:
        """Awarded quantity of a bid per MTU (n_mtu,) [kW]."""
        return self.awarded_kw[:, [each.id for each in self.bids].index(bid)]
