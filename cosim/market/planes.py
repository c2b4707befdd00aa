"""Limits of complex quantities as linear rows ``Re(w z) <= bound``: polygons for currents, projections for voltages.

Sources: N-plane current limits and the voltage norm: L. De
Simone, MSc thesis, Politecnico di Milano 2024-25, eq. (66) and (72)-(74), (82); the coefficients here are reduced to a
direction and a bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, Literal, get_args

import numpy as np

from cosim.domain.frames import Complexes, Floats, Ints
from cosim.errors import BidError, Fault
from cosim.market.network import NetworkRows

Polygon = Literal["inscribed", "circumscribed", "best_fit"]
LimitKind = Literal["i_max", "i_ceiling", "v_min", "v_max"]
LIMIT_KINDS: tuple[LimitKind, ...] = get_args(LimitKind)
CURRENTS: tuple[LimitKind, ...] = ("i_max", "i_ceiling")
_FAN_DEG = 2.0  # between the planes of an upper voltage limit; their edge lies at half of it
_FAN: Final = np.exp(-1j * np.radians([-_FAN_DEG, 0.0, _FAN_DEG]))
_KEPT = 16


@dataclass(frozen=True)
class LimitSettings:
    """How limits become rows.

    ``planes`` of a current limit, and whether their polygon lies inside the circle (safe), outside or between.
    ``voltage``: ``projection`` on the present angle, or the ``norm`` lambda v_r + beta (v_r + |v_i|), valid up to
    ``norm_angle_deg`` from the reference angle. ``overload`` tau: currents may be (1 + tau) times their limit; with
    ``overload_ceiling`` c they may also with all forecast errors at once not exceed c times the limit (two tiers);
    with ``overload_eur_per_a_h`` what lies above the limit, up to tau, costs that much.
    """

    planes: int = 64
    polygon: Polygon = "inscribed"
    voltage: Literal["projection", "norm"] = "projection"
    norm_angle_deg: float = 10.0
    overload: float = 0.0
    overload_ceiling: float | None = None
    overload_eur_per_a_h: float | None = None

    def __post_init__(self) -> None:
        faults = [
            Fault("a polygon needs at least 3 planes", key="planes", value=str(self.planes))
            if self.planes < 3
            else None,
            Fault("must not be negative", key="overload", value=str(self.overload)) if self.overload < 0.0 else None,
            Fault("must be in (0, 90]", key="norm_angle_deg", value=str(self.norm_angle_deg))
            if not 0.0 < self.norm_angle_deg <= 90.0
            else None,
        ]
        if found := [fault for fault in faults if fault is not None]:
            raise BidError(found)


@dataclass(frozen=True)
class PlaneFamily:
    """Limits of one kind: ``Re(weight * z[quantity]) <= bound`` for every plane.

    ``quantity``, ``limit`` (n_limit,) in its unit; ``weight``, ``bound`` (n_limit, n_plane); ``stretch``: by how much
    bounds move with the limit.
    Of the kind ``i_ceiling`` (second tier) the protection is that against all forecast errors at once.
    """

    kind: LimitKind
    quantity: Ints
    limit: Floats
    weight: Complexes
    bound: Floats
    stretch: float

    @property
    def ceiling(self) -> bool:
        return self.kind == "i_ceiling"

    @cached_property
    def least_bound(self) -> Floats:
        """Of all planes (n_limit,)."""
        return np.asarray(self.bound.min(axis=1))


def plane_families(network: NetworkRows, settings: LimitSettings, margin: Floats | None = None) -> list[PlaneFamily]:
    """All limits of a network as planes; ``margin`` (n_quantity, 2) is kept clear of upper and of lower limits."""
    clear = np.zeros((len(network.names), 2)) if margin is None else margin
    priced = settings.overload_eur_per_a_h is not None
    families = [_currents(network, settings, clear, "i_max", 1.0 if priced else 1.0 + settings.overload)]
    if settings.overload_ceiling is not None:
        families.append(_currents(network, settings, clear, "i_ceiling", settings.overload_ceiling))
    return [family for family in (*families, *_voltages(network, settings, clear)) if len(family.quantity)]


def kappa(planes: int, polygon: Polygon) -> float:
    """Distance of the planes of a regular polygon from the centre of a unit circle."""
    inner = math.cos(math.pi / planes)
    return {"inscribed": inner, "circumscribed": 1.0, "best_fit": 2.0 * inner / (1.0 + inner)}[polygon]


def _currents(
    network: NetworkRows, settings: LimitSettings, margin: Floats, kind: LimitKind, factor: float
) -> PlaneFamily:
    limited = np.flatnonzero(~np.isnan(network.i_max_a))
    limit = factor * network.i_max_a[limited]
    stretch = kappa(settings.planes, settings.polygon)
    shape = (len(limited), settings.planes)
    weight = np.broadcast_to(_around(settings.planes), shape)
    bound = np.broadcast_to((stretch * limit - margin[limited, 0])[:, None], shape)
    return PlaneFamily(kind, limited, limit, weight, bound, stretch)


@lru_cache(_KEPT)
def _around(planes: int) -> Complexes:
    """Weights (n_plane,) of a polygon."""
    angles = (np.arange(planes) + 0.5) * (2.0 * np.pi / planes)
    weight: Complexes = np.exp(-1j * angles)
    weight.flags.writeable = False
    return weight


def _voltages(network: NetworkRows, settings: LimitSettings, margin: Floats) -> tuple[PlaneFamily, ...]:
    if not network.nodes:
        return ()
    first = len(network.conductors)
    low = np.flatnonzero(~np.isnan(network.lower))  # currents have none
    high = first + np.flatnonzero(~np.isnan(network.upper[first:]))
    v_min, v_max = network.lower[low], network.upper[high]
    if settings.voltage == "projection":
        ahead_low, ahead_high, stretch = projection_planes(network.base[low], network.base[high])
    else:
        theta = math.radians(settings.norm_angle_deg)
        ahead_low, ahead_high, stretch = norm_planes(network, low, high, theta)
    least, most = v_min + margin[low, 1], stretch * v_max - margin[high, 0]
    return (
        PlaneFamily("v_min", low, v_min, -ahead_low, _wide(-least, ahead_low), 1.0),
        PlaneFamily("v_max", high, v_max, ahead_high, _wide(most, ahead_high), stretch),
    )


def _wide(bound: Floats, weight: Complexes) -> Floats:
    return np.broadcast_to(bound[:, None], weight.shape)


def projection_planes(v_low: Complexes, v_high: Complexes) -> tuple[Complexes, Complexes, float]:
    """Weights (n, 1) of lower and (n, 3) of upper limits, and the factor on the upper ones.

    The projection on a direction is never above the modulus, so one plane serves the lower limit; three, two degrees
    apart, are below cos(1 deg) of the upper limit only within it, up to 3 degrees from the present angle.
    """
    ahead_low, ahead_high = (np.exp(-1j * np.angle(v))[:, None] for v in (v_low, v_high))
    return ahead_low, ahead_high * _FAN, math.cos(math.radians(_FAN_DEG / 2.0))


def norm_planes(network: NetworkRows, low: Ints, high: Ints, theta: float) -> tuple[Complexes, Complexes, float]:
    """The same by ``Psi(v) = lambda v_r + beta (v_r + |v_i|) = R |v| cos(|angle| - theta / 2)`` up to ``theta`` [rad].

    R = 1 is never above |v| and serves the lower limit, with the sign of v_i as it is now (the limit is reverse-convex
    in v_i); R = 1 / cos(theta / 2) is never below |v| and serves the upper one, with both signs. The reference angle is
    the multiple of 30 degrees nearest to the present angle. Raises BidError for nodes further than theta from it.
    """
    first = len(network.conductors)
    angle = np.angle(network.base)
    reference = np.round(angle / (np.pi / 6.0)) * (np.pi / 6.0)
    off = angle - reference
    far = [node for node, by in zip(network.nodes, off[first:], strict=True) if abs(by) > theta]
    if far:
        allowed = f"nodes within {math.degrees(theta):g} degrees of a multiple of 30"
        raise BidError(
            Fault(f"the voltage norm does not hold at {', '.join(far)}", key="norm_angle_deg", allowed=allowed)
        )
    half = np.exp(-1j * theta / 2.0)
    side = np.where(off[low] < 0.0, half.conj(), half)
    ahead = np.exp(-1j * reference)
    both = np.array([half, half.conj()])
    return (ahead[low] * side)[:, None], ahead[high][:, None] * both, math.cos(theta / 2.0)


def norm_coefficients(theta: float, fit: Literal["best", "below", "above"]) -> tuple[float, float]:
    """lambda and beta of the voltage norm for angles up to ``theta`` [rad]: the best fit (largest relative error
    tan^2(theta / 4)), never above or never below the modulus."""
    half = theta / 2.0
    radius = {"best": 2.0 / (1.0 + math.cos(half)), "below": 1.0, "above": 1.0 / math.cos(half)}[fit]
    return radius * (math.cos(half) - math.sin(half)), radius * math.sin(half)
