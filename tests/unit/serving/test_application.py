import asyncio
import itertools
import json

import pytest

from modelyard.errors import Forbidden, Unauthenticated
from modelyard.serving.application import Live
from unit.serving.worlds import Exchange, Records, encoded, face

GOOD = face()


@pytest.fixture
def world(make_world):
    world = make_world()
    world.endpoint(GOOD, entity_key="k")
    return world


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/predict/churn", {}, 405, "wrong_method"),
        ("DELETE", "/predict/churn", {}, 405, "wrong_method"),
        ("POST", "/health/live", {}, 405, "wrong_method"),
        ("POST", "/predict/chrun", {}, 404, "unknown_endpoint"),
        ("POST", "/predict/", {}, 404, "unknown_endpoint"),
        ("POST", "/predict/churn/rows/1", {}, 404, "not_found"),
        ("POST", "/", {}, 404, "not_found"),
        ("POST", "/predict", {}, 404, "not_found"),
        ("POST", "/predict/churn", {"content_type": "text/plain"}, 415, "wrong_content_type"),
        ("POST", "/predict/churn", {"content_type": ""}, 415, "wrong_content_type"),
        ("POST", "/predict/churn", {"content_type": "application/jsonp"}, 415, "wrong_content_type"),
        ("POST", "/predict/churn", {"host": "evil.example"}, 403, "host_refused"),
        ("GET", "/health/live", {"host": "evil.example"}, 403, "host_refused"),
        ("POST", "/predict/churn", {"origin": "http://evil.example"}, 403, "origin_refused"),
        ("POST", "/predict/churn", {"origin": "null"}, 403, "origin_refused"),
        ("POST", "/predict/churn", {"x_deadline_ms": "soon"}, 400, "bad_header"),
        ("POST", "/predict/churn", {"x_deadline_ms": "-5"}, 400, "bad_header"),
        ("POST", "/predict/churn", {"x_deadline_ms": "0"}, 504, "deadline_exceeded"),
    ],
)
def test_refusals(world, method, path, headers, status, code):  # noqa: PLR0917 - one argument a column
    found, answer = world.ask(method, path, {"x": 1}, **headers)
    assert (found, answer["error"]["code"]) == (status, code)
    assert world.application.rejected == {code: 1}
    assert world.records.payloads == []


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "application/json; charset=utf-8"},
        {"content_type": "Application/JSON"},
        {"content_type": None},
        {"origin": "http://localhost"},
        {"x_deadline_ms": "60000"},
        {"content_length": None},
    ],
)
def test_acceptable_requests(world, headers):
    assert world.predict({"x": 1}, **headers)["captured"] is True


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        (b"", "empty_body", 400),
        (b" \n", "empty_body", 400),
        (b"[]", "empty_body", 400),
        (b'{"rows": []}', "empty_body", 400),
        (b"null", "invalid_json", 400),
        (b"true", "invalid_json", 400),
        (b"7", "invalid_json", 400),
        (b'"x"', "invalid_json", 400),
        (b"[1, 2]", "invalid_json", 400),
        (b"[null]", "invalid_json", 400),
        (b"{", "invalid_json", 400),
        (b'{"x": NaN}', "invalid_json", 400),
        (b'{"x": Infinity}', "invalid_json", 400),
        (b'{"x": "\\ud800"}', "invalid_json", 400),
        (b'{"x": "\xff"}', "invalid_json", 400),
        (b"[" * 3000, "invalid_json", 400),
        (b'{"x":' * 3000, "invalid_json", 400),
        (b'{"rows": {"x": 1}}', "invalid_json", 400),
        (b'{"rows": [{"x": 1}], "ids": 1}', "invalid_json", 400),
        (b'{"rows": [{"x": 1}], "id": 7}', "invalid_json", 400),
        (b'{"rows": [{"x": 1}]} {}', "invalid_json", 400),
        (b"{}", "missing_column", 422),
    ],
)
def test_bodies_that_say_nothing(world, body, code, status):
    found, answer = world.ask("POST", "/predict/churn", body)
    assert (found, answer["error"]["code"]) == (status, code)


def test_an_unknown_endpoint_is_answered_with_the_nearest(world):
    _, answer = world.ask("POST", "/predict/chrun", {"x": 1})
    assert "Did you mean 'churn'?" in answer["error"]["message"]


def test_an_endpoint_without_a_loaded_version_says_why(world):
    world.application.live = Live(2, {}, {"churn": "A file was changed."})
    exchange = Exchange(world.application, "POST", "/predict/churn", b"{}")
    asyncio.run(exchange.run())
    assert (exchange.status, exchange.headers["retry-after"]) == (503, "1")
    assert "A file was changed." in exchange.json["error"]["message"]


def test_an_announced_giant_is_refused_unread(world):
    headers = {"content-length": "10000001"}
    exchange = Exchange(world.application, "POST", "/predict/churn", b"{}", headers=headers)
    asyncio.run(exchange.run())
    assert (exchange.status, exchange.received, exchange.headers["connection"]) == (413, 0, "close")


def test_an_unannounced_giant_is_refused_as_soon_as_it_shows(make_world):
    world = make_world(max_body_bytes=1000)
    world.endpoint(GOOD)
    exchange = Exchange(
        world.application, "POST", "/predict/churn", b" " * 5000, chunks=50, headers={"content-length": None}
    )
    asyncio.run(exchange.run())
    assert (exchange.status, exchange.received) == (413, 11)


def test_a_body_in_pieces_is_put_together(world):
    status, answer = world.ask("POST", "/predict/churn", {"rows": [{"x": i} for i in range(100)]}, chunks=17)
    assert (status, len(answer["predictions"])) == (200, 100)


def test_a_client_that_leaves_gets_nothing_and_frees_its_place(world):
    exchange = Exchange(world.application, "POST", "/predict/churn", b'{"x": 1}')
    exchange.incoming[0]["more_body"] = True
    asyncio.run(exchange.run())
    assert exchange.sent == []
    assert world.application.live.endpoints["churn"].under_way == 0


def test_beyond_its_limit_an_endpoint_is_busy_and_recovers(make_world):
    world = make_world()
    endpoint = world.endpoint(GOOD, limit=2)

    async def crowd():
        gate = asyncio.Event()
        exchanges = [Exchange(world.application, "POST", "/predict/churn", b'{"x": 1}') for _ in range(3)]
        for exchange in exchanges:
            exchange.gate = gate
        tasks = [asyncio.create_task(exchange.run()) for exchange in exchanges]
        await tasks[2]
        gate.set()
        await asyncio.gather(*tasks)
        return exchanges

    exchanges = asyncio.run(crowd())
    assert [exchange.status for exchange in exchanges] == [200, 200, 429]
    assert exchanges[2].json["error"]["code"] == "busy"
    assert exchanges[2].headers["retry-after"] == "1"
    assert endpoint.under_way == 0
    assert world.predict({"x": 1})


def test_a_deadline_that_passes_while_the_body_comes(make_world):
    ticks = itertools.count(step=30_000_000)
    world = make_world(timer_ns=lambda: next(ticks))
    world.endpoint(GOOD)
    status, answer = world.ask("POST", "/predict/churn", {"x": 1}, x_deadline_ms="30")
    assert (status, answer["error"]["code"]) == (504, "deadline_exceeded")
    assert world.ask("POST", "/predict/churn", {"x": 1}, x_deadline_ms="31")[0] == 200


def test_tokens_come_before_endpoints(world):
    def authorize(header, endpoint):
        if header is None:
            raise Unauthenticated("who?")
        if endpoint != "churn":
            raise Forbidden("no")

    world.application.authorize = authorize
    exchange = Exchange(world.application, "POST", "/predict/nothing", b"{}")
    asyncio.run(exchange.run())
    assert (exchange.status, exchange.headers["www-authenticate"]) == (401, "Bearer")
    assert world.ask("POST", "/predict/nothing", {"x": 1}, authorization="Bearer a")[0] == 403
    assert world.ask("POST", "/predict/churn", {"x": 1}, authorization="Bearer a")[0] == 200
    assert world.ask("GET", "/v2/models/churn")[0] == 401
    assert world.ask("GET", "/health/live")[0] == 200


def test_a_full_buffer_is_told_to_the_client_and_counted(make_world):
    world = make_world(records=Records(room=1))
    world.endpoint(GOOD)
    assert [world.predict({"x": 1})["captured"] for _ in range(3)] == [True, False, False]
    assert (world.capture.written, world.capture.dropped) == (1, 2)


def test_sampling_keeps_its_share_and_drops_nothing(make_world):
    chances = itertools.cycle([0.1, 0.6, 0.29, 0.3])
    world = make_world(chance=lambda: next(chances))
    world.endpoint(GOOD, sample=0.3)
    assert [world.predict({"x": 1})["captured"] for _ in range(4)] == [True, False, True, False]
    world.endpoint(GOOD, sample=0.0)
    assert world.predict({"x": 1})["captured"] is False
    assert world.capture.dropped == 0


def test_redacted_columns_never_reach_the_log(make_world):
    world = make_world()
    wide = face(columns=(("x", "double"), ("ssn", "string")))
    world.endpoint(wide, entity_key="k", redact=("ssn",))
    world.predict({"rows": [{"x": 1, "ssn": "123-45", "k": "a"}]})
    world.predict([[1, "123-45"]])
    tensors = [
        {"name": "x", "shape": [1], "datatype": "FP64", "data": [1]},
        {"name": "ssn", "shape": [1], "datatype": "BYTES", "data": ["123-45"]},
    ]
    assert world.ask("POST", "/v2/models/churn/infer", {"inputs": tensors})[0] == 200
    bodies = [json.loads(record.body) for record in world.records.records]
    assert bodies == [
        {"rows": [{"x": 1, "ssn": None, "k": "a"}]},
        {"rows": [[1, None]]},
        {"rows": [{"x": 1, "ssn": None}]},
    ]
    assert not any(b"123-45" in payload for payload in world.records.payloads)


def test_health_follows_the_routes_and_the_drain(world):
    assert world.ask("GET", "/health/live") == (200, {"live": True})
    assert world.ask("GET", "/health/ready")[0] == 200
    world.application.draining = True
    assert world.ask("GET", "/health/ready")[0] == 503
    world.application.draining = False
    world.application.live = Live()
    assert world.ask("GET", "/v2/health/ready")[0] == 503
    world.application.live = Live(1, {}, {"churn": "why"})
    assert world.ask("GET", "/health/ready")[1]["unserved"] == {"churn": "why"}


def test_while_draining_each_answer_closes_its_connection(world):
    world.application.draining = True
    exchange = Exchange(world.application, "POST", "/predict/churn", encoded({"x": 1}))
    asyncio.run(exchange.run())
    assert (exchange.status, exchange.headers["connection"]) == (200, "close")


def test_a_fault_of_ours_is_logged_and_answered(world, caplog):
    world.application.authorize = lambda header, endpoint: 1 / 0
    status, answer = world.ask("POST", "/predict/churn", {"x": 1})
    assert (status, answer["error"]["code"]) == (500, "internal")
    assert "ZeroDivisionError" in caplog.text


def test_other_connections_than_http(world):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    asyncio.run(world.application({"type": "websocket", "path": "/"}, receive, send))
    asyncio.run(world.application({"type": "lifespan"}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1000}]
