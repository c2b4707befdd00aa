import logging
import random

import numpy as np
import pytest
from small_feeder import HEAD, MEAN, METER_A, METER_C, SPREAD, TRUTH, channel, history, problem

from cosim.estimation import genetic, wls
from cosim.scenario.schema import Genetic

OPTIONS = Genetic()


def solve(case, options=OPTIONS, *, with_prior=False, seed=1, step=0):
    return genetic.solve(case, options, with_prior=with_prior, seed=seed, step=step)


def test_one_unmetered_site_is_recovered_from_exact_meters():
    head = (channel("head", "p_kw", 0.1), channel("head", "q_kvar", 0.1))
    found = solve(problem((*head, *METER_A, *METER_C)))
    np.testing.assert_allclose(found.x, TRUTH, atol=0.1)
    assert found.objective < 0.1


def test_two_unmetered_sites_reproduce_the_head_flow():
    case = problem((*HEAD, *METER_A))
    found = solve(case)
    assert found.objective < 0.1
    assert found.x[1] + found.x[2] == pytest.approx(TRUTH[1] + TRUTH[2], abs=2.0)


def test_metered_sites_are_fixed_at_their_reading_without_the_order():
    case = problem((*HEAD, *METER_A), ordered=(-25.0, 0.0, 0.0))
    found = solve(case)
    np.testing.assert_allclose(found.x[[0, 3]], TRUTH[[0, 3]], rtol=1e-12)


def test_a_missing_meter_makes_its_site_a_gene_within_the_bounds():
    case = problem((*HEAD, *METER_A), missing={"m/A/p_kw"}, truth=MEAN + 9.0 * (TRUTH - MEAN))
    found = solve(case)
    assert found.x[0] != pytest.approx(case.snapshot.value[0])
    free = [0, 1, 2, 4, 5]
    assert (found.x[free] >= case.history.lower[free]).all()
    assert (found.x[free] <= case.history.upper[free]).all()


def test_the_prior_term_brings_the_split_towards_the_history():
    window = history(correlation=0.95)
    truth = MEAN + 0.9 * np.array([20.0, 30.0, 40.0, 5.0, 8.0, 10.0])
    case = problem((*HEAD, *METER_A), truth=truth, window=window)
    plain, prior = solve(case), solve(case, with_prior=True)
    assert abs(prior.x[2] - truth[2]) < 3.0
    assert abs(prior.x[2] - truth[2]) < abs(plain.x[2] - truth[2])


def test_the_prior_term_allows_for_the_error_of_readings():
    """P and Q of the history go together; a Q reading off by one standard deviation must not drag the other sites."""
    truth = MEAN + SPREAD
    truth[3] = MEAN[3]
    weak = (channel("head", "p_kw", 50.0), channel("A", "p_kw", 1.0), channel("A", "q_kvar", 5.0))
    case = problem(weak, truth=truth, window=history(correlation=0.99))
    prior, least_squares = solve(case, with_prior=True), wls.solve(case)
    np.testing.assert_allclose(prior.x[[1, 2]], least_squares.x[[1, 2]], atol=4.0)


def test_with_prior_it_finds_nearly_the_minimum():
    case = problem((*HEAD, *METER_A, METER_C[2]), window=history(correlation=0.5))
    thorough = Genetic(population=200, generations=200, patience=200, parents=80)
    best = solve(case, thorough, with_prior=True, seed=7).objective
    assert solve(case, with_prior=True).objective < best + 0.3


def test_the_population_is_one_batch_and_nothing_is_evaluated_twice():
    case = problem((*HEAD, *METER_A))
    found = solve(case, Genetic(patience=60))
    assert found.generations == 60
    assert len(case.flow.cases) == 61
    assert case.flow.cases[0] == 50
    assert max(case.flow.cases[1:]) == 48


def test_it_stops_without_improvement():
    found = solve(problem((*HEAD, *METER_A, *METER_C)), Genetic(generations=500, patience=5))
    assert found.generations < 100
    assert found.converged


def test_the_limit_of_generations_is_not_convergence():
    found = solve(problem((*HEAD, *METER_A)), Genetic(generations=3))
    assert (found.generations, found.converged) == (3, False)


def test_same_seed_and_step_same_bytes_another_step_another_search():
    results = [
        solve(problem((*HEAD, *METER_A)), seed=s, step=k).x.tobytes() for s, k in ((1, 5), (1, 5), (1, 6), (2, 5))
    ]
    assert results[0] == results[1]
    assert len(set(results)) == 3


def test_global_generators_and_logging_are_left_alone():
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    before = (np.random.get_state()[1].tobytes(), random.getstate())  # noqa: NPY002
    handlers = list(logging.getLogger("pygad.utils.validation").handlers)
    solve(problem((*HEAD, *METER_A)))
    assert (np.random.get_state()[1].tobytes(), random.getstate()) == before  # noqa: NPY002
    assert logging.getLogger("pygad.utils.validation").handlers == handlers


def test_global_generators_do_not_change_the_result():
    results = []
    for state in (1, 2):
        np.random.seed(state)  # noqa: NPY002
        random.seed(state)
        results.append(solve(problem((*HEAD, *METER_A))).x.tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "options",
    [
        Genetic(elite=0),
        Genetic(elite=8, population=8, parents=8),
        Genetic(mutation_share=0.0),
        Genetic(mutation_share=1.0, parents=2),
        Genetic(population=8, parents=4, generations=1, patience=1),
    ],
    ids=["no elite", "all elite", "no mutation", "all mutate", "least"],
)
def test_odd_options_still_give_the_best_individual_seen(options):
    case = problem((*HEAD, *METER_A))
    cost = genetic._Cost(case, with_prior=False)
    found = solve(case, options)
    assert found.objective <= cost.of(cost.start[np.newaxis])[0]
    assert found.objective == pytest.approx(cost.of(found.x[np.newaxis])[0], rel=1e-12)


def test_nothing_to_compare_with_leaves_the_mean_without_a_search():
    case = problem((*METER_A[:2],))
    found = solve(case)
    np.testing.assert_allclose(found.x, [TRUTH[0], MEAN[1], MEAN[2], TRUTH[3], MEAN[4], MEAN[5]])
    assert (found.objective, found.generations) == (0.0, 0)
    assert case.flow.cases == []


@pytest.mark.parametrize("with_prior", [False, True])
def test_all_missing_gives_the_historical_mean(with_prior):
    case = problem(HEAD, missing={c.topic for c in HEAD})
    np.testing.assert_allclose(solve(case, with_prior=with_prior).x, MEAN, atol=1e-9)


def test_nothing_to_search_for_gives_the_readings():
    powers = [channel(site, q, 1.0) for site in ("A", "B", "C") for q in ("p_kw", "q_kvar")]
    case = problem((*HEAD, *powers))
    found = solve(case)
    np.testing.assert_allclose(found.x, TRUTH, rtol=1e-12)
    assert found.generations == 0


def test_candidates_whose_load_flow_fails_are_passed_over():
    case = problem((*HEAD, *METER_A), limit_kw=231.0)
    found = solve(case)
    assert found.x[2] <= 231.0
    assert found.objective < 0.1


def test_if_every_load_flow_fails_the_mean_stands_unconverged():
    found = solve(problem((*HEAD, *METER_A), limit_kw=0.0))
    assert found.x[2] == MEAN[2]
    assert not found.converged
    assert found.objective == np.inf


def test_an_error_of_the_load_flow_comes_through_unlogged(caplog, capsys):
    case = problem((*HEAD, *METER_A))

    def broken(*_):
        raise RuntimeError("no matrix")

    case.flow.predict = broken
    with pytest.raises(RuntimeError, match="no matrix"):
        solve(case)
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")
