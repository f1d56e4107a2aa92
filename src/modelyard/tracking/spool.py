"""Batches that could not be sent: one JSON line each in an append-only file, sent again in order.

A batch's id makes the service apply it once, so that a replay may start from the beginning after a crash. A
spool file belongs to the process that holds its lock; ``replay_folder`` sends what dead processes have left.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from modelyard.errors import Invalid, ModelyardError
from modelyard.storage import NewId
from modelyard.tracking.batch import Batch, decode, encode
from modelyard.tracking.delivery import Refuse, deliver
from modelyard.tracking.transport import Transport

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay has done.

    Attributes:
        sent: Batches that the service has now, a refused part set aside.
        held: Files that a living process holds and sends itself.
    """

    sent: int
    held: int


class Spool:
    """One process's spool file for one run, with the contents of artifacts beside it.

    Args:
        path: The file; created on the first append.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = path.with_suffix(".files")
        self.waiting = 0
        self._file: FileIO | None = None
        self._sent_to = 0

    @classmethod
    def named(cls, folder: Path, run_id: str, *, new_id: NewId) -> Spool:
        """Return a new spool for a run in ``folder``.

        Raises:
            Invalid: If the run id is not made of letters, digits, ``_`` and ``-``.
        """
        if not _NAME.fullmatch(run_id):
            raise Invalid(f"{run_id!r} is not a run id: expected letters, digits, '_' and '-'.")
        return cls(folder / f"{run_id}.{new_id()}.jsonl")

    def open(self) -> bool:
        """Take an existing file over and count its whole lines; False if another process holds it."""
        file = self.path.open("r+b", buffering=0)
        if not _lock(file):
            file.close()
            return False
        self._file = file
        self.waiting = sum(1 for _ in self._lines())
        return True

    def append(self, batch: Batch) -> None:
        """Add a batch durably, or not at all.

        Raises:
            OSError: If the disk has no room.
        """
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer: what could not be written must not be written later.
            self._file = self.path.open("x+b", buffering=0)
            _lock(self._file)
        end = self._file.seek(0, os.SEEK_END)
        line = memoryview(encode(batch).encode() + b"\n")
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):
                self._file.truncate(end)
            raise
        self.waiting += 1

    def keep(self, content: bytes | Path) -> str:
        """Copy the content of an artifact beside the spool and return its digest."""
        self.files.mkdir(parents=True, exist_ok=True)
        digest = _digest(content)
        target = self.files / digest
        if isinstance(content, Path):
            shutil.copyfile(content, target)
        else:
            target.write_bytes(content)
        return digest

    def send(self, batch: Batch, transport: Transport, refuse: Refuse) -> None:
        """Deliver a batch, the kept contents of its artifacts first.

        Raises:
            Unavailable: If it has to be tried again; so is any error that is not of Modelyard's tree.
        """
        kept = [self.files / artifact.digest for artifact in batch.artifacts]
        kept = [path for path in kept if path.is_file()]
        for path in kept:
            transport.upload(path)
        deliver(batch, transport.send, refuse)
        for path in kept:
            path.unlink(missing_ok=True)

    def replay(self, transport: Transport, refuse: Refuse) -> int:
        """Send the waiting batches in order, until one raises.

        Returns:
            How many were sent; all of them unless an error ended it.
        """
        sent = 0
        for line, end in self._lines():
            try:
                batch = decode(line)
            except Invalid as error:
                self._set_aside(line.decode(errors="replace").rstrip(), error)
            else:
                self.send(batch, transport, refuse)
            self._sent_to = end
            self.waiting -= 1
            sent += 1
        if self._file is not None and self._sent_to:
            self._file.truncate(0)
            self._sent_to = 0
        return sent

    def refuse(self, batch: Batch, error: ModelyardError) -> None:
        """Set a batch aside that the service will never accept, beside the spool, for a person to read."""
        self._set_aside(encode(batch), error)

    def close(self) -> None:
        """Let go of the file; an empty one is removed."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        if not self.waiting:
            self.path.unlink(missing_ok=True)
            shutil.rmtree(self.files, ignore_errors=True)

    def _set_aside(self, line: str, error: ModelyardError) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".refused").open("a", encoding="utf-8") as file:
            file.write(f"{line}\t{error.code}\n")

    def _lines(self) -> Iterator[tuple[bytes, int]]:
        """Yield each whole waiting line and where it ends."""
        if self._file is None:
            return
        position = self._sent_to
        with self.path.open("rb") as reader:
            reader.seek(position)
            for line in reader:
                # A line without its end was cut by a crash while it was written: nobody was told that it is safe.
                if not line.endswith(b"\n"):
                    return
                position += len(line)
                yield line, position


def replay_folder(folder: Path, transport: Transport) -> Replayed:
    """Send what dead processes have left in a folder of spools.

    Raises:
        Unavailable: If the service cannot be reached; so is any error that is not of Modelyard's tree. A later
            call starts again, and the service applies each batch once.
    """
    sent = held = 0
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else []:
        spool = Spool(path)
        if not spool.open():
            held += 1
            continue
        try:
            sent += spool.replay(transport, spool.refuse)
        finally:
            spool.close()
    return Replayed(sent, held)


def _digest(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: FileIO) -> bool:
        try:
            # A byte far behind any content: reading and writing stay free.
            file.seek(1 << 62)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(file: FileIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
