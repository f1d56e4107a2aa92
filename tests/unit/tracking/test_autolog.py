"""The hooks record the outermost fit, change nothing, and break nothing."""

import json
import logging
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelyard.tracking import RunRecorder, Transport
from modelyard.tracking.capture import capture_context, content_digest, uninstall, unpack_profile


class Kept:
    """What arrived at the service, by kind."""

    def __init__(self):
        self.params, self.tags, self.metrics, self.inputs, self.files, self.objects = {}, {}, {}, [], {}, {}

    def send(self, batch):
        self.params |= batch.params
        self.tags |= batch.tags
        self.inputs += batch.inputs
        self.files |= {each.path: self.objects[each.digest] for each in batch.artifacts}
        for key, points in batch.metrics.items():
            self.metrics.setdefault(key, {}).update(zip(points.steps, points.values, strict=True))

    def upload(self, content):
        import hashlib

        digest = hashlib.sha256(content).hexdigest()
        self.objects[digest] = content
        return digest

    def json(self, path):
        return json.loads(self.files[path])


@pytest.fixture
def kept():
    return Kept()


@pytest.fixture
def recorder(kept, tmp_path):
    recorder = RunRecorder("run1", Transport(kept.send, kept.upload), spool=tmp_path)
    yield recorder
    recorder.close()


@pytest.fixture(autouse=True)
def clean():
    yield
    uninstall()


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.normal(size=120), "b": random.normal(size=120)})
    return frame, (frame["a"] + 0.1 * random.normal(size=120) > 0).astype(int).rename("left")


def test_estimator_is_recorded_with_its_data(recorder, kept, data):
    rows, y = data
    with capture_context(recorder):
        model = LogisticRegression(C=0.5).fit(rows, y)
    recorder.flush()
    assert kept.params["C"] == "0.5"
    assert kept.tags["estimator"].endswith("LogisticRegression")
    assert kept.metrics["training_accuracy"] == {0: model.score(rows, y)}
    (dataset,) = kept.inputs
    assert dataset.digest == content_digest(rows.assign(left=y))
    assert set(unpack_profile(kept.objects[dataset.profile_digest]).columns) == {"a", "b", "left"}
    assert [column["name"] for column in kept.json("signature.json")["inputs"]] == ["a", "b"]


def test_only_the_outermost_fit_counts(recorder, kept, data):
    rows, y = data
    with capture_context(recorder):
        pipeline = make_pipeline(StandardScaler(), LogisticRegression())
        GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=2).fit(rows, y)
    recorder.flush()
    assert kept.tags["estimator"].endswith("GridSearchCV")
    assert len(kept.inputs) == 1
    assert kept.params["best_logisticregression__C"] in {"0.1", "1.0"}
    assert 0 < kept.metrics["best_cv_score"][0] <= 1
    assert not any(key.startswith("fit2.") for key in kept.params)


def test_second_fit_gets_a_prefix_and_a_transformer_none(recorder, kept, data):
    rows, y = data
    with capture_context(recorder):
        scaled = StandardScaler().fit_transform(rows)
        LogisticRegression(C=2.0).fit(scaled, y)
        LinearRegression(positive=True).fit(rows, y)
    recorder.flush()
    assert "with_mean" not in kept.params
    assert kept.params["C"] == "2.0"
    assert kept.params["fit2.positive"] == "True"
    assert "fit2.training_r2" in kept.metrics
    assert "fit2/signature.json" in kept.files


def test_lists_and_sparse_matrices_have_a_signature_too(recorder, kept, caplog):
    import scipy.sparse as sp

    with capture_context(recorder):
        LogisticRegression().fit([[0.0], [1.0]], [0, 1])
        LogisticRegression().fit(sp.csr_matrix([[0.0], [1.0]]), [0, 1])
    recorder.flush()
    assert len(kept.json("signature.json")["inputs"]) == len(kept.json("fit2/signature.json")["inputs"]) == 1
    assert caplog.records == []


def test_forest_has_importance(recorder, kept, data):
    rows, y = data
    with capture_context(recorder):
        RandomForestClassifier(5, random_state=0).fit(rows, y)
    recorder.flush()
    assert list(kept.json("feature_importance.json"))[0] == "a"


def test_nothing_is_recorded_outside_a_run(recorder, kept, data):
    rows, y = data
    with capture_context(recorder):
        pass
    LogisticRegression().fit(rows, y)
    lgb.train({"verbose": -1}, lgb.Dataset(rows, y), 2)
    recorder.flush()
    assert kept.params == {}
    assert kept.inputs == []


def test_results_and_random_numbers_are_the_same_with_and_without(recorder, data):
    rows, y = data

    def train():
        np.random.seed(7)
        forest = RandomForestClassifier(5).fit(rows, y)
        after_forest = np.random.random()
        booster = lgb.train({"verbose": -1, "seed": 1, "num_threads": 1}, lgb.Dataset(rows, y), 3)
        deep = xgb.train({"seed": 1, "nthread": 1}, xgb.DMatrix(rows, y), 3)
        return forest.predict_proba(rows), after_forest, booster.model_to_string(), bytes(deep.save_raw())

    plain = train()
    with capture_context(recorder):
        captured = train()
    assert np.array_equal(plain[0], captured[0])
    assert plain[1:] == captured[1:]


def test_lightgbm_curves_parameters_and_importance(recorder, kept, data):
    rows, y = data
    seen = []
    with capture_context(recorder):
        train_set = lgb.Dataset(rows, y)
        callbacks = [lambda env: seen.append(env.iteration), lgb.early_stopping(3, verbose=False)]
        booster = lgb.train(
            {"objective": "binary", "verbose": -1, "metric": ["auc", "binary_logloss"]},
            train_set,
            6,
            valid_sets=[lgb.Dataset(rows, y, reference=train_set)],
            valid_names=["valid"],
            callbacks=callbacks,
        )
    recorder.flush()
    assert len(callbacks) == 2
    assert kept.params["objective"] == "binary"
    assert kept.params["num_boost_round"] == "6"
    assert list(kept.metrics["valid-auc"]) == seen
    assert kept.metrics["best_iteration"][0] == booster.best_iteration
    assert set(kept.json("feature_importance.json")) == {"a", "b"}
    assert kept.inputs[0].digest == content_digest(rows.assign(left=y))


def test_lightgbm_of_scikit_learn_has_curves_and_is_one_fit(recorder, kept, data):
    rows, y = data
    with capture_context(recorder):
        lgb.LGBMClassifier(n_estimators=4, verbose=-1).fit(rows, y, eval_X=rows, eval_y=y)
    recorder.flush()
    assert kept.params["n_estimators"] == "4"
    assert len(kept.metrics["valid_0-binary_logloss"]) == 4
    assert len(kept.inputs) == 1
    assert "num_boost_round" not in kept.params


def test_lightgbm_inside_a_search_is_not_recorded_by_itself(recorder, kept, data):
    rows, y = data
    with capture_context(recorder):
        search = GridSearchCV(lgb.LGBMClassifier(verbose=-1), {"n_estimators": [2, 3]}, cv=2)
        search.fit(rows, y, eval_X=rows, eval_y=y)
    recorder.flush()
    assert not any("logloss" in key for key in kept.metrics)


def test_xgboost_curves_parameters_and_importance(recorder, kept, data):
    rows, y = data
    result = {}
    with capture_context(recorder):
        matrix = xgb.DMatrix(rows, y)
        xgb.train(
            {"objective": "binary:logistic", "nthread": 1},
            matrix,
            5,
            evals=[(matrix, "train")],
            evals_result=result,
            verbose_eval=False,
        )
    recorder.flush()
    assert kept.params["objective"] == "binary:logistic"
    assert list(kept.metrics["train-logloss"].values()) == result["train"]["logloss"]
    assert next(iter(kept.json("feature_importance.json"))) == "a"
    assert json.loads(kept.inputs[0].schema)["rows"] == 120


def test_xgboost_of_scikit_learn_has_curves_and_is_one_fit(recorder, kept, data):
    rows, y = data
    with capture_context(recorder):
        xgb.XGBClassifier(n_estimators=4, n_jobs=1).fit(rows, y, eval_set=[(rows, y)], verbose=False)
    recorder.flush()
    assert kept.params["n_estimators"] == "4"
    assert len(kept.metrics["validation_0-logloss"]) == 4
    assert len(kept.inputs) == 1


def test_estimators_that_misbehave_do_not_bring_training_down(recorder, kept, data, caplog):
    class Odd(ClassifierMixin, BaseEstimator):
        def fit(self, rows, y):
            return self

        def get_params(self, deep=True):
            raise RuntimeError("no parameters")

        def predict(self, rows):
            raise RuntimeError("no predictions")

    rows, y = data
    with capture_context(recorder), caplog.at_level(logging.WARNING, "modelyard.tracking"):
        model = Odd()
        assert model.fit(rows, y) is model
        assert model.fit(rows, y) is model
    recorder.flush()
    assert sum("could not record parameters" in record.message for record in caplog.records) == 1
    assert kept.inputs


def test_errors_of_training_pass_through(recorder, data):
    rows, y = data
    with capture_context(recorder):
        with pytest.raises(ValueError, match="inconsistent"):
            LogisticRegression().fit(rows, y[:5])
        with pytest.raises(TypeError):
            LogisticRegression().fit()
        with pytest.raises(lgb.basic.LightGBMError):
            lgb.train({"objective": "nonsense", "verbose": -1}, lgb.Dataset(rows, y), 2)


def test_classes_defined_inside_a_run_are_recorded_and_stay_picklable(recorder, kept, data):
    import cloudpickle

    rows, y = data
    with capture_context(recorder):

        class Constant(ClassifierMixin, BaseEstimator):
            def __init__(self, value=1):
                self.value = value

            def fit(self, rows, y):
                self.classes_ = np.unique(y)
                return self

            def predict(self, rows):
                return np.full(len(rows), self.value)

        model = Constant().fit(rows, y)
        again = cloudpickle.loads(cloudpickle.dumps(model))
    recorder.flush()
    assert kept.params["value"] == "1"
    assert again.fit(rows, y).predict(rows)[0] == 1
    assert isinstance(pickle.loads(pickle.dumps(LogisticRegression().fit(rows, y))), LogisticRegression)


def test_everything_is_put_back(recorder):
    before = (LogisticRegression.fit, lgb.train, lgb.sklearn.train, xgb.train, xgb.sklearn.train)
    with capture_context(recorder):
        assert LogisticRegression.fit is not before[0]
        assert LogisticRegression.fit.__doc__ == before[0].__doc__
    uninstall()
    assert (LogisticRegression.fit, lgb.train, lgb.sklearn.train, xgb.train, xgb.sklearn.train) == before
    assert "__init_subclass__" not in vars(BaseEstimator)


def test_libraries_imported_later_are_hooked_and_none_is_imported_for_it(tmp_path):
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from modelyard.tracking import RunRecorder, Transport
        from modelyard.tracking.capture import capture_context

        batches = []
        recorder = RunRecorder("run1", Transport(batches.append, lambda content: "0" * 64), spool=Path(sys.argv[1]))
        with capture_context(recorder):
            assert not {"sklearn", "lightgbm", "xgboost", "pandas"} & set(sys.modules), "imported by the hooks"
            import lightgbm
            import sklearn.base
            from sklearn.linear_model import LogisticRegression
            assert hasattr(lightgbm.train, "__modelyard_original__")
            assert type(sklearn.base.__loader__).__name__ == "SourceFileLoader"
            LogisticRegression(C=0.25).fit([[0.0], [1.0]], [0, 1])
        recorder.flush()
        assert any(batch.params.get("C") == "0.25" for batch in batches)
        print("done")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(Path("src").resolve()), "PATH": ""},
        check=False,
    )
    assert done.stdout.strip() == "done", done.stderr
