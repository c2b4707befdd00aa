"""The engines of one case, used again from segment to segment of a run: to compile a circuit is the dearest part of
beginning one.

Nothing of a segment stays in an engine: a state depends on the powers and on the positions of taps, capacitors and
measures alone (`Engine`), an engine that comes back is put to the positions of the scripts, and one in which a solve
failed is not used again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from cosim.grid.engine import Engine
from cosim.grid.measures import Positions
from cosim.grid.unloaded import Unloaded

_NETWORKS_KEPT = 16  # one for each combination of positions


class Engines:
    """Engines that ``make`` makes, all of the same circuit; and the network without its PODs."""

    def __init__(self, make: Callable[[], Engine]) -> None:
        self._make = make
        self._spare: list[Engine] = []
        self._of_networks: list[tuple[Engine, dict[str, Any]]] = []
        self.network = lru_cache(_NETWORKS_KEPT)(self._network)
        """The network without its PODs with taps, capacitors and measures at a position (n_control,), see
        `Engine.control_values`; by default where the scripts have them. Raises FeederError as `Engine.unloaded`."""

    def take(self) -> Engine:
        """An engine as good as new, to be given back."""
        return self._spare.pop() if self._spare else self._make()

    def give_back(self, engine: Engine) -> None:
        """Keeps an engine for the next `take`; one in which a solve failed is closed."""
        if engine.reset():
            self._spare.append(engine)
        else:
            engine.close()

    def allows(self, measures: Positions) -> bool:
        """Whether measures may be at these positions together."""
        return self._network_engine()[0].allows(measures)

    def close(self) -> None:
        """Closes all that are not in use."""
        for engine in (*self._spare, *(engine for engine, _ in self._of_networks)):
            engine.close()
        self._spare.clear()
        self._of_networks.clear()

    def _network(self, position: tuple[float, ...] | None = None) -> Unloaded:
        engine, at_start = self._network_engine()
        return engine.unloaded(at_start if position is None else engine.controls_at(np.array(position)))

    def _network_engine(self) -> tuple[Engine, dict[str, Any]]:
        """The engine that only gives networks, and where the scripts have its controls."""
        if not self._of_networks:
            engine = self._make()
            self._of_networks.append((engine, engine.controls()))
        return self._of_networks[0]
