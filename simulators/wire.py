"""The one form in which values cross a process boundary: plain JSON, floats bit for bit.

In one process arrays and messages of parties pass by reference (nobody changes them); a remote mosaik link is JSON,
which knows neither.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from cosim.coordination.messages import Message, message_from_plain, message_to_plain

_ARRAY, _MESSAGE = "__array__", "__message__"


def encode(value: Any) -> Any:
    """``value`` with every array as ``{"__array__": [dtype, shape, base64 of its bytes]}``, every message as
    ``{"__message__": its plain form}``."""
    if isinstance(value, np.ndarray):
        return {_ARRAY: [value.dtype.str, list(value.shape), base64.b64encode(value.tobytes()).decode()]}
    if isinstance(value, Message):
        return {_MESSAGE: encode(message_to_plain(value))}
    if isinstance(value, dict):
        return {key: encode(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [encode(entry) for entry in value]
    return value


def decode(value: Any) -> Any:
    """The inverse of `encode`; arrays come back read-only, tuples as lists."""
    if isinstance(value, dict):
        if _ARRAY in value:
            dtype, shape, text = value[_ARRAY]
            return np.frombuffer(base64.b64decode(text), dtype=dtype).reshape(shape)
        if _MESSAGE in value:
            return message_from_plain(decode(value[_MESSAGE]))
        return {key: decode(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [decode(entry) for entry in value]
    return value
