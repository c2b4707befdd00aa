"""Offers on their way from the aggregators to those that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cosim.domain.market import (
    ActivationLimit,
    Bid,
    Coupling,
    EnergyBand,
    Need,
    RampLimit,
    StorageLimit,
    from_json,
    to_json,
)
from cosim.flexibility.session import Session
from cosim.market.hybrid import Commitment
from cosim.market.session import Book

_COUPLINGS: dict[str, type[Coupling]] = {
    kind.__name__: kind for kind in (StorageLimit, EnergyBand, RampLimit, ActivationLimit)
}


def book_message(session: Session, commitments: Sequence[Commitment]) -> dict[str, Any]:
    """The offers of a session as plain JSON, and what contracts mean for it."""
    return {
        "t_s": session.t_s,
        "bids": [to_json(bid) for bid in session.bids],
        "couplings": [{"kind": type(c).__name__, **to_json(c)} for c in session.couplings],
        "commitments": [asdict(each) for each in commitments if each.t_s == session.t_s],
    }


def book_of(message: dict[str, Any], needs: tuple[Need, ...]) -> Book:
    """The offers that `book_message` wrote, with what others than the operator of the grid need."""
    couplings = (
        from_json(_COUPLINGS[each["kind"]], {k: v for k, v in each.items() if k != "kind"})
        for each in message["couplings"]
    )
    return Book(tuple(from_json(Bid, bid) for bid in message["bids"]), tuple(couplings), needs)
