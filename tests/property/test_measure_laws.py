"""Laws of switching and of the choice of measures, on random networks and markets."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_market import random_case, with_currents_up_to

from cosim.grid.measures import SwitchMeasure, TapMeasure
from cosim.grid.switching import switching
from cosim.market.clearing import clear
from cosim.market.grid_side import choose_measures, forecast_excess_pu
from cosim.rng import rng_for

SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=40)


# --- switching: a network of one phase, in which every path can be gone through ---


@st.composite
def one_phase(draw):
    """Buses 1 to n (0 is the source) joined by conductors, transformers and switches at random."""
    n = draw(st.integers(2, 6))
    pair = st.tuples(st.integers(0, n), st.integers(1, n)).filter(lambda ab: ab[0] != ab[1])
    lines = draw(st.lists(pair, max_size=3))
    transformers = draw(st.lists(pair, max_size=2))
    switches = draw(st.lists(pair, min_size=1, max_size=5))
    return n, lines, transformers, {f"S{k}": [ends] for k, ends in enumerate(switches)}


def reached(pairs, start=0):
    found, ahead = {start}, [start]
    while ahead:
        at = ahead.pop()
        new = {b for a, b in pairs if a == at} | {a for a, b in pairs if b == at}
        ahead += new - found
        found |= new
    return found


def made(network, may_loop=()):
    n, lines, transformers, switches = network
    nodes = [f"B{k}.1" for k in range(1, n + 1)]
    fixed = [*lines, *(ends for ends in transformers if 0 in ends)]  # a source has no winding
    wound = [((a,), (b,)) for a, b in transformers if a and b]
    return switching(nodes, fixed, wound, switches, may_loop), [
        *fixed,
        *(ends for ends in transformers if 0 not in ends),
    ]


def subsets(names):
    for chosen in product((False, True), repeat=len(names)):
        yield [name for name, is_in in zip(names, chosen, strict=True) if is_in]


@given(one_phase())
@FEW
def test_what_is_cut_off_has_no_path_left(network):
    of, fixed = made(network)
    switches = network[3]
    every = reached([*fixed, *(ends for each in switches.values() for ends in each)])
    for closed in subsets(switches):
        left = reached([*fixed, *(ends for name in closed for ends in switches[name])])
        assert set(of.cut_off(closed)) == {f"B{k}" for k in every - left}


@given(one_phase(), st.booleans())
@FEW
def test_a_closed_switch_on_a_loop_has_another_path_between_its_ends(network, first_may):
    of, fixed = made(network, ["S0"] if first_may else [])
    switches = network[3]
    for closed in subsets(switches):
        on_loop = []
        for name in closed:
            others = [*fixed, *(ends for other in closed if other != name for ends in switches[other])]
            (a, b), *_ = switches[name]
            if b in reached(others, a) and not (name == "S0" and first_may):
                on_loop.append(name)
        assert list(of.looped(closed)) == on_loop


# --- the choice ---


class Network:
    """The case's network with its limits moved by positions: each raises those of some branches and lowers others'."""

    def __init__(self, case, seed, measures):
        rng = rng_for(seed, "effects")
        (self.rows,) = case.networks
        self.by = {m.name: rng.normal(0.0, 0.1, len(self.rows.i_max_a)) for m in measures}

    def __call__(self, positions):
        share = 1.0 + sum(position * self.by[name] for name, position in positions.items())
        return At(with_currents_up_to(self.rows, self.rows.i_max_a * np.maximum(share, 0.2)))


class At:
    """A network that is linear."""

    def __init__(self, rows):
        self.rows = rows

    def linearise(self, mtu, p_kw, q_kvar):
        return self.rows


def random_measures(seed):
    rng = rng_for(seed, "measures")
    prices = rng.choice([0.0, 0.05, 0.2, 0.5, 1.0], 3).tolist()
    left = [None if rng.random() < 0.5 else int(rng.integers(0, 3)) for _ in prices]
    return (
        TapMeasure(
            name="T",
            element="Transformer.T",
            low=-1,
            high=2,
            step_pu=0.01,
            eur_per_move=prices[0],
            moves_per_day=left[0],
        ),
        SwitchMeasure(name="S", element="Line.S", eur_per_move=prices[1], moves_per_day=left[1]),
        TapMeasure(
            name="U",
            element="Transformer.U",
            low=-2,
            high=0,
            step_pu=0.01,
            eur_per_move=prices[2],
            moves_per_day=left[2],
        ),
    )


def every_value(case, measures, start, model_at, mode, allows):
    """(value, cost, rank) of each combination, by positions."""
    values = {}
    for each in product(*(measure.positions for measure in measures)):
        positions = {measure.name: n for measure, n in zip(measures, each, strict=True)}
        moves = [abs(positions[m.name] - start[m.name]) for m in measures]
        if not allows(positions) or any(
            n > (99 if m.moves_per_day is None else m.moves_per_day) for n, m in zip(moves, measures, strict=True)
        ):
            continue
        cost = sum(m.eur_per_move * n for m, n in zip(measures, moves, strict=True))
        network = model_at(positions).linearise(0, *(getattr(case.networks[0], name) for name in ("p_kw", "q_kvar")))
        there = replace(case, networks=(network,))
        value = forecast_excess_pu(there) if mode == "before" else cost + clear(there).objective_eur
        values[each] = (value, cost, sum(moves), [-n for n in moves])
    return values


@given(SEEDS, st.sampled_from(["before", "with"]), st.floats(0.6, 1.2), st.sampled_from([0.0, 0.1]))
@FEW
def test_the_choice_is_the_best_of_all_combinations(seed, mode, share, half_band):
    case, measures = random_case(seed, share, half_band), random_measures(seed)
    start = {"T": 0, "S": 1, "U": -1}
    model_at = Network(case, seed, measures)

    def allows(positions):
        return positions["S"] == 1 or positions["U"] > -2

    found = choose_measures(case, measures, start, model_at, mode, allows=allows)
    values = every_value(case, measures, start, model_at, mode, allows)
    own = values[tuple(found.positions[measure.name] for measure in measures)]
    least = min(value for value, *_ in values.values())
    assert own[0] == pytest.approx(least, rel=1e-6, abs=1e-6)
    equal = [each for each in values.values() if each[0] <= least + 1e-7]
    if mode == "before":
        assert found.cost_eur == pytest.approx(min(cost for _, cost, *_ in equal))
    else:
        assert own[2] <= min(each[2] for each in equal)
        assert found.total_eur <= values[tuple(start.values())][0] + 1e-6
    again = choose_measures(case, measures, start, model_at, mode, allows=allows)
    assert (again.positions, again.cost_eur, again.excess_pu) == (found.positions, found.cost_eur, found.excess_pu)


@given(SEEDS, st.floats(0.6, 1.0))
@FEW
def test_a_smaller_cap_is_reported_and_never_better(seed, share):
    case, measures = random_case(seed, share), random_measures(seed)
    start = {"T": 0, "S": 1, "U": -1}
    model_at = Network(case, seed, measures)
    whole = choose_measures(case, measures, start, model_at, "with")
    capped = choose_measures(case, measures, start, model_at, "with", max_combinations=3)
    assert capped.looked_at == min(3, whole.looked_at)
    assert capped.total_eur >= whole.total_eur - 1e-6
    if whole.looked_at > 3:
        assert capped.unseen_from_eur is not None
        assert capped.unseen_from_eur <= max(capped.total_eur, whole.cost_eur) + 1e-6


@given(SEEDS, st.floats(0.6, 1.0), st.sampled_from([0.0, 0.1]))
@FEW
def test_where_no_limit_is_exceeded_nothing_is_bought(seed, share, half_band):
    """What counts as exceeded before is what a clearing buys for."""
    case, measures = random_case(seed, share, half_band), random_measures(seed)
    found = choose_measures(case, measures, {"T": 0, "S": 1, "U": -1}, Network(case, seed, measures), "before")
    assert (found.excess_pu <= 1e-6) == (clear(found.case).objective_eur <= 1e-4)
