import numpy as np
import pytest
from small_feeder import HEAD, METER_A, METER_B, METER_C, SPREAD, channel, history, problem

from cosim.estimation import wls
from cosim.estimation.observability import observability, observe, unobservable

SITES = ("A1", "A2", "B1.1", "B1.2", "C1")
POWERS = tuple(channel(site, q, 1.0) for site in ("A", "B", "C") for q in ("p_kw", "q_kvar"))


def seen(rows, sigma=1.0):
    """Observability of five sites by meters that read sums of sites, of P and of Q alike; spread 20 kW and kvar."""
    matrix = np.array([[float(site in row) for site in SITES] for row in rows]).reshape(len(rows), len(SITES)) / sigma
    slope = np.kron(np.eye(2), matrix)
    return observability(SITES, slope, np.full(10, 20.0))


def test_every_site_metered_is_observable():
    found = seen([(site,) for site in SITES])
    assert (found.observable, found.islands, found.unobservable) == (SITES, (), 0)


def test_without_meters_every_site_is_an_island_of_its_own():
    found = seen([])
    assert found.observable == ()
    assert found.islands == tuple((site,) for site in SITES)
    assert found.unobservable == 5


def test_of_a_sum_the_members_are_one_island():
    found = seen([SITES])
    assert (found.observable, found.islands) == ((), (SITES,))


def test_meters_within_a_sum_split_it():
    found = seen([SITES, ("A1", "A2"), ("C1",)])
    assert found.observable == ("C1",)
    assert found.islands == (("A1", "A2"), ("B1.1", "B1.2"))


def test_the_last_of_a_sum_needs_no_meter():
    assert seen([SITES, *((site,) for site in SITES[1:])]).observable == SITES


def test_a_meter_coarser_than_what_a_site_does_tells_nothing():
    assert seen([(site,) for site in SITES], sigma=30.0).observable == ()


def test_a_coarse_meter_at_an_idle_site_determines_it():
    spread = np.full(10, 20.0)
    spread[[4, 9]] = 0.05
    assert observability(SITES, np.eye(10), spread).observable == SITES


def test_a_site_is_observable_only_with_p_and_q():
    slope = np.eye(10)[:9]
    found = observability(SITES, slope, np.full(10, 20.0))
    assert (found.observable, found.islands) == (SITES[:4], (("C1",),))


@pytest.mark.parametrize(
    ("missing", "islands"),
    [
        ((), ()),
        (("m/B/p_kw",), ()),
        (("m/B/p_kw", "m/head/p_kw"), (("B",),)),
        (("m/B/p_kw", "m/C/p_kw"), (("B", "C"),)),
        (("m/A/p_kw", "m/B/p_kw", "m/C/p_kw"), (("A", "B", "C"),)),
    ],
)
def test_it_is_a_matter_of_what_arrived(missing, islands):
    """Losses couple everything a little; what counts is what is known well enough."""
    assert observe(problem((*HEAD, *POWERS), missing=missing)).islands == islands


def test_the_slope_of_a_solution_says_the_same():
    case = problem((*HEAD, *METER_A, *METER_B[2:]))
    found = observability(case.flow.sites, wls.solve(case).slope, SPREAD)
    assert found == observe(case)
    assert found.islands == (("B", "C"),)
    assert unobservable(wls.solve(case).slope, SPREAD) == found.unobservable == 2


def test_voltages_determine_what_they_show_better_than_the_history():
    """1 mV/V against 2e-5 per kW: 50 kW and more, no help at a spread of 40 kW, but it is at a spread of 4000 kW."""
    meters = (*HEAD, *METER_A, *(channel(site, "vm_pu", 1e-3) for site in ("B", "C")), METER_B[1], METER_C[1])
    assert observe(problem(meters, window=history())).islands == (("B", "C"),)
    assert observe(problem(meters, window=history(spread=100.0 * SPREAD))).islands == ()
