"""What kind of coordination a list of stages is, after the four layers of the project CoordiNet (deliverable D1.3):
whose need is served, who buys, in one market or several, and whether the transmission operator reaches resources at
distribution."""

from __future__ import annotations

from dataclasses import dataclass

from cosim.coordination.scheme import Scheme


@dataclass(frozen=True)
class SchemeClass:
    """``name`` of the class, and the layers it comes from."""

    name: str
    need: str
    buyers: str
    markets: str
    tso_reaches_distribution: bool


def classify(scheme: Scheme) -> SchemeClass:
    """The class of a scheme, from its stages alone."""
    markets = [stage for stage in scheme.stages.values() if stage.awards and stage.lock and stage.balance != "target"]
    buyers = {buyer for stage in markets for buyer in stage.buyers}
    central = [stage for stage in scheme.stages.values() if stage.awards and "TSO" in stage.buyers and stage.joint]
    reaches = any("D" in stage.resources for stage in central)
    common = [stage for stage in markets if {"DSO", "TSO"} <= set(stage.buyers)]
    serving = [stage for stage in scheme.stages.values() if stage.solver == "DSO"]
    if "BRP" in buyers:
        name = "Integrated"
    elif buyers == {"DSO"}:
        name = "Local"
    elif common:
        in_steps = any(stage.commodity == "Q" for stage in scheme.stages.values())
        decomposed = any(stage.admit == "curve" for stage in common)
        name = "Common, P then Q" if in_steps else "Common (decomposed)" if decomposed else "Common"
    elif not reaches:
        name = "Fragmented"
    elif not serving:
        sees = any("D" in stage.network for stage in central)
        name = "Central with grid view" if sees else "Central"
    else:
        name = "Multi-level, TSO first" if markets[0].buyers == ("TSO",) and "DSO" in buyers else "Multi-level"
    single = len(common) > 0 or (len(markets) == 1 and not serving) or buyers == {"DSO"}
    need = "both" if {"DSO", "TSO"} <= buyers else "local" if buyers == {"DSO"} else "central"
    return SchemeClass(name, need, "+".join(sorted(buyers)), "single" if single else "multi", reaches)


def grid_safe(scheme: Scheme) -> bool:
    """Whether no stage can overload distribution unseen: all that buy there have its network before them, or bids that
    its operator has limited."""
    stages = [stage for stage in scheme.stages.values() if stage.awards and stage.lock and "D" in stage.resources]
    return all("D" in stage.network or stage.admit != "raw" for stage in stages)
