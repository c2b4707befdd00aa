"""Which simulator feeds which: the links of a scenario, as data, without mosaik.

``now``: within the step, in the order that the links give. ``next``: the value reaches its target one step later.
``back``: within the step against that order, so the target steps again (orders that act in the same MTU).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from cosim.coordination import in_run
from cosim.coordination.in_run import buyers, hearers, parties_in_run
from cosim.coordination.scheme import Scheme
from cosim.scenario.schema import Scenario
from cosim.sensing.truth import SOURCES

When = Literal["now", "next", "back"]
LOOP = ("grid", "sensors", "gateway", "estimator", "operator")
"""The simulators that decide within the step when orders act in the same MTU."""
CLASSES = {
    "profiles": "simulators.profiles:Profiles",
    "grid": "simulators.grid:Grid",
    "counterfactual": "simulators.grid:Grid",
    "sensors": "simulators.sensors:Sensors",
    "gateway": "simulators.gateway:Gateway",
    "estimator": "simulators.estimator:Estimator",
    "operator": "simulators.operator:Operator",
    "aggregator": "simulators.aggregator:Aggregator",
    "dso": "simulators.dso:Dso",
    "market": "simulators.market:Market",
    "settlement": "simulators.settlement:Settlement",
    "brp": "simulators.brp:Brp",
    "generators": "simulators.generators:Generators",
    "tso": "simulators.tso:Tso",
    "imo": "simulators.imo:Imo",
    "recorder": "simulators.recorder:Recorder",
}
"""Where each of our own simulators is, as module:class."""
_AREA = "area"  # any name of the feeder: who speaks to whom does not depend on it


@dataclass(frozen=True)
class Port:
    """An attribute of an entity of a simulator."""

    simulator: str
    entity: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.simulator}.{self.entity}.{self.attribute}"


@dataclass(frozen=True)
class Link:
    """One data flow; ``scale`` multiplies a scalar on its way; ``message`` is none before the first, else an array."""

    source: Port
    target: Port
    when: When = "now"
    scale: float = 1.0
    message: bool = False


def simulators_of(scenario: Scenario, scheme: Scheme | None) -> tuple[str, ...]:
    """All simulators of a scenario under a scheme of coordination, but the recorder, which takes from every one of
    them."""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    if scheme is not None:
        parties = parties_in_run(scheme, _AREA)
        before = ("aggregator", *(name for name in ("generators", "brp") if name in parties))
        after = answering(scheme)
    elif scenario.market is not None:
        before, after = ("aggregator",), ("dso", "market")
    settlement = ("settlement",) if scenario.settlement is not None else ()
    return ("profiles", *scenario.simulators, *before, "counterfactual", *LOOP, *after, *settlement)


def answering(scheme: Scheme | None) -> tuple[str, ...]:
    """Simulators that answer each other within a step: the network operator and who else clears stages of a scheme."""
    parties = parties_in_run(scheme, _AREA) if scheme is not None else {}
    return ("dso", *(name for name in in_run.LOOP if name in parties and name != "dso")) if parties else ()


def links_of(scenario: Scenario, scheme: Scheme | None) -> tuple[Link, ...]:
    """All links of a scenario under a scheme of coordination, but those to the recorder."""
    order = Port("operator", "order", "p_kw")
    back: When = "back" if scenario.operator.action == "same" else "next"
    return (
        *(_link("profiles.pod", q, f"{grid}.pod", f"profile_{q}") for grid in _GRIDS for q in ("p_kw", "q_kvar")),
        *_foreign(scenario),
        *(
            _link(f"grid.{model}", a, f"sensors.{model}", f"true_{a}")
            for model, given in SOURCES.items()
            for a in given
        ),
        _link("sensors.outbox", "step", "gateway.inbox", "step"),
        *(_link("gateway.snapshot", a, "estimator.snapshot", a) for a in ("value", "quality")),
        _link("grid.control", "position", "estimator.control", "position"),
        *(_link("estimator.head", a, "operator.head", a) for a in ("p_kw", "idle_p_kw")),
        Link(order, Port("grid", "order", "p_kw"), back),
        Link(order, Port("estimator", "order", "p_kw"), "next"),
        *(_resource_links(scenario) if scenario.market is not None else ()),
        *(_market_links(scenario) if scenario.market is not None and scheme is None else ()),
        *(_scheme_links(scheme) if scheme is not None else ()),
        *(_settlement_links() if scenario.settlement is not None else ()),
    )


def _resource_links(scenario: Scenario) -> Iterator[Link]:
    """Resources act in the grid; the network operator expects what they declare, and what sites draw."""
    estimate = scenario.estimator.method
    for q in ("p_kw", "q_kvar"):
        yield _link("profiles.pod", q, "aggregator.profile", q)
        yield _link("aggregator.pod", q, "grid.pod", f"change_{q}")
        yield _link("aggregator.pod", f"free_{q}", "counterfactual.pod", f"change_{q}")
        for taker in ("estimator", "dso"):
            yield _link("aggregator.pod", f"planned_{q}", f"{taker}.plan", q)
        yield _link(f"estimator.{estimate}", q, "dso.estimate", q)
    yield _link(f"estimator.{estimate}", "sigma_p_kw", "dso.estimate", "sigma_p_kw")
    yield _link("grid.control", "position", "dso.control", "position")
    yield _link("aggregator.declaration", "sessions", "dso.declaration", "sessions")
    if scenario.dso.measures:
        yield Link(Port("dso", "measure", "position"), Port("grid", "measure", "position"), "next")


def _market_links(scenario: Scenario) -> Iterator[Link]:
    """What is offered and asked for in one step is awarded in the next."""
    yield _link("aggregator.book", "sessions", "market.book", "sessions")
    yield _link("dso.request", "situations", "market.request", "situations")
    yield Link(Port("market", "award", "awards"), Port("aggregator", "award", "from_market"), "next", message=True)
    if scenario.dso.measures and scenario.dso.measures_mode == "with":
        yield _link("aggregator.book", "sessions", "dso.book", "sessions")


def _scheme_links(scheme: Scheme) -> Iterator[Link]:
    """Who tells whom something in a scheme: parties that sell or buy when the gate closes, those that clear stages back
    and forth within the step, and awards one step later."""
    parties = parties_in_run(scheme, _AREA)
    order = answering(scheme)
    for sender in parties:
        for hearer in hearers(scheme, sender, parties):
            back = sender in order and order.index(sender) > order.index(hearer)
            box = "inbox" if sender in order else "gate"
            yield Link(
                Port(sender, "mail", f"to_{hearer}"), Port(hearer, box, f"from_{sender}"), "back" if back else "now"
            )
    for seller in (name for name in in_run.SELLERS if name in parties):
        for buyer in buyers(scheme, seller, parties):
            source, target = Port(buyer, "award", f"to_{seller}"), Port(seller, "award", f"from_{buyer}")
            yield Link(source, target, "next", message=True)


def _settlement_links() -> Iterator[Link]:
    """Meters and schedules of all PODs, and what was bought; awards reach it as what their sellers were ordered."""
    yield _link("grid.pod", "p_kw", "settlement.pod", "p_kw")
    yield _link("counterfactual.pod", "p_kw", "settlement.pod", "free_p_kw")
    yield _link("grid.head", "p_kw", "settlement.head", "p_kw")
    yield _link("aggregator.pod", "scheduled_p_kw", "settlement.pod", "scheduled_p_kw")
    for message in ("calls", "readiness"):
        yield _link("aggregator.delivery", message, "settlement.delivery", message)
    suspended = Port("settlement", "suspension", "pods")
    yield Link(suspended, Port("aggregator", "suspension", "pods"), "next", message=True)


_GRIDS = ("grid", "counterfactual")


def _link(source: str, attribute: str, target: str, into: str) -> Link:
    (giver, entity), (taker, place) = source.split("."), target.split(".")
    return Link(Port(giver, entity, attribute), Port(taker, place, into))


def _foreign(scenario: Scenario) -> Iterable[Link]:
    for name, foreign in scenario.simulators.items():
        for link in foreign.links:
            source = Port(name, str(link.entity), link.attribute)
            for grid in _GRIDS:
                yield Link(source, Port(grid, f"foreign_pod:{link.pod}", link.quantity), scale=link.scale)


def as_text(links: Iterable[Link]) -> str:
    """One line a pair of simulators, with the attributes that flow."""
    marks = {"now": "-->", "next": "==>", "back": "<->"}
    flows: dict[tuple[str, str, When], list[str]] = {}
    for link in links:
        key = (link.source.simulator, link.target.simulator, link.when)
        flows.setdefault(key, []).append(f"{link.source.entity}.{link.source.attribute}")
    width = max(len(source) for source, _, _ in flows)
    lines = [f"{s:<{width}} {marks[when]} {t:<14} {', '.join(a)}" for (s, t, when), a in flows.items()]
    return "\n".join([*lines, "", "--> within the step   ==> one step later   <-> back within the step"])


def as_mermaid(links: Iterable[Link]) -> str:
    """A Mermaid flow chart of the simulators."""
    arrows = {"now": "-->", "next": "-.->", "back": "==>"}
    flows: dict[tuple[str, str, When], set[str]] = {}
    for link in links:
        flows.setdefault((link.source.simulator, link.target.simulator, link.when), set()).add(link.source.entity)
    lines = [f'    {s} {arrows[when]}|"{", ".join(sorted(e))}"| {t}' for (s, t, when), e in flows.items()]
    return "\n".join(["flowchart LR", *lines])
