"""Checkpoints within a result file: two slots written in turn, so that one is whole whenever the writer dies.

A slot is a row of bytes: length of the payload, its SHA-256, the payload. That is a line of JSON (steps and events in
the file by then) and the text that the run gave. See ``docs/decisions/0013-checkpoints.md``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

import h5py
import numpy as np

from cosim.io.layout import CHECKPOINT

SLOTS = ("even", "odd")
_HEAD_BYTES = 8 + 32
_ROOM_BYTES = 1 << 16  # a slot grows by this


@dataclass(frozen=True)
class Checkpoint:
    """``step``: number of steps that are complete; ``rows``: events recorded by then, by ``simulator/table``;
    ``text``: all that lasts, as the run wrote it."""

    step: int
    rows: Mapping[str, int]
    text: str


def create_slots(file: h5py.File) -> None:
    """Adds two empty slots to a result file."""
    group = file.create_group(CHECKPOINT)
    group.attrs["long_name"] = "state of all simulators to go on from"
    for name in SLOTS:
        group.create_dataset(name, (0,), np.uint8, maxshape=(None,), chunks=(_ROOM_BYTES,))


def write_checkpoint(file: h5py.File, checkpoint: Checkpoint, slot: int) -> None:
    """Fills a slot (0 or 1) and has the operating system put the file onto the disk. The other slot stays."""
    dataset, framed = file[CHECKPOINT][SLOTS[slot]], _framed(checkpoint)
    room = -(-len(framed) // _ROOM_BYTES) * _ROOM_BYTES
    if room > len(dataset):
        dataset.resize(room, axis=0)
    dataset[: len(framed)] = np.frombuffer(framed, np.uint8)
    file.flush()
    os.fsync(file.id.get_vfd_handle())


def checkpoint_bytes(checkpoint: Checkpoint) -> int:
    """Bytes that `write_checkpoint` may add to the file [byte]."""
    return len(_framed(checkpoint)) + 2 * _ROOM_BYTES


def read_checkpoints(file: h5py.File) -> dict[int, Checkpoint]:
    """The checkpoints of a result file by slot: none, one or two."""
    found = {slot: _read(file, name) for slot, name in enumerate(SLOTS)}
    return {slot: checkpoint for slot, checkpoint in found.items() if checkpoint is not None}


def _framed(checkpoint: Checkpoint) -> bytes:
    head = json.dumps({"step": checkpoint.step, "rows": dict(checkpoint.rows)})
    payload = f"{head}\n{checkpoint.text}".encode()
    return len(payload).to_bytes(8, "little") + hashlib.sha256(payload).digest() + payload


def _read(file: h5py.File, name: str) -> Checkpoint | None:
    """A checkpoint, unless its slot is empty, or its writer died over it."""
    try:
        slot = file[CHECKPOINT][name][:].tobytes()
    except (KeyError, OSError, RuntimeError):
        return None
    payload = slot[_HEAD_BYTES : _HEAD_BYTES + int.from_bytes(slot[:8], "little")]
    if hashlib.sha256(payload).digest() != slot[8:_HEAD_BYTES]:
        return None
    head, _, text = payload.decode().partition("\n")
    return Checkpoint(**json.loads(head), text=text)
