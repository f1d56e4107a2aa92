"""The worker's ASGI application, written by hand: no framework stands between the socket and the model.

benchmarks/serving.py measures it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.errors import ModelyardError, NotFound
from modelyard.serving.access import Authorize, Doorkeeper
from modelyard.serving.capture import NATIVE, OIP, Capture, redacted
from modelyard.serving.endpoint import LiveEndpoint
from modelyard.serving.faults import (
    NotServing,
    UnknownEndpoint,
    UnknownVersion,
    WrongMethod,
)
from modelyard.serving.outcome import Outcome
from modelyard.serving.protocols import native, oip
from modelyard.serving.protocols.ask import Ask
from modelyard.serving.protocols.statuses import Header, headers_of, status_of
from modelyard.serving.request import Head, Message, Receive, read_body, read_head
from modelyard.serving.shadow import ShadowJob, ShadowQueue

log = logging.getLogger(__name__)

Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES = 10_000_000
_JSON = (b"content-type", b"application/json")
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
        capture: Keeps prediction records.
        shadows: Queue of copies for shadow variants.
        max_body_bytes: Largest body accepted.
        version: Of Modelyard, for the server's metadata.
        wall_ns: Wall clock in nanoseconds since 1970.
        timer_ns: Monotonic clock in nanoseconds.

    Attributes:
        live: What it answers from; assigning is the hot swap.
        draining: Once true, connections are closed after their answer and readiness is gone.
        rejected: Requests refused before a variant was reached, by error code.
        predictions: Requests that reached a variant; a change means that counters have changed.
    """

    def __init__(
        self,
        *,
        doorkeeper: Doorkeeper,
        authorize: Authorize,
        capture: Capture,
        shadows: ShadowQueue,
        max_body_bytes: int = MAX_BODY_BYTES,
        version: str = "",
        wall_ns: Callable[[], int] = time.time_ns,
        timer_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.live = Live()
        self.draining = False
        self.rejected: Counter[str] = Counter()
        self.predictions = 0
        self.authorize = authorize
        self.capture = capture
        self.shadows = shadows
        self._doorkeeper = doorkeeper
        self._max_body_bytes = max_body_bytes
        self._version = version
        self._wall_ns = wall_ns
        self._timer_ns = timer_ns

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection's request, as ASGI 3 has it."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        path: str = scope["path"]
        foreign = path.startswith("/v2")
        try:
            reply = await self._reply(path, scope, receive)
        except ModelyardError as error:
            reply = self._problem(error, foreign=foreign)
        except Exception:  # noqa: BLE001 - the process edge: a fault of ours must not take the connection down
            log.exception("request to %r failed", path)
            self.rejected["internal"] += 1
            reply = Reply(500, _INTERNAL)
        if reply is not None:
            await self._send(reply, send)

    async def _send(self, reply: Reply, send: Send) -> None:
        headers = [_JSON, (b"content-length", str(len(reply.body)).encode()), *reply.headers]
        if self.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _reply(self, path: str, scope: Mapping[str, Any], receive: Receive) -> Reply | None:
        head = read_head(scope["headers"])
        self._doorkeeper.check_host(head.host)
        method: str = scope["method"]
        if head.origin is not None and method not in {"GET", "HEAD"}:
            self._doorkeeper.check_origin(head.origin, head.host)
        parts = path.split("/")
        if parts[1] == "predict" and len(parts) in {3, 5}:
            version = _version(parts[3:])
            _only(method, "POST")
            return await self._native(parts[2], version, head, receive)
        if parts[1] == "v2":
            return await self._oip(parts[2:], method, head, receive)
        if parts[1:] in (["health", "live"], ["health", "ready"]):
            _only(method, "GET", "HEAD")
            return self._health(parts[2])
        raise NotFound(
            "address",
            path[:200],
            hint="Predict with POST /predict/<endpoint> or /v2/models/<endpoint>/infer.",
        )

    async def _native(self, name: str, version: str | None, head: Head, receive: Receive) -> Reply | None:
        endpoint = self._allowed(name, head)
        arrived_ns = self._timer_ns()
        endpoint.enter()
        try:
            head.check_body(limit=self._max_body_bytes)
            body = await read_body(receive, limit=self._max_body_bytes)
            if body is None:
                return None
            started_ns = self._timer_ns()
            head.check_deadline(elapsed_ns=started_ns - arrived_ns)
            ask = native.parse(body)
            ask.version = _number(version, endpoint)
            outcome, captured = self._predict(endpoint, ask, body, NATIVE, started_ns)
        finally:
            endpoint.leave()
        if outcome.errors is not None and all(error is not None for error in outcome.errors):
            error = outcome.errors[0]
            assert error is not None  # noqa: S101 - shown by the line above, for the type checker
            return Reply(status_of(error), native.encode_problem(error))
        return Reply(200, native.encode_answer(outcome, captured=captured))

    async def _oip(self, parts: list[str], method: str, head: Head, receive: Receive) -> Reply | None:
        if parts in ([], [""]):
            _only(method, "GET", "HEAD")
            return Reply(200, native.dumps({"name": "modelyard", "version": self._version, "extensions": []}))
        if parts in (["health", "live"], ["health", "ready"]):
            _only(method, "GET", "HEAD")
            return self._health(parts[1])
        if parts[0] != "models" or len(parts) < 2:
            raise NotFound("address", "/v2/" + "/".join(parts)[:200])
        name, rest = parts[1], parts[2:]
        version = None
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        if rest == ["infer"]:
            _only(method, "POST")
            return await self._infer(name, version, head, receive)
        if rest not in ([], ["ready"]):
            raise NotFound("address", "/v2/models/" + "/".join(parts[1:])[:200])
        _only(method, "GET", "HEAD")
        endpoint = self._allowed(name, head)
        number = _number(version, endpoint)
        variant = endpoint.control if number is None else endpoint.pinned(number)
        if rest:
            return Reply(200, native.dumps({"name": name, "ready": True}))
        face = variant.face
        served = list(endpoint.router.by_version)
        return Reply(
            200,
            oip.encode_metadata(
                name, versions=served, columns=face.columns, classes=face.classes, outputs=face.outputs
            ),
        )

    async def _infer(self, name: str, version: str | None, head: Head, receive: Receive) -> Reply | None:
        endpoint = self._allowed(name, head)
        arrived_ns = self._timer_ns()
        endpoint.enter()
        try:
            head.check_body(limit=self._max_body_bytes)
            body = await read_body(receive, limit=self._max_body_bytes)
            if body is None:
                return None
            started_ns = self._timer_ns()
            head.check_deadline(elapsed_ns=started_ns - arrived_ns)
            ask = oip.parse(body, order=endpoint.order, extra=endpoint.named)
            ask.version = _number(version, endpoint)
            outcome, _ = self._predict(endpoint, ask, body, OIP, started_ns)
        finally:
            endpoint.leave()
        return Reply(200, oip.encode_answer(outcome, name=name, outputs=ask.outputs))

    def _allowed(self, name: str, head: Head) -> LiveEndpoint:
        """Check the token before saying anything about endpoints, then find the endpoint."""
        self.authorize(head.authorization, name)
        return self.live.endpoint(name)

    def _predict(
        self, endpoint: LiveEndpoint, ask: Ask, body: bytes, protocol: int, started_ns: int
    ) -> tuple[Outcome, bool]:
        wall_ns = self._wall_ns()
        self.predictions += 1
        outcome = endpoint.answer(ask, wall_ns=wall_ns, started_ns=started_ns)
        sample = endpoint.route.sample
        if endpoint.redact:
            protocol, body = NATIVE, self._redacted(endpoint, protocol, body)
        captured = sample > 0.0 and self.capture.keep(
            outcome,
            descriptor=endpoint.descriptor,
            sample=sample,
            protocol=protocol,
            body=body,
            time_us=wall_ns // 1000,
            latency_us=(self._timer_ns() - started_ns) // 1000,
        )
        if outcome.places is not None and endpoint.has_shadows:
            self._copy(endpoint, ask, outcome, body, protocol, captured=captured)
        return outcome, captured

    def _redacted(self, endpoint: LiveEndpoint, protocol: int, body: bytes) -> bytes:
        # The rows were taken apart on the way, so the columns that may be kept are read afresh.
        order = endpoint.order
        rows = (
            native.parse(body).rows if protocol == NATIVE else oip.parse(body, order=order, extra=endpoint.named).rows
        )
        return redacted(rows, endpoint.redact, order=order)

    def _copy(
        self,
        endpoint: LiveEndpoint,
        ask: Ask,
        outcome: Outcome,
        body: bytes,
        protocol: int,
        *,
        captured: bool,
    ) -> None:
        """Queue copies for the shadows; their answers are recorded if the request was."""
        wanted: dict[int, list[int]] = {}
        for i, place in enumerate(outcome.places or ()):
            for variant in endpoint.router.shadows(place):
                wanted.setdefault(variant.index, []).append(i)
        for variant in endpoint.variants:
            chosen = wanted.get(variant.index)
            if chosen is None:
                continue

            def keep(answer: Outcome, latency_us: int, chosen: list[int] = chosen) -> None:
                if captured:
                    self.capture.keep(
                        answer,
                        descriptor=endpoint.descriptor,
                        sample=1.0,
                        protocol=protocol,
                        body=body,
                        time_us=self._wall_ns() // 1000,
                        latency_us=latency_us,
                        rows=chosen,
                    )

            self.shadows.put(ShadowJob(endpoint, variant, ask.rows, chosen, outcome, keep))

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


def _only(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise WrongMethod(method, allowed=", ".join(allowed))


def _version(rest: list[str]) -> str | None:
    if not rest:
        return None
    if rest[0] != "versions":
        raise NotFound("address", "/".join(rest)[:200])
    return rest[1]


def _number(version: str | None, endpoint: LiveEndpoint) -> int | None:
    if version is None:
        return None
    if not (version.isascii() and version.isdigit() and len(version) < 10):
        raise UnknownVersion(version, endpoint=endpoint.name, served=endpoint.router.by_version)
    return int(version)
