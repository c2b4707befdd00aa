"""What an import gives back: the folder, how well it agrees with its source, and what it does not have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SHOWN = 10  # names of branches in the text


@dataclass(frozen=True)
class Left:
    """Something of the source that the feeder folder does not have, or has in another form.

    ``element`` is the table and index of the source (``trafo 3``) or the OpenDSS element, ``name`` its name there.
    ``changes_solution``: the feeder is another network without it, away from the base case or already in it.
    ``turns_angles``: voltage angles behind it are not those of the source.
    """

    element: str
    name: str
    reason: str
    changes_solution: bool = False
    turns_angles: bool = False

    def __str__(self) -> str:
        return f"{self.element}{f' ({self.name})' if self.name else ''}: {self.reason}"


@dataclass(frozen=True)
class Check:
    """Source and feeder solved with every element at its base power.

    ``largest_vm_pu`` is the largest difference of a voltage magnitude [pu], at ``bus`` of the feeder;
    ``largest_va_deg`` that of the angles [degrees], NaN where a phase shift could not be carried over.
    ``source_head_kw``, ``head_kw``: power at the head [kW], import positive, of source and feeder;
    ``source_loss_kw``, ``loss_kw``: losses of the whole network [kW].
    """

    largest_vm_pu: float
    bus: str
    largest_va_deg: float
    source_head_kw: float
    head_kw: float
    source_loss_kw: float
    loss_kw: float

    def __str__(self) -> str:
        return (
            f"largest difference of voltages {self.largest_vm_pu:.1e} pu at bus {self.bus}; "
            f"head {self.head_kw:.3f} kW, in the source {self.source_head_kw:.3f} kW"
        )


@dataclass(frozen=True)
class Imported:
    """A feeder folder that has been written.

    ``not_carried`` lists what it lacks, ``assumptions`` what the source did not say, ``ratings_missing`` the OpenDSS
    branches without a rating, ``buses`` the OpenDSS bus of every live bus of the source (several may share one).
    """

    folder: Path
    check: Check
    not_carried: tuple[Left, ...]
    assumptions: tuple[str, ...]
    ratings_missing: tuple[str, ...]
    buses: Mapping[str, str]

    def as_text(self) -> str:
        """What was written, how well it agrees, and what is left to be looked at."""
        parts = {
            "not carried over": [str(left) for left in self.not_carried],
            "assumed": self.assumptions,
            "branches without a rating": _shortened(self.ratings_missing),
        }
        lines = [f"feeder  {self.folder}", f"check   {self.check}"]
        for title, entries in parts.items():
            lines += [f"{title}:", *(f"  {entry}" for entry in entries)] if entries else []
        return "\n".join(lines)


def _shortened(names: tuple[str, ...]) -> list[str]:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [", ".join(names[:_SHOWN]) + more] if names else []
