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
from cosim.grid.engine import Engine
from simulators._base import Adapter, Inputs, Output


@dataclass(frozen=True)
class GridMemory:
    """``e_kwh`` (n_storage,) at the beginning of the step at ``t_s``, in which storage ran at ``p_kw`` (n_storage,);
    ``controls`` are the positions of taps and capacitors."""

    t_s: int
    e_kwh: Floats
    p_kw: Floats
    controls: dict[str, Any]


class Grid(Adapter):
    """Models ``bus``, ``terminal``, ``branch``, ``pod``, ``storage``, ``head``, ``solution``.

    Where orders act in the same MTU, ``order`` triggers: an order that arrives in the step it is for makes the grid
    solve that step again. A foreign simulator replaces a POD's power through an entity of ``foreign_pod``.
    """

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {"pod": ("profile_p_kw", "profile_q_kvar"), "order": ("p_kw",)}

    def init(self, sid: str, time_resolution: float = 1.0, **sim_params: Any) -> Meta:
        super().init(sid, time_resolution, **sim_params)
        models = self.meta["models"]
        models["foreign_pod"] = {"public": True, "params": ["pod"], "attrs": ["p_kw", "q_kvar"]}
        if self.case.scenario.operator.action == "same":
            self.meta["type"] = "hybrid"
            for name, model in models.items():
                model |= {"trigger": ["p_kw"] if name == "order" else [], "non-persistent": []}
        return self.meta

    def create(self, num: int, model: str, **model_params: Any) -> list[CreateResult]:
        if model == "foreign_pod":
            return [{"eid": f"foreign_pod:{model_params['pod']}", "type": model}]
        return super().create(num, model)

    def build(self) -> dict[str, tuple[Output, ...]]:
        case = self.case
        self._engine = Engine(case.feeder, case.scenario.grid)
        self._storage_at = [case.pods.index(unit.pod) for unit in case.storage]
        idle = frozen(np.zeros(len(case.storage)))
        self.memory = GridMemory(0, case.initial_kwh, idle, self._engine.controls())
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
            "branch": (Signal("loading_pu", "pu", "current over rated current", "branch", layout.branches),),
            "pod": (
                Signal("p_kw", "kW", "active power, storage included", "pod", case.pods, PASSIVE_SIGN),
                Signal("q_kvar", "kvar", "reactive power", "pod", case.pods, PASSIVE_SIGN),
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
            "solution": (
                Signal("converged", "1", "power flow converged", "feeder", feeder, codes=("diverged", "converged")),
                Signal("iterations", "1", "iterations of the power flow", "feeder", feeder),
            ),
        }

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        self._book_energy(t_s)
        ordered = inputs.get(("order", "p_kw"))
        wanted = np.zeros(len(self.case.storage)) if ordered is None else ordered
        step_s, e_kwh = self.case.clock.step_s, self.memory.e_kwh
        p_storage = frozen([feasible_kw(u, wanted[k], e_kwh[k], step_s) for k, u in enumerate(self.case.storage)])
        p_kw, q_kvar = self._pod_powers(inputs, p_storage)
        state = self._solve(t_s, p_kw, q_kvar)
        self.memory = replace(self.memory, p_kw=p_storage, controls=self._engine.controls())
        return _outputs(state) | {
            ("pod", "p_kw"): p_kw,
            ("pod", "q_kvar"): q_kvar,
            ("storage", "p_kw"): p_storage,
            ("storage", "e_kwh"): e_kwh,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self._engine.restore_controls(self.memory.controls)

    def close(self) -> None:
        self._engine.close()

    def _book_energy(self, t_s: int) -> None:
        """Moves the stored energy to ``t_s``; solving a step again books nothing."""
        passed_s = t_s - self.memory.t_s
        if passed_s > 0 and self.case.storage:
            e_kwh = after(self.case.storage, self.memory.p_kw, self.memory.e_kwh, passed_s)
            self.memory = replace(self.memory, t_s=t_s, e_kwh=frozen(e_kwh))

    def _pod_powers(self, inputs: Inputs, p_storage: Floats) -> tuple[Floats, Floats]:
        p_kw, q_kvar = np.array(inputs["pod", "profile_p_kw"]), np.array(inputs["pod", "profile_q_kvar"])
        p_kw[self._storage_at] = p_storage
        for (entity, attribute), value in inputs.items():
            kind, _, pod = entity.partition(":")
            if kind == "foreign_pod":
                {"p_kw": p_kw, "q_kvar": q_kvar}[attribute][self.case.pods.index(pod)] = value
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
        ("head", "p_kw"): frozen([state.head_p_kw]),
        ("head", "q_kvar"): frozen([state.head_q_kvar]),
        ("head", "loss_kw"): frozen([state.loss_kw]),
        ("solution", "converged"): frozen([state.converged], np.int8),
        ("solution", "iterations"): frozen([state.iterations]),
    }
