"""Profiles of PODs: those that a SimBench network names, or SimBench columns assigned by a draw."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from cosim.errors import Fault, ProfileError
from cosim.importers.draft import PodDraft
from cosim.io.profiles import simbench_columns
from cosim.rng import rng_for

DATASET = "1-complete_data-mixed-all-1-sw"
_LOW_KV = 1.0
_CUSTOMER = re.compile(r"[HGL]\d-[A-GL]_pload")  # households, trade, farms; those of higher voltage end in M and H
_POOLS = {"load": "LoadProfile", "pv": "RESProfile"}


def drawn(pods: Mapping[str, PodDraft], seed: int) -> dict[str, PodDraft]:
    """``pods`` with a SimBench column in place of ``constant``, drawn for each by its id under ``seed``.

    Loads up to 1 kV are given a customer, those above a whole low-voltage network; photovoltaics one of the plants
    PV1 to PV8. Other generation stays constant: what drives it is not known. Reactive power follows active power.
    """
    columns = {kind: simbench_columns(DATASET)[table] for kind, table in _POOLS.items()}
    customers = [name for name in columns["load"] if _CUSTOMER.fullmatch(name)]
    networks = [name for name in columns["load"] if re.fullmatch(r"lv_\w+_pload", name)]
    plants = [name for name in columns["pv"] if re.fullmatch(r"PV\d", name)]

    def column(pod: str, draft: PodDraft) -> str:
        pool = plants if draft.entry["kind"] == "pv" else customers if draft.kv <= _LOW_KV else networks
        return pool[int(rng_for(seed, "importers", "profile", pod).integers(len(pool)))]

    return {
        pod: replace(draft, entry={**draft.entry, "profile": column(pod, draft)})
        if draft.entry.get("profile") == "constant" and draft.entry["kind"] in _POOLS
        else draft
        for pod, draft in pods.items()
    }


def named(pods: Mapping[str, PodDraft]) -> dict[str, PodDraft]:
    """``pods`` with the columns of the profiles that their source names for them.

    Raises ProfileError naming every profile that the data set does not have.
    """
    tables = simbench_columns(DATASET)
    faults: list[Fault] = []
    found = {}
    for pod, draft in pods.items():
        keys = _profile_keys(draft, tables)
        if keys is None:
            faults.append(Fault("no such SimBench profile", DATASET, key=pod, value=draft.profile))
        else:
            found[pod] = replace(draft, entry={**draft.entry, **keys})
    if faults:
        raise ProfileError(faults)
    return found


def _profile_keys(draft: PodDraft, tables: Mapping[str, tuple[str, ...]]) -> dict[str, str] | None:
    """``profile`` and ``q_profile`` of a POD; None if the data set lacks them. Storage follows orders."""
    if not draft.profile or draft.entry["kind"] == "storage":
        return {}
    if draft.entry["element"].startswith("Load."):
        p, q = f"{draft.profile}_pload", f"{draft.profile}_qload"
        if {p, q} <= set(tables["LoadProfile"]):
            return {"profile": p, **({"q_profile": q} if "kvar" in draft.entry else {})}
        return None
    for table in ("RESProfile", "PowerPlantProfile"):
        if draft.profile in tables.get(table, ()):
            several = sum(draft.profile in names for names in tables.values()) > 1
            p = f"{table}/{draft.profile}" if several else draft.profile
            return {"profile": p, **({"q_profile": "constant"} if "kvar" in draft.entry else {})}
    return None
