"""A result file as the report sees it: whatever a run did not record is None or empty, never an error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from cosim.clock import parse_duration_s
from cosim.domain.flexibility import StorageUnit
from cosim.domain.frames import Floats
from cosim.domain.site import bus_of_site
from cosim.io.results import Results

WITH, WITHOUT = "grid", "counterfactual"
"""The simulators that hold the true state with the orders enforced and without them."""

_BLOCK_VALUES = 1 << 22
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Extreme:
    """The lowest or highest value of a signal, the element it belongs to and the index of its step."""

    value: float
    element: str
    step: int


class Reading:
    """What a report needs of open results, in the local time of the scenario's start."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.attributes = results.attributes
        self.status = results.status
        self.scenario: dict[str, Any] = self.json("scenario") or {}
        self.time = results.time
        self._signals = frozenset(results.signals())
        self._elements: dict[str, list[str]] = {}
        self._frames: dict[str, pd.DataFrame] = {}
        self._made: dict[Any, Any] = {}

    def once(self, make: Callable[[Reading], _Made]) -> _Made:
        """What ``make`` makes of this reading: made when first asked for, and kept."""
        if make not in self._made:
            self._made[make] = make(self)
        made: _Made = self._made[make]
        return made

    def json(self, attribute: str) -> Any:
        """A root attribute that is JSON text; None where the file has none."""
        text = self.attributes.get(attribute)
        return None if text is None else json.loads(text)

    @property
    def name(self) -> str:
        return str(self.attributes.get("name") or self.scenario.get("name") or self.results.path.stem)

    @property
    def steps(self) -> int:
        """Steps recorded."""
        return len(self.time)

    @cached_property
    def steps_planned(self) -> int | None:
        """Steps that a whole run has, None where the file does not tell."""
        duration = self.scenario.get("duration")
        if duration is None or not self.step_s > 0:
            return None
        return int(parse_duration_s(duration) // self.step_s)

    @cached_property
    def step_s(self) -> float:
        """Length of a step [s]; NaN where the file does not tell."""
        if "step" in self.scenario:
            return float(parse_duration_s(self.scenario["step"]))
        return (self.time[1] - self.time[0]).total_seconds() if self.steps > 1 else float("nan")

    @cached_property
    def offset(self) -> timedelta:
        """Local time minus UTC: the offset that the scenario's start is written in."""
        start = self.scenario.get("start")
        return (datetime.fromisoformat(start).utcoffset() if start else None) or timedelta(0)

    @property
    def zone(self) -> str:
        """The offset in words, e.g. ``UTC+01:00``."""
        minutes = round(self.offset.total_seconds() / 60)
        return f"UTC{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"

    @cached_property
    def local_time(self) -> pd.DatetimeIndex:
        """Begin of each step in local time, without zone."""
        return (self.time + self.offset).tz_localize(None)

    @property
    def local_end(self) -> pd.Timestamp:
        """End of the last recorded step in local time; a second after it begins where its length is not known."""
        length_s = 1.0 if np.isnan(self.step_s) else self.step_s
        end: pd.Timestamp = self.local_time[-1] + pd.Timedelta(seconds=length_s)
        return end

    def has(self, path: str) -> bool:
        return path in self._signals

    def frame(self, path: str) -> pd.DataFrame | None:
        """A signal as a table, None where there is none of that path; not to be changed, as it is kept."""
        if self.has(path) and path not in self._frames:
            self._frames[path] = self.results.frame(path)
        return self._frames.get(path)

    def table(self, path: str) -> pd.DataFrame | None:
        """A table of events, None where there is none of that path."""
        return self.results.table(path) if path in self.results.events() else None

    def total(self, path: str) -> Floats | None:
        """A signal summed over its elements (n_time,), None where there is none; NaN where an element is missing."""
        frame = self.frame(path)
        return None if frame is None else frame.to_numpy(dtype=np.float64).sum(axis=1)

    @cached_property
    def acts(self) -> str:
        """What the course without it lacks, in a word: orders to storage, activation of resources, or both; empty where
        nothing could act."""
        ordered = bool(self.elements(f"{WITH}/storage/p_kw")) and self.scenario.get("operator", {}).get("enabled", True)
        activated = bool(self.elements("aggregator/resource/p_kw"))
        return " and ".join(["orders"] * ordered + ["activation"] * activated)

    @property
    def title_with(self) -> str:
        """The heading, a short one, of figures that are compared."""
        return {"activation": "activated", "orders and activation": "with both"}.get(self.acts, "with orders")

    @property
    def compared(self) -> bool:
        """Whether there is a course without orders and activation that may differ from the one with them."""
        return bool(self.acts) and any(p.startswith(f"{WITHOUT}/") for p in self._signals)

    def total_without(self, path: str) -> Floats | None:
        """``model/attribute`` without orders and activation, summed over its elements; None where nothing is
        compared."""
        return self.total(f"{WITHOUT}/{path}") if self.compared else None

    @cached_property
    def _buses_above(self) -> frozenset[str]:
        return frozenset(self.json("buses_above") or ())

    def _of_feeder(self, path: str, element: str) -> bool:
        """Whether an element belongs to the feeder: nodes above its head would hide what happens below."""
        return not path.endswith("/bus/vm_pu") or element.rpartition(".")[0] not in self._buses_above

    def blocks(self, path: str) -> Iterator[tuple[int, pd.DataFrame]]:
        """A signal in blocks of steps, each with the index of its first step, so that a year of a large feeder fits
        into memory. Of voltages only the feeder's own nodes."""
        for first, frame in self._whole_blocks(path):
            kept = [element for element in frame.columns if self._of_feeder(path, str(element))]
            yield first, frame if len(kept) == frame.shape[1] else frame[kept]

    def _whole_blocks(self, path: str) -> Iterator[tuple[int, pd.DataFrame]]:
        rows = max(1, _BLOCK_VALUES // max(1, len(self._all_elements(path))))
        if self.steps <= rows:
            kept = self.frame(path)
            yield from [] if kept is None else [(0, kept)]
            return
        for first in range(0, self.steps, rows):
            last = first + rows
            stop = self.time[last] if last < self.steps else None
            yield first, self.results.frame(path, self.time[first], stop)

    def elements(self, path: str) -> list[str]:
        """Element ids of a signal, empty where there is none; of voltages only the feeder's own nodes."""
        return [element for element in self._all_elements(path) if self._of_feeder(path, element)]

    def _all_elements(self, path: str) -> list[str]:
        if not self.has(path):
            return []
        if path in self._frames:
            return [str(element) for element in self._frames[path].columns]
        if path not in self._elements:
            none_yet = pd.Timestamp(0, tz="UTC")
            self._elements[path] = [str(e) for e in self.results.frame(path, none_yet, none_yet).columns]
        return self._elements[path]

    def extreme(self, path: str, sign: int) -> Extreme | None:
        """The highest (``sign`` 1) or lowest (-1) value of a signal; None without any value."""
        found: Extreme | None = None
        for first, frame in self.blocks(path) if self.has(path) else ():
            values = sign * frame.to_numpy(dtype=np.float64)
            values = np.where(np.isnan(values), -np.inf, values)
            if not values.size or not np.isfinite(values.max()):
                continue
            step, element = divmod(int(values.argmax()), values.shape[1])
            if found is None or values[step, element] > sign * found.value:
                found = Extreme(float(sign * values[step, element]), str(frame.columns[element]), first + step)
        return found

    @cached_property
    def storage(self) -> tuple[StorageUnit, ...]:
        return tuple(StorageUnit(**unit) for unit in self.json("storage") or ())

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Estimation methods recorded, the one in use first, the others as in the scenario."""
        config = self.scenario.get("estimator", {})
        wanted = [config.get("method"), *config.get("compare", ())]
        there = [path.split("/")[1] for path in sorted(self._signals) if path.startswith("estimator/")]
        there = [name for name in dict.fromkeys(there) if self.has(f"estimator/{name}/p_kw") and name != "head"]
        return tuple(dict.fromkeys([name for name in wanted if name in there] + there))

    @property
    def method_in_use(self) -> str:
        """The method whose estimate the operator used; empty where the file does not tell."""
        return str(self.scenario.get("estimator", {}).get("method", ""))

    @cached_property
    def unmetered_sites(self) -> tuple[str, ...]:
        """Sites that are estimated and whose active power no meter measures on its own."""
        places = [c["place"] for c in self.json("channels") or () if c["quantity"] == "p_kw" and c["place"]["bus"]]
        metered = {f"{place['bus']}.{place['phase']}" for place in places if place["phase"] is not None}
        whole = [place["bus"] for place in places if place["phase"] is None]
        sites = self.elements(f"estimator/{self.methods[0]}/p_kw") if self.methods else []
        buses = [bus_of_site(site) for site in sites]
        alone = [site for site, bus in zip(sites, buses, strict=True) if bus in whole and buses.count(bus) == 1]
        return tuple(site for site in sites if site not in metered.union(alone))

    def as_measured(self, path: str) -> pd.DataFrame | None:
        """``model/attribute`` of the state that was measured. Where orders act in the MTU in which they are decided,
        that is the state without them in the first step of every MTU."""
        enforced, idle = self.frame(f"{WITH}/{path}"), self.frame(f"{WITHOUT}/{path}")
        at_once = self.scenario.get("operator", {}).get("action") == "same"
        if enforced is None or idle is None or not at_once:
            return enforced
        since_start_s = (self.time - self.time[0]).total_seconds().to_numpy()
        begins_mtu = since_start_s % parse_duration_s(self.scenario["mtu"]) == 0
        return pd.DataFrame(np.where(begins_mtu[:, np.newaxis], idle, enforced), enforced.index, enforced.columns)

    @cached_property
    def true_site_kw(self) -> pd.DataFrame | None:
        """True power [kW] of each unmetered site as it was measured, storage included: the sum over its PODs."""
        pods, site_of = self.as_measured("pod/p_kw"), self.json("pod_sites")
        if pods is None or not site_of:
            return None
        sums = {
            site: pods[[pod for pod in pods.columns if site_of.get(pod) == site]].to_numpy().sum(axis=1)
            for site in self.unmetered_sites
        }
        return pd.DataFrame(sums, index=pods.index)

    def estimated_site_kw(self, method: str) -> pd.DataFrame:
        """Estimate [kW] of a method for each unmetered site."""
        frame = self.frame(f"estimator/{method}/p_kw")
        return pd.DataFrame() if frame is None else frame[list(self.unmetered_sites)]


def moment(instant: pd.Timestamp) -> str:
    """Date and time to the minute, to the second where it has any."""
    return f"{instant:%Y-%m-%d %H:%M:%S}" if instant.second else f"{instant:%Y-%m-%d %H:%M}"
