"""The settlement example of the UFTP specification; see README.md."""

import csv
from decimal import Decimal
from pathlib import Path

import pytest

from cosim.domain.market import Award, Direction
from cosim.domain.settlement import Call, DeliveryTerms, Period, Series
from cosim.market.settlement import SettlementCase, settle

PERIOD = Period(0, 3600, 1)
EUR_PER_KWH, PENALTY_EUR_PER_KWH = 0.007, 0.011
AWARD = Award("b", "local", "DSO", 0, (2000.0,), (EUR_PER_KWH,), (EUR_PER_KWH,))


def rows():
    with Path(__file__).with_name("expected.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def settled(allocation_mw, basis="raw"):
    terms = DeliveryTerms(tolerance=0.0, penalty_adder_eur_per_kwh=PENALTY_EUR_PER_KWH, basis=basis)
    call = Call(AWARD, "AGR", Direction.UP, (("M", (2000.0,)),), terms)
    measured = Series("M", "measurement", 0, 3600, (1000.0 * allocation_mw,))
    baseline = Series("M", "baseline", 0, 3600, (10_000.0,))
    lines = settle(SettlementCase(PERIOD, (call,), {"M": measured}, {"M": baseline})).lines
    paid = sum((line.amount_eur for line in lines if (line.payer, line.payee) == ("DSO", "AGR")), Decimal(0))
    fined = sum((line.amount_eur for line in lines if (line.payer, line.payee) == ("AGR", "DSO")), Decimal(0))
    return paid, fined


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["allocation_mw"])
def test_row(row):
    paid, fined = settled(float(row["allocation_mw"]))
    assert (paid, fined) == (Decimal(row["payment_eur"]), Decimal(row["penalty_eur"]))
    assert paid - fined == Decimal(row["net_eur"])


def test_trap_clipped_before_the_penalty():
    paid, fined = settled(11.0, basis="clipped")
    assert paid - fined == Decimal(-22) != Decimal(rows()[-1]["net_eur"])
