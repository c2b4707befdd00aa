"""Parties that know only what messages brought them, in whatever order, through whatever wire."""

import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_system import BIDS, GLOBAL, LOCAL, UNITS, scheme, system

from cosim.coordination.catalogue import load_scheme, shipped
from cosim.coordination.coordinate import coordinate, parties_of
from cosim.coordination.messages import message_to_plain, role_of
from cosim.coordination.party import at_the_gate, step
from cosim.coordination.read_case import read_case
from cosim.coordination.scheme import Scheme
from cosim.errors import MarketError
from simulators.wire import decode, encode

sys.path.insert(0, str(Path(__file__).parents[2] / "property"))
from random_coordination import random_system


def over_a_wire(message):
    """The message as another process gets it."""
    return decode(json.loads(json.dumps(encode(message))))


def one_by_one(case, scheme, seed):
    """The scheme with messages that arrive one at a time, in a random order, as JSON."""
    rng = random.Random(seed)
    parties = {each.id: each for each in parties_of(case, scheme)}
    flying = [message for party in parties.values() for message in at_the_gate(party)]
    for name, party in parties.items():
        parties[name], said = step(party, [])
        flying += said
    log = []
    while flying:
        message = over_a_wire(flying.pop(rng.randrange(len(flying))))
        log.append(message)
        parties[message.receiver], said = step(parties[message.receiver], [message])
        flying += said
    assert not any(party.waiting for party in parties.values())
    return parties, log


@pytest.fixture(scope="module")
def case():
    """Two areas with voltages, losses, reactive bids and forecast errors."""
    made = random_system(3, share=0.9, areas=2, ac=True, half_band=0.05, drop_pu=0.06, reactive_bids=True)
    return replace(made, areas={k: replace(a, price_eur_per_kwh=0.1) for k, a in made.areas.items()})


@pytest.mark.parametrize("name", shipped())
def test_the_order_of_arrival_and_the_wire_change_nothing(name, case):
    scheme = load_scheme(name)
    found = coordinate(case, scheme)
    parties, log = one_by_one(case, scheme, seed=1)
    for who, outcome in found.outcomes:
        assert parties[who].knows.outcomes[outcome.stage] == outcome
    same = sorted((m.sender, m.receiver, m.type, m.stage, m.round, m.size, m.digest) for m in log)
    assert same == sorted((m.sender, m.receiver, m.type, m.stage, m.round, m.size, m.digest) for m in found.messages)


@pytest.mark.parametrize("name", shipped())
def test_nobody_knows_what_no_message_brought(name, case):
    """Of networks and bids: the parties hold nothing else at the gate, and later only what is declared."""
    scheme = load_scheme(name)
    parties, _ = one_by_one(case, scheme, seed=2)
    for name, party in parties.items():
        own = party.knows.own
        assert (own.transmission is not None) == (name == "TSO")
        assert set(own.areas) == ({party.area} if party.area else set())
        assert (own.bids != ()) == (name == "AGG")
        told = {(kind, role_of(sender)) for kind, _, sender in party.knows.mail}
        assert told <= {(kind, sender) for kind, sender, receiver in scheme.declared if receiver == party.role}


def test_a_party_waits_until_all_is_there():
    made = scheme({"MSL": LOCAL, "MSD": {**GLOBAL, "uses": ["MSL"]}})
    parties = {each.id: each for each in parties_of(system(), made)}
    tso, said = step(parties["TSO"], [])
    assert tso.waiting == ("MSD",)
    assert said == ()
    bids = [m for m in at_the_gate(parties["AGG"]) if m.receiver == "TSO"]
    tso, said = step(tso, bids)
    assert tso.waiting == ("MSD",)
    dso, told = step(parties["DSO:area"], [m for m in at_the_gate(parties["AGG"]) if m.receiver == "DSO:area"])
    assert dso.waiting == ()
    tso, said = step(tso, [m for m in told if m.receiver == "TSO"])
    assert tso.waiting == ()
    assert [(m.type, m.receiver) for m in said] == [("AWARD", "AGG")]


def test_what_is_not_declared_does_not_cross():
    made = scheme({"MSL": LOCAL, "MSD": {**GLOBAL, "uses": ["MSL"]}})
    left = {pair: kinds for pair, kinds in made.messages.items() if pair != "DSO to TSO"}
    silent = Scheme.model_validate({**made.model_dump(), "messages": left})
    with pytest.raises(MarketError, match=r"scheme test does not declare RESULT from DSO:area to TSO"):
        coordinate(system(), silent)


def test_stages_that_nobody_can_clear_are_named():
    made = scheme({"MSL": LOCAL, "MSD": {**GLOBAL, "uses": ["MSL"]}})
    transmission = [name for name, unit in system().resources.items() if "/" not in unit.pod]
    without_areas = replace(
        system(
            bids=[bid for bid in BIDS if bid.resource in transmission],
            units={name: UNITS[name] for name in transmission},
        ),
        areas={},
    )
    with pytest.raises(MarketError, match="stages that wait for ever: TSO: MSD"):
        coordinate(without_areas, made)


def test_a_cycle_ends_when_its_rounds_are_over():
    """The last round leaves what has been found safe until then, and nothing else."""
    path = Path(__file__).parents[2] / "reference" / "t1_coordination" / "hybrid.yaml"
    case = read_case(path)
    found = coordinate(case, load_scheme("givisiez_hybrid", ("stages.validate.repeat.at_most=1",)))
    assert [m.round for m in found.messages if m.type == "VALIDATION"] == [1]
    assert not any(each.worse for each in found.overloads)
    assert found.of("AS").bought["F1 down"].kw == pytest.approx(4000.0)
    assert "F2 down" not in found.of("AS").bought


def test_sizes_and_hashes_are_of_what_is_said():
    made = scheme({"MSL": LOCAL, "MSD": {**GLOBAL, "uses": ["MSL"]}})
    once, again = coordinate(system(), made), coordinate(system(need_kw=3.0), made)
    (first,), (second,) = ([m for m in found.messages if m.type == "RESULT"] for found in (once, again))
    assert first.digest == second.digest
    assert first.size == len(json.dumps(message_to_plain(first)["body"], sort_keys=True))
    (bids,) = (m for m in once.messages if (m.type, m.receiver) == ("BID", "TSO"))
    assert bids.digest != first.digest
    assert bids.size > first.size
