"""The object store: bytes named by their SHA-256, verified whenever they are read."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path

from modelyard.errors import Conflict, Corrupted, Invalid, NotFound
from modelyard.storage.durable import whole_file
from modelyard.storage.objects.local import LocalObjects
from modelyard.storage.objects.model import (
    CHUNK_BYTES,
    CollectionPlan,
    Digest,
    Place,
    StoredObject,
    checked,
)


class ObjectStore:
    """Content-addressed objects in a local folder or a bucket.

    Args:
        place: Where they lie.
        wall: Seconds since 1970, to tell how old an object is.
    """

    def __init__(self, place: Place, *, wall: Callable[[], float] = time.time) -> None:
        self._place = place
        self._wall = wall

    @classmethod
    def at(cls, location: Path | str) -> ObjectStore:
        """Open the store in a folder, or at an ``s3://``, ``gs://`` or ``az://`` URL.

        Credentials of a bucket come from the environment, as its own tools read them.

        Raises:
            Invalid: If the URL is of another kind.
        """
        text = str(location)
        if isinstance(location, Path) or "://" not in text:
            return cls(LocalObjects(Path(location)))
        if not text.startswith(("s3://", "gs://", "az://")):
            raise Invalid(f"{text!r} is no place for objects: a folder, s3://, gs:// or az:// is expected.")
        from obstore.store import from_url  # noqa: PLC0415 - 30 ms that a local store need not pay

        from modelyard.storage.objects.remote import RemoteObjects  # noqa: PLC0415

        return cls(RemoteObjects(from_url(text)))

    def put(self, source: bytes | Path) -> Digest:
        """Store bytes or the content of a file, durably; storing the same content again is cheap.

        Returns:
            The digest to read it by.

        Raises:
            NotFound: If the source file does not exist.
            Conflict: If the source file changes while it is read.
            StorageFull: If there is no room; nothing of it becomes visible.
        """
        digest, size = _digest_of(source)
        if not self._place.keep(digest, size):
            self._place.write(digest, _unchanged(_chunks_of(source), digest))
        return digest

    def get(self, digest: str) -> bytes:
        """Return an object's content, verified.

        Raises:
            Invalid: If this is not a digest.
            NotFound: If there is no such object.
            Corrupted: If its bytes are not those that were put.
        """
        return b"".join(self.stream(digest))

    def stream(self, digest: str) -> Iterator[bytes]:
        """Yield an object's content piece by piece, each at least a byte.

        The last piece is held back until the whole content is verified: whoever gets all pieces without an
        error has the true content, and must not act on the first ones before that.

        Raises:
            Invalid, NotFound, Corrupted: As ``get``; Corrupted at the end.
        """
        name = checked(digest)
        found = hashlib.sha256()
        held: bytes | None = None
        try:
            for chunk in self._place.chunks(name):
                found.update(chunk)
                if held is not None:
                    yield held
                held = chunk
        except FileNotFoundError as error:
            raise NotFound("object", name) from error
        if found.hexdigest() != name:
            raise Corrupted(
                f"Object {name} is damaged: its bytes are not those that were stored. Restore it from a "
                "backup, or store the same content again.",
                digest=name,
            )
        if held is not None:
            yield held

    def copy_to(self, digest: str, path: Path) -> Path:
        """Write an object's verified content to a file, which appears only when it is whole.

        Raises:
            Invalid, NotFound, Corrupted: As ``get``; the file is not touched then.
            StorageFull: If there is no room.
        """
        with whole_file(path) as stream:
            for chunk in self.stream(digest):
                stream.write(chunk)
        return path

    def exists(self, digest: str) -> bool:
        """Say whether an object is stored; its content is not looked at."""
        return self._place.stat(checked(digest)) is not None

    def size(self, digest: str) -> int:
        """Return an object's size in bytes.

        Raises:
            NotFound: If there is no such object.
        """
        found = self._place.stat(checked(digest))
        if found is None:
            raise NotFound("object", digest)
        return found.size

    def verify(self, digest: str) -> None:
        """Read an object only to find out whether it is whole.

        Raises:
            NotFound, Corrupted: As ``get``.
        """
        for _ in self.stream(digest):
            pass

    def delete(self, digest: str) -> bool:
        """Delete an object at once and say whether it was there; ``plan_gc`` finds what is safe to delete."""
        return self._place.remove(checked(digest))

    def digests(self) -> Iterator[Digest]:
        """Yield the digest of every object, in no order."""
        for found in self._place.all():
            yield found.digest

    def plan_gc(self, referenced: Iterable[str], *, grace: timedelta = timedelta(hours=24)) -> CollectionPlan:
        """Find the objects that nothing refers to; nothing is deleted.

        Args:
            referenced: Every digest that any row refers to.
            grace: Age below which an object is left alone, since the row that refers to it may not be
                committed yet.

        Raises:
            Invalid: If a reference is not a digest, or the grace is under an hour: the list of references
                must then be taken for wrong.
        """
        if grace < timedelta(hours=1):
            raise Invalid("A collection leaves objects of the last hour alone at least.")
        wanted = {checked(digest) for digest in referenced}
        before = self._wall() - grace.total_seconds()
        old: list[StoredObject] = []
        recent: list[StoredObject] = []
        present = set()
        for found in self._place.all():
            present.add(found.digest)
            if found.digest not in wanted:
                (old if found.modified < before else recent).append(found)
        return CollectionPlan(
            unreferenced=tuple(sorted(old, key=lambda found: found.digest)),
            recent=tuple(sorted(recent, key=lambda found: found.digest)),
            missing=tuple(sorted(wanted - present)),
            before=before,
        )

    def collect(self, plan: CollectionPlan) -> int:
        """Delete what a plan names, except objects that were put again since, and abandoned partial files.

        Returns:
            Bytes freed.
        """
        freed = 0
        for planned in plan.unreferenced:
            found = self._place.stat(planned.digest)
            if found is not None and found.modified < plan.before and self._place.remove(found.digest):
                freed += found.size
        self._place.remove_partial(plan.before)
        return freed


def _digest_of(source: bytes | Path) -> tuple[Digest, int]:
    found, size = hashlib.sha256(), 0
    for chunk in _chunks_of(source):
        found.update(chunk)
        size += len(chunk)
    return Digest(found.hexdigest()), size


def _chunks_of(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    try:
        with source.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    except FileNotFoundError as error:
        raise NotFound("file", str(source)) from error


def _unchanged(chunks: Iterator[bytes], digest: Digest) -> Iterator[bytes]:
    """Pass chunks on, and refuse at the end if they are not the content that was digested before."""
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
        yield chunk
    if found.hexdigest() != digest:
        raise Conflict("The file changed while it was being stored. Store it again when it is complete.")
