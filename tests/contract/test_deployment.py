"""Rollouts on both databases: real registry, publisher, leases, routing, prediction log and workflow rows.

The serving workers are played: they take the published table, route with the real router under real leases,
write real status files, and their answers go straight to the prediction store. The workflow's steps are run by
the real runner; that an engine runs them is the last test's matter.
"""

import itertools
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from modelyard.deployment import Canary, Deployment, ExpectedBins, RolloutState, Verdict, expected_bins
from modelyard.deployment.placing import TAG
from modelyard.errors import Conflict, Invalid, NotFound, Refused, Unavailable
from modelyard.evaluation import Arm
from modelyard.events import Actor, EventLog, EventTimeClock
from modelyard.registry import Registry
from modelyard.serving.model import LoadFailure, VariantStatus, WorkerStatus, encode
from modelyard.serving.publisher import RoutePublisher, write_atomically
from modelyard.serving.routing import Router, bucket
from modelyard.serving.tally import TallyBook, share_of
from modelyard.storage import Database
from modelyard.storage.objects import ObjectStore
from modelyard.storage.predictions import PredictionStore
from modelyard.storage.series import SeriesStore
from modelyard.tracking import Tracking
from modelyard.workflows import Engine, Status, store
from modelyard.workflows.context import ActiveSteps
from modelyard.workflows.runner import Runner
from modelyard.workflows.transitions import Transitions

AT = datetime(2013, 4, 1, 12, tzinfo=UTC)
WALL = datetime(2026, 1, 1, tzinfo=UTC)
ADA, BOB = Actor("ada"), Actor("bob")
QUICK = Canary(steps=(5, 25, 100), bake="10m", min_answers=100)


class Played:
    """One serving worker, without HTTP and models."""

    def __init__(self, publisher, number, workers):
        self.publisher, self.number, self.workers = publisher, number, workers
        self.book = TallyBook(publisher.paths.tallies(number))
        self.generation = -1
        self.unloadable = set()
        self.routers, self.failed = {}, ()

    def take(self):
        """Take the published table, as a worker does within 50 ms."""
        table = self.publisher.current()
        if table.generation == self.generation:
            return
        self.generation, self.routers, failed, names = table.generation, {}, [], []
        for route in table.endpoints:
            variants = {}
            for variant in route.variants:
                if variant.version in self.unloadable:
                    failed.append(LoadFailure(route.name, variant.name, variant.version, "It is broken."))
                    continue
                lease = variant.lease
                share = 0 if lease is None else share_of(lease.answers, worker=self.number, workers=self.workers)
                name = (route.name, variant.name, variant.digest)
                tally = self.book.tally(*name, lease=None if lease is None else lease.id, share=share)
                variants[variant.name] = ((variant, tally), tally)
                names.append(name)
            self.routers[route.name] = (route, Router(route, variants), [held for held, _ in variants.values()])
        self.failed = tuple(failed)
        self.book.keep_only(names)

    def report(self):
        """Write the status file, as a worker does every 100 ms."""
        variants = tuple(
            VariantStatus(
                route.name, variant.name, variant.version, tally.answers, tally.errors, tally.lease, tally.used,
                tally.share, tally.crashes,
            )
            for route, _, held in self.routers.values()
            for variant, tally in held
        )  # fmt: skip
        status = WorkerStatus(
            self.number, 1, "127.0.0.1", 80, self.generation, True, variants=variants, failed=self.failed
        )
        write_atomically(self.publisher.paths.status(self.number), encode(status), durable=False)


class Steered:
    """The workflow engine's rows, with the test in the place of what runs them."""

    def __init__(self, database, events, clock):
        self.database, self.definitions = database, {}
        self.engine = Engine(database, events, clock=clock, executor_id="test", url="sqlite://", wall_clock=clock)
        self.start_in, self.signal_in = self.engine.start_in, self.engine.signal_in
        self.runner = Runner(
            database, Transitions(events, clock=clock, wall_clock=clock), definitions=self.definitions,
            active=ActiveSteps(), executor_id="test", wall_clock=clock, clock=clock, logs=None, changed=lambda: None,
        )  # fmt: skip

    def register(self, definition):
        self.definitions[definition.name] = definition
        self.engine.register(definition)

    def drive(self):
        """Run every step that can run, and act on deadlines."""
        self.engine.tick()
        while running := self.engine.list(status=Status.RUNNING).runs:
            for run in running:
                with self.database.reading() as connection:
                    row = store.run_row(connection, run.id)
                position = row.position
                while position is not None:
                    position = self.runner.perform(run.id, row.segment, position)


class Yard:
    """A home with a registry of versions, workers and traffic."""

    def __init__(self, database, folder, *, workers=2, outcomes=None):
        self.database, self.folder = database, folder
        self.events, self.clock = EventLog(database), EventTimeClock(AT)
        objects = ObjectStore.at(folder / "objects")
        tracking = Tracking(database, self.events, self.clock, objects=objects, series=SeriesStore(database))
        self.registry = Registry(database, self.events, self.clock, objects=objects, tracking=tracking)
        self.publisher = RoutePublisher(folder)
        self.predictions = PredictionStore(database, folder / "predictions")
        self.outcomes = outcomes
        self.rng = np.random.default_rng(7)
        self.ids, self.made = itertools.count(), itertools.count()
        self.workers = [Played(self.publisher, number, workers) for number in range(workers)]
        self.scores = {}
        self.failing = {}
        self.latency_us = {}
        self.given = {}
        self.restart()

    def restart(self):
        """Begin a new control plane on what is stored."""
        self.steered = Steered(self.database, self.events, self.clock)
        self.deployment = self.build(self.steered)

    def new_id(self):
        return f"{next(self.made):026d}"

    def build(self, workflows):
        return Deployment(
            self.database, self.events, self.clock, registry=self.registry, publisher=self.publisher,
            predictions=self.predictions, workflows=workflows, outcomes=self.outcomes, new_id=self.new_id,
        )  # fmt: skip

    def version(self, *, data=("a",), honest_against=None, tags=None):
        number = next(self.ids)
        source = self.folder / "sources" / str(number)
        source.mkdir(parents=True)
        (source / "model.txt").write_text(f"model {number}")
        tags = dict(tags or {})
        if honest_against is not None:
            tags[TAG] = ExpectedBins(honest_against, (0.125,) * 8, 2_000).to_text()
        return self.registry.register_version("delay", source, actor=ADA, lineage={"data": list(data)}, tags=tags)

    def deployed(self, **options):
        """An endpoint whose first version answers."""
        first = self.version()
        self.deployment.deploy("flights", first, actor=ADA, **options)
        self.turn()
        return first

    def rollout(self, canary=QUICK, *, honest=True, **options):
        """A second version on its way, loaded and at its first step."""
        champion = self.deployment.get_endpoint("flights").champion
        version = self.version(honest_against=champion if honest else None, **options)
        started = self.deployment.deploy("flights", version, actor=ADA, rollout=canary)
        for _ in range(3):
            self.turn()
        return started

    def turn(self, rows=0, *, minutes=1, only=None):
        """One look of the control plane after some traffic."""
        for worker in self.workers:
            worker.take()
        if rows:
            self.serve(rows, minutes=minutes, only=only)
        self.clock.advance(self.clock.now() + timedelta(minutes=minutes))
        for worker in self.workers:
            worker.report()
        ended = self.deployment.tick()
        self.steered.drive()
        return ended

    def serve(self, rows, *, minutes, only):
        """Send rows to the endpoint, spread over the workers or all to one."""
        start, taken = self.clock.now(), []
        for i in range(rows):
            worker = self.workers[only if only is not None else int(self.rng.integers(len(self.workers)))]
            route, router, _ = worker.routers["flights"]
            variant, tally = router.choose(bucket(route.salt.encode(), b"%d" % self.rng.integers(10**9)))
            version = variant.version
            failed = self.rng.random() < self.failing.get(version, 0.0)
            latency = self.latency_us.get(version, 1_000)
            tally.failed(1) if failed else tally.answered(1, latency_us=latency)
            self.given[version] = self.given.get(version, 0) + 1
            score = self.rng.random()
            score = self.scores[version](score) if version in self.scores else score
            moment = start + timedelta(minutes=minutes) * i / rows
            taken.append((variant, failed, latency, None if failed else score, moment))
        self.write(taken)

    def write(self, taken):
        table = pa.table(
            {
                "prediction_id": [f"{next(self.ids):026d}" for _ in taken],
                "project": ["default"] * len(taken),
                "endpoint": ["flights"] * len(taken),
                "version": [variant.version for variant, *_ in taken],
                "variant": [variant.name for variant, *_ in taken],
                "role": [variant.role for variant, *_ in taken],
                "time": [moment for *_, moment in taken],
                "recorded_at": [WALL] * len(taken),
                "score": pa.array([score for *_, score, _ in taken], pa.float64()),
                "latency_us": [latency for _, _, latency, _, _ in taken],
                "status": ["model_failed" if failed else "ok" for _, failed, *_ in taken],
            }
        )
        with self.database.transaction() as tx:
            self.predictions.write(tx, table)

    def run(self, turns, rows=400, *, minutes=4, only=None, until=lambda: False):
        for _ in range(turns):
            self.turn(rows, minutes=minutes, only=only)
            if until():
                return
        assert not until.__closure__, "the condition did not come true"

    def now(self, rollout):
        return self.deployment.get_rollout(rollout.id)

    def ended(self, rollout):
        return lambda: not self.now(rollout).state.active

    def kinds(self, prefix="rollout."):
        return [each.event.kind for each in self.events.read(limit=5000) if each.event.kind.startswith(prefix)]

    def event(self, kind):
        return [each.event for each in self.events.read(limit=5000, kinds=(kind,))][-1]

    def route(self):
        return self.publisher.current().endpoints[0]

    def close(self):
        for worker in self.workers:
            worker.book.close()


@pytest.fixture
def yard(database, tmp_path):
    yard = Yard(database, tmp_path / "home")
    yield yard
    yard.close()


def shape(route):
    return [(variant.name, variant.role, variant.weight) for variant in route.variants]


def test_the_first_version_answers_everything_at_once(yard):
    version = yard.version()
    rollout = yard.deployment.deploy("flights", f"delay/{version.number}", actor=ADA, entity_key="tail")
    assert rollout.state is RolloutState.FINISHED
    assert shape(yard.route()) == [("v1", "control", 10_000)]
    assert yard.registry.get_version(version).stage == "production"
    assert (yard.publisher.paths.models / version.content_digest / "model.txt").is_file()
    endpoint = yard.deployment.get_endpoint("flights")
    assert (endpoint.champion, endpoint.entity_key, endpoint.standby) == (1, "tail", None)
    assert yard.kinds("endpoint.") == ["endpoint.created"]
    assert yard.kinds() == ["rollout.started", "rollout.finished"]


def test_a_good_version_takes_over_step_by_step(yard):
    yard.deployed()
    rollout = yard.rollout()
    assert shape(yard.route()) == [("v1", "control", 9_500), ("v2", "canary", 500)]
    weights = set()
    yard.run(60, until=lambda: weights.add(yard.now(rollout).weight) or yard.ended(rollout)())
    done = yard.now(rollout)
    assert done.state is RolloutState.FINISHED, done.reason
    assert weights >= {500, 2_500, 10_000}
    assert {check.name: check.verdict for check in done.checks} == {
        "errors": Verdict.SUCCESS,
        "scores": Verdict.SUCCESS,
        "answers": Verdict.SUCCESS,
    }
    assert yard.registry.get_version(yard.registry.resolve("delay/production")).number == 2
    # The old version stays loaded for a bake, then goes.
    assert shape(yard.route()) == [("v2", "control", 10_000), ("v1", "canary", 0)]
    yard.turn(minutes=10)
    assert shape(yard.route()) == [("v2", "control", 10_000)]
    data = yard.event("rollout.finished").data
    assert data["answers"] >= 300
    assert data["control_answers"] > 1_000
    assert data["seconds"] > 1_800
    assert [check["name"] for check in data["checks"]] == ["errors", "scores", "answers"]
    assert yard.steered.engine.get(done.workflow).status is Status.SUCCEEDED


@pytest.mark.parametrize("only", [None, 0])
def test_a_version_with_swapped_columns_gives_fewer_than_100_answers(yard, only):
    yard.deployed()
    rollout = yard.rollout(Canary(steps=(5, 100)))
    yard.scores[2] = lambda score: score**4  # 0.6 nats
    yard.run(60, 1_000, only=only, until=yard.ended(rollout))
    done = yard.now(rollout)
    assert done.state is RolloutState.ROLLED_BACK
    assert yard.given[2] < 100
    assert "do not fall among the champion's" in done.reason
    assert "5 % of traffic" in done.reason
    assert shape(yard.route()) == [("v1", "control", 10_000)]
    event = yard.event("rollout.rolled_back")
    assert event.data["failed"] == ["scores"]
    assert event.data["answers"] <= event.data["most_answers_given"] <= 96
    assert yard.registry.get_version(yard.registry.resolve("delay/production")).number == 1


def test_a_version_that_always_fails_is_gone_after_its_first_lease(yard):
    yard.deployed()
    rollout = yard.rollout()
    yard.failing[2] = 1.0
    yard.run(3, 2_000, until=yard.ended(rollout))
    assert yard.now(rollout).state is RolloutState.ROLLED_BACK
    assert yard.given[2] <= 40
    assert yard.event("rollout.rolled_back").data["checks"][0]["evidence"]["over_at"] == 3


def test_errors_act_even_while_held_and_a_hold_stops_progress(yard):
    yard.deployed()
    rollout = yard.rollout()
    yard.run(30, until=lambda: yard.now(rollout).step == 1)
    yard.deployment.hold("flights", actor=BOB, reason="holiday")
    yard.run(20)
    assert (yard.now(rollout).step, yard.now(rollout).state) == (1, RolloutState.HELD)
    yard.failing[2] = 0.3
    yard.run(10, until=yard.ended(rollout))
    assert yard.now(rollout).state is RolloutState.ROLLED_BACK


def test_a_held_rollout_goes_on_when_resumed(yard):
    yard.deployed()
    rollout = yard.rollout()
    yard.deployment.hold("flights", actor=BOB)
    assert yard.deployment.hold("flights", actor=BOB).state is RolloutState.HELD
    yard.run(20)
    yard.turn(minutes=60 * 24 * 8)  # a hold has no deadline
    assert (yard.now(rollout).step, yard.now(rollout).state) == (0, RolloutState.HELD)
    yard.deployment.resume("flights", actor=BOB)
    yard.run(60, until=yard.ended(rollout))
    assert yard.now(rollout).state is RolloutState.FINISHED
    assert [kind for kind in yard.kinds() if kind in {"rollout.held", "rollout.resumed"}] == [
        "rollout.held",
        "rollout.resumed",
    ]


@pytest.mark.parametrize("rows", [0, 40])
def test_without_traffic_nothing_passes_and_the_deadline_decides(yard, rows):
    """No values, an empty answer and too few answers are no success, however long they last."""
    yard.deployed()
    rollout = yard.rollout(Canary(max_wait="2d"))
    for _ in range(47):
        yard.turn(rows, minutes=59)
        assert yard.now(rollout).step == 0
        if rows:
            rows = 0  # traffic stops
    assert yard.now(rollout).state.active
    yard.turn(minutes=180)
    done = yard.now(rollout)
    assert done.state is RolloutState.ROLLED_BACK
    assert "could not be judged" in done.reason
    assert yard.event("rollout.rolled_back").data["failed"] == []
    assert "answers" in yard.event("rollout.rolled_back").data["open"]
    assert shape(yard.route()) == [("v1", "control", 10_000)]


def test_silence_may_hold_for_a_person(yard):
    yard.deployed()
    rollout = yard.rollout(Canary(max_wait="1h", on_silence="hold"))
    yard.turn(minutes=90)
    held = yard.now(rollout)
    assert held.state is RolloutState.HELD
    assert "person" in held.reason
    assert yard.route().variants[1].weight == 500
    yard.deployment.resume("flights", actor=BOB)
    yard.run(60, until=yard.ended(rollout))
    assert yard.now(rollout).state is RolloutState.FINISHED


def test_history_is_no_control(yard):
    """Scores of the champion from before the rollout are not compared with."""
    yard.scores[1] = lambda score: score**3
    yard.deployed()
    yard.run(3, 1_000)
    yard.scores.clear()  # the world has changed for both
    rollout = yard.rollout()
    yard.run(60, until=yard.ended(rollout))
    assert yard.now(rollout).state is RolloutState.FINISHED
    first = yard.now(rollout)
    assert first.control_answers < sum(yard.given.values()) - 3_000


def test_a_version_that_cannot_be_loaded_never_answers(yard):
    yard.deployed()
    for worker in yard.workers:
        worker.unloadable.add(2)
    rollout = yard.rollout()
    done = yard.now(rollout)
    assert done.state is RolloutState.ROLLED_BACK
    assert "could not load it: It is broken." in done.reason
    assert done.step == -1
    assert shape(yard.route()) == [("v1", "control", 10_000)]


def test_a_version_that_takes_a_worker_down_is_taken_back(yard):
    yard.deployed()
    rollout = yard.rollout()
    _, _, held = yard.workers[1].routers["flights"]
    yard.workers[1].take()
    tally = next(t for variant, t in yard.workers[1].routers["flights"][2] if variant.version == 2)
    tally.enter()
    yard.workers[1].book.close()
    yard.workers[1] = Played(yard.publisher, 1, 2)
    yard.turn(10)
    assert yard.now(rollout).state is RolloutState.ROLLED_BACK
    assert [check.name for check in yard.now(rollout).checks if check.verdict is Verdict.FAILURE] == ["crashes"]


def test_a_slow_version_is_found_by_its_limit(yard):
    yard.deployed()
    rollout = yard.rollout(Canary(abort_if=["latency_p99 > 20ms", "worse_than(champion, latency)"]))
    yard.latency_us[2] = 30_000
    yard.run(5, until=yard.ended(rollout))
    assert yard.event("rollout.rolled_back").data["failed"] == ["latency_p99 > 20ms"]


def test_comparisons_use_measured_outcomes_and_unknown_ones_never_pass(database, tmp_path):
    measured = {}
    yard = Yard(database, tmp_path / "home", outcomes=lambda rollout, metric: measured.get(metric))
    yard.deployed()
    rollout = yard.rollout(Canary(abort_if=["worse_than(champion, conversion)"]))
    yard.run(15)
    assert yard.now(rollout).step == 0
    check = next(c for c in yard.now(rollout).checks if c.name.startswith("worse_than"))
    assert check.verdict is Verdict.NO_DATA
    measured["conversion"] = (Arm.of_counts(200, 2_000), Arm.of_counts(50, 500), True)
    yard.run(15, until=lambda: yard.now(rollout).step == 1)
    measured["conversion"] = (Arm.of_counts(400, 4_000), Arm.of_counts(20, 1_000), True)
    yard.turn()
    assert yard.now(rollout).state is RolloutState.ROLLED_BACK
    assert "worse_than(champion, conversion)" in yard.event("rollout.rolled_back").data["failed"]
    yard.close()


def test_one_rollout_at_a_time(yard):
    yard.deployed()
    rollout = yard.rollout()
    third = yard.version()
    with pytest.raises(Conflict, match=rollout.id):
        yard.deployment.deploy("flights", third, actor=ADA)
    yard.run(3)
    second = yard.deployment.deploy("flights", third, actor=BOB, replace_running=True)
    old = yard.now(rollout)
    assert old.state is RolloutState.ABORTED
    assert "bob stopped it: replaced by version 3" in old.reason
    # The version before leaves no route behind.
    assert shape(yard.route()) == [("v1", "control", 10_000), ("v3", "canary", 0)]
    assert yard.deployment.running_rollout("flights").id == second.id
    yard.steered.drive()
    assert yard.steered.engine.get(old.workflow).status is Status.SUCCEEDED


def test_a_person_aborts(yard):
    yard.deployed()
    rollout = yard.rollout()
    yard.run(2)
    done = yard.deployment.abort("flights", actor=BOB, reason="complaints")
    assert (done.state, yard.kinds()[-1]) == (RolloutState.ABORTED, "rollout.aborted")
    assert shape(yard.route()) == [("v1", "control", 10_000)]
    with pytest.raises(Conflict, match="No rollout"):
        yard.deployment.abort("flights", actor=BOB)
    assert yard.turn(100) == ()
    assert yard.now(rollout) == done


def test_rollback_of_a_finished_rollout_restores_the_champion_before(yard):
    yard.deployed()
    for _ in range(2):
        rollout = yard.rollout(Canary(steps=(50, 100), min_answers=20, bake="1m"))
        yard.run(80, until=yard.ended(rollout))
        assert yard.now(rollout).state is RolloutState.FINISHED
    back = yard.deployment.rollback("flights", actor=BOB, reason="refunds rise")
    assert (back.id, back.state) == (rollout.id, RolloutState.ROLLED_BACK)
    assert shape(yard.route())[0] == ("v2", "control", 10_000)
    assert yard.registry.resolve("delay/production").number == 2
    event = yard.event("rollout.rolled_back")
    assert event.after == {"state": "rolled_back", "champion": 2}
    assert "refunds rise" in event.data["reason"]
    with pytest.raises(NotFound, match="never been the champion"):
        yard.deployment.rollback("flights", 9, actor=BOB)
    yard.deployment.rollback("flights", 3, actor=BOB)
    assert shape(yard.route())[0] == ("v3", "control", 10_000)
    yard.deployment.rollback("flights", 1, actor=BOB)
    assert yard.registry.resolve("delay/production").number == 1
    with pytest.raises(Conflict, match="no version to go back to"):
        yard.deployment.rollback("flights", actor=BOB)


def test_rollback_while_a_rollout_runs_aborts_it(yard):
    yard.deployed()
    rollout = yard.rollout()
    assert yard.deployment.rollback("flights", actor=BOB).id == rollout.id
    assert yard.now(rollout).state is RolloutState.ABORTED
    assert yard.deployment.get_endpoint("flights").champion == 1


def test_a_new_control_plane_goes_on_at_every_point(yard):
    """After each look and before each workflow step somebody pulls the plug."""
    yard.deployed()
    rollout = yard.rollout()
    turns = 0
    while yard.now(rollout).state.active:
        for worker in yard.workers:
            worker.take()
        yard.serve(400, minutes=4, only=None)
        yard.clock.advance(yard.clock.now() + timedelta(minutes=4))
        for worker in yard.workers:
            worker.report()
        yard.restart()
        yard.deployment.tick()
        yard.restart()
        yard.steered.drive()
        turns += 1
        assert turns < 60
    assert yard.now(rollout).state is RolloutState.FINISHED


def test_a_restart_changes_no_decision(tmp_path):
    """What counts is what is stored: two control planes, one restarted all the time, see and say the same."""
    found = []
    for name in ("steady", "restarted"):
        database = Database.at(tmp_path / name / "modelyard.db")
        database.create_all()
        yard = Yard(database, tmp_path / name)
        yard.deployed()
        rollout = yard.rollout(Canary(bake="10d", max_wait="20d"))
        for _ in range(8):
            yard.turn(500)
            if name == "restarted":
                yard.restart()
        found.append((yard.now(rollout), yard.kinds()))
        yard.close()
        database.close()
    steady, restarted = found
    assert steady == restarted
    assert steady[0].answers > 96
    assert [check.name for check in steady[0].checks] == ["errors", "scores", "answers"]


def test_publish_repairs_what_a_crash_left(yard):
    yard.deployed()
    yard.rollout()
    before = yard.publisher.current()
    assert yard.deployment.publish() == before  # nothing to do
    yard.publisher.paths.routes.write_text("{ torn")
    repaired = yard.deployment.publish()
    assert repaired.endpoints == before.endpoints
    assert repaired.generation > before.generation
    yard.publisher.paths.routes.unlink()
    assert yard.deployment.publish().generation > before.generation


def test_a_rollback_reaches_the_workers_even_if_publishing_failed_at_first(yard, monkeypatch):
    yard.deployed()
    rollout = yard.rollout()
    yard.failing[2] = 1.0

    def full(table):
        raise Unavailable("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(yard.publisher, "publish", full)
        for worker in yard.workers:
            worker.take()
        yard.serve(2_000, minutes=1, only=None)
        for worker in yard.workers:
            worker.report()
        with pytest.raises(Unavailable):
            yard.deployment.tick()
    assert yard.now(rollout).state is RolloutState.ROLLED_BACK
    yard.restart()
    yard.deployment.tick()
    assert shape(yard.route()) == [("v1", "control", 10_000)]


def test_a_dead_workflow_does_not_stop_a_rollback(yard):
    yard.deployed()
    rollout = yard.rollout()
    yard.steered.engine.cancel(rollout.workflow, actor=BOB)
    yard.failing[2] = 1.0
    yard.turn(2_000)
    assert yard.now(rollout).state is RolloutState.ROLLED_BACK
    assert shape(yard.route()) == [("v1", "control", 10_000)]


def test_a_standing_decision_and_a_promotion_rule_can_refuse(yard):
    yard.deployed()
    version = yard.version()
    yard.registry.write_decision(
        version, "deploy", allowed=False, reason="Not validated.", content_digest=version.content_digest, actor=BOB
    )
    with pytest.raises(Refused, match="Not validated"):
        yard.deployment.deploy("flights", version, actor=ADA)
    assert yard.event("rollout.refused").data["reason"] == "Not validated."
    other = yard.version()
    yard.registry.set_promotion_rule("delay", "production", "roc_auc >= 0.7", actor=BOB)
    with pytest.raises(Refused, match="roc_auc"):
        yard.deployment.deploy("flights", other, actor=ADA)
    assert yard.deployment.running_rollout("flights") is None


def test_a_permission_withdrawn_during_the_rollout_stops_it(yard):
    yard.deployed()
    rollout = yard.rollout()
    version = yard.registry.resolve("delay/2")
    yard.registry.write_decision(
        version, "promote", allowed=False, reason="A finding.", content_digest=version.content_digest, actor=BOB
    )
    yard.run(60, until=yard.ended(rollout))
    assert yard.now(rollout).state is RolloutState.ROLLED_BACK
    assert "A finding." in yard.now(rollout).reason
    assert yard.registry.resolve("delay/production").number == 1


def test_a_person_who_moves_a_served_version_to_production_starts_a_rollout(yard):
    yard.deployed()
    version = yard.version()
    yard.registry.move_stage(version, "production", actor=BOB)
    started = yard.deployment.act_on_requests()
    assert [(each.version, each.started_by) for each in started] == [(2, "bob")]
    assert yard.deployment.act_on_requests() == ()
    yard.registry.move_stage(yard.registry.resolve("delay/1"), "archived", actor=BOB)
    assert yard.deployment.act_on_requests() == ()
    assert "roll back" in yard.event("rollout.refused").data["reason"]


def test_what_does_not_fit_is_refused(yard):
    first = yard.deployed(entity_key="tail")
    with pytest.raises(Conflict, match="answers at endpoint 'flights' already"):
        yard.deployment.deploy("flights", first, actor=ADA)
    with pytest.raises(Conflict, match="entity_key"):
        yard.deployment.deploy("flights", yard.version(), actor=ADA, entity_key="carrier")
    with pytest.raises(NotFound):
        yard.deployment.deploy("flights", "delay/99", actor=ADA)
    with pytest.raises(NotFound, match="flights"):
        yard.deployment.get_endpoint("flihgts")
    with pytest.raises(Invalid, match="'/'"):
        yard.deployment.deploy("a/b", first, actor=ADA)
    (yard.folder / "other").mkdir()
    (yard.folder / "other" / "model.txt").write_text("other")
    other = yard.registry.register_version("churn", yard.folder / "other", actor=ADA)
    with pytest.raises(Conflict, match="serves model 'delay'"):
        yard.deployment.deploy("flights", other, actor=ADA)


def test_settings_and_deletion(yard):
    yard.deployed()
    with pytest.raises(Invalid, match="sample"):
        yard.deployment.configure("flights", actor=ADA, sample=2.0)
    yard.deployment.configure("flights", actor=ADA, sample=0.1, redact=("tail",))
    assert (yard.route().sample, yard.route().redact) == (0.1, ("tail",))
    rollout = yard.rollout()
    assert yard.route().sample == 1.0  # the guard sees every answer of a rollout
    with pytest.raises(Conflict, match="Abort it first"):
        yard.deployment.delete("flights", actor=ADA)
    yard.deployment.abort("flights", actor=ADA)
    assert [each.id for each in yard.deployment.list_rollouts("flights")][0] == rollout.id
    yard.deployment.delete("flights", actor=ADA, reason="moved")
    assert yard.publisher.current().endpoints == ()
    assert yard.deployment.list_endpoints() == []
    with pytest.raises(NotFound):
        yard.deployment.get_rollout(rollout.id)


def test_an_endpoint_without_its_files_keeps_its_route_and_holds_up_no_other(yard):
    first = yard.deployed()
    before = yard.route()
    (yard.folder / "other").mkdir()
    (yard.folder / "other" / "model.txt").write_text("other")
    churn = yard.registry.register_version("churn", yard.folder / "other", actor=ADA)
    import shutil

    shutil.rmtree(yard.publisher.paths.models / first.content_digest)
    for digest in yard.registry.get_version(first).files:
        yard.registry.objects.delete(digest.digest)
    with pytest.raises(Invalid):
        yard.deployment.deploy("churn", churn, actor=ADA)  # the publisher refuses a table with an absent folder
    assert yard.publisher.current().endpoints == (before,)


def test_versions_that_cannot_be_compared_say_so(yard):
    yard.deployed()
    rollout = yard.rollout(honest=False, data=("b",))
    yard.turn(400)
    check = next(each for each in yard.now(rollout).checks if each.name == "scores")
    assert check.verdict is Verdict.INCONCLUSIVE
    assert "different data" in check.reason
    yard.run(60, until=yard.ended(rollout))
    assert yard.now(rollout).state is RolloutState.FINISHED


def test_versions_of_the_same_data_are_compared_with_tolerance(yard):
    yard.deployed()
    rollout = yard.rollout(honest=False)
    yard.scores[2] = lambda score: 0.99
    yard.run(20, until=yard.ended(rollout))
    assert yard.now(rollout).state is RolloutState.ROLLED_BACK
    assert yard.given[2] <= 96


def test_expected_bins_travel_as_a_tag(yard):
    rng = np.random.default_rng(1)
    champion = rng.random(3_000)
    measured = expected_bins(champion, champion**1.5, control_version=1, rng=rng)
    assert ExpectedBins.of_tags({TAG: measured.to_text()}) == measured
    yard.deployed()
    rollout = yard.rollout(Canary(bake="5m"), honest=False, tags={TAG: measured.to_text()})
    yard.scores[2] = lambda score: score**1.5
    yard.run(80, until=yard.ended(rollout))
    assert yard.now(rollout).state is RolloutState.FINISHED


def test_an_engine_carries_a_rollout(sqlite, tmp_path):
    yard = Yard(sqlite, tmp_path / "home")
    engine = Engine(sqlite, yard.events, clock=yard.clock, executor_id="w1", poll_s=0.05)
    yard.deployment = yard.build(engine)
    engine.launch()
    yard.steered.drive = engine.tick
    try:
        yard.deployed()
        rollout = yard.rollout(Canary(steps=(50, 100), min_answers=20, bake="1m"))
        end = time.monotonic() + 60
        while yard.now(rollout).state.active:
            yard.turn(100)
            assert time.monotonic() < end
        assert yard.now(rollout).state is RolloutState.FINISHED
        assert engine.wait_for(rollout.workflow, 20).status is Status.SUCCEEDED
    finally:
        engine.close()
        yard.close()
