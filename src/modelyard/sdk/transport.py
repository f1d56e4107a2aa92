"""How a run's recorder reaches Modelyard through the native API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from modelyard.errors import Forbidden, ModelyardError, Unavailable
from modelyard.sdk.client import Client
from modelyard.storage import NewId, ulid
from modelyard.tracking import Batch, Transport

_BYTES = {"Content-Type": "application/octet-stream"}
# Under the 10 MB that a server accepts as one body by default.
PIECE_BYTES = 4 << 20


def transport(connect: Callable[[], Client]) -> Transport:
    """Return the way of batches and files to a client that is connected on first use.

    A missing connection, login or permission is "try again later": what was logged waits on this machine until
    somebody mends it, and is not lost.
    """

    def send(batch: Batch) -> None:
        content = msgspec.msgpack.encode(batch)
        with _mendable():
            _reach(connect).request("POST", f"/runs/{batch.run_id}/batches", content=content, headers=_BYTES)

    def upload(content: bytes | Path) -> str:
        with _mendable():
            return upload_object(_reach(connect), content)

    return Transport(send, upload)


def upload_object(client: Client, content: bytes | Path, *, new_id: NewId = ulid) -> str:
    """Store bytes or a file and return the digest; what is larger than a piece travels in several.

    Raises:
        ModelyardError: What the server says.
    """
    query: dict[str, Any] = {}
    offset = 0
    answer: dict[str, Any] = {}
    for piece, last in _pieces(content):
        if not last or offset:
            upload_id = query.get("upload") or new_id()
            query = {"upload": upload_id, "offset": offset, "complete": str(last).lower()}
        answer = client.request("PUT", "/objects", content=piece, query=query, headers=_BYTES)
        offset += len(piece)
    return str(answer["digest"])


def _pieces(content: bytes | Path) -> Iterator[tuple[bytes, bool]]:
    """Yield the pieces of a content, at least one, and whether each is the last."""
    if isinstance(content, bytes):
        for start in range(0, max(len(content), 1), PIECE_BYTES):
            yield content[start : start + PIECE_BYTES], start + PIECE_BYTES >= len(content)
        return
    with content.open("rb") as file:
        piece = file.read(PIECE_BYTES)
        while True:
            following = file.read(PIECE_BYTES)
            yield piece, not following
            if not following:
                return
            piece = following


def _reach(connect: Callable[[], Client]) -> Client:
    try:
        return connect()
    except Unavailable:
        raise
    except ModelyardError as error:
        raise Unavailable(f"Modelyard cannot be opened: {error.message}") from error


@contextmanager
def _mendable() -> Iterator[None]:
    try:
        yield
    except Forbidden as error:
        raise Unavailable(error.message, **error.facts) from error
