"""The recorder: everything that others give, into the result file. Runs in the process of the runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mosaik_api_v3.types import Meta

from cosim.io.store import ResultWriter
from simulators._base import Adapter, Inputs, Output


class Recorder(Adapter):
    """Options: ``writer``, ``tables`` (paths of event tables), ``on_step`` (called when a step has been given to the
    writer). Takes any input; an attribute is named ``simulator/model`` and has all outputs of that model by name, which
    are declared to the writer."""

    def build(self) -> dict[str, tuple[Output, ...]]:
        self._writer: ResultWriter = self.options["writer"]
        self._tables: frozenset[str] = self.options["tables"]
        self._on_step: Callable[[int], None] = self.options["on_step"]
        return {"inbox": ()}

    def init(self, sid: str, time_resolution: float = 1.0, **sim_params: Any) -> Meta:
        super().init(sid, time_resolution, **sim_params)
        self.meta["models"]["inbox"]["any_inputs"] = True
        return self.meta

    def advance(self, t_s: int, inputs: Inputs) -> dict[tuple[str, str], Any]:
        step = self.case.clock.step_index(t_s)
        for (_, path), outputs in inputs.items():
            simulator, model = path.split("/")
            for name, value in outputs.items():
                if f"{path}/{name}" in self._tables:
                    for row in value:
                        self._writer.append_event(simulator, name, row)
                else:
                    self._writer.write(step, simulator, model, name, value)
        self._on_step(step)
        return {}
