"""What all adapters share: mosaik's protocol, the wire form, and one record of what lasts between steps.

An adapter says what it takes (`inputs`, by entity), builds its core objects and declares what it gives (`build`), and
makes one step (`advance`). One entity per model carries whole frames as attributes; its id is the model's name. All
that an adapter remembers between steps is the frozen dataclass `memory`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import mosaik_api_v3
from mosaik_api_v3.types import CreateResult, InputData, Meta, OutputData, OutputRequest

from cosim.case import Case, case_from_payload
from cosim.domain.frames import RECORDED, EventTable, Message, Signal
from cosim.errors import SimulatorError
from simulators.wire import decode, encode

Output = Signal | EventTable | Message
Inputs = Mapping[tuple[str, str], Any]
"""Values by (entity, attribute)."""


@dataclass(frozen=True)
class Nothing:
    """The memory of an adapter that remembers nothing."""


class Adapter(mosaik_api_v3.Simulator):
    """Base of all adapters."""

    inputs: ClassVar[dict[str, tuple[str, ...]]] = {}
    answers: tuple[str, ...] = ()
    """Entities: whenever something arrives at one of them within a step, it advances again."""
    memory: Any = Nothing()

    def __init__(self) -> None:
        super().__init__({"api_version": "3.0", "type": "time-based", "models": {}})  # type: ignore[no-untyped-call]
        self._produced: dict[tuple[str, str], Any] = {}

    # --- what an adapter is made of -----------------------------------------------------------------------------

    def build(self) -> dict[str, tuple[Output, ...]]:
        """Makes the core objects from ``self.case`` and ``self.options`` and returns the outputs, by model."""
        raise NotImplementedError

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        """One step at ``t_s`` [s]; returns the outputs by (model, attribute), a table's as a list of rows."""
        raise NotImplementedError

    def ended(self) -> None:
        """The last step of a segment is over. Raises CosimError if something that began within it has no end."""

    def close(self) -> None:
        """Gives back what was opened."""

    def state(self) -> dict[str, Any]:
        """All that lasts between steps, as plain JSON."""
        saved: dict[str, Any] = encode(asdict(self.memory))
        return saved

    def restore(self, saved: dict[str, Any]) -> None:
        """Takes over what `state` gave."""
        self.memory = type(self.memory)(**decode(saved))

    # --- mosaik -------------------------------------------------------------------------------------------------

    def init(self, sid: str, time_resolution: float = 1.0, **sim_params: Any) -> Meta:
        """``case`` is a case or its payload; ``wire`` tells that values cross a process boundary; ``begin_s`` is the
        simulated time at which mosaik's clock starts [s]; all other parameters are the adapter's own options."""
        case = sim_params.pop("case")
        self._begin_s = int(sim_params.pop("begin_s", 0))
        self.sid, self._wire, self.options = sid, bool(sim_params.pop("wire")), sim_params
        self.case = case if isinstance(case, Case) else case_from_payload(case)
        self.outputs = self.build()
        self._once = {
            (m, o.name) for m, given in self.outputs.items() for o in given if isinstance(o, Message) and o.once
        }
        self._recorded = {
            m: tuple(_attribute(output) for output in given if not isinstance(output, Message))
            for m, given in self.outputs.items()
        }
        self._decodes = bool(self.case.scenario.remote)
        for model in {**self.inputs, **self.outputs}:
            given = [_attribute(output) for output in self.outputs.get(model, ())]
            attributes = [*self.inputs.get(model, ()), *given, *((RECORDED,) if self._recorded.get(model) else ())]
            self.meta["models"][model] = {"public": True, "params": [], "attrs": attributes}
        if self.answers:
            self.meta["type"] = "hybrid"
            for name, described in self.meta["models"].items():
                once = [attribute for entity, attribute in self._once if entity == name]
                described |= {"trigger": described["attrs"] if name in self.answers else [], "non-persistent": once}
        self.meta["extra_methods"] = ["ended", "state", "restore"]
        return self.meta

    def create(self, num: int, model: str, **model_params: Any) -> list[CreateResult]:
        described = [{"kind": type(output).__name__, **vars(output)} for output in self.outputs.get(model, ())]
        return [{"eid": model, "type": model, "extra_info": described}]

    def step(self, time: int, inputs: InputData, max_advance: int) -> int | None:
        values = {
            (entity, attribute): self._single(entity, attribute, sources)
            for entity, attributes in inputs.items()
            for attribute, sources in attributes.items()
        }
        t_s = self._begin_s + time
        self._produced = self.advance(t_s, values)
        return self.next_step(t_s) - self._begin_s

    def next_step(self, t_s: int) -> int:
        """The beginning of the step after ``t_s``."""
        step_s = self.case.clock.step_s
        return (t_s // step_s + 1) * step_s

    def get_data(self, outputs: OutputRequest) -> OutputData:
        found = {
            eid: {a: self._given(eid, a) for a in attributes if self._is_said(eid, a)}
            for eid, attributes in outputs.items()
        }
        return encode(found) if self._wire else found

    def finalize(self) -> None:
        self.close()

    def _given(self, eid: str, attribute: str) -> Any:
        if attribute != RECORDED:
            return self._produced[eid, attribute]
        return {name: self._produced[eid, name] for name in self._recorded[eid]}

    def _is_said(self, eid: str, attribute: str) -> bool:
        """Whether there is something to give: nothing said once is nothing at all."""
        return (eid, attribute) not in self._once or bool(self._produced[eid, attribute])

    def _single(self, entity: str, attribute: str, sources: Mapping[str, Any]) -> Any:
        if len(sources) != 1:
            raise SimulatorError(f"{self.sid}.{entity}.{attribute} has more than one source: {', '.join(sources)}")
        (value,) = sources.values()
        return decode(value) if self._decodes else value


def _attribute(output: Output) -> str:
    return output.attribute if isinstance(output, Signal) else output.name
