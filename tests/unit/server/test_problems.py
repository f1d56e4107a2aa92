"""Every error class has a status, and every answer is a problem document."""

import asyncio
import importlib
import json
import pkgutil

import httpx
import pytest

import modelyard
from modelyard import errors
from modelyard.errors import Conflict, Invalid, ModelyardError
from modelyard.events import SYSTEM, EventLog, SystemClock
from modelyard.server.access import PUBLIC, Access, Routes, needs
from modelyard.server.application import create_application, native_api
from modelyard.server.identity import EVERYWHERE, Identity
from modelyard.server.problems import status_of
from modelyard.server.routes.health import health_routes
from modelyard.server.routes.history import history_routes
from modelyard.server.routes.identity import project_routes, token_routes, user_routes
from modelyard.settings import Settings


def _subclasses(kind):
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def test_every_error_class_has_a_status():
    for module in pkgutil.walk_packages(modelyard.__path__, "modelyard."):
        if "__main__" not in module.name and ".migrations" not in module.name and "child" not in module.name:
            importlib.import_module(module.name)
    kinds = {kind for kind in _subclasses(ModelyardError) if kind.__module__.startswith("modelyard.")}
    assert errors.StorageFull in kinds
    for kind in kinds:
        assert 400 <= status_of(kind) < 600


def test_a_route_without_a_permission_is_refused():
    with pytest.raises(Invalid, match="/runs"):
        Routes().get("/runs")(lambda: None)


def _failing_routes():
    routes = Routes()

    @routes.get("/conflict", openapi_extra=needs(PUBLIC))
    def conflict() -> None:
        raise Conflict("There is one already.", name="x", limit=3)

    @routes.get("/bug", openapi_extra=needs(PUBLIC))
    def bug() -> None:
        raise RuntimeError("secret detail")

    return routes


@pytest.fixture
def served(sqlite, tmp_path):
    """A function that sends one request to a full application, with and without login."""
    log = EventLog(sqlite)
    identity = Identity(sqlite, log, SystemClock())

    def send(method, path, *, local=True, limit_mb=1, **options):
        routers = [
            user_routes(identity),
            token_routes(identity),
            project_routes(identity),
            history_routes(log, keys=tmp_path / "keys", wall_clock=SystemClock()),
            health_routes({"engine": lambda: "the engine is starting"}),
            _failing_routes(),
        ]
        application = create_application(
            Access(identity, open_to_local=local), routers, settings=Settings(max_body_mb=limit_mb)
        )

        async def run():
            transport = httpx.ASGITransport(application, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, "/api/v1" + path, **options)

        return asyncio.run(run())

    send.identity = identity
    return send


def _assert_problem(response, status, code):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["code"] == code
    assert body["request_id"] == response.headers.get("x-request-id", body["request_id"]) != ""
    return body


def test_domain_errors_carry_their_facts(served):
    body = _assert_problem(served("GET", "/conflict"), 409, "conflict")
    assert (body["detail"], body["limit"]) == ("There is one already.", 3)


def test_a_bug_shows_no_detail(served):
    response = served("GET", "/bug")
    _assert_problem(response, 500, "internal")
    assert "secret" not in response.text


def test_unknown_paths_and_methods_are_named(served):
    assert "/api/v1/nothing" in _assert_problem(served("GET", "/nothing"), 404, "not_found")["detail"]
    _assert_problem(served("DELETE", "/users"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"true",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b"[" * 30_000,
        b'{"name": 1e999}',
        b'{"name": NaN}',
    ],
)
def test_malformed_bodies_are_client_errors(served, content):
    response = served("POST", "/users", content=content, headers={"content-type": "application/json"})
    _assert_problem(response, 400, "invalid")


def test_misspelt_fields_are_named(served):
    body = _assert_problem(served("POST", "/users", json={"nmae": "x"}), 400, "invalid")
    assert body["field"] in {"name", "nmae"}


def test_large_bodies_are_refused_with_and_without_a_length(served):
    _assert_problem(served("POST", "/users", content=b"x" * 1_000_001), 413, "too_large")

    async def chunks():
        for _ in range(200):
            yield b"x" * 10_000

    _assert_problem(served("POST", "/users", content=chunks()), 413, "too_large")


def test_raw_bytes_have_the_same_limit_before_anybody_has_logged_in(served):
    octets = {"content-type": "application/octet-stream"}
    response = served("POST", "/users", local=False, content=b"x" * 1_000_001, headers=octets)
    _assert_problem(response, 413, "too_large")


def test_events_of_another_project_are_for_auditors_only(served):
    served("POST", "/projects", json={"name": "fraud"})
    served("POST", "/users", json={"name": "eve", "roles": ["viewer"]})
    served("POST", "/users", json={"name": "max", "roles": ["auditor"]})

    def kinds(user):
        _, secret = served.identity.create_token(user, "t", actor=SYSTEM)
        headers = {"authorization": f"Bearer {secret}"}
        found = served("GET", "/events", local=False, headers=headers).json()["events"]
        return {(event["kind"], event["project"]) for event in found}

    assert ("project.created", "fraud") in kinds("max")
    assert {project for _, project in kinds("eve")} == {"default"}


def test_foreign_hosts_origins_and_forms_are_refused(served):
    _assert_problem(served("GET", "/users", headers={"host": "evil.example"}), 400, "host_not_allowed")
    _assert_problem(
        served("POST", "/users", json={}, headers={"origin": "http://evil.example"}),
        403,
        "origin_not_allowed",
    )
    _assert_problem(
        served("POST", "/users", content=b"{}", headers={"content-type": "text/plain"}),
        415,
        "unsupported_media_type",
    )
    allowed = {"origin": "http://localhost:5000", "host": "127.0.0.1:5000"}
    assert served("POST", "/users", json={"name": "ada"}, headers=allowed).status_code == 201


def test_login_is_asked_for_and_permissions_hold(served):
    _assert_problem(served("GET", "/users", local=False), 401, "unauthenticated")
    served.identity.create_user("eve", actor=SYSTEM, roles={EVERYWHERE: frozenset({"viewer"})})
    _, secret = served.identity.create_token("eve", "t", actor=SYSTEM)
    as_eve = {"authorization": f"Bearer {secret}"}
    assert served("GET", "/events", local=False, headers=as_eve).status_code == 200
    body = _assert_problem(served("GET", "/users", local=False, headers=as_eve), 403, "forbidden")
    assert body["permission"] == "user:read"
    basic = httpx.BasicAuth("anyone", secret)
    assert served("GET", "/whoami", local=False, auth=basic).json()["name"] == "eve"
    for header in ("Bearer nope", "Basic %%%", "Digest x"):
        response = served("GET", "/whoami", local=False, headers={"authorization": header})
        _assert_problem(response, 401, "unauthenticated")


def test_audit_over_http(served, tmp_path):
    served("POST", "/users", json={"name": "ada", "roles": ["viewer"]})
    assert served("POST", "/audit/checkpoint").status_code == 201
    result = served("POST", "/audit/verify").json()
    assert (result["intact"], result["rows"], result["checkpoints"]) == (True, 1, 1)
    (event,) = served("GET", "/events").json()["events"]
    assert (event["kind"], event["subject"]) == ("user.created", "user:ada")


def test_readiness_names_what_is_missing(served):
    response = served("GET", "/ready")
    assert response.status_code == 503
    assert response.json()["waiting_for"] == {"engine": "the engine is starting"}
    assert served("GET", "/health").json()["status"] == "ok"


def test_every_native_route_declares_its_permission(served):
    document = native_api([health_routes({}), _failing_routes()]).openapi()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "x-permission" in operation, path
    json.dumps(document)
