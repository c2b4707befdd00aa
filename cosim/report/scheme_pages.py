"""The comparison of schemes in words and tables: the same blocks as Markdown and as a page that needs nothing but a
browser. All sentences are computed from the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup

from cosim.coordination.catalogue import load_scheme, shipped
from cosim.report.canvas import COLOURS, Drawing
from cosim.report.compare_schemes import (
    SchemeRun,
    aggregators_eur,
    bought_by,
    differing,
    paid_eur,
    unmet_mtus,
)
from cosim.report.coordination import Coordination
from cosim.report.layout import number

DSO_FIRST: Final = "it_dso_priority"
TSO_FIRST: Final = "it_tso_priority"


@dataclass(frozen=True)
class Block:
    """A heading, sentences, a table (``columns``; the first of each row is its name) and notes below it."""

    title: str
    text: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    words: int = 1
    """So many columns from the left hold words, the others numbers."""


def blocks(runs: Sequence[SchemeRun]) -> tuple[Block, ...]:
    """All of the comparison."""
    return tuple(block for make in _MAKERS for block in make(runs))


def _ended(runs: Sequence[SchemeRun]) -> Iterator[tuple[SchemeRun, Coordination]]:
    return ((run, run.coordination) for run in runs if run.coordination is not None)


def _cost(runs: Sequence[SchemeRun]) -> Iterator[Block]:
    rows = []
    for run, found in _ended(runs):
        eur = [paid_eur(found, role) for role in ("DSO", "TSO", "BRP")]
        need = found.need
        missing = "nobody balances" if need is None else number(need.short_kwh, "kWh")
        cells = [number(value, "EUR") for value in (*eur, found.cost_eur)]
        rows.append((run.scheme, found.kind, *cells, missing, str(unmet_mtus(found))))
    yield Block(
        "Cost by party, and needs that were not met",
        (),
        ("scheme", "class", "DSO [EUR]", "TSO [EUR]", "BRP [EUR]", "all bids [EUR]", "need not met [kWh]",
         "limits unmet [MTUs]"),
        tuple(rows),
        (
            "What parties pay in all: for bids, and on curves, at the interface and for demand. Transfers between "
            "parties cancel in the cost of all bids.",
            "Need not met: of the system, after all stages. Limits unmet: MTUs in which a stage could not keep all "
            "limits of the feeder for all forecast errors planned for; what happened is below.",
        ),
        2,
    )  # fmt: skip


def _volumes(runs: Sequence[SchemeRun]) -> Iterator[Block]:
    rows = []
    for run, found in _ended(runs):
        bought = found.bought
        kwh = (bought.d_up_kwh, bought.d_down_kwh, bought.t_up_kwh, bought.t_down_kwh)
        rows.append((run.scheme, *(number(value, "kWh") for value in kwh)))
    yield Block(
        "Activated energy",
        (),
        ("scheme", "D up [kWh]", "D down [kWh]", "T up [kWh]", "T down [kWh]"),
        tuple(rows),
        ("D: of the feeder, T: at transmission. Up: less load or more generation. Less what was given back.",),
    )


def _violations(runs: Sequence[SchemeRun]) -> Iterator[Block]:
    rows, without = [], ""
    for run, _ in _ended(runs):
        left = run.left
        if left is None:
            continue
        without = f"Without any activation {left.without_mtus} of {run.mtus} MTUs have violations, the worst "
        without += f"{number(left.without_percent, '%')} % beyond its limit."
        counts = (left.mtus, left.planned, left.unserved, left.unseen, left.unexplained, left.unforeseeable)
        rows.append((run.scheme, *map(str, counts), str(left.worse_mtus), number(left.worst_percent, "%")))
    yield Block(
        "Violations left, by the power flow of OpenDSS",
        (without,) if without else (),
        ("scheme", "MTUs", "left by the plan", "nobody buys", "bought unseen", "unexplained", "not foreseeable",
         "worse than without", "worst [%]"),
        tuple(rows),
        (
            "By the main cause of the worst violation of each MTU. Left by the plan: offers did not suffice, and the "
            "stage says so. Nobody buys: the forecast shows it, and no stage is to keep limits of the feeder. Bought "
            "unseen: by a stage that does not know the network. Not foreseeable: forecast errors beyond their bands, "
            "not delivered, and the like. Worse than without: an element is further beyond its limit than without any "
            "activation.",
        ),
    )  # fmt: skip


def _excluded(runs: Sequence[SchemeRun]) -> Iterator[Block]:
    rows = tuple(
        (run.scheme, each.stage, each.reason, str(each.bids), str(each.mtus), number(each.offered_kwh, "kWh"))
        for run, found in _ended(runs)
        for each in found.excluded
    )
    if rows:
        columns = ("scheme", "stage", "because", "bids", "MTUs", "they offered [kWh]")
        yield Block("Bids left out or cut, and why", (), columns, rows, words=3)


def _messages(runs: Sequence[SchemeRun]) -> Iterator[Block]:
    rows = []
    for run, found in _ended(runs):
        total = sum(each.size_bytes for each in found.traffic)
        operators = sum(e.size_bytes for e in found.traffic if not {e.sender[:3], e.receiver[:3]} & {"AGG", "BRP"})
        count = sum(each.messages for each in found.traffic)
        per_mtu = number(total / max(run.mtus, 1) / 1e3, "kB")
        rows.append((run.scheme, str(count), number(total / 1e6, "MB"), per_mtu, number(operators / 1e6, "MB")))
    yield Block(
        "Messages",
        (),
        ("scheme", "messages", "in all [MB]", "in an MTU [kB]", "between operators [MB]"),
        tuple(rows),
        ("Between operators: DSO, TSO and market operator, without offers and awards.",),
    )


def _sellers(runs: Sequence[SchemeRun]) -> Iterator[Block]:
    names = dict.fromkeys(e.seller for _, found in _ended(runs) for e in found.sellers if e.side == "D")
    rows = []
    for run, found in _ended(runs):
        revenue, above = aggregators_eur(found)
        own = {each.seller: each.revenue_eur for each in found.sellers if each.side == "D"}
        rows.append(
            (run.scheme, *(number(each, "EUR") for each in (*(own.get(n, 0.0) for n in names), revenue, above)))
        )
    yield Block(
        "Aggregators of the feeder",
        (),
        ("scheme", *(f"{name} [EUR]" for name in names), "all [EUR]", "above what they asked [EUR]"),
        tuple(rows),
        ("Paid for bids. Above what they asked is their profit if they ask what it costs them: nothing as long as a "
         "scheme pays as bid. What they earn beyond their cost is then in their prices, which the scenario gives.",),
    )  # fmt: skip


def _transfers(runs: Sequence[SchemeRun]) -> Iterator[Block]:
    rows = tuple(
        (run.scheme, each.stage, each.payer, each.payee, number(each.amount_eur, "EUR"))
        for run, found in _ended(runs)
        for each in found.transfers
    )
    if rows:
        note = "Paid other than for bids: on the curve of an area, for what crosses its interface, and for demand."
        yield Block("Transfers", (), ("scheme", "stage", "from", "to", "[EUR]"), rows, (note,), 4)


def _failed(runs: Sequence[SchemeRun]) -> Iterator[Block]:
    rows = tuple((run.scheme, run.error.splitlines()[0]) for run in runs if run.error)
    if rows:
        yield Block("Schemes that did not reach the end", (), ("scheme", "because"), rows, words=2)


def _shared(runs: Sequence[SchemeRun]) -> Iterator[Block]:
    other = differing(runs)
    same = next((run.shared for run in runs if run.shared and len(run.shared) > 2), {})
    names = ", ".join(name for name in same if name not in other)
    text = f"The same in all runs, bit by bit: {names}." if names else ""
    text += f" NOT THE SAME, so that differences are not the schemes' alone: {', '.join(other)}." if other else ""
    told = (
        "The forecast of the DSO corrects itself by the estimate of the state, which awards change: its random errors "
    )
    told += "are drawn alike, but it may differ a little between runs."
    yield Block("What all runs share", tuple(each for each in (text.strip(), told) if each))


def _priorities(runs: Sequence[SchemeRun]) -> Iterator[Block]:
    by_name = {run.scheme: found for run, found in _ended(runs)}
    if DSO_FIRST in by_name and TSO_FIRST in by_name:
        yield Block("DSO priority and TSO priority", tuple(_compared(by_name[DSO_FIRST], by_name[TSO_FIRST])))


def _compared(dso_first: Coordination, tso_first: Coordination) -> Iterator[str]:
    """Who pays more if the other is first, and why."""
    yield f"{DSO_FIRST}: {dso_first.description}. {TSO_FIRST}: {tso_first.description}."
    alone = [_first_stage_eur(found, "TSO") for found in (dso_first, tso_first)]
    yield (
        f"The first stage of the TSO alone costs {_eur(alone[1])} if it is first, {_eur(alone[0])} if the DSO is: "
        f"{_verdict(alone[1] <= alone[0], 'more')}."
    )
    tso = [paid_eur(found, "TSO") for found in (dso_first, tso_first)]
    missing = [0.0 if found.need is None else found.need.short_kwh for found in (dso_first, tso_first)]
    yield (
        f"With all that it pays to balance again the TSO pays {_eur(tso[1])} against {_eur(tso[0])}, and "
        f"{_kwh(missing[1])} against {_kwh(missing[0])} of the need stay unmet."
    )
    dso, unmet = ([value(found) for found in (dso_first, tso_first)] for value in (_dso_eur, unmet_mtus))
    as_told = dso[1] >= dso[0] or unmet[1] >= unmet[0]
    yield (
        f"The DSO pays {_eur(dso[1])} if it is second, {_eur(dso[0])} if it is first, and limits stay unmet in "
        f"{unmet[1]} against {unmet[0]} MTUs: {_verdict(as_told, 'less')}."
    )
    for name, found, kwh in zip((DSO_FIRST, TSO_FIRST), (dso_first, tso_first), missing, strict=True):
        last = [each for each in found.stages if each.solver == "TSO"][-1]
        if kwh > 0.0 and last.resources == "T":
            yield f"What stays unmet under {name}: its last stage, {last.stage}, has only offers at transmission left."
    yield from _reasons(dso_first, tso_first)


def _reasons(dso_first: Coordination, tso_first: Coordination) -> Iterator[str]:
    ours, theirs = bought_by(dso_first, "DSO"), bought_by(tso_first, "DSO")
    net = ours.d_down_kwh - ours.d_up_kwh
    yield (
        f"What the DSO leaves to the TSO if it is first: it buys {_kwh(ours.d_up_kwh)} up and "
        f"{_kwh(ours.d_down_kwh)} down without looking at the balance. The difference, {_kwh(abs(net))} "
        f"{'less' if net > 0.0 else 'more'} export, comes on top of the need of the TSO{_left_out(dso_first, 'TSO')}."
    )
    fallbacks = sum(each.fell_back for each in tso_first.stages)
    again = _later_stages_eur(tso_first, "TSO")
    yield (
        "What it costs the DSO to be second: it is to leave the interface as the TSO has settled it, so what it buys "
        f"in one direction it buys in the other as well: {_kwh(theirs.d_up_kwh)} up and {_kwh(theirs.d_down_kwh)} down"
        f"{_left_out(tso_first, 'DSO')}. In {fallbacks} MTUs that is not possible and it gives the interface up; "
        f"the TSO then balances again for {_eur(again)}."
    )


def _left_out(found: Coordination, solver: str) -> str:
    stages = {each.stage for each in found.stages if each.solver == solver}
    own = [each for each in found.excluded if each.stage in stages]
    if not own:
        return ""
    offered = sum(each.offered_kwh for each in own)
    return f", and {sum(each.bids for each in own)} bids ({_kwh(offered)}) are out for it: {own[0].reason}"


def _first_stage_eur(found: Coordination, solver: str) -> float:
    return next(each.cost_eur for each in found.stages if each.solver == solver and each.cost_eur)


def _later_stages_eur(found: Coordination, solver: str) -> float:
    return sum(each.cost_eur for each in found.stages if each.solver == solver) - _first_stage_eur(found, solver)


def _dso_eur(found: Coordination) -> float:
    return paid_eur(found, "DSO")


def _verdict(holds: bool, word: str) -> str:
    return f"no {word}, as theory says" if holds else f"{word}, NOT as theory says"


def _eur(value: float) -> str:
    return f"{number(value, 'EUR')} EUR"


def _kwh(value: float) -> str:
    return f"{number(value, 'kWh')} kWh"


def _safety(runs: Sequence[SchemeRun]) -> Iterator[Block]:
    """What the forecast could have shown of violations that purchases made."""
    ended = [(run, found, run.left) for run, found in _ended(runs) if run.left is not None]
    safe = [(run, left) for run, found, left in ended if found.grid_safe and left is not None]
    raw = [(run, left) for run, found, left in ended if not found.grid_safe and left is not None]
    if not safe and not raw:
        return
    guilty = [run.scheme for run, left in safe if left.shown_mtus or left.unseen or left.unexplained]
    text = [
        f"Grid-safe are {len(safe)} schemes: all that buy resources of the feeder know its network, or take what its "
        f"operator has limited. {_none_of(guilty)} a purchase breaks a limit that the forecast shows it to break."
    ]
    shown = [(run, left) for run, left in raw if left.shown_mtus or left.unseen or left.unexplained]
    text.append(
        f"{len(raw)} schemes buy there without knowing the network: {', '.join(run.scheme for run, _ in raw)}. "
        + (
            "Violations that such a purchase makes, or makes worse: "
            + ", ".join(f"{run.scheme} in {max(left.unseen, left.shown_mtus)} MTUs" for run, left in shown)
            + "."
            if shown
            else "In this scenario none of their purchases makes a violation."
        )
    )
    known = [f"{run.scheme} {left.planned}" for run, _, left in ended if left is not None and left.planned]
    if known:
        text.append(
            f"Violations that a stage leaves knowingly, as it may not or cannot buy what would do, in MTUs: "
            f"{', '.join(known)}."
        )
    standing = [f"{run.scheme} {left.unserved}" for run, _, left in ended if left is not None and left.unserved]
    if standing:
        text.append(
            "Violations that were there before and that nobody buys for, which the forecast shows too, in MTUs: "
            f"{', '.join(standing)}."
        )
    yield Block("Grid-safe and raw schemes", tuple(text))


def _none_of(guilty: Sequence[str]) -> str:
    return f"NOT AS IT SHOULD BE, in {', '.join(guilty)}" if guilty else "In none of them"


_MAKERS: Final[tuple[Callable[[Sequence[SchemeRun]], Iterator[Block]], ...]] = (
    _failed, _cost, _volumes, _violations, _priorities, _safety, _excluded, _messages, _sellers, _transfers, _shared,
)  # fmt: skip


def markdown(title: str, lead: Sequence[str], found: Sequence[Block]) -> str:
    """The comparison as a Markdown page."""
    lines = [f"# {title}", "", *(line for text in lead for line in (text, ""))]
    for block in found:
        lines += [f"## {block.title}", "", *(line for text in block.text for line in (text, ""))]
        if block.columns:
            lines.append(f"| {' | '.join(block.columns)} |")
            lines.append(f"|{'|'.join('---' if k < block.words else '---:' for k in range(len(block.columns)))}|")
            lines += [f"| {' | '.join((f'`{row[0]}`', *row[1:]))} |" for row in block.rows]
            lines.append("")
        lines += [line for text in block.notes for line in (text, "")]
    return "\n".join(lines).rstrip() + "\n"


def page(title: str, lead: Sequence[str], found: Sequence[Block], drawings: Sequence[Drawing]) -> str:
    """The comparison as one HTML page that needs nothing but a browser."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["svg"] = Markup
    names = {name: load_scheme(name).description for name in shipped()}
    template = templates.get_template("compare_schemes.html")
    return str(
        template.render(title=title, lead=lead, blocks=found, drawings=drawings, colours=COLOURS, described=names)
    )
