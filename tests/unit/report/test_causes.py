"""Every cause of a violation that is left, on cases made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from cosim.report.causes import (
    Cause,
    Circumstances,
    Delivery,
    Finding,
    PodErrors,
    Rules,
    Slack,
    causes_of,
    residuals,
)

PODS = ("A.load", "B.pv", "C.battery")
NO_ERROR = PodErrors(PODS, np.zeros(3), np.zeros(3), np.array([10.0, 20.0, 0.0]), np.array([5.0, 0.0, 0.0]))
CASE = Circumstances(900.0, "Line.L2@A", "i_a", 2.0, 100.0, errors=NO_ERROR)
BOX = Rules()


def errors(p_kw: dict[str, float] | None = None, q_kvar: dict[str, float] | None = None) -> PodErrors:
    p, q = (np.array([(given or {}).get(pod, 0.0) for pod in PODS]) for given in (p_kw, q_kvar))
    return replace(NO_ERROR, p_kw=p, q_kvar=q)


def main(case: Circumstances, rules: Rules = BOX) -> tuple[Cause, str]:
    first = causes_of(case, rules)[0]
    return first.cause, first.detail


def all_of(case: Circumstances, rules: Rules = BOX) -> list[Cause]:
    return [finding.cause for finding in causes_of(case, rules)]


def test_slack_at_the_element_is_the_cause_whatever_else_was_off() -> None:
    slack = (Slack("i_max", "Line.L2@A.1", 3.0), Slack("i_max", "Line.L2@B.2", 4.0), Slack("v_min", "D.1", 9.0))
    case = replace(CASE, unsolved=slack, errors=errors({"B.pv": -30.0}))
    assert main(case) == (Cause.UNSOLVED, "Line.L2@B.2: 4 % beyond i_max; 1 more limit")
    assert all_of(case) == [Cause.UNSOLVED, Cause.ERROR, Cause.UNSOLVED]


def test_slack_of_a_voltage_is_at_the_bus() -> None:
    case = replace(CASE, element="4.1", quantity="vm_pu", limit=0.9, unsolved=(Slack("v_min", "4.1.2", 1.5),))
    assert main(case) == (Cause.UNSOLVED, "4.1.2: 1.5 % beyond v_min")


def test_slack_elsewhere_comes_after_powers_that_are_off() -> None:
    case = replace(CASE, unsolved=(Slack("power_flow", "Line.L9@X.1", 0.02),), errors=errors({"B.pv": 21.0}))
    assert all_of(case) == [Cause.ERROR, Cause.UNSOLVED]
    assert main(replace(case, errors=NO_ERROR)) == (Cause.UNSOLVED, "Line.L9@X.1: 0.02 % beyond power flow")


def test_error_outside_its_half_band_names_the_pod_furthest_outside() -> None:
    case = replace(CASE, errors=errors({"A.load": 15.0, "B.pv": -30.0}, {"A.load": -4.0}))
    assert main(case) == (Cause.ERROR, "B.pv: P -30.0 kW, 1.50 half-bands; 1 more POD")
    assert causes_of(case, BOX)[0].weight == pytest.approx(10.0, abs=1e-4)
    reactive = replace(CASE, errors=errors({"A.load": 9.0}, {"A.load": 8.0}))
    assert main(reactive) == (Cause.ERROR, "A.load: Q +8.0 kvar, 1.60 half-bands")
    without_band = replace(CASE, errors=errors({"C.battery": 0.25}))
    assert main(without_band) == (Cause.ERROR, "C.battery: P +0.2 kW, without a half-band")


def test_error_within_its_half_band_explains_nothing() -> None:
    assert main(replace(CASE, errors=errors({"A.load": 10.0, "B.pv": -20.0}, {"A.load": 5.0})))[0] is Cause.UNEXPLAINED


def test_any_error_counts_where_none_is_planned_for() -> None:
    case = replace(CASE, errors=errors({"B.pv": -5.0}))
    assert main(case, Rules(errors="none")) == (Cause.ERROR, "B.pv: P -5.0 kW, 0.25 half-bands, none planned for")
    assert main(case, BOX)[0] is Cause.UNEXPLAINED


def test_errors_count_only_behind_the_element_and_toward_the_violation() -> None:
    off = errors({"A.load": 50.0, "B.pv": -24.0})
    behind = replace(CASE, errors=off, behind=frozenset({"B.pv"}))
    assert main(behind) == (Cause.ERROR, "B.pv: P -24.0 kW, 1.20 half-bands")
    feeding_back = replace(behind, toward=(-1.0, 0.0))
    assert causes_of(feeding_back, BOX)[0].weight == pytest.approx(4.0, abs=1e-4)
    delivery = Delivery("store", "B.pv", 5.0, 1.0)
    relieving = replace(behind, toward=(1.0, 0.0), deliveries=(delivery,))
    aside = "A.load: P +50.0 kW, 5.00 half-bands; 1 more POD (elsewhere or relieving)"
    assert Finding(Cause.ERROR, aside) in causes_of(relieving, BOX)


def test_errors_that_are_together_outside_a_budget() -> None:
    case = replace(CASE, errors=errors({"A.load": 10.0, "B.pv": -20.0}, {"A.load": 2.5}))
    rules = Rules(errors="budget", gamma=2.0)
    assert main(case, rules) == (Cause.TOGETHER, "2.50 half-bands in all, 2 planned for")
    assert main(case, replace(rules, gamma=2.5))[0] is Cause.UNEXPLAINED


def test_errors_of_p_and_q_that_do_not_come_together() -> None:
    case = replace(CASE, errors=errors({"A.load": 10.0}, {"A.load": 2.0}))
    rules = Rules(with_active=True)
    assert main(case, rules) == (Cause.TOGETHER, "A.load: Q does not come with P")
    assert main(replace(case, errors=errors({"A.load": 10.0}, {"A.load": 5.0})), rules)[0] is Cause.UNEXPLAINED


def test_errors_outside_an_ellipsoid_and_inside_it_beyond_their_bands() -> None:
    both = PodErrors(("A", "B"), np.array([9.0, 9.0]), np.zeros(2), np.full(2, 10.0), np.full(2, 10.0))
    rules = Rules(errors="ellipsoid", omega=1.0, correlation=0.0)
    found, detail = main(replace(CASE, errors=both), rules)
    assert (found, detail) == (Cause.TOGETHER, "1.27 from the middle of the ellipsoid, 1 planned for")
    beyond = replace(both, p_kw=np.array([15.0, 0.0]))
    assert main(replace(CASE, errors=beyond), replace(rules, omega=1.6))[0] is Cause.UNEXPLAINED
    assert main(replace(CASE, errors=beyond), replace(rules, omega=1.4))[0] is Cause.ERROR


def test_the_ellipsoid_is_that_of_the_correlation_matrix() -> None:
    rng, rho = np.random.default_rng(1), 0.4
    xi = rng.normal(size=6)
    sigma = np.full((6, 6), rho) + (1.0 - rho) * np.eye(6)
    distance = float(np.sqrt(xi @ np.linalg.solve(sigma, xi)))
    off = PodErrors(PODS, xi[:3], xi[3:], np.full(3, 10.0), np.full(3, 10.0))
    case = replace(CASE, errors=off)
    rules = Rules(errors="ellipsoid", omega=distance / 10.0 * (1.0 + 1e-9), correlation=rho)
    assert main(case, rules)[0] is Cause.UNEXPLAINED
    assert main(case, replace(rules, omega=distance / 10.0 * 0.999))[0] is Cause.TOGETHER


def test_errors_that_no_common_factor_explains() -> None:
    case = replace(CASE, errors=errors({"A.load": 10.0, "B.pv": -20.0}))
    assert main(case, Rules(errors="factors", common=0.5)) == (Cause.TOGETHER, "2.00 half-bands from each other")
    near = replace(CASE, errors=errors({"A.load": 10.0, "B.pv": 0.0}))
    assert main(near, Rules(errors="factors", common=0.5))[0] is Cause.UNEXPLAINED


def test_awards_not_delivered() -> None:
    out, short = Delivery("sun", "B.pv", 40.0, 40.0, reached=False), Delivery("shed", "A.load", -30.0, 0.04)
    case = replace(CASE, deliveries=(short, out))
    assert main(case) == (Cause.UNDELIVERED, "sun: 40.0 of 40.0 kW missing, out of reach; 1 more resource")
    assert main(replace(CASE, deliveries=(short,))) == (Cause.UNDELIVERED, "shed: 0.040 of 30.0 kW missing")


def test_failures_planned_for_explain_nothing_and_too_much_does() -> None:
    planned = Delivery("shed", "A.load", -30.0, 3.0, allowed_kw=3.0)
    assert main(replace(CASE, deliveries=(planned,)))[0] is Cause.UNEXPLAINED
    assert planned.beyond_kw == 0.0
    assert replace(planned, missing_kw=4.0).beyond_kw == 1.0
    assert replace(planned, missing_kw=-2.0).beyond_kw == 2.0
    assert (planned.off_kw, replace(planned, ordered_kw=30.0).off_kw) == (3.0, -3.0)


def test_the_larger_of_error_and_missing_delivery_is_the_main_cause() -> None:
    case = replace(CASE, errors=errors({"B.pv": -30.0}), deliveries=(Delivery("sun", "B.pv", 40.0, 9.0),))
    assert all_of(case) == [Cause.ERROR, Cause.UNDELIVERED]
    more = replace(case, deliveries=(Delivery("sun", "B.pv", 40.0, 11.0),))
    assert all_of(more) == [Cause.UNDELIVERED, Cause.ERROR]
    elsewhere = replace(more, behind=frozenset({"B.pv"}), deliveries=(Delivery("shed", "A.load", -40.0, 40.0),))
    assert all_of(elsewhere) == [Cause.ERROR, Cause.UNDELIVERED]


def test_resources_off_their_schedule() -> None:
    assert main(replace(CASE, off_kw=(("C.battery", 3.0),))) == (Cause.OFF_SCHEDULE, "C.battery: +3.0 kW")


def test_taps_that_moved_since_the_gate() -> None:
    moved = replace(CASE, moved=("Transformer.T1 1 -> 1.0125",), errors=errors({"B.pv": -30.0}))
    assert all_of(moved) == [Cause.ERROR, Cause.MOVED]
    voltage = replace(moved, element="B", quantity="vm_pu", limit=0.9)
    assert main(voltage) == (Cause.MOVED, "Transformer.T1 1 -> 1.0125")
    assert all_of(voltage) == [Cause.MOVED, Cause.ERROR]


def test_no_session() -> None:
    case = replace(CASE, errors=None, no_session="first MTU of the run")
    assert main(case) == (Cause.NO_SESSION, "first MTU of the run")


def test_tolerated_overload() -> None:
    assert main(CASE, Rules(overload=0.02)) == (Cause.TOLERATED, "up to 2 % of the limit")
    assert main(replace(CASE, excess=2.1), Rules(overload=0.02))[0] is Cause.UNEXPLAINED
    voltage = replace(CASE, quantity="vm_pu", limit=1.1, excess=0.001)
    assert main(voltage, Rules(overload=0.02))[0] is Cause.UNEXPLAINED


def test_settings_that_let_a_limit_go_are_told_only_where_nothing_else_is_off() -> None:
    rules = Rules(loose=("outer_loop: false",))
    assert main(CASE, rules) == (Cause.RULES, "outer_loop: false")
    assert all_of(replace(CASE, errors=errors({"B.pv": -30.0})), rules) == [Cause.ERROR]


def test_what_nothing_explains_is_told_loudly() -> None:
    assert main(CASE) == (Cause.UNEXPLAINED, "the plan should have kept it")
    assert main(replace(CASE, foreseen=False))[1] == "no need was foreseen although errors are as planned"
    assert Cause.UNEXPLAINED.value == "UNEXPLAINED (a bug)"


def test_the_table_has_a_row_for_each_case() -> None:
    case = replace(CASE, errors=errors({"B.pv": -30.0}), moved=("Capacitor.C1 0 -> 1",))
    first, second = residuals([CASE, case], BOX)
    assert (first.t_s, first.element, first.excess_percent, first.cause) == (900.0, "Line.L2@A", 2.0, Cause.UNEXPLAINED)
    assert first.also == ()
    assert second.cause is Cause.ERROR
    assert [finding.cause for finding in second.also] == [Cause.MOVED]
