"""Endpoints and applications in the test's own process, over models that are plain functions."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from modelyard.errors import Invalid
from modelyard.serving.access import Doorkeeper, allow_all
from modelyard.serving.answering import Answering
from modelyard.serving.application import Application, Live
from modelyard.serving.capture import Capture, Record, decode_record
from modelyard.serving.endpoint import LiveEndpoint, LiveVariant, ModelFace, Scored
from modelyard.serving.ids import PredictionIds
from modelyard.serving.model import EndpointRoute, Lease, VariantRoute
from modelyard.serving.protocols.ask import Row
from modelyard.serving.shadow import ShadowQueue
from modelyard.serving.tally import TallyBook

DESCRIPTOR = bytes(range(16))


class Refused(Invalid):
    """What the models here raise for a row without their columns."""

    code = "missing_column"


def face(
    score: Callable[[dict[str, Any]], float] = lambda row: float(row["x"]),
    *,
    columns: tuple[tuple[str, str], ...] = (("x", "double"),),
    outputs: int = 1,
) -> ModelFace:
    """A model whose score is a function of one row; it takes exactly its columns."""
    names = [name for name, _ in columns]

    def named(row: Row) -> dict[str, Any]:
        return row if isinstance(row, dict) else dict(zip(names, row, strict=True))

    def check(rows: Sequence[Row]) -> None:
        for i, row in enumerate(rows):
            if set(named(row)) != set(names):
                raise Refused(f"Row {i}: columns {sorted(named(row))}, not {names}.", row=i, column=names[0])

    def predict(rows: Sequence[Row]) -> Scored:
        check(rows)
        scores = [score(named(row)) for row in rows]
        labels = [int(value > 0) for value in scores]
        warnings = [(i, {"code": "negative"}) for i, value in enumerate(scores) if value < 0]
        if outputs > 1:
            return Scored([None] * len(rows), labels, [[value] * outputs for value in scores], warnings)
        return Scored(list(scores), labels, None, warnings)

    return ModelFace(predict, check, columns, classes=(0, 1), outputs=outputs, engine="function")


class Records:
    """Keeps records in memory; full after ``room`` of them."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.payloads: list[bytes] = []

    def append(self, payload: bytes) -> bool:
        if len(self.payloads) >= self.room:
            return False
        self.payloads.append(payload)
        return True

    @property
    def records(self) -> list[Record]:
        return [decode_record(payload) for payload in self.payloads]


class World:
    """One application with endpoints over plain functions.

    A variant is ``name=(face, role, weight)`` or ``name=(face, role, weight, answers of its lease)``; the
    control takes what is left.
    """

    def __init__(self, folder: Any, *, records: Records | None = None, **given: Any) -> None:
        self.book = TallyBook(folder / "tallies")
        self.records = records or Records()
        self.capture = Capture(self.records, chance=given.pop("chance", lambda: 0.5))
        self.shadows = ShadowQueue(limit=given.pop("shadow_limit", 1000), timer_ns=time.perf_counter_ns)
        timer_ns = given.pop("timer_ns", time.perf_counter_ns)
        self.application = Application(
            doorkeeper=Doorkeeper(listening="127.0.0.1"),
            authorize=allow_all,
            answering=Answering(capture=self.capture, shadows=self.shadows, timer_ns=timer_ns),
            timer_ns=timer_ns,
            **{"max_body_bytes": 10_000_000, **given},
        )

    def endpoint(self, control: ModelFace, *, limit: int = 100, **others: Any) -> LiveEndpoint:
        """Make an endpoint ``churn`` and put it in force."""
        keys = ("name", "project", "salt", "entity_key", "time_column", "sample", "redact")
        given = {key: others.pop(key) for key in keys if key in others}
        specs = {name: (*spec, None)[:4] for name, spec in others.items()}
        taken = sum(spec[2] for spec in specs.values() if spec[1] == "canary")
        routes = [VariantRoute("control", "control", "m", 1, "d1", 10_000 - taken)]
        faces = [control]
        for i, (name, (model, role, weight, answers)) in enumerate(specs.items()):
            lease = None if answers is None else Lease("l1", answers)
            routes.append(VariantRoute(name, role, "m", i + 2, f"d{i + 2}", weight, lease))
            faces.append(model)
        fields = {"name": "churn", "project": "default", "salt": "s", "entity_key": None, "time_column": None}
        route = EndpointRoute(**{**fields, **given, "variants": tuple(routes)})
        variants = [
            LiveVariant(r, i, f, self._tally(route.name, r)) for i, (r, f) in enumerate(zip(routes, faces, strict=True))
        ]
        made = LiveEndpoint(route, variants, descriptor=DESCRIPTOR, ids=PredictionIds(), limit=limit)
        self.application.live = Live(1, {**self.application.live.endpoints, route.name: made})
        return made

    def _tally(self, name: str, variant: VariantRoute) -> Any:
        lease = variant.lease
        return self.book.tally(
            name,
            variant.name,
            variant.digest,
            lease=lease and lease.id,
            share=lease.answers if lease else 0,
        )

    def ask(self, method: str, path: str, body: Any = b"", *, chunks: int = 1, **headers: str) -> Any:
        """Send one request and wait until the shadows are done."""
        return asyncio.run(self._asked(method, path, body, chunks, headers))

    def predict(self, body: Any, **headers: str) -> dict[str, Any]:
        status, answer = self.ask("POST", "/predict/churn", body, **headers)
        assert status == 200, answer
        return answer

    async def _asked(self, method: str, path: str, body: Any, chunks: int, headers: dict[str, str]) -> Any:
        exchange = Exchange(self.application, method, path, encoded(body), chunks=chunks, headers=headers)
        await exchange.run()
        await self.shadows.drain()
        return exchange.status, exchange.json

    def counts(self, endpoint: LiveEndpoint) -> dict[str, tuple[int, int]]:
        return {v.route.name: (v.tally.answers, v.tally.errors) for v in endpoint.variants}


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


class Exchange:
    """One ASGI request."""

    def __init__(
        self,
        application: Application,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        chunks: int = 1,
        headers: dict[str, str] | None = None,
    ) -> None:
        named = {"host": "localhost", "content-type": "application/json", "content-length": str(len(body))}
        named |= {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        pairs = [(k.encode(), v.encode("latin-1")) for k, v in named.items() if v is not None]
        self.scope = {"type": "http", "method": method, "path": path, "headers": pairs}
        size = max(1, -(-len(body) // chunks))
        parts = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
        self.incoming = [
            {"type": "http.request", "body": part, "more_body": i + 1 < len(parts)} for i, part in enumerate(parts)
        ]
        self.application = application
        self.received = 0
        self.sent: list[dict[str, Any]] = []
        self.gate: asyncio.Event | None = None

    async def receive(self) -> dict[str, Any]:
        if self.gate is not None:
            await self.gate.wait()
        self.received += 1
        return self.incoming.pop(0) if self.incoming else {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def run(self) -> None:
        await self.application(self.scope, self.receive, self.send)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[str, str]:
        return {k.decode(): v.decode() for k, v in self.sent[0]["headers"]}

    @property
    def json(self) -> Any:
        return json.loads(self.sent[1]["body"])


def shares(answer: dict[str, Any]) -> Counter[str]:
    return Counter(prediction["variant"] for prediction in answer["predictions"])
