"""Signs of a single-line diagram as matplotlib markers, after IEC 60617."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

Point = tuple[float, float]


def _lines(*lines: Sequence[Point]) -> Path:
    codes = [code for line in lines for code in (Path.MOVETO, *[Path.LINETO] * (len(line) - 1))]
    return Path([point for line in lines for point in line], codes)


def _square(half: float) -> Path:
    corners = [(-half, -half), (half, -half), (half, half), (-half, half), (-half, -half)]
    return Path(corners, [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY])


_SIGNS = {
    "source": Path.make_compound_path(_square(1.0), _lines([(-1, -1), (1, 1)], [(-1, 1), (1, -1)])),
    "transformer": Path.make_compound_path(Path.circle((-0.37, 0.0), 0.63), Path.circle((0.37, 0.0), 0.63)),
    "regulator": Path.make_compound_path(
        Path.circle((0.0, 0.0), 0.7), _lines([(-1, -1), (1, 1)], [(0.55, 0.95), (1, 1), (0.95, 0.55)])
    ),
    "switch": _square(1.0),
    "capacitor": _lines([(0, 0), (0, -0.62)], [(-0.6, -0.62), (0.6, -0.62)], [(-0.6, -1), (0.6, -1)]),
}


def sign(name: str, angle_rad: float = 0.0) -> MarkerStyle:
    """The sign of a ``source``, ``transformer``, ``regulator``, ``switch`` or ``capacitor``, turned to the left."""
    path = _SIGNS[name].transformed(Affine2D().rotate(angle_rad))
    reach = float(np.abs(path.vertices).max())  # matplotlib scales a marker to its reach along the axes
    upright = float(np.abs(_SIGNS[name].vertices).max())
    return MarkerStyle(path, transform=Affine2D().scale(reach / upright))
