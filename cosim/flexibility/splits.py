"""Which resource delivers what of an award, as it is recorded and as it is settled at the meters of PODs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cosim.domain.frames import Floats
from cosim.domain.market import Award, Direction
from cosim.domain.settlement import Call
from cosim.flexibility.disaggregation import Divided, divided
from cosim.flexibility.session import Session


@dataclass(frozen=True)
class Split:
    """An award, and what each resource is to deliver of it (n_mtu,) [kW]: together the award.

    What an aggregator cannot deliver (`cosim.flexibility.disaggregation.Divided`) is in proportion to what it can.
    """

    award: Award
    gate_s: int
    mtu_s: int
    seller: str
    direction: Direction
    ordered_kw: Mapping[str, Floats]

    def rows(self) -> Iterator[tuple[int, str, float]]:
        """Beginning of the MTU [s], resource and quantity [kW] of everything that is ordered."""
        for resource, kw in self.ordered_kw.items():
            for t in np.flatnonzero(kw).tolist():
                yield self.award.t_s + t * self.mtu_s, resource, float(kw[t])


def splits(sessions: Iterable[Session], awards: Sequence[Award]) -> tuple[Split, ...]:
    """Of the awards of bids offered in ``sessions``, in the order of the sessions and of the division."""
    return tuple(split for session in sessions for split in _of_session(session, awards))


def _of_session(session: Session, awards: Sequence[Award]) -> Iterator[Split]:
    own = {bid.id: bid for bid in session.bids}
    won = netted([award for award in awards if award.bid in own])
    for each in divided(session.bids, won, session.members):
        shares = _shares(each)
        for award in each.awards:
            ordered_kw = dict(zip(each.members, shares * np.array(award.quantity_kw), strict=True))
            seller = own[award.bid].seller
            yield Split(award, session.gate_s, session.mtu_s, seller, each.direction, ordered_kw)


def _shares(divided: Divided) -> Floats:
    """Of each member in what all of them deliver (n_member, n_mtu)."""
    if len(divided.members) == 1:
        return np.ones_like(divided.quantity_kw)
    delivered_kw = divided.quantity_kw.sum(axis=0)
    shares = np.full(divided.quantity_kw.shape, 1.0 / len(divided.members))
    np.divide(divided.quantity_kw, delivered_kw, out=shares, where=delivered_kw > 0.0)
    return shares


def netted(awards: Sequence[Award]) -> list[Award]:
    """Awards without those below zero, by which a later stage of a scheme gives a bid back: what it gives back is taken
    off those before, the last first, and its buyer need not pay."""
    found: list[Award] = []
    for award in awards:
        if min(award.quantity_kw) >= 0.0:
            found.append(award)
            continue
        back_kw = -np.minimum(award.quantity_kw, 0.0)
        for k in reversed(range(len(found))):
            if found[k].bid == award.bid:
                kw = np.array(found[k].quantity_kw)
                taken_kw = np.minimum(kw, back_kw)
                back_kw = back_kw - taken_kw
                found[k] = replace(found[k], quantity_kw=tuple((kw - taken_kw).tolist()))
        found.append(replace(award, quantity_kw=tuple(max(kw, 0.0) for kw in award.quantity_kw)))
    return [award for award in found if any(award.quantity_kw)]


def call_of(split: Split, pod_of: Mapping[str, str]) -> Call:
    """The call of an award from the meters of the PODs where its resources are."""
    at: dict[str, Floats] = {}
    for resource, kw in split.ordered_kw.items():
        pod = pod_of[resource]
        at[pod] = at.get(pod, 0.0) + kw
    ordered_kw = tuple((pod, tuple(kw.tolist())) for pod, kw in at.items() if kw.any())
    return Call(split.award, split.seller, split.direction, ordered_kw)
