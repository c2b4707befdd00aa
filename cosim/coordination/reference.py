"""docs/coordination.md: ``python -m cosim.coordination.reference > docs/coordination.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from cosim.coordination.case_file import CaseFile
from cosim.coordination.catalogue import load_scheme, shipped
from cosim.coordination.classify import classify
from cosim.coordination.scheme import Scheme
from cosim.scenario.reference import sections

_INTRODUCTION = """# Coordination reference

Generated from `cosim/coordination/` by `python -m cosim.coordination.reference > docs/coordination.md`; do not edit.

    cosim clear scenarios/cases/t1_ring.yaml --scheme smartnet_local --need-mw 5
    cosim schemes

[compare_schemes.md](compare_schemes.md) compares all of them on the same week of a feeder.

A *case* is one market time unit of one system: transmission, areas of distribution below it, resources and their
offers. A *scheme* says who clears what, with what, in which order, and what crosses between the parties. A file added
to `cosim/coordination/schemes/`, or given by its path, is a scheme; none is known to the code by name. Both kinds of
files may `extend` others, and are refused with all faults at once.

How a scheme runs: every party (DSO of each area, TSO, market operator IMO, sellers AGG, buyers BRP) holds what it knows
of its own. Messages are all that it learns. It clears a stage as soon as all has arrived that the stage waits for: bids
and networks at the gate, outcomes of the stages that it `uses`. What a party says that is not declared ends the run.

- **The network counts where the solver has it**: its own, or sent to it (`network: TD` makes the DSO send its model and
  state). A solver without it takes 1 kW at a POD for 1 kW at the interface.
- **A balance always has a plan**: what is short or too much is bought at the price of a shortage, limits that cannot be
  met are exceeded at the price of a violation, no limit by more than before the stage. Both are reported, never hidden.
- **Awards of earlier stages** stay; a bid is never awarded more than it offers in all stages. `exclude` and `reversal`
  say what else of an awarded resource is out.
- **Bids of distribution** reach a solver without their network `raw`, within `caps` (safe whatever combination is
  taken), as a `curve` of least cost over the interface (exact for divisible bids), or `validated` pick by pick.

## In a run

    cosim run scenarios/dso_priority.yaml
    cosim graph scenarios/dso_priority.yaml --set coordination.scheme=givisiez_hybrid
    python scenarios/compare_schemes.py

`coordination: {scheme: NAME}` in a scenario with a market puts the scheme into the chain, with the system above the
feeder as `transmission:` describes it ([scenario.md](scenario.md)). The run's feeder is the one area. Parties are
simulators of their own: `aggregator` (sells at distribution), `generators` (sell at transmission), `brp`, `dso`, `tso`
and `imo`; only those that the scheme names run, and links exist only where it lets a message cross. The last step of
an MTU closes the gate for the next: whoever has something to say when the gate closes says it, then `dso`, `tso` and
`imo` answer each other within the step until all stages are cleared. Awards reach sellers one step later.

Schemes that prequalify (`prequalified: true`) list what the network can take in all `coordination.snapshots`, instants
of the profiles such as those of the highest load and of the highest generation; a limit that is violated in one lets
nothing through that makes it worse. Without snapshots all that is registered is on the list.

Every message is recorded with time, sender, receiver, type, stage, round, size and hash, and so is what each stage
came to ([hdf5_layout.md](hdf5_layout.md)). The same parties run without simulators in `coordinate()`: a test compares
both, award by award.

The network is linear around the schedule of each MTU, in which nothing is bought yet; limits hold for all forecast
errors of `market.uncertainty`. Power flows decide only afterwards, in OpenDSS: what is left violated there is in the
report with its cause. Of the transmission operator's need nothing is lost or invented: it is drawn from the seed alone
or read from a file, so that runs under different schemes see the same need.
"""


def coordination_reference() -> str:
    """The Markdown text: what there is, then every key of both kinds of files."""
    return "\n".join(
        [
            _INTRODUCTION,
            *_catalogue(),
            "# Case files\n",
            *sections(CaseFile),
            "# Scheme files\n",
            *sections(Scheme),
        ]
    )


def _catalogue() -> Iterator[str]:
    yield "## Schemes\n\n| scheme | class | stages (who clears) | what it is |\n|---|---|---|---|"
    for name in shipped():
        scheme = load_scheme(name)
        stages = ", ".join(f"{stage} ({each.solver})" for stage, each in scheme.stages.items())
        yield f"| `{name}` | {classify(scheme).name} | {stages} | {scheme.description} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(coordination_reference())
