"""The estimator's accuracy as a document: what was compared, what came out in words made from the numbers, tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from instants import DAYS, HISTORY_ERROR_PERCENT, SEED

from cosim.domain.frames import Floats
from cosim.estimation.quality import error_statistics
from cosim.scenario.schema import Genetic, History, Method

TITLES: dict[Method, str] = {
    "history": "historical mean",
    "genetic": "genetic algorithm",
    "genetic_prior": "genetic algorithm with prior term",
    "wls": "weighted least squares",
}
BAND_95 = 1.959964


@dataclass(frozen=True)
class Outcome:
    """One method over all instants. ``p_kw``, ``sigma_p_kw``, ``truth_kw``: (n_instant, n_site) of the unmetered
    ``sites``; ``objective`` (n_instant,) [1]; ``ms`` CPU time an estimate, median."""

    sites: tuple[str, ...]
    p_kw: Floats
    sigma_p_kw: Floats
    truth_kw: Floats
    objective: Floats
    ms: float

    @property
    def error_kw(self) -> Floats:
        return self.p_kw - self.truth_kw

    @property
    def mae_kw(self) -> float:
        """Mean absolute error over all unmetered sites."""
        return float(np.abs(self.error_kw).mean())

    @property
    def in_band(self) -> Floats:
        """Whether the truth lies inside the 95 % band, NaN without one; (n_instant, n_site)."""
        inside = np.abs(self.error_kw) <= BAND_95 * self.sigma_p_kw
        return np.where(np.isnan(self.sigma_p_kw), np.nan, inside)


@dataclass(frozen=True)
class Comparison:
    """All methods with one set of meters, at the same instants with the same readings. ``sun`` (n_instant,) tells when
    photovoltaics inject; ``unknowns`` and ``readings`` what a search has to find and to compare with."""

    meters: tuple[str, ...]
    outcomes: dict[Method, Outcome]
    sun: npt.NDArray[np.bool_]
    unknowns: int
    readings: int

    @property
    def substations(self) -> int:
        """Number of substations metered besides the head."""
        return len(self.meters) - 1

    @property
    def ranking(self) -> list[Method]:
        """Methods by mean absolute error, best first."""
        return sorted(self.outcomes, key=lambda method: self.outcomes[method].mae_kw)


def document(found: Sequence[Comparison]) -> list[str]:
    """Lines of Markdown."""
    return [*_setting(found[0]), *_words(found), *_overall(found), *_by_site(found)]


def _setting(first: Comparison) -> Iterator[str]:
    options, history = Genetic(), History()
    yield "# How accurate the estimate is"
    yield ""
    yield "Written by `make bench`, not by hand. `python tests/bench/run.py accuracy` makes it again: on the same"
    yield "machine the same figures, but for the time."
    yield ""
    yield (
        f"- Feeder mv5, the SimBench year of {DAYS} days; {len(first.sun)} quarter hours drawn from it without "
        f"replacement by a random stream of seed {SEED}, the same for every row; storage idle."
    )
    yield (
        "- Meters: the head and the substations named below, P, Q and voltage, with the noise of their class and no "
        "other fault; every method sees the same readings."
    )
    yield (
        f"- History: the true profiles with an error of {HISTORY_ERROR_PERCENT:g} % (standard deviation) on each "
        f"value, drawn once; {history.days} days back, {history.window} quarter hours on either side."
    )
    yield (
        f"- Genetic algorithm as configured by default: {options.population} individuals, up to {options.generations} "
        f"generations, {options.patience} without improvement end it."
    )
    yield (
        "- Error: estimated less true net active power of a substation without a meter. Band: 1.96 standard deviations "
        "that the method itself states; the genetic algorithm states none. Objective: weighted squared error of all "
        "readings, without prior term; median."
    )
    yield ""


def _words(found: Sequence[Comparison]) -> Iterator[str]:
    yield "## What it says"
    yield ""
    for each in found:
        ranked = ", ".join(f"{TITLES[m]} {each.outcomes[m].mae_kw:.1f} kW" for m in each.ranking)
        yield f"- With {each.substations} substations metered, from best to worst by mean absolute error: {ranked}."
    for each in found:
        plain, wls = each.outcomes["genetic"], each.outcomes["wls"]
        yield (
            f"- With {each.substations}, the plain genetic algorithm has {each.readings} readings to compare with for "
            f"{each.unknowns} unknowns: it fits them with a median objective of {np.median(plain.objective):.1f} "
            f"(least squares: {np.median(wls.objective):.1f}), and is off by "
            f"{plain.mae_kw / wls.mae_kw:.1f} times as much."
        )
    yield (
        "- So a good fit is no sign of a good estimate: the flow at the head does not tell how it is split, the "
        "voltages hardly do. What tells is how substations moved together in the past, of which the plain genetic "
        "algorithm knows the bounds only."
    )
    fewer, more = found[0], found[-1]
    gains = ", ".join(
        f"{TITLES[m]} from {fewer.outcomes[m].mae_kw:.1f} to {more.outcomes[m].mae_kw:.1f} kW" for m in more.ranking
    )
    yield f"- From {fewer.substations} to {more.substations} metered substations the error falls for {gains}."
    bands = "; ".join(
        f"{TITLES[m]} {_percent(fewer.outcomes[m].in_band)} and {_percent(more.outcomes[m].in_band)}"
        for m in ("history", "wls")
    )
    yield f"- Truths inside the band, which should hold 95 %, with {fewer.substations} and {more.substations}: {bands}."
    yield ""


def _overall(found: Sequence[Comparison]) -> Iterator[str]:
    for each in found:
        yield f"## {each.substations} substations metered: {', '.join(each.meters[1:])}, besides the head"
        yield ""
        yield "All substations without a meter together; sun: while photovoltaics inject."
        yield ""
        yield from _row("method", *_MEASURES, "MAE with sun", "MAE without", "objective", "time / least squares")
        yield from _row("---", *["---:"] * (len(_MEASURES) + 4))
        for method, ours in each.outcomes.items():
            error = np.abs(ours.error_kw)
            yield from _row(
                TITLES[method],
                *_measures(ours.p_kw.reshape(-1, 1), ours.truth_kw.reshape(-1, 1), ours.in_band.reshape(-1, 1)),
                f"{error[each.sun].mean():.1f}",
                f"{error[~each.sun].mean():.1f}",
                f"{np.median(ours.objective):.1f}",
                _times(ours.ms / each.outcomes["wls"].ms),
            )
        yield ""


def _by_site(found: Sequence[Comparison]) -> Iterator[str]:
    yield "## By substation"
    yield ""
    yield "Power: mean of the true power's magnitude."
    yield ""
    yield from _row("metered", "site", "power kW", "method", *_MEASURES)
    yield from _row("---:", "---", "---:", "---", *["---:"] * len(_MEASURES))
    for each in found:
        for k, site in enumerate(next(iter(each.outcomes.values())).sites):
            for method, ours in each.outcomes.items():
                column = slice(k, k + 1)
                yield from _row(
                    str(each.substations),
                    site,
                    f"{np.abs(ours.truth_kw[:, k]).mean():.0f}",
                    TITLES[method],
                    *_measures(ours.p_kw[:, column], ours.truth_kw[:, column], ours.in_band[:, column]),
                )


_MEASURES = ("MAE kW", "RMSE kW", "bias kW", "95th percentile kW", "in 95 % band")


def _measures(p_kw: Floats, truth_kw: Floats, in_band: Floats) -> list[str]:
    """Cells of `_MEASURES` of values (n, 1)."""
    statistics = error_statistics(p_kw, truth_kw)
    return [
        f"{statistics.mean_absolute[0]:.1f}",
        f"{statistics.root_mean_square[0]:.1f}",
        f"{statistics.bias[0]:+.1f}",
        f"{np.percentile(np.abs(p_kw - truth_kw), 95):.1f}",
        _percent(in_band),
    ]


def _percent(in_band: Floats) -> str:
    return "" if np.isnan(in_band).any() else f"{100.0 * in_band.mean():.0f} %"


def _times(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 1.0 else f"{ratio:.1g}"


def _row(*cells: str) -> Iterator[str]:
    yield f"| {' | '.join(cells)} |"
