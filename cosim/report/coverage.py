"""How far half-bands bound the errors of the network operator's forecasts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import Floats
from cosim.report.market_run import MarketRun

_CLOSE = 1e-6


@dataclass(frozen=True)
class Coverage:
    """Mean errors over each MTU that a session looked at, of active (``P``) or reactive power (``Q``) in ``unit``.

    ``shares`` (n_mtu, n_pod): in half-bands, NaN without a half-band; ``bare``: the largest error without one, in
    ``unit``.
    """

    quantity: str
    unit: str
    pods: tuple[str, ...]
    shares: Floats
    bare: float

    @property
    def within(self) -> float:
        """Share [1] of the errors that have a half-band within it; NaN without any."""
        there = np.abs(self.shares[~np.isnan(self.shares)])
        return float((there <= 1.0 + _CLOSE).mean()) if there.size else float("nan")

    @property
    def least(self) -> tuple[str, float]:
        """The POD where that share [1] is least; NaN without any."""
        there, inside = (~np.isnan(self.shares)).sum(axis=0), (np.abs(self.shares) <= 1.0 + _CLOSE).sum(axis=0)
        if not there.any():
            return "", float("nan")
        of_pod = np.divide(inside, there, out=np.full(len(self.pods), np.inf), where=there > 0)
        least = int(of_pod.argmin())
        return self.pods[least], float(of_pod[least])


def coverage(run: MarketRun) -> tuple[Coverage, ...]:
    """Of active and of reactive power; empty where no forecast was recorded."""
    errors = run.errors
    if errors is None or not errors.looked_at.any():
        return ()
    first = np.arange(run.n_mtu) * run.steps_per_mtu
    seen, steps = errors.looked_at[first], np.diff([*first, run.reading.steps])[:, None]

    def of(quantity: str, unit: str, error: Floats, half: Floats) -> Coverage:
        mean, bound = (np.add.reduceat(error, first, axis=0) / steps)[seen], half[first][seen]
        shares = np.divide(mean, bound, out=np.full_like(mean, np.nan), where=bound > 0.0)
        return Coverage(quantity, unit, errors.pods, shares, float(np.abs(mean[bound <= 0.0]).max(initial=0.0)))

    return (
        of("P", "kW", errors.p_kw, errors.half_p_kw),
        of("Q", "kvar", errors.q_kvar, errors.half_q_kvar),
    )


def asked(run: MarketRun) -> float | None:
    """The share [1] of errors that half-bands are to bound; None where the forecast is not made from the past."""
    config = (run.reading.scenario.get("dso") or {}).get("forecast") or {}
    return config.get("coverage") if config.get("method") != "perfect" else None
