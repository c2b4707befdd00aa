"""Small pandapower networks made in code, each written to a JSON file."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pandapower as pp

from cosim.importers.tables import quiet_pandapower


def saved(net: Any, folder: Path, name: str = "net") -> str:
    """The path of ``net`` as a JSON file."""
    path = folder / f"{name}.json"
    with quiet_pandapower():
        pp.to_json(net, str(path))
    return str(path)


def street(f_hz: float = 50.0) -> Any:
    """20/0.4 kV transformer and three buses along a street, with a load at the end."""
    return copy.deepcopy(_street(f_hz))


@cache
def _street(f_hz: float) -> Any:
    net = pp.create_empty_network(f_hz=f_hz)
    mv = pp.create_bus(net, 20.0, name="MV")
    lv = [pp.create_bus(net, 0.4, name=name) for name in ("LV", "Street 1", "Street 2")]
    pp.create_ext_grid(net, mv, vm_pu=1.02)
    transformer(net, mv, lv[0], name="T")
    for start, end in ((0, 1), (1, 2)):
        cable(net, lv[start], lv[end])
    pp.create_load(net, lv[2], p_mw=0.04, q_mvar=0.01, name="Shop")
    return net


def transformer(net: Any, hv: int, lv: int, **given: Any) -> int:
    figures = {
        "sn_mva": 0.25, "vn_hv_kv": 20.0, "vn_lv_kv": 0.4, "vk_percent": 6.0, "vkr_percent": 1.4, "pfe_kw": 1.2,
        "i0_percent": 1.5, "shift_degree": 150.0,
    }  # fmt: skip
    return int(pp.create_transformer_from_parameters(net, hv, lv, **{**figures, **given}))


def cable(net: Any, start: int, end: int, **given: Any) -> int:
    figures = {
        "length_km": 0.2, "r_ohm_per_km": 0.2, "x_ohm_per_km": 0.08, "c_nf_per_km": 300.0, "max_i_ka": 0.27,
    }  # fmt: skip
    return int(pp.create_line_from_parameters(net, start, end, **{**figures, **given}))
