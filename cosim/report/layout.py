"""Numbers and tables as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

_DECIMALS = {"kW": 1, "kvar": 1, "kWh": 1, "pu": 4, "h": 2, "%": 2, "s": 2, "A": 1, "EUR": 2, "EUR/kWh": 3}
_MORE_DECIMALS = 3
_MISSING = "-"


def number(value: float | None, unit: str, largest: float = math.inf) -> str:
    """A value as text with the decimals that fit its unit; ``-`` where there is none. The unit is not in it.

    What these decimals would make 0 or a single uncertain digit gets two digits that count, with up to three decimals
    more; what is smaller still is 0. In a table whose ``largest`` number is below 1 all have two decimals more.
    """
    if value is None or not math.isfinite(value):
        return _MISSING if value is None or math.isnan(value) else f"{value}"
    if unit == "1" and float(value).is_integer():
        return f"{value:.0f}"
    decimals = _DECIMALS.get(unit, 2)
    if largest < 1.0:
        decimals += 2
    elif 0.5 * 10.0 ** -(decimals + _MORE_DECIMALS) <= abs(value) < 10.0**-decimals:
        decimals = min(1 - math.floor(math.log10(abs(value))), decimals + _MORE_DECIMALS)
    text = f"{value:.{decimals}f}"
    return text[1:] if text.startswith("-") and float(text) == 0.0 else text


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,), width: int = 100) -> list[str]:
    """Lines of a table: the columns ``left`` are aligned to the left, the others to the right; lines that are longer
    than ``width`` are cut."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))] if rows else []
    lines = []
    for row in rows:
        cells = [cell.ljust(widths[k]) if k in left else cell.rjust(widths[k]) for k, cell in enumerate(row)]
        lines.append(shortened("  ".join(cells).rstrip(), width))
    return lines


def shortened(text: str, width: int) -> str:
    """``text`` in at most ``width`` characters."""
    return text if len(text) <= width else text[: width - 1] + "…"
