"""Checks of what a market is given, once, at its gate: all faults at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import ValidationError

from cosim.domain.market import (
    ActivationLimit,
    Bid,
    Coupling,
    Direction,
    Need,
    RampLimit,
    Resource,
    StorageLimit,
    from_json,
)
from cosim.errors import BidError, Fault
from cosim.market.case import ClearingCase

_SHARES = 1e-9
_KWH = 1e-6


def bids_from_json(documents: Sequence[Mapping[str, Any]]) -> tuple[Bid, ...]:
    """Bids as `to_json` makes them; raises BidError with all that is missing, of a wrong type or not known."""
    bids, faults = [], []
    for k, document in enumerate(documents):
        try:
            bids.append(from_json(Bid, document))
        except ValidationError as refused:
            key = f"bid {document.get('id', f'number {k + 1}')}"
            for error in refused.errors():
                place = ".".join(map(str, error["loc"]))
                value = "" if error["type"] == "missing" else str(error["input"])
                faults.append(Fault(f"{place}: {error['msg']}", key=key, value=value))
    if faults:
        raise BidError(faults)
    return tuple(bids)


def check_case(case: ClearingCase, gate_closure_s: int | None = None) -> None:
    """Raises BidError with all faults in bids, resources, couplings, needs and half-bands; ``gate_closure_s`` instead
    of the case's own."""
    faults = [
        *_forecast_faults(case),
        *_twice([bid.id for bid in case.bids]),
        *(fault for bid in case.bids for fault in bid_faults(bid, case, gate_closure_s)),
        *(fault for resource in case.resources.values() for fault in _resource_faults(resource, case)),
        *_beyond_capability(case),
        *(fault for coupling in case.couplings for fault in _coupling_faults(coupling, case)),
        *(fault for need in case.needs for fault in _need_faults(need, case)),
    ]
    if faults:
        raise BidError(faults)


def bid_faults(bid: Bid, case: ClearingCase, gate_closure_s: int | None = None) -> Iterator[Fault]:
    """All that is wrong with one bid."""
    key = f"bid {bid.id}"
    gate_s = case.gate_s if gate_closure_s is None else gate_closure_s
    if gate_s is not None and bid.submitted_s > gate_s:
        yield Fault("submitted after gate closure", key=key, value=f"{bid.submitted_s} s", allowed=f"{gate_s} s")
    if bid.t_s != case.t_s or len(bid.quantity_kw) != case.n_mtu:
        span = f"{case.n_mtu} MTUs from {case.t_s} s"
        yield Fault("of other MTUs", key=key, value=f"{len(bid.quantity_kw)} MTUs from {bid.t_s} s", allowed=span)
    for kw in bid.quantity_kw:
        if not (math.isfinite(kw) and kw >= 0.0):
            yield Fault("a quantity must be a number of 0 or more kW", key=key, value=str(kw))
    yield from _price_faults(bid, key)
    yield from _member_faults(bid, case, key)
    yield from _acceptance_faults(bid, case, key)


def _price_faults(bid: Bid, key: str) -> Iterator[Fault]:
    if not bid.steps:
        yield Fault("no price", key=key)
    for step in bid.steps:
        if not math.isfinite(step.price_eur_per_kwh):
            yield Fault("a price must be a number", key=key, value=str(step.price_eur_per_kwh))
        if not (math.isfinite(step.quantity_kw) and step.quantity_kw > 0.0):
            yield Fault("a price step must have a quantity above 0 kW", key=key, value=str(step.quantity_kw))
    prices = [step.price_eur_per_kwh for step in bid.steps]
    if any(then < now for now, then in pairwise(prices)):
        yield Fault("prices of steps must increase", key=key, value=str(prices))
    priced_kw = math.fsum(step.quantity_kw for step in bid.steps)
    if bid.steps and max(bid.quantity_kw, default=0.0) > priced_kw * (1.0 + _SHARES):
        yield Fault(
            "quantity without a price", key=key, value=f"{max(bid.quantity_kw):g} kW", allowed=f"{priced_kw:g} kW"
        )


def _member_faults(bid: Bid, case: ClearingCase, key: str) -> Iterator[Fault]:
    ways = [bid.resource is not None, bool(bid.shares), bool(bid.any_of)]
    if sum(ways) != 1:
        yield Fault("must name who delivers once: a resource, shares or any of several", key=key)
    for name in bid.members:
        if name not in case.resources:
            known = ", ".join(case.resources) or "none"
            yield Fault("no resource of that name", key=key, value=name, allowed=known)
    if bid.shares and abs(math.fsum(share for _, share in bid.shares) - 1.0) > _SHARES:
        yield Fault("shares must add up to 1", key=key, value=str(bid.shares))
    if bid.any_of:
        coupled = {coupling.resource for coupling in case.couplings}
        if case.settings.interface_kw is not None or case.settings.objective != "least_cost":
            problem = "a bid of any split has no certain effect on the interface: give shares"
            yield Fault(problem, key=key)
        for name in bid.any_of:
            if name in coupled or (name in case.resources and case.resources[name].rebound):
                yield Fault("a resource of a bid of any split cannot be tied over the MTUs", key=key, value=name)


def _acceptance_faults(bid: Bid, case: ClearingCase, key: str) -> Iterator[Fault]:
    if not 0.0 <= bid.min_accept <= 1.0:
        yield Fault("min_accept must be in [0, 1]", key=key, value=str(bid.min_accept))
    if bid.block and len(bid.steps) > 1:
        yield Fault("a block has one price", key=key, value=f"{len(bid.steps)} steps")
    if bid.parent is not None:
        parent = next((other for other in case.bids if other.id == bid.parent), None)
        if parent is None:
            yield Fault("no bid to be linked to", key=key, value=bid.parent)
        elif not (bid.block and parent.block):
            yield Fault("linked bids must be blocks", key=key, value=bid.parent)
    locked = case.locked.get(bid.id, ())
    if any(now > kw * (1.0 + _SHARES) for now, kw in zip(locked, bid.quantity_kw, strict=False)):
        yield Fault("more was awarded before than is offered", key=key, value=str(locked))


def _forecast_faults(case: ClearingCase) -> Iterator[Fault]:
    if case.uncertainty is None:
        return
    if len(case.uncertainty) != case.n_mtu:
        value, allowed = f"{len(case.uncertainty)} MTUs", f"{case.n_mtu} MTUs"
        yield Fault("of other MTUs", key="uncertainty", value=value, allowed=allowed)
    for t, uncertainty in enumerate(case.uncertainty):
        key, n_pod = f"uncertainty in MTU {t}", len(case.pods)
        if uncertainty.n_pod != n_pod:
            yield Fault("of other PODs", key=key, value=f"{uncertainty.n_pod} PODs", allowed=f"{n_pod} PODs")
        for name in ("half_p_kw", "half_q_kvar"):
            wrong = np.flatnonzero(~np.isfinite(getattr(uncertainty, name)))
            if len(wrong):
                pods = ", ".join(pod for pod, k in case.pods.items() if k in wrong)
                yield Fault(f"{name} must be numbers", key=key, value=f"not at {pods}")


def _twice(ids: Sequence[str]) -> Iterator[Fault]:
    for name in dict.fromkeys(name for name in ids if ids.count(name) > 1):
        yield Fault("more than one bid of that id", key=f"bid {name}")


def _resource_faults(resource: Resource, case: ClearingCase) -> Iterator[Fault]:
    key = f"resource {resource.id}"
    if resource.pod not in case.pods:
        yield Fault("no POD of that name", key=key, value=resource.pod, allowed=", ".join(case.pods))
    for name in ("up_kw", "down_kw"):
        kw = getattr(resource, name)
        if not (math.isfinite(kw) and kw >= 0.0):
            yield Fault(f"{name} must be a number of 0 or more", key=key, value=str(kw))
    if not 0.0 <= resource.delivery_risk <= 1.0:
        yield Fault("delivery_risk must be in [0, 1]", key=key, value=str(resource.delivery_risk))


def _beyond_capability(case: ClearingCase) -> Iterator[Fault]:
    """Bids that together offer more of a resource than is registered; of an exclusive group the largest counts."""
    for name, resource in case.resources.items():
        for direction, limit in ((Direction.UP, resource.up_kw), (Direction.DOWN, resource.down_kw)):
            own = [bid for bid in case.bids if name in bid.members and bid.direction is direction]
            for t in range(case.n_mtu):
                offered = _offered_kw(own, name, t)
                if offered > limit * (1.0 + _SHARES):
                    ids = ", ".join(bid.id for bid in own)
                    problem = f"bids {ids} offer more {direction.value} than is registered, in MTU {t}"
                    yield Fault(problem, key=f"resource {name}", value=f"{offered:g} kW", allowed=f"{limit:g} kW")
                    break


def _offered_kw(bids: Sequence[Bid], resource: str, t: int) -> float:
    groups: dict[str, float] = {}
    for bid in bids:
        share = dict(bid.shares).get(resource, 1.0)
        if t < len(bid.quantity_kw) and not bid.any_of:
            group = bid.exclusive_group or f"bid {bid.id}"
            groups[group] = max(groups.get(group, 0.0), share * bid.quantity_kw[t])
    return math.fsum(groups.values())


def _coupling_faults(coupling: Coupling, case: ClearingCase) -> Iterator[Fault]:
    key = f"{type(coupling).__name__} of {coupling.resource}"
    if coupling.resource not in case.resources:
        yield Fault("no resource of that name", key=key, allowed=", ".join(case.resources))
    if isinstance(coupling, ActivationLimit):
        for name in ("activations_max", "rest_mtu", "rested_mtu"):
            n = getattr(coupling, name)
            if n is not None and n < 0:
                yield Fault(f"{name} must be 0 or more", key=key, value=str(n))
        return
    if len(coupling.baseline_p_kw) != case.n_mtu:
        yield Fault("of other MTUs", key=key, value=str(len(coupling.baseline_p_kw)), allowed=f"{case.n_mtu} MTUs")
    if isinstance(coupling, StorageLimit):
        for name in ("charge_efficiency", "discharge_efficiency"):
            if not 0.0 < getattr(coupling, name) <= 1.0:
                yield Fault(f"{name} must be in (0, 1]", key=key, value=str(getattr(coupling, name)))
        if not coupling.energy_min_kwh <= coupling.energy_kwh <= coupling.energy_max_kwh:
            allowed = f"{coupling.energy_min_kwh:g}..{coupling.energy_max_kwh:g} kWh"
            yield Fault(
                "stored energy outside its limits", key=key, value=f"{coupling.energy_kwh:g} kWh", allowed=allowed
            )
        elif coupling.unused_too:
            yield from _schedule_faults(coupling, case.mtu_h, key)
    elif isinstance(coupling, RampLimit):
        if not coupling.ramp_kw >= 0.0:
            yield Fault("ramp_kw must be 0 or more", key=key, value=str(coupling.ramp_kw))
    else:
        pairs = zip(coupling.low_kwh, coupling.high_kwh, strict=False)
        if len(coupling.low_kwh) != case.n_mtu or len(coupling.high_kwh) != case.n_mtu:
            yield Fault("the band must have all MTUs", key=key, allowed=f"{case.n_mtu} MTUs")
        elif any(low > high for low, high in pairs):
            yield Fault("the band must not be empty", key=key)


def _schedule_faults(limit: StorageLimit, mtu_h: float, key: str) -> Iterator[Fault]:
    """Of a schedule that leaves the limits by itself, where they must hold without awards."""
    energy_kwh = limit.energy_kwh
    for t, p_kw in enumerate(limit.baseline_p_kw):
        energy_kwh += mtu_h * (limit.charge_efficiency * p_kw if p_kw > 0.0 else p_kw / limit.discharge_efficiency)
        last = t == len(limit.baseline_p_kw) - 1
        least_kwh = max(limit.energy_min_kwh, limit.end_min_kwh) if last else limit.energy_min_kwh
        if not least_kwh - _KWH <= energy_kwh <= limit.energy_max_kwh + _KWH:
            allowed = f"{least_kwh:g}..{limit.energy_max_kwh:g} kWh"
            problem = f"its schedule alone leaves the limits by the end of MTU {t}"
            yield Fault(problem, key=key, value=f"{energy_kwh:g} kWh", allowed=allowed)
            return


def _need_faults(need: Need, case: ClearingCase) -> Iterator[Fault]:
    key = f"need {need.id}"
    if need.t_s != case.t_s or len(need.need_kw) != case.n_mtu:
        value = f"{len(need.need_kw)} MTUs from {need.t_s} s"
        yield Fault("of other MTUs", key=key, value=value, allowed=f"{case.n_mtu} MTUs from {case.t_s} s")
    if not all(map(math.isfinite, need.need_kw)):
        yield Fault("a need must be a number of kW", key=key, value=str(need.need_kw))
    price = need.max_price_eur_per_kwh
    if price is not None and not math.isfinite(price):
        yield Fault("a price must be a number", key=key, value=str(price))
    places = {"system", *_places(case.resources)}
    for where in need.where:
        if where not in places:
            yield Fault("no perimeter or BRP of that name", key=key, value=where, allowed=", ".join(sorted(places)))


def _places(resources: Mapping[str, Resource]) -> set[str]:
    return {place for resource in resources.values() for place in (resource.perimeter, resource.brp) if place}
