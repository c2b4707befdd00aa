"""Laws of settlement: cash and energy close, full delivery costs what was cleared, baselines keep what they should."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_market import random_case

from cosim.domain.market import Award, Direction
from cosim.domain.settlement import Call, DeliveryTerms, Interface, Perimeter, Period, Series
from cosim.errors import ProfileError
from cosim.market.baselines import METHODS, HighXOfY, Known, KnownColumns, MeterBefore, bias
from cosim.market.clearing import clear
from cosim.market.delivery import deliveries, signed
from cosim.market.exact import MONEY_EUR, apportioned, exact, rounded
from cosim.market.highs import Highs
from cosim.market.imbalance import closing_gaps, positions
from cosim.market.metering import columns, completed
from cosim.market.payments import cash, outlay_eur
from cosim.market.pricing import awards
from cosim.market.settlement import SettlementCase, SettlementRules, settle

seeds = st.integers(0, 100_000)
corrections = st.sampled_from(["none", "ordered", "delivered"])
few = settings(max_examples=60)
SOLVER = Highs()
QUARTER = 900
BRPS, SELLERS, BUYERS, METERS = ("X", "Y"), ("A", "B"), ("DSO", "TSO", "X"), ("M0", "M1", "M2", "M3")


def powers(rng, owner, kind, n, gaps=0.0):
    kw = rng.uniform(-20.0, 20.0, n).round(3).tolist()
    return Series(owner, kind, 0, QUARTER, tuple(None if rng.random() < gaps else value for value in kw))


def random_call(rng, k, n):
    direction = list(Direction)[rng.integers(2)]
    meters = rng.choice(METERS, size=rng.integers(1, 4), replace=False).tolist()
    first, length = int(rng.integers(-1, n)), int(rng.integers(1, n + 1))
    kw = rng.uniform(0.0, 8.0, (len(meters), length)).round(4) * (rng.random(length) < 0.8)
    prices = (tuple(rng.uniform(-0.2, 0.5, length).round(5).tolist()) for _ in range(2))
    award = Award(f"b{k}", "local", str(rng.choice(BUYERS)), first * QUARTER, tuple(kw.sum(axis=0).tolist()), *prices)
    basis = "raw" if rng.random() < 0.5 else "clipped"
    terms = DeliveryTerms(round(rng.uniform(0.0, 0.3), 2), 1.5, 0.01, basis, bool(rng.random() < 0.5))
    ordered = tuple((meter, tuple(row.tolist())) for meter, row in zip(meters, kw, strict=True))
    return Call(award, str(rng.choice(SELLERS)), direction, ordered, terms)


def random_settlement(seed, correction="delivered", gaps=0.0):
    """Up to five awards of meters of two BRPs, that deliver whatever they like."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5))
    calls = tuple(random_call(rng, k, n) for k in range(rng.integers(0, 6)))
    schedules = (powers(rng, brp, "schedule", n) for brp in BRPS)
    perimeters = (Perimeter("X", METERS[:2], next(schedules)), Perimeter("Y", METERS[2:], next(schedules)))
    head = Interface(powers(rng, "head", "schedule", n), powers(rng, "head", "measurement", n, gaps), "DSO")
    return SettlementCase(
        Period(0, QUARTER, n),
        calls,
        {meter: powers(rng, meter, "measurement", n, gaps) for meter in METERS},
        {meter: powers(rng, meter, "baseline", n) for meter in METERS},
        perimeters=perimeters,
        interface=head,
        imbalance_price=tuple(rng.uniform(-0.1, 0.6, n).round(4).tolist()),
        suppliers={"M0": "S", "M2": "A"},
        reference_price=tuple(rng.uniform(0.0, 0.2, n).round(4).tolist()),
        rules=SettlementRules(correction=correction),
    )


@few
@given(seed=seeds, correction=corrections, gaps=st.sampled_from([0.0, 0.3]))
def test_cash_of_all_parties_is_zero_in_every_period(seed, correction, gaps):
    found = settle(random_settlement(seed, correction, gaps))
    by_time = cash(found.lines)
    assert all(sum(parties.values()) == 0 for parties in by_time.values())
    paid = [line for line in found.lines if "TSO" in (line.payer, line.payee)]
    net = sum(line.amount_eur * (1 if line.payee == "TSO" else -1) for line in paid)
    assert net == sum(parties.get("TSO", Decimal(0)) for parties in by_time.values())


@few
@given(seed=seeds, correction=corrections, gaps=st.sampled_from([0.0, 0.3]))
def test_imbalances_of_all_parties_are_the_interface_s(seed, correction, gaps):
    case = random_settlement(seed, correction, gaps)
    found = settle(case)
    for t, t_s in enumerate(case.period.begins):
        metered_kw = case.interface.metered.p_kw[t]
        if metered_kw is None:
            continue
        total = sum(each.imbalance for each in found.positions if each.t_s == t_s)
        assert total == Fraction(QUARTER, 3600) * (exact(case.interface.scheduled.p_kw[t]) - exact(metered_kw))
    losses = [each for each in found.positions if each.party == "DSO"]
    meters = [each for each in found.positions if each.party in BRPS]
    assert len(losses) == case.period.n_mtu
    assert len(meters) == 2 * case.period.n_mtu


@few
@given(seed=seeds, correction=corrections)
def test_what_is_taken_from_one_position_another_gets(seed, correction):
    case = random_settlement(seed, correction)
    found = settle(case)
    assert sum(each.activated for each in found.positions) == 0
    plain = positions(case.period, case.perimeters, case.measured, case.interface)
    moved = {(each.party, each.t_s): each.imbalance for each in found.positions}
    for each in plain:
        own = next(p for p in found.positions if (p.party, p.t_s) == (each.party, each.t_s))
        assert moved[each.party, each.t_s] == each.imbalance - own.activated
    assert closing_gaps(case.period, plain, case.interface) == (0,) * case.period.n_mtu


@few
@given(seed=seeds)
def test_corrected_by_what_was_delivered_a_brp_sees_its_forecast_error_only(seed):
    """Where every meter is called, by a buyer that is no BRP; uncorrected it sees activations one for one."""
    case = random_settlement(seed)
    award = Award("b", "local", "TSO", 0, (1.0,) * case.period.n_mtu, *[(0.0,) * case.period.n_mtu] * 2)
    calls = tuple(Call(award, "A", Direction.UP, ((meter, award.quantity_kw),)) for meter in METERS)
    case = replace(case, calls=calls)
    found = {(p.party, p.t_s): p.imbalance for p in settle(case).positions}
    uncorrected = settle(replace(case, rules=SettlementRules(correction="none"))).positions
    plain = {(p.party, p.t_s): p.imbalance for p in uncorrected}
    for each in case.perimeters:
        for t, t_s in enumerate(case.period.begins):
            free = sum(exact(case.baselines[m].p_kw[t]) for m in each.meters)
            drawn = sum(exact(case.measured[m].p_kw[t]) for m in each.meters)
            error = exact(each.scheduled.p_kw[t]) - free
            assert found[each.party, t_s] == error / 4
            assert plain[each.party, t_s] == (error + free - drawn) / 4


@few
@given(seed=seeds)
def test_deliveries_of_a_meter_are_its_deviation(seed):
    case = random_settlement(seed)
    found = deliveries(case.period, case.calls, case.measured, case.baselines)
    for meter in METERS:
        for t, t_s in enumerate(case.period.begins):
            own = [(d, s) for d in found if d.t_s == t_s for s in d.shares if s.meter == meter]
            if own:
                rise = exact(case.baselines[meter].p_kw[t]) - exact(case.measured[meter].p_kw[t])
                assert sum(signed(d.call.direction, s.given) for d, s in own) == rise / 4
    for each in found:
        assert 0 <= each.delivered <= each.awarded
        assert each.short >= 0 <= each.over
        if each.call.terms.basis == "clipped":
            assert each.short <= each.awarded


def fully_delivered(calls, period, baseline_kw):
    """Meters that do what was ordered: measurement and baseline of each."""
    meters = dict.fromkeys(meter for call in calls for meter, _ in call.ordered_kw)
    kw = {meter: np.full(period.n_mtu, baseline_kw) for meter in meters}
    for call in calls:
        for meter, ordered in call.ordered_kw:
            kw[meter] = kw[meter] + call.direction.delta_p_kw(np.array(ordered))
    free = {m: Series(m, "baseline", period.t_s, period.mtu_s, (baseline_kw,) * period.n_mtu) for m in meters}
    drawn = {m: Series(m, "measurement", period.t_s, period.mtu_s, tuple(each.tolist())) for m, each in kw.items()}
    return drawn, free


@few
@given(seed=seeds, share=st.floats(0.6, 1.2), loop=st.booleans())
def test_outlay_at_full_delivery_is_the_objective_of_the_clearing(seed, share, loop):
    """Under pay-as-bid, to the last unit of money; under pay-as-clear no less."""
    cleared = clear(random_case(seed, share, 0.02, loop), SOLVER)
    bids = {bid.id: bid for bid in cleared.bids}
    period = Period(0, QUARTER, 1)

    def settled(rule):
        calls = [
            Call(a, bids[a.bid].seller, bids[a.bid].direction, ((bids[a.bid].resource, a.quantity_kw),))
            for a in awards(cleared, rule, "local", "DSO")
        ]
        drawn, free = fully_delivered(calls, period, 0.0)
        return settle(SettlementCase(period, tuple(calls), drawn, free)).lines

    as_bid = settled("pay_as_bid")
    assert {line.kind for line in as_bid} <= {"utilisation"}
    assert abs(float(outlay_eur(as_bid)) - cleared.cost_eur) <= 0.5 * float(MONEY_EUR) + 1e-9
    if not cleared.unsolved:
        assert cleared.cost_eur == pytest.approx(cleared.objective_eur, abs=1e-9)
        as_clear = settled("pay_as_clear")
        assert outlay_eur(as_clear, ("utilisation", "uplift")) >= outlay_eur(as_bid) - MONEY_EUR


@few
@given(seed=seeds)
def test_outlay_is_the_exact_sum_rounded_once(seed):
    """However many awards and MTUs there are."""
    case = random_settlement(seed)
    found = deliveries(case.period, case.calls, case.measured, case.baselines)
    owed = sum((d.price * d.delivered for d in found if d.call.award.buyer != d.call.seller), Fraction(0))
    assert outlay_eur(settle(case).lines) == rounded(owed, MONEY_EUR)


@few
@given(seed=seeds, correction=corrections)
def test_the_order_of_what_comes_in_changes_nothing(seed, correction):
    case = random_settlement(seed, correction, 0.2)
    turned = replace(
        case,
        calls=case.calls[::-1],
        measured=dict(reversed(case.measured.items())),
        perimeters=case.perimeters[::-1],
    )
    assert settle(turned).lines == settle(case).lines


@few
@given(seed=seeds, less_kw=st.floats(0.0, 30.0))
def test_a_seller_never_gains_by_delivering_less(seed, less_kw):
    """One award, a positive price: what it is paid less what it is fined."""
    case = random_settlement(seed)
    rng = np.random.default_rng(seed)
    award = Award("b", "local", "DSO", 0, (8.0,), (0.2,), (0.2,))
    terms = DeliveryTerms(0.1, 0.5, 0.01, "raw" if rng.random() < 0.5 else "clipped")
    direction = list(Direction)[rng.integers(2)]
    call = Call(award, "A", direction, (("M0", (8.0,)),), terms)

    def net(kw):
        own = {"M0": Series("M0", "measurement", 0, QUARTER, (kw,))}
        free = {"M0": case.baselines["M0"]}
        lines = settle(SettlementCase(Period(0, QUARTER, 1), (call,), own, free)).lines
        return sum((line.amount_eur * (1 if line.payee == "A" else -1) for line in lines), Decimal(0))

    kw = case.measured["M0"].p_kw[0]
    assert net(kw - direction.delta_p_kw(less_kw)) <= net(kw)


@few
@given(values=st.lists(st.fractions(-100, 100, max_denominator=10**9), max_size=30))
def test_rounding_loses_nothing(values):
    found = apportioned(values)
    assert sum(found, Decimal(0)) == rounded(sum(values, Fraction(0)), MONEY_EUR)
    assert all(abs(Fraction(amount) - value) < Fraction(MONEY_EUR) for amount, value in zip(found, values, strict=True))


@few
@given(seed=seeds, gap=st.integers(0, 3))
def test_completing_keeps_what_was_measured_and_is_done_once(seed, gap):
    rng = np.random.default_rng(seed)
    period = Period(0, QUARTER, 12)
    measured, stand_in = powers(rng, "M", "measurement", 12, 0.4), powers(rng, "M", "baseline", 12)
    full, told = completed(measured, [stand_in], period, gap)
    for seen, value, estimated in zip(measured.p_kw, full.p_kw, full.estimated, strict=True):
        assert estimated == (seen is None)
        assert seen is None or value == seen
    assert bool(told) == any(full.estimated)
    assert completed(full, [stand_in], period, gap) == (full, ())


HOUR, DAY = 3600, 24
EVENT = Period((7 * DAY + 12) * HOUR, HOUR, 3)
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
ADJUSTED = HighXOfY(2, 4, adjust_mtu=3)
ALL = [*METHODS.values(), HighXOfY(2, 4), ADJUSTED, MeterBefore(4)]


def random_known(seed, scale=1.0, shift=0.0, event_kw=None, order=None):
    """Of a meter that draws 5 to 20 kW. The activation is on a Monday: the five working days before are similar."""
    rng = np.random.default_rng(seed)
    kw, other = rng.uniform(5.0, 20.0, (8, DAY)), rng.uniform(5.0, 20.0, (2, 8 * DAY))
    if order is not None:
        kw[[0, 1, 2, 3, 4]] = kw[list(order)]
    if event_kw is not None:
        kw[7, 12:15] = event_kw
    rows = [Series("M", "forecast", 0, HOUR, tuple((scale * each + shift).tolist())) for each in (kw.ravel(), *other)]
    return Known(*rows, MONDAY)


def baseline(method, known):
    return np.array(method.p_kw(known, EVENT, EVENT.t_s))


@few
@given(seed=seeds, gaps=st.sampled_from([0.0, 0.1, 0.6]), days=st.integers(0, 16))
def test_baselines_of_several_meters_are_those_of_each(seed, gaps, days):
    """To the last bit, and unknown where the method of one meter says what it lacks."""
    rng = np.random.default_rng(seed)
    n, column = 5, tuple(rng.permutation(5).tolist())
    past_kw, now_kw = rng.normal(0.0, 9.0, (days * DAY, n)).round(2), rng.normal(0.0, 9.0, (2, n))
    for kw in (past_kw, now_kw):
        kw[rng.random(kw.shape) < gaps] = np.nan
    period = Period(int(rng.integers(0, 400)) * HOUR, HOUR, 1)
    order_s = tuple((period.t_s - rng.integers(-2 * HOUR, 5 * HOUR, n)).tolist())
    free = [MONDAY.date() + timedelta(days=int(back)) for back in rng.integers(-16, 16, 8)]
    not_similar = tuple(frozenset(day for day in free if rng.random() < 0.5) for _ in range(n))
    known = KnownColumns((*METERS, "M4"), period, order_s, past_kw, column, *now_kw, MONDAY, HOUR, not_similar)
    for method in ALL:
        for k, kw in enumerate(method.each_kw(known)):
            try:
                assert method.p_kw(known.of(k), period, order_s[k]) == (kw,)
            except ProfileError:
                assert np.isnan(kw)


@few
@given(seed=seeds, gaps=st.sampled_from([0.0, 0.3]))
def test_meters_in_columns_are_settled_as_their_series(seed, gaps):
    case = random_settlement(seed, gaps=gaps)
    table = columns("measurement", case.measured, case.period)
    free = columns("baseline", case.baselines, case.period)
    assert {meter: series.p_kw for meter, series in table.items()} == {m: s.p_kw for m, s in case.measured.items()}
    assert settle(replace(case, measured=table, baselines=free)) == settle(case)


@few
@given(seed=seeds, scale=st.floats(0.1, 10.0))
def test_baselines_scale_with_the_meter(seed, scale):
    for method in ALL:
        expected = scale * baseline(method, random_known(seed))
        assert baseline(method, random_known(seed, scale)) == pytest.approx(expected, rel=1e-9)


@few
@given(seed=seeds, shift=st.floats(-50.0, 50.0))
def test_baselines_without_adjustment_move_with_the_meter(seed, shift):
    for method in ALL:
        moved = 0.0 if method is METHODS["zero"] else shift
        if method is not ADJUSTED:
            expected = baseline(method, random_known(seed)) + moved
            assert baseline(method, random_known(seed, shift=shift)) == pytest.approx(expected, abs=1e-9)


@few
@given(seed=seeds, event_kw=st.floats(-100.0, 100.0))
def test_what_is_measured_during_the_activation_changes_no_baseline(seed, event_kw):
    for method in ALL:
        same = baseline(method, random_known(seed, event_kw=event_kw))
        assert (same == baseline(method, random_known(seed))).all()


@few
@given(seed=seeds, order=st.permutations(range(5)))
def test_the_order_of_similar_days_does_not_matter(seed, order):
    """Monday to Friday swapped, as long as all count."""
    method = HighXOfY(2, 10, adjust_mtu=2)
    swapped = baseline(method, random_known(seed, order=order))
    assert swapped == pytest.approx(baseline(method, random_known(seed)), rel=1e-12)


@few
@given(seed=seeds, x=st.integers(1, 5))
def test_the_highest_days_are_no_lower_than_all(seed, x):
    known = random_known(seed)
    five = np.array(known.measured.p_kw).reshape(8, DAY)[:5, 12:15]
    found, every = (baseline(HighXOfY(k, 5), known) for k in (x, 5))
    assert every == pytest.approx(five.mean(axis=0))
    assert found.sum() >= every.sum() - 1e-9
    assert (five.min(axis=0) - 1e-9 <= found).all()
    assert (found <= five.max(axis=0) + 1e-9).all()


@few
@given(seed=seeds, most=st.floats(0.0, 0.5))
def test_the_adjustment_stays_within_its_cap(seed, most):
    known = random_known(seed)
    plain = baseline(HighXOfY(2, 4), known)
    factor = baseline(HighXOfY(2, 4, 3, most), known) / plain
    assert np.ptp(factor) < 1e-12
    assert 1.0 - most - 1e-12 <= factor[0] <= 1.0 + most + 1e-12


@few
@given(seed=seeds)
def test_bias_against_the_truth(seed):
    known = random_known(seed)
    truth = baseline(METHODS["model"], known)
    for method in ALL:
        kw = baseline(method, known)
        found, opposite = bias(kw, truth, HOUR), bias(truth, kw, HOUR)
        assert found.mean_kw == pytest.approx(-opposite.mean_kw)
        assert found.credited_up_kwh == pytest.approx(float((kw - truth).sum()))
        assert abs(found.mean_kw) <= found.mean_abs_kw + 1e-12 <= found.rms_kw + 2e-12
    assert bias(truth, truth, HOUR).rms_kw == 0.0
