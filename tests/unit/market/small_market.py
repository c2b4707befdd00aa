"""A market small enough to reason about: PODs behind one conductor that carries 1 A for each kW drawn."""

import numpy as np

from cosim.domain.market import Bid, Direction, PriceStep, Resource
from cosim.market.case import ClearingCase, ClearingSettings
from cosim.market.network import NetworkRows

UP, DOWN = Direction.UP, Direction.DOWN
NONE = np.zeros(0)


def network(p_kw, i_max_a=100.0, effect=None, head=None, v_drop_pu=None, v_limits=(0.9, 1.1)):
    """Conductor ``L@A.1`` (1 A, in phase, by kW of each POD times ``effect``) and, with ``v_drop_pu`` (n_pod,) per kW,
    the node ``B.1`` at 1 pu without load. Reactive power leads a quarter turn behind."""
    p_kw = np.asarray(p_kw, dtype=float)
    n = len(p_kw)
    current = np.ones((1, n), dtype=complex) * (1.0 if effect is None else np.asarray(effect))
    drop = np.zeros((0, n)) if v_drop_pu is None else np.asarray(v_drop_pu, dtype=float).reshape(1, n)
    nodes = () if v_drop_pu is None else ("B.1",)
    low, high = (np.full(len(nodes), limit) for limit in v_limits)
    return NetworkRows(
        pods=tuple(f"P{k}" for k in range(n)),
        p_kw=p_kw,
        q_kvar=np.zeros(n),
        conductors=("L@A.1",),
        nodes=nodes,
        base=np.concatenate([current @ p_kw, 1.0 - drop @ p_kw]),
        by_p=np.vstack([current, -drop]),
        by_q=np.vstack([-1j * current, 1j * drop]),
        upper=np.append(i_max_a, high),
        lower=np.append(np.nan, low),
        head_by_p=np.ones(n) if head is None else np.asarray(head, dtype=float),
        head_by_q=np.zeros(n),
    )


def bid(name, kw, price, direction=UP, **more):
    """A bid for ``kw`` (one number or one per MTU) at one price, of the resource that its name begins with."""
    quantity = (kw,) if isinstance(kw, (int, float)) else tuple(kw)
    if not {"resource", "shares", "any_of"} & set(more):
        more["resource"] = name.split()[0]
    return Bid(name, "A", "P", direction, 0, quantity, (PriceStep(max(*quantity, 1.0), price),), **more)


def resources(n, **more):
    return {f"P{k}": Resource(f"P{k}", f"P{k}", "load", "A", 1000.0, 1000.0, **more) for k in range(n)}


def case(bids, networks, own=None, **more):
    """A clearing of hours; ``settings`` are keywords of `ClearingSettings`."""
    networks = (networks,) if isinstance(networks, NetworkRows) else tuple(networks)
    settings = ClearingSettings(**more.pop("settings", {}))
    return ClearingCase(
        tuple(bids), own or resources(len(networks[0].pods)), networks, 0, 3600, settings=settings, **more
    )


def kw(clearing):
    """Awarded kW by bid: a number for one MTU, else a list."""
    table = {each.id: clearing.of(each.id) for each in clearing.bids}
    return {name: float(x[0]) if len(x) == 1 else [float(k) for k in x] for name, x in table.items()}


FLAT = np.cos(np.pi / 64)  # of 64 inscribed planes, turned by half a sector: a current in phase meets a vertex
