"""What the child logs arrives once, and only what a child may say."""

import pytest

from modelyard.events import Actor, EventLog, EventTimeClock, SystemClock
from modelyard.retraining import captured
from modelyard.storage.objects import ObjectStore
from modelyard.storage.series import SeriesStore
from modelyard.tracking import Batch, Ending, Points, Start, Tracking, encode

ADA = Actor("ada")


@pytest.fixture
def tracking(sqlite, tmp_path):
    clock = EventTimeClock(SystemClock().now())
    objects = ObjectStore.at(tmp_path / "objects")
    tracking = Tracking(sqlite, EventLog(sqlite), clock, objects=objects, series=SeriesStore(sqlite))
    for run in ("mine", "theirs"):
        tracking.log_batch(Batch("begin", run, start=Start("e", "default", run, 0)), actor=ADA)
    return tracking


def test_recordings_reach_their_run_once(tracking, tmp_path):
    with captured.recording("mine", tmp_path / "child") as capturing, capturing:
        pass
    digest = captured.keep(tmp_path / "child", tracking.objects)
    content = tracking.objects.get(digest)
    for _ in range(2):
        assert captured.apply(content, "mine", tracking=tracking, actor=ADA) == []
    assert "modelyard.environment_digest" in tracking.run_data("mine")["mine"].tags
    assert {entry.path for entry in tracking.list_artifacts("mine", "environment")} == {
        "environment/environment.json",
        "environment/requirements.txt",
    }


def test_a_child_speaks_for_its_own_run_only_and_cannot_end_it(tracking):
    points = {"loss": Points([0], [0], [0.5])}
    lines = [
        Batch("a", "mine", metrics=points, ending=Ending("finished", 0)),
        Batch("b", "theirs", metrics=points),
        Batch("c", "mine", tags={"late": "yes"}),
    ]
    content = "".join(encode(line) + "\n" for line in lines)[:-5].encode()  # killed while it wrote the last line
    assert captured.apply(content, "mine", tracking=tracking, actor=ADA) == []
    data = tracking.run_data("mine", "theirs")
    assert (data["mine"].metrics["loss"].last, data["mine"].tags) == (0.5, {})
    assert tracking.get_run("mine").status == "running"
    assert not data["theirs"].metrics


def test_what_is_refused_is_said_and_stops_nothing(tracking):
    lines = [Batch("a", "mine", params={"depth": "3"}), Batch("b", "mine", params={"depth": "4"})]
    content = "".join(encode(line) + "\n" for line in lines).encode()
    (reason,) = captured.apply(content, "mine", tracking=tracking, actor=ADA)
    assert "depth" in reason


def test_nothing_recorded_is_nothing_kept(tracking, tmp_path):
    assert captured.keep(tmp_path / "nowhere", tracking.objects) is None
