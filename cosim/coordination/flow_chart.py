"""Who sends what to whom in a scheme, as text and as a Mermaid sequence diagram."""

from __future__ import annotations

from collections.abc import Iterator

from cosim.coordination.flows import GATE, Flow, flows
from cosim.coordination.scheme import Scheme


def flows_as_text(scheme: Scheme) -> str:
    """A line for each kind of message, under what it is said after: the gate, then each stage in its order."""
    found = flows(scheme)
    width = max(len(flow.type) for flow in found)
    lines = [f"scheme {scheme.name}: {scheme.description}", "when the gate closes"]
    lines += [_line(flow, width) for flow in _said_after(found, GATE)]
    for name, stage in scheme.stages.items():
        again = f", then back to {stage.repeat.back_to} until nothing new is cut" if stage.repeat is not None else ""
        lines.append(f"{stage.solver} clears {name}{again}")
        lines += [_line(flow, width) for flow in _said_after(found, name)]
    return "\n".join(lines)


def flows_as_mermaid(scheme: Scheme) -> str:
    """A sequence diagram, stages as notes over who clears them."""
    found = flows(scheme)
    roles = dict.fromkeys(role for flow in found for role in (flow.sender, flow.receiver))
    lines = ["sequenceDiagram", *(f"    participant {role}" for role in roles)]
    lines += [_arrow(flow) for flow in _said_after(found, GATE)]
    for name, stage in scheme.stages.items():
        lines.append(f"    Note over {stage.solver}: {name}")
        lines += [_arrow(flow) for flow in _said_after(found, name)]
        if stage.repeat is not None:
            lines.append(f"    Note over {stage.solver}: back to {stage.repeat.back_to} until nothing new is cut")
    return "\n".join(lines)


def _said_after(found: tuple[Flow, ...], source: str) -> Iterator[Flow]:
    return (flow for flow in found if flow.source == source)


def _line(flow: Flow, width: int) -> str:
    use = f"  for {flow.target}" if flow.target else ""
    return f"  {flow.sender} --> {flow.receiver}  {flow.type:<{width}}{use}".rstrip()


def _arrow(flow: Flow) -> str:
    use = f" for {flow.target}" if flow.target else ""
    return f"    {flow.sender}->>{flow.receiver}: {flow.type}{use}"
