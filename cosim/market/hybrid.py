"""Forward contracts and free offers in one book, session by session, on the seller's side.

What a contract obliges its resource to offer is taken from what its aggregator can offer freely, so that both together
are never more than it can do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cosim.clock import Clock
from cosim.domain.frames import Floats
from cosim.domain.market import Award, Bid, Contract, Direction
from cosim.flexibility.fleet import Reserved
from cosim.flexibility.session import Session
from cosim.market.contracts import Obligation, activation_limits, contracts_as_bids, fulfils, obligations

Called = Mapping[str, Mapping[int, float]]
"""What was bought of each contract, by MTU [kW]."""

_CALLED_KW = 1e-6


@dataclass(frozen=True)
class Commitment:
    """What a contract means for the MTUs of a session from ``t_s`` on (n_mtu,): whether it holds, what its seller
    offers by itself, and what counts as offered [kW]."""

    contract: str
    t_s: int
    window: tuple[bool, ...]
    own_kw: tuple[float, ...]
    offered_kw: tuple[float, ...]


@dataclass(frozen=True)
class HybridBook:
    """How books are made: all ``contracts``, and free offers if there is a ``spot`` market beside them."""

    contracts: tuple[Contract, ...]
    clock: Clock
    spot: bool = True

    def session(self, offered: Callable[[Reserved], Session], called: Called) -> tuple[Session, tuple[Commitment, ...]]:
        """One session; ``offered(reserved)`` are the free offers beside quantities that are reserved."""
        free = offered({})
        own = free.bids if self.spot else ()
        owed = [_named(each, free) for each in self._owed(free, own, called)]
        reserved = _reserved(owed)
        if reserved and self.spot:
            free = offered(reserved)
            own = free.bids
        limits = activation_limits(owed) if free.n_mtu > 1 else ()
        book = replace(free, bids=(*contracts_as_bids(owed), *own), couplings=(*free.couplings, *limits))
        return book, tuple(_commitment(each, free, called) for each in owed)

    def called(self, session: Session, commitments: Sequence[Commitment], awards: Sequence[Award]) -> Called:
        """What ``awards`` buy of each contract: of its obligatory bid, or of what its seller offers instead."""
        contracts = {contract.id: contract for contract in self.contracts}
        first = session.t_s // session.mtu_s
        found: dict[str, dict[int, float]] = {}
        for each in commitments:
            contract = contracts[each.contract]
            kw = np.zeros(session.n_mtu)
            for award in awards:
                bid = next((bid for bid in session.bids if bid.id == award.bid), None)
                if bid is not None and bid.id == _name(contract, session):
                    kw += award.quantity_kw
                elif bid is not None and fulfils(bid, contract):
                    kw += np.minimum(award.quantity_kw, each.own_kw)
            bought = {first + t: float(kw[t]) for t in np.flatnonzero(kw > _CALLED_KW).tolist()}
            if bought:
                found[each.contract] = bought
        return found

    def _owed(self, free: Session, own: Sequence[Bid], called: Called) -> tuple[Obligation, ...]:
        first = free.t_s // free.mtu_s
        now = range(first, first + free.n_mtu)
        before = {name: sum(mtu not in now for mtu in of_mtu) for name, of_mtu in called.items()}
        available_kw = self._available_kw(free, called)
        return obligations(self.contracts, self.clock, free.t_s, free.n_mtu, own, available_kw, before)

    def _available_kw(self, free: Session, called: Called) -> Mapping[str, Sequence[float]]:
        """What resources can do, for each of their contracts what those called at lower prices leave (n_mtu,), and not
        more than is not called yet."""
        left: dict[tuple[str, Direction], Floats] = {}
        found = {}
        for contract in sorted(self.contracts, key=lambda each: (each.strike_eur_per_kwh, each.id)):
            place = contract.shares[0][0], contract.direction
            able_kw = left.get(place, free.able_kw(*place))
            open_kw = contract.committed_kw - _called_kw(contract.id, free, called)
            found[contract.id] = np.clip(open_kw, 0.0, able_kw)
            left[place] = able_kw - found[contract.id]
        return {name: kw.tolist() for name, kw in found.items()}


def merged(called: Called, more: Called) -> Called:
    """Both together."""
    if not more:
        return called
    found = {name: dict(of_mtu) for name, of_mtu in called.items()}
    for name, of_mtu in more.items():
        own = found.setdefault(name, {})
        for mtu, kw in of_mtu.items():
            own[mtu] = own.get(mtu, 0.0) + kw
    return found


def _called_kw(name: str, session: Session, called: Called) -> Floats:
    """What was called of a contract before in the MTUs of a session (n_mtu,)."""
    first, of_mtu = session.t_s // session.mtu_s, called.get(name, {})
    return np.array([of_mtu.get(first + t, 0.0) for t in range(session.n_mtu)])


def _name(contract: Contract, session: Session) -> str:
    """The id of an obligatory bid, of the same form as those of free ones."""
    return f"{contract.seller}/{contract.product}/{contract.shares[0][0]}/{contract.id}@{session.t_s}@{session.gate_s}"


def _named(owed: Obligation, session: Session) -> Obligation:
    bid = owed.bid
    return owed if bid is None else replace(owed, bid=replace(bid, id=_name(owed.contract, session)))


def _reserved(owed: Sequence[Obligation]) -> Reserved:
    found: dict[tuple[str, Direction], Floats] = {}
    for each in owed:
        if each.bid is not None:
            place = each.contract.shares[0][0], each.contract.direction
            found[place] = found.get(place, 0.0) + np.array(each.bid.quantity_kw)
    return found


def _commitment(owed: Obligation, session: Session, called: Called) -> Commitment:
    contract = owed.contract
    offered_kw = np.zeros(session.n_mtu)
    offered_kw[owed.window] = owed.offered_kw
    offered_kw = np.minimum(offered_kw + _called_kw(contract.id, session, called), contract.committed_kw)
    return Commitment(
        contract.id,
        session.t_s,
        tuple(owed.window.tolist()),
        tuple(owed.own_kw.tolist()),
        tuple(np.where(owed.window, offered_kw, 0.0).tolist()),
    )
