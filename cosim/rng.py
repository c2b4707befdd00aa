"""Named random streams: the only source of randomness.

A stream is a counter-based Philox generator whose key is the hash of (seed, name...). Streams are independent of
each other and of the order of use, so adding a simulator, reordering steps or resuming a run moves no other stream.
Give the step index as part of the name: then there is no generator state to save.
"""

from __future__ import annotations

import hashlib

import numpy as np


def rng_for(seed: int, *name: str | int) -> np.random.Generator:
    """The generator of the stream ``name`` under ``seed``, always in its initial state."""
    return np.random.Generator(np.random.Philox(key=np.frombuffer(_digest(seed, name), dtype=np.uint64)))


def seed_for(seed: int, *name: str | int) -> int:
    """A 31-bit seed of the stream ``name``, for libraries that only take an integer."""
    return int.from_bytes(_digest(seed, name)[:4], "little") >> 1


def _digest(seed: int, name: tuple[str | int, ...]) -> bytes:
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in name)])
    return hashlib.sha256(text.encode()).digest()[:16]
