"""Settlement in a run: what is metered of each market time unit (MTU), and what that costs whom when it has ended.

An MTU is settled in the step that ends it. What contracts give for being ready is settled when the last MTU of their
window has ended, since it depends on the whole of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cached_property, lru_cache
from math import isnan
from typing import Literal

import numpy as np

from cosim.clock import Clock
from cosim.domain.frames import Floats, frozen
from cosim.domain.market import Contract
from cosim.domain.settlement import Call, DeliveryTerms, Interface, Perimeter, Period, Series, SettlementLine
from cosim.errors import ProfileError
from cosim.market.baselines import METHODS, KnownColumns
from cosim.market.called import Believed, Ordered, by_pod
from cosim.market.contracts import in_window
from cosim.market.delivery import Delivery
from cosim.market.exact import exact
from cosim.market.hybrid import Commitment
from cosim.market.imbalance import closing_gaps
from cosim.market.metering import Meters
from cosim.market.payments import Payment, Readiness, availability, lines
from cosim.market.settlement import Settlement, SettlementCase, SettlementRules, settle
from cosim.rng import rng_for
from cosim.scenario.settlement import SettlementConfig
from cosim.units import SECONDS_PER_DAY

_FALLBACK = "schedule"
_HEAD = "head"
_NONE_KW = frozen(np.zeros(0))


@dataclass(frozen=True)
class Kept:
    """What lasts of a settlement between steps.

    ``scheduled_kw`` (n_pod,) of the present MTU; sums over its steps so far of what PODs drew, would have drawn without
    activation, and of the head; ``loss_kw`` in the MTU before; calls that are not over. ``metered_kw`` (n, n_flexible)
    of PODs with resources in the last MTUs, complete; ``called`` by POD: local days of its activations, of those looked
    back; ``ready_kw`` by contract and MTU: what counts as offered, of several gates the most, of MTUs not over;
    ``offered_kw`` by contract (n,): in those that are. ``failed`` by POD: calls in a row; ``until_s``: when its
    suspension ends.
    """

    scheduled_kw: Floats
    sum_kw: Floats
    free_sum_kw: Floats
    metered_kw: Floats
    head_sum_kw: float = 0.0
    loss_kw: float = 0.0
    ordered: tuple[Ordered, ...] = ()
    called: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ready_kw: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    offered_kw: Mapping[str, Floats] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    until_s: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Settled:
    """An MTU: its settlement, baselines of all methods, and by how much the imbalances miss the metered interface
    [kWh], NaN if that was not metered. ``missing``: values that were not metered. ``lines``: also of contracts whose
    window has ended with it.
    """

    t_s: int
    found: Settlement
    lines: tuple[SettlementLine, ...]
    believed: Believed
    closing_kwh: float
    missing: int
    told: tuple[str, ...]


@dataclass(frozen=True)
class Accounts:
    """How a run is settled. ``brps`` (n_pod,) answer for the PODs; ``flexible`` are the PODs with resources;
    ``usual_kw(mtu)``: profiles (n_day, n_pod) in that MTU on the days before, from the day before backwards."""

    config: SettlementConfig
    clock: Clock
    seed: int
    utc_offset_s: int
    pods: tuple[str, ...]
    brps: tuple[str, ...]
    flexible: tuple[str, ...]
    contracts: tuple[Contract, ...]
    usual_kw: Callable[[int], Floats]
    days: int

    def start(self, scheduled_kw: Floats) -> Kept:
        nothing = frozen(np.zeros(len(self.pods)))
        return Kept(frozen(scheduled_kw), nothing, nothing, frozen(np.zeros((0, len(self.flexible)))))

    def taken(self, kept: Kept, t_s: int, calls: Iterable[Call], ready: Sequence[Commitment]) -> Kept:
        """Calls ordered at ``t_s``, and what contracts have on offer at the gates that close with the step."""
        terms = self._terms
        more = [
            Ordered(t_s, Call(call.award, call.seller, call.direction, call.ordered_kw, terms, call.contract))
            for call in calls
        ]
        if not (more or ready):
            return kept
        return replace(kept, ordered=(*kept.ordered, *more), ready_kw=_merged(kept.ready_kw, ready, self.clock.mtu_s))

    @cached_property
    def _terms(self) -> DeliveryTerms:
        config = self.config
        return DeliveryTerms(
            config.tolerance,
            config.penalty_factor,
            config.penalty_eur_per_kwh,
            config.penalty_basis,
            config.two_sided,
        )

    def metered(self, kept: Kept, p_kw: Floats, free_kw: Floats, head_kw: float) -> Kept:
        """One more step of the MTU."""
        return replace(
            kept,
            sum_kw=frozen(kept.sum_kw + p_kw),
            free_sum_kw=frozen(kept.free_sum_kw + free_kw),
            head_sum_kw=kept.head_sum_kw + head_kw,
        )

    def settled(self, kept: Kept, t_s: int, next_kw: Floats) -> tuple[Kept, Settled]:
        """The MTU from ``t_s`` on, which has ended; ``next_kw`` (n_pod,) is scheduled for the one that follows."""
        period = Period(t_s, self.clock.mtu_s, 1)
        seen_kw, head_kw = self._read(kept, t_s)
        calls = [each for each in kept.ordered if each.in_mtu(t_s, period.mtu_s)]
        believed, told = self._believed(kept, period, calls)
        case = self._case(kept, period, seen_kw, head_kw, [each.call for each in calls], believed)
        found = settle(case)
        assert case.interface is not None
        gap = float("nan") if isnan(head_kw) else closing_gaps(period, found.positions, case.interface)[0]
        whole_kw = seen_kw.copy()
        for k in np.flatnonzero(np.isnan(seen_kw)).tolist():
            whole_kw[k] = case.baselines[self.pods[k]].p_kw[0]
        missing = int(np.isnan(seen_kw).sum()) + isnan(head_kw)
        loss_kw = kept.loss_kw if missing else float(head_kw - whole_kw.sum())
        mtu = t_s // self.clock.mtu_s
        kept = _over(kept, mtu)
        ready = self._ready(kept, mtu)
        kept = self._watched(kept, t_s, found.deliveries)
        after = self._after(replace(kept, loss_kw=loss_kw), t_s, next_kw, whole_kw, believed.pods)
        return after, Settled(t_s, found, (*found.lines, *ready), believed, float(gap), missing, (*told, *found.told))

    def _read(self, kept: Kept, t_s: int) -> tuple[Floats, float]:
        """Mean powers of PODs (n_pod,) and of the head by their meters [kW]; NaN where the value is missing."""
        n_step, n_pod = self.clock.steps_per_mtu, len(self.pods)
        values = np.append(kept.sum_kw, kept.head_sum_kw) / n_step
        if self.config.missing > 0.0:
            drawn = rng_for(self.seed, "metering", t_s // self.clock.mtu_s).random(n_pod + 1)
            values[drawn < self.config.missing] = np.nan
        return values[:n_pod], float(values[n_pod])

    def _case(
        self,
        kept: Kept,
        period: Period,
        seen_kw: Floats,
        head_kw: float,
        calls: Sequence[Call],
        believed: Believed,
    ) -> SettlementCase:
        config, scheduled_kw = self.config, kept.scheduled_kw.tolist()
        series = _Maker(period)
        perimeters = tuple(
            Perimeter(brp, pods, series.of(brp, "schedule", sum([scheduled_kw[k] for k in rows])))
            for brp, pods, rows in self._perimeters
        )
        interface = Interface(
            series.of(_HEAD, "schedule", sum(scheduled_kw) + kept.loss_kw),
            series.of(_HEAD, "measurement", head_kw),
            config.loss_party,
        )
        compensated = config.compensation_eur_per_kwh
        return SettlementCase(
            period,
            tuple(calls),
            series.meters("measurement", self.pods, seen_kw),
            self._baselines(kept, series, seen_kw, believed),
            perimeters=perimeters,
            interface=interface,
            imbalance_price=(config.imbalance_eur_per_kwh,),
            suppliers={} if compensated is None else dict.fromkeys(self.pods, config.supplier),
            reference_price=() if compensated is None else (compensated,),
            rules=SettlementRules(config.imbalance_party, config.correction),
        )

    def _baselines(self, kept: Kept, series: _Maker, seen_kw: Floats, believed: Believed) -> Mapping[str, Series]:
        """Of PODs called, and what was declared of those not metered."""
        paid_kw = [believed.baseline_kw[method][k] for k, method in enumerate(believed.paid)]
        called = series.meters("baseline", believed.pods, np.array(paid_kw))
        unseen = np.flatnonzero(np.isnan(seen_kw)).tolist()
        if not unseen:
            return called
        return {self.pods[k]: series.of(self.pods[k], "schedule", kept.scheduled_kw[k]) for k in unseen} | dict(called)

    @cached_property
    def _perimeters(self) -> tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...]:
        """Each BRP with its PODs and their places."""
        of_brp: dict[str, list[int]] = {}
        for k, brp in enumerate(self.brps):
            of_brp.setdefault(brp, []).append(k)
        return tuple((brp, tuple([self.pods[k] for k in own]), tuple(own)) for brp, own in of_brp.items())

    def _believed(self, kept: Kept, period: Period, calls: Sequence[Ordered]) -> tuple[Believed, tuple[str, ...]]:
        """Baselines of the PODs called, by all methods that have what they need. Where the method paid by has not, what
        was declared counts, and that is told."""
        called = by_pod(calls, period)
        if not called:
            return Believed(), ()
        known = self._known(kept, period, called)
        found = {name: method.each_kw(known) for name, method in METHODS.items()}
        own, told = self.config.baseline, []
        lacking = [k for k, kw in enumerate(found[own]) if isnan(kw)]
        for k in lacking:
            try:
                METHODS[own].p_kw(known.of(k), period, known.order_s[k])
            except ProfileError as lack:
                why = "; ".join(fault.problem for fault in lack.faults)
                told.append(f"baseline of {known.meters[k]} at {period.t_s} s: {why}; taken from the {_FALLBACK}")
        paid = tuple([_FALLBACK if k in lacking else own for k in range(len(called))])
        return Believed(known.meters, found, paid, tuple([kw for _, kw in called.values()])), tuple(told)

    def _known(self, kept: Kept, period: Period, called: Mapping[str, tuple[int, float]]) -> KnownColumns:
        places = [self._place[pod] for pod in called]
        nothing: frozenset[date] = frozenset()
        return KnownColumns(
            tuple(called),
            period,
            tuple([order_s for order_s, _ in called.values()]),
            self._past_kw(kept, period),
            tuple([self._place_flexible[pod] for pod in called]),
            kept.scheduled_kw[places],
            kept.free_sum_kw[places] / self.clock.steps_per_mtu,
            self.clock.start,
            self.utc_offset_s,
            tuple([_dates(kept.called[pod]) if pod in kept.called else nothing for pod in called]),
        )

    def _past_kw(self, kept: Kept, period: Period) -> Floats:
        """What PODs with resources drew in the MTUs before (n_mtu, n_flexible); of days before the run what their
        profiles draw in the same MTU, NaN where neither is known."""
        of_run, per_day = kept.metered_kw, SECONDS_PER_DAY // period.mtu_s
        if len(of_run) >= self.days * per_day:
            return of_run
        past_kw = np.full((self.days * per_day, len(self.flexible)), np.nan)
        if SECONDS_PER_DAY % period.mtu_s == 0:
            usual_kw = self._usual(period.t_s // period.mtu_s)
            past_kw[-per_day * np.arange(1, len(usual_kw) + 1)] = usual_kw[:, self._places]
        past_kw[len(past_kw) - len(of_run) :] = of_run
        return past_kw

    def _usual(self, mtu: int) -> Floats:
        """(n_day, n_pod), none where profiles have no history: they need none for forecasts that know the truth."""
        try:
            return self.usual_kw(mtu)[: self.days]
        except ProfileError:
            return np.zeros((0, len(self.pods)))

    @cached_property
    def _place(self) -> Mapping[str, int]:
        return {pod: k for k, pod in enumerate(self.pods)}

    @cached_property
    def _place_flexible(self) -> Mapping[str, int]:
        return {pod: k for k, pod in enumerate(self.flexible)}

    @cached_property
    def _places(self) -> list[int]:
        """Of the PODs with resources."""
        return [self._place[pod] for pod in self.flexible]

    def _ready(self, kept: Kept, mtu: int) -> tuple[SettlementLine, ...]:
        """What contracts are paid for being ready, of those whose window ends with an MTU, or with the run."""
        payments: list[Payment] = []
        for contract, held in self._windows:
            if held and held[-1] == mtu:
                offered_kw = kept.offered_kw.get(contract.id, _NONE_KW)
                period = Period(held[0] * self.clock.mtu_s, self.clock.mtu_s, held[-1] - held[0] + 1)
                payments += availability([Readiness(contract, tuple(offered_kw.tolist()))], period)
        return lines(payments)

    @cached_property
    def _windows(self) -> tuple[tuple[Contract, tuple[int, ...]], ...]:
        """Each contract with the MTUs of the run in its window."""
        n_mtu = self.clock.until_s // self.clock.mtu_s
        held = (np.flatnonzero(in_window(contract.window, self.clock, 0, n_mtu)) for contract in self.contracts)
        return tuple((contract, tuple(own.tolist())) for contract, own in zip(self.contracts, held, strict=True))

    def _watched(self, kept: Kept, t_s: int, found: Sequence[Delivery]) -> Kept:
        """Who fails too often in a row is suspended, see `cosim.market.delivery.suspensions`."""
        failures, end_s = self.config.failures, t_s + self.clock.mtu_s
        if failures is None:
            return kept
        owed = 1 - exact(self.config.tolerance)
        short: dict[str, bool] = {}
        for share in (share for delivery in found for share in delivery.shares):
            short[share.meter] = short.get(share.meter, False) or share.given < share.ordered * owed
        failed = dict(kept.failed) | {pod: kept.failed.get(pod, 0) + 1 if bad else 0 for pod, bad in short.items()}
        again = [pod for pod in short if failed[pod] >= failures]
        until_s = {pod: until for pod, until in kept.until_s.items() if until > end_s}
        until_s |= dict.fromkeys(again, end_s + self.config.suspension_days * SECONDS_PER_DAY)
        return replace(kept, failed=failed | dict.fromkeys(again, 0), until_s=until_s)

    def _after(self, kept: Kept, t_s: int, next_kw: Floats, whole_kw: Floats, pods: Iterable[str]) -> Kept:
        """``pods``: those called."""
        nothing, mtu_s = frozen(np.zeros(len(self.pods))), self.clock.mtu_s
        now_kw = whole_kw[self._places]
        longest = self.days * SECONDS_PER_DAY // mtu_s
        metered_kw = np.vstack([kept.metered_kw[max(len(kept.metered_kw) + 1 - longest, 0) :], now_kw])
        metered_kw.flags.writeable = False  # not `frozen`: weeks of values are copied once a MTU, not twice
        called = dict(kept.called)
        local = self.clock.instant(t_s + self.utc_offset_s).date()
        today, oldest = local.isoformat(), (local - timedelta(days=self.days)).isoformat()
        for pod in pods:
            called[pod] = (*(day for day in called.get(pod, ()) if oldest <= day < today), today)
        return replace(
            kept,
            scheduled_kw=frozen(next_kw),
            sum_kw=nothing,
            free_sum_kw=nothing,
            head_sum_kw=0.0,
            metered_kw=metered_kw,
            called=called,
            ordered=tuple(each for each in kept.ordered if each.end_s(mtu_s) > t_s + mtu_s),
        )


@dataclass(frozen=True)
class _Maker:
    """Makes series of one value, and columns of such."""

    period: Period

    def meters(self, kind: Literal["baseline", "measurement"], names: tuple[str, ...], kw: Floats) -> Meters:
        """``kw`` (n_meter,)."""
        return Meters(kind, names, self.period, kw[:, None], np.zeros((len(names), 1), dtype=np.bool_))

    def of(self, owner: str, kind: str, kw: float) -> Series:
        value = None if isnan(kw) else float(kw)
        return Series(owner, kind, self.period.t_s, self.period.mtu_s, (value,), (False,))  # type: ignore[arg-type]


@lru_cache(256)
def _dates(days: tuple[str, ...]) -> frozenset[date]:
    return frozenset([date.fromisoformat(day) for day in days])


def _merged(
    held: Mapping[str, Mapping[int, float]], ready: Iterable[Commitment], mtu_s: int
) -> Mapping[str, Mapping[int, float]]:
    found = {name: dict(of_mtu) for name, of_mtu in held.items()}
    for each in ready:
        own, first = found.setdefault(each.contract, {}), each.t_s // mtu_s
        for t, (owed, kw) in enumerate(zip(each.window, each.offered_kw, strict=True)):
            if owed:
                own[first + t] = max(kw, own.get(first + t, 0.0))
    return found


def _over(kept: Kept, mtu: int) -> Kept:
    """What contracts offered in an MTU that is over goes to what they offered before."""
    if not kept.ready_kw:
        return kept
    now = {name: of_mtu[mtu] for name, of_mtu in kept.ready_kw.items() if mtu in of_mtu}
    more = {name: frozen(np.append(kept.offered_kw.get(name, _NONE_KW), kw)) for name, kw in now.items()}
    later = {name: {m: kw for m, kw in of_mtu.items() if m > mtu} for name, of_mtu in kept.ready_kw.items()}
    return replace(kept, offered_kw={**kept.offered_kw, **more}, ready_kw=later)
