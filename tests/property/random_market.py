"""Random small markets: a tree or a loop of branches, loads and generation, limits that may be violated."""

from dataclasses import dataclass, fields, replace

import numpy as np

from cosim.domain.market import Bid, Direction, PriceStep, Resource
from cosim.market.case import ClearingCase, ClearingSettings
from cosim.market.network import NetworkRows
from cosim.market.uncertainty import Uncertainty, box, budget, ellipsoid, factor_set

V = 230.0
TURN = np.exp(-2j * np.pi / 3.0)


@dataclass(frozen=True)
class Grid:
    """Branches from bus to bus (0 is the source) with the admittance of one phase, and a POD at each other bus."""

    ends: np.ndarray
    series: np.ndarray
    p_kw: np.ndarray
    q_kvar: np.ndarray

    def matrices(self):
        """Impedances between PODs (n, n) [ohm] and both ends' currents of all branches by bus voltage (2m, n + 1)."""
        n = len(self.p_kw) + 1
        first = np.zeros((len(self.ends), n), dtype=complex)
        for k, ((i, j), y) in enumerate(zip(self.ends, self.series, strict=True)):
            first[k, i], first[k, j] = y, -y
        incidence = np.zeros((len(self.ends), n))
        incidence[np.arange(len(self.ends)), self.ends[:, 0]] = 1.0
        incidence[np.arange(len(self.ends)), self.ends[:, 1]] = -1.0
        y = incidence.T @ first
        return np.linalg.inv(y[1:, 1:]), np.vstack([first, -first])


def random_grid(seed, meshed=False, generation=0.3):
    """Powers of up to 20 kW, a share of them generation."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    ends = [(int(rng.integers(0, k)), k) for k in range(1, n + 1)]
    if meshed:
        ends.append((0, n))
    series = 1.0 / (rng.uniform(0.01, 0.05, len(ends)) + 1j * rng.uniform(0.005, 0.05, len(ends)))
    p_kw = rng.uniform(5.0, 20.0, n) * np.where(rng.random(n) < generation, -1.0, 1.0)
    return Grid(np.array(ends), series, p_kw, p_kw * rng.uniform(0.0, 0.5, n))


def network_of(grid, phases=(0,)):
    """The linear model at the voltages of the source, of one phase for all three, or of each of ``phases``, which
    differ by a third of a turn only."""
    z, ends = grid.matrices()
    n = len(grid.p_kw)
    turns = [TURN**k for k in phases]
    v_by_p = np.vstack([np.zeros(n), z * (-1000.0 / 3.0 / V)])
    i_by_p = ends @ v_by_p
    s_kva = grid.p_kw - 1j * grid.q_kvar
    v, i_a = V + v_by_p @ s_kva, i_by_p @ s_kva
    names = [f"{i}-{j}:{k}@{end}" for end in "ab" for k, (i, j) in enumerate(grid.ends.tolist())]
    from_source = [k for k, (i, _) in enumerate(grid.ends.tolist()) if i == 0]
    conductors = tuple(f"{name}.{k}" for k in phases for name in names)
    nodes = tuple(f"{bus}.{k}" for k in phases for bus in range(n + 1))
    by_p = np.vstack([*(turn * i_by_p for turn in turns), *(turn * v_by_p / V for turn in turns)])
    return NetworkRows(
        pods=tuple(f"P{k}" for k in range(n)),
        p_kw=grid.p_kw,
        q_kvar=grid.q_kvar,
        conductors=conductors,
        nodes=nodes,
        base=np.concatenate([*(turn * i_a for turn in turns), *(turn * v / V for turn in turns)]),
        by_p=by_p,
        by_q=-1j * by_p,
        upper=np.full(len(conductors) + len(nodes), np.nan),
        lower=np.full(len(conductors) + len(nodes), np.nan),
        head_by_p=3.0 * V / 1000.0 * i_by_p[from_source].sum(axis=0).real,
        head_by_q=3.0 * V / 1000.0 * (-1j * i_by_p[from_source]).sum(axis=0).real,
    )


def limited(net, share, drop_pu=None):
    """Currents limited to ``share`` of the present ones but at least 5 A, voltages to ``drop_pu`` about 1."""
    net = with_currents_up_to(net, np.maximum(share * np.abs(net.i_a), 5.0))
    if drop_pu is None:
        return net
    upper, lower, n = net.upper.copy(), net.lower.copy(), len(net.conductors)
    upper[n:], lower[n:] = 1.0 + drop_pu, 1.0 - drop_pu
    return replace(net, upper=upper, lower=lower)


def with_currents_up_to(net, i_max_a):
    """With other limits of currents."""
    return replace(net, upper=np.append(i_max_a, net.upper[len(net.conductors) :]))


def with_turned_currents(net, angle):
    """With the angles of all currents turned, as if the polygons of their limits were turned the other way."""
    turn = np.exp(1j * angle * (np.arange(len(net.names)) < len(net.conductors)))
    return replace(net, base=net.base * turn, by_p=net.by_p * turn[:, None], by_q=net.by_q * turn[:, None])


def random_case(
    seed, share, half_band=0.0, meshed=False, drop_pu=None, kind=None, phases=(0,), generation=0.3, **settings
):
    """A market on a random grid."""
    net = limited(network_of(random_grid(seed, meshed, generation), phases), share, drop_pu)
    return market_on(net, seed, half_band, kind, **settings)


def market_on(net, seed, half_band=0.0, kind=None, **settings):
    """Every POD may sell all of its load or generation up and half of it down, at prices of its own."""
    rng = np.random.default_rng([seed, 1])
    bids, resources = [], {}
    for pod, p, q in zip(net.pods, net.p_kw, net.q_kvar, strict=True):
        resources[pod] = Resource(pod, pod, "load", "A", abs(p), abs(p), kvar_per_kw=q / p)
        for direction, kw in ((Direction.UP, abs(p)), (Direction.DOWN, abs(p) / 2.0)):
            step = (PriceStep(kw, float(np.round(rng.uniform(0.05, 0.5), 3))),)
            bids.append(Bid(f"{pod} {direction.value}", "A", "P", direction, 0, (kw,), step, resource=pod))
    errors = Uncertainty(half_band * np.abs(net.p_kw), half_band * net.q_kvar * np.sign(net.p_kw), kind or box())
    return ClearingCase(
        tuple(bids), resources, (net,), 0, 900, uncertainty=(errors,), settings=ClearingSettings(**settings)
    )


def uncertain(case, kind, half=0.1, **more):
    """The case with half-bands of a share of all powers."""
    net = case.networks[0]
    return replace(case, uncertainty=(Uncertainty(half * np.abs(net.p_kw), half * np.abs(net.q_kvar), kind, **more),))


KINDS = {
    "box": lambda n: box(),
    "budget": lambda n: budget(0.6 * n),
    "ball": lambda n: ellipsoid(0.3 * np.ones((n, n)) + 0.7 * np.eye(n), 1.2),
    "factors": lambda n: factor_set(np.full((n, 1), 0.6), np.full(n, 0.4)),
}


def sample(kind, n, rng):
    """Points of a set, on its boundary."""
    columns = n if kind.loadings is None else kind.loadings.shape[1]
    eta = rng.uniform(-1.0, 1.0, (200, columns))
    if kind.norm == "ball":
        eta *= kind.size / np.linalg.norm(eta, axis=1, keepdims=True)
    elif kind.norm == "budget":
        eta *= np.minimum(1.0, kind.size / np.abs(eta).sum(axis=1, keepdims=True))
    else:
        eta = np.sign(eta)
    return eta if kind.loadings is None else eta @ kind.loadings.T


def scaled(bid: Bid, factor: float) -> Bid:
    return replace(bid, steps=tuple(replace(s, price_eur_per_kwh=factor * s.price_eur_per_kwh) for s in bid.steps))


def permuted(net: NetworkRows, pods, quantities) -> NetworkRows:
    """The same network with its PODs, conductors and nodes in another order."""
    i, v = quantities
    order = {"pods": pods, "conductors": i, "nodes": v}
    both = np.append(i, len(net.conductors) + np.asarray(v, dtype=int))
    arrays = {
        **dict.fromkeys(("p_kw", "q_kvar", "head_by_p", "head_by_q"), (pods,)),
        **dict.fromkeys(("base", "upper", "lower"), (both,)),
        **dict.fromkeys(("by_p", "by_q"), (both, pods)),
    }
    values = {name: tuple(np.array(getattr(net, name), dtype=object)[at]) for name, at in order.items()}
    for name, at in arrays.items():
        values[name] = getattr(net, name)[np.ix_(*at)]
    assert set(values) == {field.name for field in fields(net)}
    return NetworkRows(**values)
