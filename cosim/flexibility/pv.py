"""Photovoltaics whose generation can be curtailed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import Floats
from cosim.flexibility.resources import Conditions, NoState, Number, Store


@dataclass(frozen=True)
class Pv:
    """Generation as its profile says (injection, so negative); ``curtailable`` is the share that can be given up. Where
    that is an array (n,), it stands for as many of them."""

    curtailable: Number = 1.0
    kvar_per_kw: float = 0.0
    of_profile: bool = True

    def start(self) -> NoState:
        return NoState()

    def free_kw(self, state: NoState, now: Conditions, duration_s: float) -> Number:
        return now.p_kw

    def limits_kw(self, state: NoState, now: Conditions, duration_s: float) -> tuple[Number, Number]:
        return now.p_kw, now.p_kw - self.curtailable * np.minimum(now.p_kw, 0.0)

    def after(self, state: NoState, p_kw: Number, now: Conditions, duration_s: float) -> NoState:
        return state

    def store(
        self, states: Sequence[NoState], forecast: Sequence[Conditions], baseline_kw: Floats, mtu_s: int
    ) -> Store | None:
        return None
