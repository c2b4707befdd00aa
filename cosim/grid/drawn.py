"""What PODs draw at their voltages, by OpenDSS's load laws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cosim.domain.frames import Complexes, Floats
from cosim.grid.law import LoadLaw
from cosim.grid.unloaded import has_known_law, pod_branches

_CONSTANT_POWER, _CONSTANT_CURRENT, _IMPEDANCE = 2, 1, 0  # exponents of laws


class DrawnPower:
    """Turns what was set into what is drawn.

    ``elements`` (n_pod,) are those of the PODs, full names in lower case. PODs with a load law that is not known here
    are read from the engine one by one, after each solve.
    """

    def __init__(self, dss: Any, elements: Sequence[str]) -> None:
        self._circuit = dss.ActiveCircuit
        known = [pod for pod, element in enumerate(elements) if has_known_law(dss, element)]
        self._foreign = [(pod, element) for pod, element in enumerate(elements) if pod not in set(known)]
        branches = pod_branches(dss, [elements[pod] for pod in known])
        self._law = LoadLaw(branches)
        self._pod = np.array([known[branch.pod] for branch in branches], dtype=np.int64)
        self._share = np.array([branch.share for branch in branches])
        self._v_rated = np.array([branch.v_rated for branch in branches])
        self._from, self._to = np.array([branch.nodes for branch in branches], dtype=np.int64).reshape(-1, 2).T.copy()
        laws = [branch.law for branch in branches]
        exponent = np.array([law.exponent for law in laws], dtype=np.int64)
        self._constant_power = not self._foreign and bool((exponent == _CONSTANT_POWER).all())
        self._constant_current = np.flatnonzero(exponent == _CONSTANT_CURRENT)
        self._impedance = np.flatnonzero(exponent == _IMPEDANCE)
        self._v_min = self._v_rated * np.array([max(law.v_low, law.v_min) for law in laws])
        self._v_max = self._v_rated * np.array([law.v_max for law in laws])

    def __call__(self, p_kw: Floats, q_kvar: Floats, v: Complexes) -> tuple[Floats, Floats]:
        """``p_kw``, ``q_kvar`` (n_pod,) drawn where the same was set, at node voltages ``v`` [V], ground first
        (1 + n_node,). Where all is of constant power, what was set itself."""
        v_branch = np.abs(v.take(self._from) - v.take(self._to))
        is_inside = np.count_nonzero((v_branch > self._v_min) & (v_branch <= self._v_max)) == len(v_branch)
        if is_inside and self._constant_power:
            return p_kw, q_kvar
        u = v_branch / self._v_rated
        share = self._inside(u) if is_inside else self._law.factor((u * u)[:, None])[:, 0] * (u * u)
        drawn = np.bincount(self._pod, self._share * share, len(p_kw))
        p_drawn, q_drawn = drawn * p_kw, drawn * q_kvar
        for pod, element in self._foreign:
            self._circuit.SetActiveElement(element)
            power = self._circuit.ActiveCktElement.Powers
            p_drawn[pod], q_drawn[pod] = power[::2].sum(), power[1::2].sum()
        return p_drawn, q_drawn

    def _inside(self, u: Floats) -> Floats:
        """What branches draw over what is set, at voltages ``u`` (n_branch,) [of rated] within their limits."""
        share = np.ones(len(u))
        share[self._constant_current] = u[self._constant_current]
        share[self._impedance] = u[self._impedance] ** 2
        return share
