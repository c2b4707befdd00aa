"""Brings networks of other tools into feeder folders. Needs pandapower, which no other room imports."""

from cosim.importers.importing import import_feeder
from cosim.importers.result import Check, Imported, Left

__all__ = ["Check", "Imported", "Left", "import_feeder"]
