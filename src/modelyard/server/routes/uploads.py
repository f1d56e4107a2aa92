"""Bodies that become objects: received into a file, in one piece or in several."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, BinaryIO

import anyio.to_thread
from fastapi import Depends, Request

from modelyard.errors import Conflict, TooLarge
from modelyard.storage.durable import translated

MAX_OBJECT_BYTES = 10_000_000_000
# An upload whose client has not come back for a day will not be finished.
_ABANDONED_S = 86_400.0
# Written to disk at a time, so that not every 64 kB of the network costs a change of threads.
_WRITE_BYTES = 1 << 20


async def _receive(request: Request) -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
        path = Path(folder) / "body"
        with path.open("wb") as file:
            held = bytearray()
            async for chunk in request.stream():
                held += chunk
                if len(held) >= _WRITE_BYTES:
                    await anyio.to_thread.run_sync(_write, path, file, bytes(held))
                    held.clear()
            await anyio.to_thread.run_sync(_write, path, file, bytes(held))
        yield path


Received = Annotated[Path, Depends(_receive)]


class Uploads:
    """Contents that arrive in pieces, each at most as large as a body may be.

    Args:
        folder: Where unfinished uploads lie.
        max_bytes: Largest content.
        wall: Seconds since 1970, to tell abandoned uploads.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int = MAX_OBJECT_BYTES, wall: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._wall = wall
        self._adding = threading.Lock()

    def add(self, name: str, piece: Path, *, offset: int) -> Path:
        """Put a piece behind those that came before; sending a piece again replaces it and what followed.

        Args:
            name: Tells this upload from all others, of other people too.
            piece: File with the piece.
            offset: Bytes that came before.

        Returns:
            The file with all pieces so far.

        Raises:
            Conflict: If pieces are missing before this one; ``received`` says how much is there.
            TooLarge: If the content would be over the limit; the upload is forgotten.
            StorageFull: If there is no room.
        """
        path = self._folder / hashlib.sha256(name.encode()).hexdigest()
        with self._adding:
            self._folder.mkdir(parents=True, exist_ok=True)
            if offset == 0:
                self._forget_abandoned()
            received = path.stat().st_size if path.exists() else 0
            if offset > received:
                raise Conflict(f"This piece begins at byte {offset:,}, but {received:,} are here.", received=received)
            if offset + piece.stat().st_size > self._max_bytes:
                path.unlink(missing_ok=True)
                raise TooLarge("The content", size=offset + piece.stat().st_size, limit=self._max_bytes)
            _append(path, piece, offset)
        return path

    def _forget_abandoned(self) -> None:
        for path in self._folder.iterdir():
            if path.stat().st_mtime < self._wall() - _ABANDONED_S:
                path.unlink(missing_ok=True)


def _append(path: Path, piece: Path, offset: int) -> None:
    with translated(path), path.open("r+b" if path.exists() else "xb") as target, piece.open("rb") as source:
        target.seek(offset)
        shutil.copyfileobj(source, target, _WRITE_BYTES)
        target.truncate()


def _write(path: Path, file: BinaryIO, content: bytes) -> None:
    with translated(path):
        file.write(content)
