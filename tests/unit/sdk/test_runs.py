"""Runs through the SDK, without a server: what is logged is there, and training is never brought down."""

import json
import logging
import threading

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from modelyard.errors import Invalid, NotFound, Unavailable
from modelyard.sdk.tracker import Tracker
from modelyard.sdk.transport import PIECE_BYTES, upload_object


def _data(rows=200):
    rng = np.random.default_rng(7)
    features = pd.DataFrame({"age": rng.normal(40, 10, rows), "visits": rng.poisson(3, rows).astype(float)})
    return features, (features["age"] + 3 * features["visits"] > 48).astype(int)


def test_run_from_start_to_listed_version(tracker, client):
    features, label = _data()
    with tracker.start_run("first", experiment="churn", params={"seed": 7}, tags={"team": "growth"}) as run:
        model = LogisticRegression(C=0.5).fit(features, label)
        for step in range(3):
            tracker.active().log({"loss": 1 / (step + 1)})
        run.log({"roc_auc": float("nan")}, step=9)
        version = run.register_model(model, "churn", data=features, alias="candidate", tags={"a": "b"})
    (listed,) = client.get("/models/churn/versions")["versions"]
    assert (listed["reference"], listed["run_id"], version.reference) == ("churn/1", run.id, "churn/1")
    assert listed["aliases"] == ["candidate"]
    full = client.get("/models/churn/versions/1")
    assert {"MLmodel", "verification.json"} <= {file["path"] for file in full["files"]}
    assert full["engine"]["passed"] is True
    assert [column["name"] for column in full["signature"]["inputs"]] == ["age", "visits"]
    assert full["lineage"]["parameters"]["C"] == "0.5"
    assert len(full["lineage"]["data"]) == 1
    assert full["lineage"]["code"]
    assert full["metrics"]["loss"] == pytest.approx(1 / 3)

    found = client.get(f"/runs/{run.id}")
    assert (found["name"], found["status"]) == ("first", "finished")
    assert found["params"]["seed"] == "7"
    assert found["tags"]["team"] == "growth"
    assert found["metrics"]["loss"]["minimum_step"] == 2
    assert found["metrics"]["roc_auc"]["last"] == "NaN"
    assert found["metrics"]["training_accuracy"]["last"] > 0.5
    (dataset,) = found["inputs"]
    assert dataset["profile_digest"]
    names = {entry["path"] for entry in client.get(f"/runs/{run.id}/artifacts")["artifacts"]}
    assert {"environment", "signature.json"} <= names
    assert [row["id"] for row in client.get("/runs", experiment="churn")["runs"]] == [run.id]


def test_block_that_raises_fails_its_run_and_only_that(tracker, client):
    with tracker.start_run("outer", capture=False) as outer:
        with pytest.raises(ZeroDivisionError), tracker.start_run("inner", capture=False) as inner:
            assert tracker.current() is inner
            1 / 0  # noqa: B018
        assert tracker.current() is outer
    found = client.get(f"/runs/{inner.id}")
    assert (found["status"], found["parent_id"]) == ("failed", outer.id)
    assert found["error"] == "ZeroDivisionError: division by zero"
    assert client.get(f"/runs/{outer.id}")["status"] == "finished"
    with pytest.raises(KeyboardInterrupt), tracker.start_run(capture=False) as stopped:
        raise KeyboardInterrupt
    assert client.get(f"/runs/{stopped.id}")["status"] == "killed"
    with pytest.raises(SystemExit), tracker.start_run(capture=False) as left:
        raise SystemExit(0)
    assert client.get(f"/runs/{left.id}")["status"] == "finished"


def test_threads_log_to_their_own_run(tracker, client, caplog):
    def train(number):
        with tracker.start_run(f"thread {number}", capture=False) as run:
            both.wait()
            tracker.to_active(lambda active: active.log({"number": number}))
            runs[number] = run.id
            both.wait()

    both, runs = threading.Barrier(3, timeout=30), {}
    threads = [threading.Thread(target=train, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    both.wait()
    with caplog.at_level(logging.WARNING, logger="modelyard.sdk"):
        tracker.to_active(lambda active: active.log({"number": 99}))
        tracker.to_active(lambda active: active.log({"number": 99}))
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    assert "Several runs" in caplog.text
    with pytest.raises(Invalid):
        tracker.active()
    both.wait()
    for thread in threads:
        thread.join()
    for number, run_id in runs.items():
        assert client.get(f"/runs/{run_id}")["metrics"]["number"]["last"] == number


def test_helper_thread_logs_to_the_only_run(tracker, client):
    with tracker.start_run(capture=False) as run:
        helper = threading.Thread(target=lambda: tracker.active().log({"loss": 2.0}))
        helper.start()
        helper.join()
    assert client.get(f"/runs/{run.id}")["metrics"]["loss"]["last"] == 2.0


def test_logging_without_a_run_starts_one(tracker, client):
    tracker.to_active(lambda run: run.log({"loss": 1.0}))
    run = tracker.current()
    run.finish()
    assert tracker.current() is None
    assert client.get(f"/runs/{run.id}")["metrics"]["loss"]["count"] == 1
    assert client.get(f"/runs/{run.id}")["tags"]["modelyard.code_digest"]


def test_tracked_function_is_a_run_per_call(tracker, client):
    @tracker.track(experiment="grid", capture=False)
    def train(depth, data, rate=0.1):
        return {"score": depth * rate, "note": "text", "flag": True}

    assert train(3, data=[1, 2])["note"] == "text"
    train(4, data=None)
    second, first = client.get("/runs", experiment="grid")["runs"]
    assert first["params"] == {"depth": "3", "rate": "0.1"}
    assert (first["name"], list(first["metrics"])) == ("train", ["score"])
    assert second["metrics"]["score"] == pytest.approx(0.4)
    assert train.__name__ == "train"


def test_model_of_a_run_is_stored_without_a_version(tracker, client):
    features, label = _data()
    with tracker.start_run(capture=False) as run:
        run.log_model(LogisticRegression().fit(features, label), data=features)
    paths = {entry["path"] for entry in client.get(f"/runs/{run.id}/artifacts", folder="model")["artifacts"]}
    assert "model/MLmodel" in paths
    assert client.get("/models")["models"] == []


def test_nothing_that_is_logged_raises(tracker, client, tmp_path, caplog):
    class Unprintable:
        def __str__(self):
            raise RuntimeError("no text")

    with tracker.start_run(capture=False) as run:
        run.log({"loss": "much"})
        run.log_params({"x": Unprintable()})
        run.log_artifact("plot.png", tmp_path / "absent.png")
        run.log_artifact("../outside", b"x")
        run.log_model(object())
        run.log_data(object(), name="nothing")
        run.log_params({"fine": 1})
    assert client.get(f"/runs/{run.id}")["params"] == {"fine": "1"}
    assert client.get(f"/runs/{run.id}")["status"] == "finished"
    assert "could not record a model" in caplog.text


def test_without_a_server_the_run_waits_on_disk_and_is_sent_by_the_next(home, client):
    def away(_):
        raise Invalid("The database is of a later release.")

    lost = Tracker(away, settings=lambda: home.settings)
    with lost.start_run("offline") as run:
        run.log({"loss": 0.5})
        with pytest.raises(Unavailable, match="has not reached"):
            run.register_model(LogisticRegression(), "churn")
    with pytest.raises(NotFound):
        client.get(f"/runs/{run.id}")

    found = Tracker(lambda _: client, settings=lambda: home.settings)
    with found.start_run("online", capture=False):
        for thread in threading.enumerate():
            if thread.name == "modelyard-replay":
                thread.join(30)
    late = client.get(f"/runs/{run.id}")
    assert (late["status"], late["metrics"]["loss"]["last"]) == ("finished", 0.5)
    files = client.get(f"/runs/{run.id}/artifacts", folder="environment")["artifacts"]
    assert "environment/requirements.txt" in {entry["path"] for entry in files}


def test_login_that_is_missing_loses_nothing(home):
    stranger = home.client(local=False)
    tracker = Tracker(lambda _: stranger, settings=lambda: home.settings)
    with tracker.start_run(capture=False) as run:
        run.log({"loss": 0.5})
    assert len(list(home.settings.home.glob("spool/home/*.jsonl"))) == 1
    assert not list(home.settings.home.glob("spool/home/*.refused"))
    stranger.close()


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 5])
def test_content_of_any_size_arrives_whole(client, home, tmp_path, size):
    content = np.random.default_rng(size).bytes(size)
    path = tmp_path / "content"
    path.write_bytes(content)
    digest = upload_object(client, path)
    assert upload_object(client, content) == digest
    assert home.objects.get(digest) == content
    assert list((home.settings.home / "uploads").glob("*")) == []


def test_registered_folder_keeps_its_files(tracker, client, tmp_path):
    folder = tmp_path / "any"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "weights.json").write_text(json.dumps({"w": 1}))
    with tracker.start_run(capture=False) as run:
        run.register_model(folder, "custom", metrics={"auc": 0.5})
    version = client.get("/models/custom/versions/1")
    assert [file["path"] for file in version["files"]] == ["sub/weights.json"]
    assert version["metrics"] == {"auc": 0.5}
