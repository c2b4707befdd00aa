"""A session of an aggregator: what it offers at a gate, and the bands behind the offers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cosim.domain.frames import Floats
from cosim.domain.market import Bid, Coupling, Direction
from cosim.flexibility.band import Bands
from cosim.flexibility.offers import Member
from cosim.flexibility.portfolio import Unit


@dataclass(frozen=True)
class Members(Mapping[str, Member]):
    """Units by resource, each with what ``bands`` has of it."""

    units: Sequence[Unit]
    bands: Bands

    @cached_property
    def _position(self) -> dict[str, int]:
        return {unit.resource.id: k for k, unit in enumerate(self.units)}

    def __getitem__(self, resource: str) -> Member:
        k = self._position[resource]
        unit = self.units[k]
        return Member(unit.resource, self.bands.of(k), unit.up_eur_per_kwh, unit.down_eur_per_kwh)

    def __iter__(self) -> Iterator[str]:
        return iter(self._position)

    def __len__(self) -> int:
        return len(self.units)


@dataclass(frozen=True)
class Session:
    """Offers for the MTUs from ``t_s`` on: bids, what couples the MTUs of resources, and who is behind them.

    ``gate_s``: the step with which its gate closes. ``over_profile_kw`` (n_mtu, n_unit): what units draw without
    activation over the profiles of their PODs.
    """

    t_s: int
    gate_s: int
    mtu_s: int
    n_mtu: int
    bids: tuple[Bid, ...]
    couplings: tuple[Coupling, ...]
    members: Members
    over_profile_kw: Floats

    def able_kw(self, resource: str, direction: Direction) -> Floats:
        """What a resource can be held to in each MTU (n_mtu,) [kW]; where the clearing knows its energy, by power."""
        member = self.members[resource]
        if any(coupling.resource == resource for coupling in self.couplings):
            return member.rated_kw(direction)
        return member.sustained_kw(direction)

    @property
    def courses(self) -> frozenset[str]:
        """Resources that offer their energy over several MTUs."""
        offering = {name for bid in self.bids for name in bid.members} if self.n_mtu > 1 else set()
        return frozenset(name for name in offering if self.members[name].band.store is not None)
