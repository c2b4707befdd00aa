"""The exception tree, and how a fault in the user's input is described.

CosimError                     everything this project raises on purpose
├── InputError                 the user's input is wrong; carries every fault found (exit code 2)
│   ├── ScenarioError          scenario file, ``--set`` override, link or start entry
│   ├── FeederError            OpenDSS script or ``feeder.yaml``
│   ├── ProfileError           time series of loads and generation, history, replayed recordings
│   ├── BidError               bids, needs and resources of a flexibility market
│   └── SchemeError            coordination scheme: its stages and messages
├── TransportError             MQTT
│   ├── BrokerError            broker refused, unreachable, gone, or TLS/login failed
│   └── SilentSensorError      an announced message did not arrive in time
├── PowerFlowError             the solve did not converge
├── MarketError                a clearing without a plan: its rows contradict each other, or its cost has no bound
│   └── SolverError            a solver is not installed, failed, or found no plan within its time limit
├── ResultError                result file: disk full, not a result file, locked
│   └── ResumeError            an unfinished result file with which its run cannot go on
├── SweepError                 a sweep: scheduler unreachable or lost, folder in use, or some runs failed
├── SimulatorError             a simulator, local or remote, failed or stopped answering
└── Interrupted                the user ended the run (exit code 130)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in the user's input, with all that is needed to mend it."""

    problem: str
    file: str = ""
    line: int | None = None
    key: str = ""
    value: str = ""
    allowed: str = ""

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line is not None else "")
        text = ": ".join(part for part in (place, self.key, self.problem) if part)
        if self.value:
            text += f"; got {self.value}"
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        return text


class CosimError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class InputError(CosimError):
    """Wrong input; ``faults`` holds every fault found, not only the first."""

    exit_code = 2

    def __init__(self, faults: Fault | Sequence[Fault]) -> None:
        self.faults = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class ScenarioError(InputError):
    """The scenario cannot be used."""


class FeederError(InputError):
    """The feeder cannot be used."""


class ProfileError(InputError):
    """A time series cannot be used."""


class BidError(InputError):
    """Bids, needs or resources of a flexibility market cannot be used."""


class SchemeError(InputError):
    """A coordination scheme cannot be used."""


class TransportError(CosimError):
    """Messages could not be exchanged."""


class BrokerError(TransportError):
    """The MQTT broker cannot be reached or refused us."""


class SilentSensorError(TransportError):
    """A message that was announced did not arrive in time."""


class PowerFlowError(CosimError):
    """A power flow did not converge."""


class MarketError(CosimError):
    """A clearing has no plan."""


class SolverError(MarketError):
    """A solver of optimisation problems is missing or gave no answer."""


class ResultError(CosimError):
    """The result file cannot be written or read."""


class ResumeError(ResultError):
    """An unfinished result file cannot be gone on with."""


class SimulatorError(CosimError):
    """A simulator failed, died or stopped answering."""


class SweepError(CosimError):
    """A sweep cannot go on, or some of its runs failed."""


class Interrupted(CosimError):
    """The user ended the run."""

    exit_code = 130
