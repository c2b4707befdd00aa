"""OpenDSS at its lowest level (the only import of it): contexts, compiling a script, solving, setting many powers.

An engine context is independent of all others in the process.
"""

from __future__ import annotations

import re
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import opendssdirect
from dss import DSSException, SetterFlags

from cosim.domain.frames import Complexes, Floats
from cosim.errors import Fault, FeederError, PowerFlowError

_spare_contexts: list[Any] = []  # engine contexts cannot be freed without leaking, so closed ones are used again
_PLACE = re.compile(r'\[file: "(?P<file>[^"]*)", line: (?P<line>\d+)\]')
_KW, _KVAR = {"load": 4, "generator": 4}, {"load": 12, "generator": 6}  # OpenDSS property numbers
_SIGN = {"load": 1.0, "generator": -1.0}
POD_CLASSES = tuple(_SIGN)


def compile_circuit(master: Path) -> Any:
    """An engine context holding the circuit of a script; `give_back` it after use. The working directory stays.

    Raises FeederError with OpenDSS's own message, and the file and line that it names.
    """
    if not master.is_file():
        raise FeederError(Fault("no such file", str(master)))
    dss = _spare_contexts.pop() if _spare_contexts else _new_context()
    try:
        dss.ClearAll()
        dss.Text.Command = "Set DefaultBaseFrequency=60"  # OpenDSS's own default; a context keeps the last one set
        dss.Text.Command = f'Redirect "{master.resolve()}"'
        if dss.NumCircuits == 0:
            raise FeederError(Fault("the script defines no circuit", str(master), allowed="New Circuit.<name> ..."))
    except DSSException as error:
        give_back(dss)
        raise FeederError(_script_fault(error, master)) from None
    except FeederError:
        give_back(dss)
        raise
    return dss


def _new_context() -> Any:
    with chdir("."):  # OpenDSS goes to the directory in which it was imported, and stays there
        dss = opendssdirect.NewContext().to_dss_python()
    dss.AllowChangeDir = False
    return dss


def give_back(dss: Any) -> None:
    """Frees the circuit of a context for the next `compile_circuit`."""
    dss.ClearAll()
    _spare_contexts.append(dss)


def _script_fault(error: DSSException, master: Path) -> Fault:
    place = _PLACE.search(str(error))
    problem = f"OpenDSS refuses the circuit: {plain(_PLACE.sub('', str(error)))}"
    return Fault(problem, place["file"], int(place["line"])) if place else Fault(problem, str(master))


def plain(error: object) -> str:
    """A message in one line."""
    return " ".join(str(error).split())


def solve_flat(dss: Any, rebuild: bool = False) -> None:
    """Solves from a flat start, so that the result depends on powers and controls alone.

    ``rebuild`` the system matrix first where controls may have changed it since: OpenDSS would begin with the one of
    some control iteration of the last solve. Raises PowerFlowError with OpenDSS's message if controls do not settle.
    Whether the power flow itself converged is for the caller to see.
    """
    dss.YMatrix.SolutionInitialized = False
    if rebuild:
        dss.YMatrix.SystemYChanged = True
    try:
        dss.ActiveCircuit.Solution.Solve()
    except DSSException as error:
        dss.Text.Command = ""  # any command ends the state of abortion, in which all further solves would fail
        raise PowerFlowError(plain(error)) from None


def node_voltages(dss: Any, n_node: int) -> Complexes:
    """Complex node voltages [V] of the last solve, ground first: (1 + n_node,)."""
    buffer = dss._api_util.ffi.buffer(dss.YMatrix.GetVPointer(), 16 * (1 + n_node))
    return np.frombuffer(buffer, dtype=np.complex128).copy()


class PowerSetter:
    """Sets kW and kvar of all PODs of one element class in one call, without rebuilding the system matrix.

    ``elements`` (n_pod,) are full OpenDSS names in lower case; those of other classes than ``kind`` are left alone.
    """

    def __init__(self, dss: Any, kind: str, elements: list[str]) -> None:
        api = dss._api_util
        self._lib, self._kind = api.lib, kind
        dss.SetActiveClass(kind)
        index_of = {str(name).lower(): k for k, name in enumerate(dss.ActiveClass.AllNames, start=1)}
        chosen = [(pod, index_of[e.partition(".")[2]]) for pod, e in enumerate(elements) if e.startswith(kind + ".")]
        self._pods = np.array([pod for pod, _ in chosen], dtype=np.intp)
        self._batch: Any = None
        self._count = 0
        if chosen:
            self._batch, self._count = _batch(dss, kind, [index for _, index in chosen])
        self._buffer = np.zeros(self._count)
        self._pointer = api.ffi.cast("double*", self._buffer.ctypes.data)

    def set(self, p_kw: Floats, q_kvar: Floats) -> None:
        """Net consumption ``p_kw``, ``q_kvar`` (n_pod,) [kW, kvar] of all PODs."""
        if self._batch is None:
            return
        for index, values in ((_KW[self._kind], p_kw), (_KVAR[self._kind], q_kvar)):
            np.multiply(values[self._pods], _SIGN[self._kind], out=self._buffer)
            self._lib.Batch_SetFloat64Array(
                self._batch, self._count, index, self._pointer, int(SetterFlags.AvoidFullRecalc)
            )


def _batch(dss: Any, kind: str, indices: list[int]) -> tuple[Any, int]:
    api = dss._api_util
    pointer, dims = api.ffi.new("void***"), api.ffi.new("int32_t[4]")
    chosen = api.ffi.new("int32_t[]", indices)
    api.lib.Batch_CreateByIndexS(pointer, dims, kind.encode(), chosen, len(indices))
    return pointer[0], dims[0]
