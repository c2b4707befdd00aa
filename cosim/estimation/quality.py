"""How far estimates lie from the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.domain.frames import Floats, Ints, frozen
from cosim.errors import Fault, InputError


@dataclass(frozen=True)
class ErrorStatistics:
    """Errors ``estimate - truth`` by site, each (n_site,) in the unit of the values compared; NaN for a site that was
    never compared. ``count`` is the number of instants compared."""

    mean_absolute: Floats
    root_mean_square: Floats
    bias: Floats
    maximum: Floats
    count: Ints


def error_statistics(estimate: Floats, truth: Floats) -> ErrorStatistics:
    """Statistics over time of ``estimate`` against ``truth``, both (n_time, n_site); instants with NaN do not count.

    Raises InputError when the shapes differ.
    """
    if estimate.shape != truth.shape or estimate.ndim != 2:
        raise InputError(
            Fault("estimate and truth must have one shape (n_time, n_site)", value=f"{estimate.shape}, {truth.shape}")
        )
    error = estimate - truth
    compared = ~np.isnan(error)
    count = compared.sum(axis=0)
    some = np.where(count > 0, count, np.nan)
    size = np.where(compared, np.abs(error), 0.0)
    return ErrorStatistics(
        mean_absolute=frozen(size.sum(axis=0) / some),
        root_mean_square=frozen(np.sqrt((size**2).sum(axis=0) / some)),
        bias=frozen(np.where(compared, error, 0.0).sum(axis=0) / some),
        maximum=frozen(np.where(count > 0, size.max(axis=0, initial=0.0), np.nan)),
        count=frozen(count, dtype=np.int64),
    )
