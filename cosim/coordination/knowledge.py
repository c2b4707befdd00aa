"""What a party knows of its own, what messages have told it, and what follows from both when a stage begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from cosim.coordination.case import Area
from cosim.coordination.flows import GATE, outcome_type
from cosim.coordination.grid import Grid, area_of
from cosim.coordination.messages import (
    Body,
    Curves,
    Lights,
    Message,
    MessageType,
    Needed,
    NetworkModel,
    Offered,
    OperatingData,
    Quantities,
    Terms,
    role_of,
)
from cosim.coordination.outcome import StageOutcome
from cosim.coordination.scheme import Commodity, Scheme, Stage
from cosim.coordination.situation import SMALL_KW, Situation, Taken
from cosim.coordination.telling import SYSTEM, Own, body_of
from cosim.coordination.topology import NO_MATRIX, check_version
from cosim.coordination.traffic_light import Light
from cosim.domain.market import Bid, Need, Resource

MailKey = tuple[MessageType, str, str]
"""Type, stage and sender: a newer message of the same takes its place."""
_CAPPED_BY: Final[Mapping[str, MessageType]] = {"caps": "BID_CAP", "validated": "VALIDATION"}


@dataclass(frozen=True)
class Knowledge:
    """Of one party: what it knows of its own, its mail, and the latest outcome of each stage that it has cleared."""

    scheme: Scheme
    own: Own
    mail: Mapping[MailKey, Message] = field(default_factory=dict)
    outcomes: Mapping[str, StageOutcome] = field(default_factory=dict)

    def situation(self, name: str) -> Situation:
        """What it knows when a stage begins. Raises BidError if limits are for another version of the topology."""
        stage, own = self.scheme.stages[name], self.own
        transmission, interfaces, areas = self._networks()
        bids, resources = self.offers
        awards = _Awards(stage.knows_distribution, self._agreed(name))
        for before in self.cleared_before(name):
            self._add_own(awards, before)
        for used in self._used_by(name):
            for kind, body in self.heard(stage, used):
                awards.add(kind, body, used)
        curves = tuple(self._bodies(stage, Curves, "curves"))
        for curve in curves:
            awards.move(curve.commodity, curve.area, curve.base_kw)
        return Situation(
            t_s=own.t_s,
            mtu_s=own.mtu_s,
            rules=own.rules,
            transmission=transmission,
            areas=areas if stage.knows_distribution else {},
            interfaces=interfaces,
            bids=bids,
            resources=resources,
            need_kw=self._need_kw() if "TSO" in stage.buyers else 0.0,
            demands=self._demands(),
            schedule_kw=self._terms("IFACE_SCHEDULE", own.schedule_kw),
            price_eur_per_kwh=self._terms("IFACE_PRICE", own.price_eur_per_kwh),
            locked=awards.locked,
            used=awards.used,
            export_kw=awards.export["P"],
            export_kvar=awards.export["Q"],
            taken=awards.taken(bids),
            caps=self._caps(name),
            lights=self._lights(stage),
            picked=self._picked(stage),
            listed=self._listed() if stage.prequalified else None,
            curves=curves,
            target_kw=self._targets(stage, "P"),
            target_kvar=self._targets(stage, "Q"),
        )

    def heard(self, stage: Stage, used: str) -> Iterator[tuple[MessageType, Body]]:
        """The outcome of a stage that ``stage`` uses, as told by others, or as the party would tell it itself."""
        source = self.scheme.stages[used]
        kind = outcome_type(source, stage)
        if source.solver != stage.solver:
            yield from ((kind, m.body) for (k, at, _), m in sorted(self.mail.items()) if (k, at) == (kind, used))
        elif used in self.outcomes and kind not in ("RESULT", "IFACE_SCHEDULE"):
            yield kind, body_of(kind, self.outcomes[used], topology_version=self.own.matrix_version)

    def cleared_before(self, name: str) -> Iterator[str]:
        """Stages that it has cleared itself before this one, whose awards bind."""
        place = self.scheme.position
        for before, stage in self.scheme.stages.items():
            if before in self.outcomes and place[before] < place[name] and stage.awards and stage.lock:
                yield before

    def _used_by(self, name: str) -> tuple[str, ...]:
        """All stages whose outcome it has taken in by now, for this stage or for its own before."""
        place, own = self.scheme.position, self.scheme.stages[name].solver
        stages = [s for n, s in self.scheme.stages.items() if s.solver == own and place[n] <= place[name]]
        return tuple(dict.fromkeys(used for stage in stages for used in stage.uses))

    def _add_own(self, awards: _Awards, before: str) -> None:
        outcome, stage = self.outcomes[before], self.scheme.stages[before]
        for bid, bought in outcome.bought.items():
            awards.own(bid, bought.kw, before)
        for curve in self._bodies(stage, Curves, "curves"):
            awards.move(curve.commodity, curve.area, curve.base_kw + outcome.on_curve.get(curve.area, (0.0, 0.0))[0])

    def _agreed(self, name: str) -> dict[str, float]:
        """Change of the export of areas that was agreed at the gate, unless they tell what they did."""
        stage = self.scheme.stages[name]
        agreed = self._terms("IFACE_SCHEDULE", {}) if stage.joint else {}
        for used in self._used_by(name):
            for kind, body in self.heard(stage, used):
                if kind == "IFACE_SCHEDULE" and isinstance(body, Terms):
                    agreed = {area: kw for area, kw in agreed.items() if area not in body.of_area}
        return agreed

    def _bodies(self, stage: Stage, kind: type[Body], entries: str) -> Iterator[Any]:
        """All entries of what ``stage`` uses in bodies of one kind."""
        for used in stage.uses:
            for _, body in self.heard(stage, used):
                if isinstance(body, kind):
                    yield from getattr(body, entries)

    def _at_the_gate(self, kind: MessageType) -> Sequence[Message]:
        return self._of_the_gate.get(kind, ())

    @cached_property
    def _of_the_gate(self) -> Mapping[MessageType, Sequence[Message]]:
        """What was said at the gate by type, in the order of senders."""
        found: dict[MessageType, list[Message]] = {}
        for kind, _, sender in sorted(key for key in self.mail if key[1] == GATE):
            found.setdefault(kind, []).append(self.mail[kind, GATE, sender])
        return found

    def _networks(self) -> tuple[Grid | None, Mapping[str, str], Mapping[str, Area]]:
        transmission, interfaces, areas = self.own.transmission, dict(self.own.interfaces), dict(self.own.areas)
        operating = {m.body.area: m.body for m in self._at_the_gate("OPER_DATA") if isinstance(m.body, OperatingData)}
        for message in self._at_the_gate("NETWORK_MODEL"):
            model = message.body
            if not isinstance(model, NetworkModel) or model.area not in operating:
                continue
            if model.area:
                areas[model.area] = Area(model.area, model.bus, operated(model, operating[model.area]), NO_MATRIX)
            else:
                transmission, interfaces = operated(model, operating[""]), dict(model.interfaces)
        return transmission, interfaces, areas

    @cached_property
    def offers(self) -> tuple[tuple[Bid, ...], Mapping[str, Resource]]:
        """All bids that it has or got, and the resources of which it knows."""
        bids, resources = list(self.own.bids), dict(self.own.resources)
        for message in self._at_the_gate("BID"):
            if isinstance(message.body, Offered):
                bids += message.body.bids
                resources |= {unit.id: unit for unit in message.body.resources}
        return tuple(bids), resources

    def _need_kw(self) -> float:
        told = [m.body for m in self._at_the_gate("NEED") if role_of(m.sender) == "TSO"]
        return self.own.need_kw + sum(body.quantity[SYSTEM] for body in told if isinstance(body, Needed))

    def _demands(self) -> tuple[Need, ...]:
        told = [m.body for m in self._at_the_gate("NEED") if role_of(m.sender) == "BRP"]
        return tuple(need for body in told if isinstance(body, Needed) for need in body.demands)

    def _terms(self, kind: MessageType, own: Mapping[str, float]) -> dict[str, float]:
        told = [message.body for message in self._at_the_gate(kind)]
        return {**own, **{a: value for body in told if isinstance(body, Terms) for a, value in body.of_area.items()}}

    def _listed(self) -> dict[str, Resource]:
        told = [message.body for message in self._at_the_gate("RESOURCE_LIST")]
        at_transmission = {k: unit for k, unit in self.offers[1].items() if not area_of(unit.pod)}
        return at_transmission | {
            unit.id: unit for body in told if isinstance(body, Offered) for unit in body.resources
        }

    def _caps(self, name: str) -> dict[str, float]:
        """What others found safe, and what a validation has cut before."""
        stage, caps = self.scheme.stages[name], dict[str, float]()
        if stage.objective == "validate":
            return dict(self.outcomes[name].caps) if name in self.outcomes else caps
        for used in stage.uses:
            for kind, body in self.heard(stage, used):
                if kind == _CAPPED_BY.get(stage.admit) and isinstance(body, Quantities):
                    caps |= body.kw
        return caps

    def _lights(self, stage: Stage) -> tuple[Light, ...]:
        lights: list[Light] = []
        for used in stage.uses:
            for _, body in self.heard(stage, used):
                if isinstance(body, Lights) and stage.admit == "caps":
                    check_version(self.own.matrix_version, body.topology_version, body.area)
                    lights += body.lights
        return tuple(lights)

    def _picked(self, stage: Stage) -> dict[str, float] | None:
        picked: dict[str, float] | None = None
        for used in stage.uses:
            for kind, body in self.heard(stage, used):
                if kind == "PICKED_SET" and isinstance(body, Quantities):
                    picked = {**(picked or {}), **body.kw}
        return picked

    def _targets(self, stage: Stage, commodity: Commodity) -> dict[str, float]:
        """Where stages that bought on curves want the interfaces: a change from the base of the curve told to them."""
        targets: dict[str, float] = {}
        for used in stage.uses:
            if self.scheme.stages[used].commodity != commodity:
                continue
            for kind, body in self.heard(stage, used):
                if kind == "AWARD" and isinstance(body, Quantities):
                    targets |= {area: self._base(area, commodity) + kw for area, kw in body.export_kw.items()}
        return targets

    def _base(self, area: str, commodity: Commodity) -> float:
        curves = [curve for outcome in self.outcomes.values() for curve in outcome.curves]
        return next((c.base_kw for c in reversed(curves) if (c.area, c.commodity) == (area, commodity)), 0.0)


@dataclass
class _Awards:
    """Awards of earlier stages as they are gone through. ``in_model``: those of others count in the solver's own
    network, and otherwise as what they change at the interface."""

    in_model: bool
    agreed: dict[str, float]
    locked: dict[str, float] = field(default_factory=dict)
    used: dict[str, float] = field(default_factory=dict)
    by_stage: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.export: dict[str, dict[str, float]] = {"P": dict(self.agreed), "Q": {}}

    def own(self, bid: str, kw: float, stage: str) -> None:
        self.locked[bid] = self.locked.get(bid, 0.0) + kw
        self.by_stage.append((bid, stage))

    def add(self, kind: MessageType, body: Body, stage: str) -> None:
        """The awards that another party tells of."""
        if kind == "RESULT" and isinstance(body, Quantities):
            where = self.locked if self.in_model else self.used
            for bid, kw in body.kw.items():
                where[bid] = where.get(bid, 0.0) + kw
                self.by_stage.append((bid, stage))
            for area, kw in body.export_kw.items():
                self.move("P", area, 0.0 if self.in_model else kw)
        elif kind == "IFACE_SCHEDULE" and isinstance(body, Terms):
            for area, kw in body.of_area.items():
                self.move("P", area, kw)

    def move(self, commodity: Commodity, area: str, kw: float) -> None:
        self.export[commodity][area] = self.export[commodity].get(area, 0.0) + kw

    def taken(self, bids: Sequence[Bid]) -> dict[str, tuple[Taken, ...]]:
        """By resource. What was given back altogether is not taken."""
        known, found = {bid.id: bid for bid in bids}, dict[str, list[Taken]]()
        for bid, stage in self.by_stage:
            if bid in known and self.locked.get(bid, 0.0) + self.used.get(bid, 0.0) > SMALL_KW:
                for name in known[bid].members:
                    found.setdefault(name, []).append(Taken(stage, known[bid].direction, bid in self.locked))
        return {name: tuple(awards) for name, awards in found.items()}


def operated(model: NetworkModel, state: OperatingData) -> Grid:
    """A model at a state of operation."""
    rows = replace(model.grid.rows, p_kw=state.p_kw, q_kvar=state.q_kvar, base=state.base)
    return replace(model.grid, rows=rows, uncertainty=state.uncertainty)
