"""The transmission operator: its network and its need, and the stages of a scheme that it clears."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from cosim.coordination.telling import Own
from cosim.domain.frames import Signal, frozen
from simulators._base import Adapter, Inputs, Output
from simulators._party import GATE, INBOX, Voice
from simulators._system import agreed, interfaces, next_mtu, rules


class Tso(Adapter):
    """Models ``system``: what it expects of the next MTU; and those of its `Voice`."""

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {"gate": GATE, "inbox": INBOX}
    answers = ("inbox",)

    def build(self) -> dict[str, tuple[Output, ...]]:
        self._voice, self._rules = Voice(self.case, "tso"), rules(self.case)
        feeder = (self.case.feeder.name,)
        return {
            **self._voice.outputs(),
            "system": (
                Signal("need_kw", "kW", "what the system is short of in the next MTU", "feeder", feeder),
                Signal("import_kw", "kW", "import of the feeder that is expected for it", "feeder", feeder),
            ),
        }

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        if self._voice.begins(t_s):
            self._open(next_mtu(self.case, t_s))
        self._voice.hear(inputs)
        return self._expected | self._voice.given()

    def ended(self) -> None:
        self._voice.ended()

    def _open(self, mtu_s: int | None) -> None:
        own = None if mtu_s is None else self._own(mtu_s)
        figures = (np.nan, np.nan) if own is None else (own.need_kw, self.case.system_at(own.t_s).import_kw)
        self._expected = {
            ("system", name): frozen([value]) for name, value in zip(("need_kw", "import_kw"), figures, strict=True)
        }
        self._voice.open(own)

    def _own(self, t_s: int) -> Own:
        case, state, terms = self.case, self.case.system_at(t_s), agreed(self.case)
        return Own(
            t_s,
            case.clock.mtu_s,
            self._rules,
            state.grid,
            interfaces(case),
            need_kw=state.need_kw,
            schedule_kw={case.area: terms.change_kw},
            price_eur_per_kwh={} if terms.price_eur_per_kwh is None else {case.area: terms.price_eur_per_kwh},
        )
