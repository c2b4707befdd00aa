"""Balance responsible parties: what they would buy for the next MTU, and at what price at most."""

from __future__ import annotations

from typing import Any

from cosim.coordination.telling import Own
from simulators._base import Adapter, Inputs, Output
from simulators._party import Voice
from simulators._system import next_mtu, rules


class Brp(Adapter):
    """Models: those of its `Voice`."""

    def build(self) -> dict[str, tuple[Output, ...]]:
        self._voice, self._rules = Voice(self.case, "brp"), rules(self.case)
        return self._voice.outputs()

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        case, mtu_s = self.case, next_mtu(self.case, t_s)
        own = None
        if mtu_s is not None:
            own = Own(mtu_s, case.clock.mtu_s, self._rules, demands=case.needs(t_s, mtu_s, 1))
        self._voice.open(own)
        return self._voice.given()
