"""Measures of the grid's operator: taps, capacitor steps and switches that no automatic control moves.

A position is a whole number, and a move the step from one to the next. With the powers and the positions of automatic
controls the positions of measures determine the state of the grid.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cosim.errors import Fault, FeederError
from cosim.grid.controls import put_capacitor, put_tap, read_capacitor
from cosim.grid.feeder import Feeder, canonical_branch
from cosim.grid.script import shown
from cosim.grid.switching import Switching, read_switching, switching

Positions = Mapping[str, int]
"""Where measures are, by name."""

_TAP_PU = 1e-6  # between the tap of a script and that of a position
_ENDS = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Measure(ABC):
    """Something that the operator may move by hand: an OpenDSS ``element``, at ``eur_per_move``, and not more than
    ``moves_per_day`` times if given."""

    kind: ClassVar[str]
    name: str
    element: str
    eur_per_move: float = 0.0
    moves_per_day: int | None = None

    @property
    @abstractmethod
    def positions(self) -> range:
        """All that it can be put to."""


@dataclass(frozen=True, kw_only=True)
class TapMeasure(Measure):
    """The tap of a transformer's winding: 1 + n ``step_pu`` at position n, ``low`` to ``high``."""

    kind: ClassVar[str] = "transformer"
    low: int
    high: int
    step_pu: float
    winding: int = 1

    @property
    def positions(self) -> range:
        return range(self.low, self.high + 1)


@dataclass(frozen=True, kw_only=True)
class CapacitorMeasure(Measure):
    """A shunt capacitor: the first n of its steps are in service at position n, ``low`` to ``high``."""

    kind: ClassVar[str] = "capacitor"
    low: int = 0
    high: int

    @property
    def positions(self) -> range:
        return range(self.low, self.high + 1)


@dataclass(frozen=True, kw_only=True)
class SwitchMeasure(Measure):
    """A line that is open at both ends at position 0 and closed at 1, where it is part of a loop only if it
    ``may_loop``. One that the script puts out of service is open."""

    kind: ClassVar[str] = "line"
    may_loop: bool = False

    @property
    def positions(self) -> range:
        return range(2)


def moves_of(measures: Sequence[Measure], start: Positions, then: Positions) -> dict[str, int]:
    """Number of moves from the positions ``start`` to ``then``, of the measures that move."""
    moves = {measure.name: abs(then[measure.name] - start[measure.name]) for measure in measures}
    return {name: n for name, n in moves.items() if n}


def moves_eur(measures: Sequence[Measure], start: Positions, then: Positions) -> float:
    """Cost of the moves from the positions ``start`` to ``then`` [EUR]."""
    moves = moves_of(measures, start, then)
    return math.fsum(measure.eur_per_move * moves.get(measure.name, 0) for measure in measures)


class GridMeasures:
    """The measures of one compiled circuit, which begin where its script has them.

    ``positions`` are the present ones; ``switches`` are the lines among the measures as `canonical_branch`, all in
    service from now on; ``moved`` tells whether a position may differ from those of the system matrix.

    Raises FeederError with all that is wrong with the measures.
    """

    def __init__(self, circuit: Any, feeder: Feeder, measures: Sequence[Measure]) -> None:
        self.measures, self._feeder = tuple(measures), feeder
        faults = {k: list(_faults(circuit, feeder, measures, k)) for k in range(len(measures))}
        sound = [measure for k, measure in enumerate(measures) if not faults[k]]
        self._movers = {measure.name: _mover(circuit, measure) for measure in sound}
        lines = [measure for measure in sound if isinstance(measure, SwitchMeasure)]
        self.switches = tuple(canonical_branch(measure.element) for measure in lines)
        self.positions: Positions = {name: mover.start for name, mover in self._movers.items()}
        self.moved = False
        self._switching = switching((), (), (), {})
        if lines:
            may_loop = [measure.name for measure in lines if measure.may_loop]
            self._switching = read_switching(circuit, {m.name: m.element for m in lines}, may_loop)
        together = list(_switch_faults(feeder, self._switching, lines, self.positions))
        if any(faults.values()) or together:
            raise FeederError([*(fault for of_one in faults.values() for fault in of_one), *together])
        for mover in self._movers.values():
            mover.put(mover.start)

    def set(self, positions: Positions) -> None:
        """Puts all measures to ``positions``; raises FeederError with all that forbids it."""
        if faults := list(self._position_faults(positions)):
            raise FeederError(faults)
        for name, position in positions.items():
            if position != self.positions[name]:
                self._movers[name].put(position)
                self.moved = True
        self.positions = dict(positions)

    def allows(self, positions: Positions) -> bool:
        """Whether `set` takes these positions."""
        return next(self._position_faults(positions), None) is None

    def _position_faults(self, positions: Positions) -> Iterator[Fault]:
        known = {measure.name: measure for measure in self.measures}
        for name in sorted(positions.keys() - known.keys()):
            yield self._feeder.fault(f"measures.{name}", "no such measure", name, shown(list(known)) or "none declared")
        for name, measure in known.items():
            if name not in positions:
                yield self._feeder.fault(f"measures.{name}", "a position is missing")
            elif positions[name] not in measure.positions:
                allowed = f"{measure.positions[0]} to {measure.positions[-1]}"
                yield self._feeder.fault(f"measures.{name}", "no such position", str(positions[name]), allowed)
        closed = [name for name in self._switching.ends if positions.get(name, self.positions[name])]
        if cut_off := self._switching.cut_off(closed):
            is_open = shown([name for name in self._switching.ends if name not in closed])
            yield self._feeder.fault("measures", f"buses cut off with the switches {is_open} open", shown(cut_off))
        for name in self._switching.looped(closed):
            problem = f"part of a loop with the switches {shown(closed)} closed"
            yield self._feeder.fault(f"measures.{name}", problem, allowed="may_loop: true")


class _TapMover:
    """Puts a tap to positions; exactly to the script's at that of the script."""

    def __init__(self, circuit: Any, measure: TapMeasure) -> None:
        self._circuit, self._measure = circuit, measure
        self._transformer = _bare(measure)
        self._tap_pu = float(_winding(circuit, measure).Tap)
        self.start = round((self._tap_pu - 1.0) / measure.step_pu)

    def put(self, position: int) -> None:
        tap_pu = self._tap_pu + (position - self.start) * self._measure.step_pu
        put_tap(self._circuit, self._transformer, self._measure.winding, tap_pu)


class _CapacitorMover:
    def __init__(self, circuit: Any, measure: CapacitorMeasure) -> None:
        self._circuit, self._capacitor = circuit, _bare(measure)
        is_open, states = read_capacitor(circuit, self._capacitor)
        self._n_step = len(states)
        self.start = 0 if is_open else sum(states)

    def put(self, position: int) -> None:
        states = [int(step < position) for step in range(self._n_step)]
        put_capacitor(self._circuit, self._capacitor, position == 0, states)


class _SwitchMover:
    def __init__(self, circuit: Any, measure: SwitchMeasure) -> None:
        self._circuit, self._line = circuit, measure.element
        circuit.SetActiveElement(measure.element)
        line = circuit.ActiveCktElement
        self.start = int(line.Enabled and not any(line.IsOpen(end, 0) for end in _ENDS))
        line.Enabled = True
        self.put(self.start)

    def put(self, position: int) -> None:
        self._circuit.SetActiveElement(self._line)
        line = self._circuit.ActiveCktElement
        for end in _ENDS:
            (line.Close if position else line.Open)(end, 0)


def _mover(circuit: Any, measure: Measure) -> _TapMover | _CapacitorMover | _SwitchMover:
    if isinstance(measure, TapMeasure):
        return _TapMover(circuit, measure)
    if isinstance(measure, CapacitorMeasure):
        return _CapacitorMover(circuit, measure)
    assert isinstance(measure, SwitchMeasure)
    return _SwitchMover(circuit, measure)


def _bare(measure: Measure) -> str:
    return measure.element.partition(".")[2]


def _winding(circuit: Any, measure: TapMeasure) -> Any:
    """OpenDSS's transformers, with that winding active."""
    transformers = circuit.Transformers
    transformers.Name = _bare(measure)
    transformers.Wdg = measure.winding
    return transformers


def _switch_faults(
    feeder: Feeder, of: Switching, switches: Sequence[SwitchMeasure], start: Positions
) -> Iterator[Fault]:
    """Switches that cannot be opened whatever the others do, or not be closed, and a script that has them so."""
    names, looped = [switch.name for switch in switches], set()
    for switch in switches:
        if cut_off := of.cut_off([name for name in names if name != switch.name]):
            problem = f"opening {switch.element} would cut off buses"
            yield feeder.fault(f"measures.{switch.name}.element", problem, shown(cut_off))
        if of.looped([switch.name]):
            looped.add(switch.name)
            problem = f"closing {switch.element} would close a loop"
            yield feeder.fault(f"measures.{switch.name}.may_loop", problem, "false", "true")
    closed = [name for name in names if start[name]]
    if cut_off := of.cut_off(closed):
        problem = "buses cut off while the switches are as the script has them"
        yield feeder.fault("measures", problem, shown(cut_off))
    for name in of.looped(closed):
        if name not in looped:
            problem = "the script closes it as part of a loop"
            yield feeder.fault(f"measures.{name}.may_loop", problem, "false", "true")


def _faults(circuit: Any, feeder: Feeder, measures: Sequence[Measure], k: int) -> Iterator[Fault]:
    """All that is wrong with measure ``k``, apart from what switches do together."""
    measure, found = measures[k], False
    for field, problem, value, allowed in (*_record_faults(measure), *_claim_faults(measures, k)):
        found = True
        yield feeder.fault(f"measures.{measure.name}.{field}", problem, value, allowed)
    if not found:
        for field, problem, value, allowed in _element_faults(circuit, measure):
            yield feeder.fault(f"measures.{measure.name}.{field}", problem, value, allowed)


_Finding = tuple[str, str, str, str]
"""Field of a measure, problem, value, what is allowed."""


def _record_faults(measure: Measure) -> Iterator[_Finding]:
    if not 0.0 <= measure.eur_per_move < math.inf:
        yield "eur_per_move", "must be 0 or more", f"{measure.eur_per_move:g}", ""
    if measure.moves_per_day is not None and measure.moves_per_day < 0:
        yield "moves_per_day", "must be 0 or more", str(measure.moves_per_day), ""
    if not measure.positions:
        yield "high", "must not be below low", f"{measure.positions.stop - 1}", f"{measure.positions.start} or more"
    if isinstance(measure, TapMeasure) and not 0.0 < measure.step_pu < math.inf:
        yield "step_pu", "must be above 0", f"{measure.step_pu:g}", ""


def _claim_faults(measures: Sequence[Measure], k: int) -> Iterator[_Finding]:
    """What an earlier measure has taken: a name, an element."""
    measure = measures[k]
    if any(earlier.name == measure.name for earlier in measures[:k]):
        yield "name", "another measure has this name", measure.name, ""
    for earlier in measures[:k]:
        if _place(earlier) == _place(measure):
            yield "element", f"the element already belongs to measure {earlier.name}", measure.element, ""


def _place(measure: Measure) -> tuple[str, int]:
    return measure.element.lower(), measure.winding if isinstance(measure, TapMeasure) else 0


def _element_faults(circuit: Any, measure: Measure) -> Iterator[_Finding]:
    names = {str(name).lower(): str(name) for name in circuit.AllElementNames}
    fitting = shown([written for name, written in names.items() if name.partition(".")[0] == measure.kind])
    element = measure.element.lower()
    control = _controls(circuit).get(element)
    if element not in names:
        yield "element", "no such element", measure.element, fitting
    elif element.partition(".")[0] != measure.kind:
        yield "element", f"not an element for a {type(measure).__name__}", measure.element, fitting
    elif control is not None:
        yield "element", f"{measure.element} is under automatic control by {control}", "", "elements without a control"
    elif circuit.SetActiveElement(element) < 0 or not (circuit.ActiveCktElement.Enabled or measure.kind == "line"):
        yield "element", f"{measure.element} is out of service", "", "enabled=yes in the script"
    elif isinstance(measure, TapMeasure):
        yield from _tap_faults(circuit, measure)
    elif isinstance(measure, CapacitorMeasure):
        yield from _capacitor_faults(circuit, measure)


def _controls(circuit: Any) -> dict[str, str]:
    """The automatic control of each element that has one, full name in lower case."""
    taps = {f"transformer.{control.Transformer}": f"RegControl.{control.Name}" for control in circuit.RegControls}
    steps = {f"capacitor.{control.Capacitor}": f"CapControl.{control.Name}" for control in circuit.CapControls}
    lines = {str(control.SwitchedObj): f"SwtControl.{control.Name}" for control in circuit.SwtControls}
    return {element.lower(): control for element, control in (taps | steps | lines).items()}


def _tap_faults(circuit: Any, measure: TapMeasure) -> Iterator[_Finding]:
    transformers = circuit.Transformers
    transformers.Name = _bare(measure)
    if not 1 <= measure.winding <= transformers.NumWindings:
        yield "winding", "no such winding", str(measure.winding), f"1 to {transformers.NumWindings}"
        return
    transformers = _winding(circuit, measure)
    least, most, tap_pu = transformers.MinTap, transformers.MaxTap, transformers.Tap
    for field, position in (("low", measure.low), ("high", measure.high)):
        at_pu = 1.0 + position * measure.step_pu
        if not least - _TAP_PU <= at_pu <= most + _TAP_PU:
            problem = f"position {position} is out of the winding's range"
            yield field, problem, f"{at_pu:g} pu", f"{least:g} to {most:g} pu"
    nearest = round((tap_pu - 1.0) / measure.step_pu)
    if nearest not in measure.positions or abs(1.0 + nearest * measure.step_pu - tap_pu) > _TAP_PU:
        allowed = f"1 + n * {measure.step_pu:g} pu, n from {measure.low} to {measure.high}"
        yield "element", f"the script puts {measure.element} to none of the positions", f"{tap_pu:g} pu", allowed


def _capacitor_faults(circuit: Any, measure: CapacitorMeasure) -> Iterator[_Finding]:
    is_open, states = read_capacitor(circuit, _bare(measure))
    buses = {str(bus).partition(".")[0].lower() for bus in circuit.ActiveCktElement.BusNames}
    if len(buses) > 1:
        yield "element", f"{measure.element} lies in series between buses", "", "shunt capacitors"
    for field, position in (("low", measure.low), ("high", measure.high)):
        if not 0 <= position <= len(states):
            yield field, "no such number of steps", str(position), f"0 to {len(states)}"
    position = 0 if is_open else sum(states)
    if position not in measure.positions or (not is_open and sum(states[:position]) != position):
        allowed = f"the first n steps in service, n from {measure.low} to {measure.high}"
        value = "open" if is_open else f"states={states}"
        yield "element", f"the script puts {measure.element} to none of the positions", value, allowed
