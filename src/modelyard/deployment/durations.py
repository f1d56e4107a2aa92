"""Durations as people write them: ``10m``, ``1.5h``, ``7d``."""

from __future__ import annotations

import re
from datetime import timedelta

from modelyard.criteria.units import UNITS, Dimension, to_base
from modelyard.errors import Invalid

_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*")
_KNOWN = tuple(name for name, unit in UNITS.items() if unit.dimension is Dimension.DURATION)
_LONGEST = timedelta(days=3650)


def duration(text: object, *, what: str) -> timedelta:
    """Read a duration.

    >>> duration("10m", what="bake")
    datetime.timedelta(seconds=600)

    Args:
        text: A number with one of the units ms, s, m, min, h, d.
        what: What it is, for the message.

    Raises:
        Invalid: If it is not of this form, or longer than ten years.
    """
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[2] not in _KNOWN:
        raise Invalid(f"{what} is {text!r}; expected a number with one of {', '.join(_KNOWN)}, such as '10m'.")
    seconds = float(to_base(float(found[1]), found[2]))
    if seconds > _LONGEST.total_seconds():
        raise Invalid(f"{what} is {text!r}; expected at most ten years.")
    return timedelta(seconds=seconds)
