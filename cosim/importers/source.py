"""Where a network comes from: a pandapower file or function, a SimBench code, a MATPOWER case."""

from __future__ import annotations

import ast
import copy
import inspect
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from cosim.errors import Fault, FeederError, PowerFlowError
from cosim.importers.matpower import read_matpower, require_plausible
from cosim.importers.tables import plain, quiet_pandapower, rows, solve

FORMS = (
    "a file .dss, .json, .xlsx, .m or .mat, pandapower:<function of pandapower.networks>[?argument=value&...], "
    "or simbench:<code>"
)
_SHOWN = 20


@dataclass(frozen=True)
class Network:
    """A pandapower network that has been solved, what it is, and whether it has SimBench's profiles."""

    net: Any
    title: str
    has_profiles: bool = False


def read_network(source: Any, f_hz: float) -> Network:
    """The network of ``source``, solved; of one in memory a copy. ``f_hz`` [Hz] is taken where the source does not say:
    MATPOWER cases.

    Raises FeederError when it cannot be read, its figures are not what their units say, or it does not solve.
    """
    if not isinstance(source, str):
        network = Network(copy.deepcopy(source), f"pandapower network {source.name}".rstrip())
        _solved(network.net, network.title)
        return network
    kind, colon, rest = source.partition(":")
    if colon and kind in ("pandapower", "simbench"):
        network = _from_function(rest) if kind == "pandapower" else _from_simbench(rest)
        _solved(network.net, source)
        return network
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix not in (".json", ".xlsx", ".m", ".mat"):
        raise FeederError(Fault("not a source of a feeder", value=source, allowed=FORMS))
    if not path.is_file():
        raise FeederError(Fault("no such file", source))
    if suffix in (".m", ".mat"):
        net = read_matpower(path, f_hz)
        require_plausible(net, source)
        return Network(net, f"MATPOWER case {path.name}")
    network = Network(_from_file(path), f"pandapower network {path.name}")
    _solved(network.net, source)
    return network


def _solved(net: Any, source: str) -> None:
    if "ext_grid" not in net or not any(row.in_service for row in rows(net, "ext_grid")):
        raise FeederError(Fault("the network has no external grid in service, so no source", source))
    try:
        solve(net)
    except PowerFlowError as error:
        raise FeederError(Fault(str(error), source)) from error


def _from_function(call: str) -> Network:
    with quiet_pandapower():
        import pandapower.networks

        name, _, query = call.partition("?")
        present = _functions(pandapower.networks)
        if name not in present:
            close = get_close_matches(name, present, n=5) or sorted(present)[:_SHOWN]
            raise FeederError(Fault("no such function in pandapower.networks", value=name, allowed=", ".join(close)))
        arguments = {key: _literal(value) for key, value in parse_qsl(query, keep_blank_values=True)}
        try:
            found = present[name](**arguments)
        except (TypeError, ValueError, UserWarning) as error:
            allowed = str(inspect.signature(present[name]))
            raise FeederError(
                Fault(f"pandapower.networks.{name}: {plain(error)}", value=call, allowed=allowed)
            ) from None
    if not hasattr(found, "bus") or "ext_grid" not in found:
        raise FeederError(Fault(f"pandapower.networks.{name} does not give one network", value=call))
    return Network(found, f"pandapower.networks.{call}")


def _functions(module: Any) -> dict[str, Any]:
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__.startswith(module.__name__) and name[0] != "_"
    }


def _literal(text: str) -> Any:
    """A value of a query: a Python literal, else text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _from_simbench(code: str) -> Network:
    with quiet_pandapower():
        import simbench

        codes = simbench.collect_all_simbench_codes()
        if code not in codes:
            close = get_close_matches(code, codes, n=5) or list(codes)[:_SHOWN]
            raise FeederError(Fault("unknown SimBench code", value=code, allowed=", ".join(close)))
        return Network(simbench.get_simbench_net(code), f"SimBench {code}", has_profiles=True)


def _from_file(path: Path) -> Any:
    with quiet_pandapower():
        import pandapower

        read = pandapower.from_json if path.suffix.lower() == ".json" else pandapower.from_excel
        try:
            return read(str(path))
        except Exception as error:
            # Whatever a damaged file does to the JSON and Excel readers.
            raise FeederError(Fault(f"not a pandapower network: {plain(error)}", str(path))) from error
