"""The OpenDSS engine: one circuit that takes the power of every POD and gives back the state of the grid.

Every solve starts the same way (snapshot mode, flat start), so a state depends on the powers and on the positions of
taps, capacitors and switches alone, never on the solve before it: that makes a restart exact to the last bit.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from cosim.domain.frames import Floats, frozen
from cosim.domain.grid import GridState
from cosim.domain.site import bus_of_site
from cosim.errors import CosimError, Fault, FeederError, PowerFlowError
from cosim.grid.checks import dead_buses, line_faults, path_faults, zone_faults
from cosim.grid.circuit import (
    PowerSetter,
    Solution,
    compile_circuit,
    converged,
    give_back,
    iterations,
    leave,
    load_multiplier,
    node_voltages,
    rebuild_system,
    solve_flat,
)
from cosim.grid.controls import Controls, control_faults
from cosim.grid.drawn import DrawnPower
from cosim.grid.feeder import Feeder
from cosim.grid.measures import GridMeasures, Measure, Positions
from cosim.grid.pod_elements import adopt_elements, place_added, pod_faults, site_of
from cosim.grid.script import Script
from cosim.grid.topology import read_topology, topology_faults
from cosim.grid.unloaded import PodFreeCircuit, Unloaded, has_known_law, pod_branches
from cosim.scenario.schema import GridConfig

_DEGREES = 180.0 / math.pi
_METERS = ("energymeter", "monitor")
_IN_MATRIX = 1.0 / 3.0
"""Share of the scripts' powers in the system matrix: about what loads draw in the mean of a year, over their peak. The
nearer to a step's powers, the fewer iterations its solve takes."""


class Engine:
    """One circuit of a feeder.

    ``pods`` (n_pod,) is the order of the powers given to `solve`, ``pod_sites`` (n_pod,) and ``pod_buses`` (n_pod,)
    where they are, ``storage`` the storage units among them, ``layout`` what the state is made of, ``control_names``
    (n_control,) the taps and capacitors that controls move, then the ``measures`` that the operator moves. Several
    engines at once do not disturb each other.

    Raises FeederError with all that is wrong with the circuit or its ``feeder.yaml``, or with the measures.
    """

    def __init__(self, feeder: Feeder, config: GridConfig, measures: Sequence[Measure] = ()) -> None:
        self.feeder = feeder
        self.pods = tuple(feeder.pods)
        self._config = config
        self._pod_free: PodFreeCircuit | None = None
        self._dss, script = compile_circuit(feeder.master)
        self._left_behind = weakref.finalize(self, leave, self._dss)
        self._left_behind.atexit = False
        circuit = self._dss.ActiveCircuit
        try:
            place_added(self._dss, feeder)
            refuse_faults(circuit, feeder, script)
            self._elements, self.storage = adopt_elements(self._dss, feeder)
            self._measures = GridMeasures(circuit, feeder, measures)
            self._topology = read_topology(circuit, feeder)
            self._controls = Controls(self._dss)
            self._setter = PowerSetter(self._dss, self._elements)
            self._configure()
        except CosimError:
            self.close()
            raise
        self.layout, self.measures = self._topology.layout, self._measures.measures
        self.control_names = (*self._controls.names, *(measure.name for measure in self.measures))
        self.pod_sites = tuple(site_of(circuit, element, self.layout.nodes) for element in self._elements)
        self.pod_buses = tuple(bus_of_site(site) for site in self.pod_sites)
        self._drawn = DrawnPower(self._dss, self._elements)
        self._solution = Solution(self._dss, len(self.layout.nodes))
        self._at_start, self._failed = self.controls(), False

    def reset(self) -> bool:
        """Puts taps, capacitors and measures where they were at first. Whether the engine is as good as new: one in
        which a solve failed may not be, as controls were left in the middle of their moves."""
        if not self._failed:
            self.restore_controls(self._at_start)
        return not self._failed

    def close(self) -> None:
        """Gives the engine's context back; the object must not be used afterwards."""
        if self._left_behind.detach() is not None:
            give_back(self._dss)

    def solve(self, p_kw: Floats, q_kvar: Floats) -> GridState:
        """The state with net consumption ``p_kw``, ``q_kvar`` (n_pod,) [kW, kvar], in the order of ``pods``.

        Raises PowerFlowError if a power is not finite, or the power flow or its controls do not settle. The engine can
        solve on after that, from the positions in which the controls were left.
        """
        self._require_finite(p_kw, q_kvar)
        if self._controls.moved or self._measures.moved:
            self._rebuild()
        self._setter.set(p_kw, q_kvar)
        try:
            solve_flat(self._dss)
        except PowerFlowError as error:
            self._controls.solved(settled=False)
            self._failed = True
            hunting = ", ".join(self._controls.hunting()) or "no control"
            raise PowerFlowError(
                f"feeder {self.feeder.name}: controls do not settle in {self._config.max_control_iterations} "
                f"iterations; still moving: {hunting}. OpenDSS: {error}"
            ) from None
        is_converged = converged(self._dss)
        self._controls.solved(settled=is_converged)
        if not is_converged:
            self._failed = True
            raise PowerFlowError(
                f"feeder {self.feeder.name}: power flow did not converge in {self._config.max_iterations} iterations; "
                f"{self._weakest(p_kw, q_kvar)}"
            )
        return self._read(p_kw, q_kvar)

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
        """Positions of taps and capacitors that controls move, and of measures if there are any; with the powers of a
        step they determine its state."""
        positions = self._controls.positions()
        return {**positions, "measures": dict(self._measures.positions)} if self.measures else positions

    def restore_controls(self, controls: dict[str, Any]) -> None:
        """Sets the positions that `controls` gave."""
        self._controls.restore(controls)
        if "measures" in controls:
            self._measures.set(controls["measures"])

    def control_values(self, controls: dict[str, Any]) -> Floats:
        """Positions in the form of `controls` as numbers (n_control,): taps [pu], share of a capacitor's steps, and
        those of measures."""
        own = [controls["measures"][measure.name] for measure in self.measures]
        return frozen([*self._controls.values(controls), *own])

    def controls_at(self, values: Floats) -> dict[str, Any]:
        """The positions that `control_values` turned into numbers, for `restore_controls` and `unloaded`."""
        n = len(self._controls.names)
        positions = self._controls.at(values[:n])
        own = {measure.name: round(float(value)) for measure, value in zip(self.measures, values[n:], strict=True)}
        return {**positions, "measures": own} if own else positions

    def measure_positions(self) -> Positions:
        """Positions of all measures; at first those of the script."""
        return self._measures.positions

    def set_measures(self, positions: Positions) -> None:
        """Puts all measures to ``positions`` before the solves that follow.

        Raises FeederError with all that forbids it: no such measure or position, buses cut off, loops.
        """
        self._measures.set(positions)

    def allows(self, positions: Positions) -> bool:
        """Whether `set_measures` takes these positions."""
        return self._measures.allows(positions)

    def unloaded(self, positions: dict[str, Any] | None = None, measures: Positions | None = None) -> Unloaded:
        """The network without its PODs, for batch power flows, with taps, capacitors and measures at ``positions`` as
        `controls` gives them, and with ``measures`` at others; by default where they are. Afterwards the engine is only
        good for more of these, and for closing.

        Raises FeederError naming all but PODs that is not linear, or with what forbids the positions of the measures.
        """
        if self._pod_free is None:
            v_base = self._topology.v_base
            self._pod_free = PodFreeCircuit(
                self._dss, self.feeder, self._elements, self.layout, v_base, self._measures.switches
            )
        if positions is not None:
            self.restore_controls(positions)
        if measures is not None:
            self._measures.set(measures)
        return self._pod_free.read()

    def hold_controls(self) -> None:
        """Taps and capacitors stay where they are in the solves that follow."""
        self._dss.Text.Command = "Set controlmode=off"

    def pods_of_unknown_law(self) -> tuple[str, ...]:
        """Elements of the PODs whose load law only OpenDSS knows, full names in lower case."""
        return tuple(element for element in self._elements if not has_known_law(self._dss, element))

    def n_pod_branch(self) -> int:
        """Number of phase branches of the PODs."""
        return len(pod_branches(self._dss, self._elements))

    @property
    def v_base(self) -> Floats:
        """Base voltage [V] of each node (n_node,), line to neutral."""
        return self._topology.v_base

    def _configure(self) -> None:
        """Sets all options that matter, whatever the scripts set, solves once and sets the system matrix: OpenDSS would
        keep loads in it as admittances of the first solve, whose powers would leave their mark on all others."""
        _take_over_multiplier(self._dss.ActiveCircuit)
        for options in (
            "mode=snapshot",
            f"tolerance={self._config.tolerance_pu!r}",
            f"maxiterations={self._config.max_iterations}",
            f"maxcontroliter={self._config.max_control_iterations}",
            "algorithm=normal loadmodel=powerflow miniterations=2",
            "genmult=1 year=0",
            "controlmode=off",
        ):
            self._dss.Text.Command = f"Set {options}"
        _switch_meters_off(self._dss.ActiveCircuit)
        solve_flat(self._dss)
        self._rebuild()
        self._dss.Text.Command = "Set controlmode=static"

    def _rebuild(self) -> None:
        """The system matrix for the present positions of controls and measures, with loads in it by the scripts'
        powers: it must not depend on the powers of the step in which a control moved."""
        self._setter.set_share_of_script(_IN_MATRIX)
        rebuild_system(self._dss)
        self._measures.moved = False

    def _read(self, p_kw: Floats, q_kvar: Floats) -> GridState:
        topology, layout = self._topology, self.layout
        i = topology.conductor_a(self._solution.currents())
        v_all = self._solution.voltages()
        v = v_all[1:]
        conductor_kva = v.take(layout.conductor_node)
        conductor_kva *= i.conj()
        conductor_kva *= 0.001
        terminal_kva = np.add.reduceat(conductor_kva, layout.terminal_start)
        conductor_i_a = np.abs(i)
        terminal_i_a = layout.highest_a(conductor_i_a)
        loading_pu = layout.loading_pu(terminal_i_a)
        vm_pu = np.abs(v)
        vm_pu /= topology.v_base
        va_deg = np.arctan2(v.imag, v.real)
        va_deg *= _DEGREES
        for array in (conductor_kva, terminal_kva, conductor_i_a, terminal_i_a, loading_pu, vm_pu, va_deg):
            array.setflags(write=False)
        pod_p_kw, pod_q_kvar = self._drawn(p_kw, q_kvar, v_all)
        head_kva = terminal_kva.item(topology.head)
        return GridState(
            vm_pu=vm_pu,
            va_deg=va_deg,
            conductor_p_kw=conductor_kva.real,
            conductor_q_kvar=conductor_kva.imag,
            conductor_i_a=conductor_i_a,
            terminal_p_kw=terminal_kva.real,
            terminal_q_kvar=terminal_kva.imag,
            terminal_i_a=terminal_i_a,
            loading_pu=loading_pu,
            pod_p_kw=_read_only(pod_p_kw),
            pod_q_kvar=_read_only(pod_q_kvar),
            head_p_kw=head_kva.real,
            head_q_kvar=head_kva.imag,
            loss_kw=np.add.reduce(terminal_kva).item().real,
            converged=True,
            iterations=iterations(self._dss),
        )

    def _require_finite(self, p_kw: Floats, q_kvar: Floats) -> None:
        """OpenDSS would keep a NaN in its system matrix for all solves that follow."""
        if not math.isfinite(p_kw @ q_kvar):
            wrong = ~(np.isfinite(p_kw) & np.isfinite(q_kvar))
            pod = int(np.argmax(wrong))
            raise PowerFlowError(
                f"feeder {self.feeder.name}: POD {self.pods[pod]} has a power of {p_kw[pod]} kW, {q_kvar[pod]} kvar"
            )

    def _weakest(self, p_kw: Floats, q_kvar: Floats) -> str:
        """The node whose voltage moves most at 1 % of the powers, as the voltages of a failed solve say nothing."""
        self.hold_controls()
        v_pu = []
        for share in (0.0, 0.01):
            self._setter.set(share * p_kw, share * q_kvar)
            solve_flat(self._dss)
            v_pu.append(np.abs(node_voltages(self._dss, len(self.layout.nodes))[1:]) / self._topology.v_base)
        self._dss.Text.Command = "Set controlmode=static"
        node = int(np.argmax(np.nan_to_num(np.abs(v_pu[1] - v_pu[0]))))
        pod = int(np.argmax(np.hypot(p_kw, q_kvar)))
        return (
            f"weakest node {self.layout.nodes[node]}, largest POD {self.pods[pod]} with {p_kw[pod]:.1f} kW, "
            f"{q_kvar[pod]:.1f} kvar"
        )


def _read_only(array: Floats) -> Floats:
    """The array, or a read-only copy of one that can be written to."""
    return frozen(array) if array.flags.writeable else array


def refuse_faults(circuit: Any, feeder: Feeder, script: Script) -> None:
    """Raises FeederError with all that is wrong with a circuit that has been compiled."""
    faults: list[Fault] = [*pod_faults(circuit, feeder), *control_faults(circuit, script)]
    without_impedance = line_faults(circuit, script)
    if not without_impedance:
        topology = read_topology(circuit, feeder)
        nodes = topology.layout.nodes
        faults += path_faults(circuit, nodes, feeder)
        faults += topology_faults(topology, feeder, script, dead_buses(circuit, nodes))
        faults += zone_faults(feeder, topology.layout)
    if faults or without_impedance:
        raise FeederError([*faults, *without_impedance])


def _take_over_multiplier(circuit: Any) -> None:
    """Gives loads the power that ``Set LoadMult`` of the scripts gives them, and takes the multiplier away."""
    if circuit.Solution.LoadMult != 1.0:
        for load in circuit.Loads:
            multiplier = load_multiplier(circuit)
            p_kw, q_kvar = multiplier * load.kW, multiplier * load.kvar
            load.kW, load.kvar = p_kw, q_kvar
    circuit.Solution.LoadMult = 1.0


def _switch_meters_off(circuit: Any) -> None:
    """OpenDSS's own meters take as long as the solve, and nobody reads them."""
    for name in map(str, circuit.AllElementNames):
        if name.partition(".")[0].lower() in _METERS:
            circuit.SetActiveElement(name)
            circuit.ActiveCktElement.Enabled = False
