"""A foreign simulator that takes much memory."""

from __future__ import annotations

import time as wall

import numpy as np
from foreign.odd import Odd

_GIB = 2**30


class Greedy(Odd):
    """``fault: eat``: holds 3 GiB and does not go on."""

    def _eat(self, time):
        self.eaten = [np.ones(_GIB // 8) for _ in range(3)]
        wall.sleep(60.0)
