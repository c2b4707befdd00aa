"""What crosses between parties in a scheme, as its stages imply it: who needs what from whom for which stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from cosim.coordination.messages import Message, MessageType, role_of
from cosim.coordination.scheme import CURVES, Scheme, Stage
from cosim.errors import MarketError

GATE = ""
"""Source of what is sent when the gate opens, before any stage; target of what no stage waits for."""


AT_TRANSMISSION = "at transmission"
"""The place of whoever sells resources at transmission; that of others is their area."""
_KEPT: Final = 128


class Flow(NamedTuple):
    """A message of a type from one party to another, as the outcome of stage ``source`` for stage ``target``."""

    type: MessageType
    sender: str
    receiver: str
    source: str
    target: str


@lru_cache(_KEPT)
def flows(scheme: Scheme) -> tuple[Flow, ...]:
    """All flows of a scheme, in the order of its stages."""
    found: list[Flow] = []
    for name, stage in scheme.stages.items():
        found += _at_the_gate(scheme, name, stage)
        found += _from_stages(scheme, name, stage)
        found += [Flow(kind, stage.solver, role, name, GATE) for role, kind in stage.tells.items()]
        if stage.awards and stage.lock and stage.takes_bids:
            found.append(Flow("AWARD", stage.solver, "AGG", name, GATE))
    return tuple(dict.fromkeys(found))


def _at_the_gate(scheme: Scheme, name: str, stage: Stage) -> Iterator[Flow]:
    solver = stage.solver

    def needs(kind: MessageType, sender: str) -> Iterator[Flow]:
        if sender != solver:
            yield Flow(kind, sender, solver, GATE, name)

    if stage.takes_bids:
        yield from needs("BID", "AGG")
    if stage.prequalified:
        yield from needs("RESOURCE_LIST", "DSO")
    for owner in ("DSO", "TSO"):
        if owner[0] in stage.network.replace("none", ""):
            yield from needs("NETWORK_MODEL", owner)
            yield from needs("OPER_DATA", owner)
    for buyer in stage.buyers:
        if solver == "IMO" or (buyer == "TSO" and stage.balance == "system"):
            yield from needs("NEED", buyer)
    if stage.balance == "priced":
        yield from needs("IFACE_PRICE", "TSO")
    if stage.balance == "band":
        yield from needs("IFACE_SCHEDULE", "TSO")
        for other, later in scheme.stages.items():
            if later.solver == "TSO" and later.balance == "system":
                yield Flow("IFACE_SCHEDULE", solver, "TSO", GATE, other)


def _from_stages(scheme: Scheme, name: str, stage: Stage) -> Iterator[Flow]:
    for used in stage.uses:
        source = scheme.stages.get(used)
        if source is not None and source.solver != stage.solver:
            yield Flow(outcome_type(source, stage), source.solver, stage.solver, used, name)


def check_declared(scheme: Scheme, messages: Iterable[Message]) -> None:
    """Raises MarketError if a scheme does not let one of these cross."""
    declared = _declared(scheme)
    for message in messages:
        if (message.type, role_of(message.sender), role_of(message.receiver)) not in declared:
            what = f"{message.type} from {message.sender} to {message.receiver}"
            raise MarketError(f"scheme {scheme.name} does not declare {what}")


@lru_cache(_KEPT)
def _declared(scheme: Scheme) -> frozenset[tuple[str, str, str]]:
    return scheme.declared


def outcome_type(source: Stage, target: Stage) -> MessageType:
    """What a stage tells one that uses it."""
    if source.objective in CURVES:
        return "BID_CURVE"
    if source.objective == "caps":
        return "LIMIT" if source.caps == "perimeters" else "BID_CAP"
    if source.objective == "validate":
        return "VALIDATION"
    if target.objective == "validate":
        return "PICKED_SET"
    if target.balance == "target" or target.commodity == "Q":
        return "AWARD"
    return "IFACE_SCHEDULE" if source.balance in ("band", "priced") else "RESULT"


@lru_cache(_KEPT)
def bids_seen(scheme: Scheme, role: str) -> frozenset[str]:
    """Whose bids a party gets as they are: of resources at distribution (D) and at transmission (T)."""
    own = [stage for stage in scheme.stages.values() if stage.solver == role]
    direct_d = any("D" in s.resources and (s.admit != "curve" or role == "DSO") for s in own)
    direct_t = any("T" in s.resources for s in own)
    return frozenset(side for side, seen in (("D", direct_d), ("T", direct_t)) if seen)


def deals(scheme: Scheme, seller: str, solver: str) -> bool:
    """Whether bids of a seller reach a solver as they are: those of a place (``AGG:AREA``) whoever clears bids from
    there, those of a seller without one everybody."""
    place, area = seller.partition(":")[2], solver.partition(":")[2]
    seen = bids_seen(scheme, role_of(solver))
    if not place:
        return True
    return "T" in seen if place == AT_TRANSMISSION else "D" in seen and area in ("", place)
