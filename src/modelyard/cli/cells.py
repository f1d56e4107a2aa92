"""How values are written in tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

_MOST = 4


def when(text: str | None) -> str:
    """Write a time of the API's answers, in this machine's zone and to the second.

    >>> when(None)
    '–'
    """
    if text is None:
        return "–"
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def number(value: object) -> str:
    """Write a number with at most five significant digits; anything else as it is.

    >>> number(0.123456789), number(3), number("NaN")
    ('0.12346', '3', 'NaN')
    """
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def numbers(values: Mapping[str, Any]) -> str:
    """Write the first few numbers with their names.

    >>> numbers({"auc": 0.91, "loss": 0.25})
    'auc 0.91, loss 0.25'
    """
    shown = [f"{key} {number(value)}" for key, value in list(values.items())[:_MOST]]
    more = len(values) - len(shown)
    return ", ".join(shown) + (f", {more} more" if more else "")


def size(count: int) -> str:
    """Write a number of bytes.

    >>> size(12_345_678)
    '12.3 MB'
    """
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:,.1f} {unit}"
    return f"{count} B"
