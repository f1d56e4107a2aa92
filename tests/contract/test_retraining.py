"""A trigger becomes a version with traffic, or a reason why not, on both databases."""

import threading
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from modelyard.criteria import MappingFacts
from modelyard.errors import Invalid, NotFound
from modelyard.events import SYSTEM, Actor, Event, EventLog, EventTimeClock
from modelyard.registry import Registry, VersionId
from modelyard.retraining import (
    ApprovalRule,
    Loop,
    LoopParts,
    Recipe,
    ReleaseParts,
    Releases,
    ReleaseSteps,
    Retrain,
    Retraining,
    RolloutOutcome,
    Trail,
    pack,
)
from modelyard.storage.objects import ObjectStore
from modelyard.storage.series import SeriesStore
from modelyard.tracking import Tracking
from modelyard.tracking.sources import Parquet
from modelyard.workflows import Engine, Status

pytestmark = pytest.mark.slow

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
ADA, EVE = Actor("ada"), Actor("eve", frozenset({"approver"}), frozenset({"risk"}))
CODE = """
import os
import time
from sklearn.linear_model import LogisticRegression

def good(data):
    assert not [name for name in os.environ if name.startswith("MODELYARD_")]
    return LogisticRegression(C=0.5).fit(data[["x", "z"]], data["y"])

def weak(data):
    return LogisticRegression().fit(data[["x", "z"]].assign(x=0.0), data["y"])

def broken(data):
    raise RuntimeError("no such luck")

def nothing(data):
    return None

def hanging(data):
    time.sleep(600)
"""


class Traffic:
    """A rollout that ends when the test says so; with a registry it sets production as deployment does."""

    def __init__(self, yard):
        self.yard = yard
        self.started = {}
        self.outcomes = {}
        self.at_once = True

    def start(self, endpoint, version, *, control_version, expected_shares, settings, key, actor):
        if key not in self.started:
            self.started[key] = (endpoint, version, control_version, expected_shares, settings, actor.name)
            if self.at_once:
                self.finish(key)
        return key

    def finish(self, key, state="finished"):
        if state == "finished":
            with self.yard.database.transaction() as tx:
                self.yard.registry.set_stage(tx, self.started[key][1], "production", actor=SYSTEM, via_rollout=key)
        self.outcomes[key] = RolloutOutcome(state, f"it has {state}.", {"answers": 160})

    def outcome(self, rollout_id):
        return self.outcomes.get(rollout_id)


class Yard:
    """A home with everything but serving."""

    def __init__(self, database, folder, url):
        self.database, self.folder = database, folder
        self.clock = EventTimeClock(AT)
        self.events = EventLog(database)
        self.objects = ObjectStore.at(folder / "objects")
        self.tracking = Tracking(database, self.events, self.clock, objects=self.objects, series=SeriesStore(database))
        self.registry = Registry(database, self.events, self.clock, objects=self.objects, tracking=self.tracking)
        self.engine = Engine(
            database, self.events, clock=self.clock, executor_id="w1", url=url, poll_s=0.05, logs=folder / "logs"
        )
        self.traffic = Traffic(self)
        self.facts = {}
        self.releases = Releases(database, self.events, self.clock)
        trail = Trail(self.tracking, self.objects)
        parts = ReleaseParts(
            objects=self.objects,
            registry=self.registry,
            releases=self.releases,
            trail=trail,
            roll_out=self.traffic,
            work=folder / "work",
        )
        self.engine.register(ReleaseSteps(parts).definition())
        self.retraining = Retraining(
            database,
            self.events,
            self.clock,
            objects=self.objects,
            engine=self.engine,
            releases=self.releases,
            monitored=lambda recipe, now: MappingFacts(self.facts),
        )
        self.loop = Loop(
            LoopParts(database, self.events, self.clock, self.engine, self.retraining, trail, self.traffic)
        )

    def data(self, rows=600, start=0, name="rows"):
        rng = np.random.default_rng(start)
        x, z = rng.normal(size=rows), rng.normal(size=rows)
        table = pa.table(
            {
                "x": x,
                "z": z,
                "y": (x + 0.5 * rng.normal(size=rows) > 0).astype(int),
                "id": [f"c{start + n}" for n in range(rows)],
                "at": [AT - timedelta(days=60) + timedelta(hours=start + n) for n in range(rows)],
            }
        )
        (self.folder / "project" / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, self.folder / "project" / "data" / f"{name}.parquet")
        return table

    def recipe(self, function="good", **more):
        project = self.folder / "project"
        project.mkdir(exist_ok=True)
        (project / "churn.py").write_text(CODE)
        digest = self.objects.put(pack(project))
        source = Parquet("data/*.parquet", label="y", key="id", time="at")
        values = {"gates": ("roc_auc >= 0.8",), "declared_by": "ada", "root": str(project), **more}
        recipe = Recipe("churn", "churn", digest, f"churn:{function}", source, **values)
        self.retraining.declare(recipe, actor=ADA)
        return recipe

    def ask(self, key="k1", source="manual", **more):
        return self.retraining.trigger(source, "churn", dedup_key=key, actor=ADA, **more)

    def run(self, key="k1", **more):
        """Ask by hand and wait for the end."""
        return self.end(self.ask(key, **more).workflow_id)

    def end(self, release_id):
        until(lambda: self.loop.tick() or self.releases.get(release_id).verdict is not None)
        return self.releases.get(release_id)

    def waiting(self, release_id):
        until(lambda: self.loop.tick() or self.engine.get(release_id).status == Status.WAITING)
        return self.engine.get(release_id).wait.name

    def alert(self, kind="drift", verb="fired", endpoint="churn"):
        event = Event(
            f"alert.{verb}",
            f"alert:{endpoint}/{kind}",
            "modelyard",
            self.clock.now(),
            data={"endpoint": endpoint, "kind": kind},
        )
        with self.database.transaction() as tx:
            self.events.record(tx, event)
        self.loop.follow()

    def later(self, **time):
        self.clock.advance(self.clock.now() + timedelta(**time))

    def kinds(self, release_id):
        return [row.event.kind for row in self.events.read(subject=f"release:{release_id}")]

    def decisions(self):
        return [(asked.source, asked.decision.answer) for asked in reversed(self.retraining.triggers("churn"))]


def until(condition, *, seconds=60.0):
    """Wait for a condition; fail when it does not come true."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        pause.wait(0.02)


@pytest.fixture(scope="module")
def shared_url(postgres_server):
    """The engine's PostgreSQL database of all tests here: to migrate it takes longer than most of them."""
    admin = sa.create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text("CREATE DATABASE engine_of_retraining_tests"))
    yield sa.make_url(postgres_server).set(database="engine_of_retraining_tests").render_as_string(False)
    with admin.connect() as connection:
        connection.execute(sa.text("DROP DATABASE engine_of_retraining_tests WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def still(database, tmp_path):
    """A home whose engine is not launched: triggers are decided, nothing runs."""
    return Yard(database, tmp_path, None)


@pytest.fixture
def yard(database, tmp_path, request, monkeypatch):
    monkeypatch.setenv("MODELYARD_ADMIN_SECRET", "not for training code")
    yard = Yard(database, tmp_path, None if database.is_sqlite else request.getfixturevalue("shared_url"))
    yard.engine.launch()
    yield yard
    yard.engine.close()


def test_a_release_is_tracked_registered_gated_and_rolled_out(yard):
    table = yard.data()
    recipe = yard.recipe()
    release = yard.run()
    assert (release.verdict, release.version, release.champion) == ("promoted", 1, None), release.sentence
    assert release.sentence == "Version 1 of churn serves churn: it has finished."
    assert yard.kinds(release.id) == ["release.judged", "release.moved", "release.concluded"]

    version = yard.registry.resolve("churn/production")
    assert version.authors == {"ada"}
    assert version.metrics["roc_auc"] > 0.8
    assert version.metrics["latency_p99_ms"] > 0
    assert version.engine["passed"]
    assert version.profile_digest in {file.digest for file in version.files if file.path == "profile.bin"}
    assert version.lineage["code"] == recipe.code_digest
    assert version.lineage["split"] == {"by": "time", "column": "at"}
    held_out = pq.read_table(pa.BufferReader(yard.objects.get(version.lineage["snapshot"]["holdout"])))
    assert version.lineage["trained_until"] < min(held_out["at"].to_pylist()).isoformat()
    assert held_out.num_rows == table.num_rows // 5

    run = yard.tracking.get_run(version.run_id)
    data = yard.tracking.run_data(run.id)[run.id]
    assert (run.status, run.created_by) == ("finished", "ada")
    assert data.params["C"] == "0.5"  # recorded unasked in the child
    assert data.metrics["roc_auc"].last == pytest.approx(version.metrics["roc_auc"])
    assert data.tags["modelyard.environment_digest"] == version.lineage["environment"]
    assert [each.digest for each in data.inputs if each.context == "training"][0]
    assert version.lineage["data"] in {each.digest for each in data.inputs}
    assert not list((yard.folder / "work").iterdir())


def test_a_challenger_replaces_the_champion_when_it_is_better_on_unseen_rows(yard):
    yard.data(800)
    yard.recipe("weak", gates=())
    assert yard.run("k1").verdict == "promoted"
    yard.data(900, start=800, name="more")
    yard.recipe("good", gates=("better_than(champion, roc_auc)",), rollout={"steps": [5, 100]})
    release = yard.run("k2")
    assert (release.verdict, release.version, release.champion) == ("promoted", 2, 1), release.sentence
    assert release.sentence == "Version 2 of churn serves churn in place of version 1: it has finished."
    clause = release.evidence["gates"]["gates"][0]["clauses"][0]
    # The newest fifth of 1,700 rows; the champion's training ended before.
    assert clause["evidence"]["n"] == 340
    endpoint, version, control, shares, settings, author = list(yard.traffic.started.values())[1]
    assert (endpoint, version, control, author) == ("churn", VersionId("churn", 2), 1, "ada")
    assert settings == {"steps": [5, 100]}
    assert sum(shares) == pytest.approx(1)


def test_gates_stop_what_is_worse_and_say_what_is_not_clear(yard):
    yard.data()
    yard.recipe()
    yard.run("k1")
    yard.recipe("weak")
    rejected = yard.run("k2")
    assert (rejected.verdict, rejected.version) == ("rejected", 2)
    assert "roc_auc >= 0.8" in rejected.sentence
    # The same rows again: the same model is no better, which a test cannot tell from a little better.
    yard.recipe("good", gates=("better_than(champion, roc_auc)",))
    unclear = yard.run("k3")
    assert (unclear.verdict, unclear.version) == ("inconclusive", 3), unclear.sentence
    assert yard.registry.resolve("churn/production").number == 1
    assert len(yard.traffic.started) == 1


@pytest.mark.parametrize(
    ("function", "timeout", "reason"),
    [("broken", "5m", "no such luck"), ("nothing", "5m", "returned nothing"), ("hanging", "3s", "time limit of 3 s")],
)
def test_a_training_that_breaks_fails_its_run_and_touches_nothing(yard, function, timeout, reason):
    yard.data()
    yard.recipe(function, timeout=timeout)
    release = yard.run()
    assert (release.verdict, release.version) == ("failed", None)
    assert reason in release.sentence
    assert release.sentence.endswith("Production was not touched.")
    run = yard.tracking.get_run(release.run_id)
    assert run.status == "failed"
    assert reason in run.error
    assert ("Traceback" in run.error) is (function != "hanging")
    assert yard.engine.wait_for(release.id, 20).status == Status.FAILED
    with pytest.raises(NotFound):
        yard.registry.get_model("churn")
    assert not yard.traffic.started


def test_people_are_asked_and_the_release_waits_for_all_of_them(yard):
    yard.data()
    yard.recipe(approvals=(ApprovalRule("risk"), ApprovalRule("legal", timeout="3d")))
    asked = yard.ask()
    assert yard.waiting(asked.workflow_id).startswith("approval-")
    risk, legal = sorted(yard.registry.approvals_of(VersionId("churn", 1)), key=lambda each: each.label != "risk")
    assert (risk.evidence["gates"]["passed"], risk.requested_by) == (True, "ada")
    law = Actor("lee", frozenset({"approver"}), frozenset({"legal"}))
    yard.registry.grant(legal.id, actor=law)  # before its turn
    yard.loop.tick()
    assert yard.engine.get(asked.workflow_id).status == Status.WAITING
    yard.registry.grant(risk.id, actor=EVE)
    release = yard.end(asked.workflow_id)
    assert release.verdict == "promoted", release.sentence


@pytest.mark.parametrize("how", ["refuse", "expire"])
def test_one_no_or_silence_ends_the_release(yard, how):
    yard.data()
    yard.recipe(approvals=(ApprovalRule("risk", timeout=None), ApprovalRule("legal", timeout="3d")))
    asked = yard.ask()
    yard.waiting(asked.workflow_id)
    approvals = {each.label: each for each in yard.registry.approvals_of(VersionId("churn", 1))}
    if how == "refuse":
        law = Actor("lee", frozenset({"approver"}), frozenset({"legal"}))
        yard.registry.refuse(approvals["legal"].id, actor=law, comment="not now")
    else:
        yard.later(days=4)
        yard.registry.expire_approvals()
    release = yard.end(asked.workflow_id)
    assert release.verdict == "refused"
    assert "legal" in release.sentence
    assert not yard.traffic.started


def test_a_rollout_that_is_taken_back_is_a_rejection_and_wakes_by_itself(yard):
    yard.data()
    yard.recipe()
    yard.traffic.at_once = False
    asked = yard.ask()
    assert yard.waiting(asked.workflow_id) == "roll_out"
    assert yard.ask("k2").decision.answer == "dropped"
    (key,) = yard.traffic.started
    yard.traffic.finish(key, "rolled_back")
    release = yard.end(asked.workflow_id)
    assert (release.verdict, release.evidence["rollout"]["answers"]) == ("rejected", 160)


def test_production_that_moved_meanwhile_stops_the_rollout(yard):
    yard.data()
    yard.recipe(approvals=(ApprovalRule("risk"),), gates=())
    first, second = yard.ask("k1"), None
    yard.waiting(first.workflow_id)
    second = yard.ask("k2")  # a waiting approval blocks no other training
    yard.waiting(second.workflow_id)
    for number, release in ((2, second), (1, first)):
        (approval,) = yard.registry.approvals_of(VersionId("churn", number))
        yard.registry.grant(approval.id, actor=EVE)
        yard.end(release.workflow_id)
    assert yard.releases.get(second.workflow_id).verdict == "promoted"
    stale = yard.releases.get(first.workflow_id)
    assert (stale.verdict, "production is now version 2" in stale.sentence) == ("inconclusive", True)


def test_a_cancelled_release_is_concluded_and_its_run_killed(yard):
    yard.data()
    yard.recipe("hanging")
    asked = yard.ask()
    until(lambda: any(step.name == "train" for step in yard.engine.get(asked.workflow_id).steps))
    until(lambda: yard.releases.get(asked.workflow_id).run_id is not None)
    yard.engine.cancel(asked.workflow_id, actor=ADA, reason="wrong data")
    release = yard.end(asked.workflow_id)
    assert (release.verdict, "wrong data" in release.sentence) == ("cancelled", True)
    assert yard.tracking.get_run(release.run_id).status == "killed"


def test_a_failed_release_is_retried_from_a_step_as_another_one(yard):
    yard.data()
    yard.recipe("weak", gates=("roc_auc >= 0.99",))
    first = yard.run()
    assert first.verdict == "rejected"
    again = yard.engine.retry_from_step(first.id, "gate", actor=ADA)
    assert yard.engine.wait_for(again, 60).status == Status.SUCCEEDED
    second = yard.releases.get(again)
    assert (second.verdict, second.version, second.run_id) == ("rejected", 1, first.run_id)


def test_a_drift_alert_asks_once_and_only_where_it_is_declared(still):
    still.data()
    still.recipe(retrain=Retrain(when=["drift"]))
    still.alert("quality")
    still.alert("drift", endpoint="other")
    assert still.decisions() == []
    still.alert("drift")
    still.loop.follow()
    assert still.decisions() == [("alert", "started")]
    (asked,) = still.retraining.triggers("churn")
    assert asked.payload["kind"] == "drift"
    assert still.engine.get(asked.workflow_id).input["requested_by"] == "ada"
    (event,) = still.events.read(kinds=["trigger.decided"])
    assert (event.event.after["decision"], event.event.data["release"]) == ("started", asked.workflow_id)


def test_one_key_starts_one_release(still):
    still.data()
    still.recipe()
    first = still.ask("2026-06")
    assert still.ask("2026-06") == first
    assert len(still.engine.list().runs) == 1
    with pytest.raises(NotFound):
        still.retraining.trigger("manual", "chrun", dedup_key="x", actor=ADA)
    with pytest.raises(Invalid):
        still.retraining.trigger("whim", "churn", dedup_key="x", actor=ADA)


def test_triggers_are_debounced_deferred_and_judged_again(still):
    still.data()
    still.recipe(retrain=Retrain(when=["drift", "quality"], debounce="6h", cooldown="24h"))
    still.alert("drift")
    still.later(hours=1)
    still.alert("quality")
    assert still.decisions() == [("alert", "started"), ("alert", "dropped")]
    (running,) = still.releases.list()
    still.later(hours=9)
    assert still.retraining.simulate("alert", "churn").answer == "deferred"
    still.releases.conclude(running.id, "inconclusive", "Not clear.")
    still.later(hours=9)
    still.alert("quality")
    still.alert("drift")
    assert still.decisions()[2:] == [("alert", "deferred")] * 2
    still.alert("quality", "resolved")
    assert still.decisions()[2:] == [("alert", "dropped"), ("alert", "deferred")]
    still.later(hours=14)
    assert still.retraining.judge_deferred() == []
    still.later(hours=2)
    (started,) = still.retraining.judge_deferred()
    assert (started.payload["kind"], started.decision.answer) == ("drift", "started")
    assert still.retraining.judge_deferred() == []
    assert len(still.releases.list()) == 2


def test_schedules_follow_the_injected_clock_and_catch_up_once(still):
    still.data()
    still.recipe(retrain=Retrain(when=[], every="0 3 * * *"))
    assert still.retraining.run_schedules() == []
    still.later(days=10)
    (fired,) = still.retraining.run_schedules()
    assert (fired.dedup_key, fired.decision.answer) == ("schedule/2026-06-11T03:00+00:00", "started")
    assert still.retraining.run_schedules() == []
    # Another declaration of the same schedule does not fire it again.
    still.recipe("weak", retrain=Retrain(when=[], every="0 3 * * *"))
    assert still.retraining.run_schedules() == []


def test_conditions_on_monitoring_and_new_rows_ask(still):
    still.data(600)
    still.recipe(retrain=Retrain(when=["roc_auc < 0.82", "new_rows >= 100"], debounce="1h"))
    assert still.retraining.check_conditions() == []  # nothing known is nothing true
    still.facts = {"roc_auc": 0.9}
    assert still.retraining.check_conditions() == []
    still.facts = {"roc_auc": 0.8}
    (fired,) = still.retraining.check_conditions()
    assert (fired.payload["condition"], fired.decision.answer) == ("roc_auc < 0.82", "started")
    assert fired.payload["verdict"]["clauses"][0]["observed"] == 0.8
    still.facts = {}
    still.releases.note(fired.workflow_id, source_rows=600)
    still.releases.conclude(fired.workflow_id, "rejected", "Worse.")
    still.later(days=2)
    assert still.retraining.check_conditions() == []
    still.data(100, start=600, name="more")
    (fired,) = still.retraining.check_conditions()
    assert (fired.payload["condition"], fired.decision.answer) == ("new_rows >= 100", "started")


def test_declaring_again_changes_nothing_and_needs_its_code(still):
    recipe = still.recipe()
    assert not still.retraining.declare(recipe, actor=ADA)
    assert still.retraining.recipe("churn") == recipe
    assert still.retraining.pinned_digests() == {recipe.code_digest}
    assert len(still.events.read(kinds=["recipe.declared"])) == 1
    lost = Recipe("churn", "churn", "0" * 64, "a:b", recipe.source, "ada")
    with pytest.raises(NotFound, match="packed project"):
        still.retraining.declare(lost, actor=ADA)
