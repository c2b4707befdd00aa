"""The operator's own measures, forward contracts and other buyers in the market of the chain: short runs around noon.

PV at substation 4 lifts the voltage there above a narrow band, or is too much for the transformer.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from market_runs import midday

from cosim import load_scenario, open_results, result_hash
from cosim.case import Case, open_case
from cosim.domain.frames import frozen
from cosim.errors import ResultError
from cosim.runner import Finished
from simulators._base import Adapter
from simulators.dso import Dso
from simulators.estimator import Estimator
from simulators.grid import Grid

HIGH = ("duration=75min", "limits={vm_max_pu: 1.027, derated: {Transformer.T4: 1.0}}")
"""Voltages that PV exceeds at noon, and no other limit."""
NIGHT = ("start=2016-07-21T22:00:00+01:00", "duration=165min", "limits.derated={Transformer.T4: 1.0}")


def tap(eur_per_move: float, more: str = "") -> str:
    own = "{element: Transformer.T4, low: -2, high: 2, step_pu: 0.025}"
    return f"dso.measures.tap={{tap: {own}, eur_per_move: {eur_per_move}{more}}}"


def signal(path: Path, name: str, element: str | None = None) -> np.ndarray:
    with open_results(path) as results:
        values = results.frame(name)
        return (values if element is None else values[element]).to_numpy().squeeze()


def table(path: Path, name: str) -> pd.DataFrame:
    with open_results(path) as results:
        return results.table(name)


def cost_eur(path: Path) -> np.ndarray:
    return signal(path, "market/session/cost_eur")


def bought_kw(path: Path) -> np.ndarray:
    return signal(path, "market/session/bought_kw")


# --- measures -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No measures: flexibility is bought in every MTU."""
    return midday(tmp_path_factory.mktemp("without") / "run.h5", *HIGH).path


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tap that is moved before anything is bought."""
    return midday(tmp_path_factory.mktemp("moved") / "run.h5", *HIGH, tap(1.5)).path


def test_a_tap_cures_what_was_bought_before(without: Path, moved: Path) -> None:
    assert (bought_kw(without)[:-1] > 40.0).all()
    assert (bought_kw(moved) == 0.0).all()
    assert (cost_eur(moved) == 0.0).all()
    moves = table(moved, "dso/measures")
    assert moves.drop(columns=["time", "excess"]).to_dict("records") == [
        {
            "t_s": 900.0,
            "measure": "tap",
            "element": "Transformer.T4",
            "position": 1.0,
            "moves": 1.0,
            "cost_eur": 1.5,
            "gate_s": 0.0,
        }
    ]
    assert moves["excess"].item() == 0.0
    for path in (without, moved):
        assert len(table(path, "grid/violations")) == 0
        assert len(table(path, "counterfactual/violations")) == 3


def test_a_tap_holds_from_the_next_mtu_on_and_not_where_nothing_is_done(moved: Path, without: Path) -> None:
    assert signal(moved, "dso/measure/position").tolist() == [1.0] * 5
    assert signal(moved, "grid/control/position").tolist() == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert signal(moved, "counterfactual/control/position").tolist() == [0.0] * 5
    vm_pu, free_pu = (signal(moved, f"{grid}/bus/vm_pu", "LV4.1") for grid in ("grid", "counterfactual"))
    assert vm_pu[0] == free_pu[0]
    assert vm_pu[1:] * 1.025 == pytest.approx(free_pu[1:], abs=2e-3)
    assert free_pu.tolist() == signal(without, "counterfactual/bus/vm_pu", "LV4.1").tolist()


def test_the_estimator_knows_the_tap(moved: Path) -> None:
    true_pu, estimated_pu = (signal(moved, f"{name}/bus/vm_pu", "LV4.1") for name in ("grid", "estimator"))
    assert np.ptp(true_pu) > 0.02
    assert estimated_pu == pytest.approx(true_pu, abs=1e-3)


def test_without_measures_there_is_nothing_of_them(without: Path) -> None:
    with open_results(without) as results:
        assert not [name for name in results.signals() if "measure" in name]
        with pytest.raises(ResultError):
            results.table("dso/measures")
        assert results.frame("grid/control/position").shape[1] == 0


def test_a_measure_that_may_not_move_changes_nothing(tmp_path: Path, without: Path) -> None:
    still = midday(tmp_path / "run.h5", *HIGH, tap(1.5, ", moves_per_day: 0")).path
    assert len(table(still, "dso/measures")) == 0
    for name in ("grid/bus/vm_pu", "market/session/cost_eur", "aggregator/resource/p_kw", "estimator/wls/p_kw"):
        assert signal(still, name).tolist() == signal(without, name).tolist(), name


def test_moves_of_a_day_are_counted(tmp_path: Path) -> None:
    """The band is so narrow that either side needs another position; one move a day is left after the first."""
    narrow = ("duration=75min", "limits={vm_max_pu: 1.0, vm_min_pu: 0.9, derated: {Transformer.T4: 1.0}}")
    most = {}
    for n in (1, 2):
        path = midday(tmp_path / f"{n}.h5", *narrow, tap(0.0, f", moves_per_day: {n}")).path
        moves = table(path, "dso/measures")
        most[n] = float(moves["moves"].sum())
        assert moves["position"].iloc[-1] == n
    assert most == {1: 1.0, 2: 2.0}


@pytest.mark.parametrize(("eur", "moves"), [(1.0, 1), (50.0, 0)])
def test_with_the_market_the_cheaper_of_both_is_taken(tmp_path: Path, without: Path, eur: float, moves: int) -> None:
    """In the first MTU flexibility costs 1.39 EUR."""
    path = midday(tmp_path / "run.h5", *HIGH, tap(eur), "dso.measures_mode=with").path
    assert 1.0 < cost_eur(without)[0] < 1.5
    assert len(table(path, "dso/measures")) == moves
    if moves:
        assert (bought_kw(path) == 0.0).all()
    else:
        assert bought_kw(path).tolist() == bought_kw(without).tolist()
        assert (signal(path, "grid/control/position") == 0.0).all()


def test_with_the_market_a_move_waits_until_it_pays(tmp_path: Path, without: Path) -> None:
    """4 EUR are more than 1.39 and 2.61 EUR in the first MTUs, and less than 5.43 EUR in the third."""
    path = midday(tmp_path / "run.h5", *HIGH, tap(4.0), "dso.measures_mode=with").path
    assert (cost_eur(without)[:3] > 4.0).tolist() == [False, False, True]
    assert table(path, "dso/measures")["t_s"].tolist() == [2700.0]
    assert bought_kw(path)[:2].tolist() == bought_kw(without)[:2].tolist()
    assert (bought_kw(path)[2:] == 0.0).all()


@pytest.mark.parametrize("action", ["next", "same"])
def test_steps_within_an_mtu(tmp_path: Path, action: str) -> None:
    """Also where the grid solves a step again for orders to storage."""
    operator = f"operator={{enabled: true, action: {action}, thresholds_kw: {{SS3.battery: -600}}}}"
    path = midday(tmp_path / "run.h5", *HIGH, tap(1.0), "duration=45min", "step=5min", operator).path
    assert signal(path, "grid/control/position").tolist() == [0.0] * 3 + [1.0] * 6
    assert table(path, "dso/measures")[["t_s", "gate_s"]].to_numpy().tolist() == [[900.0, 600.0]]


# --- cut and restored, and in other processes ---------------------------------------------------------------------

ALL = (
    "duration=60min",
    HIGH[1],
    tap(1.0, ", moves_per_day: 3"),
    "dso.measures_mode=with",
    "market.contracts.roof={resource: 'roofs:SS4.pv', direction: down, committed_kw: 60, strike_eur_per_kwh: 0.05, "
    "max_activations: 1, window: {}}",
    "market.needs.brp={buyer: retailer, direction: down, need_kw: 400, max_price_eur_per_kwh: 0.11, "
    "window: {begin: '11:45'}}",
)


def test_same_result_wherever_the_simulators_run(tmp_path: Path) -> None:
    here = midday(tmp_path / "here.h5", *ALL).path
    assert set(table(here, "market/awards")["buyer"]) == {"dso", "retailer"}
    assert len(table(here, "market/availability")) == 3
    apart = midday(tmp_path / "apart.h5", *ALL, "remote=[dso, grid]", "transport=embedded").path
    assert result_hash(apart) == result_hash(here)


class Recorded:
    """The steps of each simulator in a run, and its case."""

    def __init__(self, out: Path, overrides: tuple[str, ...]) -> None:
        self.steps: dict[str, list[tuple[int, Any]]] = {}
        self.case: Case | None = None
        original = Adapter.step

        def spy(adapter: Adapter, time: int, inputs: Any, max_advance: int) -> int | None:
            self.case = adapter.case
            self.steps.setdefault(adapter.sid, []).append((time, _copied(inputs)))
            return original(adapter, time, inputs, max_advance)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Adapter, "step", spy)
            self.finished: Finished = midday(out, *overrides)

    def driven(self, adapter: Adapter, first: int, last: int) -> list[Any]:
        """What an adapter gives in some steps."""
        given = []
        for time, inputs in self.steps[adapter.sid][first:last]:
            adapter.step(time, inputs, time + 1)
            given.append({key: _plain(value) for key, value in adapter._produced.items()})
        return given

    def adapter(self, kind: type[Adapter], name: str) -> Adapter:
        made = kind()
        made.init(name, case=self.case, wire=False)
        return made


def _copied(inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return {key: _copied(value) for key, value in inputs.items()}
    return frozen(inputs, inputs.dtype) if isinstance(inputs, np.ndarray) else copy.deepcopy(inputs)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return [_plain(each) for each in value] if isinstance(value, list) else repr(value)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("recorded") / "run.h5", ALL)


@pytest.mark.parametrize("name", ["grid", "counterfactual", "dso", "estimator", "aggregator", "market"])
def test_a_run_cut_anywhere_goes_on_to_the_last_bit(recorded: Recorded, name: str) -> None:
    from simulators.aggregator import Aggregator
    from simulators.market import Market

    kinds = {"dso": Dso, "estimator": Estimator, "aggregator": Aggregator, "market": Market}
    kind: type[Adapter] = kinds.get(name, Grid)
    n = len(recorded.steps[name])
    whole = recorded.adapter(kind, name)
    states, expected = [], []
    for k in range(n):
        states.append(json.dumps(whole.state(), allow_nan=False))
        expected += recorded.driven(whole, k, k + 1)
    whole.finalize()
    if name in ("grid", "dso", "aggregator"):
        assert len(set(states)) > 1
    for cut in range(1, n):
        resumed = recorded.adapter(kind, name)
        resumed.restore(json.loads(states[cut]))
        assert json.dumps(resumed.state(), allow_nan=False) == states[cut]
        assert recorded.driven(resumed, cut, n) == expected[cut:]
        resumed.finalize()


def test_the_run_that_is_cut_moves_calls_and_buys(recorded: Recorded) -> None:
    """The test above would pass for a run in which nothing happens."""
    path = recorded.finished.path
    assert len(table(path, "dso/measures")) == 1
    assert table(path, "market/awards")["bid"].str.contains("/roof@").sum() == 1


# --- contracts ----------------------------------------------------------------------------------------------------


def contract(committed_kw: float, strike: float, more: str = "window: {}") -> str:
    return (
        f"market.contracts.roof={{resource: 'roofs:SS4.pv', direction: down, committed_kw: {committed_kw}, "
        f"strike_eur_per_kwh: {strike}, {more}}}"
    )


@pytest.fixture(scope="module")
def spot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The transformer at substation 4 is too small, and flexibility is offered freely, there at 0.12 EUR/kWh."""
    return midday(tmp_path_factory.mktemp("spot") / "run.h5", "duration=75min").path


def of_contract(path: Path) -> pd.DataFrame:
    awards = table(path, "market/awards")
    return awards[awards["bid"].str.contains("/roof@")]


def test_a_contract_is_called_at_its_strike_price_before_dearer_offers(tmp_path: Path, spot: Path) -> None:
    hour = "window: {begin: '11:30', end: '12:00'}"
    path = midday(tmp_path / "run.h5", "duration=75min", contract(100, 0.05, hour)).path
    called = of_contract(path)
    assert called["t_s"].tolist() == [1800.0, 2700.0]
    assert called["quantity_kw"].to_numpy() == pytest.approx(100.0)
    assert (called["price_eur_per_kwh"] == 0.05).all()
    assert bought_kw(path) == pytest.approx(bought_kw(spot), abs=0.05)
    own = table(spot, "market/awards")["bid_price_eur_per_kwh"].iloc[0]
    saved = np.array([0.0, 25.0 * (own - 0.05), 25.0 * (own - 0.05), 0.0, 0.0])
    assert cost_eur(path) == pytest.approx(cost_eur(spot) - saved, abs=2e-3)
    available = table(path, "market/availability")
    assert available["t_s"].tolist() == [1800.0, 2700.0]
    assert available[["committed_kw", "offered_kw"]].to_numpy().tolist() == [[100.0, 100.0]] * 2
    assert set(available["seller"]) == {"aggregator"}


def test_awards_of_contract_and_of_free_offers_add_up_to_one_order(tmp_path: Path) -> None:
    path = midday(tmp_path / "run.h5", "duration=75min", contract(100, 0.05)).path
    awards = table(path, "market/awards")
    orders = table(path, "aggregator/activations").set_index("t_s")
    assert (awards.groupby("t_s").size() == 2).all()
    sold = awards.groupby("t_s")["quantity_kw"].sum()
    pd.testing.assert_series_equal(orders["change_kw"], sold, check_names=False)
    changed_kw = signal(path, "grid/pod/p_kw", "SS4.pv") - signal(path, "counterfactual/pod/p_kw", "SS4.pv")
    assert changed_kw[1:] == pytest.approx(sold.to_numpy(), abs=1e-9)


def test_contract_and_free_offers_are_no_more_than_the_resource_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contracts of 300 and 200 kW with PV that gives 411 kW for sure: the book holds its band."""
    books: list[Any] = []
    original = Dso.advance

    def advance(self: Dso, t_s: int, inputs: Any) -> Any:
        books.extend(inputs["book", "sessions"])
        return original(self, t_s, inputs)

    monkeypatch.setattr(Dso, "advance", advance)
    second = contract(200, 0.06).replace("contracts.roof", "contracts.more")
    overrides = ("duration=45min", tap(1e6), "dso.measures_mode=with", contract(300, 0.05), second)
    offered = {}
    for name, more in (("free", ()), ("bound", overrides[3:])):
        books.clear()
        midday(tmp_path / f"{name}.h5", *overrides[:3], *more)
        assert len(books) == 2
        offered[name] = [
            sum(bid["quantity_kw"][0] for bid in book["bids"] if "SS4.pv" in bid["id"] and bid["direction"] == "down")
            for book in books
        ]
        if more:
            assert [len([bid for bid in book["bids"] if "SS4.pv" in bid["id"]]) for book in books] == [2, 2]
            kept = {each["contract"]: each["offered_kw"][0] for each in books[0]["commitments"]}
            assert kept["roof"] == 300.0
            assert kept["more"] == pytest.approx(offered["free"][0] - 300.0)
            assert 0.0 < kept["more"] < 200.0
    assert offered["bound"] == pytest.approx(offered["free"])


def test_a_seller_that_asks_less_offers_itself(tmp_path: Path, spot: Path) -> None:
    path = midday(tmp_path / "run.h5", "duration=75min", contract(100, 0.5)).path
    assert len(of_contract(path)) == 0
    assert cost_eur(path).tolist() == cost_eur(spot).tolist()
    assert table(path, "market/availability")["offered_kw"].tolist() == [100.0] * 4


def test_forward_only_is_the_hybrid_without_free_offers(tmp_path: Path) -> None:
    """With a resource that has committed all that it can do nothing is left to be offered freely."""
    only = ("duration=75min", "resources.roofs={pods: [SS4.pv], down_kw: 300}", "resources.roofs.price_spread=0")
    whole = contract(300, 0.05).replace("roofs:SS4.pv", "roofs")
    forward, hybrid = (
        midday(tmp_path / f"{spot}.h5", *only, whole, f"market.spot={spot}").path for spot in ("false", "true")
    )
    assert (bought_kw(forward)[:-1] > 100.0).all()
    pd.testing.assert_frame_equal(table(forward, "market/awards"), table(hybrid, "market/awards"))
    for name in ("grid/bus/vm_pu", "market/session/cost_eur", "market/session/unsolved_kw"):
        assert signal(forward, name).tolist() == signal(hybrid, name).tolist(), name


def test_free_offers_never_raise_the_cost(tmp_path: Path) -> None:
    """They lower it where they are cheaper than the strike price, and where a contract is not enough."""
    for k, (kw, strike) in enumerate(((500.0, 0.3), (100.0, 0.05))):
        forward, hybrid = (
            midday(tmp_path / f"{k}{spot}.h5", "duration=60min", contract(kw, strike), f"market.spot={spot}").path
            for spot in ("false", "true")
        )
        assert {bid.partition("@")[0] for bid in table(forward, "market/awards")["bid"]} == {
            "aggregator/down/roofs:SS4.pv/roof"
        }
        missing = [signal(path, "market/session/unsolved_kw") for path in (forward, hybrid)]
        slack_eur = [100.0 * kw / 4.0 for kw in missing]
        whole, less = (cost_eur(path) + own for path, own in zip((forward, hybrid), slack_eur, strict=True))
        assert (less[:-1] < whole[:-1] - 0.1).all()
        assert (missing[1] == 0.0).all()
        assert (missing[0] > 0.0).any() == (kw == 100.0)


def test_a_contract_is_called_as_often_as_agreed(tmp_path: Path, spot: Path) -> None:
    path = midday(tmp_path / "run.h5", "duration=75min", contract(100, 0.05, "window: {}, max_activations: 2")).path
    assert of_contract(path)["t_s"].tolist() == [900.0, 1800.0]
    assert bought_kw(path) == pytest.approx(bought_kw(spot), abs=0.05)
    available = table(path, "market/availability")
    assert available["offered_kw"].tolist() == [100.0] * 4, "nothing is owed after that"


def test_what_is_out_of_reach_is_not_available(tmp_path: Path) -> None:
    out = "resources.roofs.delivery={between_outages: 1s, outage: 1000d}"
    path = midday(tmp_path / "run.h5", "duration=45min", contract(100, 0.05), out).path
    assert table(path, "market/availability")["offered_kw"].tolist() == [0.0, 0.0]
    assert len(table(path, "market/awards")) == 0


# --- other buyers -------------------------------------------------------------------------------------------------


def need(kw: float, price: str, more: str = "window: {begin: '11:30'}") -> str:
    return f"market.needs.brp={{buyer: retailer, direction: down, need_kw: {kw}, {price}{more}}}"


CALM = ("duration=60min", "limits.derated={Transformer.T4: 1.0}")


@pytest.mark.parametrize(
    ("price", "sellers", "kw"),
    [
        ("max_price_eur_per_kwh: 0.09, ", set(), 0.0),
        ("max_price_eur_per_kwh: 0.1, ", {"SS3"}, None),
        ("max_price_eur_per_kwh: 0.11, ", {"SS3", "SS2"}, None),
        ("", {"SS3", "SS2", "SS4"}, 400.0),
    ],
)
def test_an_elastic_need_is_bought_below_its_price(
    tmp_path: Path, price: str, sellers: set[str], kw: float | None
) -> None:
    """SS3 asks 0.096, SS2 0.109, SS4 0.120 EUR/kWh; no limit is in danger."""
    path = midday(tmp_path / "run.h5", *CALM, need(400.0, price)).path
    awards = table(path, "market/awards")
    assert {bid.split(":")[1].partition(".")[0] for bid in awards["bid"]} == sellers
    assert set(awards["buyer"]) <= {"retailer"}
    assert len(table(path, "dso/needs")) == 0
    assert bought_kw(path)[[0, 3]].tolist() == [0.0, 0.0], "its window begins at 11:30"
    if kw is not None:
        assert bought_kw(path)[1:3] == pytest.approx(kw, abs=1e-6)
    with open_results(path) as results:
        more_kw = (results.frame("grid/pod/p_kw") - results.frame("counterfactual/pod/p_kw")).sum(axis=1)
    assert more_kw.to_numpy()[1:] == pytest.approx(bought_kw(path)[:-1], abs=1e-6)


def test_awards_say_who_buys(tmp_path: Path, spot: Path) -> None:
    """What the operator buys counts for the retailer too: net injection falls by what both need together at most."""
    path = midday(tmp_path / "run.h5", "duration=60min", need(400.0, "")).path
    awards = table(path, "market/awards")
    assert set(table(spot, "market/awards")["buyer"]) == {"dso"}
    by_buyer = awards.groupby(["t_s", "buyer"])["quantity_kw"].sum().unstack(fill_value=0.0)
    assert by_buyer.loc[900.0].to_dict() == pytest.approx({"dso": bought_kw(spot)[0], "retailer": 0.0}, abs=0.05)
    assert by_buyer.loc[1800.0:].sum(axis=1).to_numpy() == pytest.approx(400.0, abs=1e-6)
    assert (by_buyer.loc[1800.0:, "retailer"] > 0.0).all()


def test_a_firm_need_that_nobody_can_meet_is_unsolved(tmp_path: Path) -> None:
    path = midday(tmp_path / "run.h5", *CALM, need(5000.0, "")).path
    missing = table(path, "market/unsolved")
    assert set(missing["kind"]) == {"need"}
    assert set(missing["element"]) == {"brp"}
    assert (missing["excess"].to_numpy() + bought_kw(path)[1:3]) == pytest.approx(5000.0, abs=1e-3)


# --- a day ahead --------------------------------------------------------------------------------------------------


def test_a_day_ahead_a_need_is_bought_once_from_the_contract(tmp_path: Path) -> None:
    """At 23:00 for the three MTUs after midnight; the retailer is short of 30 kW in the first two."""
    path = midday(
        tmp_path / "run.h5",
        *NIGHT,
        "market={gate: day_ahead, gate_time: '23:00'}",
        "resources.cell={pods: [SS3.battery], battery: {initial: 0.8}, up_eur_per_kwh: 0.2}",
        "market.contracts.cell={resource: cell, direction: up, committed_kw: 20, strike_eur_per_kwh: 0.1, window: {}}",
        "market.needs.brp={buyer: retailer, direction: up, need_kw: 30, window: {begin: '00:00', end: '00:30'}}",
    ).path
    awards = table(path, "market/awards")
    assert set(awards["gate_s"]) == {3600.0}
    assert len(table(path, "market/unsolved")) == 0
    by_bid = awards.groupby(["t_s", "bid"])["quantity_kw"].sum().unstack()
    assert by_bid.index.tolist() == [7200.0, 8100.0]
    assert by_bid["aggregator/up/cell/cell@7200@3600"].to_numpy() == pytest.approx(20.0, abs=1e-6)
    assert by_bid["aggregator/up/cell/7200@3600"].to_numpy() == pytest.approx(10.0, abs=1e-6)
    ordered_kw = signal(path, "aggregator/resource/ordered_kw", "cell")
    assert ordered_kw == pytest.approx([0.0] * 8 + [-30.0, -30.0, 0.0], abs=1e-6)
    available = table(path, "market/availability")
    assert (available[available["gate_s"] == 3600.0].query("t_s >= 7200")["offered_kw"] == 20.0).all()
    best = available.groupby("t_s")["offered_kw"].max()
    assert best.tolist() == [20.0] * 4 + [0.0] * 3 + [20.0] * 3, "one that has sold a course does nothing else before"


def test_the_scenario_with_measures_is_sound() -> None:
    case = open_case(load_scenario(Path(__file__).parents[2] / "scenarios" / "lfm_mv5_measures.yaml"))
    assert [measure.name for measure in case.measures] == ["tap4", "tap5"]
    assert [each.id for each in case.contracts] == ["evening"]
    assert len(case.needs(0, 18 * 3600, 1)) == 1
