"""Laws of settlement MTU by MTU: whatever is drawn, ordered and not metered, cash and energy close."""

from datetime import UTC, datetime

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.clock import Clock
from cosim.domain.frames import frozen
from cosim.domain.market import Award, Direction
from cosim.domain.settlement import Call
from cosim.market.accounts import Accounts
from cosim.market.payments import cash
from cosim.scenario.settlement import SettlementConfig

PODS, QUARTER, MTUS = ("P", "Q", "R"), 900, 5
CLOCK = Clock(datetime(2016, 5, 18, tzinfo=UTC), 300, 3 * MTUS, QUARTER)
METHODS = ("schedule", "model", "meter_before_after", "high_x_of_y", "zero")


def accounts(rng, **config):
    usual_kw = rng.uniform(-50.0, 50.0, (28, 3))
    return Accounts(
        SettlementConfig(**config), CLOCK, 1, 0, PODS, ("X", "Y", "X"), PODS[:2], (), lambda mtu: usual_kw, 28
    )


def random_call(rng, k, t_s):
    length = int(rng.integers(1, 4))
    kw = rng.uniform(0.0, 8.0, (2, length)).round(4) * (rng.random(length) < 0.8)
    prices = (tuple(rng.uniform(-0.2, 0.5, length).round(5).tolist()) for _ in range(2))
    award = Award(f"b{k}", "local", str(rng.choice(["dso", "tso"])), t_s, tuple(kw.sum(axis=0).tolist()), *prices)
    direction = list(Direction)[rng.integers(2)]
    return Call(
        award, str(rng.choice(["A", "B"])), direction, tuple(zip(PODS[:2], map(tuple, kw.tolist()), strict=True))
    )


@settings(max_examples=50)
@given(
    seed=st.integers(0, 100_000),
    baseline=st.sampled_from(METHODS),
    missing=st.sampled_from([0.0, 0.0, 0.3]),
    correction=st.sampled_from(["none", "ordered", "delivered"]),
)
def test_cash_and_energy_close_in_every_mtu(seed, baseline, missing, correction):
    rng = np.random.default_rng(seed)
    config = {"baseline": baseline, "missing": missing, "correction": correction, "compensation_eur_per_kwh": 0.07}
    book = accounts(rng, **config, penalty_factor=2.0, penalty_basis="raw", two_sided=True, failures=1)
    kept = book.start(frozen(rng.uniform(-50.0, 50.0, 3)))
    for k in range(MTUS):
        t_s = k * QUARTER
        kept = book.taken(kept, t_s, [random_call(rng, 10 * k + n, t_s) for n in range(rng.integers(0, 3))], [])
        for _ in range(3):
            p_kw, free_kw = (frozen(rng.uniform(-50.0, 50.0, 3)) for _ in range(2))
            kept = book.metered(kept, p_kw, free_kw, float(p_kw.sum() + rng.uniform(0.0, 3.0)))
        head_kw = kept.head_sum_kw / 3
        scheduled_kw = sum(kept.scheduled_kw.tolist()) + kept.loss_kw
        kept, found = book.settled(kept, t_s, frozen(rng.uniform(-50.0, 50.0, 3)))
        assert all(sum(parties.values()) == 0 for parties in cash(found.lines).values())
        assert found.closing_kwh == 0.0 or np.isnan(found.closing_kwh)
        if not np.isnan(found.closing_kwh):
            total = float(sum(each.imbalance for each in found.found.positions))
            assert abs(total - 0.25 * (scheduled_kw - head_kw)) < 1e-9
        assert (found.missing > 0) == any(each.estimated for each in found.found.positions)
        assert len(found.told) >= found.missing
        assert np.isfinite(kept.metered_kw).all()
        assert {row["pod"] for row in found.believed.rows(t_s) if row["paid"]} == {
            share.meter for each in found.found.deliveries for share in each.shares
        }
