import os
import pickle
import time
from pathlib import Path

import lightgbm
import numpy as np
import pytest
import yaml
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from modelyard.errors import Forbidden
from modelyard.models import (
    BadModelFolder,
    ConfinedFailure,
    Predictor,
    Untrusted,
    inspect_confined,
    read_info,
    run_confined,
    save_model,
    verify_confined,
)
from unit.models.model_samples import LGBM, numbers, records, target


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def forest(tmp_path):
    frame = numbers()
    model = RandomForestClassifier(3, random_state=0).fit(frame, target(frame))
    save_model(model, tmp_path / "m", data=frame)
    return tmp_path / "m"


@pytest.mark.parametrize("victim", ["model.pkl", "preprocess.pkl"])
def test_a_hostile_pickle_is_refused_unexecuted(tmp_path, victim):
    frame = numbers()
    model = RandomForestClassifier(3, random_state=0).fit(frame, target(frame))
    save_model(model, tmp_path / "m", data=frame, preprocess=lambda columns: columns)
    fired = tmp_path / "fired"
    (tmp_path / "m" / victim).write_bytes(pickle.dumps(Bomb(fired)))
    with pytest.raises(Untrusted) as caught:
        Predictor.load(tmp_path / "m", trust=False)
    assert isinstance(caught.value, Forbidden)
    assert "loading it runs code" in str(caught.value)
    read_info(tmp_path / "m")
    assert not fired.exists()


def test_a_native_engine_loads_beside_a_hostile_pickle_without_touching_it(tmp_path):
    frame = numbers()
    for name, model in {
        "linear": LogisticRegression(max_iter=2000).fit(frame, target(frame)),
        "trees": lightgbm.LGBMClassifier(**LGBM).fit(frame, target(frame)),
    }.items():
        save_model(model, tmp_path / name, data=frame)
        fired = tmp_path / f"fired-{name}"
        (tmp_path / name / "model.pkl").write_bytes(pickle.dumps(Bomb(fired)))
        found = Predictor.load(tmp_path / name, trust=False).predict(frame).scores
        np.testing.assert_allclose(found, model.predict_proba(frame)[:, 1], rtol=0, atol=1e-12)
        assert not fired.exists()


def test_a_hostile_python_model_of_mlflow_is_refused_unexecuted(tmp_path):
    fired = tmp_path / "fired"
    (tmp_path / "python_model.pkl").write_bytes(pickle.dumps(Bomb(fired)))
    document = {
        "flavors": {"python_function": {"loader_module": "mlflow.pyfunc.model", "python_model": "python_model.pkl"}}
    }
    (tmp_path / "MLmodel").write_text(yaml.safe_dump(document))
    with pytest.raises(Untrusted):
        Predictor.load(tmp_path, trust=False)
    assert not fired.exists()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        ("flavors: [1]", "names no flavors"),
        ("flavors: {sklearn: {pickled_model: ../../etc/passwd}}", "leads outside"),
        ("flavors: {lightgbm: {data: gone.lgb}}", "is missing"),
        ("flavors: {xgboost: {data: MLmodel, model_class: os.system}}", "not a class of XGBoost"),
        ("flavors: {onnx: {data: MLmodel}}", "onnxruntime cannot open it"),
        ("flavors: {sklearn: {}}", "names no model file"),
    ],
)
def test_a_damaged_or_hostile_mlmodel_is_a_bad_folder(tmp_path, text, match):
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(BadModelFolder, match=match):
        Predictor.load(tmp_path, trust=True)


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"flavor": 3}', "{"])
def test_a_damaged_sidecar_is_a_bad_folder(forest, content):
    (forest / "modelyard.json").write_text(content)
    with pytest.raises(BadModelFolder, match="modelyard.json"):
        read_info(forest)


@pytest.mark.parametrize("content", ["", "tree\nnonsense", "tree\nversion=v4\nnum_class=1\n"])
def test_a_damaged_tree_text_is_a_bad_folder(tmp_path, content):
    frame = numbers()
    save_model(lightgbm.LGBMClassifier(**LGBM).fit(frame, target(frame)), tmp_path / "m", data=frame)
    (tmp_path / "m/model.lgb").write_text(content)
    with pytest.raises(BadModelFolder):
        Predictor.load(tmp_path / "m", trust=False)


def test_a_damaged_pickle_is_a_bad_folder(forest):
    (forest / "model.pkl").write_bytes(b"\x80\x04nonsense")
    with pytest.raises(BadModelFolder, match="cannot be unpickled"):
        Predictor.load(forest, trust=True)


def test_a_confined_child_describes_a_pickled_model(forest):
    assert inspect_confined(forest, timeout_s=120) == {
        "flavor": "sklearn",
        "model_class": "sklearn.ensemble._forest.RandomForestClassifier",
        "task": "binary",
        "classes": [0, 1],
        "engine": "own",
    }


def test_a_confined_child_verifies_a_model(tmp_path):
    frame = numbers()
    save_model(LogisticRegression(max_iter=2000).fit(frame, target(frame)), tmp_path / "m", data=frame)
    record = verify_confined(tmp_path / "m", records(frame)[:50], timeout_s=120)
    assert (record.engine, record.passed, record.rows) == ("linear", True, 100)


def test_a_model_that_cannot_be_loaded_is_a_failure_of_the_child(forest):
    (forest / "model.pkl").write_bytes(b"\x80\x04nonsense")
    with pytest.raises(ConfinedFailure, match="bad_model_folder") as caught:
        inspect_confined(forest, timeout_s=120)
    assert caught.value.reason == "error"


# Targets of run_confined; this module is imported in the child.


@pytest.fixture
def targets(tmp_path, monkeypatch):
    folder = tmp_path / "targets"
    folder.mkdir()
    (folder / "confined_targets.py").write_text(
        """
import os, socket, subprocess, sys, time

def surroundings():
    return {"cwd": os.getcwd(), "mode": oct(os.stat(".").st_mode & 0o777), "env": dict(os.environ),
            "interfaces": [name for _, name in socket.if_nameindex()], "stdin": sys.stdin.read()}

def sleep(): time.sleep(600)
def spin():
    while True: pass
def swallow(): return len(bytearray(8 << 30))
def die(): os._exit(7)
def fail(): raise ValueError("no such thing")
def chatter():
    print("x" * 100000); sys.stderr.write("y" * 100000); return {"a": [1, None, "ü"]}
def unjsonable(): return {1, 2}
def leave_child(path):
    code = f"import os, time; open({path!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", code])
    while not os.path.exists(path) or not open(path).read(): pass
    return None
"""
    )
    monkeypatch.syspath_prepend(str(folder))
    return "confined_targets"


def test_the_child_has_no_secrets_and_a_private_folder(targets, monkeypatch):
    monkeypatch.setenv("MODELYARD_SECRET", "hunter2")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    result = run_confined(f"{targets}:surroundings", {}, timeout_s=60)
    found = result.value
    assert "hunter2" not in str(found["env"])
    assert "PYTHONPATH" not in found["env"]
    assert found["env"]["HOME"] == found["cwd"]
    assert found["mode"] == "0o700"
    assert found["stdin"] == ""
    assert not Path(found["cwd"]).exists()
    assert not result.network_isolated or found["interfaces"] == ["lo"]


@pytest.mark.parametrize("target", ["sleep", "spin"])
def test_a_child_out_of_time_is_ended(targets, target):
    start = time.monotonic()
    with pytest.raises(ConfinedFailure) as caught:
        run_confined(f"{targets}:{target}", {}, timeout_s=1.0)
    assert caught.value.reason == "timeout"
    assert time.monotonic() - start < 30


def test_a_child_out_of_memory_says_so(targets):
    with pytest.raises(ConfinedFailure) as caught:
        run_confined(f"{targets}:swallow", {}, timeout_s=60, memory_bytes=1 << 30)
    assert caught.value.reason == "memory"


@pytest.mark.parametrize(
    ("target", "reason", "detail"),
    [("die", "crash", "exit status 7"), ("fail", "error", "no such thing"), ("unjsonable", "error", "set")],
)
def test_a_child_that_dies_or_raises_is_a_failure_with_its_reason(targets, target, reason, detail):
    with pytest.raises(ConfinedFailure, match=detail) as caught:
        run_confined(f"{targets}:{target}", {}, timeout_s=60)
    assert caught.value.reason == reason
    assert caught.value.facts["reason"] == reason


def test_what_a_child_prints_does_not_disturb_its_answer(targets):
    assert run_confined(f"{targets}:chatter", {}, timeout_s=60).value == {"a": [1, None, "ü"]}


def test_nothing_that_a_child_started_outlives_it(targets, tmp_path):
    path = tmp_path / "pid"
    run_confined(f"{targets}:leave_child", {"path": str(path)}, timeout_s=60)
    pid = int(path.read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and is_running(pid):
        pass
    assert not is_running(pid)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
