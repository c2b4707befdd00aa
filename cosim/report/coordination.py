"""What a run under a scheme of coordination came to: what was needed and how it was met, who paid what, what stages
left out or could not meet, and what parties told each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cosim.coordination.classify import classify, grid_safe
from cosim.coordination.flow_chart import flows_as_text
from cosim.coordination.outcome import SHORT_KW
from cosim.coordination.scheme import Scheme
from cosim.coordination.traffic_light import Colour
from cosim.domain.frames import Floats
from cosim.report.indicator import Indicator
from cosim.report.layout import number
from cosim.report.market_run import MarketRun, market_run
from cosim.report.reading import Reading

COORDINATION, COST, TRAFFIC = "Coordination", "Cost by party", "Messages"
SIDES = ("D", "T")
"""Resources at distribution, which is the feeder, and at transmission."""
_NUMBERS = re.compile(r" to -?[\d.e+-]+ kW")


@dataclass(frozen=True)
class Volumes:
    """Energy bought [kWh]: upward (less load, more generation) and downward, at distribution (D) and transmission (T);
    below zero: more given back than bought."""

    d_up_kwh: float = 0.0
    d_down_kwh: float = 0.0
    t_up_kwh: float = 0.0
    t_down_kwh: float = 0.0


@dataclass(frozen=True)
class Need:
    """Of the system: energy that it was short of (``up_kwh``) and had too much of (``down_kwh``), and what of it was
    still missing after all stages; in ``short_mtus`` MTUs."""

    up_kwh: float
    down_kwh: float
    short_kwh: float
    short_mtus: int


@dataclass(frozen=True)
class StageSum:
    """A stage over all MTUs: ``resources`` at distribution (D), transmission (T) or both, ``cost_eur`` of its awards,
    the most ``rounds`` in an MTU, in how many MTUs it ``fell_back`` to another balance, and in how many it left limits
    ``unmet_mtus``."""

    stage: str
    solver: str
    resources: str
    bought: Volumes
    cost_eur: float
    rounds: int
    fell_back: int
    unmet_mtus: int


@dataclass(frozen=True)
class PartyCost:
    """What a buyer pays for bids, and on curves, at the interface and for demand; below zero it receives [EUR]."""

    party: str
    bids_eur: float
    transfers_eur: float

    @property
    def total_eur(self) -> float:
        return self.bids_eur + self.transfers_eur


@dataclass(frozen=True)
class Transfer:
    """What parties paid each other other than for bids [EUR]."""

    stage: str
    payer: str
    payee: str
    amount_eur: float


@dataclass(frozen=True)
class Seller:
    """Who sells at ``side`` D or T: energy sold, what it is paid, and what it asked for just that."""

    seller: str
    side: str
    up_kwh: float
    down_kwh: float
    revenue_eur: float
    asked_eur: float

    @property
    def above_asked_eur(self) -> float:
        """Its profit if it asks its cost: none when paid as bid."""
        return self.revenue_eur - self.asked_eur


@dataclass(frozen=True)
class Excluded:
    """Bids that a stage took less of than there was, one for each MTU, for a reason; energy that they offered."""

    stage: str
    reason: str
    bids: int
    mtus: int
    offered_kwh: float


@dataclass(frozen=True)
class UnmetLimit:
    """Limits of a branch or bus that a stage could not meet: MTUs, and the worst [% of the limit]."""

    stage: str
    kind: str
    place: str
    mtus: int
    worst_percent: float


@dataclass(frozen=True)
class Traffic:
    """Messages of a type from one party to another."""

    sender: str
    receiver: str
    type: str
    messages: int
    size_bytes: int


@dataclass(frozen=True)
class LightShare:
    """Shares of MTUs [%] in which a perimeter's light had each colour, and its mean cap [kW]."""

    perimeter: str
    direction: str
    green_percent: float
    yellow_percent: float
    red_percent: float
    cap_kw: float


@dataclass(frozen=True)
class Coordination:
    """All of it; ``flows``: who sends what to whom, as text; ``need``: None where nobody balances the system."""

    scheme: str
    description: str
    kind: str
    grid_safe: bool
    flows: str
    need: Need | None
    bought: Volumes
    stages: tuple[StageSum, ...]
    parties: tuple[PartyCost, ...]
    transfers: tuple[Transfer, ...]
    sellers: tuple[Seller, ...]
    excluded: tuple[Excluded, ...]
    unmet: tuple[UnmetLimit, ...]
    traffic: tuple[Traffic, ...]
    lights: tuple[LightShare, ...]

    @property
    def cost_eur(self) -> float:
        """What is paid for all bids; transfers between parties are not in it."""
        return sum(each.bids_eur for each in self.parties)


def coordination(reading: Reading) -> Coordination | None:
    """The coordination of a run; None for a run without a scheme, or without a step."""
    return reading.once(_coordination)


def _coordination(reading: Reading) -> Coordination | None:
    run = market_run(reading)
    scheme = None if run is None else run.scheme
    if run is None or scheme is None:
        return None
    return Coordination(
        scheme.name,
        scheme.description,
        classify(scheme).name,
        grid_safe(scheme),
        flows_as_text(scheme),
        _need(run, scheme),
        volumes(run.all_awards, run.mtu_h),
        tuple(_stages(run, scheme)),
        tuple(_parties(run)),
        tuple(_transfers(run)),
        tuple(_sellers(run)),
        tuple(_excluded(run)),
        tuple(_unmet(run)),
        tuple(_traffic(run)),
        tuple(_lights(run)),
    )


def volumes(awards: pd.DataFrame, mtu_h: float) -> Volumes:
    """Energy of awards of a scheme by side and direction."""
    if awards.empty:
        return Volumes()
    at_feeder, up = (awards["area"] != "").to_numpy(), (awards["direction"] == "up").to_numpy()
    kwh = awards["quantity_kw"].to_numpy() * mtu_h
    parts = (at_feeder & up, at_feeder & ~up, ~at_feeder & up, ~at_feeder & ~up)
    return Volumes(*(float(kwh[part].sum()) for part in parts))


def need_kw(run: MarketRun) -> Floats | None:
    """What the system is short of in each MTU (n_mtu,) [kW], below zero what it has too much of; NaN in the first, for
    which no gate closes. None where nobody balances it."""
    told = run.reading.total("tso/system/need_kw")
    if told is None:
        return None
    gates = np.arange(1, run.n_mtu) * run.steps_per_mtu - 1
    return np.concatenate([[np.nan], told[gates]])


def short_kw(run: MarketRun, scheme: Scheme) -> Floats:
    """What the balance still lacks in each MTU after the last stage that balances the system (n_mtu,) [kW]."""
    found, balancing = np.zeros(run.n_mtu), [n for n, stage in scheme.stages.items() if stage.balance == "system"]
    stages = run.of_parties("stages")
    if balancing and len(stages):
        last = [name for name in balancing if scheme.stages[name].awards and scheme.stages[name].lock][-1]
        rows = stages[stages["stage"] == last]
        found[rows["mtu"]] = rows["shortage_kw"]
    return found


def _need(run: MarketRun, scheme: Scheme) -> Need | None:
    need, short = need_kw(run), np.abs(short_kw(run, scheme))
    if need is None:
        return None
    up, down = (float(np.nansum(np.maximum(sign * need, 0.0))) * run.mtu_h for sign in (1.0, -1.0))
    return Need(up, down, float(short.sum()) * run.mtu_h, int((short > SHORT_KW).sum()))


def _stages(run: MarketRun, scheme: Scheme) -> Iterator[StageSum]:
    awards, cleared, unmet = run.all_awards, run.of_parties("stages"), run.of_parties("unmet")
    for name, stage in scheme.stages.items():
        own = awards[awards["stage"] == name] if len(awards) else awards
        rows = cleared[cleared["stage"] == name] if len(cleared) else cleared
        left = unmet[unmet["stage"] == name] if len(unmet) else unmet
        yield StageSum(
            name,
            stage.solver,
            stage.resources,
            volumes(own, run.mtu_h),
            paid_eur(own, run.mtu_h),
            int(rows["rounds"].max()) if len(rows) else 0,
            int(rows["fell_back"].sum()) if len(rows) else 0,
            int(left["mtu"].nunique()),
        )


def paid_eur(awards: pd.DataFrame, mtu_h: float, price: str = "price_eur_per_kwh") -> float:
    """What is due for awards, at the prices in a column."""
    return float((awards["quantity_kw"] * awards[price]).sum()) * mtu_h if len(awards) else 0.0


def _parties(run: MarketRun) -> Iterator[PartyCost]:
    awards, transfers = run.all_awards, run.of_parties("transfers")
    bids = _sums(awards.assign(eur=awards["quantity_kw"] * awards["price_eur_per_kwh"] * run.mtu_h), "buyer", "eur")
    out, back = (_sums(transfers, end, "amount_eur") for end in ("payer", "payee"))
    for party in sorted({*bids, *out, *back}):
        yield PartyCost(party, bids.get(party, 0.0), out.get(party, 0.0) - back.get(party, 0.0))


def _sums(table: pd.DataFrame, key: str, column: str) -> dict[str, float]:
    return {} if table.empty else {str(k): float(v) for k, v in table.groupby(key)[column].sum().items()}


def _transfers(run: MarketRun) -> Iterator[Transfer]:
    table = run.of_parties("transfers")
    for (stage, payer, payee), own in () if table.empty else table.groupby(["stage", "payer", "payee"], sort=True):
        yield Transfer(str(stage), str(payer), str(payee), float(own["amount_eur"].sum()))


def _sellers(run: MarketRun) -> Iterator[Seller]:
    awards = run.all_awards
    if awards.empty:
        return
    for (side, seller), own in awards.groupby([np.where(awards["area"] != "", *SIDES), "seller"], sort=True):
        sold = volumes(own, run.mtu_h)
        asked = paid_eur(own, run.mtu_h, "bid_price_eur_per_kwh")
        up, down = sold.d_up_kwh + sold.t_up_kwh, sold.d_down_kwh + sold.t_down_kwh
        yield Seller(str(seller), str(side), up, down, paid_eur(own, run.mtu_h), asked)


def _excluded(run: MarketRun) -> Iterator[Excluded]:
    table = run.of_parties("excluded")
    if table.empty:
        return
    reasons = table["reason"].map(lambda reason: _NUMBERS.sub("", reason))
    for (stage, reason), own in table.groupby(["stage", reasons], sort=True):
        offered_kwh = float(own["offered_kw"].sum()) * run.mtu_h
        yield Excluded(str(stage), str(reason), len(own), int(own["mtu"].nunique()), offered_kwh)


def _unmet(run: MarketRun) -> Iterator[UnmetLimit]:
    table = run.of_parties("unmet")
    if table.empty:
        return
    percent = 100.0 * table["excess"] / table["limit"].astype(np.float64).abs()
    places = table["element"].map(_place)
    for (stage, kind, place), own in table.assign(percent=percent).groupby(["stage", "kind", places], sort=True):
        yield UnmetLimit(str(stage), str(kind), str(place), int(own["mtu"].nunique()), float(own["percent"].max()))


def _place(element: str) -> str:
    """The branch of a conductor ``AREA/branch@BUS.phase``, the bus of a node ``AREA/BUS.phase``."""
    branch, at, _ = element.partition("@")
    return branch if at else element.rpartition(".")[0] or element


def messages(run: MarketRun) -> pd.DataFrame:
    """All that parties told each other for MTUs of the run."""
    parties = ("aggregator", "generators", "brp")
    tables = [run.of_parties("messages"), *(run.table(f"{party}/messages") for party in parties)]
    there = [table for table in tables if len(table)]
    return pd.concat(there, ignore_index=True) if there else tables[0]


def _traffic(run: MarketRun) -> Iterator[Traffic]:
    table = messages(run)
    if table.empty:
        return
    sums = table.groupby(["sender", "receiver", "type"], sort=True)["size_bytes"].agg(["size", "sum"])
    for (sender, receiver, kind), count, total in sums.itertuples():
        yield Traffic(str(sender), str(receiver), str(kind), int(count), int(total))


def _lights(run: MarketRun) -> Iterator[LightShare]:
    table = run.of_parties("lights")
    if table.empty:
        return
    for (perimeter, direction), own in table.groupby(["perimeter", "direction"], sort=True):
        green, yellow, red = (100.0 * float((own["colour"] == colour.value).mean()) for colour in Colour)
        yield LightShare(str(perimeter), str(direction), green, yellow, red, float(own["cap_kw"].mean()))


def coordination_indicators(reading: Reading) -> Iterator[Indicator]:
    """Indicators of the coordination; none without a scheme."""
    found = coordination(reading)
    if found is None:
        return
    need, bought = found.need, found.bought
    if need is not None:
        note = f"of which {number(need.up_kwh, 'kWh')} kWh too little, {number(need.down_kwh, 'kWh')} kWh too much"
        yield Indicator(COORDINATION, "need of the system", need.up_kwh + need.down_kwh, "kWh", None, note)
    for name, kwh, note in (
        ("bought upward at distribution", bought.d_up_kwh, "less load, more generation"),
        ("bought downward at distribution", bought.d_down_kwh, "more load, less generation"),
        ("bought upward at transmission", bought.t_up_kwh, ""),
        ("bought downward at transmission", bought.t_down_kwh, ""),
    ):
        yield Indicator(COORDINATION, name, kwh, "kWh", None, note)
    if need is not None:
        note = f"in {need.short_mtus} MTU{'s'[: need.short_mtus - 1]}" if need.short_mtus else ""
        yield Indicator(COORDINATION, "need that was not met", need.short_kwh, "kWh", None, note)
    yield from _stage_indicators(found)
    for party in found.parties:
        transfers = number(party.transfers_eur, "EUR")
        note = f"of which {transfers} EUR not for bids" if party.transfers_eur else ""
        yield Indicator(COST, party.party, party.total_eur, "EUR", None, note)
    total_bytes = sum(each.size_bytes for each in found.traffic)
    yield Indicator(TRAFFIC, "messages", float(sum(each.messages for each in found.traffic)), "1")
    yield Indicator(TRAFFIC, "size of all messages", total_bytes / 1e3, "kB")


def _stage_indicators(found: Coordination) -> Iterator[Indicator]:
    excluded = found.excluded
    if excluded:
        most = max(excluded, key=lambda each: each.bids)
        note = f"{most.bids} in {most.stage}: {most.reason}"
        yield Indicator(COORDINATION, "bids left out or cut", float(sum(e.bids for e in excluded)), "1", None, note)
    for each in found.stages:
        if each.unmet_mtus:
            yield Indicator(COORDINATION, f"MTUs with limits unmet in {each.stage}", float(each.unmet_mtus), "1")
        if each.fell_back:
            note = "the balance of the stage was given up"
            yield Indicator(COORDINATION, f"fallbacks of {each.stage}", float(each.fell_back), "1", None, note)
    rounds = max((each.rounds for each in found.stages), default=0)
    yield Indicator(COORDINATION, "rounds of stages in an MTU, at most", float(rounds), "1")
