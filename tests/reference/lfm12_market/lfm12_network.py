"""The 12-bus network as a dense nodal matrix of one phase, with its power flow and its linear model (README.md)."""

import csv
from pathlib import Path

import numpy as np

from cosim.domain.market import Bid, Direction, PriceStep, Resource
from cosim.market.case import ClearingCase, ClearingSettings
from cosim.market.network import NetworkRows
from cosim.market.planes import LimitSettings
from cosim.market.uncertainty import Uncertainty, box

HERE = Path(__file__).parent
V_SLACK = 8400.0 / np.sqrt(3.0)
LIMIT_A = 117.0
FLEXIBLE = ("POD2", "POD4", "POD7")


def rows_of(name):
    with (HERE / name).open(newline="") as lines:
        return list(csv.DictReader(lines))


BRANCHES = rows_of("branches.csv")
LOADS = rows_of("loads.csv")
PODS = tuple(row["pod"] for row in LOADS)
BUS = np.array([int(row["bus"]) for row in LOADS])
P_KW = np.array([float(row["p_kw"]) for row in LOADS])
Q_KVAR = np.array([float(row["q_kvar"]) for row in LOADS])


def _nodal():
    """Nodal matrix (12, 12) [S] and, by branch, the admittances of its first and its last end (11, 12) [S]."""
    first, last = np.zeros((11, 12), dtype=complex), np.zeros((11, 12), dtype=complex)
    for k, row in enumerate(BRANCHES):
        i, j = int(row["from"]) - 1, int(row["to"]) - 1
        series = 1.0 / complex(float(row["r_ohm"]), float(row["x_ohm"]))
        shunt = complex(float(row["g_s"]), float(row["b_s"])) / 2.0
        first[k, [i, j]] = series + shunt, -series
        last[k, [j, i]] = series + shunt, -series
    y = np.zeros((12, 12), dtype=complex)
    for k, row in enumerate(BRANCHES):
        y[int(row["from"]) - 1] += first[k]
        y[int(row["to"]) - 1] += last[k]
    return y, first, last


Y, FIRST, LAST = _nodal()
Z = np.linalg.inv(Y[1:, 1:])  # the slack, bus 1, is taken out before
V_EMPTY = -Z @ Y[1:, 0] * V_SLACK


def voltages(p_kw, q_kvar, bus=BUS):
    """AC power flow: (12,) [V], loads of constant power."""
    v = V_EMPTY.copy()
    for _ in range(200):
        i = np.zeros(11, dtype=complex)
        np.add.at(i, bus - 2, np.conj(-1000.0 * (p_kw + 1j * q_kvar) / 3.0 / v[bus - 2]))
        last, v = v, V_EMPTY + Z @ i
        if np.abs(v - last).max() < 1e-10:
            return np.concatenate([[V_SLACK], v])
    raise AssertionError("the power flow does not converge")


def currents(v):
    """Current of every branch at the first of its buses (11,) [A]."""
    return FIRST @ v


def network(ends=("2-3",), last_ends=(), pods=PODS, bus=BUS, p_kw=P_KW, q_kvar=Q_KVAR, at=None, limit_a=LIMIT_A):
    """The linear model at a schedule, with the voltages of the power flow there in the loads' currents.

    ``at``: powers (p_kw, q_kvar) whose voltages are taken instead.
    """
    v_tilde = voltages(*(at or (p_kw, q_kvar)), bus)
    own = -1000.0 / 3.0 / v_tilde[bus - 1].conj()  # current injected by 1 kW more consumption
    by_p_v = np.zeros((12, len(pods)), dtype=complex)
    by_p_v[1:] = Z[:, bus - 2] * own
    by_q_v = -1j * by_p_v
    v = np.concatenate([[V_SLACK], V_EMPTY]) + by_p_v @ p_kw + by_q_v @ q_kvar
    names = [row["name"] for row in BRANCHES]
    y = np.array([FIRST[names.index(n)] for n in ends] + [LAST[names.index(n)] for n in last_ends])
    head = 3.0 * V_SLACK * LAST[0] / 1000.0  # import: what enters branch 2-1 at bus 1
    i_names = (*(f"{n}@first" for n in ends), *(f"{n}@last" for n in last_ends))
    return NetworkRows(
        pods=tuple(pods),
        p_kw=p_kw,
        q_kvar=q_kvar,
        conductors=i_names,
        nodes=tuple(str(k) for k in range(1, 13)),
        base=np.concatenate([y @ v, v / V_SLACK]),
        by_p=np.vstack([y @ by_p_v, by_p_v / V_SLACK]),
        by_q=np.vstack([y @ by_q_v, by_q_v / V_SLACK]),
        upper=np.concatenate([np.full(len(i_names), limit_a), np.full(12, np.nan)]),
        lower=np.full(len(i_names) + 12, np.nan),
        head_by_p=(head @ by_p_v).real,
        head_by_q=(head @ by_q_v).real,
    )


def half_bands(case):
    """Half-bands of a case of the study (n_pod,) [kW, kvar]."""
    flexible, other = {1: (0.025, 0.075), 2: (0.05, 0.15), 3: (0.10, 0.30)}[case]
    share = np.array([flexible if pod in FLEXIBLE else other for pod in PODS])
    return share * P_KW, share * Q_KVAR


def uncertainty(case, kind=None, **more):
    return Uncertainty(*half_bands(case), kind or box(), **more)


RESOURCES = {
    pod: Resource(pod, pod, "load", "AGG", p, 0.0, kvar_per_kw=q / p)
    for pod, p, q in zip(PODS, P_KW, Q_KVAR, strict=True)
}


def bid(resource, kw, price=1.0, direction=Direction.UP):
    return Bid(
        f"{resource} {direction.value}", "AGG", "P", direction, 0, (kw,), (PriceStep(kw, price),), resource=resource
    )


def study(case, net=None, planes=32, bids=None, resources=RESOURCES, uncertain=None, limits=None, **settings):
    """The study's clearing of one hour."""
    bids = bids or tuple(bid(pod, float(P_KW[PODS.index(pod)])) for pod in FLEXIBLE)
    limits = limits or LimitSettings(planes=planes)
    return ClearingCase(
        bids=bids,
        resources=resources,
        networks=(net or network(),),
        t_s=0,
        mtu_s=3600,
        uncertainty=(uncertain or uncertainty(case),),
        settings=ClearingSettings(limits=limits, **settings),
    )
