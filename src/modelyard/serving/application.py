"""The worker's ASGI application, written by hand: no framework stands between the socket and the model.

One coroutine serves a request from its first byte to its last; all between is plain calls, since each nested
coroutine would cost a microsecond. benchmarks/serving.py measures it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.errors import ModelyardError, NotFound
from modelyard.serving.access import Authorize, Doorkeeper
from modelyard.serving.answering import Answering
from modelyard.serving.capture import NATIVE, OIP
from modelyard.serving.endpoint import LiveEndpoint
from modelyard.serving.faults import NotServing, UnknownEndpoint, UnknownVersion, WrongMethod
from modelyard.serving.outcome import Outcome
from modelyard.serving.protocols import native, oip
from modelyard.serving.protocols.ask import Ask
from modelyard.serving.protocols.statuses import Header, headers_of, status_of
from modelyard.serving.request import Head, Message, Receive, read_head, read_rest

log = logging.getLogger(__name__)

Opened = tuple[LiveEndpoint, int | None, int]
"""Endpoint, version asked for and protocol of a request for predictions whose head has been checked."""

Send = Callable[[Message], Awaitable[None]]

_JSON = (b"content-type", b"application/json")
_CLOSE = (b"connection", b"close")
_READING = ("GET", "HEAD")
_INTERNAL = b'{"error":{"code":"internal","message":"The worker failed. The cause is in its log."}}'


@dataclass(slots=True)
class Live:
    """What the worker answers from; replaced as a whole.

    Attributes:
        generation: Of the route table; 0 before the first.
        endpoints: By name.
        unserved: Why an endpoint of the table cannot answer, by name.
    """

    generation: int = 0
    endpoints: Mapping[str, LiveEndpoint] = field(default_factory=dict)
    unserved: Mapping[str, str] = field(default_factory=dict)
    _posts: dict[str, Opened] = field(init=False)

    def __post_init__(self) -> None:
        self._posts = {f"/predict/{name}": (found, None, NATIVE) for name, found in self.endpoints.items()}
        for name, found in self.endpoints.items():
            self._posts[f"/v2/models/{name}/infer"] = (found, None, OIP)

    def posted(self, path: str) -> Opened | None:
        """Return what a POST to one of the usual addresses asks for, by one lookup."""
        return self._posts.get(path)

    @property
    def ready(self) -> bool:
        """Whether every endpoint of the table can answer."""
        return self.generation > 0 and not self.unserved

    def endpoint(self, name: str) -> LiveEndpoint:
        """Return an endpoint.

        Raises:
            UnknownEndpoint: If the table has none of this name.
            NotServing: If it has, but no version of it could be loaded.
        """
        found = self.endpoints.get(name)
        if found is not None:
            return found
        if name in self.unserved:
            raise NotServing(name, reason=self.unserved[name])
        raise UnknownEndpoint(name, known=[*self.endpoints, *self.unserved])


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before it is sent."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = ()


class Application:
    """Answers requests.

    Args:
        doorkeeper: Checks hosts and origins.
        authorize: Checks tokens; may be replaced while running.
        answering: Predicts and records.
        max_body_bytes: Largest body accepted.
        version: Of Modelyard, for the server's metadata.
        timer_ns: Monotonic clock in nanoseconds.

    Attributes:
        live: What it answers from; assigning is the hot swap.
        draining: Once true, connections are closed after their answer and readiness is gone.
        rejected: Requests refused before a variant was reached, by error code.
    """

    def __init__(
        self,
        *,
        doorkeeper: Doorkeeper,
        authorize: Authorize,
        answering: Answering,
        max_body_bytes: int,
        version: str = "",
        timer_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.live = Live()
        self.draining = False
        self.rejected: Counter[str] = Counter()
        self.authorize = authorize
        self._answering = answering
        self._doorkeeper = doorkeeper
        self._max_body_bytes = max_body_bytes
        self._version = version
        self._timer_ns = timer_ns

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI 3 has it."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        path: str = scope["path"]
        try:
            head = read_head(scope["headers"])
            opened = self._open(path, scope["method"], head)
            if isinstance(opened, Reply):
                reply = opened
            else:
                arrived_ns = self._timer_ns()
                endpoint = opened[0]
                endpoint.enter()
                try:
                    message = await receive()
                    body: bytes | None = message.get("body")
                    if body is None or message["more_body"] or len(body) > self._max_body_bytes:
                        body = await read_rest(message, receive, limit=self._max_body_bytes)
                        if body is None:
                            return
                    reply = self._answer(opened, body, head, arrived_ns)
                finally:
                    endpoint.leave()
        except ModelyardError as error:
            reply = self._problem(error, foreign=path.startswith("/v2"))
        except Exception:  # noqa: BLE001 - the process edge: a fault of ours must not take the connection down
            log.exception("request to %r failed", path)
            self.rejected["internal"] += 1
            reply = Reply(500, _INTERNAL)
        headers = [_JSON, (b"content-length", b"%d" % len(reply.body)), *reply.headers]
        if self.draining:
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _open(self, path: str, method: str, head: Head) -> Opened | Reply:
        """Find out from the head alone what is asked; answer at once where no body is needed."""
        self._doorkeeper.check_host(head.host)
        if head.origin is not None and method not in _READING:
            self._doorkeeper.check_origin(head.origin, head.host)
        usual = self.live.posted(path) if method == "POST" else None
        if usual is not None:
            self.authorize(head.authorization, usual[0].name)
            head.check_body(limit=self._max_body_bytes)
            return usual
        parts = path.split("/")
        if parts[1] == "predict" and len(parts) in {3, 5}:
            if len(parts) == 5 and parts[3] != "versions":
                raise NotFound("address", path[:200])
            _only(method, "POST")
            return self._opened(parts[2], parts[4] if len(parts) == 5 else None, NATIVE, head)
        if parts[1] == "v2":
            return self._oip(parts[2:], method, head)
        if parts[1:] in (["health", "live"], ["health", "ready"]):
            _only(method, *_READING)
            return self._health(parts[2])
        hint = "Predict with POST /predict/<endpoint> or /v2/models/<endpoint>/infer."
        raise NotFound("address", path[:200], hint=hint)

    def _opened(self, name: str, version: str | None, protocol: int, head: Head) -> Opened:
        endpoint = self._allowed(name, head)
        head.check_body(limit=self._max_body_bytes)
        return endpoint, _number(version, endpoint), protocol

    def _answer(self, opened: Opened, body: bytes, head: Head, arrived_ns: int) -> Reply:
        started_ns = self._timer_ns()
        endpoint, version, protocol = opened
        if head.deadline is not None:
            head.check_deadline(elapsed_ns=started_ns - arrived_ns)
        ask = native.parse(body) if protocol == NATIVE else _tensors(endpoint, body)
        ask.version = version
        outcome, captured = self._answering.predict(endpoint, ask, body=body, protocol=protocol, started_ns=started_ns)
        if protocol == OIP:
            return Reply(200, oip.encode_answer(outcome, name=endpoint.name, outputs=ask.outputs))
        error = None if outcome.errors is None else _failed_wholly(outcome)
        if error is not None:
            return Reply(status_of(error), native.encode_problem(error))
        return Reply(200, native.encode_answer(outcome, captured=captured))

    def _oip(self, parts: Sequence[str], method: str, head: Head) -> Opened | Reply:
        if parts in ([], [""]):
            _only(method, *_READING)
            return Reply(200, native.dumps({"name": "modelyard", "version": self._version, "extensions": []}))
        if parts in (["health", "live"], ["health", "ready"]):
            _only(method, *_READING)
            return self._health(parts[1])
        if parts[0] != "models" or len(parts) < 2:
            raise NotFound("address", "/v2/" + "/".join(parts)[:200])
        name, rest = parts[1], parts[2:]
        version = None
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        if rest == ["infer"]:
            _only(method, "POST")
            return self._opened(name, version, OIP, head)
        if rest not in ([], ["ready"]):
            raise NotFound("address", "/v2/models/" + "/".join(parts[1:])[:200])
        _only(method, *_READING)
        return self._metadata(self._allowed(name, head), version, ready_only=bool(rest))

    def _metadata(self, endpoint: LiveEndpoint, version: str | None, *, ready_only: bool) -> Reply:
        number = _number(version, endpoint)
        face = (endpoint.control if number is None else endpoint.pinned(number)).face
        if ready_only:
            return Reply(200, native.dumps({"name": endpoint.name, "ready": True}))
        body = oip.encode_metadata(
            endpoint.name,
            versions=list(endpoint.router.by_version),
            columns=face.columns,
            classes=face.classes,
            outputs=face.outputs,
        )
        return Reply(200, body)

    def _allowed(self, name: str, head: Head) -> LiveEndpoint:
        """Check the token before saying anything about endpoints, then find the endpoint."""
        self.authorize(head.authorization, name)
        return self.live.endpoint(name)

    def _health(self, which: str) -> Reply:
        if which == "live":
            return Reply(200, b'{"live":true}')
        ready = self.live.ready and not self.draining
        document = {"ready": ready, "generation": self.live.generation, "unserved": dict(self.live.unserved)}
        return Reply(200 if ready else 503, native.dumps(document))

    def _problem(self, error: ModelyardError, *, foreign: bool) -> Reply:
        self.rejected[error.code] += 1
        status = status_of(error)
        body = oip.encode_problem(error) if foreign else native.encode_problem(error)
        return Reply(status, body, tuple(headers_of(error, status)))


def _tensors(endpoint: LiveEndpoint, body: bytes) -> Ask:
    return oip.parse(body, order=endpoint.order, extra=endpoint.named)


def _failed_wholly(outcome: Outcome) -> ModelyardError | None:
    """Return the first row's fault if every row has one."""
    errors = outcome.errors or []
    return errors[0] if all(error is not None for error in errors) else None


def _only(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise WrongMethod(method, allowed=", ".join(allowed))


def _number(version: str | None, endpoint: LiveEndpoint) -> int | None:
    if version is None:
        return None
    if not (version.isascii() and version.isdigit() and len(version) < 10):
        raise UnknownVersion(version, endpoint=endpoint.name, served=endpoint.router.by_version)
    return int(version)
