"""Local mode: the server's application inside this process, without a socket."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx


class LocalTransport(httpx.BaseTransport):
    """Runs an ASGI application on an event loop of its own and answers an ``httpx.Client`` from it.

    Args:
        application: The ASGI application.
    """

    def __init__(self, application: Any) -> None:
        self._inner = httpx.ASGITransport(application, raise_app_exceptions=False)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="modelyard-local", daemon=True)
        self._thread.start()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        content = request.read()
        return asyncio.run_coroutine_threadsafe(self._answer(request, content), self._loop).result()

    def close(self) -> None:
        """Stop the event loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _answer(self, request: httpx.Request, content: bytes) -> httpx.Response:
        inner = httpx.Request(request.method, request.url, headers=request.headers, content=content)
        response = await self._inner.handle_async_request(inner)
        body = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers, content=body)
