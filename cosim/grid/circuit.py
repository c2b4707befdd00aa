"""OpenDSS at its lowest level (the only import of it): contexts, compiling a script, solving, setting many powers.

An engine context is independent of all others in the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import opendssdirect
from dss import DSSException, SetterFlags
from dss.enums import LoadStatus

from cosim.domain.frames import Complexes, Floats
from cosim.errors import Fault, FeederError, PowerFlowError
from cosim.grid.checks import line_faults
from cosim.grid.script import Script, plain

_spare_contexts: list[Any] = []  # engine contexts cannot be freed without leaking, so closed ones are used again
_left_contexts: list[Any] = []
_NUMBERS = {"load": (4, 12), "generator": (4, 6)}  # of the OpenDSS properties kW, kvar
_SIGN = {"load": 1.0, "generator": -1.0}
_NO_RECALCULATION = int(SetterFlags.AvoidFullRecalc)
POD_CLASSES = tuple(_SIGN)


def compile_circuit(master: Path) -> tuple[Any, Script]:
    """An engine context holding the circuit of a script; `give_back` it after use. The working directory stays.

    Raises FeederError with OpenDSS's own message, and the file and line that it is about.
    """
    if not master.is_file():
        raise FeederError(Fault("no such file", str(master)))
    while _left_contexts:
        give_back(_left_contexts.pop())
    script = Script(master)
    dss = _spare_contexts.pop() if _spare_contexts else _new_context()
    try:
        dss.ClearAll()
        dss.Text.Command = "Set DefaultBaseFrequency=60"  # OpenDSS's own default; a context keeps the last one set
        script.run(dss)
        if dss.NumCircuits == 0:
            raise FeederError(Fault("the script defines no circuit", str(master), allowed="New Circuit.<name> ..."))
    except FeederError as error:
        cause = line_faults(dss.ActiveCircuit, script) if dss.NumCircuits else []
        give_back(dss)
        raise FeederError(cause or error.faults) from None
    return dss, script


def _new_context() -> Any:
    with chdir("."):  # OpenDSS goes to the directory in which it was imported, and stays there
        dss = opendssdirect.NewContext().to_dss_python()
    dss.AllowChangeDir = False
    return dss


def give_back(dss: Any) -> None:
    """Frees the circuit of a context for the next `compile_circuit`."""
    dss.ClearAll()
    _spare_contexts.append(dss)


def leave(dss: Any) -> None:
    """As `give_back`, but calls nothing of OpenDSS: garbage may be found in any thread, in the middle of anything. The
    next `compile_circuit` frees the circuit."""
    _left_contexts.append(dss)


def load_multiplier(circuit: Any) -> float:
    """What ``Set LoadMult`` makes of the power of the active load: nothing of one that is fixed or exempt."""
    return float(circuit.Solution.LoadMult) if circuit.Loads.Status == LoadStatus.Variable else 1.0


def solve_flat(dss: Any, rebuild: bool = False) -> None:
    """Solves from a flat start, so that the result depends on powers and controls alone.

    ``rebuild`` the system matrix first where controls may have changed it since: OpenDSS would begin with the one of
    some control iteration of the last solve. Raises PowerFlowError with OpenDSS's message if controls do not settle.
    Whether the power flow itself converged is for the caller to see.
    """
    lib = dss._api_util.lib
    lib.YMatrix_Set_SolutionInitialized(0)
    if rebuild:
        lib.YMatrix_Set_SystemYChanged(1)
    lib.Solution_Solve()
    try:
        dss._check_for_error()
    except DSSException as error:
        dss.Text.Command = ""  # any command ends the state of abortion, in which all further solves would fail
        raise PowerFlowError(plain(error)) from None


def converged(dss: Any) -> bool:
    """Whether the last solve did."""
    return bool(dss._api_util.lib.Solution_Get_Converged())


def iterations(dss: Any) -> int:
    """Iterations of the last solve, those of all its control iterations together."""
    return int(dss._api_util.lib.Solution_Get_Iterations())


def node_voltages(dss: Any, n_node: int) -> Complexes:
    """Complex node voltages [V] of the last solve, ground first: (1 + n_node,)."""
    return Solution(dss, n_node).voltages().copy()


class Solution:
    """The last solve as views into OpenDSS's own memory, each to be read before the next call to OpenDSS."""

    def __init__(self, dss: Any, n_node: int) -> None:
        api = dss._api_util
        self._buffer, self._size = api.ffi.buffer, 16 * (1 + n_node)
        self._fetch_voltages, self._fetch_currents = api.lib.YMatrix_getVpointer, api.lib.PDElements_Get_AllCurrents_GR
        self._voltages = api.ffi.new("double**")
        self._currents, self._count = api.gr_float64_pointers

    def voltages(self) -> Complexes:
        """Complex node voltages [V], ground first: (1 + n_node,)."""
        self._fetch_voltages(self._voltages)
        return np.frombuffer(self._buffer(self._voltages[0], self._size), np.complex128)

    def currents(self) -> Complexes:
        """Complex currents [A] of all conductors at all ends of all branches and shunts, in OpenDSS's order."""
        self._fetch_currents()
        return np.frombuffer(self._buffer(self._currents[0], 8 * self._count[0]), np.complex128)


def rebuild_system(dss: Any) -> None:
    """Builds the system matrix for the present positions of controls, in which loads are admittances of their present
    powers."""
    dss.YMatrix.SystemYChanged = True
    dss.YMatrix.BuildYMatrixD(dss._api_util.lib.YMatrixModes_WholeMatrix, False)


class PowerSetter:
    """Sets kW and kvar of all PODs, one call an element class and quantity, without rebuilding the system matrix.

    ``elements`` (n_pod,) are full OpenDSS names in lower case, of `POD_CLASSES`.
    """

    def __init__(self, dss: Any, elements: Sequence[str]) -> None:
        api = dss._api_util
        self._set_array = api.lib.Batch_SetFloat64Array
        by_class = {kind: [k for k, e in enumerate(elements) if e.startswith(f"{kind}.")] for kind in POD_CLASSES}
        self._order = np.array([pod for pods in by_class.values() for pod in pods], dtype=np.intp)
        self._sign = np.array([_SIGN[kind] for kind, pods in by_class.items() for _ in pods])
        self._buffers = np.zeros((2, len(self._order)))
        self._batches: list[list[tuple[Any, int, int, Any]]] = [[], []]
        first = 0
        for kind, pods in by_class.items():
            if pods:
                batch, count = _batch(dss, kind, [elements[pod].partition(".")[2] for pod in pods])
                for batches, buffer, number in zip(self._batches, self._buffers, _NUMBERS[kind], strict=True):
                    pointer = api.ffi.cast("double*", buffer[first:].ctypes.data)
                    batches.append((batch, count, number, pointer))
            first += len(pods)
        self._of_script = np.array([_power(dss, elements[pod]) for pod in self._order]).reshape(-1, 2).T.copy()

    def set(self, p_kw: Floats, q_kvar: Floats) -> None:
        """Net consumption ``p_kw``, ``q_kvar`` (n_pod,) [kW, kvar] of all PODs."""
        for values, buffer, batches in zip((p_kw, q_kvar), self._buffers, self._batches, strict=True):
            np.multiply(values[self._order], self._sign, out=buffer)
            for batch in batches:
                self._set_array(*batch, _NO_RECALCULATION)

    def set_share_of_script(self, share: float) -> None:
        """That share of the powers that the scripts gave."""
        np.multiply(self._of_script, share, out=self._buffers)
        for batches in self._batches:
            for batch in batches:
                self._set_array(*batch, _NO_RECALCULATION)


def _power(dss: Any, element: str) -> tuple[float, float]:
    """kW and kvar of an element in its own sign."""
    kind, _, name = element.partition(".")
    elements = {"load": dss.ActiveCircuit.Loads, "generator": dss.ActiveCircuit.Generators}[kind]
    elements.Name = name
    return float(elements.kW), float(elements.kvar)


def _batch(dss: Any, kind: str, names: Sequence[str]) -> tuple[Any, int]:
    api = dss._api_util
    dss.SetActiveClass(kind)
    index_of = {str(name).lower(): k for k, name in enumerate(dss.ActiveClass.AllNames, start=1)}
    pointer, dims = api.ffi.new("void***"), api.ffi.new("int32_t[4]")
    chosen = api.ffi.new("int32_t[]", [index_of[name] for name in names])
    api.lib.Batch_CreateByIndexS(pointer, dims, kind.encode(), chosen, len(names))
    return pointer[0], dims[0]
