"""Two feeders whose common exchange with the grid above may not change: what relieves A is made up for on B."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cosim import load_scenario, open_results, run
from cosim.case import open_case

SCENARIO = Path(__file__).parents[3] / "scenarios" / "lfm_mv5_twin.yaml"
NOON = ("start=2016-03-27T11:30:00+01:00", "duration=75min")
"""A Sunday noon at which photovoltaics load A's head beyond its limit; the first MTU has no market yet."""
ONLY_A = tuple(f"resources.b_{kind}=null" for kind in ("industry", "roofs", "battery"))
LOSS_SHARE = 0.02
"""Of what is bought: two feeders' marginal losses differ by less."""


def noon(out: Path, *overrides: str) -> Path:
    return run(load_scenario(SCENARIO, [*NOON, *overrides]), out).path


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noon(tmp_path_factory.mktemp("held") / "run.h5")


@pytest.fixture(scope="module")
def only_a(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noon(tmp_path_factory.mktemp("only_a") / "run.h5", *ONLY_A)


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noon(tmp_path_factory.mktemp("free") / "run.h5", "market.interface=free")


def net_kw(path: Path) -> pd.DataFrame:
    """Net injection bought (up - down) in each MTU, on either feeder [kW]."""
    with open_results(path) as results:
        awards = results.table("market/awards")
    signed = awards.quantity_kw.where(awards.direction == "up", -awards.quantity_kw)
    side = awards.seller.astype(str).str[0]
    return signed.groupby([awards.t_s, side]).sum().unstack(fill_value=0).reindex(columns=["a", "b"], fill_value=0.0)


def head_a_pu(path: Path, simulator: str) -> np.ndarray:
    """Loading of A's head from the first MTU of the market on, over its limit."""
    limit = load_scenario(SCENARIO).scenario.limits.derated["Line.AL01"]
    with open_results(path) as results:
        return results.frame(f"{simulator}/branch/loading_pu")["Line.AL01"].to_numpy()[1:] / limit


def test_without_a_market_the_head_of_a_is_overloaded(held: Path) -> None:
    assert (head_a_pu(held, "counterfactual")[:3] > 1.03).all()


def test_a_counter_resource_on_b_is_bought(held: Path) -> None:
    bought = net_kw(held)
    assert list(bought.index) == [900.0, 1800.0, 2700.0, 3600.0]
    assert (bought.a < -150.0).all()
    assert (bought.b > 150.0).all()
    assert ((bought.a + bought.b).abs() < LOSS_SHARE * bought.b).all()
    assert (head_a_pu(held, "grid") < 1.0).all()


def test_the_interface_is_held_to_what_it_was(held: Path) -> None:
    """But for losses, which the market knows to first order, at the powers expected."""
    bought = net_kw(held)
    with open_results(held) as results:
        with_kw, without_kw = (results.frame(f"{s}/head/p_kw").to_numpy()[1:, 0] for s in ("grid", "counterfactual"))
    assert (np.abs(with_kw - without_kw) < LOSS_SHARE * bought.b.to_numpy()).all()


def test_without_b_no_more_than_reactive_power_relieves_a(only_a: Path) -> None:
    """Resources of A alone cannot change the power at its head; limits are left, and the head is overloaded."""
    bought = net_kw(only_a)
    assert (bought.a.abs() < 5.0).all()
    with open_results(only_a) as results:
        left = results.table("market/unsolved")
        assert {900.0, 1800.0, 2700.0} <= set(left[left.element.str.startswith("Line.AL01@")].t_s)
    assert (head_a_pu(only_a, "grid")[:3] > 1.0).all()


def test_with_a_free_interface_nothing_is_made_up_for_on_b(free: Path) -> None:
    bought = net_kw(free)
    assert (bought.a < -150.0).all()
    assert (bought.b <= 0.0).all()
    assert (head_a_pu(free, "grid") < 1.0).all()


def test_perimeters_are_the_feeders() -> None:
    case = open_case(load_scenario(SCENARIO))
    assert {unit.resource.perimeter for unit in case.portfolio} == {"A", "B"}
    assert all(unit.resource.pod.startswith(f"{unit.resource.perimeter}.") for unit in case.portfolio)
