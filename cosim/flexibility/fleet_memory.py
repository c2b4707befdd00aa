"""What lasts of an aggregator's units between steps, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosim.domain.frames import Floats, frozen
from cosim.flexibility.columns import Bools, Group, Held


@dataclass(frozen=True)
class FleetMemory:
    """What lasts of all units between steps.

    ``states`` of the groups' devices, and ``free`` those of the same devices never activated; ``plan_kw``: changes that
    units are to deliver (n_unit,), by MTU (consumption positive), ``fixed_kw``: baselines they were bought around a day
    ahead, else NaN; ``declared_kw`` (n_unit,): what they draw over the profiles of their PODs in the MTU that begins
    next, without them; ``held`` in the present one, None for nobody; ``unreached`` (n_unit,): out of reach in it, None
    before the first.
    """

    states: tuple[Any, ...]
    free: tuple[Any, ...]
    plan_kw: Mapping[int, Floats]
    fixed_kw: Mapping[int, Floats]
    declared_kw: Floats
    held: Held | None = None
    unreached: Bools | None = None

    @property
    def out_of_reach(self) -> Bools:
        """Units out of reach in the present MTU (n_unit,)."""
        return np.zeros(len(self.declared_kw), dtype=bool) if self.unreached is None else self.unreached

    def planned_kw(self, mtu: int) -> Floats:
        """Changes that are to be delivered in an MTU (n_unit,) [kW]."""
        found = self.plan_kw.get(mtu)
        return np.zeros_like(self.declared_kw) if found is None else found

    def baseline_kw(self, mtu: int, over_kw: Floats) -> Floats:
        """Baselines of units in an MTU (n_unit,) [kW]: those fixed, else ``over_kw`` (n_unit,)."""
        fixed_kw = self.fixed_kw.get(mtu)
        return over_kw if fixed_kw is None else np.where(np.isnan(fixed_kw), over_kw, fixed_kw)


def memory_to_json(groups: Sequence[Group], memory: FleetMemory) -> dict[str, Any]:
    """A memory of ``groups`` of units as what ``json`` can write, exactly."""
    held, unreached = memory.held, memory.unreached
    return {
        "states": [group.to_json(state) for group, state in zip(groups, memory.states, strict=True)],
        "free": [group.to_json(state) for group, state in zip(groups, memory.free, strict=True)],
        "plan_kw": {str(mtu): kw.tolist() for mtu, kw in memory.plan_kw.items()},
        "fixed_kw": {str(mtu): _with_gaps(kw) for mtu, kw in memory.fixed_kw.items()},
        "declared_kw": memory.declared_kw.tolist(),
        "held": None if held is None else [held.baseline_kw.tolist(), _with_gaps(held.change_kw)],
        "unreached": None if unreached is None else unreached.tolist(),
    }


def memory_from_json(groups: Sequence[Group], document: Mapping[str, Any]) -> FleetMemory:
    """The memory that `memory_to_json` made."""
    held, unreached = document["held"], document["unreached"]
    return FleetMemory(
        states=tuple(group.from_json(each) for group, each in zip(groups, document["states"], strict=True)),
        free=tuple(group.from_json(each) for group, each in zip(groups, document["free"], strict=True)),
        plan_kw={int(mtu): frozen(kw) for mtu, kw in document["plan_kw"].items()},
        fixed_kw={int(mtu): frozen(kw) for mtu, kw in document["fixed_kw"].items()},
        declared_kw=frozen(document["declared_kw"]),
        held=None if held is None else Held(*map(frozen, held)),
        unreached=None if unreached is None else frozen(unreached, bool),
    )


def _with_gaps(kw: Floats) -> list[float | None]:
    """JSON has no NaN."""
    return [None if value != value else value for value in kw.tolist()]
