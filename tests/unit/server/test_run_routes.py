"""Runs, objects and files over HTTP."""

import json
import threading
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from modelyard.errors import Conflict, Corrupted, Invalid, NotFound, TooLarge
from modelyard.server.routes.group_commit import GroupCommit
from modelyard.server.routes.uploads import Uploads
from modelyard.settings import Settings
from modelyard.tracking import Artifact, Batch, Ending, ParameterChanged, Points, Start, encode
from unit.server.composed import Composed

OCTETS = {"content-type": "application/octet-stream"}


def _batch(run_id, batch_id="b1", **fields):
    return Batch(batch_id, run_id, **fields)


def _send(client, batch, **how):
    return client.request("POST", f"/runs/{batch.run_id}/batches", **how)


def test_batch_creates_fills_and_ends_a_run_once(client):
    start = Start("churn", "default", "first", 1_700_000_000_000_000)
    points = Points([0, 1], [1, 2], [0.5, float("inf")])
    batch = _batch(
        "run-1",
        start=start,
        metrics={"loss": points},
        params={"c": "1"},
        ending=Ending("finished", 1_700_000_001_000_000),
    )
    packed = msgspec.msgpack.encode(batch)
    assert _send(client, batch, content=packed, headers=OCTETS) == {"applied": True}
    assert _send(client, batch, content=packed, headers=OCTETS) == {"applied": False}
    as_json = {"content-type": "application/json"}
    assert _send(client, batch, content=encode(batch).encode(), headers=as_json) == {"applied": False}
    run = client.get("/runs/run-1")
    assert (run["status"], run["params"], run["metrics"]["loss"]["count"]) == ("finished", {"c": "1"}, 2)
    history = client.get("/runs/run-1/metrics/loss")
    assert [point["value"] for point in history["points"]] == [0.5, "Infinity"]
    assert history["offset"] is None
    first = client.get("/runs/run-1/metrics/loss", limit=1)
    assert client.get("/runs/run-1/metrics/loss", limit=1, offset=first["offset"])["points"][0]["step"] == 1
    assert client.get("/experiments")["experiments"][0]["name"] == "churn"


def test_refused_batches_say_why(client):
    batch = _batch("run-1", start=Start("churn", "default", "first", 0), params={"c": "1"})
    _send(client, batch, content=msgspec.msgpack.encode(batch), headers=OCTETS)
    with pytest.raises(ParameterChanged):
        changed = _batch("run-1", "b2", params={"c": "2"})
        _send(client, changed, content=msgspec.msgpack.encode(changed), headers=OCTETS)
    with pytest.raises(Invalid, match="address"):
        client.request("POST", "/runs/run-2/batches", content=msgspec.msgpack.encode(batch), headers=OCTETS)
    with pytest.raises(Invalid, match="project 'other'"):
        foreign = _batch("run-3", start=Start("churn", "other", "first", 0))
        _send(client, foreign, content=msgspec.msgpack.encode(foreign), headers=OCTETS)
    with pytest.raises(NotFound, match="object"):
        absent = _batch("run-1", "b3", artifacts=[Artifact("a", "0" * 64, 1)])
        _send(client, absent, content=msgspec.msgpack.encode(absent), headers=OCTETS)


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b"\xc1", b"\x81\xa2id\xa1x", b"[" * 50_000])
@pytest.mark.parametrize("kind", ["application/json", "application/octet-stream"])
def test_what_is_no_batch_is_a_client_error(client, content, kind):
    with pytest.raises(Invalid):
        client.request("POST", "/runs/x/batches", content=content, headers={"content-type": kind})


def test_creating_twice_with_one_key_makes_one_run(client):
    headers = {"Idempotency-Key": "k1"}
    first = client.request("POST", "/runs", body={"name": "a"}, headers=headers)
    again = client.request("POST", "/runs", body={"name": "a"}, headers=headers)
    other = client.request("POST", "/runs", body={"name": "a"}, headers={"Idempotency-Key": "k2"})
    assert first["id"] == again["id"] != other["id"]
    assert len(client.get("/runs")["runs"]) == 2


def test_runs_are_paged_newest_first(client):
    ids = [client.post("/runs", {"name": str(n), "experiment": "e"})["id"] for n in range(5)]
    seen, cursor = [], None
    while True:
        page = client.get("/runs", experiment="e", limit=2, cursor=cursor)
        seen += [run["id"] for run in page["runs"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]
    client.post(f"/runs/{ids[0]}/finish", {"status": "failed", "error": "no data"})
    (failed,) = client.get("/runs", status="failed")["runs"]
    assert (failed["id"], failed["error"]) == (ids[0], "no data")
    with pytest.raises(NotFound, match="Did you mean 'e'"):
        client.get("/runs", experiment="ee")
    with pytest.raises(Invalid):
        client.get("/runs", cursor="not one")


def test_files_come_back_as_they_went_and_inert(client, home):
    run = client.post("/runs", {})["id"]
    page = b"<script>alert(1)</script>"
    made = client.request("PUT", f"/runs/{run}/artifacts/plots/ä b.html", content=page, headers=OCTETS)
    assert (made["path"], made["size_bytes"]) == ("plots/ä b.html", len(page))
    response = client._http.get(f"/runs/{run}/artifacts/plots/ä b.html")
    assert response.content == page
    assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%A4%20b.html"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in response.headers["content-security-policy"]
    assert client.get(f"/runs/{run}/artifacts")["artifacts"] == [{"path": "plots", "folder": True}]
    (file,) = client.get(f"/runs/{run}/artifacts", folder="plots")["artifacts"]
    assert (file["folder"], file["digest"]) == (False, made["digest"])
    for path in ("..%2f..%2fetc%2fpasswd", "%252e%252e%252fx", "a%00b"):
        with pytest.raises((Invalid, NotFound)):
            client.request("PUT", f"/runs/{run}/artifacts/{path}", content=b"x", headers=OCTETS)
        with pytest.raises((Invalid, NotFound)):
            client.get(f"/runs/{run}/artifacts/{path}")


def test_damaged_file_is_not_served(client, home):
    run = client.post("/runs", {})["id"]
    digest = client.request("PUT", f"/runs/{run}/artifacts/a", content=b"good", headers=OCTETS)["digest"]
    (path,) = [path for path in home.settings.home.joinpath("objects").rglob("*") if path.name.endswith(digest[4:])]
    path.chmod(0o644)
    path.write_bytes(b"evil")
    with pytest.raises(Corrupted):
        client.get(f"/runs/{run}/artifacts/a")


def test_objects_are_named_by_content(client):
    made = client.request("PUT", "/objects", content=b"abc", headers=OCTETS)
    assert made == client.request("PUT", "/objects", content=b"abc", headers=OCTETS)
    with pytest.raises(Conflict):
        client.request("PUT", "/objects", content=b"abc", query={"digest": "0" * 64}, headers=OCTETS)


def test_body_over_the_limit_is_refused_with_and_without_a_length(tmp_path):
    home = Composed(Settings(home=tmp_path / "home", max_body_mb=1))
    client = home.client()
    for content in (b"x" * 1_000_001, iter([b"x" * 600_000] * 2)):
        with pytest.raises(TooLarge):
            client.request("PUT", "/objects", content=content, headers=OCTETS)
    assert list(home.objects.digests()) == []
    client.close()
    home.database.close()


def test_pieces_are_put_together_and_bounded(tmp_path):
    now = [1_000_000.0]
    uploads = Uploads(tmp_path / "uploads", max_bytes=10, wall=lambda: now[0])
    piece = tmp_path / "piece"

    def add(name, content, offset):
        piece.write_bytes(content)
        return uploads.add(name, piece, offset=offset).read_bytes()

    assert add("a", b"abcd", 0) == b"abcd"
    assert add("b", b"other", 0) == b"other"
    assert add("a", b"efgh", 4) == b"abcdefgh"
    assert add("a", b"EF", 4) == b"abcdEF"
    with pytest.raises(Conflict) as gap:
        add("a", b"x", 7)
    assert gap.value.facts["received"] == 6
    with pytest.raises(TooLarge):
        add("a", b"12345", 6)
    assert len(list((tmp_path / "uploads").iterdir())) == 1
    now[0] = 4e9
    add("c", b"new", 0)
    assert len(list((tmp_path / "uploads").iterdir())) == 1


class _Slow:
    """Tracking whose first transaction lasts until it is let go."""

    def __init__(self):
        self.groups = []
        self.begun, self.go = threading.Event(), threading.Event()

    def log_batches(self, batches, *, actor):
        self.groups.append([batch.id for batch in batches])
        if len(self.groups) == 1:
            self.begun.set()
            self.go.wait(30)
            raise OSError("the disk is gone")
        return [Invalid("bad") if batch.id == "3" else True for batch in batches]


def test_batches_that_wait_share_a_transaction():
    slow, results = _Slow(), {}
    commits = GroupCommit(slow)

    def log(name, actor):
        try:
            results[name] = commits.log(Batch(name, "run"), actor=actor)
        except (Invalid, OSError) as error:
            results[name] = type(error)

    threads = [threading.Thread(target=log, args=("0", "ada"))]
    threads[0].start()
    assert slow.begun.wait(30)
    for name, actor in (("1", "ada"), ("2", "ada"), ("3", "ada"), ("4", "eve")):
        threads.append(threading.Thread(target=log, args=(name, actor)))
        threads[-1].start()
    while len(commits._waiting) < 4:
        threading.Event().wait(0.001)
    slow.go.set()
    for thread in threads:
        thread.join(30)
    assert results == {"0": OSError, "1": True, "2": True, "3": Invalid, "4": True}
    assert sorted(map(len, slow.groups)) == [1, 1, 3]


def test_clock_is_driven_only_where_it_follows_events(client, tmp_path):
    assert client.get("/clock")["driven"] is False
    with pytest.raises(Conflict, match="MODELYARD_CLOCK"):
        client.post("/clock", {"to": "2026-01-01T00:00:00Z"})
    home = Composed(Settings(home=tmp_path / "replay", clock="event"))
    driven = home.client()
    to = datetime(2026, 1, 1, tzinfo=UTC)
    assert driven.post("/clock", {"to": to.isoformat()}) == {"now": "2026-01-01T00:00:00Z", "driven": True}
    assert driven.post("/clock", {"to": (to - timedelta(days=1)).isoformat()})["now"] == "2026-01-01T00:00:00Z"
    with pytest.raises(Invalid):
        driven.post("/clock", {"to": "2026-01-01T00:00:00"})
    driven.close()
    home.database.close()


def test_workflow_runs_are_listed(client, home):
    assert client.get("/workflows") == {"workflows": [], "cursor": None}
    with pytest.raises(NotFound):
        client.get("/workflows/retrain/churn/1")
    with pytest.raises(NotFound):
        client.post("/workflows/retrain/churn/1/cancel")


def test_status_says_where_endpoints_answer(client):
    assert client.get("/status")["serve_url"] is None
    json.dumps(client.get("/status"))
