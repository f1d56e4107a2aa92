"""Objects in a bucket: S3, Google Cloud Storage, Azure, through ``obstore``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, NotFoundError

from modelyard.errors import StorageFull, Unavailable
from modelyard.storage.objects.model import CHUNK_BYTES, Digest, StoredObject, is_digest

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Bucket

# An object found again is uploaded again once it is this old, so that its age tells a collection that it is
# in use. It stays well below the collection's own grace period.
_RENEW_AFTER_S = 600.0
_QUOTA = ("quota", "507", "insufficient storage", "no space left")


class RemoteObjects:
    """Objects below one prefix of a bucket. The service answers an upload once it is durable and whole.

    Args:
        bucket: Store from ``obstore.store``, with its prefix.
        wall: Seconds since 1970, on the service's clock as nearly as may be.
    """

    def __init__(self, bucket: Bucket, *, wall: Callable[[], float] = time.time) -> None:
        self._bucket = bucket
        self._wall = wall

    def write(self, digest: Digest, chunks: Iterator[bytes]) -> None:
        """Store the chunks under a digest: durably and whole, or not at all."""
        with _translated(digest):
            obstore.put(self._bucket, _key(digest), chunks, chunk_size=CHUNK_BYTES * 8)

    def keep(self, digest: Digest, size: int) -> bool:
        """Say whether this object is here, of this size and recent; the service guards its bytes."""
        found = self.stat(digest)
        return found is not None and found.size == size and found.modified > self._wall() - _RENEW_AFTER_S

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        """Yield the content piece by piece; FileNotFoundError if it is not here."""
        with _translated(digest):
            for chunk in obstore.get(self._bucket, _key(digest)).stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def stat(self, digest: Digest) -> StoredObject | None:
        """Return size and time of an object, or None if it is not here."""
        try:
            with _translated(digest):
                found = obstore.head(self._bucket, _key(digest))
        except FileNotFoundError:
            return None
        return StoredObject(digest, found["size"], found["last_modified"].timestamp())

    def remove(self, digest: Digest) -> bool:
        """Delete an object and say whether it was here."""
        if self.stat(digest) is None:
            return False
        with _translated(digest):
            obstore.delete(self._bucket, _key(digest))
        return True

    def all(self) -> Iterator[StoredObject]:
        """Yield every object."""
        with _translated("the listing"):
            for page in obstore.list(self._bucket):
                for found in page:
                    name = found["path"].rpartition("/")[2]
                    if is_digest(name):
                        yield StoredObject(Digest(name), found["size"], found["last_modified"].timestamp())

    def remove_partial(self, before: float) -> int:
        """Do nothing: an upload that was cut off never becomes an object."""
        del before
        return 0


def _key(digest: Digest) -> str:
    return f"{digest[:2]}/{digest}"


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise FileNotFoundError(what) from error
    except BaseError as error:
        text = str(error).lower()
        if any(word in text for word in _QUOTA):
            raise StorageFull(f"The object store has no room for {what}. Free some space.") from error
        raise Unavailable(f"The object store did not answer for {what}. Try again in a moment.") from error
