r"""Patterns of ``like``: read once here, so that every database and Python match the same texts.

``%`` stands for any text, ``_`` for one character; a backslash before one of the two, or before another
backslash, takes it literally, and is an ordinary character elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto

_PIECE = re.compile(r"\\[%_\\]|[\s\S]")


class Wild(Enum):
    """What is no literal character of a pattern."""

    ANY_TEXT = auto()
    ONE_CHARACTER = auto()


def pieces(pattern: str) -> Iterator[str | Wild]:
    """Yield the literal characters and wildcards of a pattern."""
    for found in _PIECE.finditer(pattern):
        piece = found[0]
        if piece == "%":
            yield Wild.ANY_TEXT
        elif piece == "_":
            yield Wild.ONE_CHARACTER
        else:
            yield piece[-1]


def to_glob(pattern: str) -> str:
    """Write a pattern for the GLOB of SQLite, which heeds the case of letters as its LIKE does not.

    >>> to_glob("churn*-%")
    'churn[*]-*'
    """
    written = {Wild.ANY_TEXT: "*", Wild.ONE_CHARACTER: "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return "".join(written.get(piece, str(piece)) for piece in pieces(pattern))


def to_like(pattern: str) -> str:
    r"""Write a pattern for LIKE ... ESCAPE '\', which refuses a lone backslash at the end.

    >>> to_like("50%\\")
    '50%\\\\'
    """
    written = {Wild.ANY_TEXT: "%", Wild.ONE_CHARACTER: "_", "%": "\\%", "_": "\\_", "\\": "\\\\"}
    return "".join(written.get(piece, str(piece)) for piece in pieces(pattern))


def matches(pattern: str, text: str, *, any_case: bool = False) -> bool:
    """Say whether a text matches.

    Runs in time proportional to pattern times text: a regular expression may take exponential time on
    patterns with many ``%``.

    >>> matches("CHURN-%", "churn-eu"), matches("CHURN-%", "churn-eu", any_case=True)
    (False, True)
    """
    wanted = list(pieces(pattern.lower() if any_case else pattern))
    found = text.lower() if any_case else text
    at, index, star, resume = 0, 0, -1, 0
    while index < len(found):
        if at < len(wanted) and wanted[at] is Wild.ANY_TEXT:
            star, resume, at = at, index, at + 1
        elif at < len(wanted) and wanted[at] in {Wild.ONE_CHARACTER, found[index]}:
            at, index = at + 1, index + 1
        elif star >= 0:
            at, resume = star + 1, resume + 1
            index = resume
        else:
            return False
    return all(piece is Wild.ANY_TEXT for piece in wanted[at:])
