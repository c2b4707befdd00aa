"""Violations that are left although there is a market: what was planned, what happened, and why."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pandas as pd

from cosim.domain.site import bus_of_site
from cosim.report.behind import buses_behind
from cosim.report.causes import Circumstances, Delivery, Residual, Rules, Slack, residuals
from cosim.report.market_run import MarketRun, keeps_limits
from cosim.report.reading import WITH


def violations_left(run: MarketRun) -> tuple[Residual, ...]:
    """A row for each MTU with violations in spite of the market: the worst of it and its cause."""
    if run.left.empty:
        return ()
    worst = run.left.loc[run.left.groupby("mtu")["excess_percent"].idxmax()]
    around = _Around(run)
    return residuals(
        [around.violation({str(k): v for k, v in row.items()}) for row in worst.to_dict("records")], rules_of(run)
    )


def rules_of(run: MarketRun) -> Rules:
    """What the market plans for."""
    given, config = run.uncertainty, run.config
    loose = {"ends: first": config.get("ends") == "first", "outer_loop: false": config.get("outer_loop") is False}
    names = ("gamma", "omega", "correlation", "common")
    return Rules(
        errors=str(given.get("set", "box")),
        with_active=given.get("reactive") == "with_active",
        overload=float(config.get("overload", 0.0)),
        loose=tuple(setting for setting, is_so in loose.items() if is_so),
        served=keeps_limits(run.scheme),
        **{name: float(given[name]) for name in names if name in given},
    )


_ORDERED = "dso/measure/position"


class _Around:
    """What was planned and what happened in a step."""

    def __init__(self, run: MarketRun) -> None:
        self._run = run
        self._site_of: dict[str, str] = run.reading.json("pod_sites") or {}
        self._behind = lru_cache(self._pods_behind)

    def violation(self, row: dict[str, Any]) -> Circumstances:
        run, mtu = self._run, int(row["mtu"])
        step = min(int(row["t_s"] // run.reading.step_s), run.reading.steps - 1)
        errors = None if run.errors is None else run.errors.at(step)
        deliveries = self._deliveries(mtu, step)
        behind = self._behind(str(row["element"]), int(row["phase"])) if row["quantity"] == "i_a" else None
        return Circumstances(
            t_s=mtu * run.mtu_s,
            element=str(row["element"]),
            quantity=str(row["quantity"]),
            excess=float(row["excess"]),
            limit=float(row["limit"]),
            unsolved=self._slack(mtu),
            errors=errors,
            no_session="first MTU of the run" if mtu == 0 else "no gate in real time",
            foreseen=bool((run.needs["mtu"] == mtu).any()),
            deliveries=deliveries,
            off_kw=() if errors is None else self._off_kw(step, deliveries),
            unseen_kw=self._unseen_kw(mtu),
            worst_percent=self._worst_percent(mtu, str(row["element"])),
            moved=() if errors is None else self._moved(mtu, step),
            behind=behind,
            toward=self._toward(row, behind, step),
        )

    def _slack(self, mtu: int) -> tuple[Slack, ...]:
        rows = self._run.left_by_plan[self._run.left_by_plan["mtu"] == mtu]
        excess = zip(rows["kind"], rows["element"], rows["excess"] / rows["limit"], strict=True) if len(rows) else ()
        return tuple(Slack(str(kind), str(element), 100.0 * share) for kind, element, share in excess)

    def _deliveries(self, mtu: int, step: int) -> tuple[Delivery, ...]:
        run = self._run
        rows = run.activations[run.activations["mtu"] == mtu]
        reached = dict(zip(rows["resource"], rows["reached"], strict=True)) if len(rows) else {}
        found = []
        for k, (name, pod) in enumerate(run.pod_of.items()):
            if name in reached:
                ordered_kw, planned = (
                    float(run.ordered_kw[mtu, k]),
                    (run.entry(name).get("delivery") or {}).get("planned", 0.0),
                )
                missing_kw = float(run.missing_kw[step, k])
                found.append(
                    Delivery(name, pod, ordered_kw, missing_kw, abs(ordered_kw) * float(planned), bool(reached[name]))
                )
        return tuple(found)

    def _off_kw(self, step: int, deliveries: tuple[Delivery, ...]) -> tuple[tuple[str, float], ...]:
        """By POD, what resources add over what is planned but for what activations are off."""
        over_kw = self._run.values("aggregator/pod/p_kw")[step] - self._run.values("aggregator/pod/planned_p_kw")[step]
        off = dict(zip(self._run.pods, over_kw.tolist(), strict=True))
        for each in deliveries:
            off[each.pod] -= each.off_kw
        return tuple((pod, kw) for pod, kw in off.items() if kw != 0.0)

    def _unseen_kw(self, mtu: int) -> tuple[tuple[str, float], ...]:
        """By POD, what stages that do not know the network bought (consumption > 0)."""
        parts = self._run.unseen
        own = parts[parts["mtu"] == mtu]
        return tuple((str(pod), float(kw)) for pod, kw in own.groupby("pod")["change_kw"].sum().items())

    def _worst_percent(self, mtu: int, element: str) -> float:
        """Where the schedule takes an element, of the limit that it breaks most; NaN where no need was found."""
        needs, place = self._run.needs, element.partition("@")[0]
        rows = needs[needs["mtu"] == mtu]
        if rows.empty:
            return float("nan")
        at = rows["element"].str.partition("@")[0] if "@" in element else rows["element"].str.rpartition(".")[0]
        percent = (100.0 * rows["worst"] / rows["limit"])[at == place].to_numpy(dtype=np.float64)
        return float(percent[np.abs(percent - 100.0).argmax()]) if percent.size else float("nan")

    def _moved(self, mtu: int, step: int) -> tuple[str, ...]:
        """Controls that are not where they were at the gate, or where the operator ordered its measures there to be."""
        positions, gate = self._run.frame(f"{WITH}/control/position"), self._run.gate_step(mtu)
        planned = dict(zip(positions.columns, positions.to_numpy()[gate].tolist(), strict=True))
        if self._run.reading.has(_ORDERED):
            ordered = self._run.frame(_ORDERED)
            planned |= zip(ordered.columns, ordered.to_numpy()[gate].tolist(), strict=True)
        moved = zip(planned.items(), positions.to_numpy()[step].tolist(), strict=True)
        return tuple(f"{name} {before:g} -> {now:g}" for (name, before), now in moved if before != now)

    def _pods_behind(self, terminal: str, phase: int) -> frozenset[str] | None:
        """PODs that draw their power through a branch, of the phase where it is not a transformer, which mixes them;
        None where that cannot be told."""
        branch, head = terminal.partition("@")[0], self._head_bus
        _, currents = next(self._run.reading.blocks(f"{WITH}/terminal/i_a"), (0, pd.DataFrame()))
        if head is None or currents.empty:
            return None
        in_service = currents.columns[np.nanmax(currents.to_numpy(), axis=0, initial=0.0) > 0.0]
        buses = buses_behind(in_service, branch, head)
        mixed = branch.startswith("Transformer.")
        found = {
            pod
            for pod, site in self._site_of.items()
            if bus_of_site(site) in buses and (mixed or _has_phase(site, phase))
        }
        return frozenset(found) or None

    @cached_property
    def _head_bus(self) -> str | None:
        """The bus at which the head's power is counted: that of the terminal with the same course."""
        first, terminals = next(self._run.reading.blocks(f"{WITH}/terminal/p_kw"), (0, pd.DataFrame()))
        head = self._run.values(f"{WITH}/head/p_kw")[first : first + len(terminals)]
        solved = np.isfinite(head).all(axis=1)
        if terminals.empty or not solved.any():
            return None
        same = np.flatnonzero((terminals.to_numpy()[solved] == head[solved, :1]).all(axis=0))
        return str(terminals.columns[same[0]]).partition("@")[2] if len(same) else None

    def _toward(self, row: dict[str, Any], behind: frozenset[str] | None, step: int) -> tuple[float, float] | None:
        """What more consumption does to a voltage, or to a current by the direction of the power that it carries."""
        if row["quantity"] == "vm_pu":
            return (1.0, 1.0) if row["value"] < row["limit"] else (-1.0, -1.0)
        if behind is None:
            return None
        at = [k for k, pod in enumerate(self._run.pods) if pod in behind]
        p_kw, q_kvar = (float(self._run.values(f"{WITH}/pod/{q}")[step, at].sum()) for q in ("p_kw", "q_kvar"))
        size = float(np.hypot(p_kw, q_kvar))
        return (p_kw / size, q_kvar / size) if size > 0.0 else None


def _has_phase(site: str, phase: int) -> bool:
    phases = site.split(".")[1:]
    return not phases or str(phase) in phases
