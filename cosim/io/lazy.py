"""Signals of result files as xarray variables of which nothing is read before it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from cosim.errors import ResultError
from cosim.io.disk import reason
from cosim.io.results import ModelLayout, hdf5_file, suggested

Part = int | slice | npt.NDArray[np.int64]
"""What is asked for along one axis."""


class StoredSignal(BackendArray):
    """Values of a signal, (n_time, n_element) of a single file, or with ``stacked`` (n_run, n_time, n_element) of
    several; a file is open only while it is read."""

    def __init__(
        self, paths: Sequence[Path], name: str, shape: tuple[int, int], dtype: np.dtype[Any], stacked: bool
    ) -> None:
        self._paths, self._name, self._stacked = tuple(paths), name, stacked
        self.shape = (len(self._paths), *shape) if stacked else shape
        self.dtype = dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Part, ...]) -> npt.NDArray[Any]:
        if not self._stacked:
            return self._of(self._paths[0], key)
        run, *rest = key
        if isinstance(run, int | np.integer):
            return self._of(self._paths[run], tuple(rest))
        chosen = np.arange(len(self._paths))[run]
        if not chosen.size:
            nothing = np.broadcast_to(np.zeros((), self.dtype), self.shape[1:])
            return _picked(nothing, tuple(rest), self.shape[1:])[np.newaxis][:0]
        return np.stack([self._of(self._paths[number], tuple(rest)) for number in chosen])

    def _of(self, path: Path, key: tuple[Part, ...]) -> npt.NDArray[Any]:
        try:
            with hdf5_file(path) as file:
                return _picked(file[self._name], key, self.shape[-2:])
        except (KeyError, OSError, RuntimeError) as error:
            raise ResultError(f"{path}: cannot be read: {reason(error)}") from error


def _picked(values: h5py.Dataset | npt.NDArray[Any], key: tuple[Part, ...], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The part of ``values`` asked for along each axis, by way of the smallest block that holds it."""
    bounds, inner = zip(*(_bounded(part, size) for part, size in zip(key, shape, strict=True)), strict=True)
    block: npt.NDArray[Any] = values[bounds]
    for axis in reversed(range(len(inner))):
        block = block[(slice(None),) * axis + (inner[axis],)]
    return block


def _bounded(part: Part, size: int) -> tuple[slice, Part]:
    """A slice without gaps, and where in it the part is."""
    if isinstance(part, slice) and part.step in (None, 1):
        return slice(*part.indices(size)), slice(None)
    where = np.arange(size)[part]
    if not where.size:
        return slice(0, 0), slice(None)
    first = int(where.min())
    within = where - first
    return slice(first, int(where.max()) + 1), int(within) if within.ndim == 0 else within


def dataset_of(
    paths: Sequence[Path],
    path: str,
    layout: ModelLayout,
    elements: Sequence[str] | None = None,
    runs: pd.DataFrame | None = None,
) -> xr.Dataset:
    """A model ``simulator/model`` of files that all have this layout, (time, element), or with ``runs`` (a row a file)
    (run, time, element) and its columns as coordinates.

    Raises ResultError when there is no such element, or it is not clear of which axis.
    """
    first = () if runs is None else ("run",)
    coordinates: dict[str, Any] = {"time": layout.time.tz_localize(None), **layout.axes}
    coordinates = {name: list(values) if name in layout.axes else values for name, values in coordinates.items()}
    if runs is not None:
        coordinates |= {"run": runs.index} | {str(name): ("run", runs[name].to_numpy()) for name in runs.columns}
    variables = {}
    for name, (axis, dtype, attributes) in layout.signals.items():
        shape = (len(layout.time), len(layout.axes[axis]))
        stored = StoredSignal(paths, f"{path}/{name}", shape, dtype, stacked=runs is not None)
        lazily = indexing.LazilyIndexedArray(stored)
        variables[name] = xr.Variable((*first, "time", axis), lazily, dict(attributes))
    found = xr.Dataset(variables, coordinates)
    return found if elements is None else _of_elements(found, path, layout, elements)


def _of_elements(found: xr.Dataset, path: str, layout: ModelLayout, elements: Sequence[str]) -> xr.Dataset:
    if len(layout.axes) != 1:
        raise ResultError(f"{path} has elements along {', '.join(layout.axes)}: choose with .sel(...)")
    ((axis, known),) = layout.axes.items()
    unknown = [element for element in elements if element not in known]
    if unknown:
        raise ResultError(f"{path} has no element {suggested(unknown[0], known)}")
    return found.isel({axis: [known.index(element) for element in elements]})
