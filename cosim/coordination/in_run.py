"""A scheme in a run: who its parties are, what each knows of its own at a gate, and what their outcomes come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from cosim.coordination.flows import AT_TRANSMISSION, deals, flows
from cosim.coordination.messages import role_of
from cosim.coordination.outcome import StageOutcome
from cosim.coordination.party import Party
from cosim.coordination.scheme import Scheme, Stage
from cosim.coordination.topology import Placed, TopologicalMatrix
from cosim.domain.market import Award, Resource

LOOP: Final = ("dso", "tso", "imo")
"""Simulators of parties that clear stages, and answer each other within a step."""
SELLERS: Final = ("aggregator", "generators")
"""Simulators of parties that sell, at distribution and at transmission."""
_PARTIES: Final = {"dso": "DSO:{}", "tso": "TSO", "imo": "IMO", "brp": "BRP", "aggregator": "AGG:{}",
                   "generators": f"AGG:{AT_TRANSMISSION}"}  # fmt: skip


def parties_in_run(scheme: Scheme, area: str) -> dict[str, str]:
    """By simulator, the parties of a scheme in a run of one feeder, which is the ``area``."""
    solvers = {stage.solver for stage in scheme.stages.values()}
    roles = {role for _, *pair in scheme.declared for role in pair} | solvers
    parties = {name: party.format(area) for name, party in _PARTIES.items()}
    clear = [party for party in parties.values() if role_of(party) in solvers]
    return {
        name: party
        for name, party in parties.items()
        if role_of(party) in roles and (name not in SELLERS or any(deals(scheme, party, each) for each in clear))
    }


def hearers(scheme: Scheme, simulator: str, parties: Mapping[str, str]) -> tuple[str, ...]:
    """Simulators whose parties that of a ``simulator`` may tell something; those who sell left out, which hear of
    awards alone."""
    own = parties[simulator]
    roles = {flow.receiver for flow in flows(scheme) if flow.sender == role_of(own)} - {"AGG"}
    return tuple(
        name
        for name, party in parties.items()
        if role_of(party) in roles and name != simulator and (simulator not in SELLERS or deals(scheme, own, party))
    )


def buyers(scheme: Scheme, seller: str, parties: Mapping[str, str]) -> tuple[str, ...]:
    """Simulators whose parties may award something to that of ``seller``."""
    roles = {flow.sender for flow in flows(scheme) if flow.type == "AWARD" and flow.receiver == "AGG"}
    return tuple(
        name for name, party in parties.items() if role_of(party) in roles and deals(scheme, parties[seller], party)
    )


def in_area(area: str, resources: Mapping[str, Resource]) -> dict[str, Resource]:
    """Resources at PODs of a feeder as those of an area."""
    return {name: replace(unit, pod=f"{area}/{unit.pod}") for name, unit in resources.items()}


def matrix_of(area: str, resources: Mapping[str, Resource], tso_perimeter: str) -> TopologicalMatrix:
    """Where the resources of an area are. Each stands for itself: at one POD there may be a load and a charger."""
    return TopologicalMatrix(
        1,
        tuple(
            Placed(name, unit.pod, unit.aggregator, unit.perimeter or area, tso_perimeter, unit.up_kw, unit.down_kw)
            for name, unit in resources.items()
        ),
    )


def binding(party: Party) -> Iterator[StageOutcome]:
    """Its outcomes that award something for good, in the order of its stages."""
    for name in party.stages:
        stage = party.scheme.stages[name]
        if name in party.knows.outcomes and stage.awards and stage.lock:
            yield party.knows.outcomes[name]


def awards_of(t_s: int, outcome: StageOutcome) -> tuple[Award, ...]:
    """The awards of a stage for the MTU that begins at ``t_s``, one for each buyer of each bid."""
    return tuple(
        Award(
            bid,
            outcome.stage,
            buyer,
            t_s,
            (each.kw * share,),
            (each.price_eur_per_kwh,),
            (each.asked_eur_per_kwh,),
        )
        for bid, each in outcome.bought.items()
        for buyer, share in each.shares.items()
    )


def transfers(
    stage: Stage, outcome: StageOutcome, price_eur_per_kwh: Mapping[str, float], mtu_h: float
) -> Iterator[tuple[str, str, float]]:
    """(payer, payee, EUR) of what a stage pays other than for bids: on curves and, where it has a
    ``price_eur_per_kwh`` by area, for what crosses an interface (the TSO to the DSO of the area), and for demand (BRPs
    to the TSO)."""
    to_areas = {area: eur for area, (_, eur) in outcome.on_curve.items()}
    if stage.balance == "priced":
        to_areas = {area: kw * price_eur_per_kwh[area] * mtu_h for area, kw in outcome.export_kw.items()}
    yield from (("TSO", f"DSO:{area}", eur) for area, eur in to_areas.items())
    yield from (("BRP", "TSO", eur) for _, eur in outcome.demands.values())
