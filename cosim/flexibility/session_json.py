"""Sessions of an aggregator as plain JSON, so that a run can stop between an offer and its award."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cosim.domain.frames import Floats, frozen
from cosim.domain.market import Bid, from_json, to_json
from cosim.flexibility.band import Bands
from cosim.flexibility.portfolio import Unit
from cosim.flexibility.resources import Store
from cosim.flexibility.session import Members, Session

_OF_BANDS = ("baseline_kw", "up_kw", "down_kw")
_OF_STORE = ("up_max_kw", "down_max_kw", "up_kwh_per_kw", "down_kwh_per_kw", "up_room_kwh", "down_room_kwh")


def session_to_json(session: Session) -> dict[str, Any]:
    """What `ordered` needs of a session, exactly; what couples its MTUs has been sent and is not kept."""
    return {
        "t_s": session.t_s,
        "gate_s": session.gate_s,
        "mtu_s": session.mtu_s,
        "n_mtu": session.n_mtu,
        "bids": [to_json(bid) for bid in session.bids],
        "bands": _bands_to_json(session.members.bands),
        "over_profile_kw": session.over_profile_kw.tolist(),
    }


def session_from_json(units: Sequence[Unit], document: Mapping[str, Any]) -> Session:
    """The session that `session_to_json` made, of ``units``."""
    return Session(
        t_s=document["t_s"],
        gate_s=document["gate_s"],
        mtu_s=document["mtu_s"],
        n_mtu=document["n_mtu"],
        bids=tuple(from_json(Bid, bid) for bid in document["bids"]),
        couplings=(),
        members=Members(units, _bands_from_json(document["bands"])),
        over_profile_kw=frozen(document["over_profile_kw"]),
    )


def _bands_to_json(bands: Bands) -> dict[str, Any]:
    return {
        "mtu_s": bands.mtu_s,
        **{name: getattr(bands, name).tolist() for name in _OF_BANDS},
        "stores": {str(k): _store_to_json(store) for k, store in bands.stores.items()},
    }


def _store_to_json(store: Store) -> dict[str, Any]:
    return {"retention": store.retention} | {name: getattr(store, name).tolist() for name in _OF_STORE}


def _bands_from_json(document: Mapping[str, Any]) -> Bands:
    powers: list[Floats] = [frozen(document[name]) for name in _OF_BANDS]
    stores = {int(k): _store_from_json(store) for k, store in document["stores"].items()}
    return Bands(document["mtu_s"], powers[0], powers[1], powers[2], stores)


def _store_from_json(document: Mapping[str, Any]) -> Store:
    return Store(document["retention"], *(frozen(document[name]) for name in _OF_STORE))
