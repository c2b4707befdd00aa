"""The scheme that coordinates network operator (DSO) and transmission operator (TSO) in a run."""

from __future__ import annotations

from pydantic import Field

from cosim.scenario.values import Instant, NonNegative, Number, Part, Switch


class InterfaceConfig(Part):
    """What operators agree on ahead about the exchange between their networks."""

    change_kw: Number = Field(0.0, description="agreed change of the feeder's export from its forecast [kW]")
    tolerance_kw: NonNegative = Field(0.0, description="by which it may miss that [kW]")
    price_eur_per_kwh: Number | None = Field(
        None, description="what its export is worth; for schemes with a price of the interface"
    )


class CoordinationConfig(Part):
    """Who clears which resources in which order, every MTU."""

    scheme: str = Field(description="a scheme by name (`cosim schemes`), or a YAML file relative to the scenario file")
    interface: InterfaceConfig = Field(InterfaceConfig(), description="what is agreed about the interface")
    same_aggregator: Switch = Field(
        True, description="whether all resources at a POD have one aggregator, for local and for global services"
    )
    snapshots: tuple[Instant, ...] = Field(
        (),
        description="instants whose profiles prequalification looks at, e.g. those of the highest load and of the "
        "highest generation: schemes that prequalify list no more of a resource than the network can take in all of "
        "them; default: all that is registered",
    )
    tso_perimeter: str = Field("", description="TSO perimeter in which all DSO perimeters of the feeder lie")
