"""A scheme on a case: parties exchange what the scheme declares until all stages are cleared; and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cosim.coordination.audit import Balance, Overload, balance_of, dispatch_of, overloads
from cosim.coordination.case import CoordinationCase, check_case
from cosim.coordination.flows import check_declared
from cosim.coordination.in_run import awards_of, transfers
from cosim.coordination.messages import Message, role_of
from cosim.coordination.outcome import SHORT_KW, StageOutcome
from cosim.coordination.party import Party, at_the_gate, check_cleared, party, step
from cosim.coordination.prices import payments
from cosim.coordination.scheme import Scheme, Stage
from cosim.coordination.telling import Own
from cosim.domain.market import Award
from cosim.market.program import Solver

MARKET = "IMO"
SELLERS = "AGG"
DEMAND = "BRP"


@dataclass(frozen=True)
class Coordination:
    """What a scheme gave. ``outcomes``: of each stage by who cleared it, in order; ``awards``: of all that bind;
    ``dispatch_kw``: by bid, all stages together; ``cost_eur``: of all bids; ``paid_eur``: by party, with what a
    transmission operator pays for curves to their DSOs; ``overloads`` of the linear networks with all awards;
    ``messages`` in the order in which they were sent."""

    case: CoordinationCase
    scheme: Scheme
    outcomes: tuple[tuple[str, StageOutcome], ...]
    awards: tuple[Award, ...]
    dispatch_kw: Mapping[str, float]
    cost_eur: float
    paid_eur: Mapping[str, float]
    overloads: tuple[Overload, ...]
    balance: Balance
    messages: tuple[Message, ...]

    def of(self, stage: str, party: str | None = None) -> StageOutcome:
        """The outcome of a stage, of one of those who cleared it."""
        return next(found for who, found in self.outcomes if found.stage == stage and party in (None, who))

    @property
    def unsolved(self) -> tuple[tuple[str, str, str], ...]:
        """(stage, party, what) of all that stages could not meet."""
        return tuple(_unsolved(self.outcomes))

    @property
    def solved(self) -> bool:
        """Whether every stage met what it had to."""
        return not self.unsolved


def coordinate(case: CoordinationCase, scheme: Scheme, solver: Solver | None = None) -> Coordination:
    """Clears a case under a scheme.

    Raises BidError with all that is wrong with bids and resources, or if limits are for another version of the
    topology, or forecast errors cannot be dealt with; MarketError if a stage has no plan, or a party says what the
    scheme does not declare.
    """
    check_case(case)
    parties = {each.id: each for each in parties_of(case, scheme)}
    said = [message for name in sorted(parties) for message in at_the_gate(parties[name])]
    log = list(said)
    started = False
    while said or not started:
        started, heard, said = True, said, []
        check_declared(scheme, heard)
        for name in sorted(parties):
            inbox = [message for message in heard if message.receiver == name]
            parties[name], more = step(parties[name], inbox, solver)
            said += more
        log += said
    check_cleared(parties.values())
    return _result(case, scheme, tuple(parties.values()), tuple(log))


def parties_of(case: CoordinationCase, scheme: Scheme) -> tuple[Party, ...]:
    """All parties that a scheme names, each with what it knows of its own."""
    named = {role for _, *pair in scheme.declared for role in pair} | {s.solver for s in scheme.stages.values()}
    own = {
        f"DSO:{area.id}": Own(
            case.t_s,
            case.mtu_s,
            case.rules,
            areas={area.id: area},
            resources=case.resources,
            schedule_kw={area.id: area.schedule_kw},
        )
        for area in case.areas.values()
    }
    own["TSO"] = Own(
        case.t_s,
        case.mtu_s,
        case.rules,
        case.transmission,
        case.interfaces,
        need_kw=case.need_kw,
        schedule_kw={area.id: area.schedule_kw for area in case.areas.values()},
        price_eur_per_kwh={
            area.id: area.price_eur_per_kwh for area in case.areas.values() if area.price_eur_per_kwh is not None
        },
        matrix_version=case.matrix_version,
    )
    own[MARKET] = Own(case.t_s, case.mtu_s, case.rules, matrix_version=case.matrix_version)
    own[SELLERS] = Own(case.t_s, case.mtu_s, case.rules, bids=case.bids, resources=case.resources)
    own[DEMAND] = Own(case.t_s, case.mtu_s, case.rules, demands=case.demands)
    ids = tuple(name for name in own if role_of(name) in named)
    return tuple(party(name, ids, scheme, own[name]) for name in ids)


def crossed(messages: Sequence[Message]) -> frozenset[tuple[str, str, str]]:
    """(type, sender, receiver), by role, of all messages."""
    return frozenset((m.type, role_of(m.sender), role_of(m.receiver)) for m in messages)


def _result(case: CoordinationCase, scheme: Scheme, parties: Sequence[Party], log: tuple[Message, ...]) -> Coordination:
    outcomes = tuple(
        (each.id, each.knows.outcomes[name])
        for name, stage in scheme.stages.items()
        for each in parties
        if each.role == stage.solver and name in each.knows.outcomes
    )
    binding = [
        (who, found) for who, found in outcomes if scheme.stages[found.stage].awards and scheme.stages[found.stage].lock
    ]
    dispatch = dispatch_of([found for _, found in binding])
    paid: dict[str, float] = {}
    for _, found in binding:
        for payer, eur in _paid(case, scheme.stages[found.stage], found):
            paid[payer] = paid.get(payer, 0.0) + eur
    return Coordination(
        case=case,
        scheme=scheme,
        outcomes=outcomes,
        awards=tuple(award for _, found in binding for award in awards_of(case.t_s, found)),
        dispatch_kw=dispatch,
        cost_eur=sum(
            each.kw * each.price_eur_per_kwh * case.mtu_h for _, found in binding for each in found.bought.values()
        ),
        paid_eur=paid,
        overloads=overloads(case, dispatch),
        balance=balance_of(case, dispatch),
        messages=log,
    )


def _paid(case: CoordinationCase, stage: Stage, found: StageOutcome) -> Iterator[tuple[str, float]]:
    """What each party pays in a stage, below zero what it gets."""
    yield from payments(found.bought, case.mtu_h).items()
    prices = {name: area.price_eur_per_kwh or 0.0 for name, area in case.areas.items()}
    for payer, payee, eur in transfers(stage, found, prices, case.mtu_h):
        yield payer, eur
        yield payee, -eur


def _unsolved(outcomes: Sequence[tuple[str, StageOutcome]]) -> Iterator[tuple[str, str, str]]:
    for who, found in outcomes:
        for each in found.unmet:
            yield found.stage, who, str(each)
        if abs(found.shortage_kw) >= SHORT_KW:
            what = "short" if found.shortage_kw > 0.0 else "long"
            yield found.stage, who, f"balance {what} of {abs(found.shortage_kw):.6g} kW"
