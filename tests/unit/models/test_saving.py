import json
import pickle
import subprocess
import sys
from datetime import UTC, datetime

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
import yaml
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression

from modelyard.errors import Conflict, Invalid
from modelyard.models import (
    BadModelFolder,
    Predictor,
    Untrusted,
    check_digest,
    files,
    flavor_of,
    folder_digest,
    read_info,
    save_model,
)
from unit.models.model_samples import LGBM, categories, numbers, records, target

ENVIRONMENT = {"MLmodel", "conda.yaml", "modelyard.json", "python_env.yaml", "requirements.txt"}


def mlmodel(folder):
    return yaml.safe_load((folder / "MLmodel").read_text())


@pytest.mark.parametrize(
    ("make", "flavor", "files_of_it", "function", "own"),
    [
        (
            lambda x, y: LogisticRegression(max_iter=2000).fit(x, y),
            "sklearn",
            {"model.pkl", "native.json"},
            {"loader_module": "mlflow.sklearn", "model_path": "model.pkl", "predict_fn": "predict"},
            {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"},
        ),
        (
            lambda x, y: lightgbm.LGBMClassifier(**LGBM).fit(x, y),
            "lightgbm",
            {"model.pkl", "model.lgb", "native.json"},
            {"loader_module": "mlflow.lightgbm", "data": "model.pkl"},
            {"data": "model.pkl", "model_class": "lightgbm.sklearn.LGBMClassifier"},
        ),
        (
            lambda x, y: lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(x, y), 3),
            "lightgbm",
            {"model.lgb", "native.json"},
            {"loader_module": "mlflow.lightgbm", "data": "model.lgb"},
            {"data": "model.lgb", "model_class": "lightgbm.basic.Booster"},
        ),
        (
            lambda x, y: xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(x, y),
            "xgboost",
            {"model.ubj"},
            {"loader_module": "mlflow.xgboost", "data": "model.ubj"},
            {"data": "model.ubj", "model_class": "xgboost.sklearn.XGBClassifier", "model_format": "ubj"},
        ),
        (
            lambda x, y: lambda table: table["f0"],
            "python",
            {"python_model.pkl"},
            {"loader_module": "mlflow.pyfunc.model", "python_model": "python_model.pkl"},
            None,
        ),
    ],
    ids=["sklearn", "lightgbm wrapper", "lightgbm booster", "xgboost", "callable"],
)
def test_the_folder_is_an_mlflow_model(tmp_path, *, make, flavor, files_of_it, function, own):
    frame = numbers()
    save_model(make(frame, target(frame)), tmp_path / "m", data=frame)
    assert {f.path for f in files(tmp_path / "m")} == ENVIRONMENT | files_of_it
    document = mlmodel(tmp_path / "m")
    assert set(document["flavors"]) == {"python_function"} | ({flavor} if own else set())
    assert function.items() <= document["flavors"]["python_function"].items()
    assert document["flavors"]["python_function"]["env"] == {
        "conda": "conda.yaml",
        "virtualenv": "python_env.yaml",
    }
    if own:
        assert own.items() <= document["flavors"][flavor].items()
    assert [c["name"] for c in json.loads(document["signature"]["inputs"])] == list(frame)
    assert len(document["model_uuid"]) == 32
    requirements = (tmp_path / "m/requirements.txt").read_text().split()
    assert f"numpy=={np.__version__}" in requirements
    conda = yaml.safe_load((tmp_path / "m/conda.yaml").read_text())
    assert conda["dependencies"][-1] == {"pip": requirements}
    assert yaml.safe_load((tmp_path / "m/python_env.yaml").read_text())["dependencies"] == ["-r requirements.txt"]


def test_the_pickles_of_sklearn_and_lightgbm_open_without_modelyard(tmp_path):
    frame = numbers()
    for name, model in {
        "a": RandomForestRegressor(3, random_state=0).fit(frame, frame["f0"]),
        "b": lightgbm.LGBMRegressor(**LGBM).fit(frame, frame["f0"]),
    }.items():
        save_model(model, tmp_path / name, data=frame)
        opened = pickle.loads((tmp_path / name / "model.pkl").read_bytes())
        np.testing.assert_array_equal(opened.predict(frame), model.predict(frame))


class Doubler:
    factor = 2

    def predict(self, table):
        return table["x"] * self.factor


@pytest.mark.parametrize("model", [Doubler(), lambda table: table["x"] * 2], ids=["object", "lambda"])
def test_a_python_model_opens_as_mlflow_calls_it_in_a_process_without_modelyard_or_this_test(tmp_path, model):
    save_model(model, tmp_path / "m", data=pd.DataFrame({"x": [1.0, 2.0]}))
    # What mlflow.pyfunc does: unpickle, load_context, read the hints, predict(context, input, params=).
    script = """
import cloudpickle, inspect, pandas, sys
assert not any("modelyard" in m or "unit.models" in m for m in sys.modules)
model = cloudpickle.load(open(sys.argv[1], "rb"))
assert model.predict_type_hints.input is None
model.load_context(context=None)
assert list(inspect.signature(model.predict).parameters) == ["context", "model_input", "params"]
print(model.predict(None, pandas.DataFrame({"x": [3.0, 4.0]}), params=None).tolist())
assert not any("modelyard" in m or "unit.models" in m for m in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(tmp_path / "m/python_model.pkl")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.stderr == ""
    assert done.stdout.strip() == "[6.0, 8.0]"


def test_requirements_name_the_libraries_inside_a_pipeline(tmp_path):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    frame = numbers()
    model = make_pipeline(StandardScaler(), lightgbm.LGBMRegressor(**LGBM))
    model.fit(frame.to_numpy(), frame["f0"])
    save_model(model, tmp_path / "m", data=frame.to_numpy())
    assert {"scikit-learn", "lightgbm"} <= set(read_info(tmp_path / "m").versions)


def test_a_lightgbm_folder_of_mlflow_is_opened(tmp_path):
    """As MLflow 3 writes it: the booster's text, a signature of column specs, and no sidecar of ours."""
    frame = categories().drop(columns="plan")
    model = lightgbm.LGBMClassifier(**LGBM).fit(frame, target(frame))
    types = {"count": "long", "city": "string"}
    inputs = [
        {"type": types.get(name, "double"), "name": name, "required": name not in {"f1", "city"}} for name in frame
    ]
    model.booster_.save_model(tmp_path / "model.lgb")
    flavors = {"lightgbm": {"data": "model.lgb", "model_class": "lightgbm.basic.Booster"}}
    write(tmp_path, flavors, {"inputs": json.dumps(inputs), "outputs": None, "params": None})
    predictor = Predictor.load(tmp_path, trust=False)
    assert (predictor.engine, predictor.traits.task) == ("lightgbm-c", "binary")
    expected = model.predict_proba(frame)[:, 1]
    np.testing.assert_array_equal(predictor.predict(frame).scores, expected)
    np.testing.assert_array_equal(predictor.predict_rows(records(frame)[:20]).scores, expected[:20])


def test_a_scikit_learn_folder_of_mlflow_is_opened_once_trusted(tmp_path):
    frame = numbers()
    forest = RandomForestRegressor(3, random_state=0).fit(frame, frame["f0"])
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(forest))
    write(tmp_path, {"sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}}, None)
    with pytest.raises(Untrusted):
        Predictor.load(tmp_path, trust=False)
    found = Predictor.load(tmp_path, trust=True).predict(frame)
    np.testing.assert_array_equal(found.scores, forest.predict(frame))


def write(folder, flavors, signature):
    document = {"flavors": {**flavors, "python_function": {"loader_module": "mlflow.x"}}}
    if signature:
        document["signature"] = signature
    (folder / "MLmodel").write_text(yaml.safe_dump(document))


def test_an_xgboost_folder_of_mlflow_is_opened(tmp_path):
    frame = numbers()
    model = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(frame, target(frame))
    model.save_model(tmp_path / "model.ubj")
    write(tmp_path, {"xgboost": {"data": "model.ubj", "model_class": "xgboost.sklearn.XGBClassifier"}}, None)
    found = Predictor.load(tmp_path, trust=False).predict(frame)
    np.testing.assert_array_equal(found.scores, model.predict_proba(frame)[:, 1])


def test_an_example_is_stored_only_when_given(tmp_path):
    frame = categories()
    model = lightgbm.LGBMClassifier(**LGBM).fit(frame, target(frame))
    save_model(model, tmp_path / "a", data=frame)
    assert not (tmp_path / "a/input_example.json").exists()
    save_model(model, tmp_path / "b", input_example=frame)
    example = json.loads((tmp_path / "b/input_example.json").read_text())
    assert example["columns"] == list(frame)
    assert len(example["data"]) == 5
    assert mlmodel(tmp_path / "b")["saved_input_example_info"]["artifact_path"] == "input_example.json"


def test_metadata_and_time_are_stored(tmp_path):
    frame = numbers()
    model = lightgbm.LGBMRegressor(**LGBM).fit(frame, frame["f0"])
    save_model(model, tmp_path / "m", data=frame, metadata={"run": "r1"}, created=datetime(2026, 1, 2, 3, tzinfo=UTC))
    document = mlmodel(tmp_path / "m")
    assert document["metadata"] == {"run": "r1"}
    assert document["utc_time_created"] == "2026-01-02 03:00:00"
    assert read_info(tmp_path / "m").metadata == {"run": "r1"}


def test_equal_models_give_equal_folders_and_a_changed_byte_another(tmp_path):
    frame = numbers()
    model = lightgbm.LGBMRegressor(**LGBM).fit(frame, frame["f0"])
    for name in ("a", "b"):
        save_model(model, tmp_path / name, data=frame)
    digest = folder_digest(tmp_path / "a")
    assert digest == folder_digest(tmp_path / "b")
    check_digest(tmp_path / "b", digest)
    path = tmp_path / "b/model.lgb"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadModelFolder, match="a file was changed"):
        check_digest(tmp_path / "b", digest)


def test_the_digest_sees_names_and_refuses_links(tmp_path):
    (tmp_path / "m/sub").mkdir(parents=True)
    (tmp_path / "m/sub/x").write_text("1")
    first = folder_digest(tmp_path / "m")
    (tmp_path / "m/sub/x").rename(tmp_path / "m/sub/y")
    assert folder_digest(tmp_path / "m") != first
    (tmp_path / "secret").write_text("2")
    (tmp_path / "m/link").symlink_to(tmp_path / "secret")
    with pytest.raises(BadModelFolder, match="'link' is a link"):
        folder_digest(tmp_path / "m")


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/kept").write_text("1")
    with pytest.raises(Conflict, match="not empty"):
        save_model(lambda table: table, tmp_path / "m")
    assert [f.path for f in files(tmp_path / "m")] == ["kept"]


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(Invalid, match="got int"):
        save_model(7, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_users_subclass_is_not_taken_for_the_library_class():
    class Mine(lightgbm.LGBMClassifier):
        pass

    assert flavor_of(Mine()) == "sklearn"
    assert flavor_of(lightgbm.LGBMClassifier()) == "lightgbm"
