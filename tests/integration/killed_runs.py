"""``python killed_runs.py RESULT.h5 SCENARIO SEED KILLS OVERRIDES``: runs a scenario that is killed again and again.

Each time the run is begun, or goes on, in a child process, which dies of SIGKILL or of a timer at a moment drawn from
the seed: at any time, within a step, within a flush, within the writing of a checkpoint, while an earlier file is taken
over. A run that gets to its end before that is moved aside and begun anew. Prints a line of JSON for each child.

Children are forked: to import everything again would take longer than the runs.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cosim.io.store as store
from cosim import load_scenario, open_results, resume, run
from cosim.errors import ResultError

MODES = ("time", "step", "flush", "checkpoint", "takeover")


def main(result: Path, scenario: str, seed: int, kills: int, overrides: list[str]) -> None:
    chance, finished = random.Random(seed), 0
    for kill in range(kills + 1):
        mode = MODES[kill % len(MODES)] if kill < kills else "never"
        while True:
            status = _child(result, scenario, overrides, mode, chance)
            print(json.dumps({"mode": mode, "killed_by": status, **_state(result)}), flush=True)
            if status == 0:
                result.replace(result.with_name(f"finished{finished}.h5"))
                finished += 1
            if status != 0 or mode == "never":
                break


def _child(result: Path, scenario: str, overrides: list[str], mode: str, chance: random.Random) -> int:
    """The signal by which a child died; 0 if it got to the end."""
    drawn = chance.random()
    pid = os.fork()
    if pid == 0:
        try:
            _prepare(mode, random.Random(drawn))
            _go_on(result, scenario, overrides)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    if mode == "time":
        time.sleep(0.5 + 1.5 * drawn)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _go_on(result: Path, scenario: str, overrides: list[str]) -> None:
    if result.exists():
        resume(result)
    else:
        run(load_scenario(scenario, overrides), result)


def _state(result: Path) -> dict[str, Any]:
    if not result.exists():
        return {"steps": None, "checkpoint": None}
    try:
        with open_results(result) as results:
            checkpoint = results.checkpoint()
            return {"steps": len(results.time), "checkpoint": None if checkpoint is None else checkpoint.step}
    except ResultError as error:
        return {"steps": str(error), "checkpoint": None}


def _prepare(mode: str, chance: random.Random) -> None:
    """Has this process die within a call of the writer: at once, or by a timer that does not care where it is."""
    if mode == "step":
        _dies_in("ResultWriter", "write", chance.randrange(200, 1500), chance)
    elif mode == "flush":
        _dies_in("ResultWriter", "_flush", chance.randrange(1, 6), chance, within_s=0.004)
    elif mode == "checkpoint":
        _dies_in(None, "write_checkpoint", chance.randrange(1, 4), chance, within_s=0.002)
    elif mode == "takeover":
        _dies_in("ResultWriter", "_take_over", 1, chance, within_s=0.03)


def _dies_in(owner: str | None, name: str, at_call: int, chance: random.Random, within_s: float = 0.0) -> None:
    place: Any = store if owner is None else getattr(store, owner)
    original: Callable[..., Any] = getattr(place, name)
    seen = 0

    def call(*arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == at_call:
            if within_s == 0.0:
                os.kill(os.getpid(), signal.SIGKILL)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, within_s))
        return original(*arguments)

    setattr(place, name, call)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), json.loads(sys.argv[5]))
