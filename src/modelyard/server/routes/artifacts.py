"""Objects and files of runs over HTTP: bytes in, bytes out, never shown by a browser."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Query
from starlette.responses import Response, StreamingResponse

from modelyard.errors import Conflict
from modelyard.server.access import Routes, needs
from modelyard.server.routes.asking import By, plain, takes_bytes
from modelyard.server.routes.runs import own_run
from modelyard.server.routes.uploads import Received, Uploads
from modelyard.storage.objects import ObjectStore
from modelyard.tracking import ArtifactEntry, Tracking

_INERT = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, no-cache",
}
UploadId = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_-]{16,64}$", description="Chosen by the client.")]


def object_routes(objects: ObjectStore, uploads: Uploads) -> Routes:
    """Build the route that stores bytes."""
    routes = Routes(tags=["objects"])

    @routes.put("/objects", openapi_extra=takes_bytes("run:write"))
    def put_object(
        *,
        content: Received,
        caller: By,
        upload: UploadId = None,
        offset: Annotated[int, Query(ge=0, lt=2**53)] = 0,
        complete: bool = True,
        digest: Annotated[str | None, Query(pattern=r"^[0-9a-f]{64}$")] = None,
    ) -> dict[str, Any]:
        """Store bytes and return their digest.

        Content that is larger than a body may be comes in pieces: the same ``upload`` in each request, ``offset``
        the bytes before, ``complete=false`` until the last one.
        """
        if upload is None:
            return _stored(objects, content, digest)
        whole = uploads.add(f"{caller.project}\0{caller.actor.name}\0{upload}", content, offset=offset)
        if not complete:
            return {"received": whole.stat().st_size}
        try:
            return _stored(objects, whole, digest)
        finally:
            whole.unlink(missing_ok=True)

    return routes


def artifact_routes(tracking: Tracking) -> Routes:
    """Build the routes of a run's files."""
    routes = Routes(tags=["artifacts"])

    @routes.get("/runs/{run_id}/artifacts", openapi_extra=needs("read"))
    def list_artifacts(run_id: str, caller: By, folder: Annotated[str, Query(max_length=1000)] = "") -> dict[str, Any]:
        """List the files and folders directly below a folder of a run."""
        own_run(tracking, run_id, caller)
        return {"artifacts": [_entry(each) for each in tracking.list_artifacts(run_id, folder)]}

    @routes.get("/runs/{run_id}/artifacts/{path:path}", openapi_extra=needs("read"), response_class=StreamingResponse)
    def get_artifact(run_id: str, path: str, caller: By) -> Response:
        """Return a file of a run."""
        own_run(tracking, run_id, caller)
        artifact = tracking.get_artifact(run_id, path)
        return download(tracking.objects, artifact.digest, name=path, size_bytes=artifact.size_bytes)

    @routes.put("/runs/{run_id}/artifacts/{path:path}", openapi_extra=takes_bytes("run:write"))
    def put_artifact(run_id: str, path: str, content: Received, caller: By) -> dict[str, Any]:
        """Store a file of a run under a relative key."""
        own_run(tracking, run_id, caller)
        document: dict[str, Any] = plain(tracking.log_artifact(run_id, path, content, actor=caller.actor))
        return document

    return routes


def download(objects: ObjectStore, digest: str, *, name: str, size_bytes: int) -> Response:
    """Return an object as a file to save, which no browser shows or runs.

    An object that is absent or of one damaged piece is an error answer; where a later piece is damaged, the answer
    ends before its stated length, so that no client takes it for whole.
    """
    pieces = objects.stream(digest)
    first = next(pieces, b"")
    headers = {
        **_INERT,
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name.rpartition('/')[2], safe='')}",
        "Content-Length": str(size_bytes),
        "ETag": f'"{digest}"',
    }
    body: Iterator[bytes] = chain([first], pieces)
    return StreamingResponse(body, headers=headers, media_type="application/octet-stream")


def _stored(objects: ObjectStore, path: Path, expected: str | None) -> dict[str, Any]:
    size = path.stat().st_size
    found = objects.put(path)
    if expected is not None and found != expected:
        raise Conflict(f"The content that arrived has the digest {found}, not {expected}. Send it again.")
    return {"digest": found, "size_bytes": size}


def _entry(entry: ArtifactEntry) -> dict[str, Any]:
    if entry.artifact is None:
        return {"path": entry.path, "folder": True}
    return {"folder": False, **plain(entry.artifact)}
