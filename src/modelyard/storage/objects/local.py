"""Objects in a local folder: ``ab/abcd…``, read-only files that appear whole and on the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from modelyard.errors import Corrupted
from modelyard.storage.durable import PARTIAL_PREFIX, translated, whole_file
from modelyard.storage.objects.model import CHUNK_BYTES, Digest, StoredObject, is_digest

_READ_ONLY = 0o444


class LocalObjects:
    """Objects below one folder.

    Args:
        folder: The folder; created with the first object.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, digest: Digest, chunks: Iterator[bytes]) -> None:
        """Store the chunks under a digest: durably and whole, or not at all."""
        with whole_file(self._path(digest), mode=_READ_ONLY) as stream:
            for chunk in chunks:
                stream.write(chunk)

    def keep(self, digest: Digest, size: int) -> bool:
        """Say whether this object is here and whole, and if so count it as written now."""
        path = self._path(digest)
        try:
            with translated(path), path.open("rb") as stream:
                if os.fstat(stream.fileno()).st_size != size:
                    return False
                if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                    return False
                os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        """Yield the content piece by piece; FileNotFoundError if it is not here."""
        try:
            with self._path(digest).open("rb") as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError:
            raise
        except OSError as error:  # a medium error is damage too
            raise Corrupted(
                f"Object {digest} cannot be read: {error.strerror}. Restore it from a backup.", digest=digest
            ) from error

    def stat(self, digest: Digest) -> StoredObject | None:
        """Return size and time of an object, or None if it is not here."""
        try:
            with translated(self._path(digest)):
                found = self._path(digest).stat()
        except FileNotFoundError:
            return None
        return StoredObject(digest, found.st_size, found.st_mtime)

    def remove(self, digest: Digest) -> bool:
        """Delete an object and say whether it was here."""
        try:
            with translated(self._path(digest)):
                self._path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def all(self) -> Iterator[StoredObject]:
        """Yield every object."""
        for path in self._files():
            if is_digest(path.name):
                found = self.stat(Digest(path.name))
                if found is not None:
                    yield found

    def remove_partial(self, before: float) -> int:
        """Delete what processes that died while writing left behind, if it is older than ``before``."""
        removed = 0
        for path in list(self._files()):
            if path.name.startswith(PARTIAL_PREFIX) and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _files(self) -> Iterator[Path]:
        for folder, _, names in os.walk(self._folder):
            for name in names:
                yield Path(folder, name)

    def _path(self, digest: Digest) -> Path:
        return self._folder / digest[:2] / digest
