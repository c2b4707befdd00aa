"""The network as a clearing sees it: limited quantities, linear in the power of the PODs, around a schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cosim.domain.frames import Complexes, Floats, Ints
from cosim.grid.linear import Linearisation

Mask = npt.NDArray[np.bool_]
"""Which quantities (n_quantity,)."""


@dataclass(frozen=True, eq=False)
class NetworkRows:
    """Quantities with limits in one MTU, with the PODs at their schedule: currents of ``conductors``, then voltages of
    ``nodes``. None equals another.

    ``p_kw``, ``q_kvar`` (n_pod,) scheduled consumption. ``base`` (n_quantity,) complex currents and voltages [A, pu];
    ``by_p``, ``by_q`` (n_quantity, n_pod) their derivatives by consumption [per kW, per kvar]; ``upper``, ``lower``
    (n_quantity,) limits of their moduli, NaN where there is none, as there is no lower one of a current. ``head_by_p``,
    ``head_by_q`` (n_pod,) change of the active import [kW per kW, per kvar].
    """

    pods: tuple[str, ...]
    p_kw: Floats
    q_kvar: Floats
    conductors: tuple[str, ...]
    nodes: tuple[str, ...]
    base: Complexes
    by_p: Complexes
    by_q: Complexes
    upper: Floats
    lower: Floats
    head_by_p: Floats
    head_by_q: Floats

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Conductors, then nodes (n_quantity,)."""
        return (*self.conductors, *self.nodes)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Place of each POD."""
        return {pod: k for k, pod in enumerate(self.pods)}

    @property
    def i_a(self) -> Complexes:
        """Currents (n_conductor,) [A]."""
        return self.base[: len(self.conductors)]

    @property
    def i_max_a(self) -> Floats:
        """Limits of currents (n_conductor,) [A], NaN where there is none."""
        return self.upper[: len(self.conductors)]

    def at(self, delta_p_kw: Floats, delta_q_kvar: Floats) -> Complexes:
        """Quantities (n_quantity,) when consumption differs from the schedule by that much (n_pod,)."""
        return np.asarray(self.base + self.by_p @ delta_p_kw + self.by_q @ delta_q_kvar)


_OF_QUANTITIES: Final = ("base", "by_p", "by_q", "upper", "lower")


def network_part(rows: NetworkRows, keep: Mask) -> NetworkRows:
    """The quantities marked in ``keep`` (n_quantity,)."""
    if keep.all():
        return rows
    kept = np.flatnonzero(keep)
    names = [rows.names[k] for k in kept.tolist()]
    n = int(np.count_nonzero(keep[: len(rows.conductors)]))
    arrays: dict[str, Any] = {name: getattr(rows, name)[kept] for name in _OF_QUANTITIES}
    return replace(rows, conductors=tuple(names[:n]), nodes=tuple(names[n:]), **arrays)


def with_quantities(rows: NetworkRows, more: NetworkRows) -> NetworkRows:
    """With the quantities of ``more`` too, whose PODs are as many."""
    n, m = len(rows.conductors), len(more.conductors)
    pairs = {name: (getattr(rows, name), getattr(more, name)) for name in _OF_QUANTITIES}
    arrays: dict[str, Any] = {name: np.concatenate([a[:n], b[:m], a[n:], b[m:]]) for name, (a, b) in pairs.items()}
    return replace(rows, conductors=rows.conductors + more.conductors, nodes=rows.nodes + more.nodes, **arrays)


def network_rows(
    model: Linearisation,
    pods: Sequence[str],
    v_base: Floats,
    i_max_a: Floats,
    v_min_pu: Floats,
    v_max_pu: Floats,
) -> NetworkRows:
    """What a linearisation says of all quantities that have a limit.

    ``v_base`` (n_node,) [V]; limits (n_conductor,) [A] and (n_node,) [pu], NaN for none; to limit one end of a branch
    only, give NaN for the conductors of the other.
    """
    limited_i = _limited(~np.isnan(i_max_a))
    limited_v = _limited(~(np.isnan(v_min_pu) & np.isnan(v_max_pu)))
    per_v = 1.0 / v_base[limited_v]
    conductors, nodes = _of(model.conductors, limited_i), _of(model.nodes, limited_v)
    return NetworkRows(
        pods=tuple(pods),
        p_kw=model.p_kw,
        q_kvar=model.q_kvar,
        conductors=conductors,
        nodes=nodes,
        base=np.concatenate([model.state.i_a[limited_i], model.state.v[limited_v] * per_v]),
        by_p=_stacked(model.i_by_p[limited_i], model.v_by_p[limited_v], per_v),
        by_q=_stacked(model.i_by_q[limited_i], model.v_by_q[limited_v], per_v),
        upper=np.concatenate([i_max_a[limited_i], v_max_pu[limited_v]]),
        lower=np.concatenate([np.full(len(conductors), np.nan), v_min_pu[limited_v]]),
        head_by_p=model.head_by_p.real,
        head_by_q=model.head_by_q.real,
    )


def _stacked(i_by: Complexes, v_by: Complexes, per_v: Floats) -> Complexes:
    """Derivatives of currents [A], then of voltages [V] by ``per_v`` (n_node,)."""
    n = len(i_by)
    whole = np.empty((n + len(v_by), i_by.shape[1]), dtype=np.complex128)
    whole[:n] = i_by
    np.multiply(v_by, per_v[:, None], out=whole[n:])
    return whole


def _limited(which: Mask) -> slice | Ints:
    """Which quantities have a limit, mostly all: then nothing has to be copied."""
    return slice(None) if which.all() else np.flatnonzero(which)


def _of(names: tuple[str, ...], which: slice | Ints) -> tuple[str, ...]:
    return names[which] if isinstance(which, slice) else tuple(names[k] for k in which.tolist())
