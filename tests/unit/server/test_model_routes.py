"""Models, versions, aliases, stages and approvals over HTTP."""

import pytest

from modelyard.errors import Conflict, Forbidden, Invalid, NotFound

OCTETS = {"content-type": "application/octet-stream"}


def _register(client, model="churn", content=b"weights", **fields):
    digest = client.request("PUT", "/objects", content=content, headers=OCTETS)["digest"]
    return client.post(f"/models/{model}/versions", {"files": [{"path": "model.bin", "digest": digest}], **fields})


def test_version_is_registered_listed_and_read(client):
    run = client.post("/runs", {"name": "train"})["id"]
    made = _register(client, run_id=run, metrics={"auc": 0.9}, tags={"a": "b"}, lineage={"parents": ["version:base/1"]})
    assert (made["reference"], made["stage"], made["metrics"]) == ("churn/1", "development", {"auc": 0.9})
    _register(client, content=b"other")
    page = client.get("/models/churn/versions", limit=1)
    assert (page["versions"][0]["number"], page["cursor"]) == (2, 2)
    assert client.get("/models/churn/versions", limit=1, cursor=2)["versions"][0]["number"] == 1
    assert client.get("/models/churn/versions/1/files/model.bin") == b"weights"
    with pytest.raises(NotFound, match=r"Did you mean 'model.bin'"):
        client.get("/models/churn/versions/1/files/modle.bin")
    edges = client.get("/lineage", subject="version:churn/1", direction="up")["edges"]
    assert {(edge["source"], edge["target"]) for edge in edges} >= {(f"run:{run}", "version:churn/1")}
    with pytest.raises(NotFound):
        _register(client, run_id="absent")
    with pytest.raises(NotFound, match="object"):
        client.post("/models/churn/versions", {"files": [{"path": "a", "digest": "0" * 64}]})
    with pytest.raises(Invalid):
        client.post("/models/churn/versions", {"files": []})


def test_model_shows_what_is_said_about_it(client):
    client.post("/models", {"name": "churn", "owner": "growth", "description": "Who leaves?"})
    with pytest.raises(Conflict):
        client.post("/models", {"name": "churn"})
    _register(client)
    _register(client, content=b"two")
    assert client.put("/models/churn/aliases/best", {"version": 1}) == {"aliases": {"best": 1}}
    assert client.get("/resolve", reference="churn@best")["reference"] == "churn/1"
    moved = client.post("/models/churn/versions/2/stage", {"stage": "production", "reason": "first"})
    assert (moved["requested"], moved["stage"]) == (False, "production")
    assert client.get("/resolve", reference="churn/production")["number"] == 2
    model = client.get("/models/churn")
    assert (model["owner"], model["production"], model["aliases"]) == ("growth", 2, {"best": 1})
    assert [version["number"] for version in model["versions"]] == [2, 1]
    last = client.get("/models/churn/versions/2/stages")["stages"][0]
    assert (last["before"], last["after"], last["reason"]) == ("development", "production", "first")
    assert client.delete("/models/churn/aliases/best") == {"aliases": {}}
    with pytest.raises(NotFound, match="Did you mean 'churn'"):
        client.get("/models/chrun")
    with pytest.raises(Invalid):
        client.post("/models/churn/versions/1/stage", {"stage": "live"})
    assert client.get("/models", cursor="churn")["models"] == []


def test_approval_needs_the_role_the_label_and_somebody_else(client, login):
    author = login("ada", "contributor", "approver", labels=["risk"])
    _register(author)
    asked = author.post("/models/churn/versions/1/approvals", {"label": "risk", "quorum": 2, "note": "please"})
    path = f"/approvals/{asked['id']}"
    with pytest.raises(Forbidden, match="somebody else"):
        author.post(f"{path}/grant", {})
    with pytest.raises(Forbidden, match="label"):
        login("tom", "approver").post(f"{path}/grant", {})
    with pytest.raises(Forbidden, match="approval:decide"):
        login("vic", "viewer", labels=["risk"]).post(f"{path}/grant", {})
    with pytest.raises(Conflict, match="Read it again"):
        login("eva", "approver", labels=["risk"]).post(f"{path}/grant", {"digest": "0" * 64})
    once = login("max", "approver", labels=["risk"]).post(f"{path}/grant", {"digest": asked["digest"]})
    assert once["status"] == "requested"
    # The operating-system user on loopback carries every label.
    assert client.post(f"{path}/grant", {"comment": "fine"})["status"] == "granted"
    assert client.get("/approvals", status="granted")["approvals"][0]["votes"][1]["comment"] == "fine"
    assert client.post(f"{path}/revoke", {"reason": "new facts"})["status"] == "revoked"


def test_approval_is_refused_by_one_and_withdrawn_by_its_author(client, login):
    author = login("ada", "contributor")
    _register(author)
    first = author.post("/models/churn/versions/1/approvals", {"label": "risk"})
    assert client.post(f"/approvals/{first['id']}/refuse", {"comment": "bias"})["status"] == "refused"
    second = author.post("/models/churn/versions/1/approvals", {"label": "risk", "expires_after_s": 60})
    with pytest.raises(Forbidden):
        login("bob", "contributor").delete(f"/approvals/{second['id']}")
    assert author.delete(f"/approvals/{second['id']}")["status"] == "revoked"
    statuses = [each["status"] for each in client.get("/models/churn/versions/1/approvals")["approvals"]]
    assert statuses == ["refused", "revoked"]
