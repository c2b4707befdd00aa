"""Who answers for what in a settlement: parties responsible for the balance of PODs, and all who pay or are paid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cosim.domain.market import Resource
from cosim.errors import Fault
from cosim.scenario.load import LoadedScenario
from cosim.scenario.schema import Scenario
from cosim.scenario.settlement import SettlementConfig


def brps_of(pods: Sequence[str], resources: Sequence[Resource], config: SettlementConfig) -> tuple[str, ...]:
    """The balance responsible party of each POD (n_pod,): the one that its resources name, else the scenario's."""
    named = {each.pod: each.brp for each in resources if each.brp}
    return tuple(named.get(pod, config.brp) for pod in pods)


def parties_of(
    scenario: Scenario, brps: Sequence[str], config: SettlementConfig, operators: Sequence[str] = ()
) -> tuple[str, ...]:
    """All who pay or are paid, or answer for an imbalance, in a fixed order; ``operators``: those that may buy beside
    the network operator."""
    needs = [need.buyer for need in scenario.market.needs.values()] if scenario.market is not None else []
    sellers = [entry.aggregator for entry in scenario.resources.values()]
    supplier = [config.supplier] if config.compensation_eur_per_kwh is not None else []
    own = ["dso", *operators, *needs, *sellers, *brps, *supplier, config.loss_party, config.imbalance_party]
    return tuple(dict.fromkeys(own))


def faults_of_settlement(loaded: LoadedScenario, resources: Sequence[Resource]) -> Iterator[Fault]:
    """A settlement without a market, of PODs for which two answer, or whose losses somebody with meters answers for."""
    scenario, config = loaded.scenario, loaded.scenario.settlement
    if config is None:
        return
    if scenario.market is None:
        problem = "a settlement needs a market, which buys what is settled; the scenario has none"
        yield loaded.fault("settlement", problem, allowed="a section market, or no section settlement")
    named: dict[str, str] = {}
    for each in resources:
        first = named.setdefault(each.pod, each.brp) if each.brp else ""
        if first != each.brp:
            key = f"resources.{each.id.partition(':')[0]}.brp"
            yield loaded.fault(key, f"{first} answers for {each.pod} already", each.brp, "one party for a POD")
    if config.loss_party in {config.brp, *named.values()}:
        problem = "answers for losses and for PODs: an imbalance of one would hide in the other"
        yield loaded.fault("settlement.loss_party", problem, config.loss_party, "a party without PODs")
