"""Rows of pandapower's tables, and calling pandapower without its own warnings about itself."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cosim.errors import PowerFlowError

_MAX_ROUNDS, _SETTLED_PU = 100, 1e-10


@dataclass(frozen=True)
class Row:
    """One element of a pandapower network."""

    table: str
    index: int
    values: Mapping[str, Any]

    def number(self, key: str, default: float = math.nan) -> float:
        """A number; ``default`` where the column or the value is missing."""
        value = self.values.get(key)
        try:
            found = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return default
        return default if math.isnan(found) else found

    def text(self, key: str) -> str:
        """A text; empty where the column or the value is missing."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def bus(self, key: str = "bus") -> int:
        return int(self.values[key])

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.values.get(key)
        return default if value is None or value != value else bool(value)

    @property
    def name(self) -> str:
        value = self.values.get("name")
        return "" if value is None or value != value else str(value)

    @property
    def label(self) -> str:
        return f"{self.table} {self.index}"

    @property
    def in_service(self) -> bool:
        return self.flag("in_service", True)


def rows(net: Any, table: str) -> Iterator[Row]:
    """The rows of a table, none if the network does not have it."""
    if table not in net:
        return
    frame = net[table]
    for index, record in zip(frame.index, frame.to_dict("records"), strict=True):
        yield Row(table, int(index), record)


@contextmanager
def quiet_pandapower() -> Iterator[None]:
    """Keeps back what pandapower says about its own future, and about numba, which we do not use."""
    log = logging.getLogger("pandapower")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for kind in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        log.setLevel(level)


def solve(net: Any) -> None:
    """Solves ``net`` by pandapower, results in the network itself: transformers as T models, external grids ideal, each
    load after its own law of voltage (pandapower alone gives all injections of a bus the mean law of its loads).

    Raises PowerFlowError if it does not converge, or with what pandapower finds wrong with the network.
    """
    shares = [f"const_{law}_{power}_percent" for law in "zi" for power in "pq"]
    given = net.load
    if not any((given[column].fillna(0.0) != 0.0).any() for column in shares if column in given):
        _run(net)
        return
    net.load = given.copy()
    net.load[shares] = 0.0
    try:
        _run(net)
        for _ in range(_MAX_ROUNDS):
            vm_pu = net.res_bus.vm_pu.copy()
            at_load = given.bus.map(vm_pu).fillna(1.0)
            for power, column in (("p", "p_mw"), ("q", "q_mvar")):
                z, i = (given[f"const_{law}_{power}_percent"].fillna(0.0) / 100.0 for law in "zi")
                net.load[column] = given[column] * (z * at_load**2 + i * at_load + 1.0 - z - i)
            _run(net)
            if (net.res_bus.vm_pu - vm_pu).abs().max() < _SETTLED_PU:
                return
        raise PowerFlowError("the loads that depend on the voltage do not settle")
    finally:
        net.load = given


def _run(net: Any) -> None:
    import pandapower
    from pandapower.auxiliary import LoadflowNotConverged

    with quiet_pandapower():
        try:
            pandapower.runpp(net, numba=False, tolerance_mva=1e-9, calculate_voltage_angles=True, trafo_model="t")
        except LoadflowNotConverged:
            raise PowerFlowError("pandapower's power flow does not converge") from None
        except Exception as error:
            # pandapower has no tree of errors of its own; what it finds wrong may be any of Python's.
            raise PowerFlowError(f"pandapower refuses the network: {plain(error)}") from error


def plain(error: Exception) -> str:
    """An error of another library in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
