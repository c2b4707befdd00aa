"""The composition root: from a case to a mosaik world of guarded simulators (the only import of mosaik)."""
