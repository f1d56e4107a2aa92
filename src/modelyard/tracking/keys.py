"""Names and relative keys: the only forms in which a client's text is accepted.

A key names an entry inside a run's or a version's own list of files; bytes live in the object store under
their digest, so no text from a client is ever a path. Keys are checked all the same, because a version is
later written out as a folder.
"""

from __future__ import annotations

import unicodedata
from urllib.parse import unquote

from modelyard.errors import Invalid, TooLarge

MAX_KEY = 1000
_DECODINGS = 4


def relative_key(text: str) -> str:
    r"""Return ``text`` if it names an entry inside a folder, whoever reads it on whichever system.

    Refused are absolute paths, drive letters, backslashes, empty segments, ``.`` and ``..``, control
    characters, and any of these behind percent-encoding, however often encoded.

    >>> relative_key("plots/roc.png")
    'plots/roc.png'

    Raises:
        Invalid: If the text could name anything else.
    """
    clean_name("path", text, limit=MAX_KEY)
    form = text
    for _ in range(_DECODINGS):
        _check_segments(form, text)
        decoded = unquote(form)
        if decoded == form:
            return text
        form = decoded
    raise _unsafe(text)


def clean_name(kind: str, text: str, *, limit: int) -> str:
    """Return ``text`` if it is a usable name: not empty, not over ``limit`` characters, no control characters.

    Everything else is stored as it is and is inert.

    Raises:
        Invalid: If it is empty or holds control characters or lone surrogates.
        TooLarge: If it is too long.
    """
    if not isinstance(text, str) or not text.strip():
        raise Invalid(f"A {kind} needs at least one visible character.", kind=kind)
    check_text(kind, text, limit=limit)
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        raise Invalid(f"The {kind} {text!r} holds a control character.", kind=kind)
    return text


def check_text(kind: str, text: str, *, limit: int) -> str:
    """Return ``text`` if every database can hold it: at most ``limit`` characters, no NUL, no lone surrogate.

    Raises:
        Invalid: If it holds a character that cannot be stored.
        TooLarge: If it is too long.
    """
    if len(text) > limit:
        raise TooLarge(f"The {kind} {text[:40]!r}…", size=len(text), limit=limit, unit="characters")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise Invalid(f"The {kind} {text[:40]!r} holds a character that cannot be stored.", kind=kind)
    return text


def _check_segments(form: str, text: str) -> None:
    segments = form.split("/")
    outside = any(segment in {"", ".", ".."} or segment.strip() in {".", ".."} for segment in segments)
    drive = len(segments[0]) > 1 and segments[0][1] == ":"
    if outside or drive or segments[0].endswith(":") or "\\" in form or not form.isprintable():
        raise _unsafe(text)


def _unsafe(text: str) -> Invalid:
    return Invalid(
        f"The path {text!r} is not a relative key. Use segments joined by '/', without '..', "
        "backslashes, a scheme or a leading '/'.",
        path=text,
    )
