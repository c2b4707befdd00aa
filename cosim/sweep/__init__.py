"""Sweeps: many runs of one scenario, on the processes of this machine or on any Dask scheduler."""
