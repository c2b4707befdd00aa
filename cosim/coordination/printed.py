"""What a scheme gave on a case, and what schemes there are: as text for people, as plain values for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cosim.coordination.classify import SchemeClass, classify, grid_safe
from cosim.coordination.coordinate import Coordination
from cosim.coordination.outcome import SHORT_KW, StageOutcome
from cosim.coordination.plain import to_plain
from cosim.coordination.scheme import Scheme
from cosim.units import KW_PER_MW

_MOST_SHOWN = 8


def as_text(found: Coordination) -> str:
    """Awards, cost by party, prices, what is exceeded, what was left out and why, and messages."""
    return "\n".join(_lines(found))


def _lines(found: Coordination) -> Iterator[str]:
    case, scheme = found.case, found.scheme
    yield f"{case.name} under {scheme.name}: {scheme.description}"
    yield f"  {_layers(classify(scheme))}"
    for stage, party, what in found.unsolved[:_MOST_SHOWN]:
        yield f"  NOT SOLVED in {stage} ({party}): {what}"
    if len(found.unsolved) > _MOST_SHOWN:
        yield f"  and {len(found.unsolved) - _MOST_SHOWN} more"
    for reason in dict.fromkeys(outcome.reason for _, outcome in found.outcomes if outcome.reason):
        yield f"  because: {reason}"
    for party, outcome in found.outcomes:
        yield from _stage_lines(party, outcome, case.mtu_s)
    yield f"\ncost {found.cost_eur:.2f} EUR" + ("" if found.solved else ", not all is solved")
    for party, eur in sorted(found.paid_eur.items()):
        yield f"  {party:<12} pays {eur:12.2f} EUR"
    balance = found.balance
    missing = f", {_mw(balance.missing_kw)} MW missing" if abs(balance.missing_kw) >= SHORT_KW else ""
    yield f"balance: need of {_mw(balance.need_kw)} MW{missing}"
    yield "\nlimits exceeded" + ("" if any(each.excess for each in found.overloads) else ": none")
    for each in found.overloads:
        if each.excess:
            value = f"{each.value:.6g} {each.unit}, limit {each.limit:.6g}"
            yield f"  {each.element} {value}, was {each.before:.6g}"
    yield f"\n{len(found.messages)} messages, {sum(message.size for message in found.messages)} bytes"
    for message in found.messages:
        stage = message.stage or "gate"
        yield f"  {message.sender:>8} -> {message.receiver:<8} {message.type:<15} {stage:<12} {message.size:>8} bytes"


def _stage_lines(party: str, outcome: StageOutcome, mtu_s: int) -> Iterator[str]:
    yield f"\n{outcome.stage} ({party})" + (", balance given up" if outcome.fell_back else "")
    for bid, each in sorted(outcome.bought.items()):
        payers = ", ".join(f"{buyer} {share:.0%}" for buyer, share in sorted(each.shares.items()))
        yield f"  {bid:<20} {_mw(each.kw):>12} MW at {KW_PER_MW * each.price_eur_per_kwh:8.2f} EUR/MWh, {payers}"
    for area, (kw, eur) in outcome.on_curve.items():
        yield f"  curve of {area:<11} {_mw(kw):>12} MW for {eur:.2f} EUR"
    for need, (kw, eur) in outcome.demands.items():
        yield f"  demand {need:<13} {_mw(kw):>12} MW for {eur:.2f} EUR"
    for area, price in outcome.interface_eur_per_kwh.items():
        yield f"  interface of {area}: {KW_PER_MW * price:.3f} EUR/MWh"
    for area, pieces in outcome.slopes.items():
        steps = ", ".join(f"{KW_PER_MW * price:g} ({_mw(a)}..{_mw(b)} MW)" for a, b, price in pieces)
        yield f"  cost of exporting from {area} [EUR/MWh]: {steps or 'none'}"
    for bid, kw in sorted(outcome.caps.items()):
        yield f"  cap {bid:<16} {_mw(kw):>12} MW"
    for light in outcome.lights:
        where = f", by {light.limit}" if light.limit else ""
        cap = f"{_mw(light.cap_kw)} of {_mw(light.registered_kw)} MW"
        yield f"  {light.perimeter} {light.direction.value}: {light.colour.value}, {cap}{where}"
    if outcome.shortage_kw:
        yield f"  short of {_mw(outcome.shortage_kw)} MW"
    for bid, reason in sorted(outcome.excluded.items()):
        yield f"  left out: {bid}, {reason}"


def _mw(kw: float) -> str:
    return f"{round(kw, 6) / KW_PER_MW + 0.0:.6g}"


def _layers(found: SchemeClass) -> str:
    reaches = "reaches" if found.tso_reaches_distribution else "does not reach"
    return f"{found.name}: {found.need} need, {found.buyers} buys, {found.markets} market, TSO {reaches} distribution"


def as_plain(found: Coordination) -> dict[str, Any]:
    """All of it for JSON; powers in kW, prices in EUR/kWh."""
    stages = [{"party": party, **to_plain(outcome)} for party, outcome in found.outcomes]
    return {
        "case": found.case.name,
        "scheme": found.scheme.name,
        "class": to_plain(classify(found.scheme)),
        "solved": found.solved,
        "unsolved": [dict(zip(("stage", "party", "what"), each, strict=True)) for each in found.unsolved],
        "cost_eur": found.cost_eur,
        "paid_eur": dict(found.paid_eur),
        "dispatch_kw": dict(found.dispatch_kw),
        "balance": to_plain(found.balance),
        "overloads": [{**to_plain(each), "excess": each.excess} for each in found.overloads],
        "awards": [to_plain(award) for award in found.awards],
        "stages": stages,
        "messages": [
            {
                "t_s": m.t_s,
                "sender": m.sender,
                "receiver": m.receiver,
                "type": m.type,
                "stage": m.stage,
                "round": m.round,
                "size": m.size,
                "hash": m.digest,
            }
            for m in found.messages
        ],
    }


def schemes_text(schemes: Iterable[Scheme]) -> str:
    """A paragraph for each scheme: its class, its stages, what crosses."""
    return "\n\n".join("\n".join(_scheme_lines(scheme)) for scheme in schemes)


def _scheme_lines(scheme: Scheme) -> Iterator[str]:
    safe = "" if grid_safe(scheme) else "; does not keep the limits of distribution by itself"
    yield f"{scheme.name}: {scheme.description}"
    yield f"  {_layers(classify(scheme))}{safe}"
    yield "  " + ", ".join(f"{name} ({stage.solver})" for name, stage in scheme.stages.items())
    for pair, types in scheme.messages.items():
        yield f"  {pair}: {', '.join(types)}"


def scheme_plain(scheme: Scheme) -> dict[str, Any]:
    """A scheme, its class and its messages for JSON."""
    return {**scheme.model_dump(mode="json"), "class": to_plain(classify(scheme)), "grid_safe": grid_safe(scheme)}
