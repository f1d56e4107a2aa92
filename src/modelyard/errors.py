"""Every error that Modelyard raises on purpose.

    ModelyardError
    ├── Invalid            the input is wrong; says what was expected
    │   └── TooLarge       the input is over a stated limit
    ├── NotFound           the object does not exist (or this person may not see it)
    ├── Conflict           the object exists already, or has moved on since it was read
    ├── Forbidden          this person may not do this
    │   └── Unauthenticated  nobody has said who they are
    ├── Unavailable        the answer exists but cannot be had now; try again
    │   ├── StorageFull    the disk or a quota is full; reads go on
    │   └── Corrupted      stored bytes are not those that were written; never served
    ├── Refused            a gate, policy or rule said no; carries the verdict
    └── MissingExtra       an optional dependency is not installed

Each class has a stable lower-snake ``code``. Constructors of subclasses elsewhere take facts and build
the message: what happened, to which object, what to do next. HTTP statuses are not known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class ModelyardError(Exception):
    """Root of the tree.

    Args:
        message: One or two sentences for the person who caused it.
        facts: Values that a program may want (names, limits, observed values); JSON-compatible.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class Invalid(ModelyardError):
    """The input is wrong; the message names what was expected."""

    code = "invalid"


class TooLarge(Invalid):
    """The input exceeds a stated limit."""

    code = "too_large"

    def __init__(self, what: str, *, size: int, limit: int, unit: str = "bytes") -> None:
        super().__init__(f"{what} has {size:,} {unit}; at most {limit:,} are accepted.", size=size, limit=limit)


class NotFound(ModelyardError):
    """The object does not exist, or the person may not see it."""

    code = "not_found"

    def __init__(self, kind: str, name: object, *, known: Iterable[str] = (), hint: str = "") -> None:
        near = nearest(str(name), known)
        parts = [f"There is no {kind} {name!r}."]
        if near:
            parts.append(f"Did you mean {near!r}?")
        if hint:
            parts.append(hint)
        super().__init__(" ".join(parts), kind=kind, name=str(name))


class Conflict(ModelyardError):
    """The object exists already, or has changed since it was read."""

    code = "conflict"


class Forbidden(ModelyardError):
    """The person may not do this."""

    code = "forbidden"


class Unauthenticated(Forbidden):
    """Nobody has said who they are, or the token is unknown, revoked or expired."""

    code = "unauthenticated"


class Unavailable(ModelyardError):
    """The answer cannot be had now; trying again later may help."""

    code = "unavailable"


class StorageFull(Unavailable):
    """The disk or a quota is full. Reads go on; writes resume without a restart once there is room."""

    code = "storage_full"


class Corrupted(Unavailable):
    """Stored bytes are not those that were written. They are never returned; restore them from a backup."""

    code = "corrupted"


class Refused(ModelyardError):
    """A gate, policy or rule said no."""

    code = "refused"


class MissingExtra(ModelyardError):
    """An optional dependency is not installed."""

    code = "missing_extra"

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'modelyard[{extra}]'",
            package=package,
            extra=extra,
        )


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like ``word``, or None if none is similar.

    >>> nearest("roc_uac", ["roc_auc", "accuracy"])
    'roc_auc'
    """
    matches = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None
