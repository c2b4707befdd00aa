"""Profiles: the power that every POD would have without any order."""

from __future__ import annotations

from typing import Any

from cosim.domain.frames import PASSIVE_SIGN, Signal
from simulators._base import Adapter, Inputs, Output


class Profiles(Adapter):
    """Model ``pod``: p_kw, q_kvar (n_pod,). Remembers nothing: the step is the row."""

    def build(self) -> dict[str, tuple[Output, ...]]:
        self._p_kw, self._q_kvar = self.case.powers
        pods = self.case.pods
        return {
            "pod": (
                Signal("p_kw", "kW", "active power by profile", "pod", pods, PASSIVE_SIGN),
                Signal("q_kvar", "kvar", "reactive power by profile", "pod", pods, PASSIVE_SIGN),
            )
        }

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        step = self.case.clock.step_index(t_s)
        return {("pod", "p_kw"): self._p_kw[step], ("pod", "q_kvar"): self._q_kvar[step]}
