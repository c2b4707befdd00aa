"""The grid: PODs' powers and storage orders in, true state out. Also the counterfactual, which gets no orders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from mosaik_api_v3.types import CreateResult, Meta

from cosim.domain.frames import HEAD_SIGN, PASSIVE_SIGN, Floats, Signal, frozen
from cosim.domain.grid import GridState
from cosim.errors import PowerFlowError
from cosim.flexibility.storage import feasible_kw
from cosim.flexibility.thresholds import after
from cosim.grid.limits import VIOLATIONS, Limits
from cosim.sensing.truth import metered_conductors
from simulators._base import Adapter, Inputs, Output

_POSITION = "tap [pu], share of capacitor steps, position of a measure"


@dataclass(frozen=True)
class GridMemory:
    """``e_kwh`` (n_storage,) at the beginning of the step at ``t_s``, in which storage ran at ``p_kw`` (n_storage,);
    ``controls`` are the positions of taps, capacitors and switches; ``foreign`` the latest values of foreign
    simulators, by quantity and POD."""

    t_s: int
    e_kwh: Floats
    p_kw: Floats
    controls: dict[str, Any]
    foreign: dict[str, dict[str, float]]


class Grid(Adapter):
    """Models ``bus``, ``terminal``, ``conductor`` (those metered), ``branch``, ``pod``, ``storage``, ``head``,
    ``control``, ``solution``; table of violated limits.

    Where orders act in the same MTU, ``order`` triggers: an order that arrives in the step it is for makes the grid
    solve that step again. A foreign simulator replaces a POD's power through an entity of ``foreign_pod``, from its
    first value on.
    """

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {
        "pod": ("profile_p_kw", "profile_q_kvar", "change_p_kw", "change_q_kvar"),
        "order": ("p_kw",),
        "measure": ("position",),
    }

    def init(self, sid: str, time_resolution: float = 1.0, **sim_params: Any) -> Meta:
        super().init(sid, time_resolution, **sim_params)
        models = self.meta["models"]
        models["foreign_pod"] = {"public": True, "params": ["pod"], "attrs": ["p_kw", "q_kvar"]}
        return self.meta

    def create(self, num: int, model: str, **model_params: Any) -> list[CreateResult]:
        if model == "foreign_pod":
            return [{"eid": f"foreign_pod:{model_params['pod']}", "type": model}]
        return super().create(num, model)

    def build(self) -> dict[str, tuple[Output, ...]]:
        case = self.case
        self.answers = ("order",) if case.scenario.operator.action == "same" else ()
        self._engine = case.engines.take()
        self._limits = Limits(case.layout, case.scenario.limits, case.feeder.head_terminal)
        metered = metered_conductors(case.sensor_model.channels)
        self._metered = np.array([case.layout.conductors.index(name) for name in metered], dtype=np.int64)
        self._storage_at = [case.pods.index(unit.pod) for unit in case.storage]
        idle = frozen(np.zeros(len(case.storage)))
        self.memory = GridMemory(0, case.initial_kwh, idle, self._engine.controls(), {"p_kw": {}, "q_kvar": {}})
        layout, units = case.layout, tuple(unit.pod for unit in case.storage)
        feeder = (case.feeder.name,)
        return {
            "bus": (
                Signal("vm_pu", "pu", "voltage magnitude", "node", layout.nodes),
                Signal("va_deg", "degree", "voltage angle", "node", layout.nodes),
            ),
            "terminal": (
                Signal("p_kw", "kW", "active power from the bus into the branch", "terminal", layout.terminals),
                Signal("q_kvar", "kvar", "reactive power from the bus into the branch", "terminal", layout.terminals),
                Signal("i_a", "A", "current of the highest-loaded phase", "terminal", layout.terminals),
            ),
            "conductor": (
                Signal("p_kw", "kW", "active power from the bus into the branch", "conductor", metered),
                Signal("q_kvar", "kvar", "reactive power from the bus into the branch", "conductor", metered),
                Signal("i_a", "A", "current", "conductor", metered),
            ),
            "branch": (Signal("loading_pu", "pu", "current over rated current", "branch", layout.branches),),
            "pod": (
                Signal("p_kw", "kW", "active power drawn, storage included", "pod", case.pods, PASSIVE_SIGN),
                Signal("q_kvar", "kvar", "reactive power drawn", "pod", case.pods, PASSIVE_SIGN),
            ),
            "storage": (
                Signal("p_kw", "kW", "storage power", "storage", units, "charging > 0, discharging < 0"),
                Signal("e_kwh", "kWh", "stored energy at the beginning of the step", "storage", units),
            ),
            "head": (
                Signal("p_kw", "kW", "active power at the head", "feeder", feeder, HEAD_SIGN),
                Signal("q_kvar", "kvar", "reactive power at the head", "feeder", feeder, HEAD_SIGN),
                Signal("loss_kw", "kW", "losses of the whole circuit", "feeder", feeder),
            ),
            "control": (Signal("position", "1", _POSITION, "control", self._engine.control_names),),
            "solution": (
                VIOLATIONS,
                Signal("converged", "1", "power flow converged", "feeder", feeder, codes=("diverged", "converged")),
                Signal("iterations", "1", "iterations of the power flow", "feeder", feeder),
            ),
        }

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        wanted = self._wanted_kw(t_s, inputs)
        self._book_energy(t_s)
        step_s, e_kwh = self.case.clock.step_s, self.memory.e_kwh
        p_storage = frozen([feasible_kw(u, wanted[k], e_kwh[k], step_s) for k, u in enumerate(self.case.storage)])
        p_kw, q_kvar = self._pod_powers(inputs, p_storage)
        self._put_measures(inputs)
        state = self._solve(t_s, p_kw, q_kvar)
        controls = self._engine.controls()
        self.memory = replace(self.memory, p_kw=p_storage, controls=controls)
        return _outputs(state) | {
            ("conductor", "p_kw"): frozen(state.conductor_p_kw[self._metered]),
            ("conductor", "q_kvar"): frozen(state.conductor_q_kvar[self._metered]),
            ("conductor", "i_a"): frozen(state.conductor_i_a[self._metered]),
            ("control", "position"): self._engine.control_values(controls),
            ("solution", VIOLATIONS.name): [violation.row(t_s) for violation in self._limits.violations(state)],
            ("storage", "p_kw"): p_storage,
            ("storage", "e_kwh"): e_kwh,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self._engine.restore_controls(self.memory.controls)

    def close(self) -> None:
        self.case.engines.give_back(self._engine)

    def _wanted_kw(self, t_s: int, inputs: Inputs) -> Floats:
        """The order in force; none before the first one. Where orders act in the same MTU, the first solve in an MTU is
        the state on which the order for it is decided: that of the MTU before has ended."""
        ordered = inputs.get(("order", "p_kw"))
        at_once = self.case.scenario.operator.action == "same"
        ended = at_once and t_s > self.memory.t_s and self.case.clock.begins_mtu(t_s)
        return frozen(np.zeros(len(self.case.storage))) if ordered is None or ended else ordered

    def _put_measures(self, inputs: Inputs) -> None:
        """The operator's measures go where they are ordered to be; without orders they stay."""
        ordered = inputs.get(("measure", "position"))
        positions = self._engine.measure_positions() if ordered is None else self.case.positions(ordered)
        if positions != self._engine.measure_positions():
            self._engine.set_measures(positions)

    def _book_energy(self, t_s: int) -> None:
        """Moves the stored energy to ``t_s``; solving a step again books nothing."""
        passed_s = t_s - self.memory.t_s
        if passed_s > 0:
            held = self.case.storage
            e_kwh = after(held, self.memory.p_kw, self.memory.e_kwh, passed_s) if held else self.memory.e_kwh
            self.memory = replace(self.memory, t_s=t_s, e_kwh=frozen(e_kwh))

    def _pod_powers(self, inputs: Inputs, p_storage: Floats) -> tuple[Floats, Floats]:
        """Powers by profile, by order, by foreign simulators, whose values hold until the next ones, and what flexible
        resources add."""
        foreign = {quantity: dict(held) for quantity, held in self.memory.foreign.items()}
        for (entity, attribute), value in inputs.items():
            kind, _, pod = entity.partition(":")
            if kind == "foreign_pod":
                foreign[attribute][pod] = value
        self.memory = replace(self.memory, foreign=foreign)
        p_kw, q_kvar = np.array(inputs["pod", "profile_p_kw"]), np.array(inputs["pod", "profile_q_kvar"])
        p_kw[self._storage_at] = p_storage
        for power, held in ((p_kw, foreign["p_kw"]), (q_kvar, foreign["q_kvar"])):
            for pod, value in held.items():
                power[self.case.pods.index(pod)] = value
        p_kw += inputs.get(("pod", "change_p_kw"), 0.0)
        q_kvar += inputs.get(("pod", "change_q_kvar"), 0.0)
        return frozen(p_kw), frozen(q_kvar)

    def _solve(self, t_s: int, p_kw: Floats, q_kvar: Floats) -> GridState:
        try:
            return self._engine.solve(p_kw, q_kvar)
        except PowerFlowError as error:
            if self.case.scenario.grid.on_divergence == "record":
                return self._engine.diverged()
            clock = self.case.clock
            at = f"{clock.instant(t_s).isoformat()} (step {clock.step_index(t_s)})"
            raise PowerFlowError(f"{self.sid} at {at}: {error}") from None


def _outputs(state: GridState) -> dict[tuple[str, str], Any]:
    return {
        ("bus", "vm_pu"): state.vm_pu,
        ("bus", "va_deg"): state.va_deg,
        ("terminal", "p_kw"): state.terminal_p_kw,
        ("terminal", "q_kvar"): state.terminal_q_kvar,
        ("terminal", "i_a"): state.terminal_i_a,
        ("branch", "loading_pu"): state.loading_pu,
        ("pod", "p_kw"): state.pod_p_kw,
        ("pod", "q_kvar"): state.pod_q_kvar,
        ("head", "p_kw"): frozen([state.head_p_kw]),
        ("head", "q_kvar"): frozen([state.head_q_kvar]),
        ("head", "loss_kw"): frozen([state.loss_kw]),
        ("solution", "converged"): frozen([state.converged], np.int8),
        ("solution", "iterations"): frozen([state.iterations]),
    }
