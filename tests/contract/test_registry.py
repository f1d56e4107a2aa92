"""The registry keeps its promises on both databases."""

import json
import math
import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from modelyard import models
from modelyard.criteria import ParseError
from modelyard.errors import Conflict, Forbidden, Invalid, NotFound, Refused
from modelyard.events import SYSTEM, Actor, EventLog, EventTimeClock
from modelyard.registry import FileRef, Registry, StageRequest, Version, VersionId
from modelyard.storage.objects import ObjectStore
from modelyard.storage.series import SeriesStore
from modelyard.tracking import Batch, DatasetInput, Points, Tracking

AT = datetime(2013, 4, 1, 12, tzinfo=UTC)
ADA = Actor("ada", frozenset({"contributor"}))
RISK = frozenset({"risk"})
BOB = Actor("bob", frozenset({"approver"}), RISK)
EVE = Actor("eve", frozenset({"approver"}), RISK)


@pytest.fixture
def clock():
    return EventTimeClock(AT)


@pytest.fixture
def log(database):
    return EventLog(database)


@pytest.fixture
def objects(tmp_path):
    return ObjectStore.at(tmp_path / "objects")


@pytest.fixture
def tracking(database, log, clock, objects):
    return Tracking(database, log, clock, objects=objects, series=SeriesStore(database))


@pytest.fixture
def registry(database, log, clock, objects, tracking):
    return Registry(database, log, clock, objects=objects, tracking=tracking)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "sub" / "weights.bin").write_bytes(b"\0\1\2")
    return folder


@pytest.fixture
def version(registry, folder):
    return registry.register_version("churn", folder, actor=ADA, metrics={"roc_auc": 0.87, "nan": math.nan})


def _another(registry, folder, content=b"more", **parts):
    (folder / "sub" / "weights.bin").write_bytes(content)
    return registry.register_version("churn", folder, actor=ADA, **parts)


def _kinds(log):
    return [row.event.kind for row in log.read()]


def _together(*actions):
    outcomes = []

    def run(action):
        try:
            outcomes.append(action())
        except Conflict as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_version_pins_its_content(registry, folder, version, objects, tmp_path):
    assert version.number == 1
    assert version.content_digest == models.folder_digest(folder)
    assert [file.path for file in version.files] == ["MLmodel", "sub/weights.bin"]
    (folder / "sub" / "weights.bin").write_bytes(b"changed later")
    (folder / "extra").write_bytes(b"x")
    found = registry.get_version(version)
    assert found.files == version.files
    assert found.metrics["roc_auc"] == 0.87
    assert math.isnan(found.metrics["nan"])
    target = registry.materialize(found, tmp_path / "out" / "churn-1")
    assert (target / "sub" / "weights.bin").read_bytes() == b"\0\1\2"
    assert models.folder_digest(target) == found.content_digest
    assert {file.digest for file in found.files} <= set(objects.digests())


def test_content_that_is_stored_is_not_stored_again(registry, folder, version, objects):
    before = set(objects.digests())
    again = registry.register_version("churn", folder, actor=ADA)
    assert set(objects.digests()) == before
    assert (again.number, again.content_digest) == (2, version.content_digest)
    assert registry.pinned_digests() == before


def test_versions_are_read_newest_first(registry, folder, version):
    for number in range(2, 5):
        assert _another(registry, folder, str(number).encode()).number == number
    assert [each.number for each in registry.list_versions("churn", limit=2)] == [4, 3]
    assert [each.number for each in registry.list_versions("churn", before=3)] == [2, 1]
    assert [each.number for each in registry.list_versions("churn", stage="staging")] == []
    assert registry.get_model("churn").last_number == 4
    with pytest.raises(NotFound):
        registry.get_version(VersionId("churn", 9))
    with pytest.raises(NotFound, match="Did you mean 'churn'"):
        registry.get_model("chrn")


def test_registering_writes_what_happened(registry, version, log):
    assert _kinds(log) == ["model.created", "version.registered"]
    event = log.read()[-1].event
    assert event.subject == "version:churn/1"
    assert event.after["content_digest"] == version.content_digest
    assert event.data["files"] == 2


def test_version_takes_origin_from_its_run(registry, tracking, folder):
    trainer = Actor("tim")
    run = tracking.create_run(tracking.ensure_experiment(actor=trainer).id, actor=trainer)
    points = Points([0, 1], [0, 0], [0.5, 0.9])
    tags = {"modelyard.code_digest": "c" * 64, "modelyard.environment_digest": "e" * 64}
    inputs = [DatasetInput("flights", "d" * 64, "training")]
    batch = Batch("b", run.id, metrics={"auc": points}, params={"depth": "3"}, tags=tags, inputs=inputs)
    tracking.log_batch(batch, actor=trainer)
    made = registry.register_version("churn", folder, actor=ADA, run_id=run.id, lineage={"parents": ["version:old/1"]})
    assert dict(made.metrics) == {"auc": 0.9}
    assert made.authors == {"ada", "tim"}
    assert made.lineage["parameters"] == {"depth": "3"}
    up = registry.lineage("version:churn/1", "up")
    assert set(up.nodes) == {
        "version:churn/1",
        f"run:{run.id}",
        "version:old/1",
        "data:" + "d" * 64,
        "code:" + "c" * 64,
        "environment:" + "e" * 64,
    }
    assert registry.versions_of_run(run.id)[0].number == 1
    with pytest.raises(NotFound):
        registry.register_version("churn", folder, actor=ADA, run_id="nothing")
    with pytest.raises(Invalid, match="belongs to project"):
        registry.register_version("churn", folder, actor=ADA, run_id=run.id, project="other")


def test_lineage_is_walked_both_ways_and_not_sideways(registry, version, log):
    registry.link("data:d1", "run:r1", relation="used_by", actor=ADA)
    registry.link("data:d1", "run:r2", relation="used_by", actor=ADA)
    registry.link("run:r1", "version:churn/1", relation="produced", actor=ADA)
    registry.link("version:churn/1", "endpoint:churn", relation="served_by", actor=ADA)
    registry.link("endpoint:churn", "data:d1", relation="fed", actor=ADA)
    registry.link("data:d1", "run:r1", relation="used_by", actor=ADA)
    assert _kinds(log).count("lineage.linked") == 5
    down = registry.lineage("data:d1", "down")
    assert down.nodes[0] == "data:d1"
    assert set(down.nodes) == {"data:d1", "run:r1", "run:r2", "version:churn/1", "endpoint:churn"}
    assert down.complete
    registry.link("data:x", "version:churn/1", relation="used_by", actor=ADA)
    both = registry.lineage("data:x", "both")
    assert "data:x" in both.nodes
    assert "run:r2" in both.nodes
    assert not registry.lineage("data:d1", "down", limit=2).complete
    assert registry.lineage("data:d1", project="other").nodes == ("data:d1",)


def test_references_are_resolved(registry, folder, version):
    second = _another(registry, folder)
    registry.set_alias(version, "champion", actor=ADA)
    registry.move_stage(version, "staging", actor=ADA)
    for reference, number in (("churn@champion", 1), ("churn/2", 2), ("churn/latest", 2), ("churn/Staging", 1)):
        assert registry.resolve(reference).number == number
    for reference in ("churn", "churn/", "@x", "churn/canary", "churn/../x"):
        with pytest.raises(Invalid):
            registry.resolve(reference)
    for reference in ("churn@nobody", "churn/7", "churn/production", "fraud/1"):
        with pytest.raises(NotFound):
            registry.resolve(reference)
    assert second.number == 2


def test_alias_moves_with_its_history(registry, folder, version, log):
    second = _another(registry, folder)
    registry.set_alias(version, "champion", actor=ADA)
    registry.set_alias(second, "champion", actor=BOB)
    registry.set_alias(second, "champion", actor=BOB)
    assert registry.aliases("churn") == {"champion": 2}
    assert registry.get_version(second).aliases == ("champion",)
    registry.remove_alias("churn", "champion", actor=ADA)
    assert [(each.number, each.actor) for each in registry.alias_history("churn")] == [
        (None, "ada"),
        (2, "bob"),
        (1, "ada"),
    ]
    assert _kinds(log)[-3:] == ["alias.set", "alias.set", "alias.removed"]
    for bad in ("3", "latest", "production", "a/b", "a\0", ""):
        with pytest.raises(Invalid):
            registry.set_alias(version, bad, actor=ADA)
    with pytest.raises(NotFound):
        registry.remove_alias("churn", "champion", actor=ADA)


def test_stage_moves_by_hand_and_production_is_one(registry, folder, version, clock):
    second = _another(registry, folder)
    first = registry.move_stage(version, "production", actor=ADA, reason="first")
    assert first.stage == "production"
    clock.advance(AT + timedelta(days=1))
    registry.move_stage(second, "production", actor=BOB, reason="better")
    assert registry.get_version(version).stage == "archived"
    assert [each.number for each in registry.list_versions("churn", stage="production")] == [2]
    history = registry.stage_history(version)
    assert [(each.before, each.after) for each in history] == [
        ("production", "archived"),
        ("development", "production"),
        (None, "development"),
    ]
    clock.advance(AT + timedelta(days=2))
    registry.move_stage(second, "archived", actor=ADA)
    assert registry.production_at("churn", AT - timedelta(seconds=1)) is None
    assert registry.production_at("churn", AT).number == 1
    replaced = registry.production_at("churn", AT + timedelta(days=1, hours=3))
    assert (replaced.number, replaced.actor, replaced.reason) == (2, "bob", "better")
    assert registry.production_at("churn", AT + timedelta(days=3)) is None
    with pytest.raises(Invalid):
        registry.move_stage(version, "prod", actor=ADA)


def test_database_itself_refuses_two_in_production(registry, folder, version, database):
    _another(registry, folder)
    with pytest.raises(sa.exc.IntegrityError), database.transaction() as tx:
        tx.execute(sa.text("UPDATE model_versions SET stage = 'production'"))


def test_production_of_a_served_model_moves_by_rollout_only(registry, folder, version, database, log):
    second = _another(registry, folder)
    with database.transaction() as tx:
        registry.declare_endpoint(tx, "churn", "churn-live")
        registry.set_stage(tx, version, "production", actor=SYSTEM, via_rollout="ro-1")
    request = registry.move_stage(second, "production", actor=ADA, reason="please")
    assert isinstance(request, StageRequest)
    assert (request.version.number, request.endpoint, request.requested_by) == (2, "churn-live", "ada")
    assert isinstance(registry.move_stage(version, "archived", actor=ADA), StageRequest)
    assert isinstance(registry.move_stage(second, "staging", actor=ADA), Version)
    assert registry.resolve("churn/production").number == 1
    event = next(row.event for row in log.read() if row.event.kind == "stage.requested")
    assert event.subject == "version:churn/2"
    assert dict(event.data) == {"stage": "production", "endpoint": "churn-live", "reason": "please"}
    with pytest.raises(RuntimeError), database.transaction() as tx:
        registry.set_stage(tx, second, "production", actor=SYSTEM, via_rollout="ro-2")
        raise RuntimeError
    assert registry.resolve("churn/production").number == 1
    assert registry.stage_history(version)[0].via == "ro-1"
    with pytest.raises(Conflict, match="endpoint"):
        registry.delete_model("churn", actor=ADA)
    with database.transaction() as tx:
        registry.withdraw_endpoint(tx, "churn", "churn-live")
    assert isinstance(registry.move_stage(version, "archived", actor=ADA), Version)


def test_promotion_rule_judges_metrics_and_keeps_the_evidence(registry, folder, version, log, database):
    registry.set_promotion_rule("churn", "production", "roc_auc >= 0.85 and roc_auc > champion.roc_auc", actor=BOB)
    check = registry.check_promotion(version, "production")
    assert check.passed
    assert [clause["outcome"] for clause in check.evidence["clauses"]] == ["true", "not_applicable"]
    registry.move_stage(version, "production", actor=ADA)
    assert registry.stage_history(version)[0].evidence["rule"].startswith("roc_auc >= 0.85")
    worse = _another(registry, folder, metrics={"roc_auc": 0.86})
    with pytest.raises(Refused, match="does not hold") as refused:
        registry.move_stage(worse, "production", actor=ADA)
    assert refused.value.facts["evidence"]["verdict"]["outcome"] == "false"
    unknown = _another(registry, folder, b"x", metrics={})
    with pytest.raises(Refused):
        registry.move_stage(unknown, "production", actor=ADA)
    assert _kinds(log).count("stage.refused") == 2
    with database.transaction() as tx:
        moved = registry.set_stage(tx, worse, "production", actor=SYSTEM, via_rollout="rollback")
    assert moved.stage == "production"
    assert registry.stage_history(worse)[0].evidence["verdict"]["outcome"] == "false"
    assert [rule.created_by for rule in registry.promotion_rules("churn")] == ["bob"]
    registry.remove_promotion_rule("churn", "production", actor=BOB)
    assert registry.check_promotion(unknown, "production") is None
    with pytest.raises(NotFound):
        registry.remove_promotion_rule("churn", "production", actor=BOB)


def test_promotion_rule_has_to_be_one(registry, version):
    with pytest.raises(ParseError):
        registry.set_promotion_rule("churn", "production", "roc_auc >=", actor=ADA)
    with pytest.raises(Invalid, match="gate"):
        registry.set_promotion_rule("churn", "production", "better_than(champion, roc_auc)", actor=ADA)
    with pytest.raises(NotFound):
        registry.set_promotion_rule("fraud", "production", "roc_auc > 0", actor=ADA)


def test_measured_metrics_reach_the_rule(registry, version, log):
    registry.set_promotion_rule("churn", "staging", "latency_p99 <= 20", actor=BOB)
    assert not registry.check_promotion(version, "staging").passed
    measured = registry.log_version_metrics(version, {"latency_p99": 12.5, "roc_auc": 0.9}, actor=SYSTEM)
    assert registry.check_promotion(measured, "staging").passed
    event = log.read()[-1].event
    assert event.before == {"roc_auc": "0.87"}
    with pytest.raises(Invalid):
        registry.log_version_metrics(version, {"x": "high"}, actor=ADA)


def test_approval_takes_a_quorum_of_others(registry, version, log):
    asked = registry.request_approval(version, label="risk", actor=ADA, quorum=2, note="please", evidence={"card": "x"})
    assert asked.status == "requested"
    assert not registry.approved(version, "deploy", label="risk")
    with pytest.raises(Conflict, match="already"):
        registry.request_approval(version, label="risk", actor=ADA)
    once = registry.grant(asked.id, actor=BOB, digest=asked.digest, comment="ok")
    assert once.status == "requested"
    with pytest.raises(Conflict, match="answered"):
        registry.grant(asked.id, actor=BOB)
    granted = registry.grant(asked.id, actor=EVE)
    assert granted.status == "granted"
    assert [vote.person for vote in granted.votes] == ["bob", "eve"]
    assert registry.approved(version, "deploy", label="risk")
    assert not registry.approved(version, "deploy", label="legal")
    assert not registry.approved(version, "promote", label="risk")
    assert _kinds(log)[-3:] == ["approval.requested", "approval.voted", "approval.granted"]
    assert log.read()[-1].event.data["granted_by"] == ["bob", "eve"]
    with pytest.raises(Conflict, match="no more"):
        registry.refuse(asked.id, actor=Actor("kim", frozenset({"approver"}), RISK))
    assert registry.list_approvals() == []
    assert [each.id for each in registry.list_approvals(status="granted")] == [asked.id]


def test_nobody_approves_without_role_and_label_or_their_own(registry, tracking, folder):
    trainer = Actor("tim", frozenset({"approver", "admin"}), RISK)
    run = tracking.create_run(tracking.ensure_experiment(actor=trainer).id, actor=trainer)
    creator = Actor("cay", frozenset({"approver", "admin"}), RISK)
    made = registry.register_version("churn", folder, actor=creator, run_id=run.id)
    requester = Actor("req", frozenset({"approver"}), RISK)
    asked = registry.request_approval(made, label="risk", actor=requester)
    everything = frozenset({"viewer", "contributor", "deployer", "admin", "auditor"})
    for person, said in (
        (trainer, "somebody else"),
        (creator, "somebody else"),
        (requester, "somebody else"),
        (Actor("adm", everything, RISK), "approver"),
        (Actor("lab", frozenset({"approver"}), frozenset({"legal"})), "label 'risk'"),
    ):
        with pytest.raises(Forbidden, match=said):
            registry.grant(asked.id, actor=person)
        with pytest.raises(Forbidden, match=said):
            registry.refuse(asked.id, actor=person)
    assert registry.get_approval(asked.id).votes == ()
    assert registry.grant(asked.id, actor=BOB).status == "granted"


def test_vote_is_bound_to_what_was_seen(registry, folder, version):
    asked = registry.request_approval(version, label="risk", actor=ADA, evidence={"report": "a" * 64})
    other = registry.request_approval(version, label="risk", actor=ADA, action="promote", evidence={"report": "b" * 64})
    assert asked.digest != other.digest
    with pytest.raises(Conflict, match="than was seen"):
        registry.grant(asked.id, actor=BOB, digest=other.digest)
    registry.grant(asked.id, actor=BOB, digest=asked.digest)
    second = _another(registry, folder)
    assert not registry.approved(second, "deploy", label="risk")


def test_refusal_revocation_and_withdrawal(registry, version):
    refused = registry.request_approval(version, label="risk", actor=ADA)
    assert registry.refuse(refused.id, actor=BOB, comment="no card").status == "refused"
    granted = registry.request_approval(version, label="risk", actor=ADA)
    registry.grant(granted.id, actor=BOB)
    with pytest.raises(Forbidden):
        registry.revoke(granted.id, actor=ADA, reason="changed my mind")
    assert registry.revoke(granted.id, actor=EVE, reason="bias found").status == "revoked"
    assert not registry.approved(version, "deploy", label="risk")
    open_ = registry.request_approval(version, label="risk", actor=ADA)
    assert registry.revoke(open_.id, actor=ADA, reason="too early").status == "revoked"
    with pytest.raises(Conflict):
        registry.revoke(open_.id, actor=EVE, reason="again")
    assert [each.status for each in registry.approvals_of(version)] == ["refused", "revoked", "revoked"]
    with pytest.raises(NotFound):
        registry.grant("nothing", actor=BOB)


def test_approvals_lapse(registry, version, clock, log):
    hours = timedelta(hours=1)
    expiring = registry.request_approval(version, label="risk", actor=ADA, expires_after=hours)
    refusing = registry.request_approval(version, label="legal", actor=ADA, expires_after=hours, on_timeout="refuse")
    lasting = registry.request_approval(version, label="risk", actor=ADA, action="promote", valid_until=AT + 2 * hours)
    registry.grant(lasting.id, actor=BOB)
    clock.advance(AT + hours)
    with pytest.raises(Conflict, match="open until"):
        registry.grant(expiring.id, actor=BOB)
    settled = registry.expire_approvals()
    assert {each.id: each.status for each in settled} == {expiring.id: "expired", refusing.id: "refused"}
    assert registry.approved(version, "promote", label="risk")
    clock.advance(AT + 2 * hours)
    assert not registry.approved(version, "promote", label="risk")
    assert [each.status for each in registry.expire_approvals()] == ["expired"]
    assert registry.expire_approvals() == []
    assert _kinds(log)[-3:] == ["approval.expired", "approval.refused", "approval.expired"]


def test_demanded_action_needs_a_decision(registry, version, clock, log):
    assert registry.permits(version, "deploy").allowed
    registry.demand_decision("deploy", actor=BOB)
    registry.demand_decision("promote", actor=BOB, model="churn")
    assert not registry.permits(version, "deploy").allowed
    with pytest.raises(Refused, match="decision"):
        registry.move_stage(version, "production", actor=ADA)
    with pytest.raises(Conflict, match="other content"):
        registry.write_decision(version, "deploy", allowed=True, reason="", content_digest="0" * 64, actor=BOB)
    until = AT + timedelta(days=30)
    digest = version.content_digest
    registry.write_decision(
        version, "deploy", allowed=True, reason="approved", content_digest=digest, actor=BOB, valid_until=until
    )
    assert registry.permits(version, "deploy").allowed
    assert registry.standing_decision(version, "deploy").reason == "approved"
    clock.advance(until)
    assert "lapsed" in registry.permits(version, "deploy").reason
    registry.write_decision(version, "deploy", allowed=False, reason="bias", content_digest=digest, actor=BOB)
    assert registry.permits(version, "deploy").reason == "bias"
    assert not registry.permits(VersionId("churn", 99), "deploy").allowed
    registry.withdraw_demand("promote", actor=BOB, model="churn")
    assert registry.move_stage(version, "production", actor=ADA).stage == "production"
    with pytest.raises(NotFound):
        registry.withdraw_demand("promote", actor=BOB, model="churn")
    assert log.read(kinds=["decision.written"])[-1].event.before["allowed"] is True


def test_deleted_version_is_a_tombstone(registry, folder, version, log):
    second = _another(registry, folder)
    registry.set_alias(version, "old", actor=ADA)
    registry.move_stage(second, "production", actor=ADA)
    with pytest.raises(Conflict, match="production"):
        registry.delete_version(second, actor=ADA)
    registry.delete_version(version, actor=ADA, reason="leak")
    assert registry.aliases("churn") == {}
    for action in (
        lambda: registry.get_version(version),
        lambda: registry.resolve("churn/1"),
        lambda: registry.set_alias(version, "x", actor=ADA),
        lambda: registry.delete_version(version, actor=ADA),
    ):
        with pytest.raises(NotFound):
            action()
    assert version.files[1].digest in registry.pinned_digests()
    assert len(registry.stage_history(version)) == 1
    assert log.read()[-1].event.data["reason"] == "leak"
    assert _another(registry, folder, b"new").number == 3


def test_deleted_model_never_reuses_a_number(registry, folder, version, log):
    registry.update_model("churn", actor=ADA, description="d", owner="growth", tags={"tier": "1"})
    registry.delete_model("churn", actor=ADA, reason="retired")
    assert registry.list_models() == []
    with pytest.raises(NotFound):
        registry.get_version(version)
    again = registry.create_model("churn", actor=BOB)
    assert (again.created_by, again.description, dict(again.tags)) == ("bob", "", {})
    assert registry.list_versions("churn") == []
    assert _another(registry, folder).number == 2
    assert log.read(kinds=["model.deleted"])[0].event.before["owner"] == "growth"


def test_models_and_versions_are_described(registry, version):
    model = registry.update_model("churn", actor=ADA, description="rank", tags={"a": "1", "b": "2"})
    assert dict(model.tags) == {"a": "1", "b": "2"}
    assert dict(registry.update_model("churn", actor=ADA, remove_tags=["a"]).tags) == {"b": "2"}
    changed = registry.update_version(version, actor=ADA, description="v1", tags={"x": "<img onerror>"})
    assert (changed.description, dict(changed.tags)) == ("v1", {"x": "<img onerror>"})
    registry.update_version(version, actor=ADA, remove_tags=["x"])
    assert dict(registry.get_version(version).tags) == {}
    registry.create_model("a", actor=ADA)
    assert [each.name for each in registry.list_models()] == ["a", "churn"]
    assert [each.name for each in registry.list_models(after="a")] == ["churn"]


def test_files_have_to_be_a_folder_that_is_stored(registry, objects):
    digest = objects.put(b"x")
    for files in ([], [FileRef("a", digest, 1)] * 2, [FileRef("a", digest, 1), FileRef("a/b", digest, 1)]):
        with pytest.raises(Invalid):
            registry.register_files("churn", files, actor=ADA)
    with pytest.raises(NotFound):
        registry.register_files("churn", [FileRef("a", "0" * 64, 1)], actor=ADA)
    made = registry.register_files("churn", [FileRef("a", digest, 999)], actor=ADA)
    assert made.files[0].size_bytes == 1


def test_signature_is_read_off_the_files(registry, folder):
    signature = {"inputs": [{"name": "age", "type": "double"}], "outputs": [], "positional": False}
    (folder / "modelyard.json").write_text(json.dumps({"signature": signature}))
    (folder / "verification.json").write_text(json.dumps({"engine": "native", "equal": True}))
    made = registry.register_version("churn", folder, actor=ADA)
    assert made.signature == signature
    assert made.engine["engine"] == "native"
    (folder / "modelyard.json").unlink()
    (folder / "verification.json").write_text("not json")
    columns = json.dumps([{"type": "double", "name": "age", "required": True}])
    (folder / "MLmodel").write_text(json.dumps({"flavors": {}, "signature": {"inputs": columns, "outputs": None}}))
    foreign = registry.get_version(registry.register_version("churn", folder, actor=ADA))
    assert foreign.signature["inputs"][0]["name"] == "age"


def test_materialized_folder_is_whole_or_absent(registry, version, objects, tmp_path):
    target = tmp_path / "served"
    registry.materialize(version, target)
    assert registry.materialize(version, target) == target
    (target / "MLmodel").write_text("changed")
    with pytest.raises(Conflict, match="another content"):
        registry.materialize(version, target)
    objects.delete(version.files[0].digest)
    with pytest.raises(NotFound):
        registry.materialize(version, tmp_path / "elsewhere")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "else"))) == []


def test_link_in_a_model_folder_is_refused(registry, folder, tmp_path):
    (tmp_path / "secret").write_text("canary")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(models.BadModelFolder):
        registry.register_version("churn", folder, actor=ADA)


def test_concurrent_clients_get_consecutive_numbers(registry, folder):
    files = registry.register_version("churn", folder, actor=ADA).files
    made = _together(*[lambda: registry.register_files("churn", files, actor=ADA).number for _ in range(6)])
    assert sorted(made) == [2, 3, 4, 5, 6, 7]


def test_model_of_one_name_has_one_winner(registry):
    outcomes = _together(*[lambda: registry.create_model("race", actor=ADA) for _ in range(4)])
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 3


def test_concurrent_promotions_leave_one_champion(registry, folder, version):
    others = [_another(registry, folder, str(n).encode()) for n in range(3)]
    _together(*[lambda each=each: registry.move_stage(each, "production", actor=ADA) for each in [version, *others]])
    assert len(registry.list_versions("churn", stage="production")) == 1
    moves = [change for each in [version, *others] for change in registry.stage_history(each)]
    assert sum(change.after == "production" for change in moves) == 4


def test_concurrent_votes_settle_once(registry, version, log):
    asked = registry.request_approval(version, label="risk", actor=ADA, quorum=2)
    people = [Actor(f"p{n}", frozenset({"approver"}), RISK) for n in range(4)]
    outcomes = _together(*[lambda who=who: registry.grant(asked.id, actor=who).status for who in people])
    assert outcomes.count("granted") == 1
    assert outcomes.count("requested") == 1
    assert _kinds(log).count("approval.granted") == 1


def test_projects_do_not_see_each_other(registry, folder, version):
    other = registry.register_version("churn", folder, actor=ADA, project="other")
    assert other.number == 1
    registry.move_stage(other, "production", actor=ADA)
    assert registry.get_version(version).stage == "development"
    assert registry.production_at("churn", AT) is None
    with pytest.raises(NotFound):
        registry.resolve("churn/production")
    assert registry.resolve("churn/production", project="other").project == "other"
