"""Settlement of a run MTU by MTU: one feeder of a load P and a store Q, quarter hours, a step of five minutes."""

from dataclasses import replace
from datetime import UTC, date, datetime, time

import numpy as np
import pytest

from cosim.clock import Clock
from cosim.domain.frames import frozen
from cosim.domain.market import Award, Contract, Direction, Window
from cosim.domain.settlement import Call
from cosim.errors import Fault, ProfileError
from cosim.market.accounts import Accounts
from cosim.market.delivery import suspensions
from cosim.market.hybrid import Commitment
from cosim.market.payments import cash
from cosim.scenario.settlement import SettlementConfig

UP, DOWN = Direction.UP, Direction.DOWN
QUARTER, DAY = 900, 96
CLOCK = Clock(datetime(2016, 5, 18, tzinfo=UTC), 300, 3 * 8, QUARTER)
USUAL_KW = np.array([[90.0 + k, 0.0] for k in range(28)])


def accounts(contracts=(), clock=CLOCK, usual_kw=lambda mtu: USUAL_KW, **config):
    settings = SettlementConfig(**({"baseline": "model"} | config))
    return Accounts(settings, clock, 1, 0, ("P", "Q"), ("one", "two"), ("P",), contracts, usual_kw, 28)


def award(bid, t_s, *kw, price=0.2):
    return Award(bid, "local", "dso", t_s, kw, (price,) * len(kw), (price,) * len(kw))


def call(bid, t_s, *kw, direction=UP, pod="P"):
    return Call(award(bid, t_s, *kw), "agg", direction, ((pod, kw),))


def mtu(book, kept, t_s, powers_kw, free_kw=(100.0, 0.0), losses_kw=0.0, next_kw=(100.0, 0.0)):
    """One MTU; ``powers_kw`` of P in its three steps."""
    for p_kw in powers_kw:
        kept = book.metered(kept, frozen([p_kw, 5.0]), frozen(free_kw), p_kw + 5.0 + losses_kw)
    return book.settled(kept, t_s, frozen(next_kw))


def started(book, *calls, scheduled_kw=(100.0, 0.0), ordered_s=0):
    return book.taken(book.start(frozen(scheduled_kw)), ordered_s, calls, [])


def paid(settled, kind):
    return {(line.payer, line.payee): float(line.amount_eur) for line in settled.lines if line.kind == kind}


def test_energy_is_the_mean_of_the_steps():
    """20 kW less than 100 for a quarter hour is 5 kWh, 1 EUR, now the buyer's; the store drew 1.25 kWh too much."""
    book = accounts()
    kept, found = mtu(book, started(book, call("b", 0, 20.0)), 0, (70.0, 80.0, 90.0))
    assert paid(found, "utilisation") == {("dso", "agg"): 1.0}
    assert paid(found, "imbalance") == {("tso", "dso"): 0.5, ("two", "tso"): 0.125}
    assert (found.closing_kwh, found.missing, found.told) == (0.0, 0, ())
    assert all(sum(parties.values()) == 0 for parties in cash(found.lines).values())
    assert (kept.ordered, kept.sum_kw.tolist(), kept.head_sum_kw) == ((), [0.0, 0.0], 0.0)
    assert kept.metered_kw.tolist() == [[80.0]]


def test_losses_are_scheduled_as_they_were():
    book = accounts()
    kept, first = mtu(book, started(book), 0, (100.0,) * 3, losses_kw=4.0)
    assert paid(first, "imbalance")["dso", "tso"] == pytest.approx(0.1)
    _, second = mtu(book, kept, QUARTER, (100.0,) * 3, losses_kw=4.0)
    assert ("dso", "tso") not in paid(second, "imbalance")


def test_terms_are_those_of_the_scenario():
    """12 of 20 kW: 10 % may be missing, so 6 kW for a quarter hour are short, at 0.2 * 1.5 + 0.05 EUR/kWh."""
    book = accounts(penalty_factor=1.5, penalty_eur_per_kwh=0.05)
    _, found = mtu(book, started(book, call("b", 0, 20.0)), 0, (88.0,) * 3)
    assert paid(found, "penalty") == {("agg", "dso"): pytest.approx(1.5 * 0.35)}
    assert paid(found, "utilisation") == {("dso", "agg"): pytest.approx(0.6)}


def test_calls_are_kept_until_their_last_mtu_is_over():
    """A course of three MTUs that was ordered before the first of them."""
    book = accounts()
    kept = started(book, call("course", QUARTER, 8.0, 0.0, 4.0))
    kept, before = mtu(book, kept, 0, (100.0,) * 3)
    found = []
    for k, kw in enumerate((92.0, 100.0, 96.0), 1):
        assert len(kept.ordered) == 1
        kept, settled = mtu(book, kept, k * QUARTER, (kw,) * 3)
        found.append(paid(settled, "utilisation"))
    assert kept.ordered == ()
    assert not before.found.deliveries
    assert found == [{("dso", "agg"): 0.4}, {}, {("dso", "agg"): 0.2}]


def test_methods_before_an_order_look_before_it_and_not_only_before_delivery():
    """Ordered at 900 s for the third MTU: what counts is the first one, not the second."""
    book = accounts(baseline="meter_before_after")
    kept, _ = mtu(book, started(book), 0, (60.0,) * 3)
    kept = book.taken(kept, QUARTER, [call("b", 2 * QUARTER, 10.0)], [])
    kept, _ = mtu(book, kept, QUARTER, (75.0,) * 3)
    _, found = mtu(book, kept, 2 * QUARTER, (50.0,) * 3)
    baselines = {row["method"]: row["baseline_kw"] for row in found.believed.rows(0)}
    assert baselines["meter_before_after"] == 60.0
    assert baselines["model"] == 100.0
    assert found.believed.paid == ("meter_before_after",)


def test_similar_days_before_the_run_are_those_of_the_profiles():
    """Wednesday: the ten working days before have 90, 91, 95, ... kW; the five highest of them are meant."""
    book = accounts(baseline="high_x_of_y")
    _, found = mtu(book, started(book, call("b", 0, 10.0)), 0, (80.0,) * 3)
    (own,) = (row for row in found.believed.rows(0) if row["method"] == "high_x_of_y")
    working = [90.0 + k for k in range(28) if (2 - k - 1) % 7 < 5][:10]
    assert own["baseline_kw"] == pytest.approx(np.mean(sorted(working)[-5:]))
    assert own["bias_kw"] == pytest.approx(own["baseline_kw"] - 100.0)


def test_similar_days_of_the_run_are_those_measured_but_not_those_of_activations():
    """On Thursday Wednesday's 400 kW count, unless P was called on it."""
    long = replace(CLOCK, step_s=QUARTER, steps=2 * DAY)
    found = []
    for calls in ((), (call("first", 0, 10.0),)):
        book = accounts(clock=long, baseline="high_x_of_y")
        kept = started(book, *calls)
        for k in range(DAY):
            kept, _ = mtu(book, kept, k * QUARTER, (400.0,))
        kept = book.taken(kept, DAY * QUARTER, [call("b", DAY * QUARTER, 10.0)], [])
        _, settled = mtu(book, kept, DAY * QUARTER, (80.0,))
        found.append(settled.believed.baseline_kw["high_x_of_y"][0])
    assert found[0] > found[1] + 50.0


def test_days_of_activations_are_kept_for_as_long_as_days_are_looked_back_to():
    """28 days: a call on the 30th day forgets that of the first, and keeps that of the second."""
    daily = replace(CLOCK, step_s=QUARTER, steps=40 * DAY)
    book = accounts(clock=daily)
    kept = started(book)
    for day in (0, 1, 29):
        t_s = day * DAY * QUARTER
        kept, _ = mtu(book, book.taken(kept, t_s, [call(f"b{day}", t_s, 10.0)], []), t_s, (90.0,))
    assert kept.called == {"P": ("2016-05-19", "2016-06-16")}


def test_metered_values_are_kept_for_as_many_days_as_are_looked_back_to():
    book = replace(accounts(clock=replace(CLOCK, step_s=QUARTER, steps=2 * DAY)), days=1)
    kept = started(book)
    for k in range(DAY + 2):
        kept, _ = mtu(book, kept, k * QUARTER, (float(k),))
    assert kept.metered_kw[:, 0].tolist() == [float(k) for k in range(2, DAY + 2)]
    assert not kept.metered_kw.flags.writeable


def test_where_a_method_has_not_what_it_needs_what_was_declared_counts_and_that_is_told():
    def none(mtu):
        raise ProfileError(Fault("no history"))

    book = accounts(baseline="high_x_of_y", usual_kw=none)
    kept = started(book, call("b", 0, 10.0), scheduled_kw=(95.0, 0.0))
    _, found = mtu(book, kept, 0, (80.0,) * 3)
    assert found.told == ("baseline of P at 0 s: too few similar days before; taken from the schedule",)
    paid_by = [(row["method"], row["baseline_kw"]) for row in found.believed.rows(0) if row["paid"]]
    assert paid_by == [("schedule", 95.0)]
    assert float(found.found.deliveries[0].given) == pytest.approx(3.75)


def test_a_missing_value_is_estimated_flagged_and_told():
    book = accounts(missing=1.0)
    kept = started(book, call("b", 0, 10.0), scheduled_kw=(95.0, 2.0))
    kept, found = mtu(book, kept, 0, (80.0,) * 3)
    assert found.missing == 3
    assert np.isnan(found.closing_kwh)
    assert [told.rpartition(", ")[2] for told in found.told] == [
        "taken from the baseline of P",
        "taken from the schedule of Q",
        "taken from the forecast of head (meters and scheduled losses)",
    ]
    (delivery,) = found.found.deliveries
    assert (float(delivery.delivered), delivery.estimated) == (0.0, True)
    assert all(line.estimated for line in found.lines)
    assert kept.metered_kw.tolist() == [[100.0]]
    assert kept.loss_kw == 0.0


def contract(**more):
    window = Window(date(2016, 5, 18), date(2016, 5, 18), time(0, 30), time(1, 0))
    terms = {"availability_full": 1.0, "availability_zero": 0.0, "window": window} | more
    return Contract("c", "agg", "dso", "up", UP, 10.0, 3.0, 0.5, shares=(("r", 1.0),), **terms)


def ready(t_s, *offered_kw, owed=True):
    return Commitment("c", t_s, (owed,) * len(offered_kw), (0.0,) * len(offered_kw), offered_kw)


def availability_of(book, *commitments):
    kept, found = started(book), []
    for k in range(8):
        kept = book.taken(kept, k * QUARTER, [], commitments if k == 0 else [])
        kept, settled = mtu(book, kept, k * QUARTER, (100.0,) * 3)
        found += [(k, line) for line in settled.lines if line.kind == "availability"]
    return found


def test_being_ready_is_paid_with_the_last_mtu_of_the_window():
    """10 and 5 of 10 kW in its two MTUs: three quarters of 30 EUR. Of two gates the one that offered more counts."""
    ((k, line),) = availability_of(accounts((contract(),)), ready(2 * QUARTER, 10.0, 1.0), ready(3 * QUARTER, 5.0))
    assert k == 3
    assert (line.t_s, line.duration_s, line.payer, line.payee) == (1800, 1800, "dso", "agg")
    assert float(line.amount_eur) == pytest.approx(22.5)


def test_nothing_is_paid_for_a_window_without_a_gate():
    book = accounts((contract(),))
    assert availability_of(book) == []
    assert availability_of(book, ready(2 * QUARTER, 10.0, owed=False)) == []


@pytest.mark.parametrize("seed", range(5))
def test_who_fails_in_a_row_is_suspended_as_the_library_says(seed):
    rng = np.random.default_rng(seed)
    book = accounts(clock=replace(CLOCK, step_s=QUARTER, steps=40), failures=2, suspension_days=3, tolerance=0.2)
    kept, seen, deliveries = started(book), {}, []
    for k in range(40):
        called = [call(f"b{k}", k * QUARTER, 10.0)] if rng.random() < 0.8 else []
        kept = book.taken(kept, k * QUARTER, called, [])
        kept, found = mtu(book, kept, k * QUARTER, (95.0 if rng.random() < 0.6 else 91.0,))
        deliveries += found.found.deliveries
        seen |= kept.until_s
        assert seen == suspensions(deliveries, QUARTER, 2, 3)
    assert seen


def test_a_suspension_ends():
    book = accounts(clock=replace(CLOCK, step_s=QUARTER, steps=3 * DAY), failures=1)
    kept, _ = mtu(book, started(book, call("b", 0, 10.0)), 0, (99.0,))
    assert kept.until_s == {"P": QUARTER + DAY * QUARTER}
    kept, _ = mtu(book, kept, (DAY - 1) * QUARTER, (100.0,))
    assert kept.until_s
    kept, _ = mtu(book, kept, DAY * QUARTER, (100.0,))
    assert kept.until_s == {}


def test_two_called_at_one_pod_in_both_directions():
    """Net 6 kW up were ordered and given: both are whole."""
    book = accounts()
    calls = (call("up", 0, 10.0), call("down", 0, 4.0, direction=DOWN))
    _, found = mtu(book, started(book, *calls), 0, (94.0,) * 3)
    assert {each.call.award.bid: float(each.given) for each in found.found.deliveries} == {"up": 2.5, "down": 1.0}
    assert found.believed.ordered_kw == (6.0,)
