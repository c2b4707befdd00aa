"""How the power of a load changes with its voltage: OpenDSS's laws, written as one.

With ``u`` the voltage over the rated one, a phase branch that is set to ``s`` draws ``s g(|u|) |u|^2``, ``g`` real: the
current ``conj(s) g(|u|) u`` over its rated voltage. Within the limits of its model ``g = |u|^-exponent`` (2 constant
power, 1 constant current, 0 constant impedance); above, and far below, it is an impedance; in between, the size of the
current goes in a straight line. Source: routines SetNominalLoad, DoConstantPQLoad, DoConstantZLoad, DoConstantILoad of
``Load.pas`` and SetNominalGeneration, DoConstantPQGen, DoConstantZGen of ``generator.pas`` in OpenDSS (as in
dss-extensions/dss_capi).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cosim.domain.frames import Complexes, Floats

_EXPONENT = {1: 2, 2: 0, 5: 1}


@dataclass(frozen=True)
class VoltageLaw:
    """``g`` by voltage [of rated]: ``g_low`` up to ``v_low``, then the current changes linearly up to ``v_min``, then
    ``|u|^-exponent`` up to ``v_max``, then ``g_high``."""

    exponent: int
    v_low: float = 0.0
    v_min: float = 0.0
    v_max: float = math.inf
    g_low: float = 1.0
    g_high: float = 1.0


CONSTANT_POWER = VoltageLaw(2)
"""Constant power at any voltage."""
UNKNOWN = VoltageLaw(0, v_max=0.0, g_low=math.nan, g_high=math.nan)
"""A law that only OpenDSS knows: no number at any voltage."""


def load_law(model: int, v_min: float, v_max: float, v_low: float) -> VoltageLaw:
    """The law of a Load of ``model`` 1, 2 or 5 with its Vminpu, Vmaxpu and Vlowpu."""
    exponent = _EXPONENT[model]
    if not exponent:
        return VoltageLaw(0)
    return VoltageLaw(exponent, v_low, v_min, v_max, g_high=v_max**-exponent if v_max else 1.0)


def generator_law(model: int, v_min: float, v_max: float, single_phase_delta: bool) -> VoltageLaw:
    """The law of a Generator of ``model`` 1 or 2 with its Vminpu and Vmaxpu.

    Between the limits it is of constant power, outside an impedance at once. Of a ``single_phase_delta`` generator
    OpenDSS takes a third of the impedance's current.
    """
    share = 1.0 / 3.0 if single_phase_delta else 1.0
    if not _EXPONENT[model]:
        return VoltageLaw(0, v_max=0.0, g_high=share)
    g_low, g_high = (share * (limit**-2 if limit else 1.0) for limit in (v_min, v_max))
    return VoltageLaw(2, v_min, v_min, v_max, g_low, g_high)


class LawfulBranch(Protocol):
    """A phase branch of a POD as `LoadLaw` sees it."""

    @property
    def law(self) -> VoltageLaw: ...

    @property
    def v_rated(self) -> float: ...


class LoadLaw:
    """The laws of many phase branches at once; arrays are (n_branch, n_case)."""

    def __init__(self, branches: Sequence[LawfulBranch]) -> None:
        laws = [branch.law for branch in branches]
        self._v_rated = _column(branch.v_rated for branch in branches)
        self._exponent = _column(law.exponent for law in laws)
        self._current_rows, self._impedance_rows = (np.flatnonzero(self._exponent[:, 0] == n) for n in (1, 0))
        low, v_min, v_max = (_column(getattr(law, key) for law in laws) for key in ("v_low", "v_min", "v_max"))
        self._low = low
        self._low2, self._min2, self._max2 = low**2, np.maximum(low, v_min) ** 2, v_max**2
        self._common2 = self._min2.max(initial=0.0), self._max2.min(initial=np.inf)  # within these all are inside
        self._limited = self._common2 != (0.0, np.inf)
        self._g_low, self._g_high = (_column(getattr(law, key) for law in laws) for key in ("g_low", "g_high"))
        ramps = v_min > low
        at_min = np.power(v_min, 1.0 - self._exponent, out=np.zeros_like(v_min), where=ramps)
        self._ramp = np.divide(at_min - low * self._g_low, v_min - low, out=np.zeros_like(v_min), where=ramps)

    def current(self, s_va: Complexes, u_v: Complexes) -> Complexes:
        """Currents [A] of branches set to ``s_va`` [VA] at voltages ``u_v`` [V]."""
        u = u_v / self._v_rated
        return np.asarray(s_va.conj() * self.factor(u.real**2 + u.imag**2) * u / self._v_rated)

    def drawn(self, s_va: Complexes, u_v: Complexes) -> Complexes:
        """Powers [VA] that branches set to ``s_va`` [VA] draw at voltages ``u_v`` [V]."""
        u2 = (u_v.real**2 + u_v.imag**2) / self._v_rated**2
        return np.asarray(s_va * self.factor(u2) * u2)

    def factor(self, u2: Floats) -> Floats:
        """``g`` by the square of the voltage [of rated]."""
        with np.errstate(divide="ignore"):
            g = 1.0 / u2
        if self._current_rows.size:
            g[self._current_rows] = np.sqrt(g[self._current_rows])
        if self._impedance_rows.size:
            g[self._impedance_rows] = 1.0
        if self._limited and not self._all_within(u2):
            row, case = np.nonzero(self.outside(u2))
            g[row, case] = self._outside(row, u2[row, case])[0]
        return np.asarray(g)

    def factor_and_slope(self, u2: Floats) -> tuple[Floats, Floats]:
        """``g`` and its logarithmic derivative ``|u| dg/d|u|``, by the square of the voltage [of rated]; at a limit of
        the law that of the side below."""
        g = self.factor(u2)
        slope = -self._exponent * g
        row, case = np.nonzero(self.outside(u2))
        slope[row, case] = self._outside(row, u2[row, case])[1]
        return g, slope

    def within(self, u2: Floats) -> npt.NDArray[np.bool_]:
        """Which cases have all their voltages within the limits (n_case,), by the squares [of rated]."""
        if self._all_within(u2):
            return np.ones(u2.shape[1], dtype=bool)
        return np.asarray(((u2 > self._min2) & (u2 <= self._max2)).all(axis=0))

    def _all_within(self, u2: Floats) -> bool:
        """A quick look that does not find all such cases."""
        return bool(u2.min(initial=np.inf) > self._common2[0] and u2.max(initial=0.0) <= self._common2[1])

    def outside(self, u2: Floats) -> npt.NDArray[np.bool_]:
        """Where the voltage is outside the limits of the model, by its square [of rated]."""
        return np.asarray((u2 <= self._min2) | (u2 > self._max2))

    def _outside(self, row: npt.NDArray[np.intp], u2: Floats) -> tuple[Floats, Floats]:
        """``g`` and its logarithmic derivative (n,) of branches ``row`` (n,) outside of their limits."""
        u = np.sqrt(u2)
        low, g_low, ramp = self._low[row, 0], self._g_low[row, 0], self._ramp[row, 0]
        above, below = u2 > self._min2[row, 0], u2 <= self._low2[row, 0]
        fixed = above | below
        offset = low * g_low - ramp * low  # the current is offset + ramp u
        with np.errstate(divide="ignore", invalid="ignore"):
            g = np.where(fixed, np.where(below, g_low, self._g_high[row, 0]), offset / u + ramp)
            slope = np.where(fixed, 0.0, -offset / u)
        return g, slope


def _column(values: Iterable[float]) -> Floats:
    return np.array(list(values), dtype=float).reshape(-1, 1)
