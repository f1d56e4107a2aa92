"""From a fitted model to captured predictions, through the running process tree."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from modelyard.app import App
from modelyard.events import Actor
from modelyard.models import save_model
from modelyard.server.control import read_control
from modelyard.settings import Settings

ADA = Actor("ada")
SRC = str(Path(__file__).parents[2] / "src")


def _cli(*arguments, home):
    environment = {**os.environ, "PYTHONPATH": SRC}
    environment.pop("MODELYARD_HOME", None)
    command = [sys.executable, "-m", "modelyard.cli", *arguments, "--home", str(home), "--json"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def _until(condition, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, "the condition did not come true"
        threading.Event().wait(0.05)


def _free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture
def yard(tmp_path):
    """A running Modelyard and an ``App`` on the same home; stopped at the end."""
    home = tmp_path / "home"
    ports = [str(port) for port in _free_ports(2)]
    started = _cli("up", "--detach", "--workers", "2", "--port", ports[0], "--serve-port", ports[1], home=home)
    assert started.returncode == 0, started.stderr + (home / "logs" / "up.log").read_text()
    app = App(Settings(home=home))
    yield app, read_control(home)
    app.database.close()
    stopped = _cli("stop", home=home)
    assert stopped.returncode == 0, stopped.stderr
    assert read_control(home) is None


@pytest.fixture
def model(tmp_path):
    """A fitted model, its data and its folder."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"age": rng.normal(40, 10, 500), "income": rng.normal(3, 1, 500)})
    fitted = LogisticRegression().fit(data, (data["age"] + 5 * data["income"] > 55).astype(int))
    save_model(fitted, tmp_path / "model", data=data)
    return fitted, data, tmp_path / "model"


def _deploy(app, folder):
    version = app.registry.register_version("churn", folder, actor=ADA)
    app.deployment.deploy("churn", version, actor=ADA, entity_key="customer")
    return version


def test_a_deployed_model_answers_as_itself_and_is_captured(yard, model):
    app, control = yard
    fitted, data, folder = model
    _deploy(app, folder)
    rows = [{"customer": f"c{n}", **row} for n, row in enumerate(data.head(20).to_dict("records"))]
    reply = _until(
        lambda: (r := httpx.post(f"{control.serve_url}/predict/churn", json={"rows": rows})).is_success and r
    )
    answers = reply.json()["predictions"]
    expected = fitted.predict_proba(data.head(20))[:, 1]
    assert [answer["score"] for answer in answers] == pytest.approx(expected.tolist(), abs=1e-12)
    assert reply.json()["captured"] is True
    table = _until(lambda: (t := app.predictions.scan("churn")).num_rows == 20 and t)
    assert set(table["prediction_id"].to_pylist()) == {answer["prediction_id"] for answer in answers}
    assert table["version"].to_pylist() == [1] * 20
    version = app.registry.resolve("churn/production")
    assert version.number == 1


def test_killed_processes_come_back_and_nothing_acknowledged_is_lost(yard, model):
    app, control = yard
    _, data, folder = model
    _deploy(app, folder)
    url = f"{control.serve_url}/predict/churn"
    row = {"customer": "c", **data.iloc[0].to_dict()}
    _until(lambda: httpx.post(url, json=row).is_success)
    acknowledged, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            try:
                reply = httpx.post(url, json=row, timeout=5)
            except httpx.TransportError:
                continue  # its worker was killed before it answered
            if reply.is_success:
                acknowledged.append(reply.json()["predictions"][0]["prediction_id"])

    thread = threading.Thread(target=ask)
    thread.start()
    _until(lambda: len(acknowledged) > 20)
    victim = app.publisher.workers()[0]
    os.kill(victim.pid, signal.SIGKILL)
    before = len(acknowledged)
    _until(lambda: len(acknowledged) > before + 50)
    _until(lambda: [w.worker for w in app.publisher.workers() if w.ready and w.pid != victim.pid] == [0, 1])
    stop.set()
    thread.join()

    def stored():
        return app.predictions.scan("churn", columns=["prediction_id"])["prediction_id"].to_pylist()

    ids = _until(lambda: (found := stored()) and set(acknowledged) <= set(found) and found)
    assert len(ids) == len(set(ids))


def test_a_second_start_names_the_first(yard):
    app, control = yard
    again = _cli("up", home=app.settings.home)
    assert again.returncode == 1
    assert control.url in json.loads(again.stderr)["detail"]


def test_status_and_audit_work_while_it_runs(yard):
    app, control = yard
    status = _cli("status", home=app.settings.home)
    assert json.loads(status.stdout)["url"] == control.url
    audit = _cli("audit", "verify", home=app.settings.home)
    assert json.loads(audit.stdout)["intact"] is True
