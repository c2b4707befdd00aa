"""A party of a scheme: messages in, messages out. It clears each of its stages when all is there that it waits for.

Nothing else connects parties, so that each can be a simulator of its own; the outcome does not depend on the order in
which messages arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from cosim.coordination.case import place_of
from cosim.coordination.flows import AT_TRANSMISSION, GATE, bids_seen, deals, flows, outcome_type
from cosim.coordination.knowledge import Knowledge, MailKey
from cosim.coordination.messages import Body, Message, MessageType, Quantities, role_of
from cosim.coordination.outcome import StageOutcome
from cosim.coordination.scheme import Scheme, Stage
from cosim.coordination.stage import clear_stage
from cosim.coordination.telling import Own, body_of, own_body
from cosim.errors import MarketError
from cosim.market.program import Solver

_KEPT = 128


@dataclass(frozen=True)
class Party:
    """``id``: a role, or of a network operator ``DSO:AREA``; ``peers``: all parties, itself too; ``rounds``: how often
    it has cleared each stage; ``heard``: which round of another stage it has taken in for it."""

    id: str
    peers: tuple[str, ...]
    knows: Knowledge
    rounds: Mapping[str, int] = field(default_factory=dict)
    heard: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def role(self) -> str:
        return role_of(self.id)

    @property
    def area(self) -> str:
        """The area of a network operator, else empty."""
        return self.id.partition(":")[2]

    @property
    def scheme(self) -> Scheme:
        return self.knows.scheme

    @property
    def stages(self) -> tuple[str, ...]:
        """Those that it clears."""
        return _cleared_by(self.scheme, self.role)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Its stages that have not been cleared yet."""
        return tuple(name for name in self.stages if name not in self.rounds)


@lru_cache(_KEPT)
def _cleared_by(scheme: Scheme, role: str) -> tuple[str, ...]:
    return tuple(name for name, stage in scheme.stages.items() if stage.solver == role)


@lru_cache(_KEPT)
def _of_role(peers: tuple[str, ...], role: str) -> tuple[str, ...]:
    return tuple(peer for peer in peers if role_of(peer) == role)


@lru_cache(_KEPT)
def _awaited(scheme: Scheme, name: str, peers: tuple[str, ...], stage: str) -> tuple[MailKey, ...]:
    """What the party ``name`` gets at the gate for a stage."""
    return tuple(
        (flow.type, GATE, sender)
        for flow in flows(scheme)
        if (flow.source, flow.target) == (GATE, stage)
        for sender in _of_role(peers, flow.sender)
        if flow.type != "BID" or deals(scheme, sender, name)
    )


@lru_cache(_KEPT)
def _hearers(scheme: Scheme, name: str, peers: tuple[str, ...], source: str) -> tuple[tuple[MessageType, str], ...]:
    """What the party ``name`` says of a stage, or at the gate, and to whom."""
    said = dict.fromkeys(
        (f.type, f.receiver) for f in flows(scheme) if f.source == source and f.sender == role_of(name)
    )
    return tuple((kind, receiver) for kind, role in said for receiver in _of_role(peers, role))


def party(name: str, peers: Sequence[str], scheme: Scheme, own: Own) -> Party:
    """A party before the gate opens."""
    return Party(name, tuple(peers), Knowledge(scheme, own))


def at_the_gate(party: Party) -> tuple[Message, ...]:
    """What it says when the gate opens."""
    scheme, own = party.scheme, party.knows.own
    return tuple(
        _message(party, kind, receiver, GATE, own_body(kind, own, receiver, bids_seen(scheme, role_of(receiver))))
        for kind, receiver in _hearers(scheme, party.id, party.peers, GATE)
        if kind != "BID" or deals(scheme, party.id, receiver)
    )


def step(party: Party, inbox: Sequence[Message], solver: Solver | None = None) -> tuple[Party, tuple[Message, ...]]:
    """Takes in messages and clears all stages that it can; the party afterwards, and what it says.

    Raises MarketError and BidError as `clear_stage` does.
    """
    mail = {**party.knows.mail, **{(m.type, m.stage, m.sender): m for m in inbox}}
    party, said = replace(party, knows=replace(party.knows, mail=mail)), list[Message]()
    while (name := next((name for name in party.stages if _ready(party, name)), None)) is not None:
        party, outcome = _cleared(party, name, solver)
        said += _told(party, name, outcome)
    return party, tuple(said)


def check_cleared(parties: Iterable[Party]) -> None:
    """Raises MarketError if one of these, which have nothing more to hear, has a stage that it has not cleared."""
    if stuck := {each.id: each for each in parties if each.waiting}:
        stages = "; ".join(f"{name}: {', '.join(each.waiting)}" for name, each in stuck.items())
        scheme = next(iter(stuck.values())).scheme
        raise MarketError(f"scheme {scheme.name}: stages that wait for ever: {stages}")


def _cleared(party: Party, name: str, solver: Solver | None) -> tuple[Party, StageOutcome]:
    stage, knows = party.scheme.stages[name], party.knows
    now = knows.situation(name)
    outcome = clear_stage(name, stage, now, solver)
    rounds = party.rounds.get(name, 0) + 1
    if stage.repeat is not None and outcome.again and rounds >= stage.repeat.at_most:
        safe = {
            bid.id: min((now.picked or {}).get(bid.id, 0.0), outcome.caps.get(bid.id, float("inf"))) for bid in now.bids
        }
        outcome = replace(outcome, caps=safe, again=False)
    heard = {(name, used): _round(party, used, stage) for used in stage.uses}
    after = replace(
        party,
        knows=replace(knows, outcomes={**knows.outcomes, name: outcome}),
        rounds={**party.rounds, name: rounds},
        heard={**party.heard, **heard},
    )
    return after, outcome


def _ready(party: Party, name: str) -> bool:
    """Whether all is there for a stage, and it is its turn: once, or again as often as its cycle goes back."""
    stage, mail = party.scheme.stages[name], party.knows.mail
    repeated = name in party.rounds
    earlier = party.stages[: party.stages.index(name)]
    if any(before not in party.rounds for before in earlier) or (repeated and not _in_a_cycle(party.scheme, name)):
        return False
    if any(key not in mail for key in _awaited(party.scheme, party.id, party.peers, name)):
        return False
    return all(_heard(party, name, stage, used, repeated) for used in stage.uses)


def _heard(party: Party, name: str, stage: Stage, used: str, repeated: bool) -> bool:
    """Whether the outcome of a stage that this one uses is there, for this round."""
    scheme = party.scheme
    source = scheme.stages[used]
    back = scheme.position[used] > scheme.position[name]
    if back and not repeated:
        return True
    latest = _round(party, used, stage)
    together = any(scheme.in_cycle(name, last) and scheme.in_cycle(used, last) for last in scheme.stages)
    if latest == 0 or (repeated and together and latest <= party.heard.get((name, used), 0)):
        return False
    if source.repeat is None:
        return True
    again = any(isinstance(body, Quantities) and body.again for _, body in party.knows.heard(stage, used))
    return again if together else not again


def _round(party: Party, used: str, stage: Stage) -> int:
    """The round of a stage's outcome, once all who clear it have told theirs of the same; 0 before."""
    source = party.scheme.stages[used]
    if source.solver == stage.solver:
        return party.rounds.get(used, 0)
    kind = outcome_type(source, stage)
    told = [party.knows.mail.get((kind, used, sender)) for sender in _of_role(party.peers, source.solver)]
    rounds = {0 if message is None else message.round for message in told}
    return rounds.pop() if len(rounds) == 1 else 0


def _in_a_cycle(scheme: Scheme, name: str) -> bool:
    return any(scheme.in_cycle(name, last) for last in scheme.stages)


def _told(party: Party, name: str, outcome: StageOutcome) -> Iterator[Message]:
    """Who hears of an outcome, each what concerns it."""
    hearers = _hearers(party.scheme, party.id, party.peers, name)
    if not hearers:
        return
    bids, resources = party.knows.offers
    places = {bid.id: place_of(bid, resources) for bid in bids if bid.id in outcome.bought}
    version = party.knows.own.areas[party.area].matrix.version if party.area else party.knows.own.matrix_version
    for kind, receiver in hearers:
        role, _, area = receiver.partition(":")
        if role == "AGG" and not deals(party.scheme, receiver, party.id):
            continue

        def concerns(subject: str, area: str = area) -> bool:
            return area in ("", places.get(subject, subject) or AT_TRANSMISSION)

        body = body_of(kind, outcome, role, concerns, party.area, version)
        yield _message(party, kind, receiver, name, body)


def _message(party: Party, kind: MessageType, receiver: str, stage: str, body: Body) -> Message:
    round_ = party.rounds.get(stage, 1)
    return Message(party.knows.own.t_s, party.id, receiver, kind, stage, body, round_)
