"""What the system above the feeder is like in the MTU for which a gate closes, and what all parties know of it."""

from __future__ import annotations

from dataclasses import replace

from cosim.case import Case
from cosim.coordination.case import Rules
from cosim.coordination.transmission import rules_of
from cosim.market.session import limit_settings
from cosim.scenario.coordination import InterfaceConfig


def next_mtu(case: Case, t_s: int) -> int | None:
    """The beginning [s] of the MTU for which the gate closes with the step at ``t_s``; None if none does."""
    return next((begin_s for begin_s, n_mtu in case.gates(t_s) if n_mtu == 1), None)


def interfaces(case: Case) -> dict[str, str]:
    """The bus of transmission where the feeder hangs."""
    assert case.transmission is not None
    return dict(case.transmission.interfaces(case.area))


def agreed(case: Case) -> InterfaceConfig:
    """What operators agree on about it."""
    assert case.scenario.coordination is not None
    return case.scenario.coordination.interface


def rules(case: Case) -> Rules:
    """What all parties know."""
    return replace(rules_of(case.scenario.transmission), limits=limit_settings(case.market_config))
