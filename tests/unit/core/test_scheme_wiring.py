"""Links between the parties of a scheme: those that the scheme lets talk, no others, each in its direction of time."""

import pytest

from cosim.coordination.catalogue import load_scheme, shipped
from cosim.coordination.flows import deals, flows
from cosim.coordination.in_run import LOOP, SELLERS, parties_in_run
from cosim.coordination.messages import role_of
from cosim.scenario.schema import Scenario
from cosim.wiring import CLASSES, answering, links_of, simulators_of

SCENARIO = Scenario.model_validate(
    {
        "name": "wired",
        "start": "2016-05-16T00:00:00+01:00",
        "duration": "1h",
        "feeder": "mv5",
        "resources": {"roofs": {"pods": ["A"], "pv": {}, "down_eur_per_kwh": 0.1}},
        "market": {},
    }
)


@pytest.fixture(params=shipped())
def scheme(request):
    return load_scheme(request.param)


def links(scheme, entity):
    return [link for link in links_of(SCENARIO, scheme) if link.source.entity == entity]


def test_mail_goes_where_the_scheme_says(scheme):
    """Sellers hear of awards alone; they tell those who deal with them."""
    parties = parties_in_run(scheme, "area")
    found = {(link.source.simulator, link.target.simulator) for link in links(scheme, "mail")}
    said = {(flow.sender, flow.receiver) for flow in flows(scheme) if flow.receiver != "AGG"}
    expected = {
        (a, b)
        for a, sender in parties.items()
        for b, receiver in parties.items()
        if (role_of(sender), role_of(receiver)) in said and (a not in SELLERS or deals(scheme, sender, receiver))
    }
    assert found == expected
    assert {(role_of(parties[a]), role_of(parties[b])) for a, b in found} == said, "all that is said is heard"


def test_awards_go_to_those_who_deal_with_the_buyer(scheme):
    parties = parties_in_run(scheme, "area")
    buying = {flow.sender for flow in flows(scheme) if (flow.type, flow.receiver) == ("AWARD", "AGG")}
    found = {(link.source.simulator, link.target.simulator) for link in links(scheme, "award")}
    assert found == {
        (buyer, seller)
        for buyer in parties
        for seller in SELLERS
        if role_of(parties[buyer]) in buying and seller in parties and deals(scheme, parties[seller], parties[buyer])
    }
    assert found
    for link in links(scheme, "award"):
        assert (link.when, link.message, link.target.attribute) == ("next", True, f"from_{link.source.simulator}")


def test_links_back_are_within_the_loop_alone(scheme):
    order = answering(scheme)
    assert order[0] == "dso"
    assert set(order) <= set(LOOP)
    for link in links(scheme, "mail"):
        ends = (link.source.simulator, link.target.simulator)
        back = set(ends) <= set(order) and order.index(ends[0]) > order.index(ends[1])
        assert link.when == ("back" if back else "now"), str(link)
        assert link.target.entity == ("inbox" if ends[0] in order else "gate"), str(link)


def test_simulators_are_those_of_the_parties(scheme):
    """The network operator is there to expect what comes, also where it has no say; no market besides the scheme."""
    names, parties = simulators_of(SCENARIO, scheme), parties_in_run(scheme, "area")
    assert set(parties) | {"dso", "aggregator"} == set(names) & {*LOOP, *SELLERS, "brp", "dso"}
    assert "market" not in names
    assert len(names) == len(set(names))
    assert set(names) <= set(CLASSES)
    ends = {port.simulator for link in links_of(SCENARIO, scheme) for port in (link.source, link.target)}
    assert set(parties) <= ends <= set(names)


def test_without_a_scheme_there_is_a_market_and_no_party():
    names = simulators_of(SCENARIO, None)
    assert "market" in names
    assert not {"tso", "imo", "generators", "brp"} & set(names)
    assert answering(None) == ()
    assert not links(None, "mail")


def test_most_clearings_bounds_the_rounds():
    scheme = load_scheme("givisiez_hybrid")
    assert scheme.most_clearings == 3 * 21
    assert load_scheme("it_dso_priority").most_clearings == 2
