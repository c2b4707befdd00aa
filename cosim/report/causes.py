"""Why limits are violated although there is a market: for each market time unit (MTU) what of the plan did not hold.

Pure functions: `cosim.report.market_run` gathers what is judged here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from cosim.domain.frames import Floats
from cosim.report.layout import number

LEAST_EXCESS = {"i_a": 1e-4, "vm_pu": 1e-4}
"""What counts as a violation: of the limit for a current, in pu for a voltage. The power flow that checks a plan is no
closer."""

_CLOSE = 1e-6
LEAST_KW = 1e-4
"""Powers [kW, kvar] this close are the same: far below what takes a limit beyond `LEAST_EXCESS`."""

_ASIDE = " (elsewhere or relieving)"


class Cause(Enum):
    """What a violation comes from. ERROR: of a POD outside its half-band, or any if none is planned for; TOGETHER: all
    within their bands, but not in the set planned for. UNSERVED, UNSEEN: under a scheme that has no stage to keep
    limits of the feeder, or one that buys there without knowing its network."""

    UNSOLVED = "left by the plan"
    NO_SESSION = "no session"
    TOLERATED = "tolerated overload"
    ERROR = "forecast error"
    TOGETHER = "forecast errors together"
    UNDELIVERED = "not delivered"
    OFF_SCHEDULE = "resource off its schedule"
    UNSERVED = "nobody buys for it"
    UNSEEN = "bought without the network"
    MOVED = "taps or capacitors moved"
    RULES = "allowed by the market's rules"
    UNEXPLAINED = "UNEXPLAINED (a bug)"


@dataclass(frozen=True)
class Rules:
    """What the market plans for, from the scenario's ``market``; ``overload``: share of a current's limit."""

    errors: str = "box"
    gamma: float = 2.0
    omega: float = 2.0
    correlation: float = 0.0
    common: float = 0.5
    with_active: bool = False
    overload: float = 0.0
    loose: tuple[str, ...] = ()
    """Settings by which a plan may miss a limit within the set of errors."""
    served: bool = True
    """Whether anybody buys to keep the limits."""


@dataclass(frozen=True)
class Slack:
    """A limit that the plan for an MTU did not keep, by so much of it [%]."""

    kind: str
    element: str
    excess_percent: float


@dataclass(frozen=True)
class PodErrors:
    """Of each of ``pods`` (n_pod,): power drawn without activation less what was expected, and the half-band planned
    with, all (n_pod,) [kW, kvar]."""

    pods: tuple[str, ...]
    p_kw: Floats
    q_kvar: Floats
    half_p_kw: Floats
    half_q_kvar: Floats


@dataclass(frozen=True)
class Delivery:
    """Of an activation of ``ordered_kw`` (consumption > 0): what is ``missing_kw`` of it, of which up to ``allowed_kw``
    was planned for; whether the resource was within reach."""

    resource: str
    pod: str
    ordered_kw: float
    missing_kw: float
    allowed_kw: float = 0.0
    reached: bool = True

    @property
    def beyond_kw(self) -> float:
        """How far it is from what was planned for."""
        return max(self.missing_kw - self.allowed_kw, -self.missing_kw, 0.0)

    @property
    def off_kw(self) -> float:
        """Consumption more than ordered."""
        return -self.missing_kw if self.ordered_kw > 0.0 else self.missing_kw


@dataclass(frozen=True)
class Circumstances:
    """The worst violation of an MTU from ``t_s`` on, and what was planned and what happened in its step.

    ``element`` is the bus of a voltage, the terminal ``branch@BUS`` of a current; ``excess`` is of its ``limit``.
    ``errors`` is None where no session in real time looked at the MTU, for the reason ``no_session``; ``foreseen``:
    whether one found a need. ``off_kw``: by POD, what resources draw that is neither declared nor a failed activation.
    ``unseen_kw``: by POD, what was bought by who does not know the network. ``worst_percent``: where the schedule takes
    the element with the worst errors [% of its limit], NaN where it keeps it. ``moved``: controls that are not where
    they were at the gate. ``behind``: the PODs that draw their power through the
    element; None where all matter, as for a voltage or in a loop. ``toward``: how much 1 kW and 1 kvar more consumption
    there take it further beyond its limit, below 0 if they relieve it; None where that is not known.
    """

    t_s: float
    element: str
    quantity: str
    excess: float
    limit: float
    unsolved: tuple[Slack, ...] = ()
    errors: PodErrors | None = None
    no_session: str = ""
    foreseen: bool = True
    deliveries: tuple[Delivery, ...] = ()
    off_kw: tuple[tuple[str, float], ...] = ()
    unseen_kw: tuple[tuple[str, float], ...] = ()
    worst_percent: float = np.nan
    moved: tuple[str, ...] = ()
    behind: frozenset[str] | None = None
    toward: tuple[float, float] | None = None

    def concerns(self, pod: str) -> bool:
        """Whether the power of a POD flows through the element."""
        return self.behind is None or pod in self.behind

    def weight(self, pod: str, change_kw: float) -> float:
        """How much a change of consumption of a POD takes the element further beyond its limit; 0 if it does not."""
        along = abs(change_kw) if self.toward is None else self.toward[0] * change_kw
        return max(along, 0.0) if self.concerns(pod) else 0.0

    @property
    def excess_percent(self) -> float:
        return 100.0 * self.excess / self.limit


@dataclass(frozen=True)
class Finding:
    """A cause in words. ``weight`` puts causes in order: the kW and kvar by which a power is off, as far as they take
    the element further beyond its limit; 0 where it relieves it, acts elsewhere, or that cannot be told."""

    cause: Cause
    detail: str
    weight: float = 0.0


@dataclass(frozen=True)
class Residual:
    """A row of the table: a violation that was left in an MTU, its main cause, and what else was not as planned."""

    t_s: float
    element: str
    quantity: str
    excess: float
    excess_percent: float
    cause: Cause
    detail: str
    also: tuple[Finding, ...]


def residuals(cases: Sequence[Circumstances], rules: Rules) -> tuple[Residual, ...]:
    """The table of violations left by cause, a row for each of ``cases``."""
    rows = []
    for case in cases:
        main, *also = causes_of(case, rules)
        rows.append(
            Residual(
                case.t_s,
                case.element,
                case.quantity,
                case.excess,
                case.excess_percent,
                main.cause,
                main.detail,
                tuple(also),
            )
        )
    return tuple(rows)


def causes_of(case: Circumstances, rules: Rules) -> tuple[Finding, ...]:
    """All that was not as planned, the main cause first; `Cause.UNEXPLAINED` alone if nothing was.

    Slack of the plan at the very element, what the market tolerates, and limits that nobody buys for come first. Powers
    behind it that are off toward the violation, or were bought without the network, follow in the order of their kW;
    controls that moved come before them for a voltage, after them for a current. Last: other powers that are off, which
    act through the voltage only or relieve the element, that no session looked at the MTU, errors that only together
    are more than planned for, and slack elsewhere.
    """
    at, elsewhere = _unsolved(case)
    powers = (*_errors(case, rules), *_deliveries(case), *_off_schedule(case), *_unseen(case), *_moved(case))
    first = (*at, *_tolerated(case, rules), *_unserved(case, rules))
    found = (*first, *sorted((*powers, *_no_session(case)), key=lambda finding: -finding.weight), *elsewhere)
    if found:
        return found
    if rules.loose:
        return (Finding(Cause.RULES, ", ".join(rules.loose)),)
    missed = "the plan should have kept it" if case.foreseen else "no need was foreseen although errors are as planned"
    return (Finding(Cause.UNEXPLAINED, missed),)


def _unsolved(case: Circumstances) -> tuple[list[Finding], list[Finding]]:
    """The largest slack of the plan at the violated element, and elsewhere."""
    place = case.element.partition("@")[0]
    at = [slack for slack in case.unsolved if _place(slack.element) == place]
    elsewhere = [slack for slack in case.unsolved if _place(slack.element) != place]
    return [_slack(at)] if at else [], [_slack(elsewhere)] if elsewhere else []


def _place(name: str) -> str:
    """The branch of a conductor ``branch@BUS.phase``, the bus of a node ``BUS.phase``."""
    branch, at, _ = name.partition("@")
    return branch if at else name.rpartition(".")[0]


def _slack(of: Sequence[Slack]) -> Finding:
    worst = max(of, key=lambda slack: slack.excess_percent)
    kind = "power flow" if worst.kind == "power_flow" else worst.kind
    detail = f"{worst.element}: {worst.excess_percent:.3g} % beyond {kind}{_more(len(of) - 1, 'limits')}"
    return Finding(Cause.UNSOLVED, detail)


def _no_session(case: Circumstances) -> Iterator[Finding]:
    if case.errors is None:
        yield Finding(Cause.NO_SESSION, case.no_session)


def _moved(case: Circumstances) -> Iterator[Finding]:
    """Controls at another position than at the gate: of all that can be off, the first to look at for a voltage."""
    if case.moved:
        yield Finding(Cause.MOVED, ", ".join(case.moved), np.inf if case.quantity == "vm_pu" else LEAST_KW)


def _tolerated(case: Circumstances, rules: Rules) -> Iterator[Finding]:
    if case.quantity == "i_a" and case.excess <= (rules.overload + LEAST_EXCESS["i_a"]) * case.limit:
        yield Finding(Cause.TOLERATED, f"up to {100.0 * rules.overload:g} % of the limit")


def _unserved(case: Circumstances, rules: Rules) -> Iterator[Finding]:
    if not rules.served and np.isfinite(case.worst_percent):
        yield Finding(Cause.UNSERVED, f"foreseen: {case.worst_percent:.4g} % of the limit with the worst errors")


def _errors(case: Circumstances, rules: Rules) -> Iterator[Finding]:
    """The POD whose error is furthest [kW, kvar] outside its half-band, any error if none is planned for; else why
    errors within their bands are not in the set."""
    errors = case.errors
    if errors is None:
        return
    shares = _shares(errors, rules)
    ball = rules.errors == "ellipsoid"
    within = ball and _ball(shares, rules) <= rules.omega * (1.0 + _CLOSE)
    error = np.concatenate([errors.p_kw, errors.q_kvar])
    planned = np.concatenate([errors.half_p_kw, errors.half_q_kvar]) * (rules.errors != "none")
    beyond = np.where(within, 0.0, np.abs(error) - planned * (1.0 + _CLOSE))
    weight = beyond * _leverage(case, errors, error)
    if weight.max(initial=0.0) > LEAST_KW:
        yield Finding(Cause.ERROR, _error_text(errors, weight, rules), float(weight.max()))
    elif beyond.max(initial=0.0) > LEAST_KW:
        yield Finding(Cause.ERROR, _error_text(errors, beyond, rules) + _ASIDE)
    elif rules.errors != "none":
        reason = _apart(errors) if rules.with_active else ""
        reason = reason or ("" if within else _outside(shares, rules))
        if reason:
            yield Finding(Cause.TOGETHER, reason)


def _leverage(case: Circumstances, errors: PodErrors, error: Floats) -> Floats:
    """How much 1 kW or kvar of each error (2 n_pod,) in its direction takes the element further beyond its limit."""
    behind = np.array([case.concerns(pod) for pod in errors.pods], dtype=np.float64)
    if case.toward is None:
        return np.tile(behind, 2)
    toward = np.concatenate([behind * case.toward[0], behind * case.toward[1]])
    return np.asarray(np.maximum(toward * np.sign(error), 0.0))


def _error_text(errors: PodErrors, weight: Floats, rules: Rules) -> str:
    worst, n = int(weight.argmax()), len(errors.pods)
    letter, unit = ("P", "kW") if worst < n else ("Q", "kvar")
    error = float((errors.p_kw if worst < n else errors.q_kvar)[worst % n])
    half = float((errors.half_p_kw if worst < n else errors.half_q_kvar)[worst % n])
    bands = f"{abs(error) / half:.2f} half-bands" if half > 0.0 else "without a half-band"
    plain = ", none planned for" if rules.errors == "none" else ""
    others = len(set((np.flatnonzero(weight > LEAST_KW) % n).tolist())) - 1
    return f"{errors.pods[worst % n]}: {letter} {_signed(error, unit)}, {bands}{plain}{_more(others, 'PODs')}"


def _shares(errors: PodErrors, rules: Rules) -> tuple[Floats, ...]:
    """The xi of the set in its parts: errors in half-bands of P and of Q, or of both together. 0 where there is
    neither, infinite where there is an error without a band."""

    def of(error: Floats, half: Floats) -> Floats:
        without = np.where(np.abs(error) > LEAST_KW, np.inf, 0.0)
        return np.asarray(np.divide(error, half, out=without, where=half > 0.0))

    p, q = of(errors.p_kw, errors.half_p_kw), of(errors.q_kvar, errors.half_q_kvar)
    return (np.where(errors.half_p_kw > 0.0, p, q),) if rules.with_active else (p, q)


def _apart(errors: PodErrors) -> str:
    """Whose Q is not off by as many half-bands as its P; empty if all are."""
    band = errors.half_p_kw > 0.0
    xi = np.divide(errors.p_kw, errors.half_p_kw, out=np.zeros_like(errors.p_kw), where=band)
    apart = np.abs(errors.q_kvar - xi * errors.half_q_kvar) * band
    worst = int(apart.argmax())
    return f"{errors.pods[worst]}: Q does not come with P" if apart[worst] > LEAST_KW else ""


def _outside(shares: tuple[Floats, ...], rules: Rules) -> str:
    """Why errors within their half-bands are outside the set; empty if they are in it.

    Which PODs have a factor in common is not recorded: errors that one factor for all explains are in the set.
    """
    if rules.errors == "ellipsoid":
        return f"{_ball(shares, rules):.2f} from the middle of the ellipsoid, {rules.omega:g} planned for"
    if rules.errors == "budget":
        size = sum(float(np.abs(xi).sum()) for xi in shares)
        return f"{size:.2f} half-bands in all, {rules.gamma:g} planned for" if size > rules.gamma + _CLOSE else ""
    if rules.errors == "factors":
        spread = max(float(np.ptp(xi)) for xi in shares)
        return f"{spread:.2f} half-bands from each other" if spread > 2.0 * (1.0 - rules.common) + _CLOSE else ""
    return ""


def _ball(shares: tuple[Floats, ...], rules: Rules) -> float:
    """Distance of errors from the middle of the ellipsoid in which any two xi have the same correlation."""
    xi = np.concatenate(shares)
    if not np.isfinite(xi).all():
        return float("inf")
    along, across = len(xi) * float(xi.mean()) ** 2, float(((xi - xi.mean()) ** 2).sum())
    square = along / (1.0 + (len(xi) - 1) * rules.correlation)
    if across > _CLOSE:
        square += across / (1.0 - rules.correlation) if rules.correlation < 1.0 else np.inf
    return float(np.sqrt(square))


def _deliveries(case: Circumstances) -> Iterator[Finding]:
    failed = [each for each in case.deliveries if each.beyond_kw > LEAST_KW]
    if failed:
        weights = [case.weight(each.pod, each.off_kw) * each.beyond_kw / abs(each.off_kw) for each in failed]
        weight, worst, others = _worst(weights, [each.beyond_kw for each in failed])
        each = failed[worst]
        of = f"{number(each.missing_kw, 'kW')} of {number(abs(each.ordered_kw), 'kW')} kW missing"
        why = "" if each.reached else ", out of reach"
        aside = "" if weight > 0.0 else _ASIDE
        yield Finding(Cause.UNDELIVERED, f"{each.resource}: {of}{why}{_more(others, 'resources')}{aside}", weight)


def _off_schedule(case: Circumstances) -> Iterator[Finding]:
    off = [(pod, kw) for pod, kw in case.off_kw if abs(kw) > LEAST_KW]
    if off:
        weight, worst, others = _worst([case.weight(*each) for each in off], [abs(kw) for _, kw in off])
        pod, kw = off[worst]
        aside = "" if weight > 0.0 else _ASIDE
        yield Finding(Cause.OFF_SCHEDULE, f"{pod}: {_signed(kw, 'kW')}{_more(others, 'PODs')}{aside}", weight)


def _unseen(case: Circumstances) -> Iterator[Finding]:
    """What was bought without the network, as far as it takes the element further beyond its limit."""
    weights = [case.weight(*each) for each in case.unseen_kw]
    if max(weights, default=0.0) > LEAST_KW:
        weight, worst, others = _worst(weights, weights)
        pod, kw = case.unseen_kw[worst]
        yield Finding(Cause.UNSEEN, f"{pod}: {_signed(kw, 'kW')}{_more(others, 'PODs')}", weight)


def _worst(weights: Sequence[float], sizes_kw: Sequence[float]) -> tuple[float, int, int]:
    """The largest weight, whose it is, and how many others have one; by size if none has."""
    if max(weights) <= LEAST_KW:
        return 0.0, int(np.argmax(sizes_kw)), len(sizes_kw) - 1
    return max(weights), int(np.argmax(weights)), sum(weight > LEAST_KW for weight in weights) - 1


def _signed(value: float, unit: str) -> str:
    return f"{'+' if value > 0.0 else ''}{number(value, unit)} {unit}"


def _more(count: int, what: str) -> str:
    return f"; {count} more {what if count > 1 else what[:-1]}" if count else ""
