"""Thin mosaik adapters, one file per actor, all of the shape of `_base.Adapter`; the physics is in `cosim`."""
