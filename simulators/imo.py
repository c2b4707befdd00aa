"""An independent market operator: the stages of a scheme that it clears, with what it is told of both networks."""

from __future__ import annotations

from typing import Any, ClassVar

from cosim.coordination.telling import Own
from simulators._base import Adapter, Inputs, Output
from simulators._party import GATE, INBOX, Voice
from simulators._system import next_mtu, rules


class Imo(Adapter):
    """Models: those of its `Voice`."""

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {"gate": GATE, "inbox": INBOX}
    answers = ("inbox",)

    def build(self) -> dict[str, tuple[Output, ...]]:
        self._voice, self._rules = Voice(self.case, "imo"), rules(self.case)
        return self._voice.outputs()

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        if self._voice.begins(t_s):
            mtu_s = next_mtu(self.case, t_s)
            self._voice.open(None if mtu_s is None else Own(mtu_s, self.case.clock.mtu_s, self._rules))
        self._voice.hear(inputs)
        return self._voice.given()

    def ended(self) -> None:
        self._voice.ended()
