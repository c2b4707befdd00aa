"""``python -m simulators NAME HOST:PORT``: one of our simulators as a process of its own, connecting to mosaik."""

from __future__ import annotations

import importlib
import sys

import mosaik_api_v3

from cosim.wiring import CLASSES
from simulators.lifeline import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    name = sys.argv.pop(1)
    module, _, class_name = CLASSES[name].partition(":")
    mosaik_api_v3.start_simulation(getattr(importlib.import_module(module), class_name)())
