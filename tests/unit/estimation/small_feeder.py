"""A feeder small enough to reason about: three sites on one line, losses and voltage drops in closed form."""

from dataclasses import dataclass, field, replace

import numpy as np

from cosim.domain.frames import frozen
from cosim.domain.measurement import Channel, Place, Quality, Snapshot
from cosim.estimation.history import HistoryWindow
from cosim.estimation.problem import EstimationProblem
from cosim.rng import rng_for

SITES = ("A", "B", "C")
R_PU_PER_KW, X_PU_PER_KVAR = 2e-5, 1e-5
LOSS_PER_KVA = 3e-5


@dataclass
class SmallFeeder:
    """Sections head-A-B-C: each loses ``LOSS_PER_KVA * s^2`` and drops ``r p + x q`` of what lies behind it.

    A case with any site above ``limit_kw`` does not converge. ``cases`` lists the sizes of the batches asked for,
    ``slopes`` counts the linearisations.
    """

    channels: tuple[Channel, ...]
    limit_kw: float = np.inf
    sites: tuple[str, ...] = SITES
    cases: list[int] = field(default_factory=list)
    slopes: int = 0

    def predict(self, p_kw, q_kvar):
        self.cases.append(len(p_kw))
        behind_p, behind_q = (np.cumsum(x[:, ::-1], axis=1)[:, ::-1] for x in (p_kw, q_kvar))
        loss_kw = LOSS_PER_KVA * (behind_p**2 + behind_q**2).sum(axis=1)
        vm_pu = 1.02 - np.cumsum(R_PU_PER_KW * behind_p + X_PU_PER_KVAR * behind_q, axis=1)
        readings = [self._read(c, p_kw, q_kvar, vm_pu, behind_p[:, 0] + loss_kw, behind_q[:, 0]) for c in self.channels]
        result = np.stack(readings, axis=1) if readings else np.zeros((len(p_kw), 0))
        result[(p_kw > self.limit_kw).any(axis=1)] = np.nan
        return result

    def _read(self, channel, p_kw, q_kvar, vm_pu, head_p_kw, head_q_kvar):
        if channel.place.storage is not None:
            return np.full(len(p_kw), np.nan)
        if channel.place.branch is not None:
            return {"p_kw": head_p_kw, "q_kvar": head_q_kvar}[channel.quantity]
        return {"p_kw": p_kw, "q_kvar": q_kvar, "vm_pu": vm_pu}[channel.quantity][:, SITES.index(channel.place.bus)]

    def linearised(self, p_kw, q_kvar):
        self.slopes += 1
        calls = list(self.cases)
        reading = self.predict(p_kw[np.newaxis], q_kvar[np.newaxis])[0]
        self.cases[:] = calls
        rows = [self._slope(c, p_kw, q_kvar) for c in self.channels]
        slope = np.array(rows).reshape(len(rows), 2 * len(SITES))
        return reading, slope if (p_kw <= self.limit_kw).all() else np.full_like(slope, np.nan)

    def _slope(self, channel, p_kw, q_kvar):
        """Derivatives of one reading (6,) by hand."""
        n = len(SITES)
        if channel.place.storage is not None:
            return np.full(2 * n, np.nan)
        if channel.place.branch is not None:
            behind = np.concatenate([np.cumsum(x[::-1])[::-1] for x in (p_kw, q_kvar)])
            loss = 2.0 * LOSS_PER_KVA * np.concatenate([np.cumsum(half) for half in np.split(behind, 2)])
            own = np.repeat([1.0, 0.0], n) if channel.quantity == "p_kw" else np.repeat([0.0, 1.0], n)
            return own + loss if channel.quantity == "p_kw" else own
        k = SITES.index(channel.place.bus)
        if channel.quantity == "vm_pu":
            return self.voltage_slope(p_kw, q_kvar)[k]
        return np.eye(2 * n)[k if channel.quantity == "p_kw" else n + k]

    def voltage_slope(self, p_kw, q_kvar):
        shared = np.minimum.outer(np.arange(1, 4), np.arange(1, 4))  # sections that both paths to the head have
        return -np.hstack([R_PU_PER_KW * shared, X_PU_PER_KVAR * shared])


def channel(where, quantity, sigma):
    """``where``: a site, ``head``, or ``battery``."""
    place = Place(bus=where)
    if where == "head":
        place = Place(branch="L1", end="MV0")
    elif where == "battery":
        place = Place(storage="B.battery")
    return Channel(meter=where, topic=f"m/{where}/{quantity}", quantity=quantity, place=place, sigma=sigma)


HEAD = (channel("head", "p_kw", 3.0), channel("head", "q_kvar", 3.0))
METER_A = (channel("A", "p_kw", 1.0), channel("A", "q_kvar", 1.0), channel("A", "vm_pu", 1e-3))
METER_B = (channel("B", "p_kw", 1.0), channel("B", "q_kvar", 1.0), channel("B", "vm_pu", 1e-3))
METER_C = (channel("C", "p_kw", 1.0), channel("C", "q_kvar", 1.0), channel("C", "vm_pu", 1e-3))

MEAN = np.array([100.0, -50.0, 200.0, 30.0, 10.0, 60.0])
SPREAD = np.array([20.0, 30.0, 40.0, 5.0, 8.0, 10.0])
TRUTH = np.array([110.0, -70.0, 230.0, 33.0, 6.0, 68.0])


def history(spread=SPREAD, correlation=0.0, mean=MEAN):
    """Bounds at 4 standard deviations; ``correlation`` between every two injections."""
    shape = np.full((6, 6), correlation) + (1.0 - correlation) * np.eye(6)
    return HistoryWindow(
        lower=frozen(mean - 4.0 * spread),
        upper=frozen(mean + 4.0 * spread),
        mean=frozen(mean),
        covariance=frozen(np.outer(spread, spread) * shape),
    )


def draws(count, channels, window, *, seed=1):
    """So many truths drawn from the history, with the problem of readings whose errors are drawn from their sigma."""
    rng = rng_for(seed, "draws")
    root, sigma = np.linalg.cholesky(window.covariance), np.array([c.sigma for c in channels])
    for _ in range(count):
        truth = window.mean + root @ rng.standard_normal(6)
        case = problem(channels, truth=truth, window=window)
        yield truth, misread(case, sigma * rng.standard_normal(len(sigma)))


def misread(case, error):
    """The problem with ``error`` (n_channel,) added to its readings, or, by topic, in standard deviations."""
    if isinstance(error, dict):
        error = np.array([error.get(c.topic, 0.0) * c.sigma for c in case.channels])
    return replace(case, snapshot=Snapshot(case.snapshot.value + error, case.snapshot.quality))


def problem(channels, *, truth=TRUTH, ordered=(0.0, 0.0, 0.0), missing=(), window=None, limit_kw=np.inf):
    """Noise-free readings of ``truth`` plus orders; channels whose topic is in ``missing`` did not arrive."""
    ordered_p_kw = np.array(ordered)
    flow = SmallFeeder(tuple(channels))
    lost = np.array([c.topic in missing or c.place.storage is not None for c in channels], dtype=bool)
    value = flow.predict(truth[np.newaxis, :3] + ordered_p_kw, truth[np.newaxis, 3:])[0]
    flow.cases.clear()
    flow.limit_kw = limit_kw
    quality = np.where(lost, Quality.MISSING, Quality.GOOD)
    snapshot = Snapshot(frozen(np.where(lost, np.nan, value)), frozen(quality, np.int8))
    ordered_pq = frozen([*ordered_p_kw, 0.0, 0.0, 0.0])
    return EstimationProblem(flow, tuple(channels), snapshot, window or history(), ordered_pq)
