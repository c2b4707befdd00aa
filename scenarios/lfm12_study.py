"""The 12-bus study of a local flexibility market: its tables beside ours, and what robustness costs and buys.

    python scenarios/lfm12_study.py [--out DIR] [--samples N] [--seed N]

Seven loads draw 1390 kW through one cable whose first section may carry 117 A; POD2, POD4 and POD7 sell flexibility
upward at equal prices. Forecasts err within half-bands (CASES 1 to 3). Written to DIR: a CSV file for each table, all
tables in lfm12_study.h5, and figures. docs/lfm12_study.md explains them.

Source: L. De Simone, Optimal management of distribution networks in the presence of renewable and distributed resources
flexibility and uncertainty, MSc thesis, Politecnico di Milano, 2024-25, chapter 2.
"""

import cosim  # noqa: F401 (before NumPy, whose linear algebra is to use one thread)

# isort: split
import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np

from lfm12_case import (
    FLEXIBLE,
    HALF_BANDS,
    LIMIT_A,
    LIMITED,
    STUDY,
    Market,
    awarded_kw,
    bought_kw,
    open_market,
    planned,
    unsolved_a,
)

from cosim.case import FEEDERS
from cosim.domain.frames import Complexes, EventTable, Floats
from cosim.errors import CosimError, InputError, MarketError
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.io.tables import Cell, Table, write_csv, write_hdf5
from cosim.market.ac_loop import clear_with_ac
from cosim.market.case import HOLD, ClearingCase
from cosim.market.clearing import clear
from cosim.market.flexible_range import export_kw, export_range, supply_curve
from cosim.market.outcome import Clearing
from cosim.market.planes import LimitSettings, Polygon
from cosim.market.robustness import ERRORS, HALF_BAND_SIGMA, forecast_errors, violation_rate, worst_corner
from cosim.market.uncertainty import Uncertainty, budget, ellipsoid
from cosim.report.layout import aligned
from cosim.report.lfm_study import draw_study
from cosim.scenario.document import read_document
from cosim.scenario.schema import GridConfig
from cosim.scenario.values import Part

PRINTED = Path(__file__).parent / "cases" / "lfm12_printed.yaml"
TRUTH = 2
"""The case whose half-bands the true errors have when plans are judged."""
FINE = LimitSettings(planes=4096)
"""A polygon that is a circle to 3e-7; the study's has 32."""
SAMPLED = (*ERRORS, "correlated")
"""True errors: those of `forecast_errors`, independent, and normal ones of which any two correlate (0.8)."""


# --- the study's tables beside ours -----------------------------------------------------------------------------------


class PrintedCurrents(Part):
    """By branch [A]."""

    re: tuple[float, ...]
    im: tuple[float, ...]


class PrintedCase(Part):
    """Of one case: changes of the currents and voltages with all loads up, activations, worst current of 2-3."""

    delta_linear_a: PrintedCurrents
    delta_ac_a: PrintedCurrents
    v_worst_pu: tuple[float, ...]
    activation_kw: dict[str, float]
    worst_current_a: dict[str, float]


class Printed(Part):
    """What the study prints."""

    branches: tuple[str, ...]
    i0_a: PrintedCurrents
    v0_pu: tuple[float, ...]
    cases: dict[str, PrintedCase]


def table(name: str, long_name: str, columns: Mapping[str, str | None], rows: Iterator[Mapping[str, Cell]]) -> Table:
    return Table(EventTable(name, long_name, dict(columns)), tuple(rows))


CURRENT = dict.fromkeys(("re_a", "im_a", "printed_re_a", "printed_im_a", "difference_re_a", "difference_im_a"), "A")


def currents(market: Market, printed: Printed) -> Table:
    """Currents of all branches at the schedule, and their change with all forecast errors at their upper bound."""
    conductors = [_conductor(branch) for branch in printed.branches]
    model = market.linear(conductors)

    def rows() -> Iterator[dict[str, Cell]]:
        yield from _current_rows(printed.branches, "", "schedule", model.state.i_a, printed.i0_a)
        for case, share in HALF_BANDS.items():
            errors = market.errors(share)
            slip = market.slipped(errors).effect_factor
            effect = model.i_by_p * errors.half_p_kw + model.i_by_q * errors.half_q_kvar
            up = replace(market, p_kw=market.p_kw + errors.half_p_kw, q_kvar=market.q_kvar + errors.half_q_kvar)
            of = printed.cases.get(str(case))
            for quantity, i_a, beside in (
                ("change, index slip", (effect * slip).sum(axis=1), of and of.delta_linear_a),
                ("change", effect.sum(axis=1), of and of.delta_linear_a),
                ("change by power flow", up.linear(conductors).state.i_a - model.state.i_a, of and of.delta_ac_a),
            ):
                yield from _current_rows(printed.branches, str(case), quantity, i_a, beside)

    columns = {"case": None, "quantity": None, "branch": None, **CURRENT}
    return table("currents", "currents of the branches, phase 1, at the first of their buses", columns, rows())


def _conductor(branch: str) -> str:
    return f"{'Transformer' if branch == '2-1' else 'Line'}.{branch}@{branch.partition('-')[0]}.1"


def _current_rows(
    branches: Sequence[str], case: str, quantity: str, i_a: Complexes, printed: PrintedCurrents | None
) -> Iterator[dict[str, Cell]]:
    for k, branch in enumerate(branches):
        row: dict[str, Cell] = {"case": case, "quantity": quantity, "branch": branch}
        row |= {"re_a": float(i_a[k].real), "im_a": float(i_a[k].imag)} | dict.fromkeys(list(CURRENT)[2:])
        if printed is not None:
            row |= {"printed_re_a": printed.re[k], "printed_im_a": printed.im[k]}
            row |= {"difference_re_a": i_a[k].real - printed.re[k], "difference_im_a": i_a[k].imag - printed.im[k]}
        yield row


def voltages(market: Market, printed: Printed) -> Table:
    """Voltages at the schedule, and with all loads up: of the linear model, as printed, and by power flow."""
    nodes = [f"{bus}.1" for bus in range(1, 13)]
    base = market.network.v_base[[market.network.layout.nodes.index(node) for node in nodes]]
    model = market.linear([], nodes)

    def rows() -> Iterator[dict[str, Cell]]:
        for case, share in {0: 0.0, **HALF_BANDS}.items():
            errors = market.errors(share)
            p_kw, q_kvar = market.p_kw + errors.half_p_kw, market.q_kvar + errors.half_q_kvar
            linear = np.abs(model.predict(p_kw, q_kvar).v) / base
            ac = np.abs(replace(market, p_kw=p_kw, q_kvar=q_kvar).linear([], nodes).state.v) / base
            of = printed.cases.get(str(case))
            beside = printed.v0_pu if case == 0 else of and of.v_worst_pu
            for k in range(12):
                row: dict[str, Cell] = {"case": str(case or ""), "quantity": "all loads up" if case else "schedule"}
                row |= {"bus": str(k + 1), "linear_pu": float(linear[k]), "ac_pu": float(ac[k])}
                row["printed_pu"] = beside[k] if beside else None
                row["difference_pu"] = float(linear[k]) - beside[k] if beside else None
                yield row

    columns = {"case": None, "quantity": None, "bus": None}
    columns |= dict.fromkeys(("linear_pu", "ac_pu", "printed_pu", "difference_pu"), "pu")
    return table("voltages", "voltage magnitudes of phase 1", columns, rows())


def activations(market: Market, engine: Engine, printed: Printed) -> Table:
    """What is bought in each case, and the worst current of branch 2-3 then, also by OpenDSS itself."""
    limited = engine.layout.conductors.index(LIMITED)

    def rows() -> Iterator[dict[str, Cell]]:
        for case, share in HALF_BANDS.items():
            for slip in (False, True):
                errors = market.slipped(market.errors(share)) if slip else market.errors(share)
                plan = clear(market.case(errors)).require_solved()
                p_kw, q_kvar = (power + half for power, half in zip(planned(plan), _halves(errors), strict=True))
                z = plan.networks[0].state(plan.solution.x).z[0] + plan.networks[0].protection.effect[0].sum()
                of = printed.cases.get(str(case))
                row: dict[str, Cell] = {"case": str(case), "index": "slip" if slip else "right"}
                for pod in FLEXIBLE:
                    row[f"{pod.lower()}_kw"] = awarded_kw(plan, pod)
                    row[f"printed_{pod.lower()}_kw"] = of.activation_kw[pod] if of else None
                row["difference_kw"] = bought_kw(plan) - sum(of.activation_kw.values()) if of else None
                row |= {"linear_a": abs(z), "printed_linear_a": of.worst_current_a["linear"] if of else None}
                row["ac_a"] = float(market.flow.magnitudes(0, p_kw[None], q_kvar[None])[0, 0])
                row["printed_ac_a"] = of.worst_current_a["ac"] if of else None
                yield row | {"opendss_a": float(engine.solve(p_kw, q_kvar).conductor_i_a[limited])}

    columns: dict[str, str | None] = {"case": None, "index": None}
    columns |= {f"{of}{pod.lower()}_kw": "kW" for pod in FLEXIBLE for of in ("", "printed_")}
    columns |= {"difference_kw": "kW"}
    columns |= dict.fromkeys(("linear_a", "printed_linear_a", "ac_a", "printed_ac_a", "opendss_a"), "A")
    return table("activations", "flexibility bought, and current of 2-3 then with all loads up", columns, rows())


def _halves(errors: Uncertainty) -> tuple[Floats, Floats]:
    return errors.half_p_kw, errors.half_q_kvar


# --- what the clearing does otherwise ---------------------------------------------------------------------------------


def polygons(market: Market) -> Table:
    """CASE 2 by the number of planes and where they touch the circle, before and after the AC loop."""
    errors = market.errors(HALF_BANDS[2])

    def rows() -> Iterator[dict[str, Cell]]:
        kinds: tuple[Polygon, ...] = ("inscribed", "best_fit", "circumscribed")
        for polygon in kinds:
            for planes in (8, 16, 32, 64, 128, 256, 512, 1024, 4096):
                case = market.case(errors, LimitSettings(planes=planes, polygon=polygon))
                plan, checked = clear(case), clear_with_ac(case, market.linearise, market.flow.magnitudes)
                corner, after = (
                    worst_corner(each, errors, market.flow.magnitudes) for each in (plan, checked.clearing)
                )
                row: dict[str, Cell] = {"polygon": polygon, "planes": planes}
                row |= {"bought_kw": bought_kw(plan), "linear_a": corner.linear, "ac_a": corner.ac}
                row |= {"checked_kw": bought_kw(checked.clearing), "checked_ac_a": after.ac, "rounds": checked.rounds}
                yield row

    columns = {"polygon": None, "planes": "1", "bought_kw": "kW", "linear_a": "A", "ac_a": "A", "checked_kw": "kW"}
    columns |= {"checked_ac_a": "A", "rounds": "1"}
    return table("polygons", "CASE 2 by planes, currents at the worst corner", columns, rows())


def variants(market: Market) -> Table:
    """CASE 2 under other rules."""
    errors = market.errors(HALF_BANDS[2])
    both_ends = replace(market, limited=(LIMITED, "Line.2-3@3.1"))
    cases = {
        "the study": market.case(errors),
        "both ends of 2-3 limited": both_ends.case(errors),
        "band on the reduced load": market.case(replace(errors, base="residual")),
        "sums of real and of imaginary parts": market.case(replace(errors, worst_case="reim")),
        "P and Q err independently": market.case(replace(errors, reactive="independent")),
    }
    rows = ({"rule": rule, "bought_kw": bought_kw(clear(case))} for rule, case in cases.items())
    return table("variants", "CASE 2 under other rules", {"rule": None, "bought_kw": "kW"}, rows)


def modes(market: Market) -> Table:
    """Mode 0 and mode 1 (interface flow held), with and without POD8; ``hard``: what is said where limits have no price
    at which they may be broken."""

    def rows() -> Iterator[dict[str, Cell]]:
        for case, share in HALF_BANDS.items():
            for mode, of in ((0, market), (1, market), (1, market.with_pod8())):
                settings = {"interface_kw": HOLD} if mode else {}
                errors = of.errors(share)
                plan = clear(of.case(errors, **settings))
                row: dict[str, Cell] = {"case": str(case), "mode": str(mode)}
                row |= {f"{pod.lower()}_kw": awarded_kw(plan, pod) for pod in (*FLEXIBLE, "POD8")}
                row |= {"cost_eur": plan.cost_eur, "import_change_kw": -export_kw(plan), "unsolved_a": unsolved_a(plan)}
                row["import_change_ac_kw"] = of.import_kw(*planned(plan)) - of.import_kw(of.p_kw, of.q_kvar)
                row |= {"counter_resource": "POD8" if "POD8" in of.network.pods else "", "hard": "plan"}
                try:
                    clear(of.case(errors, slack_eur_per_kwh=None, **settings))
                except MarketError as error:
                    row["hard"] = str(error)
                yield row

    columns = {"case": None, "mode": None, "counter_resource": None}
    columns |= {f"{pod.lower()}_kw": "kW" for pod in (*FLEXIBLE, "POD8")}
    columns |= {
        "cost_eur": "EUR",
        "import_change_kw": "kW",
        "import_change_ac_kw": "kW",
        "unsolved_a": "A",
        "hard": None,
    }
    return table("modes", "clearing without and with the interface flow held", columns, rows())


def ranges(market: Market) -> Table:
    """Mode 2: by how much the export can be changed within the limits, and at what price, piece by piece."""

    def rows() -> Iterator[dict[str, Cell]]:
        for case, share in HALF_BANDS.items():
            for of in (market, market.with_pod8()):
                asked = of.case(of.errors(share))
                least_kw, most_kw = export_range(asked)
                curve = supply_curve(asked)
                for from_kw, to_kw, price in zip(
                    curve.export_kw, curve.export_kw[1:], curve.price_eur_per_kwh, strict=False
                ):
                    row: dict[str, Cell] = {"case": str(case)}
                    row["counter_resource"] = "POD8" if "POD8" in of.network.pods else ""
                    row |= {"least_kw": least_kw, "most_kw": most_kw, "local_kw": curve.local_kw}
                    yield row | {"from_kw": from_kw, "to_kw": to_kw, "price_eur_per_kwh": price}

    columns = {"case": None, "counter_resource": None}
    columns |= dict.fromkeys(("least_kw", "most_kw", "local_kw", "from_kw", "to_kw"), "kW")
    return table(
        "ranges", "range of the export and its price, mode 2", columns | {"price_eur_per_kwh": "EUR/kWh"}, rows()
    )


# --- the price of robustness ------------------------------------------------------------------------------------------

PLAN: dict[str, str | None] = {"planes": "1", "stage": None, "bought_kw": "kW", "cost_eur": "EUR", "unsolved_a": "A"}
PLAN |= {"rounds": "1", "own_linear_a": "A", "own_ac_a": "A", "box_linear_a": "A", "box_ac_a": "A"}
PLAN |= {f"{errors}_{way}_percent": "%" for errors in SAMPLED for way in ("linear", "ac")}
PLAN |= {f"{errors}_highest_a": "A" for errors in SAMPLED}

Samples = Mapping[str, Floats]


def sampled(seed: int, samples: int, n: int, rho: float = 0.8) -> dict[str, Floats]:
    """Forecast errors (samples, n) of each kind of `SAMPLED`."""
    xi = {errors: forecast_errors(seed, samples, n, errors) for errors in ERRORS}
    return xi | {"correlated": forecast_errors(seed, samples, n, "normal", alike(n, rho))}


def alike(n: int, rho: float) -> Floats:
    """Correlation matrix (n, n) of errors of which any two have the correlation rho."""
    return np.full((n, n), rho) + (1.0 - rho) * np.eye(n)


def price(market: Market, case: ClearingCase, xi: Samples) -> Iterator[dict[str, Cell]]:
    """A row of `PLAN` for the plan on the linear model, and one for that after the AC loop."""
    checked = clear_with_ac(case, market.linearise, market.flow.magnitudes)
    first = _judged(market, checked.clearing if checked.rounds == 1 else clear(case), xi)
    yield {"stage": "linear", "rounds": 1, **first}
    last = first if checked.rounds == 1 else _judged(market, checked.clearing, xi)
    yield {"stage": "checked", "rounds": checked.rounds, **last}


def _judged(market: Market, plan: Clearing, xi: Samples) -> dict[str, Cell]:
    """Currents at the worst corner of the plan's own set and of the box of the true bands, and how often true errors
    take the current above 117 A by more than 0.01 %."""
    truth, flow = market.errors(HALF_BANDS[TRUTH]), market.flow.magnitudes
    assert plan.case.uncertainty is not None
    own, of_box = (worst_corner(plan, errors, flow) for errors in (plan.case.uncertainty[0], truth))
    row: dict[str, Cell] = {"planes": plan.case.settings.limits.planes}
    row |= {"bought_kw": bought_kw(plan), "cost_eur": plan.cost_eur, "unsolved_a": unsolved_a(plan)}
    row |= {"own_linear_a": own.linear, "own_ac_a": own.ac, "box_linear_a": of_box.linear, "box_ac_a": of_box.ac}
    for errors, drawn in xi.items():
        rate = violation_rate(plan, truth, drawn, flow)
        row |= {f"{errors}_linear_percent": 100.0 * rate.linear, f"{errors}_ac_percent": 100.0 * rate.ac}
        row[f"{errors}_highest_a"] = LIMIT_A * (1.0 + rate.ac_highest_pu)
    return row


def gammas(market: Market, xi: Samples) -> Table:
    """CASE 2 by the budget of uncertainty; ``bound_percent``: Bertsimas and Sim's for independent symmetric errors."""
    n, share = len(market.p_kw), HALF_BANDS[2]

    def rows() -> Iterator[dict[str, Cell]]:
        for limits in (STUDY, FINE):
            for gamma in np.arange(0.0, n + 0.5, 0.5).tolist():
                bound = 100.0 * np.exp(-(gamma**2) / (2.0 * n))
                for row in price(market, market.case(market.errors(share, budget(gamma)), limits), xi):
                    yield {"gamma": gamma, "bound_percent": float(bound), **row}

    columns = {"gamma": "1", "bound_percent": "%", **PLAN}
    return table("gammas", "price of robustness: budget of uncertainty, CASE 2", columns, rows())


def bands(market: Market, xi: Samples) -> Table:
    """A box of other half-bands than the true ones: the flexible loads' in per cent, three times that for others."""

    def rows() -> Iterator[dict[str, Cell]]:
        for limits in (STUDY, FINE):
            for percent in np.arange(0.0, 16.5, 1.0).tolist():
                for row in price(market, market.case(market.errors(percent / 100.0), limits), xi):
                    yield {"half_band_percent": percent, **row}

    columns = {"half_band_percent": "%", **PLAN}
    return table("bands", "price of robustness: half-band planned for, true errors of CASE 2", columns, rows())


def ellipsoids(market: Market, seed: int, samples: int) -> Table:
    """CASE 2 in a ball of errors of equal correlation rho; omega from the chance that a row may be violated by normal
    errors of that correlation."""
    n, share = len(market.p_kw), HALF_BANDS[2]

    def rows() -> Iterator[dict[str, Cell]]:
        for rho in (0.0, 0.25, 0.5, 0.75, 1.0):
            xi = sampled(seed, samples, n, rho)
            for chance in (0.10, 0.05, 0.025, 0.01):
                omega = NormalDist().inv_cdf(1.0 - chance) / HALF_BAND_SIGMA
                case = market.case(market.errors(share, ellipsoid(alike(n, rho), omega)), FINE)
                for row in price(market, case, xi):
                    yield {"rho": rho, "omega": omega, "chance_percent": 100.0 * chance, **row}

    columns = {"rho": "1", "omega": "1", "chance_percent": "%", **PLAN}
    return table(
        "ellipsoids", "price of robustness: ellipsoid, CASE 2; correlated errors have its rho", columns, rows()
    )


def overloads(market: Market, xi: Samples) -> Table:
    """CASE 2 with slight overloads tolerated: by a factor, in two tiers (a budget up to the factor, all errors at once
    up to a ceiling), or at a price for what is above 117 A."""
    share = HALF_BANDS[2]
    rules = [
        ("factor", LimitSettings(planes=32, overload=t), None, 0.0) for t in np.arange(0.0, 0.0525, 0.005).tolist()
    ]
    rules += [
        ("two tiers", LimitSettings(planes=32, overload=0.02, overload_ceiling=ceiling), gamma, 0.0)
        for ceiling in (1.2, 1.05, 1.03)
        for gamma in (3.0, 5.0, 7.0)
    ]
    rules += [
        ("price", LimitSettings(planes=32, overload=0.02, overload_eur_per_a_h=eur), None, eur)
        for eur in (5.0, 10.0, 12.0, 13.0, 15.0)
    ]

    def rows() -> Iterator[dict[str, Cell]]:
        for rule, limits, gamma, eur in rules:
            errors = market.errors(share) if gamma is None else market.errors(share, budget(gamma))
            for row in price(market, market.case(errors, limits), xi):
                more: dict[str, Cell] = {"rule": rule, "overload_percent": 100.0 * limits.overload, "gamma": gamma}
                ceiling = None if limits.overload_ceiling is None else 100.0 * limits.overload_ceiling
                yield more | {"ceiling_percent": ceiling, "price_eur_per_a_h": eur or None, **row}

    columns = {"rule": None, "overload_percent": "%", "gamma": "1", "ceiling_percent": "%"}
    columns |= {"price_eur_per_a_h": "EUR/(A h)", **PLAN}
    return table("overloads", "CASE 2 with slight overloads tolerated", columns, rows())


# --- all of it --------------------------------------------------------------------------------------------------------


def study(samples: int, seed: int) -> list[Table]:
    """All tables."""
    feeder = load_feeder(FEEDERS / "lfm12")
    market, engine = open_market(feeder), Engine(feeder, GridConfig())
    printed = read_document(PRINTED, InputError).validate(Printed, InputError)
    xi = sampled(seed, samples, len(market.p_kw))
    tables = [currents(market, printed), voltages(market, printed), activations(market, engine, printed)]
    engine.close()
    tables += [polygons(market), variants(market), modes(market), ranges(market)]
    return [
        *tables, gammas(market, xi), bands(market, xi), ellipsoids(market, seed, samples), overloads(market, xi)
    ]  # fmt: skip


def summary(t):
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the study; returns the exit code."""
    parser = argparse.ArgumentParser(description="The 12-bus market study and the price of robustness.")
    parser.add_argument("--out", type=Path, default=Path("results/lfm12_study"), help="folder to write to")
    parser.add_argument("--samples", type=int, default=10_000, help="forecast errors drawn to judge a plan (10000)")
    parser.add_argument("--seed", type=int, default=1, help="of the random errors (1)")
    options = parser.parse_args(arguments)
    if options.samples < 1:
        parser.error("--samples must be 1 or more")
    try:
        tables = study(options.samples, options.seed)
        write_csv(options.out, tables)
        attributes = {"title": "12-bus market study", "seed": options.seed, "samples": options.samples}
        write_hdf5(options.out / "lfm12_study.h5", "study", tables, attributes)
        draw_study({each.form.name: each for each in tables}, options.out)
    except CosimError as error:
        print(f"lfm12_study: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(summary({each.form.name: each for each in tables})))
    print(f"\n{len(tables)} tables and figures in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
