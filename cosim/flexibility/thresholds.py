"""The operator's rule: charge by what the head lacks to its threshold, empty again in the discharge window.

The rule sees the head power as it would be without any order. So it never reacts to its own orders: deciding on a state
that contains them makes the activation oscillate from one MTU to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import time

import numpy as np

from cosim.domain.flexibility import StorageUnit
from cosim.domain.frames import Floats
from cosim.flexibility.storage import feasible_kw, stored_kwh
from cosim.scenario.schema import Discharge


def decide(
    units: Sequence[StorageUnit],
    thresholds_kw: Floats,
    discharge: Discharge,
    head_idle_kw: Floats,
    e_kwh: Floats,
    local_time: time,
    mtu_s: float,
) -> Floats:
    """Power [kW] for each unit in the MTU that begins at ``local_time``, feasible from ``e_kwh`` stored.

    Shapes: ``thresholds_kw``, ``e_kwh`` and the result (..., n_unit); ``head_idle_kw`` (...). Units act in turn, each
    counting on what those before it do in its own direction: no unit charges what another discharges. Where the head
    power is not known (NaN) nothing is ordered.
    """
    known = np.where(np.isnan(head_idle_kw), 0.0, head_idle_kw)
    orders = np.zeros(np.broadcast_shapes(thresholds_kw.shape, e_kwh.shape))
    emptying = in_window(local_time, discharge)
    for k, unit in enumerate(units):
        before_kw = orders[..., :k]
        lack_kw = thresholds_kw[..., k] - (known + np.maximum(before_kw, 0.0).sum(axis=-1))
        spare_kw = known + np.minimum(before_kw, 0.0).sum(axis=-1) - discharge.keep_import_kw
        spare_kw = np.clip(spare_kw, 0.0, discharge.power_kw) if emptying else 0.0
        wanted_kw = np.where(lack_kw > 0.0, lack_kw, -spare_kw)
        orders[..., k] = feasible_kw(unit, wanted_kw, e_kwh[..., k], mtu_s)
    return np.where(np.isnan(head_idle_kw)[..., None], 0.0, orders)


def in_window(local_time: time, discharge: Discharge) -> bool:
    """Whether an MTU beginning at ``local_time`` lies in the discharge window, which may span midnight."""
    if discharge.start <= discharge.end:
        return discharge.start <= local_time < discharge.end
    return local_time >= discharge.start or local_time < discharge.end


def after(units: Sequence[StorageUnit], p_kw: Floats, e_kwh: Floats, duration_s: float) -> Floats:
    """Energy stored [kWh] in each unit (..., n_unit) after ``duration_s`` [s] at ``p_kw``."""
    return np.stack(
        [stored_kwh(unit, p_kw[..., k], e_kwh[..., k], duration_s) for k, unit in enumerate(units)], axis=-1
    )
