"""Short runs with a scheme of coordination: noon of a congested day on mv5, when both operators need something; and
what the parties of a run knew and said."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from short_runs import REPOSITORY

from cosim import load_scenario, open_results, run
from cosim.case import Case, open_case
from cosim.coordination.case import Area, CoordinationCase
from cosim.coordination.grid import Line, dc_grid
from cosim.coordination.in_run import in_area, matrix_of
from cosim.coordination.messages import Message
from cosim.coordination.telling import Own
from simulators._party import Voice
from simulators._system import interfaces, rules

WEEK = REPOSITORY / "scenarios" / "lfm_mv5.yaml"
NOON = ("start=2016-05-16T11:30:00+01:00", "duration=1h")
"""The gates of three MTUs."""
PRICE = "coordination.interface={price_eur_per_kwh: 0.1}"
"""For schemes that need one; others do not look at it."""
CALM = ("limits={derated: null}", "transmission.need.share=0")
"""Neither operator needs anything."""
CLEARING = ("dso", "tso", "imo")


def settings(scheme: str | Path, *overrides: str) -> list[str]:
    """The overrides of a run with a scheme."""
    return [*NOON, f"coordination.scheme={scheme}", PRICE, *overrides]


def coordinated(out: Path, scheme: str | Path, *overrides: str) -> Path:
    """The result of a run with a scheme."""
    return run(load_scenario(WEEK, settings(scheme, *overrides)), out).path


def table(path: Path, name: str) -> pd.DataFrame:
    with open_results(path) as results:
        return results.table(name)


def tables(path: Path, name: str) -> pd.DataFrame:
    """A table of all who clear stages, together; ``simulator``: whose."""
    with open_results(path) as results:
        there = [each for each in CLEARING if f"{each}/{name}" in results.events()]
        return pd.concat([results.table(f"{each}/{name}").assign(simulator=each) for each in there], ignore_index=True)


@dataclass(frozen=True)
class Watched:
    """A run with a scheme: by MTU what each party knew of its own at the gate, and all that was said."""

    case: Case
    path: Path
    known: dict[int, dict[str, Own]] = field(default_factory=lambda: defaultdict(dict))
    said: dict[int, list[Message]] = field(default_factory=lambda: defaultdict(list))

    def at_gate(self, t_s: int) -> CoordinationCase:
        """The case made of what all parties together knew. Who clears sorts its mail by sender, so that offers at
        transmission come first."""
        known = self.known[t_s]
        sellers = [known[name] for name in sorted(known) if name.startswith("AGG:")]
        areas = {name: area for own in known.values() for name, area in own.areas.items()}
        areas = areas or {self.case.area: self._unseen_area()}
        system = known.get("TSO") or Own(t_s, self.case.clock.mtu_s, rules(self.case), self.case.system_at(t_s).grid)
        assert system.transmission is not None
        return CoordinationCase(
            "gate",
            t_s,
            self.case.clock.mtu_s,
            system.transmission,
            system.need_kw,
            areas,
            {name: unit for own in sellers for name, unit in own.resources.items()},
            tuple(bid for own in sellers for bid in own.bids),
            known["BRP"].demands if "BRP" in known else (),
            rules=system.rules,
        )

    def _unseen_area(self) -> Area:
        """The feeder under a scheme in which its operator has no part: without limits."""
        units = {unit.resource.id: unit.resource for unit in self.case.portfolio}
        name, pods = self.case.area, dict.fromkeys(unit.pod for unit in units.values())
        grid = dc_grid(f"{name}/", [Line(pod, ("head", pod), 1.0, np.inf) for pod in pods], "head", {})
        return Area(name, interfaces(self.case)[name], grid, matrix_of(name, in_area(name, units), ""))


def watched(out: Path, scheme: str | Path, *overrides: str) -> Watched:
    """A run of which everything that parties know and say is kept."""
    loaded = load_scenario(WEEK, settings(scheme, *overrides))
    found = Watched(open_case(loaded), out)
    opened, spoken = Voice.open, Voice._say

    def spy_open(self: Voice, own: Own | None) -> None:
        if own is not None:
            found.known[own.t_s][self._id] = own
        opened(self, own)

    def spy_say(self: Voice, messages: tuple[Message, ...]) -> None:
        for message in messages:
            found.said[message.t_s].append(message)
        spoken(self, messages)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Voice, "open", spy_open)
        patch.setattr(Voice, "_say", spy_say)
        run(loaded, out)
    return found
