"""Instants of a year on mv5 as estimation problems whose truth is known: storage idle, meters with the noise of their
class and no other fault, history with an error of 5 %."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cosim.case import open_case
from cosim.domain.frames import Floats, frozen
from cosim.domain.site import site_sums
from cosim.estimation.history import history_window
from cosim.estimation.problem import EstimationProblem
from cosim.grid.engine import Engine
from cosim.grid.site_flow import SiteFlow
from cosim.io.profiles import SIMBENCH_START, history
from cosim.rng import rng_for
from cosim.scenario.load import LoadedScenario
from cosim.scenario.schema import EstimatorConfig, History, OperatorConfig, Scenario, Sensors
from cosim.sensing.gateway import snapshot
from cosim.sensing.measure import fresh_memory, measure
from cosim.sensing.truth import TruthReader

SEED = 1
HISTORY_ERROR_PERCENT = 5.0
DAYS = 366


class Year:
    """The year of the SimBench profiles, seen through ``meters``."""

    def __init__(self, meters: tuple[str, ...]) -> None:
        scenario = Scenario(
            name="year",
            start=SIMBENCH_START,
            duration=f"{DAYS}d",
            seed=SEED,
            feeder="mv5",
            sensors=Sensors(meters=meters),
            transport="memory",
            estimator=EstimatorConfig(history=History(error_percent=HISTORY_ERROR_PERCENT)),
            operator=OperatorConfig(enabled=False),
        )
        self.case = open_case(LoadedScenario.of(scenario, Path.cwd()))
        case = self.case
        unloaded = Engine(case.feeder, scenario.grid)
        self.flow = SiteFlow(unloaded.unloaded(), case.feeder, case.pod_sites, case.sensor_model.channels)
        unloaded.close()
        self._engine = Engine(case.feeder, scenario.grid)
        storage = [unit.pod for unit in case.storage]
        self._reader = TruthReader(case.sensor_model.channels, case.layout, case.pod_sites, storage)
        self._sums = site_sums(case.pod_sites)

    @property
    def unmetered(self) -> list[int]:
        """Indices of the sites whose power no meter reads."""
        metered = {meter.bus for meter in self.case.meters.values()}
        return [k for k, site in enumerate(self.case.sites) if site not in metered]

    def drawn(self, count: int) -> list[int]:
        """``count`` different steps of the year, in order, from a stream of their own; the same for all meters."""
        steps = self.case.clock.steps
        return sorted(int(k) for k in rng_for(SEED, "bench", "instants").choice(steps, count, replace=False))

    def truth_kw(self, step: int) -> Floats:
        """True net consumption (n_site,) [kW]."""
        return np.asarray(self.case.powers[0][step] @ self._sums)

    def sun(self, step: int) -> bool:
        """Whether photovoltaics inject."""
        pv = [k for k, pod in enumerate(self.case.feeder.pods.values()) if pod.kind == "pv"]
        return bool(self.case.powers[0][step, pv].sum() < 0.0)

    def problem(self, step: int) -> EstimationProblem:
        """What the estimator is given at ``step``."""
        case, config = self.case, self.case.scenario.estimator.history
        t_s = step * case.clock.step_s
        read = measure(case.sensor_model, fresh_memory(case.sensor_model), step, t_s, self._perfect_readings(step))
        channels = case.sensor_model.channels
        window = history(case.history, case.clock.instant(t_s), config.days, config.window)
        return EstimationProblem(
            self.flow,
            channels,
            snapshot(channels, read.messages, t_s, case.scenario.sensors.tolerance_s),
            history_window(window, 2 * case.scenario.estimator.history.window + 1),
            frozen(np.zeros(2 * len(case.sites))),
        )

    def _perfect_readings(self, step: int) -> Floats:
        p_kw, q_kvar = (powers[step] for powers in self.case.powers)
        state = self._engine.solve(p_kw, q_kvar)
        return self._reader.read(
            {
                ("bus", "vm_pu"): state.vm_pu,
                ("terminal", "p_kw"): state.terminal_p_kw,
                ("terminal", "q_kvar"): state.terminal_q_kvar,
                ("terminal", "i_a"): state.terminal_i_a,
                ("pod", "p_kw"): p_kw,
                ("pod", "q_kvar"): q_kvar,
            }
        )

    def close(self) -> None:
        self._engine.close()
