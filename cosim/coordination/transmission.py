"""The side of the transmission operator in a run: in every MTU its network around its schedule, with what the feeder is
expected to import, its need, and what resources at transmission offer.

All powers are those that one feeder sees of the system (`TransmissionConfig.feeders`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cosim.clock import Clock
from cosim.coordination.case import Rules
from cosim.coordination.grid import Grid, shifted
from cosim.coordination.transmission_need import DrawnNeed, NeedRows, NeedSource, need_of_rows
from cosim.coordination.transmission_network import (
    TransmissionNetwork,
    copper_plate,
    flexible_offers,
    least_cost,
    part_of_network,
)
from cosim.domain.market import Bid, Resource
from cosim.errors import Fault, ScenarioError
from cosim.scenario.transmission import RandomNeed, TransmissionConfig
from cosim.units import KW_PER_MW


@dataclass(frozen=True)
class TransmissionState:
    """One MTU: the import that is expected of the feeder [kW], the network around the schedule, what the system is
    short of on top of it [kW], resources at transmission and their bids for this MTU."""

    t_s: int
    import_kw: float
    grid: Grid
    need_kw: float
    resources: Mapping[str, Resource]
    bids: tuple[Bid, ...]


@dataclass(frozen=True)
class TransmissionSide:
    """``network``: the part of it that one feeder sees, without the load that feeders take the place of; ``bus``: where
    the feeder hangs; the rest as in `TransmissionConfig`."""

    network: TransmissionNetwork
    bus: str
    need: NeedSource
    mtu_s: int
    flexible_cost_share: float
    cheapest: bool

    def interfaces(self, *areas: str) -> Mapping[str, str]:
        """The bus of each area."""
        return dict.fromkeys(areas, self.bus)

    @property
    def sellers(self) -> tuple[str, ...]:
        """All resources that offer in some MTU."""
        offered = [unit.id for unit, _ in self.network.offers]
        return tuple(dict.fromkeys([*offered, *(unit.id for unit in self.network.generators)]))

    def at(self, t_s: int, import_kw: float) -> TransmissionState:
        """The state of the MTU that begins at ``t_s`` [s], in which the feeder is expected to import ``import_kw``.

        Raises ScenarioError after the run where the need is from a file, which then says nothing about it.
        """
        loaded = shifted(self.network.grid, {self.bus: import_kw})
        schedule = self._schedule(float(loaded.rows.p_kw.sum()))
        units = {unit.id: unit for unit in self.network.generators}
        injected: dict[str, float] = {}
        for name, p_kw in schedule.items():
            injected[units[name].bus] = injected.get(units[name].bus, 0.0) - p_kw
        grid = shifted(loaded, injected)
        offers = list(self.network.offers)
        for name, p_kw in schedule.items():
            offers += flexible_offers(units[name], p_kw, self.flexible_cost_share)
        return TransmissionState(
            t_s,
            import_kw,
            replace(grid, import_kw=float(grid.rows.p_kw.sum())),
            self.need.need_kw(t_s // self.mtu_s),
            {unit.id: unit for unit, _ in offers},
            tuple(bid.at(t_s) for _, bid in offers),
        )

    def _schedule(self, load_kw: float) -> dict[str, float]:
        """Generation [kW] by unit for a load of the system."""
        units = self.network.generators
        if self.cheapest:
            return least_cost(units, load_kw)
        given = {unit.id: unit.p_kw for unit in units}
        balancing = [unit for unit in units if unit.bus == self.network.slack][:1]
        for unit in balancing:
            given[unit.id] += load_kw - sum(given.values())
        return given


def transmission_side(
    config: TransmissionConfig,
    network: TransmissionNetwork | None,
    clock: Clock,
    seed: int,
    mean_import_kw: float,
    rows: NeedRows | None = None,
) -> TransmissionSide:
    """The side of the transmission operator for a run.

    ``network``: that of ``config.case`` (`read_case_network`) or ``config.network``
    (`cosim.importers.transmission.read_transmission`), None for a copper plate; ``mean_import_kw``: mean absolute
    import of the feeder; ``rows``: those of ``config.need.file``. Raises ScenarioError with all faults.
    """
    if network is None:
        whole = copper_plate(config.merit_order, mean_import_kw)
    else:
        whole = part_of_network(network, config.feeders)
    faults = list(_faults(config, whole, mean_import_kw))
    need: NeedSource | None = None
    try:
        need = _need(config, clock, seed, mean_import_kw, rows)
    except ScenarioError as error:
        faults += error.faults
    bus = config.bus or whole.feeder_bus
    if faults or need is None or bus is None:
        raise ScenarioError(faults)
    if config.load == "replaced":
        whole = replace(whole, grid=shifted(whole.grid, {bus: -whole.load_kw.get(bus, 0.0)}))
    return TransmissionSide(whole, bus, need, clock.mtu_s, config.flexible_cost_share, config.dispatch == "least_cost")


def rules_of(config: TransmissionConfig) -> Rules:
    """What all parties know."""
    rules = config.rules
    return Rules(rules.shortage_eur_per_mwh / KW_PER_MW, rules.violation_eur_per_mwh / KW_PER_MW)


def _faults(config: TransmissionConfig, network: TransmissionNetwork, mean_import_kw: float) -> list[Fault]:
    buses, found = ", ".join(network.buses), []
    if config.bus is None and network.feeder_bus is None:
        found.append(Fault("the case does not say where the feeder hangs", key="transmission.bus", allowed=buses))
    if config.bus is not None and config.bus not in network.buses:
        found.append(Fault("no such bus of transmission", key="transmission.bus", value=config.bus, allowed=buses))
    if config.tier == "copper_plate" and not mean_import_kw > 0.0:
        problem = "its steps are shares of the feeder's mean absolute import, which is not above 0"
        found.append(Fault(problem, key="transmission.merit_order", value=f"{mean_import_kw:g} kW"))
    return found


def _need(
    config: TransmissionConfig, clock: Clock, seed: int, mean_import_kw: float, rows: NeedRows | None
) -> NeedSource:
    if isinstance(config.need, RandomNeed):
        return DrawnNeed(seed, config.need.share * mean_import_kw, config.need.persistence)
    if rows is None:
        raise ValueError("the rows of the need's file are needed")
    return need_of_rows(rows, clock, config.feeders)
