"""Who sells at transmission: offers of generators for every MTU, and what they deliver of it, which is all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cosim.coordination.telling import Own
from cosim.domain.frames import Floats, Signal, frozen
from cosim.domain.market import Award, from_json
from simulators._base import Adapter, Inputs, Output
from simulators._party import BUYERS, Voice
from simulators._system import next_mtu, rules


@dataclass(frozen=True)
class GeneratorsMemory:
    """``change_kw`` (n_resource,) delivered in the present MTU, consumption > 0."""

    change_kw: Floats


class Generators(Adapter):
    """Models ``resource``: what is delivered; and those of its `Voice`."""

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {"award": BUYERS}

    def build(self) -> dict[str, tuple[Output, ...]]:
        assert self.case.transmission is not None  # as with every scheme
        self._voice, self._names = Voice(self.case, "generators"), self.case.transmission.sellers
        self._rules = rules(self.case)
        self.memory = GeneratorsMemory(frozen(np.zeros(len(self._names))))
        what = "change that was awarded for the MTU"
        return {
            **self._voice.outputs(),
            "resource": (Signal("change_kw", "kW", what, "resource", self._names, "consumption > 0"),),
        }

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        if self.case.clock.begins_mtu(t_s):
            awards = [from_json(Award, award) for mail in inputs.values() for award in mail]
            self.memory = GeneratorsMemory(self._delivered_kw(t_s, awards))
        mtu_s = next_mtu(self.case, t_s)
        self._voice.open(None if mtu_s is None else self._own(mtu_s))
        return self._voice.given() | {("resource", "change_kw"): self.memory.change_kw}

    def _own(self, t_s: int) -> Own:
        case, state = self.case, self.case.system_at(t_s)
        return Own(t_s, case.clock.mtu_s, self._rules, bids=state.bids, resources=state.resources)

    def _delivered_kw(self, t_s: int, awards: list[Award]) -> Floats:
        """All that was awarded, as a change of consumption."""
        bids = {bid.id: bid for bid in self.case.system_at(t_s).bids}
        change_kw = np.zeros(len(self._names))
        for award in awards:
            bid = bids[award.bid]
            change_kw[self._names.index(bid.members[0])] += float(bid.direction.delta_p_kw(award.quantity_kw[0]))
        return frozen(change_kw)
