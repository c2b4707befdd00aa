"""Measurements as they enter settlement: complete, with every value that stands in for a missing one flagged."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, pairwise
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from cosim.domain.frames import Floats
from cosim.domain.settlement import Period, Series
from cosim.errors import Fault, ProfileError


class Metered(Protocol):
    """Powers of ``owner`` in MTUs of ``mtu_s`` from ``t_s`` to ``end_s``: a `Series`, or what reads them elsewhere."""

    @property
    def owner(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def t_s(self) -> int: ...

    @property
    def end_s(self) -> int: ...

    @property
    def mtu_s(self) -> int: ...

    def values(self, t_s: int, n_mtu: int) -> Sequence[float | None]:
        """Powers in ``n_mtu`` MTUs from ``t_s`` on [kW]; None or NaN where nothing is known."""


@dataclass(frozen=True, eq=False)
class Meters(Mapping[str, Series]):
    """What meters show in a period, as columns: ``p_kw`` [kW], NaN where nothing is known, and which values stand in
    for a measurement, both (n_meter, n_mtu). As a mapping: the series of each meter, made when asked for."""

    kind: Literal["baseline", "measurement"]
    names: tuple[str, ...]
    period: Period
    p_kw: Floats
    estimated: npt.NDArray[np.bool_]

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Row of each meter."""
        return dict(zip(self.names, range(len(self.names)), strict=True))

    def __getitem__(self, meter: str) -> Series:
        k, t_s, mtu_s = self.place[meter], self.period.t_s, self.period.mtu_s
        p_kw = tuple([None if math.isnan(kw) else kw for kw in self.p_kw[k].tolist()])
        return Series(meter, self.kind, t_s, mtu_s, p_kw, tuple(self.estimated[k].tolist()))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, meter: object) -> bool:
        return meter in self.place


def columns(
    kind: Literal["baseline", "measurement"],
    known: Mapping[str, Series],
    period: Period,
    wanted: Collection[str] | None = None,
) -> Meters:
    """Series by meter in the MTUs of a period, at least of those ``wanted``, else of all. Raises ProfileError with all
    that `part_of` says of them."""
    if isinstance(known, Meters) and known.period == period:
        return known
    names = tuple(known if wanted is None else wanted)
    p_kw = np.full((len(names), period.n_mtu), np.nan)
    estimated = np.zeros(p_kw.shape, dtype=np.bool_)
    faults: list[Fault] = []
    for k, series in enumerate([known[name] for name in names]):
        try:
            part = part_of(series, period)
            p_kw[k], estimated[k] = part.p_kw, part.estimated  # None becomes NaN
        except ProfileError as wrong:
            faults += wrong.faults
    if faults:
        raise ProfileError(faults)
    return Meters(kind, names, period, p_kw, estimated)


def values_kw(series: Metered, period: Period, mtus: Sequence[int] | None = None) -> tuple[float, ...]:
    """Power in the MTUs of a period, or some of them. Raises ProfileError naming every MTU of these without one, or if
    the MTUs differ."""
    check_mtus(series, period)
    own = series.values(period.t_s, period.n_mtu)
    wanted = own if mtus is None else [own[t] for t in mtus]
    found = known_kw(wanted)
    if len(found) < len(wanted):
        missing = [t for t, value in enumerate(own) if value is None or math.isnan(value)]
        raise ProfileError([_absent(series, period.begins[t]) for t in missing if mtus is None or t in mtus])
    return found


def known_kw(p_kw: Iterable[float | None]) -> tuple[float, ...]:
    """Values that are not missing."""
    return tuple([value for value in p_kw if value is not None and not math.isnan(value)])


def check_mtus(series: Metered, period: Period) -> None:
    """Raises ProfileError unless the MTUs of a series are those settled."""
    if series.mtu_s != period.mtu_s or (period.t_s - series.t_s) % period.mtu_s:
        value, allowed = (f"{each.mtu_s} s from {each.t_s} s on" for each in (series, period))
        raise ProfileError(Fault("its MTUs are not those settled", key=_key(series), value=value, allowed=allowed))


def _key(series: Metered) -> str:
    return f"{series.kind} of {series.owner}"


def _absent(series: Metered, t_s: int) -> Fault:
    allowed = f"recorded from {series.t_s} to {series.end_s} s"
    return Fault("no value", key=_key(series), value=f"MTU from {t_s} s", allowed=allowed)


def part_of(measured: Series, period: Period) -> Series:
    """The part of a period, in which values may be missing. Raises ProfileError if the MTUs differ, or there are more
    or fewer flags than values."""
    check_mtus(measured, period)
    if measured.estimated and len(measured.estimated) != len(measured.p_kw):
        value = f"{len(measured.estimated)} flags of {len(measured.p_kw)} values"
        raise ProfileError(Fault("each value is estimated or not", key=_key(measured), value=value))
    return measured.over(period)


def completed(
    measured: Series, stand_ins: Sequence[Series], period: Period, gap_max_mtu: int = 2
) -> tuple[Series, tuple[str, ...]]:
    """A period's measurements, none missing, and a sentence on every gap.

    A gap of up to ``gap_max_mtu`` MTUs between two measurements is a straight line between them, any other what the
    first of ``stand_ins`` with a value has (a baseline: nothing delivered; a schedule: no imbalance). All are flagged
    as estimated. Raises ProfileError naming each MTU of which none has one.
    """
    if not (whole := part_of(measured, period)).missing:
        return whole, ()
    around = _widened(period, measured, gap_max_mtu)
    seen = measured.over(around)
    first = (period.t_s - around.t_s) // period.mtu_s
    found: dict[int, tuple[float, str]] = {}
    for gap in _gaps(seen.missing):
        if len(gap) <= gap_max_mtu and (line := _straight(seen.p_kw, gap)):
            found |= {k - first: (value, "interpolated") for k, value in zip(gap, line, strict=True)}
    own = seen.over(period)
    missing = own.missing
    found |= _taken(stand_ins, period, [t for t in missing if t not in found])
    if absent := [t for t in missing if t not in found]:
        raise ProfileError([_absent(measured, period.begins[t]) for t in absent])
    how = {t: found[t][1] for t in missing}
    p_kw = tuple(found[t][0] if t in how else value for t, value in enumerate(own.p_kw))
    flags = tuple(t in how or flag for t, flag in enumerate(own.estimated))
    return replace(own, p_kw=p_kw, estimated=flags), _told(own, period, how)


def _taken(stand_ins: Sequence[Series], period: Period, mtus: Sequence[int]) -> dict[int, tuple[float, str]]:
    found: dict[int, tuple[float, str]] = {}
    for series in reversed(stand_ins):
        check_mtus(series, period)
        own = series.over(period)
        known = {t: value for t, value in enumerate(own.p_kw) if value is not None and not math.isnan(value)}
        found |= {t: (known[t], f"taken from the {series.kind} of {series.owner}") for t in mtus if t in known}
    return found


def _told(measured: Series, period: Period, how: Mapping[int, str]) -> tuple[str, ...]:
    """A sentence on each run of MTUs that were estimated the same way."""
    told = []
    for (way, _), run in groupby(enumerate(sorted(how)), key=lambda each: (how[each[1]], each[1] - each[0])):
        mtus = [t for _, t in run]
        begin, end = period.begins[mtus[0]], period.begins[mtus[-1]] + period.mtu_s
        told.append(f"measurement of {measured.owner} missing from {begin} to {end} s: estimated, {way}")
    return tuple(told)


def _widened(period: Period, measured: Series, by_mtu: int) -> Period:
    """Within what is recorded, ``by_mtu`` + 1 MTUs more on both sides: what a gap at its ends is interpolated from."""
    reach_s = (by_mtu + 1) * period.mtu_s
    begin_s = min(period.t_s, max(measured.t_s, period.t_s - reach_s))
    until_s = max(period.end_s, min(measured.end_s, period.end_s + reach_s))
    return Period(begin_s, period.mtu_s, (until_s - begin_s) // period.mtu_s)


def _gaps(missing: tuple[int, ...]) -> list[range]:
    if not missing:
        return []
    cuts = [k for k, (a, b) in enumerate(pairwise(missing), 1) if b != a + 1]
    bounds = [0, *cuts, len(missing)]
    return [range(missing[a], missing[b - 1] + 1) for a, b in pairwise(bounds)]


def _straight(p_kw: tuple[float | None, ...], gap: range) -> list[float] | None:
    """Between the values beside a gap; None if there is none on one side."""
    before = p_kw[gap[0] - 1] if gap[0] else None
    after = p_kw[gap[-1] + 1] if gap[-1] + 1 < len(p_kw) else None
    if before is None or after is None or math.isnan(before) or math.isnan(after):
        return None
    step = (after - before) / (len(gap) + 1)
    return [before + step * (k + 1) for k in range(len(gap))]
