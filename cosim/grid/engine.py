"""The OpenDSS engine: one circuit that takes the power of every POD and gives back the state of the grid.

Every solve starts the same way (snapshot mode, flat start), so a state depends on the powers and on the position of
taps and capacitors alone, never on the solve before it: that makes a restart exact to the last bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cosim.domain.frames import Complexes, Floats, frozen
from cosim.domain.grid import GridState
from cosim.domain.site import bus_of_site
from cosim.errors import CosimError, PowerFlowError
from cosim.grid.circuit import POD_CLASSES, PowerSetter, compile_circuit, give_back, node_voltages, solve_flat
from cosim.grid.controls import Controls
from cosim.grid.feeder import Feeder
from cosim.grid.pod_elements import adopt_elements, site_of
from cosim.grid.topology import read_topology
from cosim.grid.unloaded import Unloaded, take_out_pods
from cosim.scenario.schema import GridConfig


class Engine:
    """One circuit of a feeder.

    ``pods`` (n_pod,) is the order of the powers given to `solve`, ``pod_buses`` (n_pod,) where they are, ``storage``
    the storage units among them, ``layout`` what the state is made of. Several engines at once do not disturb each
    other.

    Raises FeederError with all that is wrong with the circuit or its ``feeder.yaml``.
    """

    def __init__(self, feeder: Feeder, config: GridConfig) -> None:
        self.feeder = feeder
        self.pods = tuple(feeder.pods)
        self._config = config
        self._dss = compile_circuit(feeder.master)
        try:
            self._elements, self.storage = adopt_elements(self._dss, feeder)
            self._topology = read_topology(self._dss.ActiveCircuit, feeder)
            self._controls = Controls(self._dss, feeder.master)
            self._configure()
        except CosimError:
            self.close()
            raise
        self.layout = self._topology.layout
        circuit, nodes = self._dss.ActiveCircuit, self.layout.nodes
        self.pod_sites = tuple(site_of(circuit, element, nodes) for element in self._elements)
        self.pod_buses = tuple(bus_of_site(site) for site in self.pod_sites)
        self._setters = [PowerSetter(self._dss, kind, self._elements) for kind in POD_CLASSES]

    def close(self) -> None:
        """Gives the engine's context back; the object must not be used afterwards."""
        give_back(self._dss)

    def solve(self, p_kw: Floats, q_kvar: Floats) -> GridState:
        """The state with net consumption ``p_kw``, ``q_kvar`` (n_pod,) [kW, kvar], in the order of ``pods``.

        Raises PowerFlowError if a power is not finite, or the power flow or its controls do not settle. The engine can
        solve on after that, from the positions in which the controls were left.
        """
        self._require_finite(p_kw, q_kvar)
        self._set(p_kw, q_kvar)
        try:
            solve_flat(self._dss, rebuild=self._controls.present)
        except PowerFlowError as error:
            hunting = ", ".join(self._controls.hunting()) or "no control"
            raise PowerFlowError(
                f"feeder {self.feeder.name}: controls do not settle in {self._config.max_control_iterations} "
                f"iterations; still moving: {hunting}. OpenDSS: {error}"
            ) from None
        solution = self._dss.ActiveCircuit.Solution
        if not solution.Converged:
            raise PowerFlowError(
                f"feeder {self.feeder.name}: power flow did not converge in {self._config.max_iterations} iterations; "
                f"{self._weakest(p_kw, q_kvar)}"
            )
        return self._read(p_kw, q_kvar, int(solution.Iterations))

    def diverged(self) -> GridState:
        """What is recorded for a step that did not converge."""

        def missing(names: tuple[str, ...]) -> Floats:
            return frozen(np.full(len(names), np.nan))

        layout = self.layout
        return GridState(
            vm_pu=missing(layout.nodes),
            va_deg=missing(layout.nodes),
            conductor_p_kw=missing(layout.conductors),
            conductor_q_kvar=missing(layout.conductors),
            conductor_i_a=missing(layout.conductors),
            terminal_p_kw=missing(layout.terminals),
            terminal_q_kvar=missing(layout.terminals),
            terminal_i_a=missing(layout.terminals),
            loading_pu=missing(layout.branches),
            pod_p_kw=missing(self.pods),
            pod_q_kvar=missing(self.pods),
            head_p_kw=math.nan,
            head_q_kvar=math.nan,
            loss_kw=math.nan,
            converged=False,
            iterations=self._config.max_iterations,
        )

    def controls(self) -> dict[str, Any]:
        """Positions of taps and capacitors that controls move; with the powers of a step they determine its state."""
        return self._controls.positions()

    def restore_controls(self, controls: dict[str, Any]) -> None:
        """Sets the positions that `controls` gave."""
        self._controls.restore(controls)

    def unloaded(self) -> Unloaded:
        """The network without its PODs, for batch power flows; afterwards the engine is only good for closing.

        Raises FeederError naming every POD that does not draw constant power.
        """
        return take_out_pods(self._dss, self.feeder, self._elements, self.layout, self._topology.v_base)

    def _configure(self) -> None:
        """Sets the options, and solves once with the powers of the scripts: OpenDSS keeps loads in its system matrix as
        admittances taken from the first solve, so that the first step's powers would leave their mark on all others."""
        for command in (
            "Set mode=snapshot",
            f"Set tolerance={self._config.tolerance_pu!r}",
            f"Set maxiterations={self._config.max_iterations}",
            f"Set maxcontroliter={self._config.max_control_iterations}",
            "Set controlmode=off",
        ):
            self._dss.Text.Command = command
        solve_flat(self._dss)
        self._dss.Text.Command = "Set controlmode=static"

    def _set(self, p_kw: Floats, q_kvar: Floats) -> None:
        for setter in self._setters:
            setter.set(p_kw, q_kvar)

    def _read(self, p_kw: Floats, q_kvar: Floats, iterations: int) -> GridState:
        v, topology, layout = self._voltages()[1:], self._topology, self.layout
        i = topology.conductor_a(np.asarray(self._dss.ActiveCircuit.PDElements.AllCurrents).view(np.complex128))
        s_kva = v[layout.conductor_node] * i.conj() / 1000.0
        terminal_s = np.add.reduceat(s_kva, layout.terminal_start)
        i_a = np.abs(i)
        terminal_i_a = layout.highest_a(i_a)
        return GridState(
            vm_pu=frozen(np.abs(v) / topology.v_base),
            va_deg=frozen(np.degrees(np.angle(v))),
            conductor_p_kw=frozen(s_kva.real),
            conductor_q_kvar=frozen(s_kva.imag),
            conductor_i_a=frozen(i_a),
            terminal_p_kw=frozen(terminal_s.real),
            terminal_q_kvar=frozen(terminal_s.imag),
            terminal_i_a=frozen(terminal_i_a),
            loading_pu=frozen(layout.loading_pu(terminal_i_a)),
            pod_p_kw=frozen(p_kw),
            pod_q_kvar=frozen(q_kvar),
            head_p_kw=float(terminal_s[topology.head].real),
            head_q_kvar=float(terminal_s[topology.head].imag),
            loss_kw=float(terminal_s.real.sum()),
            converged=True,
            iterations=iterations,
        )

    def _voltages(self) -> Complexes:
        return node_voltages(self._dss, len(self.layout.nodes))

    def _require_finite(self, p_kw: Floats, q_kvar: Floats) -> None:
        """OpenDSS would keep a NaN in its system matrix for all solves that follow."""
        wrong = ~(np.isfinite(p_kw) & np.isfinite(q_kvar))
        if wrong.any():
            pod = int(np.argmax(wrong))
            raise PowerFlowError(
                f"feeder {self.feeder.name}: POD {self.pods[pod]} has a power of {p_kw[pod]} kW, {q_kvar[pod]} kvar"
            )

    def _weakest(self, p_kw: Floats, q_kvar: Floats) -> str:
        """The node whose voltage moves most at 1 % of the powers, as the voltages of a failed solve say nothing."""
        self._dss.Text.Command = "Set controlmode=off"
        v_pu = []
        for share in (0.0, 0.01):
            self._set(share * p_kw, share * q_kvar)
            solve_flat(self._dss)
            v_pu.append(np.abs(self._voltages()[1:]) / self._topology.v_base)
        self._dss.Text.Command = "Set controlmode=static"
        node = int(np.argmax(np.nan_to_num(np.abs(v_pu[1] - v_pu[0]))))
        pod = int(np.argmax(np.hypot(p_kw, q_kvar)))
        return (
            f"weakest node {self.layout.nodes[node]}, largest POD {self.pods[pod]} with {p_kw[pod]:.1f} kW, "
            f"{q_kvar[pod]:.1f} kvar"
        )
