"""The network as a clearing sees it: limited quantities, linear in the power of the PODs, around a schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cosim.domain.frames import Complexes, Floats, Ints
from cosim.grid.linear import Linearisation


@dataclass(frozen=True, eq=False)
class NetworkRows:
    """Quantities with limits in one MTU, with the PODs at their schedule. None equals another.

    ``p_kw``, ``q_kvar`` (n_pod,) scheduled consumption. ``i_a`` (n_conductor,) complex currents, ``v_pu`` (n_node,)
    complex voltages; ``*_by_p``, ``*_by_q`` their derivatives by consumption [per kW, per kvar], (..., n_pod);
    ``i_max_a``, ``v_min_pu``, ``v_max_pu`` the limits, NaN where there is none. ``head_by_p``, ``head_by_q`` (n_pod,)
    change of the active import [kW per kW, per kvar].
    """

    pods: tuple[str, ...]
    p_kw: Floats
    q_kvar: Floats
    conductors: tuple[str, ...]
    i_a: Complexes
    i_by_p: Complexes
    i_by_q: Complexes
    i_max_a: Floats
    nodes: tuple[str, ...]
    v_pu: Complexes
    v_by_p: Complexes
    v_by_q: Complexes
    v_min_pu: Floats
    v_max_pu: Floats
    head_by_p: Floats
    head_by_q: Floats

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Conductors, then nodes (n_quantity,): the order of all arrays over quantities below."""
        return (*self.conductors, *self.nodes)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Place of each POD."""
        return {pod: k for k, pod in enumerate(self.pods)}

    @cached_property
    def base(self) -> Complexes:
        """Quantities at the schedule (n_quantity,) [A, pu]."""
        return np.concatenate([self.i_a, self.v_pu])

    @cached_property
    def upper(self) -> Floats:
        """Upper limits (n_quantity,) [A, pu], NaN where there is none."""
        return np.concatenate([self.i_max_a, self.v_max_pu])

    @cached_property
    def lower(self) -> Floats:
        """Lower limits (n_quantity,) [A, pu], NaN where there is none."""
        return np.concatenate([np.full(len(self.conductors), np.nan), self.v_min_pu])

    @cached_property
    def by_p(self) -> Complexes:
        """(n_quantity, n_pod) [A or pu per kW]."""
        return _joined(self.i_by_p, self.v_by_p)

    @cached_property
    def by_q(self) -> Complexes:
        """(n_quantity, n_pod) [A or pu per kvar]."""
        return _joined(self.i_by_q, self.v_by_q)

    def at(self, delta_p_kw: Floats, delta_q_kvar: Floats) -> Complexes:
        """Quantities (n_quantity,) when consumption differs from the schedule by that much (n_pod,)."""
        return np.asarray(self.base + self.by_p @ delta_p_kw + self.by_q @ delta_q_kvar)


def _joined(first: Complexes, second: Complexes) -> Complexes:
    """One after the other; not copied where there is only one, since over a day ahead these are the largest arrays."""
    if not len(first):
        return second
    return np.concatenate([first, second]) if len(second) else first


def stacked_rows(
    base: Complexes, by_p: Complexes, by_q: Complexes, conductors: Sequence[str], **more: Any
) -> NetworkRows:
    """With the arrays over all quantities as they are: those of currents and of voltages are parts of them."""
    n = len(conductors)
    made = NetworkRows(
        conductors=tuple(conductors),
        i_a=base[:n],
        i_by_p=by_p[:n],
        i_by_q=by_q[:n],
        v_pu=base[n:],
        v_by_p=by_p[n:],
        v_by_q=by_q[n:],
        **more,
    )
    vars(made).update(base=base, by_p=by_p, by_q=by_q)
    return made


def renamed(
    rows: NetworkRows, pods: tuple[str, ...], conductors: tuple[str, ...], nodes: tuple[str, ...]
) -> NetworkRows:
    """The same with other names."""
    made = replace(rows, pods=pods, conductors=conductors, nodes=nodes)
    vars(made).update(base=rows.base, by_p=rows.by_p, by_q=rows.by_q)
    return made


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
    i_a, conductors = model.state.i_a[limited_i], _of(model.conductors, limited_i)
    return stacked_rows(
        base=np.concatenate([i_a, model.state.v[limited_v] * per_v]),
        by_p=_stacked(model.i_by_p[limited_i], model.v_by_p[limited_v], per_v),
        by_q=_stacked(model.i_by_q[limited_i], model.v_by_q[limited_v], per_v),
        conductors=conductors,
        pods=tuple(pods),
        p_kw=model.p_kw,
        q_kvar=model.q_kvar,
        i_max_a=i_max_a[limited_i],
        nodes=_of(model.nodes, limited_v),
        v_min_pu=v_min_pu[limited_v],
        v_max_pu=v_max_pu[limited_v],
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


def _limited(which: npt.NDArray[np.bool_]) -> slice | Ints:
    """Which quantities have a limit, mostly all: then nothing has to be copied."""
    return slice(None) if which.all() else np.flatnonzero(which)


def _of(names: tuple[str, ...], which: slice | Ints) -> tuple[str, ...]:
    return names[which] if isinstance(which, slice) else tuple(names[k] for k in which.tolist())
