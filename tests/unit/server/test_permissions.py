"""Every native route declares its permission, and it holds: without login, for a viewer, from another project."""

import re

import pytest

from modelyard.errors import Forbidden, ModelyardError, NotFound, Unauthenticated
from modelyard.server.access import PUBLIC
from modelyard.server.application import native_api
from modelyard.server.identity import PERMISSIONS, allows

_EXAMPLES = {"number": "1", "stage": "staging", "alias": "best"}


def _operations(home):
    document = native_api(home.routers()).openapi()
    for path, operations in document["paths"].items():
        below = path.removeprefix("/api/v1")
        filled = re.sub(r"{(\w+)}", lambda match: _EXAMPLES.get(match[1], "x"), below)
        for method, operation in operations.items():
            yield method.upper(), filled, operation["x-permission"]


def test_permissions_are_those_that_roles_grant(home):
    wanted = {permission for _, _, permission in _operations(home)} - {PUBLIC}
    granted = frozenset().union(*PERMISSIONS.values()) - {"*"}
    # Only an administrator has these.
    admin_only = {"user:read", "user:write", "project:write", "audit:write", "clock:write"}
    assert wanted - granted == admin_only
    assert len(list(_operations(home))) > 40


def test_every_route_asks_for_a_login_and_for_its_permission(home, login):
    anonymous = home.client(local=False)
    viewer = login("vera", "viewer")
    elsewhere = login("otto", "admin", project="other", asks="default")
    for method, path, permission in _operations(home):
        if permission == PUBLIC:
            continue
        with pytest.raises(Unauthenticated):
            anonymous.request(method, path, body={})
        with pytest.raises(Forbidden, match="may not do this"):
            elsewhere.request(method, path, body={})
        if not allows(PERMISSIONS["viewer"], permission):
            with pytest.raises(Forbidden) as refused:
                viewer.request(method, path, body={})
            assert refused.value.facts["permission"] == permission, path
    anonymous.close()


def test_viewer_may_read_everything_that_needs_no_more(home, login):
    viewer = login("vera", "viewer")
    read = [(m, path) for m, path, permission in _operations(home) if permission == "read"]
    assert {method for method, _ in read} == {"GET"}
    for method, path in read:
        query = {"reference": "x/1", "subject": "run:x"}
        try:
            viewer.request(method, path, query=query)
        except NotFound:
            continue
        except ModelyardError as error:
            pytest.fail(f"{path}: {error.code} {error.message}")


def test_objects_of_another_project_do_not_exist(client, home, login):
    run = client.post("/runs", {"name": "mine"})["id"]
    client.request(
        "PUT", f"/runs/{run}/artifacts/a.txt", content=b"x", headers={"content-type": "application/octet-stream"}
    )
    digest = client.get(f"/runs/{run}/artifacts")["artifacts"][0]["digest"]
    client.post("/models/churn/versions", {"files": [{"path": "a.txt", "digest": digest}], "run_id": run})
    approval = client.post("/models/churn/versions/1/approvals", {"label": "risk"})["id"]
    other = login("otto", "admin", project="other", asks="other")
    paths = [
        f"/runs/{run}",
        f"/runs/{run}/artifacts",
        f"/runs/{run}/artifacts/a.txt",
        f"/runs/{run}/metrics/loss",
        "/models/churn",
        "/models/churn/versions",
        "/models/churn/versions/1",
        "/models/churn/versions/1/files/a.txt",
        "/models/churn/versions/1/approvals",
        f"/approvals/{approval}",
    ]
    for path in paths:
        client.get(path)
        with pytest.raises(NotFound):
            other.get(path)
    for method, path, body in (
        ("POST", f"/runs/{run}/finish", {}),
        ("POST", f"/runs/{run}/batches", {"id": "b", "run_id": run}),
        ("POST", f"/approvals/{approval}/grant", {}),
        ("DELETE", f"/approvals/{approval}", None),
        ("PUT", "/models/churn/aliases/best", {"version": 1}),
        ("POST", "/models/churn/versions/1/stage", {"stage": "staging"}),
    ):
        with pytest.raises(NotFound):
            other.request(method, path, body=body)
    assert other.get("/runs")["runs"] == other.get("/models")["models"] == other.get("/approvals")["approvals"] == []
    assert other.get("/lineage", subject=f"run:{run}")["edges"] == []
