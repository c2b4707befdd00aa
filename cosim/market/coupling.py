"""What ties the MTUs of one resource together: stored energy, energy bands, ramps, activations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from cosim.domain.market import ActivationLimit, Coupling, EnergyBand, RampLimit, StorageLimit
from cosim.market.offers import ColumnList, Offers, RowList
from cosim.market.program import RowTag

COMPLEMENTARITY_KW = 1e-6
Used = Literal["all", "upward", "downward"]  # which awards


@dataclass(frozen=True)
class StorageColumns:
    """Columns of a storage unit's charging and discharging power [kW] in one MTU, and the largest of either."""

    resource: str
    mtu: int
    charge: int
    discharge: int
    charge_kw: float
    discharge_kw: float


class CouplingRows:
    """Adds columns and rows of couplings to those in the making; ``storages`` lists what may charge and discharge."""

    def __init__(self, offers: Offers, columns: ColumnList, rows: RowList, mtu_h: float) -> None:
        self._offers, self._columns, self._rows, self._mtu_h = offers, columns, rows, mtu_h
        self._index = {name: k for k, name in enumerate(offers.resources)}
        self.storages: list[StorageColumns] = []

    def add(self, coupling: Coupling) -> None:
        """A coupling of a resource without a bid says nothing."""
        if coupling.resource not in self._index:
            return
        if isinstance(coupling, StorageLimit):
            self._storage(coupling)
        elif isinstance(coupling, EnergyBand):
            self._band(coupling)
        elif isinstance(coupling, RampLimit):
            self._ramp(coupling)
        else:
            self._activations(coupling)

    def _change(self, resource: str, mtu: int, factor: float = 1.0, used: Used = "all") -> dict[int, float]:
        """Change of a resource's consumption [kW] in terms of columns."""
        offers = self._offers.mtus[mtu]
        row = offers.delta[self._index[resource]]
        if used != "all":
            row = np.minimum(row, 0.0) if used == "upward" else np.maximum(row, 0.0)
        return {int(offers.columns[j]): factor * float(row[j]) for j in row.nonzero()[0]}

    def _tag(self, kind: str, mtu: int, coupling: Coupling) -> RowTag:
        return RowTag(kind, mtu, coupling.resource, priced=False)

    def _storage(self, limit: StorageLimit) -> None:
        """All ways to use some awards and not others lie between the trajectories with those of one direction."""
        ways: tuple[Used, ...] = ("upward", "downward") if limit.unused_too else ("all",)
        for used in ways:
            self._stored(limit, used)

    def _stored(self, limit: StorageLimit, used: Used) -> None:
        """charge - discharge is its power; energy grows by what is charged and shrinks by what is discharged, each with
        its efficiency. It charges by no more than its schedule does and the awards downward, and discharges alike: that
        is true of what goes one way only, and leaves little reason to burn energy by going both ways at once."""
        h, before = self._mtu_h, None
        for t, base_kw in enumerate(limit.baseline_p_kw):
            cap_kw = float(self._offers.mtus[t].cap_kw[self._index[limit.resource]])
            most = abs(base_kw) + cap_kw
            charge, discharge = (self._columns.add(0.0, 0.0, most) for _ in range(2))
            last = t == len(limit.baseline_p_kw) - 1
            least = max(limit.energy_min_kwh, limit.end_min_kwh) if last else limit.energy_min_kwh
            energy = self._columns.add(0.0, least, limit.energy_max_kwh)
            power = {charge: 1.0, discharge: -1.0, **self._change(limit.resource, t, -1.0, used)}
            self._rows.add(power, base_kw, base_kw, self._tag("power", t, limit))
            downward = {} if used == "upward" else self._change(limit.resource, t, -1.0, "downward")
            upward = {} if used == "downward" else self._change(limit.resource, t, 1.0, "upward")
            one_way_tag = self._tag("one_way", t, limit)
            self._rows.add({charge: 1.0, **downward}, -math.inf, max(base_kw, 0.0), one_way_tag)
            self._rows.add({discharge: 1.0, **upward}, -math.inf, max(-base_kw, 0.0), one_way_tag)
            gain = {energy: 1.0, charge: -limit.charge_efficiency * h, discharge: h / limit.discharge_efficiency}
            start_kwh = limit.energy_kwh if before is None else 0.0
            if before is not None:
                gain[before] = -1.0
            self._rows.add(gain, start_kwh, start_kwh, self._tag("stored_energy", t, limit))
            self.storages.append(StorageColumns(limit.resource, t, charge, discharge, most, most))
            before = energy

    def _band(self, band: EnergyBand) -> None:
        h, before = self._mtu_h, None
        for t, base_kw in enumerate(band.baseline_p_kw):
            energy = self._columns.add(0.0, band.low_kwh[t], band.high_kwh[t])
            gain = {energy: 1.0, **self._change(band.resource, t, -h)}
            if before is not None:
                gain[before] = -1.0
            self._rows.add(gain, base_kw * h, base_kw * h, self._tag("energy_band", t, band))
            before = energy

    def _ramp(self, ramp: RampLimit) -> None:
        base = ramp.baseline_p_kw
        if ramp.before_p_kw is not None:
            self._bounded(ramp, 0, self._change(ramp.resource, 0), base[0] - ramp.before_p_kw)
        for t, (now, then) in enumerate(pairwise(base), start=1):
            terms = self._change(ramp.resource, t)
            for column, kw in self._change(ramp.resource, t - 1, -1.0).items():
                terms[column] = terms.get(column, 0.0) + kw
            self._bounded(ramp, t, terms, then - now)

    def _activations(self, limit: ActivationLimit) -> None:
        """A yes-or-no decision in every MTU with an offer, in which all that is awarded is none without it."""
        awards = [self._awards(limit.resource, t) for t in range(len(self._offers.mtus))]
        offered = [t for t, terms in enumerate(awards) if terms]
        most = len(offered) if limit.activations_max is None else limit.activations_max
        waits = 0 if limit.rested_mtu is None else limit.rest_mtu - limit.rested_mtu
        if most >= len(offered) and limit.rest_mtu == 0:
            return
        active = {}
        for t in offered:
            active[t] = self._columns.add(0.0, 0.0, 1.0 if t >= waits else 0.0, integer=True)
            cap_kw = sum(float(self._offers.columns.upper[column]) * kw for column, kw in awards[t].items())
            self._rows.add({**awards[t], active[t]: -cap_kw}, -math.inf, 0.0, self._tag("activation", t, limit))
        if most < len(offered):
            self._rows.add(dict.fromkeys(active.values(), 1.0), -math.inf, most, self._tag("activations", 0, limit))
        for first, second in pairwise(offered) if limit.rest_mtu else ():
            window = {active[t]: 1.0 for t in offered if first <= t <= first + limit.rest_mtu}
            if second <= first + limit.rest_mtu:
                self._rows.add(window, -math.inf, 1.0, self._tag("rest", first, limit))

    def _awards(self, resource: str, mtu: int) -> dict[int, float]:
        """What all bids of a resource have awarded in an MTU [kW], in terms of columns."""
        bids = self._offers.bids
        own = [mtu * len(bids) + b for b, bid in enumerate(bids) if resource in bid.members]
        total = self._offers.quantity[own].sum(axis=0)
        return {int(j): float(total[0, j]) for j in total.nonzero()[1]}

    def _bounded(self, ramp: RampLimit, mtu: int, terms: Mapping[int, float], base_kw: float) -> None:
        self._rows.add(terms, -ramp.ramp_kw - base_kw, ramp.ramp_kw - base_kw, self._tag("ramp", mtu, ramp))


def one_way(storage: StorageColumns, columns: ColumnList, rows: RowList, first: int) -> None:
    """A yes-or-no decision between charging and discharging; ``first`` is the index of the first new column."""
    decision = first + columns.add(0.0, 0.0, 1.0, integer=True)
    tag = RowTag("one_way", storage.mtu, storage.resource, priced=False)
    rows.add({storage.charge: 1.0, decision: -storage.charge_kw}, -math.inf, 0.0, tag)
    rows.add({storage.discharge: 1.0, decision: storage.discharge_kw}, -math.inf, storage.discharge_kw, tag)
