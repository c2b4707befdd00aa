"""Schemes of coordination in the chain: what is cleared in messages between simulators is what `coordinate` clears, and
what it does to the grid."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from coordination_runs import CALM, Watched, coordinated, table, tables, watched

from cosim import open_results, result_hash
from cosim.coordination.catalogue import load_scheme, shipped
from cosim.coordination.coordinate import Coordination, coordinate, crossed
from cosim.coordination.messages import Body, Message, Offered, Quantities, role_of
from simulators._base import Adapter

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
    assert_as_by_coordinate(watch(scheme), scheme)


def test_a_run_in_which_others_buy_clears_what_coordinate_clears(tmp_path: Path) -> None:
    """A balance responsible party buys all that costs it no more than it offers."""
    need = "{buyer: brp, direction: up, need_kw: 30, max_price_eur_per_kwh: 0.2, window: {}}"
    seen = watched(tmp_path / "run.h5", "smartnet_integrated", f"market.needs.balance={need}")
    bought_kw = [
        cleared.of("market").demands["balance"][0] for cleared in assert_as_by_coordinate(seen, "smartnet_integrated")
    ]
    assert max(bought_kw) == pytest.approx(30.0)


def assert_as_by_coordinate(seen: Watched, scheme: str) -> list[Coordination]:
    """What `coordinate` gives at all gates."""
    gates, found = [900, 1800, 2700], []
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
        found.append(cleared)
    return found


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
    logs = [table(seen.path, f"{simulator}/messages") for simulator in seen.case.parties]
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


# --- who steps when -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "at_a_gate", "without"),
    [
        (PRIORITY, ["aggregator dso tso dso"], ["aggregator dso tso"]),
        ("givisiez_hybrid", ["aggregator dso tso dso tso"], ["aggregator dso tso"]),
        ("it_tso_priority", ["aggregator dso tso dso tso"], ["aggregator dso tso"]),
        ("it_coopt", ["aggregator dso imo dso", "tso imo tso"], ["aggregator dso imo", "tso imo"]),
    ],
)
def test_order_of_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, at_a_gate: list[str], without: list[str]
) -> None:
    """All stages are cleared within the step in which the gate closes; awards reach the aggregator in the next. Whoever
    waits for each other is in one chain; between two chains mosaik is free."""
    taken: list[str] = []
    original = Adapter.step

    def step(self, time, inputs, max_advance):
        taken.append(f"{self.sid}@{self.case.clock.step_index(time)}")
        return original(self, time, inputs, max_advance)

    monkeypatch.setattr(Adapter, "step", step)
    coordinated(tmp_path / "run.h5", scheme, "duration=45min")
    for chains in zip(at_a_gate, at_a_gate, without, strict=True):
        wanted = [f"{name}@{k}" for k, names in enumerate(chains) for name in names.split()]
        assert " ".join(each for each in taken if each in wanted) == " ".join(wanted)


# --- awards act -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The system needs more than there is at transmission and distribution."""
    out = tmp_path_factory.mktemp("strong") / "run.h5"
    return coordinated(out, PRIORITY, "transmission.need.share=2")


def test_both_operators_need_something_at_every_gate(watch: Callable[[str], Watched]) -> None:
    """The tests above would pass where nothing is needed."""
    seen = watch(PRIORITY)
    assert set(table(seen.path, "dso/needs")["t_s"]) == {900.0, 1800.0, 2700.0}
    assert (signal(seen.path, "tso/system/need_kw")[:3].abs() > 1.0).all(axis=None)
    bought = tables(seen.path, "awards").groupby("simulator")["t_s"].unique()
    assert sorted(bought["tso"]) == [900.0, 1800.0, 2700.0]
    assert sorted(bought["dso"]) == [900.0, 1800.0], "the last need is one by the bound on errors, not by the market"


def test_awards_change_grid_and_generators_in_their_mtu(strong: Path) -> None:
    """No MTU before, none after; those of both operators together."""
    awards = tables(strong, "awards")
    awards["sign"] = [-1.0 if "up" in re.split("[/ ]", bid) else 1.0 for bid in awards["bid"]]
    awards["change_kw"] = awards["sign"] * awards["quantity_kw"]
    below = awards[awards["bid"].str.contains("/")]
    assert set(below["simulator"]) == {"dso", "tso"}
    assert (awards["t_s"] - awards["gate_s"] == 900.0).all()
    with open_results(strong) as results:
        changed = results.frame("grid/pod/p_kw") - results.frame("counterfactual/pod/p_kw")
        ordered = results.frame("aggregator/resource/ordered_kw")
        generated = results.frame("generators/resource/change_kw")
    sold = _by_mtu(below.assign(resource=below["bid"].str.split("/").str[2]), ordered.columns)
    assert np.abs(sold).sum() > 300.0
    assert ordered.to_numpy() == pytest.approx(sold, abs=1e-9)
    roofs = [name for name in ordered if name.startswith("roofs:")]
    of_roofs = sold[:, [list(ordered).index(name) for name in roofs]]
    assert np.abs(of_roofs).sum() > 10.0
    assert changed[[name.partition(":")[2] for name in roofs]].to_numpy() == pytest.approx(of_roofs, abs=1e-6)
    above = awards[~awards["bid"].str.contains("/")]
    expected = _by_mtu(above.assign(resource=above["bid"].str.rsplit(" ", n=1).str[0]), generated.columns)
    assert generated.to_numpy() == pytest.approx(expected, abs=1e-9)
    assert np.abs(expected).sum() > 300.0


def _by_mtu(awards: pd.DataFrame, resources: Iterable[str]) -> np.ndarray:
    """Change of each resource in the four MTUs of a run."""
    wide = awards.groupby(["t_s", "resource"])["change_kw"].sum().unstack(fill_value=0.0)
    return wide.reindex(index=900.0 * np.arange(4), columns=list(resources), fill_value=0.0).to_numpy()


@pytest.mark.parametrize("share", ["normal", "strong"])
def test_need_is_met_but_for_the_shortage(watch: Callable[[str], Watched], strong: Path, share: str) -> None:
    """Of the transmission operator: by generators, and by all that leaves the feeder because of awards."""
    path = strong if share == "strong" else watch(PRIORITY).path
    need_kw, stages = signal(path, "tso/system/need_kw"), tables(path, "stages")
    generated_kw = -signal(path, "generators/resource/change_kw").sum(axis=1)
    for k, t_s in enumerate((900.0, 1800.0, 2700.0)):
        here = stages[stages["t_s"] == t_s]
        left_kw = need_kw.iloc[k, 0] - generated_kw.iloc[k + 1] - here["export_kw"].sum()
        assert left_kw == pytest.approx(here["shortage_kw"].sum(), abs=1e-6)
    short = stages["shortage_kw"].abs().sum()
    assert short > 10.0 if share == "strong" else short == 0.0


@pytest.mark.parametrize("scheme", [PRIORITY, "givisiez_hybrid", "it_coopt", "smartnet_local", "it_tso_priority"])
def test_without_need_nothing_is_bought(tmp_path: Path, scheme: str) -> None:
    path = coordinated(tmp_path / "run.h5", scheme, *CALM, "duration=45min")
    assert table(path, "dso/needs").empty
    assert signal(path, "tso/system/need_kw").iloc[:2, 0].tolist() == [0.0, 0.0]
    assert tables(path, "awards").empty
    assert (signal(path, "grid/pod/p_kw") == signal(path, "counterfactual/pod/p_kw")).all(axis=None)


def test_steps_within_an_mtu(tmp_path: Path) -> None:
    """Gates close with the last step of an MTU; what is awarded then holds for all steps of the next."""
    path = coordinated(tmp_path / "run.h5", PRIORITY, "duration=45min", "step=5min")
    awards, rows = tables(path, "awards"), tables(path, "messages")
    assert set(awards["t_s"]) == {900.0, 1800.0}
    assert (awards["t_s"] - awards["gate_s"] == 300.0).all()
    assert (rows["t_s"] - rows["gate_s"] == 300.0).all()
    for name in ("aggregator/resource/ordered_kw", "generators/resource/change_kw"):
        change_kw = signal(path, name).to_numpy().reshape(3, 3, -1)
        assert (change_kw == change_kw[:, :1]).all(), name
        assert (change_kw[0] == 0.0).all(), name
        assert np.abs(change_kw[1:, 0]).sum(axis=1).min() > 1.0, name


def signal(path: Path, name: str) -> pd.DataFrame:
    with open_results(path) as results:
        return results.frame(name)


# --- wherever simulators run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "remotes"), [("givisiez_hybrid", ["[tso]", "[dso, tso]"]), ("it_coopt", ["[dso, tso, imo]"])]
)
def test_same_bytes_wherever_parties_run(tmp_path: Path, scheme: str, remotes: list[str]) -> None:
    short = "duration=30min"
    here = result_hash(coordinated(tmp_path / "here.h5", scheme, short))
    for k, remote in enumerate(remotes):
        assert result_hash(coordinated(tmp_path / f"{k}.h5", scheme, short, f"remote={remote}")) == here, remote


def test_prequalification_lists_what_the_grid_can_take_in_all_snapshots(tmp_path: Path) -> None:
    """With a snapshot in which a limit is violated already, nothing that makes it worse is on the list; at night with
    the limits of the ratings all is."""
    bought = {}
    for name, overrides in {
        "noon": ("coordination.snapshots=['2016-05-16T12:00:00+01:00']",),
        "night": ("coordination.snapshots=['2016-05-16T02:00:00+01:00']", "limits={derated: null}"),
        "all": ("limits={derated: null}",),
    }.items():
        path = coordinated(tmp_path / f"{name}.h5", "smartnet_centralised", "transmission.need.share=1", *overrides)
        bought[name] = tables(path, "awards").query("area != ''")["quantity_kw"].sum()
    assert bought["all"] > 1.0
    assert bought["night"] == pytest.approx(bought["all"], rel=1e-9)
    assert bought["noon"] < bought["all"]
