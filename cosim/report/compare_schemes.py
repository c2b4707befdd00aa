"""What one scenario came to under several schemes of coordination: the facts of each run, and how schemes compare."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pandas as pd

from cosim.io.results import Results
from cosim.io.tables import Cell, Table, table_of
from cosim.report.causes import Cause
from cosim.report.coordination import Coordination, Volumes, coordination
from cosim.report.market import residuals_of
from cosim.report.market_run import MarketRun, market_run, worst_percent
from cosim.report.reading import WITHOUT, Reading

MORE_PERCENT: Final = 0.1
"""A violation counts as worse than without activation from so much more of the limit on [%]: the linear model of a
plan errs by less."""

SHARED: Final = {
    "need of the system": "tso/system/need_kw",
    "import that the TSO expects": "tso/system/import_kw",
    "profiles": "profiles/pod/p_kw",
    "head without activation": f"{WITHOUT}/head/p_kw",
}
"""What no scheme has a say in: the same in all runs that have it."""

_PLANNED, _UNSERVED = (Cause.UNSOLVED, Cause.TOLERATED, Cause.RULES), (Cause.UNSERVED,)
_UNSEEN, _BUG = (Cause.UNSEEN,), (Cause.UNEXPLAINED,)


@dataclass(frozen=True)
class CauseCount:
    """MTUs whose worst violation has a main cause."""

    cause: str
    mtus: int


@dataclass(frozen=True)
class Left:
    """Violations by the power flow: MTUs, and the worst [% of its limit], with activation and ``without``; in
    ``worse_mtus`` MTUs one is worse than without, or only there with it; in how many of these by a purchase that the
    forecast shows to break a limit (``shown_mtus``): without the network, or not explained otherwise.

    MTUs by what the forecast could have shown: what the plan leaves knowingly, what nobody buys for, what was bought
    ``unseen``, ``unexplained``; all others, such as forecast errors and what was not delivered, it could not.
    """

    mtus: int
    worst_percent: float
    without_mtus: int
    without_percent: float
    worse_mtus: int
    shown_mtus: int
    planned: int
    unserved: int
    unseen: int
    unexplained: int
    causes: tuple[CauseCount, ...]

    @property
    def unforeseeable(self) -> int:
        """MTUs of violations that no forecast could have shown."""
        return self.mtus - self.planned - self.unserved - self.unseen - self.unexplained


@dataclass(frozen=True)
class SchemeRun:
    """What came of a scheme: why it failed (``error``, else empty), and what it came to.

    ``shared``: what must be the same in all runs, by name, as a hash.
    """

    scheme: str
    error: str = ""
    mtus: int = 0
    coordination: Coordination | None = None
    left: Left | None = None
    shared: Mapping[str, str] | None = None


def scheme_run(results: Results) -> SchemeRun:
    """The facts of a run under a scheme; of one that did not reach its end only why."""
    reading = Reading(results)
    run, found = market_run(reading), coordination(reading)
    if run is None or found is None:
        return SchemeRun(reading.name, "the run had no scheme, or no step was recorded")
    if reading.status != "complete":
        return SchemeRun(found.scheme, str(reading.attributes.get("error", "")) or f"the run is {reading.status}")
    return SchemeRun(found.scheme, "", run.n_mtu, found, _left(run), _shared(reading))


def _shared(reading: Reading) -> dict[str, str]:
    there = {name: reading.frame(path) for name, path in SHARED.items() if reading.has(path)}
    return {
        name: hashlib.sha256(frame.to_numpy().tobytes()).hexdigest()[:16]
        for name, frame in there.items()
        if frame is not None
    }


def _left(run: MarketRun) -> Left:
    rows = residuals_of(run.reading)
    count = Counter(row.cause for row in rows)
    without = run.left.iloc[:0] if run.without is None else run.without
    worse = worse_mtus(run.left, without)
    shown = {round(row.t_s / run.mtu_s) for row in rows if row.cause in (*_UNSEEN, *_BUG)}
    shown |= {round(row.t_s / run.mtu_s) for row in rows if any(also.cause is Cause.UNSEEN for also in row.also)}

    def of(causes: Iterable[Cause]) -> int:
        return sum(count[cause] for cause in causes)

    return Left(
        len(rows),
        worst_percent(run.left),
        int(without["mtu"].nunique()),
        worst_percent(without),
        len(worse),
        len(worse & shown),
        of(_PLANNED),
        of(_UNSERVED),
        of(_UNSEEN),
        of(_BUG),
        tuple(CauseCount(cause.value, count[cause]) for cause in Cause if count[cause]),
    )


def worse_mtus(left: pd.DataFrame, without: pd.DataFrame) -> set[int]:
    """MTUs in which an element is further beyond its limit than without activation, or only with it."""
    if left.empty:
        return set()
    key = ["mtu", "element", "phase", "quantity"]
    ours, theirs = (table.groupby(key)["excess_percent"].max() for table in (left, without))
    more = ours - theirs.reindex(ours.index).fillna(0.0)
    return {int(mtu) for mtu in more.index[more > MORE_PERCENT].get_level_values("mtu")}


def differing(runs: Sequence[SchemeRun]) -> tuple[str, ...]:
    """What should be the same in all runs and is not; empty if all is."""
    found = [(name, digest) for run in runs for name, digest in (run.shared or {}).items()]
    return tuple(name for name in SHARED if len({digest for each, digest in found if each == name}) > 1)


def without_flows(run: SchemeRun) -> SchemeRun:
    """The same without the text of its messages, which the scheme's file tells."""
    return run if run.coordination is None else replace(run, coordination=replace(run.coordination, flows=""))


def paid_eur(found: Coordination, role: str) -> float:
    """What the parties of a role pay in all."""
    return sum(each.total_eur for each in found.parties if each.party.partition(":")[0] == role)


def bought_by(found: Coordination, solver: str) -> Volumes:
    """Energy bought in the stages of a solver."""
    own = [each.bought for each in found.stages if each.solver == solver]
    return Volumes(*(sum(getattr(each, name) for each in own) for name in Volumes.__dataclass_fields__))


def aggregators_eur(found: Coordination) -> tuple[float, float]:
    """What sellers at distribution are paid, and how much of it is above what they asked."""
    own = [each for each in found.sellers if each.side == "D"]
    return sum(each.revenue_eur for each in own), sum(each.above_asked_eur for each in own)


def unmet_mtus(found: Coordination) -> int:
    """The most MTUs in which a stage that buys left limits unmet."""
    return max((each.unmet_mtus for each in found.stages), default=0)


def tables(runs: Sequence[SchemeRun]) -> tuple[Table, ...]:
    """All figures as tables for CSV files; those without rows left out."""
    made: tuple[tuple[str, str, Iterator[Mapping[str, Cell]]], ...] = (
        ("schemes", "a row for each scheme", (_row(run) for run in runs)),
        ("stages", "what stages bought", _stage_rows(runs)),
        ("sellers", "what sellers are paid", _seller_rows(runs)),
        ("excluded", "bids left out or cut, and why", _excluded_rows(runs)),
        ("messages", "messages by pair and type", _message_rows(runs)),
        ("causes", "MTUs with violations left, by cause", _cause_rows(runs)),
    )
    found = ((name, what, tuple(rows)) for name, what, rows in made)
    return tuple(table_of(name, what, rows) for name, what, rows in found if rows)


def _row(run: SchemeRun) -> dict[str, Cell]:
    found, left = run.coordination, run.left
    row: dict[str, Cell] = {"scheme": run.scheme, "error": run.error}
    if found is None or left is None:
        return row | dict.fromkeys(_ROW)
    need, bought = found.need, found.bought
    revenue, above = aggregators_eur(found)
    values: tuple[Cell, ...] = (
        found.kind,
        "yes" if found.grid_safe else "no",
        *(paid_eur(found, role) for role in ("DSO", "TSO", "BRP")),
        found.cost_eur,
        *(bought.d_up_kwh, bought.d_down_kwh, bought.t_up_kwh, bought.t_down_kwh),
        *((None, None, None) if need is None else (need.up_kwh, need.down_kwh, need.short_kwh)),
        None if need is None else float(need.short_mtus),
        float(unmet_mtus(found)),
        *(float(left.mtus), left.worst_percent, float(left.without_mtus), left.without_percent),
        *(float(n) for n in (left.worse_mtus, left.planned, left.unserved, left.unseen, left.unexplained)),
        float(left.unforeseeable),
        float(sum(each.bids for each in found.excluded)),
        sum(each.offered_kwh for each in found.excluded),
        float(sum(each.messages for each in found.traffic)),
        float(sum(each.size_bytes for each in found.traffic)),
        *(revenue, above),
        float(sum(each.fell_back for each in found.stages)),
        sum(abs(each.amount_eur) for each in found.transfers),
    )
    return row | dict(zip(_ROW, values, strict=True))


_ROW: Final = (
    "class", "grid_safe", "dso_eur", "tso_eur", "brp_eur", "bids_eur",
    "d_up_kwh", "d_down_kwh", "t_up_kwh", "t_down_kwh", "need_up_kwh", "need_down_kwh", "short_kwh", "short_mtus",
    "unmet_mtus", "violation_mtus", "worst_percent", "without_mtus", "without_percent", "worse_mtus", "planned_mtus",
    "unserved_mtus", "unseen_mtus", "unexplained_mtus", "unforeseeable_mtus", "excluded_bids", "excluded_kwh",
    "messages", "size_bytes", "aggregators_eur", "above_asked_eur", "fallbacks", "transfers_eur",
)  # fmt: skip


def _of(runs: Sequence[SchemeRun]) -> Iterator[tuple[str, Coordination]]:
    return ((run.scheme, run.coordination) for run in runs if run.coordination is not None)


def _stage_rows(runs: Sequence[SchemeRun]) -> Iterator[Mapping[str, Cell]]:
    for scheme, found in _of(runs):
        for each in found.stages:
            row: dict[str, Cell] = {"scheme": scheme, "stage": each.stage, "solver": each.solver}
            row |= {"resources": each.resources}
            row |= {name: getattr(each.bought, name) for name in Volumes.__dataclass_fields__}
            counts = {"rounds": each.rounds, "fallbacks": each.fell_back, "unmet_mtus": each.unmet_mtus}
            yield row | {"cost_eur": each.cost_eur} | {name: float(count) for name, count in counts.items()}


def _seller_rows(runs: Sequence[SchemeRun]) -> Iterator[Mapping[str, Cell]]:
    for scheme, found in _of(runs):
        for each in found.sellers:
            yield {
                "scheme": scheme,
                "seller": each.seller,
                "side": each.side,
                "up_kwh": each.up_kwh,
                "down_kwh": each.down_kwh,
                "revenue_eur": each.revenue_eur,
                "asked_eur": each.asked_eur,
            }


def _excluded_rows(runs: Sequence[SchemeRun]) -> Iterator[Mapping[str, Cell]]:
    for scheme, found in _of(runs):
        for each in found.excluded:
            row: dict[str, Cell] = {"scheme": scheme, "stage": each.stage, "reason": each.reason}
            yield row | {"bids": float(each.bids), "mtus": float(each.mtus), "offered_kwh": each.offered_kwh}


def _message_rows(runs: Sequence[SchemeRun]) -> Iterator[Mapping[str, Cell]]:
    for scheme, found in _of(runs):
        for each in found.traffic:
            row: dict[str, Cell] = {"scheme": scheme, "sender": each.sender, "receiver": each.receiver}
            yield row | {"type": each.type, "messages": float(each.messages), "size_bytes": float(each.size_bytes)}


def _cause_rows(runs: Sequence[SchemeRun]) -> Iterator[Mapping[str, Cell]]:
    for run in runs:
        for each in run.left.causes if run.left is not None else ():
            yield {"scheme": run.scheme, "cause": each.cause, "mtus": float(each.mtus)}
