"""What every request passes before it reaches a route: host, origin, size, request id.

The checks hold on loopback without a login too: DNS rebinding and cross-site requests aim exactly there.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelyard.errors import TooLarge
from modelyard.server.problems import problem
from modelyard.settings import LOOPBACK

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


# Kinds of body that another site's page cannot send without asking first.
_BODIES = frozenset({"application/json", "application/octet-stream"})


class Gate:
    """ASGI middleware with the checks above.

    Args:
        application: What is behind the gate.
        hosts: Host names, without port, that a request may name; the loopback names are always allowed.
        max_body_bytes: Largest body of any kind: it is read before the caller is known. Larger content comes
            in pieces.
        new_id: Source of request ids.
    """

    def __init__(
        self,
        application: ASGIApp,
        *,
        hosts: frozenset[str],
        max_body_bytes: int,
        new_id: Callable[[], str],
    ) -> None:
        self._application = application
        self._hosts = hosts | LOOPBACK
        self._max_body_bytes = max_body_bytes
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and pass it on."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        request_id = scope["modelyard.request_id"] = self._new_id()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["method"], headers)
        if refusal is not None:
            status, code, detail = refusal
            await problem(status, code, detail, request_id=request_id)(scope, receive, send)
            return

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        await self._application(scope, self._limited(receive), tagged)

    def _refusal(self, method: str, headers: dict[str, str]) -> tuple[int, str, str] | None:
        host = _hostname(headers.get("host", ""))
        if host not in self._hosts:
            return 400, "host_not_allowed", f"This server does not answer for the host {host!r}."
        if method in _SAFE_METHODS:
            return None
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).hostname not in self._hosts:
            return 403, "origin_not_allowed", "Requests from other sites are refused."
        return self._body_refusal(headers)

    def _body_refusal(self, headers: dict[str, str]) -> tuple[int, str, str] | None:
        kind = _kind(headers)
        if kind not in _BODIES:
            return 415, "unsupported_media_type", f"Send application/json, not {kind[:80]!r}."
        length = headers.get("content-length", "0")
        if not length.isdigit():
            return 400, "invalid", "The Content-Length is not a number."
        if int(length) > self._max_body_bytes:
            too_large = TooLarge("The body", size=int(length), limit=self._max_body_bytes)
            return 413, too_large.code, too_large.message
        return None

    def _limited(self, receive: Receive) -> Receive:
        # A chunked body has no Content-Length: it is counted as it comes in.
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_body_bytes:
                raise TooLarge("The body", size=seen, limit=self._max_body_bytes)
            return message

        return counted


def _kind(headers: dict[str, str]) -> str:
    """Return the media type of the body."""
    return headers.get("content-type", "application/json").partition(";")[0].strip().lower()


def _hostname(host: str) -> str:
    """Return the host name of a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host
