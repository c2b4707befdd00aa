"""Sessions of an aggregator as plain JSON, so that a run can stop between an offer and its award."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cosim.domain.frames import Floats, frozen
from cosim.domain.market import Bid, from_json, to_json
from cosim.flexibility.band import FlexibilityBand
from cosim.flexibility.fleet import Session
from cosim.flexibility.offers import Member
from cosim.flexibility.portfolio import Unit
from cosim.flexibility.resources import Store

_OF_STORE = ("up_max_kw", "down_max_kw", "up_kwh_per_kw", "down_kwh_per_kw", "up_room_kwh", "down_room_kwh")


def session_to_json(session: Session) -> dict[str, Any]:
    """What `ordered` needs of a session, exactly; what couples its MTUs has been sent and is not kept."""
    return {
        "t_s": session.t_s,
        "gate_s": session.gate_s,
        "mtu_s": session.mtu_s,
        "n_mtu": session.n_mtu,
        "bids": [to_json(bid) for bid in session.bids],
        "bands": {name: _band_to_json(member.band) for name, member in session.members.items()},
        "over_profile_kw": {name: kw.tolist() for name, kw in session.over_profile_kw.items()},
    }


def session_from_json(units: Mapping[str, Unit], document: Mapping[str, Any]) -> Session:
    """The session that `session_to_json` made, of ``units`` by resource."""
    members = {
        name: Member(
            units[name].resource, _band_from_json(band), units[name].up_eur_per_kwh, units[name].down_eur_per_kwh
        )
        for name, band in document["bands"].items()
    }
    return Session(
        t_s=document["t_s"],
        gate_s=document["gate_s"],
        mtu_s=document["mtu_s"],
        n_mtu=document["n_mtu"],
        bids=tuple(from_json(Bid, bid) for bid in document["bids"]),
        couplings=(),
        members=members,
        over_profile_kw={name: frozen(kw) for name, kw in document["over_profile_kw"].items()},
    )


def _band_to_json(band: FlexibilityBand) -> dict[str, Any]:
    store = band.store
    return {
        "mtu_s": band.mtu_s,
        "baseline_kw": np.asarray(band.baseline_kw).tolist(),
        "up_kw": np.asarray(band.up_kw).tolist(),
        "down_kw": np.asarray(band.down_kw).tolist(),
        "store": None
        if store is None
        else {"retention": store.retention} | {name: getattr(store, name).tolist() for name in _OF_STORE},
    }


def _band_from_json(document: Mapping[str, Any]) -> FlexibilityBand:
    held = document["store"]
    store = None if held is None else Store(held["retention"], *(_array(held[name]) for name in _OF_STORE))
    baseline, up, down = (_array(document[name]) for name in ("baseline_kw", "up_kw", "down_kw"))
    return FlexibilityBand(document["mtu_s"], baseline, up, down, store)


def _array(values: list[float]) -> Floats:
    return frozen(values)
