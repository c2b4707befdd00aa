"""Schemes of coordination in the chain: what is cleared in messages between simulators is what `coordinate` clears, and
what it does to the grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import pytest
from coordination_runs import CALM, Watched, coordinated, table, tables, watched

from cosim.coordination.catalogue import load_scheme, shipped
from cosim.coordination.coordinate import Coordination, coordinate, crossed
from cosim.coordination.messages import Body, Message, Offered, Quantities, role_of

PRIORITY = "it_dso_priority"


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Watched]:
    """A run with a scheme, made once."""
    runs: dict[str, Watched] = {}

    def made(scheme: str) -> Watched:
        if scheme not in runs:
            runs[scheme] = watched(tmp_path_factory.mktemp("coordination") / f"{scheme}.h5", scheme)
        return runs[scheme]

    return made


# --- the same as `coordinate` -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", shipped())
def test_a_run_clears_what_coordinate_clears(watch: Callable[[str], Watched], scheme: str) -> None:
    """Bit for bit, at every gate."""
    seen = watch(scheme)
    gates = [900, 1800, 2700]
    assert sorted(seen.known) == gates
    awards, stages, excluded, unmet = (tables(seen.path, name) for name in ("awards", "stages", "excluded", "unmet"))
    for t_s in gates:
        cleared = coordinate(seen.at_gate(t_s), load_scheme(scheme))
        outcomes = [outcome for _, outcome in cleared.outcomes]
        assert _rows(awards, t_s, "stage", "bid", "buyer", *_FIGURES) == sorted(_awarded(cleared))
        assert _rows(stages, t_s, "stage", "shortage_kw", "export_kw", "fell_back") == sorted(
            (each.stage, each.shortage_kw, sum(each.export_kw.values()), float(each.fell_back)) for each in outcomes
        )
        assert _rows(excluded, t_s, "stage", "bid", "reason") == sorted(
            (each.stage, bid, reason) for each in outcomes for bid, reason in each.excluded.items()
        )
        assert _rows(unmet, t_s, "stage", "element", "excess") == sorted(
            (each.stage, u.element, u.excess) for each in outcomes for u in each.unmet
        )
        assert _said(_as_one_seller(seen.said[t_s])) == _said(cleared.messages)


_FIGURES = ("quantity_kw", "price_eur_per_kwh", "bid_price_eur_per_kwh")


def _rows(rows: pd.DataFrame, t_s: int, *columns: str) -> list[tuple[object, ...]]:
    of_mtu = rows[rows["t_s"] == t_s]
    return sorted(zip(*(of_mtu[column] for column in columns), strict=True))


def _awarded(cleared: Coordination) -> Iterable[tuple[object, ...]]:
    for a in cleared.awards:
        yield a.stage, a.bid, a.buyer, a.quantity_kw[0], a.price_eur_per_kwh[0], a.bid_price_eur_per_kwh[0]


def _said(messages: Iterable[Message]) -> list[tuple[object, ...]]:
    return sorted((m.sender, m.receiver, m.type, m.stage, m.round, m.digest) for m in messages)


def _as_one_seller(messages: Iterable[Message]) -> Iterable[Message]:
    """The messages if those who sell in the area and at transmission were one, as with `coordinate`."""
    parts: dict[tuple[object, ...], list[Body]] = {}
    for message in sorted(messages, key=lambda m: (m.sender, m.receiver)):
        names = ["AGG" if role_of(name) == "AGG" else name for name in (message.sender, message.receiver)]
        parts.setdefault((message.t_s, *names, message.type, message.stage, message.round), []).append(message.body)
    for (t_s, sender, receiver, kind, stage, round_), bodies in parts.items():
        yield Message(t_s, sender, receiver, kind, stage, _together(bodies), round_)  # type: ignore[arg-type]


def _together(bodies: list[Body]) -> Body:
    first, *more = bodies
    for body in more:
        if isinstance(first, Offered) and isinstance(body, Offered):
            first = Offered(first.bids + body.bids, first.resources + body.resources)
        elif isinstance(first, Quantities) and isinstance(body, Quantities):
            assert not first.kw.keys() & body.kw.keys()
            first = Quantities({**first.kw, **body.kw}, {**first.export_kw, **body.export_kw})
        else:
            pytest.fail(f"two messages of one kind: {first}, {body}")
    return first


# --- who tells whom what -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", shipped())
def test_what_crosses_is_what_is_declared(watch: Callable[[str], Watched], scheme: str) -> None:
    seen = watch(scheme)
    logs = [
        table(seen.path, f"{simulator}/messages")
        for simulator in seen.case.parties
    ]
    rows = pd.concat(logs)
    logged = {
        (kind, role_of(sender), role_of(receiver))
        for kind, sender, receiver in zip(rows["type"], rows["sender"], rows["receiver"], strict=True)
    }
    assert logged == load_scheme(scheme).declared
    said = [message for messages in seen.said.values() for message in messages]
    assert _said(said) == sorted(
        zip(*(rows[name] for name in ("sender", "receiver", "type", "stage", "round", "digest")), strict=True)
    )
    assert crossed(said) == logged


@pytest.mark.parametrize("scheme", shipped())
def test_sellers_hear_of_their_own_bids_only(watch: Callable[[str], Watched], scheme: str) -> None:
    seen = watch(scheme)
    for t_s, messages in seen.said.items():
        for message in messages:
            if message.type == "AWARD" and role_of(message.receiver) == "AGG":
                assert isinstance(message.body, Quantities)
                assert set(message.body.kw) <= {bid.id for bid in seen.known[t_s][message.receiver].bids}
