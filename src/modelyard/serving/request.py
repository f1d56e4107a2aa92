"""The parts of an HTTP request that matter: a few headers, and a body that is never read beyond its limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from modelyard.errors import TooLarge
from modelyard.serving.faults import BadHeader, DeadlineExceeded, HostRefused, WrongContentType
from modelyard.serving.protocols.statuses import Header

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_JSON = b"application/json"


class Head(msgspec.Struct):
    """The headers that matter; None where a header is absent."""

    host: bytes | None = None
    origin: bytes | None = None
    content_type: bytes | None = None
    length: bytes | None = None
    authorization: bytes | None = None
    deadline: bytes | None = None

    def check_deadline(self, *, elapsed_ns: int) -> None:
        """Return if there is time left to predict.

        Raises:
            BadHeader: If ``X-Deadline-Ms`` is no whole number.
            DeadlineExceeded: If that time has passed.
        """
        given = self.deadline
        if given is None:
            return
        if not (given.isdigit() and len(given) < 10):
            raise BadHeader("X-Deadline-Ms", expected="a whole number of milliseconds")
        if elapsed_ns >= int(given) * 1_000_000:
            raise DeadlineExceeded(deadline_ms=int(given), elapsed_ms=elapsed_ns / 1e6)

    def check_body(self, *, limit: int) -> None:
        """Return if the body that is announced may be read.

        Raises:
            WrongContentType: If it is declared as something else than JSON.
            TooLarge: If it is announced to be.
        """
        given = self.content_type
        if given is not None and given != _JSON and given.partition(b";")[0].strip().lower() != _JSON:
            raise WrongContentType(given.decode("latin-1")[:100])
        if self.length is not None and self.length.isdigit():
            size = int(self.length[:20])
            if size > limit:
                raise TooLarge("The body", size=size, limit=limit)


def read_head(headers: list[Header]) -> Head:
    """Pick the headers that matter; their names come in lower case.

    Raises:
        HostRefused: If there are two hosts, of which one would be checked and the other meant.
    """
    head = Head()
    for name, value in headers:
        if name == b"host":
            if head.host is not None:
                raise HostRefused("(given twice)")
            head.host = value
        elif name == b"content-type":
            head.content_type = value
        elif name == b"content-length":
            head.length = value
        elif name == b"authorization":
            head.authorization = value
        elif name == b"origin":
            head.origin = value
        elif name == b"x-deadline-ms":
            head.deadline = value
    return head


async def read_rest(first: Message, receive: Receive, *, limit: int) -> bytes | None:
    """Read a body of which one message has come; None if the client has gone.

    Raises:
        TooLarge: As soon as more than ``limit`` bytes have come.
    """
    chunks: list[bytes] = []
    size = 0
    message = first
    while True:
        if message["type"] == "http.disconnect":
            return None
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLarge("The body", size=size, limit=limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()
