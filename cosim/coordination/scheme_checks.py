"""Why a list of stages cannot be a scheme."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from cosim.coordination.flows import flows
from cosim.coordination.scheme import CURVES, SERVES, Scheme, Stage
from cosim.errors import Fault

_ADMITTED_BY = {"caps": ("caps",), "curve": CURVES, "validated": ("validate",)}
_INTERFACE = ("hold", "band", "target", "priced")


def scheme_faults(scheme: Scheme) -> Iterator[Fault]:
    """All faults of a scheme, at keys of its file."""
    for name, stage in scheme.stages.items():
        key = f"stages.{name}"
        yield from _role_faults(key, stage)
        yield from _use_faults(scheme, key, name, stage)
        yield from _admission_faults(scheme, key, stage)
        yield from _repeat_faults(scheme, key, name, stage)
    yield from _message_faults(scheme)


def _role_faults(key: str, stage: Stage) -> Iterator[Fault]:
    """What a solver cannot do with what it has, or a stage with its objective."""
    if stage.solver == "DSO" and (stage.joint or stage.resources != "D"):
        problem = "a network operator (DSO) clears its own resources and network only, not transmission or the system"
        yield Fault(problem, key=key, allowed="resources D, network none or D, balance other than system")
    if stage.joint and stage.balance in _INTERFACE:
        problem = f"balance {stage.balance} is of the interface of one area: no transmission in the same stage"
        yield Fault(problem, key=f"{key}.balance", value=stage.balance, allowed="none, system")
    if not stage.joint and not stage.knows_distribution:
        yield Fault("needs the network of distribution: where its resources are", key=f"{key}.network", value="none")
    if stage.objective in SERVES and (stage.joint or stage.balance != "none" or "D" not in stage.network):
        problem = f"objective {stage.objective} asks what the network of an area allows"
        yield Fault(problem, key=f"{key}.objective", allowed="resources D, network D, balance none")
    if stage.objective in SERVES and stage.lock:
        yield Fault(f"objective {stage.objective} awards nothing that could bind", key=f"{key}.lock", allowed="false")
    if stage.awards and not stage.buyers:
        yield Fault("a stage that buys needs a buyer", key=f"{key}.buyers", allowed="DSO, TSO, BRP")
    if "BRP" in stage.buyers and not (stage.solver == "IMO" and stage.objective == "welfare"):
        yield Fault("balance responsible parties buy where welfare is cleared by the IMO", key=f"{key}.buyers")
    if stage.fallback is not None and stage.balance not in _INTERFACE:
        yield Fault("only a balance at the interface can be given up", key=f"{key}.fallback", value=stage.balance)
    if stage.commodity == "Q" and not (
        stage.admit == "curve" or stage.objective in CURVES or stage.balance == "target"
    ):
        yield Fault("reactive power crosses the interface as a curve or a target", key=f"{key}.commodity")


def _use_faults(scheme: Scheme, key: str, name: str, stage: Stage) -> Iterator[Fault]:
    for k, used in enumerate(stage.uses):
        at = f"{key}.uses.{k}"
        if used not in scheme.stages:
            close = get_close_matches(used, scheme.stages, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            yield Fault(f"unknown stage{hint}", key=at, value=used, allowed=", ".join(scheme.stages))
        elif scheme.position[used] >= scheme.position[name] and not scheme.in_cycle(name, used):
            problem = f"stages {name} and {used} wait for each other and never end"
            allowed = "an earlier stage, or a later one with a repeat that goes back"
            yield Fault(problem if used != name else f"stage {name} waits for itself", key=at, allowed=allowed)
        elif stage.objective in CURVES and stage.commodity == "P" and scheme.stages[used].solver != stage.solver:
            problem = "a curve begins where the solver's own awards end: it cannot take in those of another"
            yield Fault(problem, key=at, value=used)
    if stage.balance == "target" and not any(_admits_curve(scheme, used) for used in stage.uses):
        problem = "a target comes from a stage that bought on a curve: name it in uses"
        yield Fault(problem, key=f"{key}.uses", allowed=", ".join(s for s in scheme.stages if _admits_curve(scheme, s)))


def _admits_curve(scheme: Scheme, name: str) -> bool:
    return name in scheme.stages and scheme.stages[name].admit == "curve"


def _admission_faults(scheme: Scheme, key: str, stage: Stage) -> Iterator[Fault]:
    if stage.admit == "raw":
        return
    if stage.solver == "DSO" or "D" not in stage.resources:
        problem = f"admit: {stage.admit} is for bids of distribution in a stage of another solver"
        yield Fault(problem, key=f"{key}.admit", value=stage.admit, allowed="raw")
        return
    wanted = _ADMITTED_BY[stage.admit]
    fitting = [name for name, other in scheme.stages.items() if other.objective in wanted]
    if not set(stage.uses) & set(fitting):
        problem = f"admit: {stage.admit} needs a stage with objective {' or '.join(wanted)} in uses"
        yield Fault(problem, key=f"{key}.uses", value=", ".join(stage.uses), allowed=", ".join(fitting) or "none here")
    if stage.admit == "curve":
        told = [s for s in stage.uses if s in scheme.stages and scheme.stages[s].awards and s not in fitting]
        told = [s for s in told if scheme.stages[s].resources == "D"]
        if told:
            problem = f"the curve tells already what {', '.join(told)} changed at the interface"
            yield Fault(problem, key=f"{key}.uses", value=", ".join(stage.uses))


def _repeat_faults(scheme: Scheme, key: str, name: str, stage: Stage) -> Iterator[Fault]:
    repeat = stage.repeat
    if repeat is None:
        return
    at = f"{key}.repeat.back_to"
    start = scheme.stages.get(repeat.back_to)
    if start is None:
        yield Fault("unknown stage", key=at, value=repeat.back_to, allowed=", ".join(scheme.stages))
    elif scheme.position[repeat.back_to] >= scheme.position[name]:
        yield Fault("a repeat goes back to an earlier stage", key=at, value=repeat.back_to)
    elif stage.objective != "validate":
        yield Fault(
            "the cycle never ends: its last stage cuts nothing, so there is always no or always the same cut",
            key=f"{key}.repeat",
            allowed="a stage with objective validate",
        )
    elif name not in start.uses or repeat.back_to not in stage.uses:
        problem = f"the cycle never ends: {repeat.back_to} and {name} do not use each other's outcome"
        yield Fault(problem, key=f"{key}.repeat", value=repeat.back_to)


def _message_faults(scheme: Scheme) -> Iterator[Fault]:
    """What is declared to cross must be what the stages need."""
    implied = {(flow.type, flow.sender, flow.receiver): flow for flow in flows(scheme)}
    for missing in sorted(implied.keys() - scheme.declared):
        flow = implied[missing]
        problem = f"stage {flow.target or flow.source} needs {flow.type} to cross, which is not declared"
        yield Fault(problem, key=f"messages.{flow.sender} to {flow.receiver}")
    for kind, sender, receiver in sorted(scheme.declared - implied.keys()):
        yield Fault("no stage sends this", key=f"messages.{sender} to {receiver}", value=kind)
