"""Tracking keeps its promises on both databases."""

import math
import threading
from datetime import UTC, datetime, timedelta

import pytest

from modelyard.errors import Conflict, Invalid, NotFound, TooLarge
from modelyard.events import Actor, EventLog, EventTimeClock
from modelyard.storage.objects import ObjectStore
from modelyard.storage.series import SeriesStore
from modelyard.tracking import (
    Artifact,
    Batch,
    DatasetInput,
    Ending,
    ParameterChanged,
    Points,
    Start,
    Tracking,
)

ADA = Actor("ada")
AT = datetime(2013, 4, 1, 12, tzinfo=UTC)
AT_US = int(AT.timestamp() * 1_000_000)


@pytest.fixture
def clock():
    return EventTimeClock(AT)


@pytest.fixture
def log(database):
    return EventLog(database)


@pytest.fixture
def tracking(database, log, clock, tmp_path):
    objects = ObjectStore.at(tmp_path / "objects")
    return Tracking(database, log, clock, objects=objects, series=SeriesStore(database))


@pytest.fixture
def run(tracking):
    experiment = tracking.ensure_experiment("churn", actor=ADA)
    return tracking.create_run(experiment.id, actor=ADA, name="first", tags={"team": "growth"})


def _batch(run_id, batch_id="b1", **parts):
    return Batch(batch_id, run_id, **parts)


def _points(*values, first=0):
    steps = list(range(first, first + len(values)))
    return Points(steps, [AT_US + step for step in steps], list(values))


def _kinds(log):
    return [row.event.kind for row in log.read()]


def test_experiment_is_created_once_under_a_name(tracking, log):
    made = tracking.create_experiment("churn", actor=ADA, tags={"a": "ü"})
    assert tracking.get_experiment(made.id) == made
    assert tracking.find_experiment("churn") == made
    assert dict(made.tags) == {"a": "ü"}
    with pytest.raises(Conflict):
        tracking.create_experiment("churn", actor=ADA)
    assert tracking.find_experiment("churn", project="other") is None
    assert tracking.create_experiment("churn", actor=ADA, project="other").id != made.id
    assert _kinds(log) == ["experiment.created", "experiment.created"]
    with pytest.raises(NotFound):
        tracking.get_experiment("nothing")


def test_first_default_experiment_has_the_id_that_clients_expect(tracking):
    assert tracking.ensure_experiment(actor=ADA).id == "0"
    assert tracking.ensure_experiment(actor=ADA).id == "0"
    assert tracking.ensure_experiment(actor=ADA, project="other").id != "0"


def test_experiment_changes_and_goes_to_the_bin(tracking, log):
    made = tracking.create_experiment("churn", actor=ADA, tags={"a": "1", "b": "2"})
    other = tracking.create_experiment("fraud", actor=ADA)
    with pytest.raises(Conflict):
        tracking.update_experiment(other.id, actor=ADA, name="churn")
    changed = tracking.update_experiment(made.id, actor=ADA, name="churn2", tags={"a": "3"}, remove_tags=["b"])
    assert (changed.name, dict(changed.tags)) == ("churn2", {"a": "3"})
    tracking.update_experiment(made.id, actor=ADA, lifecycle_stage="deleted")
    assert [each.name for each in tracking.list_experiments()] == ["fraud"]
    assert [each.name for each in tracking.list_experiments(lifecycle_stage=None)] == ["churn2", "fraud"]
    with pytest.raises(Conflict, match="bin"):
        tracking.ensure_experiment("churn2", actor=ADA)
    tracking.update_experiment(made.id, actor=ADA, lifecycle_stage="active")
    assert tracking.ensure_experiment("churn2", actor=ADA).id == made.id
    assert [each.name for each in tracking.list_experiments(after="churn2", limit=1)] == ["fraud"]
    assert log.read()[2].event.before["tags"] == {"a": "1", "b": "2"}


def test_run_records_what_it_logs(tracking, run, log):
    data = DatasetInput("flights", "d" * 64, "training", schema='{"columns": []}', tags={"split": "a"})
    batch = _batch(
        run.id,
        metrics={"loss": _points(0.5, 0.25, math.nan, 0.75), "up": _points(math.inf)},
        params={"depth": "3", "name": "x"},
        tags={"team": "risk"},
        inputs=[data],
    )
    assert tracking.log_batch(batch, actor=ADA)
    found = tracking.run_data(run.id)[run.id]
    assert dict(found.params) == {"depth": "3", "name": "x"}
    assert dict(found.tags) == {"team": "risk"}
    assert found.inputs == (data,)
    loss = found.metrics["loss"]
    assert (loss.count, loss.last, loss.last_step, loss.minimum, loss.maximum) == (4, 0.75, 3, 0.25, 0.75)
    assert (loss.minimum_step, loss.maximum_step) == (1, 3)
    assert loss.last_at == AT + timedelta(microseconds=3)
    assert found.metrics["up"].last == math.inf
    history = tracking.metric_history(run.id, "loss", start_step=1)
    assert [point.step for point in history] == [1, 2, 3]
    assert math.isnan(history[1].value)
    assert history[0].at == AT + timedelta(microseconds=1)
    assert _kinds(log) == ["experiment.created", "run.started"]


def test_batch_is_applied_once_however_often_it_arrives(tracking, run):
    batch = _batch(run.id, metrics={"loss": _points(1.0, 2.0)}, params={"a": "1"})
    assert [tracking.log_batch(batch, actor=ADA) for _ in range(3)] == [True, False, False]
    assert tracking.run_data(run.id)[run.id].metrics["loss"].count == 2
    assert len(tracking.metric_history(run.id, "loss")) == 2


def test_summaries_grow_from_batch_to_batch_whatever_their_order(tracking, run):
    tracking.log_batch(_batch(run.id, "late", metrics={"m": _points(5.0, 6.0, first=10)}), actor=ADA)
    tracking.log_batch(_batch(run.id, "early", metrics={"m": _points(9.0, 1.0)}), actor=ADA)
    tracking.log_batch(_batch(run.id, "nan", metrics={"m": _points(math.nan, first=20)}), actor=ADA)
    found = tracking.run_data(run.id)[run.id].metrics["m"]
    assert (found.count, found.minimum, found.maximum, found.last_step) == (5, 1.0, 9.0, 20)
    assert math.isnan(found.last)


def test_all_nan_metric_has_no_extremes(tracking, run):
    tracking.log_batch(_batch(run.id, metrics={"m": _points(math.nan)}), actor=ADA)
    found = tracking.run_data(run.id)[run.id].metrics["m"]
    assert math.isnan(found.minimum)
    assert math.isnan(found.maximum)


def test_parameter_is_written_once(tracking, run):
    tracking.log_batch(_batch(run.id, params={"a": "1"}), actor=ADA)
    changed = _batch(run.id, "b2", params={"a": "2", "b": "1"}, metrics={"m": _points(1.0)})
    with pytest.raises(ParameterChanged, match="'1' and cannot become '2'"):
        tracking.log_batch(changed, actor=ADA)
    assert dict(tracking.run_data(run.id)[run.id].params) == {"a": "1"}
    assert tracking.run_data(run.id)[run.id].metrics == {}
    assert tracking.log_batch(_batch(run.id, "b3", params={"a": "1", "b": "1"}), actor=ADA)


def test_group_commit_keeps_a_refused_batch_to_itself(tracking, run):
    good = _batch(run.id, "good", metrics={"m": _points(1.0)})
    lost = _batch("nothing", "lost", metrics={"m": _points(1.0)})
    bad = _batch(run.id, "bad", metrics={"m\0": _points(1.0)})
    outcomes = tracking.log_batches([lost, good, bad, good], actor=ADA)
    assert isinstance(outcomes[0], NotFound)
    assert outcomes[1] is True
    assert isinstance(outcomes[2], Invalid)
    assert outcomes[3] is False


def test_limits_are_those_of_the_protocol(tracking, run):
    for parts in (
        {"metrics": {"m": _points(*range(1001))}},
        {"params": {str(n): "" for n in range(101)}},
        {"tags": {str(n): "" for n in range(101)}},
        {"metrics": {"m": _points(*range(950))}, "tags": {str(n): "" for n in range(51)}},
        {"params": {"k" * 251: ""}},
        {"params": {"k": "v" * 6001}},
        {"tags": {"k": "v" * 8001}},
        {"inputs": [DatasetInput("n" * 501, "d")]},
    ):
        with pytest.raises(TooLarge):
            tracking.log_batch(_batch(run.id, **parts), actor=ADA)
    for points in (Points([1], [1], []), Points([], [], []), Points([2**63], [1], [1.0]), Points([0.5], [1], [1.0])):
        with pytest.raises(Invalid):
            tracking.log_batch(_batch(run.id, metrics={"m": points}), actor=ADA)


def test_run_ends_with_one_event_that_covers_its_rows(tracking, run, log, clock):
    tracking.log_batch(_batch(run.id, metrics={"m": _points(1.0, 2.0)}, params={"a": "1"}), actor=ADA)
    clock.advance(AT + timedelta(hours=1))
    ended = tracking.finish(run.id, actor=ADA)
    assert (ended.status, ended.ended_at) == ("finished", AT + timedelta(hours=1))
    event = log.read()[-1].event
    assert event.kind == "run.finished"
    assert event.data["counts"] == {
        "params": 1,
        "tags": 1,
        "inputs": 0,
        "artifacts": 0,
        "metrics": 1,
        "points": 2,
    }
    sealed = event.data["digest"]
    tracking.log_batch(_batch(run.id, "after", metrics={"m": _points(3.0, first=2)}), actor=ADA)
    amended = log.read()[-1].event
    assert amended.kind == "run.amended"
    assert amended.data["digest"] != sealed


def test_histories_of_ended_runs_keep_every_point(tracking, run):
    for number in range(5):
        tracking.log_batch(_batch(run.id, str(number), metrics={"m": _points(float(number), first=number)}), actor=ADA)
    tracking.finish(run.id, actor=ADA)
    assert [point.value for point in tracking.metric_history(run.id, "m")] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [point.value for point in tracking.metric_history(run.id, "m", offset=1, limit=2)] == [1.0, 2.0]
    assert tracking.compact_histories() == 0


def test_failed_run_says_why_and_may_resume(tracking, run, log):
    failed = tracking.set_status(run.id, "failed", actor=ADA, error="division by zero")
    assert (failed.status, failed.error) == ("failed", "division by zero")
    again = tracking.set_status(run.id, "running", actor=ADA)
    assert (again.status, again.ended_at, again.error) == ("running", None, None)
    with pytest.raises(Invalid, match="not a status"):
        tracking.set_status(run.id, "done", actor=ADA)
    assert _kinds(log)[-2:] == ["run.failed", "run.resumed"]


def test_batch_may_start_and_end_its_run(tracking, log):
    start = Start("offline", "default", "late", AT_US)
    batch = _batch("r1", start=start, metrics={"m": _points(1.0)}, ending=Ending("killed", AT_US + 5, "signal"))
    assert [tracking.log_batch(batch, actor=ADA) for _ in range(2)] == [True, False]
    run = tracking.get_run("r1")
    assert (run.status, run.started_at, run.error) == ("killed", AT, "signal")
    assert tracking.get_experiment(run.experiment_id).name == "offline"
    assert _kinds(log) == ["experiment.created", "run.started", "run.killed"]
    with pytest.raises(Conflict, match="another project"):
        tracking.log_batch(_batch("r1", "b2", start=Start("offline", "other", "x", AT_US)), actor=ADA)


def test_binned_run_takes_nothing_until_restored(tracking, run):
    tracking.delete_run(run.id, actor=ADA)
    with pytest.raises(Conflict, match="bin"):
        tracking.log_batch(_batch(run.id, params={"a": "1"}), actor=ADA)
    assert tracking.list_runs().runs == ()
    assert len(tracking.list_runs(lifecycle_stage="deleted").runs) == 1
    tracking.restore_run(run.id, actor=ADA)
    assert tracking.rename_run(run.id, "renamed", actor=ADA).name == "renamed"
    tracking.delete_tag(run.id, "team", actor=ADA)
    with pytest.raises(NotFound):
        tracking.delete_tag(run.id, "team", actor=ADA)


def test_runs_are_listed_newest_first_page_by_page(tracking, clock):
    experiment = tracking.ensure_experiment("pages", actor=ADA)
    for number in range(7):
        clock.advance(AT + timedelta(minutes=number // 3))
        tracking.create_run(experiment.id, actor=ADA, run_id=f"r{number}")
    seen, cursor = [], None
    while True:
        page = tracking.list_runs(experiment_ids=[experiment.id], cursor=cursor, limit=2)
        seen += [run.id for run in page.runs]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == ["r6", "r5", "r4", "r3", "r2", "r1", "r0"]
    tracking.finish("r2", actor=ADA)
    assert [run.id for run in tracking.list_runs(status="finished").runs] == ["r2"]
    with pytest.raises(Invalid):
        tracking.list_runs(cursor="%%%")


def test_artifacts_are_keys_and_digests(tracking, run, log, tmp_path):
    file = tmp_path / "roc.png"
    file.write_bytes(b"png")
    tracking.log_artifact(run.id, "plots/roc.png", file, actor=ADA)
    tracking.log_artifact(run.id, "Plots/x.txt", b"x", actor=ADA)
    tracking.log_artifact(run.id, "notes.txt", b"first", actor=ADA)
    tracking.log_artifact(run.id, "notes.txt", b"second", actor=ADA)
    assert tracking.read_artifact(run.id, "notes.txt") == b"second"
    assert tracking.get_artifact(run.id, "plots/roc.png").size_bytes == 3
    assert [(e.path, e.artifact is None) for e in tracking.list_artifacts(run.id)] == [
        ("Plots", True),
        ("notes.txt", False),
        ("plots", True),
    ]
    assert [e.path for e in tracking.list_artifacts(run.id, "plots")] == ["plots/roc.png"]
    assert [e.path for e in tracking.walk_artifacts(run.id, "plots")] == ["plots/roc.png"]
    tracking.delete_artifact(run.id, "plots/roc.png", actor=ADA)
    with pytest.raises(NotFound):
        tracking.read_artifact(run.id, "plots/roc.png")
    assert _kinds(log)[-2:] == ["artifact.logged", "artifact.deleted"]


def test_artifact_paths_that_lead_anywhere_else_are_refused(tracking, run):
    for path in ("../../etc/passwd", "%252e%252e%252fetc", "a\0b"):
        with pytest.raises(Invalid):
            tracking.log_artifact(run.id, path, b"x", actor=ADA)
        with pytest.raises(Invalid):
            tracking.read_artifact(run.id, path)
        with pytest.raises(Invalid):
            tracking.log_batch(_batch(run.id, artifacts=[Artifact(path, "0" * 64, 1)]), actor=ADA)
    assert list(tracking.objects.digests()) == []


def test_batch_names_only_bytes_that_are_stored(tracking, run):
    with pytest.raises(NotFound):
        tracking.log_batch(_batch(run.id, artifacts=[Artifact("a", "0" * 64, 1)]), actor=ADA)
    digest = tracking.objects.put(b"abc")
    tracking.log_batch(_batch(run.id, artifacts=[Artifact("a", digest, 3)]), actor=ADA)
    assert tracking.read_artifact(run.id, "a") == b"abc"


def test_inputs_are_stored_once_and_found_by_run(tracking, run):
    data = DatasetInput("flights", "d" * 64, "training")
    tracking.log_inputs(run.id, [data, data], actor=ADA)
    tracking.log_inputs(run.id, [DatasetInput("flights", "d" * 64, "evaluation")], actor=ADA)
    assert [each.context for each in tracking.run_data(run.id)[run.id].inputs] == ["evaluation", "training"]
    with pytest.raises(NotFound):
        tracking.log_inputs("nothing", [data], actor=ADA)


def test_concurrent_writers_lose_nothing(tracking, run):
    def write(writer):
        for number in range(5):
            batch = _batch(run.id, f"{writer}-{number}", metrics={"m": _points(float(writer), first=number)})
            tracking.log_batch(batch, actor=ADA)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = tracking.run_data(run.id)[run.id].metrics["m"]
    assert (found.count, found.minimum, found.maximum) == (20, 0.0, 3.0)
    assert len(tracking.metric_history(run.id, "m")) == 20


def test_experiment_of_one_name_is_created_once_by_many(tracking):
    outcomes = []

    def create():
        try:
            outcomes.append(tracking.create_experiment("race", actor=ADA).id)
        except Conflict as error:
            outcomes.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 1
    assert len(outcomes) == 4
