"""The 12-bus study of a local flexibility market: its tables beside ours, and what robustness costs and buys.

    python scenarios/lfm12_study.py [--out DIR] [--samples N] [--seed N]

Seven loads draw 1390 kW through one cable whose first section may carry 117 A; POD2, POD4 and POD7 sell flexibility
upward at equal prices. Forecasts err within half-bands (CASES 1 to 3). Written to DIR: a CSV file for each table, all
tables in lfm12_study.h5, and figures. docs/lfm12_study.md explains them.

Source: L. De Simone, Optimal management of distribution networks in the presence of renewable and distributed resources
flexibility and uncertainty, MSc thesis, Politecnico di Milano, 2024-25, tables 2-3 to 2-12.
"""

import cosim  # noqa: F401 (before NumPy, whose linear algebra is to use one thread)

# isort: split
import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

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

from cosim.case_files import FEEDERS
from cosim.domain.frames import Complexes, Floats
from cosim.errors import CosimError, InputError, MarketError
from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.io.tables import Cell, Table, table_of, write_csv, write_hdf5
from cosim.market.ac_loop import clear_with_ac
from cosim.market.case import HOLD, ClearingCase
from cosim.market.clearing import clear
from cosim.market.flexible_range import export_kw, export_range, supply_curve
from cosim.market.outcome import Clearing
from cosim.market.planes import LimitSettings, Polygon
from cosim.market.robustness import ERRORS, HALF_BAND_SIGMA, forecast_errors, violation_rate, worst_corner
from cosim.market.uncertainty import budget, ellipsoid
from cosim.report.layout import aligned
from cosim.report.lfm_study import draw_study
from cosim.scenario.document import read_document
from cosim.scenario.schema import GridConfig
from cosim.scenario.values import Part

PRINTED = Path(__file__).parent / "cases" / "lfm12_printed.yaml"
CASE_2 = HALF_BANDS[2]
"""The half-bands that the true errors have wherever plans are judged by them."""
FINE = LimitSettings(planes=4096)
"""A polygon that is a circle to 3e-7; the study's has 32."""
SAMPLED = (*ERRORS, "correlated")
"""True errors: those of `forecast_errors`, independent, and normal ones of which any two have a correlation of 0.8."""

Rows = Iterator[Mapping[str, Cell]]


# --- the study's tables beside ours -----------------------------------------------------------------------------------


class PrintedCurrents(Part):
    """By branch [A]."""

    re: tuple[float, ...]
    im: tuple[float, ...]


class PrintedCase(Part):
    """Changes of currents, and voltages, with all loads up; activations; the worst current of 2-3 after them."""

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


def currents(market: Market, printed: Printed) -> Rows:
    """Of all branches at the schedule, and their change with all forecast errors at their upper bound."""
    conductors = [_conductor(branch) for branch in printed.branches]
    model = market.linear(conductors)
    i0_a = model.state.i_a
    yield from _beside("", "schedule", printed.branches, i0_a, printed.i0_a)
    for case, share in HALF_BANDS.items():
        errors, of = market.errors(share), printed.cases.get(str(case))
        change = model.i_by_p * errors.half_p_kw + model.i_by_q * errors.half_q_kvar
        linear, ac = (of.delta_linear_a, of.delta_ac_a) if of else (None, None)
        slip = (change * market.upstream).sum(axis=1)
        yield from _beside(str(case), "change, index slip", printed.branches, slip, linear)
        yield from _beside(str(case), "change", printed.branches, change.sum(axis=1), linear)
        by_power_flow = market.raised(errors).linear(conductors).state.i_a - i0_a
        yield from _beside(str(case), "change by power flow", printed.branches, by_power_flow, ac)


def _conductor(branch: str) -> str:
    return f"{'Transformer' if branch == '2-1' else 'Line'}.{branch}@{branch.partition('-')[0]}.1"


def _beside(case: str, quantity: str, branches: Sequence[str], i_a: Complexes, printed: PrintedCurrents | None) -> Rows:
    for k, branch in enumerate(branches):
        re_a, im_a = float(i_a[k].real), float(i_a[k].imag)
        yield {
            "case": case,
            "quantity": quantity,
            "branch": branch,
            "re_a": re_a,
            "im_a": im_a,
            "printed_re_a": printed.re[k] if printed else None,
            "printed_im_a": printed.im[k] if printed else None,
            "difference_re_a": re_a - printed.re[k] if printed else None,
            "difference_im_a": im_a - printed.im[k] if printed else None,
        }


def voltages(market: Market, printed: Printed) -> Rows:
    """At the schedule, and with all loads up: of the linear model, as printed, and by power flow."""
    nodes = [f"{bus}.1" for bus in range(1, 13)]
    model, base = market.linear([], nodes), market.base_v(nodes)
    for case, share in {0: 0.0, **HALF_BANDS}.items():
        up, of = market.raised(market.errors(share)), printed.cases.get(str(case))
        linear = np.abs(model.predict(up.p_kw, up.q_kvar).v) / base
        ac = np.abs(up.linear([], nodes).state.v) / base
        beside = printed.v0_pu if case == 0 else of.v_worst_pu if of else None
        for k in range(12):
            yield {
                "case": str(case or ""),
                "quantity": "all loads up" if case else "schedule",
                "bus": str(k + 1),
                "linear_pu": float(linear[k]),
                "ac_pu": float(ac[k]),
                "printed_pu": beside[k] if beside else None,
                "difference_pu": float(linear[k]) - beside[k] if beside else None,
            }


def activations(market: Market, engine: Engine, printed: Printed) -> Rows:
    """What is bought in each case, and the worst current of branch 2-3 then, also by OpenDSS itself."""
    limited = engine.layout.conductors.index(LIMITED)
    for case, share in HALF_BANDS.items():
        for slip in (False, True):
            errors, of = market.errors(share), printed.cases.get(str(case))
            errors = replace(errors, effect_factor=market.upstream) if slip else errors
            plan = clear(market.case(errors)).require_solved()
            p_kw, q_kvar = planned(plan)
            p_kw, q_kvar = p_kw + errors.half_p_kw, q_kvar + errors.half_q_kvar
            state, effect = plan.networks[0].state(plan.solution.x), plan.networks[0].protection.effect()
            row: dict[str, Cell] = {"case": str(case), "index": "slip" if slip else "right"}
            for pod in FLEXIBLE:
                row[f"{pod.lower()}_kw"] = awarded_kw(plan, pod)
                row[f"printed_{pod.lower()}_kw"] = of.activation_kw[pod] if of else None
            yield row | {
                "difference_kw": bought_kw(plan) - sum(of.activation_kw.values()) if of else None,
                "linear_a": abs(state.z[0] + effect[0].sum()),
                "printed_linear_a": of.worst_current_a["linear"] if of else None,
                "ac_a": float(market.flow.magnitudes(0, p_kw[None], q_kvar[None])[0, 0]),
                "printed_ac_a": of.worst_current_a["ac"] if of else None,
                "opendss_a": float(engine.solve(p_kw, q_kvar).conductor_i_a[limited]),
            }


# --- what the clearing does otherwise ---------------------------------------------------------------------------------


def polygons(market: Market) -> Rows:
    """CASE 2 by the number of planes and where they touch the circle, before and after the AC loop."""
    errors, flow = market.errors(CASE_2), market.flow.magnitudes
    kinds: tuple[Polygon, ...] = ("inscribed", "best_fit", "circumscribed")
    for polygon in kinds:
        for planes in (8, 16, 32, 64, 128, 256, 512, 1024, 4096):
            case = market.case(errors, LimitSettings(planes=planes, polygon=polygon))
            plan, checked = clear(case), clear_with_ac(case, market.linearise, flow)
            corner = worst_corner(plan, errors, flow)
            yield {
                "polygon": polygon,
                "planes": planes,
                "bought_kw": bought_kw(plan),
                "linear_a": corner.linear,
                "ac_a": corner.ac,
                "checked_kw": bought_kw(checked.clearing),
                "checked_ac_a": worst_corner(checked.clearing, errors, flow).ac,
                "rounds": checked.rounds,
            }


def variants(market: Market) -> Rows:
    """CASE 2 under other rules."""
    errors = market.errors(CASE_2)
    both_ends = replace(market, limited=(LIMITED, "Line.2-3@3.1"))
    cases = {
        "the study": market.case(errors),
        "both ends of 2-3 limited": both_ends.case(errors),
        "band on the reduced load": market.case(replace(errors, base="residual")),
        "sums of real and of imaginary parts": market.case(replace(errors, worst_case="reim")),
        "P and Q err independently": market.case(replace(errors, reactive="independent")),
    }
    for rule, case in cases.items():
        yield {"rule": rule, "bought_kw": bought_kw(clear(case))}


def modes(market: Market) -> Rows:
    """Mode 0, and mode 1 (interface flow held) without and with a counter-resource; ``hard``: what is said where limits
    cannot be broken at a price."""
    for case, share in HALF_BANDS.items():
        for mode, of in (("0", market), ("1", market), ("1", market.with_pod8())):
            settings: dict[str, Any] = {"interface_kw": HOLD} if mode == "1" else {}
            plan = clear(of.case(of.errors(share), **settings))
            yield {
                "case": str(case),
                "mode": mode,
                "counter_resource": of.counter_resource,
                **{f"{pod.lower()}_kw": awarded_kw(plan, pod) for pod in (*FLEXIBLE, "POD8")},
                "cost_eur": plan.cost_eur,
                "import_change_kw": -export_kw(plan),
                "import_change_ac_kw": of.import_kw(*planned(plan)) - of.import_kw(of.p_kw, of.q_kvar),
                "unsolved_a": unsolved_a(plan),
                "hard": _said(of.case(of.errors(share), slack_eur_per_kwh=None, **settings)),
            }


def _said(case: ClearingCase) -> str:
    try:
        clear(case)
    except MarketError as error:
        return str(error)
    return "a plan"


def ranges(market: Market) -> Rows:
    """Mode 2: by how much the export can be changed within the limits, and at what price, piece by piece."""
    for case, share in HALF_BANDS.items():
        for of in (market, market.with_pod8()):
            asked = of.case(of.errors(share))
            (least_kw, most_kw), curve = export_range(asked), supply_curve(asked)
            ends = zip(curve.export_kw[:-1], curve.export_kw[1:], curve.price_eur_per_kwh, strict=True)
            for from_kw, to_kw, price in ends:
                yield {
                    "case": str(case),
                    "counter_resource": of.counter_resource,
                    "least_kw": least_kw,
                    "most_kw": most_kw,
                    "local_kw": curve.local_kw,
                    "from_kw": from_kw,
                    "to_kw": to_kw,
                    "price_eur_per_kwh": price,
                }


# --- the price of robustness ------------------------------------------------------------------------------------------


def sampled(seed: int, samples: int, n: int, rho: float = 0.8) -> dict[str, Floats]:
    """True errors (samples, n) of each kind of `SAMPLED`."""
    xi = {errors: forecast_errors(seed, samples, n, errors) for errors in ERRORS}
    return xi | {"correlated": forecast_errors(seed, samples, n, "normal", alike(n, rho))}


def alike(n: int, rho: float) -> Floats:
    """Correlation matrix (n, n) of errors of which any two have the correlation rho."""
    return np.full((n, n), rho) + (1.0 - rho) * np.eye(n)


def priced(market: Market, case: ClearingCase, xi: Mapping[str, Floats], **what: Cell) -> Rows:
    """A row for the plan made on the linear model, and one for that of the AC loop."""
    checked = clear_with_ac(case, market.linearise, market.flow.magnitudes)
    first = judged(market, checked.clearing if checked.rounds == 1 else clear(case), xi)
    last = first if checked.rounds == 1 else judged(market, checked.clearing, xi)
    planes = case.settings.limits.planes
    yield {**what, "planes": planes, "stage": "linear", "rounds": 1, **first}
    yield {**what, "planes": planes, "stage": "checked", "rounds": checked.rounds, **last}


def judged(market: Market, plan: Clearing, xi: Mapping[str, Floats]) -> dict[str, Cell]:
    """Currents of 2-3 at the worst corner of the plan's own set and at that of the box of the true bands, and how often
    true errors take it above 117 A by more than 0.01 %."""
    truth, flow = market.errors(CASE_2), market.flow.magnitudes
    own, of_box = (worst_corner(plan, errors, flow) for errors in (*(plan.case.uncertainty or ()), truth))
    row: dict[str, Cell] = {
        "bought_kw": bought_kw(plan),
        "cost_eur": plan.cost_eur,
        "unsolved_a": unsolved_a(plan),
        "own_linear_a": own.linear,
        "own_ac_a": own.ac,
        "box_linear_a": of_box.linear,
        "box_ac_a": of_box.ac,
    }
    for errors, drawn in xi.items():
        rate = violation_rate(plan, truth, drawn, flow)
        row |= {f"{errors}_linear_percent": 100.0 * rate.linear, f"{errors}_ac_percent": 100.0 * rate.ac}
        row[f"{errors}_highest_a"] = LIMIT_A * (1.0 + rate.ac_highest_pu)
    return row


def gammas(market: Market, xi: Mapping[str, Floats]) -> Rows:
    """CASE 2 by the budget of uncertainty; ``bound_percent``: Bertsimas and Sim's for independent symmetric errors."""
    n = len(market.p_kw)
    for limits in (STUDY, FINE):
        for gamma in np.arange(0.0, n + 0.5, 0.5).tolist():
            case = market.case(market.errors(CASE_2, budget(gamma)), limits)
            yield from priced(market, case, xi, gamma=gamma, bound_percent=100.0 * np.exp(-(gamma**2) / (2.0 * n)))


def bands(market: Market, xi: Mapping[str, Floats]) -> Rows:
    """A box of other half-bands than the true ones: that of the flexible loads, three times as much for the others."""
    for limits in (STUDY, FINE):
        for percent in np.arange(0.0, 16.5, 1.0).tolist():
            case = market.case(market.errors(percent / 100.0), limits)
            yield from priced(market, case, xi, half_band_percent=percent)


def ellipsoids(market: Market, seed: int, samples: int) -> Rows:
    """CASE 2 in a ball of errors of which any two have the correlation rho, as the correlated true ones have then;
    omega from the chance at which these may violate a row."""
    n = len(market.p_kw)
    for rho in (0.0, 0.25, 0.5, 0.75, 1.0):
        xi = sampled(seed, samples, n, rho)
        for chance in (0.10, 0.05, 0.025, 0.01):
            omega = NormalDist().inv_cdf(1.0 - chance) / HALF_BAND_SIGMA
            case = market.case(market.errors(CASE_2, ellipsoid(alike(n, rho), omega)), FINE)
            yield from priced(market, case, xi, rho=rho, omega=omega, chance_percent=100.0 * chance)


def overloads(market: Market, xi: Mapping[str, Floats]) -> Rows:
    """CASE 2 with slight overloads tolerated: by a factor; in two tiers, for a budget of errors up to the factor and
    for all at once up to a ceiling; or up to the factor at a price for what is above 117 A."""

    def row(
        rule: str, overload: float, gamma: float = 7.0, ceiling: float | None = None, eur: float | None = None
    ) -> Rows:
        limits = replace(STUDY, overload=overload, overload_ceiling=ceiling, overload_eur_per_a_h=eur)
        what: dict[str, Cell] = {"rule": rule, "overload_percent": 100.0 * overload, "gamma": gamma}
        what |= {"ceiling_percent": ceiling and 100.0 * ceiling, "price_eur_per_a_h": eur}
        return priced(market, market.case(market.errors(CASE_2, budget(gamma)), limits), xi, **what)

    for percent in np.arange(0.0, 5.5, 0.5).tolist():
        yield from row("factor", percent / 100.0)
    for ceiling in (1.2, 1.03):
        for gamma in (3.0, 5.0, 7.0):
            yield from row("two tiers", 0.02, gamma=gamma, ceiling=ceiling)
    for eur in (5.0, 10.0, 12.0, 13.0, 15.0):
        yield from row("price", 0.02, eur=eur)


# --- all of it --------------------------------------------------------------------------------------------------------


def study(samples: int, seed: int) -> dict[str, Table]:
    """All tables by name."""
    feeder = load_feeder(FEEDERS / "lfm12")
    market, engine = open_market(feeder), Engine(feeder, GridConfig())
    printed = read_document(PRINTED, InputError).validate(Printed, InputError)
    xi = sampled(seed, samples, len(market.p_kw))
    tables = [
        table_of("currents", "of the branches, phase 1, at the first of their buses", currents(market, printed)),
        table_of("voltages", "magnitudes, phase 1", voltages(market, printed)),
        table_of("activations", "bought, and current of 2-3 with all loads up", activations(market, engine, printed)),
        table_of("polygons", "CASE 2 by planes; currents at the worst corner", polygons(market)),
        table_of("variants", "CASE 2 under other rules", variants(market)),
        table_of("modes", "clearing without and with the interface flow held", modes(market)),
        table_of("ranges", "range of the export and its price by pieces", ranges(market)),
        table_of("gammas", "CASE 2 by budget of uncertainty", gammas(market, xi)),
        table_of("bands", "by half-band planned for, true errors of CASE 2", bands(market, xi)),
        table_of("ellipsoids", "CASE 2 by ellipsoid, correlated errors of its rho", ellipsoids(market, seed, samples)),
        table_of("overloads", "CASE 2 with slight overloads tolerated", overloads(market, xi)),
    ]
    engine.close()
    return {table.form.name: table for table in tables}


def summary(tables: Mapping[str, Table]) -> Iterator[str]:
    """The figures that matter, as text."""
    yield "12-bus market study: 117 A in branch 2-3, POD2, POD4 and POD7 at 1 EUR/kWh, 32 planes"
    slip = [row for row in tables["currents"].rows if row["quantity"] != "change"]
    differences = [row[name] for row in slip for name in ("difference_re_a", "difference_im_a")]
    yield f"  currents, with the printed index slip: {_largest(differences):.1e} A from the printed ones at most"
    yield f"  voltages: {_largest(tables['voltages'].column('difference_pu')):.1e} pu\n"
    columns = ["case", "index", *(f"{pod.lower()}_kw" for pod in FLEXIBLE), "printed_pod4_kw"]
    columns += ["linear_a", "printed_linear_a", "ac_a", "printed_ac_a", "opendss_a"]
    yield from _lines(tables["activations"], columns)
    for name, key in (("gammas", "gamma"), ("bands", "half_band_percent")):
        yield f"\n{name}: polygon of 4096 planes, AC loop; current at the worst corner of the true box, violations in %"
        fine = tables[name].where(planes=4096, stage="checked")
        yield from _lines(fine, [key, "bought_kw", "own_ac_a", "box_ac_a", *(f"{kind}_ac_percent" for kind in SAMPLED)])
    tolerated = tables["overloads"].where(rule="factor", stage="linear", overload_percent=2.0)
    yield f"\nCASE 2 with 2 % of overload tolerated: {tolerated.rows[0]['bought_kw']:.1f} kW"


def _largest(cells: Sequence[Cell]) -> float:
    return max(abs(cell) for cell in cells if isinstance(cell, float))


def _lines(table: Table, columns: Sequence[str]) -> list[str]:
    def text(cell: Cell) -> str:
        return f"{cell:.2f}" if isinstance(cell, float) else str(cell or "-")

    return aligned([columns, *([text(row[name]) for name in columns] for row in table.rows)], left=(), width=160)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the study; returns the exit code."""
    parser = argparse.ArgumentParser(description="The 12-bus market study and the price of robustness.")
    parser.add_argument("--out", type=Path, default=Path("results/lfm12_study"), help="folder to write to")
    parser.add_argument("--samples", type=int, default=10_000, help="forecast errors drawn to judge a plan (10000)")
    parser.add_argument("--seed", type=int, default=1, help="of the forecast errors (1)")
    options = parser.parse_args(arguments)
    if options.samples < 1:
        parser.error("--samples must be 1 or more")
    try:
        tables = study(options.samples, options.seed)
        write_csv(options.out, list(tables.values()))
        attributes = {"title": "12-bus market study", "seed": options.seed, "samples": options.samples}
        write_hdf5(options.out / "lfm12_study.h5", "study", list(tables.values()), attributes)
        draw_study(tables, options.out)
    except CosimError as error:
        print(f"lfm12_study: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(summary(tables)))
    print(f"\n{len(tables)} tables and their figures: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
