"""The section on money, of a result of four quarter hours that is small enough to add up by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from cosim.clock import Clock
from cosim.domain.frames import Signal
from cosim.io.results import open_results
from cosim.io.store import ResultWriter
from cosim.report.html import write_report
from cosim.report.money import Delivered, KindSum, MethodBias, Money, PartyCash, money, money_indicators
from cosim.report.reading import Reading
from simulators.settlement import BASELINES, DELIVERIES, ESTIMATES, LINES

CLOCK = Clock(datetime(2016, 7, 21, tzinfo=UTC), step_s=900, steps=4, mtu_s=900)
PARTIES = ("dso", "homes", "tso", "idle")


def line(t_s: float, payer: str, payee: str, kind: str, amount: float) -> dict[str, object]:
    row = {"t_s": t_s, "duration_s": 900.0, "payer": payer, "payee": payee, "kind": kind, "quantity": 1.0}
    return row | {"unit": "kWh", "price_eur": 0.1, "amount": amount, "refs": "", "estimated": 0.0}


def delivery(bid: str, seller: str, *kwh: float) -> dict[str, object]:
    names = ("awarded_kwh", "given_kwh", "delivered_kwh", "short_kwh")
    row = {"t_s": 0.0, "bid": bid, "stage": "local", "seller": seller, "buyer": "dso", "estimated": 0.0}
    return row | dict(zip(names, kwh, strict=True))


def baseline(method: str, bias_kw: float, ordered_kw: float, paid: float = 0.0) -> dict[str, object]:
    row = {"t_s": 0.0, "pod": "A", "method": method, "baseline_kw": 5.0, "bias_kw": bias_kw}
    return row | {"ordered_kw": ordered_kw, "paid": paid}


def settled_file(path: Path, *, told: str = "A <was> guessed") -> Path:
    attributes = {"scenario": '{"name": "paid", "start": "2016-07-21T01:00:00+01:00", "step": "15min", "mtu": "15min"}'}
    with ResultWriter(path, CLOCK, 4, "none", attributes) as writer:
        writer.declare("settlement", "party", [Signal("cash_eur", "EUR", "cash", "party", PARTIES)])
        figures = [Signal(a, "1", a, "feeder", ("f",)) for a in ("closing_kwh", "estimated")]
        writer.declare("settlement", "interface", figures)
        for events in (LINES, DELIVERIES, BASELINES, ESTIMATES):
            writer.declare_events("settlement", events)
        for row in (
            line(0.0, "dso", "homes", "utilisation", 15_000.0),
            line(900.0, "dso", "homes", "utilisation", 5_000.0),
            line(900.0, "homes", "dso", "penalty", 2_500.0),
            line(900.0, "homes", "tso", "imbalance", -10_000.0),
        ):
            writer.append_event("settlement", "lines", row)
        for row in (delivery("x", "homes", 4.0, 5.0, 4.0, 0.0), delivery("x", "homes", 4.0, 2.0, 2.0, 1.6)):
            writer.append_event("settlement", "deliveries", row)
        for row in (
            baseline("schedule", 4.0, 10.0, 1.0),
            baseline("schedule", 2.0, -10.0, 1.0),
            baseline("zero", -8.0, 10.0),
            baseline("zero", float("nan"), 10.0),
        ):
            writer.append_event("settlement", "baselines", row)
        writer.append_event("settlement", "estimates", {"t_s": 900.0, "told": told})
        for step in range(4):
            writer.write(step, "settlement", "party", "cash_eur", np.zeros(4))
            writer.write(step, "settlement", "interface", "closing_kwh", [0.25 if step == 2 else np.nan])
            writer.write(step, "settlement", "interface", "estimated", [1.0 if step == 1 else np.nan])
            writer.end_step(step)
        writer.finish("complete")
    return path


@pytest.fixture
def found(tmp_path: Path) -> Money:
    with open_results(settled_file(tmp_path / "paid.h5")) as results:
        made = money(Reading(results))
    assert made is not None
    return made


def test_cash_by_party_is_what_lines_say(found: Money) -> None:
    """A line below zero is owed the other way."""
    assert found.parties == (
        PartyCash("dso", 0.25, 2.0, -1.75),
        PartyCash("homes", 3.0, 0.25, 2.75),
        PartyCash("tso", 0.0, 1.0, -1.0),
        PartyCash("idle", 0.0, 0.0, 0.0),
    )


def test_sums_by_kind(found: Money) -> None:
    assert KindSum("utilisation", "dso", "homes", 2, 2.0) in found.kinds
    assert [each.kind for each in found.kinds] == ["imbalance", "penalty", "utilisation"]


def test_delivered_against_awarded(found: Money) -> None:
    assert found.sellers == (Delivered("homes", 1, 8.0, 7.0, 6.0, 1.6),)


def test_bias_credits_in_the_direction_of_the_orders(found: Money) -> None:
    """4 kW too much credit an order up 1 kWh, 2 kW take 0.5 kWh from one down. What is unknown does not count."""
    assert found.methods == (
        MethodBias("schedule", True, 2, 3.0, 3.0, 0.5),
        MethodBias("zero", False, 1, -8.0, 8.0, -2.0),
    )


def test_what_was_estimated_and_what_does_not_close_is_said(found: Money) -> None:
    assert found.told == (("2016-07-21 01:15", "A <was> guessed"),)
    assert (found.estimated, found.closing_kwh) == (1, 0.25)


def test_indicators(tmp_path: Path) -> None:
    with open_results(settled_file(tmp_path / "paid.h5")) as results:
        values = {each.name: each.value for each in money_indicators(Reading(results))}
    assert values == {
        "imbalance": -1.0,
        "penalty": 0.25,
        "utilisation": 2.0,
        "paid for as delivered": 75.0,
        "bias of the baseline": 3.0,
        "values not metered": 1.0,
        "energy that does not close": 0.25,
    }


def test_page_has_the_section_and_escapes(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    write_report([settled_file(tmp_path / "paid.h5")], out)
    page = out.read_text(encoding="utf-8")
    assert "<h2>Money</h2>" in page
    assert "A &lt;was&gt; guessed" in page
    assert "schedule*" in page


def test_without_a_settlement_there_is_no_section(tmp_path: Path) -> None:
    path = tmp_path / "bare.h5"
    with ResultWriter(path, CLOCK, 4, "none", {}) as writer:
        writer.declare("grid", "head", [Signal("p_kw", "kW", "head", "feeder", ("f",))])
        writer.write(0, "grid", "head", "p_kw", [1.0])
        writer.end_step(0)
        writer.finish("complete")
    with open_results(path) as results:
        assert money(Reading(results)) is None
        assert list(money_indicators(Reading(results))) == []
    write_report([path], tmp_path / "page.html")
    assert "<h2>Money</h2>" not in (tmp_path / "page.html").read_text(encoding="utf-8")
