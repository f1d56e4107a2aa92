"""What an object is, and what a place for objects must do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NewType, Protocol

from modelyard.errors import Invalid

Digest = NewType("Digest", str)
"""Lower-case hexadecimal SHA-256 of an object's content: its only name."""

CHUNK_BYTES = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in a store.

    Attributes:
        digest: Its name.
        size: Bytes.
        modified: When it was last put, in seconds since 1970.
    """

    digest: Digest
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class CollectionPlan:
    """Objects that nothing refers to, for a person or a log to see before they are deleted.

    Attributes:
        unreferenced: What would be deleted.
        recent: Unreferenced objects left alone because they were put within the grace period: the
            transaction that will refer to them may not have committed.
        missing: Referenced digests that are not in the store: data is lost.
        before: Objects put at or after this time are never deleted by this plan; seconds since 1970.
    """

    unreferenced: tuple[StoredObject, ...]
    recent: tuple[StoredObject, ...]
    missing: tuple[Digest, ...]
    before: float

    @property
    def bytes(self) -> int:
        """Space that the plan would free."""
        return sum(found.size for found in self.unreferenced)


class Place(Protocol):
    """Where objects lie. Both places keep ``tests/contract/test_objects.py``."""

    def write(self, digest: Digest, chunks: Iterator[bytes]) -> None:
        """Store the chunks under a digest: durably and whole, or not at all."""

    def keep(self, digest: Digest, size: int) -> bool:
        """Say whether an object need not be written again; if so, its age begins anew."""

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        """Yield the content piece by piece; FileNotFoundError if it is not here."""

    def stat(self, digest: Digest) -> StoredObject | None:
        """Return size and time of an object, or None if it is not here."""

    def remove(self, digest: Digest) -> bool:
        """Delete an object and say whether it was here."""

    def all(self) -> Iterator[StoredObject]:
        """Yield every object."""

    def remove_partial(self, before: float) -> int:
        """Delete what processes that died while writing left behind, if it is older than ``before``."""


def is_digest(text: str) -> bool:
    """Say whether a text is a digest."""
    return _DIGEST.fullmatch(text) is not None


def checked(text: str) -> Digest:
    """Return a text as a digest; nothing else ever becomes part of a path or key.

    Raises:
        Invalid: If it is not 64 lower-case hexadecimal digits.
    """
    if not is_digest(text):
        raise Invalid(f"{text[:80]!r} is not a digest: 64 lower-case hexadecimal digits are expected.")
    return Digest(text)
